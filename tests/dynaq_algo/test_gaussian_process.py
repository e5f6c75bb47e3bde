"""The Bayesian world model, against the textbook's formula, and DynaQ with it."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch as th
from scipy.stats import multivariate_normal
from toy import D_ACTION, D_STATE, action_table, make_toy

from dynaq_algo import DynaQ, gaussian_process, updated_matrix
from dynaq_algo.features import BlockwiseFeatures, InteractionFeatures
from dynaq_algo.gaussian_process import DEFAULT_SCALES, GaussianProcess
from dynaq_algo.prior_beliefs import MULTIPLES, PROBABILITIES

PRIOR = [0.3, -0.2]
PAIRS_PRIOR = [0.15, 0.0, -0.25]
SCALES = {"trust": 0.7, "similarity": 0.1}
BAYESIAN = {"world_model": "gaussian_process", "planning_source": "crossed", "exploration_bonus": 0.5}


class Pairs:
    """n random pairs of 6 + 6 entries, with p numbers each, and features that know their scale."""

    def __init__(self, n, p=0, seed=0):
        rng = np.random.default_rng(seed)
        self.features = BlockwiseFeatures(6, 6, n_pairs=p, n_blocks=2)
        self.features.uses_residuals = True
        self.features.fit(rng.normal(size=(50, 6)))
        self.state, self.action = (th.as_tensor(rng.normal(size=(n, 6)), dtype=th.float32) for _ in range(2))
        self.pairs = th.as_tensor(rng.random((n, p)), dtype=th.float32) if p else None
        if p:
            self.show(self.pairs[None])

    def show(self, pairs):
        """Shows the n pairs m times, with numbers (m, n, p)."""
        m, n, p = pairs.shape
        self.features.see(
            self.state.repeat(m, 1), self.action.repeat(m, 1)[:, None], np.asarray(pairs).reshape(m * n, 1, p)
        )

    @property
    def inputs(self):
        return self.features(self.state, self.action, self.pairs)

    @property
    def similarities(self):
        return self.features.similarities(self.state, self.action)

    def of(self, rows):
        return self.state[rows], self.action[rows], None if self.pairs is None else self.pairs[rows]

    def ask(self, model, rows=slice(None)):
        """Mean and spread (n,) of each, as decisions of one candidate."""
        state, action, pairs = self.of(rows)
        mean, spread = model.score(state, action.unsqueeze(1), None if pairs is None else pairs.unsqueeze(1))
        return mean[:, 0], spread[:, 0]


def by_hand(asked, rows, reward, noise, prior=PRIOR, scales=SCALES, residual_pairs=False):
    """Posterior mean and covariance by Rasmussen and Williams (2.25) and (2.26), written out once more, in float64."""
    features = asked.features
    vectors = [np.asarray(features.centred(part.double())) for part in (asked.state, asked.action)]
    s, a = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in vectors)
    s, a = s @ s.T, a @ a.T
    f = np.asarray(features.similarities(asked.state.double(), asked.action.double()))
    z = np.zeros((len(f), 0)) if asked.pairs is None else np.asarray(features.scaled(asked.pairs.double()))
    means = np.concatenate([f, z], axis=1) @ np.pad(prior, (0, f.shape[1] + z.shape[1] - len(prior)))
    if residual_pairs:  # a number whose weight has a prior mean stays the number itself
        left = np.asarray(features.residuals(th.as_tensor(f), th.as_tensor(z)))
        z = np.where(np.pad(prior, (0, f.shape[1] + z.shape[1] - len(prior)))[f.shape[1] :] != 0, z, left)
    v = {part: scale**2 for part, scale in {**DEFAULT_SCALES, **scales}.items()}
    k = v["constant"] + v["similarity"] * f @ f.T + v["pairs"] * z @ z.T + v["trust"] * np.outer(means, means)
    k = k + v["action"] * a + v["state"] * s + v["bilinear"] * s * a + v["quadratic"] * (s * a) ** 2
    ds, da = np.isclose(s, 1, atol=1e-6), np.isclose(a, 1, atol=1e-6)
    k = k + v["same_state"] * ds + v["same_action"] * da + v["same_pair"] * (ds & da)

    inverse = np.linalg.inv(k[np.ix_(rows, rows)] + noise**2 * np.eye(len(rows)))
    cross = k[:, rows]
    return means + cross @ inverse @ (reward - means[rows]), k - cross @ inverse @ cross.T


@pytest.mark.parametrize("p", [0, 3])
@pytest.mark.parametrize(
    "doubt",
    [
        {},
        {"spike_slab": True},
        {"spike_slab": True, "learn_pair_scale": True},
        {"residual_pairs": True},
        {"spike_slab": True, "learn_pair_scale": True, "residual_pairs": True},
    ],
)
def test_a_whole_catalogue_has_the_means_that_each_pair_has_alone(monkeypatch, p, doubt):
    known = Pairs(40, p)
    prior = [*PRIOR, *PAIRS_PRIOR] if p else PRIOR
    model = GaussianProcess(known.features, prior=prior, scales=SCALES, **doubt)
    model.observe(*known.of(slice(None)), th.linspace(-1, 1, 40))
    # Among the catalogue are actions and states that are known, together and apart.
    actions = th.cat([known.action[:20], Pairs(30, seed=1).action])
    states = th.cat([known.state[:3], Pairs(2, seed=1).state])
    numbers = th.as_tensor(np.random.default_rng(2).random((5, 50, p)), dtype=th.float32) if p else None
    catalogue = actions.expand(5, -1, -1)
    alone, _ = model.score(states, catalogue.clone(), numbers, with_spread=False)

    monkeypatch.setattr(gaussian_process, "_MANY", 1)
    monkeypatch.setattr(gaussian_process, "_PIECE", 16)
    monkeypatch.setattr(model, "_kernel", lambda *_: pytest.fail("a covariance of each pair was computed"))
    together, spread = model.score(states, catalogue, numbers, with_spread=False)
    one, _ = model.score(states[:1], actions[None], None if numbers is None else numbers[:1], with_spread=False)

    assert together.numpy() == pytest.approx(alone.numpy(), abs=2e-5) and alone.std() > 0.05
    assert one.numpy() == pytest.approx(alone[:1].numpy(), abs=2e-5)
    assert not spread.any()


def rebuilt(model):
    """The same model, its posterior computed at once from what it knows."""
    kept = {name: getattr(model, name) for name in ("scales", "noise", "max_pairs", "spike_slab", "learn_pair_scale")}
    other = GaussianProcess(model.features, **kept)
    other.prior = model.prior
    other.set_extra_state(model.get_extra_state())
    other._solve()
    return other


@pytest.mark.parametrize("p", [0, 3])
def test_the_posterior_is_the_textbooks_and_repeats_are_further_rewards(p):
    asked = Pairs(20, p)
    prior = PRIOR + PAIRS_PRIOR[:p]
    rows = [*range(12), *range(5), 0]
    reward = np.random.default_rng(1).normal(size=len(rows))
    model = GaussianProcess(asked.features, prior=prior, scales=SCALES, noise=0.4)

    model.observe(*asked.of(rows[:7]), th.as_tensor(reward[:7]))
    model.observe(*asked.of(rows[7:]), th.as_tensor(reward[7:]))

    wanted, covariance = by_hand(asked, rows, reward, 0.4, prior)
    assert model.n_pairs == 12
    for mean, spread in (model(asked.inputs), asked.ask(model)):
        np.testing.assert_allclose(mean, wanted, atol=1e-4)
        np.testing.assert_allclose(spread, np.sqrt(np.diag(covariance)), atol=1e-4)
    np.testing.assert_array_equal(model(asked.inputs, with_spread=False)[0], model(asked.inputs)[0])


def test_with_residuals_the_posterior_is_the_textbooks_for_the_residuals():
    asked = Pairs(20, 3)
    asked.pairs[:, 1] = asked.similarities.sum(dim=1)  # the number without a prior mean goes with the similarities
    asked.show(asked.pairs.repeat(3, 1, 1))
    prior, rows = PRIOR + PAIRS_PRIOR, [*range(12), 3]
    reward = np.random.default_rng(1).normal(size=len(rows))
    raw, left = (
        GaussianProcess(asked.features, prior=prior, scales=SCALES, noise=0.4, residual_pairs=choice)
        for choice in (False, True)
    )
    for model in (raw, left):
        model.observe(*asked.of(rows), th.as_tensor(reward))
        wanted, covariance = by_hand(asked, rows, reward, 0.4, prior, residual_pairs=model.residual_pairs)
        for mean, spread in (model(asked.inputs), asked.ask(model)):
            np.testing.assert_allclose(mean, wanted, atol=1e-4)
            np.testing.assert_allclose(spread, np.sqrt(np.diag(covariance)), atol=1e-4)
    assert (asked.ask(raw)[0] - asked.ask(left)[0]).abs().max() > 0.01


def test_a_number_that_tells_what_the_similarity_tells_takes_its_weight():
    """A reward that depends on a number alone, where the prior knows only the similarity that goes with this number."""
    asked, rng = Pairs(400, 1), np.random.default_rng(3)
    fit = np.asarray(asked.similarities.sum(dim=1))
    asked.pairs = th.as_tensor(0.7 * fit / fit.std() + 0.7 * rng.normal(size=400), dtype=th.float32).unsqueeze(1)
    asked.show(asked.pairs[None].repeat(3, 1, 1))
    told = 0.3 * asked.features.scaled(asked.pairs)[:, 0]
    slope = float(np.polyfit(fit, told, 1)[0])  # what the similarities are worth where nothing else is known
    alike = asked.similarities.mean(dim=0).expand(2, -1) + th.tensor([[-0.5, -0.5], [0.5, 0.5]])

    def weight_of_similarity(**kwargs):
        model = GaussianProcess(asked.features, [slope, slope], {"trust": 0.0, "pairs": 0.3}, **kwargs)
        model.observe(*asked.of(range(60)), told[:60])
        linear = th.cat([alike, th.zeros(2, 1)], dim=1)  # the same number, another similarity
        inputs = th.cat([asked.inputs[:1, : -linear.shape[1]].expand(2, -1), linear], dim=1)
        low, high = model(inputs)[0].tolist()
        return high - low

    assert slope > 0.1
    assert abs(weight_of_similarity(residual_pairs=True)) < 0.4 * abs(weight_of_similarity())


@pytest.mark.parametrize("p", [0, 3])
def test_the_joint_posterior_of_a_decision_is_the_textbooks(p):
    asked = Pairs(25, p)
    asked.state[12:] = asked.state[12]  # one decision between 13 candidates
    asked.state[3], asked.action[3:5] = asked.state[12], asked.action[13:15]  # of which one was played, one elsewhere
    rows = [*range(12), 3, 3]
    reward = np.random.default_rng(1).normal(size=len(rows))
    model = GaussianProcess(asked.features, prior=PRIOR, scales=SCALES, noise=0.4)
    model.observe(*asked.of(rows), th.as_tensor(reward))

    wanted, wanted_covariance = by_hand(asked, rows, reward, 0.4)
    mean, covariance = model.joint(asked.state[12], asked.action[12:], None if p == 0 else asked.pairs[12:])

    np.testing.assert_allclose(mean, wanted[12:], atol=1e-5)
    np.testing.assert_allclose(covariance, wanted_covariance[12:, 12:], atol=1e-6)
    off_diagonal = wanted_covariance[12:, 12:] - np.diag(np.diag(wanted_covariance[12:, 12:]))
    assert np.abs(off_diagonal).max() > 1e-3


def test_the_sum_of_the_parts_is_the_kernel_and_its_diagonal_the_variance():
    asked = Pairs(15, 3)
    asked.state[1], asked.action[2] = asked.state[0], asked.action[0]
    scales = {part: 0.1 + 0.05 * i for i, part in enumerate(DEFAULT_SCALES)}
    model = GaussianProcess(asked.features, prior=PRIOR + PAIRS_PRIOR, scales=scales)
    numbers = asked.pairs.unsqueeze(1)
    parts = model._parts(asked.state, asked.action.unsqueeze(1), numbers).to(th.float64)

    total = sum(scales[part] ** 2 * kernel for part, kernel in model._kernels(parts, parts).items())
    th.testing.assert_close(model._kernel(parts, parts), total, rtol=0, atol=1e-12)
    th.testing.assert_close(model._variance(parts), total.diagonal(), rtol=0, atol=1e-12)


def test_before_any_reward_it_is_the_prior_and_knows_nothing_of_any_pair():
    asked = Pairs(5, 3)
    mean, spread = asked.ask(GaussianProcess(asked.features, prior=PRIOR + PAIRS_PRIOR))

    np.testing.assert_allclose(mean, asked.inputs[:, -5:] @ th.tensor(PRIOR + PAIRS_PRIOR), atol=1e-6)
    assert (spread > 0.15).all()


def test_what_was_tried_is_known_best_and_the_latest_pairs_are_kept():
    asked = Pairs(30)
    model = GaussianProcess(asked.features, max_pairs=10)
    model.observe(*asked.of(slice(0, 20)), th.zeros(20))
    spread = asked.ask(model)[1]

    assert model.n_pairs == 10
    assert spread[10:20].max() < spread[20:].min()
    covariance = by_hand(asked, list(range(10, 20)), np.zeros(10), 0.3, [0.0, 0.0], {})[1]
    np.testing.assert_allclose(spread, np.sqrt(np.diag(covariance)), atol=1e-4)


def test_a_prior_that_rewards_contradict_is_let_go():
    asked = Pairs(300)
    fits = asked.similarities.sum(dim=1)
    assured, doubting, judging = (
        GaussianProcess(asked.features, [-0.1, -0.1], {"trust": trust}, spike_slab=slab)
        for trust, slab in ((0.0, False), (3.0, False), (0.0, True))
    )
    for model in (assured, doubting, judging):
        model.observe(*asked.of(slice(0, 40)), fits[:40] * 0.1)

    def likeness(model):
        return np.corrcoef(asked.ask(model)[0][250:], fits[250:])[0, 1]

    assert likeness(assured) < 0 < 0.8 < min(likeness(doubting), likeness(judging))


# ---------------------------------------------------------------------- updates of rank one


def history(asked, n, latest=400, seed=2):
    """n answers, in batches of 1 to 7, to pairs of which two in three are among the latest ones met."""
    rng = np.random.default_rng(seed)
    met = 1
    while n > 0:
        size = min(int(rng.integers(1, 8)), n)
        rows = []
        for _ in range(size):
            met = min(met + int(rng.random() < 1 / 3), len(asked.state))
            rows.append(int(rng.integers(max(0, met - latest), met)))
        yield asked.of(rows), th.as_tensor(rng.normal(size=size))
        n -= size


def dense(model):
    """The inverse of the known pairs' covariance, (n, n)."""
    return model._inverse.times(th.eye(model._n_used, dtype=th.float64))


