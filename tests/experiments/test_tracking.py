"""Where a run's figures go beside its folder: the caller, TensorBoard and trackers; and what people call a run."""

import fcntl
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationResolutionError
from stable_baselines3.common.logger import KVWriter
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from experiments import train
from experiments.runs import sweeps, training
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


class Ending(Notebook):
    """As above, but it is told how the run ended."""

    def begin(self, folder, config, name, resumed):
        page = Page()
        page.end = KEPT.append
        return page


class Unreachable:
    def begin(self, folder, config, name, resumed):
        raise RunError("the server does not answer")


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


@pytest.mark.parametrize("change", ["resume=false", "algo.gamma=0.5"])
def test_a_tracker_that_cannot_begin_leaves_the_finished_run(run, tmp_path, notebook, change):
    run("algo=random")
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in files}

    with pytest.raises(RunError, match="does not answer"):
        run("algo=random", change, "+tracker={_target_: a_notebook.Unreachable}")

    assert {path: path.read_bytes() for path in files} == before


def test_a_tracker_that_cannot_begin_leaves_the_checkpoint(run, cut, tmp_path, notebook):
    asked = ["algo=dynaq", "checkpoint_interval=10"]
    cut(20, *asked)
    before = (tmp_path / "cut" / "metrics.csv").read_bytes()
    with pytest.raises(RunError, match="does not answer"):
        run(*asked, "algo.gamma=0.5", "+tracker={_target_: a_notebook.Unreachable}", folder="cut")

    assert (tmp_path / "cut" / "checkpoint").is_dir()
    assert (tmp_path / "cut" / "metrics.csv").read_bytes() == before
    assert run(*asked, folder="cut")["interactions"] == 30


ENDING = "+tracker={_target_: a_notebook.Ending}"


def test_a_tracker_is_told_how_a_run_ended(run, cut, tmp_path, monkeypatch, notebook):
    def summary_is_there(folder):
        return (tmp_path / folder / "summary.json").is_file()

    monkeypatch.setattr(Page, "close", lambda page: KEPT.append(summary_is_there("run")))
    run("algo=random", ENDING)
    assert notebook()[-2:] == ["finished", True]

    cut(20, "algo=random", ENDING)
    assert notebook()[-2] == "stopped"


def test_a_run_that_a_signal_stops_after_its_summary_has_finished(run, monkeypatch, notebook):
    finish = training._finish

    def asked_to_end(setup, model, folder, curve, about):
        finish(setup, model, folder, curve, about)
        curve.waiting.number = signal.SIGTERM

    monkeypatch.setattr(training, "_finish", asked_to_end)
    with pytest.raises(KeyboardInterrupt):
        run("algo=random", ENDING)
    assert notebook()[-2:] == ["finished", "closed"]


@pytest.mark.parametrize("part", ["_pretrain", "_learn", "_finish"])
def test_a_tracker_is_told_that_a_run_failed_wherever_it_did(run, monkeypatch, notebook, part):
    def failing(*arguments):
        raise ValueError("on purpose")

    monkeypatch.setattr(training, part, failing)
    with pytest.raises(ValueError, match="on purpose"):
        run("pretrain.epochs=1", ENDING)

    assert notebook()[-2:] == ["failed", "closed"]


def test_tensorboard_does_not_have_twice_what_is_done_again_after_a_kill(run, cut, tmp_path):
    asked = ["algo=dynaq", "checkpoint_interval=20", "total_timesteps=40", "evaluation.at=[0,10,20,25,30]"]
    cut(30, *asked)
    board = tmp_path / "cut" / "tensorboard"
    (first,) = board.iterdir()
    first.rename(first.with_name("events.out.tfevents.0000000001.first"))  # the names have the order of the files
    assert EventAccumulator(str(board)).Reload().Scalars("held_out/score")[-1].step == 25
    run(*asked, folder="cut")

    events = EventAccumulator(str(board)).Reload()
    assert [event.step for event in events.Scalars("held_out/score")] == [0, 10, 20, 25, 30, 40]


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


