"""Features of pairs, and the scale of their inputs."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from torch.nn import functional as F

from dynaq_algo.action_table import ActionTable
from dynaq_algo.features import (
    BlockwiseFeatures,
    ConcatFeatures,
    DistinctPairs,
    InteractionFeatures,
    PairResiduals,
    SeenActions,
    SeenPairs,
    candidates_of_ids,
    make_features,
)
from dynaq_algo.layout import CandidateLayout
from dynaq_algo.networks import PairNetwork


def box(*shape, dtype=np.float32):
    return spaces.Box(0, 9, shape, dtype)


def test_interaction_multiplies_the_leading_entries_that_both_have():
    state, action = th.tensor([[1.0, 2.0]]), th.tensor([[3.0, 4.0, 5.0]])
    features = InteractionFeatures(2, 3)
    assert features(state, action).tolist() == [[1, 2, 3, 4, 5, 3, 8]]
    assert features.output_dim == 7
    assert ConcatFeatures(2, 3)(state, action).tolist() == [[1, 2, 3, 4, 5]]


def test_a_misspelt_feature_name_is_suggested():
    layout = CandidateLayout(spaces.Dict(candidates=box(3, 2), s=box(1)), spaces.Discrete(3))
    for misspelt in ("interactions", "INTERACTION"):
        with pytest.raises(ValueError, match="did you mean 'interaction'"):
            make_features(misspelt, layout)


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


def test_the_whole_is_a_similarity_behind_those_of_the_blocks():
    table = np.random.default_rng(0).normal(1.0, 1.0, size=(300, 4)).astype(np.float32)
    both, blocks, whole = (BlockwiseFeatures(4, 4, **cut) for cut in ({"whole": True}, {}, {"n_blocks": 1}))
    for features in (both, blocks, whole):
        features.fit(table)
    state, action = th.as_tensor(table[:20]), th.as_tensor(table[100:120])
    expected = th.cat([blocks.similarities(state, action), whole.similarities(state, action)], dim=-1)
    th.testing.assert_close(both.similarities(state, action), expected, rtol=0, atol=0)
    np.testing.assert_array_equal(both(state, action)[:, -3:], expected)
    th.testing.assert_close(both.of_all(state, action)[range(20), range(20)], expected)
    assert (both.n_cosines, both.n_similarities, both.output_dim) == (3, 3, 4 + 4 + 4 + 3)


def test_the_whole_beside_the_only_block_would_be_the_same_twice():
    with pytest.raises(ValueError, match="`whole` must be False where `n_blocks` is 1"):
        BlockwiseFeatures(4, 4, n_blocks=1, whole=True)
    with pytest.raises(ValueError, match="`whole` must be True or False"):
        BlockwiseFeatures(4, 4, whole=2)


def test_blocks_must_divide_what_state_and_action_share():
    for n_blocks in (3, 2.0, 0, True):
        with pytest.raises(ValueError, match="`n_blocks` must be 1 or more and divide the 4"):
            BlockwiseFeatures(4, 6, n_blocks=n_blocks)
    with pytest.raises(ValueError, match='the state has no entries.*features="concat"'):
        BlockwiseFeatures(0, 6, n_blocks=2)


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


# ---------------------------------------------------------------------- what features learn of their scale


def blockwise_with_pairs():
    return BlockwiseFeatures(4, 4, n_pairs=2, n_blocks=2)


def see(features, pairs, rng=None):
    """Shows numbers (n, k, 2) of pairs, beside states and candidates of their own."""
    rng = np.random.default_rng(0) if rng is None else rng
    n, k, _ = pairs.shape
    features.see(rng.random((n, 4), np.float32), rng.random((n, k, 4), np.float32), np.asarray(pairs, np.float32))


def see_actions(features, candidates):
    features.see(np.ones((len(candidates), 4), np.float32), candidates, None)


def test_pairs_are_standardised_by_what_was_seen_at_each_doubling():
    rng = np.random.default_rng(0)
    features, seen, versions = blockwise_with_pairs(), [], []
    for _ in range(9):
        seen.append(rng.normal([3.0, -1.0], [0.5, 20.0], size=(2, 5, 2)).astype(np.float32))
        see(features, seen[-1], rng)
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

    see(features, pairs.numpy() - 5)
    assert features.scaled(pairs)[..., 0].min() > 1


@pytest.mark.parametrize("has_table", [True, False])
def test_a_sample_of_decisions_settles_the_scale(has_table):
    rng = np.random.default_rng(0)
    state, actions = rng.random((6, 4), np.float32), rng.random((6, 5, 4), np.float32)
    sample = rng.normal([3.0, -1.0], [0.5, 20.0], size=(6, 5, 2)).astype(np.float32)
    features, twin = blockwise_with_pairs(), blockwise_with_pairs()
    table = rng.random((9, 4))
    twin.fit(table if has_table else actions.reshape(-1, 4))
    if has_table:
        features.fit(table)
    assert not features.settled
    features.fit_sample(state, actions, sample)
    assert features.settled
    state_before = {name: value.clone() for name, value in features.get_state().items()}
    see(features, rng.random((2, 5, 2)))
    assert all(th.equal(value, state_before[name]) for name, value in features.get_state().items())

    flat = sample.reshape(-1, 2)
    wanted = 2 * np.tanh((flat - flat.mean(axis=0)) / flat.std(axis=0) / 2)
    np.testing.assert_allclose(features.scaled(th.as_tensor(flat)), wanted, atol=1e-5)
    asked = th.rand(7, 4), th.rand(7, 4)
    th.testing.assert_close(features.similarities(*asked), twin.similarities(*asked))
    other = blockwise_with_pairs()
    other.set_state(features.get_state())
    assert th.equal(other.scaled(th.as_tensor(sample)), features.scaled(th.as_tensor(sample)))
    assert other.settled or has_table  # the table itself is not saved with the features


def correlated(n, k, rng):
    """Decisions whose first number goes with the similarity of the first block, and whose second one is noise."""
    state, actions = rng.normal(size=(n, 4)).astype("f4"), rng.normal(size=(n, k, 4)).astype("f4")
    likeness = F.cosine_similarity(th.as_tensor(state[:, None, :2]), th.as_tensor(actions[..., :2]), dim=-1).numpy()
    return state, actions, np.stack([likeness + rng.normal(0, 0.3, (n, k)), rng.random((n, k))], axis=-1, dtype="f4")


def regressing(**kwargs):
    features = BlockwiseFeatures(4, 4, **{"n_pairs": 2, "n_blocks": 2, **kwargs})
    features.uses_residuals = True
    return features


def by_hand(similarities, numbers):
    """Residuals by ridge regression, written out once more."""
    n = len(numbers)
    x, y = similarities - similarities.mean(axis=0), numbers - numbers.mean(axis=0)
    ridge = PairResiduals.RIDGE * (1 - n / PairResiduals.CAPACITY)
    left = y - x @ np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ y)
    return left / left.std(axis=0)


def told(features, state, actions, numbers):
    """Similarities and scaled numbers (n k, .) of decisions, float64."""
    state, actions, numbers = (th.as_tensor(part) for part in (state, actions, numbers))
    similarities = features.similarities(state[:, None], actions).flatten(0, 1)
    return similarities, features.scaled(numbers).flatten(0, 1)


def test_residuals_are_what_a_regression_on_similarities_leaves_of_the_numbers():
    rng = np.random.default_rng(0)
    features, shown = regressing(), correlated(400, 8, rng)
    features.fit(rng.normal(size=(50, 4)))
    features.fit_sample(*shown)
    similarities, scaled = told(features, *shown)
    left = features.residuals(similarities, scaled).numpy()
    np.testing.assert_allclose(left, by_hand(similarities.numpy(), scaled.numpy()), atol=1e-4)
    assert np.corrcoef(similarities[:, 0], scaled[:, 0])[0, 1] > 0.7
    assert abs(np.corrcoef(similarities[:, 0], left[:, 0])[0, 1]) < 0.01


@pytest.mark.parametrize("has_table", [True, False])
def test_seen_one_decision_at_a_time_residuals_are_those_of_the_present_scale(has_table):
    rng = np.random.default_rng(0)
    features, shown = regressing(), correlated(1_300, 8, rng)
    if has_table:
        features.fit(rng.normal(size=(50, 4)))
    for row in range(1_300):
        features.see(*(part[row : row + 1] for part in shown))
    similarities, scaled = told(features, *shown)
    left = features.residuals(similarities, scaled).numpy()
    assert np.corrcoef(similarities[:, 0], scaled[:, 0])[0, 1] > 0.7
    np.testing.assert_allclose(np.corrcoef(similarities.T, left.T)[:2, 2:], 0, atol=0.04)
    np.testing.assert_allclose(left.std(axis=0), 1, atol=0.05)


@pytest.mark.parametrize("n_candidates", [1, 2, 3, 9])
def test_after_a_few_pairs_residuals_are_as_large_as_numbers_are(n_candidates):
    rng = np.random.default_rng(n_candidates)
    asked = correlated(200, 20, rng)
    for n_decisions in (1, 2, 3, 10):
        features = regressing()
        features.fit(rng.normal(size=(50, 4)))
        for _ in range(n_decisions):
            features.see(*correlated(1, n_candidates, rng))
        similarities, scaled = told(features, *asked)
        assert features.residuals(similarities, scaled).abs().max() < 5 * 2 * max(1, scaled.abs().max())


def test_a_class_that_sees_is_not_settled_and_a_class_that_does_not_is():
    class Counting(ConcatFeatures):
        n_seen = 0

        def see(self, state, candidates, pairs):
            self.n_seen += len(state)

    assert ConcatFeatures(3, 2).settled and not Counting(3, 2).settled


@pytest.mark.parametrize("is_settled", [True, False])
def test_what_an_earlier_version_saved_stays_as_settled_as_it_was(monkeypatch, is_settled):
    monkeypatch.setattr(SeenPairs, "CAPACITY", 50)
    rng, saved, loaded = np.random.default_rng(0), blockwise_with_pairs(), regressing()
    for features in (saved, loaded):
        features.fit(np.random.default_rng(1).random((9, 4)))
    for _ in range(10 if is_settled else 2):
        see(saved, rng.random((1, 5, 2)), rng)
    loaded.set_state({name: part for name, part in saved.get_state().items() if not name.startswith("residuals")})
    assert loaded.settled == is_settled
    numbers = th.rand(7, 2)
    assert th.equal(loaded.residuals(th.rand(7, 2), numbers), numbers)
    version = loaded.version
    see(loaded, rng.random((1, 5, 2)), rng)
    assert (loaded.version > version) != is_settled


def test_before_any_pair_was_seen_residuals_are_the_numbers():
    similarities, scaled = th.rand(5, 2), th.rand(5, 2)
    assert th.equal(blockwise_with_pairs().residuals(similarities, scaled), scaled)


def test_residuals_are_finite_where_similarities_or_numbers_do_not_vary():
    rng = np.random.default_rng(0)
    features = regressing(n_pairs=3)
    state, actions = rng.normal(size=(60, 4)).astype("f4"), rng.normal(size=(60, 5, 4)).astype("f4")
    state[:, 2:] = 0.0  # the second block is always empty
    features.fit(actions.reshape(-1, 4) - actions.reshape(-1, 4).mean(axis=0))
    likeness = features.similarities(th.as_tensor(state)[:, None], th.as_tensor(actions))[..., 0].numpy()
    numbers = np.stack([likeness, np.full_like(likeness, 0.4), rng.random(likeness.shape)], axis=-1, dtype="f4")
    features.fit_sample(state, actions, numbers)
    similarities = features.similarities(th.as_tensor(state)[:, None], th.as_tensor(actions))
    left = features.residuals(similarities, features.scaled(th.as_tensor(numbers)))
    assert left.isfinite().all() and left[..., 1].abs().max() < 1e-4
    assert left[..., 2].std() == pytest.approx(1, abs=0.01)
    assert left[..., 0].abs().max() < 2  # what little is left is not blown up


def test_a_pair_far_out_is_drawn_in_and_keeps_its_order():
    features = blockwise_with_pairs()
    rare = np.zeros((1, 200, 2), np.float32)
    rare[0, 0] = 1.0  # fourteen deviations from the mean
    see(features, rare)
    scaled = features.scaled(th.tensor([[0.0, 0.0], [0.5, 0.5], [1.0, 1.0]]))[:, 0]
    assert -0.2 < scaled[0] < 0 < 1.9 < scaled[1] < scaled[2] <= 2


def test_a_number_that_does_not_vary_is_centred_and_not_blown_up():
    features = blockwise_with_pairs()
    see(features, np.full((1, 30, 2), 0.1, np.float32))
    scaled = features.scaled(th.tensor([0.1, 1.1]))
    th.testing.assert_close(scaled, th.tensor([0.0, 2 * np.tanh(0.5)], dtype=th.float32))


def test_actions_that_are_all_one_have_finite_similarities():
    features = BlockwiseFeatures(4, 4, n_blocks=2)
    one = np.random.default_rng(0).random(4).astype(np.float32)
    see_actions(features, np.tile(one, (1, 20, 1)))
    th.testing.assert_close(features.similarities(th.rand(3, 4), th.as_tensor(one).expand(3, 4)), th.zeros(3, 2))
    assert features.similarities(th.rand(3, 4), th.zeros(3, 4)).abs().max() <= 1


def test_without_a_table_similarities_are_centred_on_the_distinct_candidates_seen():
    rng = np.random.default_rng(0)
    table = rng.normal(1.0, 1.0, size=(40, 4)).astype(np.float32)
    shown, fitted = BlockwiseFeatures(4, 4, n_blocks=2), BlockwiseFeatures(4, 4, n_blocks=2)
    for _ in range(3):  # the same again says nothing new
        see_actions(shown, table[:20].reshape(4, 5, 4))
    assert shown.version == 1
    see_actions(shown, table[20:].reshape(4, 5, 4))
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
        monkeypatch.setattr(PairResiduals, "CAPACITY", 50)
        features = regressing()
        for step in range(1, 40):
            features.see(np.ones((1, 4), np.float32), known(), rng.random((1, 5, 2), np.float32))
            assert features.settled == (step >= together)
        state, action, pairs = th.rand(3, 4), th.rand(3, 4), th.rand(3, 2)
        before, version = features(state, action, pairs), features.version
        features.see(np.ones((1, 4), np.float32), known() + 5, 9 + rng.random((1, 5, 2), np.float32))
        assert features.version == version and th.equal(before, features(state, action, pairs))


def test_with_a_table_candidates_move_nothing():
    features = blockwise_with_pairs()
    features.fit(np.random.default_rng(0).random((30, 4)))
    before = features.similarities(th.ones(1, 4), th.rand(1, 4)), features.version
    assert not features.settled  # pairs are to come
    action = th.rand(1, 4)
    before = features.similarities(th.ones(1, 4), action), features.version
    see_actions(features, np.ones((1, 5, 4), np.float32))
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
        return rng.random((n, 4), np.float32), rng.random((n, 5, 4), np.float32), rng.random((n, 5, 2), np.float32)

    first, second = regressing(), regressing()
    for _ in range(3):
        first.see(*shown(2))
    state = first.get_state()
    kept = {name: value.clone() for name, value in state.items()}
    second.set_state(state)
    later = [shown(2) for _ in range(30)]
    asked = th.rand(7, 4), th.rand(7, 4), th.rand(7, 2)
    for batch in later:
        assert th.equal(first(*asked), second(*asked)) and first.version == second.version
        assert th.equal(first.residuals(asked[2], asked[2]), second.residuals(asked[2], asked[2]))
        first.see(*batch)
        second.see(*batch)
    assert first.version > int(kept["version"]) + 2
    assert all(th.equal(state[name], value) for name, value in kept.items()), "the state moved with the features"


def test_candidates_that_are_the_same_for_all_are_gathered_once():
    table = ActionTable(np.arange(12, dtype=np.float32).reshape(6, 2))
    for ids, shared in (([[3, 1, 2]] * 4, True), ([[3, 1, 2], [3, 1, 0]], False), ([[5, 4]], False)):
        found = candidates_of_ids(table, np.array(ids))
        assert found.tolist() == table.values[np.array(ids)].tolist()
        assert (found.stride(0) == 0) == shared
