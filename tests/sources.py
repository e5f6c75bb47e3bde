"""The project's own source, as trees."""

import ast
import gc
from pathlib import Path


def parsed(path: Path) -> ast.Module:
    """The tree of a file.

    CPython 3.11 says "AST constructor recursion depth mismatch" where the garbage collector runs code in between.
    """
    gc.disable()
    try:
        return ast.parse(path.read_text())
    finally:
        gc.enable()
