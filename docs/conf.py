"""Builds the site: ``make docs``. Sphinx, furo and MyST are what Gymnasium's and Stable-Baselines3's readers know.

MyST-NB runs the tutorials. It reads notebooks and pages by the same parser; nbsphinx would need pandoc, too.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import os
import re
import sys
import tomllib
from abc import ABC
from pathlib import Path
from typing import get_origin

import gymnasium as gym
from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

_PYPROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]

project = _PYPROJECT["name"]
author = "the jobrec-gym contributors"
copyright = f"2026, {author}"
version = release = _PYPROJECT["version"]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "reference",
]
exclude_patterns = ["_extensions"]

myst_enable_extensions = ["deflist", "fieldlist"]
myst_heading_anchors = 4

# Notebooks are kept without outputs and run anew: what they print is what this version does.
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 300  # seconds; on an idle machine a cell takes a few seconds, on a busy one far more
nb_merge_streams = True
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the notebooks' kernels: small networks are faster on one thread
# MyST warns of a page whose headings do not begin at level 1, such as a page that includes a part of the README.
suppress_warnings = ["myst.header"]

default_role = "code"  # `x` in a docstring is code, as it is in the pages
autodoc_default_options = {"members": True, "member-order": "bysource", "show-inheritance": True}
autodoc_typehints_format = "short"
toc_object_entries = False  # a page about one class needs no entries, and every page would get a copy of each entry
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # an attribute is described only in the docstring of its class
napoleon_attr_annotations = False
add_module_names = False

# Nothing is fetched at build time, so names of other projects cannot be links. Names of this project must be links.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(?!jobrec_gym|dynaq_algo).*"),
    ("py:class", r"[\w.]+\.[A-Z]"),  # a type variable has no entry to link to
]

html_theme = "furo"
html_title = f"{project} {version}"
html_copy_source = False
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]

_MARKER = re.compile(r"^<!-- site: (?P<verb>docstring|autoclass) (?P<name>[\w.]+) -->$", re.MULTILINE)
_ARRAY = re.compile(r"~?numpy\.ndarray\[tuple\[[^]]*\], ~?numpy\.dtype\[([^]]*)\]\]")
_SECTION = re.compile(r"^(?P<title>Args|Raises):\n(?P<body>(?:[ ]{4}.*\n|\n)+)", re.MULTILINE)
_ENTRY = re.compile(r"^(?P<name>[\w*]+): (?P<text>.*(?:\n[ ]{4}.*)*)", re.MULTILINE)


def _object(name: str) -> type:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def docstring_as_markdown(documented: type) -> str:
    """Turns a docstring of Markdown into a part of a page.

    Only ``Args``, ``Raises`` and roles are written in it as in every other docstring.
    """
    text = f"{inspect.getdoc(documented)}\n"

    def section(match: re.Match[str]) -> str:
        entries = [
            f"`{entry['name']}`\n: {' '.join(entry['text'].split())}"
            for entry in _ENTRY.finditer(inspect.cleandoc(match["body"]))
        ]
        head = "" if match["title"] == "Args" else f"**{match['title']}**\n\n"
        return head + "\n\n".join(entries) + "\n\n"

    return _spaces(documented) + re.sub(
        r":(func|class|meth|mod|data|attr|exc):`", r"{\1}`", _SECTION.sub(section, text)
    )


def _spaces(documented: type) -> str:
    """The table on top of an environment's page, like those of Gymnasium's environments."""
    entry_point = f"{documented.__module__}:{documented.__qualname__}"
    (env_id,) = (spec.id for spec in gym.registry.values() if spec.entry_point == entry_point)
    env = gym.make(env_id)
    observation = "<br>".join(f"`{key}`: `{space}`" for key, space in env.observation_space.items())
    return (
        "| | |\n|---|---|\n"
        f'| Creation | `gymnasium.make("{env_id}")` |\n'
        f"| Action space | `{env.action_space}` |\n"
        f"| Observation space | {observation} |\n\n"
    )


def fill_markers(app: Sphinx, docname: str, source: list[str]) -> None:
    """Replaces markers such as ``<!-- site: docstring jobrec_gym.env.JobRecEnv -->`` by the text that they name.

    Markers are comments so that the page can be read in the repository too.
    """

    def filled(match: re.Match[str]) -> str:
        if match["verb"] == "docstring":
            return docstring_as_markdown(_object(match["name"]))
        # Members that the class inherits from this project are listed; those from Stable-Baselines3 (DQN) are not.
        return f"```{{eval-rst}}\n.. autoclass:: {match['name']}\n   :inherited-members: DQN\n```"

    source[0] = _MARKER.sub(filled, source[0])


def shorten_pages(app: Sphinx, what: str, name: str, documented: object, options: object, lines: list[str]) -> None:
    """Cuts a docstring that is a page of its own down to its first paragraph, arguments and errors."""
    if "## Description" not in lines:
        return
    kept = lines[: lines.index("## Description")]
    text = "\n".join([*lines, ""])
    for match in re.finditer(r"^:(?:param|raises|type)\b.*\n(?:[ ]+.*\n)*", text, re.MULTILINE):
        kept += match.group().splitlines()
    lines[:] = [*kept, ""]


def hide_private_bases(app: Sphinx, name: str, documented: type, options: object, bases: list[type]) -> None:
    """Replaces private bases of a class by their public bases, and removes type parameters from all bases.

    ``ABC`` and ``RecordConstructorArgs`` are left out, because they tell a reader nothing about the class.
    """
    bases[:] = [get_origin(base) or base for base in bases]
    while private := [base for base in bases if base.__name__.startswith("_")]:
        place = bases.index(private[0])
        bases[place : place + 1] = [base for base in private[0].__bases__ if base is not object]
    bases[:] = dict.fromkeys(base for base in bases if base not in (ABC, gym.utils.RecordConstructorArgs))


def shorten_arrays(
    app: Sphinx, what: str, name: str, documented: object, options: object, signature: str | None, returns: str | None
) -> tuple[str, str | None] | None:
    """Writes ``NDArray[float64]`` in place of the long type that numpy's alias stands for."""
    if signature is None:
        return None
    return _ARRAY.sub(r"NDArray[\1]", signature), returns and _ARRAY.sub(r"NDArray[\1]", returns)


