"""A small world for experiments: configs composed in process, runs of a second."""

import copy
import functools
from pathlib import Path

import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from hydra import compose, initialize_config_dir

from experiments.runs import build, training
from experiments.runs.recording import LearningCurve

CONF = Path(build.__file__).parents[2] / "conf"

SMALL = [
    "market.n_jobs=60",
    "market.n_applicants=40",
    "env.num_candidates=5",
    "total_timesteps=30",
    "pretrain.n_pairs=100",
    "evaluation.n_pairs=64",
    "evaluation.n_episodes=16",
    "evaluation.at=[0,10]",
    "evaluation.interval=20",
]
SMALL_DYNAQ = [*SMALL, "++algo.policy_kwargs.net_arch=[8]", "++algo.learning_starts=8", "++algo.batch_size=8"]


@pytest.fixture(scope="session")
def config():
    """Composes a primary config: ``config("train", "algo=random")``.

    Hydra takes a tenth of a second: the same one is composed once, and each test gets a copy of its own.
    """

    @functools.cache
    def composed(name, *overrides):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose(name, overrides=list(overrides))

    return lambda name, *overrides: copy.deepcopy(composed(name, *overrides))


@pytest.fixture(scope="session")
def small(config):
    """Composes a run of a second: ``small("algo=random", "seed=1")``."""

    def composed(*overrides):
        learned = ("algo=dynaq", "algo=dynaq_noplan", "algo=dynaq_plus", "algo=dynaq_tuned", "algo=reward_model")
        plain = any(item.startswith("algo=") and item not in learned for item in overrides)
        # The recorded market has the size that it has, and that of a release has no `n_jobs`.
        other = {"market=recorded", "experiment=llm_demo", "setting=recorded", "setting=onet"}
        fixed = not other.isdisjoint(overrides)
        sizes = [item for item in (SMALL if plain else SMALL_DYNAQ) if not (fixed and item.startswith("market."))]
        # The test's own come last, and win.
        return config("train", *sizes, *overrides)

    return composed


@pytest.fixture
def run(small, tmp_path):
    """Runs in a folder of the test: ``run("algo=random")`` returns the summary; ``folder=`` names it."""

    def ran(*overrides, folder="run"):
        return training.run_training(build.build(small(*overrides)), tmp_path / folder, list(overrides))

    return ran


@pytest.fixture
def cut(run, monkeypatch):
    """A run that is interrupted where it would log a step: ``cut(20, "algo=random")``, in the folder ``cut``."""
    written = LearningCurve._write

    def until(step, *overrides):
        def interrupted(self, now):
            if now == step:
                raise KeyboardInterrupt
            written(self, now)

        with monkeypatch.context() as patch:
            patch.setattr(LearningCurve, "_write", interrupted)
            with pytest.raises(KeyboardInterrupt):
                run(*overrides, folder="cut")

    return until


@pytest.fixture
def unpainted(monkeypatch):
    """Pictures of a page are drawn up but not painted, which takes most of its time: for tests of its words."""
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, path, **options: path.touch())
