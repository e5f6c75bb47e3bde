"""The sections of the report, one in each file of this folder. A section appears if it has something to draw."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from experiments.pages.section import Section

__all__ = ["all_sections"]


def all_sections() -> list[Section[Any]]:
    """The ``SECTION`` of each file of this folder, in the order of the page.

    Raises:
        TypeError: If a file declares no ``SECTION``.
        ValueError: If two sections have the same name, because it is an anchor of the page.
    """
    found: dict[str, Section[Any]] = {}
    for module in pkgutil.iter_modules(__path__):
        section = getattr(importlib.import_module(f"{__name__}.{module.name}"), "SECTION", None)
        if not isinstance(section, Section):
            raise TypeError(
                f"{module.name}.py of the report's sections must declare `SECTION`, a Section, got {section!r}."
            )
        if section.name in found:
            raise ValueError(
                f"{module.name}.py: a section named {section.name!r} is there already, give it another name."
            )
        found[section.name] = section
    return sorted(found.values(), key=lambda section: (section.order, section.name))
