"""Trains and evaluates one run, and writes all results into its folder."""

from __future__ import annotations

import csv
import logging
import math
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from gymnasium.vector import VectorEnv
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.logger import CSVOutputFormat, KVWriter, Logger, TensorBoardOutputFormat
from tensorboard.compat.proto.event_pb2 import Event, SessionLog

from dynaq_algo import NothingLearned
from dynaq_algo.agent_file import AgentFileError
from experiments.runs.build import Setup
from experiments.runs.datasets import cosine_pairs, load_dataset, to_pretrain
from experiments.runs.folders import (
    BEFORE,
    CHECKPOINT,
    CONFIG,
    METRICS,
    MODEL,
    PRETRAIN,
    PROGRESS,
    RUN_FORMAT,
    SUMMARY,
    TENSORBOARD,
    RunError,
    changed_keys,
    clear_run,
    commit_of_checkout,
    config_text,
    flat_config,
    has_config,
    is_finished,
    lock_run,
    of_the_system,
    read_json,
    read_run,
    table_digests,
    write_config,
    write_json,
    write_text,
)
from experiments.runs.interrupts import Waiting, held
from experiments.runs.recording import LearningCurve, LearningProgress, keep_rows, rows_until
from jobrec_gym import BudgetReached, LabourMarket
from jobrec_gym.simulators.llm import FeedbackError, ModelUnusable, ReplayMiss

__all__ = ["in_words", "new_agent", "run_training"]

_LOG_EPISODES = 10
_MOST_FAILURES = 0.5

_log = logging.getLogger(__name__)


def run_training(setup: Setup, folder: Path, overrides: Sequence[str] = (), waits: bool = False) -> dict[str, Any]:
    """Trains and evaluates the agent of a run, and writes all results into its folder.

    Args:
        setup: The run to make.
        folder: Receives ``config.yaml``, ``metrics.csv``, ``progress.csv``, ``tensorboard/``, ``model.zip`` and, last,
            ``summary.json``. Files of an earlier run stay until it is certain that this run can start.
        overrides: The user's overrides, for the summary and the report.
        waits: Whether to wait for another process that is in the folder. If that process makes the same run, nothing is
            left to do then.

    Returns:
        The summary. If the folder already has this run, finished, and ``setup.resume`` is true, it is that run's
        summary.

    Raises:
        RunError: If the config asks for something that the algorithm cannot do, the tracker cannot begin, another
            process is in the folder, or the folder cannot be written to. Once that is corrected, the same call
            continues.
        Interrupted: If a signal asked the run to end. A checkpoint is kept then, if the algorithm writes any.
    """
    setup.require_verbs()
    if setup.resume and is_finished(folder, setup.config):
        _rename(folder, setup.config.get("name"))
        _tell_finished(folder)
        return read_run(folder).summary
    before = changed_keys(folder, setup.config)
    try:
        with lock_run(folder, waits) as has_waited:
            # Another process may have finished the run between the first check and the lock.
            if setup.resume and is_finished(folder, setup.config):
                _tell_finished(folder)
            elif has_waited and (changed := changed_keys(folder, setup.config)) and changed != before:
                raise RunError(
                    f"another process was in this folder: {folder}. It has a run of another config now, with other "
                    f"{', '.join(changed)}. Choose another folder, or give the command again to replace that run."
                )
            else:
                _run(setup, folder, overrides)
    except OSError as error:
        if error.errno is None:
            raise  # its own message says what is wrong
        raise RunError(of_the_system(error, folder)) from error
    return read_run(folder).summary


def _tell_finished(folder: Path) -> None:
    print(f"{folder.name} is finished: nothing to do (resume=false runs it again).", file=sys.stderr)


def _rename(folder: Path, name: Any) -> None:
    """Gives a finished run another name, and changes nothing else. ``None`` keeps the name."""
    there = read_run(folder).config
    if name is not None and there.get("name") != name:
        write_config(folder, {"name": name, **{key: value for key, value in there.items() if key != "name"}})


