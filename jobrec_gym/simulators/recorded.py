"""Decisions of a real language model that were recorded once: feedback without a model, a key or a network."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobrec_gym.array_files import read_arrays
from jobrec_gym.market import LabourMarket, Population
from jobrec_gym.paths import place_of
from jobrec_gym.sharing import Shared
from jobrec_gym.simulators.asking import Usage
from jobrec_gym.simulators.base import DECISIONS, CertainFeedback, Feedback, SimulatorSpec, decision_rewards
from jobrec_gym.simulators.prompts import applicant_document, encode_document, job_document
from jobrec_gym.version import written_by
from jobrec_gym.whole_files import whole_file

__all__ = ["BoundRecordedSimulator", "RecordedSimulator", "Recording"]

Ids = NDArray[np.int64]

_SHIPPED = "recorded_decisions.npz"
_FORMAT = "jobrec-recording/1"


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """A language model's answers for every pair of some applicants and jobs.

    Attributes:
        applicant_keys: (n,) texts, the market's own keys.
        job_keys: (m,) texts.
        applicant_sha256: (n,) texts, the hash of each document that the model was shown.
        job_sha256: (m,) texts, likewise.
        probability: float32 (n, m), probability of an application; NaN where the model gave none.
        thresholds: float64 (3,), the lowest probabilities of a click, a save and an application.
        model: Name of the model.
        prompt: Version of the template.
        persona: Text of the persona, the temperament that the model played.
    """

    applicant_keys: NDArray[np.str_]
    job_keys: NDArray[np.str_]
    applicant_sha256: NDArray[np.str_]
    job_sha256: NDArray[np.str_]
    probability: NDArray[np.float32]
    thresholds: NDArray[np.float64]
    model: str
    prompt: str
    persona: str

    @classmethod
    def of(
        cls,
        market: LabourMarket,
        probability: NDArray[np.floating],
        thresholds: Sequence[float],
        *,
        model: str,
        prompt: str,
        persona: str,
    ) -> Recording:
        """The recording of a whole market, from probabilities (n_applicants, n_jobs).

        Raises:
            ValueError: For probabilities of another shape or out of range, or thresholds that are not finite or do not
                rise.
        """
        shape = (len(market.applicants), len(market.jobs))
        if probability.shape != shape:
            raise ValueError(
                f"`probability` must have a row for each applicant and a column for each job, {shape}, got "
                f"{probability.shape}."
            )
        wrong = (probability < 0) | (probability > 1)
        if wrong.any():
            raise ValueError(
                f"`probability` must be in [0, 1], or NaN where the model gave none, got {probability[wrong][0]}."
            )
        cuts = np.asarray(thresholds, dtype=np.float64)
        if cuts.shape != (len(DECISIONS) - 1,) or not (np.diff(cuts) >= 0).all() or not np.isfinite(cuts).all():
            raise ValueError(f"`thresholds` must be {len(DECISIONS) - 1} finite rising numbers, got {thresholds}.")
        return cls(
            market.applicants.keys,
            market.jobs.keys,
            np.array([_sha256(applicant_document(market.applicant(row))) for row in range(shape[0])]),
            np.array([_sha256(job_document(market.job(row))) for row in range(shape[1])]),
            probability.astype(np.float32),
            cuts,
            model,
            prompt,
            persona,
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes an npz file without pickles.

        Beside the attributes the file has ``format``, ``written_by`` and, for readers without this package,
        ``decision``: int8 (n, m), places in :data:`~jobrec_gym.simulators.base.DECISIONS`, -1 where there is none. The
        file appears whole or not at all.

        Raises:
            OSError: If it cannot be written, with the path.
        """
        decision = np.where(np.isnan(self.probability), -1, self.decide(self.probability)).astype(np.int8)
        content: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        about: dict[str, Any] = {"format": np.array(_FORMAT), "written_by": np.array(written_by())}
        with whole_file(path) as scratch, scratch.open("wb") as file:
            np.savez_compressed(file, **content, **about, decision=decision)

    def decide(self, probability: NDArray[np.floating]) -> Ids:
        """Decisions of probabilities, as places in :data:`~jobrec_gym.simulators.base.DECISIONS`; undefined for NaN."""
        return self.thresholds.searchsorted(probability, side="right")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recording:
        """Reads a file of :meth:`save`.

        Raises:
            OSError: If it cannot be opened.
            ValueError: If it is not a recording, or not a whole one.
        """
        try:
            arrays = read_arrays(path)
            found = str(arrays.get("format", _FORMAT))  # earlier recordings lack `format`
            if found != _FORMAT:
                raise ValueError(
                    f"its format is {found!r:.40}, by {arrays.get('written_by')!s:.40}, and this version "
                    f"({written_by()}) reads {_FORMAT!r}"
                )
            missing = sorted(set(cls.__slots__) - set(arrays))
            if missing:
                raise ValueError(f"it lacks {missing}")
            _check(arrays)
        except ValueError as error:
            raise ValueError(
                f"`recording` {os.fspath(path)!r} is not a recording, or not a whole one: {error}. Record again, or "
                "use an unchanged copy."
            ) from error
        fields: dict[str, Any] = {name: arrays[name] for name in cls.__slots__}
        for name in ("model", "prompt", "persona"):
            fields[name] = str(fields[name])
        return cls(**fields)


