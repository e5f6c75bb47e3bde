"""``python -m experiments.studies.goals folder=FOLDER``: which of its own goals this project reached."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from experiments.runs.arguments import as_typed
from experiments.runs.command import command
from experiments.runs.folders import COLDSTART, RunError, commit_of_checkout, read_json, write_json
from experiments.runs.intervals import paired_difference
from experiments.runs.tables import format_table
from experiments.studies.study import Study

__all__ = ["BEFORE", "GOALS", "Goal", "Verdict", "command_of", "judge", "read_studies", "short"]

OURS, FEATURES, NO_PRIOR = "dynaq_plus", "dynaq_plus_features", "dynaq_plus_no_prior"
PAIR_PRIOR, FIXED_PAIR_PRIOR = "dynaq_plus_pair_prior", "pair_prior"
TUNED, COSINE, BLOCKS, GP = "dynaq_tuned", "cosine", "linear_blocks", "gp"

BEFORE = "before"
"""The one key of the studies that is no name of a setting. Its study is an older one: of `dynaq_plus` at commit
b433fb5, in the setting `vectors`, on the seeds of the present study of `vectors`."""

EVERYWHERE = ("vectors", "profile", "profile_noisy", "board", "sparse", "generator", "onet", "recorded")
PRIOR_MISLEADS = ("misled", "contrary")
SPARSE = ("sparse", "sparse_tenth", "sparse_zero")
VERDICTS = "goals.json"
HOLDS, FAILS, MISSING = "holds", "fails", "missing"

Studies = Mapping[str, Study]
"""The study of each setting."""

Judgement = tuple[bool, str]
"""Whether a goal holds, and the figures that show it."""


@dataclass(frozen=True, slots=True)
class Goal:
    """A goal for the results of the studies.

    Attributes:
        name: Its number in the list of goals, and its subject.
        what: The condition, in words.
        needs: The learners that are needed to judge it, by setting.
        until: Interactions that the studies must reach.
        judge: Function that judges the studies.
    """

    name: str
    what: str
    needs: Mapping[str, tuple[str, ...]]
    until: int
    judge: Callable[[Studies], Judgement]


class Verdict(NamedTuple):
    """The verdict on a goal: it `holds`, it `fails`, or something that it needs is `missing`, which `figures` names."""

    goal: str
    what: str
    verdict: str
    figures: str


@command(config_path="../../conf", config_name="goals")
def main(cfg: DictConfig) -> None:
    """Prints and writes a verdict with its figures for each goal, and prints the command for what is missing."""
    folder = Path(cfg.folder)
    try:
        studies = read_studies(folder, None if cfg.before is None else Path(cfg.before), cfg.reps)
    except RunError as error:
        raise SystemExit(f"error: {error}") from error
    verdicts = [judge(goal, studies) for goal in GOALS]
    print(format_table(Verdict._fields, [list(verdict) for verdict in verdicts], left=4))
    rows = [[f"{name}: {what}", verdict, figures] for name, what, verdict, figures in verdicts]
    older = [] if cfg.before is None else [as_typed("before", cfg.before)]
    write_json(
        folder / VERDICTS,
        {
            "command": " ".join(["python -m experiments.studies.goals", as_typed("folder", folder), *older]),
            "commit": commit_of_checkout(),
            "tables": [{"header": ["goal", "verdict", "figures"], "rows": rows}],
        },
    )
    lacking = dict.fromkeys(setting for goal in GOALS for setting, _ in _missing(goal, studies))
    if BEFORE in lacking:
        print(
            f"\n{BEFORE}: check out b433fb5, run its experiments.coldstart with these seeds, then say {BEFORE}=FOLDER"
        )
    if settings := [setting for setting in lacking if setting != BEFORE]:
        print(f"\nmissing: {command_of(settings, folder)}")


def read_studies(folder: Path, before: Path | None, reps: int) -> dict[str, Study]:
    """Reads the study of each setting from a folder of ``experiments.coldstart``.

    Args:
        folder: A folder that has a folder for each setting, with its ``coldstart.json``.
        before: A folder with the ``coldstart.json`` for :data:`BEFORE`.
        reps: Bootstrap samples.

    Raises:
        RunError: If there is no study, or a study is not whole.
    """
    studies = {file.parent.name: _study_in(file, reps) for file in sorted(folder.glob(f"*/{COLDSTART}"))}
    if not studies:
        raise RunError(
            f"`folder`: {folder} holds no study (no SETTING/{COLDSTART}). Make one: {command_of((), folder)}"
        )
    if before is not None:
        file = before / COLDSTART
        if not file.is_file():
            raise RunError(f"`before`: there is no {file}.")
        # The study of that commit has no CPU seconds, and the goals do not need them.
        studies[BEFORE] = _study_in(file, reps, cpu_seconds={})
    return studies


def _study_in(file: Path, reps: int, **instead: Any) -> Study:
    """The study that a file holds, with some of its entries replaced.

    Raises:
        RunError: If the file is not whole, or holds no study.
    """
    way_out = "Make it anew by experiments.coldstart."
    content = {**read_json(file, way_out), **instead}
    try:
        return Study.from_json(content, reps)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"{file} holds no study, {type(error).__name__}: {error}. {way_out}") from error


def command_of(settings: Sequence[str], folder: Path) -> str:
    """The command that makes the study in a folder, or some settings of it."""
    chosen = [f"settings=[{','.join(settings)}]"] if settings else []
    path = ["path=FILE"] if not settings or "onet" in settings else []
    return " ".join(["python -m experiments.coldstart preset=full", *chosen, as_typed("folder", folder), *path])


def judge(goal: Goal, studies: Studies) -> Verdict:
    """The verdict on a goal, from the studies of each setting."""
    if missing := [words for _, words in _missing(goal, studies)]:
        return Verdict(goal.name, goal.what, MISSING, "; ".join(missing))
    holds, figures = goal.judge(studies)
    return Verdict(goal.name, goal.what, HOLDS if holds else FAILS, figures)


def _missing(goal: Goal, studies: Studies) -> Iterator[tuple[str, str]]:
    """Settings in which something is missing that a goal needs, with the missing thing in words."""
    for setting, learners in goal.needs.items():
        study = studies.get(setting)
        if setting == BEFORE:
            wanted = studies["vectors"].seeds if "vectors" in studies else []
            if study is None or not set(wanted) <= set(study.seeds):
                yield setting, "that commit's study on the same seeds"
        elif lacking := [name for name in learners if study is None or name not in study.scores]:
            yield setting, f"{', '.join(lacking)} in {setting}"
        elif study is not None and study.points[-1] < goal.until:
            yield setting, f"{goal.until:,} interactions in {setting}"


def _anywhere(setting: str) -> Goal:
    def judged(studies: Studies) -> Judgement:
        study = studies[setting]
        means = study.scores[OURS].mean(axis=0)
        below = {"its start": means[0] - means}
        if setting not in PRIOR_MISLEADS:
            below[COSINE] = study.scores[COSINE].mean(axis=0) - means
        what, (depth, point) = max(
            ((name, _deepest(values, study.points)) for name, values in below.items()), key=lambda found: found[1][0]
        )
        return depth <= 0.02, f"at most {depth:+.3f} below {what}, after {point:,}"

    needs = (OURS,) if setting in PRIOR_MISLEADS else (OURS, COSINE)
    than = "its start" if setting in PRIOR_MISLEADS else "cosine or its start"
    return Goal(f"1 anywhere: {setting}", f"mean at most .02 below {than}", {setting: needs}, _length(setting), judged)


def _no_seed_falls(setting: str, depth: float, name: str) -> Goal:
    def judged(studies: Studies) -> Judgement:
        study = studies[setting]
        below = study.scores[OURS][:, :1] - study.scores[OURS]
        row = int(below.max(axis=1).argmax())
        deepest, point = _deepest(below[row], study.points)
        return deepest <= depth, f"seed {study.seeds[row]} at most {deepest:+.3f} below its start, after {point:,}"

    return Goal(name, f"no seed more than {short(depth)} below its start", {setting: (OURS,)}, _length(setting), judged)


def _features_equal_ids(setting: str) -> Goal:
    def judged(studies: Studies) -> Judgement:
        study = studies[setting]
        means, others = (study.scores[name].mean(axis=0) for name in (OURS, FEATURES))
        apart = {point: float(abs(a - b)) for point, a, b in zip(study.points, means, others, strict=True)}
        later = {point: apart[point] for point in study.points if point >= 20}
        holds = all(value <= (0.02 if point >= 100 else 0.03) for point, value in later.items())
        start = float(others[0]) - study.mean(COSINE, 0)
        worst = max(later, key=lambda point: later[point])
        return holds and start >= 0, f"at most {later[worst]:.3f} apart, after {worst:,}; {start:+.3f} of cosine at 0"

    needs = {setting: (OURS, FEATURES, COSINE)}
    what = "features within .03 of ids from 20, .02 from 100, not below cosine at 0"
    return Goal(f"1 anywhere: {setting}", what, needs, _length(setting), judged)


def _regret_before(studies: Studies) -> Judgement:
    study, before = studies["vectors"], studies[BEFORE]
    rows = [before.seeds.index(seed) for seed in study.seeds]
    ratio = float(study.regret[OURS].mean() / before.regret[OURS][rows].mean())
    return ratio <= 0.92, f"{ratio:.3f} of it"


def _regret_of_gp(studies: Studies) -> Judgement:
    study = studies["vectors"]
    variants = [name for name in study.regret if name == GP or name.startswith(f"{GP}_")]
    best = min(variants, key=lambda name: study.regret[name].mean())
    # Our regret is at most 3 % above the best gp's, even at the upper end of the 95 % interval.
    _, _, high = paired_difference(study.regret[OURS], 1.03 * study.regret[best], study.reps)
    ratio = float(study.regret[OURS].mean() / study.regret[best].mean())
    return high <= 0, f"{ratio:.3f} of {best}'s; ours minus 1.03 times it is at most {high:+.1f} at 95 %"


def _near_opponents(studies: Studies) -> Judgement:
    study = studies["vectors"]
    means, regret = study.scores[OURS].mean(axis=0), study.regret[OURS].mean()
    rivals = {
        name: scores.mean(axis=0)
        for name, scores in study.scores.items()
        if not name.startswith(OURS) and name != "oracle" and study.regret[name].mean() <= 1.25 * regret
    }
    below = {"its start": means[0] - means, **{name: theirs - means for name, theirs in rivals.items()}}
    deepest = {name: _deepest(values, study.points) for name, values in below.items()}
    worst = max(deepest, key=lambda name: deepest[name][0])
    depth, point = deepest[worst]
    return (
        depth <= 0.01,
        f"at most {depth:+.3f} below {worst}, after {point:,}, of {len(rivals)} opponents and its start",
    )


def _profile(studies: Studies) -> Judgement:
    study = studies["profile"]
    wanted = {100: 0.63, 400: 0.66, 1500: 0.70}
    means = {point: study.mean(OURS, point) for point in wanted}
    regret = float(study.regret[OURS].mean())
    figures = ", ".join(f"{mean:.3f} after {point:,}" for point, mean in means.items())
    return all(means[point] >= wanted[point] for point in wanted) and regret <= 200, f"{figures}; regret {regret:.0f}"


def _profile_with_prior(studies: Studies) -> Judgement:
    study = studies["profile"]
    least = float(study.scores[PAIR_PRIOR].mean(axis=0).min())
    end, fixed = (study.mean(name, study.points[-1]) for name in (PAIR_PRIOR, FIXED_PAIR_PRIOR))
    regret = float(study.regret[PAIR_PRIOR].mean())
    figures = f"least {least:.3f}; {end:.3f} against {fixed:.3f} at the end; regret {regret:.0f}"
    return least >= 0.69 and end > fixed and regret <= 190, figures


def _lets_go(studies: Studies) -> Judgement:
    study = studies["misled"]

    def share(point: int) -> NDArray[np.float64]:
        at = study.points.index(point)
        return study.scores[OURS][:, at] / study.scores[NO_PRIOR][:, at]

    after_100, after_200 = share(100), share(200)
    n, n_seeds = int((after_100 >= 0.9).sum()), len(study.seeds)
    holds = n >= 0.8 * n_seeds and bool((after_200 >= 0.9).all())
    return holds, f"after 100 in {n} of {n_seeds} seeds; after 200 at least {after_200.min():.2f} of it"


def _mean_keeps(setting: str, depth: float, name: str, what: str) -> Goal:
    def judged(studies: Studies) -> Judgement:
        means = studies[setting].scores[OURS].mean(axis=0)
        deepest, point = _deepest(means[0] - means, studies[setting].points)
        return deepest <= depth, f"at most {deepest:+.3f} below its start, after {point:,}"

    return Goal(name, what, {setting: (OURS,)}, _length(setting), judged)


def _above_blocks(setting: str) -> Goal:
    goal = f"5 {setting}"
    judged = _above(setting, BLOCKS, 0.0, from_point=20)
    return Goal(goal, "mean above linear_blocks from 20 on", {setting: (OURS, BLOCKS)}, _length(setting), judged)


def _above(setting: str, other: str, margin: float, from_point: int = 0) -> Callable[[Studies], Judgement]:
    """A judge that compares our mean with another learner's. From a point on, ours may be below by a margin at most."""

    def judged(studies: Studies) -> Judgement:
        study = studies[setting]
        leads = study.scores[OURS].mean(axis=0) - study.scores[other].mean(axis=0)
        at = {point: float(lead) for point, lead in zip(study.points, leads, strict=True) if point >= from_point}
        worst = min(at, key=lambda point: at[point])
        return at[worst] >= -margin, f"{at[worst]:+.3f} at worst, after {worst:,}"

    return judged


