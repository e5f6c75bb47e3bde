"""``python -m experiments.learn log=FILE``: trains an agent, new or from a run, on a log."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from experiments.runs.arguments import as_typed
from experiments.runs.command import command, in_one_line
from experiments.runs.folders import (
    LOG,
    LOGGED,
    MODEL,
    PRETRAIN,
    RUN_FORMAT,
    SUMMARY,
    RunError,
    clear_run,
    commit_of_checkout,
    find_runs,
    lock_run,
    with_log,
    write_config,
    write_json,
)
from experiments.runs.logs import log_on
from experiments.runs.numbers import require_known
from experiments.runs.progress import Progress, tracked

if TYPE_CHECKING:
    from experiments.runs.build import Setup
    from jobrec_gym import Interactions, ObservationForm

__all__ = ["learn_from_log"]

_MOST_SHOWN = 20
_ANSWERS_TOGETHER = 256
"""A linear bandit learns a batch of answers at once. A batch has at most this many answers."""
_CANDIDATES_TOGETHER = 16_384
"""The candidate sets of a batch have at most this many candidates together. A single set may be larger."""


@command(config_path="../conf", config_name="learn")
def main(cfg: DictConfig) -> None:
    """Trains an agent on a log, and writes it into a folder that ``rank`` and ``off_policy`` read."""
    # Not at the top: `--help` is answered without torch.
    import torch
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    torch.set_num_threads(cfg.threads)
    options: Any = OmegaConf.to_container(cfg, resolve=True)
    try:
        summary = learn_from_log(options)
    except (RunError, ValueError, ImportError, HydraException, OmegaConfBaseException) as error:
        raise SystemExit(f"error: {in_one_line(error)}") from error
    folder = options["folder"]
    print(f"{summary['agent']} has learned from {summary['interactions']:,} answers of {summary['n_people']:,} people")
    run = as_typed("run", folder)
    print(f"\nrun       {folder}\nrank      python -m experiments.rank {run} out=ranked.csv")
    print(f"judge     python -m experiments.off_policy {run} log=... (answers that the agent has not learned from)")


def learn_from_log(options: Mapping[str, Any]) -> dict[str, Any]:
    """Trains a new agent, or the agent of a run, on a log's answers in their order. Writes it into a run folder.

    Args:
        options: The entries of ``conf/learn.yaml``.

    Returns:
        The summary of the folder. It has no scores, because a log has no answers to jobs that were not recommended.

    Raises:
        RunError: If an option is missing or wrong, or the agent cannot learn from single answers.
        ValueError: If the log or the market cannot be read.
    """
    from dynaq_algo import Bandit
    from experiments.runs.saved import load_run
    from experiments.runs.training import new_agent
    from jobrec_gym import ObservationForm, load_market
    from jobrec_gym.interactions import LogError, is_saved_log
    from jobrec_gym.whole_files import whole_folder

    if options["log"] is None:
        raise RunError("`log` must be given: log=FILE (csv, jsonl, parquet), or a saved folder.")
    folder = Path(options["folder"])
    if options["run"] is None:
        market, run = load_market(options["source"]), None
    else:
        (run,) = _one(find_runs(options["run"], "run"))
        if folder.exists() and folder.samefile(run.folder):
            raise RunError(f"`folder` is that of the run, {folder}: choose another one, so that the run is kept.")
        setup, agent = load_run(run, {}, options["trust"])
        market = setup.market
    log = log_on(market, options).split(options["split"])
    if not log.answered.any():
        if options["split"] == "all":
            raise RunError("`log`: no recommendation of the log has an answer, so there is nothing to learn from.")
        raise RunError(f"`split`: the log has no answer in split={options['split']}; take split=all.")
    with lock_run(folder):
        with whole_folder(folder / LOG, is_saved_log, "log", LogError) as scratch:
            log.save(scratch)
            pretrained = None
            if run is None:
                setup = _setup(options, len(market.jobs), scratch)
                agent, pretrained = new_agent(setup, setup.env)
            # A bandit that learns nothing, such as cosine, inherits an `observe` that does nothing.
            if getattr(type(agent), "observe", Bandit.observe) is Bandit.observe:
                raise RunError(
                    f"{setup.algorithm.target} cannot learn from a log: it has no `observe` of its own. Take "
                    "agent=linear_blocks or agent=dynaq_plus, say."
                )
            if not isinstance(agent, Bandit) and agent.gamma > 0:
                raise RunError(
                    f"{setup.algorithm.name} has a gamma of {agent.gamma}, and a log does not say what followed an "
                    "answer: take an agent with gamma 0, such as agent=dynaq_plus."
                )
            _learn(agent, _with_sets(log), ObservationForm.of(setup.env))
            # The folder is cleared only here, so that a run that cannot be made destroys nothing. The new log is put
            # in place after that, so that no run has the log of another run.
            clear_run(folder)
        write_config(folder, with_log(setup.config, Path(LOG)))
        if pretrained is not None:
            write_json(folder / PRETRAIN, pretrained)
        agent.save(folder / MODEL)
        summary = {
            "agent": setup.algorithm.name,
            "log": str(options["log"]),
            "run": None if run is None else str(run.folder),
            "commit": commit_of_checkout(),
            "seed": setup.seed,
            "interactions": int(log.answered.sum()),
            "n_people": len(log.people),
        }
        write_json(folder / SUMMARY, summary, RUN_FORMAT)
    return summary


def _one(runs: list[Any]) -> list[Any]:
    if len(runs) != 1:
        raise RunError(f"`run` holds {len(runs)} runs; say which: {', '.join(str(run.folder) for run in runs)}.")
    return runs


def _setup(options: Mapping[str, Any], n_jobs: int, log: Path) -> Setup:
    """A new run on the log's market, in which applicants answer as in the log."""
    from experiments.runs.build import build, plain
    from experiments.studies.replaying import compose_on_log
    from experiments.studies.runs import known_learners

    require_known("agent", [options["agent"]], known_learners(), "conf/learner")
    own = [f"env.num_candidates={min(n_jobs, _MOST_SHOWN)}", f"seed={options['seed']}"]
    config = plain(compose_on_log(options["agent"], options["pair_features"], *own))
    market = {"_target_": "jobrec_gym.load_market", "source": options["source"]}
    simulator = {"_target_": LOGGED, "interactions": str(log)}
    reward = {**config["reward"], "simulator": simulator}
    return build({**config, "market": market, "simulator": simulator, "reward": reward})


