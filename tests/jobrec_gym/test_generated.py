import hashlib
import json
import pickle
import subprocess
import sys
from importlib import resources

import numpy as np
import pytest

from jobrec_gym.loaders.generated import load_taxonomy
from jobrec_gym.market import MarketError, load_market


@pytest.fixture(scope="module")
def default():
    return load_market("default")


def test_the_taxonomy_covers_the_labour_market():
    words = load_taxonomy().vocabulary
    assert len(words.families) >= 15
    assert len(words.occupations) >= 120
    assert len(words.hard_skills) >= 1_200
    assert len(words.soft_skills) >= 40
    assert len({word.casefold() for word in words.hard_skills}) == len(words.hard_skills)
    assert not set(words.hard_skills) & set(words.soft_skills)


def test_every_occupation_is_whole():
    document = json.loads((resources.files("jobrec_gym") / "data" / "taxonomy.json").read_text())
    occupations = [row for family in document["families"] for row in family["occupations"]]
    titles = {row["title"] for row in occupations}
    for row in occupations:
        assert len(set(row["hard"])) >= 10 and len(set(row["soft"])) >= 4, row["title"]
        assert set(row["soft"]) <= set(document["soft_skills"]), row["title"]
        assert 1 <= row["seniority"] <= 5
        assert set(row["related"]) <= titles - {row["title"]}, row["title"]


def test_the_default_market_has_the_documented_size(default):
    assert (len(default.jobs), len(default.applicants)) == (2_000, 1_000)
    assert default.jobs.vectors.shape == (2_000, 768)
    assert default.jobs.held_out.mean() == pytest.approx(0.3, abs=0.04)
    assert default.applicants.held_out.mean() == pytest.approx(0.3, abs=0.04)


def test_the_default_market_is_what_it_was(default):
    """Ids and words of the default market are part of ``JobRec-v0``: a change here asks for ``-v1``."""
    digest = hashlib.sha256()
    for side in (default.applicants, default.jobs):
        for table in (side.title_ids, side.experience_ids, side.seniority, side.held_out):
            digest.update(np.ascontiguousarray(table).tobytes())
        digest.update(side.hard_skills.ids.tobytes() + side.soft_skills.ids.tobytes())
    assert digest.hexdigest()[:16] == "2902655da9a39678"
    assert [default.job(row).title for row in (0, 1, 1999)] == [
        "counselling psychologist",
        "white goods technician",
        "domestic appliance engineer",
    ]


def test_a_larger_market_begins_with_the_smaller_one(default):
    larger = load_market("default", n_jobs=20_000, n_applicants=1_500)
    for side in ("applicants", "jobs"):
        small, large = getattr(default, side), getattr(larger, side)
        n = len(small)
        assert (large.keys[:n] == small.keys).all()
        assert (large.held_out[:n] == small.held_out).all()
        assert (large.title_ids[:n] == small.title_ids).all()
        assert (large.vectors[:n] == small.vectors).all()
        assert (large.hard_skills.offsets[: n + 1] == small.hard_skills.offsets).all()


def test_a_market_in_a_folder_is_the_small_one_rounded(default, tmp_path):
    kept = load_market("default", n_jobs=20_000, n_applicants=1_500, dtype="float16", folder=tmp_path / "board")
    assert isinstance(kept.jobs.vectors, np.memmap) and kept.jobs.vectors.dtype == np.float16
    for side in ("applicants", "jobs"):
        small, large = getattr(default, side), getattr(kept, side)
        n = len(small)
        assert (large.vectors[:n] == small.vectors.astype(np.float16)).all()
        assert (large.keys[:n] == small.keys).all()
        assert (large.held_out[:n] == small.held_out).all()
    assert [kept.job(row) for row in (0, 1_999)] == [default.job(row) for row in (0, 1_999)]


