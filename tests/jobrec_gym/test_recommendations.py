"""The best jobs of a whole catalogue, by cosine or by a function; what agents say is in tests/experiments."""

import dataclasses
import datetime
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest

from jobrec_gym import LabourMarket, ObservationForm, load_market, recommend, recommend_each, recommendations
from jobrec_gym.job_index import JobIndex, index_file
from jobrec_gym.market import ContextTable, SkillLists, Texts
from jobrec_gym.market.dates import seconds_of

WHO = 5


def cosines(market, applicant=WHO):
    n = len(market.jobs)
    return market.cosine(np.full(n, applicant), np.arange(n))


def with_words(market, **changes):
    """The market with free texts, or other job keys."""
    jobs = dataclasses.replace(market.jobs, **{"keys": changes.pop("keys", market.jobs.keys)})
    return LabourMarket("changed", market.applicants, jobs, market.vocabulary, **changes)


def test_without_an_agent_the_nearest_jobs_are_recommended(market):
    found = recommend(None, market, WHO, n=7)

    expected = np.argsort(-cosines(market), kind="stable")[:7]
    assert [one.job_id for one in found] == expected.tolist()
    assert [one.rank for one in found] == [1, 2, 3, 4, 5, 6, 7]
    assert [one.score for one in found] == [one.cosine for one in found] == cosines(market)[expected].tolist()
    assert [(one.key, one.title) for one in found] == [(market.job(i).key, market.job(i).title) for i in expected]


def test_skills_are_shared_or_missing_by_their_kind(market):
    person = market.applicant(WHO)
    for one in recommend(None, market, WHO, n=60):
        job = market.job(one.job_id)
        hard = [skill for skill in job.hard_skills if skill in person.hard_skills]
        soft = [skill for skill in job.soft_skills if skill in person.soft_skills]
        assert one.shared == (*hard, *soft)
        assert sorted(one.shared + one.missing) == sorted(job.hard_skills + job.soft_skills)


def test_free_texts_are_no_skills(market):
    (one,) = recommend(None, with_words(market, text_blocks=["hard"]), WHO, n=1)

    job = market.job(one.job_id)
    assert set(one.shared + one.missing) == set(job.soft_skills)


def test_an_applicant_is_named_by_row_key_or_profile(market):
    key = str(market.applicants.keys[WHO])
    assert (
        recommend(None, market, WHO) == recommend(None, market, key) == recommend(None, market, market.applicant(key))
    )
    with pytest.raises(ValueError, match="there is no applicant with the key '5'"):
        recommend(None, market, "5")


def test_excluded_jobs_are_named_by_rows_and_keys(market):
    first = recommend(None, market, WHO, n=4)

    left = recommend(None, market, WHO, n=2, exclude=[first[0].job_id, first[2].key, np.int64(first[0].job_id)])

    assert [one.key for one in left] == [first[1].key, first[3].key] and [one.rank for one in left] == [1, 2]
    numbered = with_words(market, keys=np.array([str(59 - row) for row in range(60)]))
    best = recommend(None, numbered, WHO, n=1)[0].job_id
    assert best in [one.job_id for one in recommend(None, numbered, WHO, exclude=[str(best)])], "a key, no row"
    assert best not in [one.job_id for one in recommend(None, numbered, WHO, exclude=[str(59 - best)])]
    with pytest.raises(ValueError, match="there is no job with the key"):
        recommend(None, market, WHO, exclude=["J000000x"])
    with pytest.raises(TypeError, match="`exclude` must be a sequence of rows or keys, got the text 'J0000001'"):
        recommend(None, market, WHO, exclude="J0000001")
    with pytest.raises(TypeError, match=r"`exclude` must be a sequence of rows or keys, \(\) for none, got None"):
        recommend(None, market, WHO, exclude=None)


def test_jobs_are_left_out_for_each_person_apart(market):
    nearest = {who: [one.key for one in recommend(None, market, who, n=5)] for who in (3, WHO)}
    keys = market.applicants.keys
    exclude = {
        3: nearest[3][:1],
        str(keys[WHO]): [nearest[WHO][1], market.job_id(nearest[WHO][2])],
        market.applicant(WHO): np.array([market.job_id(nearest[WHO][0])]),  # named twice: both count
    }

    lists = recommend_each(None, market, np.array([3, WHO, 0]), n=2, exclude=exclude)

    assert [[one.key for one in found] for found in lists] == [
        nearest[3][1:3],
        nearest[WHO][3:5],
        [one.key for one in recommend(None, market, 0, n=2)],
    ]
    assert [one.key for one in recommend(None, market, WHO, n=2, exclude=exclude)] == nearest[WHO][3:5]


