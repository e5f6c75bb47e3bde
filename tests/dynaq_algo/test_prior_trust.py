"""A prior of several sources: exact trust in each, and agents that keep the right one and drop the wrong one."""

import numpy as np
import pytest
import torch as th
from toy import ToyEnv

from dynaq_algo import DynaQ, GaussianProcessBandit, LinearBandit, gaussian_process
from dynaq_algo.features import BlockwiseFeatures
from dynaq_algo.gaussian_process import SCALES_WITH_SOURCES, GaussianProcess
from dynaq_algo.prior_beliefs import MULTIPLES, PROBABILITIES, about_sources, given_scales
from dynaq_algo.prior_trust import FactorPrior, source_weights, sources_of

SCALES = {"constant": 1.0}


class Told(ToyEnv):
    """The toy whose reward is the first of two named numbers; it says which of them are sources."""

    def __init__(self, names=("right", "wrong"), described="told", **kwargs):
        super().__init__(pairs=True, **kwargs)
        self.pair_feature_names = names
        self.prior_sources = dict.fromkeys(names, described)


ONE_BLOCK = {"policy_kwargs": {"features_kwargs": {"n_blocks": 1}, "prior": [0.1]}}  # the toy's vectors are of 3


def by_quadrature(by_reward, by_source, power, prior):
    """Mean, covariance, kept, dropped and log evidence of two factors: each spike a point, each slab a fine grid."""
    grid = np.linspace(-6, 6, 1201)
    density = np.exp(-0.5 * ((grid - prior.centre) / prior.width) ** 2)
    slab = (1 - prior.kept - prior.dropped) * density / density.sum()
    points = np.concatenate([[1.0, 0.0], grid])
    mass = np.concatenate([[prior.kept, prior.dropped], slab])
    f = np.stack(np.meshgrid(points, points, indexing="ij"), axis=-1)
    log = power * (f @ by_reward - 0.5 * np.einsum("abi,ij,abj->ab", f, by_source, f))
    weight = np.outer(mass, mass) * np.exp(log)
    evidence = weight.sum()
    weight /= evidence
    mean = np.array([weight.sum(axis=1) @ points, weight.sum(axis=0) @ points])
    covariance = np.einsum("ab,abi,abj->ij", weight, f - mean, f - mean)
    return (
        mean,
        covariance,
        [weight[0].sum(), weight[:, 0].sum()],
        [weight[1].sum(), weight[:, 1].sum()],
        np.log(evidence),
    )


@pytest.mark.parametrize("power", [0.5, 2.0])
def test_the_posterior_of_the_factors_is_that_of_quadrature(power):
    prior = FactorPrior(2)
    by_reward, by_source = np.array([2.5, -0.4]), np.array([[3.0, 1.1], [1.1, 2.0]])

    found = prior.posterior(by_reward, by_source, power)

    for value, wanted in zip(found, by_quadrature(by_reward, by_source, power, prior), strict=True):
        np.testing.assert_allclose(value, wanted, atol=1e-6)


def test_a_source_and_a_weight_of_unknown_scale_are_those_of_quadrature():
    prior, by_reward, by_term = FactorPrior(1), np.array([2.5, 1.5]), np.array([[6.0, 2.0], [2.0, 5.0]])

    given = given_scales(by_reward, by_term, 1, 0.8)
    found = about_sources(given, prior, 1.0)

    slab = np.linspace(-4, 5, 1201)
    density = np.exp(-0.5 * ((slab - prior.centre) / prior.width) ** 2)
    factors = np.concatenate([[1.0, 0.0], slab])
    mass = np.concatenate([[prior.kept, prior.dropped], (1 - prior.kept - prior.dropped) * density / density.sum()])
    weights = np.linspace(-6, 6, 1201)
    of_scale = [np.exp(-0.5 * (weights / (0.8 * multiple)) ** 2) for multiple in MULTIPLES]
    of_weight = sum(p * part / part.sum() for p, part in zip(PROBABILITIES, of_scale, strict=True))
    c = np.stack(np.meshgrid(factors, weights, indexing="ij"), axis=-1)
    joint = np.outer(mass, of_weight) * np.exp(c @ by_reward - 0.5 * np.einsum("abi,ij,abj->ab", c, by_term, c))
    joint /= joint.sum()
    mean = np.einsum("ab,abi->i", joint, c)
    np.testing.assert_allclose(found.coefficients.mean, mean, atol=1e-4)
    covariance = np.einsum("ab,abi,abj->ij", joint, c - mean, c - mean)
    np.testing.assert_allclose(found.coefficients.covariance, covariance, atol=1e-4)
    np.testing.assert_allclose([found.trust.kept[0], found.trust.dropped[0]], joint[:2].sum(axis=1), atol=1e-4)


def test_without_an_answer_the_factors_are_as_believed():
    found = FactorPrior(3, kept=0.2, dropped=0.5, centre=0.0).posterior(np.zeros(3), np.zeros((3, 3)))

    np.testing.assert_allclose([found.mean, found.kept, found.dropped], np.outer([0.2, 0.2, 0.5], np.ones(3)))


