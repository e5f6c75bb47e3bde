import gymnasium as gym
import numpy as np
import pytest

import jobrec_gym  # registers JobRec-v0
from jobrec_gym import (
    AnnealSchedule,
    CosineReward,
    Feedback,
    HybridReward,
    LLMReward,
    RuleSimulator,
    VectorHybridReward,
    VectorLLMReward,
)
from jobrec_gym.rewards import MATCHED, CosineRewardModel, HybridRewardModel


class Asked:
    """Pays 0.5 for each job, fails for every tenth, and counts the pairs that it was asked."""

    def __init__(self):
        self.pairs = 0

    def bind(self, market):
        return self

    def feedback(self, applicant_ids, job_ids, interaction_keys=None):
        self.pairs += len(job_ids)
        return Feedback.of(
            np.full(len(job_ids), "save"),
            np.where(job_ids % 10 == 0, 0.0, 0.5),
            status=np.where(job_ids % 10 == 0, "timeout", "ok"),
        )


def make(**kwargs):
    return gym.make("JobRec-v0", **kwargs)


def make_vector(n, **kwargs):
    return gym.make_vec("JobRec-v0", num_envs=n, **kwargs)


def play(env, n, seed=3):
    """n steps, the i-th of them with action i % 20; rewards and infos."""
    env.reset(seed=seed)
    for step in range(n):
        _, reward, terminated, truncated, info = env.step(step % 20)
        yield reward, info
        if terminated or truncated:
            env.reset()


def test_the_reward_is_the_weighted_sum_that_info_explains():
    env = HybridReward(make(), RuleSimulator(seed=0), AnnealSchedule(steps=40))
    for step, (reward, info) in enumerate(play(env, 50)):
        weight = max(0.0, 1 - step / 40)
        assert info["reward/cosine_weight"] == weight
        assert info["reward_weights"] == {"cosine": weight, "feedback": 1 - weight}
        if step:
            assert reward == weight * info["reward/cosine"] + (1 - weight) * info["reward/feedback"]
            assert info["reward_components"] == {
                "cosine": info["reward/cosine"],
                "feedback": info["reward/feedback"],
            }


def test_no_feedback_is_asked_for_at_cosine_weight_one():
    asked = Asked()
    env = HybridReward(make(), asked, AnnealSchedule(kind="two_phase", switch_at=7))
    infos = [info for _, info in play(env, 7)]
    assert asked.pairs == 0
    assert all("reward/feedback" not in info and "feedback/status" not in info for info in infos)
    list(play(env, 3))
    assert asked.pairs == 3


def test_a_failed_feedback_earns_nothing_and_is_not_valid():
    env = HybridReward(make(), Asked(), AnnealSchedule(steps=1, end=0.5))
    failed = 0
    for step, (reward, info) in enumerate(play(env, 60)):
        if step and info["feedback/status"] != "ok":
            failed += 1
            assert reward == 0.0 and info["transition_valid"] is False
    assert failed > 0


def test_single_and_vector_agree_step_by_step():
    arguments = (RuleSimulator(seed=0, noise=0.5), AnnealSchedule(steps=30, kind="cosine"), "matched")
    single = HybridReward(make(), *arguments)
    vector = VectorHybridReward(make_vector(1, autoreset_mode="SameStep"), *arguments)
    vector.reset(seed=3)
    for step, (reward, info) in enumerate(play(single, 45)):
        _, rewards, terminated, truncated, infos = vector.step(np.array([step % 20]))
        found = infos["final_info"] if (terminated | truncated)[0] else infos
        assert rewards[0] == reward
        assert found["reward/cosine_weight"][0] == info["reward/cosine_weight"]
        assert found["reward_weights"]["feedback"][0] == info["reward_weights"]["feedback"]


