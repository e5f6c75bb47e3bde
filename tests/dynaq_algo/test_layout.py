"""What is read of an observation."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from dynaq_algo.layout import CandidateLayout, DecisionBatch


def box(*shape, dtype=np.float32):
    return spaces.Box(0, 9, shape, dtype)


STATE_SPACES = {
    "zeta": box(2, 2),
    "alpha": spaces.Discrete(3, start=1),
    "middle": spaces.MultiDiscrete([2, 3]),
    "bits": spaces.MultiBinary(2),
}


def test_state_is_every_other_entry_flattened_as_gymnasium_does_in_key_order():
    space = spaces.Dict(candidates=box(4, 2), action_mask=box(4, dtype=np.int8), **STATE_SPACES)
    layout = CandidateLayout(space, spaces.Discrete(4))
    space.seed(0)
    samples = [space.sample() for _ in range(5)]
    batch = {key: np.stack([sample[key] for sample in samples]) for key in space}
    state_space = spaces.Dict(**{key: space[key] for key in space if key in STATE_SPACES})
    wanted = [spaces.flatten(state_space, {key: sample[key] for key in STATE_SPACES}) for sample in samples]

    np.testing.assert_array_equal(layout.read(batch).state, np.stack(wanted))
    assert layout.state_dim == spaces.flatdim(state_space)
    np.testing.assert_array_equal(layout.read(samples[0]).state, wanted[:1])


def test_mask_is_read_as_a_mask_and_not_as_state():
    layout = CandidateLayout(spaces.Dict(candidates=box(2, 1), action_mask=box(2), s=box(1)), spaces.Discrete(2))
    read = layout.read({"candidates": np.zeros((2, 1)), "action_mask": np.array([0, 1]), "s": np.ones(1)})
    np.testing.assert_array_equal(read.mask, [[False, True]])
    np.testing.assert_array_equal(read.state, [[1.0]])


@pytest.mark.parametrize(
    ("space", "actions", "message"),
    [
        (spaces.Discrete(3), 3, r"Wrap the observation, discrete features included, into a Dict"),
        (spaces.Dict(s=box(2)), 3, r"must have an entry `candidates`.*got \['s'\]"),
        (spaces.Dict(candidates=box(3)), 3, r"features of shape \(k, 1\)"),
        (spaces.Dict(candidates=spaces.Discrete(3)), 3, r"`candidates` must be a Box"),
        (spaces.Dict(candidates=box(4, 2)), 3, r"Discrete\(k=4\).*got Discrete\(3\)"),
        (spaces.Dict(candidates=box(3, 2), action_mask=box(2)), 3, r"`action_mask` must have shape \(k=3,\)"),
        (spaces.Dict(candidates=box(3, 2), pairs=box(2, 4)), 3, r"`pairs` must be a Box \(k=3, p\).*another name"),
        (spaces.Dict(candidates=box(3, 2), pairs=box(3)), 3, r"`pairs` must be a Box \(k=3, p\).*another name"),
        (spaces.Dict(candidates=box(3, 2), t=spaces.Text(4)), 3, r"Entry `t`.*Encode it as numbers"),
    ],
)
def test_spaces_of_another_kind_are_refused_with_the_way_out(space, actions, message):
    with pytest.raises(ValueError, match=message):
        CandidateLayout(space, spaces.Discrete(actions))


def test_observations_of_another_shape_or_kind_are_refused():
    layout = CandidateLayout(spaces.Dict(candidates=box(3, 2), s=box(1)), spaces.Discrete(3))
    with pytest.raises(ValueError, match=r"must have shape \(k, 2\).*any k of 1 or more, got \(3, 3\)"):
        layout.read({"candidates": np.zeros((3, 3)), "s": np.zeros(1)})
    with pytest.raises(ValueError, match=r"got \(0, 2\)"):
        layout.read({"candidates": np.zeros((0, 2)), "s": np.zeros(1)})
    with pytest.raises(ValueError, match=r"`s` must have shape \(1,\), or \(1, 1\).*got \(4,\)"):
        layout.read({"candidates": np.zeros((3, 2)), "s": np.zeros(4)})
    with pytest.raises(
        ValueError, match=r"`s` must .* \(2, 1\) where `candidates` are of 2 observations, got \(1, 2\)"
    ):
        layout.read({"candidates": np.zeros((2, 3, 2)), "s": np.zeros((1, 2))})
    with pytest.raises(ValueError, match=r"lacks \['s'\]"):
        layout.read({"candidates": np.zeros((3, 2))})
    with pytest.raises(ValueError, match=r"returns `\(obs, info\)`"):
        layout.read(({"candidates": np.zeros((3, 2)), "s": np.zeros(1)}, {}))


DISCRETE = {"kind": spaces.Discrete(5), "m": spaces.MultiDiscrete([3, 2]), "one": spaces.Discrete(3, start=1)}


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("kind", -1, "`kind` must be at least 0 and below 5.*got -1 to -1"),
        ("kind", 5, "`kind` must be at least 0 and below 5"),
        ("kind", np.float32(1.5), "`kind` must hold whole numbers, got 1.5"),
        ("kind", np.nan, "`kind` must hold whole numbers, got nan"),
        ("one", 0, "`one` must be at least 1 and below 4.*got 0 to 0"),
        ("m", np.array([-1, 0]), r"`m` must be at least \[0 0\] and below \[3 2\].*got -1 to 0"),
        ("m", np.array([0, 2]), "`m` must be at least"),
        ("candidates", np.array([0.0, 1.7, 2.2, 3.9]), "`candidates` must hold whole numbers, got 1.7"),
    ],
)
def test_a_class_or_an_id_that_is_none_is_refused(entry, value, message):
    space = spaces.Dict(candidates=spaces.Box(0, 11, (4,), np.int64), **DISCRETE)
    layout = CandidateLayout(space, spaces.Discrete(4))
    obs = {"candidates": np.arange(4), "kind": 4, "m": np.array([2, 1], np.uint64), "one": 3}
    as_floats = {key: np.asarray(values, np.float32) for key, values in obs.items()}
    for one, other in zip(layout.read(obs), layout.read(as_floats), strict=True):
        np.testing.assert_array_equal(one, other)
    assert layout.read(obs).state.nonzero()[1].tolist() == [4, 7, 9, 12]
    with pytest.raises(ValueError, match=message):
        layout.read({**obs, entry: value})


# ---------------------------------------------------------------------- applicant, context, pairs


def layout_of(**entries):
    return CandidateLayout(spaces.Dict(candidates=box(4, 5), **entries), spaces.Discrete(4))


@pytest.mark.parametrize(
    ("entries", "state_dim", "compared"),
    [
        ({"applicant": box(3)}, 3, slice(0, 3)),
        ({"applicant": box(3), "progress": box(2)}, 5, slice(0, 3)),
        ({"level": spaces.Discrete(4), "applicant": box(3)}, 7, slice(4, 7)),
        ({"user": box(3), "progress": box(2)}, 5, slice(0, 5)),
        ({"applicant": box(3), "pairs": box(4, 2), "action_mask": box(4)}, 3, slice(0, 3)),
        ({}, 0, slice(0, 0)),
    ],
)
def test_the_applicant_is_compared_wherever_it_stands_and_all_without_one(entries, state_dim, compared):
    # An OrderedDict keeps its order, a plain dict is sorted: both are orders of the space's keys.
    space = spaces.Dict([("candidates", box(4, 5)), *entries.items()])
    layout = CandidateLayout(space, spaces.Discrete(4))

    assert (layout.state_dim, layout.n_pairs) == (state_dim, 2 if "pairs" in entries else 0)
    before = [key for key in space if key not in ("candidates", "pairs", "action_mask")]
    if "applicant" in entries:
        start = sum(spaces.flatdim(space[key]) for key in before[: before.index("applicant")])
        assert layout.compared == slice(start, start + 3) == compared
        obs = {key: np.ones(value.shape, int) for key, value in space.items()}
        obs["applicant"] = np.array([7.0, 8.0, 9.0])
        assert layout.read(obs).state[0, layout.compared].tolist() == [7, 8, 9]
    assert layout.compared == compared


@pytest.mark.parametrize("k", [1, 3, 9])
@pytest.mark.parametrize("n", [None, 1, 2])
@pytest.mark.parametrize("ids", [False, True])
def test_any_number_of_candidates_is_read_with_its_mask_and_pairs(ids, n, k):
    candidates = box(4, dtype=np.int64) if ids else box(4, 5)
    space = spaces.Dict(candidates=candidates, applicant=box(3), pairs=box(4, 2), action_mask=box(4, dtype=np.int8))
    layout = CandidateLayout(space, spaces.Discrete(4))
    batch = () if n is None else (n,)
    rng = np.random.default_rng(0)
    obs = {
        "candidates": rng.integers(9, size=(*batch, k)) if ids else rng.random((*batch, k, 5)),
        "applicant": rng.random((*batch, 3)),
        "pairs": rng.random((*batch, k, 2)),
        "action_mask": rng.integers(2, size=(*batch, k)),
    }

    read = layout.read(obs)

    assert layout.is_batch(obs) == (n is not None)
    wanted = {key: value if batch else value[None] for key, value in obs.items()}
    np.testing.assert_array_equal(read.candidates, wanted["candidates"].astype(read.candidates.dtype))
    np.testing.assert_array_equal(read.state, wanted["applicant"].astype(np.float32))
    np.testing.assert_array_equal(read.pairs, wanted["pairs"].astype(np.float32))
    np.testing.assert_array_equal(read.mask, wanted["action_mask"] == 1)
    assert read.candidates.dtype == (np.int64 if ids else np.float32) and read.pairs.dtype == np.float32
    if n == 2:
        second = read.take(np.array([1]))
        assert all(np.array_equal(part, whole[1:]) for part, whole in zip(second, read, strict=True))


def test_a_mask_is_read_although_the_space_has_none():
    layout = layout_of(applicant=box(3))
    obs = {"candidates": np.ones((2, 4, 5)), "applicant": np.ones((2, 3))}
    assert layout.read(obs).mask is None
    mask = np.array([[0, 1, 1, 1], [1, 1, 1, 0]])
    np.testing.assert_array_equal(layout.read({**obs, "action_mask": mask}).mask, mask == 1)
    with pytest.raises(ValueError, match=r"`action_mask` must have shape \(2, 4\)"):
        layout.read({**obs, "action_mask": mask[:, :3]})


@pytest.mark.parametrize("finite", [True, False])
@pytest.mark.parametrize(
    ("mask", "found"),
    [
        ([1.0, np.nan, 0.0, 1.0], "NaN"),
        (["True", "False", "False", "True"], "values of the type <U5"),
        ([True, None, False, True], "values of the type object"),
    ],
)
def test_a_mask_that_is_neither_true_nor_false_is_refused(mask, found, finite):
    layout = layout_of(applicant=box(3), action_mask=box(4))
    obs = {"candidates": np.ones((4, 5)), "applicant": np.ones(3)}
    for allowed in ([True, False, False, True], [1, 0, 0, 1], [1.0, 0.0, 0.0, 1.0]):
        assert layout.read({**obs, "action_mask": allowed}).mask.tolist() == [[True, False, False, True]]
    with pytest.raises(ValueError, match=rf"`action_mask` must hold True and False \(or 1 and 0\), got {found}"):
        layout.read({**obs, "action_mask": mask}, finite=finite)


def test_arrays_that_run_backwards_are_read_as_others_are():
    layout = layout_of(applicant=box(3), pairs=box(4, 2))
    rng = np.random.default_rng(0)
    shapes = {"candidates": (2, 4, 5), "applicant": (2, 3), "pairs": (2, 4, 2)}
    obs = {key: rng.random(shape).astype(np.float32) for key, shape in shapes.items()}
    read = layout.read({key: values[::-1] for key, values in obs.items()})
    for part, key in ((read.state, "applicant"), (read.candidates, "candidates"), (read.pairs, "pairs")):
        np.testing.assert_array_equal(th.as_tensor(part).numpy(), obs[key][::-1])


def test_a_batch_of_none_is_read_as_one():
    layout = layout_of(applicant=box(3), pairs=box(4, 2))
    read = layout.read({"candidates": np.ones((0, 4, 5)), "applicant": np.ones((0, 3)), "pairs": np.ones((0, 4, 2))})
    assert [part.shape for part in read if part is not None] == [(0, 3), (0, 4, 5), (0, 4, 2)]


@pytest.mark.parametrize(
    ("key", "shape", "message"),
    [
        ("pairs", (4, 2), r"`pairs` must have shape \(1, 6, 2\) .* got \(4, 2\)"),
        ("pairs", (6, 3), r"`pairs` must have shape \(1, 6, 2\) .* got \(6, 3\)"),
        (
            "action_mask",
            (4,),
            r"`action_mask` must have shape \(1, 6\) .* got \(4,\).*one row for each of `candidates`",
        ),
    ],
)
def test_mask_and_pairs_must_be_of_the_candidates_that_are_shown(key, shape, message):
    layout = layout_of(applicant=box(3), pairs=box(4, 2), action_mask=box(4))
    obs = {"candidates": (6, 5), "applicant": (3,), "pairs": (6, 2), "action_mask": (6,), key: shape}
    with pytest.raises(ValueError, match=message):
        layout.read({name: np.ones(size) for name, size in obs.items()})
    with pytest.raises(ValueError, match=r"lacks \['pairs'\]"):
        layout.read({name: np.ones(obs[name]) for name in ("candidates", "applicant", "action_mask")})


def test_any_action_is_uniform_among_those_allowed():
    mask = np.tile([True, False, True], (3_000, 1))
    decisions = DecisionBatch(np.zeros((3_000, 1)), np.zeros((3_000, 3)), mask)
    shares = np.bincount(decisions.any_action(np.random.default_rng(0)), minlength=3) / 3_000
    np.testing.assert_allclose(shares, [0.5, 0, 0.5], atol=0.03)
    shares = np.bincount(decisions._replace(mask=None).any_action(np.random.default_rng(0)), minlength=3) / 3_000
    np.testing.assert_allclose(shares, 1 / 3, atol=0.03)
    with pytest.raises(ValueError, match="must allow at least one candidate, row 1 allows none"):
        decisions._replace(mask=mask & (np.arange(3_000) != 1)[:, None]).any_action(np.random.default_rng(0))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("key", ["user", "candidates", "pairs"])
@pytest.mark.parametrize("n", [None, 3])
def test_a_number_that_is_not_finite_is_refused_by_its_entry(key, value, n):
    space = spaces.Dict(
        user=spaces.Box(-1, 1, (3,)), candidates=spaces.Box(-1, 1, (4, 2)), pairs=spaces.Box(-1, 1, (4, 2))
    )
    layout = CandidateLayout(space, spaces.Discrete(4))
    obs = {name: np.zeros(((n,) if n else ()) + entry.shape, np.float32) for name, entry in space.items()}
    layout.read(obs)
    obs[key].reshape(-1)[-1] = value
    place = "row 2" if n else "it"
    with pytest.raises(ValueError, match=f"`{key}` of the observation must hold finite numbers, {place} does not"):
        layout.read(obs)
    assert layout.read(obs, finite=False).state.shape == (n or 1, 3)


def test_numbers_that_overflow_in_float32_are_refused():
    space = spaces.Dict(user=spaces.Box(-np.inf, np.inf, (3,), np.float64), candidates=spaces.Box(0, 9, (4,), np.int64))
    layout = CandidateLayout(space, spaces.Discrete(4))
    obs = {"user": np.array([1e30, 0, 0]), "candidates": np.arange(4)}
    assert layout.read(obs).state[0, 0] == np.float32(1e30)
    with np.errstate(over="ignore"), pytest.raises(ValueError, match="finite in float32"):
        layout.read({**obs, "user": np.array([1e300, 0, 0])})