@pytest.mark.parametrize("n_left_out", [1, 29, 31, 59])
def test_leaving_out_a_few_jobs_copies_no_vectors_and_changes_no_score(market, monkeypatch, n_left_out):
    scores = {one.job_id: one.score for one in recommend(None, market, WHO, n=60)}
    gathered, copied = recommendations.gathered, []

    def counted(table, ids):
        if table is market.jobs.vectors:
            copied.append(len(ids))
        return gathered(table, ids)

    monkeypatch.setattr(recommendations, "gathered", counted)
    for exclude in (range(n_left_out), {WHO: range(n_left_out)}):
        found = recommend(None, market, WHO, 60, exclude)
        assert {one.job_id: one.score for one in found} == {job: scores[job] for job in range(n_left_out, 60)}
    assert copied == ([] if n_left_out <= 30 else [60 - n_left_out] * 2)


@pytest.mark.parametrize("n_open", [60, 20])
def test_jobs_are_read_once_for_many_people_and_each_gets_what_they_would_get_alone(market, monkeypatch, n_open):
    expires = [None] * n_open + ["2026-01-01"] * (60 - n_open)
    jobs = dataclasses.replace(market.jobs, vectors=market.jobs.vectors.astype(np.float16))
    half = dated(LabourMarket("half", market.applicants, jobs, market.vocabulary), expires=[*expires[1:], "2029-01-01"])
    row_products, compared = recommendations.row_products, []

    def counted(left, right):
        compared.append(id(right))
        return row_products(left, right)

    monkeypatch.setattr(recommendations, "_PEOPLE", 7)
    monkeypatch.setattr(recommendations, "row_products", counted)
    people, options = np.arange(15) % 9, {"n": 9, "exclude": {None: [2], 3: [1, 4]}, "open_at": "2026-06-01"}
    lists = list(recommend_each(None, half, people, **options))

    assert len(compared) == 15
    assert all(len(set(compared[start : start + 7])) == 1 for start in (0, 7, 14)), "each piece is read for all people"
    for who, found in zip(people.tolist(), lists, strict=True):
        assert found == recommend(None, half, who, **options)


def test_somebody_in_a_batch_gets_what_they_would_get_alone(market):
    """People whom an agent scores together are scored on the same jobs, also on those that only one may not get."""

    class Agent:
        def q_values(self, observation):
            asked.append(observation["candidates"].shape[-1])
            return np.atleast_2d(np.sin(np.atleast_2d(observation["candidates"]) * observation["applicant"][..., :1]))

    asked = []
    people, form = np.array([3, WHO, 0]), "ids"
    exclude = {3: [1, 2, 3], WHO: [2, 3, 4, 5], 0: [2]}

    lists = list(recommend_each(Agent(), market, people, 50, exclude, form, batch_size=3))

    assert asked == [59], "only the job that nobody may get is not asked about"
    for who, found in zip(people.tolist(), lists, strict=True):
        assert found == recommend(Agent(), market, who, 50, exclude[who], form)


@pytest.mark.parametrize(
    ("exclude", "error", "message"),
    [
        ({"A0000001": "J0000001"}, TypeError, r"`exclude\['A0000001'\]` must be a sequence .* got 'J0000001'"),
        ({"A0000001": None}, TypeError, r"a mapping names people, and the jobs to leave out for each"),
        ({"J0000001": 0.5}, ValueError, "there is no applicant with the key 'J0000001'. Did you mean 'A0000001'"),
        ({"A0000001": [60]}, ValueError, r"`job` must be a row in \[0, 60\), got 60"),
        ({"A0000001": np.array([3, -1])}, ValueError, r"`job` must be a row in \[0, 60\), got -1"),
        (
            {"p1": [], "p2": [], "A0000001": []},
            ValueError,
            "names 2 applicants that the market .* such as 'p1', 'p2': ",
        ),
        ({"A0000001": ["j1", "j2"], "A0000002": ["j3", "j4"]}, ValueError, "names 4 jobs .* such as 'j1', 'j2', 'j3'"),
    ],
)
def test_what_is_left_out_for_each_names_people_and_lists_of_jobs(market, exclude, error, message):
    with pytest.raises(error, match=message):
        recommend_each(None, market, np.array([1]), exclude=exclude)


