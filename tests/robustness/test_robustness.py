"""A sample of what `make test-robustness` tries, what it found once, and whether it would find it."""

import importlib.util
import json
import os
import sys
import time
import urllib.request
from pathlib import Path

import fake_llm
import pytest
from robustness import kills, run, together
from robustness.trying import GOOD, SECONDS, Kind, Wrong, is_own, shrunk, tried

NEEDS = {
    **dict.fromkeys(("agents", "replays", "checkpoints"), "torch"),
    "answers": "litellm",
    "overrides": "hydra",
}
SAMPLE = {"overrides": 3, "answers": 3, "agents": 6, "checkpoints": 3, "markets": 6}
SEED = 1

FOUND = [
    ("agents", '[["drop", "agent.zip", 0, 1]]'),
    ("agents", '[["flip", "agent.zip!policy.optimizer.pth", 1262, 0]]'),
    ("agents", '[["gone", "agent.zip!world_model.pth"]]'),
    ("agents", '[["set", "agent.zip!data", ["buffer_size"], 9223372036854775808]]'),
    ("agents", '[["set", "agent.zip!data", ["max_grad_norm"], 7629394531250000000000000]]'),
    ("agents", '[["set", "agent.zip!data", ["planning_source"], []]]'),
    ("agents", '[["drop", "agent.zip!data", 5418, 36]]'),
    ("agents", '[["set", "agent.zip!data", ["exploration_bonus"], 29103830456733703613]]'),
    ("agents", '[["set", "agent.zip!data", ["train_freq"], 2147483648]]'),
    ("agents", '[["set", "agent.zip!data", ["train_freq", "frequency"], 0.5]]'),
    ("agents", '[["set", "agent.zip!data", ["forecasts"], "xx"]]'),
    ("agents", '[["set", "agent.zip!data", ["planning_steps"], 268435456]]'),
    pytest.param(
        *("agents", f'[["set", "agent.zip!data", ["tensorboard_log"], "{"x" * 3_000}"]]'),
        id="agents-a long folder",
    ),
    ("caches", '[["open", "plain"], ["zero", "plain/answers.sqlite", 31208, 24]]'),
    ("caches", '[["open", "plain"], ["insert", "plain/answers.sqlite", 3954, "22"]]'),
    ("caches", '[["open", "export.jsonl"], ["insert", "export.jsonl", 0, "fffe"]]'),
    ("caches", '[["open", "export.jsonl"], ["row", 1, ["set", "row", ["cost_usd"], 9223372036854775808]]]'),
    pytest.param(
        *("caches", f'[["open", "export.jsonl"], ["row", 1, ["set", "row", ["status"], "{"x" * 3_000}"]]]'),
        id="caches-a long status",
    ),
    ("checkpoints", '[["set", "model.zip!data", ["seed"], -1]]'),
    ("checkpoints", '[["set", "model.zip!data", ["ep_info_buffer"], "ap"]]'),
    ("checkpoints", '[["set", "model.zip!data", ["learning_rate"], -0.5]]'),
    ("checkpoints", '[["set", "model.zip!data", ["forecasts"], 0.5]]'),
    pytest.param(
        *("checkpoints", f'[["set", "model.zip!data", ["world_model_name"], "{"x" * 3_000}"]]'),
        id="checkpoints-a long name",
    ),
    pytest.param(
        *("checkpoints", f'[["set", "model.zip!data", ["reads", "ob"], "{"x" * 3_000}"]]'),
        id="checkpoints-a long text that was read",
    ),
    ("checkpoints", '[["shape", "state.npz!a3.npy", "empty"]]'),
    ("environments", '[["make", null, {}], ["reset", -1, 0]]'),
    ("environments", '[["make", 1, {}], ["reset", null, "app"]]'),
    ("environments", '[["make", 1, {}], ["reset", 1, {"applicant_key": ["x"]}]]'),
    ("environments", '[["make", null, {"job_fields": 1000000000000000000000000000000}]]'),
    ("environments", '[["make", 1, {"pair_noise": "x"}]]'),
    ("environments", '[["make", 1, {}], ["reset", "x", {}]]'),
    ("loaders", '[["source", "onet"], ["cut", "onet.zip!onet/Job Zones.txt", 0]]'),
    ("loaders", '[["source", "esco"], ["zero", "esco.zip!skills_en.csv", 69, 6]]'),
    ("loaders", '[["source", "esco"], ["zero", "esco.zip", 6817, 24]]'),
    ("loaders", '[["source", "esco"], ["text", "esco.zip!occupations_en.csv", 827, ","]]'),
    ("logs", '[["source", "saved", false], ["drop", "saved/reward.npy", 60, 1]]'),
    ("logs", '[["source", "saved", true], ["number", "saved/shown_offsets.npy", 0, 1]]'),
    ("logs", '[["source", "saved", true], ["type", "saved/jobs_keys.npy", "S2"]]'),
    ("logs", '[["source", "saved", true], ["type", "saved/shown_offsets.npy", "uint64"]]'),
    ("logs", '[["source", "saved", true], ["type", "saved/reward.npy", "U3"]]'),
    ("markets", '[["set", "market.json", ["vocabulary", "occupation_families"], ""], ["believed"]]'),
    ("markets", '[["copy", "tables/applicants-keys.npy", 0, 0, 158], ["believed"]]'),
    ("overrides", '[["algo=1e30"]]'),
    ("overrides", '[["pretrain=1e3"]]'),
    ("overrides", '[["algo.world_model_kwargs.n_members=1e3"]]'),
    ("overrides", '[["algo.policy_kwargs.features=true"]]'),
    ("overrides", '[["algo.policy_kwargs.net_arch=1"]]'),
    ("overrides", '[["reward._target_=false"]]'),
    ("overrides", '[["simulator=recorded"]]'),
    ("overrides", '[["++algo.policy=false"]]'),
    ("overrides", "[[\"++evaluation='a b'\"]]"),
    ("overrides", '[["+simulator.weights=os.system"]]'),
    ("overrides", '[["market=[[1]]"]]'),
    ("overrides", '[["reward=[1]"]]'),
    ("replays", '[["flip", "replay.npz!n_added.npy", 117, 3]]'),
    ("replays", '[["drop", "replay.npz", 0, 1]]'),
    (
        "wrappers",
        '[["wrap", "feedback", {"simulator": {"type": "rules", "seed": 0}, "terminate_on": [[]]}, {}, []],'
        ' ["play", 0, []]]',
    ),
]
"""Kinds and inputs of which came something else than what was right or an error of the project's own."""


