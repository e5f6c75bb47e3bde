"""Files of twelve kinds, drawn from a generator, changed in ways that keep their meaning and in ways that do not."""

import bz2
import csv
import gzip
import io
import json
import lzma
import zipfile

import numpy as np

WORDS = (
    "SQL",
    "Python",
    "C#",
    "R&D",
    "crème brûlée",
    "Schweißen",
    "it's care",
    'the "5S" way',
    "wound care",
    "Ωmega",
    "TIG",
)
COLUMNS = ("key", "title", "hard", "soft", "seniority")
NULLS = ("", "NaN", "N/A", "null", "None", "-", " ")

CSV_KINDS = {"csv": ",", "semicolons": ";", "tsv": "\t", "bars": "|", "python": ",", "json cells": ";", "database": ","}
JSON_KINDS = ("lines", "array", "objects", "sides", "entries")
KINDS = (*CSV_KINDS, *JSON_KINDS)


def drawn(rng):
    """Rows of jobs: some without a title, soft skills or a level."""
    rows = []
    for number in range(int(rng.integers(2, 6))):
        n_hard, n_soft = int(rng.integers(1, 4)), int(rng.integers(0, 3))
        rows.append(
            {
                "key": f"j{number}",
                "title": ["", "cook", "Führer", "a, b"][int(rng.integers(4))],
                "hard": rng.choice(WORDS, n_hard, replace=False).tolist(),
                "soft": rng.choice(WORDS, n_soft, replace=False).tolist(),
                "seniority": int(rng.integers(0, 6)) or None,
            }
        )
    return rows


def cell_of(kind, skills):
    if kind == "python" and skills:
        return str(skills)
    if kind == "json cells" and skills:
        return json.dumps(skills)
    if kind == "database" and skills:
        return "{" + ",".join('"' + skill.replace('"', '\\"') + '"' for skill in skills) + "}"
    return ";".join(skills)


def written_csv(kind, rows, rng, columns, keeping):
    """A text of CSV; where meaning is kept, anything that a spreadsheet may do to it is done."""
    some = rng if keeping else np.random.default_rng(0)
    quoting = csv.QUOTE_ALL if some.random() < 0.5 else csv.QUOTE_MINIMAL
    end = str(some.choice(["\n", "\r\n", "\r"]))
    delimiter = CSV_KINDS[kind]
    made = io.StringIO(newline="")
    if keeping and some.random() < 0.2:
        made.write(f"sep={delimiter}{end}")
    writer = csv.writer(made, delimiter=delimiter, quoting=quoting, lineterminator=end)
    writer.writerow(columns)
    for row in rows:
        cells = {**row, "hard": cell_of(kind, row["hard"]), "soft": cell_of(kind, row["soft"]), "wage": "3"}
        for name in ("title", "soft", "seniority"):
            if not cells[name]:
                cells[name] = str(some.choice(NULLS)) if keeping else ""
        writer.writerow([cells[name] for name in columns])
        if keeping and some.random() < 0.1:
            made.write(end)
    text = made.getvalue()
    return text.removesuffix(end) if keeping and some.random() < 0.3 else text


def written_json(kind, rows, rng, columns, keeping):
    made = []
    for row in rows:
        cells = {**row, "wage": 3}
        if keeping and not cells["title"]:
            cells["title"] = [None, "", "N/A"][int(rng.integers(3))]
        if kind == "entries":
            for block in ("hard", "soft"):
                cells[block] = [{"name": skill, "level": 1} for skill in row[block]]
        if keeping and rng.random() < 0.3:
            cells["hard"] = [*cells["hard"], None]
        made.append({name: cells[name] for name in columns})
    ascii_only = bool(rng.random() < 0.5) if keeping else True
    end = str(rng.choice(["\n", "\r\n"])) if keeping else "\n"

    def dumped(value, indent=None):
        return json.dumps(value, ensure_ascii=ascii_only, indent=indent).replace("\n", end)

    if kind == "lines":
        return end.join(dumped(row) for row in made) + end
    if kind == "objects":
        return end.join(dumped(row, 2) for row in made)
    if kind == "sides":
        return dumped({"version": 1, "jobs": made}, 1)
    return dumped(made, 2 if keeping and rng.random() < 0.5 else None)


