"""Whole numbers of configs: what many commands have is checked before any of them begins."""

import pytest

pytest.importorskip("omegaconf", reason="needs the extra 'experiments'")

from commands import run_command
from omegaconf import OmegaConf

from experiments.runs.folders import RunError, find_runs
from experiments.runs.numbers import require_common, require_list, require_whole
from experiments.studies.career_plan import plan_of


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"threads": 0}, "`threads` must be 1 or more, got 0"),
        ({"threads": "x"}, "`threads` must be 1 or more, got 'x'"),
        ({"threads": 1.5}, "`threads` must be 1 or more, a whole number, got 1.5"),
        ({"threads": 5000}, "`threads` must be at most 4,096, got 5,000"),
        ({"seed": True}, "`seed` must be 0 or more, got True"),
        ({"reps": 0}, "`reps` must be 1 or more, got 0"),
        ({"n_logs": 0}, "`n_logs` must be 1 or more, got 0"),
        ({"seeds": ["x"]}, "`seeds` must be 0 or more, got 'x'"),
        ({"seeds": 5}, r"`seeds` must be a list of whole numbers, such as seeds=\[1,2\], got 5"),
        ({"points": [0, -1]}, "`points` must be 0 or more, got -1"),
        ({"sizes": ["x"]}, "`sizes` must be 1 or more, got 'x'"),
        ({"sizes": []}, "`sizes` must name at least one, got none"),
        ({"learners": "linucb"}, r"`learners` must be a list, such as learners=\[linucb\], got 'linucb'"),
        ({"starts": []}, "`starts` must name at least one, got none"),
        ({"seeds": []}, "`seeds` must name at least one, got none"),
        ({"seeds": None}, r"`seeds` must be a list of whole numbers, such as seeds=\[1,2\], got None"),
        ({"seeds": [4, 0, 4]}, "`seeds` must name each once, got 4 twice"),
        ({"learners": ["linucb", "linucb"]}, "`learners` must name each once, got 'linucb' twice"),
        ({"draw": "linucb"}, r"`draw` must be a list, such as draw=\[linucb\], got 'linucb'"),
        ({"size": "quik", "sizes": {"quick": {}}}, "`size`: 'quik' is not in `sizes`: did you mean 'quick'"),
        ({"port": 99_999}, "`port` must be at most 65,535, got 99,999"),
        ({"n_pairs": "x"}, "`n_pairs` must be 0 or more, got 'x'"),
        ({"trust": "no"}, "`trust` must be true or false, got 'no'"),
        ({"resume": None}, "`resume` must be true or false, got None"),
        ({"vectors": 0}, "`vectors` must be true or false, got 0"),
    ],
)
def test_an_entry_that_many_commands_have_is_named_before_anything_is_done(entries, said):
    with pytest.raises(RunError, match=said):
        require_common(OmegaConf.create(entries))


def test_entries_that_are_null_missing_or_of_another_kind_are_left_to_the_command():
    require_common(OmegaConf.create({"n_pairs": None, "threads": "???", "interactions": 400.0, "sizes": {"quick": {}}}))
    require_common(OmegaConf.create({"n_pairs": [500, 1_500], "learners": [], "oracles": []}))
    require_list("n_pairs", [2, 500], 2)
    require_whole("checkpoint_interval", None, 1, 10, optional=True)


def test_a_count_that_is_written_as_a_float_reaches_the_command_as_a_whole_number():
    cfg = OmegaConf.create({"n_pairs": 1e3, "seeds": [0, 2.0], "follows": "${n_pairs}", "noise": 1.0})
    require_common(cfg)
    assert repr(OmegaConf.to_container(cfg, resolve=True)) == repr(
        {"n_pairs": 1000, "seeds": [0, 2], "follows": 1000, "noise": 1.0}
    )


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"seed": None}, "`seed` must be 0 or more, got null"),
        ({"run": ""}, "`run` must not be empty text"),
        ({"runs": ["a", ""]}, "`runs` must not be empty text"),
        ({"ids": "keys"}, "`ids` must be one of"),
        ({"steps": "x"}, "`steps` must be 1 or more, got 'x'"),
    ],
)
def test_what_means_nothing_in_any_command_is_refused(entry, said):
    with pytest.raises(RunError, match=said):
        require_common(OmegaConf.create(entry))


@pytest.mark.parametrize("runs", [3, [1, 2], [None]])
def test_what_is_no_folder_is_named(runs):
    with pytest.raises(RunError, match="`run` must be a folder, or a list of folders, got"):
        find_runs(runs, "run")


def test_a_study_of_careers_needs_a_policy_to_compare_with():
    with pytest.raises(RunError, match=r"`oracles` must name at least one policy .* oracles=\[best\]"):
        plan_of({"at": [0], "define": {}, "learners": [], "one_by_one": {}, "oracles": []})


@pytest.mark.parametrize(
    ("command", "entry", "said"),
    [
        ("evaluate", "threads=0", "`threads` must be 1 or more, got 0."),
        ("benchmark", "seconds=-1", "`seconds` must be a number above 0, got -1."),
        (
            "benchmarks.indexes",
            "n_jobs=5",
            "`n_jobs` must be 100 or more, since the 100 nearest are looked for, got 5.",
        ),
        ("llm.cache", "path=3", "`path` must be a file or redis://HOST:6379/0, got 3."),
    ],
)
def test_a_command_tells_it_in_one_line(command, entry, said):
    done = run_command(command, entry)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"error: {said}\n")
