"""Kinds of inputs that are data: files of jobs and people, saved markets, logs, caches of vectors."""

from __future__ import annotations

import json
import tokenize
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import mutated_files
import numpy as np
import small_releases
from robustness import edits as changes
from robustness.edits import Edit
from robustness.trying import FilesKind, Wrong, read_files, write_files

from jobrec_gym import Interactions, LabourMarket, RuleSimulator, load_interactions, load_market
from jobrec_gym.encoders import CachedEncoder, HashingEncoder
from jobrec_gym.loaders.tables import load_table
from jobrec_gym.market.verified import array_digest

_LETTERS = (";", ",", '"', "'", "\t", "\n", "\r", "\x00", "\ufeff", "é", "[", "]", "{", "nan", "1e999", "-1", " ", "j0")


def drawn_edits(rng: np.random.Generator, draw: Any, most: int = 3) -> list[Edit]:
    """One to ``most`` edits, few more often than many."""
    return [draw() for _ in range(1 + int(rng.geometric(0.6) - 1) % most)]


def one_of(rng: np.random.Generator, choices: Sequence[Any]) -> Any:
    """A choice, as it is: numpy would make texts of a mixture."""
    return choices[int(rng.integers(len(choices)))]


def require_sound(market: LabourMarket) -> None:
    """Plays two steps on a market.

    Raises:
        Wrong: If its vectors or keys cannot be, or the reward is none.
    """
    for side in ("applicants", "jobs"):
        population = getattr(market, side)
        lengths = np.linalg.norm(np.asarray(population.vectors, dtype=np.float64), axis=1)
        if not np.allclose(lengths, 1, atol=5e-3):
            raise Wrong(f"vectors: {side} have lengths {lengths.min()} to {lengths.max()}")
        if len(set(population.keys.tolist())) < len(population.keys) or "" in population.keys:
            raise Wrong(f"keys: those of {side} are not distinct, {population.keys[:5]}")
    k = min(3, len(market.jobs))
    env = gym.make("JobRec-v0", market=market, split="all", job_split="all", num_candidates=k, render_mode="ansi")
    env.reset(seed=0)
    for action in (0, k - 1):
        reward = env.step(action)[1]
        if not 0 <= reward <= 1:
            raise Wrong(f"reward: {reward} is not in [0, 1]")
    env.render()
    env.close()


