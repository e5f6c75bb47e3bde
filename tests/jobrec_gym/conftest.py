import pytest

from jobrec_gym.market import load_market


@pytest.fixture(scope="session")
def market():
    """A small generated market with all that the default one has."""
    return load_market("default", n_jobs=60, n_applicants=40)
