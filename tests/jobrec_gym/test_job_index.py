import copy
import json
import pickle
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import jobrec_gym.candidates
from jobrec_gym import job_index
from jobrec_gym.candidates import MixedCandidates, RetrievalCandidates, make_sampler
from jobrec_gym.counter_rng import hash64
from jobrec_gym.job_index import JobIndex, JobSubset, forget_indexes, index_file, open_index
from jobrec_gym.market import LabourMarket, load_market

faiss = pytest.importorskip("faiss", reason="needs the extra 'index'")

N_JOBS, N_APPLICANTS = 3_000, 60
APPLICANTS = np.arange(N_APPLICANTS)
KEYS = hash64(3, APPLICANTS)
RETRIEVAL = RetrievalCandidates(exact_up_to=500)


def load(folder):
    return load_market("default", n_jobs=N_JOBS, n_applicants=N_APPLICANTS, dtype="float16", folder=str(folder))


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    """A market in float16 with its index."""
    market = load(tmp_path_factory.mktemp("market") / "catalogue")
    open_index(market)
    return market


@pytest.fixture
def unopened():
    """No index is open in this process, as in a fresh one."""
    forget_indexes()
    yield
    forget_indexes()


def cosines(market, applicant, job_ids):
    return market.cosine(np.full(len(job_ids), applicant), job_ids)


def recall(market, sets, job_ids, n):
    """Share of the retrieved whose similarity is within 1e-3 of the exact n-th."""
    hits = []
    for applicant, row in zip(APPLICANTS, sets, strict=True):
        least = np.sort(cosines(market, applicant, job_ids))[-n]
        hits.append(cosines(market, applicant, row) >= least - 1e-3)
    return np.mean(hits)


@pytest.mark.parametrize("split", ["all", "train", "test"])
def test_the_index_finds_nearly_what_an_exact_search_finds_inside_the_split(catalogue, split):
    job_ids = catalogue.jobs.rows(split)
    sets = RETRIEVAL.bind(catalogue, job_ids, 20).sample(APPLICANTS, KEYS)
    assert np.isin(sets, job_ids).all()
    assert all(len(set(row)) == 20 for row in sets)
    assert recall(catalogue, sets, job_ids, 20) >= 0.95


def test_a_set_depends_on_its_own_row_only(catalogue):
    sampler = RETRIEVAL.bind(catalogue, catalogue.jobs.rows("train"), 20)
    sets = sampler.sample(APPLICANTS, KEYS)
    fresh = RETRIEVAL.bind(catalogue, catalogue.jobs.rows("train"), 20)
    order = np.random.default_rng(0).permutation(N_APPLICANTS)
    assert (fresh.sample(APPLICANTS[order], KEYS[order]) == sets[order]).all()
    alone = RETRIEVAL.bind(catalogue, catalogue.jobs.rows("train"), 20)
    assert (alone.sample(APPLICANTS[7:8], KEYS[7:8]) == sets[7]).all()


def test_a_position_tells_nothing_of_the_rank(catalogue):
    sets = RETRIEVAL.bind(catalogue, catalogue.jobs.rows("all"), 5).sample(np.repeat(2, 200), hash64(1, np.arange(200)))
    assert len({frozenset(row) for row in sets}) == 1
    assert len(set(sets[:, 0])) == 5


def test_half_of_a_mixed_set_comes_from_the_index(catalogue):
    job_ids = catalogue.jobs.rows("train")
    nearest = RETRIEVAL.bind(catalogue, job_ids, 10).sample(APPLICANTS, KEYS)
    sets = MixedCandidates(exact_up_to=500).bind(catalogue, job_ids, 20).sample(APPLICANTS, KEYS)
    assert np.isin(sets, job_ids).all()
    for retrieved, row in zip(nearest, sets, strict=True):
        assert len(set(row)) == 20 and set(retrieved) <= set(row)


