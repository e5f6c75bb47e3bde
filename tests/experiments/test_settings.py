"""Settings by name: where a cold start happens."""

import os
from pathlib import Path

import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from omegaconf import OmegaConf

from experiments.runs import build

SHARED = Path(os.environ.get("JOBREC_SHARED_DATA") or Path(__file__).parents[3] / "shared" / "data")
RELEASE = SHARED / "onet/db_29_3_text.zip"
SETTINGS = sorted(path.stem for path in (Path(build.__file__).parents[2] / "conf/setting").glob("*.yaml"))


def composed(config, *overrides):
    cfg = config("train", *overrides)
    return OmegaConf.to_container(cfg, resolve=True)


@pytest.mark.parametrize("setting", [name for name in SETTINGS if name != "onet"])
def test_every_setting_runs(run, setting):
    summary = run("algo=random", f"setting={setting}", "total_timesteps=10")

    assert summary["interactions"] == 10
    assert summary["references"]["oracle"]["score"] == pytest.approx(1.0)


def test_the_setting_onet_runs_on_the_release(run):
    if not RELEASE.is_file():
        pytest.skip(f"{RELEASE} is not here (JOBREC_SHARED_DATA names the folder)")
    sizes = ("market.encoder=hashing", "market.max_occupations=60", "market.n_applicants=50")
    summary = run("algo=random", "setting=onet", f"market.path={RELEASE}", *sizes, "total_timesteps=10")

    assert summary["market"]["n_jobs"] <= 60


def test_a_setting_brings_the_schedule_of_the_cold_start(config):
    alone = composed(config, "setting=profile")

    assert alone == composed(config, "experiment=coldstart", "setting=profile")
    assert (alone["total_timesteps"], alone["evaluation"]["at"][:3]) == (1500, [0, 20, 50])
    assert composed(config, "setting=recorded")["total_timesteps"] == 400


def test_another_experiment_keeps_its_schedule_in_a_setting(config):
    both = composed(config, "experiment=hybrid_offline", "setting=board")

    assert (both["total_timesteps"], both["market"]["n_jobs"]) == (20_000, 150)


@pytest.mark.parametrize("setting", [name for name in SETTINGS if name != "recorded"])
def test_a_seed_is_a_world_with_a_truth_and_candidates_of_its_own(config, setting):
    path = ("market.path=there",) if setting == "onet" else ()
    first, second = (composed(config, f"setting={setting}", f"seed={seed}", *path) for seed in (1, 2))

    assert [world["simulator"]["seed"] for world in (first, second)] == [1, 2]
    # Held-out candidates are drawn from seeds behind it: none may serve two worlds.
    gap = second["evaluation"]["seed"] - first["evaluation"]["seed"]
    assert gap >= first["evaluation"]["n_pairs"]
    assert first["simulator"]["noise"] == 0.5


def test_misled_is_world_by_world_the_setting_of_vectors(config):
    assert composed(config, "setting=misled", "seed=7") == composed(config, "setting=vectors", "seed=7")


def test_placed_is_profile_where_place_counts_and_is_shown(config):
    profile, placed = (composed(config, f"setting={name}") for name in ("profile", "placed"))

    truth = profile["simulator"] | {"weights": {"place": 1.0}}
    assert placed == profile | {
        "market": profile["market"] | {"context": ["place"]},
        "simulator": truth,
        "reward": profile["reward"] | {"simulator": truth},
        "env": profile["env"] | {"pair_features": [*profile["env"]["pair_features"], "place"]},
    }


def test_profile_shows_three_numbers_of_a_pair_and_blurs_them_on_request(config):
    vectors, profile, noisy = (composed(config, f"setting={name}") for name in ("vectors", "profile", "profile_noisy"))
    shown = {"pair_features": ["hard_coverage", "soft_coverage", "seniority"]}

    assert profile == vectors | {"env": vectors["env"] | shown}
    assert noisy == profile | {"env": profile["env"] | {"pair_noise": 0.3}}
