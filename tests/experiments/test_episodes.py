import shutil

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from experiments import make_dataset
from experiments.learners.opponents import CosineRecommender
from experiments.runs.build import build_task
from experiments.runs.episodes import logged_episodes, record_episodes, recovered, save_minari
from jobrec_gym import Interactions, load_market

# Minari would like to know who the author is.
NO_AUTHOR = pytest.mark.filterwarnings("ignore:`(code_permalink|author|author_email|eval_env)` is set to None")
SIZES = ["market.n_jobs=60", "market.n_applicants=40", "env.num_candidates=4", "n_episodes=3"]


@pytest.fixture
def world(config):
    """The task of a Minari data set, and its environment: ``world("env.repeats=false")``."""

    def made(*overrides):
        task = build_task(config("make_dataset", "format=minari", *SIZES, *overrides))
        return task, task.single_env()

    return made


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Minari, with a folder of the test for its data sets."""
    minari = pytest.importorskip("minari", reason="needs the extra 'minari'")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return minari


def propensities(episodes):
    return np.concatenate([episode.infos["propensity"][1:] for episode in episodes])


def test_the_single_environment_pays_as_the_vector_does(world):
    task, env = world()
    envs = task.make_env()
    env.reset(seed=3), envs.reset(seed=3)

    for action in (2, 0, 3):
        _, reward, _, _, info = env.step(action)
        _, rewards, _, _, infos = envs.step(np.array([action]))
        assert (reward, info["job_id"]) == (rewards[0], infos["job_id"][0])


def test_a_uniform_policy_has_equal_propensities(world):
    _, env = world()
    episodes = list(record_episodes(env, None, n_episodes=3))

    np.testing.assert_array_equal(propensities(episodes), np.full(30, 0.25))


def test_propensities_are_the_shares_in_which_actions_are_chosen(world):
    task, env = world()
    model = CosineRecommender(task.make_env())
    episodes = list(record_episodes(env, model, n_episodes=60, epsilon=0.4))

    found = propensities(episodes)
    assert set(np.round(found, 6)) == {0.1, 0.7}
    # Of the four candidates the greedy one has 0.7 and each other 0.1: three of ten choices are not greedy.
    assert (found < 0.5).mean() == pytest.approx(0.3, abs=0.06)
    # Weighting by 1 / propensity gives what a uniform choice would earn.
    uniform = np.mean([episode.rewards for episode in record_episodes(env, None, n_episodes=400, seed=1_000)])
    weighted = np.mean(np.concatenate([episode.rewards for episode in episodes]) * 0.25 / found)
    assert weighted == pytest.approx(uniform, abs=0.12)


def test_masked_jobs_are_not_chosen_and_have_no_share(world):
    _, env = world("env.repeats=false")
    (episode,) = record_episodes(env, None, n_episodes=1)

    np.testing.assert_allclose(episode.infos["propensity"][1:], [1 / 4, 1 / 3, 1 / 2, 1])
    assert len({*episode.infos["job_id"][1:]}) == 4
    assert episode.terminations == [False, False, False, True]


def test_infos_of_a_step_stand_one_behind_it(world):
    _, env = world()
    (episode,) = record_episodes(env, None, n_episodes=1, seed=5)

    candidates = episode.observations["candidates"]
    assert len(candidates) == len(episode.infos["job_id"]) == len(episode.actions) + 1
    for step, action in enumerate(episode.actions):
        assert episode.infos["job_id"][step + 1] == candidates[step][action]
    assert np.isnan(episode.infos["propensity"][0])
    assert episode.infos["job_id"][0] == -1


def test_equal_seeds_give_equal_episodes(world):
    _, env = world()
    same, again, other = (next(record_episodes(env, None, 1, seed=seed)) for seed in (0, 0, 1))

    assert (same.actions, same.rewards) == (again.actions, again.rewards)
    assert same.actions != other.actions


@pytest.mark.parametrize(("epsilon", "n_episodes"), [(0.0, 1), (1.1, 1), (0.1, 0)])
def test_what_leaves_nothing_to_weigh_with_is_refused(world, epsilon, n_episodes):
    _, env = world()
    with pytest.raises(ValueError, match="`epsilon` must be in|`n_episodes` must be at least 1"):
        next(record_episodes(env, None, n_episodes, epsilon))


@NO_AUTHOR
def test_a_log_is_a_data_set_of_episodes_of_one_step(world, tmp_path, monkeypatch):
    minari = pytest.importorskip("minari", reason="needs the extra 'minari'")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    task, env = world("env.pair_features=all")
    sets = [[3, 4, 5, 6], [9, 8, 7, 6], [1, 2, 3, 4]]
    log = Interactions.of(
        task.market, [0, 1, 2], [4, 9, 1], [1.0, -0.1, np.nan], shown=sets, propensity=[0.5, 0.25, 0.25]
    )
    save_minari("jobrec/log-v0", logged_episodes(log, env), env, "people", "of a test")

    data = minari.load_dataset("jobrec/log-v0")
    assert (data.total_episodes, data.total_steps) == (2, 2)
    first, second = data
    assert (first.actions.tolist(), second.actions.tolist()) == ([1], [0])
    assert (first.rewards.tolist(), second.rewards.tolist()) == ([1.0], [pytest.approx(-0.1)])
    assert first.observations["candidates"].tolist() == [sets[0], sets[0]]
    np.testing.assert_array_equal(
        second.observations["pairs"][0], env.unwrapped.pair_features(np.full(4, 1), np.array(sets[1]))
    )
    assert first.infos["job_id"].tolist() == [-1, 4]
    assert first.infos["propensity"][1] == 0.5


def test_a_log_of_other_sets_or_of_another_market_is_refused(world):
    task, env = world()
    log = Interactions.of(task.market, [0], [4], [1.0], shown=[[3, 4, 5]])
    with pytest.raises(ValueError, match=r"`env` has 4 candidates, but the log has sets of \[3\]"):
        next(logged_episodes(log, env))
    _, other = world("market.n_jobs=61")
    with pytest.raises(ValueError, match="`env` must be on the log's market"):
        next(logged_episodes(log, other))


@NO_AUTHOR
@pytest.mark.parametrize("observation", ["ids", "features"])
def test_a_data_set_comes_back_with_its_environment(world, tmp_path, monkeypatch, observation):
    minari = pytest.importorskip("minari", reason="needs the extra 'minari'")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    _, env = world(f"env.observation={observation}", "env.pair_features=all")
    episodes = list(record_episodes(env, None, n_episodes=3, seed=7))
    save_minari("jobrec/test-v0", episodes, env, "random", "of a test")

    data = minari.load_dataset("jobrec/test-v0")
    assert data.total_episodes == 3
    for episode, loaded in zip(episodes, data, strict=True):
        np.testing.assert_array_equal(loaded.actions, episode.actions)
        np.testing.assert_allclose(loaded.rewards, episode.rewards)
        for entry in ("candidates", "pairs"):
            np.testing.assert_array_equal(loaded.observations[entry], np.stack(episode.observations[entry]))
        np.testing.assert_array_equal(loaded.infos["propensity"], episode.infos["propensity"])
    again = data.recover_environment()
    obs, _ = again.reset(seed=7)
    for entry in ("applicant", "pairs"):
        np.testing.assert_array_equal(obs[entry], data[0].observations[entry][0])
    assert again.step(episodes[0].actions[0])[1] == episodes[0].rewards[0]
    with pytest.raises(ValueError, match="there is a data set jobrec/test-v0 already"):
        save_minari("jobrec/test-v0", episodes, env, "random", "again")


@NO_AUTHOR
def test_a_saved_run_is_a_behaviour_policy_on_its_own_market(run, config, tmp_path, monkeypatch, capsys):
    minari = pytest.importorskip("minari", reason="needs the extra 'minari'")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    run(folder="saved")
    make_dataset.write_episodes(
        build_task(config("make_dataset", "format=minari")),
        behaviour=str(tmp_path / "saved"),
        dataset_id="jobrec/run-v0",
        n_episodes=2,
    )

    data = minari.load_dataset("jobrec/run-v0")
    assert data[0].infos["candidate_ids"].shape == (11, 5)
    assert np.nanmax(data[0].infos["propensity"]) == pytest.approx(0.9 + 0.1 / 5)
    assert "2 episodes, 20 steps" in capsys.readouterr().out


def test_without_minari_the_extra_is_named(world, monkeypatch):
    _, env = world()
    monkeypatch.setitem(__import__("sys").modules, "minari", None)
    with pytest.raises(ImportError, match=r'pip install -e ".+\[minari\]"'):
        save_minari("jobrec/test-v0", [], env, "random", "")


def not_played():
    """Episodes of which none may be asked for."""
    raise AssertionError("an episode was played")
    yield


@pytest.mark.parametrize("dataset_id", ["random", "jobrec/random", "jobrec/random-v0.1", "a/b-v0", "Job Rec/x-v0", 5])
def test_an_id_of_another_form_is_refused_before_an_episode_is_played(store, world, tmp_path, dataset_id):
    task, env = world()
    for write in (
        lambda: save_minari(dataset_id, not_played(), env, "random", ""),
        lambda: make_dataset.write_episodes(task, "no run at all", dataset_id, 1),
    ):
        with pytest.raises(
            ValueError, match=rf"`dataset_id` must have the form namespace/name-v0, .*, got {dataset_id!r}"
        ):
            write()
    assert not [*(tmp_path / "minari").rglob("data")]
    assert not store.list_local_datasets()


@NO_AUTHOR
def test_a_broken_neighbour_does_not_matter(store, world, tmp_path):
    (tmp_path / "minari" / "random" / "data").mkdir(parents=True)  # Minari cannot list what lies here
    _, env = world()
    assert save_minari("jobrec/test-v0", record_episodes(env, None, 1), env, "random", "").total_episodes == 1


@NO_AUTHOR
def test_a_data_set_that_could_not_be_written_leaves_no_folder(store, world, tmp_path):
    _, env = world()
    with pytest.raises(AssertionError):  # Minari refuses a name that is no text, after it has made the folder
        save_minari("jobrec/test-v0", record_episodes(env, None, 1), env, 5, "")
    assert not (tmp_path / "minari" / "jobrec" / "test-v0").exists()
    assert save_minari("jobrec/test-v0", record_episodes(env, None, 1), env, "random", "").total_episodes == 1


@NO_AUTHOR
def test_a_data_set_is_not_recovered_on_another_market(store, tmp_path, monkeypatch):
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    market, other = (load_market("default", n_jobs=60, n_applicants=n) for n in (40, 41))
    for folder, one in ((here, market), (elsewhere, other)):
        folder.mkdir()
        one.save(folder / "mine")
    monkeypatch.chdir(here)
    env = gym.make("JobRec-v0", market="mine", num_candidates=4, observation="ids")
    save_minari("jobrec/test-v0", record_episodes(env, None, 1), env, "random", "")

    monkeypatch.chdir(elsewhere)
    data = store.load_dataset("jobrec/test-v0")
    again = recovered(data)
    assert again.unwrapped.market.fingerprint() == data.storage.metadata["market_fingerprint"] == market.fingerprint()
    assert env.spec.kwargs["market"] == "mine"
    shutil.rmtree(here / "mine")
    shutil.move(elsewhere / "mine", here / "mine")
    with pytest.raises(
        ValueError, match=r"recorded on a market with the fingerprint .* the ids would name other people"
    ):
        recovered(data)


@NO_AUTHOR
def test_a_data_set_without_a_fingerprint_is_not_recovered_unasked(store, world):
    _, env = world()
    data = save_minari("jobrec/test-v0", record_episodes(env, None, 1), env, "random", "")
    data.storage.update_metadata({"market_fingerprint": None})
    with pytest.raises(
        ValueError, match="'market_fingerprint' in its metadata, which data sets of earlier versions lack"
    ):
        recovered(data)


@NO_AUTHOR
def test_a_description_says_what_was_played(store, config):
    overrides = ["env=career", "reward=own", "env.split=test", "env.job_split=all"]
    task = build_task(config("make_dataset", "format=minari", *SIZES, *overrides))
    make_dataset.write_episodes(task, "random", "jobrec/career-v0", 1)
    make_dataset.write_episodes(build_task(config("make_dataset", "format=minari", *SIZES)), "random", "jobrec/s-v0", 1)

    career, still = (
        store.load_dataset(name).storage.metadata["description"] for name in ("jobrec/career-v0", "jobrec/s-v0")
    )
    assert career.startswith("JobRecCareer-v0 on LabourMarket(")
    assert "split=test, job_split=all, reward of the environment; behaviour policy random" in career
    assert still.startswith("JobRec-v0 on ") and "split=train, job_split=train, reward FeedbackReward; " in still


@pytest.mark.parametrize(
    ("form", "behaviour", "given", "said"),
    [
        ("minari", "random", "split=test", "`split` chooses nothing with format=minari, where `env.split` does."),
        ("minari", "cosine", "vectors=true", "`vectors` is for format=npz"),
        ("npz", "random", "n_episodes=3", "`n_episodes` is for format=minari."),
        ("npz", "random", "++env.split=test", "`env.split` chooses nothing with format=npz, where `split` does."),
        ("npz", "random", "env.observation=ids", "`env.observation` is for format=minari."),
        ("npz", "random", "env=career", "`env` is for format=minari"),
        ("minari", ".", "env.split=test", "`env.split` is not read with behaviour="),
        ("minari", ".", "market=recorded", "`market` is not read with behaviour="),
    ],
)
def test_an_option_that_would_not_be_read_is_refused(form, behaviour, given, said):
    with pytest.raises(SystemExit, match=f"error: {said}"):
        make_dataset._refuse_unread(form, behaviour, ["seed=1", given])


@pytest.mark.parametrize(
    ("form", "behaviour", "given"),
    [
        ("npz", "random", ["split=test", "job_split=all", "market.n_jobs=60", "seed=1"]),
        ("minari", "random", ["format=minari", "env.split=test", "reward=cosine", "market=recorded", "n_episodes=3"]),
        ("minari", "cosine", ["env=career", "progress_bar=false"]),
        ("minari", ".", ["behaviour=.", "n_episodes=3", "epsilon=0.2", "dataset_id=jobrec/a-v0"]),
    ],
)
def test_options_that_are_read_are_not_refused(form, behaviour, given):
    make_dataset._refuse_unread(form, behaviour, given)


def test_every_option_of_the_command_is_of_a_format_or_of_both(config):
    both = {"format", "seed", "market", "progress_bar"}
    assert set(config("make_dataset")) == both | make_dataset._OF_PAIRS | make_dataset._OF_EPISODES