def _run(setup: Setup, folder: Path, overrides: Sequence[str]) -> None:
    """Trains and evaluates. The folder is locked."""
    config = setup.config
    goes_on = setup.resume and (folder / CHECKPOINT).is_dir() and has_config(folder, config)
    torch.set_num_threads(setup.threads)
    begun, commit = time.perf_counter(), commit_of_checkout()
    env = setup.env
    dataset = None
    if goes_on:
        try:
            model = setup.algorithm.load_checkpoint(folder / CHECKPOINT, env)
        except AgentFileError as error:
            raise RunError(f"{error} Run it from its beginning with resume=false.") from error
    else:
        model = setup.algorithm.make(env)
        dataset = _pretraining_data(setup, env)
    text = config_text(config)
    # The folder is changed only after this line: a config that cannot be built or written, and a tracker that cannot
    # begin, destroy nothing.
    with _logger(setup, folder, goes_on) as logger:
        if goes_on:
            (folder / SUMMARY).unlink(missing_ok=True)
            keep_rows(folder / METRICS, model.num_timesteps)
        else:
            _warn_of_another_run(folder, config)
            clear_run(folder)
        write_text(folder / CONFIG, text)
        logger.output_formats[:0] = _tables(folder, model.num_timesteps if goes_on else None)
        model.set_logger(logger)
        if dataset is not None:
            write_json(folder / PRETRAIN, _pretrain(model, dataset, setup))
        if not goes_on:
            write_json(folder / BEFORE, {"example": setup.evaluation.example(model)})
        with held() as waiting:
            curve, stopped = _learn(setup, model, folder, waiting)
            about = {"overrides": overrides, "commit": commit, "stopped": stopped, "begun": begun}
            _finish(setup, model, folder, curve, about)
            waiting.end(f"the run, which is finished, in {folder}")


def _warn_of_another_run(folder: Path, config: Mapping[str, Any]) -> None:
    """Says in the log that the folder's run of another config is about to be replaced, and how that differs."""
    changed = changed_keys(folder, config)
    if (folder / SUMMARY).is_file():
        what = "the finished run"
    elif (folder / CHECKPOINT).is_dir():
        what = "the checkpoint of an unfinished run"
    else:
        what = "an unfinished run"
    if changed:
        _log.warning("replaces %s of another config, which had other %s", what, ", ".join(changed))


def _finish(setup: Setup, model: Any, folder: Path, curve: LearningCurve, about: Mapping[str, Any]) -> None:
    """Evaluates, and writes the model and the summary, which makes the run a finished one."""
    evaluation, last = setup.evaluation, curve.rows[-1]
    _refuse_mostly_failed(curve)

    model.save(folder / MODEL)
    summary = {
        "files": table_digests(folder),
        "overrides": [item for item in about["overrides"] if not item.startswith("hydra")],
        "commit": about["commit"],
        "seed": setup.seed,
        "interactions": int(model.num_timesteps),
        "market": _describe(setup.market),
        "pretrain": _read(folder / PRETRAIN),
        "held_out": evaluation.with_return(model),
        "references": evaluation.references(),
        "outcomes": {"agent": evaluation.outcomes(model), **evaluation.reference_outcomes()},
        "example": {
            "applicant": evaluation.example_applicant(),
            "before": (_read(folder / BEFORE) or {}).get("example"),
            "after": evaluation.example(model),
            "cosine": evaluation.example("cosine"),
            "oracle": evaluation.example("oracle"),
        },
        "also": _under_other_truths(setup, model),
        "online": {key.removeprefix("online/"): last[key] for key in last if key.startswith("online/cumulative")},
        "feedback": curve.asked,
        "sources": curve.sources,  # after the evaluations above, which ask too
        "stopped": about["stopped"],
        "versions": _versions(),
        "wall_clock": {
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - about["begun"], 2),
            "seconds_of_learning": last["seconds"],
            "cpu_seconds_of_learning": last["cpu_seconds"],
        },
    }
    for name in ("feedback", "sources"):
        if summary[name] is not None:
            _log.info("%s: %s", name, in_words(summary[name]))
    write_json(folder / SUMMARY, summary, RUN_FORMAT)
    shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)


def _read(file: Path) -> dict[str, Any] | None:
    """The content of a file of the run; ``None`` if there is no such file.

    Raises:
        RunError: If the file is not whole, or was changed.
    """
    return read_json(file, "Run it from its beginning with resume=false.") if file.is_file() else None


