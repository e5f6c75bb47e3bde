"""Files of run folders that are not whole, were changed, or are of another version: one line says what to do."""

import errno
import json
import re
import shutil

import numpy as np
import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from experiments.runs import build, training
from experiments.runs.datasets import cosine_pairs, load_dataset, save_dataset
from experiments.runs.folders import (
    RunError,
    changed_keys,
    find_runs,
    is_finished,
    read_json,
    read_run,
    unfinished_runs,
    write_config,
    write_figure,
    write_json,
)
from experiments.runs.recording import keep_rows
from experiments.runs.saved import load_run
from jobrec_gym import load_market


@pytest.fixture(scope="module")
def finished(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    training.run_training(build.build(small("algo=linear_prior")), folder)
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def test_a_run_says_what_wrote_it(folder):
    said = json.loads((folder / "summary.json").read_text())
    assert said["format"] == "jobrec-run/1" and said["written_by"].startswith("jobrec-gym")
    assert said["versions"]
    assert (folder / "config.yaml").read_text().startswith("# jobrec-run/1, written by jobrec-gym")


@pytest.mark.parametrize("name", ["summary.json", "config.yaml"])
@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b"3", b"\xff\xfe\x00", b"a: [", b"[" * 3_000, b"- !!python/x 1"]
)
def test_a_file_of_a_run_that_is_not_whole_is_named(folder, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises(RunError, match=re.escape(str(folder / name)) + r".*resume=false") as refused:
        find_runs(folder, "run")
    assert "\n" not in str(refused.value)
    assert not is_finished(folder, {})


def test_runs_are_found_in_folders_of_any_name_and_at_home(folder, tmp_path, monkeypatch):
    place = tmp_path / "checkpoint" / "runs"
    shutil.copytree(folder, place / "checkpoint")
    shutil.copytree(folder, place / "checkpoint" / "checkpoint")  # that of the run itself
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    for given in (place, tmp_path / "checkpoint", ["~/checkpoint"]):
        assert [run.folder for run in find_runs(given, "runs")] == [place / "checkpoint"]
        assert unfinished_runs(given, 1) == ""
    (place / "checkpoint" / "summary.json").unlink()
    assert str(place / "checkpoint") in unfinished_runs(["~/checkpoint"], 0)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_beginning_of_a_config_is_not_taken_for_the_whole(folder, share):
    file = folder / "config.yaml"
    lines = file.read_text().splitlines(keepends=True)
    kept = lines[: int(share * len(lines))]
    file.write_text("".join(kept))
    with pytest.raises(RunError, match=r"config\.yaml is not whole, or was changed: \d+ of \d+ lines .*resume=false"):
        read_run(folder)


def test_a_run_of_another_version_is_named(folder):
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps({**summary, "format": "jobrec-run/9"}))
    with pytest.raises(RunError, match=r"'jobrec-run/9', written by .* reads 'jobrec-run/1'\. .*resume=false"):
        read_run(folder)


def test_a_config_of_another_version_is_named(folder):
    file = folder / "config.yaml"
    file.write_text(file.read_text().replace("jobrec-run/1, written by", "jobrec-run/0, written by old"))
    with pytest.raises(RunError, match=r"config\.yaml has the format 'jobrec-run/0', written by old jobrec-gym"):
        read_run(folder)


@pytest.mark.parametrize("name", ["summary.json", "metrics.csv", "progress.csv"])
def test_what_was_changed_in_a_run_is_found(folder, name):
    file = folder / name
    text = file.read_text()
    changed = {
        "summary.json": text.replace('"seed": 0', '"seed": 1'),
        "metrics.csv": text.replace("1", "2"),
        "progress.csv": f"{text}rollout/reward\n1\n",  # a bandit logs nothing
    }[name]
    assert changed != text
    file.write_text(changed)
    with pytest.raises(RunError, match=rf"{re.escape(name)} is .*(sha256|changed).*resume=false") as refused:
        run = read_run(folder)
        assert len(run.metrics) + len(run.progress)
    assert "\n" not in str(refused.value)


def test_a_run_of_a_release_that_kept_no_digests_is_read(folder):
    summary = read_run(folder).summary
    del summary["files"]
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "config.yaml").write_text((folder / "config.yaml").read_text().partition("\n")[2])
    assert read_run(folder).summary == summary
    assert len(read_run(folder).metrics)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b'{"format": "jobrec-results/2", "written_by": "jobrec 9"}',
            "'jobrec-results/2', written by jobrec 9",
        ),
        (b'{"format": "jobrec-results/1", "sha256": "0", "x": 1}', "is not whole, or was changed: its content"),
        (b'{"x": 1', "is not whole, or was changed: .*Make it anew"),
        (b"[1]", r"must hold named entries, got \[1\]\. Make it anew"),
        (None, "there is no .*Make it anew"),
    ],
)
def test_a_result_that_cannot_be_read_is_told_in_a_line(tmp_path, content, said):
    if content is not None:
        (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(RunError, match=said) as refused:
        read_json(tmp_path / "x.json", "Make it anew.")
    assert "x.json" in str(refused.value) and "\n" not in str(refused.value)


def test_a_result_is_read_as_it_was_written_and_one_of_an_earlier_release_as_it_is(tmp_path):
    content = {"n": 3, "name": "é", "of": [1.5, {"x": 0.1 + 0.2}]}
    write_json(tmp_path / "new.json", content)
    (tmp_path / "old.json").write_text(json.dumps(content))
    assert read_json(tmp_path / "new.json", "") == read_json(tmp_path / "old.json", "") == content


def test_a_figure_is_replaced_whole_or_not_at_all(tmp_path):
    class Broken:
        def savefig(self, place, **options):
            place.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

    place = tmp_path / "curve.png"
    place.write_bytes(b"the old one")
    with pytest.raises(OSError, match="No space") as refused:
        write_figure(place, Broken())
    assert refused.value.filename == str(place)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"the old one"]