def _recorded(studies: Studies) -> Judgement:
    study = studies["recorded"]
    score, regret = study.mean(OURS, 400), float(study.regret[OURS].mean())
    return score >= 0.75 and regret <= 36, f"{score:.3f}; regret {regret:.1f}"


def _onet(studies: Studies) -> Judgement:
    study = studies["onet"]
    level, figures = _above("onet", BLOCKS, 0.005)(studies)
    ours, theirs = (float(study.regret[name].mean()) for name in (OURS, BLOCKS))
    return level and ours < theirs, f"{figures}; regret {ours:.0f} against {theirs:.0f}"


def _board(studies: Studies) -> Judgement:
    means = studies["board"].scores[OURS].mean(axis=0)
    return bool(means[-1] - means[0] >= 0.08), f"{means[0]:.3f} to {means[-1]:.3f}"


def _tuned_near_cosine(setting: str) -> Goal:
    def judged(studies: Studies) -> Judgement:
        study = studies[setting]
        leads = study.scores[TUNED].mean(axis=0) - study.scores[COSINE].mean(axis=0)
        depth, point = _deepest(-leads, study.points)
        return depth <= 0.03, f"at most {depth:+.3f} below, after {point:,}"

    return Goal(
        f"7 dynaq_tuned: {setting}", "never .03 below cosine", {setting: (TUNED, COSINE)}, _length(setting), judged
    )


