"""One recommendation as a picture, with Pillow's own font and nothing else from the system."""

from __future__ import annotations

import importlib
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from gymnasium.error import DependencyNotInstalled
from numpy.typing import NDArray

from jobrec_gym.extras import install_command
from jobrec_gym.market import Profile
from jobrec_gym.rendering import PAID_FOR, Scene, context_in_words, standing
from jobrec_gym.shown_text import as_text

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont, ImageFont

__all__ = ["RENDER_SIZES", "RenderSize", "render_image"]

RenderSize = Literal["small", "large"]

RENDER_SIZES: dict[str, tuple[int, int]] = {"small": (960, 540), "large": (1920, 1080)}
"""Width and height in pixels; both sizes have the same layout. Video codecs need even numbers."""

Colour = tuple[int, int, int]

_INK, _GREY, _PALE, _RULE = (24, 33, 47), (96, 108, 126), (148, 158, 173), (222, 227, 234)
_PAGE, _CARD, _CHIP = (240, 243, 247), (255, 255, 255), (237, 240, 245)
_GREEN, _GREEN_CHIP, _GREEN_ROW = (11, 110, 79), (205, 238, 222), (229, 246, 238)
_BAR = (160, 188, 228)
_DECISION_COLOURS: dict[str, Colour] = {
    "apply": (11, 110, 79),
    "save": (37, 99, 175),
    "click": (168, 98, 10),
    "ignore": (96, 108, 126),
}
_FAILED = (176, 42, 42)

_SPELT = {
    "\u2013": "-",
    "\u2014": "-",
    "\u2019": "'",
    "\u00df": "ss",
    "\u0141": "L",
    "\u0142": "l",
    "\u00f8": "o",
    "\u00e6": "ae",
}
"""Spelling of letters and dashes that Unicode does not decompose into an ASCII letter and an accent."""

# All lengths are in pixels of the small picture.
_WIDTH, _HEIGHT = RENDER_SIZES["small"]
_MARGIN, _GAP, _PAD = 14, 10, 14
_LEFT, _OUTCOME = 372, 92
_CHIP_HEIGHT, _CHIP_GAP, _CHIP_INDENT = 19, 4, 66
_MOST_ROWS, _LEAST_ROW, _TALLEST_ROW = 20, 18, 38
_MOST_LETTERS, _MOST_SKILLS = 200, 100  # more than fit anywhere
# A picture is drawn larger by this factor, then scaled down: Pillow does not smooth edges, and spaces small letters
# badly.
_SMOOTH = 2


def render_image(scene: Scene, size: RenderSize = "small") -> NDArray[np.uint8]:
    """A scene as a picture: the applicant, the recommended job, the ranked candidates, the answer and the reward.

    Args:
        scene: The scene.
        size: A name in :data:`RENDER_SIZES`.

    Returns:
        uint8 (height, width, 3), of the same size for every scene.

    Raises:
        DependencyNotInstalled: Without Pillow.
    """
    return _drawn(scene, size).pixels()


def _drawn(scene: Scene, size: RenderSize) -> _Canvas:
    canvas = _Canvas(RENDER_SIZES[size])
    shared = scene.shared(scene.job) if scene.job is not None else frozenset()
    half = (_HEIGHT - 2 * _MARGIN - _GAP) // 2
    met = scene.met(scene.job) if scene.job is not None else frozenset()
    _profile_card(canvas, _MARGIN, half, "APPLICANT", scene.applicant, met, now=scene.standing)
    if scene.job is None:
        _empty_card(canvas, _MARGIN + half + _GAP, half)
    else:
        n_skills = len(scene.job.hard_skills) + len(scene.job.soft_skills)
        note = f"{len(shared)} of {n_skills} skills shared"
        _profile_card(canvas, _MARGIN + half + _GAP, half, "RECOMMENDED JOB", scene.job, shared, note)
    right = _MARGIN + _LEFT + _GAP
    width = _WIDTH - _MARGIN - right
    below = _HEIGHT - _MARGIN - _OUTCOME
    _candidates_card(canvas, right, _MARGIN, width, below - _GAP - _MARGIN, scene)
    _outcome_card(canvas, right, below, width, _OUTCOME, scene)
    return canvas


