"""Observations, action tables, pair features and the network that reads them."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from dynaq_algo.features import (
    ActionTable,
    BlockwiseFeatures,
    CandidateLayout,
    ConcatFeatures,
    DistinctPairs,
    InteractionFeatures,
    PairNetwork,
    make_features,
)


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
        (spaces.Dict(candidates=box(3, 2), t=spaces.Text(4)), 3, r"Entry `t`.*Encode it as numbers"),
    ],
)
def test_spaces_of_another_kind_are_refused_with_the_way_out(space, actions, message):
    with pytest.raises(ValueError, match=message):
        CandidateLayout(space, spaces.Discrete(actions))


def test_observations_of_another_shape_or_kind_are_refused():
    layout = CandidateLayout(spaces.Dict(candidates=box(3, 2), s=box(1)), spaces.Discrete(3))
    with pytest.raises(ValueError, match=r"must have shape \(3, 2\).*got \(4, 2\)"):
        layout.read({"candidates": np.zeros((4, 2)), "s": np.zeros(1)})
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
        make_features("interactions", 2, 2)


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


def test_a_network_with_a_prior_begins_as_it_and_learns_it():
    features = BlockwiseFeatures(4, 4, n_blocks=2)
    network = PairNetwork(features, [8], prior=[0.5, -0.25])
    state, candidates = th.rand(3, 4), th.rand(3, 5, 4)
    wanted = features.similarities(state.unsqueeze(1), candidates) @ th.tensor([0.5, -0.25])

    th.testing.assert_close(network.score(state, candidates), wanted)
    th.testing.assert_close(network(features(state, candidates[:, 0])), wanted[:, 0])
    network(features(state, candidates[:, 0])).sum().backward()
    assert network.prior.grad.abs().sum() > 0


def test_a_prior_needs_similarities():
    with pytest.raises(ValueError, match="Features with similarities are 'blockwise'"):
        PairNetwork(ConcatFeatures(2, 2), [8], prior=[1.0])


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
    monkeypatch.setattr("dynaq_algo.features.PIECE", 12)
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
