"""The world model of what follows, and planning with it, where answers move the applicant."""

import copy
import itertools
import math
import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from ladder import DIM, PAY, Ladder
from stable_baselines3.common.logger import configure

from dynaq_algo import DynaQ, DynaQCheckpoint, context_values, transition_model
from dynaq_algo.context_values import ContextValues
from dynaq_algo.outcome_inputs import GRID, OutcomeInputs
from dynaq_algo.transition_model import TransitionModel


def ladder(**kwargs):
    return gym.wrappers.TimeLimit(Ladder(**kwargs), kwargs.get("horizon", 12))


def agent(env=None, **kwargs):
    return DynaQ.plus(ladder() if env is None else env, seed=0, **kwargs)


@pytest.fixture(scope="module")
def learned():
    return agent().learn(250, log_interval=10**9)


def observation(level, training=(1, 0, 1, 0)):
    return {
        "applicant": np.zeros(DIM, np.float32),
        "candidates": np.array([0, 1, 2, 3]),
        "pairs": np.array(training, np.float32)[:, None],
        "progress": np.array([level / 2], np.float32),
    }


def test_progress_within_other_bounds_is_refused():
    model, other = agent().learn(5, log_interval=None), Ladder()
    progress = gym.spaces.Box(0, 2, (1,), np.float32)
    other.observation_space = gym.spaces.Dict({**other.observation_space.spaces, "progress": progress})
    kept = model.env
    with pytest.raises(ValueError, match=r"show `progress` within the bounds .*\[0.0\] to \[1.0\], got .* to \[2.0\]"):
        model.set_env(other)
    assert model.env is kept
    model.set_env(Ladder())


def mean_return(model, env=None, episodes=10):
    env, total = ladder() if env is None else env, 0.0
    for episode in range(episodes):
        obs, _ = env.reset(seed=1_000 + episode)
        done = False
        while not done:
            obs, reward, terminated, truncated, _ = env.step(int(model.predict(obs, deterministic=True)[0]))
            total, done = total + reward, terminated or truncated
    return total / episodes