def _profile_card(
    canvas: _Canvas,
    top: float,
    height: float,
    label: str,
    profile: Profile,
    shared: frozenset[str],
    note: str = "",
    now: str = "",
) -> None:
    """An applicant or a job, with shared skills first and in green; ``now`` is the state of an applicant who moves."""
    left, right = _MARGIN + _PAD, _MARGIN + _LEFT - _PAD
    canvas.box(_MARGIN, top, _LEFT, height, _CARD, radius=8)
    canvas.text(left, top + 11, label, 11, _GREY)
    if note:
        length = canvas.length(note, 11)
        canvas.box(right - length - 18, top + 13, 10, 10, _GREEN_CHIP, radius=3, outline=_GREEN)
        canvas.text(right - length, top + 11, note, 11, _GREEN)
    y: float = top + 28
    for line in canvas.wrapped(profile.title or profile.occupation or profile.key, 19, right - left, 2):
        canvas.text(left, y, line, 19, _INK)
        y += 24
    occupation = profile.occupation if profile.occupation != profile.title and profile.title else None
    about = ", ".join(part for part in (occupation, standing(profile)) if part)
    for line in filter(None, (about, context_in_words(profile))):
        canvas.text(left, y, canvas.cut(line, 12, right - left), 12, _GREY)
        y += 19
    for line in canvas.wrapped(now, 12, right - left, 2):
        canvas.text(left, y, line, 12, _GREEN)
        y += 17
    y += 5
    rows = int((top + height - 8 - y) // (_CHIP_HEIGHT + _CHIP_GAP))
    groups = [
        sorted(skills, key=lambda skill: skill not in shared) for skills in (profile.hard_skills, profile.soft_skills)
    ]
    needs = [_rows_of_chips(canvas, left, right, skills) for skills in groups]
    soft = min(needs[1], max(rows - needs[0], 2))
    for name, skills, most in zip(("hard skills", "soft skills"), groups, (rows - soft, soft), strict=True):
        y += _chips(canvas, left, right, y, name, skills, shared, most) * (_CHIP_HEIGHT + _CHIP_GAP) + 3


def _chips(
    canvas: _Canvas,
    left: int,
    right: int,
    top: float,
    name: str,
    skills: Sequence[str],
    green: frozenset[str],
    rows: int,
) -> int:
    """A label and as many skills as fit into some rows; returns how many rows they take."""
    canvas.text(left, top + 2, name, 11, _GREY)
    if not skills:
        canvas.text(left + _CHIP_INDENT, top + 2, "none", 12, _PALE)
        return 1
    texts = [canvas.cut(skill, 12, right - left - _CHIP_INDENT - 14) for skill in skills[:_MOST_SKILLS]]
    widths = [canvas.length(text, 12) + 14 for text in texts]
    for n in range(len(texts), -1, -1):
        shown = texts[:n] + ([f"+{len(skills) - n} more"] if n < len(skills) else [])
        rest = [canvas.length(text, 12) + 14 for text in shown[n:]]
        places = _flow([*widths[:n], *rest], left + _CHIP_INDENT, right)
        if places[-1][1] < max(rows, 1):
            break
    for number, (text, (x, row)) in enumerate(zip(shown, places, strict=True)):
        y = top + row * (_CHIP_HEIGHT + _CHIP_GAP)
        shared = number < n and skills[number] in green
        if number < n:
            canvas.box(x, y, canvas.length(text, 12) + 14, _CHIP_HEIGHT, _GREEN_CHIP if shared else _CHIP, radius=5)
        canvas.text(x + 7, y + 2, text, 12, _GREEN if shared else _INK if number < n else _GREY)
    return places[-1][1] + 1


def _rows_of_chips(canvas: _Canvas, left: int, right: int, skills: Sequence[str]) -> int:
    """How many rows all of these skills would take."""
    room = right - left - _CHIP_INDENT
    widths = [min(canvas.length(skill, 12) + 14, room) for skill in skills[:_MOST_SKILLS]]
    return _flow(widths, left + _CHIP_INDENT, right)[-1][1] + 1 if skills else 1


def _flow(widths: Sequence[float], left: float, right: float) -> list[tuple[float, int]]:
    """Place (x, row) of each of some boxes, whose ``widths`` are given; they are set like the words of a text."""
    places, x, row = [], left, 0
    for width in widths:
        if x > left and x + width > right:
            x, row = left, row + 1
        places.append((x, row))
        x += width + _CHIP_GAP
    return places


def _empty_card(canvas: _Canvas, top: float, height: float) -> None:
    canvas.box(_MARGIN, top, _LEFT, height, _CARD, radius=8)
    canvas.text(_MARGIN + _PAD, top + 11, "RECOMMENDED JOB", 11, _GREY)
    canvas.text(_MARGIN + _PAD, top + 30, "none yet", 19, _PALE)


def _candidates_card(canvas: _Canvas, left: float, top: float, width: float, height: float, scene: Scene) -> None:
    """The candidates, best first: action, title, score as a bar and a number, cosine, and number of shared skills."""
    canvas.box(left, top, width, height, _CARD, radius=8)
    x, end = left + _PAD, left + width - _PAD
    by_cosine = scene.scored_by == "cosine"
    shared_end, cosine_end = end, end - 48
    score_end = cosine_end if by_cosine else cosine_end - 52
    bar = score_end - 50 - 118
    k = len(scene.candidate_ids)
    heading = f"ACTION: {k} CANDIDATE{'S' if k > 1 else ''}, BEST {scene.scored_by.upper()} FIRST"
    canvas.text(x, top + 11, heading, 11, _GREY)
    columns = [(score_end, scene.scored_by), (shared_end, "shared")] + ([] if by_cosine else [(cosine_end, "cosine")])
    for place, name in columns:
        canvas.text(place - canvas.length(name, 11), top + 11, name, 11, _GREY)
    y, room = top + 31, height - 31 - 8
    places = scene.shown(_MOST_ROWS)
    if k > len(places):
        room -= _LEAST_ROW
        canvas.text(x + 26, top + height - 8 - _LEAST_ROW, f"and {k - len(places)} more", 12, _GREY)
    tall = min(room / len(places), _TALLEST_ROW)
    cosines = scene.market.cosine(np.full(k, scene.applicant_id), scene.candidate_ids)
    low, high = min(0.0, float(scene.scores.min())), max(float(scene.scores.max()), 0.0)
    scale = 118 / max(high - low, 1e-9)
    for place in places:
        job = scene.market.job(int(scene.candidate_ids[place]))
        recommended = scene.candidate_ids[place] == scene.info.get("job_id")
        allowed = bool(scene.allowed[place])
        ink = _GREEN if recommended else _INK if allowed else _PALE
        middle = y + tall / 2
        if recommended:
            canvas.box(left + 5, y, width - 10, tall, _GREEN_ROW, radius=4)
            canvas.box(left + 5, y, 4, tall, _GREEN, radius=2)
        action = str(place)  # the action that a person would give to `step`
        canvas.text(x + 18 - canvas.length(action, 12), middle - 7.5, action, 12, ink)
        note = "" if allowed or recommended else "masked"
        title_room = bar - 12 - (x + 26) - (canvas.length(note, 11) + 10 if note else 0)
        title = canvas.cut(job.title or job.occupation or job.key, 13, title_room)
        canvas.text(x + 26, middle - 8, title, 13, ink)
        if note:
            canvas.text(bar - 12 - canvas.length(note, 11), middle - 7, note, 11, _PALE)
        score = float(scene.scores[place])
        begin, until = sorted((bar - low * scale, bar + (score - low) * scale))
        canvas.box(begin, middle - 4, max(until - begin, 1), 8, _GREEN if recommended else _BAR if allowed else _RULE)
        cells = [(score_end, f"{score:.3f}"), (shared_end, str(len(scene.shared(job))))]
        for stop, text in cells + ([] if by_cosine else [(cosine_end, f"{cosines[place]:.2f}")]):
            canvas.text(stop - canvas.length(text, 12), middle - 7.5, text, 12, ink)
        y += tall
    if low < 0:
        canvas.box(bar - low * scale - 0.5, top + 31, 1, y - top - 31, _RULE)


def _outcome_card(canvas: _Canvas, left: float, top: float, width: float, height: float, scene: Scene) -> None:
    """The applicant's decision, its reason, and the reward."""
    canvas.box(left, top, width, height, _CARD, radius=8)
    x, end = left + _PAD, left + width - _PAD
    info = scene.info
    canvas.text(x, top + 11, f"STEP {scene.step}" if scene.step else "BEFORE THE FIRST STEP", 11, _GREY)
    if scene.reward is None:
        canvas.text(x, top + 34, "no recommendation, no reward", 15, _PALE)
        return
    numbers = [("reward", scene.reward)]
    numbers += [(name, float(info[entry])) for entry, name in PAID_FOR.items() if entry in info]
    stop = end
    for name, value in reversed(numbers):
        label, wide = f"{value:.3f}", 27 if name == "reward" else 21
        length = max(canvas.length(name, 11), canvas.length(label, wide))
        stop -= length
        canvas.text(stop, top + 11, name, 11, _GREY)
        canvas.text(stop, top + (26 if name == "reward" else 31), label, wide, _INK)
        stop -= 20
    decision, status = info.get("feedback/decision"), str(info.get("feedback/status", "ok"))
    if decision:
        colour = _DECISION_COLOURS.get(decision, _GREY)
        length = canvas.length(str(decision), 19) + 24
        canvas.box(x, top + 29, length, 28, colour, radius=14)
        canvas.text(x + 12, top + 31, str(decision), 19, _CARD)
    else:
        words = "nobody was asked" if status == "ok" else "no decision"
        canvas.text(x, top + 34, words, 15, _PALE)
    reason = info.get("feedback/reason") or _paid(info)
    text = str(reason) if status == "ok" else f"status: {status}"
    canvas.text(x, top + 67, canvas.cut(text, 12, end - x), 12, _GREY if status == "ok" else _FAILED)


def _paid(info: Mapping[str, Any]) -> str:
    """How the reward was computed, in words."""
    weight = info.get("reward/cosine_weight")
    if weight is not None:
        return f"reward = {weight:.2f} x scaled cosine + {1 - weight:.2f} x feedback"
    return "reward = feedback" if "reward/feedback" in info else "reward = scaled cosine"


class _Canvas:
    """Boxes and texts in units of the small picture; texts always lie above boxes."""

    def __init__(self, size: tuple[int, int]):
        self._image, self._draw, self._font = _pillow()
        self._size = size
        self._scale = size[0] / _WIDTH
        self._boxes: list[tuple[tuple[float, float, float, float], Colour, float, Colour | None]] = []
        self._texts: list[tuple[float, float, str, int, Colour]] = []

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        colour: Colour,
        radius: float = 2,
        outline: Colour | None = None,
    ) -> None:
        """A filled rectangle with round corners."""
        self._boxes.append(((x, y, x + width, y + height), colour, min(radius, width / 2, height / 2), outline))

    def text(self, x: float, y: float, text: str, size: int, colour: Colour) -> None:
        """A line of text; ``y`` is its top."""
        self._texts.append((x, y, text, size, colour))

    def length(self, text: str, size: int) -> float:
        """How wide a line is."""
        return self._of(size).getlength(_writable(text, self._font)) / self._scale / _SMOOTH

    def cut(self, text: str, size: int, room: float) -> str:
        """A line, cut so that it fits into ``room``; a cut line ends in an ellipsis."""
        text = _writable(text, self._font)
        if self.length(text, size) <= room:
            return text
        fits, too_long = 0, len(text)
        while fits + 1 < too_long:  # a shorter beginning is never wider
            middle = (fits + too_long) // 2
            if self.length(f"{text[:middle]}...", size) <= room:
                fits = middle
            else:
                too_long = middle
        return text[:fits].rstrip(" ,") + "..."

    def wrapped(self, text: str, size: int, room: float, n_lines: int) -> list[str]:
        """At most ``n_lines`` lines that fit; the last one is cut if the text is longer."""
        lines: list[str] = []
        words = _writable(text, self._font).split()
        while words and len(lines) < n_lines - 1:
            n = len(words)
            while n > 1 and self.length(" ".join(words[:n]), size) > room:
                n -= 1
            lines.append(self.cut(" ".join(words[:n]), size, room))
            words = words[n:]
        return [*lines, self.cut(" ".join(words), size, room)] if words else lines

    def pixels(self) -> NDArray[np.uint8]:
        """The drawn picture, uint8 (height, width, 3)."""
        width, height = self._size
        scale = self._scale * _SMOOTH
        page = self._image.new("RGB", (width * _SMOOTH, height * _SMOOTH), _PAGE)
        draw = self._draw.Draw(page)
        for (x0, y0, x1, y1), colour, radius, outline in self._boxes:
            # In Pillow the far corner is part of the box.
            corners = (round(x0 * scale), round(y0 * scale), round(x1 * scale) - 1, round(y1 * scale) - 1)
            draw.rounded_rectangle(corners, radius * scale, fill=colour, outline=outline, width=round(scale))
        for x, y, text, size, colour in self._texts:
            draw.text((x * scale, y * scale), _writable(text, self._font), fill=colour, font=self._of(size))
        return np.asarray(page.resize(self._size, self._image.Resampling.BOX))

    def _of(self, size: int) -> FreeTypeFont | ImageFont:
        return _font(self._font, size * self._scale * _SMOOTH)


