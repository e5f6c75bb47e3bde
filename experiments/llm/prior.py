"""``python -m experiments.llm.prior``: how much a model's answers help as a prior, by the share that is right."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from experiments.runs.command import command
from experiments.runs.folders import commit_of_checkout, commits_by, read_json, write_figure, write_json, write_text
from experiments.runs.processes import in_processes
from experiments.runs.progress import Progress
from experiments.runs.tables import Table, format_table
from jobrec_gym import LabourMarket, RecordedSimulator, RuleSimulator, load_market
from jobrec_gym.counter_rng import hash64, normal, normal_cdf
from jobrec_gym.simulators.base import DECISIONS, DEFAULT_REWARDS, CertainFeedback
from jobrec_gym.simulators.rules import QUANTILES

__all__ = [
    "CHECKPOINTS",
    "PRIORS",
    "Cell",
    "PlantedAnswers",
    "alignment_of",
    "by_seed",
    "corrupted",
    "cost_table",
    "figure_of",
    "goals_of",
    "goals_table",
    "means_tables",
    "play",
    "score_table",
    "table_rows",
]

Floats = NDArray[np.float64]

PRIORS = ("none", "cosine", "model", "both")
"""The agent's prior: none, the cosine, the language model's answers, or cosine and model."""

CHECKPOINTS = (0, 20, 50, 100, 200)
"""Interactions after which the greedy policy is scored."""

THIS_MODEL = ("model", "model less job's mean")
"""Two forms of the model's answers, for runs on the planted truth: probabilities, and probabilities minus each job's
mean."""

SCORE_LIMIT, REGRET_LIMIT = 0.02, 0.05
"""Limits of what a source may cost, compared with the same prior without it. The first is for the loss of score from 50
answers on. The second is for the share by which the regret of the answers after the 50th is larger."""

_REWARDS = np.array([DEFAULT_REWARDS[decision] for decision in DECISIONS])
_N_CANDIDATES, _SETS = 10, 200
_SHUFFLED, _NEGATED, _TEST, _NOISE = 1, 2, 3, 4


@command(
    config_path="../../conf",
    config_name="prior",
    kept="every run that is finished, in {folder}",
)
def main(cfg: DictConfig) -> None:
    """Runs what is missing, and writes table, figure and numbers."""
    options: Any = OmegaConf.to_container(cfg, resolve=True)
    folder = Path(cfg.folder)
    cells = [
        Cell(seed, float(noise), prior, alignment, truth)
        for seed, noise in itertools.product(options["seeds"], options["noises"])
        for prior, alignment, truth in _cases(options["alignments"])
    ]
    try:
        runs = run_cells(cells, folder / "cells", cfg.n_interactions, cfg.n_jobs)
    except (ValueError, TypeError) as error:
        raise SystemExit(f"error: {error}") from error
    rows = table_rows(runs, options["alignments"])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([["alignment", "noise", "prior", "score", "regret"], *rows])
    tables = score_table(runs, options["alignments"], options["noises"])
    tables += cost_table(runs, options["alignments"], options["noises"])
    tables += means_tables(runs, options["alignments"], options["noises"])
    goals = goals_of(runs, options["alignments"], options["noises"])
    tables += goals_table(goals, options["alignments"], options["noises"])
    for header, lines in tables:
        print(format_table(header, lines), end="\n\n")
    about = {"seeds": options["seeds"], "n_interactions": cfg.n_interactions, "commit": commit_of_checkout()}
    about["commits"] = commits_by((cell.prior, run.get("commit")) for cell, run in runs.items())
    about["goals"] = goals
    about["by_seed"] = by_seed(runs)
    write_json(folder / "prior.json", {**about, "tables": [{"header": h, "rows": r} for h, r in tables]})
    write_figure(folder / "prior.png", figure_of(runs, options["alignments"], options["noises"]))
    write_text(folder / "table.csv", text.getvalue())
    print(f"numbers  {folder / 'prior.json'}\nfigure   {folder / 'prior.png'}")
    print(folder / "table.csv")


@dataclass(frozen=True)
class Cell:
    """One run of one agent.

    Attributes:
        seed: Seed of the wrong answers, of the episodes, and of the noise of the answers.
        noise: Noise of an answer, in standard deviations of the truth's utility.
        prior: One of :data:`PRIORS`. If ``truth`` is ``"rules"``, a form in :data:`THIS_MODEL` takes the place of
            ``"model"``, and ``"cosine and FORM"`` that of ``"both"``.
        alignment: For the truth ``"recorded"`` and a prior with the model: 1 if the prior's answers are the truth, 0 if
            they are unrelated to it, -1 if they are its opposite. In all other runs it is 0, and not used.
        truth: With ``"recorded"`` the model's answers are the truth, and the prior gets them with a share of the
            answers shuffled or negated. With ``"rules"`` the truth is the project's planted one, and the prior gets the
            model's answers unchanged.
    """

    seed: int
    noise: float
    prior: str
    alignment: float = 0.0
    truth: str = "recorded"

    @property
    def name(self) -> str:
        """The name of the run's file."""
        prior = self.prior.replace(" ", "-").replace("'", "")
        return f"{self.truth}_{prior}_{self.alignment:g}_{self.noise:g}_{self.seed}"


