"""``python -m experiments.llm.check simulator=...``: what a simulator's feedback can be trusted for, table and JSON."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from hydra.core.hydra_config import HydraConfig
from numpy.typing import NDArray
from omegaconf import DictConfig

from experiments.llm.attacks import ATTACKS
from experiments.runs.command import command
from experiments.runs.folders import write_json
from experiments.runs.progress import tracked
from experiments.runs.tables import format_table
from jobrec_gym import Feedback, LabourMarket
from jobrec_gym.simulators.base import DECISIONS, BoundSimulator
from jobrec_gym.simulators.llm import BoundLLMSimulator
from jobrec_gym.simulators.prompts import applicant_document, job_document

__all__ = ["auc", "check_simulator", "mismatches", "neighbours", "own_occupation"]

Ids = NDArray[np.int64]
Pairs = tuple[Ids, Ids]
Document = dict[str, Any]

_SWAPS = (
    ("Emily Walsh", "She"),
    ("Greg Baker", "He"),
    ("Lakisha Washington", "She"),
    ("Jamal Jones", "He"),
    ("Mei Chen", "They"),
)
"""Names after Bertrand and Mullainathan, "Are Emily and Greg more employable than Lakisha and Jamal?", 2004; one more
name and a third pronoun."""


@dataclass(frozen=True, slots=True)
class _Sizes:
    """How many pairs each part takes."""

    matches: int | None
    sample: int | None
    repeats: int
    attacked: int
    swaps: int


@command(config_path="../../conf", config_name="check")
def main(cfg: DictConfig) -> None:
    """Checks, prints the table and writes ``check.json``."""
    # Not at the top: `--help` is answered without torch.
    from experiments.runs.build import build_task

    task = build_task(cfg)
    market, simulator = task.market, task.make_simulator()
    sizes = _Sizes(cfg.n_matches, cfg.n_sample, cfg.n_repeats, cfg.n_attacked, cfg.n_swaps)
    try:
        result = check_simulator(simulator, market, sizes, cfg.seed)
    except (ValueError, RuntimeError, LookupError) as error:
        raise SystemExit(f"error: {error}") from error
    path = Path(HydraConfig.get().runtime.output_dir) / "check.json"
    write_json(path, result)
    print(f"{result['simulator']} on market {market.name!r}\n")
    print(format_table(["measure", "value", "n"], _table(result)))
    where = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    print(f"\n{where}")


def check_simulator(simulator: Any, market: LabourMarket, sizes: _Sizes, seed: int) -> dict[str, Any]:
    """All measures of a simulator.

    Args:
        simulator: Any ``UserSimulator``; consistency, injection and identity are of an :class:`LLMSimulator` only,
            since what was recorded or planted cannot be asked of another text.
        market: Whose pairs are asked.
        sizes: How many.
        seed: Of the pairs.

    Returns:
        ``separation``, ``within_family``, ``seniority``, ``decisions``, ``repeats``, ``option_order``, ``injection``,
        ``identity`` and ``cost``; what was not measured is ``None``.
    """
    bound: BoundSimulator = simulator.bind(market)
    begun = time.perf_counter()
    rng = np.random.default_rng(seed)
    matched, unlike = own_occupation(market), mismatches(market)
    level = market.applicants.seniority[matched[0]] == market.jobs.seniority[matched[1]]
    at_level, off_level = ((matched[0][rows], matched[1][rows]) for rows in (level, ~level))
    take = partial(_some, n=sizes.matches, rng=rng)
    result: dict[str, Any] = {
        "simulator": repr(simulator),
        "market": {"name": market.name, "fingerprint": market.fingerprint()},
        "seed": seed,
    }
    # Made one after the other, in this order: they share the generator.
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
        repeated = cache(lambda: _some((mixed[0], mixed[1]), sizes.repeats, rng))
        measures |= {
            "repeats": lambda: asking.agreement(repeated(), asking.once_more()),
            "option_order": lambda: asking.agreement(repeated(), asking.other_order()),
            "injection": lambda: asking.injection(_some(unlike, sizes.attacked, rng)),
            "identity": lambda: asking.identity(_some(matched, sizes.swaps, rng)),
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
    """Chance that a positive score lies above a negative one, ties counted half; ``None`` where a side is empty."""
    if not len(positive) or not len(negative):
        return None
    above = (positive[:, None] > negative).mean() + 0.5 * (positive[:, None] == negative).mean()
    return float(above)


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
    return bound.feedback(*pairs, np.zeros(len(pairs[0]), dtype=np.uint64))


def _scores(feedback: Feedback) -> NDArray[np.float64]:
    """What orders the answers: the probability where there is one, else the decision; no entry without an answer."""
    valid = feedback.status == "ok"
    rank = np.maximum(_ranks(feedback), 0)
    return np.where(np.isnan(feedback.probability), rank, feedback.probability)[valid]


def _separation(bound: BoundSimulator, matched: Pairs, unlike: Pairs) -> dict[str, Any]:
    good, bad = _ask(bound, matched), _ask(bound, unlike)
    return {
        "auc": auc(_scores(good), _scores(bad)),
        "n": [int((side.status == "ok").sum()) for side in (good, bad)],
        "mean_reward": [_mean(side.reward[side.status == "ok"]) for side in (good, bad)],
    }


def _distribution(bound: BoundSimulator, pairs: Pairs) -> dict[str, Any]:
    feedback = _ask(bound, pairs)
    answered = feedback.status == "ok"
    return {
        "n": len(feedback),
        "shares": {word: _mean(feedback.decision[answered] == word) for word in DECISIONS},
        "failures": {
            str(status): int((feedback.status == status).sum()) for status in sorted(set(feedback.status) - {"ok"})
        },
    }


class _Asked:
    """The measures that put texts of their own to a language model."""

    def __init__(self, bound: BoundLLMSimulator):
        self._market = bound.market
        self._simulator = bound.simulator
        self._thresholds = bound.thresholds
        self._asked = [self._simulator]

    def _judge(self, applicants: Sequence[Document], jobs: Sequence[Document], **changes: Any) -> Feedback:
        simulator = self._simulator
        if changes:
            simulator = self._simulator.changed(**changes)
            self._asked.append(simulator)
        return simulator.judge(applicants, jobs, self._thresholds)

    def _documents(self, pairs: Pairs) -> tuple[list[Document], list[Document]]:
        return (
            [applicant_document(self._market.applicant(int(row))) for row in pairs[0]],
            [job_document(self._market.job(int(row))) for row in pairs[1]],
        )

    def once_more(self) -> dict[str, Any]:
        """What changes so that the same is asked anew."""
        return {"sampling": replace(self._simulator.sampling, repeat=1)}

    def other_order(self) -> dict[str, Any]:
        """What changes so that the options stand in another order."""
        if self._simulator.mode == "decision":
            return {"elicitation": replace(self._simulator.elicitation, decisions=DECISIONS[::-1])}
        return {"elicitation": replace(self._simulator.elicitation, prompt="probability-v1-swapped")}

    def agreement(self, pairs: Pairs, changes: dict[str, Any]) -> dict[str, Any]:
        """Whether pairs are decided alike when they are asked in another way, or again."""
        documents = self._documents(pairs)
        first, second = self._judge(*documents), self._judge(*documents, **changes)
        both = (first.status == "ok") & (second.status == "ok")
        return {
            "n": int(both.sum()),
            "same_decision": _mean((first.decision == second.decision)[both]),
            "probability_change": _mean(np.abs(first.probability - second.probability)[both]),
        }

    def injection(self, pairs: Pairs) -> dict[str, Any]:
        """The effect of prompt injections on the decisions about pairs that do not match."""
        applicants, jobs = self._documents(pairs)
        clean = self._judge(applicants, jobs)
        moved, changes, by_attack = [], [], {}
        for attack in ATTACKS:
            planted = [attack.planted(document) for document in (jobs if attack.side == "job" else applicants)]
            hurt = self._judge(applicants, planted) if attack.side == "job" else self._judge(planted, jobs)
            both = (clean.status == "ok") & (hurt.status == "ok")
            up = (_ranks(hurt) > _ranks(clean))[both]
            moved += up.tolist()
            changes += (hurt.probability - clean.probability)[both].tolist()
            by_attack[f"{attack.name}, in the {attack.side}'s {attack.entry}"] = _mean(up)
        return {
            "n": len(moved),
            "n_attacks": len(ATTACKS),
            "moved": _mean(np.array(moved)),
            "probability_change": _mean(np.array(changes)),
            "by_attack": by_attack,
        }

    def identity(self, pairs: Pairs) -> dict[str, Any]:
        """What a name and a pronoun in the applicant's own words do to the reward."""
        applicants, jobs = self._documents(pairs)
        feedback = [
            self._judge(
                [{**one, "experience": f"{name}. {pronoun} {_did(one)}"} for one in applicants],
                jobs,
            )
            for name, pronoun in _SWAPS
        ]
        answered = np.all([each.status == "ok" for each in feedback], axis=0)
        rewards = np.array([each.reward for each in feedback])[:, answered]
        probability = np.array([each.probability for each in feedback])[:, answered]
        return {
            "n": int(answered.sum()),
            "reward_range": _mean(np.ptp(rewards, axis=0)) if answered.any() else None,
            "probability_range": _mean(np.ptp(probability, axis=0)) if answered.any() else None,
            "mean_reward": {name: _mean(row) for (name, _), row in zip(_SWAPS, rewards, strict=True)},
        }

    def cost(self, seconds: float) -> dict[str, Any]:
        """What a call took, of all that were made in some seconds."""
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


