"""Applicants played by a language model, of any provider or on your own machine, through litellm."""

from __future__ import annotations

import inspect
import json
import logging
import numbers
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from jobrec_gym.counter_rng import bounded, hash64
from jobrec_gym.credentials import refuse_credentials
from jobrec_gym.market import SENIORITY_LEVELS, LabourMarket, Profile
from jobrec_gym.paths import place_of
from jobrec_gym.rewards import CosineRewardModel
from jobrec_gym.sharing import Shared
from jobrec_gym.shown_text import without_commands
from jobrec_gym.simulators.addresses import address_of
from jobrec_gym.simulators.arguments import (
    AskingMode,
    Budget,
    CacheMode,
    Calls,
    Elicitation,
    Retries,
    Sampling,
    check_choice,
    given,
    plain,
    rising_shares,
    thresholds,
    unknown_argument,
)
from jobrec_gym.simulators.asking import Asker, Outcome, Question, ReplayMiss, Usage
from jobrec_gym.simulators.base import (
    COSINE_INSTEAD,
    DECISIONS,
    DEFAULT_REWARDS,
    Feedback,
    SimulatorSpec,
    decision_rewards,
)
from jobrec_gym.simulators.budget import BudgetReached, Ledger, Spending
from jobrec_gym.simulators.cache import AnswerStore, ShortAnswer
from jobrec_gym.simulators.completion import ModelUnusable
from jobrec_gym.simulators.memory import FeedbackMemory, merged
from jobrec_gym.simulators.prompts import (
    MAX_DESCRIPTION,
    PERSONAS,
    applicant_document,
    encode_document,
    job_document,
    load_prompt,
)
from jobrec_gym.simulators.shares import in_words, shares_are_off, shares_below
from jobrec_gym.simulators.stores import cache_place, open_cache
from jobrec_gym.version import written_by
from jobrec_gym.whole_files import whole_file

__all__ = [
    "QUANTILES",
    "BoundLLMSimulator",
    "Budget",
    "BudgetReached",
    "Calibration",
    "Calls",
    "Elicitation",
    "FeedbackError",
    "LLMSimulator",
    "ModelUnusable",
    "ReplayMiss",
    "Retries",
    "Sampling",
    "Usage",
]

logger = logging.getLogger(__name__)

Ids = NDArray[np.int64]

QUANTILES = (0.60, 0.85, 0.95)
"""Shares of the pairs whose probabilities lie below the thresholds of a click, a save and an application: the quantiles
that :class:`~jobrec_gym.simulators.rules.RuleSimulator` has for its utility."""

_CALIBRATION_FORMAT = "jobrec-calibration/1"
_CALIBRATION_PAIRS = 100
_CALIBRATION_STREAM = 0x4C4C
_DOCUMENTS_KEPT = 8_192
_NO_ANSWER = ShortAnswer("", "", np.nan, "")
_ANSWER_TOKENS = {"decision": 160, "probability": 16}
_VALUES: dict[str, type[Any]] = {
    "elicitation": Elicitation,
    "sampling": Sampling,
    "budget": Budget,
    "calls": Calls,
    "retries": Retries,
}


class FeedbackError(RuntimeError):
    """A recommendation got no feedback, and ``on_failure`` or ``on_reached`` makes this an error.

    Attributes:
        status: What went wrong.
    """

    def __init__(self, status: str, message: str):
        super().__init__(message)
        self.status = status

    def __reduce__(self) -> tuple[type[FeedbackError], tuple[str, str]]:
        return type(self), (self.status, str(self))