def assert_equal_posteriors(one, other, asked, tolerance=1e-9):
    assert one.n_pairs == other.n_pairs > 1
    used = slice(0, one._n_used)
    assert (dense(one) - dense(other)).abs().max() <= tolerance
    assert (one._alpha[used] - other._alpha[used]).abs().max() <= tolerance
    assert abs(one.factor()[0] - other.factor()[0]) + abs(one.factor()[1] - other.factor()[1]) <= tolerance
    for i in range(3):
        pairs = None if asked.pairs is None else asked.pairs[:9]
        for mine, theirs in zip(
            one.joint(asked.state[i], asked.action[:9], pairs),
            other.joint(asked.state[i], asked.action[:9], pairs),
            strict=True,
        ):
            assert (mine - theirs).abs().max() <= tolerance


@pytest.mark.parametrize(
    ("p", "max_pairs", "learned", "deferred_from"),
    [(0, 2_000, False, 40), (3, 2_000, False, 10**9), (3, 60, True, 40), (3, 60, True, 10**9)],
)
def test_a_thousand_updates_of_rank_one_equal_the_posterior_computed_at_once(
    p, max_pairs, learned, deferred_from, monkeypatch
):
    monkeypatch.setattr(updated_matrix, "_DEFERRED_FROM", deferred_from)
    asked = Pairs(400, p)
    kwargs = {"prior": PRIOR, "scales": SCALES, "max_pairs": max_pairs, "spike_slab": True, "learn_pair_scale": learned}
    model = GaussianProcess(asked.features, **kwargs)
    for answers, reward in history(asked, 1_000, latest=min(max_pairs, 400)):
        model.observe(*answers, reward)

    assert model.n_pairs == max_pairs if max_pairs == 60 else model.n_pairs > 200
    assert model._counts.max() > 4, "no repeats"
    assert_equal_posteriors(model, rebuilt(model), asked)

    loaded = GaussianProcess(asked.features, **kwargs)
    loaded.load_state_dict(model.state_dict())
    for answers, reward in history(asked, 300, seed=3):
        model.observe(*answers, reward)
        loaded.observe(*answers, reward)
    assert_equal_posteriors(model, loaded, asked, tolerance=0.0)
    assert_equal_posteriors(loaded, rebuilt(loaded), asked)


