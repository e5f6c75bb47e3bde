"""Progress of long work: a bar with rate and time left on a terminal, plain lines in a log."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["steps"]

logger = logging.getLogger(__name__)

_LOG_EVERY_SECONDS = 10.0


def steps(total: int, size: int, what: str, unit: str, *, progress: bool | None = None) -> Iterator[int]:
    """Yields ``0, size, 2 * size, ...`` below ``total`` and shows the progress.

    Args:
        total: How many units there are.
        size: How many units are done at once.
        what: The work, e.g. ``"indexing jobs"``.
        unit: Name of the unit, in the singular, e.g. ``"job"``.
        progress: ``None`` shows a bar on a terminal (with tqdm); elsewhere it logs a line at most every 10
            seconds. ``True`` does the same, and also logs a line at the end if it shows no bar. ``False`` is silent.
            Work of a single step shows nothing.
    """
    starts = range(0, total, size)
    if progress is False or len(starts) < 2:
        yield from starts
        return
    if sys.stderr.isatty() and importlib.util.find_spec("tqdm"):
        tqdm: Callable[..., Any] = importlib.import_module("tqdm").tqdm
        with tqdm(total=total, unit=unit, unit_scale=total > 100_000, desc=what) as bar:
            for start in starts:
                yield start
                bar.update(min(size, total - start))
        return
    begun = logged = time.monotonic()
    for start in starts:
        yield start
        now, done = time.monotonic(), min(start + size, total)
        if now - logged >= _LOG_EVERY_SECONDS or (progress and done == total):
            logged = now
            rate = done / max(now - begun, 1e-9)
            logger.info(
                "%s: %d of %d, %.0f %ss a second, %.0f s left", what, done, total, rate, unit, (total - done) / rate
            )
