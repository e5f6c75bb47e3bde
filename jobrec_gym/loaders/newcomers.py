"""New people for a loaded market: they are encoded like its applicants, and its jobs stay as they are."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobrec_gym.encoders import DEFAULT_ENCODER, Encoder, make_encoder
from jobrec_gym.loaders.assembly import Record, assemble_market, check_records
from jobrec_gym.loaders.cells import CellRules, Unit, normal_form
from jobrec_gym.loaders.reading import Reading, Table, read_table
from jobrec_gym.loaders.tables import (
    FIELDS,
    NoSuchField,
    by_role,
    check_on_empty,
    check_same_units,
    records_of,
    with_skills,
)
from jobrec_gym.market import (
    BLOCKS,
    ContextField,
    ContextTable,
    LabourMarket,
    MarketError,
    Population,
    SkillLists,
    Vocabulary,
)
from jobrec_gym.market.context import Context, context_fields
from jobrec_gym.market.dates import compared_fields
from jobrec_gym.market.remembered import REMEMBERED

__all__ = ["Newcomers", "newcomers_of"]

logger = logging.getLogger(__name__)

_LIKE = 0.995
"""A job's vector, made anew from its skills, counts as the market's own vector if their cosine is above this. With
float16 or another processor the cosine stays above it; with another encoder it falls below."""

_WORDS = ("titles", "experiences", "hard_skills", "soft_skills", "families")
_READING = (*REMEMBERED, "cache_dir")


@dataclass(frozen=True, slots=True, eq=False)
class Newcomers:
    """People who have been read and checked, but not yet encoded; made by :func:`newcomers_of`.

    Attributes:
        market: The market of the jobs that can be recommended to them.
        name: Name of the file or table that they come from.
        records: One record for each person.
        encoder: The encoder of the market's jobs.
    """

    market: LabourMarket
    name: str
    records: Sequence[Record]
    encoder: Encoder

    def __len__(self) -> int:
        return len(self.records)

    def on_market(self, rows: slice = slice(None)) -> LabourMarket:
        """The market with some of these people as its applicants; choose ``rows`` by how many fit into memory.

        Raises:
            MarketError: For somebody without skills, or an encoder other than that of the jobs.
        """
        probe = _probe(self.market)
        # A job of the market is encoded too: its new vector must agree with that in the market.
        new = assemble_market(self.name, self.records[rows], [probe], encoder=self.encoder, test_fraction=0.0)
        _check_encoder(self.market, new, probe)
        context = {
            name: table.with_applicants(record.context.get(name) for record in self.records[rows])
            for name, table in self.market.context.items()
        }
        return _joined(self.market, new, context)


def newcomers_of(
    market: LabourMarket, rows: Iterable[Mapping[str, Any]] | Table | str | os.PathLike[str], **options: Any
) -> Newcomers:
    """Reads new people.

    Args:
        market: The market of the jobs.
        rows: Mappings, a table, or a file that is read by its ending.
        **options: Arguments of :meth:`~jobrec_gym.market.LabourMarket.with_applicants`; ``None`` takes the value with
            which the market was loaded.

    Raises:
        MarketError: If there are no rows, if a row is wrong, or if a key appears twice.
    """
    reading = {**_as_loaded(market), **{name: value for name, value in options.items() if value is not None}}
    encoder = _encoder(reading["encoder"], reading["cache_dir"])
    on_empty = reading.get("on_empty", "raise")
    check_on_empty(on_empty)
    role_column = reading.get("role_column")
    if not isinstance(role_column, str):  # a saved market is a file, so this may be anything
        role_column = None
    table = _people_of(
        _table(rows, Reading(reading.get("delimiter"), reading.get("encoding"))),
        role_column,
        reading.get("role_values"),
    )
    if not table.rows:
        raise MarketError(f"{table.file}: there is nobody; give at least one row.")
    how = {name: reading[name] for name in ("skill_separator", "null_values", "seniority_values", "decimal")}
    rules = CellRules(**how, is_taken_over=options.get("skill_separator") is None)
    # Nothing was learned from new people, so they have no split, even if the market's own applicants have one.
    fields = [field for field in FIELDS if field != "split"]
    context = _context_fields(market, reading["context"], options.get("context") is not None, table.header)
    units: dict[str, Unit] = {}
    try:
        records = records_of(
            *(table, "applicants", reading["columns"], reading["text_columns"], rules),
            role_column=role_column,
            fields=fields,
            context=context,
            units=units,
        )
    except NoSuchField as error:
        if reading["columns"] and options.get("columns") is None:
            raise MarketError(
                f"{error} New people are read like the market's own, with `columns={reading['columns']!r:.400}`: say "
                "`columns=` if their columns have other names, `columns={}` if these have the names of the fields."
            ) from error
        raise
    if isinstance(rows, str | os.PathLike):
        _tell_what_is_unknown(market, table.file, context, reading["context"])
    compared = [name for name in units if not np.isnan(market.context[name].columns()[1]).all()]
    check_same_units(table.file, units, f"market {market.name!r}", _units_of_jobs(compared, reading.get("units")))
    records = with_skills(table.file, "applicants", records, on_empty, [])
    check_records(table.file, "applicants", records)
    return Newcomers(market, table.file, records, encoder)


def _units_of_jobs(names: Iterable[str], known: Any) -> dict[str, Unit]:
    """For each of these fields the unit of the jobs' numbers; an empty unit if the market does not remember one."""
    of_jobs = {name: Unit() for name in names}
    for name, unit in known.items() if isinstance(known, Mapping) else ():
        # A saved market is a file, so this may be anything.
        if isinstance(unit, list | tuple) and len(unit) == 3 and all(isinstance(part, str) for part in unit):
            of_jobs[name] = Unit(*unit)
    return of_jobs