def test_forgetting_leaves_the_posterior_of_those_that_are_kept():
    asked = Pairs(50)
    reward = np.random.default_rng(1).normal(size=50)
    model = GaussianProcess(asked.features, prior=PRIOR, scales=SCALES, noise=0.4, max_pairs=8)
    for row in range(50):
        model.observe(*asked.of([row]), th.as_tensor(reward[[row]]))

    rows = list(range(42, 50))
    wanted, covariance = by_hand(asked, rows, reward[rows], 0.4)
    mean, spread = asked.ask(model)
    np.testing.assert_allclose(mean, wanted, atol=1e-4)
    np.testing.assert_allclose(spread, np.sqrt(np.diag(covariance)), atol=1e-4)


def test_a_memory_of_one_pair_is_that_pair():
    asked = Pairs(5)
    one, other = (GaussianProcess(asked.features, max_pairs=1, noise=0.4) for _ in range(2))
    one.observe(*asked.of([0, 1, 2, 2]), th.tensor([9.0, -9.0, 1.0, 2.0]))
    other.observe(*asked.of([2, 2]), th.tensor([1.0, 2.0]))
    for mine, theirs in zip(asked.ask(one), asked.ask(other), strict=True):
        th.testing.assert_close(mine, theirs)


def drifting(n=150):
    """Pairs whose state changes a little from each to the next, as that of somebody who is known better and better."""
    asked = Pairs(n)
    steps = th.as_tensor(np.random.default_rng(1).normal(scale=0.001, size=(n, 6)), dtype=th.float32)
    asked.state = asked.state[0] + steps.cumsum(dim=0)
    return asked


@pytest.mark.parametrize("max_pairs", [2_000, 40])
def test_states_that_change_little_by_little_leave_the_kernel_a_covariance(max_pairs):
    asked = drifting()
    reward = th.as_tensor(np.random.default_rng(2).uniform(size=150), dtype=th.float32)
    model = GaussianProcess(asked.features, PRIOR, {"same_state": 0.5}, noise=0.2, max_pairs=max_pairs)
    model.observe(*asked.of(slice(None)), reward)
    known = model._known.take(slice(0, model.n_pairs))
    covariance = model._kernel(known, known) + 0.2**2 * th.eye(model.n_pairs)
    assert th.linalg.eigvalsh(covariance)[0] > 0.9 * 0.2**2
    mean, spread = asked.ask(model)
    assert mean.abs().max() < 2 and spread.min() > 0

    loaded = GaussianProcess(asked.features, PRIOR, {"same_state": 0.5}, noise=0.2, max_pairs=max_pairs)
    loaded.load_state_dict(model.state_dict())
    for one in (model, loaded):
        one.observe(*asked.of(slice(0, 150, 7)), reward[::7])
    assert all(th.equal(*parts) for parts in zip(asked.ask(model), asked.ask(loaded), strict=True))
    state = model.get_extra_state()
    model._solve()
    th.testing.assert_close(asked.ask(model), asked.ask(loaded), rtol=1e-3, atol=1e-4)

    # A file of an earlier version, whose inverse is that of no covariance.
    earlier = {name: values for name, values in state.items() if not name.startswith("unit_")}
    loaded.set_extra_state({**earlier, "inverse": 9 * state["inverse"]})
    assert asked.ask(loaded)[0].abs().max() < 2 and asked.ask(loaded)[1].min() > 0


def turned(state, angles, features):
    """A state (d,), turned about the mean action by each of the angles (n,) in another direction: (n, d)."""
    shift = features.centred(th.zeros(len(state), dtype=th.float64))
    base = state.double() + shift
    away = base.norm() * th.linalg.svd(base.unsqueeze(0)).Vh[1:][: len(angles)]
    angles = th.as_tensor(angles, dtype=th.float64).unsqueeze(1)
    return (base * angles.cos() + away * angles.sin() - shift).float()


def test_a_state_among_several_that_are_not_the_same_is_the_same_as_one_of_them():
    asked = Pairs(5)
    middle = asked.state[0].clone()
    asked.state = turned(middle, [0.0042] * 5, asked.features)
    model = GaussianProcess(asked.features, PRIOR, {"same_state": 0.5}, noise=0.2)
    model.observe(*asked.of(slice(None)), th.linspace(0, 1, 5))
    assert len(th.unique(model._known.state[:5], dim=0)) == 5  # each is a state of its own
    _, spread = model.score(middle.expand(5, -1), asked.action.unsqueeze(1))
    assert spread.min() > 0.1