@dataclass(frozen=True)
class Comparison:
    """A prior, and the same prior without one of its sources.

    Attributes:
        words: Its name in tables. The name may say what the prior is compared with. If it does not, a prior with the
            model is compared with the same prior without the model, and the prior ``"cosine"`` with ``"none"``.
        prior: The prior with the source.
        without: The prior without the source.
        truth: As for :class:`Cell`.
    """

    words: str
    prior: str
    without: str
    truth: str = "recorded"

    def cases(self, alignments: Sequence[float]) -> list[tuple[str, float]]:
        """Names and alignments: one for each alignment, or a single one if the prior reads no corrupted answers."""
        if not _reads_corrupted_answers(self.prior, self.truth):
            return [(self.words, 0.0)]
        return [(f"{self.words}, alignment {alignment:g}", alignment) for alignment in alignments]


_OF_THE_MODEL = (Comparison("model", "model", "none"), Comparison("both", "both", "cosine"))


def _comparisons() -> list[Comparison]:
    of_rules = [("cosine", "none")]
    of_rules += [(form, "none") for form in THIS_MODEL]
    of_rules += [(f"cosine and {form}", "cosine") for form in THIS_MODEL]
    return [
        *_OF_THE_MODEL,
        Comparison("both against model", "both", "model"),
        Comparison("cosine", "cosine", "none"),
        *(Comparison(f"planted truth: {prior}", prior, without, "rules") for prior, without in of_rules),
        *(
            Comparison(f"planted truth: cosine and {form} against {form}", f"cosine and {form}", form, "rules")
            for form in THIS_MODEL
        ),
    ]


def _reads_corrupted_answers(prior: str, truth: str) -> bool:
    return truth == "recorded" and prior in PRIORS[2:]


def _cases(alignments: Sequence[float]) -> list[tuple[str, float, str]]:
    """Prior, alignment and truth of all runs of a seed and a noise. A prior without the model is run once."""
    cases = [("none", 0.0, "recorded"), ("cosine", 0.0, "recorded")]
    cases += [(prior, float(alignment), "recorded") for alignment in alignments for prior in ("model", "both")]
    of_rules = ("none", "cosine", *THIS_MODEL, *(f"cosine and {word}" for word in THIS_MODEL))
    return cases + [(prior, 0.0, "rules") for prior in of_rules]


def alignment_of(shuffled: float = 0.0, negated: float = 0.0) -> float:
    """The expected correlation of the truth with a copy in which a share of the answers is shuffled, or negated."""
    return 1 - shuffled - 2 * negated


def corrupted(answers: Floats, alignment: float, seed: int) -> Floats:
    """Answers (n, m) of which a share is wrong.

    For an alignment of 0 or more the wrong answers are shuffled among themselves; below 0 they are negated, that is
    mirrored at the mean of all answers.

    Args:
        answers: The model's answers.
        alignment: From 1 (all answers right) to -1 (all negated). At 0 all answers are shuffled, although negating half
            of them would give 0, too.
        seed: Seed of the choice of wrong answers.

    Raises:
        ValueError: If the alignment is outside of [-1, 1].

    Example:
        >>> corrupted(np.array([[1.0, 2.0, 6.0]]), -1.0, seed=0)
        array([[5., 4., 0.]])
    """
    _require_alignment(alignment)
    flat = answers.ravel().copy()
    if alignment >= 0:
        rng = np.random.default_rng((seed, _SHUFFLED))
        wrong = rng.permutation(flat.size)[: round((1 - alignment) * flat.size)]
        flat[wrong] = flat[rng.permutation(wrong)]
    else:
        rng = np.random.default_rng((seed, _NEGATED))
        wrong = rng.permutation(flat.size)[: round((1 - alignment) / 2 * flat.size)]
        flat[wrong] = 2 * flat.mean() - flat[wrong]
    return flat.reshape(answers.shape)


