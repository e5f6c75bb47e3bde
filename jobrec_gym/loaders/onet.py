"""The O*NET database, text release: occupations as jobs, people with careers sampled from them."""

from __future__ import annotations

import logging
import math
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jobrec_gym.counter_rng import text_key
from jobrec_gym.encoders import DEFAULT_ENCODER, Encoder
from jobrec_gym.loaders.assembly import SplitBy, assemble_market, whole_number
from jobrec_gym.loaders.careers import Occupation, applicants_of, jobs_of
from jobrec_gym.loaders.release import Release, of_a_release
from jobrec_gym.market import LabourMarket, MarketError
from jobrec_gym.near_miss import with_known_keywords

__all__ = ["load_onet", "read_onet"]

logger = logging.getLogger(__name__)

_SOC = "O*NET-SOC Code"

# Elements of Skills.txt (https://www.onetcenter.org/content.html): technical, systems and resource management skills
# are hard; basic, complex problem solving and social skills are soft. Exceptions to their group: judgment, time and
# personnel management are soft, mathematics and science are hard.
_SOFT_IN_HARD_GROUPS = {"2.B.4.e", "2.B.5.a", "2.B.5.d"}
_HARD_GROUPS = ("2.B.3.", "2.B.4.", "2.B.5.", "2.A.1.e", "2.A.1.f")
_SKILL_IMPORTANCE, _STYLE_IMPORTANCE = 3.0, 3.5

# Files that O*NET 30.3 renamed (https://www.onetcenter.org/database.html, migration reference); older names come first.
_SKILL_FILES = (("Skills.txt",), ("Essential Skills.txt", "Transferable Skills.txt"))
_TECHNOLOGY_FILES = (("Technology Skills.txt",), ("Software Skills.txt",))
_TECHNOLOGY_COLUMNS = {"Example": "Workplace Example", "Commodity Title": "Element Name"}

_MAX_PRODUCTS = 20
_MAX_TECHNOLOGY = 30
_MAX_SOFT_OF_A_KIND = 6
_MAX_RELATED = 10

# Major groups of the 2018 Standard Occupational Classification (U.S. Bureau of Labor Statistics).
_MAJOR_GROUPS = {
    "11": "Management",
    "13": "Business and Financial Operations",
    "15": "Computer and Mathematical",
    "17": "Architecture and Engineering",
    "19": "Life, Physical, and Social Science",
    "21": "Community and Social Service",
    "23": "Legal",
    "25": "Educational Instruction and Library",
    "27": "Arts, Design, Entertainment, Sports, and Media",
    "29": "Healthcare Practitioners and Technical",
    "31": "Healthcare Support",
    "33": "Protective Service",
    "35": "Food Preparation and Serving Related",
    "37": "Building and Grounds Cleaning and Maintenance",
    "39": "Personal Care and Service",
    "41": "Sales and Related",
    "43": "Office and Administrative Support",
    "45": "Farming, Fishing, and Forestry",
    "47": "Construction and Extraction",
    "49": "Installation, Maintenance, and Repair",
    "51": "Production",
    "53": "Transportation and Material Moving",
    "55": "Military Specific",
}


@of_a_release
@with_known_keywords
def load_onet(
    path: str | os.PathLike[str],
    *,
    n_applicants: int = 1_000,
    max_occupations: int | None = None,
    encoder: str | os.PathLike[str] | Encoder = DEFAULT_ENCODER,
    cache_dir: str | bool | None = None,
    test_fraction: float = 0.3,
    split_by: SplitBy = "row",
    seed: int = 0,
) -> LabourMarket:
    """A market over O*NET: each occupation is a job, applicants are sampled from the occupations.

    Nobody among the applicants is real.
    Source: O*NET Database, U.S. Department of Labor, Employment and Training Administration (USDOL/ETA), CC BY 4.0,
    https://www.onetcenter.org/database.html. The rules by which this function reads it are in :func:`read_onet`.

    Args:
        path: The zip archive of the text release, or its unpacked folder.
        n_applicants: How many people to sample.
        max_occupations: Take this many occupations, chosen by a hash of their codes; ``None`` takes all.
        encoder: As in :func:`~jobrec_gym.encoders.make_encoder`.
        cache_dir: Folder that keeps vectors between runs; ``False`` keeps none.
        test_fraction: Share of the rows of each side that is held out.
        split_by: Hold out rows, or whole occupations.
        seed: Seed of the people, and of the choice of held-out rows.

    Raises:
        MarketError: For a missing file or column, or ratings that are not numbers; the message names file, row and
            column.
    """
    occupations, left_out = _read(path, max_occupations)
    return assemble_market(
        f"onet:{Path(path).name}",
        applicants_of(occupations, n_applicants, seed),
        jobs_of(occupations),
        encoder=encoder,
        cache_dir=cache_dir,
        test_fraction=test_fraction,
        split_by=split_by,
        seed=seed,
        left_out=left_out,
    )


