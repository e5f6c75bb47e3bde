"""Files of run folders that are not whole, were changed, or are of another version: one line says what to do."""

import json
import re
import shutil

import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from experiments.runs import build, training
from experiments.runs.datasets import cosine_pairs, load_dataset, save_dataset
from experiments.runs.folders import RunError, find_runs, is_finished, read_run
from experiments.runs.recording import keep_rows
from experiments.runs.saved import load_run
from experiments.runs.trust import require_trust
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
    summary = read_run(folder).summary
    assert summary["format"] == "jobrec-run/1"
    assert summary["versions"]


@pytest.mark.parametrize("name", ["summary.json", "config.yaml"])
@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b"3", b"\xff\xfe\x00", b"a: [", b"[" * 50_000, b"- !!python/x 1"]
)
def test_a_file_of_a_run_that_is_not_whole_is_named(folder, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises(RunError, match=re.escape(str(folder / name)) + r".*resume=false") as refused:
        find_runs(folder, "run")
    assert "\n" not in str(refused.value)
    assert not is_finished(folder, {})


def test_a_run_of_another_version_is_named(folder):
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps({**summary, "format": "jobrec-run/9"}))
    with pytest.raises(RunError, match=r"has the format 'jobrec-run/9', this version reads 'jobrec-run/1'"):
        read_run(folder)


def test_a_config_that_makes_objects_is_no_config(folder, tmp_path):
    (folder / "config.yaml").write_text(f"algo: !!python/object/apply:os.mkdir ['{tmp_path / 'canary'}']\n")
    with pytest.raises(RunError, match=r"config\.yaml is not whole, or was changed"):
        read_run(folder)
    assert not (tmp_path / "canary").exists()


def test_a_config_that_repeats_itself_beyond_counting_is_refused(folder):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    (folder / "config.yaml").write_text("\n".join(lines))
    run = read_run(folder)
    with pytest.raises(RunError, match="more than 20,000 entries"):
        require_trust(run.config, folder, trust=False)


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
