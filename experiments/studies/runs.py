"""The runs of a study: its learners and settings, and many runs in few processes."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from threadpoolctl import threadpool_limits

from experiments.runs.arguments import as_override, written
from experiments.runs.build import Setup, build_seeds
from experiments.runs.command import in_one_line
from experiments.runs.folders import RunError, is_finished
from experiments.runs.interrupts import Interrupted, end_child
from experiments.runs.processes import in_processes
from experiments.runs.training import run_training

__all__ = [
    "CONF",
    "Learner",
    "StudyRun",
    "compose_runs",
    "define_learner",
    "known_learners",
    "known_settings",
    "one_line",
    "read_learner",
    "run_all",
]

CONF = Path(__file__).parents[2] / "conf"
MISLED = "misled"
"""The setting in which every learner begins with its prior negated."""

OF_CAREERS = (
    "answers move its applicants, and this study is of single recommendations: python -m experiments.career compares "
    "learners there"
)
TRAIN_LOG = "train.log"
_MOST_LETTERS = 300

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Learner:
    """A learner of a study.

    Attributes:
        name: Its name in tables and figures, and the name of its folder.
        overrides: Overrides of ``experiments.train`` that define it.
        misled: Further overrides that negate its prior; none if it has no prior.
        on_logs: Further overrides for the answers of a log, which are noisier than simulated ones.
    """

    name: str
    overrides: tuple[str, ...]
    misled: tuple[str, ...] = ()
    on_logs: tuple[str, ...] = ()

    @property
    def overrides_on_logs(self) -> tuple[str, ...]:
        """All overrides that define it when it learns from a log."""
        return (*self.overrides, *self.on_logs)


@dataclass(frozen=True, slots=True)
class StudyRun:
    """A run of a study.

    Attributes:
        folder: The run's folder.
        setup: The run to make.
        overrides: The overrides from which it was composed.
    """

    folder: Path
    setup: Setup = field(repr=False)
    overrides: tuple[str, ...]

    @property
    def finished(self) -> bool:
        """Whether the folder holds the finished run of this config, and that run is to be kept."""
        return self.setup.resume and is_finished(self.folder, self.setup.config)

    @property
    def points(self) -> list[int]:
        """Interactions after which its learner is scored; the last one is the end."""
        end = self.setup.total_timesteps
        return sorted({point for point in self.setup.evaluation_options.at if point < end} | {end})


def known_learners() -> list[str]:
    """Names in ``conf/learner``."""
    return _options("learner")


def known_settings() -> list[str]:
    """Names in ``conf/setting``."""
    return _options("setting")


def read_learner(name: str) -> Learner:
    """The learner in a file of ``conf/learner``. An entry ``base`` names another learner, which the file changes."""
    content: Any = OmegaConf.to_container(OmegaConf.load(CONF / "learner" / f"{name}.yaml"))
    base = read_learner(content["base"]) if "base" in content else Learner("", ())
    further = {kind: tuple(content.get(kind, getattr(base, kind))) for kind in ("misled", "on_logs")}
    return Learner(name, (*base.overrides, *content["overrides"]), **further)


def define_learner(name: str, definition: Any) -> Learner:
    """A learner that the user defines.

    Args:
        name: Its name.
        definition: A mapping, or a list of overrides of ``experiments.train``. A mapping has ``_target_``, the dotted
            path of a class with SB3's methods, and arguments. The class is called with these arguments and ``env``,
            ``gamma`` and ``seed``.

    Raises:
        RunError: If the definition is neither.

    Example:
        >>> define_learner("mine", {"_target_": "lab.Mine", "alpha": 0.3}).overrides
        ('algo=custom', 'algo._target_=lab.Mine', '++algo.alpha=0.3')
    """
    if isinstance(definition, list) and all(isinstance(item, str) for item in definition):
        return Learner(name, tuple(definition))
    if isinstance(definition, dict) and isinstance(definition.get("_target_"), str):
        target = definition["_target_"]
        others = [f"++algo.{key}={written(value)}" for key, value in definition.items() if key != "_target_"]
        return Learner(name, ("algo=custom", f"algo._target_={target}", *others))
    raise RunError(
        f"`define.{name}` must be {{_target_: package.Class, ...}} or a list of overrides of experiments.train, "
        f"got {definition!r}."
    )


def compose_runs(
    learner: Learner, setting: str, overrides: Sequence[str], seeds: Sequence[int], folder: Path, path: str | None
) -> list[StudyRun]:
    """The runs of a learner in a setting, one for each seed. It works only within ``hydra.main``, with ``conf``.

    Args:
        learner: The learner.
        setting: The name of the setting.
        overrides: Overrides that define the setting, and those that all learners share.
        seeds: Seeds of the runs.
        folder: Folder of the study.
        path: File or folder of a market that is not in the package.

    Raises:
        RunError: If the overrides do not compose, the run cannot be built, or a ``path`` is needed and missing. Also if
            learners are scored after a number of interactions that is no multiple of the number of environments, so
            that no step ends there.
    """
    misled = learner.misled if f"setting={MISLED}" in overrides else ()
    named = as_override("name", learner.name)
    wanted = ("experiment=coldstart", "progress_bar=false", named, *overrides, *learner.overrides, *misled)
    try:
        cfg = compose("train", list(wanted))
        if OmegaConf.is_missing(cfg.market, "path"):
            if path is None:
                raise RunError("its market is not in the package: give its file or folder by path=FILE")
            wanted = (*wanted, f"market.path={written(path)}")
            cfg.market.path = path
        setups = build_seeds(cfg, seeds)
        if setups and setups[0].is_career:
            raise RunError(OF_CAREERS)
    except (HydraException, OmegaConfBaseException) as error:
        raise RunError(in_one_line(error)) from error
    place = folder / setting / learner.name
    runs = [
        StudyRun(place / f"seed-{seed}", setup, (*wanted, f"seed={seed}"))
        for seed, setup in zip(seeds, setups, strict=True)
    ]
    if runs:  # the runs differ in the seed alone, so one check is enough
        _require_points(runs[0])
    return runs


def _require_points(run: StudyRun) -> None:
    """Requires that the run has a row at each point: a step has an interaction in each environment."""
    points, n_envs = run.points, run.setup.n_envs
    divisor = math.gcd(*points)
    if divisor % n_envs:
        raise RunError(
            f"`env.n_envs` must be {divisor} or a divisor of it, because learners are scored after "
            f"{', '.join(map(str, points))} interactions, and each step makes `env.n_envs` of them, got {n_envs}."
        )


def run_all(runs: Sequence[StudyRun], n_jobs: int, done: Callable[[StudyRun, str | None], None]) -> None:
    """Makes runs in parallel, in processes that import once and keep what runs share, such as the market.

    Args:
        runs: The runs to make.
        n_jobs: How many processes.
        done: Function that is called when a run has ended. Its second argument is the error in one line if the run
            failed, else ``None``.

    Raises:
        RunError: If a process dies.
    """
    for run, error in in_processes(_run, runs, n_jobs):
        done(run, error)


def one_line(error: BaseException) -> str:
    """The message of an error, shortened to one line."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= _MOST_LETTERS else f"{words[:_MOST_LETTERS]}..."


def _run(run: StudyRun) -> str | None:
    """Makes a run; returns its error in one line, and writes the full error to the run's log."""
    run.folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(run.folder / TRAIN_LOG)
    handler.setFormatter(logging.Formatter("[%(asctime)s][%(name)s][%(levelname)s] - %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        # Parallel processes share the cores.
        with threadpool_limits(run.setup.threads):
            run_training(run.setup, run.folder, run.overrides)
    except Interrupted as error:
        handler.close()
        end_child(error)
    except RunError as error:
        _log.error("%s", error)
        return one_line(error)
    except Exception as error:  # a learner's error must not stop the other runs
        _log.exception("the run failed")
        return f"{type(error).__name__}: {one_line(error)} (all of it: {run.folder / TRAIN_LOG})"
    finally:
        root.removeHandler(handler)
        handler.close()
    return None


def _options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))
