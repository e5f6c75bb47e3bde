"""The network that values pairs."""

import numpy as np
import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils import parameters_to_vector

from dynaq_algo.features import BlockwiseFeatures, ConcatFeatures, DistinctPairs, InteractionFeatures, prior_weights
from dynaq_algo.networks import PairNetwork, squared_error_step


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


@pytest.mark.parametrize(
    "features", [ConcatFeatures(3, 2, 2), InteractionFeatures(3, 2, 2), BlockwiseFeatures(3, 2, 2, n_blocks=1)]
)
def test_a_network_reads_pairs_the_same_by_row_by_decision_and_by_distinct_vectors(features):
    th.manual_seed(0)
    rng = np.random.default_rng(0)
    features.see(rng.random((1, 3), np.float32), rng.random((1, 30, 2), np.float32), rng.random((1, 30, 2), np.float32))
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


@pytest.mark.parametrize("weighted", [False, True])
def test_a_step_is_the_optimisers_on_the_mean_squared_error(weighted):
    th.manual_seed(0)
    network, inputs, target = PairNetwork(ConcatFeatures(3, 2), [8]), th.randn(6, 5), th.randn(6)
    weight = th.rand(6) if weighted else None
    errors = (network(inputs) - target).square()
    wanted = errors.mean() if weight is None else (weight * errors).mean()
    gradients = th.autograd.grad(wanted, list(network.parameters()))
    before = [parameter.detach().clone() for parameter in network.parameters()]
    optimizer = th.optim.SGD(network.parameters(), lr=0.1)
    for parameter in network.parameters():
        parameter.grad = th.ones_like(parameter)  # of a former step
    values = network(inputs).detach()
    loss, found = squared_error_step(network, optimizer, inputs, target, weight)
    th.testing.assert_close(loss, wanted.detach())
    assert th.equal(found, values) and not loss.requires_grad
    for parameter, beginning, gradient in zip(network.parameters(), before, gradients, strict=True):
        th.testing.assert_close(parameter.detach(), beginning - 0.1 * gradient)


def test_a_longer_gradient_is_clipped():
    th.manual_seed(0)
    network = PairNetwork(ConcatFeatures(3, 2), [8])
    before = parameters_to_vector(network.parameters()).detach()
    optimizer = th.optim.SGD(network.parameters(), lr=1.0)
    squared_error_step(network, optimizer, th.randn(6, 5), 1e3 * th.ones(6), max_grad_norm=0.5)
    assert (parameters_to_vector(network.parameters()) - before).norm().item() == pytest.approx(0.5, rel=1e-4)
