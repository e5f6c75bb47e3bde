"""``python -m experiments.llm.check simulator=...``: measures how far a simulator's feedback can be trusted."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from hydra.core.hydra_config import HydraConfig
from numpy.typing import NDArray
from omegaconf import DictConfig

from experiments.llm.attacks import ATTACKS
from experiments.runs.command import command
from experiments.runs.folders import commit_of_checkout, write_json
from experiments.runs.progress import tracked
from experiments.runs.tables import format_table
from jobrec_gym import Feedback, LabourMarket, metrics
from jobrec_gym.simulators.base import DECISIONS, BoundSimulator
from jobrec_gym.simulators.llm import BoundLLMSimulator
from jobrec_gym.simulators.prompts import applicant_document, job_document, load_prompt

__all__ = ["auc", "check_simulator", "mismatches", "neighbours", "own_occupation"]

Ids = NDArray[np.int64]
Pairs = tuple[Ids, Ids]
Document = dict[str, Any]

_SWAPS: dict[str, dict[str, str]] = {
    "names": {
        name: f"{name}. They work {{what}}"
        for name in ("Emily Walsh", "Greg Baker", "Lakisha Washington", "Jamal Jones", "Mei Chen")
    },
    "pronouns": {"They": "They work {what}", "She": "She works {what}", "He": "He works {what}"},
    "ages": {str(age): f"Aged {age}. They work {{what}}" for age in (27, 41, 58)},
}
"""What is swapped in the applicant's own words, one kind at a time. Each value comes with the beginning of a text
that contains it. The names are from Bertrand and Mullainathan, "Are Emily and Greg more employable than Lakisha and
Jamal?", 2004; one was added."""

_SWAPPED = {"probability-v1": "probability-v1-swapped", "probability-v1-swapped": "probability-v1"}
"""Prompts that differ in the order of their options. A template of one's own has no such twin."""

_TRIED = 5
"""Pairs that are asked before anything else, to estimate the cost of the whole check."""

_RESAMPLED = 2_000

_WHAT_INTERVALS_COVER = (
    "In brackets: 95 % bootstrap intervals over pairs. They cover other pairs of the same applicants and jobs. "
    "Intervals for other applicants and jobs are wider, because answers about one of them are alike: on the recorded "
    "market those of AUC and of decisions are about two to three times as wide."
)


@dataclass(frozen=True, slots=True)
class _Sizes:
    """How many pairs each measure takes."""

    matches: int | None
    sample: int | None
    repeats: int
    attacked: int
    swaps: int

    def most_calls(self, market: LabourMarket, n_thresholds: int) -> int:
        """Most calls of a language model. There are fewer if pairs occur twice, or were answered before."""
        n_pairs = len(market.applicants) * len(market.jobs)

        def at_most(n: int | None, there: int) -> int:
            return there if n is None else min(n, there)

        separations = sum(at_most(self.matches, len(pairs[0])) for pairs in _compared(market))
        swapped = sum(len(values) for values in _SWAPS.values()) * self.swaps
        attacked = (1 + len(ATTACKS)) * self.attacked
        return n_thresholds + separations + at_most(self.sample, n_pairs) + 3 * self.repeats + attacked + swapped


@command(config_path="../../conf", config_name="check", kept="every answer so far, in {simulator.cache}")
def main(cfg: DictConfig) -> None:
    """Checks, prints the table and writes ``check.json``."""
    # Not at the top: `--help` is answered without torch.
    from experiments.runs.build import build_task

    task = build_task(cfg)
    market, simulator = task.market, task.make_simulator()
    sizes = _Sizes(cfg.n_matches, cfg.n_sample, cfg.n_repeats, cfg.n_attacked, cfg.n_swaps)
    try:
        result = check_simulator(simulator, market, sizes, cfg.seed, say=print)
    except (ValueError, RuntimeError, LookupError) as error:
        raise SystemExit(f"error: {error}") from error
    path = Path(HydraConfig.get().runtime.output_dir) / "check.json"
    header, rows = ["measure", "value", "95 % interval", "n"], _table(result)
    named = [[row[0].strip(), *row[1:]] for row in rows]  # the printed table indents some names
    write_json(path, {**result, "commit": commit_of_checkout(), "tables": [{"header": header, "rows": named}]})
    print(f"{result['simulator']} on market {market.name!r}\n")
    print(format_table(header, rows))
    print(f"\n{_WHAT_INTERVALS_COVER}")
    where = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    print(f"\n{where}")


