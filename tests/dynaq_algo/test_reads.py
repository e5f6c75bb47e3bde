"""What an agent reads of an observation is in its file, and an environment that shows something else is refused."""

import io

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv
from toy import D_ACTION, D_STATE, N_CANDIDATES, ToyEnv, ToyVectorEnv, action_table, make_toy

from dynaq_algo import DynaQ, GymnasiumVecEnv, LinearBandit
from dynaq_algo.action_table import ActionTable
from dynaq_algo.vec_env import as_vec_env, what_is_read


class Telling(ToyEnv):
    """Tells what its numbers are."""

    def __init__(self, names=None, job_fields=None, **kwargs):
        super().__init__(**kwargs)
        if names is not None:
            self.pair_feature_names = names
        if job_fields is not None:
            self.job_fields = job_fields


class Moving(ToyEnv):
    """Shows `progress`, and says what its columns are."""

    def __init__(self, *names, n=2):
        super().__init__()
        self.progress_names = names
        self.observation_space = spaces.Dict({**self.observation_space.spaces, "progress": spaces.Box(0, 1, (n,))})


class WithContext(ToyEnv):
    """Shows another entry, of which nothing but the space is needed here."""

    def __init__(self, space, **kwargs):
        super().__init__(**kwargs)
        self.observation_space = spaces.Dict({**self.observation_space.spaces, "context": space})


class Ordered(WithContext):
    """Shows its entries in a given order."""

    def __init__(self, *order, **kwargs):
        super().__init__(spaces.Box(0, 1, (D_STATE,)), **kwargs)
        self.observation_space = spaces.Dict([(key, self.observation_space[key]) for key in order])

    def _obs(self):
        return {**super()._obs(), "context": np.zeros(D_STATE, np.float32)}


def with_candidates(space):
    env = ToyEnv()
    env.observation_space = spaces.Dict({**env.observation_space.spaces, "candidates": space})
    return env


def agent(env=None, **kwargs):
    kwargs = {"seed": 0, "policy_kwargs": {"net_arch": [8]}, "device": "cpu", **kwargs}
    return DynaQ("CandidatePolicy", make_toy() if env is None else env, **kwargs)


def saved(model):
    file = io.BytesIO()
    model.save(file)
    file.seek(0)
    return file


def of_k(k, **kwargs):
    """A toy that shows k candidates; nothing but the spaces is needed here."""
    env = ToyEnv(**kwargs)
    shown = {}
    for key, part in env.observation_space.spaces.items():
        low, high = (np.repeat(bound[:1], k, axis=0) for bound in (part.low, part.high))
        shown[key] = spaces.Box(low, high, dtype=part.dtype) if key != "user" else part
    env.observation_space, env.action_space = spaces.Dict(shown), spaces.Discrete(k)
    return env


# ---------------------------------------------------------------------- what it is


def test_it_says_everything_in_plain_json():
    env = as_vec_env(Telling(["fit", "level"], ["title"], ids=True, pairs=True, mask=True))
    assert what_is_read(env) == {
        "observation": "ids",
        "candidate_dim": None,
        "entries": {"user": [D_STATE]},
        "pairs": ["fit", "level"],
        "job_fields": ["title"],
    }
    assert what_is_read(as_vec_env(WithContext(spaces.Discrete(4), pairs=True))) == {
        "observation": "features",
        "candidate_dim": D_ACTION,
        "entries": {"context": "Discrete(4)", "user": [D_STATE]},
        "pairs": 2,
    }


@pytest.mark.parametrize(
    "make",
    [
        lambda: Monitor(Telling(["a", "b"], (), pairs=True)),
        lambda: DummyVecEnv([lambda: Monitor(Telling(["a", "b"], (), pairs=True))] * 2),
        lambda: SubprocVecEnv([lambda: Telling(["a", "b"], (), pairs=True)], "fork"),
    ],
    ids=["single", "DummyVecEnv", "SubprocVecEnv"],
)
def test_it_is_found_behind_every_kind_of_environment(make):
    env = as_vec_env(make())
    read = what_is_read(env)
    env.close()
    assert (read["pairs"], read["job_fields"]) == (["a", "b"], [])