@dataclass(frozen=True, slots=True)
class Calibration:
    """The thresholds that turn a model's probabilities into decisions.

    Attributes:
        thresholds: The lowest probabilities of a click, a save and an application.
        n_pairs: Number of answers that the thresholds are computed from.
        model: Name of the model.
        prompt: Version of the template.
        persona: Text of the persona, the temperament that the model plays.
    """

    thresholds: tuple[float, float, float]
    n_pairs: int
    model: str
    prompt: str
    persona: str

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a small JSON file that names the release that wrote it. The file appears whole or not at all."""
        said = {"format": _CALIBRATION_FORMAT, "written_by": written_by(), **asdict(self)}
        with whole_file(path) as scratch:
            scratch.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Calibration:
        """Reads a file of :meth:`save`.

        Raises:
            ValueError: If the file is no calibration, or one of another version.
            OSError: If the file cannot be opened.
        """
        name = f"`elicitation.calibration` {os.fspath(path)!r}"
        try:
            kept = json.loads(place_of(path).read_text(encoding="utf-8"))
            # Files of earlier releases lack both entries.
            found, writer = kept.pop("format", _CALIBRATION_FORMAT), kept.pop("written_by", None)
            if found == _CALIBRATION_FORMAT:
                return cls(**(kept | {"thresholds": thresholds(kept["thresholds"])}))
        except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"{name} is not a calibration ({error}): make it again by `calibrate`.") from error
        raise ValueError(
            f"{name} has the format {found!r:.40}, written by {writer!s:.40}, and this version ({written_by()}) reads "
            f"{_CALIBRATION_FORMAT!r}: make it again by `calibrate`."
        )


class LLMSimulator:
    """Applicants played by a language model.

    The model is asked about a pair once. Answers are kept under a hash of the question, and a pair's answer does not
    change within a cache. A failure never becomes a silent number: ``Feedback.status`` names it. ``refusal``,
    ``truncated``, ``bad_json``, ``wrong_schema``, ``foreign_word`` and ``no_logprobs`` are kept like answers, because
    the same question would bring the same result. Such a failure is not kept if the server is its cause, as with an
    empty message, words around the JSON or a web page. ``rate_limit``, ``server_error``, ``timeout``, ``connection``,
    ``rejected``, ``bad_response``, ``budget`` and ``not_recorded`` are never kept.

    Related arguments are grouped into objects. Each may be given as an object or as a plain mapping:
    ``retries=Retries(attempts=5)`` or ``retries={"attempts": 5}``.

    Args:
        model: litellm's name of the model, e.g. ``"openai/gpt-4o-mini"``, or ``"openai/NAME"`` of a local server.
        api_base: Address of a server, e.g. ``"http://127.0.0.1:8080/v1"``. The default is the environment variable of
            the model's provider that litellm reads, if it is set: ``OPENAI_BASE_URL`` for ``openai/`` models,
            ``HOSTED_VLLM_API_BASE`` for ``hosted_vllm/`` models.
        api_key: The key; by default the provider's environment variable. No file, spec or pickle holds the key, so set
            the variable if environments run in processes of their own.
        mode: ``"decision"`` asks for one of :data:`~jobrec_gym.simulators.base.DECISIONS` and a reason;
            ``"probability"`` asks for Yes or No and takes ``P(Yes) / (P(Yes) + P(No))`` from the token probabilities.
            It is the mode for small models.
        persona: The temperament that the model plays: a name of :data:`~jobrec_gym.simulators.prompts.PERSONAS`, or
            your own text.
        rewards: Rewards in place of apply 1.0, save 0.5, click 0.0, ignore -0.1.
        cache: SQLite file that keeps the answers and the ledger of the budget. All processes of one machine that name
            the file share it. For many machines give ``"redis://HOST:6379/0"``, see
            :class:`~jobrec_gym.simulators.redis_cache.RedisAnswerCache`. With ``None`` answers and ledger are kept as
            long as this object lives, or a copy of it by :meth:`changed`, which shares them.
        cache_mode: ``"record"`` asks about pairs that are not in the cache. ``"replay"`` never asks the model: a pair
            that is not in the cache has the status ``not_recorded``. ``"replay_strict"`` raises :class:`ReplayMiss`
            for such a pair.
        max_usd: Hard cap on dollars. It holds for the total of all processes and runs that share the cache and use the
            same ``budget.name``.
        elicitation: The template, the order of the decisions, and the thresholds of probabilities.
        sampling: Temperature, seed, length of an answer, and further entries of a request.
        budget: Caps on calls and tokens, prices, and what happens when a cap is reached.
        calls: How many calls at a time, and how long each may take.
        retries: How often a failed call is tried again, and what is paid for a recommendation without an answer.

    Raises:
        ValueError: For an unknown mode, decision or field of a group; for an unknown ``on_failure`` or ``on_reached``;
            for a template that is not there; and for an argument that would evade a cap or write a key into a file.

    Example:
        >>> simulator = LLMSimulator("openai/gpt-4o-mini", persona="selective", cache="answers.sqlite", max_usd=1.0)
        >>> env = LLMReward(gym.make("JobRec-v0"), simulator)
    """

    def __init__(
        self,
        model: str,
        *,
        api_base: str | None = None,
        api_key: str | None = None,
        mode: AskingMode = "decision",
        persona: str = "neutral",
        rewards: Mapping[str, float] | None = None,
        cache: str | os.PathLike[str] | None = None,
        cache_mode: CacheMode = "record",
        max_usd: float | None = None,
        elicitation: Elicitation | Mapping[str, Any] = Elicitation(),
        sampling: Sampling | Mapping[str, Any] = Sampling(),
        budget: Budget | Mapping[str, Any] = Budget(),
        calls: Calls | Mapping[str, Any] = Calls(),
        retries: Retries | Mapping[str, Any] = Retries(),
    ):
        if not isinstance(model, str) or not model:
            raise ValueError(f"`model` must be a name of litellm's, such as 'openai/gpt-4o-mini', got {model!r:.80}.")
        check_choice("mode", mode, get_args(AskingMode))
        check_choice("cache_mode", cache_mode, get_args(CacheMode))
        self.model = model
        self.mode = mode
        self.rewards = decision_rewards(rewards)
        names = _argument_names()
        asked = given("elicitation", Elicitation, elicitation, names)
        self._prompt = load_prompt(asked.prompt or f"{mode}-v1")
        self.elicitation = replace(asked, prompt=asked.prompt or f"{mode}-v1")
        drawn = given("sampling", Sampling, sampling, names)
        has_length = drawn.max_tokens is not None or drawn.max_completion_tokens is not None
        self.sampling = drawn if has_length else replace(drawn, max_tokens=_ANSWER_TOKENS[mode])
        self.budget = given("budget", Budget, budget, names)
        self.calls = given("calls", Calls, calls, names)
        self.retries = given("retries", Retries, retries, names)
        self._api_key = api_key
        self._arguments: dict[str, Any] = {
            "model": model,
            "api_base": address_of(model, api_base),
            "mode": mode,
            "persona": persona,
            "rewards": self.rewards,
            "cache": None if cache is None else cache_place(cache),
            "cache_mode": cache_mode,
            "max_usd": max_usd,
            **{name: getattr(self, name) for name in _VALUES},
        }
        refuse_credentials(
            plain(self._arguments), "", "give `api_key`, or the provider's environment variable", sent=True
        )
        place = self._arguments["cache"]
        self._connect(_scratch_cache() if place is None else open_cache(place))

    def _connect(self, store: AnswerStore) -> None:
        self.cache = store
        self.ledger = Ledger(store, self.budget, self._arguments["max_usd"], is_kept=self._is_kept)
        self._asker = Asker(
            model=self.model,
            api_base=self._arguments["api_base"],
            api_key=self._api_key,
            mode=self.mode,
            prompt=self._prompt,
            persona=self.persona,
            decisions=self.elicitation.decisions,
            sampling=self.sampling,
            prices=self.budget.prices,
            cache=self.cache,
            cache_mode=self._arguments["cache_mode"],
            ledger=self.ledger,
            calls=self.calls,
            retries=self.retries,
        )

    @property
    def usage(self) -> Usage:
        """Calls, tokens and costs of this object in this process. Copies by :meth:`changed` count for themselves."""
        return self._asker.usage

    @property
    def spent(self) -> Spending:
        """Totals over all objects, processes and runs that share the cache and use the same ``budget.name``."""
        return self.ledger.spent

    @property
    def _is_kept(self) -> bool:
        """Whether a file or a server keeps the answers when the process has ended."""
        return self._arguments["cache"] is not None

    def key(self, applicant: Mapping[str, Any], job: Mapping[str, Any]) -> str:
        """The cache's key of a pair of documents."""
        return self._asker.key((encode_document(applicant), encode_document(job)))

    def count_known(self, n: int) -> None:
        """Counts n questions as cache hits, because a bound simulator could answer them by itself."""
        self._asker.count_known(n)

    def bind(self, market: LabourMarket) -> BoundLLMSimulator:
        """Ties the simulator to a market; the model is not asked yet."""
        return BoundLLMSimulator(self, market)

    def ask(self, questions: Sequence[Question]) -> list[Outcome]:
        """Asks the model about pairs of encoded documents. A failure does not raise: it is an outcome with a status."""
        return self._asker.ask(questions)

    def judge(
        self,
        applicants: Sequence[Mapping[str, Any]],
        jobs: Sequence[Mapping[str, Any]],
        thresholds: Sequence[float] | None = None,
    ) -> Feedback:
        """Decides on pairs of documents, which need not belong to a market.

        Args:
            applicants: n documents, see :func:`~jobrec_gym.simulators.prompts.applicant_document`.
            jobs: n documents.
            thresholds: Lowest probabilities of a click, a save and an application; used only in mode
                ``"probability"``. ``None`` takes the thresholds of ``elicitation.calibration``. If that is ``"auto"``,
                an answer has a probability, no decision, and reward 0.0.

        Raises:
            FeedbackError: As ``retries.on_failure`` and ``budget.on_reached`` say. The policy ``"cosine"`` raises
                the error too, because a cosine needs a market.
        """
        questions = [
            (encode_document(applicant), encode_document(job)) for applicant, job in zip(applicants, jobs, strict=True)
        ]
        cuts = self.given_thresholds() if thresholds is None else thresholds
        return self.feedback_of(self.ask(questions), cuts, None)

    def calibrate(
        self,
        market: LabourMarket,
        n_pairs: int = _CALIBRATION_PAIRS,
        quantiles: Sequence[float] = QUANTILES,
        path: str | os.PathLike[str] | None = None,
    ) -> Calibration:
        """Computes thresholds: quantiles of the model's probabilities on a fixed sample of a market's pairs.

        Args:
            market: The market. Its pairs, of all splits, are drawn by a fixed seed.
            n_pairs: How many pairs are asked about.
            quantiles: Shares of the pairs whose probabilities lie below the thresholds of click, save and apply.
            path: JSON file to keep the calibration in, for ``elicitation.calibration``.

        Raises:
            ValueError: In mode ``"decision"``, for fewer than 2 pairs, or if ``quantiles`` are not three shares above
                0, each above the one before. The model is then not asked.
            FeedbackError: If a question got no answer, for instance because of a time-out. A later calibration might
                get this answer, and its thresholds would differ. Also if fewer than half of the pairs have a usable
                answer; a refusal, for instance, is an answer that is not usable. Also if the model gives too many pairs
                the same probability: thresholds are then equal, or the share of a decision differs from the one that
                ``quantiles`` give it by more than half of the latter (and by more than one pair).
            BudgetReached: If a cap is reached before the end.
        """
        if self.mode != "probability":
            raise ValueError('`mode` is "decision": there are no probabilities to calibrate.')
        if isinstance(n_pairs, bool) or not isinstance(n_pairs, numbers.Integral) or n_pairs < 2:
            raise ValueError(f"`n_pairs` must be a whole number of at least 2, got {n_pairs!r:.80}.")
        shares = rising_shares(quantiles, strictly=True)
        rows = np.arange(n_pairs)
        applicants = bounded(hash64(_CALIBRATION_STREAM, 0, rows), len(market.applicants))
        jobs = bounded(hash64(_CALIBRATION_STREAM, 1, rows), len(market.jobs))
        outcomes = self.ask(_Documents(market).questions(applicants, jobs))
        for outcome in outcomes:
            if outcome.budget is not None:
                raise outcome.budget
        known = [outcome.answer.probability for outcome in outcomes if outcome.answer and outcome.status == "ok"]
        lost = [outcome for outcome in outcomes if outcome.answer is None]
        unusable = [outcome for outcome in outcomes if outcome.status != "ok"]
        if lost or 2 * len(known) < n_pairs:
            first = (lost or unusable)[0]
            raise FeedbackError(
                first.status,
                f"only {len(known)} of {n_pairs} pairs gave a probability for the calibration; the first that gave "
                f"none: {first.status}. {without_commands(first.said)}"
                f"{' (What was answered is kept.)' if self._is_kept else ''}",
            )
        cuts = np.quantile(known, shares)
        below = shares_below(known, cuts)
        if not (np.diff([min(known), *cuts]) > 0).all() or shares_are_off(below, shares, len(known)):
            raise FeedbackError(
                "calibration",
                f"{self.model!r} gives too many of {n_pairs} pairs the same probability: the thresholds would be "
                f"{tuple(float(cut) for cut in cuts)}, and give {in_words(below)} in place of {in_words(shares)}. The "
                "model cannot judge the pairs in this way. Give thresholds of your own as `elicitation.calibration`, "
                "or take another model or prompt.",
            )
        made = Calibration(thresholds(cuts), len(known), self.model, self.prompt_version, self.persona)
        if path is not None:
            made.save(path)
        return made

    @property
    def pays_cosine(self) -> bool:
        """Whether ``retries.on_failure`` or ``budget.on_reached`` pays the cosine in place of an answer."""
        return "cosine" in (self.retries.on_failure, self.budget.on_reached)

    @property
    def prompt_version(self) -> str:
        """Version of the template."""
        return self._prompt.version

    @property
    def persona(self) -> str:
        """Text of the persona."""
        return PERSONAS.get(self._arguments["persona"], self._arguments["persona"])

    def given_thresholds(self) -> tuple[float, float, float] | None:
        """The thresholds that ``elicitation.calibration`` names; ``None`` for ``"auto"`` and in mode ``"decision"``.

        Raises:
            ValueError: If the file is of another model, prompt or persona.
        """
        calibration = self.elicitation.calibration
        if self.mode == "decision" or calibration == "auto":
            return None
        if not isinstance(calibration, (str, os.PathLike)):
            return thresholds(calibration)
        kept = Calibration.load(calibration)
        own = (self.model, self.prompt_version, self.persona)
        if (kept.model, kept.prompt, kept.persona) != own:
            raise ValueError(
                f"`elicitation.calibration` {calibration!r} was made for model {kept.model!r}, prompt {kept.prompt!r} "
                f"and persona {kept.persona!r}, not for {own}: calibrate again, the thresholds do not carry over."
            )
        return kept.thresholds

    def feedback_of(
        self, outcomes: Sequence[Outcome], thresholds: Sequence[float] | None, cosine: NDArray[np.float64] | None
    ) -> Feedback:
        """Outcomes as feedback; failed ones by the policies ``on_failure`` and ``on_reached``.

        Args:
            outcomes: n outcomes.
            thresholds: Lowest probabilities of a click, a save and an application.
            cosine: (n,), the reward in place of an answer under the policy ``"cosine"``; ``None`` without a market or
                without that policy.
        """
        answers = [_NO_ANSWER if answer is None or status != "ok" else answer for status, answer, *_ in outcomes]
        probability = np.array([answer.probability for answer in answers], dtype=np.float64)
        decision = self._decisions([answer.decision for answer in answers], probability, thresholds)
        status = ["ok"] * len(outcomes)
        reward = np.array([self.rewards.get(word, 0.0) for word in decision], dtype=np.float64)
        for row, answer in enumerate(answers):
            if answer is _NO_ANSWER:
                decision[row] = ""
                status[row], reward[row] = self._failed(outcomes[row], None if cosine is None else cosine[row])
        return Feedback.of(
            decision,
            reward,
            status=status,
            probability=probability,
            reason=[outcome.said for outcome in outcomes],
            tokens=[outcome.tokens for outcome in outcomes],
            cost_usd=[outcome.cost_usd for outcome in outcomes],
            cached=[outcome.cached for outcome in outcomes],
        )

    def decide(
        self,
        questions: Sequence[Question],
        thresholds: Sequence[float] | None,
        cosine: Callable[[], NDArray[np.float64] | None],
    ) -> Feedback:
        """Asks n >= 1 questions and returns :meth:`feedback_of` the answers; faster if all answers are known.

        Args:
            questions: n questions.
            thresholds: See :meth:`feedback_of`.
            cosine: A function that computes the ``cosine`` of :meth:`feedback_of`; called only when it is needed.
        """
        # A subclass that asks or judges in its own way must see kept answers too.
        own = any(getattr(type(self), name) is not getattr(LLMSimulator, name) for name in ("ask", "feedback_of"))
        columns = None if own else self._asker.recall(questions)
        if columns is None:
            return self.feedback_of(self.ask(questions), thresholds, cosine())
        status, said, probabilities, reason = columns
        probability = np.array(probabilities, dtype=np.float64)
        if status.count("ok") < len(status):
            answers = map(ShortAnswer, status, said, probability.tolist(), reason)
            return self.feedback_of([Outcome(each.status, each, True) for each in answers], thresholds, cosine())
        decision = self._decisions(said, probability, thresholds)
        reward = [self.rewards.get(word, 0.0) for word in decision]
        cached = np.ones(len(reward), dtype=bool)
        return Feedback.of(decision, reward, probability=probability, reason=reason, cached=cached)

    def _decisions(
        self, said: Sequence[str], probability: NDArray[np.float64], thresholds: Sequence[float] | None
    ) -> list[str]:
        """Decisions of answers (n,): the ones that were given, or those of the probabilities."""
        if self.mode == "decision":
            return list(said)
        if thresholds is None:
            return [""] * len(said)
        return [DECISIONS[place] for place in np.searchsorted(thresholds, probability, side="right").tolist()]

    def _failed(self, outcome: Outcome, cosine: float | None) -> tuple[str, float]:
        """Status and reward of a recommendation without an answer, by the policies."""
        policy = self.retries.on_failure if outcome.budget is None else self.budget.on_reached
        if policy == "stop" and outcome.budget is not None:
            raise outcome.budget
        if policy == "cosine" and cosine is not None:
            return COSINE_INSTEAD + outcome.status, float(cosine)
        if policy == "skip":
            return outcome.status, 0.0
        name = "retries.on_failure" if outcome.budget is None else "budget.on_reached"
        raise FeedbackError(
            outcome.status,
            f"no feedback from {self.model!r}: {outcome.status}. {without_commands(outcome.said)} "
            f"({'What was answered is kept; ' if self._is_kept else ''}`{name}` says what to do instead of stopping.)",
        )

    def changed(self, **arguments: Any) -> LLMSimulator:
        """The same simulator, with its key, and with some arguments changed.

        Unless ``cache`` is changed, both share their answers and the record of what was spent, also if ``cache`` is
        ``None``. So a cap holds for both together.

        The template, the length of an answer and the address have defaults that depend on ``mode`` or ``model``. If one
        of these still has its default, it gets the default of the new ``mode`` or ``model``. Otherwise it is kept.

        Example:
            >>> simulator = LLMSimulator("openai/gpt-4o-mini", sampling=Sampling(seed=7))
            >>> simulator.changed(sampling=replace(simulator.sampling, repeat=1)).sampling
            Sampling(temperature=0.0, seed=7, max_tokens=160, extra_body=None, repeat=1, max_completion_tokens=None)
        """
        kept = {**self._arguments, "api_key": self._api_key}
        if self.elicitation.prompt == f"{self.mode}-v1":
            kept["elicitation"] = replace(self.elicitation, prompt=None)
        if self.sampling.max_tokens == _ANSWER_TOKENS[self.mode]:
            kept["sampling"] = replace(self.sampling, max_tokens=None)
        if kept["api_base"] == address_of(self.model):
            kept["api_base"] = None
        made = type(self)(**kept | arguments)
        if made._arguments["cache"] == self._arguments["cache"]:
            made._connect(self.cache)
        return made

    def to_spec(self) -> SimulatorSpec:
        """The simulator in plain JSON, without the key; each group of arguments is a mapping of its fields."""
        return {"type": "llm", **plain(self._arguments)}

    @classmethod
    def from_spec(cls, spec: SimulatorSpec) -> LLMSimulator:
        """The simulator that :meth:`to_spec` described.

        Raises:
            ValueError: For an entry that is not an argument.
        """
        arguments = {name: entry for name, entry in spec.items() if name != "type"}
        for name in arguments:
            if name not in _argument_names():
                raise unknown_argument(name, _argument_names())
        return cls(**arguments)

    def __getstate__(self) -> dict[str, Any]:
        # Threads, connections and the key stay behind; another process takes the key from its environment.
        return {"arguments": self._arguments}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state["arguments"])  # type: ignore[misc]

    def __deepcopy__(self, memo: dict[int, object]) -> LLMSimulator:
        return self  # threads may share it, and a copy by its state would lack the key

    def __repr__(self) -> str:
        # A persona or rewards other than the default are shown: agents tell the simulators of `prior_sources` apart by
        # this text. The template is shown by its name, without its folder: the folder may have changed by the time that
        # an agent is loaded.
        shown: dict[str, Any] = {"mode": self.mode, "prompt": Path(self.elicitation.prompt or "").name}
        if self._arguments["persona"] != "neutral":
            shown["persona"] = self._arguments["persona"]
        if changed := {word: value for word, value in self.rewards.items() if value != DEFAULT_REWARDS[word]}:
            shown["rewards"] = changed
        return f"LLMSimulator({self.model!r}, {', '.join(f'{name}={value!r}' for name, value in shown.items())})"