_MISSED = {
    'class="caption" role="heading"': 'class="caption" role="heading" aria-level="2"',
    '<aside class="sidebar-drawer"': '<aside aria-label="Site" class="sidebar-drawer"',
    '<aside class="toc-drawer': '<aside aria-label="This page" class="toc-drawer',
    '<dl>\n<dd><em class="sig-param"': '<dl role="none">\n<dd><em class="sig-param"',
}
"""Replacements in the theme's HTML for screen readers: heading levels, names of landmarks, the role of some lists."""


def complete_roles(app: Sphinx, exception: Exception | None) -> None:
    """Makes the replacements of ``_MISSED`` in all finished pages."""
    for path in Path(app.outdir).rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        for old, new in _MISSED.items():
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Connects the functions above to Sphinx's events."""
    logging.getLogger("traitlets").setLevel(logging.WARNING)  # else it logs each notebook that is run
    # A glob pattern in `index.md` may match no page yet. Sphinx's warning about it is dropped.
    logging.getLogger("sphinx.sphinx.directives.other").addFilter(lambda record: "toctree glob" not in str(record.msg))
    app.connect("source-read", fill_markers)
    app.connect("autodoc-process-bases", hide_private_bases)
    app.connect("autodoc-process-signature", shorten_arrays)
    app.connect("build-finished", complete_roles)
    # `shorten_pages` reads fields, so it runs after napoleon, which turns sections into fields.
    app.connect("autodoc-process-docstring", shorten_pages, priority=600)