def _require_alignment(alignment: float) -> None:
    if not -1 <= alignment <= 1:
        raise ValueError(f"`alignments` must be in [-1, 1], got {alignment}.")


class PlantedAnswers:
    """Applicants who decide by a table of utilities, the truth of this study.

    As in :class:`~jobrec_gym.simulators.rules.RuleSimulator`, the 60 %, 85 % and 95 % quantiles of the utility are the
    thresholds of click, save and apply, and each answer has noise of its own.

    Args:
        utility: (n_applicants, n_jobs).
        noise: Standard deviation of the noise, in standard deviations of the utility.
    """

    def __init__(self, utility: Floats, noise: float):
        self._utility = (utility - utility.mean()) / utility.std()
        self._noise = noise
        self._cuts = np.quantile(self._utility, QUANTILES)

    def bind(self, market: LabourMarket) -> PlantedAnswers:
        """Returns itself, because the table already belongs to a market."""
        return self

    def feedback(
        self,
        applicant_ids: NDArray[np.int64],
        job_ids: NDArray[np.int64],
        interaction_keys: NDArray[np.uint64] | None = None,
    ) -> CertainFeedback:
        """Decisions of n pairs."""
        assert interaction_keys is not None, "its answers are noisy, and drawn from a key"
        told = self._utility[applicant_ids, job_ids] + self._noise * normal(hash64(_NOISE, interaction_keys))
        return CertainFeedback(self._cuts.searchsorted(told, side="right"), _REWARDS)

    def expected_reward(self, applicant_ids: NDArray[np.int64], job_ids: NDArray[np.int64]) -> Floats:
        """Mean reward of pairs, for ids that broadcast."""
        utility = self._utility[applicant_ids, job_ids]
        if not self._noise:
            return _REWARDS[self._cuts.searchsorted(utility, side="right")]
        above = normal_cdf((utility[..., None] - self._cuts) / self._noise)
        return _REWARDS[0] + above @ np.diff(_REWARDS)


def _sources(cell: Cell, market: LabourMarket) -> dict[str, Any]:
    """The sources that a cell's agent begins with."""
    said = (
        RecordedSimulator()
        .bind(market)
        .probabilities(np.arange(len(market.applicants))[:, None], np.arange(len(market.jobs)))
    )
    sources: dict[str, Any] = {}
    if cell.prior in ("cosine", "both") or cell.prior.startswith("cosine and"):
        sources["cosine"] = "cosine"
    if cell.truth == "rules":
        for word in THIS_MODEL:
            if cell.prior in (word, f"cosine and {word}"):
                sources["model"] = {"values": said, "less_job_mean": word != "model"}
    elif cell.prior in ("model", "both"):
        sources["model"] = corrupted(said, cell.alignment, cell.seed)
    return sources