def _tuned_above_cosine(studies: Studies) -> Judgement:
    study = studies["profile"]
    lead = study.mean(TUNED, 1500) - study.mean(COSINE, 1500)
    return lead > 0, f"{lead:+.3f}"


def _cpu(studies: Studies) -> Judgement:
    spent = studies["vectors"].cpu_ms(OURS)
    return spent <= 5, f"{spent:.1f} ms"


def _length(setting: str) -> int:
    return 400 if setting == "recorded" else 1500


def _deepest(below: NDArray[np.float64], points: Sequence[int]) -> tuple[float, int]:
    """The largest of ``below`` (n_points,), and the number of interactions at that point."""
    at = int(below.argmax())
    return float(below[at]), points[at]


def short(value: float) -> str:
    """A number below 1 with two decimals, without the first zero: ``".06"``."""
    return f"{value:.2f}".lstrip("0")


GOALS = (
    *(_anywhere(setting) for setting in (*EVERYWHERE, *PRIOR_MISLEADS)),
    *(_no_seed_falls(setting, 0.06, f"1 anywhere: {setting}") for setting in (*EVERYWHERE, *PRIOR_MISLEADS)),
    *(_features_equal_ids(setting) for setting in ("vectors", "profile")),
    Goal(
        "2 vectors",
        "regret at most .92 of dynaq_plus at b433fb5",
        {"vectors": (OURS,), BEFORE: (OURS,)},
        1500,
        _regret_before,
    ),
    Goal("2 vectors", "regret at most 3 % above the best gp's at 95 %", {"vectors": (OURS, GP)}, 1500, _regret_of_gp),
    Goal(
        "2 vectors",
        "mean at most .01 below its start, and below each opponent of up to 1.25 times its regret",
        {"vectors": (OURS, GP, BLOCKS)},
        1500,
        _near_opponents,
    ),
    Goal(
        "3 profile",
        "without a prior on the pairs .63, .66, .70 after 100, 400, 1,500; regret at most 200",
        {"profile": (OURS,)},
        1500,
        _profile,
    ),
    Goal(
        "3 profile",
        "with a prior on the pairs never below .69, at the end above that prior alone; regret at most 190",
        {"profile": (PAIR_PRIOR, FIXED_PAIR_PRIOR)},
        1500,
        _profile_with_prior,
    ),
    Goal(
        "4 misled",
        "at least .9 of itself without a prior, after 100 in 8 of 10 seeds, after 200 in all",
        {"misled": (OURS, NO_PRIOR)},
        1500,
        _lets_go,
    ),
    _mean_keeps("vectors", 0.015, "4 misled", "in vectors the right prior loses at most .015"),
    *(_mean_keeps(setting, 0.01, f"5 {setting}", "mean at most .01 below its start") for setting in SPARSE),
    *(_no_seed_falls(setting, 0.03, f"5 {setting}") for setting in SPARSE),
    *(_above_blocks(setting) for setting in SPARSE),
    Goal("6 recorded", "at least .75 after 400, regret at most 36", {"recorded": (OURS,)}, 400, _recorded),
    Goal("6 onet", "within .005 of linear_blocks or above, with less regret", {"onet": (OURS, BLOCKS)}, 1500, _onet),
    Goal("6 board", "rises by .08", {"board": (OURS,)}, 1500, _board),
    *(_tuned_near_cosine(setting) for setting in ("vectors", "profile")),
    Goal("7 dynaq_tuned: profile", "above cosine after 1,500", {"profile": (TUNED, COSINE)}, 1500, _tuned_above_cosine),
    Goal("8 CPU", "at most 5 ms an interaction in vectors", {"vectors": (OURS,)}, 1500, _cpu),
)
"""The goals for the results of ``experiments.coldstart preset=full``, in the order of the table."""


if __name__ == "__main__":
    main()