def answered(n=60, seed=0, reward=lambda z: 0.2 * z[:, 0], sources=("right", "wrong"), **kwargs):
    """A model that was told n rewards of pairs whose numbers are two sources and one more."""
    rng = np.random.default_rng(seed)
    features = BlockwiseFeatures(6, 6, n_pairs=3)
    features.fit(rng.normal(size=(50, 6)))
    numbers = rng.random((1_000, 3)).astype(np.float32)
    features.fit_sample(np.ones((1, 6), np.float32), np.ones((1, 1_000, 6), np.float32), numbers[None])
    state, action = (th.as_tensor(rng.normal(size=(n, 6)), dtype=th.float32) for _ in range(2))
    pairs = th.as_tensor(rng.random((n, 3)), dtype=th.float32)
    model = GaussianProcess(
        features, scales=SCALES, prior_sources=sources, pair_names=("right", "wrong", "own"), **kwargs
    )
    told = reward(features.scaled(pairs).double()) + 0.1 * th.as_tensor(rng.normal(size=n))
    model.observe(state, action, pairs, told)
    return model, (state, action, pairs), told


def test_the_right_source_is_kept_and_the_wrong_one_is_dropped():
    trust = answered()[0].trust()
    assert trust.mean[0] == pytest.approx(1, abs=0.2) and trust.kept[0] > 0.8
    assert trust.mean[1] == pytest.approx(0, abs=0.1) and trust.dropped[1] > 0.8


def test_a_source_that_says_the_contrary_is_turned_round():
    trust = answered(reward=lambda z: -0.2 * z[:, 1])[0].trust()
    assert trust.mean[1] < -0.7 and trust.dropped[0] > 0.8


@pytest.mark.parametrize(("scales", "scale"), [(None, 0.1), ({"similarity": 0.03}, 0.03)])
def test_a_half_right_source_is_not_trusted_for_what_similarities_explain(scales, scale):
    rng = np.random.default_rng(0)
    features = BlockwiseFeatures(6, 6, n_pairs=1)
    features.fit(rng.normal(size=(50, 6)))
    state, action = (th.as_tensor(rng.normal(size=(60, 6)), dtype=th.float32) for _ in range(2))
    fit = features.of_blocks(state, action).sum(dim=1)
    pairs = (fit + fit.std() * th.as_tensor(rng.normal(size=60))).unsqueeze(1).float()
    features.fit_sample(state.numpy(), action[:, None], pairs[:, None].numpy())
    model = GaussianProcess(features, scales=scales, prior_sources=["half"], pair_names=["half"])
    model.observe(state, action, pairs, 0.2 * fit)

    assert (model.scales["similarity"], model.scales["trust"]) == (scale, 0.0)
    assert (model.trust().mean[0] < 0.25) == (scale == 0.1)


def test_more_answers_of_another_kind_of_noise_do_not_make_it_surer_than_they_are():
    noise = th.as_tensor(np.random.default_rng(3).normal(size=60))
    calm, wild = (answered(reward=lambda z, size=size: 0.2 * z[:, 0] + size * noise)[0].trust() for size in (0.0, 2.0))
    assert wild.covariance[0, 0] > 3 * calm.covariance[0, 0]


def test_given_the_factors_the_mean_is_the_textbooks_and_their_doubt_is_in_the_spread():
    model, (state, action, pairs), told = answered(20)
    trust = model.trust()
    one = GaussianProcess(
        model.features,
        [0.0, 0.0, *(0.2 * trust.mean), 0.0],
        {**SCALES, **SCALES_WITH_SOURCES, "pairs": 0.0, "quadratic": 0.0},
    )
    model.scales |= {"pairs": 0.0, "quadratic": 0.0}
    model._solve()
    one.observe(state, action, pairs, told)
    trust = model.trust()  # that of the new scales
    one.prior[2:4] = th.as_tensor(0.2 * trust.mean)
    one.set_extra_state(one.get_extra_state())
    one._solve()

    rng = np.random.default_rng(9)
    new = th.as_tensor(rng.normal(size=(5, 6)), dtype=th.float32), th.as_tensor(rng.normal(size=(5, 4, 6))).float()
    numbers = th.as_tensor(rng.random((5, 4, 3)), dtype=th.float32)
    (mean, spread), (wanted, without) = model.score(*new, numbers), one.score(*new, numbers)

    np.testing.assert_allclose(mean, wanted, atol=1e-5)
    assert (spread > without).all()
    joint_mean, joint = model.joint(new[0][0], new[1][0], numbers[0])
    np.testing.assert_allclose(joint_mean, mean[0], atol=1e-4)
    np.testing.assert_allclose(joint.diagonal().sqrt(), spread[0], atol=1e-4)


def test_a_source_is_no_number_that_the_kernel_compares():
    model, (state, action, pairs), _ = answered(20)
    before = model._kernel(*[model._parts(state, action.unsqueeze(1), pairs.unsqueeze(1))] * 2)
    pairs[:, :2] = 0.5
    np.testing.assert_array_equal(
        model._kernel(*[model._parts(state, action.unsqueeze(1), pairs.unsqueeze(1))] * 2), before
    )


