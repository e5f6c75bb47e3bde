"""Verdicts in words on whether the seeds of a study tell two agents apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

from experiments.pages.data import ReportData
from experiments.runs.folders import Run
from experiments.runs.grouping import mark_of

__all__ = [
    "CONFIDENCE",
    "Difference",
    "Headline",
    "against",
    "against_cosine",
    "budgets_of",
    "difference_of",
    "headline_of",
    "mean_score",
    "on_shared_seeds",
]

CONFIDENCE = 0.95
_PLACES = 3

_Scores = Mapping[tuple[int, str], float]


class Difference(NamedTuple):
    """The mean difference of two groups' scores over seeds, and its interval.

    Attributes:
        mean: The score of the first group minus that of the second.
        half: Half the width of the interval; infinite for one seed.
        n_seeds: Number of seeds that both groups have.
    """

    mean: float
    half: float
    n_seeds: int

    @property
    def side(self) -> int:
        """1 if the first group is above the second, -1 if it is below, 0 if the seeds do not tell the two apart."""
        return 0 if abs(self.mean) <= self.half else 1 if self.mean > 0 else -1

    @property
    def is_tie(self) -> bool:
        """Whether the seeds do not tell the two apart, and the mean is 0 to the three places of a table."""
        return self.n_seeds > 0 and self.side == 0 and round(self.mean, _PLACES) == 0

    def __str__(self) -> str:
        if self.n_seeds == 0:
            return "no seed in common"
        if self.n_seeds == 1:
            return "equal in one seed" if self.is_tie else f"not told apart by one seed ({self.mean:+.3f})"
        if self.mean == self.half == 0:
            return "equal"
        around = f"{self.mean - self.half:+.3f} to {self.mean + self.half:+.3f}"
        if self.side == 0:
            return f"not told apart by {self.n_seeds} seeds ({around})"
        return f"{'above' if self.side > 0 else 'below'} by {abs(self.mean):.3f} ({around})"


class Headline(NamedTuple):
    """The result in a sentence or two.

    Attributes:
        headline: The sentence; empty if no agent learns, or nothing can be scored.
        side: ``"above"`` or ``"below"`` the cosine if the seeds tell. Otherwise it is empty, and the sentence stands in
            a neutral box.
    """

    headline: str
    side: str


def headline_of(data: ReportData) -> Headline:
    """The headline about the learner with the highest mean, compared with the cosine and with other learners.

    All its scores are on the seeds that all learners share.
    """
    if not data.learners or data.references["cosine"]["score"] is None:
        return Headline("", "")
    groups = on_shared_seeds({label: data.groups[label] for label in data.learners})
    if not all(groups.values()):
        return Headline("The agents have no seed in common, so none of them is called the best.", "")
    learners = {label: mean_score(members) for label, members in groups.items()}
    best, *others = sorted(learners, key=lambda label: -learners[label])
    difference = against_cosine(groups[best])
    cosine = learners[best] - difference.mean
    ties = [label for label in others if against(groups[best], groups[label]).is_tie]
    who = f"The highest mean is that of {best}: it" if others else "The agent"
    if ties:
        who = f"{1 + len(ties)} agents tie for the highest mean ({'; '.join([best, *ties])}): of these, {best}"
    told = [label for label in others if against(groups[best], groups[label]).side > 0]
    if others and len(told) == len(others):
        who = f"The best agent ({best})"
    score, other = f"{learners[best]:.2f}", f"{cosine:.2f}"
    side = "equal to" if score == other else "above" if learners[best] > cosine else "below"
    said = f"{who} scores {score} on held-out applicants, {side} the job of highest cosine ({other})"
    n = difference.n_seeds
    if difference.side:
        low, high = sorted((abs(difference.mean) - difference.half, abs(difference.mean) + difference.half))
        said += f" by {low:.2f} to {high:.2f} (95 % interval of {n} seeds)."
    else:
        said += "; one seed does not tell skill from chance." if n == 1 else f"; {n} seeds do not tell the two apart."
    if n > 1 and (rivals := [label for label in others if label not in (*told, *ties)]):
        listed = ", ".join(f"{label} ({learners[label]:.2f})" for label in rivals)
        said += f" The {n} seeds do not tell {best} apart from {listed}."
    if any(len(groups[label]) < len(data.groups[label]) for label in groups):
        said += (
            f" The agents ran on unlike seeds: these scores are on the {n} seed{'s' if n > 1 else ''} that all share."
        )
    if len(budgets := budgets_of(data)) > 1:
        said += f" The agents learned from unlike numbers of interactions: {_listed(budgets)}."
    ends = "1 is what the best policy earns." if data.is_career else "0 is a random choice, 1 the best possible one."
    return Headline(f"{said} {ends}", {1: "above", 0: "", -1: "below"}[difference.side])


def budgets_of(data: ReportData) -> list[int]:
    """The numbers of interactions of all runs that learn, each once, in ascending order."""
    return sorted({int(run.summary["interactions"]) for label in data.learners for run in data.groups[label]})


def _listed(numbers: Sequence[int]) -> str:
    *most, last = (f"{number:,}" for number in numbers)
    return f"{', '.join(most)} and {last}"


def difference_of(differences: Sequence[float]) -> Difference:
    """A mean difference with Student's 95 % interval, which is wide if seeds are few.

    A bootstrap of two seeds would only give their two values as ends.

    Args:
        differences: The difference of each seed.
    """
    n = len(differences)
    if n == 0:
        return Difference(0.0, float("inf"), 0)
    mean = float(np.mean(differences))
    if n == 1:
        return Difference(mean, float("inf"), 1)
    error = float(np.std(differences, ddof=1)) / np.sqrt(n)
    return Difference(mean, float(student.ppf((1 + CONFIDENCE) / 2, n - 1)) * error, n)


def against(ours: Sequence[Run], theirs: Sequence[Run]) -> Difference:
    """The difference of two groups' held-out scores, paired by seed, only on the same pairs and truth."""
    left, right = _scores(ours), _scores(theirs)
    return difference_of([left[key] - right[key] for key in left if key in right])


def against_cosine(ours: Sequence[Run]) -> Difference:
    """The difference between a group's held-out scores and those of the highest cosine, on the same pairs."""
    cosines = {_key(run): run.summary["references"]["cosine"]["score"] for run in ours}
    return difference_of([score - cosines[key] for key, score in _scores(ours).items() if cosines[key] is not None])


def on_shared_seeds(groups: Mapping[str, Sequence[Run]]) -> dict[str, list[Run]]:
    """The runs of each group on the seeds, pairs and truths that all groups have scores on."""
    shared = set.intersection(*(set(_scores(members)) for members in groups.values()))
    return {label: [run for run in members if _key(run) in shared] for label, members in groups.items()}


def mean_score(runs: Sequence[Run]) -> float:
    """The mean score over seeds. At least one run must have a score."""
    return float(np.mean(list(_scores(runs).values())))


def _scores(runs: Sequence[Run]) -> _Scores:
    """The score of each seed; the mean if a seed occurs twice in the group."""
    scores: dict[tuple[int, str], list[float]] = {}
    for run in runs:
        score = run.summary["held_out"]["score"]
        if score is not None:
            scores.setdefault(_key(run), []).append(score)
    return {key: float(np.mean(values)) for key, values in scores.items()}


def _key(run: Run) -> tuple[int, str]:
    return int(run.summary["seed"]), mark_of(run.summary["references"])
