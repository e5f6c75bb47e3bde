import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jobrec_gym.metrics import (
    auc,
    congestion,
    coverage,
    cumulative_regret,
    discounted_return,
    gini,
    hit_rate_at_k,
    lorenz,
    mrr,
    ndcg_at_k,
    normalised_score,
)

SCORES = [[3.0, 2.0, 1.0, 0.0], [0.0, 1.0, 2.0, 3.0]]
GAINS = [[0.0, 1.0, 0.5, -0.1], [0.0, 0.0, 0.0, -0.1]]


def test_ndcg_by_hand():
    ranked = 1 / np.log2(3) + 0.5 / np.log2(4)
    ideal = 1 + 0.5 / np.log2(3)
    assert ndcg_at_k(SCORES, GAINS, 10) == pytest.approx([ranked / ideal, np.nan], nan_ok=True)
    assert ndcg_at_k(SCORES, GAINS, 2)[0] == pytest.approx(1 / np.log2(3) / ideal)
    assert ndcg_at_k(SCORES, GAINS, 1)[0] == 0


def test_hits_and_reciprocal_ranks_by_hand():
    hits = [[False, False, True, False], [False, False, False, False]]
    assert hit_rate_at_k(SCORES, hits, 2) == pytest.approx([0, np.nan], nan_ok=True)
    assert hit_rate_at_k(SCORES, hits, 3)[0] == 1
    assert mrr(SCORES, hits) == pytest.approx([1 / 3, np.nan], nan_ok=True)


@given(
    arrays(float, (4, 6), elements=st.floats(-1, 1)),
    arrays(float, (4, 6), elements=st.floats(-1, 1)),
    st.integers(1, 8),
)
def test_ranking_by_the_truth_is_perfect_and_nothing_is_better(scores, gains, k):
    perfect, other = ndcg_at_k(gains, gains, k), ndcg_at_k(scores, gains, k)
    known = ~np.isnan(perfect)
    assert perfect[known] == pytest.approx(np.ones(known.sum()))
    assert (other[known] <= 1 + 1e-12).all() and (other[known] >= 0).all()
    assert np.nanmax(np.append(mrr(scores, gains > 0), 0)) <= 1


def test_the_normalised_score_is_between_random_and_oracle():
    assert normalised_score([0.0, 0.0], [0.0, 0.0], [1.0, 0.5]) == 0
    assert normalised_score([1.0, 0.5], [0.0, 0.0], [1.0, 0.5]) == 1
    assert normalised_score([-1.0, -0.5], [0.0, 0.0], [1.0, 0.5]) == -1
    with pytest.raises(ValueError, match="must be better than `random`"):
        normalised_score([0.0], [1.0], [1.0])


def test_returns_and_regret_add_up():
    assert discounted_return([1.0, 1.0, 1.0], 0.5) == 1.75
    assert cumulative_regret([0.0, 1.0, 0.5], [1.0, 1.0, 1.0]).tolist() == [1.0, 1.0, 1.5]


def test_rewards_of_unlike_lengths_or_unknown_ones_are_refused():
    with pytest.raises(
        ValueError, match=r"`chosen`, `random`, `oracle` must have one shape \(n,\), got \(2,\), \(1,\)"
    ):
        normalised_score([1.0, 1.0], [0.0], [1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="`oracle` must be numbers, entry 1 is NaN: leave this entry out of"):
        normalised_score([0.0, 0.0], [0.0, 0.0], [1.0, np.nan])
    with pytest.raises(ValueError, match=r"`chosen`, `oracle` must have one shape \(n,\), got \(3,\), \(1,\)"):
        cumulative_regret([1.0, 2.0, 3.0], [3.0])
    with pytest.raises(ValueError, match="`chosen` must be numbers, entry 0 is NaN"):
        cumulative_regret([np.nan, 2.0], [3.0, 3.0])


def test_coverage_and_gini_tell_even_from_uneven():
    assert coverage([0, 1, 1, 3], 8) == 3 / 8
    assert gini([5, 5, 5]) == pytest.approx(0)
    assert gini([0, 0, 0, 12]) == pytest.approx(0.75)
    assert gini([0, 0]) == 0


def test_lorenz_curves_by_hand():
    np.testing.assert_allclose(lorenz([3, 1, 0, 0], points=5), [0, 0, 0, 0.25, 1])
    np.testing.assert_allclose(lorenz([2, 2, 2], points=3), [0, 0.5, 1])
    np.testing.assert_allclose(lorenz([0, 0], points=3), [0, 0.5, 1])


@given(arrays(np.int64, st.integers(2, 30), elements=st.integers(0, 50)).filter(lambda counts: counts.any()))
def test_the_area_under_a_lorenz_curve_belongs_to_the_gini(counts):
    curve = lorenz(counts, points=len(counts) + 1)

    assert 1 - (curve[1:] + curve[:-1]).mean() == pytest.approx(gini(counts))


def test_congestion_is_the_chance_of_the_same_job_twice():
    rng = np.random.default_rng(0)
    jobs = rng.choice(6, p=[0.4, 0.3, 0.1, 0.1, 0.05, 0.05], size=60)
    pairs = [(a, b) for a in range(60) for b in range(60) if a != b]

    expected = np.mean([jobs[a] == jobs[b] for a, b in pairs])

    assert congestion(np.bincount(jobs, minlength=9)) == pytest.approx(expected)
    assert congestion([4, 0, 0]) == 1 and congestion([1, 1, 1]) == 0
    assert np.isnan(congestion([1, 0]))


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"one shape \(n, m\), got \(2, 4\) and \(2, 3\)"):
        mrr(SCORES, [[True, False, True]] * 2)
    with pytest.raises(ValueError, match="`k` must be at least 1, got 0"):
        ndcg_at_k(SCORES, GAINS, 0)