def dated(market, posted=None, expires=None):
    """The market with dates of its jobs, by row."""
    context = dict(market.context)
    for name, dates in (("posted", posted), ("expires", expires)):
        if dates is not None:
            seconds = [None if date is None else seconds_of(date, through=name == "expires") for date in dates]
            table = ContextTable.of("number", [None] * len(market.applicants), seconds)
            context[name] = dataclasses.replace(table, shown=False)
    return LabourMarket("dated", market.applicants, market.jobs, market.vocabulary, context=context)


def test_jobs_that_are_not_posted_yet_or_have_expired_are_left_out(market):
    nearest = [one.job_id for one in recommend(None, market, WHO, n=60)]
    posted, expires = [None] * 60, [None] * 60
    posted[nearest[0]], posted[nearest[1]] = "2026-12-01", "2026-11-30"
    expires[nearest[2]], expires[nearest[3]], expires[nearest[4]] = "2026-11-29", "2026-11-30", "2026-11-30T00:00"
    there = dated(market, posted, expires)

    assert [one.job_id for one in recommend(None, there, WHO, n=3)] == nearest[:3]
    found = [one.job_id for one in recommend(None, there, WHO, n=60, open_at="2026-11-30")]
    assert found == [nearest[1], nearest[3], *nearest[5:]]
    for at in ("2026-11-29T23:30-01:00", datetime.date(2026, 11, 30), datetime.datetime(2026, 11, 30, 0, 30)):
        assert [one.job_id for one in recommend(None, there, WHO, n=60, open_at=at)] == found
    assert len(recommend(None, dated(market, posted=posted), WHO, n=60, open_at="2026-11-30")) == 59
    by_agent = recommend(lambda seen: -seen["candidates"], there, WHO, 60, [nearest[1]], "ids", open_at="2026-12-01")
    assert [one.job_id for one in by_agent] == sorted({*nearest} - {*nearest[1:5]})
    assert recommend(None, dated(market, expires=["2026-01-01"] * 60), WHO, open_at="2026-01-02") == []


def test_a_moment_that_is_no_date_and_a_market_without_dates_are_refused(market):
    there = dated(market, expires=["2026-11-30"] * 60)
    for at in ("30/11/2026", 20261130, "1701010800000", "", True, float("nan")):
        with pytest.raises(
            ValueError, match=r"`open_at` must be a date such as '2026-11-30' .* \(ISO 8601\), or None, got"
        ):
            recommend(None, there, WHO, open_at=at)
    with pytest.raises(ValueError, match=r"market 'default' has none: load its files with `columns={'jobs': {'posted"):
        recommend(None, load_market("default", n_jobs=60, n_applicants=40), WHO, open_at="2026-11-30")
    field = {"posted": ContextTable.of("number", [1.0] * 40, [1e12] * 60)}
    own = LabourMarket("own", market.applicants, market.jobs, market.vocabulary, context=field)
    with pytest.raises(ValueError, match="market 'own' has none"):
        recommend(None, own, WHO, open_at="2026-11-30")


def twice_posted(market, rows, described=None):
    """A market whose jobs are some rows of another one, each with a key of its own."""
    jobs = dataclasses.replace(
        market.jobs.take(np.array(rows)),
        keys=np.array([f"j{number}" for number in range(len(rows))]),
        descriptions=None if described is None else Texts.from_rows(described),
    )
    return LabourMarket("twice", market.applicants, jobs, market.vocabulary)


