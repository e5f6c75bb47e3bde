"""Records what happens while an agent learns: each interaction, and the learning curve on held-out applicants."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import CSVOutputFormat

from experiments.runs.evaluation import Metrics, Truth, cosine_of
from experiments.runs.folders import RunError
from experiments.runs.interrupts import Waiting
from experiments.runs.progress import Progress
from jobrec_gym import LabourMarket
from jobrec_gym.metrics import cumulative_regret
from jobrec_gym.whole_files import whole_file

__all__ = [
    "AtInteractions",
    "InteractionRecorder",
    "Interactions",
    "LearningCurve",
    "LearningProgress",
    "asked_in_all",
]

Ids = NDArray[np.int64]

COMPONENTS = ("cosine", "feedback")
"""Components of rewards. The cosine is known with every reward, feedback only if a simulator was asked."""

_CLOCKS = ("seconds", "cpu_seconds")
_ASKED = ("decisions", "calls", "cache_hits", "tokens", "cost_usd", "failures")


class Interactions(NamedTuple):
    """n recommendations, in the order in which they were made.

    Attributes:
        applicant_ids: (n,), the applicants.
        job_ids: (n,), the recommended jobs.
        candidate_ids: (n, k), the candidate jobs.
        allowed: bool (n, k), which of them could be chosen.
        reward: float64 (n,), the agent's rewards.
    """

    applicant_ids: Ids
    job_ids: Ids
    candidate_ids: Ids
    allowed: NDArray[np.bool_]
    reward: NDArray[np.float64]


class InteractionRecorder(VectorWrapper):
    """Keeps the recommendations of any algorithm until :meth:`take` is called.

    Args:
        env: A ``JobRecVectorEnv`` with its reward wrapper.

    Attributes:
        beside: Further values, as JSON, that a checkpoint keeps for the caller of :meth:`take`.
    """

    def __init__(self, env: VectorEnv):
        super().__init__(env)
        self.beside: dict[str, Any] = {}
        self._rows: list[Interactions] = []
        self._components: dict[str, list[NDArray[np.float64]]] = {}
        self._shown: Ids = np.empty((0, 0), dtype=np.int64)
        self._allowed: NDArray[np.bool_] = np.empty((0, 0), dtype=bool)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts episodes. Recorded recommendations stay."""
        obs, infos = self.env.reset(seed=seed, options=options)
        self._remember(infos)
        return obs, infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Makes one recommendation in each environment, and records it."""
        shown, allowed = self._shown, self._allowed
        result = self.env.step(actions)
        made = self.unwrapped.recommendations
        rows = made.made
        reward = np.asarray(result[1], dtype=np.float64)
        self._rows.append(
            Interactions(made.applicant_ids[rows], made.job_ids[rows], shown[rows], allowed[rows], reward[rows])
        )
        for name, values in _components(result[-1]).items():
            self._components.setdefault(name, []).append(values)
        self._remember(result[-1])
        return result

    def take(self) -> Interactions | None:
        """The recommendations since the last call; ``None`` if there are none."""
        rows, self._rows = self._rows, []
        if not rows:
            return None
        return Interactions(*(np.concatenate(columns) for columns in zip(*rows, strict=True)))

    def take_components(self) -> dict[str, float]:
        """Mean of each known component of the rewards since the last call; see :data:`COMPONENTS`."""
        components, self._components = self._components, {}
        return {name: float(np.concatenate(values).mean()) for name, values in components.items()}

    def get_state(self) -> dict[str, Any]:
        """This wrapper's part of the environments' state, including recommendations not yet taken."""
        rows = self.take()
        self._rows = [] if rows is None else [rows]
        return {
            "shown": self._shown.tolist(),
            "allowed": self._allowed.tolist(),
            "rows": None if rows is None else rows._asdict(),
            "components": {name: np.concatenate(values) for name, values in self._components.items()},
            "beside": self.beside,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`get_state` gave."""
        self._shown = np.array(state["shown"], dtype=np.int64)
        self._allowed = np.array(state["allowed"], dtype=bool)
        # Checkpoints of earlier versions, which were always written right after a row of the curve, lack these entries.
        rows = state.get("rows")
        self._rows = [] if rows is None else [Interactions(**rows)]
        self._components = {name: [values] for name, values in state.get("components", {}).items()}
        self.beside = state.get("beside", {})

    def _remember(self, infos: dict[str, Any]) -> None:
        self._shown = infos["candidate_ids"].copy()
        self._allowed = infos["action_mask"].astype(bool)


