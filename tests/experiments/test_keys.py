"""Keys are refused before anything is written, by every command, however they are spelled."""

from pathlib import Path

import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")
import yaml
from commands import run_command

from experiments.runs.build import build
from experiments.runs.folders import RunError
from experiments.runs.keys import RefuseKeys, key_in_config, refuse_keys

ROOT = Path(__file__).parents[2]
SECRET = "q7Zp3Lw9Xk2Vt8Rb5Nc1"
SHAPED = "sk-proj-AbCdEf0123456789_xyz-0123"


@pytest.mark.parametrize(
    "argument",
    [
        f"simulator.api_key={SECRET}",
        f"+simulator.api_key={SECRET}",
        f"++simulator.apiKey={SECRET}",
        f"+simulator={{api_key:{SECRET}}}",
        f'+simulator={{"api_key": "{SECRET}"}}',
        f"+simulator={{a:{{b:[{{X-Api-Key:{SECRET}}}]}}}}",
        f"+simulator.sampling.extra_body={{token:{SECRET}}}",
        f"simulator.sampling.extra_body.key={SECRET}",
        f"+anything={{password: {SECRET}}}",
        f"+simulator.headers=[[Authorization,'Bearer {SECRET}']]",
        f"simulator.api_base=http://host/v1?api_key={SECRET}",
        f"simulator.api_base='http://host/v1?x=1&api%5Fkey={SECRET}'",
        f"simulator.api_base=http://user:{SECRET}@host/v1",
        f"simulator.cache=redis://:{SECRET}@host:6379/0",
        f"simulator.persona={SHAPED}",
        f"market.path=https://host/jobs.csv?token={SECRET}",
        f"hydra.job.env_set.OPENAI_API_KEY={SECRET}",
        f"+hydra.job.env_set={{OPENAI_API_KEY:{SECRET}}}",
        SHAPED,
        f"{SHAPED}=1",
        f"algo=random,{SHAPED}",
    ],
)
def test_a_key_on_the_command_line_is_refused_and_not_repeated(argument):
    with pytest.raises(SystemExit, match="environment variable") as caught:
        refuse_keys(["seed=1", argument])
    assert SECRET not in str(caught.value) and SHAPED not in str(caught.value)


def test_what_commands_are_given_every_day_is_no_key():
    refuse_keys(
        [
            "-m",
            "--config-dir=conf",
            "seed=0,1,2",
            "'seed=range(0,10)'",
            "simulator=llm",
            "simulator.model=openai/gpt-4o-mini",
            "simulator.api_base=http://127.0.0.1:8080/v1",
            "simulator.cache=redis://host:6379/0",
            "simulator.sampling.max_tokens=200",
            "+simulator.sampling.extra_body={cache_prompt:false}",
            "market.columns={key:id,title:name}",
            "+define.mine={_target_:lab.Mine,alpha:0.1}",
            "hydra.launcher.account=me",
            "hydra.launcher.setup=['export OMP_NUM_THREADS=1']",
        ]
    )


def test_no_shipped_config_looks_like_a_key():
    configs = sorted((ROOT / "conf").rglob("*.yaml"))
    assert len(configs) > 50
    assert {path.name: key_in_config(yaml.safe_load(path.read_text())) for path in configs} == {
        path.name: None for path in configs
    }


def test_a_key_in_a_config_file_is_refused_before_a_folder_is_made(tmp_path):
    folder = tmp_path / "conf" / "simulator"
    folder.mkdir(parents=True)
    text = (ROOT / "conf" / "simulator" / "llm.yaml").read_text()
    (folder / "mine.yaml").write_text(text.replace("  mode:", f"  api_key: {SECRET}\n  mode:"))
    done = run_command("train", f"--config-dir={tmp_path}/conf", "simulator=mine", f"hydra.run.dir={tmp_path}/run")
    assert done.returncode != 0 and "`simulator.api_key` looks like a key" in done.stderr
    assert SECRET not in done.stderr + done.stdout
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["train", "check", "record"])
def test_every_command_whose_config_hydra_writes_looks_for_keys_first(name):
    config = yaml.safe_load((ROOT / "conf" / f"{name}.yaml").read_text())
    assert config["hydra"]["callbacks"]["refuse_keys"]["_target_"] == f"{RefuseKeys.__module__}.RefuseKeys"


def test_the_other_commands_have_no_config_written():
    for path in (ROOT / "conf").glob("*.yaml"):
        hydra = yaml.safe_load(path.read_text()).get("hydra", {})
        assert "callbacks" in hydra or hydra.get("output_subdir", "written") is None, path.name


def test_a_run_whose_config_holds_a_key_is_not_built(small):
    cfg = small("algo=random", f"+simulator.api_key={SECRET}")
    with pytest.raises(RunError, match=r"simulator\.api_key` looks like a key") as caught:
        build(cfg)
    assert SECRET not in str(caught.value)
