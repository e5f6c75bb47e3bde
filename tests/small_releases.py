"""Small files in the forms that the pages read: own tables, O*NET, ESCO, the prior art's export. Made up, all of it."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path

import numpy as np

N_OCCUPATIONS = 60
SKILLS = ["welding", "bookkeeping", "wound care", "surveying", "pruning", "typesetting", "data analysis", "baking"]
MANNERS = ["patience", "leadership", "accuracy", "empathy", "curiosity"]


def write_own_tables(folder: Path) -> None:
    """``jobs.csv`` and ``people.csv``, with a column ``skills``."""
    for name, prefix in (("jobs.csv", "j"), ("people.csv", "p")):
        rows = [[f"{prefix}{i}", f"{SKILLS[i % 8]};{SKILLS[i % 3]}"] for i in range(9)]
        with (folder / name).open("w", newline="") as stream:
            csv.writer(stream).writerows([["key", "skills"], *rows])


def write_onet(path: Path) -> None:
    """The zip of a text release."""
    codes = [f"{11 + 2 * (i % 20)}-{1000 + i}.00" for i in range(N_OCCUPATIONS)]
    rated = ["O*NET-SOC Code", "Element ID", "Element Name", "Scale ID", "Data Value", "Recommend Suppress"]

    def ratings(names: list[str], element: str) -> list[list[str]]:
        return [
            rated,
            *(
                [code, element, names[(i + shift) % len(names)], "IM", "4.5", "N"]
                for i, code in enumerate(codes)
                for shift in (0, 1)
            ),
        ]

    tables = {
        "Occupation Data.txt": [
            ["O*NET-SOC Code", "Title", "Description"],
            *([code, f"Occupation {i}", ""] for i, code in enumerate(codes)),
        ],
        "Knowledge.txt": ratings(SKILLS, "2.C.1.a"),
        "Skills.txt": ratings(["Reading Comprehension", "Speaking"], "2.A.1.a"),
        "Work Styles.txt": ratings(MANNERS, "1.C.2.b"),
        "Technology Skills.txt": [
            ["O*NET-SOC Code", "Example", "Commodity Code", "Commodity Title", "Hot Technology", "In Demand"],
            [codes[0], "Microsoft Excel", "1", "Spreadsheet software", "Y", "Y"],
        ],
        "Related Occupations.txt": [
            ["O*NET-SOC Code", "Related O*NET-SOC Code", "Relatedness Tier", "Index"],
            [codes[0], codes[1], "Primary-Short", "1"],
        ],
        "Job Zones.txt": [["O*NET-SOC Code", "Job Zone", "Date"], *([code, "3", ""] for code in codes)],
        "Sample of Reported Titles.txt": [
            ["O*NET-SOC Code", "Reported Job Title", "Shown in My Next Move"],
            [codes[0], "Chief", "Y"],
        ],
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, rows in tables.items():
            archive.writestr(f"{path.stem}/{name}", "".join("\t".join(row) + "\n" for row in rows))


def write_esco(path: Path) -> None:
    """The zip of the official CSVs."""
    numbers = range(N_OCCUPATIONS)
    tables = {
        "occupations_en.csv": [
            ["conceptType", "conceptUri", "iscoGroup", "preferredLabel", "altLabels"],
            *(["Occupation", f"o/{i}", f"{1 + i % 9}111", f"occupation {i}", ""] for i in numbers),
        ],
        "skills_en.csv": [
            ["conceptUri", "preferredLabel", "reuseLevel", "description"],
            *([f"s/{i}", name, "cross-sector", ""] for i, name in enumerate([*SKILLS, *MANNERS])),
        ],
        "transversalSkillsCollection_en.csv": [
            ["conceptUri", "preferredLabel"],
            *([f"s/{len(SKILLS) + i}", name] for i, name in enumerate(MANNERS)),
        ],
        "occupationSkillRelations_en.csv": [
            ["occupationUri", "relationType", "skillType", "skillUri"],
            *([f"o/{i}", "essential", "", f"s/{(i + shift) % 13}"] for i in numbers for shift in (0, 1, 8)),
        ],
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, rows in tables.items():
            archive.writestr(name, "".join(",".join(row) + "\n" for row in rows))


def write_export(folder: Path) -> None:
    """The prior art's four JSON files."""
    folder.mkdir()

    def vector(seed: int) -> list[float]:
        return np.random.default_rng(seed).normal(size=384).round(4).tolist()

    numbers = range(3)
    collections = {
        "jobs_text": [
            {
                "_id": f"j{i}",
                "job_title": f"Title {i}",
                "description": "",
                "technical_skills": [SKILLS[i]],
                "soft_skills": [MANNERS[i]],
                "experience_requirements": ["3 years"],
            }
            for i in numbers
        ],
        "job_embeddings": [
            {
                "original_job_id": f"j{i}",
                "job_title_embeddings": vector(i),
                "tech_skills_vectors": [vector(10 + i)],
                "soft_skills_embeddings": vector(20 + i),
                "experience_requirements_embeddings": vector(30),
            }
            for i in numbers
        ],
        "candidates_text": [{"_id": f"c{i}", "bio": "Calm.", "skills": [SKILLS[i]], "experience": []} for i in numbers],
        "candidates_embeddings": [
            {
                "original_candidate_id": f"c{i}",
                "hard_skill_embeddings": vector(40 + i),
                "soft_skill_embeddings": vector(50 + i),
            }
            for i in numbers
        ],
    }
    for name, rows in collections.items():
        (folder / f"{name}.json").write_text(json.dumps(rows))