@pytest.fixture(scope="module")
def kind(tmp_path_factory):
    """A kind of inputs by its name; each is made once."""
    made = {}

    def find(name):
        if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
            pytest.skip(f"needs {NEEDS[name]}")
        if name not in made:
            made[name] = run.kind_of(name, tmp_path_factory.mktemp(name))
        return made[name]

    yield find
    for each in made.values():
        each.close()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", run.SHARES)
def test_a_sample_of_each_kind_is_read_rightly_or_refused_by_an_error_of_our_own(kind, name):
    one = kind(name)
    for number in range(SAMPLE.get(name, 10)):
        edits = one.input_of(SEED, number)
        result = tried(one, edits)
        assert result.verdict in GOOD, f"number {number}: {result}, of {json.dumps(edits)}"


@pytest.mark.parametrize(("name", "edits"), FOUND)
def test_what_was_found_once_is_refused_by_an_error_of_our_own(kind, name, edits):
    result = tried(kind(name), json.loads(edits))
    assert result.verdict in GOOD, result


@pytest.mark.waits
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")
def test_kills_of_a_writer_leave_what_is_whole(tmp_path):
    results = kills.drill("vectors", tmp_path, SEED, 0, 2, dict(os.environ))
    assert [(each["verdict"], each["said"]) for each in results] == [("read", "")] * 2