def _pillow() -> tuple[Any, Any, Any]:
    try:
        return tuple(importlib.import_module(f"PIL.{name}") for name in ("Image", "ImageDraw", "ImageFont"))  # type: ignore[return-value]
    except ImportError as error:
        raise DependencyNotInstalled(
            f'Pillow is not installed, run `{install_command("render")}` for render_mode="rgb_array".'
        ) from error


@lru_cache(maxsize=32)
def _font(image_font: Any, size: float) -> Any:
    return image_font.load_default(size)


@lru_cache(maxsize=4096)
def _writable(text: str, image_font: Any) -> str:
    """A text in the letters that Pillow's own font has: without accents, and "?" for what it cannot write.

    The result is on one line, and of bounded length. A second call changes nothing more.
    """
    whole = unicodedata.normalize("NFC", as_text(text, _MOST_LETTERS))
    return "".join(_letters(letter, image_font) for letter in whole)


@lru_cache(maxsize=4096)
def _letters(letter: str, image_font: Any) -> str:
    if unicodedata.category(letter) in ("Mn", "Me", "Cf"):
        return ""  # an accent on its own, or the joiner of an emoji's parts
    font = _font(image_font, 12.0)
    plain = _SPELT.get(letter) or letter
    for spelling in (plain, unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode()):
        if spelling and all(bytes(font.getmask(part)) != _absent(image_font) for part in spelling):
            return spelling
    return "?"


@lru_cache(maxsize=1)
def _absent(image_font: Any) -> bytes:
    """What the font draws for a letter that it lacks."""
    return bytes(_font(image_font, 12.0).getmask("\uffff"))