def test_of_equal_postings_only_the_best_one_is_listed(market):
    nearest = [one.job_id for one in recommend(None, market, WHO, n=6)]
    there = twice_posted(market, [*nearest[::-1], *nearest[:3], *nearest[:3]])

    assert len({one.title for one in recommend(None, there, WHO, n=6)}) < 6
    found = recommend(None, there, WHO, n=6, distinct=True)
    assert [one.job_id for one in found] == [5, 4, 3, 2, 1, 0], "the first row of each, and still six"
    assert [one.rank for one in found] == [1, 2, 3, 4, 5, 6]
    later = recommend(lambda seen: seen["candidates"], there, WHO, 6, observation="ids", distinct=True)
    assert [one.job_id for one in later] == [11, 10, 9, 2, 1, 0], "the copy that the agent prefers"
    for_all = recommend(None, there, WHO, 6, [5, 6], distinct=True)
    assert [one.job_id for one in for_all] == [9, 4, 3, 2, 1, 0], "an equal posting stands for one that is left out"
    assert recommend(None, there, WHO, 6, {None: [5, 6]}, distinct=True) == for_all
    own = recommend(None, there, WHO, 6, {WHO: [5, 6], 3: [4]}, distinct=True)
    assert [one.job_id for one in own] == [4, 3, 2, 1, 0], "who has applied for a job does not get its copy"
    assert len(recommend(None, there, WHO, n=12, distinct=True)) == 6
    with pytest.raises(ValueError, match="`distinct` must be True or False, got 'yes'"):
        recommend(None, there, WHO, distinct="yes")


@pytest.mark.parametrize("part", ["title", "occupation", "hard", "soft", "description"])
def test_postings_that_differ_in_one_thing_are_not_equal(market, part):
    described = ["We bake."] * 3 if part != "description" else ["We bake.", "We bake at night.", "We bake."]
    there = twice_posted(market, [7, 7, 7], described)
    changes, words = {}, there.vocabulary
    if part in ("title", "occupation"):
        words = dataclasses.replace(words, titles=("", *words.titles))
        changes["title_ids"] = np.array([1, 2, 1] if part == "title" else [0, 0, 0], dtype=np.int32)
    if part == "occupation":
        changes["occupation_ids"] = np.array([0, 1, 0], dtype=np.int32)
    if part in ("hard", "soft"):
        changes[f"{part}_skills"] = SkillLists.from_rows([[0, 1], [0, 2], [0, 1]])
    there = LabourMarket("twice", there.applicants, dataclasses.replace(there.jobs, **changes), words)

    assert [one.job_id for one in recommend(None, there, WHO, distinct=True)] == [0, 1]


def test_case_blanks_and_the_order_of_skills_make_no_other_posting(tmp_path):
    rows = ["nurse,SQL;wound care,We care.", "Nurse,wound  care;sql,we  care. ", "nurse,SQL;wound care,We cure."]
    (tmp_path / "jobs.csv").write_text("title,hard,description\n" + "".join(f"{row}\n" for row in rows))
    (tmp_path / "people.csv").write_text("hard\nSQL\n")
    there = load_market(f"csv:{tmp_path / 'jobs.csv'}", applicants=str(tmp_path / "people.csv"), encoder="hashing")

    assert [one.job_id for one in recommend(None, there, 0, distinct=True)] == [0, 2]


def test_there_are_no_more_than_the_catalogue_has(market):
    assert len(recommend(None, market, WHO, n=1_000)) == 60
    assert recommend(None, market, WHO, exclude=range(60)) == []
    assert recommend(lambda seen: np.zeros(len(seen["candidates"])), market, WHO, exclude=range(60)) == []
    for n in (0, -1, 2.5, True, "3"):
        with pytest.raises(ValueError, match="`n` must be a whole number of at least 1"):
            recommend(None, market, WHO, n=n)


def test_a_function_of_an_observation_recommends(market):
    def fewest_numbers(seen):
        assert seen["applicant"].tolist() == market.applicants.vectors[WHO].tolist()
        return -np.abs(seen["candidates"] - 17.2)

    found = recommend(fewest_numbers, market, WHO, n=3, observation="ids")

    assert [one.job_id for one in found] == [17, 18, 16]


def test_equal_scores_stand_in_the_order_of_rows(market):
    found = recommend(lambda seen: seen["candidates"] % 2, market, WHO, n=4, observation="ids")
    assert [one.job_id for one in found] == [1, 3, 5, 7]


def test_what_is_shown_is_said_by_a_name_a_mapping_or_a_form(market):
    seen = []

    def score(observation):
        seen.append({key: values.shape for key, values in observation.items()})
        return np.arange(len(observation["candidates"]))

    mapping = {"observation": "ids", "pair_features": ["seniority"], "mask_in_observation": True}
    for observation in (None, "ids", {"job_fields": ["title"]}, mapping, ObservationForm("ids")):
        recommend(score, market, WHO, observation=observation)

    applicant, ids = {"applicant": (768,)}, {"candidates": (60,)}
    assert seen[0] == {**applicant, "candidates": (60, 768)}
    assert seen[1] == seen[4] == {**applicant, **ids}
    assert seen[2] == {**applicant, "candidates": (60, 1152)}
    assert seen[3] == {**applicant, **ids, "pairs": (60, 1), "action_mask": (60,)}
    with pytest.raises(ValueError, match="`observation` may say .*, got 'pair_feature'. Did you mean 'pair_features'"):
        recommend(score, market, WHO, observation={"pair_feature": "all"})


