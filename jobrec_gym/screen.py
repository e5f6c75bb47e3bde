"""Where ``render_mode="human"`` shows a scene: a notebook's output, or the terminal."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from typing import Any

from gymnasium.error import DependencyNotInstalled

from jobrec_gym.picture import RenderSize, render_image
from jobrec_gym.rendering import Scene, render_text

__all__ = ["show"]


def show(scene: Scene, screen: Any = None, size: RenderSize = "small") -> Any:
    """Draws in a notebook, prints elsewhere. A terminal gets colours unless ``NO_COLOR`` is set.

    Args:
        scene: The scene.
        screen: The result of an earlier call, whose output is drawn over; ``None`` for a new output.
        size: Size of pictures.

    Returns:
        An output that a later call can draw over; ``None`` for a terminal.
    """
    display = _notebook()
    if display is not None:
        try:
            picture = importlib.import_module("PIL.Image").fromarray(render_image(scene, size))
        except DependencyNotInstalled:
            display = None  # falls back to the text
    if display is None:
        terminal = sys.stdout.isatty()
        width = shutil.get_terminal_size().columns if terminal else None
        text = render_text(scene, colours=terminal and "NO_COLOR" not in os.environ, width=width)
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        # Letters that the terminal cannot show are printed as escapes.
        print(f"{text.encode(encoding, 'backslashreplace').decode(encoding)}\n")  # noqa: T201
        return None
    if screen is None:
        return display(picture, display_id=True)
    screen.update(picture)
    return screen


def _notebook() -> Any:
    """IPython's ``display`` if a kernel runs this process, else ``None``; never imports IPython itself."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or not hasattr(shell, "kernel"):
        return None
    return importlib.import_module("IPython.display").display