def test_states_at_the_limit_of_being_the_same_leave_each_pair_its_uncertainty():
    rng = np.random.default_rng(0)
    features = BlockwiseFeatures(64, 64, n_blocks=1)
    liked = rng.normal(size=(900, 64)) + 1.5 * rng.normal(size=64)
    liked /= np.linalg.norm(liked, axis=1, keepdims=True)
    means = (liked.cumsum(axis=0) / np.arange(1, 901)[:, None])[500:]
    state, action = (th.as_tensor(part, dtype=th.float32) for part in (means, rng.normal(size=(400, 64))))
    model = GaussianProcess(features, [0.3], {"same_state": 0.5}, noise=0.2)
    model.observe(state, action, None, th.ones(400))
    assert 1 < len(th.unique(model._used(th.float64).state, dim=0)) < 40
    assert model.score(state, action.unsqueeze(1))[1].min() > 0.1


def test_a_whole_catalogue_of_one_who_changes_has_the_means_that_each_pair_has_alone(monkeypatch):
    asked = drifting()
    model = GaussianProcess(asked.features, PRIOR, {"same_state": 0.5})
    model.observe(*asked.of(slice(None)), th.linspace(0, 1, 150))
    state, actions = asked.state[:100:9], asked.action.expand(12, -1, -1)
    alone = model.score(state, actions, with_spread=False)[0]
    monkeypatch.setattr(gaussian_process, "_MANY", 1)
    th.testing.assert_close(model.score(state, actions, with_spread=False)[0], alone, rtol=1e-4, atol=1e-4)


def test_many_rewards_of_one_pair_make_it_certain():
    asked = Pairs(5)
    model = GaussianProcess(asked.features)
    for _ in range(20):
        model.observe(*asked.of([0] * 100), th.full((100,), 0.7))
    mean, spread = asked.ask(model)

    assert mean[0] == pytest.approx(0.7, abs=1e-3)
    assert spread[0] == pytest.approx(model.noise / 2_000**0.5, rel=0.01)
    th.testing.assert_close(dense(model), dense(rebuilt(model)), rtol=1e-9, atol=0)


def test_what_is_known_is_computed_anew_where_the_scale_of_features_changes():
    asked = Pairs(60, 3)
    model = GaussianProcess(asked.features, prior=PRIOR + PAIRS_PRIOR, scales=SCALES, noise=0.4)
    reward = np.random.default_rng(1).normal(size=30)
    model.observe(*asked.of(range(20)), th.as_tensor(reward[:20]))
    before = asked.ask(model)[0]

    asked.show(2 * np.random.default_rng(5).random((2, 60, 3), np.float32))
    mean, spread = asked.ask(model)
    wanted, covariance = by_hand(asked, range(20), reward[:20], 0.4, PRIOR + PAIRS_PRIOR)
    assert (mean - before).abs().max() > 0.05
    np.testing.assert_allclose(mean, wanted, atol=1e-4)
    np.testing.assert_allclose(spread, np.sqrt(np.diag(covariance)), atol=1e-4)

    model.observe(*asked.of(range(20, 30)), th.as_tensor(reward[20:]))
    np.testing.assert_allclose(
        asked.ask(model)[0], by_hand(asked, range(30), reward, 0.4, PRIOR + PAIRS_PRIOR)[0], atol=1e-4
    )
    assert_equal_posteriors(model, rebuilt(model), asked)


def test_the_scale_of_features_may_change_before_the_first_reward():
    asked = Pairs(9, 3)
    model = GaussianProcess(asked.features, prior=PRIOR + PAIRS_PRIOR, scales=SCALES)
    asked.ask(model)
    asked.show(np.random.default_rng(5).random((2, 9, 3), np.float32))
    wanted, _ = by_hand(asked, [], np.zeros(0), 0.4, PRIOR + PAIRS_PRIOR)
    np.testing.assert_allclose(asked.ask(model)[0], wanted, atol=1e-4)


@pytest.mark.parametrize("fitted", [False, True])
def test_its_state_restores_it_to_the_bit(fitted):
    asked = Pairs(40, 3)
    kwargs = {"prior": PRIOR + PAIRS_PRIOR, "max_pairs": 25, "spike_slab": True, "fit_scales": fitted}
    model, other = (GaussianProcess(asked.features, **kwargs) for _ in range(2))
    for row in range(30):
        model.observe(*asked.of([row]), asked.state[[row], 0])
    model.observe(*asked.of(range(4, 9)), asked.state[4:9, 1])
    other.observe(*asked.of(range(30, 35)), asked.state[30:35, 0])
    other.load_state_dict(model.state_dict())

    assert (model.scales != {**DEFAULT_SCALES}) == (model.noise != 0.3) == fitted
    for _ in range(2):
        assert (model.scales, model.noise, model.factor()) == (other.scales, other.noise, other.factor())
        for before, after in zip(asked.ask(model), asked.ask(other), strict=True):
            np.testing.assert_array_equal(before, after)
        for one in (model, other):
            one.observe(*asked.of(range(35, 40)), asked.state[35:40, 0])


@pytest.mark.parametrize(
    "changed",
    [
        {"noise": 0.9},
        {"scales": {**SCALES, "action": 0.5}},
        {"prior": [-0.3, 0.2]},
        {"max_pairs": 7},
        {"residual_pairs": True},
    ],
    ids=str,
)
def test_other_arguments_hold_for_the_rewards_that_were_saved(changed):
    asked = Pairs(60, 3)
    given = {"prior": PRIOR, "scales": SCALES, "noise": 0.4, "max_pairs": 30}
    saved, wanted, loaded = (GaussianProcess(asked.features, **{**given, **c}) for c in ({}, changed, changed))
    said = list(history(asked, 150, latest=5))
    for answers, reward in said[:-4]:
        saved.observe(*answers, reward)
        wanted.observe(*answers, reward)
    assert saved.n_pairs == 30
    loaded.set_extra_state(saved.get_extra_state())
    for rest in (said[-4:-2], said[-2:], []):
        assert loaded.n_pairs == wanted.n_pairs == loaded._n_used == loaded.max_pairs
        asked_for = asked.state[0], asked.action[:9], asked.pairs[:9]
        found, right = (model.joint(*asked_for) for model in (loaded, wanted))
        for mine, theirs in zip(found, right, strict=True):
            np.testing.assert_allclose(mine, theirs, atol=1e-9)
        for answers, reward in rest:
            loaded.observe(*answers, reward)
            wanted.observe(*answers, reward)


def test_a_state_of_an_earlier_version_is_put_back_as_it_is():
    asked = Pairs(60)
    one, other = (GaussianProcess(asked.features, prior=PRIOR, scales=SCALES) for _ in range(2))
    for answers, reward in history(asked, 20):
        one.observe(*answers, reward)
    other.set_extra_state({k: v for k, v in one.get_extra_state().items() if k not in ("given", "prior")})
    assert_equal_posteriors(one, other, asked, tolerance=0)


