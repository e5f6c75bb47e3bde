import collections
import pickle

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env

from jobrec_gym.schedules import AnnealSchedule
from jobrec_gym.simulators.base import Feedback
from jobrec_gym.simulators.rules import RuleSimulator
from jobrec_gym.wrappers import (
    CosineReward,
    EmbeddingAction,
    FeedbackReward,
    HybridReward,
    VectorCosineReward,
    VectorFeedbackReward,
)

SMALL = {"market": {"source": "default", "n_jobs": 60, "n_applicants": 40}, "num_candidates": 7}


def make(**kwargs):
    return gym.make("JobRec-v0", **{**SMALL, **kwargs})


class Enthusiast:
    """A user's own simulator: applies to every even job, fails on job 0."""

    def bind(self, market):
        return self

    def feedback(self, applicant_ids, job_ids, interaction_keys=None):
        even = job_ids % 2 == 0
        return Feedback.of(
            np.where(even, "apply", "ignore"),
            np.where(even, 2.0, -1.0),
            status=np.where(job_ids == 0, "timeout", "ok"),
            reason=[f"job {job}" for job in job_ids],
        )


def test_cosine_scales_are_affine():
    raw, unit = (CosineReward(make(), scale=scale) for scale in ("raw", "unit"))
    for env in (raw, unit):
        env.reset(seed=2)
    for action in range(7):
        _, low, *_, raw_info = raw.step(action)
        _, high, *_, info = unit.step(action)
        assert high == pytest.approx((1 + low) / 2)
        assert raw_info["reward/cosine"] == low == raw_info["reward_components"]["cosine"]
        assert info["reward/cosine"] == high
    with pytest.raises(ValueError, match=r"`scale` must be one of \('unit', 'raw', 'matched'\), got 'log'"):
        CosineReward(make(), scale="log")


def test_feedback_pays_the_decision_and_explains_it():
    env = FeedbackReward(make(), Enthusiast())
    _, info = env.reset(seed=0)
    for action, job in enumerate(info["candidate_ids"]):
        _, reward, terminated, _, after = env.step(action)
        assert reward == after["reward/feedback"] == (2.0 if job % 2 == 0 else -1.0)
        assert after["feedback/decision"] == ("apply" if job % 2 == 0 else "ignore")
        assert after["feedback/reason"] == f"job {job}"
        assert after["reward_components"] == {"cosine": after["reward/cosine"], "feedback": reward}
        assert after["transition_valid"] is bool(job != 0)
        assert after["feedback/status"] == ("ok" if job != 0 else "timeout")
        assert not terminated


def test_the_last_info_has_the_episodes_sums():
    env = FeedbackReward(make(), RuleSimulator())
    for _ in range(2):
        env.reset(seed=1)
        infos = [env.step(3)[4] for _ in range(10)]
        assert not any(key.startswith("episode_sum/") for info in infos[:-1] for key in info)
        for name in ("cosine", "feedback"):
            assert infos[-1][f"episode_sum/{name}"] == pytest.approx(sum(info[f"reward/{name}"] for info in infos))


def test_decisions_can_end_the_episode():
    env = FeedbackReward(make(), Enthusiast(), terminate_on=("apply",))
    _, info = env.reset(seed=0)
    even = int(np.flatnonzero(info["candidate_ids"] % 2 == 0)[0])
    odd = int(np.flatnonzero(info["candidate_ids"] % 2)[0])
    assert env.step(odd)[2] is False
    _, _, terminated, _, after = env.step(even)
    assert terminated and after["episode_sum/feedback"] == 1.0
    for wrong in ("apply", ("like",), None):
        with pytest.raises(ValueError, match="`terminate_on` must be a sequence of decisions"):
            FeedbackReward(make(), Enthusiast(), terminate_on=wrong)


def test_wrapped_environments_pass_gymnasiums_checker():
    for env in (CosineReward(make(disable_env_checker=True)), FeedbackReward(make(), RuleSimulator(noise=0.5))):
        with pytest.warns(UserWarning, match="different from the unwrapped version"):
            check_env(env, skip_render_check=True)


def test_wrapped_environments_pass_stable_baselines3s_checker():
    checker = pytest.importorskip("stable_baselines3.common.env_checker", reason="needs the extra 'algo'")
    for env in (CosineReward(make(), scale="raw"), FeedbackReward(make(), RuleSimulator(noise=0.5))):
        with pytest.warns(UserWarning, match="unconventional shape"):
            checker.check_env(env, skip_render_check=True)