@pytest.mark.waits
def test_attributes_that_nobody_has_are_not_asked_of_other_processes():
    env = SubprocVecEnv([lambda: make_toy(pairs=True)], "fork")
    assert what_is_read(env)["pairs"] == 2
    assert env.reset()["pairs"].shape == (1, N_CANDIDATES, 2)  # it is alive
    env.close()


def test_numbers_of_candidates_and_actions_are_not_among_it():
    few, many = (as_vec_env(of_k(k, ids=True, table=action_table(n))) for k, n in ((3, 12), (9, 40)))
    assert what_is_read(few) == what_is_read(many)


def test_it_is_in_the_file():
    model = agent(Telling(["a", "b"], ["title"], pairs=True))
    loaded = DynaQ.load(saved(model), device="cpu")
    assert loaded.reads == model.reads == what_is_read(model.env)
    # Of an agent that was loaded without an environment, too.
    assert DynaQ.load(saved(loaded), device="cpu").reads == model.reads


# ---------------------------------------------------------------------- a mismatch

OTHERS = {
    "ids for features": (lambda: make_toy(), lambda: make_toy(ids=True), "`observation` was 'features', and is 'ids'"),
    "features for ids": (lambda: make_toy(ids=True), lambda: make_toy(), "`observation` was 'ids', and is 'features'"),
    "longer candidates": (
        lambda: make_toy(),
        lambda: with_candidates(spaces.Box(-1, 1, (N_CANDIDATES, 5))),
        "`candidate_dim` was 3, and is 5",
    ),
    "other pairs": (
        lambda: Telling(["fit", "level"], pairs=True),
        lambda: Telling(["fit", "pay"], pairs=True),
        r"`pairs` was \['fit', 'level'\], and is \['fit', 'pay'\]",
    ),
    "pairs in another order": (
        lambda: Telling(["fit", "level"], pairs=True),
        lambda: Telling(["level", "fit"], pairs=True),
        r"`pairs` was \['fit', 'level'\], and is \['level', 'fit'\]",
    ),
    "no pairs": (
        lambda: Telling(["fit", "level"], pairs=True),
        lambda: Telling(["fit", "level"]),
        r"`pairs` was \['fit', 'level'\], and is None",
    ),
    "new pairs": (lambda: make_toy(), lambda: make_toy(pairs=True), "`pairs` was None, and is 2"),
    "other fields": (
        lambda: Telling(job_fields=("title",)),
        lambda: Telling(job_fields=("experience",)),
        r"`job_fields` was \['title'\], and is \['experience'\]",
    ),
    "no field": (
        lambda: Telling(job_fields=("title",)),
        lambda: Telling(job_fields=()),
        r"`job_fields` was \['title'\], and is \[\]",
    ),
    "another entry": (
        lambda: make_toy(),
        lambda: WithContext(spaces.Box(0, 1, (2,))),
        r"`entries` was {'user': \[3\]}, and is {'context': \[2\], 'user': \[3\]}",
    ),
    "a longer entry": (
        lambda: WithContext(spaces.Box(0, 1, (2,))),
        lambda: WithContext(spaces.Box(0, 1, (4,))),
        r"`entries` was {'context': \[2\].* and is {'context': \[4\]",
    ),
    "entries in another order": (
        lambda: Ordered("candidates", "user", "context"),
        lambda: Ordered("candidates", "context", "user"),
        r"in the order of training, \['user', 'context'\], got \['context', 'user'\]",
    ),
    "more values of an entry": (
        lambda: WithContext(spaces.Discrete(4)),
        lambda: WithContext(spaces.Discrete(5)),
        r"`entries` was {'context': 'Discrete\(4\)'.* and is {'context': 'Discrete\(5\)'",
    ),
}


@pytest.mark.parametrize(("make", "other", "message"), OTHERS.values(), ids=OTHERS)
def test_an_environment_that_shows_something_else_is_refused_and_both_are_named(tmp_path, make, other, message):
    model = agent(make())
    kept = model.env
    with pytest.raises(ValueError, match=message):
        model.set_env(other())
    assert model.env is kept
    model.save(tmp_path / "agent.zip")
    for path in (tmp_path / "agent.zip", str(tmp_path / "agent"), saved(model)):
        with pytest.raises(ValueError, match=message):
            DynaQ.load(path, other(), device="cpu")
    loaded = DynaQ.load(tmp_path / "agent", make(), device="cpu")
    with pytest.raises(ValueError, match=message):
        loaded.set_env(other())