@pytest.mark.skipif(not th.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("fit_scales", [False, True])
def test_what_it_knows_follows_it_to_another_device(fit_scales):
    asked = Pairs(30)
    model = GaussianProcess(asked.features, PRIOR, spike_slab=True, fit_scales=fit_scales).to("cuda")
    model.observe(asked.state[:20].cuda(), asked.action[:20].cuda(), None, th.randn(20).cuda())
    model.to("cpu")
    mean, spread = asked.ask(model)
    model.to("cuda")
    moved = model.score(asked.state.cuda(), asked.action.unsqueeze(1).cuda())
    for before, after in zip((mean, spread), moved, strict=True):
        th.testing.assert_close(after[:, 0].cpu(), before, rtol=1e-4, atol=1e-5)


def test_its_state_is_a_copy():
    asked = Pairs(10)
    model = GaussianProcess(asked.features)
    model.observe(*asked.of(range(5)), th.ones(5))
    state = model.get_extra_state()
    kept = state["inverse"].clone(), state["alpha"].clone(), state["total"].clone()
    model.observe(*asked.of(range(5)), th.ones(5))
    for part, before in zip((state["inverse"], state["alpha"], state["total"]), kept, strict=True):
        assert th.equal(part, before)


# ---------------------------------------------------------------------- a factor of the prior, fitted scales


@pytest.mark.parametrize(
    ("spike", "contrary", "sign", "noise"),
    [(0.5, 0.2, 1.0, 0.3), (0.2, 0.35, -1.0, 0.3), (0.9, 0.05, 0.3, 0.3), (0.5, 0.2, -4.0, 1.2)],
    ids=["right", "contrary", "weak", "louder than thought"],
)
def test_the_factor_of_the_prior_is_that_of_a_grid_of_gaussian_likelihoods(spike, contrary, sign, noise):
    asked = Pairs(30, 3)
    prior = np.array(PRIOR + PAIRS_PRIOR)
    rng = np.random.default_rng(4)
    rows = [*range(20), *range(6)]
    means = np.asarray(asked.inputs[:, -5:]) @ prior
    reward = sign * means[rows] + noise * rng.normal(size=len(rows))
    scales = {**SCALES, "trust": 0.0}
    doubt = {"spike": spike, "contrary": contrary}
    model = GaussianProcess(asked.features, prior, scales, noise=0.4, spike_slab=True, **doubt)
    for i, row in enumerate(rows):
        model.observe(*asked.of([row]), th.as_tensor(reward[[i]]))

    parts = model._parts(asked.state, asked.action.unsqueeze(1), asked.pairs.unsqueeze(1)).to(th.float64)
    kernel = model._kernel(parts, parts).numpy()
    k = kernel[np.ix_(rows, rows)] + 0.4**2 * np.eye(len(rows))
    grid = np.linspace(-1.5, 2.0, 71)
    of_pairs = [reward[[i for i, other in enumerate(rows) if other == row]].mean() for row in range(20)]
    power = min(0.5, 0.4**2 / (2 * np.var(of_pairs, ddof=1)))
    assert (power < 0.1) == (noise > 1)
    log = [
        power * multivariate_normal(f * means[rows], k).logpdf(reward)
        + np.log(contrary / 30 if f < -1e-9 else (1 - spike - contrary) / 41 + spike * (abs(f - 1) < 1e-9))
        for f in grid
    ]
    weights = np.exp(log - np.max(log))
    weights /= weights.sum()
    mean = weights @ grid
    deviation = np.sqrt(weights @ (grid - mean) ** 2)
    assert model.factor() == pytest.approx((mean, deviation), abs=1e-5)
    assert mean < 0.9 if sign < 1 else mean > 0.9
    assert deviation > 0.01

    cross, left = kernel[:, rows] @ np.linalg.inv(k), means - kernel[:, rows] @ np.linalg.inv(k) @ means[rows]
    posterior = kernel - cross @ kernel[rows] + deviation**2 * np.outer(left, left)
    wanted = mean * left + cross @ reward
    for got, spread in (asked.ask(model), model(asked.inputs)):
        np.testing.assert_allclose(got, wanted, atol=1e-4)
        np.testing.assert_allclose(spread, np.sqrt(np.diag(posterior)), atol=1e-4)
    asked.state[20:] = asked.state[20]
    joint_mean, joint = model.joint(asked.state[20], asked.action[20:], asked.pairs[20:])
    np.testing.assert_allclose(joint.diagonal().sqrt(), asked.ask(model)[1][20:], atol=1e-4)
    np.testing.assert_allclose(joint_mean, asked.ask(model)[0][20:], atol=1e-4)


def test_the_factor_is_one_and_sure_without_a_spike_and_the_spikes_before_any_reward():
    asked = Pairs(5)
    assert GaussianProcess(asked.features, PRIOR).factor() == (1.0, 0.0)
    model = GaussianProcess(asked.features, PRIOR, spike_slab=True, spike=0.75, contrary=0.05)
    mean, deviation = model.factor()
    below, above = np.linspace(-1.5, -0.05, 30), np.linspace(0.0, 2.0, 41)
    assert mean == pytest.approx(0.75 + 0.05 * below.mean() + 0.2 * above.mean())
    apart = [np.mean((part - mean) ** 2) for part in (below, above)]
    assert deviation**2 == pytest.approx(0.75 * (1 - mean) ** 2 + 0.05 * apart[0] + 0.2 * apart[1])


def test_who_explores_draws_factors_as_often_as_they_are_likely():
    asked = Pairs(30)
    model = GaussianProcess(asked.features, PRIOR, SCALES, spike_slab=True, spike=0.5, contrary=0.3)
    drawn = []
    for _ in range(200):
        drawn.append(model.drawn_factor())
        model._n_told += 1  # as after a reward that says nothing
    assert (np.mean(np.equal(drawn, 1.0)), np.mean(np.less(drawn, 0))) == pytest.approx((0.5, 0.3), abs=0.02)
    assert len(set(drawn)) > 40


@pytest.mark.parametrize("n", [1, 8, 21, 89])
def test_factors_are_spread_however_many_rewards_come_at_once(n):
    # Golden steps, 89 at once, hardly move: 89 is a Fibonacci number.
    asked = Pairs(n)
    model = GaussianProcess(asked.features, [0.0, 0.0], SCALES, spike_slab=True, spike=0.5, contrary=0.3)
    drawn = []
    for _ in range(40):
        drawn.append(model.drawn_factor())
        model.observe(asked.state, asked.action, asked.pairs, th.zeros(n))
    # A prior mean of 0 says nothing of its factor, so the factor is drawn from its prior.
    assert (np.mean(np.equal(drawn, 1.0)), np.mean(np.less(drawn, 0))) == pytest.approx((0.5, 0.3), abs=0.05)


def test_who_explores_takes_the_drawn_factor_as_true_and_adds_the_spread():
    asked = Pairs(30)
    model = GaussianProcess(asked.features, PRIOR, {**SCALES, "trust": 0.0}, spike_slab=True)
    model.observe(*asked.of(range(10)), th.linspace(-1, 1, 10))
    seen = asked.state, asked.action.unsqueeze(1), None
    mean, spread = model.score(*seen)
    assert th.equal(model.score(*seen)[0], mean), "what is expected is no draw"
    assert th.equal(model.explore(*seen, bonus=0.0), model.score(*seen, with_spread=False)[0]), "who does not explore"
    for _ in range(3):
        mean, spread = model.score(*seen)
        drawn = model.drawn_factor()
        grid, _ = model._factors
        with pytest.MonkeyPatch.context() as patch:  # as if nothing else were believed
            patch.setattr(model, "_factors", (grid, np.where(grid == drawn, 0.0, -np.inf)))
            patch.setattr(model, "_beliefs", None)
            for_sure = model.score(*seen)[0]
        th.testing.assert_close(model.explore(*seen, bonus=0.5), for_sure + 0.5 * spread)
        model.observe(*asked.of([29]), th.zeros(1))
        assert model.drawn_factor() != drawn


@pytest.mark.parametrize("learn_pair_scale", [False, True])
@pytest.mark.parametrize("doubt", [{}, {"spike_slab": True, "draw_factor": False}], ids=["no doubt", "no draw"])
def test_without_a_draw_what_is_expected_is_explored(doubt, learn_pair_scale):
    asked = Pairs(20, 3)
    scales = {**SCALES, "pairs": 0.1}
    model = GaussianProcess(asked.features, PRIOR, scales, learn_pair_scale=learn_pair_scale, **doubt)
    model.observe(*asked.of(range(10)), th.linspace(-1, 1, 10))
    seen = asked.state, asked.action.unsqueeze(1), asked.pairs.unsqueeze(1)
    mean, spread = model.score(*seen)
    assert model.drawn_factor() == model.factor()[0]
    assert th.equal(model.explore(*seen, bonus=2.0), mean + 2.0 * spread)
    assert th.equal(model.explore(*seen, bonus=0.0), model.score(*seen, with_spread=False)[0])


def log_evidence(model, asked, rows, reward, factor=1.0):
    """Log density of rewards if this is the factor of the prior mean."""
    parts = model._parts(*(part.unsqueeze(1) if i else part for i, part in enumerate(asked.of(rows)))).to(th.float64)
    kernel = model._kernel(parts, parts).numpy() + model.noise**2 * np.eye(len(reward))
    return multivariate_normal(factor * parts.prior.numpy(), kernel).logpdf(reward)


class ScaleOfPairs:
    """A model that learns the scale of `pairs`, and one for each scale that it thinks possible, with equal rewards."""

    rows = range(25)

    def __init__(self, **doubt):
        self.asked = asked = Pairs(40, 3)
        scales = {**SCALES, "trust": 0.0, "pairs": 0.1}
        self.learned = GaussianProcess(asked.features, PRIOR, scales, learn_pair_scale=True, **doubt)
        self.fixed = [
            GaussianProcess(asked.features, PRIOR, {**scales, "pairs": 0.1 * multiple}) for multiple in MULTIPLES
        ]
        told = np.asarray(asked.features.scaled(asked.pairs))[self.rows] @ [0.05, 0.0, -0.04]
        self.reward = told + 0.3 * np.random.default_rng(1).normal(size=len(told))
        for model in (self.learned, *self.fixed):
            model.observe(*asked.of(self.rows), th.as_tensor(self.reward, dtype=th.float32))

    def log_weights(self, factor=1.0):
        """Log posterior weight (m,) of each scale if this is the factor."""
        found = [log_evidence(model, self.asked, self.rows, self.reward, factor) for model in self.fixed]
        return np.log(PROBABILITIES) + found


def softmax(log_weights):
    weights = np.exp(log_weights - np.max(log_weights))
    return weights / weights.sum()


def test_with_a_learned_scale_the_posterior_is_the_mixture_over_scales():
    case = ScaleOfPairs()
    share = softmax(case.log_weights())
    assert 0.05 < share.max() < 0.95, "one scale is as good as sure: the mixture is hardly tested"

    means, spreads = (np.array(part) for part in zip(*(case.asked.ask(model) for model in case.fixed), strict=True))
    mean, spread = case.asked.ask(case.learned)
    np.testing.assert_allclose(mean, share @ means, atol=1e-5)
    np.testing.assert_allclose(spread**2, share @ (spreads**2 + (means - share @ means) ** 2), atol=1e-5)

    decision = case.asked.state[0], case.asked.action, case.asked.pairs
    joint_mean, joint = case.learned.joint(*decision)
    one_by_one = case.learned.score(*(part.unsqueeze(0) for part in decision))
    np.testing.assert_allclose(joint_mean, one_by_one[0][0], atol=1e-4)
    np.testing.assert_allclose(joint.diagonal().sqrt(), one_by_one[1][0], atol=1e-4)


def test_the_scale_and_the_factor_are_learned_jointly():
    case = ScaleOfPairs(spike_slab=True)
    grid, log_prior = case.learned._factors
    if_nothing, power = case.log_weights(0.0), case.learned._tempered(th.as_tensor(case.reward))
    log_weights = [if_nothing + power * (case.log_weights(factor) - if_nothing) for factor in grid]
    weights = softmax(np.transpose(log_weights) + log_prior)  # (scales, factors)

    mean, deviation = case.learned.factor()
    assert mean == pytest.approx(weights.sum(axis=0) @ grid, abs=1e-4)
    assert deviation**2 == pytest.approx(weights.sum(axis=0) @ (grid - mean) ** 2, abs=1e-4)

    # Who explores takes the drawn factor as true, about the scale too.
    drawn = case.learned.drawn_factor()
    given = weights[:, grid == drawn][:, 0]
    for model in case.fixed:
        model.prior = drawn * model.prior
        model._refresh()
        model._solve()
    seen = case.asked.state, case.asked.action.unsqueeze(1), case.asked.pairs.unsqueeze(1)
    wanted = sum(
        part * rebuilt(model).score(*seen)[0] for part, model in zip(given / given.sum(), case.fixed, strict=True)
    )
    found = case.learned.explore(*seen, bonus=0.5) - 0.5 * case.learned.score(*seen)[1]
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_numbers_that_say_nothing_weigh_less_and_numbers_that_say_much_as_much():
    asked = Pairs(120, 3)
    told = np.asarray(asked.features.scaled(asked.pairs))
    noise = 0.3 * np.random.default_rng(2).normal(size=120)

    def weights(reward, **kwargs):
        model = GaussianProcess(asked.features, None, {"pairs": 0.1}, **kwargs)
        model.observe(*asked.of(range(120)), th.as_tensor(reward, dtype=th.float32))
        moved = th.eye(3).unsqueeze(0) * 0.2 + asked.pairs.mean(dim=0)
        same = asked.state[:1], asked.action[:1].expand(4, -1).unsqueeze(0)
        mean = model.score(*same, th.cat([asked.pairs.mean(dim=0)[None, None], moved], dim=1))[0][0]
        return np.asarray(mean[1:] - mean[0])

    silent, fixed = weights(noise, learn_pair_scale=True), weights(noise)
    assert np.linalg.norm(silent) < 0.7 * np.linalg.norm(fixed)
    telling, fixed = (
        weights(noise + told @ [0.3, -0.2, 0.3], learn_pair_scale=True),
        weights(noise + told @ [0.3, -0.2, 0.3]),
    )
    assert np.linalg.norm(telling) > np.linalg.norm(fixed)


def log_density(model, asked, rows, reward):
    """Of the rewards, and of the logarithms of scales and noise around those that they began with."""
    begun = {**DEFAULT_SCALES, **SCALES, "noise": 0.3}
    moved = [np.log(value / begun[part]) for part, value in {**model.scales, "noise": model.noise}.items()]
    return log_evidence(model, asked, rows, reward) - 0.5 * np.sum(np.square(moved)) / 0.5**2


def test_fitted_scales_have_the_highest_posterior_density():
    asked = Pairs(40, 3)
    rng = np.random.default_rng(0)
    reward = 0.6 * np.asarray(asked.features.scaled(asked.pairs))[:, 0] + 0.05 * rng.normal(size=40)
    fixed, fitted = (GaussianProcess(asked.features, PRIOR, SCALES, fit_scales=fit) for fit in (False, True))
    for model in (fixed, fitted):
        model.observe(*asked.of(range(19)), th.as_tensor(reward[:19]))
        assert model.noise == 0.3, "too few to fit to"
        model.observe(*asked.of(range(19, 40)), th.as_tensor(reward[19:]))

    assert fitted.scales["pairs"] > 2 * fixed.scales["pairs"] and fitted.noise < 0.2
    best = log_density(fitted, asked, range(40), reward)
    assert best > log_density(fixed, asked, range(40), reward) + 5
    for part in (*DEFAULT_SCALES, "noise"):
        for step in (0.95, 1.05):
            moved = copy.deepcopy(fitted)
            if part == "noise":
                moved.noise *= step
            else:
                moved.scales[part] *= step
            assert log_density(moved, asked, range(40), reward) < best + 1e-4, part
    assert_equal_posteriors(fitted, rebuilt(fitted), asked)


def test_a_part_that_is_left_out_stays_out_of_the_fit():
    asked = Pairs(30)
    model = GaussianProcess(asked.features, PRIOR, {"trust": 0.0, "state": 0.0}, fit_scales=True)
    model.observe(*asked.of(range(30)), asked.state[:, 0])
    assert model.scales["trust"] == model.scales["state"] == 0.0
    assert model.noise != 0.3


def test_many_equal_rewards_leave_a_noise_with_which_other_rewards_are_learned():
    """As where nobody has answered yet: without a least noise, the posterior would be rounding."""
    rng = np.random.default_rng(0)
    states, actions = th.as_tensor(rng.normal(size=(2, 330, 16)).astype(np.float32))
    features = BlockwiseFeatures(16, 16)
    features.fit(actions.numpy())
    model = GaussianProcess(features, PRIOR, {"constant": 1.0, "trust": 0.0}, spike_slab=True, fit_scales=True)
    model.observe(states[:165], actions[:165], None, th.full((165,), -0.1))
    assert model.noise == pytest.approx(0.3 / 15)
    model.observe(states[165:180], actions[165:180], None, th.as_tensor(np.arange(15) % 3 == 0).float())
    asked = states[200:220], actions[230:260].expand(20, -1, -1)
    found = model.score(*asked)[0]
    model._solve()
    th.testing.assert_close(found, model.score(*asked)[0], atol=0.01, rtol=0)
    assert found.abs().max() < 1
    model.observe(states[180:], actions[180:], None, th.full((150,), -0.1))  # the next fit
    assert model.score(*asked)[0].isfinite().all()


# ---------------------------------------------------------------------- traps


def test_vectors_of_nothing_and_of_one_kind_are_finite():
    features = BlockwiseFeatures(4, 4, n_blocks=2)
    features.fit(np.ones((30, 4), np.float32))  # one job, thirty times: less their mean they are 0
    model = GaussianProcess(features, prior=PRIOR, spike_slab=True, fit_scales=True)
    state, action = th.rand(40, 4), th.ones(40, 4)
    action[20:, :2] = 0.0  # a block without skills
    model.observe(state, action, None, th.rand(40))
    model.observe(th.zeros(3, 4), action[:3], None, th.ones(3))

    mean, spread = model.score(state, th.stack([action, th.zeros(40, 4)], dim=1))
    assert mean.isfinite().all() and spread.isfinite().all() and (spread > 0).all()
    assert_equal_posteriors(model, rebuilt(model), SimpleNamespace(state=state, action=action, pairs=None))


def test_no_decisions_have_no_scores():
    asked = Pairs(5)
    model = GaussianProcess(asked.features)
    model.observe(*asked.of([0]), th.ones(1))
    assert [part.shape for part in model.score(th.zeros(0, 6), th.zeros(0, 4, 6))] == [(0, 4), (0, 4)]


def test_many_decisions_are_asked_in_pieces_and_alike(monkeypatch):
    asked = Pairs(30, 3)
    model = GaussianProcess(asked.features, PRIOR)
    model.observe(*asked.of(range(10)), asked.state[:10, 0])
    candidates, pairs = asked.action.expand(30, 30, 6), asked.pairs.expand(30, 30, 3)
    whole = model.score(asked.state, candidates, pairs)
    monkeypatch.setattr("dynaq_algo.gaussian_process._PIECE", 100)
    for piece, part in zip(model.score(asked.state, candidates, pairs), whole, strict=True):
        th.testing.assert_close(piece, part)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"scales": {"simlarity": 1.0}}, "did you mean 'similarity'"),
        ({"scales": {"state": -1.0}}, "0 or more"),
        ({"scales": {"state": np.nan}}, r"`scales\['state'\]` must be a finite number, got nan"),
        ({"scales": {"state": "1"}}, r"`scales\['state'\]` must be a finite number, got '1'"),
        ({"noise": "1"}, "`noise` must be a finite number, got '1'"),
        ({"prior": 0.1}, r"`prior` must be numbers in a row, such as \[0.1, 0.1\], got 0.1"),
        ({"scales": dict.fromkeys(DEFAULT_SCALES, 0), "fit_scales": True}, "`scales` must leave a part above 0"),
        (
            {
                "scales": {**dict.fromkeys(DEFAULT_SCALES, 0), "pairs": 0.1},
                "fit_scales": True,
                "learn_pair_scale": True,
            },
            "neither is that of `pairs` with `learn_pair_scale`",
        ),
        ({"noise": 0.0}, "`noise` must be above 0"),
        ({"scales": ["pairs"]}, "`scales` must be a dictionary of parts of"),
        ({"max_pairs": 0}, "`max_pairs` must be 1 or more"),
        ({"max_pairs": 20.5}, "`max_pairs` must be a whole number of 1 or more, got 20.5"),
        ({"spike": 1.0}, "`spike` and `contrary` must be probabilities"),
        ({"spike": 0.6, "contrary": 0.4}, "sum is less than 1, got 0.6 and 0.4"),
        ({"contrary": 0.0}, "above 0"),
        ({"prior": [1.0]}, "each of the 2 similarities"),
        ({"prior": [1.0, np.inf]}, "`prior` must hold finite weights"),
    ],
)
def test_numbers_out_of_range_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        GaussianProcess(Pairs(1).features, **kwargs)