class RecordedSimulator:
    """Answers each pair as the recorded language model did; always the same, and free.

    A pair that is not in the recording has the status ``not_recorded``. A warning at :meth:`bind` says how many people
    and jobs of the market are not in it.

    Args:
        recording: File of a :class:`Recording`; ``None`` for the shipped one, which belongs to ``market="recorded"``.
        rewards: Rewards in place of apply 1.0, save 0.5, click 0.0, ignore -0.1.

    Raises:
        ValueError: For an unknown decision. When bound: if no pair of the market was recorded, or if its texts differ
            from those that the model was shown.
    """

    def __init__(self, recording: str | os.PathLike[str] | None = None, rewards: Mapping[str, float] | None = None):
        self.recording = None if recording is None else str(place_of(recording).absolute())
        self.rewards = decision_rewards(rewards)

    def bind(self, market: LabourMarket) -> BoundRecordedSimulator:
        """Ties the recording to a market."""
        bound = BoundRecordedSimulator(market, self.load(), self.rewards, self._way_out)
        if any(unknown := bound.n_unknown):
            warnings.warn(
                f"the recording lacks {unknown[0]:,} of {len(market.applicants):,} applicants and {unknown[1]:,} of "
                f"{len(market.jobs):,} jobs of market {market.name!r}: their pairs have the status 'not_recorded'. To "
                f"have them too, {self._way_out}.",
                stacklevel=2,
            )
        return bound

    @property
    def _way_out(self) -> str:
        """What to do about a market that is not the recorded one."""
        if self.recording is None:
            return 'use `market="recorded"`, which the recording of this package belongs to'
        return (
            "record this market by `python -m experiments.llm.record`: with the `simulator.cache` of the first "
            "recording, pairs that it has cost nothing again"
        )

    def load(self) -> Recording:
        """The recording itself."""
        if self.recording is not None:
            return Recording.load(self.recording)
        with resources.as_file(resources.files("jobrec_gym") / "data" / _SHIPPED) as path:
            return Recording.load(path)

    def to_spec(self) -> SimulatorSpec:
        """The simulator in plain JSON."""
        return {"type": "recorded", "recording": self.recording, "rewards": dict(self.rewards)}

    @classmethod
    def from_spec(cls, spec: SimulatorSpec) -> RecordedSimulator:
        """The simulator that :meth:`to_spec` described."""
        return cls(**{key: value for key, value in spec.items() if key != "type"})

    def __repr__(self) -> str:
        return "RecordedSimulator()" if self.recording is None else f"RecordedSimulator({self.recording!r})"