def test_specs_round_trip_through_json():
    env = FeedbackReward(make(), RuleSimulator(3, noise=0.4), terminate_on=("apply",))
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert isinstance(again, FeedbackReward)
    env.reset(seed=4), again.reset(seed=4)
    for action in range(7):
        left, right = env.step(action), again.step(action)
        assert left[1:4] == right[1:4] and left[4]["reward_components"] == right[4]["reward_components"]


def test_a_spec_copies_no_simulator_without_a_spec():
    simulator = Enthusiast()
    env = FeedbackReward(make(), simulator)
    assert isinstance(gym.make(env.spec), FeedbackReward)
    with pytest.raises(ValueError, match="`simulator` of FeedbackReward cannot be written down as JSON.*to_spec"):
        env.spec.to_json()


def test_a_second_reward_wrapper_is_refused():
    with pytest.raises(ValueError, match="has a reward wrapper already, CosineReward"):
        FeedbackReward(gym.wrappers.FlattenObservation(CosineReward(make())), RuleSimulator())
    with pytest.raises(ValueError, match="has a reward wrapper already, VectorFeedbackReward"):
        VectorCosineReward(VectorFeedbackReward(gym.make_vec("JobRec-v0", 2, **SMALL), RuleSimulator()))


def test_a_step_that_starts_an_episode_is_not_paid():
    env = FeedbackReward(gym.wrappers.Autoreset(make(max_episode_steps=2)), RuleSimulator())
    env.reset(seed=0)
    steps = [env.step(0) for _ in range(6)]
    assert ["reward/feedback" in step[4] for step in steps] == [True, True, False] * 2
    assert steps[2][1] == 0.0
    assert steps[4][4]["episode_sum/feedback"] == steps[3][1] + steps[4][1]


def test_a_decision_that_ends_an_episode_makes_an_autoreset_beneath_begin_another():
    env = FeedbackReward(gym.wrappers.Autoreset(make()), Enthusiast(), terminate_on=("apply", "ignore"))
    env.reset(seed=0)
    for _ in range(3):
        _, reward, terminated, _, info = env.step(0)
        assert terminated and info["episode_sum/feedback"] == reward
        _, reward, terminated, _, begun = env.step(0)
        assert (reward, terminated) == (0.0, False) and "job_id" not in begun


class Overtaxed(Enthusiast):
    """Pays jobs by their row, and fails at one question."""

    def __init__(self, fails_at):
        self.asked, self.fails_at = [], fails_at

    def feedback(self, applicant_ids, job_ids, interaction_keys=None):
        self.asked.append(job_ids)
        if len(self.asked) == self.fails_at:
            raise KeyboardInterrupt
        return Feedback.of(["apply"] * len(job_ids), job_ids / 100)


def test_an_agent_that_learns_on_after_a_failure_is_paid_for_what_it_recommended():
    dqn = pytest.importorskip("stable_baselines3", reason="needs the extra 'algo'").DQN
    env = FeedbackReward(make(observation="ids", resample="step"), Overtaxed(13))
    model = dqn("MultiInputPolicy", env, buffer_size=50, learning_starts=5, seed=0)
    with pytest.raises(KeyboardInterrupt):
        model.learn(30)
    model.learn(20, reset_num_timesteps=False)
    kept, rows = model.replay_buffer, np.arange(model.replay_buffer.pos)
    job_ids = kept.observations["candidates"][rows, 0, kept.actions[rows, 0, 0].astype(int)]
    assert len(rows) == 32
    np.testing.assert_allclose(kept.rewards[rows, 0], job_ids / 100, rtol=1e-6)


def test_observation_wrappers_beneath_stay_in_force():
    from gymnasium.wrappers.vector import FlattenObservation

    every = ("ignore", "click", "save", "apply")
    envs = VectorFeedbackReward(FlattenObservation(gym.make_vec("JobRec-v0", 3, **SMALL)), RuleSimulator(), every)
    envs.reset(seed=0)
    obs, _, terminated, _, _ = envs.step(np.zeros(3, int))
    assert terminated.all() and obs in envs.observation_space