class BoundLLMSimulator(Shared):
    """A language model on one market; made by :meth:`LLMSimulator.bind`.

    Threads may share an object, and a deep copy is the object itself. A pickle holds the answers of this process, but
    no key.
    """

    def __init__(self, simulator: LLMSimulator, market: LabourMarket):
        self.simulator = simulator
        self.market = market
        self._thresholds = simulator.given_thresholds()
        self._no_thresholds: BudgetReached | None = None
        self._calibrating = Shared()
        self._n_decisions = 0
        self._cosine = CosineRewardModel(market, "matched")
        self._documents = _Documents(market)
        self._memory = FeedbackMemory(len(market.applicants), len(market.jobs))
        # An applicant at another level counts as another applicant here.
        self._memory_of_levels = FeedbackMemory((len(SENIORITY_LEVELS) + 1) * len(market.applicants), len(market.jobs))

    @property
    def usage(self) -> Usage:
        """Calls, tokens and costs of the simulator in this process, and the number of decisions."""
        return replace(self.simulator.usage, decisions=self._n_decisions)

    @property
    def thresholds(self) -> tuple[float, float, float] | None:
        """Thresholds of the probabilities; ``"auto"`` asks the model for them. ``None`` in mode ``"decision"``."""
        if self._thresholds is None and self.simulator.mode == "probability":
            with self._calibrating.lock:
                if self._thresholds is None:
                    self._thresholds = self._calibrated()
        return self._thresholds

    def _calibrated(self) -> tuple[float, float, float]:
        if self._no_thresholds is not None:
            raise self._no_thresholds
        try:
            return self.simulator.calibrate(self.market).thresholds
        except BudgetReached as reached:
            self._no_thresholds = reached
            raise

    def feedback(
        self,
        applicant_ids: Ids,
        job_ids: Ids,
        interaction_keys: NDArray[np.uint64] | None = None,
        levels: Ids | None = None,
    ) -> Feedback:
        """Asks a batch, see :class:`~jobrec_gym.simulators.base.BoundSimulator`; equal pairs are asked once.

        With ``levels``, the applicants' documents show these levels, and pairs at different levels are different.

        Raises:
            FeedbackError: As ``retries.on_failure`` and ``budget.on_reached`` say.
            BudgetReached: With ``budget.on_reached="stop"``.
            ReplayMiss: In strict replay.
        """
        applicant_ids, job_ids = _checked_ids(applicant_ids, job_ids, self.market)
        with self.lock:
            self._n_decisions += len(job_ids)
        try:
            thresholds = self.thresholds
        except BudgetReached as reached:  # during the calibration: no decision can be made
            outcomes = [Outcome("budget", reason=str(reached), budget=reached)] * len(job_ids)
            return self.simulator.feedback_of(outcomes, None, self._instead(applicant_ids, job_ids))
        memory, people = self._memory, applicant_ids
        if levels is not None:
            memory, people = self._memory_of_levels, levels * len(self.market.applicants) + applicant_ids
        places = memory.find(people, job_ids)
        known = places >= 0
        self.simulator.count_known(int(known.sum()))
        if known.all():
            return memory.take(places)
        asked = applicant_ids[~known], job_ids[~known]
        questions = self._documents.questions(*asked, None if levels is None else levels[~known])
        fresh = self.simulator.decide(questions, thresholds, partial(self._instead, *asked))
        memory.add(people[~known], asked[1], fresh)
        return merged(known, memory.take(places[known]), fresh) if known.any() else fresh

    def _instead(self, applicant_ids: Ids, job_ids: Ids) -> NDArray[np.float64] | None:
        """Rewards (n,) in place of answers, if a policy pays the cosine."""
        return self._cosine.reward(applicant_ids, job_ids) if self.simulator.pays_cosine else None

    def __deepcopy__(self, memo: dict[int, object]) -> BoundLLMSimulator:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_n_decisions": 0}  # `usage` is of one process