def test_a_vector_step_counts_each_environment_and_rows_share_a_weight():
    env = VectorHybridReward(make_vector(4, autoreset_mode="SameStep"), RuleSimulator(seed=0), AnnealSchedule(steps=40))
    env.reset(seed=0)
    for step in range(5):
        *_, infos = env.step(np.zeros(4, dtype=int))
        assert infos["reward/cosine_weight"].tolist() == [1 - 4 * step / 40] * 4


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_a_row_that_only_starts_anew_counts_no_step(mode):
    env = VectorHybridReward(
        make_vector(4, autoreset_mode=mode),
        RuleSimulator(seed=0, noise=0.5),
        AnnealSchedule(steps=1000, start=0.9),
        terminate_on=("apply", "save", "click"),
    )
    env.reset(seed=0)
    made = ended = 0
    for _ in range(60):
        assert env.cosine_weight == pytest.approx(0.9 * (1 - made / 1000), abs=1e-12)
        _, _, terminated, truncated, _ = env.step(np.zeros(4, dtype=int))
        made += np.count_nonzero(env.unwrapped.recommendations.made)
        ended += np.count_nonzero(terminated | truncated)
    assert env.get_state()["annealing"]["total_steps"] == made
    assert ended > 4 and (made == 240 if mode == "SameStep" else 240 - ended <= made < 240)


def test_where_all_rows_start_anew_together_a_step_counts_them_all_or_none():
    env = VectorHybridReward(make_vector(3), RuleSimulator(seed=0), AnnealSchedule(steps=1000))
    env.reset(seed=0)
    counted = []
    for _ in range(12):
        env.step(np.zeros(3, dtype=int))
        counted.append(env.get_state()["annealing"]["total_steps"])
    assert counted == [*range(3, 31, 3), 30, 33]


def test_environments_of_a_sync_vector_count_for_all_of_them():
    env = gym.vector.SyncVectorEnv(
        [lambda: HybridReward(make(), RuleSimulator(seed=0), AnnealSchedule(steps=40), num_envs=2)] * 2
    )
    env.reset(seed=0)
    env.step(np.zeros(2, dtype=int))
    *_, infos = env.step(np.zeros(2, dtype=int))
    assert infos["reward/cosine_weight"].tolist() == [0.95, 0.95]


def test_a_trainer_may_say_how_many_steps_were_made():
    env = HybridReward(make(), RuleSimulator(seed=0), AnnealSchedule(steps=100))
    env.reset(seed=0)
    env.get_wrapper_attr("set_total_steps")(30)
    assert [env.step(0)[4]["reward/cosine_weight"] for _ in range(3)] == [0.7, 0.7, 0.7]
    env.set_total_steps(60)
    assert env.step(0)[4]["reward/cosine_weight"] == 0.4
    for wrong in (-1, 2.5, float("nan"), "many", True):
        with pytest.raises(ValueError, match="`total_steps` must be a whole number of at least 0, got"):
            env.set_total_steps(wrong)
    assert env.cosine_weight == 0.4


def test_a_frozen_weight_stands_still_while_steps_are_counted():
    env = HybridReward(make(), RuleSimulator(seed=0), AnnealSchedule(steps=100))
    env.reset(seed=0)
    env.step(0)
    env.freeze()
    assert [env.step(0)[4]["reward/cosine_weight"] for _ in range(3)] == [0.99] * 3
    env.freeze(0.0)
    assert env.step(0)[4]["reward/cosine_weight"] == 0.0
    env.unfreeze()
    assert env.cosine_weight == 0.95
    for wrong in (2.0, float("nan"), "half"):
        with pytest.raises(ValueError, match=r"`weight` must be a number in \[0, 1\] or None, got"):
            env.freeze(wrong)


@pytest.mark.parametrize("mode", ["SameStep", "NextStep"])
def test_at_cosine_weight_one_the_sum_of_feedback_is_nan_however_many_play(mode):
    envs = VectorHybridReward(
        make_vector(2, max_episode_steps=3, autoreset_mode=mode), RuleSimulator(seed=0), AnnealSchedule(steps=100)
    )
    envs.reset(seed=0)

    def told():
        """Which sums of the episode that plays now are numbers; the two end together."""
        while True:
            infos = envs.step(np.zeros(2, dtype=int))[4]
            ended = infos.get("final_info", infos)
            if "episode_sum/cosine" in ended:
                if mode == "NextStep":
                    envs.step(np.zeros(2, dtype=int))
                sums = {name: values for name, values in ended.items() if name.startswith("episode_sum/")}
                assert len(sums) == 2 and ended["_episode_sum/feedback"].all()
                return {name for name, values in sums.items() if not np.isnan(values).any()}

    assert told() == {"episode_sum/cosine", "episode_sum/feedback"}
    envs.freeze(1.0)  # nobody is asked any more
    assert told() == {"episode_sum/cosine"}
    state = envs.get_state()
    envs.set_state(state)
    assert told() == {"episode_sum/cosine"}
    envs.freeze(0.0)
    assert told() == {"episode_sum/cosine", "episode_sum/feedback"}


