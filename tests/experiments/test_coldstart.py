import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from omegaconf import OmegaConf
from scipy.stats import trim_mean

from dynaq_algo import WorldModel
from dynaq_algo.gaussian_process import DEFAULT_SCALES
from experiments import build
from experiments.build import build_algorithm, build_env, build_market
from experiments.coldstart import OPPONENTS, POINTS, Study, interval, judge, probability_of_improvement
from experiments.runs import RunError

ROOT = Path(build.__file__).parents[1]
LEARNERS = OmegaConf.load(ROOT / "conf/coldstart.yaml").learners


def test_the_interval_is_of_the_interquartile_mean():
    values = np.random.default_rng(0).normal(1.0, 0.1, 12)

    middle, low, high = interval(values, reps=500)

    assert middle == pytest.approx(trim_mean(values, 0.25))
    assert low < middle < high
    assert high - low < 0.2
    assert interval(values, reps=500) == (middle, low, high)


def test_the_probability_of_improvement_compares_seed_by_seed_and_counts_ties_half():
    assert probability_of_improvement(np.array([1.0, 2.0, 0.1]), np.array([1.0, 0.0, 0.2])) == pytest.approx(0.5)
    assert probability_of_improvement(np.array([0.1, 0.6]), np.array([0.0, 0.5])) == 1.0


SECONDS = {"one": np.full(4, 3.0), "other": np.full(4, 4.0)}


def study_of(points, n_seeds=4, **curves):
    """Learners with equal scores in all seeds; `name=(scores, regret)`."""
    return Study(
        {name: np.tile(np.asarray(scores, float), (n_seeds, 1)) for name, (scores, _) in curves.items()},
        {name: np.full(n_seeds, float(regret)) for name, (_, regret) in curves.items()},
        {name: np.ones(n_seeds) for name in curves},
        points,
        reps=20,
    )


def test_goals_are_judged_by_the_figures():
    flat = {opponent: ([0.4] * 8, 100) for opponent in OPPONENTS}
    noplan = {"dynaq_plus_noplan": ([0.4] * 8, 100)}
    good = study_of(POINTS, dynaq_plus=([0.41] * 8, 90), **flat, **noplan)
    assert [verdict.verdict for verdict in judge(good)] == ["holds"] * 4 + ["not judged"] * 2

    falls = [0.41, 0.37, 0.39, *[0.41] * 5]
    bad = study_of(POINTS, dynaq_plus=(falls, 91), **flat, **noplan)
    assert [verdict.verdict for verdict in judge(bad)] == ["fails"] * 4 + ["not judged"] * 2
    assert "-0.030, after 20" in judge(bad)[0].figures
    assert "0.91 of" in judge(bad)[2].figures

    level = study_of(POINTS, dynaq_plus=([0.4] * 8, 50), **flat)
    assert judge(level)[1].verdict == "fails"  # no better in most worlds


def test_goals_that_lack_points_or_learners_are_not_judged_but_told():
    short = study_of((0, 20, 50), dynaq_plus=([0.5] * 3, 1), cosine=([0.4] * 3, 2), dynaq_plus_noplan=([0.4] * 3, 2))
    verdicts = judge(short)
    assert {verdict.verdict for verdict in verdicts} == {"not judged"}
    assert "+0.100" in verdicts[0].figures
    assert {verdict.verdict for verdict in judge(study_of((0, 50), cosine=([0.4] * 2, 2)))} == {"not judged"}


def test_other_markets_are_judged_by_the_first_two_goals():
    def elsewhere(score):
        others = {name: ([0.4] * 8, 100) for name in ("cosine", "linucb", "linear_prior", "linear_blocks")}
        return study_of(POINTS, dynaq_plus=([score] * 8, 90), **others)

    def verdict(**studies):
        return judge(study_of((0,), random=([0], 1)), elsewhere=studies)[-1]

    assert verdict(generator=elsewhere(0.41), onet=elsewhere(0.41)).verdict == "holds"
    assert verdict(generator=elsewhere(0.41), onet=elsewhere(0.39)).verdict == "fails"
    assert verdict(onet=elsewhere(0.41)).verdict == "not judged"
    assert "onet: 2 holds (least lead +0.010" in verdict(onet=elsewhere(0.41)).figures


def test_a_study_survives_its_json():
    study = study_of((0, 50), cosine=([0.4, 0.5], 2), dynaq_plus=([0.5, 0.6], 1))
    again = Study.from_json(json.loads(json.dumps(study.to_json())), 20)

    assert again.table() == study.table()
    assert len(list(again.rows(range(4)))) == 2 * 4 * 2


def test_a_misleading_prior_is_judged_against_no_prior():
    def verdict(misled):
        return judge(study_of((0, 800), dynaq_plus_misled=([0, misled], 1), dynaq_plus_no_prior=([0, 0.5], 1)))[
            4
        ].verdict

    assert (verdict(0.41), verdict(0.4)) == ("holds", "fails")


def test_a_study_of_known_scores_is_told_as_it_is(tmp_path):
    scores = {"one": np.full((4, 2), 0.5), "other": np.tile([0.1, 0.9], (4, 1))}
    study = Study(scores, {"one": np.full(4, 10.0), "other": np.full(4, 20.0)}, SECONDS, [0, 100], reps=50)

    header, rows = study.table()

    assert header == ["IQM of the score after", "0", "100", "regret", "seconds"]
    assert rows == [
        ["one", "0.50 [0.50, 0.50]", "0.50 [0.50, 0.50]", "10 [10, 10]", "3"],
        ["other", "0.10 [0.10, 0.10]", "0.90 [0.90, 0.90]", "20 [20, 20]", "4"],
    ]
    study.plot(tmp_path / "study.png")
    assert (tmp_path / "study.png").stat().st_size > 1_000
    assert study.to_json()["scores"]["other"][0] == [0.1, 0.9]