def test_answers_are_checked():
    class Broken(Enthusiast):
        def __init__(self, answer):
            self.answer = answer

        def feedback(self, applicant_ids, job_ids, interaction_keys=None):
            return self.answer()

    for answer, message in (
        (lambda: Feedback.of(["apply"], [np.nan]), "`reward` must be finite"),
        (lambda: Feedback.of(["APPLY"], [1.0]), r"`decision` must be one of .* got \['APPLY'\]"),
        (lambda: Feedback.of(["apply"], [1.0, 2.0]), r"must be an array \(n,\), with one entry for each"),
        (lambda: Feedback.of(["apply"], [[1.0]]), r"must be an array \(n,\).*'reward': \(1, 1\)"),
        (lambda: Feedback.of("apply", 1.0), r"must be an array \(n,\).*'decision': \(\)"),
        (lambda: Feedback.of(["apply"], [1.0], status="ok"), r"must be an array \(n,\).*'status': \(\)"),
        (lambda: np.ones(1), "must return a Feedback from `feedback`, got ndarray"),
        (lambda: Feedback.of(["apply"] * 2, [1.0] * 2), "answer each recommendation once, got 2 answers to 1"),
    ):
        env = FeedbackReward(make(), Broken(answer))
        env.reset(seed=0)
        with pytest.raises(ValueError, match=message):
            env.step(0)
    with pytest.raises(ValueError, match=r"must have `bind\(market\)`"):
        FeedbackReward(make(), RuleSimulator)


class Unbound:
    def bind(self, market):
        self.market = market  # and forgets to return itself


def test_what_bind_returns_is_checked():
    for wrap, more in ((FeedbackReward, ()), (HybridReward, (AnnealSchedule(steps=10),))):
        with pytest.raises(ValueError, match=r"must return from `bind\(market\)` an object .* returned None"):
            wrap(make(), Unbound(), *more)


def test_decisions_that_end_an_episode_may_stand_in_any_sequence():
    terminate_on = collections.UserList(["apply"])
    env = FeedbackReward(make(), Enthusiast(), terminate_on=terminate_on)
    _, info = env.reset(seed=0)
    assert env.step(int(np.flatnonzero(info["candidate_ids"] % 2 == 0)[0]))[2]


def test_a_copy_of_an_environment_of_vectors_holds_no_table_of_jobs():
    env = EmbeddingAction(make())
    assert len(pickle.dumps(env)) < len(pickle.dumps(make())) + 10_000


def test_wrappers_refuse_other_environments():
    with pytest.raises(ValueError, match="`env` must be a JobRec-v0"):
        CosineReward(gym.make("CartPole-v1"))
    with pytest.raises(ValueError, match="must be a JobRecVectorEnv.*wrap the single environments"):
        VectorFeedbackReward(gym.make_vec("JobRec-v0", 2, vectorization_mode="sync", **SMALL), RuleSimulator())


def test_a_wrappers_state_continues_its_sums():
    env, other = (FeedbackReward(make(), RuleSimulator()) for _ in range(2))
    env.reset(seed=3)
    env.step(1)
    other.set_state(env.get_state())
    other.unwrapped.reset(seed=0)
    other.unwrapped.set_state(env.unwrapped.get_state())
    left = [env.unwrapped.step(2)[1] for _ in range(3)]
    assert left == [other.unwrapped.step(2)[1] for _ in range(3)]
    assert env.get_state() == other.get_state()


def test_a_refused_reset_leaves_the_sums_of_the_episode_that_goes_on():
    env = FeedbackReward(make(), RuleSimulator())
    envs = VectorFeedbackReward(gym.make_vec("JobRec-v0", 2, **SMALL), RuleSimulator())
    for wrapped, actions in ((env, 0), (envs, np.zeros(2, dtype=int))):
        wrapped.reset(seed=0)
        wrapped.step(actions)
        before = str(wrapped.get_state())
        for wrong in ({"aplicant_id": 3}, 5):
            with pytest.raises(ValueError, match="`options` of `reset` must be"):
                wrapped.reset(options=wrong)
        assert str(wrapped.get_state()) == before


def test_an_embedding_recommends_the_nearest_allowed_candidate():
    env = EmbeddingAction(make(repeats=False))
    obs, info = env.reset(seed=0)
    assert env.action_space.shape == (768,)
    assert env.step(obs["candidates"][4])[4]["job_id"] == info["candidate_ids"][4]
    assert env.step(obs["candidates"][4])[4]["job_id"] != info["candidate_ids"][4]


@pytest.mark.parametrize("wrong", [np.full(768, np.nan), np.full(768, np.inf), np.zeros(3), np.ones((768, 1)), 4])
def test_an_action_that_is_no_job_vector_is_refused(wrong):
    env = EmbeddingAction(make())
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"`action` must be a job vector, finite numbers of shape \(768,\), got"):
        env.step(wrong)


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_the_outermost_vector_wrapper_tells_the_autoreset_mode(mode):
    # Gymnasium's vector wrappers pass no attributes on, and TorchRL asks.
    envs = VectorCosineReward(gym.make_vec("JobRec-v0", num_envs=2, autoreset_mode=mode, **SMALL))
    assert envs.autoreset_mode is gym.vector.AutoresetMode(mode)
