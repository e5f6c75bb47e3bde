"""What answers do to applicants: careers step by step, dynamics of one's own, and specs of others."""

import json
import sys
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from test_specs_of_others import HOSTILE, Unbound
from test_vector import assert_same

from jobrec_gym import CareerDynamics, Dynamics, JobRecCareerEnv, StaticDynamics, load_market
from jobrec_gym.dynamics import BoundDynamics, make_dynamics
from jobrec_gym.simulators.base import DECISIONS

NOBODY, IGNORE, CLICK, SAVE, APPLY = -1, *range(len(DECISIONS))
SMALL = {"market": {"source": "default", "n_jobs": 60, "n_applicants": 40}, "num_candidates": 5}


@pytest.fixture(scope="module")
def job_of_level():
    """A job of each level, 1 to 5, of the small market."""
    levels = load_market("default", n_jobs=60, n_applicants=40).jobs.seniority
    return {level: int(np.flatnonzero(levels == level)[0]) for level in range(1, 6)}


def moved(dynamics, job_of_level, state, level, *decisions):
    """What becomes of a state behind some answers to jobs of one level."""
    bound = dynamics.bind(load_market("default", n_jobs=60, n_applicants=40))
    states = np.array([state])
    for decision in decisions:
        before = states.copy()
        after = bound.advance(states, np.array([job_of_level[level]]), np.array([decision]))
        assert np.array_equal(states, before), "what was given is not changed"
        states = after
    return states[0].tolist()


@pytest.mark.parametrize(
    ("state", "level", "decisions", "expected"),
    [
        ([1, 0, 6], 2, [CLICK], [1, 1, 6]),
        ([1, 0, 6], 2, [CLICK, SAVE, APPLY], [2, 0, 6]),
        ([1, 2, 6], 1, [APPLY], [1, 2, 6]),  # at one's own level nothing is learned
        ([1, 2, 6], 3, [APPLY], [1, 2, 6]),  # two levels up neither
        ([5, 0, 6], 5, [APPLY, APPLY], [5, 0, 6]),
        ([4, 2, 3], 5, [SAVE], [5, 0, 4]),
        ([2, 1, 3], 3, [IGNORE], [2, 1, 2]),
        ([2, 1, 3], 3, [NOBODY], [2, 1, 3]),
        ([2, 1, 3], 2, [CLICK], [2, 1, 3]),
        ([2, 1, 3], 2, [SAVE], [2, 1, 4]),
        ([2, 1, 6], 2, [APPLY], [2, 1, 6]),
        ([2, 1, 1], 2, [IGNORE, IGNORE], [2, 1, 0]),
    ],
)
def test_a_career_goes_step_by_step(job_of_level, state, level, decisions, expected):
    assert moved(CareerDynamics(), job_of_level, state, level, *decisions) == expected


def test_numbers_of_a_career_are_arguments(job_of_level):
    quick = CareerDynamics(experience=1, patience=9, ignored=2, pleased=3)
    assert moved(quick, job_of_level, [1, 0, 9], 2, CLICK) == [2, 0, 9]
    assert moved(quick, job_of_level, [1, 0, 9], 1, IGNORE, IGNORE, SAVE) == [1, 0, 8]
    assert moved(quick, job_of_level, [1, 0, 1], 1, IGNORE) == [1, 0, 0]
    bound = CareerDynamics(pay=(1, 2, 3, 4, 50)).bind(load_market("default", n_jobs=60, n_applicants=40))
    states = np.array([[5, 0, 6], [5, 0, 6], [2, 0, 6]])
    jobs = np.array([job_of_level[level] for level in (5, 3, 5)])
    assert bound.pay(states, jobs).tolist() == [50, 3, 2], "the lower of both levels pays"
    assert bound.leaves(np.array([[5, 0, 0], [5, 0, 1]])).tolist() == [True, False]
    assert bound.in_words(np.array([5, 0, 2])) == "level 5 of 5 (lead), patience 2 of 6, pay 50"


