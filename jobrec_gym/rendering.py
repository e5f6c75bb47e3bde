"""One recommendation as users see it: the scene, and the scene as a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobrec_gym.market import BLOCKS, SENIORITY_LEVELS, ContextValue, LabourMarket, Profile
from jobrec_gym.market.context import folded
from jobrec_gym.shown_text import as_text

__all__ = ["PAID_FOR", "Scene", "context_in_words", "headline", "render_text", "standing"]

PAID_FOR = {"reward/cosine": "scaled cosine", "reward/feedback": "feedback", "reward/pay": "pay"}
"""Shown names of the parts of a reward, by their entry in ``info``. The paid cosine is usually rescaled, for instance
to ``(1 + c) / 2``. A picture also shows the raw cosine of each candidate, so the two have different names."""

_SHOWN_CANDIDATES = 10
_SHOWN_SKILLS = 100
_BOLD, _FAINT, _GREEN, _PLAIN = "\033[1m", "\033[2m", "\033[32m", "\033[0m"


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """The content of a picture of a decision: before the recommendation, or with its result.

    Attributes:
        market: The market, which has the texts of the applicant and of the jobs.
        applicant_id: The applicant.
        candidate_ids: (k,), the shown jobs.
        allowed: bool (k,), which candidates could be recommended.
        scores: float (k,), the scores that rank the candidates.
        scored_by: Name of the scores.
        info: The ``info`` of the step; without ``job_id`` nothing was recommended yet.
        reward: The paid reward; ``None`` if nothing was recommended yet.
        step: How many recommendations the episode has had.
        standing: The applicant's present state in words, where applicants move; else empty.
    """

    market: LabourMarket
    applicant_id: int
    candidate_ids: NDArray[np.int64]
    allowed: NDArray[np.bool_]
    scores: NDArray[np.floating]
    scored_by: str
    info: Mapping[str, Any]
    reward: float | None
    step: int
    standing: str = ""

    @property
    def applicant(self) -> Profile:
        """The applicant's profile."""
        return self.market.applicant(self.applicant_id)

    @property
    def job(self) -> Profile | None:
        """The recommended job's profile; ``None`` if nothing was recommended yet."""
        return self.market.job(self.info["job_id"]) if "job_id" in self.info else None

    @property
    def ranking(self) -> NDArray[np.intp]:
        """Places (k,) of the candidates, best first; masked ones last."""
        return np.lexsort((-self.scores, ~self.allowed))

    def shown(self, n_rows: int) -> list[int]:
        """The first places of the ranking, at most ``n_rows``; the recommended one is always among them."""
        ranking = self.ranking.tolist()
        first = ranking[:n_rows]
        recommended = [place for place in ranking[n_rows:] if self.candidate_ids[place] == self.info.get("job_id")]
        return first[: n_rows - len(recommended)] + recommended

    def shared(self, profile: Profile) -> frozenset[str]:
        """A job's skills that the applicant has, ignoring case; hard and soft skills are compared separately."""
        return _common(profile, self.applicant)

    def met(self, profile: Profile) -> frozenset[str]:
        """The skills of :meth:`shared` in the applicant's spelling."""
        return _common(self.applicant, profile)


def _common(spelt_by: Profile, other: Profile) -> frozenset[str]:
    """Skills of one profile that another one has too."""
    had = {block: set(map(folded, getattr(other, f"{block}_skills"))) for block in BLOCKS}
    return frozenset(
        skill for block in BLOCKS for skill in getattr(spelt_by, f"{block}_skills") if folded(skill) in had[block]
    )


