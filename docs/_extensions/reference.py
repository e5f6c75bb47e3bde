"""The reference: a page for each public class, made from markers in ``docs/api``, and a search without inner parts.

A page of ``docs/api`` says ``<!-- site: module jobrec_gym.wrappers -->`` where the module's docstring, a table of
its classes, and its functions are inserted. Each class of the table gets a page of its own beneath ``api/classes``,
which git ignores. ``without A B`` leaves out the names A and B, which another page documents.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from sphinx.application import Sphinx
from sphinx.domains.python import PythonDomain
from sphinx.pycode import ModuleAnalyzer

__all__ = ["ModuleOfReference", "setup"]

_MARKER = re.compile(r"^<!-- site: module (?P<name>[\w.]+)(?: without (?P<without>[\w ]+))? -->$", re.MULTILINE)
_CLASSES = "api/classes"
_INNER = "api/inner"
"""Pages whose names begin with this text are about inner parts: no search finds these pages."""


@dataclass(frozen=True)
class ModuleOfReference:
    """A module as the reference shows it.

    Args:
        name: Name of the module, with its dots.
        without: Names of its ``__all__`` that are documented elsewhere.
    """

    name: str
    without: frozenset[str] = frozenset()

    @classmethod
    def on_page(cls, text: str) -> Iterator[ModuleOfReference]:
        """The modules that the markers of a page name."""
        for marker in _MARKER.finditer(text):
            yield cls.of(marker)

    @classmethod
    def of(cls, marker: re.Match[str]) -> ModuleOfReference:
        """The module that a marker names."""
        return cls(marker["name"], frozenset((marker["without"] or "").split()))

    @cached_property
    def module(self) -> ModuleType:
        """The module itself."""
        return importlib.import_module(self.name)

    @cached_property
    def members(self) -> dict[str, Any]:
        """Public names and what they stand for, in the order of ``__all__``."""
        unknown = self.without.difference(self.module.__all__)
        if unknown:
            raise ValueError(f"{self.name} has no {sorted(unknown)} to leave out.")
        return {name: getattr(self.module, name) for name in self.module.__all__ if name not in self.without}

    @property
    def classes(self) -> dict[str, type]:
        """The members that are classes. Each of them gets a page."""
        return {name: member for name, member in self.members.items() if inspect.isclass(member)}

    def as_rst(self) -> str:
        """The reStructuredText that replaces the marker of this module."""
        parts = [f".. automodule:: {self.name}\n   :no-members:"]
        if self.classes:
            rows = [
                f"   * - :class:`~{self.name}.{name}`\n     - {(inspect.getdoc(member) or '').splitlines()[0]}"
                for name, member in self.classes.items()
            ]
            parts.append("\n".join([".. list-table::", "   :widths: 30 70", "   :align: left", "", *rows]))
        described = {name for _, name in ModuleAnalyzer.for_module(self.name).find_attr_docs()}
        for name, member in self.members.items():
            if inspect.isfunction(member):
                parts.append(f".. autofunction:: {self.name}.{name}")
            elif name in described and name not in self.classes:
                parts.append(f".. autodata:: {self.name}.{name}")
        return "\n\n".join(parts)

    def page_of(self, name: str) -> str:
        """The page of a class, as reStructuredText."""
        face = self.name.split(".")[0]
        origin = face if name in importlib.import_module(face).__all__ else self.name
        # An orphan is in no table of contents: a hundred classes in every page's navigation would take time.
        lines = [":orphan:", "", name, "=" * len(name), ""]
        lines += [f"``from {origin} import {name}`` (:doc:`all of {face} </api/{face}>`)", ""]
        methods = [
            f":meth:`~{self.name}.{name}.{method}`"
            for method, what in vars(self.classes[name]).items()
            if not method.startswith("_")
            and isinstance(what, staticmethod | classmethod | type(lambda: 0))
            and inspect.getdoc(getattr(self.classes[name], method))
        ]
        if len(methods) > 1:
            lines += [f"Methods: {', '.join(methods)}.", ""]
        return "\n".join([*lines, f".. autoclass:: {self.name}.{name}", ""])


class PublicFirst(PythonDomain):
    """The domain of Python's objects. A search finds only public objects, and each class once."""

    def get_objects(self) -> Iterator[tuple[str, str, str, str, str, int]]:
        """The objects for the search, as in every domain; a priority of -1 hides an object from the search."""
        for name, shown, kind, page, anchor, priority in super().get_objects():
            # The search finds a class's page by its title already.
            is_hidden = page.startswith(_INNER) or page == f"{_CLASSES}/{name}"
            yield name, shown, kind, page, anchor, -1 if is_hidden else priority


def _write_pages(app: Sphinx) -> None:
    """Writes each class's page if it is missing or has changed, and removes pages that no marker asks for."""
    folder = Path(app.srcdir) / _CLASSES
    folder.mkdir(exist_ok=True)
    wanted = {}
    for page in sorted((Path(app.srcdir) / "api").glob("*.md")):
        for module in ModuleOfReference.on_page(page.read_text()):
            wanted |= {folder / f"{module.name}.{name}.rst": module.page_of(name) for name in module.classes}
    for old in set(folder.iterdir()) - wanted.keys():
        old.unlink()
    for path, text in wanted.items():
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def _fill_modules(app: Sphinx, docname: str, source: list[str]) -> None:
    source[0] = _MARKER.sub(lambda marker: f"```{{eval-rst}}\n{ModuleOfReference.of(marker).as_rst()}\n```", source[0])


@dataclass(frozen=True)
class SharedNavigation:
    """One navigation for all pages of classes and of source code at the same depth of folders.

    The navigation lists none of these pages, so only relative links, which depend on the depth, differ between them.
    """

    kept: dict[Any, str] = field(default_factory=dict)

    def __call__(self, app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object) -> None:
        """Gives a page of a class or of source code the navigation that was computed for another page of its depth."""
        if not pagename.startswith(("_modules/", f"{_CLASSES}/")):
            return
        toctree, depth = context["toctree"], pagename.count("/")

        def shared(**options: Any) -> str:
            key = (depth, *sorted(options.items()))
            if key not in self.kept:
                self.kept[key] = toctree(**options)
            return self.kept[key]

        context["toctree"] = shared


def setup(app: Sphinx) -> dict[str, Any]:
    """Connects the functions and classes above to Sphinx."""
    app.add_domain(PublicFirst, override=True)
    app.connect("builder-inited", _write_pages)
    app.connect("source-read", _fill_modules)
    app.connect("html-page-context", SharedNavigation(), priority=400)  # before the theme asks for the navigation
    return {"parallel_read_safe": True, "parallel_write_safe": True}