def test_up_to_a_size_the_search_is_exact_and_needs_no_library(catalogue, unopened, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    job_ids = catalogue.jobs.rows("all")
    exact = make_sampler("retrieval").bind(catalogue, job_ids, 20).sample(APPLICANTS, KEYS)
    assert recall(catalogue, exact, job_ids, 20) == 1.0
    with pytest.raises(ImportError, match=r'among 3,000 .* pip install -e ".+\[index\]"'):
        RETRIEVAL.bind(catalogue, job_ids, 20)


def test_every_job_can_be_asked_for(catalogue):
    few = np.flatnonzero(catalogue.jobs.occupation_ids == 5)
    index, applicant = open_index(catalogue), catalogue.applicants.vectors[0].astype(np.float32)
    assert sorted(index.nearest(applicant, len(few), JobSubset.of(few, N_JOBS))) == list(few)
    assert sorted(index.nearest(applicant, N_JOBS)) == list(range(N_JOBS))


def test_what_is_found_is_ranked_by_the_markets_own_vectors(catalogue):
    applicant = catalogue.applicants.vectors[4].astype(np.float32)
    found = cosines(catalogue, 4, open_index(catalogue).nearest(applicant, 30))
    assert (np.diff(found) <= 1e-6).all()


@pytest.mark.parametrize("dim", [6, 70, 768])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_vectors_of_any_size_are_indexed(dim, dtype):
    rng = np.random.default_rng(0)
    market = load_market("default", n_jobs=2_000, n_applicants=5)
    sides = {}
    for side in ("applicants", "jobs"):
        population = getattr(market, side)
        vectors = rng.normal(size=(len(population), dim))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        changed = {key: getattr(population, key) for key in population.__slots__} | {"vectors": vectors.astype(dtype)}
        sides[side] = type(population)(**changed)
    market = LabourMarket("random", sides["applicants"], sides["jobs"], market.vocabulary)
    found = JobIndex.build(market, progress=False).nearest(market.applicants.vectors[0].astype(np.float32), 10)
    assert len(set(found)) == 10
    best = np.sort(market.jobs.vectors.astype(np.float32) @ market.applicants.vectors[0].astype(np.float32))[::-1]
    assert cosines(market, 0, found)[0] >= best[5] - 1e-3


def test_the_index_is_built_once_and_kept_beside_the_market(catalogue, unopened, monkeypatch):
    before = open_index(catalogue).nearest(np.ones(768, np.float32), 50)
    forget_indexes()
    monkeypatch.setattr(JobIndex, "build", lambda *_: pytest.fail("built again"))
    assert (open_index(catalogue).nearest(np.ones(768, np.float32), 50) == before).all()
    assert load(catalogue.folder) is load(catalogue.folder), "an index beside the market does not make it another one"


@pytest.mark.parametrize("is_saved", [True, False])
def test_new_people_use_the_index_that_is_open_for_the_jobs(tmp_path, unopened, monkeypatch, is_saved):
    market = load_market("default", n_jobs=600, n_applicants=5)
    market = market.save(tmp_path / "market") if is_saved else market
    index = open_index(market)
    for verb in ("build", "read"):
        monkeypatch.setattr(JobIndex, verb, lambda *_: pytest.fail("made again"))
    new = market.replaced_applicants(market.applicants.take(np.array([3])), market.vocabulary)
    assert open_index(new) is open_index(new.replaced_applicants(new.applicants, new.vocabulary)) is index
    equal = LabourMarket("equal", market.applicants, market.jobs, market.vocabulary)
    with pytest.raises(pytest.fail.Exception, match="made again"):
        open_index(equal)


def test_an_index_of_other_vectors_is_not_read(tmp_path, unopened):
    old = load(tmp_path / "market")
    open_index(old)
    other = load_market("default", n_jobs=N_JOBS, n_applicants=N_APPLICANTS, seed=1).save(tmp_path / "other", "float16")
    stale = other.folder / index_file(old).name
    stale.write_bytes(index_file(old).read_bytes())
    found = open_index(other).nearest(other.applicants.vectors[0].astype(np.float32), 1)
    assert cosines(other, 0, found)[0] >= cosines(other, 0, np.arange(N_JOBS)).max() - 1e-3
    assert index_file(other).is_file() and not stale.exists()


@pytest.mark.parametrize("damage", ["truncated", "empty", "another size", "a bit", "of FAISS alone", "another version"])
def test_a_broken_index_is_built_again(catalogue, tmp_path, unopened, caplog, damage):
    market = load(shutil.copytree(catalogue.folder, tmp_path / "market"))
    file = index_file(market)
    whole = file.read_bytes()
    if damage == "another size":
        small = load_market("default", n_jobs=600, n_applicants=5)
        JobIndex.build(small).write(file)
    else:
        inner, _, line = whole.rpartition(b"\n")
        said = json.loads(line)
        assert said["written_by"].startswith("jobrec-gym")
        newer = json.dumps(said | {"format": "jobrec-index/9"}).encode()
        middle = len(inner) // 2
        file.write_bytes(
            {
                "truncated": whole[: len(whole) // 2],
                "empty": b"",
                "a bit": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
                "of FAISS alone": inner,
                "another version": inner + b"\n" + newer,
            }[damage]
        )
    forget_indexes()
    open_index(market)
    (told,) = [record.getMessage() for record in caplog.records if "built again" in record.getMessage()]
    assert str(file) in told and "\n" not in told
    assert ("jobrec-index/9" in told) == (damage == "another version")
    assert len(file.read_bytes()) == len(whole)


def test_the_digest_of_an_index_is_compared_once_a_file(tmp_path, unopened, monkeypatch):
    market = load(tmp_path / "market")
    JobIndex.build(market).write(index_file(market))
    JobIndex.read(market, index_file(market))
    monkeypatch.setattr(job_index, "_digest", lambda *_: pytest.fail("compared again"))
    JobIndex.read(market, index_file(market))


def test_a_failed_write_costs_the_keeping_only_and_leaves_nothing_behind(tmp_path, unopened, monkeypatch, caplog):
    market = load(tmp_path / "market")

    def fail(codes, path):
        Path(path).write_bytes(b"half")
        raise RuntimeError("disk full")

    monkeypatch.setattr(faiss, "write_index", fail)
    index = open_index(market)
    assert len(index.nearest(market.applicants.vectors[0].astype(np.float32), 5)) == 5
    assert "is not kept" in caplog.text and "disk full" in caplog.text
    assert not list(market.folder.glob(".jobs-*")) and not index_file(market).exists()


@pytest.mark.waits
def test_processes_that_need_the_index_at_once_build_it_once(tmp_path):
    market = load(tmp_path / "market")
    code = textwrap.dedent(
        """
        import sys, logging
        from jobrec_gym.job_index import JobIndex, open_index
        from jobrec_gym.market import load_market
        build = JobIndex.build.__func__
        JobIndex.build = classmethod(lambda cls, *a: (print("built"), build(cls, *a))[1])
        open_index(load_market(sys.argv[1]))
        """
    )
    command = [sys.executable, "-c", code, str(market.folder)]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert sorted(worker.communicate(timeout=3_600)[0] for worker in workers) == ["", "built\n"]


def test_a_market_in_memory_has_its_index_in_memory(unopened, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    market = load_market("default", n_jobs=700, n_applicants=5)
    sets = RETRIEVAL.bind(market, np.arange(700), 10).sample(np.arange(5), KEYS[:5])
    assert sets.shape == (5, 10)
    assert list(tmp_path.iterdir()) == []


def test_environments_share_the_index_and_copies_hold_none_of_it(catalogue):
    env = gym.make(
        "JobRec-v0", market=catalogue, split="all", candidate_sampler=RETRIEVAL, num_candidates=100, observation="ids"
    )
    twin = copy.deepcopy(env.unwrapped)
    obs, _ = env.reset(seed=5)
    again, _ = twin.reset(seed=5)
    assert (obs["candidates"] == again["candidates"]).all()
    assert len(pickle.dumps(env.unwrapped._problem.sampler)) < 100_000
    vector = gym.make_vec(
        "JobRec-v0",
        num_envs=3,
        vectorization_mode="vector_entry_point",
        vector_kwargs=None,
        market=catalogue,
        split="all",
        candidate_sampler=RETRIEVAL,
        num_candidates=100,
        observation="ids",
    )
    batch, _ = vector.reset(seed=5)
    assert (batch["candidates"][0] == obs["candidates"]).all()


def test_remembered_sets_are_bounded(catalogue, monkeypatch):
    monkeypatch.setattr(jobrec_gym.candidates, "_MAX_CACHED_IDS", 100)
    sampler = RETRIEVAL.bind(catalogue, np.arange(N_JOBS), 20)
    first = sampler.sample(APPLICANTS, KEYS)
    assert len(sampler._nearest._cache) <= 5
    assert (sampler.sample(APPLICANTS, KEYS) == first).all()


def test_a_search_leaves_the_library_as_it_was(catalogue):
    before = faiss.omp_get_max_threads()
    open_index(catalogue).nearest(catalogue.applicants.vectors[0].astype(np.float32), 5)
    assert faiss.omp_get_max_threads() == before


def test_a_folder_that_cannot_be_written_costs_the_keeping_only(tmp_path, unopened, monkeypatch, caplog):
    market = load(tmp_path / "market")

    def refuse(*_):
        raise OSError("read-only file system")

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    assert len(open_index(market).nearest(market.applicants.vectors[0].astype(np.float32), 5)) == 5
    assert "is not kept" in caplog.text and "read-only file system" in caplog.text
    assert not index_file(market).exists()


def test_building_shows_progress(caplog, monkeypatch):
    from jobrec_gym import progress

    monkeypatch.setattr(progress, "_LOG_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(job_index, "_CHUNK", 300)
    with caplog.at_level("INFO"):
        JobIndex.build(load_market("default", n_jobs=700, n_applicants=5), progress=True)
    assert "indexing the jobs of default: 700 of 700" in caplog.text


@pytest.mark.waits
def test_forked_workers_search_the_index_that_their_parent_built(tmp_path, unopened):
    market = load(tmp_path / "market")
    arguments = {"market": market, "candidate_sampler": RETRIEVAL, "num_candidates": 30, "observation": "ids"}
    alone = gym.make("JobRec-v0", **arguments)  # builds on all cores
    envs = gym.make_vec("JobRec-v0", num_envs=2, vectorization_mode="async", **arguments)
    try:
        envs.reset_async(seed=[3, 4])
        obs, _ = envs.reset_wait(timeout=3_600)
    finally:
        envs.close(terminate=True)
    for row, seed in enumerate((3, 4)):
        assert (obs["candidates"][row] == alone.reset(seed=seed)[0]["candidates"]).all()