def render_text(scene: Scene, colours: bool = False, width: int | None = None) -> str:
    """A scene in words.

    Args:
        scene: The scene.
        colours: Adds escape sequences for a terminal: the recommended job and shared skills are green.
        width: Lists of skills are wrapped at this many columns; ``None`` wraps none.

    Returns:
        Several lines: the applicant, the recommended job, the answer and the reward, and the candidates, best first.
    """
    paint = _painter(colours)
    applicant, job = scene.applicant, scene.job
    shared = scene.shared(job) if job is not None else frozenset()
    green = {as_text(skill) for skill in (shared | scene.met(job) if job is not None else shared)}

    def listed(label: str, skills: Sequence[str]) -> str:
        words = [f"{as_text(skill)}," for skill in skills[:_SHOWN_SKILLS]]
        hidden = len(skills) - len(words)
        rows = _broken([*words, f"and {hidden:,} more,"] if hidden else words, len(label) + 1, width)
        if rows:
            rows[-1][-1] = rows[-1][-1].removesuffix(",")
        painted = [
            " ".join(paint(word, _GREEN) if word.removesuffix(",") in green else word for word in row) for row in rows
        ]
        return f"{label} " + f"\n{' ' * (len(label) + 1)}".join(painted or ["none"])

    lines = [
        paint(f"Applicant {as_text(applicant.key)}: {headline(applicant)}", _BOLD),
        listed("  hard skills:", applicant.hard_skills),
        listed("  soft skills:", applicant.soft_skills),
        *([f"  now: {as_text(scene.standing)}"] if scene.standing else []),
    ]
    if job is not None:
        skills = job.hard_skills + job.soft_skills
        lines += [
            paint(f"Recommended {as_text(job.key)}: {headline(job)}", _BOLD + _GREEN),
            listed("  asks for:", skills),
            listed("  shared:", [skill for skill in skills if skill in shared]),
            f"  {'   '.join(_rewards_in_words(scene))}",
        ]
    lines.append(f"Candidates by {as_text(scene.scored_by)}: each behind its [action]")
    places = scene.shown(_SHOWN_CANDIDATES)
    digits = len(str(len(scene.candidate_ids) - 1))
    for place in places:
        job_id = int(scene.candidate_ids[place])
        profile = scene.market.job(job_id)
        recommended = job_id == scene.info.get("job_id")
        mark = ">" if recommended else " " if scene.allowed[place] else "x"
        line = f" {mark} [{place:>{digits}}] {scene.scores[place]:+.3f}  {as_text(profile.key)}  {headline(profile)}"
        lines.append(paint(line, _BOLD + _GREEN if recommended else "" if scene.allowed[place] else _FAINT))
    hidden = len(scene.candidate_ids) - len(places)
    if hidden > 0:
        lines.append(f"   ... and {hidden} more")
    if not scene.allowed.all():
        lines.append("   x: masked, recommended before")
    return "\n".join(lines)


def headline(profile: Profile) -> str:
    """Title, level, experience and context of a profile, as far as its source has them; long texts are cut."""
    parts = (as_text(profile.title or profile.occupation or profile.key), standing(profile), context_in_words(profile))
    return ", ".join(part for part in parts if part)


def standing(profile: Profile) -> str:
    """Level and experience of a profile, as far as its source has them."""
    level = SENIORITY_LEVELS[profile.seniority - 1] if profile.seniority else ""
    return ", ".join(part for part in (level, as_text(profile.experience or "")) if part)


def context_in_words(profile: Profile) -> str:
    """Context fields of a profile: ``place: Hamburg, remote: yes``; empty if none is known."""
    return ", ".join(f"{as_text(name)}: {as_text(_in_words(value))}" for name, value in profile.context.items())


def _in_words(value: ContextValue) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() else f"{value:,.4g}"
    return value if isinstance(value, str) else " / ".join(value)


def _rewards_in_words(scene: Scene) -> list[str]:
    info = scene.info
    parts = [f"decision {as_text(str(info['feedback/decision']))}"] if info.get("feedback/decision") else []
    parts += [f"reward {scene.reward:.3f}"] if scene.reward is not None else []
    parts += [f"{PAID_FOR[name]} {info[name]:.3f}" for name in PAID_FOR if name in info]
    if "reward/cosine_weight" in info:
        parts.append(f"weight of cosine {info['reward/cosine_weight']:.3f}")
    if info.get("feedback/status", "ok") != "ok":
        parts.append(f"status {as_text(str(info['feedback/status']))}")
    return parts


def _broken(words: Sequence[str], indent: int, width: int | None) -> list[list[str]]:
    """Words in rows that fit into ``width`` columns after an indent."""
    rows: list[list[str]] = []
    column = 0
    for word in words:
        if not rows or (width is not None and column + len(word) > width):
            rows.append([])
            column = indent
        rows[-1].append(word)
        column += len(word) + 1
    return rows


def _painter(colours: bool) -> Any:
    def paint(text: str, style: str) -> str:
        return f"{style}{text}{_PLAIN}" if colours and style else text

    return paint