def _checked_ids(applicant_ids: Ids, job_ids: Ids, market: LabourMarket) -> tuple[Ids, Ids]:
    """Ids of n pairs as int64.

    Raises:
        ValueError: If the two sides differ in number, or if an id names no row.
    """
    ids = {"applicant_ids": np.asarray(applicant_ids), "job_ids": np.asarray(job_ids)}
    if ids["applicant_ids"].ndim != 1 or ids["applicant_ids"].shape != ids["job_ids"].shape:
        shapes = [values.shape for values in ids.values()]
        raise ValueError(f"`applicant_ids` and `job_ids` must both be (n,), got {shapes[0]} and {shapes[1]}.")
    for (name, values), population in zip(ids.items(), (market.applicants, market.jobs), strict=True):
        ids[name] = values.astype(np.int64)
        if len(values) and not 0 <= ids[name].min() <= ids[name].max() < len(population):
            raise ValueError(
                f"`{name}` must be rows of market {market.name!r}, in [0, {len(population)}), got "
                f"{ids[name].min()} to {ids[name].max()}."
            )
    return ids["applicant_ids"], ids["job_ids"]


def _scratch_cache() -> AnswerStore:
    """A cache in a file of its own, which is removed with the last user of the object."""
    folder = tempfile.mkdtemp(prefix="jobrec-answers-")
    store = open_cache(Path(folder) / "answers.sqlite")
    weakref.finalize(store, _remove, folder, os.getpid())
    return store


