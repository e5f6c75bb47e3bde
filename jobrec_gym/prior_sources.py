"""Values of (applicant, job) pairs from other sources, such as a language model, as numbers in an observation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jobrec_gym.counter_rng import hash64
from jobrec_gym.market import LabourMarket
from jobrec_gym.market.dates import compared_fields
from jobrec_gym.pair_features import PAIR_FEATURES, PairValues
from jobrec_gym.simulators.base import DECISIONS, BoundSimulator, bound_simulator, checked_answers, make_simulator

__all__ = ["LESS_JOB_MEAN", "LiveSource", "SourcedPairValues", "less_own_means", "open_source"]

Ids = NDArray[np.int64]
Floats = NDArray[np.float64]

LESS_JOB_MEAN = "less_job_mean"
"""Name of a source's option. It subtracts from each value of the source the mean of the source's values for the same
job: over all applicants, or as given."""

_VALUES, _OPTIONS = "values", ("values", LESS_JOB_MEAN)
_KEYS = 1  # marks the hashes that keys of interactions are
_NO_CUTS = (0.0, 0.0, 0.0)  # thresholds that are never read: a source is asked for probabilities


class SourcedPairValues(PairValues):
    """Pair features of a market, followed by the values of prior sources for each pair, as in an observation.

    A source is one of these:

    * ``"cosine"``.
    * An array (n_applicants, n_jobs), NaN where it has no value.
    * A function of applicant ids (n,) and job ids (n,) that returns (n,) numbers.
    * A simulator or its spec. The value is the probability that a planted truth or a recorded or live language
      model gives for an application. If the model gives none, the value is the reward of its decision, clipped to
      [0, 1]: with the default rewards a click and an ignored job are both 0. A live model is asked only about the pairs
      that are shown, and its own ``Budget`` caps the cost. A pair that the model does not answer gets an average of
      this column: (0.5 + the sum of the answered pairs' values so far) / (1 + their number).
    * ``{"values": any of these, "less_job_mean": True}``: from each value, the mean of the source's values for the same
      job is subtracted. For an array, a recording, a planted truth or the cosine, this is the mean over all applicants.
      For a function or a live model the mean is unknown, so give the means themselves,
      ``"less_job_mean": (n_jobs,)``.

    Values are in [0, 1]. The values of an array, of a recording, and of a source with ``"less_job_mean": True`` are
    rescaled by their smallest and largest value. The values of a function must be in [0, 1] already.

    Args:
        market: The market of the applicants and jobs.
        pair_features: As for :class:`~jobrec_gym.pair_features.PairValues`.
        pair_noise: As for ``PairValues``; no noise is added to sources.
        sources: Mapping of names to sources; the names are columns after the features.

    Attributes:
        is_live: Whether any source is asked, at a cost, instead of looked up.
        described: Mapping of names to descriptions; equal sources have equal descriptions.
        settings: Mapping of the names of live language models to what else their answers depend on: address, sampling
            and, in mode ``"decision"``, the order of the decisions. Agents that were saved by earlier versions know
            descriptions but not these.

    Raises:
        ValueError: For a name that is already a feature's, a source of another kind, or numbers of another shape or out
            of range.
    """

    def __init__(
        self,
        market: LabourMarket,
        pair_features: Sequence[str],
        pair_noise: float,
        sources: Mapping[str, Any],
    ):
        super().__init__(market, pair_features, pair_noise)
        if not isinstance(sources, Mapping) or not all(isinstance(name, str) and name for name in sources):
            raise ValueError(
                f"`prior_sources` must map names to sources, e.g. {{'model': array}}, got {sources!r:.80}."
            )
        taken = {*PAIR_FEATURES, *compared_fields(market), *self.names, "blocks", "all"}
        if double := sorted(taken & set(sources)):
            raise ValueError(
                f"`prior_sources` must have names of their own, got {double[0]!r}, which has another meaning already. "
                f"Call it {double[0] + '_source'!r}, say."
            )
        opened = {name: open_source(name, source, market) for name, source in sources.items()}
        self._sources = {name: source for name, (source, _, _) in opened.items()}
        self.described = {name: described for name, (_, described, _) in opened.items()}
        self._live = {name: live for name, (_, _, live) in opened.items() if live is not None}
        self.settings = {name: live.settings for name, live in self._live.items() if live.settings}
        self.is_live = bool(self._live)
        self.names = (*self.names, *sources)

    @property
    def live(self) -> list[LiveSource]:
        """The sources that are asked."""
        return list(self._live.values())

    def get_state(self) -> dict[str, Any]:
        """What changes as live models are asked, by source, in plain JSON: empty if no source is live."""
        return {name: live.get_state() for name, live in self._live.items()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restores a state of :meth:`get_state`, which must be of the same live sources."""
        for name, live in self._live.items():
            live.set_state(state[name])

    def _shown(self, name: str, applicant_ids: Ids, job_ids: Ids) -> Floats:
        source = self._sources.get(name)
        return super()._shown(name, applicant_ids, job_ids) if source is None else source(applicant_ids, job_ids)


def less_own_means(sources: Mapping[str, Any]) -> list[str]:
    """Names of the sources that subtract each job's mean over the people of the market, ``"less_job_mean": True``."""
    less = {name: source.get(LESS_JOB_MEAN) for name, source in sources.items() if isinstance(source, Mapping)}
    return [name for name, means in less.items() if isinstance(means, (bool, np.bool_)) and means]


def open_source(
    name: str, source: Any, market: LabourMarket
) -> tuple[Callable[[Ids, Ids], Floats], str, LiveSource | None]:
    """A source on a market, see :class:`SourcedPairValues`.

    Returns:
        A function of applicant ids (n,) and job ids (n,) that gives numbers (n,) in [0, 1]; its description; and the
        live model that it asks, ``None`` if it asks none.

    Raises:
        ValueError: As :class:`SourcedPairValues`.
    """
    less: Any = False
    if isinstance(source, Mapping) and "type" not in source:
        if unknown := sorted(set(source) - set(_OPTIONS)) or ([] if _VALUES in source else [_VALUES]):
            raise ValueError(
                f"`prior_sources[{name!r}]` must have the entry {_VALUES!r}, may have {LESS_JOB_MEAN!r}, and no "
                f"others: check {unknown[0]!r}."
            )
        source, less = source[_VALUES], source.get(LESS_JOB_MEAN, False)
        less = bool(less) if isinstance(less, np.bool_) else less
    table: Floats | None = None
    ask: Callable[[Ids, Ids], Floats] | None = None
    live: BoundSimulator | None = None
    settings = ""
    if isinstance(source, str) and source == "cosine":
        described, ask = "cosine", _Cosine(market)
    elif callable(source) and not hasattr(source, "bind"):
        described = f"function {getattr(source, '__qualname__', type(source).__qualname__)}"
        ask = _Function(name, source)
    elif isinstance(source, Mapping) or hasattr(source, "bind"):
        bound, described, settings = _bound(source, market)
        if hasattr(bound, "probabilities") and hasattr(bound, "recording"):
            table = np.asarray(
                bound.probabilities(np.arange(len(market.applicants))[:, None], np.arange(len(market.jobs))), np.float64
            )
        elif hasattr(bound, "probabilities"):
            ask = _Planted(bound)
        else:
            live = bound
    else:
        table = _table(name, source, market)
        described = f"array {table.shape}, {_digest(table)}"
    if less is True and isinstance(ask, _Cosine | _Planted):
        table = _asked_of_all(ask, market)
    means = _job_means(name, less, table, market)
    if means is not None:
        told = "its own" if less is True else _digest(means)
        described += f", less the mean of the job ({told})"
    if table is not None:
        return _LookUp(table if means is None else table - means), described, None
    if live is not None:
        asked = LiveSource(live, means, settings)
        return asked, described, asked
    assert ask is not None  # a table, a live model or `ask` was found
    return ask if means is None else _LessMean(ask, means), described, None


class _Cosine:
    """Cosines of applicant and job, rescaled to [0, 1]."""

    def __init__(self, market: LabourMarket):
        self._market = market

    def __call__(self, applicant_ids: Ids, job_ids: Ids) -> Floats:
        return (1 + np.clip(self._market.cosine(applicant_ids, job_ids).astype(np.float64), -1.0, 1.0)) / 2


class _Planted:
    """The probabilities of an application by a planted truth."""

    def __init__(self, bound: Any):
        self._bound = bound

    def __call__(self, applicant_ids: Ids, job_ids: Ids) -> Floats:
        return self._bound.probabilities(applicant_ids, job_ids)[..., DECISIONS.index("apply")]


class _Function:
    """The values of a user's function, checked."""

    def __init__(self, name: str, function: Callable[[Ids, Ids], ArrayLike]):
        self._name, self._function = name, function

    def __call__(self, applicant_ids: Ids, job_ids: Ids) -> Floats:
        values = np.asarray(self._function(applicant_ids, job_ids), np.float64)
        if values.shape != job_ids.shape or not ((values >= 0) & (values <= 1)).all():
            raise ValueError(
                f"`prior_sources[{self._name!r}]` must return a number in [0, 1] of each of {len(job_ids)} pairs, got "
                f"{values.shape}: {values.ravel()[:5].tolist()}."
            )
        return values


class _LookUp:
    """Values of a table (n_applicants, n_jobs), rescaled to [0, 1]; their mean where a value is missing."""

    def __init__(self, table: Floats):
        known = table[~np.isnan(table)]
        low, width = float(known.min()), float(np.ptp(known)) or 1.0
        self._table = (np.where(np.isnan(table), known.mean(), table) - low) / width

    def __call__(self, applicant_ids: Ids, job_ids: Ids) -> Floats:
        return self._table[applicant_ids, job_ids]

    def __deepcopy__(self, memo: dict[int, Any]) -> _LookUp:
        """Itself: the table is large and never written to."""
        return self


class _LessMean:
    """A source's values minus the mean of its values for the same job, halved and moved so that 0.5 is the mean."""

    def __init__(self, ask: Callable[[Ids, Ids], Floats], means: Floats):
        self._ask, self._means = ask, means

    def __call__(self, applicant_ids: Ids, job_ids: Ids) -> Floats:
        return _less_mean(self._ask(applicant_ids, job_ids), self._means[job_ids])


def _less_mean(values: Floats, means: Floats) -> Floats:
    return np.clip(0.5 + (values - means) / 2, 0.0, 1.0)


class LiveSource:
    """Values of a simulator that is asked: probabilities, or else rewards of decisions, clipped to [0, 1].

    With ``means``, the mean of the job is subtracted; the differences are halved and moved so that 0.5 is the mean.

    A pair that is not answered, for instance because of the budget, gets an average of the values that this source
    returned for answered pairs: (0.5 + their sum) / (1 + their number). So it says nothing about the pair.

    Args:
        bound: The simulator on a market.
        means: (n_jobs,), the mean of each job, which is subtracted; ``None`` subtracts nothing.
        settings: What the answers of a language model depend on beside its description; empty for others.

    Attributes:
        settings: The given ``settings``.
    """

    def __init__(self, bound: BoundSimulator, means: Floats | None = None, settings: str = ""):
        self._bound, self._means = bound, means
        self.settings = settings
        self._sum, self._n = 0.5, 1

    @property
    def usage(self) -> Any:
        """What was asked, a :class:`~jobrec_gym.simulators.asking.Usage`; ``None`` if the simulator does not count."""
        return getattr(self._bound, "usage", None)

    def __call__(self, applicant_ids: Ids, job_ids: Ids) -> Floats:
        """Values (n,) of applicants (n,) and jobs (n,)."""
        keys = hash64(_KEYS, applicant_ids, job_ids)  # noise that a simulator draws from them is that of the pair
        feedback = checked_answers(self._bound.feedback(applicant_ids, job_ids, keys), len(job_ids))
        values = np.where(np.isnan(feedback.probability), np.clip(feedback.reward, 0.0, 1.0), feedback.probability)
        if self._means is not None:
            values = _less_mean(values, self._means[job_ids])
        told = feedback.status == "ok"
        values = np.where(told, values, self._sum / self._n)
        self._sum, self._n = self._sum + float(values[told].sum()), self._n + int(told.sum())
        return values

    def get_state(self) -> dict[str, float]:
        """The sum and the number of the answered pairs' values so far; the initial 0.5 counts as one value."""
        return {"sum": self._sum, "n": self._n}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restores a state of :meth:`get_state`."""
        self._sum, self._n = float(state["sum"]), int(state["n"])


def _bound(source: Any, market: LabourMarket) -> tuple[BoundSimulator, str, str]:
    """A simulator on a market, its description, and its settings if it is a language model."""
    simulator: Any = make_simulator(source)
    settings = _settings(simulator)
    if getattr(simulator, "mode", None) == "probability":
        # Only its probabilities are read, so no calibration is asked for.
        simulator = simulator.changed(elicitation=replace(simulator.elicitation, calibration=_NO_CUTS))
        described = f"{simulator.model}, {simulator.prompt_version}, {simulator.persona}"
        return simulator.bind(market), described, settings
    bound = bound_simulator(simulator, market)
    recording = getattr(bound, "recording", None)
    if recording is not None:
        return bound, f"recording of {recording.model}, {recording.prompt}, {_digest(recording.probability)}", ""
    kind = type(simulator)
    # Python's own text of an object has an address, which differs from process to process.
    described = f"simulator {kind.__qualname__}" if kind.__repr__ is object.__repr__ else repr(simulator)
    return bound, described, settings


def _settings(simulator: Any) -> str:
    """What a language model's answers depend on beside its description, as JSON; empty for another simulator."""
    spec = simulator.to_spec() if hasattr(simulator, "to_spec") else {}
    if not isinstance(spec.get("sampling"), Mapping):
        return ""
    told = {"api_base": spec.get("api_base"), **spec["sampling"]}
    if spec.get("mode") == "decision":
        told["decisions"] = spec["elicitation"]["decisions"]
    return json.dumps({name: value for name, value in told.items() if value is not None}, sort_keys=True)


def _table(name: str, values: ArrayLike, market: LabourMarket) -> Floats:
    shape = (len(market.applicants), len(market.jobs))
    try:
        table = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        table = np.zeros(())
    if table.shape != shape:
        raise ValueError(
            f'`prior_sources[{name!r}]` must be "cosine", an array (n_applicants, n_jobs) = {shape}, a function of '
            f"applicant_ids and job_ids, a simulator, or a mapping with `values`, got {type(values).__name__} "
            f"{table.shape or ''}."
        )
    if np.isinf(table).any() or np.isnan(table).all():
        raise ValueError(
            f"`prior_sources[{name!r}]` must hold finite numbers, at least one, and NaN where it has no value."
        )
    return table


def _job_means(name: str, less: Any, table: Floats | None, market: LabourMarket) -> Floats | None:
    if less is False or less is None:
        return None
    if less is True:
        if table is None:
            raise ValueError(
                f"`prior_sources[{name!r}]` is asked pair by pair, so the mean of a job over all applicants is "
                f'unknown: give means over some applicants, `"{LESS_JOB_MEAN}": (n_jobs,)`, or leave this option out.'
            )
        known = ~np.isnan(table)
        return np.where(known, table, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    try:
        means = np.asarray(less, np.float64)
    except (TypeError, ValueError):
        means = np.zeros(())
    if means.shape != (len(market.jobs),) or not np.isfinite(means).all():
        raise ValueError(
            f"`{LESS_JOB_MEAN}` of `prior_sources[{name!r}]` must be True or finite means of all jobs, "
            f"({len(market.jobs)},), got {means.shape}."
        )
    return means


def _digest(values: NDArray[np.floating]) -> str:
    return f"sha256 {hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()[:16]}"


def _asked_of_all(ask: Callable[[Ids, Ids], Floats], market: LabourMarket) -> Floats:
    jobs = np.arange(len(market.jobs))
    return np.array([ask(np.full(len(jobs), row), jobs) for row in range(len(market.applicants))])
