import copy
import json

import numpy as np
import pytest

from jobrec_gym.loaders.dynaq_json import load_dynaq_json
from jobrec_gym.market import MarketError, load_market

DIM = 384
JOB, CANDIDATE = "64a1f0c2e13b2a0001", "64a1f0c2e13b2b0001"


def vector(seed):
    return np.random.default_rng(seed).normal(size=DIM).round(4).tolist()


def export():
    """Two jobs and two candidates, in other orders in text and vectors."""
    return {
        "jobs_text": [
            {
                "_id": {"$oid": f"{JOB}{i}"},
                "job_title": f"Title {i}",
                "description": "ignored",
                "technical_skills": ["welding", f"tool {i}"],
                "soft_skills": ["patience"],
                "experience_requirements": ["3 years", "a licence"],
            }
            for i in range(2)
        ],
        "job_embeddings": [
            {
                "_id": {"$oid": "f" * 24},
                "original_job_id": {"$oid": f"{JOB}{i}"},
                "job_title_embeddings": vector(10 + i),
                "tech_skills_vectors": [vector(20 + i), vector(30 + i)],
                "soft_skills_embeddings": vector(40 + i),
                "experience_requirements_embeddings": vector(50),
            }
            for i in (1, 0)
        ],
        "candidates_text": [
            {
                "_id": f"{CANDIDATE}{i}",
                "bio": "A welder, calm.",
                "skills": ["welding"],
                "experience": ["2 years", {"at": "X"}],
            }
            for i in range(2)
        ],
        "candidates_embeddings": [
            {
                "original_candidate_id": f"{CANDIDATE}{i}",
                "hard_skill_embeddings": [{"$numberDouble": str(number)} for number in vector(60 + i)],
                "soft_skill_embeddings": vector(70 + i),
            }
            for i in (1, 0)
        ],
    }


def write(folder, content, lines=False):
    for name, rows in content.items():
        text = "\n".join(map(json.dumps, rows)) if lines else json.dumps(rows)
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
    return folder


def unit(values):
    return np.asarray(values) / np.linalg.norm(values)


def test_texts_and_vectors_are_joined_by_id(tmp_path):
    market = load_market(f"dynaq-json:{write(tmp_path, export())}")
    assert (len(market.jobs), len(market.applicants), market.block_dim) == (2, 2, DIM)
    job = market.job(1)
    assert (job.key, job.title, job.experience) == (f"{JOB}1", "Title 1", "3 years; a licence")
    assert (job.hard_skills, job.soft_skills) == (("tool 1", "welding"), ("patience",))
    person = market.applicant(0)
    assert (person.key, person.hard_skills, person.soft_skills) == (f"{CANDIDATE}0", ("welding",), ("A welder, calm.",))
    assert person.experience == "2 years; X"
    assert market.text_blocks == {"soft"}


def test_vectors_become_unit_blocks(tmp_path):
    market = load_dynaq_json(write(tmp_path, export()))
    hard = unit(unit(vector(21)) + unit(vector(31)))
    np.testing.assert_allclose(market.jobs.vectors[1], np.concatenate([hard, unit(vector(41))]) / np.sqrt(2), atol=1e-6)
    np.testing.assert_allclose(market.applicants.vectors[0, :DIM] * np.sqrt(2), unit(vector(60)), atol=1e-6)
    features = market.action_features(("title", "experience"))
    np.testing.assert_allclose(features[1, 2 * DIM : 3 * DIM], unit(vector(11)), atol=1e-6)
    np.testing.assert_allclose(features[1, 3 * DIM :], unit(vector(50)), atol=1e-6)


def test_json_lines_and_a_database_in_the_name_are_read(tmp_path):
    plain, named = tmp_path / "plain", tmp_path / "named"
    plain.mkdir()
    named.mkdir()
    write(plain, export())
    write(named, {f"recruiting.{name}": rows for name, rows in export().items()}, lines=True)
    assert load_dynaq_json(named).fingerprint() == load_dynaq_json(plain).fingerprint()


def test_other_file_names_are_a_choice(tmp_path):
    write(tmp_path, export())
    (tmp_path / "jobs_text.json").rename(tmp_path / "postings.txt")
    with pytest.raises(MarketError, match=r"must hold one file jobs_text\.json, found none; or name it: `files="):
        load_dynaq_json(tmp_path)
    assert len(load_dynaq_json(tmp_path, files={"jobs_text": "postings.txt"}).jobs) == 2
    with pytest.raises(MarketError, match=r"nowhere\.json does not exist"):
        load_dynaq_json(tmp_path, files={"jobs_text": "nowhere.json"})
    with pytest.raises(MarketError, match="`files` may name .* got 'jobs'"):
        load_dynaq_json(tmp_path, files={"jobs": "postings.txt"})


def test_an_empty_list_is_an_empty_block(tmp_path):
    content = export()
    content["job_embeddings"][0]["tech_skills_vectors"] = []
    market = load_dynaq_json(write(tmp_path, content))
    assert not market.jobs.vectors[1, :DIM].any()
    assert np.linalg.norm(market.jobs.vectors[1]) == pytest.approx(1, abs=1e-5)


