import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobrec_gym.counter_rng import bounded, hash64, normal, permute, rehash64, text_key, uniform

U64 = st.integers(0, 2**64 - 1)


def keys(*values):
    return np.array(values, dtype=np.uint64)


def test_the_hash_is_the_same_on_every_platform():
    assert hash64(0, 1, 2).tolist() == [6768782832058643234]
    assert text_key("nurse") == 3389991825742183818


@given(U64, U64)
def test_numbers_and_arrays_hash_alike(a, b):
    assert hash64(a, b) == hash64(a, keys(b)) == hash64(keys(a), keys(b))


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint64])
def test_a_number_of_numpy_hashes_like_one_of_python(kind):
    assert hash64(kind(3), 4) == hash64(3, kind(4)) == hash64(3, 4)
    np.testing.assert_array_equal(hash64(kind(3), np.arange(5)), hash64(3, np.arange(5)))
    np.testing.assert_array_equal(hash64(np.arange(5), kind(3)), hash64(np.arange(5), 3))
    assert hash64(np.int64(-1)) == hash64(-1)


def test_the_order_of_parts_matters():
    assert hash64(1, 2) != hash64(2, 1)


def test_rows_do_not_depend_on_their_neighbours():
    rows = np.arange(1000)
    assert (hash64(7, rows)[500:] == hash64(7, rows[500:])).all()


def test_uniform_and_normal_have_their_moments():
    drawn = hash64(3, np.arange(200_000))
    assert uniform(drawn).mean() == pytest.approx(0.5, abs=0.003)
    assert uniform(drawn).min() >= 0 and uniform(drawn).max() < 1
    assert normal(drawn).mean() == pytest.approx(0, abs=0.01)
    assert normal(drawn).std() == pytest.approx(1, abs=0.01)
    assert np.abs(normal(drawn)).max() > 4


def test_bounded_numbers_are_uniform():
    counts = np.bincount(bounded(hash64(5, np.arange(70_000)), 7), minlength=7)
    assert np.abs(counts - 10_000).max() < 400


@given(U64, st.integers(1, 500))
def test_a_permutation_reaches_every_value_once(key, n):
    assert sorted(permute(keys(key), np.arange(n), n)) == list(range(n))


@pytest.mark.parametrize("n", [2, 3, 5, 6, 12, 20])
def test_values_of_a_small_permutation_are_uniform_to_six_percent_and_pairs_of_them_to_a_third(n):
    draws = 200_000
    sent = permute(hash64(11, np.arange(draws))[:, None], np.arange(n), n)
    for position in range(n):
        share = np.bincount(sent[:, position], minlength=n) / draws * n
        assert np.abs(share - 1).max() < 0.06 + 5 * np.sqrt(n / draws)
    off_diagonal = ~np.eye(n, dtype=bool).ravel()
    furthest = 0.0
    for one, other in itertools.combinations(range(n), 2):
        pairs = np.bincount(sent[:, one] * n + sent[:, other], minlength=n * n)[off_diagonal] / draws * n * (n - 1)
        furthest = max(furthest, np.abs(pairs - 1).max())
    assert furthest < 0.35 + 5 * np.sqrt(n * (n - 1) / draws)
    # The documentation says that they are not uniform; if they ever are, it says too little for them.
    assert furthest > 0.25 or n < 5


def test_of_1400_values_those_that_are_near_each_other_meet_no_more_often_than_by_chance():
    n, draws = 1_400, 100_000
    a, b = 38, 37  # the sides of the network
    values = np.arange(n)
    for positions in ((0, 1), (0, b), (0, b + 1)):
        one, other = permute(hash64(12, np.arange(draws))[:, None], np.array(positions), n).T
        for part, side in ((lambda value: value // b, a), (lambda value: value % b, b)):
            sizes = np.bincount(part(values), minlength=side)
            expected = (sizes * (sizes - 1)).sum() / (n * (n - 1))
            assert abs((part(one) == part(other)).mean() - expected) < 5 * np.sqrt(expected / draws)


def test_permutations_of_different_keys_differ():
    sent = permute(hash64(1, np.arange(50))[:, None], np.arange(20), 1400)
    assert len({tuple(row) for row in sent}) == 50


def test_keys_and_positions_broadcast_either_way():
    keys, positions = hash64(3, np.arange(4)), np.arange(3)
    for n in (3, 5, 50):
        table = permute(keys[:, None], positions, n)
        np.testing.assert_array_equal(permute(keys, positions[:, None], n), table.T)


def test_hashing_may_go_on_where_it_stopped():
    episodes, steps = np.arange(5, dtype=np.uint64) * 7, np.arange(5)
    np.testing.assert_array_equal(rehash64(hash64(episodes, 3), steps), hash64(episodes, 3, steps), strict=True)
    np.testing.assert_array_equal(rehash64(hash64(9, 3), 4), hash64(9, 3, 4), strict=True)
    kept = hash64(episodes, 3)
    rehash64(kept, steps)
    np.testing.assert_array_equal(kept, hash64(episodes, 3))


@pytest.mark.parametrize("n", [2, 37, 1_425])
def test_few_numbers_are_walked_one_by_one_to_where_arrays_walk(monkeypatch, n):
    keys, positions = hash64(np.arange(40), n)[:, None], np.arange(min(n, 20))
    together = permute(keys, positions, n)
    for few in (0, 10_000):
        monkeypatch.setattr("jobrec_gym.counter_rng._FEW", few)
        assert np.array_equal(permute(keys, positions, n), together)