def test_other_features_are_refused():
    with pytest.raises(ValueError, match='must be "blockwise"'):
        GaussianProcess(InteractionFeatures(2, 2))


# ---------------------------------------------------------------------- DynaQ with it


def agent(env, **kwargs):
    policy = {"net_arch": [16], "features": "blockwise", "features_kwargs": {"n_blocks": 1}, "prior": [0.1]}
    arguments = {"seed": 0, "gamma": 0.0, "device": "cpu", "learning_starts": 0, "planning_steps": 2, **BAYESIAN}
    return DynaQ("CandidatePolicy", env, **{**arguments, "policy_kwargs": policy, **kwargs})


def test_it_begins_as_its_prior_and_chooses_by_similarity():
    env = make_toy(ids=True)
    model = agent(env)
    obs, _ = env.reset(seed=3)
    features = model.policy.features
    user, shown = th.as_tensor(obs["user"]).expand(4, -1), th.as_tensor(action_table()[obs["candidates"]])

    np.testing.assert_allclose(model.q_values(obs)[0], 0.1 * features.similarities(user, shown)[:, 0], atol=1e-6)
    np.testing.assert_allclose(model.predict_reward(obs), model.q_values(obs), atol=1e-6)


def test_every_transition_is_learned_once_and_q_follows_the_model():
    model = agent(make_toy(ids=True), planning_steps=8, learning_rate=3e-3).learn(300)

    assert model.world_model._counts.sum() == 300
    env = make_toy(ids=True)
    q, imagined = [], []
    for seed in range(50):
        obs, _ = env.reset(seed=1_000 + seed)
        q.append(model.q_values(obs)[0])
        imagined.append(model.predict_reward(obs)[0])
    assert np.corrcoef(np.ravel(q), np.ravel(imagined))[0, 1] > 0.9