def _learn(agent: Any, log: Interactions, form: ObservationForm) -> None:
    """Tells an agent a log's answers, one by one in their order; a linear bandit learns the same from batches."""
    from dynaq_algo import LinearBandit

    if not isinstance(agent, LinearBandit):
        for answer in tracked(log.answers(form), "learning", "answer", total=int(log.answered.sum())):
            agent.observe(*answer)
        return
    answered = log.take(log.answered)
    chosen, rewards = answered.chosen, answered.reward.astype(np.float32)
    size = max(1, min(_ANSWERS_TOGETHER, _CANDIDATES_TOGETHER // int(answered.sizes.max())))
    with Progress(len(answered), "learning", "answer") as progress:
        for rows, observation in answered.observations(form, size):
            agent.observe(observation, chosen[rows], rewards[rows])
            progress.update(len(rows))


def _with_sets(log: Interactions) -> Interactions:
    """The log. If it does not say which jobs were shown, the recommended job alone counts as shown."""
    from jobrec_gym import Interactions

    if log.shown_ids is not None:
        return log
    return Interactions.of(
        log.market,
        log.applicant_ids,
        log.job_ids,
        log.reward,
        held_out=log.held_out,
        shown=log.job_ids[:, None],
        moving=log.moving,
    )


if __name__ == "__main__":
    main()
