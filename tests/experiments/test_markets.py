"""Runs on markets other than the default one."""

import os
from pathlib import Path

import pytest

from experiments.runs import training
from experiments.runs.build import build
from jobrec_gym import load_market

SHARED = Path(os.environ.get("JOBREC_SHARED_DATA") or Path(__file__).parents[3] / "shared" / "data")
RELEASES = {"onet": "onet/db_29_3_text.zip", "esco": "esco/esco_1.1.1_classification_en_csv.zip"}
SHORT = [
    "env.num_candidates=5",
    "total_timesteps=30",
    "evaluation.n_pairs=64",
    "evaluation.n_episodes=16",
    "evaluation.at=[0,10]",
    "evaluation.interval=20",
    "algo.policy_kwargs.net_arch=[8]",
    "algo.learning_starts=8",
    "algo.batch_size=8",
]


@pytest.fixture
def run_on(config, tmp_path):
    def ran(*overrides):
        setup = build(config("train", *SHORT, *overrides))
        return training.run_training(setup, tmp_path / overrides[0], list(overrides))

    return ran


@pytest.mark.parametrize("scheme", RELEASES)
def test_a_run_on_a_public_classification_ends_with_a_summary(run_on, scheme):
    release = SHARED / RELEASES[scheme]
    if not release.is_file():
        pytest.skip(f"{release} is not here (JOBREC_SHARED_DATA names the folder)")
    summary = run_on(
        f"market={scheme}",
        f"market.path={release}",
        "market.encoder=hashing",
        "market.max_occupations=60",
        "market.n_applicants=50",
    )
    assert summary["interactions"] == 30
    assert summary["market"]["n_jobs"] <= 60
    assert summary["references"]["oracle"]["score"] == 1.0


def test_a_run_on_a_saved_market_equals_one_on_the_market(run_on, tmp_path):
    load_market("default", n_jobs=60, n_applicants=40).save(tmp_path / "market")
    saved = run_on("market=saved", f"market.path={tmp_path / 'market'}")
    generated = run_on("market=default", "market.n_jobs=60", "market.n_applicants=40")
    assert saved["held_out"] == generated["held_out"]