def _refuse_mostly_failed(curve: LearningCurve) -> None:
    """Refuses a run whose language model mostly gave no answer: it must not count as finished."""
    parts = {"the language model": curve.asked, "the language model in `env.prior_sources`": curve.sources}
    for whom, asked in parts.items():
        if asked is None:
            continue
        # A source that has reached the cap of its budget does what it was told to.
        capped = asked.get("over_budget", 0)
        failures, decisions = asked["failures"] - capped, asked["decisions"] - capped
        if failures > _MOST_FAILURES * max(decisions, 1):
            raise RunError(
                f"{failures:,} of {decisions:,} questions to {whom} got no answer: the run is left unfinished. The log "
                "says why. The answers that came are kept."
            )


def in_words(asked: Mapping[str, float]) -> str:
    """The calls of a language model, their cost and failures, in words."""
    words = "{calls:,} calls, {cache_hits:,} cache hits, {tokens:,} tokens, ${cost_usd:.4f}".format(**asked)
    return f"{words}, {asked['failures']:,} without an answer" if asked["failures"] else words


def new_agent(setup: Setup, env: VectorEnv) -> tuple[Any, dict[str, Any] | None]:
    """A new agent of a run in some environments, pre-trained if the run's config says so.

    Args:
        setup: The run.
        env: The environments, which may be on another market than that of the run.

    Returns:
        The agent, and what its pre-training leaves in ``pretrain.json``; ``None`` if it is not pre-trained.

    Raises:
        RunError: If it cannot be pre-trained.
    """
    setup.require_verbs()
    model, dataset = setup.algorithm.make(env), _pretraining_data(setup, env)
    return model, None if dataset is None else _pretrain(model, dataset, setup)


def _pretraining_data(setup: Setup, env: VectorEnv) -> dict[str, Any] | None:
    """The data that the run is pre-trained on, of the environments' market; ``None`` if it is not pre-trained."""
    options, market = setup.pretraining, env.unwrapped.market
    if options.epochs == 0:
        return None
    if setup.algorithm.is_bandit:
        _log.info("%s learns nothing from a data set: pre-training is left out.", setup.algorithm.name)
        return None
    shown = setup.env_options
    if options.dataset is not None:
        pairs = load_dataset(options.dataset, market)
    else:
        pairs = cosine_pairs(market, options.n_pairs, options.seed, shown["split"], shown["job_split"], options.scale)
    shows_pairs = "pairs" in env.single_observation_space.spaces  # type: ignore[attr-defined]
    return to_pretrain(
        pairs,
        market,
        env.unwrapped.action_features,
        ids=shown["observation"] == "ids",
        pair_features=env.unwrapped.pair_features if shows_pairs else None,
    )


def _pretrain(model: Any, dataset: dict[str, Any], setup: Setup) -> dict[str, Any]:
    """Pre-trains; returns the number of pairs and epochs, and the losses.

    A market can have fewer pairs than were to be drawn. Then there are more epochs, so that the number of updates stays
    the same.
    """
    options, n_pairs = setup.pretraining, len(dataset["reward"])
    epochs = options.epochs
    if options.dataset is None and options.n_pairs is not None and n_pairs < options.n_pairs:
        batch_size = getattr(model, "batch_size", 1)
        wanted, there = (math.ceil(n / batch_size) for n in (options.n_pairs, n_pairs))
        epochs = round(epochs * wanted / there)
        _log.info("only %s pairs for pre-training: %s epochs in place of %s", f"{n_pairs:,}", epochs, options.epochs)
    losses = model.pretrain(dataset, epochs=epochs, progress_bar=_draws_bar(setup.progress_bar))
    return {"n_pairs": n_pairs, "epochs": epochs, **losses}


