"""Text and picture of one recommendation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium.error import DependencyNotInstalled
from numpy.typing import NDArray

from jobrec_gym.market import SENIORITY_LEVELS, LabourMarket, Profile

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont, ImageFont

__all__ = ["render_image", "render_text"]

_WIDTH, _MARGIN, _LINE = 960, 24, 24
_SHOWN_CANDIDATES = 10
_INK, _FAINT, _PAPER, _BAR, _MARK = (31, 41, 55), (107, 114, 128), (255, 255, 255), (147, 197, 253), (22, 101, 52)


def render_text(market: LabourMarket, info: Mapping[str, Any]) -> str:
    """One recommendation in words.

    Args:
        market: Where the words are.
        info: An ``info`` of ``JobRec-v0``, of a reset or of a step.

    Returns:
        Several lines: who applies, what was recommended and earned, and the candidates of the observation by cosine.
    """
    applicant = market.applicant(info["applicant_id"])
    lines = [
        f"Applicant {applicant.key}: {_headline(applicant)}",
        f"  hard skills: {_listed(applicant.hard_skills)}",
        f"  soft skills: {_listed(applicant.soft_skills)}",
    ]
    if "job_id" in info:
        job = market.job(info["job_id"])
        shared = [skill for skill in job.hard_skills + job.soft_skills if skill in _skills(applicant)]
        lines += [
            f"Recommended {job.key}: {_headline(job)}",
            f"  asks for: {_listed(job.hard_skills + job.soft_skills)}",
            f"  shared: {_listed(shared)}",
            f"  reward/cosine {info['reward/cosine']:.3f}",
        ]
    lines.append("Candidates by cosine:")
    for job_id, cosine in _ranked(market, info):
        mark = ">" if job_id == info.get("job_id") else " "
        job = market.job(job_id)
        lines.append(f" {mark} {cosine:+.3f}  {job.key}  {_headline(job)}")
    hidden = len(info["candidate_ids"]) - _SHOWN_CANDIDATES
    if hidden > 0:
        lines.append(f"   ... and {hidden} more")
    return "\n".join(lines)


def render_image(market: LabourMarket, info: Mapping[str, Any]) -> NDArray[np.uint8]:
    """One recommendation as a picture.

    Args:
        market: Where the words are.
        info: An ``info`` of ``JobRec-v0``, of a reset or of a step.

    Returns:
        uint8 (height, 960, 3); the height is the same for all steps of an environment.

    Raises:
        DependencyNotInstalled: Without Pillow.
    """
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError as error:
        raise DependencyNotInstalled(
            'Pillow is not installed, run `pip install "jobrec-gym[render]"` for render_mode="rgb_array".'
        ) from error
    fonts = [ImageFont.load_default(size) for size in (20, 15)]
    rows = min(len(info["candidate_ids"]), _SHOWN_CANDIDATES)
    image = Image.new("RGB", (_WIDTH, 2 * _MARGIN + (rows + 7) * _LINE), _PAPER)
    draw = ImageDraw.Draw(image)
    applicant = market.applicant(info["applicant_id"])
    top = _MARGIN

    def write(text: str, x: int, size: int, colour: tuple[int, int, int], room: int) -> None:
        draw.text((x, top), _cut(text, fonts[size], room), fill=colour, font=fonts[size])

    room = _WIDTH - 2 * _MARGIN
    write(f"Applicant: {_headline(applicant)}", _MARGIN, 0, _INK, room)
    top += _LINE + 4
    for label, skills in (("hard", applicant.hard_skills), ("soft", applicant.soft_skills)):
        write(f"{label}: {_listed(skills)}", _MARGIN, 1, _FAINT, room)
        top += _LINE
    top += _LINE // 2
    if "job_id" in info:
        write(f"Recommended: {_headline(market.job(info['job_id']))}", _MARGIN, 0, _MARK, room - 220)
        write(f"cosine reward {info['reward/cosine']:.3f}", _WIDTH - _MARGIN - 200, 1, _MARK, 200)
    top += _LINE + 4
    write("Candidates, by cosine with the applicant", _MARGIN, 1, _FAINT, room)
    top += _LINE
    for job_id, cosine in _ranked(market, info):
        colour = _MARK if job_id == info.get("job_id") else _INK
        length = round(180 * max(cosine, 0.0))
        draw.rectangle((_MARGIN, top + 3, _MARGIN + length, top + _LINE - 5), fill=colour if colour == _MARK else _BAR)
        write(f"{cosine:+.2f}", _MARGIN + 190, 1, colour, 60)
        write(_headline(market.job(job_id)), _MARGIN + 250, 1, colour, room - 250)
        top += _LINE
    return np.asarray(image)


def _ranked(market: LabourMarket, info: Mapping[str, Any]) -> list[tuple[int, float]]:
    candidates = np.asarray(info["candidate_ids"])
    cosines = market.cosine(np.full(len(candidates), info["applicant_id"]), candidates)
    order = np.argsort(-cosines, kind="stable")[:_SHOWN_CANDIDATES]
    return [(int(candidates[place]), float(cosines[place])) for place in order]


def _headline(profile: Profile) -> str:
    level = SENIORITY_LEVELS[profile.seniority - 1] if profile.seniority else ""
    return ", ".join(part for part in (profile.title or profile.occupation, level, profile.experience) if part)


def _skills(profile: Profile) -> frozenset[str]:
    return frozenset(profile.hard_skills + profile.soft_skills)


def _listed(skills: tuple[str, ...] | list[str]) -> str:
    return ", ".join(skills) if skills else "none"


def _cut(text: str, font: FreeTypeFont | ImageFont, room: int) -> str:
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(text + "...") > room:
        text = text[:-1]
    return text.rstrip(", ") + "..."
