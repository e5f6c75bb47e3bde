"""Makes what tests share importable by those beside them, and the small market that most of them play on."""

import sys
from pathlib import Path

import pytest

from jobrec_gym.market import load_market

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def market():
    """A small generated market with all that the default one has."""
    return load_market("default", n_jobs=60, n_applicants=40)