def test_a_form_of_an_environment_is_refused_on_a_market_of_other_people(market):
    """Its numbers of pairs are those of the environment's own people, in whose rows others stand here."""
    env = gym.make("JobRec-v0", market=market, num_candidates=4, pair_features=["hard_coverage"])
    form, person = ObservationForm.of(env), market.applicant(WHO)
    new = market.with_applicants([{"key": "new", "hard": list(market.applicant(WHO + 1).hard_skills)}])

    def coverage(seen):
        return seen["pairs"][:, 0]

    assert recommend(coverage, market, person, observation=form)
    with pytest.raises(ValueError, match="rows of another market, .* `ObservationForm.pair_features"):
        recommend(coverage, new, "new", observation=form)
    # Without numbers of pairs there is nothing of the environment's own people in it.
    ids = ObservationForm.of(gym.make("JobRec-v0", market=market, num_candidates=4, observation="ids"))
    assert recommend(lambda seen: seen["candidates"], new, "new", observation=ids)


def test_means_over_other_people_are_refused(market):
    """Somebody alone in a market is their own mean: every job would get the same number."""
    person = market.applicant(WHO)
    new = market.with_applicants([{"key": "new", "hard": list(person.hard_skills), "soft": list(person.soft_skills)}])
    less = {"said": {"values": "cosine", "less_job_mean": True}}

    class Agent:
        def __init__(self, sources):
            env = gym.make("JobRec-v0", market=market, num_candidates=4, prior_sources=sources).unwrapped
            self.reads = {"observation": "features", "pairs": ["said"], "prior_sources": env.prior_sources}
            self.env = SimpleNamespace(get_attr=lambda name: [getattr(env, name)])

        def q_values(self, observation):
            return observation["pairs"][:, 0]

    def ranked(sources, market, who):
        found = recommend(Agent(sources), market, who, n=3, observation={"prior_sources": sources})
        return [one.job_id for one in found]

    assert len(ranked(less, market, WHO)) == 3
    with pytest.raises(ValueError, match=r"`prior_sources\['said'\]` subtracts each job's mean over the applicants"):
        ranked(less, new, "new")
    # What depends on the pair alone, or on means that were given, is the same for anybody.
    cosine = {"said": "cosine"}
    assert ranked(cosine, new, "new") == ranked(cosine, market, WHO)
    given = {"said": {"values": "cosine", "less_job_mean": np.linspace(0.0, 1.0, 60)}}
    assert ranked(given, new, "new") == ranked(given, market, WHO)


@pytest.mark.parametrize("features", ["all", ["hard_coverage", "soft_coverage", "seniority"]], ids=str)
def test_arguments_of_an_environment_with_sources_are_taken_as_they_were_given_to_it(market, features):
    said = {"prior_sources": {"said": "cosine"}, "pair_features": features}
    env = gym.make("JobRec-v0", market=market, num_candidates=4, **said).unwrapped

    class Agent:
        reads = {"pairs": list(env.pair_feature_names), "prior_sources": env.prior_sources}  # noqa: RUF012

        def q_values(self, observation):
            return observation["pairs"] @ np.array([1.0, 2.0, 3.0, 4.0])

    found = recommend(Agent(), market, WHO, n=3, observation=said)
    assert found == recommend(Agent(), market, WHO, n=3, observation={"prior_sources": said["prior_sources"]})
    with pytest.raises(ValueError, match="`prior_sources` must be those of training"):
        recommend(Agent(), market, WHO, observation={**said, "pair_features": ["seniority"]})


def test_numbers_of_pairs_are_blurred_as_the_environment_blurs_them(market):
    shown = []
    for noise in (0.0, 0.3):
        observation = {"pair_features": ["seniority"], "pair_noise": noise}
        recommend(lambda seen: shown.append(seen["pairs"]) or np.zeros(60), market, WHO, observation=observation)
    assert 0.05 < np.abs(shown[0] - shown[1]).mean() < 0.5