def play(cell: Cell, n_interactions: int = CHECKPOINTS[-1]) -> dict[str, Any]:
    """One run: an agent learns from ``n_interactions`` answers.

    Returns:
        ``score``, ``regret`` and ``trust``, each by checkpoint (a text such as ``"20"``). ``trust`` has for each source
        the mean of its factor, and the probabilities that the factor is 1 and that it is 0.
    """
    # Not at the top: `--help` is answered without torch.
    import gymnasium as gym
    import torch

    from dynaq_algo import DynaQ
    from dynaq_algo.gaussian_process import SCALES_WITH_SOURCES
    from jobrec_gym import FeedbackReward

    torch.set_num_threads(1)
    market = load_market("recorded")
    if cell.truth == "rules":
        truth: Any = RuleSimulator(seed=cell.seed, noise=cell.noise).bind(market)
        simulator: Any = RuleSimulator(seed=cell.seed, noise=cell.noise)
    else:
        applicants, jobs = np.arange(len(market.applicants))[:, None], np.arange(len(market.jobs))
        truth = simulator = PlantedAnswers(RecordedSimulator().bind(market).probabilities(applicants, jobs), cell.noise)
    sources = _sources(cell, market)
    env = FeedbackReward(
        gym.make(
            "JobRec-v0", market=market, num_candidates=_N_CANDIDATES, observation="ids", prior_sources=sources or None
        ),
        simulator,
    )
    if sources:
        agent = DynaQ.plus(env, seed=cell.seed, prior_sources=list(sources))
    else:
        # The same agent without sources.
        agent = DynaQ.plus(
            env,
            seed=cell.seed,
            policy_kwargs={"prior": [0.0, 0.0]},
            world_model_kwargs={"scales": dict(SCALES_WITH_SOURCES)},
        )
    score = _scorer(market, truth, env.unwrapped if sources else None, cell.seed)
    expected = truth.expected_reward(np.arange(len(market.applicants))[:, None], np.arange(len(market.jobs)))
    checkpoints = [at for at in CHECKPOINTS if at <= n_interactions]
    result: dict[str, Any] = {"score": {}, "regret": {}, "trust": {}}
    regret = 0.0
    obs, info = env.reset(seed=cell.seed)
    for at in range(n_interactions + 1):
        if at in checkpoints:
            result["score"][str(at)] = score(agent.q_values)
            result["regret"][str(at)] = regret
            result["trust"][str(at)] = _trust(agent.world_model)
        if at == n_interactions:
            break
        action, _ = agent.predict(obs, deterministic=False)
        shown = expected[info["applicant_id"], info["candidate_ids"]]
        regret += float(shown.max() - shown[action])
        next_obs, reward, terminated, truncated, info = env.step(int(action))
        agent.observe(obs, int(action), float(reward))
        obs = next_obs
        if terminated or truncated:
            obs, info = env.reset()
    return result


def _trust(model: Any) -> dict[str, list[float]]:
    if model.sources is None:
        return {}
    found = model.trust()
    columns = zip(model.sources, found.mean, found.kept, found.dropped, strict=True)
    return {name: [float(number) for number in numbers] for name, *numbers in columns}


def _scorer(market: LabourMarket, truth: Any, env: Any, seed: int) -> Callable[[Any], float]:
    """A function that scores an agent's Q-values on the test applicants: 0 is a random choice, 1 the best one."""
    people, jobs = market.applicants.rows("test"), np.arange(len(market.jobs))
    rng = np.random.default_rng((seed, _TEST))
    sets = rng.random((len(people), _SETS, len(jobs))).argsort(axis=2)[..., :_N_CANDIDATES]
    rows = np.arange(len(people))[:, None, None]
    worth = truth.expected_reward(people[:, None], jobs)[rows, sets]
    random, best = worth.mean(), worth.max(axis=2).mean()
    obs = {"applicant": market.applicants.vectors[people], "candidates": np.tile(jobs, (len(people), 1))}
    if env is not None:
        obs["pairs"] = env.pair_features(people[:, None], jobs)

    def score(q_values: Callable[[Any], Any]) -> float:
        chosen = np.asarray(q_values(obs))[rows, sets].argmax(axis=2)[..., None]
        return float((np.take_along_axis(worth, chosen, axis=2).mean() - random) / (best - random))

    return score


def run_cells(cells: Sequence[Cell], folder: Path, n_interactions: int, n_jobs: int = 1) -> dict[Cell, dict[str, Any]]:
    """Makes all runs. A run that has a file already is read from it, with the commit that made it.

    Args:
        cells: The runs to make.
        folder: Where the file of each run is.
        n_interactions: Interactions of each run.
        n_jobs: Number of processes.

    Raises:
        ValueError: If an alignment is outside of [-1, 1], a noise is below 0 or no number, or ``n_jobs`` is below 1.
            This is found before the first run.
    """
    if n_jobs < 1:
        raise ValueError(f"`n_jobs` must be at least 1, got {n_jobs}.")
    for cell in cells:
        _require_alignment(cell.alignment)
        if not 0 <= cell.noise < math.inf:
            raise ValueError(f"`noises` must be finite numbers of 0 or more, got {cell.noise}.")
    runs: dict[Cell, dict[str, Any]] = {}
    for cell in cells:
        file = folder / f"{cell.name}.json"
        there = read_json(file, "Remove it, and it is made again.") if file.is_file() else {}
        if there.get("n_interactions") == n_interactions:
            runs[cell] = there["run"]
    missing = [cell for cell in cells if cell not in runs]
    commit = commit_of_checkout()
    with Progress(len(cells), "prior", "run") as progress:
        progress.update(len(runs))
        one_by_one = ((cell, play(cell, n_interactions)) for cell in missing)
        side_by_side = in_processes(partial(play, n_interactions=n_interactions), missing, n_jobs)
        for cell, run in one_by_one if n_jobs == 1 or len(missing) < 2 else side_by_side:
            runs[cell] = {"commit": commit, **run}
            write_json(folder / f"{cell.name}.json", {"n_interactions": n_interactions, "run": runs[cell]})
            progress.update(1)
    return runs