def test_the_bonus_is_added_while_exploring_only():
    env = make_toy(ids=True)
    model = agent(env, exploration_bonus=100.0, exploration_initial_eps=0.0, exploration_final_eps=0.0).learn(40)
    obs, _ = env.reset(seed=5)
    state = th.as_tensor(obs["user"])[None]
    with th.no_grad():
        spread = model.world_model.score(state, th.as_tensor(action_table()[obs["candidates"]])[None])[1]

    np.testing.assert_array_equal(model.reward_spread(obs), spread)
    assert model.predict(obs)[0] == int(spread.argmax())
    assert model.predict(obs, deterministic=True)[0] == model.q_values(obs).argmax()


def test_a_checkpoint_resumes_to_the_bit_and_a_zip_keeps_the_model(tmp_path):
    first = agent(make_toy(ids=True)).learn(60)
    obs, _ = make_toy(ids=True).reset(seed=9)

    first.save_checkpoint(tmp_path / "checkpoint")
    resumed = DynaQ.load_checkpoint(tmp_path / "checkpoint", make_toy(ids=True), device="cpu")
    for model in (first, resumed):
        model.learn(30, reset_num_timesteps=False)
    np.testing.assert_array_equal(first.q_values(obs), resumed.q_values(obs))
    np.testing.assert_array_equal(first.predict_reward(obs), resumed.predict_reward(obs))

    first.save(tmp_path / "agent.zip")
    loaded = DynaQ.load(tmp_path / "agent.zip", make_toy(ids=True), device="cpu")
    np.testing.assert_array_equal(first.predict_reward(obs), loaded.predict_reward(obs))
    assert first.policy.features.state_dim == D_STATE == D_ACTION


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"world_model": "gaussian"}, "did you mean 'gaussian_process'"),
        ({"exploration_bonus": -1.0}, "`exploration_bonus` must be a finite number"),
        ({"relabel": True}, "`relabel`"),
        ({"relabel": "no"}, "`relabel` must be True or False, got 'no'"),
        ({"world_model_kwargs": {"fit_scales": "off"}}, "`fit_scales` must be True or False, got 'off'"),
        ({"world_model_kwargs": {"spike_slab": 1}}, "`spike_slab` must be True or False, got 1"),
        ({"world_model_kwargs": {"draw_factor": None}}, "`draw_factor` must be True or False, got None"),
        ({"world_model_kwargs": {"learn_pair_scale": "on"}}, "`learn_pair_scale` must be True or False, got 'on'"),
    ],
)
def test_arguments_that_cannot_be_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        agent(make_toy(ids=True), **kwargs)