def test_a_small_known_market_is_predicted(learned):
    model = learned.world_model
    batch = {name: values[None] for name, values in observation(0).items()}
    chances, outcomes = model.chances(*learned.policy.tensors(learned.policy.layout.read(batch)))
    up = outcomes.index((GRID // 2,))
    np.testing.assert_allclose(chances[0, :, up], [0.8, 0.0, 0.8, 0.0], atol=0.2)
    for level, pay in enumerate(PAY):
        reward = learned.predict_reward(observation(level))[0]
        np.testing.assert_allclose(reward, [0, pay, 0, pay], atol=0.2)


def test_the_agent_passes_through_training_and_one_that_looks_no_further_does_not(learned):
    myopic = agent(gamma=0.0).learn(150, log_interval=10**9)
    assert learned.predict(observation(0), deterministic=True)[0] in (0, 2)
    assert learned.predict(observation(2), deterministic=True)[0] in (1, 3)
    assert mean_return(learned) > 2 * mean_return(myopic)


def test_planning_alone_moves_the_value_of_a_state_that_leads_to_pay():
    model = agent(planning_steps=0).learn(150, log_interval=10**9)
    before = model.world_model.values.of(np.array([[0.5]], np.float32))
    obs = observation(0)
    unplanned = model.q_values(obs)[0]
    model.world_model.plan(20, 5, model.replay_buffer.pair_features, np.random.default_rng(0))
    after = model.world_model.values.of(np.array([[0.5]], np.float32))
    assert before == 0 and after > 1
    assert model.q_values(obs)[0, 0] > unplanned[0] + 1


def test_an_end_is_an_outcome_worth_nothing():
    model = agent(ladder(leaves=True)).learn(150, log_interval=10**9)
    batch = {name: values[None] for name, values in observation(2).items()}
    chances, outcomes = model.world_model.chances(*model.policy.tensors(model.policy.layout.read(batch)))
    training, work = chances[0, :2, outcomes.index(None)]
    assert training > 3 * work
    assert model.predict(observation(2), deterministic=True)[0] in (1, 3)


def test_sets_of_features_that_nobody_can_ask_about_are_imagined_where_they_were_shown():
    model = agent(ladder(ids=False)).learn(150, log_interval=10**9)
    assert mean_return(model, ladder(ids=False)) > 5


@pytest.mark.parametrize(("source", "asks"), [("visited", False), ("candidates", True)])
def test_only_sets_at_a_progress_where_they_were_not_shown_are_asked_about(source, asks):
    model, asked = agent(planning_source=source), []
    ask = model.replay_buffer.pair_features
    model.replay_buffer.pair_features = lambda *pairs: (asked.append(pairs), ask(*pairs))[1]
    model.learn(250, log_interval=10**9)
    assert bool(asked) == asks
    assert mean_return(model) > 5


def shown_otherwise(change, env=None):
    """A ladder behind an observation wrapper, `change(observation) -> entries`."""
    env = ladder() if env is None else env
    return gym.wrappers.TransformObservation(env, lambda obs: {**obs, **change(obs)}, env.observation_space)


def turned(obs):
    return {"pairs": 1 - obs["pairs"]}


class Refusing(Ladder):
    def pair_features(self, applicant_ids, job_ids, progress=None):
        raise ValueError("`progress` must be numbers (..., 2)")


class Longer(Ladder):
    def pair_features(self, applicant_ids, job_ids, progress=None):
        return np.repeat(super().pair_features(applicant_ids, job_ids), 2, axis=-1)


@pytest.mark.parametrize(
    ("make", "how"),
    [
        (lambda: shown_otherwise(turned), "it gives [01] in column 0, and [01] was shown"),
        (lambda: gym.wrappers.TimeLimit(Refusing(), 12), r"it refuses what was shown \(`progress` must be numbers"),
        (
            lambda: gym.wrappers.TimeLimit(Longer(), 12),
            r"it gives numbers of the shape \(1, 4, 2\), and \(1, 4, 1\) were shown",
        ),
    ],
    ids=["other numbers", "refused", "another shape"],
)
def test_pairs_are_imagined_as_they_were_shown_where_the_environment_computes_others(make, how):
    with pytest.warns(UserWarning, match=rf"`pair_features` does not give the `pairs` that are shown: {how}"):
        model = agent(make()).learn(30, log_interval=10**9)
    visited = agent(make(), planning_source="visited").learn(30, log_interval=10**9)
    np.testing.assert_array_equal(model.q_values(observation(0)), visited.q_values(observation(0)))
    assert not model._plans_by_asking
    model.set_env(ladder())
    assert model._plans_by_asking


def test_a_wrapper_that_leaves_pairs_and_progress_as_they_are_changes_nothing_in_planning():
    model, asked = agent(shown_otherwise(lambda obs: {"applicant": 2 * obs["applicant"]})), []
    ask = model.replay_buffer.pair_features
    model.replay_buffer.pair_features = lambda *pairs: (asked.append(pairs), ask(*pairs))[1]
    model.learn(30, log_interval=10**9)
    assert model._plans_by_asking and len(asked) > 30


def test_a_function_that_computes_other_pairs_is_refused_and_one_that_computes_the_same_is_not():
    env = shown_otherwise(turned)
    agent(env, pair_features=lambda *pairs: 1 - Ladder().pair_features(*pairs)).learn(10, log_interval=10**9)
    with pytest.raises(ValueError, match=r"`pair_features` must give the `pairs` that observations show, but it gives"):
        agent(env, pair_features=Ladder().pair_features).learn(10, log_interval=10**9)


def test_a_checkpoint_knows_that_the_environment_computes_other_pairs(tmp_path):
    def make():
        return shown_otherwise(lambda obs: turned(obs) if obs["progress"][0] == 1 else {})

    with pytest.warns(UserWarning, match="`pair_features` does not give the `pairs` that are shown"):
        model = agent(make()).learn(60, log_interval=10**9)
    model.save_checkpoint(tmp_path / "checkpoint")
    resumed = DynaQ.load_checkpoint(tmp_path / "checkpoint", make())
    for one in (model, resumed):
        one.learn(20, reset_num_timesteps=False, log_interval=10**9)
    np.testing.assert_array_equal(resumed.q_values(observation(0)), model.q_values(observation(0)))


def test_progress_beyond_its_bounds_is_refused_as_an_answer():
    model = agent()
    within, beyond = observation(0), {**observation(0), "progress": np.array([2.0], np.float32)}
    for name, shown, following in (("observation", beyond, within), ("next_obs", within, beyond)):
        message = rf"`{name}` must hold `progress` within the bounds .*, \[0.0\] to \[1.0\], row 0 has \[2.0\]"
        with pytest.raises(ValueError, match=message):
            model.observe(shown, 0, 1.0, following)
    assert len(model.replay_buffer) == 0
    model.observe(within, 0, 1.0, beyond, terminated=True)
    assert len(model.replay_buffer) == 1


def test_the_model_discounts_as_the_agent_does():
    with pytest.raises(ValueError, match=r"`world_model_kwargs` must not have `gamma`.*`DynaQ\(gamma=...\)`"):
        agent(world_model_kwargs={"gamma": 2.0})
    model = agent().learn(40, log_interval=10**9)
    obs = observation(0)
    assert (model.q_values(obs) != model.predict_reward(obs)).any()
    model.gamma = 0.0
    model.learn(1, reset_num_timesteps=False, log_interval=10**9)
    np.testing.assert_array_equal(model.q_values(obs), model.predict_reward(obs))
    for gamma in (2.0, 1.0, -0.5):
        model.gamma = gamma
        with pytest.raises(ValueError, match=f"`gamma` must be at least 0 and below 1 .*, got {gamma}"):
            model.learn(1, reset_num_timesteps=False, log_interval=10**9)


def test_a_file_of_an_earlier_version_keeps_the_discount_of_its_model(tmp_path):
    model = agent(gamma=0.5).learn(40, log_interval=10**9)
    model.gamma, model.world_model_kwargs = 0.97, {"gamma": 0.5}
    model.save(tmp_path / "agent.zip")
    loaded = DynaQ.load(tmp_path / "agent.zip", ladder())
    assert (loaded.gamma, loaded.world_model.gamma, loaded.world_model_kwargs) == (0.5, 0.5, {})
    np.testing.assert_array_equal(loaded.q_values(observation(0)), model.q_values(observation(0)))
    assert DynaQ.load(tmp_path / "agent.zip", ladder(), gamma=0.3).world_model.gamma == 0.3


def test_double_values_what_is_chosen_by_a_copy_of_the_model():
    model = agent(bootstrap="double", target_update_interval=40, gamma=0.5).learn(90, log_interval=10**9)
    values, judge = model.world_model.values, model.world_model._judge
    assert model.world_model._judge_until == 81 + 40, "copies after the answers 1, 41 and 81"
    assert not th.equal(judge.codes, model.world_model.codes)
    chooses, judges = values._views
    before = values._value.copy()
    values.sweep(0.5)
    n = len(values)
    worth = np.append(before[:n], 0.0)[values._next[:n]].astype(np.float32)
    best = np.stack([view.returns(slice(n), worth, 0.5) for view in (chooses, judges)])
    wanted = np.take_along_axis(best[1], best[0].argmax(axis=2)[..., None], axis=2).mean(axis=(1, 2))
    np.testing.assert_allclose(values._value[:n], wanted + values._bonuses(slice(n)), rtol=1e-5)
    assert (np.abs(wanted - best[0].max(axis=2).mean(axis=1)) > 1e-4).any()


def test_double_learns_and_goes_on_to_the_bit(tmp_path):
    model = agent(bootstrap="double").learn(250, log_interval=10**9)
    assert mean_return(model) > 5
    model.save(tmp_path / "agent.zip")
    loaded = DynaQ.load(tmp_path / "agent.zip", env=ladder())
    contexts = model.world_model.values.draw(6, np.random.default_rng(0))
    for one in (model, loaded):
        one.world_model.plan(3, 2, one.replay_buffer.pair_features, np.random.default_rng(1), lag=10**6)
    assert loaded.world_model._judge_until == model.world_model._judge_until
    found, wanted = (one.world_model.values.of(contexts) for one in (loaded, model))
    np.testing.assert_array_equal(found, wanted)


def test_a_copy_that_would_stay_too_long_is_replaced_at_once(tmp_path):
    agent(bootstrap="double", target_update_interval=10**6).learn(20, log_interval=10**9).save(tmp_path / "agent.zip")
    loaded = DynaQ.load(tmp_path / "agent.zip", env=ladder(), target_update_interval=7)
    model = loaded.learn(10, log_interval=10**9).world_model
    assert model._judge_until == 28 + 7, "copies after the answers 21 and 28"


def test_a_judge_may_come_and_go_and_knows_no_later_outcomes():
    model = agent(ladder(leaves=True), bootstrap="double", target_update_interval=10**6).learn(60, log_interval=10**9)
    learned = model.world_model
    assert learned._judge.n_kinds < learned._n_kinds
    chances = learned.values._views[1].chances[: len(learned.values)]
    assert (chances[..., learned._judge.n_kinds // 2 :] == 0).all()
    ask, rng = model.replay_buffer.pair_features, np.random.default_rng(0)
    for lag, views in ((None, 1), (5, 2), (None, 1)):
        learned.plan(2, 1, ask, rng, lag)
        assert len(learned.values._views) == views


def test_rows_are_summed_as_by_an_index_and_so_are_their_gradients():
    drawn = th.Generator().manual_seed(0)
    for shape in ((5, 3), (4, 2, 23), (2, 40)):
        codes = th.randint(30, shape, generator=drawn)
        ours, theirs = (th.randn(30, 6, generator=drawn.manual_seed(1)).requires_grad_() for _ in range(2))
        found, wanted = transition_model._SumOfRows.apply(ours, codes), theirs[codes].sum(dim=-2)
        th.testing.assert_close(found, wanted)
        wrong = th.randn(wanted.shape, generator=drawn)
        found.backward(wrong)
        wanted.backward(wrong)
        th.testing.assert_close(ours.grad, theirs.grad)


def test_the_gradient_of_the_prior_is_that_of_its_logarithm(learned):
    model = learned.world_model
    n, first, interest = model._n_kinds, model.inputs.first_product, th.randn(model._n_kinds)
    weights = {name: getattr(model, name) for name in ("codes", "numbers", "direction", "effects", "likes", "liked")}
    for one in weights.values():
        one.grad = th.ones_like(one)
    model._add_gradient_of_prior(interest)
    found = {name: (one.grad - 1) * model.n_told for name, one in weights.items()}
    deviation = {name: th.ones_like(one) for name, one in weights.items()}
    deviation["codes"][first:] = 0.1
    deviation["direction"][:] = 0.5
    mean = {name: th.zeros_like(one) for name, one in weights.items()}
    mean["direction"][:n] = interest
    for name, one in weights.items():
        value = one.detach().clone().requires_grad_()
        (-th.distributions.Normal(mean[name], deviation[name]).log_prob(value)).sum().backward()
        wanted = value.grad
        if name in ("codes", "numbers", "direction"):
            wanted[..., n:] = 0  # kinds of outcomes that were not seen have no weights yet
        th.testing.assert_close(found[name], wanted, atol=1e-3, rtol=1e-3)
        one.grad = None


@pytest.mark.parametrize(
    "given", [{}, {"bootstrap": "double", "planning_source": "visited", "target_update_interval": 23}]
)
def test_a_checkpoint_goes_on_to_the_bit(tmp_path, given):
    whole, first = agent(**given), agent(**given)
    whole.learn(60, log_interval=10**9)

    class Stop(DynaQCheckpoint):
        def _on_step(self):
            return super()._on_step() and self.num_timesteps < 40

    first.learn(60, callback=Stop(tmp_path / "checkpoint", 40), log_interval=10**9)
    resumed = DynaQ.load_checkpoint(tmp_path / "checkpoint", ladder(), device="cpu")
    resumed.learn(60 - resumed.num_timesteps, reset_num_timesteps=False, log_interval=10**9)
    for level in range(3):
        np.testing.assert_array_equal(resumed.q_values(observation(level)), whole.q_values(observation(level)))


def test_a_loaded_agent_says_the_same(learned, tmp_path):
    learned.save(tmp_path / "agent.zip")
    again = DynaQ.load(tmp_path / "agent.zip", ladder())
    obs = observation(1)
    np.testing.assert_array_equal(again.q_values(obs), learned.q_values(obs))
    np.testing.assert_array_equal(again.predict_reward(obs), learned.predict_reward(obs))


class Named(Ladder):
    """Says which jobs it shows, as JobRec-v0 does, also where candidates are features."""

    def reset(self, **kwargs):
        obs, info = super().reset(**kwargs)
        return obs, info | {"candidate_ids": self.shown}

    def step(self, action):
        *result, info = super().step(action)
        return *result, info | {"candidate_ids": self.shown}


def test_ids_of_candidates_that_are_texts_are_not_known():
    class Texts(Named):
        def step(self, action):
            *result, info = super().step(action)
            return *result, info | {"candidate_ids": [f"job {job}" for job in self.shown]}

    model = agent(gym.wrappers.TimeLimit(Texts(ids=False), 12)).learn(20, log_interval=None)
    stored, _ = model.replay_buffer.candidate_sets(np.arange(20))
    assert (model.replay_buffer.ids_to_ask(stored) < 0).all()


def test_where_candidates_are_features_the_jobs_that_were_shown_are_asked_about():
    env = Named(ids=False)
    asked = []
    env.pair_features = lambda people, jobs, progress=None: (
        asked.append(jobs) or Ladder.pair_features(env, people, jobs)
    )
    model = agent(gym.wrappers.TimeLimit(env, 12)).learn(60, log_interval=10**9)
    assert np.isin(np.concatenate(asked), np.arange(len(env.action_features))).all()
    replay = model.replay_buffer
    stored, _ = replay.candidate_sets(np.arange(len(replay)))
    found = replay.ids_to_ask(stored)
    known = (found >= 0).all(axis=1)
    assert known.mean() > 0.9, "all but the first sets, before any id was told"
    true = (replay.candidate_rows(stored)[:, :, None] == env.action_features).all(axis=3).argmax(axis=2)
    np.testing.assert_array_equal(found[known], true[known])
    kept = model.world_model.values._kept
    assert len(kept.askable()) == np.count_nonzero(kept.take("can_ask", np.arange(len(kept)))) > 50


def test_a_vector_of_two_jobs_is_not_asked_about():
    env = Named(ids=False)
    env.action_features[2] = env.action_features[4]
    model = agent(gym.wrappers.TimeLimit(env, 12)).learn(100, log_interval=10**9)
    replay = model.replay_buffer
    stored, _ = replay.candidate_sets(np.arange(len(replay)))
    of_two = (replay.candidate_rows(stored) == env.action_features[2]).all(axis=2)
    assert of_two.any() and (replay.ids_to_ask(stored)[of_two] < 0).all()


def test_an_answer_without_info_is_imagined_where_it_was_shown():
    env = ladder()
    model = agent(env)
    obs, _ = env.reset(seed=0)
    for _ in range(20):
        following, reward, terminated, truncated, _ = env.step(0)
        model.observe(obs, 0, reward, following, terminated)
        obs = env.reset()[0] if truncated else following
    assert model.num_timesteps == len(model.replay_buffer) == 20
    assert not len(model.world_model.values._kept.askable())


@pytest.mark.parametrize("n", [3, 13, 17, 25])
def test_an_outcome_is_the_same_whichever_parts_it_is_between(n):
    values = ContextValues(np.zeros(1), np.ones(1))
    parts = [np.array([i / n], np.float32) for i in range(n + 1)]
    moves = {values.difference(a, b)[0] for a, b in itertools.pairwise(parts)}
    assert max(moves) - min(moves) <= 1
    for row in parts[::2]:
        values.visit(row[None])
    one = (min(moves),)
    for row in np.array([place for place in values._rows]):  # what lies between is first imagined, then seen
        values._reached(row, [one], [True])
    for row in parts:
        values.visit(row[None])
    assert len(values) == n + 1
    assert values._rounded((values._rows[0][0] + 2,)) == values._rows[0]


def test_outcomes_that_are_rounded_in_two_ways_are_one():
    model = agent().world_model
    assert [model._outcome((step,)) for step in (GRID // 13, GRID // 13 + 1, GRID // 2)] == [0, 0, 1]


def test_bounds_that_are_infinite_cut_nothing_off():
    values = ContextValues(np.full(1, -np.inf), np.full(1, np.inf))
    values.visit(np.array([[3.0]], np.float32))
    (place,) = values._reached(np.array(values._rows[0]), [(GRID,)], [True])
    assert values._rows[place] == (4 * GRID,)


def test_more_rows_than_there_is_room_for_count_as_the_nearest(monkeypatch):
    monkeypatch.setattr(context_values, "_MOST_CONTEXTS", 4)
    values = ContextValues(np.zeros(1), np.ones(1))
    values.visit(np.array([[0.0], [0.25], [0.5], [0.75]], np.float32))
    values._value[:4] = [1.0, 2.0, 3.0, 4.0]
    with pytest.warns(UserWarning, match="every further row counts as the nearest") as told:
        values.visit(np.array([[0.7], [0.7]], np.float32))
        assert values.of(np.array([[0.7], [0.1]], np.float32)).tolist() == [4.0, 1.0]
        assert values.following(np.array([[0.7]], np.float32), [(0,), (-GRID // 2,), None]).tolist() == [[4, 2, 0]]
    assert len(told) == 1 and len(values) == 4 and values._visits[:4].tolist() == [1, 1, 1, 3]


def test_a_table_in_other_units_is_refused():
    state = ContextValues(np.zeros(1), np.ones(1)).get_state() | {"grid": th.tensor(5_040)}
    with pytest.raises(ValueError, match=r"must have multiples of 1 / 720,720, got 1 / 5,040"):
        ContextValues(np.zeros(1), np.ones(1)).set_state(state)


def test_a_loaded_agent_goes_on_with_another_number_of_candidates(learned, tmp_path):
    learned.save(tmp_path / "agent.zip")

    class Fewer(Ladder):
        def __init__(self):
            super().__init__()
            spaces = dict(self.observation_space.items())
            for name in ("candidates", "pairs"):
                box = spaces[name]
                spaces[name] = gym.spaces.Box(box.low[:2], box.high[:2], dtype=box.dtype)
            self.observation_space, self.action_space = gym.spaces.Dict(spaces), gym.spaces.Discrete(2)

        def _show(self):
            obs = super()._show()
            self.shown = self.shown[:2]
            return {name: part[:2] if name in ("candidates", "pairs") else part for name, part in obs.items()}

    again = DynaQ.load(tmp_path / "agent.zip", gym.wrappers.TimeLimit(Fewer(), 12))
    again.learn(30, log_interval=10**9, reset_num_timesteps=False)
    assert again.world_model.n_told == 280
    assert again.world_model.values._kept.take("actions", np.zeros(1, int)).shape == (1, 2)


def test_the_model_is_computed_on_the_cpu_whatever_the_device():
    model = agent(device="meta").learn(20, log_interval=10**9)
    assert {part.device.type for part in model.policy.parameters()} == {model.device.type} == {"cpu"}


def test_a_discount_of_one_is_refused():
    with pytest.raises(ValueError, match='`gamma` must be at least 0 and below 1 with `world_model="transitions"`'):
        agent(gamma=1.0)


def test_seldom_visited_values_are_worth_more_the_less_they_were_visited():
    model = agent(world_model_kwargs={"bonus": 5.0}).learn(100, log_interval=10**9)
    plain = agent(world_model_kwargs={"bonus": 0.0}).learn(100, log_interval=10**9)
    rows = np.array([[0.0], [0.5], [1.0]], np.float32)
    assert (model.world_model.values.of(rows) > plain.world_model.values.of(rows)).all()


def test_same_action_warns_once_why_where_answers_move_the_applicant():
    with pytest.warns(UserWarning, match="answers move the applicant") as told:
        model = DynaQ("CandidatePolicy", ladder(), seed=0)
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.learn(5)
        DynaQ("CandidatePolicy", ladder(), bootstrap="max", seed=0)
        agent()


def test_moments_of_another_shape_are_refused(learned):
    model, other = learned.world_model, agent().learn(5, log_interval=None).world_model
    for number in (0, 6):  # one of the parameters, and the actions' effects
        state = model.get_extra_state()
        state["adam"] = copy.deepcopy(state["adam"])
        state["adam"]["state"][number]["exp_avg"] = th.zeros(3)
        with pytest.raises(RuntimeError, match="`exp_avg` of an optimiser must be numbers of the shape"):
            other.set_extra_state(state)
    del state["adam"]["state"][6]  # as if the effects had not been learned yet
    other.set_extra_state(state)
    other.inputs._actions = dict.fromkeys(range(len(other.effects)), 0)
    other._grow_effects()
    assert len(other.effects) > len(state["effects"])
    other.fit(np.random.default_rng(0))


def test_without_progress_there_is_nothing_to_predict():
    class Still(gym.ObservationWrapper):
        def __init__(self, env):
            super().__init__(env)
            shown = {name: space for name, space in env.observation_space.spaces.items() if name != "progress"}
            self.observation_space = gym.spaces.Dict(shown)

        def observation(self, observation):
            return {name: value for name, value in observation.items() if name != "progress"}

    with pytest.raises(ValueError, match="learns how the entry `progress`, a Box, changes"):
        agent(Still(ladder()), world_model="transitions", gamma=0.9)
    assert agent(Still(ladder())).world_model_name == "gaussian_process"
    assert agent().world_model_name == "transitions"


@pytest.mark.parametrize("world_model", ["network", "gaussian_process"])
def test_other_world_models_learn_where_applicants_leave(world_model):
    model = agent(ladder(leaves=True), world_model=world_model, learning_starts=60).learn(80, log_interval=10**9)
    assert model.planning_source == "visited"
    assert model.replay_buffer.sample(200, np.random.default_rng(0)).terminated.any()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_outcomes": 1}, "`max_outcomes` must be 2 or more"),
        ({"components": -1}, "`components` must be 0 or more"),
        ({"rank": 0}, "`rank` must be 1 or more"),
        ({"steps": 0}, "`steps` must be 1 or more"),
        ({"learning_rate": 0.0}, "`learning_rate` must be above 0"),
        ({"learning_rate": math.inf}, "`learning_rate` must be a finite number, got inf"),
        ({"action_scale": "1"}, "`action_scale` must be a finite number, got '1'"),
        ({"bonus": -1.0}, "`bonus` must be a finite number of 0 or more, got -1.0"),
        ({"bonus": "large"}, "`bonus` must be a finite number of 0 or more, got 'large'"),
    ],
)
def test_what_cannot_be_is_named(given, message):
    with pytest.raises(ValueError, match=message):
        agent(world_model_kwargs=given)


def test_the_horizon_is_a_number_of_sweeps():
    with pytest.raises(ValueError, match="`planning_horizon` must be 1 or more"):
        agent(planning_horizon=0)
    assert isinstance(agent(planning_horizon=3).world_model, TransitionModel)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"planning_source": "crossed"}, '`planning_source` must be "visited" or "candidates" with `world_model="tr'),
        ({"weight_pull": 0.1}, '`weight_pull` must be 0 with `world_model="transitions"`'),
        ({"exploration_bonus": 0.5}, '`exploration_bonus` must be 0 with `world_model="transitions"`'),
    ],
)
def test_what_a_model_of_transitions_would_not_read_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        agent(**given)
    assert agent().bootstrap == "max"


def test_a_horizon_is_refused_by_models_of_one_step():
    with pytest.raises(ValueError, match='`planning_horizon` must be 1 unless `world_model` is "transitions", got 3'):
        agent(world_model="gaussian_process", gamma=0.0, exploration_bonus=1.0, planning_horizon=3)


def test_updates_and_planning_steps_are_logged():
    model = agent(planning_steps=3)
    model.set_logger(logger := configure(None, []))
    model.learn(20, log_interval=10**9)
    assert logger.name_to_value["train/n_updates"] == 20
    assert logger.name_to_value["train/planning_updates"] == 60


class Bare(gym.ObservationWrapper):
    """Without `pairs`."""

    def __init__(self, env):
        super().__init__(env)
        others = {name: space for name, space in env.observation_space.items() if name != "pairs"}
        self.observation_space = gym.spaces.Dict(others)

    def observation(self, observation):
        return {name: observation[name] for name in self.observation_space}


def test_without_pairs_it_learns_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agent(Bare(ladder())).learn(10, log_interval=10**9)


def test_further_outcomes_count_as_the_nearest():
    model = agent(world_model_kwargs={"max_outcomes": 3}).world_model
    assert [model._outcome((step,)) for step in (0, GRID // 2, GRID // 3, 0)] == [0, 1, 1, 0]
    assert model._outcome(None) == 2, "one place is kept for the end"
    assert [model._outcome((step,)) for step in (GRID, 0)] == [1, 0]


class Picky(Ladder):
    """A ladder on which half of the jobs of work pay nothing, which neither `pairs` nor what follows tells."""

    def step(self, action):
        pays = self.shown[action] % 4 == 1
        obs, reward, *rest = super().step(action)
        return obs, reward * pays, *rest


def test_a_reward_tells_of_the_job_where_what_follows_is_the_same():
    kwargs = {"action_scale": 1.0}
    picky = gym.wrappers.TimeLimit(Picky(), 12)
    model = agent(picky, exploration_initial_eps=0.5, world_model_kwargs=kwargs).learn(150, log_interval=10**9)
    paid, unpaid = model.predict_reward(observation(2))[0, [1, 3]]
    assert paid > unpaid + 0.3
    assert model.world_model.trust[0] > 0.5


def test_weights_begin_at_nothing_so_that_the_prior_acts_first():
    model = agent(policy_kwargs={"prior": [0.1, 0.1, 0.5]})
    reward = model.predict_reward(observation(0))[0]
    assert reward[0] > reward[1] and th.count_nonzero(model.world_model.codes) == 0


def test_what_follows_is_valued_at_the_decision_only():
    with pytest.raises(ValueError, match='use it with `planning="decision_time"`'):
        agent(planning="background", bootstrap="max")
    with pytest.raises(ValueError, match="no network to train"):
        agent().pretrain({})


def test_kept_decisions_are_the_latest_and_counted_from_the_oldest(monkeypatch):
    monkeypatch.setattr(context_values, "_MOST_SETS", 5)
    kept = context_values._KeptDecisions()
    for n in (2, 4, 1, 9):  # up to more at once than are kept
        numbers = np.arange(n) + 10 * n
        kept.add({"actions": numbers[:, None], "context": np.stack([numbers % 2, numbers * 0], axis=1)})
        if n == 4:
            assert kept.take("actions", np.arange(len(kept)))[:, 0].tolist() == [21, 40, 41, 42, 43]
            assert kept.at((1, 0)).tolist() == [0, 2, 4]
    state = kept.get_state()
    assert state["actions"][:, 0].tolist() == [94, 95, 96, 97, 98]
    again = context_values._KeptDecisions()
    again.add({name: values.numpy() for name, values in state.items()})
    assert again.take("actions", np.array([[0, 4]])).tolist() == [[[94], [98]]]


class Careers(gym.Env):
    """Pairs whose number has a new value in each decision, so that its column soon becomes a number."""

    action_space = gym.spaces.Discrete(3)
    observation_space = gym.spaces.Dict(
        {
            "applicant": gym.spaces.Box(-1.0, 1.0, (DIM,)),
            "candidates": gym.spaces.Box(-1.0, 1.0, (3, DIM)),
            "pairs": gym.spaces.Box(0.0, 1.0, (3, 1)),
            "progress": gym.spaces.Box(0.0, 1.0, (1,)),
        }
    )

    def _shown(self):
        self.pairs = self.np_random.random((3, 1)).astype(np.float32)
        candidates = self.np_random.normal(size=(3, DIM)).clip(-1, 1).astype(np.float32)
        return {
            "applicant": np.full(DIM, 0.5, np.float32),
            "candidates": candidates,
            "pairs": self.pairs,
            "progress": np.array([self.level / 2], np.float32),
        }

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.level = 0
        return self._shown(), {}

    def step(self, action):
        reward = float(self.pairs[action, 0])
        self.level = min(self.level + (reward > 0.5), 2)
        return self._shown(), reward, False, False, {}


def test_earlier_transitions_keep_a_column_that_becomes_a_number():
    model = agent(gym.wrappers.TimeLimit(Careers(), 10)).learn(40, log_interval=10**9).world_model
    assert model.inputs._is_number.tolist() == [False, True]
    told = {name: values[: model.n_told] for name, values in model._told.items()}
    n_blocks = model.features.n_blocks
    similarities = th.as_tensor(told["numbers"][:, :n_blocks])
    np.testing.assert_array_equal(
        told["numbers"], model.inputs.numbers_of(similarities, told["progress"], told["pairs"]).numpy()
    )
    assert (told["numbers"][:, n_blocks] != 0).all()


def test_adam_goes_on_when_more_actions_are_seen(monkeypatch):
    monkeypatch.setattr(transition_model, "_ROOM", 8)
    model = agent(gym.wrappers.TimeLimit(Careers(), 10)).learn(40, log_interval=10**9).world_model
    state = model._adam.state_dict()["state"]
    assert len(model.effects) == len(state[max(state)]["exp_avg"]) > 64
    assert {int(one["step"]) for one in state.values()} == {2 * 40}


def test_components_of_actions_are_loaded_as_they_were(tmp_path):
    model = agent(gym.wrappers.TimeLimit(Careers(), 10)).learn(120, log_interval=10**9)
    model.save(tmp_path / "agent.zip")
    again = DynaQ.load(tmp_path / "agent.zip").world_model.inputs.in_components
    assert again.abs().sum() > 0
    np.testing.assert_array_equal(again.numpy(), model.world_model.inputs.in_components.numpy())


def test_many_actions_are_met_without_a_copy_of_all_and_kept_without_their_vectors():
    model = agent(gym.wrappers.TimeLimit(Careers(), 10)).learn(120, log_interval=10**9)
    inputs = model.world_model.inputs
    n, kept = inputs.n_actions, inputs._in_components
    model.learn(1, reset_num_timesteps=False, log_interval=10**9)
    assert inputs.n_actions == n + 3 and inputs._in_components is kept
    assert len(inputs.get_state()["vectors"]) == 0


@pytest.mark.parametrize("components", [0, 4])
@pytest.mark.parametrize("n", [100, 300])
def test_actions_are_known_again_also_from_a_file_of_an_earlier_version(n, components):
    features = agent().policy.features
    whole = OutcomeInputs(features, 1, components)
    vectors = th.as_tensor(np.random.default_rng(0).normal(size=(600, DIM)).astype(np.float32))
    whole._meet(vectors[:n])
    state = whole.get_state()
    earlier = {**{name: values for name, values in state.items() if name != "keys"}, "vectors": vectors[:n]}
    whole._meet(vectors)
    for saved in (state, earlier):
        again = OutcomeInputs(features, 1, components)
        again.set_state(saved)
        again._meet(vectors)
        assert again.actions_of(vectors).tolist() == list(range(1, 601))
        assert again.in_components.shape == (601, components) and not again.in_components[0].any()
        th.testing.assert_close(again.in_components, whole.in_components, atol=0, rtol=0)