def read_onet(path: str | os.PathLike[str], *, max_occupations: int | None = None) -> list[Occupation]:
    """Reads the occupations that have both hard and soft skills.

    * Hard, of importance 3 or more: knowledge, technical, systems and resource management skills, mathematics and
      science.
    * Hard, at most 30 technologies: first the products marked "In Demand" or "Hot Technology" (in demand first, at most
      20), then the kinds of software (commodity titles) of the other products, those with the most products first.
      Kinds are used because occupations list up to hundreds of products, most of which appear in one occupation only.
    * Soft, of importance 3.5 or more: work styles.
    * Soft, of importance 3 or more: basic skills, problem solving, social skills, judgment, time management and
      personnel management. Most occupations need nearly all of these skills and work styles. So at most six work styles
      and six skills are taken: those whose importance in the occupation is furthest above their mean importance over
      all occupations. If a release does not rate the importance of work styles, only skills are taken.
    * Seniority: the job zone (1 to 5, how much preparation is needed). Family: the SOC major group. Titles: the
      reported titles. Related: the ten occupations of the lowest ``Index`` in ``Related Occupations.txt``, or fewer.
    * Ratings that O*NET recommends to suppress (too few answers) are left out.
    * Releases before 30.3 and from 30.3 on are read alike: ``Skills.txt`` has become ``Essential Skills.txt`` and
      ``Transferable Skills.txt``, ``Technology Skills.txt`` has become ``Software Skills.txt``.

    Raises:
        MarketError: As :func:`load_onet`.
    """
    return _read(path, max_occupations)[0]


@of_a_release
def _read(path: str | os.PathLike[str], max_occupations: int | None) -> tuple[list[Occupation], list[str]]:
    """The occupations, and a phrase that counts those that are left out."""
    if max_occupations is not None and whole_number("max_occupations", max_occupations) < 1:
        raise MarketError(f"`max_occupations` must be at least 1 or None, got {max_occupations}.")
    release = Release(path)
    hard: dict[str, list[str]] = defaultdict(list)
    soft: dict[str, list[str]] = defaultdict(list)
    for code, ratings in _important(release, ("Knowledge.txt",), _SKILL_IMPORTANCE).items():
        hard[code] += [rating.name for rating in ratings]
    for code, ratings in _important(release, _files(release, _SKILL_FILES), _SKILL_IMPORTANCE).items():
        hard[code] += [rating.name for rating in ratings if rating.is_hard]
        soft[code] += [rating.name for rating in ratings if not rating.is_hard][:_MAX_SOFT_OF_A_KIND]
    for code, ratings in _important(release, ("Work Styles.txt",), _STYLE_IMPORTANCE).items():
        soft[code] += [rating.name for rating in ratings][:_MAX_SOFT_OF_A_KIND]
    for code, names in _technologies(release).items():
        hard[code] += names

    titles: dict[str, list[str]] = defaultdict(list)
    for row in _rows(release, "Sample of Reported Titles.txt", (_SOC, "Reported Job Title")):
        titles[row[_SOC]].append(row["Reported Job Title"].strip())
    related: dict[str, list[tuple[float, str]]] = defaultdict(list)
    columns = (_SOC, "Related O*NET-SOC Code", "Index")
    for number, row in enumerate(_rows(release, "Related Occupations.txt", columns), start=1):
        index = _number(row["Index"], "Related Occupations.txt", number, "Index")
        related[row[_SOC]].append((index, row["Related O*NET-SOC Code"]))
    zones = {}
    for number, row in enumerate(_rows(release, "Job Zones.txt", (_SOC, "Job Zone")), start=1):
        zone = _number(row["Job Zone"], "Job Zones.txt", number, "Job Zone")
        if zone not in (1, 2, 3, 4, 5):
            raise MarketError(
                f"Job Zones.txt, row {number}, column 'Job Zone': must be 1 to 5, got {row['Job Zone']!r:.80}."
            )
        zones[row[_SOC]] = int(zone)

    occupations = []
    everything = _rows(release, "Occupation Data.txt", (_SOC, "Title"))
    for number, row in enumerate(everything, start=1):
        code = row[_SOC]
        if not hard[code] or not soft[code]:
            continue
        if code[:2] not in _MAJOR_GROUPS:
            raise MarketError(
                f"Occupation Data.txt, row {number}, column {_SOC!r}: {code!r:.80} is of no SOC major group."
            )
        occupations.append(
            Occupation(
                key=code,
                name=row["Title"].strip(),
                hard=tuple(dict.fromkeys(hard[code])),
                soft=tuple(dict.fromkeys(soft[code])),
                titles=tuple(dict.fromkeys(titles[code])),
                seniority=zones.get(code, 0),
                family=_MAJOR_GROUPS[code[:2]],
                related=tuple(other for _, other in sorted(related[code])[:_MAX_RELATED]),
                where=f"Occupation Data.txt, row {number}",
            )
        )
    if len(occupations) < len(everything):
        logger.info(
            "%s: %d of %d occupations are not rated for hard and soft skills and are left out.",
            *(release.path, len(everything) - len(occupations), len(everything)),
        )
    if not occupations:
        raise MarketError(f"{release.path}: no occupation has both hard and soft skills.")
    n_unrated = len(everything) - len(occupations)
    left_out = [f"{n_unrated} of {len(everything)} occupations, which lack hard or soft skills"] if n_unrated else []
    return _some(occupations, max_occupations), left_out