def test_a_config_that_makes_objects_is_no_config(folder, tmp_path):
    (folder / "config.yaml").write_text(f"algo: !!python/object/apply:os.mkdir ['{tmp_path / 'canary'}']\n")
    with pytest.raises(RunError, match=r"config\.yaml is not whole, or was changed"):
        read_run(folder)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("first", "next_"),
    [("[x, x]", "[*a{0}, *a{0}]"), ("{x: 1}", "{{l: *a{0}, r: *a{0}}}"), ("{x: 1}", "{{<<: [*a{0}, *a{0}]}}")],
)
def test_a_config_that_repeats_itself_is_refused(folder, first, next_):
    lines = [f"a0: &a0 {first}", *(f"a{n}: &a{n} {next_.format(n - 1)}" for n in range(1, 60))]
    file = folder / "config.yaml"
    file.write_text(file.read_text().partition("\n")[2] + "\n".join(lines))
    message = re.escape(str(file)) + r" is not whole, or was changed: it repeats a part by a name, as no config"
    for read in (read_run, lambda folder: find_runs(folder, "runs")):
        with pytest.raises(RunError, match=message):
            read(folder)
    assert not is_finished(folder, {}) and changed_keys(folder, {}) == []


def test_a_config_that_would_take_long_to_read_is_refused_and_never_written(folder):
    file = folder / "config.yaml"
    file.write_text(f"seed: {':'.join(['1'] * 1_000_000)}\n")
    with pytest.raises(RunError, match=r"config\.yaml is not whole, .* a config has at most 200,000"):
        read_run(folder)
    assert not is_finished(folder, {})
    with pytest.raises(RunError, match=r"must have at most 200,000 characters, got .* shorten its longest lists"):
        write_config(folder, {"exclude": list(range(100_000))})


def test_a_part_of_a_config_that_is_in_two_places_is_written_twice_and_read(folder):
    part = {"n": [1, 2]}
    write_config(folder, {"one": part, "two": part})
    assert read_run(folder).config == {"one": part, "two": part}


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b'a,b\n"1,2\n', b"a\n1\n1,2,3\n"])
@pytest.mark.parametrize("name", ["metrics", "progress"])
def test_a_table_of_a_run_that_is_none_is_named(folder, name, content):
    (folder / f"{name}.csv").write_bytes(content)
    run = read_run(folder)
    if name == "progress" and not content:
        assert len(run.progress) == 0
        return
    with pytest.raises(RunError, match=rf"{name}\.csv.*resume=false"):
        getattr(run, name)


def test_a_table_that_a_run_goes_on_with_is_checked(tmp_path):
    for content in (b"interactions\nx\n", b"\xff\xff\n"):
        (tmp_path / "metrics.csv").write_bytes(content)
        with pytest.raises(RunError, match=r"metrics\.csv is no whole table.*resume=false"):
            keep_rows(tmp_path / "metrics.csv", 3)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_agent_of_a_run_is_named(folder, share):
    file = folder / "model.zip"
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(RunError, match=r"model\.zip.*resume=false") as refused:
        load_run(read_run(folder), {})
    assert "\n" not in str(refused.value)


def test_a_checkpoint_that_is_not_whole_is_named_with_the_way_out(small, tmp_path):
    setup = build.build(small("algo=dynaq", "checkpoint_interval=10"))
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "state.json").write_text("{")
    training.write_config(tmp_path, setup.config)
    with pytest.raises(RunError, match=r"state\.json.*Run it from its beginning with resume=false"):
        training.run_training(setup, tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.99])
def test_a_truncated_data_set_is_named(tmp_path, share):
    market = load_market("default", n_jobs=30, n_applicants=20)
    save_dataset(tmp_path / "pairs.npz", cosine_pairs(market, 50, seed=0), market)
    file = tmp_path / "pairs.npz"
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(ValueError, match=r"pairs\.npz is no whole data set: .*Make one"):
        load_dataset(file, market)


def test_a_data_set_of_another_version_is_named(tmp_path):
    market = load_market("default", n_jobs=30, n_applicants=20)
    save_dataset(tmp_path / "pairs.npz", cosine_pairs(market, 50, seed=0), market)
    with np.load(tmp_path / "pairs.npz") as file:
        content = dict(file)
    assert str(content["info:written_by"]).startswith("jobrec-gym")
    np.savez(tmp_path / "pairs.npz", **content | {"info:format": "jobrec-pairs/2", "info:written_by": "jobrec-gym 9"})
    with pytest.raises(ValueError, match=r"format 'jobrec-pairs/2', written by jobrec-gym 9; jobrec-gym .*Make one"):
        load_dataset(tmp_path / "pairs.npz", market)
