"""The page "From a log to a better list" can be typed line by line."""

import csv
import json
import re
from pathlib import Path

import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from commands import run_shell

import experiments

ROOT = Path(experiments.__file__).parents[1]
SECTION = re.compile(r"^## All of it, in the shell\n(.*?)^## ", re.MULTILINE | re.DOTALL)


def test_the_shell_lines_of_the_page_lead_from_two_files_to_a_better_list(tmp_path):
    (section,) = SECTION.findall((ROOT / "docs" / "logs.md").read_text())
    blocks = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 5
    assert max(len(block.splitlines()) for block in blocks) <= 7

    done = run_shell("\n".join(blocks), tmp_path)
    assert done.returncode == 0, done.stderr

    lists = {}
    for name in ("ranked.csv", "better.csv"):
        with (tmp_path / name).open(newline="") as file:
            lists[name] = [(row["applicant_key"], row["rank"], row["job_key"]) for row in csv.DictReader(file)]
        assert [rank for _, rank, _ in lists[name]] == ["1", "2", "3"] * 6
    assert lists["ranked.csv"] != lists["better.csv"], "it has learned"
    summaries = [json.loads((tmp_path / name / "summary.json").read_text()) for name in ("learned", "relearned")]
    assert [(summary["interactions"], summary["run"]) for summary in summaries] == [(300, None), (300, "learned")]
    (table,) = json.loads((tmp_path / "judged" / "off_policy.json").read_text())["tables"]
    assert [row[0] for row in table["rows"]] == ["learned"] * 4 + ["uniform"] * 4
