"""Builds the site: ``make docs``. Sphinx, furo and MyST are what Gymnasium's and Stable-Baselines3's readers know.

MyST-NB runs the tutorials. It reads notebooks and pages by the same parser; nbsphinx would need pandoc beside it.
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
nb_execution_timeout = 300  # seconds a cell, on a machine that does much else; alone each takes a few
nb_merge_streams = True
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for their kernels: small networks are faster on one thread
# A part of the README, with its level of headings, is a page.
suppress_warnings = ["myst.header"]

default_role = "code"  # `x` in a docstring is code, as it is in the pages
autodoc_default_options = {"members": True, "member-order": "bysource", "show-inheritance": True}
autodoc_typehints_format = "short"
toc_object_entries = False  # a page a class needs none, and each would be copied into the navigation of every page
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # an attribute is described once, where the class is
napoleon_attr_annotations = False
add_module_names = False

# Nothing is fetched at build time, so names of other projects lead nowhere; names of this one must lead somewhere.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(?!jobrec_gym|dynaq_algo).*"),
    ("py:class", r"[\w.]+\.[A-Z]"),  # a type variable has no place of its own
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
    """A docstring in Gymnasium's form (Markdown, but arguments and roles as everywhere) as a piece of a page."""
    text = f"{inspect.getdoc(documented)}\n"

    def section(match: re.Match[str]) -> str:
        entries = [
            f"`{entry['name']}`\n: {' '.join(entry['text'].split())}"
            for entry in _ENTRY.finditer(inspect.cleandoc(match["body"]))
        ]
        head = "" if match["title"] == "Args" else f"**{match['title']}**\n\n"
        return head + "\n\n".join(entries) + "\n\n"

    return _spaces() + re.sub(r":(func|class|meth):`", r"{\1}`", _SECTION.sub(section, text))


def _spaces() -> str:
    """The table on top of an environment's page, as Gymnasium has it."""
    env = gym.make("JobRec-v0")
    observation = "<br>".join(f"`{key}`: `{space}`" for key, space in env.observation_space.items())
    return (
        "| | |\n|---|---|\n"
        '| Creation | `gymnasium.make("JobRec-v0")` |\n'
        f"| Action space | `{env.action_space}` |\n"
        f"| Observation space | {observation} |\n\n"
    )


def fill_markers(app: Sphinx, docname: str, source: list[str]) -> None:
    """Puts in what comments such as ``<!-- site: docstring jobrec_gym.env.JobRecEnv -->`` ask for.

    Comments, so that the page can be read in the repository too.
    """

    def filled(match: re.Match[str]) -> str:
        if match["verb"] == "docstring":
            return docstring_as_markdown(_object(match["name"]))
        # What it inherits from this project, and not what that inherits from Stable-Baselines3.
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
    """Names the public classes behind private ones, without their parameters, and none that say how it is made."""
    bases[:] = [get_origin(base) or base for base in bases]
    while private := [base for base in bases if base.__name__.startswith("_")]:
        place = bases.index(private[0])
        bases[place : place + 1] = [base for base in private[0].__bases__ if base is not object]
    bases[:] = dict.fromkeys(base for base in bases if base not in (ABC, gym.utils.RecordConstructorArgs))


def shorten_arrays(
    app: Sphinx, what: str, name: str, documented: object, options: object, signature: str | None, returns: str | None
) -> tuple[str, str | None] | None:
    """Writes ``NDArray[float64]`` where numpy's alias was unfolded."""
    if signature is None:
        return None
    return _ARRAY.sub(r"NDArray[\1]", signature), returns and _ARRAY.sub(r"NDArray[\1]", returns)


_MISSED = {
    'class="caption" role="heading"': 'class="caption" role="heading" aria-level="2"',
    '<aside class="sidebar-drawer"': '<aside aria-label="Site" class="sidebar-drawer"',
    '<aside class="toc-drawer': '<aside aria-label="This page" class="toc-drawer',
    '<dl>\n<dd><em class="sig-param"': '<dl role="none">\n<dd><em class="sig-param"',
}
"""What screen readers miss in the theme's pages: levels, names of landmarks, and what is no list of definitions."""


def complete_roles(app: Sphinx, exception: Exception | None) -> None:
    """Adds to the finished pages what screen readers miss."""
    for path in Path(app.outdir).rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        for old, new in _MISSED.items():
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Connects what is above."""
    logging.getLogger("traitlets").setLevel(logging.WARNING)  # it tells of each notebook that it runs
    # A pattern of `index.md` may be there before its first page is.
    logging.getLogger("sphinx.sphinx.directives.other").addFilter(lambda record: "toctree glob" not in str(record.msg))
    app.connect("source-read", fill_markers)
    app.connect("autodoc-process-bases", hide_private_bases)
    app.connect("autodoc-process-signature", shorten_arrays)
    app.connect("build-finished", complete_roles)
    # After napoleon, which has turned sections into fields by then.
    app.connect("autodoc-process-docstring", shorten_pages, priority=600)