Runs = dict[Cell, dict[str, Any]]


def table_rows(runs: Runs, alignments: Sequence[float]) -> list[list[str]]:
    """Rows of alignment, noise, prior, and the score and regret at the last checkpoint, which are means over seeds.

    A prior without the model has a row for each alignment, always from the same runs.
    """
    rows = []
    for alignment, noise in itertools.product(alignments, sorted({cell.noise for cell in runs})):
        for prior in PRIORS:
            found = _of(runs, noise, prior, alignment)
            last = list(found[0]["score"])[-1]
            score, regret = (float(np.mean([run[what][last] for run in found])) for what in ("score", "regret"))
            rows.append([f"{alignment:g}", f"{noise:g}", prior, f"{score:.4f}", f"{regret:.3f}"])
    return rows


def score_table(runs: Runs, alignments: Sequence[float], noises: Sequence[float]) -> list[Table]:
    """Tables of scores: one for each noise, then another one for each noise under the project's planted truth.

    The tables of the first kind have a row for each prior and alignment. All tables include the learned trust in the
    model.
    """
    some = next(iter(runs.values()))
    checkpoints = list(some["score"])
    tables = []
    for noise in noises:
        cases = [(words, _of(runs, noise, prior, a)) for words, prior, a in _rows_of_recorded(alignments)]
        tables.append(_table(f"noise {noise:g}: prior", checkpoints, cases))
    for noise in noises:
        priors = dict.fromkeys(cell.prior for cell in runs if cell.truth == "rules")
        rules = [(prior, _of(runs, noise, prior, 0.0, "rules")) for prior in priors]
        if rules:
            tables.append(_table(f"planted truth, noise {noise:g}: prior", checkpoints, rules))
    return tables


def _table(title: str, checkpoints: Sequence[str], found: Sequence[tuple[str, list[dict[str, Any]]]]) -> Table:
    later = checkpoints[1:]
    header = [title, *(f"score {at}" for at in checkpoints), *(f"regret {at}" for at in later)]
    told = [at for at in ("20", "50") if at in checkpoints]
    header += [f"model's trust {at}" for at in told]
    rows = []
    for words, of_seeds in found:
        scores = [f"{np.mean([run['score'][at] for run in of_seeds]):.3f}" for at in checkpoints]
        regrets = [f"{np.mean([run['regret'][at] for run in of_seeds]):.1f}" for at in later]
        trusts = []
        for at in told:
            means = [run["trust"][at]["model"][0] for run in of_seeds if "model" in run["trust"][at]]
            trusts.append(f"{np.mean(means):.2f} +- {np.std(means):.2f}" if means else "")
        rows.append([words, *scores, *regrets, *trusts])
    return header, rows


def _of(runs: Runs, noise: float, prior: str, alignment: float, truth: str = "recorded") -> list[dict[str, Any]]:
    """The runs of all seeds, in their order."""
    wanted = alignment if _reads_corrupted_answers(prior, truth) else 0.0
    cells = [
        cell for cell in runs if (cell.noise, cell.prior, cell.alignment, cell.truth) == (noise, prior, wanted, truth)
    ]
    return [runs[cell] for cell in sorted(cells, key=lambda cell: cell.seed)]