class AtInteractions(BaseCallback):
    """Calls a function after some numbers of interactions, when all updates that are due by then are done.

    If no update is due, because the agent updates only after many steps, as PPO does, the call comes one step later.
    The agent has not changed by then. Interactions are counted from the start of ``learn``.

    Args:
        points: Numbers of interactions after which it is called.
        call: The function. Its argument is the point.
    """

    def __init__(self, points: Iterable[int], call: Callable[[int], None]):
        super().__init__()
        self._points = sorted(points)
        self._call = call
        self._begun = 0

    def _on_training_start(self) -> None:
        self._begun = self.model.num_timesteps

    def _on_rollout_start(self) -> None:
        self._call_up_to(self.model.num_timesteps)

    def _on_step(self) -> bool:
        # The updates from this step are still to come.
        self._call_up_to(self.model.num_timesteps - self.training_env.num_envs)
        return True

    def _on_training_end(self) -> None:
        self._call_up_to(self.model.num_timesteps)

    def _call_up_to(self, now: int) -> None:
        while self._points and self._points[0] <= now - self._begun:
            self._call(self._points.pop(0))


class LearningCurve(BaseCallback):
    """Writes a row of ``metrics.csv`` after fixed numbers of interactions, the first row before any.

    A row describes the agent after all updates of that many interactions. It has these columns:

    * ``interactions``;
    * ``held_out/*``: metrics of the greedy agent on held-out applicants;
    * ``online/*``: what was earned while learning. The mean reward and its known components, the mean expected regret
      and the apply rate are those since the previous row; sums are over the whole run so far. Regret and apply rate are
      also given for the job with the highest cosine. If the weight of cosine is annealed, its value in the next step is
      given too;
    * ``feedback/*``: calls of a language model so far, if one gives the feedback;
    * ``sources/*``: calls of the live models in ``prior_sources`` so far, those for evaluations included, if there are
      any;
    * ``seconds`` of learning and ``cpu_seconds`` of this process, both without evaluations.

    The algorithm's logger gets each row too, for TensorBoard and trackers. If answers change the applicant, it is
    unknown what another job would have led to, so ``online/*`` then has rewards only.

    A reward wrapper that anneals its weights is told the number of interactions.

    Args:
        path: The table. Rows that it already has are kept, because they belong to the run that continues.
        recorder: The environment that records.
        truth: The simulator that knows expected rewards; ``None`` if answers change the applicant.
        evaluate: Function from an agent to its metrics on held-out applicants.
        at: Numbers of interactions after which a row is written.
        interval: Number of interactions between further rows.
        checkpoint_interval: Interactions between calls of ``save_checkpoint``, each right after a row; ``None`` for no
            calls.
        save_checkpoint: Function that writes a checkpoint; ``None`` for an algorithm that has none.
        waiting: Says whether a signal waits. If one does, the run ends as soon as all updates that are due are done,
            and writes a checkpoint. Without ``save_checkpoint`` it ends at the next step.
        asked_of_sources: Function that gives :func:`asked_in_all` of the live models in ``prior_sources``; ``None`` if
            there are none.
    """

    def __init__(
        self,
        path: Path,
        recorder: InteractionRecorder,
        truth: Truth | None,
        evaluate: Callable[[Any], Metrics],
        at: Iterable[int],
        interval: int,
        checkpoint_interval: int | None = None,
        save_checkpoint: Callable[[], None] | None = None,
        waiting: Waiting | None = None,
        asked_of_sources: Callable[[], dict[str, float] | None] | None = None,
    ):
        super().__init__()
        self.path = path
        self.recorder = recorder
        self.truth = truth
        self.evaluate = evaluate
        self.at = sorted(at)
        self.interval = interval
        self.checkpoint_interval = checkpoint_interval
        self.save_checkpoint = save_checkpoint
        self.waiting = Waiting() if waiting is None else waiting
        self.rows = read_rows(path)
        self._evaluating = np.zeros(2)
        # Calls of a language model: those of the run before it was resumed, and what the simulator's counter shows now.
        beside, row = recorder.beside, self.rows[-1] if self.rows else {}
        self._asked_before = beside.get("asked") or _asked(row, "feedback")
        self._asked_at_start = feedback_asked(recorder)
        self._asked_of_sources = asked_of_sources or (lambda: None)
        self._sources_before = beside.get("sources") or _asked(row, "sources")
        self._tell: Callable[[int], None] = _found(recorder, "set_total_steps") or (lambda total_steps: None)

    @property
    def asked(self) -> dict[str, float] | None:
        """:func:`feedback_asked` for the whole run so far; ``None`` if no language model is asked."""
        now, start = feedback_asked(self.recorder), self._asked_at_start
        if now is None or start is None:
            return None
        return {name: self._asked_before.get(name, 0) + now[name] - start[name] for name in now}

    @property
    def sources(self) -> dict[str, float] | None:
        """:func:`asked_in_all` of the live models in ``prior_sources`` for the whole run so far; ``None`` without."""
        now = self._asked_of_sources()
        return None if now is None else {name: self._sources_before.get(name, 0) + now[name] for name in now}

    @property
    def _all_asked(self) -> dict[str, float]:
        """Columns of all that language models were asked."""
        parts = {"feedback": self.asked, "sources": self.sources}
        return {f"{part}/{name}": value for part, asked in parts.items() for name, value in (asked or {}).items()}

    def _on_training_start(self) -> None:
        self._tell(self.model.num_timesteps)
        last = [self.rows[-1][clock] for clock in _CLOCKS] if self.rows else [0.0, 0.0]
        before = np.array(self.recorder.beside.get("clocks", last))
        self._started = _now() - before
        self._evaluating = np.zeros(2)
        self._write_if_due()

    def _on_rollout_start(self) -> None:
        # Rows are written here and not on a step, because the updates of the interactions are done only now.
        self._write_if_due()
        self._end_if_asked()

    def _on_step(self) -> bool:
        if self.save_checkpoint is None:
            self._end_if_asked()
        self._tell(self.model.num_timesteps)
        for name, value in self._all_asked.items():
            self.logger.record(name, value)
        return True

    def _on_training_end(self) -> None:
        self._write_if_due(last=True)
        self._end_if_asked()

    def keep(self) -> str:
        """Writes a checkpoint, which may be between two rows; returns what was kept, in words."""
        now = self.model.num_timesteps
        if self.save_checkpoint is None or now == 0:
            return ""
        clocks = (_now() - self._started - self._evaluating).tolist()
        asked = {"asked": self.asked, "sources": self.sources}
        self.recorder.beside = {} if now == self._written else {**asked, "clocks": clocks}
        self.save_checkpoint()
        return f"a checkpoint after {now:,} interactions, in {self.path.parent}"

    def _end_if_asked(self) -> None:
        if self.waiting.number is not None:
            self.waiting.end(self.keep())

    @property
    def _written(self) -> int:
        return int(self.rows[-1]["interactions"]) if self.rows else -1

    def _write_if_due(self, last: bool = False) -> None:
        now, written = self.model.num_timesteps, self._written
        if now == written:
            return
        save = _passed(self.checkpoint_interval, written, now)
        if last or save or _passed(self.interval, written, now) or any(written < point <= now for point in self.at):
            self._write(now)
            if save and now > 0 and not last and self.save_checkpoint is not None:
                self.recorder.beside = {}
                self.save_checkpoint()

    def _write(self, now: int) -> None:
        learning = _now() - self._started - self._evaluating
        row: dict[str, Any] = {"interactions": now, **self._online()}
        components = self.recorder.take_components()
        row |= {f"online/{name}": components.get(name) for name in COMPONENTS}
        row["online/cosine_weight"] = _found(self.recorder, "cosine_weight")
        begun = _now()
        row |= {f"held_out/{key}": value for key, value in self.evaluate(self.model).items()}
        self._evaluating += _now() - begun
        row |= self._all_asked
        row |= {clock: round(float(spent), 3) for clock, spent in zip(_CLOCKS, learning, strict=True)}
        self.rows.append(row)
        with self.path.open("a", newline="") as file:
            # A run that continues keeps the columns with which it began.
            writer = csv.DictWriter(file, fieldnames=list(self.rows[0]), extrasaction="ignore")
            if len(self.rows) == 1:
                writer.writeheader()
            writer.writerow({key: "" if value is None else value for key, value in row.items()})
        self._log(row, now)

    def _online(self) -> dict[str, float | None]:
        return online_metrics(self.recorder.take(), self.truth, self.recorder.unwrapped.market, self.rows)

    def _log(self, row: Mapping[str, Any], now: int) -> None:
        """Writes a row to all outputs of the algorithm's logger except its table, because the curve has its own."""
        known = {key: value for key, value in row.items() if value is not None and "/" in key}
        for output in self.logger.output_formats:
            if not isinstance(output, CSVOutputFormat):
                output.write(known, dict.fromkeys(known, ()), now)