class Loaders(FilesKind):
    """Tables of one's own in twelve forms, and releases of others, changed by letters and bytes.

    A table that was changed only in its form gives an equal market; every other one is refused, or gives a sound one.
    """

    name = "loaders"
    sources: ClassVar = {
        "onet": "onet:{}/onet.zip",
        "esco": "esco:{}/esco.zip",
        "export": "dynaq-json:{}/export",
        "csv": "csv:{}/jobs.csv",
    }

    def __init__(self, folder: Path):
        super().__init__(folder)
        originals = folder / "originals"
        originals.mkdir()
        small_releases.write_onet(originals / "onet.zip")
        small_releases.write_esco(originals / "esco.zip")
        small_releases.write_export(originals / "export")
        small_releases.write_own_tables(originals)
        (originals / "applicants.csv").write_text("key,hard\np1,SQL\np2,Python\n")
        self.files = read_files(originals)
        self.encoder = HashingEncoder(16)

    def draw(self, rng: np.random.Generator) -> list[Edit]:
        if rng.random() < 0.4:
            keeping = bool(rng.random() < 0.5)
            made: list[Edit] = [["table", one_of(rng, mutated_files.KINDS), int(rng.integers(2**31)), keeping]]
            return made if keeping else made + drawn_edits(rng, lambda: self._of_text(rng, "table", 400))
        source = one_of(rng, list(self.sources))
        files = {
            "onet": [f"onet.zip!{name}" for name in changes.read_entries(self.files["onet.zip"])] + ["onet.zip"],
            "esco": [f"esco.zip!{name}" for name in changes.read_entries(self.files["esco.zip"])] + ["esco.zip"],
            "export": [name for name in self.files if name.startswith("export/")],
            "csv": ["jobs.csv", "people.csv"],
        }[source]
        return [["source", source], *drawn_edits(rng, lambda: self._of_source(rng, one_of(rng, files)))]

    def _of_source(self, rng: np.random.Generator, file: str) -> Edit:
        content = changes.read(self.files, file)
        how = rng.random()
        if how < 0.1:
            return changes.draw_files(rng, [file])
        if file.endswith(".json") and how < 0.5:
            return changes.draw_json(rng, file, content)
        return changes.draw_bytes(rng, file, content) if how < 0.7 else self._of_text(rng, file, len(content))

    @staticmethod
    def _of_text(rng: np.random.Generator, file: str, size: int) -> Edit:
        if rng.random() < 0.3:
            return changes.draw_bytes(rng, file, bytes(size))
        return ["text", file, int(rng.integers(size)), one_of(rng, _LETTERS)]

    def try_(self, edits: Sequence[Edit]) -> None:
        if not edits:
            return
        (what, *rest), *others = edits
        if what == "table":
            self._try_table(*rest, others)
        elif what == "source":
            self.written(others)
            spec = self.sources[rest[0]].format(self.place)
            more: dict[str, Any] = {"encoder": self.encoder, "cache_dir": False}
            if rest[0] == "csv":
                more |= {"applicants": f"{self.place}/people.csv", "columns": {"hard": "skills"}}
            elif rest[0] == "export":
                more = {}
            require_sound(load_market(spec, **more))

    def _try_table(self, kind: str, number: int, keeping: bool, others: list[Edit]) -> None:
        rng = np.random.default_rng(number)
        rows = mutated_files.drawn(rng)
        columns = list(mutated_files.COLUMNS)
        rng.shuffle(columns)
        text = mutated_files.written(kind, rows, rng, columns, keeping=keeping)
        if keeping and rng.random() < 0.3:
            text = unicodedata.normalize("NFD", text)
        data = mutated_files.packed(text.encode(one_of(rng, ["utf-8", "utf-8-sig", "utf-16"])), rng)
        self.files["table"] = data
        self.written(others)
        market = self._table(kind, "table")
        require_sound(market)
        if keeping and not others:
            write_files(self.place, {"plain": json.dumps(rows).encode()})
            if market.fingerprint() != self._table("array", "plain").fingerprint():
                raise Wrong(f"another market: {kind} of {text!r:.300}")

    def _table(self, kind: str, name: str) -> LabourMarket:
        return load_table(
            self.place / name,
            kind="csv" if kind in mutated_files.CSV_KINDS else "json",
            applicants=self.place / "applicants.csv",
            columns={"jobs": {"hard": "hard.name", "soft": "soft.name"}} if kind == "entries" else None,
            encoder=self.encoder,
            cache_dir=False,
        )


