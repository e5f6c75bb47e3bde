import numpy as np
import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from dynaq_algo import DynaQ
from experiments.runs.build import build
from experiments.runs.datasets import cosine_pairs, load_dataset, save_dataset, to_pretrain
from experiments.runs.training import run_training
from jobrec_gym import load_market
from jobrec_gym.rewards import MATCHED


@pytest.fixture
def market():
    return load_market("default", n_jobs=60, n_applicants=40)


def test_pairs_are_distinct_of_training_and_the_same_for_a_seed(market):
    first, second, other = (cosine_pairs(market, 200, seed=seed) for seed in (3, 3, 4))

    for key in first:
        np.testing.assert_array_equal(first[key], second[key])
    assert (first["job_id"] != other["job_id"]).any()
    assert len({*zip(first["applicant_id"], first["job_id"], strict=True)}) == 200
    assert np.isin(first["applicant_id"], market.applicants.rows("train")).all()
    assert np.isin(first["job_id"], market.jobs.rows("train")).all()


def test_rewards_are_cosines_in_the_scale_asked_for(market):
    unit, raw, matched = (cosine_pairs(market, 200, scale=scale) for scale in ("unit", "raw", "matched"))

    cosine = market.cosine(raw["applicant_id"], raw["job_id"])
    np.testing.assert_allclose(raw["reward"], cosine, atol=1e-6)
    np.testing.assert_allclose(unit["reward"], (1 + cosine) / 2, atol=1e-6)
    assert (matched["reward"].mean(), matched["reward"].std()) == pytest.approx(MATCHED, abs=1e-4)


def test_opposite_rewards_are_matched_and_mislead(market):
    matched, opposite = (cosine_pairs(market, 200, scale=scale)["reward"] for scale in ("matched", "opposite"))

    assert (opposite.mean(), opposite.std()) == pytest.approx(MATCHED, abs=1e-4)
    assert np.corrcoef(matched, opposite)[0, 1] == pytest.approx(-1, abs=1e-4)


def test_there_are_no_more_pairs_than_there_are(market):
    n_all = len(market.applicants.rows("train")) * len(market.jobs.rows("train"))

    assert len(cosine_pairs(market, 10**6)["reward"]) == n_all


def test_a_file_has_the_same_bytes_each_time_and_comes_back(market, tmp_path):
    pairs = cosine_pairs(market, 50)
    for name in "ab":
        save_dataset(tmp_path / f"{name}.npz", pairs, market)

    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    loaded = load_dataset(tmp_path / "a.npz", market)
    for key, values in pairs.items():
        np.testing.assert_array_equal(loaded[key], values)


def test_a_file_of_another_market_is_refused(market, tmp_path):
    save_dataset(tmp_path / "a.npz", cosine_pairs(market, 50), market)

    with pytest.raises(ValueError, match="another market"):
        load_dataset(tmp_path / "a.npz", load_market("default", n_jobs=61, n_applicants=40))
    with pytest.raises(ValueError, match="no whole data set"):
        load_dataset(tmp_path / "missing.npz", market)


@pytest.mark.parametrize("observation", ["ids", "features"])
def test_an_agent_pretrains_on_the_pairs(small, observation):
    setup = build(small(f"env.observation={observation}"))
    market, env = setup.market, setup.env
    model = setup.algorithm.make(env)
    before = model.policy.q_net.first.weight.detach().clone()

    dataset = to_pretrain(cosine_pairs(market, 50), market, env.unwrapped.action_features, ids=observation == "ids")
    losses = model.pretrain(dataset, epochs=1)

    assert np.isfinite(losses["model_loss"])
    assert not (model.policy.q_net.first.weight == before).all()


@pytest.mark.parametrize("observation", ["ids", "features"])
def test_a_run_pretrains_with_the_pair_features_that_it_shows(small, tmp_path, monkeypatch, observation):
    cfg = small(
        f"env.observation={observation}",
        "env.pair_features=[hard_coverage,seniority]",
        "pretrain.epochs=1",
        "pretrain.n_pairs=50",
        "total_timesteps=20",
    )
    setup = build(cfg)
    shown, pretrain = [], DynaQ.pretrain
    monkeypatch.setattr(DynaQ, "pretrain", lambda self, data, **kwargs: (shown.append(data), pretrain(self, data))[1])
    run_training(setup, tmp_path)

    pairs = cosine_pairs(setup.market, 50, seed=setup.seed)
    wanted = build(cfg).env.unwrapped.pair_features(pairs["applicant_id"], pairs["job_id"])
    np.testing.assert_array_equal(shown[0]["pairs"], wanted)


def test_a_small_market_pretrains_for_as_many_updates_as_a_large_one(run, monkeypatch):
    """Two epochs over its 3,360 pairs would be 106 updates."""
    updates, update = [], DynaQ._update_offline
    monkeypatch.setattr(DynaQ, "_update_offline", lambda self, *batch: (updates.append(batch), update(self, *batch))[1])
    summary = run(
        *("algo=dynaq_tuned", "algo.policy_kwargs.features=blockwise", "algo.policy_kwargs.net_arch=[128,128]"),
        *("algo.batch_size=64", "algo.learning_starts=0"),
        *("market=recorded", "simulator=recorded", "reward=llm", "total_timesteps=0", "pretrain.n_pairs=33600"),
        folder="small",
    )

    assert (summary["pretrain"]["n_pairs"], summary["pretrain"]["epochs"]) == (3_360, 20)
    assert len(updates) == 20 * 53 and abs(len(updates) - 2 * 525) <= 10, "a large market makes 525 an epoch"
    assert summary["held_out"]["score"] > 0.9 * summary["references"]["cosine"]["score"]


@pytest.mark.parametrize(
    ("n_pairs", "batch_size", "epochs"),
    [
        (3_361, 64, 2),  # a pair too few is no reason for another epoch
        (6_720, 64, 4),
        (33_600, 5_000, 14),  # 7 batches against one
        ("null", 64, 2),
    ],
)
def test_epochs_rise_only_as_far_as_updates_are_missing(run, monkeypatch, n_pairs, batch_size, epochs):
    monkeypatch.setattr(DynaQ, "pretrain", lambda self, data, **kwargs: {"loss": 0.0, "model_loss": 0.0})
    summary = run(
        *("algo=dynaq_tuned", f"algo.batch_size={batch_size}", f"pretrain.n_pairs={n_pairs}", "pretrain.epochs=2"),
        *("market=recorded", "simulator=recorded", "reward=llm", "total_timesteps=0"),
    )

    assert (summary["pretrain"]["n_pairs"], summary["pretrain"]["epochs"]) == (3_360, epochs)


def test_a_file_with_vectors_pretrains_as_it_is(small, tmp_path):
    setup = build(small("env.observation=features"))
    market = setup.market
    save_dataset(tmp_path / "a.npz", cosine_pairs(market, 50), market, vectors=True)

    with np.load(tmp_path / "a.npz") as dataset:
        losses = setup.algorithm.make(setup.env).pretrain(dataset, epochs=1)

    assert np.isfinite(losses["loss"])


def test_a_run_takes_the_file(run, small, tmp_path):
    market = build(small()).market
    save_dataset(tmp_path / "a.npz", cosine_pairs(market, 100), market)

    from_file = run(f"pretrain.dataset={tmp_path / 'a.npz'}", "pretrain.epochs=1", folder="file")
    drawn = run("pretrain.epochs=1", folder="drawn")

    assert from_file["held_out"] == drawn["held_out"]