def test_the_protocol_is_met_by_what_is_shipped():
    market = load_market("default", n_jobs=60, n_applicants=40)
    for dynamics in (CareerDynamics(), StaticDynamics()):
        assert isinstance(dynamics, Dynamics) and isinstance(dynamics.bind(market), BoundDynamics)
        assert make_dynamics(dynamics) is dynamics
        assert make_dynamics(json.loads(json.dumps(dynamics.to_spec()))).to_spec() == dynamics.to_spec()
    assert make_dynamics(None).to_spec() == CareerDynamics().to_spec()
    assert repr(StaticDynamics()) == "StaticDynamics()"
    assert eval(repr(CareerDynamics("own", patience=4))).to_spec() == CareerDynamics("own", patience=4).to_spec()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"start": "junior"}, r"`start` must be one of \('entry', 'own'\), got 'junior'"),
        ({"pay": (1, 2, 3)}, r"`pay` must be 5 finite numbers, one for each level, got \(1, 2, 3\)"),
        ({"pay": (1, 2, 3, 4, float("inf"))}, "`pay` must be 5 finite numbers"),
        ({"pay": "abcde"}, "`pay` must be 5 finite numbers"),
        ({"pay": "12345"}, "`pay` must be 5 finite numbers"),
        ({"patience": 0}, "`patience` must be a whole number of at least 1 .*, got 0"),
        ({"experience": 1.5}, "`experience` must be a whole number of at least 1 .*, got 1.5"),
        ({"ignored": -1}, "`ignored` must be a whole number of at least 0 .*, got -1"),
        ({"pleased": True}, "`pleased` must be a whole number of at least 0 .*, got True"),
        ({"patience": 10**30}, "`patience` must be .* at most 1,000,000,000, got 1000000000000"),
        ({"ignored": 10**30}, "`ignored` must be .* at most 1,000,000,000"),
        ({"pleased": 2**62}, "`pleased` must be .* at most 1,000,000,000"),
        ({"experience": 10**30}, "`experience` must be .* at most 1,000,000,000"),
    ],
    ids=str,
)
def test_numbers_that_are_none_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        CareerDynamics(**kwargs)


@pytest.mark.parametrize("how", HOSTILE)
def test_what_a_spec_names_is_not_called_unless_it_is_a_class_with_bind(tmp_path, how):
    canary = tmp_path / "canary"
    spec = json.loads(json.dumps(HOSTILE[how]).replace("CANARY", str(canary)))
    made = Unbound.made
    for make in (make_dynamics, lambda dynamics: JobRecCareerEnv(**SMALL, dynamics=dynamics)):
        with pytest.raises(ValueError, match=r"`dynamics\['type'\]`"):
            make(spec)
    assert not canary.exists() and Unbound.made == made