class Markets(FilesKind):
    """A saved market, changed by bytes, by numbers of its tables, by words of its header.

    What is read is the market that was saved. Where somebody wrote digests that fit (``believed``), it is a sound one.
    """

    name = "markets"

    def __init__(self, folder: Path):
        super().__init__(folder)
        market = load_market("default", n_jobs=30, n_applicants=20, context="all").save(folder / "original")
        self.files = read_files(folder / "original")
        self.fingerprint = market.fingerprint()
        self.tables = [name for name in self.files if name.endswith(".npy")]

    def draw(self, rng: np.random.Generator) -> list[Edit]:
        drawn = drawn_edits(rng, lambda: self._edit(rng))
        return [*drawn, ["believed"]] if rng.random() < 0.5 else drawn

    def _edit(self, rng: np.random.Generator) -> Edit:
        how, table = rng.random(), one_of(rng, self.tables)
        if how < 0.45:
            return changes.draw_array(rng, table, self.files[table])
        if how < 0.7:
            return changes.draw_json(rng, "market.json", self.files["market.json"])
        if how < 0.8:
            return changes.draw_files(rng, list(self.files))
        file = table if how < 0.95 else "market.json"
        return changes.draw_bytes(rng, file, self.files[file])

    def try_(self, edits: Sequence[Edit]) -> None:
        believed = ["believed"] in edits
        files = self.written([edit for edit in edits if edit != ["believed"]])
        if believed:
            self._rewrite_digests(files)
        market = load_market(self.place)
        require_sound(market)
        RuleSimulator(seed=0).bind(market).feedback(np.arange(3), np.arange(3))
        has_digests = "sha256" in json.loads((self.place / "market.json").read_text())
        if has_digests and market.fingerprint() != self.fingerprint:
            raise Wrong("another market: it is not the one that was saved")

    def _rewrite_digests(self, files: dict[str, bytes]) -> None:
        """As somebody would who wants to be believed."""
        try:
            header = json.loads(files["market.json"])
            header.pop("sha256", None)
            for name in header["files"]:
                header["files"][name] = array_digest(np.load(self.place / name))
            (self.place / "market.json").write_text(json.dumps(header))
        except (OSError, EOFError, KeyError, TypeError, ValueError, AttributeError, SyntaxError, tokenize.TokenError):
            return  # what is broken so far has no digests to be rewritten