def cost_table(runs: Runs, alignments: Sequence[float], noises: Sequence[float]) -> list[Table]:
    """A table of what a source costs and saves, compared with the same agent without it.

    Its columns are the loss of score after 50, 100 and 200 answers; by which share the regret of the 51st to the 200th
    answer is larger than without the source; and the share of the regret of the first 100 answers that is saved. All
    columns are means over noises and seeds, with standard errors over seeds. The error of a share is that of a ratio of
    two means. If a run is too short, there is no table.
    """
    if not _has_all_checkpoints(runs):
        return []
    after = ("50", "100", "200")
    rows = []
    for comparison in _comparisons():
        for words, alignment in comparison.cases(alignments):
            found, base = (
                [_of(runs, noise, prior, alignment, comparison.truth) for noise in noises]
                for prior in (comparison.prior, comparison.without)
            )
            if not (all(found) and all(base)):
                continue
            lost = [_mean_of_noises(base, "score", at) - _mean_of_noises(found, "score", at) for at in after]
            (early, first, last), (early_base, first_base, last_base) = (
                [_mean_of_noises(each, "regret", at) for at in after] for each in (found, base)
            )
            more, more_error = _ratio(last - early, last_base - early_base)
            left, left_error = _ratio(first, first_base)
            shares = [_number(more - 1, more_error, 2), _number(1 - left, left_error, 2)]
            rows.append([words, *(_with_error(values, 3) for values in lost), *shares])
    header = ["cost: prior", *(f"score lost {at}" for at in after), "more regret 50 to 200", "regret saved 100"]
    return [(header, rows)]


def means_tables(runs: Runs, alignments: Sequence[float], noises: Sequence[float]) -> list[Table]:
    """Two tables of scores and regret as means over noises, with standard errors over seeds.

    The first is for the planted truth, the second for the recorded one. If a run is too short, there are no tables.
    """
    if not _has_all_checkpoints(runs):
        return []
    planted = list(dict.fromkeys(cell.prior for cell in runs if cell.truth == "rules"))
    tables = []
    for title, truth, cases in (
        ("planted truth, mean of noises: prior", "rules", [(prior, prior, 0.0) for prior in planted]),
        ("mean of noises: prior", "recorded", _rows_of_recorded(alignments)),
    ):
        rows = []
        for words, prior, alignment in cases:
            found = [_of(runs, noise, prior, alignment, truth) for noise in noises]
            if all(found):
                scores = [_with_error(_mean_of_noises(found, "score", at), 3) for at in ("0", "20", "50", "100")]
                regrets = [_with_error(_mean_of_noises(found, "regret", at), 1) for at in ("100", "200")]
                rows.append([words, *scores, *regrets])
        tables.append((title, rows))
    columns = [*(f"score {at}" for at in (0, 20, 50, 100)), *(f"regret {at}" for at in (100, 200))]
    return [([title, *columns], rows) for title, rows in tables if rows]


def _rows_of_recorded(alignments: Sequence[float]) -> list[tuple[str, str, float]]:
    """Words, prior and alignment of the rows of a table for the recorded truth."""
    rows = [(prior, prior, 0.0) for prior in PRIORS[:2]]
    return rows + [
        (f"{prior}, alignment {alignment:g}", prior, alignment) for prior in PRIORS[2:] for alignment in alignments
    ]


def _has_all_checkpoints(runs: Runs) -> bool:
    return str(CHECKPOINTS[-1]) in next(iter(runs.values()))["score"]


def _mean_of_noises(found: Sequence[list[dict[str, Any]]], what: str, at: str) -> Floats:
    """Means over noises, (n_seeds,)."""
    values: Floats = np.array([[run[what][at] for run in of_seeds] for of_seeds in found])
    return values.mean(axis=0)


def _ratio(values: Floats, base: Floats) -> tuple[float, float]:
    """The ratio of two means over seeds, and its standard error; NaN for a single seed.

    Both means differ by seed, so the error is that of the residuals ``values - ratio * base`` (the delta method;
    Cochran, Sampling Techniques, 1977, chapter 6).
    """
    ratio = float(values.mean() / base.mean())
    if len(values) < 2:
        return ratio, math.nan
    residuals = values - ratio * base
    return ratio, float(residuals.std(ddof=1) / (abs(base.mean()) * math.sqrt(len(values))))


def _number(value: float, error: float, digits: int) -> str:
    return f"{value:.{digits}f}" + ("" if math.isnan(error) else f" +- {error:.{digits}f}")


def _with_error(values: Floats, digits: int) -> str:
    """Mean of values (n,), and their standard error if n is above 1."""
    return _number(float(values.mean()), _error(values), digits)


