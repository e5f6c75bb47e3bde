"""What one process knows already of a market's pairs."""

import numpy as np
import pytest

from jobrec_gym import LLMSimulator, load_market
from jobrec_gym.simulators import memory
from jobrec_gym.simulators.base import DECISIONS, Feedback
from jobrec_gym.simulators.memory import FeedbackMemory, merged


def answers(rng, n, status="ok"):
    decision = np.array(DECISIONS)[rng.integers(4, size=n)]
    reason = [f"because {i}" for i in range(n)]
    return Feedback.of(decision, rng.random(n), status=[status] * n, probability=rng.random(n), reason=reason)


def assert_same(left, right, rows=slice(None)):
    for name in ("decision", "reward", "probability", "reason"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name)[rows])


@pytest.mark.parametrize("dense", [True, False])
def test_an_answer_is_found_again_and_was_known(monkeypatch, dense):
    monkeypatch.setattr(memory, "_DENSE_PAIRS", 10**6 if dense else 0)
    rng = np.random.default_rng(0)
    pairs = rng.permutation(30 * 50)[:900]
    applicants, jobs = pairs // 50, pairs % 50
    known, feedback = FeedbackMemory(30, 50), answers(rng, 900)
    for start in range(0, 900, 77):  # grows several times
        rows = slice(start, start + 77)
        part = Feedback(**{name: getattr(feedback, name)[rows] for name in Feedback.__slots__})
        assert (known.find(applicants[rows], jobs[rows]) == -1).all()
        known.add(applicants[rows], jobs[rows], part)
    order = rng.permutation(900)
    found = known.take(known.find(applicants[order], jobs[order]))
    assert_same(found, feedback, order)
    assert found.cached.all() and not found.tokens.any() and len(known) == 900


def test_what_failed_is_not_kept_and_what_is_known_stays():
    rng = np.random.default_rng(1)
    known, ids = FeedbackMemory(3, 4), (np.array([0, 1, 1]), np.array([2, 3, 3]))
    known.add(*ids, answers(rng, 3, "timeout"))
    assert len(known) == 0 and (known.find(*ids) == -1).all()
    first = answers(rng, 3)
    known.add(*ids, first)
    known.add(*ids, answers(rng, 3))
    assert len(known) == 2
    assert_same(known.take(known.find(*ids)), first, [0, 1, 1])


def test_known_and_fresh_answers_come_back_in_their_order():
    rng = np.random.default_rng(2)
    left, right = answers(rng, 2), answers(rng, 3, "bad_json")
    where = np.array([False, True, False, True, False])
    batch = merged(where, left, right)
    assert batch.status.tolist() == ["bad_json", "ok", "bad_json", "ok", "bad_json"]
    np.testing.assert_array_equal(batch.reward[where], left.reward)
    np.testing.assert_array_equal(batch.reason[~where], right.reason)


def test_ids_of_any_whole_type_are_the_same_pair_and_others_are_refused(monkeypatch, tmp_path):
    pytest.importorskip("litellm", reason="needs the extra 'llm'")
    market = load_market("default", n_jobs=6, n_applicants=5)
    bound = LLMSimulator("openai/none", cache=tmp_path / "a.sqlite", cache_mode="replay").bind(market)
    known = Feedback.of(["apply"], [1.0], reason=["fits"])
    bound._memory.add(np.array([4]), np.array([5]), known)
    for dtype in (np.int32, np.uint64, object):
        answer = bound.feedback(np.array([4], dtype), np.array([5], dtype))
        assert (answer.decision[0], answer.reason[0]) == ("apply", "fits")
    assert bound.usage.cache_hits == bound.simulator.usage.cache_hits == 3
    for applicants, jobs, message in (
        ([4], [-1], r"`job_ids` must be rows of market 'default', in \[0, 6\), got -1 to -1"),
        ([5], [0], r"`applicant_ids` must be rows of market 'default', in \[0, 5\)"),
        ([4], [5, 5], r"must both be \(n,\), got \(1,\) and \(2,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            bound.feedback(np.array(applicants), np.array(jobs))