def test_a_bandit_too_refuses_the_entries_in_another_order(tmp_path):
    bandit = linear_bandit(Ordered("candidates", "user", "context")).learn(20)
    obs, _ = Ordered("candidates", "user", "context").reset(seed=5)
    bandit.save(tmp_path / "bandit.zip")
    for go_on in (bandit.set_env, lambda env: LinearBandit.load(tmp_path / "bandit.zip", env)):
        with pytest.raises(ValueError, match="in the order of training"):
            go_on(Ordered("candidates", "context", "user"))
    # Where the candidates stand has no effect on the state.
    loaded = LinearBandit.load(tmp_path / "bandit.zip", Ordered("user", "candidates", "context"))
    np.testing.assert_array_equal(loaded.q_values(obs), bandit.q_values(obs))


def test_a_file_loaded_without_environment_still_knows_what_it_reads():
    loaded = DynaQ.load(saved(agent(Telling(["fit", "level"], pairs=True))), device="cpu")
    with pytest.raises(ValueError, match="`pairs` was"):
        loaded.set_env(Telling(["fit", "pay"], pairs=True))
    loaded.set_env(Telling(["fit", "level"], pairs=True))
    loaded.learn(10)


def test_a_checkpoint_is_refused_alike(tmp_path):
    agent(Telling(job_fields=["title"])).save_checkpoint(tmp_path)
    with pytest.raises(ValueError, match="`job_fields` was"):
        DynaQ.load_checkpoint(tmp_path, Telling(job_fields=["pay"]), device="cpu")


def test_what_nobody_told_before_is_no_mismatch():
    loaded = DynaQ.load(saved(agent()), Telling(job_fields=["title"]), device="cpu")
    assert loaded.reads["job_fields"] == ["title"]


def test_other_columns_of_progress_are_refused():
    model = agent(Moving("level", "patience"), bootstrap="max")
    other = Moving("level", "steps_left")
    message = r"`progress` was \['level', 'patience'\], and is \['level', 'steps_left'\]"
    with pytest.raises(ValueError, match=message):
        model.set_env(other)
    with pytest.raises(ValueError, match=message):
        DynaQ.load(saved(model), other, device="cpu")
    with pytest.raises(ValueError, match=message):
        linear_bandit(Moving("level", "patience")).set_env(other)


@pytest.mark.parametrize("names", [(), ("level", "experience", "patience")])
def test_columns_of_progress_need_no_names_and_have_none_if_a_wrapper_changed_their_number(names):
    model = agent(Moving(*names), bootstrap="max")
    assert "progress" not in model.reads
    loaded = DynaQ.load(saved(model), Moving("level", "patience"), device="cpu")  # as in files of earlier versions
    assert loaded.reads["progress"] == ["level", "patience"]


def test_a_mask_may_come_or_go():
    model = agent(make_toy(mask=True))
    for env in (make_toy(), make_toy(mask=True)):
        assert DynaQ.load(saved(model), env, device="cpu").learn(10).num_timesteps == 10


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("kwargs", [{}, {"ids": True}, {"ids": True, "action_features": action_table()}], ids=len)
def test_an_agent_does_not_go_on_where_a_mask_comes_or_goes(before, kwargs):
    ids = kwargs.get("ids", False)
    own = {name: value for name, value in kwargs.items() if name != "ids"}
    model = agent(make_toy(ids=ids, mask=before), **own).learn(10)
    kept = model.env
    with pytest.raises(ValueError, match=rf"must show {'an' if before else 'no'} `action_mask`.*`DynaQ.load\("):
        model.set_env(make_toy(ids=ids, mask=not before, table=action_table(20 if ids and not own else 12)))
    assert model.env is kept


def test_an_environment_without_candidates_is_told_what_is_missing():
    with pytest.raises(ValueError, match="must have an entry `candidates`"):
        DynaQ.load(saved(agent()), NoCandidates(), device="cpu")


class NoCandidates(ToyEnv):
    def __init__(self):
        super().__init__()
        self.observation_space = spaces.Dict(user=self.observation_space["user"])


# ---------------------------------------------------------------------- other numbers of candidates


