"""The context of a market: fields of both sides besides skills, such as place and pay, and how they are compared."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, NamedTuple, cast, get_args

import numpy as np
from numpy.typing import NDArray

from jobrec_gym.market.tables import MarketError, SkillLists, view
from jobrec_gym.near_miss import best_match

__all__ = [
    "RESERVED_NAMES",
    "UNKNOWN",
    "Context",
    "ContextField",
    "ContextKind",
    "ContextTable",
    "ContextValue",
    "Side",
    "check_context_name",
    "context_fields",
    "folded",
]

ContextKind = Literal["category", "number", "flag", "set", "at_least", "at_most"]
"""How the values of two sides are compared, see :class:`ContextField`."""

ContextValue = str | float | bool | tuple[str, ...]
"""A value of a category, number, flag or set."""

Context = Mapping[str, str | Sequence[str | None]]
"""The argument ``context`` of a loader: fields by name. The value of a field is its kind, such as ``"category"``; or
its kind and both columns, as in :class:`ContextField`; or, only for a category, the two columns alone."""

Side = Literal["applicants", "jobs"]

RESERVED_NAMES = frozenset(
    (
        *("hard_coverage", "soft_coverage", "seniority", "all"),
        *("hard_skills", "soft_skills", "taste", "popularity"),
        *("key", "title", "hard", "soft", "experience", "occupation", "family", "description", "split"),
    )
)
"""Names that something else already has: a column, a pair feature or a part of the planted utility."""

UNKNOWN = -1
"""The number that stands for an unknown category or an unknown flag."""


class ContextField(NamedTuple):
    """How a field of the context is compared, and in which columns it stands.

    Attributes:
        kind: How the values of applicant and job are compared. The result is 0.5 if one of them is unknown.
            ``"category"`` and ``"flag"``: 1 if both are equal, else 0. ``"set"``: the share of the job's entries that
            the applicant has. ``"number"``: ``exp(-|x - y| / s)`` for the numbers x and y of both, where s is the
            standard deviation of the jobs' numbers. ``"at_least"``: 1 if the applicant's number is at least the job's,
            such as years of experience, else 0. ``"at_most"``: 1 if the applicant's number is at most the job's, such
            as a wished pay, else 0.
        applicants: The applicants' column; ``None`` is the column with the field's name.
        jobs: The jobs' column, likewise.
    """

    kind: ContextKind
    applicants: str | None = None
    jobs: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ContextTable:
    """One field of a market's context, on both sides; row ``i`` belongs to row ``i`` of the population.

    Attributes:
        kind: See :class:`ContextField`.
        applicants: (n_applicants,). A category: int32 places in ``words``, -1 where unknown. A flag: int8, 1 or 0, -1
            where unknown. A number: float64, NaN where unknown. A set: lists of places in ``words``, empty where
            unknown.
        jobs: (n_jobs,), likewise.
        words: The words that categories and sets refer to.
        shown: Whether the field is shown. A shown field appears in four places: among the pair features of ``"all"``;
            in rendered texts and pictures; in the documents that a language model reads; and in the market's
            fingerprint. A field that is not shown can still be named as a pair feature, except the dates of jobs
            (:data:`~jobrec_gym.market.dates.DATE_FIELDS`).
    """

    kind: ContextKind
    applicants: NDArray[Any] | SkillLists
    jobs: NDArray[Any] | SkillLists
    words: tuple[str, ...] = ()
    shown: bool = True

    @classmethod
    def of(
        cls, kind: ContextKind, applicants: Iterable[ContextValue | None], jobs: Iterable[ContextValue | None]
    ) -> ContextTable:
        """The table of values of both sides; ``None`` is unknown.

        Words that differ only by case, by spaces around them or by repeated spaces count as one word, so ``berlin`` is
        ``Berlin``.
        """
        sides = [list(applicants), list(jobs)]
        words = _with_words((), (value for rows in sides for value in rows))
        packed = [_packed(kind, rows, words) for rows in sides]
        return cls(kind, packed[0], packed[1], words)

    def with_applicants(self, values: Iterable[ContextValue | None]) -> ContextTable:
        """The same jobs for other applicants; new words come after the known ones."""
        rows = list(values)
        words = _with_words(self.words, rows)
        return replace(self, applicants=_packed(self.kind, rows, words), words=words)

    def take(self, applicant_rows: NDArray[np.integer], job_rows: NDArray[np.integer]) -> ContextTable:
        """Some rows of both sides, in the given order."""
        taken = [
            table.take(rows) if isinstance(table, SkillLists) else table[rows]
            for table, rows in ((self.applicants, applicant_rows), (self.jobs, job_rows))
        ]
        return replace(self, applicants=taken[0], jobs=taken[1])

    def read_only(self) -> ContextTable:
        """The table over read-only views of its arrays; nothing is copied."""
        sides = [
            self.from_arrays({key: view(array) for key, array in self.arrays(side).items()}) for side in get_args(Side)
        ]
        return replace(self, applicants=sides[0], jobs=sides[1])

    def columns(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """The arrays of applicants and of jobs, for a kind other than ``"set"``."""
        return cast("NDArray[Any]", self.applicants), cast("NDArray[Any]", self.jobs)

    def lists(self) -> tuple[SkillLists, SkillLists]:
        """The lists of applicants and of jobs, for the kind ``"set"``."""
        return cast("SkillLists", self.applicants), cast("SkillLists", self.jobs)

    def value(self, side: Side, row: int) -> ContextValue | None:
        """The value of a row; ``None`` if it is unknown."""
        table = getattr(self, side)
        if isinstance(table, SkillLists):
            return tuple(self.words[place] for place in table[row].tolist()) or None
        value = table[row].item()
        if self.kind == "category":
            return None if value == UNKNOWN else self.words[value]
        if self.kind == "flag":
            return None if value == UNKNOWN else bool(value)
        return None if np.isnan(value) else value

    def arrays(self, side: Side) -> dict[str, NDArray[Any]]:
        """The arrays of one side, from which :meth:`from_arrays` makes its entries again."""
        table = getattr(self, side)
        return {"offsets": table.offsets, "ids": table.ids} if isinstance(table, SkillLists) else {"values": table}

    @staticmethod
    def array_names(kind: ContextKind) -> tuple[str, ...]:
        """Names of the arrays of :meth:`arrays`."""
        return ("offsets", "ids") if kind == "set" else ("values",)

    @staticmethod
    def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> NDArray[Any] | SkillLists:
        """The entries of one side, from the arrays of :meth:`arrays`."""
        return arrays["values"] if "values" in arrays else SkillLists(arrays["offsets"], arrays["ids"])


def check_context_name(name: Any) -> None:
    """Refuses a name that is not a text, or that something else already has.

    Raises:
        MarketError: For such a name.
    """
    if not isinstance(name, str) or not name.strip():
        raise MarketError(f"`context` must name its fields by texts, e.g. 'place', got {name!r}.")
    if name in RESERVED_NAMES:
        raise MarketError(f"`context` must not name a field {name!r}, which is something else already: rename it.")


def context_fields(context: Context | None) -> dict[str, ContextField]:
    """The argument ``context`` of a loader, as fields by name.

    Raises:
        MarketError: For a name that is taken, an unknown kind, or a value that is not such a mapping.
    """
    if context is None:
        return {}
    if not isinstance(context, Mapping):
        raise MarketError(f"`context` must map names to kinds, such as {{'place': 'category'}}, got {context!r:.80}.")
    kinds = get_args(ContextKind)
    found = {}
    for name, told in context.items():
        check_context_name(name)
        parts = (told,) if isinstance(told, str) else tuple(told) if isinstance(told, Sequence) else ()
        if len(parts) == 2 and parts[0] in kinds:
            raise MarketError(
                f"`context[{name!r}]` is {told!r}. Two texts are read as the columns of applicants and of jobs. If the "
                f"first one is meant as the kind, write {(parts[0], parts[1], parts[1])!r}: the kind, and both columns."
            )
        kind, *columns = ("category", *parts) if len(parts) == 2 else parts or (None,)
        if kind not in kinds or len(columns) not in (0, 2) or not all(_is_column(column) for column in columns):
            near = best_match(str(kind), kinds)
            hint = f" Did you mean {near!r}?" if near and kind not in kinds else ""
            raise MarketError(
                f"`context[{name!r}]` must be one of {kinds}; or two columns, of applicants and of jobs; or kind and "
                f"columns, such as ('number', 'wanted_salary', 'salary'); got {told!r}.{hint}"
            )
        found[name] = ContextField(cast("ContextKind", kind), *columns)
    return found


def _is_column(column: Any) -> bool:
    return column is None or (isinstance(column, str) and bool(column))


def _with_words(words: Sequence[str], values: Iterable[ContextValue | None]) -> tuple[str, ...]:
    """The words, followed by new words of the values.

    If a new word has several spellings, the one that sorts first stays.
    """
    known = {folded(word): word for word in words}
    new: dict[str, str] = {}
    for value in values:
        for word in (value,) if isinstance(value, str) else value if isinstance(value, tuple) else ():
            key, spelling = folded(word), _cleaned(word)
            if key not in known:
                new[key] = min(spelling, new.get(key, spelling))
    return (*words, *sorted(new.values()))


@lru_cache(maxsize=1 << 16)
def folded(word: str) -> str:
    """A word without regard to case and blanks: ``SQL`` and ``sql`` become equal."""
    return _cleaned(word).casefold()


def _cleaned(word: str) -> str:
    return " ".join(unicodedata.normalize("NFC", word).split())


def _packed(
    kind: ContextKind, values: Sequence[ContextValue | None], words: Sequence[str]
) -> NDArray[Any] | SkillLists:
    if kind == "flag":
        return np.asarray([UNKNOWN if value is None else int(value) for value in values], dtype=np.int8)  # type: ignore[arg-type]
    if kind in ("category", "set"):
        places = {folded(word): place for place, word in enumerate(words)}
        if kind == "set":
            return SkillLists.from_rows([places[folded(word)] for word in value or ()] for value in values)  # type: ignore[union-attr]
        return np.asarray(
            [UNKNOWN if value is None else places[folded(value)] for value in values],
            dtype=np.int32,
        )
    return np.asarray([np.nan if value is None else value for value in values], dtype=np.float64)
