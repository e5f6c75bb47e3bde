"""A symmetric matrix that changes by one outer product at a time."""

import pytest
import torch as th

from dynaq_algo import updated_matrix
from dynaq_algo.updated_matrix import UpdatedMatrix


@pytest.fixture(params=[10**9, 5], ids=["small", "large"])
def deferred(request, monkeypatch):
    """Every matrix is small, or all of five rows are large."""
    monkeypatch.setattr(updated_matrix, "_DEFERRED_FROM", request.param)
    monkeypatch.setattr(updated_matrix, "_BLOCK", 4)
    return request.param


def changed(n=11, changes=50, seed=0):
    """A matrix after some additions, three rows that were cleared on the way, and the same as a plain tensor."""
    drawn = th.Generator().manual_seed(seed)
    ours, plain = UpdatedMatrix(), th.zeros(n, n, dtype=th.float64)
    for i in range(changes):
        if ours.n < n:
            ours.grow()
        column = th.randn(n, generator=drawn, dtype=th.float64)
        column[ours.n :] = 0.0
        size = th.randn((), generator=drawn, dtype=th.float64)
        ours.add(column[: ours.n], size)
        plain += size * th.outer(column, column)
        if i in (20, 37, 49):
            ours.clear(i % n)
            plain[i % n] = plain[:, i % n] = 0.0
    return ours, plain


def test_it_is_the_sum_of_what_was_added(deferred):
    ours, plain = changed()
    vectors = th.randn(3, 11, generator=th.Generator().manual_seed(1), dtype=th.float64)

    th.testing.assert_close(ours.times(vectors), vectors @ plain)
    th.testing.assert_close(ours.times(vectors[0]), plain @ vectors[0])
    th.testing.assert_close(ours.quadratic(vectors), ((vectors @ plain) * vectors).sum(dim=1))
    for place in range(11):
        th.testing.assert_close(ours.column(place), plain[:, place])
    assert (ours.column(49 % 11) == 0).all()


def test_it_goes_on_from_its_state_to_the_bit(deferred):
    ours, _ = changed()
    other = UpdatedMatrix()
    for _ in range(ours.n):
        other.grow()
    other.set_state(ours.get_state())
    assert bool(len(ours.get_state()["pending_sizes"])) == (deferred < 11)
    for matrix in (ours, other):
        column = th.linspace(-1, 1, 11, dtype=th.float64)
        for _ in range(20):
            matrix.add(column, th.tensor(0.3, dtype=th.float64))
    for name, values in ours.get_state().items():
        assert th.equal(values, other.get_state()[name])


def test_a_state_of_an_earlier_version_has_nothing_pending(deferred):
    plain = th.diag(th.arange(1.0, 8.0, dtype=th.float64))
    ours = UpdatedMatrix()
    for _ in range(7):
        ours.grow()
        ours.add(th.ones(ours.n, dtype=th.float64), th.tensor(1.0, dtype=th.float64))
    ours.set_state({"inverse": plain})
    assert th.equal(ours.times(th.eye(7, dtype=th.float64)), plain)


def test_more_than_can_be_pending_is_refused():
    ours, _ = changed()
    full = {"pending": th.zeros(32, 11), "pending_sizes": th.zeros(32)}
    with pytest.raises(ValueError, match="fewer than 32 additions can be pending, got 32"):
        ours.set_state(ours.get_state() | full)


def test_what_is_put_takes_the_place_of_all(deferred):
    ours, plain = changed()
    places = th.tensor([1, 4])
    ours.put(places, th.eye(2, dtype=th.float64))
    wanted = th.zeros_like(plain)
    wanted[1, 1] = wanted[4, 4] = 1.0
    assert th.equal(ours.times(th.eye(11, dtype=th.float64)), wanted)

    ours.put(places[:0], wanted[:0, :0])
    assert (ours.times(th.eye(11, dtype=th.float64)) == 0).all()