class Logs(FilesKind):
    """Logs of interactions, as CSV, JSON lines and as saved, changed by cells, letters and bytes.

    What is read has ids that there are, finite rewards, propensities in (0, 1], and the recommended job among those
    shown; a saved one is the one that was saved.
    """

    name = "logs"
    cells: ClassVar = (
        "",
        "nan",
        "-1",
        "1e400",
        "apply",
        "J0000001",
        "2020-01-01",
        "[",
        "é",
        "0.5",
        "true",
        "\x00",
        "=1+1",
    )

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.market = load_market("default", n_jobs=30, n_applicants=20)
        rng = np.random.default_rng(0)
        shown = [rng.choice(30, 4, replace=False) for _ in range(12)]
        people, jobs = rng.integers(20, size=12), [int(each[0]) for each in shown]
        answers = RuleSimulator(seed=0).bind(self.market).feedback(people, np.array(jobs))
        self.log = Interactions.of(
            self.market, people, jobs, answers.reward, time=np.arange(12.0), propensity=np.full(12, 0.25), shown=shown
        )
        self.log.save(folder / "saved")
        names = ("applicant", "job", "decision", "time", "propensity", "shown", "split")
        rows = [
            [
                *(str(self.market.applicants.keys[people[n]]), str(self.market.jobs.keys[jobs[n]])),
                *(str(answers.decision[n]), str(n), "0.25"),
                *(";".join(self.market.jobs.keys[shown[n]].tolist()), "test" if n % 3 == 0 else "train"),
            ]
            for n in range(12)
        ]
        lines = [dict(zip(names, row, strict=True)) for row in rows]
        self.rows, self.names = rows, names
        self.files = {f"saved/{name}": content for name, content in read_files(folder / "saved").items()}
        self.files["log.csv"] = "".join(",".join(row) + "\n" for row in [names, *rows]).encode()
        self.files["log.jsonl"] = "".join(json.dumps(line) + "\n" for line in lines).encode()
        self.saved = [name for name in self.files if name.startswith("saved/")]

    def draw(self, rng: np.random.Generator) -> list[Edit]:
        source = one_of(rng, ["log.csv", "log.csv", "log.jsonl", "saved"])
        return [["source", source, bool(rng.random() < 0.3)], *drawn_edits(rng, lambda: self._edit(rng, source))]

    def _edit(self, rng: np.random.Generator, source: str) -> Edit:
        how = rng.random()
        if source == "saved":
            file = one_of(rng, self.saved)
            if how < 0.1:
                return changes.draw_files(rng, self.saved)
            if file.endswith(".npy") and how < 0.7:
                return changes.draw_array(rng, file, self.files[file])
            if file.endswith(".json") and how < 0.8:
                return changes.draw_json(rng, file, self.files[file])
            return changes.draw_bytes(rng, file, self.files[file])
        if how < 0.5 and source == "log.csv":
            return ["cell", source, int(rng.integers(13)), int(rng.integers(7)), one_of(rng, self.cells)]
        if how < 0.75:
            return ["text", source, int(rng.integers(len(self.files[source]))), one_of(rng, _LETTERS)]
        return changes.draw_bytes(rng, source, self.files[source])

    def try_(self, edits: Sequence[Edit]) -> None:
        if not edits or edits[0][0] != "source":
            return
        (_, source, skip), *others = edits
        cells = [edit for edit in others if edit[0] == "cell"]
        rows = [list(self.names), *map(list, self.rows)]
        for _, _, row, column, value in cells:
            rows[row % len(rows)][column % len(self.names)] = value
        self.files["log.csv"] = "".join(",".join(row) + "\n" for row in rows).encode()
        self.written([edit for edit in others if edit[0] != "cell"])
        log = load_interactions(f"{self.place}/{source}", self.market, on_bad="skip" if skip else "raise")
        self._require_sound(log)
        if source == "saved":
            for name in ("applicant_ids", "job_ids", "reward", "decision", "time", "propensity", "shown_ids"):
                if not np.array_equal(getattr(log, name), getattr(self.log, name), equal_nan=name == "reward"):
                    raise Wrong(f"another log: `{name}` is not what was saved")

    def _require_sound(self, log: Interactions) -> None:
        n = len(log)
        for name, ids, most in (("people", log.applicant_ids, 20), ("jobs", log.job_ids, 30)):
            if ids.min() < 0 or ids.max() >= most:
                raise Wrong(f"ids: of {name} there are {ids.min()} to {ids.max()}")
        if np.isinf(log.reward).any() or (log.time is not None and not np.isfinite(log.time).all()):
            raise Wrong(f"numbers: {log.reward}, {log.time}")
        if log.propensity is not None and not ((log.propensity > 0) & (log.propensity <= 1)).all():
            raise Wrong(f"propensities: {log.propensity}")
        if log.shown_ids is not None and not all(log.job_ids[row] in log.shown(row) for row in range(n)):
            raise Wrong("shown: a recommended job is not among those shown")
        log.to_pretrain()


class Vectors(FilesKind):
    """The cache of an encoder, changed by bytes: its vectors are those of the encoder, whatever is in the files."""

    name = "vectors"

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.texts = [f"skill number {number}" for number in range(40)]
        self.right = CachedEncoder(HashingEncoder(16), folder / "original", batch_size=1).encode(self.texts)
        self.files = read_files(folder / "original")

    def draw(self, rng: np.random.Generator) -> list[Edit]:
        def edit() -> Edit:
            file = one_of(rng, list(self.files))
            how = rng.random()
            if how < 0.2:
                return changes.draw_files(rng, list(self.files))
            if how < 0.5:
                entry = one_of(rng, list(changes.read_entries(self.files[file])))
                return changes.draw_array(rng, f"{file}!{entry}", self.files[file])
            return changes.draw_bytes(rng, file, self.files[file])

        return drawn_edits(rng, edit, most=5)

    def try_(self, edits: Sequence[Edit]) -> None:
        self.written(edits)
        for _ in range(2):  # the second time by what the first one made anew
            found = CachedEncoder(HashingEncoder(16), self.place, batch_size=1).encode(self.texts)
            if not np.array_equal(found, self.right):
                raise Wrong("other vectors: they are not those of the encoder")


KINDS = (Loaders, Markets, Logs, Vectors)