def test_two_empty_blocks_name_the_row(tmp_path):
    content = export()
    content["job_embeddings"][0] |= {"tech_skills_vectors": [], "soft_skills_embeddings": [0.0] * DIM}
    with pytest.raises(MarketError, match=r"jobs_text\.json, row 2 .* has neither a hard nor a soft vector"):
        load_dynaq_json(write(tmp_path, content))


def nested(depth):
    value = [1.0] * DIM
    for _ in range(depth):
        value = [value]
    return value


def broken(collection, row, field, value):
    content = copy.deepcopy(export())
    if value is ...:
        del content[collection][row][field]
    else:
        content[collection][row][field] = value
    return content


@pytest.mark.parametrize(
    ("collection", "row", "field", "value", "message"),
    [
        (
            *("job_embeddings", 1, "soft_skills_embeddings", vector(1)[:-1]),
            r"job_embeddings\.json, row 2, field 'soft_skills_embeddings': has 383 dimensions, but .* has 384",
        ),
        (
            *("candidates_embeddings", 0, "hard_skill_embeddings", [float("nan")] * DIM),
            r"candidates_embeddings\.json, row 1, field 'hard_skill_embeddings': holds a number that is not finite",
        ),
        (
            *("candidates_embeddings", 0, "hard_skill_embeddings", ...),
            r"candidates_embeddings\.json, row 1, field 'hard_skill_embeddings': is missing",
        ),
        (
            *("job_embeddings", 0, "tech_skills_vectors", [vector(1), vector(2)[:3]]),
            r"job_embeddings\.json, row 1, field 'tech_skills_vectors': must be a vector or a list of vectors",
        ),
        (
            *("job_embeddings", 0, "tech_skills_vectors", "0.1 0.2"),
            r"job_embeddings\.json, row 1, field 'tech_skills_vectors': must be a vector",
        ),
        (
            *("job_embeddings", 0, "original_job_id", "nobody"),
            r"jobs_text\.json, row 2: no vectors have original_job_id '64a1f0c2e13b2a00011'",
        ),
        (
            *("job_embeddings", 0, "original_job_id", {"$oid": f"{JOB}0"}),
            r"original_job_id .* appears twice: in .*job_embeddings\.json, row 1 and in .*row 2",
        ),
        (
            *("job_embeddings", 0, "tech_skills_vectors", [10**400] * DIM),
            r"job_embeddings\.json, row 1, field 'tech_skills_vectors': must be a vector",
        ),
        (
            *("job_embeddings", 0, "tech_skills_vectors", nested(700)),
            r"job_embeddings\.json, row 1, field 'tech_skills_vectors': must be a vector",
        ),
        (*("jobs_text", 1, "_id", "\ud800"), r"jobs_text\.json, row 2, field '_id': holds half a character"),
        (*("jobs_text", 1, "job_title", "\ud800"), r"jobs_text\.json, row 2, field 'job_title': holds half a"),
        (*("jobs_text", 1, "soft_skills", ["\ud800"]), r"jobs_text\.json, row 2, field 'soft_skills': holds half a"),
        (*("job_embeddings", 0, "original_job_id", ...), r"job_embeddings\.json, row 1: has no id in field"),
        (
            *("jobs_text", 1, "_id", {"$oid": f"{JOB}0"}),
            r"id .* appears twice: in .*jobs_text\.json, row 1 and in .*jobs_text\.json, row 2",
        ),
        (*("jobs_text", 1, "job_title", 3), r"jobs_text\.json, row 2, field 'job_title': must be a text, got 3"),
        (
            *("jobs_text", 1, "technical_skills", [3]),
            r"jobs_text\.json, row 2, field 'technical_skills': must list texts",
        ),
    ],
)
def test_a_bad_document_names_file_row_and_field(tmp_path, collection, row, field, value, message):
    with pytest.raises(MarketError, match=message):
        load_dynaq_json(write(tmp_path, broken(collection, row, field, value)))


def test_vectors_without_a_text_are_named(tmp_path):
    content = export()
    del content["candidates_text"][1]
    with pytest.raises(
        MarketError, match=r"candidates_embeddings\.json, row 1, field 'original_candidate_id': .* of no text"
    ):
        load_dynaq_json(write(tmp_path, content))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"jobs_text\.json has no rows"),
        ("[]", r"jobs_text\.json has no rows"),
        ("[1]", r"jobs_text\.json, row 1: must be a JSON object, got int"),
        ("[{", r"jobs_text\.json, row 1: no JSON"),
        ('{"_id": 1}\nno', r"jobs_text\.json, row 2: no JSON"),
        ("[" * 100_000, r"jobs_text\.json, row 1: .*too deep to read"),
        ('{"_id": 1' + "0" * 5000 + "}", r"jobs_text\.json, row 1: no JSON"),
        ('{"_id": 1, "bio": "a", "bio": "b"}', r"jobs_text\.json, row 1: 'bio' appears twice in one JSON object"),
    ],
)
def test_a_malformed_file_names_the_place(tmp_path, text, message):
    write(tmp_path, export())
    (tmp_path / "jobs_text.json").write_text(text)
    with pytest.raises(MarketError, match=message):
        load_dynaq_json(tmp_path)


def test_what_is_no_folder_is_named(tmp_path):
    with pytest.raises(MarketError, match=r"nowhere is no folder; give the one that holds jobs_text\.json"):
        load_dynaq_json(tmp_path / "nowhere")