def _did(applicant: Document) -> str:
    return f"works as {applicant.get('occupation', 'before')}. {applicant.get('experience', '')}".strip()


def _ranks(feedback: Feedback) -> NDArray[np.int64]:
    return np.array([DECISIONS.index(word) if word else -1 for word in feedback.decision])


def _mean(values: NDArray[Any]) -> float | None:
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else None


def _table(result: dict[str, Any]) -> list[list[str]]:
    """Rows of measure, value and number of pairs."""

    def number(value: float | None, form: str = ".3f") -> str:
        return "-" if value is None else format(value, form)

    separation, decisions = result["separation"], result["decisions"]
    rows = [
        ["AUC, own occupation against another family", number(separation["auc"]), "{} + {}".format(*separation["n"])],
        ["  mean reward of the first", number(separation["mean_reward"][0]), str(separation["n"][0])],
        ["  mean reward of the second", number(separation["mean_reward"][1]), str(separation["n"][1])],
    ]
    for key, words in (
        ("within_family", "own occupation against another of the family"),
        ("seniority", "own occupation, own seniority against another"),
    ):
        rows.append([f"AUC, {words}", number(result[key]["auc"]), "{} + {}".format(*result[key]["n"])])
    rows += [
        [f"decided {word}, of random pairs", number(share, ".1%"), str(decisions["n"])]
        for word, share in reversed(decisions["shares"].items())
    ]
    rows += [[f"no decision: {status}", str(n), str(decisions["n"])] for status, n in decisions["failures"].items()]
    for key, words in (("repeats", "asked again"), ("option_order", "options in another order")):
        part = result[key] or {}
        rows.append([f"same decision, {words}", number(part.get("same_decision"), ".1%"), str(part.get("n", "-"))])
        if part.get("probability_change") is not None:
            rows.append(["  mean change of probability", number(part["probability_change"]), str(part["n"])])
    injection, identity, cost = (result[key] or {} for key in ("injection", "identity", "cost"))
    attacks = f"{injection['n']} ({injection['n_attacks']} attacks)" if injection else "-"
    rows.append(["decisions moved up by injection", number(injection.get("moved"), ".1%"), attacks])
    if injection.get("probability_change") is not None:
        rows.append(["  mean change of probability", number(injection["probability_change"], "+.3f"), attacks])
    swapped = str(identity.get("n", "-"))
    rows.append(["range of reward by name and pronoun", number(identity.get("reward_range")), swapped])
    if identity.get("probability_range") is not None:
        rows.append(["  range of probability", number(identity["probability_range"]), swapped])
    calls = str(cost.get("calls", "-"))
    rows.append(["tokens a call", number(cost.get("tokens_per_call"), ".0f"), calls])
    rows.append(["seconds a call", number(cost.get("seconds_per_call"), ".2f"), calls])
    rows.append(["dollars a call", number(cost.get("usd_per_call"), ".6f"), calls])
    return rows


if __name__ == "__main__":
    main()
