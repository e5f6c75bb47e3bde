import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jobrec_gym.counter_rng import hash64
from jobrec_gym.rewards import CosineRewardModel, FeedbackRewardModel, scaled_cosine
from jobrec_gym.simulators.rules import RuleSimulator

COSINES = arrays(np.float32, st.integers(1, 20), elements=st.floats(-1.5, 1.5, width=32))
IDS = st.lists(st.tuples(st.integers(0, 39), st.integers(0, 59)), min_size=1, max_size=30)


def columns(pairs):
    return (np.array(column) for column in zip(*pairs, strict=True))


@given(COSINES)
def test_scales_keep_the_order_and_their_bounds(cosines):
    raw, unit = scaled_cosine(cosines, "raw"), scaled_cosine(cosines, "unit")
    assert (np.abs(raw) <= 1).all() and (unit >= 0).all() and (unit <= 1).all()
    assert unit == pytest.approx((1 + raw) / 2)
    order = np.argsort(cosines, kind="stable")
    assert (np.diff(raw[order]) >= 0).all() and (np.diff(unit[order]) >= 0).all()


@settings(max_examples=40)
@given(IDS, st.sampled_from([0.0, 0.5, 3.0]))
def test_reward_models_are_pure_and_pay_each_pair_by_itself(market, pairs, noise):
    applicants, jobs = columns(pairs)
    keys = hash64(3, np.arange(len(pairs)))
    for model in (
        CosineRewardModel(market),
        CosineRewardModel(market, "raw"),
        FeedbackRewardModel(RuleSimulator(noise=noise).bind(market), market),
    ):
        first, again, reverse = (
            model(applicants[order], jobs[order], keys[order])
            for order in (slice(None), slice(None), slice(None, None, -1))
        )
        assert (first.reward == again.reward).all()
        assert (first.reward == reverse.reward[::-1]).all()
        assert first.valid.all() and np.isfinite(first.reward).all()
        for name, values in first.components.items():
            assert values.shape == first.reward.shape, name


@settings(max_examples=40)
@given(IDS)
def test_feedback_rewards_are_those_of_the_decisions_and_cosine_stands_beside(market, pairs):
    applicants, jobs = columns(pairs)
    simulator = RuleSimulator(rewards={"apply": 2.0, "ignore": -1.0})
    batch = FeedbackRewardModel(simulator.bind(market), market)(applicants, jobs, hash64(0, applicants))
    assert batch.reward.tolist() == [simulator.rewards[decision] for decision in batch.decision]
    assert (
        batch.components["cosine"] == CosineRewardModel(market)(applicants, jobs, hash64(0, applicants)).reward
    ).all()
    assert (batch.components["feedback"] == batch.reward).all()
