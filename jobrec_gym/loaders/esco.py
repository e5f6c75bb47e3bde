"""ESCO, the European classification: occupations as jobs, people with careers sampled from them."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal, get_args

from jobrec_gym.counter_rng import text_key
from jobrec_gym.encoders import DEFAULT_ENCODER, Encoder
from jobrec_gym.loaders.assembly import SplitBy, assemble_market, whole_number
from jobrec_gym.loaders.careers import Occupation, applicants_of, jobs_of
from jobrec_gym.loaders.release import Release, of_a_release
from jobrec_gym.market import LabourMarket, MarketError
from jobrec_gym.near_miss import did_you_mean, with_known_keywords

__all__ = ["load_esco", "read_esco"]

logger = logging.getLogger(__name__)

Relation = Literal["essential", "optional"]

_MAX_TITLES = 10
_MAX_RELATED = 10

# ISCO-08 major groups (International Labour Organization, 2012), and how much preparation each needs: the group's ISCO
# skill level, with managers on top.
_MAJOR_GROUPS = {
    "0": ("Armed forces occupations", 3),
    "1": ("Managers", 5),
    "2": ("Professionals", 4),
    "3": ("Technicians and associate professionals", 3),
    "4": ("Clerical support workers", 2),
    "5": ("Service and sales workers", 2),
    "6": ("Skilled agricultural, forestry and fishery workers", 2),
    "7": ("Craft and related trades workers", 2),
    "8": ("Plant and machine operators, and assemblers", 2),
    "9": ("Elementary occupations", 1),
}


@of_a_release
@with_known_keywords
def load_esco(
    path: str | os.PathLike[str],
    *,
    relations: Relation | Sequence[Relation] = ("essential",),
    soft_skills: str | Sequence[str] = (),
    language: str = "en",
    n_applicants: int = 1_000,
    max_occupations: int | None = None,
    encoder: str | os.PathLike[str] | Encoder = DEFAULT_ENCODER,
    cache_dir: str | bool | None = None,
    test_fraction: float = 0.3,
    split_by: SplitBy = "row",
    seed: int = 0,
) -> LabourMarket:
    """A market over ESCO: each occupation is a job, applicants are sampled from the occupations.

    Nobody among the applicants is real.
    This service uses the ESCO classification of the European Commission (https://esco.ec.europa.eu, Commission Decision
    2011/833/EU). The rules by which this function reads it are in :func:`read_esco`.

    ESCO hardly ever ties a transversal skill to an occupation: in version 1.1.1, only 6 of 3,007 occupations have one.
    So nearly every vector has an empty soft block unless ``soft_skills`` names more. Two rows whose soft blocks are
    both empty are compared by their hard blocks alone, so that their cosine can be as high as 1.

    Args:
        path: The zip archive of the official CSV files, or its unpacked folder.
        relations: Which relations count: ``"essential"``, ``"optional"``, or both in a list.
        soft_skills: Preferred labels of skills that count as soft besides the transversal ones, e.g. ``["manage
            staff"]``, or one such label.
        language: Language of the files, as in ``occupations_en.csv``; ESCO is published in 28 languages.
        n_applicants: How many people to sample.
        max_occupations: Take this many occupations, chosen by a hash of their URIs; ``None`` takes all.
        encoder: As in :func:`~jobrec_gym.encoders.make_encoder`; the whole of ESCO is about 15,000 short texts.
        cache_dir: Folder that keeps vectors between runs; ``False`` keeps none.
        test_fraction: Share of the rows of each side that is held out.
        split_by: Hold out rows, or whole occupations.
        seed: Seed of the people, and of the choice of held-out rows.

    Raises:
        MarketError: For a missing file or column, or an unknown skill or ISCO group; the message names file, row and
            column.
    """
    occupations, left_out = _read(path, relations, soft_skills, language, max_occupations)
    return assemble_market(
        f"esco:{Path(path).name}",
        applicants_of(occupations, n_applicants, seed),
        jobs_of(occupations),
        encoder=encoder,
        cache_dir=cache_dir,
        test_fraction=test_fraction,
        split_by=split_by,
        seed=seed,
        left_out=left_out,
    )


def read_esco(
    path: str | os.PathLike[str],
    *,
    relations: Relation | Sequence[Relation] = ("essential",),
    soft_skills: str | Sequence[str] = (),
    language: str = "en",
    max_occupations: int | None = None,
) -> list[Occupation]:
    """Reads the occupations that have any skill.

    * Soft: the skills of the transversal collection, those of reuse level "transversal", and those named by
      ``soft_skills``. Hard: all others.
    * Family: the ISCO major group. Seniority: the group's ISCO skill level (1 elementary, 2 clerks to operators, 3
      technicians, 4 professionals, 5 managers), because ESCO has no levels. Titles: the first ten
      alternative labels. Related: the first ten other occupations of the same ISCO unit group.

    Raises:
        MarketError: As :func:`load_esco`.
    """
    return _read(path, relations, soft_skills, language, max_occupations)[0]


@of_a_release
def _read(
    path: str | os.PathLike[str],
    relations: Relation | Sequence[Relation],
    soft_skills: str | Sequence[str],
    language: str,
    max_occupations: int | None,
) -> tuple[list[Occupation], list[str]]:
    """The occupations, and a phrase that counts those that are left out."""
    # A single text is one relation or skill, not a sequence of letters.
    relations = (relations,) if isinstance(relations, str) else relations
    soft_skills = (soft_skills,) if isinstance(soft_skills, str) else soft_skills
    if not isinstance(relations, Collection) or not relations or any(r not in get_args(Relation) for r in relations):
        raise MarketError(f"`relations` must be some of {get_args(Relation)}, got {relations!r}.")
    if not isinstance(soft_skills, Collection) or not all(isinstance(label, str) for label in soft_skills):
        raise MarketError(f"`soft_skills` must list preferred labels, got {soft_skills!r}.")
    if max_occupations is not None and whole_number("max_occupations", max_occupations) < 1:
        raise MarketError(f"`max_occupations` must be at least 1 or None, got {max_occupations}.")
    release = Release(path)
    skills_file, occupations_file = f"skills_{language}.csv", f"occupations_{language}.csv"
    _check_language(release, language)
    labels, soft = {}, set()
    for row in release.rows(skills_file, ("conceptUri", "preferredLabel", "reuseLevel")):
        labels[row["conceptUri"]] = row["preferredLabel"].strip()
        if row["reuseLevel"] == "transversal":
            soft.add(row["conceptUri"])
    soft.update(
        row["conceptUri"] for row in release.rows(f"transversalSkillsCollection_{language}.csv", ("conceptUri",))
    )
    uris = {label: uri for uri, label in labels.items()}
    for label in soft_skills:
        if label not in uris:
            raise MarketError(
                f"`soft_skills` names {label!r}, which is no preferred label of {skills_file}."
                f"{did_you_mean(label, uris)}"
            )
        soft.add(uris[label])

    hard_of: dict[str, dict[str, None]] = defaultdict(dict)
    soft_of: dict[str, dict[str, None]] = defaultdict(dict)
    relations_file = f"occupationSkillRelations_{language}.csv"
    for number, row in enumerate(release.rows(relations_file, ("occupationUri", "relationType", "skillUri")), start=1):
        if row["relationType"] not in relations:
            continue
        uri = row["skillUri"]
        if uri not in labels:
            raise MarketError(
                f"{relations_file}, row {number}, column 'skillUri': {uri!r:.80} is not in {skills_file}."
            )
        (soft_of if uri in soft else hard_of)[row["occupationUri"]][labels[uri]] = None

    rows = release.rows(occupations_file, ("conceptUri", "iscoGroup", "preferredLabel", "altLabels"))
    groups: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        groups[row["iscoGroup"]].append(row["conceptUri"])
    occupations = []
    for number, row in enumerate(rows, start=1):
        uri, group = row["conceptUri"], row["iscoGroup"].removeprefix("C")
        if not hard_of[uri] and not soft_of[uri]:
            continue
        if group[:1] not in _MAJOR_GROUPS:
            raise MarketError(
                f"{occupations_file}, row {number}, column 'iscoGroup': {row['iscoGroup']!r:.80} is no ISCO-08 group."
            )
        family, seniority = _MAJOR_GROUPS[group[:1]]
        titles = [title.strip() for title in row["altLabels"].splitlines() if title.strip()]
        occupations.append(
            Occupation(
                key=uri,
                name=row["preferredLabel"].strip(),
                hard=tuple(hard_of[uri]),
                soft=tuple(soft_of[uri]),
                titles=tuple(titles[:_MAX_TITLES]),
                seniority=seniority,
                family=family,
                related=tuple(other for other in groups[row["iscoGroup"]] if other != uri)[:_MAX_RELATED],
                where=f"{occupations_file}, row {number}",
            )
        )
    if not occupations:
        raise MarketError(f"{release.path}: no occupation has a skill by the relations {tuple(relations)}.")
    logger.info(
        "%s: %d occupations, %d of them with soft skills; %d without any skill are left out.",
        *(release.path, len(occupations), sum(bool(row.soft) for row in occupations), len(rows) - len(occupations)),
    )
    n_bare = len(rows) - len(occupations)
    left_out = [f"{n_bare} of {len(rows)} occupations, without any skill"] if n_bare else []
    if max_occupations is None:
        return occupations, left_out
    chosen = {row.key for row in sorted(occupations, key=lambda row: (text_key(row.key), row.key))[:max_occupations]}
    return [row for row in occupations if row.key in chosen], left_out


def _check_language(release: Release, language: str) -> None:
    """Raises an error that names the release's languages if the requested one is not among them."""
    if f"skills_{language}.csv" in release:
        return
    there = [name[len("skills_") : -len(".csv")] for name in release.named(r"skills_[a-z]{2,3}(-[a-z]+)?\.csv")]
    if there:
        choice = " or ".join(f'`language="{code}"`' for code in there)
        file = f"skills_{language}.csv"
        raise MarketError(
            f"{release.path} lacks the file {file!r}{release.near(file)}; the files that are there are read by "
            f"{choice}."
        )