def _learn(setup: Setup, model: Any, folder: Path, waiting: Waiting) -> tuple[LearningCurve, dict[str, Any] | None]:
    """Learns online until the end or a waiting signal; returns the learning curve, and the reason for an early end."""
    curve = LearningCurve(
        folder / METRICS,
        setup.env,
        None if setup.is_career else setup.truth,
        setup.evaluation,
        at=setup.evaluation_options.at,
        interval=setup.evaluation_options.interval,
        checkpoint_interval=setup.checkpoint_interval,
        save_checkpoint=(lambda: model.save_checkpoint(folder / CHECKPOINT)) if setup.keeps_checkpoints else None,
        waiting=waiting,
        asked_of_sources=lambda: setup.sources_asked,
    )
    begun = model.num_timesteps
    stopped = None
    callbacks: list[Any] = [curve]
    if setup.progress_bar is not False:
        what = f"learning, seed {setup.seed}"
        callbacks.append(LearningProgress(setup.total_timesteps, what, _draws_bar(setup.progress_bar), _log.info))
    callback = CallbackList(callbacks)
    try:
        model.learn(
            setup.total_timesteps - begun,
            callback=callback,
            log_interval=_LOG_EPISODES,
            reset_num_timesteps=begun == 0,
        )
    except (FeedbackError, ModelUnusable, ReplayMiss) as error:
        raise RunError(str(error)) from error
    except NothingLearned as error:
        _refuse_mostly_failed(curve)  # its message says more about the cause
        raise RunError(str(error)) from error
    except BudgetReached as reached:
        # A clean end: the agent keeps what it learned, and the answers are in the cache.
        callback.on_training_end()
        stopped = {"reason": "budget", "limit": reached.limit, "cap": reached.cap, "spent": asdict(reached.spent)}
        _log.warning("stopped after %s interactions: %s", f"{model.num_timesteps:,}", reached)
    return curve, stopped


def _under_other_truths(setup: Setup, model: Any) -> dict[str, Any]:
    """Metrics of the agent and of the references under other truths than the run's own, by the truth's name."""
    under = {}
    for name in setup.other_truths:
        evaluation = setup.other_evaluation(name)
        under[name] = {"held_out": evaluation.with_return(model), "references": evaluation.references()}
    return under


@contextmanager
def _logger(setup: Setup, folder: Path, goes_on: bool) -> Iterator[Logger]:
    """SB3's logger, at first with the tracker alone. In the end the tracker is told how the run ended."""
    logger = Logger(str(folder), [])
    if setup.tracker is not None:
        name = str(setup.config.get("name") or folder.name)
        logger.output_formats.append(setup.tracker.begin(folder, flat_config(setup.config), name, goes_on))
    try:
        yield logger
    except BaseException as error:
        # A signal that waited for the end of the run finds it finished.
        is_stopped = isinstance(error, KeyboardInterrupt)
        has_ended = is_stopped and is_finished(folder, setup.config)
        try:
            _close(logger, "finished" if has_ended else "stopped" if is_stopped else "failed")
        except RunError as also:
            _log.warning("%s", also)  # the first error says more
        raise
    _close(logger, "finished")


def _close(logger: Logger, status: str) -> None:
    for output in logger.output_formats:
        if hasattr(output, "end"):
            output.end(status)
    logger.close()


def _tables(folder: Path, goes_on_at: int | None) -> list[KVWriter]:
    """SB3's outputs to ``progress.csv`` and ``tensorboard/``.

    If the run continues after ``goes_on_at`` interactions, they have no rows of later ones, which are done again.
    """
    path = folder / PROGRESS
    kept: list[list[str]] = []
    if goes_on_at is not None and path.is_file():
        kept = rows_until(path, "time/total_timesteps", goes_on_at)
    table = CSVOutputFormat(str(path))
    if kept:
        csv.writer(table.file, lineterminator="\n").writerows(kept)
        table.keys = kept[0]
    board = TensorBoardOutputFormat(str(folder / TENSORBOARD))
    if goes_on_at is not None:
        # What the argument `purge_step` of a SummaryWriter writes: TensorBoard drops what came from this step on.
        begin_anew = Event(session_log=SessionLog(status=SessionLog.START))
        board.writer.file_writer.add_event(begin_anew, step=goes_on_at + 1)  # type: ignore[attr-defined]  # by torch: None
    return [table, board]


def _draws_bar(wanted: bool | None) -> bool:
    return sys.stderr.isatty() if wanted is None else wanted


def _describe(market: LabourMarket) -> dict[str, Any]:
    return {
        "name": market.name,
        "n_applicants": len(market.applicants),
        "n_jobs": len(market.jobs),
        "fingerprint": market.fingerprint(),
    }


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for package in ("jobrec-gym", "gymnasium", "numpy", "stable-baselines3", "torch"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # the project runs from a checkout
            found[package] = None
    return found