class Trust:
    """Trust from 0 to ``most``: pleased applicants gain it and are worth more, those at 0 leave."""

    names, pair_names, shown_in_pairs = ("trust",), (), ()

    def __init__(self, most=4):
        self.most = most

    def bind(self, market):
        return self

    def start(self, applicant_ids):
        return np.full((len(applicant_ids), 1), self.most // 2)

    def progress(self, states):
        return (states / self.most).astype(np.float32)

    def levels(self, states):
        return None

    def pay(self, states, job_ids):
        return 1.0 + states[:, 0]

    def advance(self, states, job_ids, decisions):
        gained = (decisions >= SAVE).astype(int) - (decisions == IGNORE)
        return np.clip(states + gained[:, None], 0, self.most)

    def leaves(self, states):
        return states[:, 0] == 0

    def in_words(self, state):
        return f"trust {state[0]} of {self.most}"

    def to_spec(self):
        return {"type": "of_ones_own:Trust", "most": self.most}


@pytest.mark.parametrize("n", [None, 3])
def test_dynamics_of_ones_own_are_named_by_module_and_class(monkeypatch, n):
    monkeypatch.setitem(sys.modules, "of_ones_own", sys.modules[__name__])
    if n is None:
        env = gym.make("JobRecCareer-v0", **SMALL, dynamics=Trust(6), render_mode="ansi", hidden=())
    else:
        env = gym.make_vec("JobRecCareer-v0", n, **SMALL, dynamics=Trust(6))
    space = env.observation_space
    assert space["progress"].shape[-1] == 1 and "pairs" not in space.spaces
    action = 0 if n is None else np.zeros(n, int)
    _, before = env.reset(seed=2)
    assert np.all(before["progress/trust"] == 3)
    first = env.step(action)
    expected = {"apply": 1, "save": 1, "click": 0, "ignore": -1}
    decisions = np.atleast_1d(first[4]["feedback/decision"]).tolist()
    assert np.atleast_1d(first[4]["progress/trust"]).tolist() == [3 + expected[word] for word in decisions]
    assert np.all(first[4]["reward/pay"] == 4)
    if n is None:
        assert f"now: trust {first[4]['progress/trust']} of 6" in env.render()
    spec = EnvSpec.from_json(env.spec.to_json())
    again = gym.make(spec) if n is None else gym.make_vec(spec, num_envs=n)
    again.reset(seed=2)
    assert_same(first, again.step(action))


@pytest.mark.parametrize("vector", [False, True])
@pytest.mark.parametrize("dynamics", [{"type": "static"}, Trust()], ids=["static", "own"])
def test_a_sample_has_the_entries_of_an_observation(dynamics, vector):
    for kwargs in ({}, {"pair_features": ("seniority",)}):
        make = partial(gym.make_vec, num_envs=2) if vector else gym.make
        env = make("JobRecCareer-v0", **SMALL, dynamics=dynamics, **kwargs)
        space = env.single_observation_space if vector else env.observation_space
        sample = env.unwrapped.observation_sample
        assert sample in gym.vector.utils.batch_space(space, len(sample["applicant"]))
        assert ("pairs" in sample) == bool(kwargs)


class Strikes:
    """Dynamics of one's own; a subclass gets one part wrong."""

    names, pair_names, shown_in_pairs = ("strikes",), ("above",), ()

    def bind(self, market):
        return self

    def start(self, applicant_ids):
        return np.zeros((len(applicant_ids), 1), dtype=np.int64)

    def progress(self, states):
        return states / 3

    def pairs(self, progress, job_ids):
        return np.zeros((*np.broadcast_shapes(progress.shape[:-1], np.shape(job_ids)), 1), np.float32)

    def levels(self, states):
        return None

    def pay(self, states, job_ids):
        return np.ones(len(job_ids))

    def advance(self, states, job_ids, decisions):
        return np.minimum(states + (decisions[:, None] == 0), 3)

    def leaves(self, states):
        return states[:, 0] >= 3

    def in_words(self, state):
        return f"{state[0]} ignored"


@pytest.mark.parametrize(
    ("part", "wrong", "message"),
    [
        (
            "start",
            lambda self, ids: np.zeros(len(ids), dtype=np.int64),
            r"whole numbers of shape \(2, 1\) from `start`",
        ),
        ("start", lambda self, ids: np.zeros((len(ids), 1)), "whole numbers of shape .* got float64"),
        ("progress", lambda self, states: states + 2.0, r"numbers in \[0, 1\] from `progress`, got \[2. 2.\]"),
        ("progress", lambda self, states: states + np.nan, r"numbers in \[0, 1\] from `progress`, got \[nan nan\]"),
        ("pairs", lambda self, progress, ids: np.zeros(3), r"numbers of shape \(2, 1, 1\) from `pairs`"),
        ("pay", lambda self, states, ids: 1.0, r"numbers of shape \(2,\) from `pay`"),
        ("pay", lambda self, states, ids: np.full(len(ids), np.inf), "must give finite numbers from `pay`"),
        ("advance", lambda self, states, ids, decisions: states[:, 0], r"from `advance`.*got int64 of shape \(2,\)"),
        ("leaves", lambda self, states: states[:, 0], r"bools of shape \(2,\) from `leaves`"),
        ("levels", lambda self, states: "x", r"whole numbers of shape \(2,\) from `levels`"),
        ("leaves", lambda self, states: np.zeros(1, bool), r"bools of shape \(2,\) from `leaves`"),
        ("levels", None, "Strikes has no `levels`"),
        ("pairs", None, "Strikes has no `pairs`"),
    ],
)
def test_dynamics_of_another_form_are_refused_where_they_are_given(monkeypatch, part, wrong, message):
    if wrong is None:
        monkeypatch.delattr(Strikes, part)
    else:
        monkeypatch.setattr(Strikes, part, wrong)
    with pytest.raises(ValueError, match=message):
        JobRecCareerEnv(**SMALL, dynamics=Strikes())


def test_dynamics_that_change_the_states_in_place_are_refused_where_they_are_given(monkeypatch):
    def advance(self, states, job_ids, decisions):
        states += (decisions == 0)[:, None]
        return states

    monkeypatch.setattr(Strikes, "advance", advance)
    with pytest.raises(ValueError, match="must not change `states` in place, and `advance` does: .*states.copy"):
        JobRecCareerEnv(**SMALL, dynamics=Strikes())


def test_progress_has_one_type_whatever_dynamics_give():
    assert Strikes().progress(np.zeros((1, 1), np.int64)).dtype == np.float64
    single = JobRecCareerEnv(**SMALL, dynamics=Strikes())
    vector = gym.make_vec("JobRecCareer-v0", 1, **SMALL, dynamics=Strikes())
    one, many = single.reset(seed=0)[0], vector.reset(seed=0)[0]
    assert one["progress"].dtype == many["progress"].dtype == np.float32
    assert_same({name: part[None] for name, part in one.items()}, dict(many))
