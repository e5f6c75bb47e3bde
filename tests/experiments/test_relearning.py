import functools
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from commands import run_command

from experiments.runs import build
from experiments.runs.folders import RunError, read_run
from experiments.runs.recording import AtInteractions
from experiments.studies.calibration import NOVELTY, draw_by_novelty, reward_calibration
from experiments.studies.new_applicants import OneApplicantEnv, adaptation
from experiments.studies.relearning import learners_of, relearn

ROOT = Path(build.__file__).parents[2]


@pytest.fixture
def trained(run, tmp_path):
    """Trains a learner in a run, and once more from what the run left."""

    def learned(*overrides):
        run(*overrides)
        return relearn(read_run(tmp_path / "run"), 30)

    return learned


@pytest.mark.parametrize("algo", ["linucb", "dynaq_plus"])
def test_it_is_the_agent_of_the_run(trained, small, tmp_path, algo):
    again = trained(f"algo={algo}")
    env = again.setup.make_env()
    saved = again.setup.algorithm.load(tmp_path / "run" / "model.zip", env)
    obs, _ = env.reset(seed=5)

    np.testing.assert_array_equal(again.model.q_values(obs), saved.q_values(obs))
    assert len(again.interactions.reward) == 30


def test_what_was_pretrained_is_refused(trained):
    with pytest.raises(RunError, match="pre-trained"):
        trained("algo=dynaq", "pretrain.epochs=1")


def test_always_the_same_applicant_comes(small):
    env = build.build(small()).make_env(functools.partial(OneApplicantEnv, 7))
    _, infos = env.reset(seed=0)
    seen = {int(infos["applicant_id"][0])}
    for _ in range(25):
        seen |= set(env.step(np.array([0]))[-1]["applicant_id"].tolist())

    assert seen == {7}


@pytest.mark.parametrize(("algo", "learns"), [("cosine", False), ("dynaq_plus", True)])
def test_a_learner_adapts_to_somebody_new_and_forgets_them_again(trained, algo, learns):
    agent = trained(f"algo={algo}", "simulator.noise=0.5")
    before = agent.model.num_timesteps

    scores = adaptation(agent, n_applicants=3, points=[0, 10, 20], n_pairs=16)

    assert (len(set(scores)) > 1) == learns
    assert agent.model.num_timesteps == before
    np.testing.assert_array_equal(adaptation(agent, 3, [0, 10, 20], 16), scores)


def test_calibration_knows_what_was_met(trained):
    agent = trained("algo=dynaq_plus")
    made = agent.interactions
    kinds = draw_by_novelty(agent, 40, np.random.default_rng(0))
    tried = set(zip(made.applicant_ids.tolist(), made.job_ids.tolist(), strict=True))

    assert list(kinds) == list(NOVELTY)
    for kind, (applicants, jobs) in kinds.items():
        assert len(applicants)
        pairs = set(zip(applicants.tolist(), jobs.tolist(), strict=True))
        assert pairs <= tried if kind == "tried pair" else not pairs & tried
        assert np.isin(applicants, made.applicant_ids).all() == ("new applicant" not in kind and kind != "both new")
        assert np.isin(jobs, made.job_ids).all() == ("new job" not in kind and kind != "both new")

    result = reward_calibration(agent, 40)
    assert result["tried pair"]["spread"] < result["both new"]["spread"]
    assert result["tried pair"]["r2"] > result["both new"]["r2"]
    assert all(0 <= values["coverage"] <= 1 for values in result.values())


@pytest.mark.parametrize("setting", ["profile", "profile_noisy"])
def test_calibration_shows_the_agent_the_numbers_of_pairs_that_it_learned_from(trained, setting):
    agent = trained("algo=dynaq_plus", f"setting={setting}")

    result = reward_calibration(agent, 40)

    assert list(result) == list(NOVELTY)
    assert result["tried pair"]["r2"] > result["both new"]["r2"]


@pytest.mark.parametrize(
    "shown", [("env.observation=features", "env.job_fields=[title]"), ("env.repeats=false", "env.max_episode_steps=3")]
)
def test_calibration_shows_the_agent_what_it_was_shown(trained, shown):
    agent = trained("algo=dynaq_plus", *shown)

    assert list(reward_calibration(agent, 20)) == list(NOVELTY)


def test_the_commands_print_and_write(run, tmp_path):
    for number in (0, 1):
        run("algo=dynaq_plus", f"seed={number}", folder=f"dynaq_plus/seed-{number}")
    options = [f"runs={tmp_path}", "only=[dynaq_plus]", "seeds=[0,1]", "interactions=20"]
    for name, further in (
        ("new_applicants", ["n_pairs=8", "n_applicants=2"]),
        ("calibration", ["n_pairs=8"]),
    ):
        done = run_command(f"studies.{name}", *options, *further)
        assert done.returncode == 0, done.stderr
        assert "dynaq_plus" in done.stdout
        assert json.loads((tmp_path / f"{name}.json").read_text())["seeds"] == [0, 1]
        other = run_command(f"studies.{name}", *options[:2], "seeds=[7]")
        assert other.stderr == "error: `seeds`: learner 'dynaq_plus' has no finished run of seeds [7], but of [0, 1].\n"
        assert json.loads((tmp_path / f"{name}.json").read_text())["seeds"] == [0, 1], "what was found before is kept"
        wrong = run_command(f"studies.{name}", "only=[cosine]")
        assert wrong.returncode != 0
        assert "error: `runs` must be given" in wrong.stderr


def test_a_folder_without_learners_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"`runs`: there is no folder .*missing"):
        list(learners_of(str(tmp_path / "missing"), None))
    with pytest.raises(RunError, match=r"`runs`: .* holds no learner: give the folder of a setting"):
        list(learners_of(str(tmp_path), None))


def test_with_several_environments_a_point_waits_for_the_updates_of_its_step():
    model = SimpleNamespace(num_timesteps=0, logger=None, get_env=lambda: SimpleNamespace(num_envs=8))
    called = []
    callback = AtInteractions([20], lambda point: called.append((point, model.num_timesteps)))
    callback.model = model
    callback.on_training_start({}, {})
    for model.num_timesteps in (8, 16, 24):
        callback.on_step()
    assert called == [], "the agent has not learned from the last eight yet"
    callback.on_rollout_start()
    assert called == [(20, 24)]
    # An agent that goes on collecting has not changed since.
    called.clear()
    late = AtInteractions([20], lambda point: called.append((point, model.num_timesteps)))
    late.model, model.num_timesteps = model, 0
    late.on_training_start({}, {})
    for model.num_timesteps in (8, 16, 24, 32):
        late.on_step()
    assert called == [(20, 32)]