def _tell_what_is_unknown(
    market: LabourMarket, file: str, context: Mapping[str, ContextField], told: Context | Sequence[str] | None
) -> None:
    """Logs which fields of the market's context a file of people does not have, because nothing else would show it."""
    missing = [name for name, table in market.context.items() if table.shown and name not in context]
    if missing:
        kind = market.context[missing[0]].kind
        given = context_fields(told) if isinstance(told, Mapping) else {}
        columns = [given[name].applicants or name if name in given else name for name in missing]
        logger.warning(
            "%s has no column %s, so the values of %s are unknown for all these people. If columns of other names "
            "hold them, say `context={%r: (%r, 'their column', %r)}`.",
            *(file, " and no column ".join(map(repr, columns)), " and ".join(map(repr, missing))),
            *(missing[0], kind, missing[0]),
        )


def _as_loaded(market: LabourMarket) -> dict[str, Any]:
    """The arguments with which the market's own applicants were read, as far as they are known; else defaults."""
    spec = market.origin
    known = {key: value for key, value in spec.items() if key in _READING} if isinstance(spec, Mapping) else {}
    return {
        "columns": None,
        "text_columns": [block for block in sorted(market.text_blocks) if _may_be_texts(market.applicants, block)],
        "skill_separator": None,
        "null_values": None,
        "seniority_values": None,
        "decimal": None,
        "context": None,
        "encoder": DEFAULT_ENCODER,
        "cache_dir": None,
        **known,
    }


def _may_be_texts(applicants: Population, block: str) -> bool:
    """Whether a block of the applicants may hold free texts: each counts as one skill, so nobody has two."""
    skills: SkillLists = getattr(applicants, f"{block}_skills")
    return int(np.diff(skills.offsets).max()) <= 1