class LearningProgress(BaseCallback):
    """Shows the progress of ``learn``, for any algorithm that calls SB3's callbacks.

    Args:
        total_timesteps: Interactions at the end, including those before a checkpoint.
        what: The name of the work.
        bar: See :class:`~experiments.runs.progress.Progress`.
        write: See :class:`~experiments.runs.progress.Progress`.
    """

    def __init__(
        self,
        total_timesteps: int,
        what: str = "learning",
        bar: bool | None = None,
        write: Callable[[str], None] | None = None,
    ):
        super().__init__()
        self._options = (total_timesteps, what, bar, write)
        self._progress: Progress | None = None

    def _on_training_start(self) -> None:
        total, what, bar, write = self._options
        self._progress = Progress(total, what, "interaction", done=self.model.num_timesteps, bar=bar, write=write)

    def _on_step(self) -> bool:
        assert self._progress is not None, "learning begins first"
        self._progress.reach(self.model.num_timesteps)
        return True

    def _on_training_end(self) -> None:
        if self._progress is not None:
            self._progress.close()
            self._progress = None


def _now() -> NDArray[np.float64]:
    """Wall-clock time, and the CPU time of all threads of this process, in seconds."""
    return np.array([time.perf_counter(), time.process_time()])


def feedback_asked(env: VectorEnv) -> dict[str, float] | None:
    """The use that an environment's simulator has made of a language model.

    It has ``decisions`` (requested), ``calls``, ``cache_hits``, ``tokens``, ``cost_usd``, and ``failures`` (questions
    without an answer). It is ``None`` if there is no simulator, or the simulator does not count these.
    """
    asked = _found(env, "reward_model")
    usage = getattr(getattr(asked, "simulator", None) or _found(env, "simulator"), "usage", None)
    if usage is None:
        return None
    return {name: getattr(usage, name) for name in _ASKED} | {"failures": sum(usage.failures.values())}