class BoundRecordedSimulator(Shared):
    """A recording on one market; made by :meth:`RecordedSimulator.bind`.

    Attributes:
        n_unknown: How many applicants and how many jobs of the market are not in the recording.
    """

    draws = False

    def __init__(self, market: LabourMarket, recording: Recording, rewards: Mapping[str, float], way_out: str):
        self.market = market
        self.recording = recording
        self._rewards = np.array([rewards[decision] for decision in DECISIONS])
        self._way_out = way_out
        self._n_asked = self._n_without = 0
        self._applicants = _match(
            market.applicants,
            recording.applicant_keys,
            recording.applicant_sha256,
            lambda row: _sha256(applicant_document(market.applicant(row))),
            market.name,
            way_out,
        )
        self._jobs = _match(
            market.jobs,
            recording.job_keys,
            recording.job_sha256,
            lambda row: _sha256(job_document(market.job(row))),
            market.name,
            way_out,
        )
        self.n_unknown = int((self._applicants < 0).sum()), int((self._jobs < 0).sum())

    @property
    def usage(self) -> Usage:
        """The counts of answers: no calls, and each answer is a cache hit. Pairs without an answer are failures."""
        failures = {"not_recorded": self._n_without} if self._n_without else {}
        return Usage(0, self._n_asked - self._n_without, 0, 0.0, failures, self._n_asked)

    def probabilities(self, applicant_ids: Ids, job_ids: Ids) -> NDArray[np.float64]:
        """Probability of an application, for pairs of shapes that broadcast.

        It is NaN where the model gave none, and for a pair that is not in the recording.
        """
        rows, columns = self._applicants[applicant_ids], self._jobs[job_ids]
        probability = self.recording.probability[rows, columns].astype(np.float64)
        return np.where((rows | columns) < 0, np.nan, probability) if any(self.n_unknown) else probability

    def feedback(
        self, applicant_ids: Ids, job_ids: Ids, interaction_keys: NDArray[np.uint64] | None = None
    ) -> Feedback:
        """Decides, see :class:`~jobrec_gym.simulators.base.BoundSimulator`; ``interaction_keys`` are ignored."""
        probability = self.probabilities(applicant_ids, job_ids)
        known = ~np.isnan(probability)
        decision = self.recording.decide(probability)
        n_known = int(np.count_nonzero(known))
        with self.lock:
            self._n_asked += len(known)
            self._n_without += len(known) - n_known
        if n_known == len(known):
            return CertainFeedback(decision, self._rewards, probability, cached=True)
        return Feedback.of(
            np.where(known, np.array(DECISIONS)[decision], ""),
            np.where(known, self._rewards[decision], 0.0),
            status=np.where(known, "ok", "not_recorded"),
            probability=probability,
            cached=known,
        )

    def expected_reward(self, applicant_ids: Ids, job_ids: Ids) -> NDArray[np.float64]:
        """Reward of pairs, for ids of shapes that broadcast; 0.0 where the model gave no answer.

        Raises:
            ValueError: For a pair that is not in the recording: its reward is unknown, so it can score nobody.
        """
        self._require_recorded(applicant_ids, job_ids)
        probability = self.probabilities(applicant_ids, job_ids)
        return np.where(np.isnan(probability), 0.0, self._rewards[self.recording.decide(probability)])

    def decisions(self, applicant_ids: Ids, job_ids: Ids) -> NDArray[np.str_]:
        """The recorded decisions; shapes and errors as in :meth:`expected_reward`."""
        self._require_recorded(applicant_ids, job_ids)
        probability = self.probabilities(applicant_ids, job_ids)
        return np.where(np.isnan(probability), "", np.array(DECISIONS)[self.recording.decide(probability)])

    def _require_recorded(self, applicant_ids: Ids, job_ids: Ids) -> None:
        if not any(self.n_unknown):
            return
        unknown = (self._applicants[applicant_ids] | self._jobs[job_ids]) < 0
        if np.count_nonzero(unknown):
            where = tuple(np.argwhere(unknown)[0])
            applicants, jobs = np.broadcast_arrays(applicant_ids, job_ids)
            raise ValueError(
                f"applicant {applicants[where]} and job {jobs[where]} of market {self.market.name!r} were not "
                f"recorded, so their reward is unknown: {self._way_out}, or score by another simulator."
            )


def _match(
    population: Population,
    keys: NDArray[np.str_],
    sha256: NDArray[np.str_],
    sha256_of: Callable[[int], str],
    name: str,
    way_out: str,
) -> Ids:
    """Row of the recording for each row of a population, -1 where there is none."""
    places = {str(key): place for place, key in enumerate(keys)}
    found = np.array([places.get(str(key), -1) for key in population.keys], dtype=np.int64)
    if (found < 0).all():
        raise ValueError(f"no pair of market {name!r} was recorded: {way_out}.")
    for row in np.flatnonzero(found >= 0).tolist():
        if sha256_of(row) != sha256[found[row]]:
            raise ValueError(
                f"{population.keys[row]} of market {name!r} has other texts than when the language model was asked: "
                f"{way_out}."
            )
    return found


def _check(arrays: Mapping[str, NDArray[Any]]) -> None:
    """Checks that the arrays of a file fit together.

    Raises:
        ValueError: If they do not.
    """
    n, m = len(np.atleast_1d(arrays["applicant_keys"])), len(np.atleast_1d(arrays["job_keys"]))
    shapes = {
        **{"applicant_keys": ("U", (n,)), "applicant_sha256": ("U", (n,)), "job_keys": ("U", (m,))},
        **{"job_sha256": ("U", (m,)), "probability": ("f", (n, m)), "thresholds": ("f", (len(DECISIONS) - 1,))},
        **dict.fromkeys(("model", "prompt", "persona"), ("U", ())),
    }
    for name, (kind, shape) in shapes.items():
        if arrays[name].dtype.kind != kind or arrays[name].shape != shape:
            raise ValueError(f"{name} is {arrays[name].dtype} {arrays[name].shape}, and does not fit the others")
    probability, cuts = arrays["probability"], arrays["thresholds"]
    if ((probability < 0) | (probability > 1)).any() or not (np.diff(cuts) >= 0).all() or not np.isfinite(cuts).all():
        raise ValueError("probabilities must be in [0, 1], and thresholds must rise")


def _sha256(document: Mapping[str, object]) -> str:
    return hashlib.sha256(encode_document(document).encode()).hexdigest()