class RefusedError(Exception):
    pass


class StoreOfRuns:
    """The part of MLflow that the tracker uses, and of Weights & Biases; ``runs`` holds status and parameters by id."""

    def __init__(self):
        self.runs, self.ids, self.points, self.exit_codes = {}, [], [], []
        self.entities = SimpleNamespace(
            Metric=lambda key, value, timestamp, step: SimpleNamespace(key=key, value=value, step=step)
        )
        self.exceptions = SimpleNamespace(MlflowException=RefusedError)
        self.errors = SimpleNamespace(Error=RefusedError)

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

    def log_batch(self, run, metrics):
        self.points += metrics

    def get_run(self, run):
        return SimpleNamespace(data=SimpleNamespace(metrics={point.key: point.value for point in self.points}))

    def get_metric_history(self, run, key):
        return [point for point in self.points if point.key == key]

    def Settings(self, **options):
        return None

    def init(self, **options):
        self.ids.append((options["id"], options["config"]))
        return SimpleNamespace(finish=lambda exit_code: self.exit_codes.append(exit_code))


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


def test_what_did_not_finish_has_another_status_in_mlflow_and_wandb(monkeypatch, tmp_path):
    store = StoreOfRuns()
    for name, tracker in (("mlflow", MLflow("file:x")), ("wandb", WeightsAndBiases(folder=str(tmp_path)))):
        monkeypatch.setitem(sys.modules, name, store)
        for status in ("finished", "stopped", "failed"):
            writer = tracker.begin(tmp_path, {}, "a run", resumed=False)
            writer.end(status)
            writer.close()

    assert [run["status"] for run in store.runs.values()] == ["FINISHED", "KILLED", "FAILED"]
    assert store.exit_codes == [0, 1, 1]


def test_mlflow_does_not_get_twice_what_is_done_again_after_a_kill(monkeypatch, tmp_path):
    store = StoreOfRuns()
    monkeypatch.setitem(sys.modules, "mlflow", store)
    killed = MLflow("file:x").begin(tmp_path, {}, "a run", resumed=False)
    for step in (0, 50, 100):
        killed.write({"score": step / 100}, {}, step)
    killed.write({"loss": 1.0}, {}, 50)

    goes_on = MLflow("file:x").begin(tmp_path, {}, "a run", resumed=True)
    for step in (100, 150):
        goes_on.write({"score": step / 100, "loss": 0.5}, {}, step)

    assert [point.step for point in store.get_metric_history("run 0", "score")] == [0, 50, 100, 150]
    assert [point.step for point in store.get_metric_history("run 0", "loss")] == [50, 100, 150]


def test_one_process_at_a_time_makes_a_database_of_mlflow(monkeypatch, tmp_path):
    class Database(StoreOfRuns):
        def MlflowClient(self, tracking_uri):
            with (tmp_path / "new" / "runs.db.lock").open() as file, pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return self

    monkeypatch.setitem(sys.modules, "mlflow", Database())
    MLflow(f"sqlite:///{tmp_path}/new/runs.db").begin(tmp_path, {}, "a run", False)


@pytest.mark.parametrize("meanwhile", [True, False], ids=["another process made it", "it cannot be made"])
def test_an_experiment_that_cannot_be_made_may_be_there_already(monkeypatch, tmp_path, meanwhile):
    class Server(StoreOfRuns):
        asked = 0

        def get_experiment_by_name(self, name):
            self.asked += 1
            return SimpleNamespace(experiment_id="7") if meanwhile and self.asked > 1 else None

        def create_experiment(self, name):
            raise RefusedError("the name is taken")

    server = Server()
    monkeypatch.setitem(sys.modules, "mlflow", server)
    if meanwhile:
        MLflow("http://here:1").begin(tmp_path, {}, "a run", False)
        assert len(server.runs) == 1
    else:
        with pytest.raises(RunError, match=r"tracker=mlflow: the name is taken. tracker.uri= names another store"):
            MLflow("http://here:1").begin(tmp_path, {}, "a run", False)