def test_a_whole_catalogue_has_the_means_that_each_pair_has_alone_with_sources(monkeypatch):
    model, (state, action, pairs), _ = answered(40)
    catalogue, numbers = action.expand(3, -1, -1), pairs.expand(3, -1, -1)
    alone, _ = model.score(state[:3], catalogue.clone(), numbers, with_spread=False)
    monkeypatch.setattr(gaussian_process, "_MANY", 1)
    monkeypatch.setattr(model, "_kernel", lambda *_: pytest.fail("a covariance of each pair was computed"))

    np.testing.assert_allclose(model.score(state[:3], catalogue, numbers, with_spread=False)[0], alone, atol=2e-5)


@pytest.mark.parametrize(
    ("make", "given"),
    [(DynaQ.plus, ONE_BLOCK), (GaussianProcessBandit, {"n_blocks": 1}), (LinearBandit, {})],
    ids=["plus", "gp", "linear"],
)
def test_an_agent_learns_whom_to_trust_and_its_file_says_what_it_read(make, given, tmp_path):
    agent = make(Told(terminate_at=1), seed=0, prior_sources=["blocks", "right", "wrong"], **given).learn(60)
    if isinstance(agent, LinearBandit):
        trust = {name: mean for name, (mean, _) in agent.source_trust().items()}
    else:
        model = agent.world_model if isinstance(agent, DynaQ) else agent.model
        trust = dict(zip(model.sources, model.trust().mean, strict=True))
    assert trust["right"] > 0.8 and abs(trust["wrong"]) < 0.35

    agent.save(tmp_path / "agent.zip")
    obs, _ = Told(terminate_at=1).reset(seed=5)
    loaded = type(agent).load(tmp_path / "agent.zip", Told(terminate_at=1))
    assert loaded.q_values(obs).tolist() == agent.q_values(obs).tolist()
    with pytest.raises(ValueError, match=r"`prior_sources` was .*told.*, and is .*other"):
        type(agent).load(tmp_path / "agent.zip", Told(described="other", terminate_at=1))


def test_a_file_says_how_its_language_models_were_asked_and_earlier_files_do_not(tmp_path):
    def asking(address):
        env = Told(terminate_at=1)
        if address is not None:
            env.source_settings = {"right": address}
        return env

    for before, now in (("here", "here"), (None, "here")):
        agent = LinearBandit(asking(before), prior_sources=["right"])
        agent.save(tmp_path / "agent.zip")
        assert LinearBandit.load(tmp_path / "agent.zip", asking(now)).reads["source_settings"] == {"right": now}
    LinearBandit(asking("here"), prior_sources=["right"]).save(tmp_path / "agent.zip")
    for other in ("there", None):
        with pytest.raises(ValueError, match="`source_settings` was .*here.*, and is "):
            LinearBandit.load(tmp_path / "agent.zip", asking(other))


def test_plus_takes_sources_for_no_pair_features():
    bonus = {
        names: DynaQ.plus(Told(terminate_at=1), prior_sources=names or None, **ONE_BLOCK).exploration_bonus
        for names in ((), ("right",), ("right", "wrong"))
    }
    assert bonus[()] == bonus["right",] < bonus["right", "wrong"]
    assert bonus["right", "wrong"] == DynaQ.plus(ToyEnv(), **ONE_BLOCK).exploration_bonus


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (["rihgt"], "did you mean 'right'"),
        ([], "1 to 4 different sources"),
        (["right", "right"], "1 to 4 different sources"),
        ("right", r"\['right'\]"),
        ({"right": 0.0}, "other than 0"),
        ({"right": float("nan")}, "finite weight"),
    ],
)
def test_sources_that_cannot_be_are_refused(sources, message):
    with pytest.raises(ValueError, match=message):
        DynaQ.plus(Told(terminate_at=1), prior_sources=sources, **ONE_BLOCK)


def test_a_model_without_trust_is_refused_sources():
    with pytest.raises(ValueError, match="`prior_sources` need"):
        DynaQ.plus(Told(terminate_at=1), prior_sources=["right"], world_model="network")
    with pytest.raises(ValueError, match="replaces `cosine_prior`"):
        LinearBandit(Told(terminate_at=1), prior_sources=["right"], cosine_prior=0.1)
    with pytest.raises(ValueError, match=r"needs `prior_sources`"):
        GaussianProcess(BlockwiseFeatures(4, 4)).trust()


def test_weights_stand_where_their_source_stands():
    weights, is_source = source_weights({"b": 0.1, "blocks": 0.3}, 2, 2, 3, ["a", "b", "c"])
    assert weights.T.tolist() == [[0, 0, 0, 0.1, 0], [0.3, 0.3, 0, 0, 0]]
    assert is_source.tolist() == [False, True, False]
    assert sources_of(["a"]) == {"a": 0.2}
