import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobrec_gym import AnnealSchedule
from jobrec_gym.schedules import make_schedule

KINDS = ("linear", "exponential", "cosine", "step", "two_phase")


@st.composite
def schedules(draw):
    kind = draw(st.sampled_from(KINDS))
    length = draw(st.integers(1, 100_000))
    weights = st.floats(0, 1, allow_nan=False)
    when = {"switch_at": length} if kind == "two_phase" else {"steps": length}
    return AnnealSchedule(
        kind=kind, start=draw(weights), end=draw(weights), n_stairs=draw(st.integers(1, 10)), **when
    ), length


@given(schedules())
def test_a_weight_lies_between_the_ends_and_moves_one_way(case):
    schedule, length = case
    weights = schedule.weights(np.linspace(0, 2 * length, 101).astype(int))
    lowest, highest = sorted((schedule.start, schedule.end))
    assert (weights >= lowest).all() and (weights <= highest).all()
    moves = np.diff(weights) * (1 if schedule.end >= schedule.start else -1)
    assert (moves >= -1e-12).all()


@given(schedules())
def test_the_ends_are_exact(case):
    schedule, length = case
    assert schedule(0) == schedule.start
    assert schedule(length) == schedule(length + 1) == schedule(10 * length) == schedule.end


@given(schedules(), st.lists(st.integers(0, 200_000), min_size=1, max_size=20))
def test_many_steps_at_once_are_each_step_alone(case, steps):
    schedule, _ = case
    assert schedule.weights(steps).tolist() == [schedule(step) for step in steps]


@given(st.integers(1, 10**6), st.data())
def test_linear_over_n_is_one_minus_t_over_n(n, data):
    t = data.draw(st.integers(0, n))
    assert AnnealSchedule(steps=n)(t) == 1 - t / n == pytest.approx(float(1 - Fraction(t, n)), abs=1e-15)


def test_nothing_compounds_the_weight_after_50_of_1000_steps_is_095():
    schedule = AnnealSchedule(steps=1_000)
    for step in range(50):
        schedule(step)
    assert schedule(50) == 0.95


def test_stairs_are_equal_and_two_phases_switch_once():
    stairs = AnnealSchedule(steps=8, kind="step")
    assert stairs.weights(np.arange(9)).tolist() == [1, 1, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25, 0]
    assert AnnealSchedule(kind="two_phase", switch_at=3).weights(np.arange(5)).tolist() == [1, 1, 1, 0, 0]


@given(st.integers(1, 10**18), st.integers(1, 100), st.data())
def test_a_stair_begins_at_the_first_step_that_has_come_so_far(n, n_stairs, data):
    stairs = AnnealSchedule(steps=n, kind="step", n_stairs=n_stairs)
    stair = data.draw(st.integers(0, n_stairs - 1))
    first = -(-stair * n // n_stairs)  # the whole number at or above
    for t in (first, max(first - 1, 0)):
        assert stairs(t) == pytest.approx(1 - (t * n_stairs // n) / n_stairs, abs=1e-12)


def test_no_stair_is_late_by_a_rounding_error():
    stairs = AnnealSchedule(steps=22, kind="step", n_stairs=22)
    np.testing.assert_allclose(stairs.weights(np.arange(23)), 1 - np.arange(23) / 22, atol=1e-12)
    assert stairs(15) == pytest.approx(7 / 22)
    assert stairs.weights([15.5]) == stairs(15)


@given(schedules())
def test_a_schedule_comes_back_from_its_spec(case):
    schedule, _ = case
    assert make_schedule(json.loads(json.dumps(schedule.to_spec()))) == schedule


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 10, "kind": "liner"}, "`kind` must be one of"),
        ({}, "`steps` must be a whole number of at least 1"),
        ({"steps": 0}, "`steps` must be a whole number of at least 1"),
        ({"steps": "x"}, "`steps` must be a whole number of at least 1 .* got 'x'"),
        ({"steps": 1.5}, r"`steps` must be a whole number of at least 1 .* got 1\.5"),
        ({"steps": 10, "start": "x"}, r"`start` .* \[0, 1\], got 'x'"),
        ({"steps": 10, "start": 1.5}, r"`start` .* \[0, 1\], got 1.5"),
        ({"steps": 10, "end": -0.1}, r"`end` .* \[0, 1\]"),
        ({"kind": "two_phase"}, "`switch_at` must be"),
        ({"kind": "two_phase", "switch_at": 5, "steps": 10}, "`steps` has no meaning"),
        ({"steps": 10, "switch_at": 5}, "`switch_at` has no meaning"),
        ({"steps": 10, "kind": "step", "n_stairs": 0}, "`n_stairs`"),
    ],
)
def test_what_a_kind_cannot_have_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        AnnealSchedule(**arguments)


def test_a_negative_step_and_a_stranger_are_refused():
    for stranger in (-1, float("nan")):
        with pytest.raises(ValueError, match=f"`t` must be 0 or more, got {stranger}"):
            AnnealSchedule(steps=10)(stranger)
    with pytest.raises(ValueError, match="`schedule` must be an AnnealSchedule"):
        make_schedule(0.5)
    with pytest.raises(ValueError, match=r"`schedule` must have entries of .*, got 'stps'. Did you mean 'steps'\?"):
        make_schedule({"stps": 10})
    with pytest.raises(ValueError, match=r"`schedule` must have entries of .*, got 5\.$"):
        make_schedule({5: 10})