def test_a_market_in_a_folder_is_made_once(tmp_path, monkeypatch):
    arguments = {"n_jobs": 50, "n_applicants": 30, "folder": str(tmp_path / "board")}
    made = load_market("default", **arguments)
    monkeypatch.setattr("jobrec_gym.loaders.generated.sample_jobs", lambda *_: pytest.fail("made again"))
    again = pickle.loads(pickle.dumps(made))
    assert again.fingerprint() == made.fingerprint()
    assert made.to_spec() == {"source": "default", **arguments}
    monkeypatch.undo()
    with pytest.raises(MarketError, match="holds another market .*'n_jobs': 50.*'n_jobs': 51.*another folder"):
        load_market("default", **arguments | {"n_jobs": 51})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").touch()
    with pytest.raises(MarketError, match="no saved market"):
        load_market("default", folder=tmp_path / "mine")
    (tmp_path / "empty").mkdir()
    kept = load_market("default", **arguments | {"folder": str(tmp_path / "empty")})
    assert kept.fingerprint() == made.fingerprint()
    assert (tmp_path / "empty" / "market.json").is_file()


def test_making_a_market_in_a_folder_holds_a_chunk_of_its_vectors(tmp_path):
    code = (
        "import resource, sys\n"
        "from jobrec_gym.market import load_market\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "load_market('default', folder=sys.argv[1] + '/small'); before = peak()\n"
        "load_market('default', n_jobs=60_000, n_applicants=10, folder=sys.argv[1] + '/large')\n"
        "print(peak() - before)"
    )
    pytest.importorskip("resource", reason="this platform does not tell its memory")
    shown = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    kilobytes = int(shown.stdout) / (1024 if sys.platform == "darwin" else 1)
    assert kilobytes < 0.9 * 60_000 * 768 * 4 / 1024


def test_another_seed_is_another_market(default):
    other = load_market("default", seed=1)
    assert (other.jobs.title_ids != default.jobs.title_ids).mean() > 0.9


def test_people_have_careers_and_postings_ask_for_a_part(default):
    occupations = load_taxonomy().occupations
    jobs, people = default.jobs, default.applicants
    for row in range(200):
        needs = set(occupations.hard[jobs.occupation_ids[row]])
        asked = set(jobs.hard_skills[row])
        assert asked <= needs and 4 <= len(asked) <= 8
        assert 2 <= len(jobs.soft_skills[row]) <= 4
    own = [
        np.isin(people.hard_skills[row], occupations.hard[people.occupation_ids[row]]).mean() for row in range(1_000)
    ]
    assert min(own) > 0
    assert 0.3 < np.mean(np.array(own) < 1) < 0.6  # the others changed career
    kept = [
        np.isin(occupations.hard[people.occupation_ids[row]], people.hard_skills[row]).mean() for row in range(1_000)
    ]
    assert np.mean(kept) == pytest.approx(0.65, abs=0.05)


def test_whole_occupations_can_be_held_out():
    market = load_market("default", n_jobs=500, n_applicants=500, split_by="occupation")
    for side in (market.jobs, market.applicants):
        for occupation in np.unique(side.occupation_ids):
            assert len(np.unique(side.held_out[side.occupation_ids == occupation])) == 1
    held_out = {
        side: set(getattr(market, side).occupation_ids[getattr(market, side).held_out])
        for side in ("jobs", "applicants")
    }
    warm = set(market.applicants.occupation_ids[~market.applicants.held_out])
    assert not held_out["jobs"] & warm


def test_impossible_sizes_are_refused():
    with pytest.raises(MarketError, match="`n_jobs` must be an integer of at least 1, got 0"):
        load_market("default", n_jobs=0)
    with pytest.raises(MarketError, match="`n_applicants` must be at most 2,147,483,647, got 1,000,000"):
        load_market("default", n_applicants=10**30)
    with pytest.raises(MarketError, match="`dtype` must be one of .* got 'float8'"):
        load_market("default", dtype="float8")
    with pytest.raises(MarketError, match="'row' or 'occupation', got 'x'"):
        load_market("default", split_by="x")