def check_simulator(
    simulator: Any, market: LabourMarket, sizes: _Sizes, seed: int, say: Callable[[str], Any] | None = None
) -> dict[str, Any]:
    """All measures of a simulator.

    Args:
        simulator: Any ``UserSimulator``. Repeats, the order of options, injection and identity are measured only
            for an :class:`LLMSimulator`, because recorded or planted answers do not change with the text.
        market: The market whose pairs are asked about.
        sizes: How many pairs each measure takes.
        seed: Seed of the pairs.
        say: Function that is called with an estimate of the cost, after a few pairs were asked and before all others.

    Returns:
        ``separation``, ``within_family``, ``seniority``, ``decisions``, ``repeats``, ``option_order``, ``injection``,
        ``identity`` and ``cost``; a measure that was not made is ``None``. Each figure comes with its 95 % bootstrap
        interval over pairs, ``<figure>_interval``. The interval covers other pairs of the same applicants and jobs.
        Intervals for other applicants and jobs are wider, because answers about one of them are alike: on the recorded
        market those of AUC and of decisions are about two to three times as wide.
    """
    bound: BoundSimulator = simulator.bind(market)
    begun = time.perf_counter()
    rng = np.random.default_rng(seed)
    matched, unlike = own_occupation(market), mismatches(market)
    at_level, off_level = _by_level(market, matched)
    take = partial(_some, n=sizes.matches, rng=rng)
    result: dict[str, Any] = {
        "simulator": repr(simulator),
        "market": {"name": market.name, "fingerprint": market.fingerprint()},
        "seed": seed,
    }
    # The order matters, because the measures share the generator.
    measures: dict[str, Callable[[], dict[str, Any]]] = {
        "separation": lambda: _separation(bound, take(matched), take(unlike)),
        "within_family": lambda: _separation(bound, take(matched), take(neighbours(market))),
        "seniority": lambda: _separation(bound, take(at_level), take(off_level)),
        "decisions": lambda: _distribution(bound, _some(_all_pairs(market), sizes.sample, rng)),
    }
    asked: _Asked | None = None
    if isinstance(bound, BoundLLMSimulator):
        asking = asked = _Asked(bound)
        mixed = tuple(np.concatenate(sides) for sides in zip(matched, unlike, strict=True))
        if say is not None:
            say(asking.forecast(_some((mixed[0], mixed[1]), _TRIED, np.random.default_rng(seed)), sizes))
        repeated = cache(lambda: _some((mixed[0], mixed[1]), sizes.repeats, rng))
        measures |= {"repeats": lambda: asking.agreement(repeated(), asking.once_more())}
        if (reordered := asking.other_order()) is not None:
            measures |= {"option_order": lambda: asking.agreement(repeated(), reordered)}
        measures |= {
            "injection": lambda: asking.injection(_some(unlike, sizes.attacked, rng)),
            "identity": lambda: asking.identity(_some((mixed[0], mixed[1]), sizes.swaps, rng)),
        }
    for name, measure in tracked(measures.items(), "check", "measure"):
        result[name] = measure()
    result |= {name: None for name in ("repeats", "option_order", "injection", "identity") if name not in measures}
    result["cost"] = None if asked is None else asked.cost(time.perf_counter() - begun)
    return result


def own_occupation(market: LabourMarket) -> Pairs:
    """Pairs of an applicant and a job of the same occupation."""
    applicants, jobs = _all_pairs(market)
    same = market.applicants.occupation_ids[applicants] == market.jobs.occupation_ids[jobs]
    known = market.applicants.occupation_ids[applicants] >= 0
    return applicants[same & known], jobs[same & known]


