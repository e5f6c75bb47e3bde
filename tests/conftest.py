"""What every test runs under."""

import gc
import importlib.util
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # fake_llm.py

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# The suite runs on all cores as it is: a second thread of numpy's would wait for a core, and its first one for it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

if importlib.util.find_spec("hypothesis") is not None:
    from hypothesis import settings

    # Times on a shared machine say nothing.
    settings.register_profile("project", deadline=None)
    settings.load_profile("project")

if importlib.util.find_spec("torch") is not None:
    import torch

    # Two threads on small networks are many times slower than one, and the suite runs on all cores as it is.
    torch.set_num_threads(1)


def pytest_configure(config):
    """Each worker begins to collect at another file: most of what it comes to later, another one has compiled."""
    worker = getattr(config, "workerinput", None)
    if worker is not None and config.args == config.getini("testpaths"):
        files = sorted(str(path) for path in Path(__file__).parent.rglob("test_*.py"))
        first = len(files) * int(worker["workerid"].removeprefix("gw")) // worker["workercount"]
        config.args = [*files[first:], *files[:first]]


def pytest_collection_modifyitems(items):
    """Tests that wait for other processes begin first: at the end nothing else would be left to do meanwhile."""
    items.sort(key=lambda item: (item.get_closest_marker("waits") is None, item.path))


def pytest_collection_finish():
    """What is there when the tests begin stays: a collection of garbage that looks at it again takes a tenth second."""
    gc.collect()
    gc.freeze()