# Few distinct scores, so that many are equal.
tied_sets = st.integers(2, 5).flatmap(
    lambda m: st.tuples(
        st.lists(st.integers(0, 2), min_size=m, max_size=m), st.lists(st.integers(-1, 2), min_size=m, max_size=m)
    )
)


@given(tied_sets, st.integers(1, 6))
def test_ties_by_their_mean_are_the_mean_over_all_orders(tied, k):
    scores, gains = (np.array(values, float) for values in tied)
    hits = gains > 0
    if not hits.any():
        assert np.isnan(hit_rate_at_k([scores], [hits], k, ties="mean")).all()
        return
    orders = [np.array(order) for order in itertools.permutations(range(len(scores)))]
    for metric, values in ((ndcg_at_k, gains), (hit_rate_at_k, hits)):
        each = [metric([scores[order]], [values[order]], k)[0] for order in orders]
        assert metric([scores], [values], k, ties="mean")[0] == pytest.approx(np.mean(each))
    if not hits.all():
        pairs = [(a > b) + (a == b) / 2 for a in scores[hits] for b in scores[~hits]]
        assert auc([scores], [hits])[0] == pytest.approx(np.mean(pairs))


def test_auc_has_no_meaning_for_one_kind():
    assert np.isnan(auc([[1, 2], [1, 2]], [[True, True], [False, False]])).all()


def test_an_unknown_treatment_of_ties_is_refused():
    with pytest.raises(ValueError, match="`ties` must be one of"):
        ndcg_at_k([[1.0]], [[1.0]], 1, ties="random")


def test_infinite_scores_are_compared_like_others():
    assert auc([[-np.inf, 1.0, -np.inf]], [[False, True, False]]) == pytest.approx([1.0])
    assert auc([[-np.inf, 1.0, -np.inf]], [[True, False, False]]) == pytest.approx([0.25])
    assert auc([[np.inf, 1.0, np.inf]], [[True, False, False]]) == pytest.approx([0.75])


@pytest.mark.parametrize("ties", ["position", "mean"])
def test_an_unknown_answer_is_not_taken_for_none(ties):
    scores, answers = [[1.0, 2.0], [1.0, 2.0]], [[1.0, 0.0], [np.nan, 1.0]]
    for measure in (auc, mrr):
        with pytest.raises(ValueError, match="`hits` must be known, row 1 has NaN: leave out candidates"):
            measure(scores, answers)
    for cut, name in ((ndcg_at_k, "gains"), (hit_rate_at_k, "hits")):
        with pytest.raises(ValueError, match=f"`{name}` must be known, row 1 has NaN: leave out candidates"):
            cut(scores, answers, 1, ties=ties)


@pytest.mark.parametrize("metric", [auc, lambda scores, hits: ndcg_at_k(scores, hits, 10, ties="mean")])
def test_a_whole_catalogue_is_ranked_in_little_memory(metric):
    """A comparison of each candidate with each would take 200 MB here, and gigabytes for a few hundred people."""
    rng = np.random.default_rng(0)
    scores, hits = rng.integers(100, size=(1, 3_000)).astype(float), rng.random((1, 3_000)) < 0.1
    tracemalloc.start()
    try:
        assert 0 < metric(scores, hits)[0] < 1
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("ties", ["position", "mean"])
def test_scores_that_are_nan_have_no_rank(ties):
    scores, hits = [[1.0, 2.0], [np.nan, np.nan]], [[True, False], [True, False]]
    for measure in (auc, mrr):
        with pytest.raises(ValueError, match="`scores` must be numbers, row 1 has NaN"):
            measure(scores, hits)
    for cut in (ndcg_at_k, hit_rate_at_k):
        with pytest.raises(ValueError, match="`scores` must be numbers, row 1 has NaN"):
            cut(scores, hits, 1, ties=ties)