def test_more_jobs_than_are_asked_about_at_once_are_scored_in_parts(market, monkeypatch):
    monkeypatch.setattr(recommendations, "_ASKED", 7)
    monkeypatch.setattr(recommendations, "_CHUNK", 7)
    asked = []

    def score(seen):
        asked.append(len(seen["candidates"]))
        return seen["candidates"] @ seen["applicant"]

    found = recommend(score, market, WHO)

    assert sum(asked) == 60 and max(asked) == 7
    assert [one.job_id for one in found] == [one.job_id for one in recommend(None, market, WHO)]


@pytest.mark.parametrize(
    "scores", [np.zeros(3), np.full(60, np.nan), np.where(np.arange(60) == 7, np.inf, 0.0), np.zeros((60, 1)), None]
)
def test_scores_that_cannot_rank_are_refused(market, scores):
    with pytest.raises(ValueError, match="`agent` must give .1, 60. finite numbers, one for each candidate, got shape"):
        recommend(lambda seen: scores, market, WHO)


class Reading:
    """Says what it reads, and nothing else."""

    def __init__(self, **reads):
        self.reads = reads

    def q_values(self, observation):
        return np.zeros((1, len(observation["candidates"])))


def test_what_a_catalogue_does_not_have_is_refused(market):
    with pytest.raises(TypeError, match="`agent` must have `q_values.observation.`, or be a function .* got 'cosine'"):
        recommend("cosine", market, WHO)
    with pytest.raises(
        ValueError, match=r"also reads \['weather'\] of an observation, which a catalogue does not have"
    ):
        recommend(Reading(entries={"applicant": [768], "weather": [3]}), market, WHO)
    with pytest.raises(ValueError, match="reads 2 numbers of a pair and does not know their names"):
        recommend(Reading(pairs=2), market, WHO)
    assert recommend(Reading(pairs=1), market, WHO, observation={"pair_features": ["seniority"]})


def test_each_of_many_gets_a_list_of_their_own(market):
    people = np.array([3, 0, 3])
    for agent in (None, lambda seen: seen["candidates"] @ seen["applicant"]):
        lists = list(recommend_each(agent, market, people, n=3, batch_size=2))
        assert lists == [recommend(agent, market, person, n=3) for person in people.tolist()]
    with pytest.raises(ValueError, match="`batch_size` must be a whole number"):
        recommend_each(None, market, people, batch_size=0)


@pytest.mark.parametrize("agent", [None, lambda seen: seen["candidates"] @ seen["applicant"]], ids=["cosine", "agent"])
def test_in_a_large_catalogue_lists_are_filled_up_whatever_is_left_out(market, monkeypatch, agent):
    pytest.importorskip("faiss", reason="needs the extra 'index'")
    nearest = [one.job_id for one in recommend(None, market, WHO, n=60)]
    expires = ["2026-01-01" if number % 2 else None for number in range(60 * 8)]
    copies = dated(twice_posted(market, nearest * 8), expires=expires)
    options = {"n": 6, "exclude": {None: [0, 60], WHO: [4], 3: [2]}, "open_at": "2026-06-01", "distinct": True}
    exact = recommend(agent, copies, WHO, **options)

    monkeypatch.setattr(recommendations, "EXACT_UP_TO", 10)
    monkeypatch.setattr(recommendations, "_RETRIEVED", 5)
    found = recommend(agent, copies, WHO, **options)

    assert [one.job_id for one in found] == [one.job_id for one in exact] == [120, 2, 6, 8, 10, 12]
    read = []
    nearest_of = JobIndex.nearest
    monkeypatch.setattr(JobIndex, "nearest", lambda self, *args: read.append(args[1]) or nearest_of(self, *args))
    some = {"n": 3, "exclude": range(100, 400)}
    assert all(one.job_id not in some["exclude"] for one in recommend(agent, copies, WHO, **some))
    assert read == [3 if agent is None else 5], "no more jobs are found because some are left out for everybody"
    without = recommend(agent, copies, WHO, n=6, exclude=[0, 60, 4], distinct=True)
    assert [one.job_id for one in without] == [120, 1, 2, 3, 64, 5]
    assert len(recommend(agent, copies, WHO, n=100, distinct=True)) == 60