@pytest.mark.parametrize("noise", [0.03, 0.01, 0.003])
def test_with_little_noise_predictions_are_no_rounding_errors(noise):
    """Against the same regression in double precision; rewards have no noise."""
    known, asked = Pairs(600), Pairs(50, seed=1)
    scales = {name: 0.0 for name in DEFAULT_SCALES} | {"constant": 1.0, "action": 1.0, "state": 1.0, "bilinear": 1.0}
    model = GaussianProcess(known.features, noise=noise, scales=scales)
    reward = known.state[:, 0] * known.action[:, 1]
    with th.no_grad():
        for row in range(len(reward)):
            model.observe(*known.of(slice(row, row + 1)), reward[row : row + 1])
        parts = [model._parts(pairs.state, pairs.action.unsqueeze(1), None).to(th.float64) for pairs in (known, asked)]
        covariance = model._kernel(parts[0], parts[0]) + noise**2 * th.eye(600)
        cross = model._kernel(parts[1], parts[0])
        wanted = cross @ th.linalg.solve(covariance, reward.double())
        variance = model._variance(parts[1]) - (cross * th.linalg.solve(covariance, cross.T).T).sum(dim=1)
        mean, spread = asked.ask(model)
    assert (mean - wanted).abs().max() < 0.05 * variance.sqrt().max()
    assert (spread - variance.sqrt()).abs().max() < 0.05 * variance.sqrt().max()
    assert mean.dtype == spread.dtype == th.float32


@pytest.mark.parametrize("p", [0, 3])
@pytest.mark.parametrize("noise", [0.3, 0.05])
def test_a_large_set_gets_the_values_of_its_candidates_one_by_one(noise, p, monkeypatch):
    known = Pairs(80, p)
    model = GaussianProcess(known.features, noise=noise, scales=SCALES, learn_pair_scale=bool(p))
    asked = known.state[:3], known.action.expand(3, -1, -1), None if p == 0 else known.pairs.expand(3, -1, -1)
    with th.no_grad():
        model.observe(*known.of(slice(0, 40)), known.state[:40, 0] * known.action[:40, 1])
        one_by_one = model.score(*asked)[0]
        monkeypatch.setattr(gaussian_process, "_MANY", 10)
        mean = model.score(*asked, with_spread=False)[0]
    np.testing.assert_allclose(mean, one_by_one, atol=1e-4)
    assert mean.dtype == th.float32


def test_scales_are_fitted_where_a_trial_point_is_beyond_all_measure(monkeypatch):
    """A step of the search may be so long that the noise is lost beside the scales."""
    known = Pairs(60)
    model = GaussianProcess(known.features, noise=0.3, fit_scales=True)
    search = gaussian_process._minimise

    def with_a_long_step(density, offset):
        with th.no_grad():
            offset[0], offset[-1] = 25.0, -15.0  # the scale of the constant, which all pairs share, and the noise
        assert density().isfinite()
        with th.no_grad():
            offset.zero_()
        search(density, offset)

    monkeypatch.setattr(gaussian_process, "_minimise", with_a_long_step)
    with th.no_grad():
        model.observe(*known.of(slice(0, 60)), known.state[:, 0])
    assert model.scales != {**DEFAULT_SCALES}