def _context_fields(
    market: LabourMarket, context: Context | Sequence[str] | None, is_asked: bool, header: Sequence[str]
) -> dict[str, ContextField]:
    """The context fields to read, with the market's kinds: the requested ones and those with a column in the header."""
    # The argument of a generated market says which fields it shows, not in which columns they stand.
    told = context_fields(context if isinstance(context, Mapping) or is_asked else None)  # type: ignore[arg-type]
    known = compared_fields(market)
    if strange := [name for name in told if name not in known]:
        raise MarketError(
            f"`context` must name fields that the jobs of market {market.name!r} have, {tuple(known)}, got {strange}."
        )
    columns = {name: told[name].applicants if name in told else None for name in known}
    return {
        name: ContextField(table.kind, columns[name])
        for name, table in known.items()
        if (is_asked and name in told) or (columns[name] or name) in header
    }


def _encoder(encoder: str | os.PathLike[str] | Encoder, cache_dir: str | bool | None) -> Encoder:
    if isinstance(encoder, str | os.PathLike):
        return _kept_encoder(os.fspath(encoder), cache_dir)
    return make_encoder(encoder, cache_dir)


@lru_cache(maxsize=2)
def _kept_encoder(encoder: str, cache_dir: str | bool | None) -> Encoder:
    """The encoder with this name. It is kept, so that a model is loaded once and not for each newcomer."""
    return make_encoder(encoder, cache_dir)


def _table(rows: Iterable[Mapping[str, Any]] | Table | str | os.PathLike[str], file: Reading) -> Table:
    if isinstance(rows, Table):
        return rows
    if isinstance(rows, str | os.PathLike):
        return read_table(rows, file, side="applicants")
    if isinstance(rows, Mapping):
        raise MarketError("`rows` must be a sequence of mappings, got one mapping: wrap it in a list.")
    if hasattr(rows, "iterrows"):
        raise MarketError("`rows` must be a sequence of mappings, got a DataFrame: give `frame.to_dict('records')`.")
    listed = list(rows)
    header: dict[str, None] = {}
    for number, row in enumerate(listed, start=1):
        if not isinstance(row, Mapping):
            raise MarketError(
                f"`rows`, row {number}: must be a mapping such as {{'key': 'p1', 'hard': ['SQL']}}, got {row!r:.80}."
            )
        if strange := [name for name in row if not isinstance(name, str)]:
            raise MarketError(
                f"`rows`, row {number}: must name its entries by texts, such as 'hard', got {strange[0]!r:.80}."
            )
        header.update(dict.fromkeys(row))
    plain = [(number, {key: _plain(cell) for key, cell in row.items()}) for number, row in enumerate(listed, start=1)]
    return Table("`rows`", list(header), plain)


def _people_of(table: Table, role_column: str | None, role_values: Any) -> Table:
    """The rows of people. All rows are, unless the table has the column that said so in the market's own file."""
    if role_column is None or normal_form(role_column) not in table.header:
        return table
    try:
        return by_role(table, role_column, role_values, needed=("applicants",))["applicants"]
    except MarketError as error:
        raise MarketError(
            f"{error} The market was loaded with `role_column={role_column!r}`, so this column says which rows are "
            "people. If all rows are people, leave the column out or give it another name."
        ) from error


def _plain(cell: Any) -> Any:
    """A cell as in a file: a tuple, a set or an array becomes a list, a number of numpy one of Python."""
    if isinstance(cell, np.ndarray | np.number | np.bool_):
        cell = cell.tolist()
    return [_plain(entry) for entry in cell] if isinstance(cell, list | tuple | set | frozenset) else cell


def _probe(market: LabourMarket) -> Record:
    """A job whose vector shows which encoder made it.

    Among the first 64 jobs it is the one whose smaller block, hard or soft, has the most skills.
    """
    rows = np.arange(min(len(market.jobs), 64))
    lengths = [getattr(market.jobs, f"{block}_skills").lengths(rows) for block in BLOCKS]
    job = market.job(int(np.argmax(np.minimum(*lengths) * 1000 + sum(lengths))))
    # A free text is one skill, so a list of one skill has its vector.
    return Record(key=str(job.id), hard=job.hard_skills, soft=job.soft_skills, where=f"job {job.key!r}")