def test_the_index_looks_on_until_there_are_enough_postings(market, monkeypatch):
    pytest.importorskip("faiss", reason="needs the extra 'index'")
    nearest = [one.job_id for one in recommend(None, market, WHO, n=40)]
    copies = twice_posted(market, np.repeat(nearest, [40, 20, *[1] * 38]))
    monkeypatch.setattr(recommendations, "EXACT_UP_TO", 10)

    found = recommend(None, copies, WHO, n=4, distinct=True)
    assert [one.job_id for one in found] == [0, 40, 60, 61]
    # Copies of the jobs that this person may not get do not count either.
    more = twice_posted(market, np.repeat(nearest, [40, 60, *[1] * 38]))
    assert [one.job_id for one in recommend(None, more, WHO, 1, {WHO: [0, 40]}, distinct=True)] == [100]
    many = twice_posted(market, np.repeat(nearest, [900, *[1] * 39]))
    assert [one.job_id for one in recommend(None, many, WHO, n=1, distinct=True)] == [0], "the first of nine hundred"
    # Jobs that are left out and have expired as well are no reason to stop.
    there = dated(copies, expires=[None] * 42 + ["2026-01-01"] * 56)
    options = {"exclude": range(50, 90), "open_at": "2026-06-01", "distinct": True}
    assert [one.job_id for one in recommend(None, there, WHO, n=4, **options)] == [0, 40]


def test_the_words_of_a_posting_are_read_once_for_many_people(market, monkeypatch):
    copies, read = twice_posted(market, [*range(60)] * 3), []
    said = recommendations._said
    monkeypatch.setattr(recommendations, "_said", lambda market, job: read.append(job) or said(market, job))

    lists = list(recommend_each(None, copies, np.arange(9), n=60, distinct=True))

    assert len(read) == len(set(read)) and all(len({one.title for one in found}) > 1 for found in lists)
    assert lists[4] == recommend(None, copies, 4, n=60, distinct=True)


def test_few_open_jobs_of_a_large_catalogue_are_compared_one_by_one(market, monkeypatch):
    monkeypatch.setattr(recommendations, "EXACT_UP_TO", 10)
    monkeypatch.setattr(recommendations, "_retrieved", lambda *_: pytest.fail("asked the index"))
    there = dated(market, expires=[None] * 9 + ["2026-01-01"] * 51)

    found = recommend(None, there, WHO, n=20, exclude=[3], open_at="2026-06-01")

    assert {one.job_id for one in found} == {*range(9)} - {3}


def test_a_large_catalogue_goes_by_its_index(market, tmp_path, monkeypatch):
    pytest.importorskip("faiss", reason="needs the extra 'index'")
    monkeypatch.setattr(recommendations, "EXACT_UP_TO", 10)
    monkeypatch.setattr(recommendations, "_RETRIEVED", 20)
    saved = market.save(tmp_path / "market")
    nearest = np.argsort(-cosines(market), kind="stable")
    asked = []

    def last(seen):
        asked.append(seen["candidates"])
        return -np.isin(seen["candidates"], nearest[:3]).astype(float) - seen["candidates"] / 1e3

    assert [one.job_id for one in recommend(None, saved, WHO, n=5)] == nearest[:5].tolist()
    assert [one.job_id for one in recommend(None, saved, WHO, n=2, exclude=nearest[:3])] == nearest[3:5].tolist()
    found = recommend(last, saved, WHO, n=20, exclude=nearest[4:6], observation="ids")

    assert sorted(asked[0]) == sorted({*nearest[:22].tolist()} - {*nearest[4:6].tolist()}) and len(asked[0]) == 20
    assert {one.job_id for one in found[-3:]} == set(nearest[:3].tolist())
    assert index_file(saved).is_file()


@pytest.mark.parametrize(
    ("applicants", "message"),
    [
        ([1.7], "whole numbers, got float64"),
        ([True, False], "whole numbers, got bool .* `np.flatnonzero` those of a mask"),
        (["A0000001"], "`market.applicant_id` finds the row of a key"),
        ([[1, 2]], r"rows \(m,\) of the market's applicants, .* \(1, 2\)"),
        ([0, -1], r"rows in \[0, \d+\), got -1"),
        ([0, 10**6], r"rows in \[0, \d+\), got 1000000"),
    ],
)
def test_what_names_no_rows_is_refused_before_anybody_gets_a_list(market, applicants, message):
    with pytest.raises(ValueError, match=message):
        recommend_each(None, market, np.array(applicants), n=1)
    assert list(recommend_each(None, market, np.array([]), n=1)) == []
