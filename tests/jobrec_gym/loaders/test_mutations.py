"""Twelve kinds of files, changed in ways that keep their meaning and in ways that do not.

``make test-files`` makes 1,000 of each; the suite makes a sample. A file is drawn from its number alone.
"""

import json
import os
import unicodedata
import warnings

import numpy as np
import pytest
from mutated_files import CHANGES, COLUMNS, CSV_KINDS, KINDS, drawn, packed, written

from jobrec_gym.encoders import HashingEncoder
from jobrec_gym.loaders.tables import load_table
from jobrec_gym.market import MarketError

N_FILES = int(os.environ.get("JOBREC_FILES", "60"))
ENCODER = HashingEncoder(16)


@pytest.fixture
def load(tmp_path):
    people = tmp_path / "people.csv"
    people.write_text("key,hard\np1,SQL\np2,Python\n")

    def load(kind, data):
        file = tmp_path / "jobs"
        file.write_bytes(data)
        columns = {"jobs": {"hard": "hard.name", "soft": "soft.name"}} if kind == "entries" else None
        return load_table(
            file,
            kind="csv" if kind in CSV_KINDS else "json",
            applicants=people,
            columns=columns,
            encoder=ENCODER,
            cache_dir=False,
        )

    return load


def test_what_keeps_the_meaning_gives_an_equal_market(load):
    for number in range(N_FILES):
        rng = np.random.default_rng([1, number])
        kind = KINDS[number % len(KINDS)]
        rows = drawn(rng)
        expected = load("array", json.dumps(rows).encode()).fingerprint()
        columns = [*COLUMNS, "wage"] if rng.random() < 0.5 else list(COLUMNS)
        rng.shuffle(columns)
        text = written(kind, rows, rng, columns, keeping=True)
        if rng.random() < 0.3:
            text = unicodedata.normalize("NFD", text)
        encoding = str(rng.choice(["utf-8", "utf-8-sig", "utf-16"]))
        assert load(kind, packed(text.encode(encoding), rng)).fingerprint() == expected, (
            f"{kind}, file {number}: {text}"
        )


def test_what_changes_the_meaning_is_an_error_of_our_own_or_a_market_with_a_warning(load):
    for number in range(N_FILES):
        rng = np.random.default_rng([2, number])
        kind, change = KINDS[number % len(KINDS)], CHANGES[number % len(CHANGES)]
        made = change(kind, drawn(rng), rng)
        data = made if isinstance(made, bytes) else made.encode()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                load(kind, data)
            except MarketError as error:
                assert str(error), f"{kind}, {change.__name__}"
                continue
        assert [warning.category for warning in caught] == [UserWarning], (
            f"{kind}, {change.__name__}, {number}: {made!r}"
        )