@pytest.mark.parametrize(("given", "seen"), [(None, "2"), ("5", "5")])
def test_a_server_that_does_not_answer_is_asked_a_few_times_before_a_run(monkeypatch, tmp_path, given, seen):
    class Server(StoreOfRuns):
        def get_experiment_by_name(self, name):
            assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == seen
            return super().get_experiment_by_name(name)

    monkeypatch.setitem(sys.modules, "mlflow", Server())
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    if given is not None:
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", given)
    MLflow("http://here:1").begin(tmp_path, {}, "a run", False)

    assert os.environ.get("MLFLOW_HTTP_REQUEST_MAX_RETRIES") == given


def test_what_a_tracker_refuses_is_told_in_words(monkeypatch, tmp_path):
    class Refusing(StoreOfRuns):
        def init(self, **options):
            raise RefusedError("No API key")

        def log_batch(self, run, metrics):
            raise RefusedError("it is gone")

    for name in ("mlflow", "wandb"):
        monkeypatch.setitem(sys.modules, name, Refusing())
    (tmp_path / "wandb_id.txt").write_text("of the finished run")
    with pytest.raises(RunError, match=r"tracker=wandb: No API key. tracker.mode=offline needs neither"):
        WeightsAndBiases(folder=str(tmp_path), mode="online").begin(tmp_path, {}, "a run", False)
    assert (tmp_path / "wandb_id.txt").read_text() == "of the finished run"
    with pytest.raises(RunError, match=r"tracker=mlflow: it is gone. tracker.uri="):
        MLflow("file:x").begin(tmp_path, {}, "a run", False).write({"score": 1.0}, {}, 10)


@pytest.mark.parametrize("uri", ["runs/ml", "mlflow.db", "", None])
def test_an_address_that_mlflow_cannot_have_is_named(uri):
    with pytest.raises(ValueError, match="`uri` must be sqlite:///FILE, or the address of a server"):
        MLflow(uri)


def test_a_mode_that_wandb_does_not_have_is_named():
    with pytest.raises(ValueError, match="`mode` must be one of online, offline, shared, disabled, got 'on'"):
        WeightsAndBiases(mode="on")


def test_a_search_of_optuna_goes_on_with_another_seed(monkeypatch):
    def summaries(storage):
        if storage != "sqlite:///there.db":
            raise KeyError("no such storage")
        return [SimpleNamespace(study_name="a search", n_trials=20), SimpleNamespace(study_name="b", n_trials=3)]

    monkeypatch.setitem(sys.modules, "optuna", SimpleNamespace(get_all_study_summaries=summaries))
    sweeper = yaml.safe_load((CONF / "sweeper" / "optuna.yaml").read_text())["hydra"]["sweeper"]

    def seed(storage, study):
        given = {**sweeper, "storage": storage, "study_name": study}
        return OmegaConf.create({"hydra": {"sweeper": given}}).hydra.sweeper.sampler.seed

    assert seed(None, "a search") == seed("sqlite:///there.db", None) == seed("sqlite:///there.db", "new") == 0
    assert seed("sqlite:///there.db", "a search") == 20
    with pytest.raises(
        InterpolationResolutionError, match="`hydra.sweeper.storage` cannot be opened: 'no such storage'"
    ):
        seed("nowhere", "a search")


def test_the_folder_of_a_sweepers_database_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweeps, "_under_way", [])
    for storage in (None, "mysql://here/x", "sqlite:///runs/optuna.db?timeout=9", f"sqlite:///{tmp_path}/a/b.db"):
        config = OmegaConf.create({"hydra": {"sweep": {"dir": "sweep"}, "sweeper": {"storage": storage}}})
        sweeps.NoteSweep().on_multirun_start(config)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "runs"]


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
