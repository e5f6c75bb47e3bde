"""The command that prints the exact values of ``JobRecCareer-v0``."""

import json

import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from commands import run_command

from experiments.studies.career_values import Return, policies_table, variants_table

SMALL = ["env.market={source:default,n_jobs:60,n_applicants:40}", "+env.num_candidates=4"]


def test_shares_are_those_of_the_best_policy():
    found = {"best": Return(80.0, 1.25, 312), "myopic": Return(20.0, 0.5, 312), "cosine": Return(4.0, 0.1, 312)}
    header, rows = policies_table({"entry": found, "own": {**found, "best": Return(40.0, 1.0, 312)}})
    assert header[1:] == [f"{start}: {what}" for start in ("entry", "own") for what in ("return", "share of the best")]
    assert rows == [
        ["best policy", "80.00 ± 1.25", "1.00", "40.00 ± 1.00", "1.00"],
        ["best myopic policy", "20.00 ± 0.50", "0.25", "20.00 ± 0.50", "0.50"],
        ["most similar job", "4.00 ± 0.10", "0.05", "4.00 ± 0.10", "0.10"],
    ]
    assert variants_table({"reach 1": found})[1] == [["reach 1", "80.00 ± 1.25", "0.25", "0.05"]]
    nothing = {**found, "best": Return(0.0, 0.0, 312)}
    assert policies_table({"entry": nothing})[1][1] == ["best myopic policy", "20.00 ± 0.50", ""]
    assert variants_table({"no pay": nothing})[1] == [["no pay", "0.00 ± 0.00", "", ""]]


def test_the_command_writes_what_it_prints(tmp_path):
    done = run_command(
        "studies.career_values",
        *SMALL,
        "n_applicants=2",
        "n_sets=4",
        "variant_applicants=1",
        "variant_sets=4",
        "starts=[own]",
        "~variants",
        "+variants={quick:{experience:1,horizon:5,reach:0.1}}",
        f"folder={tmp_path}",
    )
    assert done.returncode == 0, done.stderr
    policies, variants = json.loads((tmp_path / "career_values.json").read_text())["tables"]
    assert [row[0] for row in policies["rows"]] == ["best policy", "best myopic policy", "most similar job", "any job"]
    assert policies["rows"][0][1] in done.stdout and policies["rows"][0][2] == "1.00"
    assert [row[0] for row in variants["rows"]] == ["as it is", "quick"]
    assert variants["rows"][0][1] != variants["rows"][1][1]

    done = run_command("studies.career_values", *SMALL, "n_applicants=400", f"folder={tmp_path}")
    assert done.returncode == 1
    assert done.stderr.strip() == "error: `n_applicants` must be null or in [1, 13], the size of the split, got 400."
    done = run_command("studies.career_values", *SMALL, "+env.simulator={type:rules}", f"folder={tmp_path}")
    assert done.returncode == 1
    assert done.stderr.startswith("error: `env.simulator` cannot be given, because the command sets it: change it by")