def _error(values: Floats) -> float:
    """Standard error of the mean of values (n,); NaN for a single one."""
    return float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def goals_of(runs: Runs, alignments: Sequence[float], noises: Sequence[float]) -> dict[str, Any]:
    """What each source costs and saves, compared with the same prior without it; means over seeds.

    Returns:
        ``cost``, by prior, noise and alignment: the loss of score after 50, 100 and 200 interactions, and by which
        share the regret of the 51st to the 200th interaction is larger than without the source. ``saved``, by prior
        and noise: the share of the regret of the first 100 interactions that the model saves at an alignment of 1.
        ``told``, by prior and noise, after 20 and after 50 answers: each run at alignment 1 is compared with each run
        at alignment 0; this is the share of comparisons in which the run at alignment 1 trusts the model more. If a
        run is too short, the whole result is empty.
    """
    if not _has_all_checkpoints(runs):
        return {}
    cost = {}
    for comparison, noise in itertools.product(_comparisons(), noises):
        for words, alignment in comparison.cases(alignments):
            found, base = (
                _of(runs, noise, prior, alignment, comparison.truth) for prior in (comparison.prior, comparison.without)
            )
            if found and base:
                cost[_at_noise(words, noise)] = _cost(found, base)
    saved: dict[str, float] = {}
    told: dict[str, dict[str, float]] = {}
    for comparison, noise in itertools.product(_OF_THE_MODEL, noises):
        prior, key = comparison.prior, f"{comparison.prior}, noise {noise:g}"
        if 1 not in alignments:
            continue
        right, base = _of(runs, noise, prior, 1.0), _of(runs, noise, comparison.without, 0.0)
        saved[key] = 1 - _mean_regret(right, "0", "100") / _mean_regret(base, "0", "100")
        if 0 in alignments:
            wrong = _of(runs, noise, prior, 0.0)
            told[key] = {
                at: float(
                    np.mean([a["trust"][at]["model"][0] > b["trust"][at]["model"][0] for a in right for b in wrong])
                )
                for at in ("20", "50")
            }
    return {"cost": cost, "saved": saved, "told": told}


def _at_noise(words: str, noise: float) -> str:
    """The name of a comparison at one noise, such as ``"model, noise 0.5, alignment 1"``."""
    name, comma, alignment = words.partition(", alignment")
    return f"{name}, noise {noise:g}{comma}{alignment}"


def _mean_regret(found: Sequence[dict[str, Any]], start: str, end: str) -> float:
    return float(np.mean([run["regret"][end] - run["regret"][start] for run in found]))


