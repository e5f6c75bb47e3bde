"""`pairs`: numbers of each (state, candidate) pair reach every place where a pair is judged, and the right pair."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv
from test_dynaq import agent, vec
from test_saving import StopAt, everything
from toy import N_CANDIDATES, N_PAIRS, ToyEnv, ToyVectorEnv, action_table, applicant_table, make_toy, pair_table

from dynaq_algo import DynaQ, GymnasiumVecEnv
from dynaq_algo.layout import DecisionBatch
from dynaq_algo.planning import CandidatePairs, CrossedPairs

BLOCKWISE = {"net_arch": [16], "features": "blockwise", "features_kwargs": {"n_blocks": 1}}


def fresh_observations(n, ids):
    """Of users of whom an agent that learned from other seeds has mostly seen none."""
    env = make_toy(pairs=True, ids=ids)
    return [env.reset(seed=10_000 + i)[0] for i in range(n)]


# ---------------------------------------------------------------------- learning

ENVS = {
    "features": lambda: make_toy(pairs=True),
    "ids": lambda: make_toy(pairs=True, ids=True),
    "three": lambda: vec(3, pairs=True, ids=True),
    "native": lambda: GymnasiumVecEnv(ToyVectorEnv(3, pairs=True, ids=True)),
}


@pytest.mark.parametrize("kind", ENVS)
@pytest.mark.parametrize(
    "policy_kwargs", [{"net_arch": [32], "features": "concat"}, BLOCKWISE], ids=["concat", "blocks"]
)
def test_an_agent_learns_from_what_only_pairs_tell(kind, policy_kwargs):
    model = agent(ENVS[kind](), gamma=0.0, learning_rate=1e-2, planning_steps=1, policy_kwargs=policy_kwargs).learn(300)
    shown = fresh_observations(100, ids=kind != "features")
    best = [obs["pairs"][:, 0].argmax() for obs in shown]
    assert np.mean([model.predict(obs, deterministic=True)[0] for obs in shown] == np.array(best)) > 0.8
    predicted = np.concatenate([model.predict_reward(obs)[0] for obs in shown])
    assert np.corrcoef(predicted, np.concatenate([obs["pairs"][:, 0] for obs in shown]))[0, 1] > 0.8


def test_a_gaussian_process_learns_from_pairs():
    model = agent(make_toy(pairs=True), world_model="gaussian_process", policy_kwargs=BLOCKWISE, planning_steps=0)
    model.learn(200)
    shown = fresh_observations(50, ids=False)
    predicted = np.concatenate([model.predict_reward(obs)[0] for obs in shown])
    assert np.corrcoef(predicted, np.concatenate([obs["pairs"][:, 0] for obs in shown]))[0, 1] > 0.7
    assert model.reward_spread(shown[0]).shape == (1, N_CANDIDATES)


@pytest.mark.parametrize("features", ["concat", "interaction", "blockwise"])
@pytest.mark.parametrize("n_candidates", [1, 9])
def test_predictions_take_another_number_of_candidates_than_training(features, n_candidates):
    policy_kwargs = {**BLOCKWISE, "features": features}
    policy_kwargs |= {} if features == "blockwise" else {"features_kwargs": {}}
    model = agent(make_toy(pairs=True), policy_kwargs=policy_kwargs, planning_steps=1).learn(80)
    few = fresh_observations(1, ids=False)[0]
    rows = np.arange(n_candidates) % N_CANDIDATES
    obs = {"user": few["user"], "candidates": few["candidates"][rows], "pairs": few["pairs"][rows]}
    for judge in (model.q_values, model.predict_reward):
        np.testing.assert_allclose(judge(obs), judge(few)[:, rows], rtol=1e-4, atol=1e-5)
    assert model.predict(obs, deterministic=True)[0] == model.q_values(obs)[0].argmax()


def test_features_see_each_decision_before_it_is_taken_and_nothing_else(monkeypatch):
    model = agent(make_toy(pairs=True, new_candidates=True), learning_starts=10, policy_kwargs=BLOCKWISE)
    seen, chosen_from = [], []
    monkeypatch.setattr(model.policy.features, "see", lambda *shown: seen.append(shown))
    choose = model._sample_action

    def watched(*args):
        chosen_from.append((len(seen), model._last_obs))
        return choose(*args)

    monkeypatch.setattr(model, "_sample_action", watched)
    model.learn(30)
    assert [n for n, _ in chosen_from] == list(range(1, 31))
    for (state, candidates, pairs), (_, obs) in zip(seen, chosen_from, strict=True):
        np.testing.assert_array_equal(state, obs["user"])
        np.testing.assert_array_equal(candidates, obs["candidates"])
        np.testing.assert_array_equal(pairs, obs["pairs"])
    obs = fresh_observations(1, ids=False)[0]
    for judge in (model.predict, model.q_values, model.predict_reward, model.reward_spread):
        judge(obs)
    assert len(seen) == 30


def test_of_ids_features_see_the_vectors_of_the_table(monkeypatch):
    model = agent(make_toy(pairs=True, ids=True), policy_kwargs=BLOCKWISE)
    seen = []
    monkeypatch.setattr(model.policy.features, "see", lambda *shown: seen.append((model._last_obs, *shown)))
    model.learn(3)
    assert len(seen) == 3
    for obs, state, candidates, pairs in seen:
        np.testing.assert_array_equal(state, obs["user"])
        np.testing.assert_array_equal(candidates, action_table()[obs["candidates"]])
        assert pairs.shape == (1, N_CANDIDATES, N_PAIRS)


# ---------------------------------------------------------------------- targets


def transition(model, terminated=False):
    """One stored transition, and its two decisions."""
    rng = np.random.default_rng(3)
    obs, next_obs = (
        DecisionBatch(*(rng.normal(size=(1, *shape)).astype(np.float32) for shape in ((3,), (4, 3))), mask, pairs)
        for mask, pairs in [(None, rng.uniform(size=(1, 4, 2)).astype(np.float32)) for _ in range(2)]
    )
    model.replay_buffer.add(obs, next_obs, np.array([2]), np.array([0.5]), np.array([terminated]))
    return obs, next_obs, model.replay_buffer[np.array([0])]


@pytest.mark.parametrize("bootstrap", ["same_action", "max", "double"])
def test_targets_use_the_pairs_of_what_may_follow(bootstrap):
    model = agent(make_toy(pairs=True), bootstrap=bootstrap)
    with th.no_grad():
        for parameter in model.q_net_target.parameters():
            parameter.mul_(3.0)  # another network than the one that chooses
    obs, next_obs, transitions = transition(model)
    state, candidates, pairs = (th.as_tensor(part) for part in (next_obs[0], next_obs[1], next_obs[3]))
    with th.no_grad():
        following = model.q_net_target.score(state, candidates, pairs)[0]
        best = model.q_net.score(state, candidates, pairs)[0].argmax()
        # The same action's pairs stay: what they would be at the next state is not known.
        same = model.q_net_target(
            model.policy.features(state, th.as_tensor(obs.candidates[:, 2]), th.as_tensor(obs.pairs[:, 2]))
        )
    wanted = {"same_action": same[0], "max": following.max(), "double": following[best]}[bootstrap]
    batch = model._batch(transitions)
    targets = model._targets(batch, th.tensor([0.5]), model._target_values(transitions, batch))
    th.testing.assert_close(targets, 0.5 + 0.9 * wanted.reshape(1), rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------------- planning


def filled(env, source, **kwargs):
    """An agent that has chosen 63 times at random, in the middle of an episode."""
    return agent(env, planning_source=source, learning_starts=1_000, **kwargs).learn(63)


def test_planning_on_candidates_takes_the_pairs_that_were_shown():
    model = filled(vec(3, pairs=True, ids=True), "candidates")
    replay = model.replay_buffer
    planned = CandidatePairs().sample(replay, 200, np.random.default_rng(0))
    chosen = replay[planned.position].candidate_id
    assert (planned.candidate_id != chosen).all()
    applicants = replay._pairs.applicant_id[planned.position]
    np.testing.assert_array_equal(planned.pairs, pair_table()[applicants, planned.candidate_id])


class Named(gym.Wrapper):
    """An environment that gives its applicants another id, or none."""

    def __init__(self, env, name):
        super().__init__(env)
        self.name = name

    def step(self, action):
        *result, info = self.env.step(action)
        return *result, {**info, "applicant_id": self.name(info["applicant_id"])}


@pytest.mark.parametrize("name", [lambda i: f"p{i}", lambda i: None, lambda i: i + 0.5, lambda i: -2, lambda i: 2**70])
def test_an_id_of_an_applicant_that_is_no_whole_number_is_needed_only_for_crossed_pairs(name):
    model = agent(Named(make_toy(pairs=True, ids=True), name), learning_starts=10).learn(20)
    assert (model.replay_buffer.applicants(np.arange(20)) == -1).all()
    model = agent(Named(make_toy(pairs=True, ids=True), name), learning_starts=10, planning_source="crossed")
    with pytest.raises(ValueError, match=r"`info\[\"applicant_id\"\]` \(a whole number of 0 or more\)"):
        model.learn(20)


@pytest.mark.parametrize("name", [np.int32, np.array, float, lambda i: np.array([i])])
def test_an_id_of_an_applicant_may_be_a_whole_number_of_any_type(name):
    model, other = (filled(Named(make_toy(pairs=True, ids=True), one), "crossed") for one in (name, int))
    found = model.replay_buffer.applicants(np.arange(63))
    np.testing.assert_array_equal(found, other.replay_buffer.applicants(np.arange(63)))
    assert (found >= 0).all()


class Asked:
    """Answers with the truth plus ten, so that an answer is told from what was shown."""

    def __init__(self):
        self.rows = []

    def __call__(self, applicant_ids, job_ids):
        self.rows += zip(applicant_ids.tolist(), job_ids.tolist(), strict=True)
        return pair_table()[applicant_ids, job_ids] + 10


@pytest.mark.parametrize("coming", [0.0, 0.5, 1.0])
def test_crossed_pairs_are_asked_for_and_those_of_the_coming_decision_are_not(coming):
    asked = Asked()
    model = filled(make_toy(pairs=True, ids=True), CrossedPairs(coming), pair_features=asked)
    replay = model.replay_buffer
    planned = CrossedPairs(coming).sample(replay, 300, np.random.default_rng(0))
    was_asked = planned.pairs[:, 0] >= 10
    assert (was_asked.mean() > 0.3) == (coming < 1)
    assert (was_asked.mean() < 0.7) == (coming > 0)
    applicants = replay._pairs.applicant_id[planned.position]
    assert asked.rows == list(zip(applicants[was_asked], planned.candidate_id[was_asked], strict=True))
    np.testing.assert_array_equal(
        planned.pairs[was_asked], pair_table()[tuple(np.transpose(asked.rows).reshape(2, -1).astype(int))] + 10
    )
    # The state is that of the applicant whose pairs were asked for.
    states = replay.state_rows(planned.state_id)
    np.testing.assert_array_equal(states[was_asked], applicant_table()[applicants[was_asked]])
    shown = planned.candidate_id[~was_asked]
    np.testing.assert_array_equal(states[~was_asked], np.repeat(model._last_obs["user"], len(shown), axis=0))
    by_id = dict(zip(model._last_obs["candidates"][0].tolist(), model._last_obs["pairs"][0], strict=True))
    np.testing.assert_array_equal(
        planned.pairs[~was_asked], np.array([by_id[i] for i in shown.tolist()]).reshape(-1, 2)
    )


def test_a_pair_that_was_asked_for_is_none_that_is_stored():
    """Even where the same candidate was shown with other numbers: what is kept for that pair is not used here."""
    model = filled(make_toy(pairs=True, ids=True), "crossed", pair_features=Asked())
    replay = model.replay_buffer
    planned = CrossedPairs(0.0).sample(replay, 300, np.random.default_rng(0))
    assert (planned.candidate_id == replay[planned.position].candidate_id).any()
    assert not replay.as_stored(planned).any()
    assert replay.as_stored(replay[planned.position]).all()


def test_what_follows_the_coming_decision_has_the_pairs_of_its_state():
    model = filled(make_toy(pairs=True, ids=True, new_candidates=True), "crossed", bootstrap="max")
    replay = model.replay_buffer
    planned = CrossedPairs(1.0).sample(replay, 50, np.random.default_rng(0))
    np.testing.assert_array_equal(
        replay.pair_sets(planned.position, following=True), np.repeat(model._last_obs["pairs"], 50, axis=0)
    )
    assert (planned.serial == replay.n_added - 1).all()


@pytest.mark.parametrize("kind", ["ids", "three", "native"])
def test_the_environment_is_asked_where_no_function_is_given(kind):
    model = agent(ENVS[kind](), planning_source="crossed", planning_steps=2, gamma=0.0, learning_rate=1e-2).learn(300)
    shown = fresh_observations(100, ids=True)
    best = np.array([obs["pairs"][:, 0].argmax() for obs in shown])
    assert np.mean([model.predict(obs, deterministic=True)[0] for obs in shown] == best) > 0.8


class Silent(ToyEnv):
    """Knows nothing of pairs that it did not show."""

    @property
    def pair_features(self):
        raise AttributeError("pair_features")


def test_crossed_planning_is_refused_where_nobody_knows_the_pairs():
    way_out = r"or `DynaQ\(pair_features=function\)`.*Otherwise use `planning_source=\"visited\"`"
    with pytest.raises(ValueError, match=f"but nothing computes them here.*{way_out}"):
        agent(Silent(pairs=True, ids=True), planning_source="crossed")
    with pytest.raises(ValueError, match=f"candidates are features here.*{way_out}"):
        agent(make_toy(pairs=True), planning_source="crossed")
    for allowed in ({"planning_source": "visited"}, {"planning_steps": 0}, {"pair_features": Asked()}):
        agent(Silent(pairs=True, ids=True), **{"planning_source": "crossed", **allowed})
    agent(Silent(), planning_source="crossed")  # no `pairs`, nothing to know


@pytest.mark.waits
def test_an_environment_in_another_process_need_not_know_pairs():
    env = SubprocVecEnv([lambda: Silent(pairs=True, ids=True)], start_method="fork")
    try:
        agent(env).learn(70)
    finally:
        env.close()


def test_crossed_planning_is_refused_where_infos_name_no_applicant(monkeypatch):
    step = ToyEnv.step
    monkeypatch.setattr(ToyEnv, "step", lambda self, action: (*step(self, action)[:4], {}))
    with pytest.raises(
        ValueError, match=r'each step must have `info\["applicant_id"\]`.*use `planning_source="visited"`'
    ):
        agent(make_toy(pairs=True, ids=True), planning_source="crossed").learn(70)


def test_an_agent_without_an_environment_is_refused_when_it_first_crosses(tmp_path):
    model = filled(make_toy(pairs=True, ids=True), "crossed")
    model.save(tmp_path / "agent.zip")
    loaded = DynaQ.load(tmp_path / "agent.zip", device="cpu", action_features=action_table())
    loaded.replay_buffer = model.replay_buffer
    loaded.replay_buffer.pair_features = None
    with pytest.raises(ValueError, match="give the environment such a method"):
        loaded.plan(16)
    loaded.set_env(make_toy(pairs=True, ids=True))
    assert len(loaded.plan(16)) == loaded.planning_steps


def test_a_function_that_does_not_give_what_is_shown_is_refused():
    given = {"planning_source": "crossed", "pair_features": lambda people, jobs: pair_table()[people, jobs, ::-1]}
    with pytest.raises(ValueError, match=r"`pair_features` must give the `pairs` that observations show, but it gives"):
        agent(make_toy(pairs=True, ids=True), **given).learn(70)
    agent(make_toy(pairs=True, ids=True), **given, planning_steps=0).learn(70)


def test_an_answer_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"must answer \d+ pairs with \(\d+, 2\) numbers.*It gave \(\d+, 1\)\."):
        agent(
            make_toy(pairs=True, ids=True),
            planning_source="crossed",
            pair_features=lambda applicants, jobs: pair_table()[applicants, jobs][:, :1],
        ).learn(70)


# ---------------------------------------------------------------------- pre-training


def dataset(n, seed=0):
    rng = np.random.default_rng(seed)
    applicants, jobs = rng.integers(200, size=n), rng.integers(12, size=n)
    pairs = pair_table()[applicants, jobs]
    return {"state": applicant_table()[applicants], "action": jobs, "pairs": pairs, "reward": pairs[:, 0]}


@pytest.mark.parametrize("ids", [False, True])
def test_pretraining_teaches_what_pairs_tell(ids):
    data = dataset(2_000)
    if not ids:
        data["action"] = action_table()[data["action"]]
    model = agent(make_toy(pairs=True, ids=ids), gamma=0.0, policy_kwargs={**BLOCKWISE, "net_arch": [32]})
    model.pretrain(data, epochs=10)
    shown = fresh_observations(100, ids)
    best = np.array([obs["pairs"][:, 0].argmax() for obs in shown])
    assert np.mean([model.predict(obs, deterministic=True)[0] for obs in shown] == best) > 0.8
    # The scale is that of the data.
    mean = model.policy.features.scaled(th.as_tensor(data["pairs"])).mean(dim=0)
    assert mean.abs().max() < 0.05


def test_pretraining_without_pairs_is_refused_where_observations_have_them():
    model, data = agent(make_toy(pairs=True, ids=True)), dataset(20)
    with pytest.raises(ValueError, match=r"pairs \(n, 2\) as the observations have, lacks \['pairs'\]"):
        model.pretrain({key: values for key, values in data.items() if key != "pairs"})
    with pytest.raises(ValueError, match=r"`dataset\['pairs'\]` must have shape \(20, 2\)"):
        model.pretrain({**data, "pairs": data["pairs"][:, :1]})


# ---------------------------------------------------------------------- saving

RUNS = {
    "visited": (lambda: make_toy(pairs=True, new_candidates=True), {"policy_kwargs": BLOCKWISE}),
    "crossed": (lambda: DummyVecEnv([lambda: make_toy(pairs=True, ids=True)] * 2), {"planning_source": "crossed"}),
    "max": (lambda: make_toy(pairs=True, ids=True), {"bootstrap": "max", "policy_kwargs": BLOCKWISE}),
    "gaussian_process": (
        lambda: make_toy(pairs=True, ids=True),
        {"world_model": "gaussian_process", "policy_kwargs": BLOCKWISE, "planning_source": "crossed"},
    ),
}


@pytest.mark.parametrize("run", RUNS)
def test_a_resumed_run_with_pairs_equals_the_uninterrupted_one_to_the_bit(tmp_path, run):
    env, kwargs = RUNS[run]
    kwargs = {"learning_starts": 12, "buffer_size": 28, "batch_size": 8, "target_update_interval": 18, **kwargs}
    whole = agent(env(), **kwargs).learn(60)
    stopped = agent(env(), **kwargs).learn(60, callback=StopAt(42))
    stopped.save_checkpoint(tmp_path / "checkpoint")
    resumed = DynaQ.load_checkpoint(tmp_path / "checkpoint", env(), device="cpu")
    resumed.learn(60 - 42, reset_num_timesteps=False)
    wanted, found = everything_flat(whole), everything_flat(resumed)
    assert wanted.keys() == found.keys()
    assert {"pairs", "next_pairs", "applicant_id", "obs.pairs"} <= wanted.keys()
    for name, values in wanted.items():
        np.testing.assert_array_equal(values, found[name], err_msg=name)


def everything_flat(model):
    return everything(model) | {"q": model.q_values(fresh_observations(1, model.policy.layout.uses_ids)[0])}
