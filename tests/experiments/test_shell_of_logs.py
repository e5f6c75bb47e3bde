"""The page "From a log to a better list" can be typed line by line."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

import experiments

ROOT = Path(experiments.__file__).parents[1]
SECTION = re.compile(r"^## All of it, in the shell\n(.*?)^## ", re.MULTILINE | re.DOTALL)


def test_the_shell_lines_of_the_page_lead_from_two_files_to_a_better_list(tmp_path):
    (section,) = SECTION.findall((ROOT / "docs" / "logs.md").read_text())
    blocks = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 5
    assert max(len(block.splitlines()) for block in blocks) <= 7

    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(blocks)],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
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