def _cost(found: Sequence[dict[str, Any]], base: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the runs ``found`` cost, compared with the runs ``base`` of the same seeds."""
    lost = {
        at: float(np.mean([one["score"][at] - two["score"][at] for one, two in zip(base, found, strict=True)]))
        for at in ("50", "100", "200")
    }
    return {"score": lost, "regret": _mean_regret(found, "50", "200") / _mean_regret(base, "50", "200") - 1}


def goals_table(goals: dict[str, Any], alignments: Sequence[float], noises: Sequence[float]) -> list[Table]:
    """How often a source costs more than its limits: a row for each comparison, counted over noises and alignments.

    The limits are :data:`SCORE_LIMIT` after 50, 100 or 200 answers, and :data:`REGRET_LIMIT` of the regret of the
    answers after the 50th.

    Args:
        goals: What :func:`goals_of` returned. If that is empty, there is no table.
        alignments: The alignments of the runs.
        noises: The noises of the runs.
    """
    cost = goals.get("cost", {})
    rows = []
    for comparison in _comparisons():
        names = [_at_noise(words, noise) for words, _ in comparison.cases(alignments) for noise in noises]
        costs = [cost[name] for name in names if name in cost]
        if costs:
            score = [max(each["score"].values()) > SCORE_LIMIT for each in costs]
            regret = [each["regret"] > REGRET_LIMIT for each in costs]
            either = [a or b for a, b in zip(score, regret, strict=True)]
            rows.append([comparison.words, *(str(sum(each)) for each in (score, regret, either)), str(len(costs))])
    total = [str(sum(int(row[column]) for row in rows)) for column in range(1, 5)]
    header = ["above the limits: prior", "in score", "in regret", "in either", "of"]
    return [(header, [*rows, ["all", *total]])] if rows else []


def by_seed(runs: Runs) -> dict[str, dict[str, str]]:
    """The figures of each seed, by the names that tables have for a noise and a prior.

    Returns:
        For a name such as ``"noise 0.5: model, alignment 1"``: scores, regret and the learned trust in the model, by
        checkpoint. Each is a text of numbers with spaces between them, one for each seed, in ascending order of seeds.
    """
    told: dict[str, dict[str, str]] = {}
    for cell in runs:
        planted = "planted truth, " if cell.truth == "rules" else ""
        aligned = f", alignment {cell.alignment:g}" if _reads_corrupted_answers(cell.prior, cell.truth) else ""
        name = f"{planted}noise {cell.noise:g}: {cell.prior}{aligned}"
        if name in told:
            continue
        found = _of(runs, cell.noise, cell.prior, cell.alignment, cell.truth)
        told[name] = {
            f"{what} {at}": _in_a_row(run[what][at] for run in found)
            for what in ("score", "regret")
            for at in found[0][what]
        }
        told[name] |= {
            f"model's trust {at}": _in_a_row(run["trust"][at]["model"][0] for run in found)
            for at, trust in found[0]["trust"].items()
            if "model" in trust
        }
    return told


def _in_a_row(values: Iterable[float]) -> str:
    return " ".join(f"{value:.4f}" for value in values)


def figure_of(runs: Runs, alignments: Sequence[float], noises: Sequence[float]) -> Any:
    """A figure of regret by alignment, with a panel for each noise and one for the learned trust in the model.

    Alignments from 0 on and below 0 are two scales, see :func:`corrupted`. So a vertical line parts them, and no line
    joins figures of both.
    """
    # Not at the top: `--help` is answered without Matplotlib.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * (len(noises) + 1), 3.6), layout="constrained")
    panels = figure.subplots(1, len(noises) + 1)
    ordered = sorted(alignments)
    parts = [part for part in ([a for a in ordered if a < 0], [a for a in ordered if a >= 0]) if part]
    colours = dict(zip(PRIORS, ("0.45", "tab:orange", "tab:blue", "tab:purple"), strict=True))
    for axes, noise in zip(panels, noises, strict=False):
        for prior in PRIORS:
            unaligned = prior in PRIORS[:2]
            for number, part in enumerate([ordered] if unaligned else parts):
                found = [_of(runs, noise, prior, alignment) for alignment in part]
                last = list(found[0][0]["regret"])[-1]
                middle = [np.mean([run["regret"][last] for run in each]) for each in found]
                error = [_error(np.array([run["regret"][last] for run in each])) for each in found]
                look: dict[str, Any] = {"color": colours[prior], "label": None if number else prior}
                axes.plot(part, middle, "--" if unaligned else "o-", markersize=3, **look)
                low, high = np.subtract(middle, error), np.add(middle, error)
                axes.fill_between(part, low, high, color=colours[prior], alpha=0.15, linewidth=0)
        axes.set(title=f"noise {noise:g}", xlabel="alignment of the model's word", ylim=(0, None))
    panels[0].set_ylabel("regret of all interactions")
    panels[0].legend(title="prior", frameon=False, loc="lower left", bbox_to_anchor=(0.0, 0.06))
    axes, noise = panels[-1], noises[len(noises) // 2]
    for at, colour in (("20", "tab:blue"), ("50", "tab:orange")):
        for number, part in enumerate(parts):
            found = [_of(runs, noise, "model", alignment) for alignment in part]
            if at in found[0][0]["trust"]:
                trusts = np.array([[run["trust"][at]["model"][0] for run in each] for each in found])
                look = {"color": colour, "label": None if number else f"after {at}"}
                axes.errorbar(part, trusts.mean(axis=1), trusts.std(axis=1), fmt="o-", markersize=3, **look)
    axes.axhline(0, color="0.8", linewidth=0.8)
    axes.set(
        title=f"trust learned, noise {noise:g}", xlabel="alignment of the model's word", ylabel="factor of the source"
    )
    axes.legend(frameon=False)
    if len(parts) > 1:
        for axes in panels:
            axes.axvline(0, color="0.3", linewidth=0.8)
            for side, where, words in ((-0.02, "right", "mirrored"), (0.02, "left", "shuffled")):
                place = {"transform": axes.get_xaxis_transform(), "ha": where, "va": "bottom"}
                axes.text(side, 0.01, words, fontsize="small", color="0.3", **place)
    return figure


if __name__ == "__main__":
    main()
