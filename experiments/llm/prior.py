"""``python -m experiments.llm.prior``: how much a model's answers help as a prior, by the share that is right."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from experiments.runs.command import command
from experiments.runs.folders import commit_of_checkout, read_json, write_figure, write_json, write_text
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
    "corrupted",
    "cost_table",
    "figure_of",
    "goals_of",
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
"""Two forms of the model's answers, for runs on the planted truth: probabilities, and these less each job's mean."""

_WITHOUT = {"model": "none", "both": "cosine"}  # each prior with the model, and the same prior without it

_REWARDS = np.array([DEFAULT_REWARDS[decision] for decision in DECISIONS])
_N_CANDIDATES, _STEPS, _SETS = 10, 10, 200
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
    for header, lines in tables:
        print(format_table(header, lines), end="\n\n")
    about = {"seeds": options["seeds"], "n_interactions": cfg.n_interactions, "commit": commit_of_checkout()}
    about["goals"] = goals_of(runs, options["alignments"], options["noises"])
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
        alignment: 1 if the prior's answers are the truth, 0 if they are unrelated to it, -1 if they are its opposite.
            It is 0, and not used, for a prior without the model.
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
    if not -1 <= alignment <= 1:
        raise ValueError(f"`alignments` must be in [-1, 1], got {alignment}.")
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
    """Makes all runs. A run that has a file already is read from it.

    Args:
        cells: The runs to make.
        folder: Where the file of each run is.
        n_interactions: Interactions of each run.
        n_jobs: Number of processes.

    Raises:
        ValueError: If an alignment is outside of [-1, 1], or ``n_jobs`` is below 1.
    """
    if n_jobs < 1:
        raise ValueError(f"`n_jobs` must be at least 1, got {n_jobs}.")
    runs: dict[Cell, dict[str, Any]] = {}
    for cell in cells:
        file = folder / f"{cell.name}.json"
        there = read_json(file, "Remove it, and it is made again.") if file.is_file() else {}
        if there.get("n_interactions") == n_interactions:
            runs[cell] = there["run"]
    missing = [cell for cell in cells if cell not in runs]
    with Progress(len(cells), "prior", "run") as progress:
        progress.update(len(runs))
        one_by_one = ((cell, play(cell, n_interactions)) for cell in missing)
        side_by_side = in_processes(partial(play, n_interactions=n_interactions), missing, n_jobs)
        for cell, run in one_by_one if n_jobs == 1 or len(missing) < 2 else side_by_side:
            runs[cell] = run
            write_json(folder / f"{cell.name}.json", {"n_interactions": n_interactions, "run": run})
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

    The rows of the first ones are priors and alignments. All tables include the learned trust in the model.
    """
    some = next(iter(runs.values()))
    checkpoints = list(some["score"])
    tables = []
    for noise in noises:
        cases = [(f"{prior}", prior, 0.0) for prior in PRIORS[:2]]
        cases += [
            (f"{prior}, alignment {alignment:g}", prior, alignment) for prior in PRIORS[2:] for alignment in alignments
        ]
        tables.append(
            _table(f"noise {noise:g}: prior", checkpoints, [(w, _of(runs, noise, p, a)) for w, p, a in cases])
        )
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
    reads_the_model = truth == "recorded" and prior in PRIORS[2:]
    wanted = alignment if reads_the_model else 0.0
    cells = [
        cell for cell in runs if (cell.noise, cell.prior, cell.alignment, cell.truth) == (noise, prior, wanted, truth)
    ]
    return [runs[cell] for cell in sorted(cells, key=lambda cell: cell.seed)]


def cost_table(runs: Runs, alignments: Sequence[float], noises: Sequence[float]) -> list[Table]:
    """A table of what the model's answers cost and save, compared with the same agent without them.

    Its columns are the loss of score after 50, 100 and 200 answers; by which share the regret of the 51st to the 200th
    answer is larger than without the model's answers; and the share of the regret of the first 100 answers that is
    saved. They are means over noises and seeds, with standard errors over seeds. If a run is too short, there is no
    table.
    """
    if str(CHECKPOINTS[-1]) not in next(iter(runs.values()))["score"]:
        return []

    def by_seed(name: str, alignment: float, what: str, at: str) -> Floats:
        found: Floats = np.array([[run[what][at] for run in _of(runs, noise, name, alignment)] for noise in noises])
        return found.mean(axis=0)

    after = ("50", "100", "200")
    rows = []
    for (prior, without), alignment in itertools.product(_WITHOUT.items(), alignments):
        score, score_without = ([by_seed(name, alignment, "score", at) for at in after] for name in (prior, without))
        regret, regret_without = ([by_seed(name, alignment, "regret", at) for at in after] for name in (prior, without))
        lost = np.subtract(score_without, score)
        late, late_without = regret[2] - regret[0], regret_without[2] - regret_without[0]
        shares = [
            (late - late_without) / late_without.mean(),
            (regret_without[1] - regret[1]) / regret_without[1].mean(),
        ]
        cells = [_with_error(values, 3) for values in lost] + [_with_error(values, 2) for values in shares]
        rows.append([f"{prior}, alignment {alignment:g}", *cells])
    header = ["cost: prior", *(f"score lost {at}" for at in after), "more regret 50 to 200", "regret saved 100"]
    return [(header, rows)]


