"""Learners on a log's answers: what is ranked, who is told what, and a real table where there is one."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from commands import run_command
from hydra import compose, initialize_config_dir

from dynaq_algo import DynaQ, LinearBandit
from experiments import replay
from experiments.adapters import avature
from experiments.learners.lexical import LEXICAL, cosine_scores, tfidf_scores
from experiments.runs.build import plain
from experiments.runs.folders import RunError
from experiments.studies.replaying import (
    LogSets,
    compose_on_log,
    folds_of,
    form_of,
    replay_learner,
    replay_scores,
)
from jobrec_gym import Interactions, ObservationForm, RuleSimulator, load_market

ROOT = Path(replay.__file__).parents[1]
AVATURE = ROOT.parent / "shared" / "data" / "avature"
IDS = ObservationForm("ids")


@pytest.fixture(scope="module")
def log():
    """Thirty people, twelve answers each; the last person has two."""
    market = load_market("default", n_jobs=60, n_applicants=40)
    people = np.repeat(np.arange(30), 12)
    jobs = np.concatenate([np.random.default_rng(person).permutation(60)[:12] for person in range(30)])
    people, jobs = np.append(people, [39, 39]), np.append(jobs, [0, 1])
    return Interactions.of(market, people, jobs, RuleSimulator(seed=0).bind(market).feedback(people, jobs).reward)


def sets_of(log, **changes):
    options = {"n_candidates": 6, "n_sets": 4, "form": IDS, "k": 3, "hit_above": 0.0, "seed": 0, **changes}
    return LogSets.of(log, **options)


def answers_of(log):
    """Reward of each (person, job)."""
    rows = zip(log.applicant_ids.tolist(), log.job_ids.tolist(), log.reward.tolist(), strict=True)
    return {(person, job): reward for person, job, reward in rows}


def test_sets_are_of_answered_jobs_with_their_answers(log):
    sets = sets_of(log)
    answers = answers_of(log)

    assert sets.sets.shape == (30 * 4, 6)
    for person, jobs, rewards in zip(sets.people.tolist(), sets.sets.tolist(), sets.reward.tolist(), strict=True):
        assert len(set(jobs)) == 6
        assert rewards == [answers[person, job] for job in jobs]
    assert 39 not in sets.people
    with pytest.raises(RunError, match="nobody in the log has answered so many jobs: the most is 12"):
        sets_of(log, n_candidates=13)


@pytest.mark.parametrize("rewards", [{"reward": 1.0}, {"reward": -0.1}], ids=str)
def test_a_log_in_which_everything_or_nothing_is_a_hit_is_refused(log, rewards):
    same = Interactions.of(log.market, log.applicant_ids, log.job_ids, np.full(len(log), rewards["reward"]))
    with pytest.raises(
        RunError, match=r"no set of answered jobs holds both a hit .* rewards are .*A log of hits alone"
    ):
        sets_of(same)


def test_learners_are_shown_what_the_market_knows_of_both_sides(log):
    form = ObservationForm("ids", pair_features=("place",))
    seen = []

    def make(env, fold):
        seen.append(env.unwrapped.pair_features(np.arange(3), np.arange(3)))
        return LinearBandit(env, seed=fold)

    replay_learner(make, log, sets_of(log, form=form), [0, 5], n_folds=2, seed=0)
    folds = folds_of(np.arange(30), 2, 0)
    for fold, values in enumerate(seen):
        others = np.flatnonzero(folds != fold)[:3]
        np.testing.assert_array_equal(values, form(log.market, others, np.arange(3)[:, None])["pairs"][:, 0])


@pytest.fixture
def conf():
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        yield


@pytest.mark.parametrize(("learner", "width"), [("dynaq_plus", 0), ("dynaq_plus_features", 768)])
def test_a_learner_is_shown_sets_in_the_form_of_its_own_config(conf, log, learner, width):
    form = form_of(plain(compose_on_log(learner, ["seniority"]))["env"])
    shapes = []

    def make(env, fold):
        shapes.append(env.single_observation_space["candidates"].shape)
        return LinearBandit(env, seed=fold)

    replay_learner(make, log, sets_of(log, form=form), [0, 5], n_folds=2, seed=0)
    assert set(shapes) == {(6, width) if width else (6,)}
    assert form.pair_features == ("seniority",)


def test_all_pair_features_may_be_shown(conf, log):
    form = form_of(plain(compose_on_log("linear_blocks", "all"))["env"])
    shown = [name for name, table in log.market.context.items() if table.shown]
    named = ObservationForm("ids", pair_features=("hard_coverage", "soft_coverage", "seniority", *shown))
    people, jobs = np.arange(3), np.arange(18).reshape(3, 6)
    np.testing.assert_array_equal(form(log.market, people, jobs)["pairs"], named(log.market, people, jobs)["pairs"])

    sets = sets_of(log, form=form)
    replay_learner(lambda env, fold: LinearBandit(env, seed=fold), log, sets, [0, 5], n_folds=2, seed=0)


def test_a_learner_that_is_defined_by_its_pretraining_is_pretrained_on_the_people_that_it_may_meet(
    conf, log, tmp_path, monkeypatch
):
    met = []

    def pretrain(agent, dataset, epochs, progress_bar):
        met.append({row.tobytes() for row in dataset["state"]})
        return {}

    monkeypatch.setattr(DynaQ, "pretrain", pretrain)
    log.market.save(tmp_path / "market")
    log.write_csv(tmp_path / "log.csv")
    given = {"log": str(tmp_path / "log.csv"), "source": str(tmp_path / "market"), "folder": str(tmp_path / "out")}
    sizes = {"n_candidates": 6, "n_sets": 2, "n_folds": 2, "points": [0], "reps": 10}
    options = {"learners": ["dynaq_tuned"], "rankings": ["cosine"], **sizes, **given}
    replay.main.__wrapped__(
        compose("replay", [f"{key}={str(value).replace(' ', '')}" for key, value in options.items()])
    )

    vectors = {row.tobytes() for row in log.market.applicants.vectors[:30]}
    assert [len(people) for people in met] == [15, 15]
    assert met[0] | met[1] == vectors and not met[0] & met[1]


def test_scores_are_means_over_the_sets_of_a_person():
    market = load_market("default", n_jobs=60, n_applicants=40)
    sets = LogSets(
        market,
        np.array([3, 3, 5]),
        np.array([[1, 2], [2, 3], [1, 2]]),
        np.array([[1.0, 0], [0, 1], [0, 0]]),
        IDS,
        1,
        0.0,
    )
    found = sets.score(np.array([[2.0, 1.0], [1.0, 1.0], [2.0, 1.0]]))

    assert found == {"AUC": {3: 0.75}, "nDCG@1": {3: 0.75}, "hit@1": {3: 0.75}}, "a tie counts one half"


@pytest.mark.parametrize(("hit_above", "auc"), [(0.0, 0.5), (-0.05, 1.0)])
def test_a_click_is_a_hit_only_if_the_limit_is_below_its_reward(hit_above, auc):
    market = load_market("default", n_jobs=3, n_applicants=1)
    log = Interactions.of(market, [0, 0, 0], [0, 1, 2], [0.0, 1.0, -0.1])
    sets = LogSets.of(log, 3, 1, IDS, 1, hit_above, seed=0)
    scores = np.array([[3.0, 2.0, 1.0][job] for job in sets.sets[0]])[None]

    assert sets.score(scores)["AUC"][0] == auc
    assert sets.score(scores)["nDCG@1"][0] == 0.0, "a click on top gains nothing"


def test_an_oracle_has_no_truth_of_people_whom_its_market_lacks(log, tmp_path):
    log.write_csv(tmp_path / "log.csv")
    log.market.save(tmp_path / "market")

    few = ["n_candidates=5", "n_sets=1", "points=[0]", "n_folds=2", "rankings=[]", "learners=[oracle]"]
    done = run_command("replay", f"log={tmp_path / 'log.csv'}", f"source={tmp_path / 'market'}", *few)

    assert done.returncode == 1
    assert "does not have, and the oracle knows the truth of its own applicants alone" in done.stderr


def test_a_log_of_applicants_who_move_is_scored_with_a_warning(log):
    with pytest.warns(UserWarning, match=r"the log is of applicants who change .* \(`moving`\)"):
        moving = sets_of(replace(log, moving=True))
    assert moving.sets.tolist() == sets_of(log).sets.tolist()


def test_folds_are_of_people_and_equal(log):
    folds = folds_of(np.arange(31), 5, seed=0)
    assert sorted(np.bincount(folds).tolist()) == [6, 6, 6, 6, 7]
    assert folds.tolist() != folds_of(np.arange(31), 5, seed=1).tolist()
    with pytest.raises(RunError, match=r"`n_folds` must be in \[2, 3\]"):
        folds_of(np.arange(3), 4, seed=0)


class Spy(LinearBandit):
    """Remembers whom it met and what it was told."""

    def __init__(self, env, met):
        super().__init__(env, alpha=0.3, cosine_prior=0.1, seed=0)
        self.met = met

    def observe(self, observation, action, reward):
        super().observe(observation, action, reward)
        job = observation["candidates"][np.arange(1), action]
        self.met.append((observation["applicant"][0].tobytes(), int(job[0]), float(reward[0])))


def test_a_learner_is_told_the_answers_of_others_alone(log):
    met = {fold: [] for fold in range(3)}
    sets = sets_of(log)
    found = replay_learner(lambda env, fold: Spy(env, met[fold]), log, sets, [0, 5, 20], n_folds=3, seed=0)

    people = np.arange(30)
    folds = folds_of(people, 3, seed=0)
    vectors = {log.market.applicants.vectors[person].tobytes(): person for person in people.tolist()}
    answers = answers_of(log)
    for fold, told in met.items():
        assert len(told) == 20
        assert all(folds[vectors[who]] != fold for who, _, _ in told)
        assert all(np.float32(answers[vectors[who], job]) == reward for who, job, reward in told)
    assert all(len(scores) == 3 for by_person in found.values() for scores in by_person.values())
    assert found["AUC"].keys() == replay_scores(cosine_scores(log.market), sets, 3)["AUC"].keys()


def test_before_any_answer_a_learner_with_cosine_as_its_prior_ranks_as_cosine(log):
    sets = sets_of(log)
    found = replay_learner(lambda env, fold: Spy(env, []), log, sets, [0], n_folds=3, seed=0)
    assert found == replay_scores(cosine_scores(log.market), sets, 1)


@pytest.mark.parametrize("name", LEXICAL)
def test_words_in_common_rank_higher(name):
    if name == "bm25":
        pytest.importorskip("bm25s", reason="needs the extra 'lexical'")
    market = load_market("default", n_jobs=60, n_applicants=40)
    scores = LEXICAL[name](market)(np.arange(40)[:, None], np.arange(60))

    shared = np.array(
        [[len({*market.applicant(i).hard_skills} & {*market.job(j).hard_skills}) for j in range(60)] for i in range(40)]
    )
    assert scores.shape == (40, 60)
    assert scores[shared >= 3].mean() > scores[shared == 0].mean() + scores.std()
    np.testing.assert_allclose(LEXICAL[name](market)(np.array([7]), np.array([9])), scores[7, 9])


def test_tfidf_of_a_text_with_itself_is_one():
    market = load_market("default", n_jobs=60, n_applicants=40)
    assert tfidf_scores(market)(np.array([0]), np.arange(60)).max() <= 1 + 1e-9


def test_the_command_replays_a_log_and_writes_its_tables(log, tmp_path):
    saved = log.market.save(tmp_path / "market")
    log.on(saved).write_csv(tmp_path / "log.csv")
    done = run_command(
        "replay",
        *(f"log={tmp_path / 'log.csv'}", f"source={tmp_path / 'market'}", f"folder={tmp_path / 'out'}"),
        *("learners=[linear_greedy]", "rankings=[cosine]", "points=[0,10]", "n_candidates=6", "n_sets=2", "reps=50"),
        "repeats=2",
    )

    assert done.returncode == 0, done.stderr
    compared = [f"{metric} less cosine's" for metric in ("AUC", "nDCG@10", "hit@10")]
    content = json.loads((tmp_path / "out" / "replay.json").read_text())
    assert [table["header"] for table in content["tables"]] == [
        [said, "0 answers", "10 answers"]
        for said in (
            *(f"{metric} after" for metric in ("AUC", "nDCG@10", "hit@10", *compared)),
            "AUC less cosine's in the worst repeat, after",
        )
    ]
    once, again = content["scores"]["linear_greedy"]
    assert once["hit@10"] != again["hit@10"], "other sets, folds and order"
    assert [row[0] for row in content["tables"][0]["rows"]] == ["cosine", "linear_greedy"]
    assert "30 people, 2 sets of 6 answered jobs each" in done.stdout
    assert "5 folds, 2 times" in done.stdout
    scored = {metric: {*once[metric], *again[metric]} for metric in once}
    assert content["n_people"] == {metric: len(people) for metric, people in scored.items()}
    assert len(scored["AUC"]) < 30, "somebody has no set with a hit"
    assert f"AUC is over {len(scored['AUC'])} people" in done.stdout


def test_a_person_counts_in_the_repeats_that_scored_them():
    repeats = [{"AUC": {1: [0.5, 0.7], 2: [0.2, 0.2]}}, {"AUC": {1: [0.7, 0.9], 3: [1.0, 0.0]}}]
    assert replay.mean_scores(repeats) == {"AUC": {1: pytest.approx([0.6, 0.8]), 2: [0.2, 0.2], 3: [1.0, 0.0]}}


def test_learners_are_compared_with_cosine_person_by_person():
    cosine = {"AUC": {3: [0.9], 1: [0.5], 2: [0.1]}}
    learner = {"AUC": {1: [0.6], 2: [0.3], 3: [0.9]}}
    ((header, rows),) = replay.apart_tables({"cosine": cosine, "learner": learner}, [50], reps=2_000)
    assert header == ["AUC less cosine's after", "50 answers"]
    # Differences .1, .2, 0: their interval is that of three draws of them, much narrower than that of .9, .5, .1.
    assert rows == [["learner", "+0.1000 [+0.0000, +0.2000]"]]


def test_two_people_have_no_interval():
    found = {name: {"AUC": {1: [0.5], 2: [0.7]}} for name in ("cosine", "learner")}
    assert replay.apart_tables(found, [50], reps=50)[0][1] == [["learner", "+0.0000"]]
    assert replay.tables_of(found, [50], reps=50)[0][1] == [["cosine", "0.600"], ["learner", "0.600"]]


def test_the_worst_repeat_has_a_table():
    cosine = [{"AUC": {1: [0.5], 2: [0.7]}}, {"AUC": {1: [0.6], 2: [0.6]}}]
    learner = [{"AUC": {1: [0.7], 2: [0.7]}}, {"AUC": {1: [0.6], 2: [0.58]}}]
    header, rows = replay.worst_table({"cosine": cosine, "learner": learner}, [50])
    assert header == ["AUC less cosine's in the worst repeat, after", "50 answers"]
    assert rows == [["learner", "-0.0100"]]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("repeats=0", "`repeats` must be 1 or more, got 0"),
        ("n_sets=1.5", "`n_sets` must be 1 or more, a whole number, got 1.5"),
        ("n_candidates=1", "`n_candidates` must be 2 or more, got 1"),
        ("n_folds=x", "`n_folds` must be 2 or more, got 'x'"),
        ("k=0", "`k` must be 1 or more, got 0"),
        ("hit_above=true", "`hit_above` must be a finite number, a reward, got True"),
        ("hit_above=high", "`hit_above` must be a finite number, a reward, got 'high'"),
    ],
)
def test_a_number_that_cannot_be_is_refused_in_a_line(entry, said):
    done = run_command("replay", "log=avature", "path=.", entry)
    assert done.returncode == 1 and done.stderr.splitlines() == [f"error: {said}."]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"log": None}, "`log` must be given"),
        ({"log": "avatur"}, r"no adapter of that name. Did you mean log=avature\?"),
        ({"log": "AVATURE"}, r"no adapter of that name. Did you mean log=avature\?"),
        ({"log": "avature"}, "`path` must be given with log=avature"),
    ],
)
def test_a_log_that_is_not_there_is_named(options, message):
    with pytest.raises(RunError, match=message):
        replay.read_log({"path": None, "encoder": "hashing", **options})


def test_a_log_at_home_is_found_by_its_scheme_too(log, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    log.market.save(tmp_path / "market")
    log.write_csv(tmp_path / "log.csv")
    reading = {"source": str(tmp_path / "market"), "columns": None, "ids": "key", "decisions": None, "rewards": None}
    reading |= {"separator": ";", **dict.fromkeys(("events", "delimiter", "encoding", "decimal", "date_format"))}
    reading["on_unknown_shown"] = "bad"
    for source in ("~/log.csv", "csv:~/log.csv"):
        read = replay.read_log({"log": source, "path": None, "encoder": "hashing", "on_bad": "raise", **reading})
        assert len(read.reward) == len(log.reward)


def test_a_folder_that_is_no_avature_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"lacks queries.tsv, corpus_documents.tsv, annotations.tsv"):
        avature.read(tmp_path)


def test_avature_is_read_as_a_log():
    if not AVATURE.is_dir():
        pytest.skip("the Avature set is not beside the checkout")
    log = avature.read(AVATURE, encoder="hashing")

    assert len(log.people) == 105
    assert len(log) == 105 * avature.N_NEAREST
    assert len(log.market.jobs) == 2_619
    assert 0.1 < log.reward.mean() < 0.5