def packed(data, rng):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inside", data)
    options = (data, gzip.compress(data), bz2.compress(data), lzma.compress(data), made.getvalue())
    return options[int(rng.integers(len(options)))]


def written(kind, rows, rng, columns=COLUMNS, keeping=False):
    write = written_csv if kind in CSV_KINDS else written_json
    return write(kind, rows, rng, columns, keeping)


# ---- what changes it: each takes rows, the text and a generator, and gives a file


def without_an_end(kind, rows, rng):
    data = gzip.compress(written(kind, rows, rng).encode())
    return data[: -int(rng.integers(1, 9))]


def with_a_key_twice(kind, rows, rng):
    return written(kind, [*rows, rows[int(rng.integers(len(rows)))]], rng)


def with_an_empty_key(kind, rows, rng):
    rows[int(rng.integers(len(rows)))]["key"] = " "
    return written(kind, rows, rng)


def without_skills(kind, rows, rng):
    rows[int(rng.integers(len(rows)))].update(hard=[], soft=[])
    return written(kind, rows, rng)


def with_a_level_that_is_none(kind, rows, rng):
    rows[int(rng.integers(len(rows)))]["seniority"] = [7, 2.5, "wizard", -1][int(rng.integers(4))]
    return written(kind, rows, rng)


def with_another_name(kind, rows, rng):
    near = str(rng.choice(["Hard", "hard ", "HARD", "hard_"]))
    made = written(kind, rows, rng)
    return made.replace('"hard"', f'"{near}"') if kind in JSON_KINDS else made.replace("hard", near, 1)


def in_another_encoding(kind, rows, rng):
    rows[0]["title"] = "Führer"
    text = written(kind, rows, rng) if kind in CSV_KINDS else written(kind, rows, rng).replace("\\u00fc", "ü")
    return text.encode(str(rng.choice(["cp1252", "utf-16-le", "utf-16-be"])), errors="replace")


def cut(kind, rows, rng):
    """Ends within the last row or the brackets."""
    if kind in CSV_KINDS:
        made = written(kind, rows, rng)
        return made.rstrip("\r\n").rpartition(CSV_KINDS[kind])[0]
    return written(kind, rows, rng).rstrip()[:-1]


def with_a_quotation_that_does_not_end(kind, rows, rng):
    if kind in CSV_KINDS:
        return written(kind, rows, rng) + f'"j9{CSV_KINDS[kind]}x'
    return written(kind, rows, rng).replace('"key"', '"key', 1)


def with_a_row_too_long(kind, rows, rng):
    if kind in CSV_KINDS:
        return written(kind, rows, rng) + CSV_KINDS[kind].join(["j9", "", "SQL", "", "", "more"])
    return written(kind, rows, rng) + "{"


def with_a_column_twice(kind, rows, rng):
    if kind in CSV_KINDS:
        return written(kind, rows, rng, [*COLUMNS, "title"])
    return written(kind, rows, rng).replace('"title"', '"key": "j8", "title"', 1)


def with_nothing(kind, rows, rng):
    return str(rng.choice(["", " \n", "[]" if kind in JSON_KINDS else ",".join(COLUMNS)]))


def with_commas_between_skills(kind, rows, rng):
    """Lists that are texts, cut by another sign: seen wherever a row has two skills."""
    words = str(rng.choice([", ", "|", "\n", " • ", "\u3001"]))
    texts = [{**row, "hard": [words.join(["SQL", *row["hard"]])], "soft": []} for row in rows]
    if kind in ("csv", "semicolons", "tsv", "bars"):
        return written(kind, texts, rng)
    flat = [{**row, "hard": row["hard"][0], "soft": ""} for row in texts]
    if kind in CSV_KINDS:
        return written("csv" if CSV_KINDS[kind] == "," else "semicolons", texts, rng)
    return json.dumps([{**row, "hard": [{"name": 5}]} for row in flat] if kind == "entries" else flat)


CHANGES = (
    *(
        without_an_end,
        with_a_key_twice,
        with_an_empty_key,
        without_skills,
        with_a_level_that_is_none,
        with_another_name,
    ),
    *(in_another_encoding, cut, with_a_quotation_that_does_not_end, with_a_row_too_long, with_a_column_twice),
    *(with_nothing, with_commas_between_skills),
)