@pytest.mark.parametrize("k", [2, 9])
@pytest.mark.parametrize("kwargs", [{}, {"ids": True}, {"pairs": True, "ids": True}], ids=str)
def test_a_file_may_act_where_another_number_of_candidates_is_shown(k, kwargs):
    model = agent(make_toy(**kwargs))
    loaded = DynaQ.load(saved(model), of_k(k, **kwargs), device="cpu")
    assert (loaded.action_space.n, loaded.replay_buffer.n_candidates) == (k, k)
    obs, _ = make_toy(**kwargs).reset(seed=5)
    np.testing.assert_array_equal(model.q_values(obs), loaded.q_values(obs))


def test_it_learns_on_with_another_number_of_candidates():
    class Two(ToyEnv):
        def __init__(self):
            super().__init__()
            like = of_k(2)
            self.observation_space, self.action_space = like.observation_space, like.action_space

        def _draw(self):
            self.members = self.np_random.choice(12, 2, replace=False)
            self.allowed = np.ones(2, bool)

    model = agent(learning_starts=8).learn(20)
    loaded = DynaQ.load(saved(model), Two(), device="cpu")
    loaded.learn(20, reset_num_timesteps=False)
    assert (loaded.num_timesteps, len(loaded.replay_buffer)) == (40, 20)
    again = DynaQ.load(saved(loaded), make_toy(), device="cpu")
    assert again.learn(10).num_timesteps == 10


def test_an_agent_with_a_replay_keeps_its_number_of_candidates():
    model = agent(make_toy(ids=True))
    before = model.observation_space
    with pytest.raises(
        ValueError, match=r"action space Discrete\(4\), .*got Discrete\(9\).*`DynaQ.load\(path, env=env\)`"
    ):
        model.set_env(of_k(9, ids=True, table=action_table(40)))
    assert (model.observation_space, len(model.action_table)) == (before, 12)


# ---------------------------------------------------------------------- a catalogue that grows


GAUSSIAN_PROCESS = {
    "policy_kwargs": {"net_arch": [8], "features": "blockwise", "features_kwargs": {"n_blocks": 1}},
    "world_model": "gaussian_process",
}


@pytest.mark.parametrize("kwargs", [{}, GAUSSIAN_PROCESS], ids=["network", "gaussian_process"])
def test_a_catalogue_may_grow_at_its_end(kwargs):
    small, grown = action_table(), action_table(40)
    np.testing.assert_array_equal(small, grown[:12])
    model = agent(make_toy(ids=True, table=small), **kwargs).learn(80)
    obs, _ = make_toy(ids=True).reset(seed=5)
    before = model.q_values(obs)
    file = saved(model)
    for known in (DynaQ.load(file, make_toy(ids=True, table=grown), device="cpu"), model):
        if known is model:
            known.set_env(make_toy(ids=True, table=grown))
        np.testing.assert_array_equal(known.q_values(obs), before)
        new = {**obs, "candidates": np.array([0, 20, 30, 39])}
        assert known.predict(new, deterministic=True)[0] == known.q_values(new)[0].argmax()
        known.learn(20)
        # What it saves then is of the grown catalogue, and the smaller one is no longer enough.
        assert len(known.action_table) == 40
        with pytest.raises(ValueError, match="must begin with the 40 rows"):
            DynaQ.load(saved(known), make_toy(ids=True), device="cpu")


@pytest.mark.parametrize(
    "table",
    [
        action_table(40)[::-1].copy(),
        action_table()[:10],
        np.concatenate([action_table()[1:], action_table()[:1]]),
        action_table() + np.float32(1e-6),
        (action_table() + np.float32(1e-6)).astype(np.float64),
        np.concatenate([action_table(), np.ones((12, 1), np.float32)], axis=1),
    ],
    ids=["another order", "fewer", "rotated", "changed", "changed and of another type", "longer rows"],
)
def test_a_table_that_does_not_begin_as_the_known_one_is_refused(table):
    model = agent(make_toy(ids=True))
    message = r"must begin with the 12 rows .* got a table \(\d+, \d\) that does not, so its ids name other actions"
    with pytest.raises(ValueError, match=message):
        DynaQ.load(saved(model), make_toy(ids=True, table=table), device="cpu")
    with pytest.raises(ValueError, match=message):
        model.set_env(make_toy(ids=True, table=table))
    assert (len(model.action_table), model.policy.action_table is model.action_table) == (12, True)


