"""The picture of the docs is made by a command, which draws a step of any run."""

import numpy as np
import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")
pytest.importorskip("PIL", reason="needs the extra 'render'")

from hydra import initialize_config_dir
from omegaconf import OmegaConf

from experiments.frame import draw_step
from experiments.runs.folders import RunError, read_run
from experiments.runs.saved import load_run


@pytest.fixture
def options(config):
    return OmegaConf.to_container(config("frame", "size=small"), resolve=True)


def test_the_step_of_a_run_is_that_of_its_agent(run, options, tmp_path):
    run("algo=linear_blocks", "env.pair_features=all")
    options = {**options, "run": str(tmp_path / "run"), "num_candidates": 7}
    setup, _ = load_run(read_run(tmp_path / "run"), {})

    frame = draw_step(options)
    assert (frame.shape, frame.dtype) == ((540, 960, 3), np.uint8)
    np.testing.assert_array_equal(draw_step(options), frame)
    others = [draw_step({**options, "applicant": str(setup.market.applicants.keys[row])}) for row in (0, 1)]
    assert not np.array_equal(*others)
    with pytest.raises(ValueError, match="there is no applicant with the key 'nobody'"):
        draw_step({**options, "applicant": "nobody"})


def test_without_a_run_the_best_agent_learns(options, monkeypatch):
    from experiments.runs import build

    learned = []
    make = build.Algorithm.make

    def noted(algorithm, env):
        agent = make(algorithm, env)
        learned.append(agent)
        return agent

    monkeypatch.setattr(build.Algorithm, "make", noted)
    with initialize_config_dir(str(build.Path(build.__file__).parents[2] / "conf"), version_base="1.3"):
        assert draw_step({**options, "total_timesteps": 20}).shape == (540, 960, 3)
    assert [(type(agent).__name__, agent.num_timesteps) for agent in learned] == [("DynaQ", 20)]


def test_a_folder_of_two_runs_is_refused(run, options, tmp_path):
    for name in ("one", "two"):
        run("algo=random", folder=name)
    with pytest.raises(RunError, match="`run` holds 2 runs; say which"):
        draw_step({**options, "run": str(tmp_path)})


def test_overrides_for_a_finished_run_are_refused(options):
    said = "`overrides` are for an agent that is trained now; `run` is given and has its own config"
    with pytest.raises(RunError, match=said):
        draw_step({**options, "run": "runs/mine", "overrides": ["setting=board"]})


def test_a_later_step_has_masked_what_was_recommended_before(run, options, tmp_path):
    run("algo=linear_blocks", "env.repeats=false")
    options = {**options, "run": str(tmp_path / "run"), "num_candidates": 4}

    assert not np.array_equal(draw_step(options), draw_step({**options, "steps": 3}))
    with pytest.raises(ValueError, match=r"`steps` must be in \[1, max_episode_steps=\d+\], got 99"):
        draw_step({**options, "steps": 99})