def asked_in_all(usages: Iterable[Any]) -> dict[str, float] | None:
    """What several simulators have asked together, as :func:`feedback_asked`; ``None`` if none of them counts.

    It also has ``over_budget``, those of the ``failures`` that were not asked because a cap was reached.

    Args:
        usages: The ``usage`` of each simulator, ``None`` for one that does not count.
    """
    counted = [usage for usage in usages if usage is not None]
    if not counted:
        return None
    return {
        **{name: sum(getattr(usage, name) for usage in counted) for name in _ASKED if name != "failures"},
        "failures": sum(sum(usage.failures.values()) for usage in counted),
        "over_budget": sum(usage.failures.get("budget", 0) for usage in counted),
    }


def _components(infos: Mapping[str, Any]) -> dict[str, NDArray[np.float64]]:
    """Components of the rewards of a vector step by name, from those environments that give them.

    Environments that were reset in the same step give theirs in ``final_info``.
    """
    found: dict[str, list[NDArray[np.float64]]] = {}
    for part in (infos, infos.get("final_info", {})):
        known = part.get("reward_components", {})
        for name in COMPONENTS:
            if name in known:
                found.setdefault(name, []).append(np.asarray(known[name], dtype=np.float64)[known[f"_{name}"]])
    return {name: np.concatenate(values) for name, values in found.items()}


def _found(env: VectorEnv, name: str) -> Any:
    """An attribute of the outermost layer that has it, or ``None``. Gymnasium's vector wrappers pass none on."""
    while not hasattr(env, name) and isinstance(env, VectorWrapper):
        env = env.env
    return getattr(env, name, None)