@pytest.mark.parametrize("known", [np.float32, np.float64])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, ">f4"])
def test_the_same_table_as_numbers_of_another_type_names_the_same_actions(known, dtype):
    model = agent(make_toy(ids=True, table=action_table().astype(known)))
    obs, _ = make_toy(ids=True).reset(seed=5)
    other = make_toy(ids=True, table=action_table(40).astype(dtype))
    loaded = DynaQ.load(saved(model), other, device="cpu")
    np.testing.assert_array_equal(loaded.q_values(obs), model.q_values(obs))
    model.set_env(other)
    model.learn(10)


@pytest.mark.parametrize("kwargs", [{}, {"learning_starts": 5}])
def test_a_box_may_have_other_bounds(kwargs):
    def bounded(high):
        env = ToyEnv()
        boxes = {key: spaces.Box(-high, high, box.shape) for key, box in env.observation_space.items()}
        env.observation_space = spaces.Dict(boxes)
        return gym.wrappers.TimeLimit(env, 5)

    model = agent(bounded(10), **kwargs).learn(20)
    model.set_env(bounded(20))
    assert model.observation_space == model.policy.observation_space == bounded(20).observation_space
    assert model.learn(20).num_timesteps == 20


def linear_bandit(env, **kwargs):
    return LinearBandit(env, seed=0, **kwargs)


@pytest.mark.parametrize("made", [agent, linear_bandit])
@pytest.mark.parametrize("own", [None, np.random.default_rng(1).normal(size=(12, 5))])
def test_an_environment_may_be_closed_before_another_takes_its_place(own, made, monkeypatch):
    closed = as_vec_env(make_toy(ids=True))
    model = made(closed, action_features=own).learn(20)
    monkeypatch.setattr(closed, "get_attr", lambda *args, **kwargs: pytest.fail("it is closed"))
    model.set_env(make_toy(ids=True))
    model.learn(10)


@pytest.mark.parametrize("made", [agent, linear_bandit])
def test_a_table_of_ones_own_is_kept_in_another_environment_whose_ids_name_the_same_actions(made):
    own = np.random.default_rng(1).normal(size=(20, 5)).astype(np.float32)
    model = made(make_toy(ids=True), action_features=own).learn(20)
    obs, _ = make_toy(ids=True).reset(seed=5)
    before = model.q_values(obs)
    for table in (action_table(), action_table(20)):
        model.set_env(make_toy(ids=True, table=table))
        np.testing.assert_array_equal(model.q_values(obs), before)
        model.learn(10)
        before = model.q_values(obs)
    with pytest.raises(ValueError, match=r"must have a row for every id .* 0 to 39, got 20 rows"):
        model.set_env(make_toy(ids=True, table=action_table(40)))
    with pytest.raises(ValueError, match="must begin with the 20 rows"):
        model.set_env(make_toy(ids=True, table=action_table(20)[::-1].copy()))
    without_table = make_toy(ids=True, table=action_table(40))
    del without_table.unwrapped.action_features
    with pytest.raises(ValueError, match=r"must have a row for every id .* 0 to 39, got 20 rows"):
        model.set_env(without_table)
    assert model.action_table.dim == 5


def test_the_checksum_of_the_first_rows_is_that_of_a_table_of_them():
    table = np.random.default_rng(0).normal(size=(70_000, 2)).astype(np.float32)
    whole = ActionTable(table)
    for n in (1, 65_536, 65_537, 70_000):
        assert whole.sha256_of_first(n) == ActionTable(table[:n]).sha256
    assert whole.sha256_of_first(69_999) != whole.sha256


def test_several_environments_keep_their_number_and_a_refused_one_changes_nothing():
    model = agent(GymnasiumVecEnv(ToyVectorEnv(2, ids=True)))
    kept, observed = model.env, model.observation_space
    with pytest.raises(ValueError, match=r"as many environments as replay was made for, 2, got 3.*`DynaQ.load\("):
        model.set_env(DummyVecEnv([lambda: make_toy(ids=True, table=action_table(40))] * 3))
    assert model.env is kept and model.observation_space is observed
    assert len(model.action_table) == 12