def _rows(release: Release, file: str, columns: tuple[str, ...], **names: Any) -> list[dict[str, str]]:
    return release.rows(file, columns, delimiter="\t", quoted=False, **names)


def _files(release: Release, shapes: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The files of a table that older and newer releases store under different names: those that this release has.

    Raises:
        MarketError: If the release has files under both the older and the newer names, or under neither.
    """
    there = [shape for shape in shapes if any(file in release for file in shape)]
    if len(there) > 1:
        both = " and ".join(repr(next(file for file in shape if file in release)) for shape in there)
        raise MarketError(f"{release.path} has {both}, which are of two releases. Keep the files of one.")
    if not there:
        older, newer = (" and ".join(map(repr, shape)) for shape in shapes)
        hint = release.near(shapes[0][0])
        raise MarketError(f"{release.path} lacks the file {older}{hint}; from O*NET 30.3 on it is called {newer}.")
    return there[0]


class _Rating(NamedTuple):
    name: str
    is_hard: bool
    excess: float


def _important(release: Release, files: Sequence[str], threshold: float) -> dict[str, list[_Rating]]:
    """Each occupation's elements rated at or above the threshold; those most above the element's average come first."""
    columns = (_SOC, "Element ID", "Element Name", "Scale ID", "Data Value", "Recommend Suppress")
    rated = []
    values: dict[str, list[float]] = defaultdict(list)
    for file in files:
        for number, row in enumerate(_rows(release, file, columns, optional=("Recommend Suppress",)), start=1):
            if row["Scale ID"] == "IM" and row["Recommend Suppress"] != "Y":
                value = _number(row["Data Value"], file, number, "Data Value")
                values[row["Element ID"]].append(value)
                rated.append((row[_SOC], row["Element ID"], row["Element Name"].strip(), value))
    if not rated:
        logger.info("%s: %s rates nothing by importance (scale IM) and is left out.", release.path, " and ".join(files))
    average = {element: sum(some) / len(some) for element, some in values.items()}
    chosen: dict[str, list[_Rating]] = defaultdict(list)
    for code, element, name, value in rated:
        if value >= threshold:
            is_hard = element.startswith(_HARD_GROUPS) and element not in _SOFT_IN_HARD_GROUPS
            chosen[code].append(_Rating(name, is_hard, value - average[element]))
    return {code: sorted(some, key=lambda rating: (-rating.excess, rating.name)) for code, some in chosen.items()}


def _technologies(release: Release) -> dict[str, list[str]]:
    products: dict[str, list[tuple[bool, str]]] = defaultdict(list)
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    columns = (_SOC, "Example", "Commodity Title", "Hot Technology", "In Demand")
    (file,) = _files(release, _TECHNOLOGY_FILES)
    for row in _rows(release, file, columns, also_called=_TECHNOLOGY_COLUMNS):
        if "Y" in (row["Hot Technology"], row["In Demand"]):
            products[row[_SOC]].append((row["In Demand"] != "Y", row["Example"].strip()))
        else:
            kinds[row[_SOC]][row["Commodity Title"].strip()] += 1
    chosen = {}
    for code in products.keys() | kinds.keys():
        names = [name for _, name in sorted(products[code])[:_MAX_PRODUCTS]]
        names += sorted(kinds[code], key=lambda kind: (-kinds[code][kind], kind))
        chosen[code] = names[:_MAX_TECHNOLOGY]
    return chosen


def _number(cell: str, file: str, row: int, column: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise MarketError(f"{file}, row {row}, column {column!r}: must be a number, got {cell!r:.80}.")
    return value


def _some(occupations: list[Occupation], n: int | None) -> list[Occupation]:
    if n is None:
        return occupations
    chosen = {row.key for row in sorted(occupations, key=lambda row: (text_key(row.key), row.key))[:n]}
    return [row for row in occupations if row.key in chosen]