@pytest.mark.parametrize("vector", [False, True])
def test_its_state_restores_the_weight(vector):
    def build():
        arguments = (RuleSimulator(seed=0), AnnealSchedule(steps=100))
        if vector:
            return VectorHybridReward(make_vector(2, autoreset_mode="SameStep"), *arguments)
        return HybridReward(make(), *arguments)

    env, again = build(), build()
    action = np.zeros(2, dtype=int) if vector else 0
    for each in (env, again):
        each.reset(seed=0)
    for _ in range(4):
        env.step(action)
    again.set_state(env.get_state())
    np.testing.assert_array_equal(
        again.step(action)[4]["reward/cosine_weight"], env.step(action)[4]["reward/cosine_weight"]
    )


def test_matched_cosine_has_mean_and_spread_of_feedback():
    market = jobrec_gym.load_market("default")
    rng = np.random.default_rng(0)
    applicants, jobs = rng.integers(len(market.applicants), size=20_000), rng.integers(len(market.jobs), size=20_000)
    reward = CosineRewardModel(market, "matched").reward(applicants, jobs)
    assert (reward.mean(), reward.std()) == pytest.approx(MATCHED, abs=0.01)
    order = np.argsort(market.cosine(applicants, jobs), kind="stable")
    assert (np.diff(reward[order]) >= 0).all()


def test_a_spread_of_nothing_and_a_weight_beyond_one_are_refused():
    market = jobrec_gym.load_market("default")
    with pytest.raises(ValueError, match="`matched` must be a mean and a spread above 0"):
        CosineRewardModel(market, "matched", matched=(0.0, 0.0))
    with pytest.raises(ValueError, match=r"`weight` must be in \[0, 1\]"):
        HybridRewardModel(Asked(), market, weight=1.1)(np.array([0]), np.array([0]), np.zeros(1, dtype=np.uint64))


def test_a_hybrid_environment_is_written_down_and_made_again():
    env = HybridReward(make(), RuleSimulator(seed=4), AnnealSchedule(steps=30, kind="step"), "matched", ("apply",))
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    for (reward, info), (other, other_info) in zip(play(env, 40), play(again, 40), strict=True):
        assert reward == other and info["reward/cosine_weight"] == other_info["reward/cosine_weight"]


@pytest.mark.parametrize("simulator", [RuleSimulator(seed=0), {"type": "rules"}])
def test_the_planted_rules_are_no_language_model(simulator):
    with pytest.raises(ValueError, match="RuleSimulator, which is no language model: use FeedbackReward"):
        LLMReward(make(), simulator)
    with pytest.raises(ValueError, match="no language model"):
        VectorLLMReward(make_vector(2), simulator)


def test_an_llm_reward_pays_the_decision():
    env = LLMReward(make(), Asked())
    assert {round(reward, 3) for reward, _ in play(env, 30)} <= {0.0, 0.5}
    vector = VectorLLMReward(make_vector(3), Asked())
    vector.reset(seed=0)
    assert set(vector.step(np.zeros(3, dtype=int))[1].tolist()) <= {0.0, 0.5}


def test_monitor_keeps_both_components():
    monitor = pytest.importorskip("stable_baselines3.common.monitor")
    keys = ("episode_sum/cosine", "episode_sum/feedback", "reward/cosine_weight")
    env = monitor.Monitor(HybridReward(make(), RuleSimulator(seed=0), AnnealSchedule(steps=5)), info_keywords=keys)
    *_, (_, last) = play(env, 10)
    assert set(keys) <= set(last["episode"])


@pytest.mark.parametrize(
    "wrap", [CosineReward, lambda env: HybridReward(env, RuleSimulator(), {"steps": 100, "end": 1.0})]
)
def test_monitor_writes_nan_for_the_feedback_of_an_episode_that_asks_nobody(wrap):
    monitor = pytest.importorskip("stable_baselines3.common.monitor")
    env = monitor.Monitor(wrap(make()), info_keywords=("episode_sum/cosine", "episode_sum/feedback"))
    *_, (_, last) = play(env, 10)
    assert last["episode"]["episode_sum/cosine"] > 0 and np.isnan(last["episode"]["episode_sum/feedback"])