def _with_error(values: Floats, digits: int) -> str:
    """Mean of values (n,), and their standard error if n is above 1."""
    error = f" +- {values.std(ddof=1) / math.sqrt(len(values)):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{error}"


def goals_of(runs: Runs, alignments: Sequence[float], noises: Sequence[float]) -> dict[str, Any]:
    """What the model's answers cost and save, compared with the same prior without them; means over seeds.

    Returns:
        ``cost``, by prior, noise and alignment: the loss of score after 50, 100 and 200 interactions, and by which
        share the regret of the 51st to the 200th interaction is larger than without the answers. ``saved``, by prior
        and noise: the share of the regret of the first 100 interactions that an alignment of 1 saves. ``told``, by
        prior and noise, after 20 and after 50 answers: each run at alignment 1 is compared with each run at alignment
        0. This is the share of comparisons in which the run at alignment 1 trusts the model more.
    """
    cost: dict[str, Any] = {}
    saved: dict[str, Any] = {}
    told: dict[str, Any] = {}

    def regret(found: list[dict[str, Any]], start: str, end: str) -> float:
        return float(np.mean([run["regret"][end] - run["regret"][start] for run in found]))

    for (prior, without), noise in itertools.product(_WITHOUT.items(), noises):
        base = _of(runs, noise, without, 0.0)
        checkpoints = list(base[0]["score"])
        if checkpoints[-1] != str(CHECKPOINTS[-1]):
            return {}  # a short run says nothing of the goals
        for alignment in alignments:
            found = _of(runs, noise, prior, alignment)
            lost = {
                at: float(np.mean([one["score"][at] - two["score"][at] for one, two in zip(base, found, strict=True)]))
                for at in ("50", "100", "200")
            }
            more = regret(found, "50", "200") / regret(base, "50", "200") - 1
            cost[f"{prior}, noise {noise:g}, alignment {alignment:g}"] = {"score": lost, "regret": more}
            if alignment == 1:
                saved[f"{prior}, noise {noise:g}"] = 1 - regret(found, "0", "100") / regret(base, "0", "100")
        if 1 in alignments and 0 in alignments:
            right, wrong = (_of(runs, noise, prior, alignment) for alignment in (1.0, 0.0))
            told[f"{prior}, noise {noise:g}"] = {
                at: float(
                    np.mean([a["trust"][at]["model"][0] > b["trust"][at]["model"][0] for a in right for b in wrong])
                )
                for at in ("20", "50")
            }
    return {"cost": cost, "saved": saved, "told": told}


def figure_of(runs: Runs, alignments: Sequence[float], noises: Sequence[float]) -> Any:
    """A figure of regret by alignment, with a panel for each noise and one for the learned trust in the model."""
    # Not at the top: `--help` is answered without it.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * (len(noises) + 1), 3.6), layout="constrained")
    panels = figure.subplots(1, len(noises) + 1)
    ordered = sorted(alignments)
    colours = dict(zip(PRIORS, ("0.45", "tab:orange", "tab:blue", "tab:purple"), strict=True))
    for axes, noise in zip(panels, noises, strict=False):
        for prior in PRIORS:
            found = [_of(runs, noise, prior, alignment) for alignment in ordered]
            last = list(found[0][0]["regret"])[-1]
            middle = [np.mean([run["regret"][last] for run in each]) for each in found]
            error = [np.std([run["regret"][last] for run in each]) / math.sqrt(len(each)) for each in found]
            style = "--" if prior in PRIORS[:2] else "o-"
            axes.plot(ordered, middle, style, color=colours[prior], label=prior, markersize=3)
            axes.fill_between(
                ordered,
                np.subtract(middle, error),
                np.add(middle, error),
                color=colours[prior],
                alpha=0.15,
                linewidth=0,
            )
        axes.set(title=f"noise {noise:g}", xlabel="alignment of the model's word", ylim=(0, None))
    panels[0].set_ylabel("regret of all interactions")
    panels[0].legend(title="prior", frameon=False)
    axes, noise = panels[-1], noises[len(noises) // 2]
    for at in ("20", "50"):
        found = [_of(runs, noise, "model", alignment) for alignment in ordered]
        if at in found[0][0]["trust"]:
            trusts = np.array([[run["trust"][at]["model"][0] for run in each] for each in found])
            axes.errorbar(ordered, trusts.mean(axis=1), trusts.std(axis=1), fmt="o-", markersize=3, label=f"after {at}")
    axes.axhline(0, color="0.8", linewidth=0.8)
    axes.set(
        title=f"trust learned, noise {noise:g}", xlabel="alignment of the model's word", ylabel="factor of the source"
    )
    axes.legend(frameon=False)
    return figure


if __name__ == "__main__":
    main()
