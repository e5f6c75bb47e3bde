"""Parallel work, in processes that are started once and end with their parent."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from experiments.runs.folders import RunError
from experiments.runs.interrupts import as_child

__all__ = ["end_with_parent", "in_processes"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_processes(work: Callable[[Item], Result], items: Sequence[Item], n_jobs: int) -> Iterator[tuple[Item, Result]]:
    """Calls a function with each item in parallel, and yields each item with its result when it is done.

    Args:
        work: The function. It must be at the top of a module, so that a process can import it.
        items: The items, each of which is one call's argument.
        n_jobs: Largest number of processes.

    Raises:
        RunError: If a process dies.
    """
    if not items:
        return
    # Processes are spawned, because a forked process would inherit locks of the threads of torch and BLAS.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(n_jobs, len(items)), mp_context=context, initializer=_begin_process) as pool:
        futures = {pool.submit(work, item): item for item in items}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            raise RunError(
                "a process of the study died, perhaps because memory ran out (n_jobs=1 takes less): the same "
                "command goes on where it stopped."
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _begin_process() -> None:
    as_child()
    logging.captureWarnings(True)
    end_with_parent()


def end_with_parent() -> None:
    """Lets this process, a child of :mod:`multiprocessing`, end as soon as its parent ends, even if that is killed.

    Without this a child would go on working, or wait for work for ever.
    """
    threading.Thread(target=_end_after_parent, daemon=True).start()


def _end_after_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "only children end with their parent"
    parent.join()
    os._exit(1)