def _asked(row: Mapping[str, Any], part: str) -> dict[str, float]:
    before = {name: row.get(f"{part}/{name}") or 0 for name in (*_ASKED, "over_budget")}
    return {name: value if name == "cost_usd" else int(value) for name, value in before.items()}


def online_metrics(
    interactions: Interactions | None, truth: Truth | None, market: LabourMarket, before: list[dict[str, Any]]
) -> dict[str, float | None]:
    """What was earned since the last of the rows ``before``, and in all. Without ``truth`` it has rewards only."""
    if truth is None:
        earned = 0.0 if interactions is None else float(interactions.reward.sum())
        return {
            "online/mean_reward": None if interactions is None else float(interactions.reward.mean()),
            "online/cumulative_reward": earned + (before[-1]["online/cumulative_reward"] if before else 0.0),
        }
    names = (
        "cumulative_reward",
        "cumulative_expected_reward",
        "cumulative_regret",
        "cumulative_random_regret",
        "cumulative_cosine_regret",
    )
    # Rows of earlier versions have no regret of the cosine. Its sum then stays unknown.
    sums: dict[str, float | None] = {name: before[-1].get(f"online/{name}") if before else 0.0 for name in names}
    means: dict[str, float | None] = dict.fromkeys(("mean_reward", "mean_regret", "apply_rate", "cosine_apply_rate"))
    if interactions is not None:
        applicants, shown = interactions.applicant_ids, interactions.candidate_ids
        expected = truth.expected_reward(applicants[:, None], shown)
        chosen = truth.expected_reward(applicants, interactions.job_ids)
        best = np.where(interactions.allowed, expected, -np.inf).max(axis=1)
        random = np.where(interactions.allowed, expected, 0.0).sum(axis=1) / interactions.allowed.sum(axis=1)
        cosine = np.where(interactions.allowed, cosine_of(market, applicants[:, None], shown), -np.inf)
        rows, nearest = np.arange(len(shown)), cosine.argmax(axis=1)
        means = {
            "mean_reward": float(interactions.reward.mean()),
            "mean_regret": float((best - chosen).mean()),
            "apply_rate": _apply_rate(truth, applicants, interactions.job_ids),
            "cosine_apply_rate": _apply_rate(truth, applicants, shown[rows, nearest]),
        }
        sums_since = (
            interactions.reward.sum(),
            chosen.sum(),
            *(cumulative_regret(reward, best)[-1] for reward in (chosen, random, expected[rows, nearest])),
        )
        sums = {
            name: None if (sofar := sums[name]) is None else sofar + float(value)
            for name, value in zip(names, sums_since, strict=True)
        }
    return {f"online/{key}": value for key, value in (means | sums).items()}


def _apply_rate(truth: Truth, applicant_ids: Ids, job_ids: Ids) -> float:
    return float((truth.decisions(applicant_ids, job_ids) == "apply").mean())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a table of this kind; none if there is no table."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [{key: float(value) if value else None for key, value in row.items()} for row in csv.DictReader(file)]


def keep_rows(path: Path, interactions: int) -> None:
    """Drops the rows after a number of interactions, because interactions after a checkpoint are done again."""
    rows = rows_until(path, "interactions", interactions)
    with whole_file(path) as scratch, scratch.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def rows_until(path: Path, column: str, last: float) -> list[list[str]]:
    """The header of a table and its complete rows in which a column is at most ``last``; empty for an empty file.

    Raises:
        RunError: If the file is not a table.
    """
    try:
        with path.open(newline="") as file:
            lines = file.read().splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n"):
            lines.pop()  # a kill has cut the last line short
        header, *rows = list(csv.reader(lines)) or [[]]
        if not header:
            return []
        at = header.index(column) if column in header else None
        whole = (row for row in rows if len(row) == len(header))
        return [header, *(row for row in whole if at is None or float(row[at] or 0) <= last)]
    except (ValueError, csv.Error) as error:
        raise RunError(f"{path} is no whole table: {error}. Run it from its beginning with resume=false.") from error


def _passed(interval: int | None, written: int, now: int) -> bool:
    return interval is not None and now // interval > written // interval