def _check_encoder(market: LabourMarket, new: LabourMarket, probe: Record) -> None:
    """Checks that the encoder is that of the market: it must make a job's vector from the job's skills."""
    there, made = market.jobs.vectors[int(probe.key)], new.jobs.vectors[0]
    likeness = float(there.astype(np.float64) @ made.astype(np.float64)) if there.shape == made.shape else float("nan")
    if not likeness > _LIKE:
        cosine = "" if np.isnan(likeness) else f", and the cosine of both is {likeness:.3f}, not 1"
        raise MarketError(
            f"`encoder` is not the one that market {market.name!r} was made with. From the skills of {probe.where} it "
            f"makes a vector of {made.size} numbers. The market has one of {there.size} numbers for them{cosine}. Give "
            "the encoder of the jobs, `encoder=...`."
        )


def _joined(market: LabourMarket, new: LabourMarket, context: Mapping[str, ContextTable]) -> LabourMarket:
    """The market with the applicants of ``new`` and their context; new words come after the words of the market."""
    old_words, new_words = market.vocabulary, new.vocabulary
    words: dict[str, tuple[str, ...]] = {}
    places: dict[str, NDArray[np.int32]] = {}
    for kind in (*_WORDS, "occupations"):
        words[kind], places[kind] = _merged(getattr(old_words, kind), getattr(new_words, kind))
    families = np.append(places["families"], -1)
    n_old = len(old_words.occupations)
    of_new = {
        int(place): int(families[family])
        for place, family in zip(places["occupations"], new_words.occupation_families, strict=True)
    }
    occupation_families = (
        *old_words.occupation_families,
        *(of_new[n] for n in range(n_old, len(words["occupations"]))),
    )
    people = new.applicants
    occupations = np.append(places["occupations"], -1).astype(np.int32)
    population = Population(
        keys=people.keys,
        vectors=people.vectors,
        title_ids=places["titles"][people.title_ids],
        experience_ids=places["experiences"][people.experience_ids],
        occupation_ids=occupations[people.occupation_ids],
        seniority=people.seniority,
        hard_skills=_moved(people.hard_skills, places["hard_skills"]),
        soft_skills=_moved(people.soft_skills, places["soft_skills"]),
        held_out=np.zeros(len(people), dtype=bool),
        descriptions=people.descriptions,
    )
    return market.replaced_applicants(
        population,
        Vocabulary(**words, occupation_families=occupation_families),
        title_vectors=_lengthened(market.title_vectors, new.title_vectors, places["titles"], len(words["titles"])),
        experience_vectors=_lengthened(
            market.experience_vectors, new.experience_vectors, places["experiences"], len(words["experiences"])
        ),
        text_blocks=market.text_blocks | new.text_blocks,
        context=context,
        # The new market keeps the arguments by which the first applicants were read, not those of this call: a later
        # call of `with_applicants` takes its defaults from the kept arguments.
        origin=_as_loaded(market),
    )


def _merged(old: tuple[str, ...], new: tuple[str, ...]) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """All words, the old ones first, and the places of the ``new`` words among them."""
    known = {word: place for place, word in enumerate(old)}
    places = np.array([known.setdefault(word, len(known)) for word in new], dtype=np.int32)
    return tuple(known) if len(known) > len(old) else old, places


def _moved(skills: SkillLists, places: NDArray[np.int32]) -> SkillLists:
    """The same lists with other ids, sorted again within each list."""
    return SkillLists.from_rows(places[skills[row]].tolist() for row in range(len(skills)))


def _lengthened(
    old: NDArray[np.floating] | None, new: NDArray[np.floating] | None, places: NDArray[np.int32], n_words: int
) -> NDArray[np.floating] | None:
    """The market's table of one kind of words, with rows for new words; a row is zero if its word is not encoded."""
    if old is None or n_words == len(old):
        return old
    table = np.zeros((n_words, old.shape[1]), dtype=old.dtype)
    table[: len(old)] = old
    if new is not None:
        is_new = places >= len(old)
        table[places[is_new]] = new[is_new]
    return table