class Asks(kills._Asking):
    """Asks five questions, and has the answers afterwards."""

    function = "robustness.test_robustness:ask"
    modules = ()

    def reply(self, body, number):
        return fake_llm.says("yes")

    def words(self, folder):
        return [self.server.api_base, str(folder / "answers")]

    def left(self, folder):
        self.require_paid_once()
        return (folder / "answers").read_text()


def ask():
    """What the process of :class:`Asks` does."""
    server, answers = sys.argv[1], Path(sys.argv[2])
    for number in range(0 if answers.exists() else 5):
        body = json.dumps({"model": "fake", "messages": [{}, {"content": f"question {number}"}]}).encode()
        headers = {"Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(f"{server}/chat/completions", body, headers)) as reply:
            reply.read()
    answers.write_text("yes")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")
def test_a_run_that_was_done_before_its_kill_did_not_ask_what_the_next_one_asks(tmp_path, monkeypatch):
    seconds, killer = iter([900, 900, 0, 900]), kills._killer  # the right one, one that is done before, a kill, its end
    monkeypatch.setattr(kills, "_killer", lambda pid, _: killer(pid, next(seconds)))
    monkeypatch.setitem(kills.DRILLS, "asks", (Asks, 0))
    results = kills.drill("asks", tmp_path, SEED, 0, 1, dict(os.environ))
    assert [(each["verdict"], each["said"]) for each in results] == [("read", "")]
    assert next(seconds, None) is None


@pytest.mark.waits
def test_sixteen_threads_are_answered_on_their_own_pairs():
    assert together.threads(800, SEED) == {"right": 800, "wrong": 0}


# ---------------------------------------------------------------------------------------- would it find what is wrong?


class Toy(Kind):
    """Fails where a letter of an input says so."""

    name = "toy"

    def draw(self, rng):
        return [["say", "".join(rng.choice(list("abc"), 5))]]

    def try_(self, edits):
        said = "".join(edit[1] for edit in edits)
        if "f" in said:
            raise KeyError("a key of nobody's")
        if "h" in said:
            time.sleep(3_600.0)
        if "w" in said:
            raise Wrong("twice: one is two")
        if "o" in said:
            _ = int("x" if "`" in said else "1")


@pytest.mark.waits
def test_foreign_errors_hangs_and_what_is_wrong_are_told_apart(tmp_path):
    toy = Toy(tmp_path)
    few = {"h": 0.1}  # seconds, only for what never ends
    verdicts = {letter: tried(toy, [["say", letter]], few.get(letter, SECONDS)).verdict for letter in "fhwo"}
    assert verdicts == {"f": "foreign", "h": "hang", "w": "wrong", "o": "read"}
    assert tried(toy, [["say", "o`"]]).verdict == "foreign", "a library's backticks do not make an error ours"


def test_an_input_is_drawn_from_its_number_alone(tmp_path):
    toy = Toy(tmp_path)
    assert toy.input_of(0, 7) == toy.input_of(0, 7) != toy.input_of(1, 7)


def test_a_failure_is_made_as_small_as_it_can_be(tmp_path):
    toy = Toy(tmp_path)
    edits = [["say", "abcdefghijkl"], ["say", "abc"], ["say", "xyzwxyz" * 3]]
    smallest, result = shrunk(toy, edits, tried(toy, edits))
    assert smallest == [["say", "def"]] and result.verdict == "foreign"


def test_an_error_of_a_file_has_to_name_it_in_one_line():
    from jobrec_gym import MarketError

    assert is_own(MarketError("/a/jobs.csv, row 3: no"), "always", "/a")
    assert not is_own(MarketError("row 3: no"), "always", "/a")
    assert not is_own(MarketError("/a/jobs.csv\nrow 3: no"), "always", "/a")
    assert not is_own(MarketError("/a/jobs.csv: " + "x" * 5_000), "always", "/a")
    assert is_own(MarketError("`seed` must be"), "or argument", "/a")
    assert is_own(FileNotFoundError(2, "No such file", "/a/b"), "always", "/a")
    assert not is_own(OSError(22, "Invalid argument"), "always", "/a")
    assert not is_own(ValueError("`x` is no y"), "no"), "nobody of ours raised it"


DYING = """
import json, os, sys
start = int(sys.argv[4])
print(json.dumps({"at": start}))
if start == 3:
    print(json.dumps({"number": 3, "verdict": "read", "said": "", "where": "", "edits": None}))
    print(json.dumps({"at": 4}), flush=True)
os._exit(7)
"""


def test_a_worker_that_dies_costs_the_input_that_it_was_at(tmp_path, monkeypatch):
    (tmp_path / "worker.py").write_text(DYING)
    monkeypatch.setattr(run, "__file__", str(tmp_path / "worker.py"))
    results = run.one_chunk("vectors", 0, 3, 6)
    assert [(each["number"], each["verdict"]) for each in results] == [(3, "read"), (4, "foreign"), (5, "foreign")]
    assert results[1]["where"] == "exit 7"


def test_the_table_counts_and_a_failure_is_told_as_a_row():
    good = {"number": 0, "verdict": "read", "said": "", "where": "", "edits": None}
    bad = {
        **good,
        "number": 1,
        "verdict": "foreign",
        "said": "KeyError: 'x'",
        "where": "there",
        "edits": [["say", "f"]],
    }
    table = run.table({"toy": [good, bad, bad], "threads": [{**good, "weight": 1_000}]})
    assert "| toy | 3 | 1 | 0 | 2 | 0 | 0 | 0 |\n" in table
    assert "| **all** | 1,003 | 1,001 | 0 | 2 | 0 | 0 | 0 |\n" in table
    (told,) = run.failures({"toy": [good, bad, bad]}, seed=3)
    assert told.startswith("foreign in toy, 2 times, there\n")
    assert """("toy", '[["say", "f"]]'),  # seed 3, 1: KeyError""" in told


def test_there_are_twenty_thousand_inputs_and_two_hundred_kills():
    parts = run.parts(20_000, 200, 100_000, [])
    count = {name: 0 for name, *_ in parts}
    for name, start, stop in parts:
        count[name] += stop - start
    assert sum(n for name, n in count.items() if name in run.SHARES) == 20_000
    assert sum(n for name, n in count.items() if name.startswith("kills of ")) == 200
    assert count["threads"] == 100_000
    assert len(set(parts)) == len(parts)


def test_it_goes_on_where_it_was_stopped_and_writes_the_page(tmp_path, monkeypatch, capsys):
    done, stops = [], [3]

    def done_part(part, seed):
        if len(done) in stops:
            raise KeyError("stopped")
        done.append(part)
        return [{"number": part[1], "verdict": "own", "said": "", "where": "", "edits": None}]

    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setattr(run, "PAGE", tmp_path / "robustness.md")
    monkeypatch.setattr(run, "commit", lambda: "abc")
    monkeypatch.setattr(run, "done_part", done_part)
    monkeypatch.setattr("sys.argv", ["run.py", "--inputs", "200", "--kills", "0", "--answers", "0", "--jobs", "1"])
    with pytest.raises(KeyError, match="stopped"):
        run.main()
    assert len(done) == 3 and not run.PAGE.exists()

    first, done, stops = done, [], []
    with pytest.raises(SystemExit) as ended:
        run.main()

    assert ended.value.code == 0
    assert done and not set(done) & set(first) and set(first + done) == set(run.parts(200, 0, 0, []))
    assert "Tried: commit abc, seed 0, 12 inputs, 0 kills" in run.PAGE.read_text()
    assert "| loaders | 1 | 0 | 1 | 0 | 0 | 0 | 0 |" in capsys.readouterr().out
