"""Where a run's figures go beside its folder: the caller, TensorBoard and trackers; and what people call a run."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from stable_baselines3.common.logger import KVWriter
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from experiments import train
from experiments.runs.build import build
from experiments.runs.folders import RunError, find_runs
from experiments.runs.grouping import group_runs
from experiments.runs.trackers import MLflow, WeightsAndBiases, _as_mlflow

CONF = Path(build.__code__.co_filename).parents[2] / "conf"
KEPT = []


class Notebook:
    """A tracker that keeps what it is told in a list."""

    def begin(self, folder, config, name, resumed):
        KEPT.append((name, config, resumed))
        return Page()


class Page(KVWriter):
    def write(self, key_values, key_excluded, step=0):
        KEPT.append((step, dict(key_values)))

    def close(self):
        KEPT.append("closed")


@pytest.fixture
def notebook(monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "KEPT", [])
    monkeypatch.setitem(sys.modules, "a_notebook", sys.modules[__name__])
    return lambda: KEPT


def test_a_sweeper_that_optimises_is_told_the_score(tmp_path, capsys):
    small = ["market.n_jobs=60", "market.n_applicants=40", "total_timesteps=10", "evaluation.n_pairs=64"]
    overrides = [*small, "algo=random", f"hydra.runtime.output_dir={tmp_path}", "hydra.mode=RUN", "name=by chance"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        HydraConfig.instance().set_config(compose("train", overrides, return_hydra_config=True))
        cfg = compose("train", overrides)

    score = train.main(cfg)

    (run,) = find_runs(tmp_path, "runs")
    assert score == run.summary["held_out"]["score"]
    said = capsys.readouterr().out
    assert f"by chance            {score:.3f}" in said and f"experiments.evaluate run={tmp_path}" in said


def test_tensorboard_has_the_learning_curve(run, tmp_path):
    run("algo=random")

    (found,) = find_runs(tmp_path, "runs")
    events = EventAccumulator(str(found.folder / "tensorboard")).Reload()
    curve = events.Scalars("held_out/score")
    assert [event.step for event in curve] == found.metrics["interactions"].tolist() == [0, 10, 20, 30]
    np.testing.assert_allclose([event.value for event in curve], found.metrics["held_out/score"], rtol=1e-6)
    assert [event.step for event in events.Scalars("online/apply_rate")] == [10, 20, 30]


def test_a_tracker_gets_config_name_and_curve_and_is_closed(run, tmp_path, notebook):
    run("algo=dynaq", "env.max_episode_steps=2", "name=a test", "+tracker={_target_: a_notebook.Notebook}")

    kept = notebook()
    name, config, resumed = kept[0]
    assert not resumed and name == "a test" and config["algo.planning_steps"] == 5 and config["seed"] == 0
    steps = {step: values for step, values in kept[1:-1] if "held_out/score" in values}
    assert list(steps) == [0, 10, 20, 30] and all(0 <= values["held_out/ndcg@10"] <= 1 for values in steps.values())
    assert any("train/loss" in values for _, values in kept[1:-1])
    assert kept[-1] == "closed"
    (found,) = find_runs(tmp_path, "runs")
    assert "held_out/score" not in found.progress.columns  # the curve has a table of its own


@pytest.mark.parametrize("tracker", [WeightsAndBiases(), MLflow()])
def test_a_tracker_that_is_missing_says_how_to_get_it(monkeypatch, tmp_path, tracker):
    monkeypatch.chdir(tmp_path)
    for name in ("wandb", "mlflow"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RunError, match=r"tracker=\w+ needs an extra: pip install"):
        tracker.begin(tmp_path, {}, "a run", False)


@pytest.mark.parametrize("same", [True, False], ids=["it continues", "another config"])
def test_a_tracker_knows_whether_a_stopped_run_continues(run, cut, notebook, same):
    asked = ["algo=dynaq", "checkpoint_interval=10", "+tracker={_target_: a_notebook.Notebook}"]
    cut(20, *asked)
    run(*asked, *([] if same else ["algo.gamma=0.5"]), folder="cut")

    begun = [entry for entry in notebook() if len(entry) == 3]
    assert [(config["algo.gamma"], resumed) for _, config, resumed in begun] == [
        (0.9, False),
        (0.9 if same else 0.5, same),
    ]


class StoreOfRuns:
    """The part of MLflow that the tracker uses, and of Weights & Biases; ``runs`` holds status and parameters by id."""

    def __init__(self):
        self.runs, self.ids = {}, []
        self.entities = SimpleNamespace(Metric=None)

    def MlflowClient(self, tracking_uri):
        return self

    def get_experiment_by_name(self, name):
        return SimpleNamespace(experiment_id="0")

    def search_runs(self, places, query, order_by):
        assert order_by == ["attributes.start_time DESC"]
        return [
            SimpleNamespace(info=SimpleNamespace(run_id=name, status=run["status"]))
            for name, run in reversed(self.runs.items())
            if f"tags.folder_sha256 = '{run['tags']['folder_sha256']}'" == query
        ]

    def create_run(self, place, run_name, tags):
        name = f"run {len(self.runs)}"
        self.runs[name] = {"status": "RUNNING", "tags": tags}
        return SimpleNamespace(info=SimpleNamespace(run_id=name))

    def update_run(self, run, status):
        self.runs[run]["status"] = status

    def log_param(self, run, key, value):
        self.runs[run][key] = value

    def set_terminated(self, run, status="FINISHED"):
        self.runs[run]["status"] = status

    def Settings(self, **options):
        return None

    def init(self, **options):
        self.ids.append((options["id"], options["config"]))


def test_what_a_killed_run_left_in_mlflow_is_not_gone_on_with_by_another_run(monkeypatch, tmp_path):
    store = StoreOfRuns()
    monkeypatch.setitem(sys.modules, "mlflow", store)
    tracker = MLflow("file:x")
    tracker.begin(tmp_path / "another", {"algo.alpha": 1.0}, "a run", resumed=False)
    for alpha, resumed in ((0.3, False), (0.3, True), (5.0, False)):
        tracker.begin(tmp_path / "Ada's runs", {"algo.alpha": alpha}, "a run", resumed)

    found = [(run["algo.alpha"], run["status"]) for run in store.runs.values()]
    assert found == [("1.0", "RUNNING"), ("0.3", "KILLED"), ("5.0", "RUNNING")]


def test_a_run_that_was_stopped_is_the_same_run_in_mlflow_when_it_continues(monkeypatch, tmp_path):
    store = StoreOfRuns()
    monkeypatch.setitem(sys.modules, "mlflow", store)
    tracker = MLflow("file:x")
    tracker.begin(tmp_path, {"algo.alpha": 5.0}, "a run", resumed=False).close()
    tracker.begin(tmp_path, {"algo.alpha": 0.3}, "a run", resumed=False).close()  # Ctrl-C closes the log
    goes_on = tracker.begin(tmp_path, {"algo.alpha": 0.3}, "a run", resumed=True)

    assert [run["status"] for run in store.runs.values()] == ["FINISHED", "RUNNING"]
    goes_on.close()
    assert [run["status"] for run in store.runs.values()] == ["FINISHED", "FINISHED"]


def test_a_run_has_an_id_of_its_own_in_wandb_and_keeps_it(monkeypatch, tmp_path):
    store = StoreOfRuns()
    monkeypatch.setitem(sys.modules, "wandb", store)
    tracker = WeightsAndBiases(folder=str(tmp_path / "wandb"))
    for alpha, resumed in ((0.3, False), (0.3, True), (5.0, False), (5.0, True)):
        tracker.begin(tmp_path, {"algo.alpha": alpha}, "a run", resumed)

    (first, second, third, fourth) = (name for name, _ in store.ids)
    assert first == second != third == fourth


def test_metrics_have_names_that_mlflow_takes():
    assert [_as_mlflow(key) for key in ("held_out/ndcg@10", "a b-c_d.e", "x[0]")] == [
        "held_out/ndcg_at_10",
        "a b-c_d.e",
        "x_0_",
    ]


def test_a_finished_run_takes_another_name_and_is_not_run_again(run, tmp_path):
    first = run("algo=random", "name=one")

    assert run("algo=random", "name=two") == first
    assert list(group_runs(find_runs(tmp_path, "runs"))) == ["two"]
    assert run("algo=random") == first
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["name"] == "two"


def test_a_name_is_a_text(small):
    with pytest.raises(RunError, match=r"`name` must be a text or null, got \['a', 'b'\]"):
        build(small("name=[a,b]"))
