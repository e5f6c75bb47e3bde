"""What every test runs under."""

import importlib.util
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

if importlib.util.find_spec("torch") is not None:
    import torch

    # Two threads on small networks are many times slower than one, and the suite runs on all cores as it is.
    torch.set_num_threads(1)