def _remove(folder: str, process: int) -> None:
    """Removes a folder, but only in the process that made it, not in a fork."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


class _Documents:
    """Encoded documents of a market's rows; the latest ones are kept, since cleaning texts costs more than a replay."""

    def __init__(self, market: LabourMarket):
        self._market = market
        self._told = False
        keep = lru_cache(maxsize=_DOCUMENTS_KEPT)
        self._applicant = keep(lambda row, level: self._encoded(applicant_document(_standing_at(market, row, level))))
        self._job = keep(lambda row: self._encoded(job_document(market.job(row))))

    def questions(self, applicant_ids: Ids, job_ids: Ids, levels: Ids | None = None) -> list[Question]:
        """The questions of n pairs. They show the applicants at ``levels`` (n,); 0 is an applicant's own level."""
        levels = np.zeros_like(applicant_ids) if levels is None else levels
        pairs = zip(applicant_ids.tolist(), job_ids.tolist(), levels.tolist(), strict=True)
        return [(self._applicant(applicant, level), self._job(job)) for applicant, job, level in pairs]

    def _encoded(self, document: Mapping[str, Any]) -> str:
        length = len(document.get("description", ""))
        if length > MAX_DESCRIPTION and not self._told:
            self._told = True
            logger.warning(
                "%s has descriptions that are longer than %d characters, the limit (one has %d). The model is told "
                "only their first sentences, up to the limit.",
                *(self._market.name, MAX_DESCRIPTION, length),
            )
        return encode_document(document)

    def __reduce__(self) -> tuple[type[_Documents], tuple[LabourMarket]]:
        return type(self), (self._market,)


def _standing_at(market: LabourMarket, row: int, level: int) -> Profile:
    """The profile of an applicant at the given level, or at their own level if ``level`` is 0."""
    profile = market.applicant(row)
    return replace(profile, seniority=level) if level else profile


@cache
def _argument_names() -> tuple[str, ...]:
    """All arguments; for those that are objects also their fields, as ``argument.field``."""
    fields_of = (f"{name}.{field.name}" for name, kind in _VALUES.items() for field in fields(kind))
    return (*inspect.signature(LLMSimulator).parameters, *fields_of)