def test_a_missing_run_is_named(tmp_path, run):
    run("algo=random", "total_timesteps=10", "evaluation.at=[0,10]", folder="random")

    with pytest.raises(RunError, match="seeds \\[1\\]"):
        Study.read({"random": tmp_path / "random"}, [0, 1], [0, 10], 10)
    with pytest.raises(RunError, match="points at \\[20\\]"):
        Study.read({"random": tmp_path / "random"}, [0], [0, 20], 10)
    assert Study.read({"random": tmp_path / "random"}, [0], [0, 10], 10).scores["random"].shape == (1, 2)


def test_the_command_runs_what_is_missing_and_prints_the_table(tmp_path):
    sizes = ("market.n_jobs=60", "market.n_applicants=40", "env.num_candidates=5", "evaluation.n_pairs=32")
    common = f"common={json.dumps(sizes)}"
    command = [
        *(sys.executable, "-m", "experiments.coldstart", "preset=quick", "only=[cosine,linucb]", "seeds=[0,1]"),
        *("interactions=20", "n_jobs=1", "reps=20", f"folder={tmp_path}", common),
    ]
    first = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert first.returncode == again.returncode == 0, first.stderr + again.stderr
    assert first.stdout == again.stdout
    assert [line.split()[0] for line in first.stdout.splitlines()[2:4]] == ["cosine", "linucb"]
    numbers = json.loads((tmp_path / "coldstart.json").read_text())
    assert np.array(numbers["scores"]["cosine"]).shape == (2, 2)
    assert len(set(np.array(numbers["scores"]["cosine"])[0])) == 1
    assert "finished" in again.stderr
    report = [sys.executable, "-m", "experiments.report", f"runs={tmp_path}"]
    assert subprocess.run(report, cwd=ROOT, capture_output=True).returncode == 0
    page = (tmp_path / "report" / "report.html").read_text()
    assert "The cold start: quick" in page
    assert "not judged" in page
    quadrants = [
        sys.executable,
        "-m",
        "experiments.quadrants",
        f"runs={tmp_path}",
        "only=[cosine,linucb]",
        "n_pairs=16",
    ]
    done = subprocess.run(quadrants, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / "quadrants.json").read_text())["scores"]
    assert {len(values) for values in scores["linucb"].values()} == {2}
    assert len({values[0] for values in scores["linucb"].values()}) == 4


def test_a_study_at_levels_tells_each(tmp_path):
    sizes = ("market.n_jobs=60", "market.n_applicants=40", "env.num_candidates=5", "evaluation.n_pairs=32")
    command = [
        *(sys.executable, "-m", "experiments.coldstart", "preset=noise", "only=[cosine]", "seeds=[0,1]"),
        *("interactions=20", "n_jobs=1", "reps=20", f"folder={tmp_path}", f"common={json.dumps(sizes)}"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert all(f"{share} %" in done.stdout.splitlines()[0] for share in (0, 10, 25, 50))
    levels = json.loads((tmp_path / "coldstart.json").read_text())["levels"]
    assert levels["50 %"]["overrides"] == ["+simulator.corruption=0.5"]
    # Corruption changes what is answered, not what is best: cosine's choices are worth the same share of it.
    assert levels["50 %"]["scores"]["cosine"] == pytest.approx(np.array(levels["0 %"]["scores"]["cosine"]))
    assert (tmp_path / "coldstart.png").stat().st_size > 1_000


@pytest.mark.parametrize(("option", "name"), [("only=[dynak]", "`only`"), ("preset=onet", "`path`")])
def test_what_cannot_be_is_named(option, name):
    command = [sys.executable, "-m", "experiments.coldstart", option]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert done.returncode != 0
    assert name in done.stderr


def test_every_learner_of_every_preset_is_a_run_that_can_be_composed(config):
    presets = {}
    for path in sorted((ROOT / "conf/preset").glob("*.yaml")):
        chosen = config("coldstart", f"preset={path.stem}", *(["path=any.zip"] if path.stem == "onet" else []))
        presets[path.stem] = chosen
        assert chosen.name == path.stem
        assert set(chosen.only) <= set(chosen.learners)
    for overrides in presets["full"].learners.values():
        config("train", "experiment=coldstart", *overrides)
    for chosen in presets.values():
        config("train", "experiment=coldstart", *chosen.common)
    assert set(OPPONENTS) <= set(presets["full"].only)


def test_memory_taken_away_and_a_network_as_model_reach_the_agent(small):
    def agent(learner):
        overrides = ["algo=dynaq_plus", *LEARNERS[learner][1:]]
        cfg = small(*overrides)
        return build_algorithm(cfg, build_env(cfg, build_market(cfg)))

    scales = agent("dynaq_plus_no_memory").world_model.scales
    assert (scales["same_pair"], scales["bilinear"]) == (0, DEFAULT_SCALES["bilinear"])
    assert isinstance(agent("dynaq_plus_network_model").world_model, WorldModel)
