"""Observations, action tables, pair features and the network that reads them."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from dynaq_algo.action_table import ActionTable
from dynaq_algo.features import (
    BlockwiseFeatures,
    ConcatFeatures,
    DistinctPairs,
    InteractionFeatures,
    SeenActions,
    SeenPairs,
    make_features,
    prior_weights,
)
from dynaq_algo.layout import CandidateLayout
from dynaq_algo.networks import PairNetwork


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


def test_interaction_multiplies_the_leading_entries_that_both_have():
    state, action = th.tensor([[1.0, 2.0]]), th.tensor([[3.0, 4.0, 5.0]])
    features = InteractionFeatures(2, 3)
    assert features(state, action).tolist() == [[1, 2, 3, 4, 5, 3, 8]]
    assert features.output_dim == 7
    assert ConcatFeatures(2, 3)(state, action).tolist() == [[1, 2, 3, 4, 5]]


def test_a_misspelt_feature_name_is_suggested():
    with pytest.raises(ValueError, match="did you mean 'interaction'"):
        make_features("interactions", CandidateLayout(spaces.Dict(candidates=box(3, 2), s=box(1)), spaces.Discrete(3)))


@pytest.mark.parametrize("features", [ConcatFeatures, InteractionFeatures])
@settings(max_examples=20, deadline=None)
@given(state_dim=st.integers(0, 5), action_dim=st.integers(1, 5), n=st.integers(1, 3), k=st.integers(1, 4))
def test_split_first_layer_equals_a_linear_layer_on_the_whole_input(features, state_dim, action_dim, n, k):
    generator = th.Generator().manual_seed(0)
    state, candidates = th.randn(n, state_dim, generator=generator), th.randn(n, k, action_dim, generator=generator)
    features = features(state_dim, action_dim)
    network = PairNetwork(features, [6, 5])
    assert network.first.weight.shape == (6, features.output_dim)

    scores = network.score(state, candidates)

    for j in range(k):
        inputs = features(state, candidates[:, j])
        th.testing.assert_close(scores[:, j], network.rest(network.first(inputs)).squeeze(-1))
        th.testing.assert_close(scores[:, j], network(inputs))


def test_training_and_evaluation_mode_give_the_same_numbers():
    network = PairNetwork(ConcatFeatures(3, 2), [16, 16])
    inputs = th.randn(9, 5)
    assert th.equal(network.train()(inputs), network.eval()(inputs))
    assert th.equal(network.train()(inputs), network.train()(inputs))


def test_table_keeps_to_the_disk_and_gives_float32(tmp_path):
    values = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float16)
    np.save(tmp_path / "table.npy", values)
    table = ActionTable(tmp_path / "table.npy")
    assert isinstance(table.values, np.memmap)
    assert table.path == str(tmp_path / "table.npy")
    assert ActionTable(np.asarray(table.values)).path == table.path
    assert table.sha256 == ActionTable(values).sha256 != ActionTable(values.astype(np.float32)).sha256
    rows = table.rows(np.array([[5, 0], [1, 1]]))
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, values[[[5, 0], [1, 1]]].astype(np.float32))


def test_a_table_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"\(n_actions, d_a\).*got float64 \(3,\)"):
        ActionTable(np.zeros(3))


# ---------------------------------------------------------------------- blockwise, and a network with a prior


def test_similarities_are_centred_cosines_of_each_block_over_their_deviation():
    table = np.random.default_rng(0).normal(1.0, 1.0, size=(300, 4)).astype(np.float32)
    features = BlockwiseFeatures(4, 4, n_blocks=2)
    features.fit(table)
    state, action = th.as_tensor(table[:200]), th.as_tensor(table[100:])
    got = features.similarities(state, action)

    centred = [np.asarray(part) - table.mean(axis=0) for part in (state, action)]
    for block in range(2):
        s, a = (part[:, 2 * block : 2 * block + 2] for part in centred)
        cosine = (s * a).sum(axis=1) / np.linalg.norm(s, axis=1) / np.linalg.norm(a, axis=1)
        assert np.corrcoef(got[:, block], cosine)[0, 1] == pytest.approx(1.0, abs=1e-5)
        assert got[:, block].std() == pytest.approx(1.0, abs=0.15)
    np.testing.assert_array_equal(features(state, action)[:, -2:], got)


def test_blocks_must_divide_what_state_and_action_share():
    with pytest.raises(ValueError, match="`n_blocks` must be 1 or more and divide the 4"):
        BlockwiseFeatures(4, 6, n_blocks=3)
    with pytest.raises(ValueError, match='the state has no entries.*features="concat"'):
        BlockwiseFeatures(0, 6, n_blocks=2)


def test_a_network_with_a_prior_begins_as_it_and_learns_it():
    features = BlockwiseFeatures(4, 4, n_blocks=2)
    network = PairNetwork(features, [8], prior=[0.5, -0.25])
    state, candidates = th.rand(3, 4), th.rand(3, 5, 4)
    wanted = features.similarities(state.unsqueeze(1), candidates) @ th.tensor([0.5, -0.25])

    th.testing.assert_close(network.score(state, candidates), wanted)
    th.testing.assert_close(network(features(state, candidates[:, 0])), wanted[:, 0])
    network(features(state, candidates[:, 0])).sum().backward()
    assert network.prior.grad.abs().sum() > 0


def test_a_prior_needs_similarities_and_finite_weights():
    with pytest.raises(ValueError, match="Features with similarities are 'blockwise'"):
        PairNetwork(ConcatFeatures(2, 2), [8], prior=[1.0])
    with pytest.raises(ValueError, match="`prior` must hold finite weights"):
        prior_weights([0.1, np.nan], BlockwiseFeatures(4, 4, n_blocks=2))


def test_a_prior_weighs_pairs_too_or_leaves_them_out():
    features = BlockwiseFeatures(4, 4, n_pairs=3, n_blocks=2)
    assert prior_weights([0.5, 0.25], features).tolist() == [0.5, 0.25, 0, 0, 0]
    assert prior_weights([0.5, 0.25, 1, 2, 3], features).tolist() == [0.5, 0.25, 1, 2, 3]
    with pytest.raises(ValueError, match="each of the 2 similarities.*optionally one for each of the 3 numbers"):
        prior_weights([0.5, 0.25, 1], features)


@pytest.mark.parametrize("features", [ConcatFeatures(3, 2), InteractionFeatures(3, 2)])
def test_pairs_between_few_vectors_score_as_their_rows_do(features):
    th.manual_seed(0)
    network = PairNetwork(features, [8, 8])
    states, actions = th.randn(3, 3), th.randn(4, 2)
    state_row, action_row = th.randint(3, (20,)), th.randint(4, (20,))
    rows = network(features(states[state_row], actions[action_row]))
    th.testing.assert_close(network.of_pairs(DistinctPairs(states, state_row, actions, action_row)), rows)
    # Five decisions between four actions each.
    sets = DistinctPairs(states, state_row[:5, None], actions, action_row.reshape(5, 4))
    expected = network.score(states[state_row[:5]], actions[action_row.reshape(5, 4)])
    th.testing.assert_close(network.of_pairs(sets), expected)


@pytest.mark.parametrize("features", [ConcatFeatures(3, 2), InteractionFeatures(3, 2)])
def test_pairs_are_scored_in_pieces_and_none_at_all(monkeypatch, features):
    th.manual_seed(0)
    network = PairNetwork(features, [8, 8])
    pairs = DistinctPairs(th.randn(3, 3), th.randint(3, (20, 1)), th.randn(4, 2), th.randint(4, (20, 5)))
    expected = network.of_pairs(pairs)
    monkeypatch.setattr("dynaq_algo.networks.PIECE", 12)
    seen = []
    rest = network.rest.forward
    monkeypatch.setattr(network.rest, "forward", lambda hidden: (seen.append(len(hidden)), rest(hidden))[1])
    with th.no_grad():
        th.testing.assert_close(network.of_pairs(pairs), expected)
        assert seen == [2] * 10
        assert network.of_pairs(pairs.take(slice(0, 0))).shape == (0, 5)


def test_a_separable_first_layer_sees_each_vector_once(monkeypatch):
    network = PairNetwork(ConcatFeatures(3, 2), [8])
    seen = []
    linear = th.nn.functional.linear
    monkeypatch.setattr("torch.nn.functional.linear", lambda x, *args: (seen.append(len(x)), linear(x, *args))[1])
    network.of_pairs(DistinctPairs(th.randn(3, 3), th.zeros(50).long(), th.randn(4, 2), th.ones(50).long()))
    assert seen[:2] == [3, 4]


def test_a_subclass_that_makes_pairs_of_its_own_is_not_separable():
    class Products(ConcatFeatures):
        def pair(self, state, action):
            return state[..., :2] * action

    th.manual_seed(0)
    features = Products(3, 2)
    assert ConcatFeatures(3, 2).separable and not features.separable
    states, actions, rows = th.randn(3, 3), th.randn(3, 2), th.arange(3)
    network = PairNetwork(features, [8])
    of_pairs = network.of_pairs(DistinctPairs(states, rows, actions, rows))
    th.testing.assert_close(of_pairs, network(features(states, actions)))


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


@pytest.mark.parametrize("name", ["interaction", "blockwise"])
def test_similarities_and_products_compare_the_applicant_and_nothing_of_the_context(name):
    layout = CandidateLayout(
        spaces.Dict([("age", box(2)), ("applicant", box(4)), ("candidates", box(4, 6)), ("time", box(1))]),
        spaces.Discrete(4),
    )
    kwargs = {"n_blocks": 2} if name == "blockwise" else {}
    features, plain = make_features(name, layout, **kwargs), make_features(name, layout_of_applicant(), **kwargs)
    applicant, action = th.rand(7, 4), th.rand(7, 6)
    wanted = plain.of_action(applicant, action, None)

    for context in (th.zeros(7, 3), th.rand(7, 3)):
        state = th.cat([context[:, :2], applicant, context[:, 2:]], dim=1)
        th.testing.assert_close(features.of_action(state, action, None), wanted, rtol=0, atol=0)
        th.testing.assert_close(features(state, action)[:, :7], state, rtol=0, atol=0)


def layout_of_applicant():
    return CandidateLayout(spaces.Dict(applicant=box(4), candidates=box(4, 6)), spaces.Discrete(4))


def test_fields_of_a_longer_candidate_go_into_the_input_and_not_into_the_similarity():
    features = make_features("blockwise", layout_of_applicant(), n_blocks=2)
    state, action = th.rand(5, 4), th.rand(5, 6)
    other = action.clone()
    other[:, 4:] += 1.0

    th.testing.assert_close(features.similarities(state, action), features.similarities(state, other), rtol=0, atol=0)
    assert features(state, action).shape == (5, 4 + 6 + 4 + 2)
    assert not th.equal(features(state, action), features(state, other))


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


# ---------------------------------------------------------------------- what features learn of their scale


def blockwise_with_pairs():
    return BlockwiseFeatures(4, 4, n_pairs=2, n_blocks=2)


def test_pairs_are_standardised_by_what_was_seen_at_each_doubling():
    rng = np.random.default_rng(0)
    features, seen, versions = blockwise_with_pairs(), [], []
    for _ in range(9):
        seen.append(rng.normal([3.0, -1.0], [0.5, 20.0], size=(2, 5, 2)).astype(np.float32))
        features.see(None, seen[-1])
        versions.append(features.version)
        # 10 pairs a time: taken anew at 10, 20, 40 and 80.
        rows = np.concatenate(seen[: max(n for n in (1, 2, 4, 8) if n <= len(seen))]).reshape(-1, 2)
        wanted = 2 * np.tanh((seen[0] - rows.mean(axis=0)) / rows.std(axis=0) / 2)
        np.testing.assert_allclose(features.scaled(th.as_tensor(seen[0])), wanted, atol=1e-5)
    assert versions == [1, 2, 2, 3, 3, 3, 3, 4, 4]

    state, action, pairs = th.rand(5, 4), th.rand(5, 4), th.as_tensor(seen[0][0])
    inputs = features(state, action, pairs)
    assert inputs.shape == (5, features.output_dim) == (5, 4 + 4 + 4 + 2 + 2)
    th.testing.assert_close(inputs[:, -2:], features.scaled(pairs))


def test_before_any_was_seen_pairs_of_a_decision_are_standardised_among_themselves():
    features = blockwise_with_pairs()
    pairs = th.rand(3, 50, 2) * th.tensor([1.0, 1e3]) + 5
    scaled = features.scaled(pairs)
    wanted = (pairs - pairs.mean(dim=1, keepdim=True)) / pairs.std(dim=1, keepdim=True, correction=0)
    th.testing.assert_close(scaled, 2 * th.tanh(wanted / 2))
    th.testing.assert_close(features.scaled(pairs[1:2]), scaled[1:2])  # whatever is asked beside it
    th.testing.assert_close(features.scaled(th.ones(1, 1, 2)), th.zeros(1, 1, 2))
    assert features.version == 0

    features.see(None, pairs.numpy() - 5)
    assert features.scaled(pairs)[..., 0].min() > 1


def test_a_sample_of_pairs_settles_their_scale():
    rng = np.random.default_rng(0)
    sample, seen = rng.normal([3.0, -1.0], [0.5, 20.0], size=(30, 2)).astype(np.float32), rng.random((2, 5, 2))
    features = blockwise_with_pairs()
    features.fit(rng.random((9, 4)).astype(np.float32))
    assert not features.settled
    features.fit_pairs(sample)
    assert features.settled
    features.see(None, seen.astype(np.float32))
    wanted = 2 * np.tanh((sample - sample.mean(axis=0)) / sample.std(axis=0) / 2)
    np.testing.assert_allclose(features.scaled(th.as_tensor(sample)), wanted, atol=1e-5)
    other = blockwise_with_pairs()
    other.set_state(features.get_state())
    assert th.equal(other.scaled(th.as_tensor(sample)), features.scaled(th.as_tensor(sample)))


def test_a_pair_far_out_is_drawn_in_and_keeps_its_order():
    features = blockwise_with_pairs()
    rare = np.zeros((1, 200, 2), np.float32)
    rare[0, 0] = 1.0  # fourteen deviations from the mean
    features.see(None, rare)
    scaled = features.scaled(th.tensor([[0.0, 0.0], [0.5, 0.5], [1.0, 1.0]]))[:, 0]
    assert -0.2 < scaled[0] < 0 < 1.9 < scaled[1] < scaled[2] <= 2


def test_a_number_that_does_not_vary_is_centred_and_not_blown_up():
    features = blockwise_with_pairs()
    features.see(None, np.full((1, 30, 2), 0.1, np.float32))
    scaled = features.scaled(th.tensor([0.1, 1.1]))
    th.testing.assert_close(scaled, th.tensor([0.0, 2 * np.tanh(0.5)], dtype=th.float32))


def test_actions_that_are_all_one_have_finite_similarities():
    features = BlockwiseFeatures(4, 4, n_blocks=2)
    one = np.random.default_rng(0).random(4).astype(np.float32)
    features.see(np.tile(one, (1, 20, 1)), None)
    th.testing.assert_close(features.similarities(th.rand(3, 4), th.as_tensor(one).expand(3, 4)), th.zeros(3, 2))
    assert features.similarities(th.rand(3, 4), th.zeros(3, 4)).abs().max() <= 1


def test_without_a_table_similarities_are_centred_on_the_distinct_candidates_seen():
    rng = np.random.default_rng(0)
    table = rng.normal(1.0, 1.0, size=(40, 4)).astype(np.float32)
    shown, fitted = BlockwiseFeatures(4, 4, n_blocks=2), BlockwiseFeatures(4, 4, n_blocks=2)
    for _ in range(3):  # the same again says nothing new
        shown.see(table[:20].reshape(4, 5, 4), None)
    assert shown.version == 1
    shown.see(table[20:].reshape(4, 5, 4), None)
    assert shown.version == 2
    fitted.fit(table)

    state, action = th.rand(9, 4), th.rand(9, 4)
    th.testing.assert_close(shown(state, action), fitted(state, action), rtol=0, atol=0)


def test_features_settle_after_what_was_kept_or_looked_at(monkeypatch):
    rng = np.random.default_rng(0)
    for known, together in ((lambda: rng.random((1, 5, 4), np.float32), 20), (lambda: np.ones((1, 5, 4), "f4"), 30)):
        monkeypatch.setattr(SeenActions, "CAPACITY", 100)
        monkeypatch.setattr(SeenActions, "LOOKED_AT", 150)
        monkeypatch.setattr(SeenPairs, "CAPACITY", 50)
        features = blockwise_with_pairs()
        for step in range(1, 40):
            features.see(known(), rng.random((1, 5, 2), np.float32))
            assert features.settled == (step >= together)
        state, action, pairs = th.rand(3, 4), th.rand(3, 4), th.rand(3, 2)
        before, version = features(state, action, pairs), features.version
        features.see(known() + 5, 9 + rng.random((1, 5, 2), np.float32))
        assert features.version == version and th.equal(before, features(state, action, pairs))


def test_with_a_table_candidates_move_nothing():
    features = blockwise_with_pairs()
    features.fit(np.random.default_rng(0).random((30, 4)))
    before = features.similarities(th.ones(1, 4), th.rand(1, 4)), features.version
    assert not features.settled  # pairs are to come
    action = th.rand(1, 4)
    before = features.similarities(th.ones(1, 4), action), features.version
    features.see(np.ones((1, 5, 4), np.float32), None)
    assert (th.equal(before[0], features.similarities(th.ones(1, 4), action)), features.version) == (True, before[1])


def test_the_scale_never_moves_by_prediction():
    features = blockwise_with_pairs()
    network = PairNetwork(features, [8])
    state, candidates, pairs = th.rand(3, 4), th.rand(3, 5, 4), th.rand(3, 5, 2)
    first = network.score(state, candidates, pairs)
    for _ in range(3):
        th.testing.assert_close(network.score(state, candidates, pairs), first, rtol=0, atol=0)
    assert features.version == 0


def test_what_features_have_seen_is_restored_to_the_bit_and_goes_on_alike():
    rng = np.random.default_rng(0)

    def shown(n):
        return rng.random((n, 5, 4), np.float32), rng.random((n, 5, 2), np.float32)

    first, second = blockwise_with_pairs(), blockwise_with_pairs()
    for _ in range(3):
        first.see(*shown(2))
    state = first.get_state()
    kept = {name: value.clone() for name, value in state.items()}
    second.set_state(state)
    later = [shown(2) for _ in range(9)]
    asked = th.rand(7, 4), th.rand(7, 4), th.rand(7, 2)
    for batch in later:
        assert th.equal(first(*asked), second(*asked)) and first.version == second.version
        first.see(*batch)
        second.see(*batch)
    assert first.version > int(kept["version"]) + 2
    assert all(th.equal(state[name], value) for name, value in kept.items()), "the state moved with the features"


@pytest.mark.parametrize(
    "features", [ConcatFeatures(3, 2, 2), InteractionFeatures(3, 2, 2), BlockwiseFeatures(3, 2, 2, n_blocks=1)]
)
def test_a_network_reads_pairs_the_same_by_row_by_decision_and_by_distinct_vectors(features):
    th.manual_seed(0)
    features.see(None, np.random.default_rng(0).random((1, 30, 2), np.float32))
    network = PairNetwork(features, [8, 8])
    states, actions, numbers = th.randn(3, 3), th.randn(4, 2), th.rand(20, 2)
    state_row, action_row = th.randint(3, (20,)), th.randint(4, (20,))
    rows = network(features(states[state_row], actions[action_row], numbers))
    th.testing.assert_close(network.of_pairs(DistinctPairs(states, state_row, actions, action_row, numbers)), rows)

    decisions = DistinctPairs(states, state_row[:5, None], actions, action_row.view(5, 4), numbers.view(5, 4, 2))
    scores = network.score(states[state_row[:5]], actions[action_row.view(5, 4)], numbers.view(5, 4, 2))
    th.testing.assert_close(network.of_pairs(decisions), scores)
    th.testing.assert_close(network.of_pairs(decisions.take(slice(1, 3))), scores[1:3])
    each = [
        network(features(states[state_row[:5]], actions[action_row.view(5, 4)[:, j]], numbers.view(5, 4, 2)[:, j]))
        for j in range(4)
    ]
    th.testing.assert_close(scores, th.stack(each, dim=1))
    moved = network.of_pairs(DistinctPairs(states, state_row, actions, action_row, numbers + 1))
    assert (moved != rows).any(), "the numbers are not read"