def neighbours(market: LabourMarket) -> Pairs:
    """Pairs of an applicant and a job of another occupation of the same family."""
    applicants, jobs = _all_pairs(market)
    left, right = market.applicants.occupation_ids[applicants], market.jobs.occupation_ids[jobs]
    same = market.family_id(market.applicants, applicants) == market.family_id(market.jobs, jobs)
    near = same & (left != right) & (left >= 0) & (right >= 0)
    return applicants[near], jobs[near]


def mismatches(market: LabourMarket) -> Pairs:
    """Pairs of an applicant and a job of another family at the same seniority."""
    applicants, jobs = _all_pairs(market)
    left, right = market.applicants.occupation_ids[applicants], market.jobs.occupation_ids[jobs]
    other = market.family_id(market.applicants, applicants) != market.family_id(market.jobs, jobs)
    apart = other & (left >= 0) & (right >= 0)
    level = market.applicants.seniority[applicants] == market.jobs.seniority[jobs]
    return applicants[apart & level], jobs[apart & level]


def auc(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float | None:
    """Probability that a positive score is above a negative one; a tie counts one half. ``None`` if a side is empty."""
    if not len(positive) or not len(negative):
        return None
    scores = np.concatenate([positive, negative])
    return float(metrics.auc(scores[None], (np.arange(len(scores)) < len(positive))[None])[0])


def _compared(market: LabourMarket) -> list[Pairs]:
    """The pairs from which each side of the three separations is drawn."""
    matched = own_occupation(market)
    return [matched, mismatches(market), matched, neighbours(market), *_by_level(market, matched)]


def _by_level(market: LabourMarket, pairs: Pairs) -> tuple[Pairs, Pairs]:
    """Those of some pairs with equal seniority, and those with unlike seniority. Unknown seniority is neither."""
    left, right = market.applicants.seniority[pairs[0]], market.jobs.seniority[pairs[1]]
    known = (left > 0) & (right > 0)
    same, other = known & (left == right), known & (left != right)
    return (pairs[0][same], pairs[1][same]), (pairs[0][other], pairs[1][other])


def _all_pairs(market: LabourMarket) -> Pairs:
    n, m = len(market.applicants), len(market.jobs)
    return np.repeat(np.arange(n), m), np.tile(np.arange(m), n)


def _some(pairs: Pairs, n: int | None, rng: np.random.Generator) -> Pairs:
    """At most ``n`` of some pairs, ``None`` for all."""
    if n is None or n >= len(pairs[0]):
        return pairs
    rows = np.sort(rng.choice(len(pairs[0]), n, replace=False))
    return pairs[0][rows], pairs[1][rows]


def _ask(bound: BoundSimulator, pairs: Pairs) -> Feedback:
    keys = np.random.default_rng(0).integers(2**64, size=len(pairs[0]), dtype=np.uint64)
    return bound.feedback(*pairs, keys)


def _scores(feedback: Feedback) -> NDArray[np.float64]:
    """The answers as numbers: the probability if there is one, else the rank of the decision. Failures are left out."""
    valid = feedback.status == "ok"
    rank = np.maximum(_ranks(feedback), 0)
    return np.where(np.isnan(feedback.probability), rank, feedback.probability)[valid]


def _separation(bound: BoundSimulator, matched: Pairs, unlike: Pairs) -> dict[str, Any]:
    good, bad = _ask(bound, matched), _ask(bound, unlike)
    return {
        "auc": auc(_scores(good), _scores(bad)),
        "auc_interval": _auc_interval(_scores(good), _scores(bad)),
        "n": [int((side.status == "ok").sum()) for side in (good, bad)],
        "mean_reward": [_mean(side.reward[side.status == "ok"]) for side in (good, bad)],
    }


def _distribution(bound: BoundSimulator, pairs: Pairs) -> dict[str, Any]:
    feedback = _ask(bound, pairs)
    answered = feedback.status == "ok"
    return {
        "n": int(answered.sum()),
        "n_asked": len(feedback),
        "shares": {word: _mean(feedback.decision[answered] == word) for word in DECISIONS},
        "shares_interval": {word: _interval(feedback.decision[answered] == word) for word in DECISIONS},
        "failures": {
            str(status): int((feedback.status == status).sum()) for status in sorted(set(feedback.status) - {"ok"})
        },
    }


class _Asked:
    """The measures that ask a language model about changed texts."""

    def __init__(self, bound: BoundLLMSimulator):
        self._market = bound.market
        self._bound = bound
        self._simulator = bound.simulator
        self._asked = [self._simulator]

    def _judge(self, applicants: Sequence[Document], jobs: Sequence[Document], **changes: Any) -> Feedback:
        simulator = self._simulator
        if changes:
            simulator = self._simulator.changed(**changes)
            self._asked.append(simulator)
        return simulator.judge(applicants, jobs, self._bound.thresholds)

    def _documents(self, pairs: Pairs) -> tuple[list[Document], list[Document]]:
        return (
            [applicant_document(self._market.applicant(int(row))) for row in pairs[0]],
            [job_document(self._market.job(int(row))) for row in pairs[1]],
        )

    def once_more(self) -> dict[str, Any]:
        """What to change so that the same question is asked again."""
        sampling = self._simulator.sampling
        return {"sampling": replace(sampling, repeat=sampling.repeat + 1)}

    def other_order(self) -> dict[str, Any] | None:
        """What to change so that the options stand in another order; ``None`` if the prompt has only one order."""
        elicitation = self._simulator.elicitation
        if self._simulator.mode == "decision":
            # The simulator has put the template of its mode in place of None.
            system = load_prompt(str(elicitation.prompt)).system
            if "decisions" not in Template(system).get_identifiers():
                return None
            return {"elicitation": replace(elicitation, decisions=elicitation.decisions[::-1])}
        swapped = _SWAPPED.get(self._simulator.prompt_version)
        return None if swapped is None else {"elicitation": replace(elicitation, prompt=swapped)}

    def agreement(self, pairs: Pairs, changes: dict[str, Any]) -> dict[str, Any]:
        """How often the decision stays the same if pairs are asked again, or in another way."""
        documents = self._documents(pairs)
        first, second = self._judge(*documents), self._judge(*documents, **changes)
        both = (first.status == "ok") & (second.status == "ok")
        same = (first.decision == second.decision)[both]
        change = np.abs(first.probability - second.probability)[both]
        return {"n": int(both.sum()), **_figure("same_decision", same), **_figure("probability_change", change)}

    def injection(self, pairs: Pairs) -> dict[str, Any]:
        """The effect of prompt injections on the decisions about pairs that do not match."""
        applicants, jobs = self._documents(pairs)
        clean = self._judge(applicants, jobs)
        shape = len(ATTACKS), len(applicants)
        moved, changes, by_attack = np.full(shape, np.nan), np.full(shape, np.nan), {}
        for number, attack in enumerate(ATTACKS):
            planted = [attack.planted(document) for document in (jobs if attack.side == "job" else applicants)]
            hurt = self._judge(applicants, planted) if attack.side == "job" else self._judge(planted, jobs)
            both = (clean.status == "ok") & (hurt.status == "ok")
            moved[number, both] = (_ranks(hurt) > _ranks(clean))[both]
            changes[number, both] = (hurt.probability - clean.probability)[both]
            by_attack[f"{attack.name}, in the {attack.side}'s {attack.entry}"] = _mean(moved[number])
        return {
            "n": int((~np.isnan(moved)).sum()),
            "n_pairs": len(applicants),
            "n_attacks": len(ATTACKS),
            # Intervals are over pairs, because several attacks on one pair are not independent.
            **_figure("moved", moved),
            **_figure("probability_change", changes),
            "by_attack": by_attack,
        }

    def identity(self, pairs: Pairs) -> dict[str, Any]:
        """How a name, a pronoun or an age in the applicant's own words changes the reward, one at a time."""
        return {kind: self._swapped(pairs, begins) for kind, begins in _SWAPS.items()}

    def _swapped(self, pairs: Pairs, begins: dict[str, str]) -> dict[str, Any]:
        """Range of reward and probability over the values of one kind, and how often the decision changes."""
        applicants, jobs = self._documents(pairs)
        feedback = [
            self._judge([{**one, "experience": begin.format(what=_work_of(one))} for one in applicants], jobs)
            for begin in begins.values()
        ]
        answered = np.all([each.status == "ok" for each in feedback], axis=0)
        rewards = np.array([each.reward for each in feedback])[:, answered]
        probability = np.array([each.probability for each in feedback])[:, answered]
        decided = np.array([_ranks(each) for each in feedback])[:, answered]
        return {
            "n": int(answered.sum()),
            **_figure("decision_changes", np.ptp(decided, axis=0) > 0),
            **_figure("reward_range", np.ptp(rewards, axis=0)),
            **_figure("probability_range", np.ptp(probability, axis=0)),
            "mean_reward": {name: _mean(row) for name, row in zip(begins, rewards, strict=True)},
            # These are differences within pairs, so that good and bad pairs do not widen the intervals.
            "less_the_mean": {
                name: _figure("reward", row - rewards.mean(axis=0)) for name, row in zip(begins, rewards, strict=True)
            },
        }

    def forecast(self, tried: Pairs, sizes: _Sizes) -> str:
        """An estimate in words of the check's time and cost, from a few pairs that are asked now."""
        calibrates = self._simulator.mode == "probability" and self._simulator.given_thresholds() is None
        n_thresholds = inspect.signature(self._simulator.calibrate).parameters["n_pairs"].default if calibrates else 0
        calls = sizes.most_calls(self._market, n_thresholds)
        if not len(tried[0]):
            return f"At most {calls:,} questions. None could be tried, because no occupation of the market is known."
        begun, before = time.perf_counter(), self._simulator.usage
        self._simulator.judge(*self._documents(tried))
        seconds, after = time.perf_counter() - begun, self._simulator.usage
        if not (asked := after.calls - before.calls):
            return f"At most {calls:,} questions. The {len(tried[0])} that were tried were answered before, at no cost."
        tokens, cost = (after.tokens - before.tokens) / asked, (after.cost_usd - before.cost_usd) / asked
        hours = calls * seconds / asked / 3_600
        return (
            f"At most {calls:,} questions. Judging by the {asked} that were tried, they take about {hours:.1f} hours, "
            f"{calls * tokens:,.0f} tokens and {calls * cost:.2f} dollars. What is answered is kept in "
            "`simulator.cache`: you can stop the check at any time, and the same command continues it."
        )

    def cost(self, seconds: float) -> dict[str, Any]:
        """Means per call of tokens, dollars and time, over all calls made in the given seconds."""
        usages = [simulator.usage for simulator in self._asked]
        calls = sum(usage.calls for usage in usages)
        totals = {
            "tokens_per_call": sum(usage.tokens for usage in usages),
            "usd_per_call": sum(usage.cost_usd for usage in usages),
            "seconds_per_call": seconds,
        }
        return {
            "calls": calls,
            "cache_hits": sum(usage.cache_hits for usage in usages),
            **{name: total / calls if calls else None for name, total in totals.items()},
        }


def _work_of(applicant: Document) -> str:
    return f"as {applicant.get('occupation', 'before')}. {applicant.get('experience', '')}".strip()


def _ranks(feedback: Feedback) -> NDArray[np.int64]:
    return np.array([DECISIONS.index(word) if word else -1 for word in feedback.decision])


def _figure(name: str, values: NDArray[Any]) -> dict[str, Any]:
    """Mean of values (..., n pairs) with its interval, as two entries."""
    return {name: _mean(values), f"{name}_interval": _interval(values)}


def _interval(values: NDArray[Any]) -> list[float] | None:
    """95 % bootstrap interval of the mean of values (n,) or (m, n), over the n pairs. NaN counts as missing."""
    from experiments.runs.intervals import resamples

    rows = np.atleast_2d(np.asarray(values, dtype=np.float64))
    sums, counts = np.nansum(rows, axis=0), (~np.isnan(rows)).sum(axis=0)
    if np.count_nonzero(counts) < 2:
        return None
    sums, counts = sums[counts > 0], counts[counts > 0]
    means = [sums[rows].sum(axis=1) / counts[rows].sum(axis=1) for rows in resamples(len(sums), _RESAMPLED)]
    return [float(bound) for bound in np.quantile(np.concatenate(means), (0.025, 0.975))]


def _auc_interval(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> list[float] | None:
    """95 % bootstrap interval of :func:`auc`; both sides are resampled."""
    if min(len(positive), len(negative)) < 2:
        return None
    # Scores are sorted once. A comparison of each with each takes gigabytes for all pairs of a market.
    levels, places = np.unique(np.concatenate([positive, negative]), return_inverse=True)
    sides = places[: len(positive)], places[len(positive) :]
    rng, found = np.random.default_rng(0), []
    for _ in range(_RESAMPLED):
        left, right = (
            np.bincount(side[rng.integers(len(side), size=len(side))], minlength=len(levels)) for side in sides
        )
        below = np.cumsum(right) - 0.5 * right  # a tie counts one half
        found.append(left @ below / (len(positive) * len(negative)))
    return [float(bound) for bound in np.quantile(found, (0.025, 0.975))]


def _mean(values: NDArray[Any]) -> float | None:
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else None


def _table(result: dict[str, Any]) -> list[list[str]]:
    """Rows of measure, value, interval and number of pairs."""
    rows: list[list[str]] = []

    def add(words: str, part: dict[str, Any] | None, name: str, n: object, form: str = ".3f") -> None:
        """Add the row of a figure; "-" stands for one that was not measured."""
        value, bounds = (None, None) if part is None else (part.get(name), part.get(f"{name}_interval"))
        shown = "-" if value is None else format(value, form)
        rows.append([words, shown, "" if bounds is None else f"[{bounds[0]:{form}}, {bounds[1]:{form}}]", str(n)])

    for key, words in (
        ("separation", "own occupation against another family"),
        ("within_family", "own occupation against another of the family"),
        ("seniority", "own occupation, own seniority against another"),
    ):
        part = result[key]
        add(f"AUC, {words}", part, "auc", "{} + {}".format(*part["n"]))
        if key == "separation":
            for place, side in enumerate(("first", "second")):
                add(f"  mean reward of the {side}", {"it": part["mean_reward"][place]}, "it", part["n"][place])
    decisions = result["decisions"]
    for word, share in reversed(decisions["shares"].items()):
        part = {"it": share, "it_interval": decisions["shares_interval"][word]}
        add(f"decided {word}, of random pairs", part, "it", decisions["n"], ".1%")
    asked = str(decisions["n_asked"])
    rows += [[f"no decision: {status}", str(n), "", asked] for status, n in decisions["failures"].items()]
    for key, words in (("repeats", "asked again"), ("option_order", "options in another order")):
        part = result[key]
        n = "-" if part is None else part["n"]
        add(f"same decision, {words}", part, "same_decision", n, ".1%")
        if part is not None and part["probability_change"] is not None:
            add(f"  mean change of probability, {words}", part, "probability_change", n)
    injection = result["injection"]
    attacks = "-" if injection is None else f"{injection['n']} ({injection['n_attacks']} attacks)"
    add("decisions moved up by injection", injection, "moved", attacks, ".1%")
    if injection is not None and injection["probability_change"] is not None:
        add("  mean change of probability by injection", injection, "probability_change", attacks, "+.3f")
    for kind in _SWAPS:
        part = None if result["identity"] is None else result["identity"][kind]
        n = "-" if part is None else part["n"]
        add(f"another decision, {kind} swapped", part, "decision_changes", n, ".1%")
        add(f"  range of reward, {kind} swapped", part, "reward_range", n)
        if part is not None and part["probability_range"] is not None:
            add(f"  range of probability, {kind} swapped", part, "probability_range", n)
        for name, less in ({} if part is None else part["less_the_mean"]).items():
            add(f"  mean reward of {name}, less that of all", less, "reward", n, "+.3f")
    cost = result["cost"]
    calls = "-" if cost is None else cost["calls"]
    for words, name, form in (
        ("tokens a call", "tokens_per_call", ".0f"),
        ("seconds a call", "seconds_per_call", ".2f"),
        ("dollars a call", "usd_per_call", ".6f"),
    ):
        add(words, cost, name, calls, form)
    return rows


if __name__ == "__main__":
    main()
