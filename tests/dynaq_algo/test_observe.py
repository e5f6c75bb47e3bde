"""`observe`: answers that were given outside of `learn` teach the same as within."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3.common.logger import configure
from test_dynaq import parameters
from test_replay import read_all
from toy import N_ACTIONS, ToyEnv, ToyVectorEnv, action_table, make_toy

from dynaq_algo import DynaQ

BLOCKWISE = {"features": "blockwise", "features_kwargs": {"n_blocks": 1}, "net_arch": [16]}
AGENTS = {
    "background": {"policy_kwargs": {"net_arch": [16]}, "gamma": 0.9, "planning_steps": 2},
    "decision_time": {"policy_kwargs": {"net_arch": [16]}, "gamma": 0.9, "planning": "decision_time"},
    "gaussian_process": {
        "policy_kwargs": BLOCKWISE,
        "gamma": 0.0,
        "planning": "decision_time",
        "world_model": "gaussian_process",
    },
}


def agent(env=None, kind="gaussian_process", **kwargs):
    kwargs = {"seed": 0, "device": "cpu", "learning_starts": 8, "batch_size": 8, **AGENTS[kind], **kwargs}
    kwargs.setdefault("target_update_interval", 10)
    return DynaQ("CandidatePolicy", make_toy() if env is None else env, **kwargs)


class Recorded(ToyEnv):
    """Keeps what it showed and what came of it."""

    def reset(self, **kwargs):
        obs, info = super().reset(**kwargs)
        self.shown = obs
        return obs, info

    def step(self, action):
        result = super().step(action)
        next_obs, reward, terminated, _, info = result
        self.rows.append((self.shown, int(action), reward, next_obs, terminated, info))
        self.shown = next_obs
        return result


def recorded(**kwargs):
    env = Recorded(**kwargs)
    env.rows = []
    return env


def batch(rows):
    """The arguments of `observe` for several answers at once."""
    observations, actions, rewards, following, ends, infos = zip(*rows, strict=True)
    return stacked(observations), np.array(actions), np.array(rewards), stacked(following), np.array(ends), infos


def stacked(observations):
    return {key: np.stack([obs[key] for obs in observations]) for key in observations[0]}


def answers(n, seed=5, **kwargs):
    """n answers to random recommendations."""
    env = recorded(**kwargs)
    env.reset(seed=seed)
    for action in np.random.default_rng(seed).integers(4, size=n):
        if env.step(int(action))[2]:
            env.reset()
    return env.rows


def knowledge(model):
    """All that answers teach, and what is drawn to learn from them."""
    found = dict(read_all(model.replay_buffer))
    found |= {"q_net": parameters(model.q_net).numpy(), "target": parameters(model.q_net_target).numpy()}
    found |= {"world_model": parameters(model.world_model).numpy()} if model.world_model.optimizer else {}
    obs, _ = make_toy(ids=model.policy.layout.uses_ids, pairs=model.policy.layout.n_pairs > 0).reset(seed=77)
    found |= {"rewards": model.predict_reward(obs), "spread": model.reward_spread(obs), "q": model.q_values(obs)}
    for name in ("replay", "planning"):
        found[f"rng.{name}"] = str(model._rngs[name].bit_generator.state)
    for name in ("num_timesteps", "_n_updates", "_n_planning_updates", "_n_transitions"):
        found[name] = getattr(model, name)
    return found


def assert_same_knowledge(left, right):
    left, right = knowledge(left), knowledge(right)
    assert left.keys() == right.keys()
    for name, values in left.items():
        np.testing.assert_array_equal(values, right[name], err_msg=name)


# ---------------------------------------------------------------------- what it teaches


@pytest.mark.parametrize("kind", AGENTS)
@pytest.mark.parametrize(
    "env", [{}, {"ids": True, "pairs": True}, {"terminate_at": 3, "new_candidates": True, "components": True}], ids=str
)
def test_answers_one_by_one_teach_what_learn_does_to_the_bit(kind, env):
    made = recorded(**env)
    learner, told = agent(gym.wrappers.TimeLimit(made, 5), kind), agent(make_toy(**env), kind)
    learner.learn(40)
    for row in made.rows:
        told.observe(*row)
    assert_same_knowledge(learner, told)


@pytest.mark.parametrize("kind", AGENTS)
def test_a_batch_teaches_what_its_answers_do_one_by_one(kind):
    rows = answers(30)
    one_by_one, at_once = agent(kind=kind), agent(kind=kind)
    for row in rows:
        one_by_one.observe(*row)
    at_once.observe(*batch(rows))
    assert_same_knowledge(one_by_one, at_once)


def test_learning_goes_on_after_it_and_it_after_learning():
    model = agent(make_toy(), "background")
    model.observe(*batch(answers(10)))
    assert (model.num_timesteps, len(model.replay_buffer)) == (10, 10)
    model.learn(20, reset_num_timesteps=False)
    model.observe(*batch(answers(5, seed=6)))
    assert (model.num_timesteps, len(model.replay_buffer), model._n_transitions) == (35, 35, 35)
    assert model._n_updates == 35 - 8


def test_updates_are_those_of_learn(monkeypatch):
    trained = []
    model = agent(learning_starts=3, gradient_steps=2)
    monkeypatch.setattr(model, "train", lambda steps, batch_size: trained.append((steps, batch_size)))
    model.observe(*batch(answers(5)))
    assert trained == [(2, 8)] * 2  # none after the first 3
    model.gradient_steps = -1
    model.observe(*answers(1)[0])
    assert trained[-1] == (1, 8)


def test_a_loaded_agent_needs_no_environment_to_be_told_of_answers(tmp_path):
    rows = answers(20)
    whole, first = agent(), agent()
    whole.observe(*batch(rows))
    first.observe(*batch(rows[:12]))
    first.save(tmp_path / "agent")
    loaded = DynaQ.load(tmp_path / "agent", device="cpu")
    loaded.observe(*batch(rows[12:]))
    obs, _ = make_toy().reset(seed=77)
    np.testing.assert_array_equal(whole.q_values(obs), loaded.q_values(obs))
    assert loaded.num_timesteps == 20


def test_without_a_future_nothing_needs_to_follow():
    model = agent(gamma=0.0)
    for obs, action, reward, *_ in answers(10):
        model.observe(obs, action, reward)
    found = model.replay_buffer[np.arange(10)]
    np.testing.assert_array_equal(found.state_id, found.next_state_id)
    assert model.world_model.n_pairs > 0


@pytest.mark.parametrize("kind", ["background", "decision_time"])
def test_with_a_future_what_followed_must_be_told(kind):
    model = agent(kind=kind)
    obs, action, reward, *_ = answers(1)[0]
    with pytest.raises(ValueError, match=r"`next_obs` must be given where gamma is above 0 \(it is 0.9\)"):
        model.observe(obs, action, reward)
    assert (model.num_timesteps, len(model.replay_buffer)) == (0, 0)
    model.observe(obs, action, reward, obs, terminated=True)
    assert model.replay_buffer[np.arange(1)].terminated.all()


def test_answers_that_are_not_valid_are_counted_and_left_out():
    rows = answers(10, invalid=True)
    model = agent()
    model.observe(*batch(rows))
    assert (model.num_timesteps, len(model.replay_buffer)) == (10, 5)
    model.observe(*rows[0][:5], {"transition_valid": False})
    assert (model.num_timesteps, len(model.replay_buffer)) == (11, 5)


@pytest.mark.parametrize("n", [1, 3])
def test_the_infos_of_a_vector_environment_are_those_of_its_steps(n):
    envs = ToyVectorEnv(n, ids=True, pairs=True, components=True, invalid=True)
    model = agent(make_toy(ids=True, pairs=True))
    obs, _ = envs.reset(seed=0)
    applicants = [env.unwrapped.applicant_id for env in envs.envs_within]
    for _ in range(4):  # each second step is valid
        next_obs, rewards, ends, _, infos = envs.step(np.zeros(n, int))
        model.observe(obs, np.zeros(n, int), rewards, next_obs, ends, infos)
        obs = next_obs
    assert len(model.replay_buffer) == 2 * n
    kept = np.arange(2 * n)
    np.testing.assert_array_equal(model.replay_buffer.applicants(kept), applicants * 2)
    stored = model.replay_buffer[kept].reward
    np.testing.assert_array_equal(model.replay_buffer.components(kept)["dot"], stored)


def test_the_infos_of_episodes_that_were_reset_in_the_same_step_are_those_of_the_step():
    envs = ToyVectorEnv(2, max_episode_steps=1, pairs=True, ids=True)
    obs, _ = envs.reset(seed=0)
    applicants = [env.unwrapped.applicant_id for env in envs.envs_within]
    _, rewards, ends, _, infos = envs.step(np.zeros(2, int))
    model = agent(make_toy(ids=True, pairs=True))
    model.observe(obs, np.zeros(2, int), rewards, obs, ends, infos)
    np.testing.assert_array_equal(model.replay_buffer.applicants(np.arange(2)), applicants)


@pytest.mark.parametrize("of_sb3", [False, True])
def test_what_follows_the_last_step_of_an_episode_is_no_reset(of_sb3):
    envs = ToyVectorEnv(2, max_episode_steps=2)
    obs, _ = envs.reset(seed=0)
    for _ in range(2):
        before = obs
        obs, rewards, terminated, truncated, infos = envs.step(np.zeros(2, int))
    last = np.stack([final["user"] for final in infos["final_obs"]])
    assert truncated.all() and not terminated.any() and (last != obs["user"]).any(axis=1).all()
    if of_sb3:
        infos = [{"terminal_observation": final} for final in infos["final_obs"]]
    model = agent(kind="background")
    shown = obs["user"].copy()
    model.observe(before, np.zeros(2, int), rewards, obs, terminated, infos)
    stored = model.replay_buffer.state_rows(model.replay_buffer[np.arange(2)].next_state_id)
    np.testing.assert_array_equal(stored, last)
    np.testing.assert_array_equal(obs["user"], shown)


def test_what_follows_the_end_may_be_anything():
    obs, action, reward, *_ = answers(1)[0]
    model = agent(kind="background")
    info = {"terminal_observation": {**obs, "user": np.full(3, np.nan, np.float32)}}
    model.observe(obs, action, reward, obs, True, info)
    assert len(model.replay_buffer) == 1


def test_ends_may_be_a_tensor():
    obs, action, reward, next_obs, *_ = batch(answers(2))
    model = agent()
    model.observe(obs, action, reward, next_obs, th.as_tensor(np.array([False, True])))
    assert model.replay_buffer[np.arange(2)].terminated.tolist() == [False, True]


def test_an_answer_without_info_may_be_among_others():
    rows = answers(2)
    model = agent()
    model.observe(*batch(rows)[:5], info=[None, {"transition_valid": False}])
    assert len(model.replay_buffer) == 1


def test_components_of_rewards_are_kept_logged_and_relabelled():
    model = agent(kind="background", relabel=True)
    obs, action, _, next_obs, *_ = answers(1)[0]
    for reward, weight in ((1.0, 1.0), (2.0, 3.0)):
        info = {"reward_components": {"match": reward}, "reward_weights": {"match": weight}}
        model.observe(obs, action, reward * weight, next_obs, False, info)
    assert model.replay_buffer[np.arange(2)].reward.tolist() == [3.0, 6.0]  # at the latest weight
    assert list(model._component_windows["match"]) == [1.0, 2.0]


def test_what_was_learned_without_an_environment_can_be_logged(tmp_path):
    model = agent(kind="background", learning_starts=0)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    obs, action, reward, next_obs, *_ = answers(1)[0]
    model.observe(obs, action, reward, next_obs, info={"reward_components": {"match": 2.0}})
    model.dump_logs()
    model.logger.close()
    names, values = (line.split(",") for line in (tmp_path / "progress.csv").read_text().splitlines())
    logged = dict(zip(names, map(float, values), strict=True))
    assert (logged["reward/match"], logged["train/n_updates"], logged["time/total_timesteps"]) == (2, 1, 1)
    assert logged["time/time_elapsed"] < 1_000


def test_nothing_is_stored_if_one_answer_cannot_be_relabelled():
    model = agent(kind="background", relabel=True)
    obs, actions, rewards, next_obs, ends, _ = batch(answers(3))
    known = {"reward_components": {"match": 1.0}, "reward_weights": {"match": 1.0}}
    with pytest.raises(ValueError, match="`relabel=True` needs a reward that is a weighted sum"):
        model.observe(obs, actions, rewards, next_obs, ends, [known, known, {}])
    assert (len(model.replay_buffer), model.num_timesteps) == (0, 0)
    model.observe(obs, actions, rewards, next_obs, ends, [known, known, {"transition_valid": False}])
    assert (len(model.replay_buffer), model.num_timesteps) == (2, 3)


# ---------------------------------------------------------------------- other numbers of candidates


@pytest.mark.parametrize("k", [1, 2, 4, 9])
@pytest.mark.parametrize("ids", [False, True])
def test_another_number_of_candidates_teaches_of_the_chosen_one(k, ids):
    model = agent(make_toy(ids=ids, pairs=True, mask=True))
    ids_shown = np.arange(N_ACTIONS)[:k]
    obs = {
        "user": np.ones(3, np.float32),
        "candidates": ids_shown if ids else action_table()[ids_shown],
        "pairs": np.arange(2 * k, dtype=np.float32).reshape(k, 2) / 20,
        "action_mask": np.ones(k, bool),
    }
    model.observe(obs, k - 1, 0.7)
    found = model.replay_buffer[np.arange(1)]
    np.testing.assert_array_equal(model.replay_buffer.candidate_rows(found.candidate_id)[0], obs["candidates"][k - 1])
    np.testing.assert_array_equal(found.pairs[0], obs["pairs"][k - 1])
    sets, mask = model.replay_buffer.candidate_sets(np.arange(1))
    assert (sets.shape, mask.all()) == ((1, 4), True)
    assert len(set(sets[0].tolist())) == min(k, 4)


def test_some_answers_may_have_a_mask_although_there_was_none_in_training():
    model = agent(make_toy(), "background", bootstrap="max")
    obs = {"user": np.ones(3, np.float32), "candidates": action_table()[:4]}
    hidden = {**obs, "action_mask": np.array([1, 1, 0, 1])}
    for i, (before, after) in enumerate(((obs, hidden), (hidden, obs), (obs, obs), (hidden, hidden))):
        model.observe(before, 1, 0.7, after)
        for following, shown in enumerate((before, after)):
            _, mask = model.replay_buffer.candidate_sets(np.array([i]), following=bool(following))
            np.testing.assert_array_equal(mask[0], shown.get("action_mask", np.ones(4)))


def test_what_follows_keeps_what_may_be_chosen():
    model = agent(make_toy(mask=True), "decision_time", bootstrap="max")
    user = np.ones(3, np.float32)
    few = {"user": user, "candidates": action_table()[:4], "action_mask": np.ones(4, bool)}
    many = {"user": user, "candidates": action_table(), "action_mask": np.arange(N_ACTIONS) >= 9}
    model.observe(few, 0, 0.7, many)
    sets, mask = model.replay_buffer.candidate_sets(np.arange(1), following=True)
    assert mask.sum() == 3
    np.testing.assert_array_equal(model.replay_buffer.candidate_rows(sets[mask]), action_table()[9:])


def test_what_follows_keeps_all_that_may_be_chosen_where_the_first_may_not():
    model = agent(make_toy(mask=True), "decision_time", bootstrap="max")
    user = np.ones(3, np.float32)
    few = {"user": user, "candidates": action_table()[:4], "action_mask": np.ones(4, bool)}
    many = {"user": user, "candidates": action_table()[:6], "action_mask": np.array([0, 1, 1, 1, 1, 0], bool)}
    model.observe(few, 0, 0.7, many)
    sets, mask = model.replay_buffer.candidate_sets(np.arange(1), following=True)
    assert mask.all()
    np.testing.assert_array_equal(model.replay_buffer.candidate_rows(sets[0]), action_table()[1:5])


# ---------------------------------------------------------------------- what is refused


def changed(**columns):
    obs, actions, rewards, next_obs, ends, infos = batch(answers(3))
    given = {"observation": obs, "action": actions, "reward": rewards, "next_obs": next_obs, "terminated": ends}
    return {**given, "info": infos, **columns}


def with_nan(row, entry):
    obs = {key: values.copy() for key, values in changed()["observation"].items()}
    obs[entry][row] = np.nan
    return obs


BAD = {
    "few actions": ({"action": np.array([0, 1])}, "`action` must have 3 rows, as `observation` has, got 2"),
    "one reward": ({"reward": 0.5}, "`reward` must have 3 rows, as `observation` has, got 1"),
    "other rows next": ({"next_obs": stacked([answers(1)[0][0]] * 2)}, "`next_obs` must have 3 rows.*got 2"),
    "few ends": ({"terminated": np.array([True, False])}, "`terminated` must have 3 rows.*got 2"),
    "an end that is a text": ({"terminated": "no"}, r"`terminated` must be True or False .*, got \['no'\]"),
    "an end that is no number": ({"terminated": np.array([0, 1, np.nan])}, "`terminated` must be True or False"),
    "an info that is a text": ({"info": [{}, "x", {}]}, "`info` must be a dict for each answer, .*got str among them"),
    "few columns": ({"info": {"x": np.zeros(2), "_x": np.ones(2, bool)}}, "`info` must have 3 rows.*got 2"),
    "few infos": ({"info": [{}, {}]}, "`info` must have 3 rows.*got 2"),
    "no candidate": ({"action": np.array([0, 4, 1])}, r"`action` must be in \[0, 4\).*row 1 is 4"),
    "negative": ({"action": np.array([0, 1, -1])}, r"`action` must be in \[0, 4\).*row 2 is -1"),
    "fraction": ({"action": np.array([0, 1.5, 1])}, "`action` must be integers.*got float64"),
    "nan reward": ({"reward": np.array([0, np.nan, 1])}, "`reward` must be finite, row 1 is nan"),
    "too large a reward": ({"reward": np.array([0, 1, 1e39])}, r"`reward` must be finite, row 2 is 1e\+39"),
    "endless reward": ({"reward": np.array([0, 1, np.inf])}, "`reward` must be finite, row 2 is inf"),
    "nan state": ({"observation": with_nan(1, "user")}, r"`observation` must hold finite numbers, row 1.*state"),
    "nan candidate": ({"observation": with_nan(2, "candidates")}, r"`observation` .* row 2 does not \(in its cand"),
    "nan next": ({"next_obs": with_nan(0, "user")}, "`next_obs` must hold finite numbers, row 0"),
}


@pytest.mark.parametrize(("columns", "message"), BAD.values(), ids=BAD)
def test_a_bad_row_is_named_and_nothing_of_its_batch_is_stored(columns, message):
    model = agent()
    with pytest.raises(ValueError, match=message):
        model.observe(**changed(**columns))
    assert (model.num_timesteps, len(model.replay_buffer), model.world_model.n_pairs) == (0, 0, 0)


def test_what_the_mask_forbids_is_refused():
    model = agent(make_toy(mask=True), "background")
    obs = answers(1)[0][0]
    one, none = ({**obs, "action_mask": np.array(mask, bool)} for mask in ([0, 0, 1, 0], [0, 0, 0, 0]))
    for shown, row in ((one, 3), (none, 2)):
        with pytest.raises(ValueError, match=f"`action` must be .* `action_mask` allows, row 0 is {row}, which it for"):
            model.observe(shown, row, 1.0, one)
    with pytest.raises(ValueError, match="`next_obs` must allow at least one candidate, row 0 allows none"):
        model.observe(one, 2, 1.0, none)
    assert (model.num_timesteps, len(model.replay_buffer)) == (0, 0)
    model.observe(one, 2, 1.0, none, terminated=True)
    assert len(model.replay_buffer) == 1


def test_ids_that_name_no_action_are_refused_before_they_are_stored():
    model = agent(make_toy(ids=True))
    obs = answers(1, ids=True)[0][0]
    for bad in ({**obs, "candidates": np.array([0, 1, 2, N_ACTIONS])}, {**obs, "candidates": np.array([0, 1, 2, -1])}):
        with pytest.raises(ValueError, match=r"Ids must be in \[0, 12\)"):
            model.observe(bad, 0, 1.0)
    assert (model.num_timesteps, len(model.replay_buffer)) == (0, 0)
    model.observe(obs, 0, 1.0)
    assert len(model.replay_buffer) == 1
