"""The report: one self-contained HTML page, and its pictures beside it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from omegaconf import OmegaConf

from experiments.pages.plots import Figure, curves, families, lorenz_curves
from experiments.pages.wording import agent_in_words, command_of, task_in_words
from experiments.runs.build import truth_spec
from experiments.runs.folders import COLDSTART, COLDSTART_FIGURE, Run
from experiments.runs.grouping import group_runs
from experiments.runs.tables import COLUMNS, Spread, format_number, held_out_table, mean_and_spread
from experiments.studies.study import probability_of_improvement

__all__ = ["read_study", "write_report"]

Groups = Mapping[str, Sequence[Run]]

_REFERENCES = ("random", "cosine", "oracle")
_RANDOM = "a random choice"
_OPPONENTS = "experiments.learners.opponents."
_DECISIONS_ASKED = "decisions asked"
_EXPOSURE = ("coverage", "gini", "congestion")
_SHOWN_JOBS, _JOB_ROWS = 5, 20  # of an agent, and of all
_FEW_PAIRS = 20  # a family with fewer held-out pairs is too small to be called best or worst served

_EXPLAINED = {
    "score": "0 is a random choice, 1 the best one under the truth",
    "mean reward": "Mean expected reward of the greedy choice",
    "apply rate": "Share of greedy choices that the applicant would apply to, without noise",
    "nDCG@10": "Quality of the whole ranking, gain = expected reward, negative counts as 0",
    "MRR": "Mean of 1 / rank of the first job that the applicant would apply to, over the sets that hold one",
    "hit@1": "Share of sets whose best-ranked job the applicant would apply to, over the sets that hold one",
    "hit@5": "Such a job among the best 5",
    "hit@10": "Such a job among the best 10",
    "return": "Discounted sum of expected rewards over a greedy episode, at the agent's gamma",
    "regret": "Expected reward of the best choice less that of the agent's, for each recommendation",
    "cosine": "Mean cosine reward of the greedy choice, in [0, 1]",
    "coverage": "Share of the jobs that are recommended at all",
    "Gini": "How unevenly jobs are recommended: 0 equally, near 1 always the same",
    "congestion": "Chance that two recommendations are of the same job",
}


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the page.

    Attributes:
        header: Names of the columns; the first one is of words.
        rows: Cells, as they are written.
        note: Below it.
        n_agents: So many rows are agents, what follows are references; ``None``: all are.
        n_words: So many first columns are words and stand left.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    n_agents: int | None = None
    n_words: int = 1


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page.

    Attributes:
        name: Of its anchor.
        title: Its heading.
        words: What there is to know before one looks.
        tables: Shown first.
        figures: Shown behind.
    """

    name: str
    title: str
    words: str
    tables: Sequence[Table] = ()
    figures: Sequence[Figure | None] = ()

    @property
    def pictures(self) -> list[Figure]:
        """The figures that there is data for."""
        return [figure for figure in self.figures if figure is not None]


def write_report(
    runs: Sequence[Run],
    folder: Path,
    title: str | None = None,
    unfinished: str = "",
    study: Mapping[str, Any] | None = None,
) -> Path:
    """Writes ``report.html``, and each figure as SVG and PNG, into a folder.

    Args:
        runs: Finished runs, at least one.
        folder: Made if it is not there.
        title: Of the page.
        unfinished: What to say of runs that are not in it.
        study: What :func:`read_study` found beside these runs: ``name``, ``in_words``, ``tables`` (``header``
            and ``rows``) and ``png``, base64.

    Returns:
        The page.

    Raises:
        RunError: If a run lacks its learning curve.
    """
    folder.mkdir(parents=True, exist_ok=True)
    groups = group_runs(runs)
    metrics = {label: [run.metrics for run in members] for label, members in groups.items()}
    progress = {label: [run.progress for run in members] for label, members in groups.items()}
    sections = [
        _learning(groups, metrics, folder),
        _held_out(groups),
        _regret(groups, metrics, folder),
        _reward(metrics, folder),
        _world_model(groups, progress, folder),
        _planning(groups, progress, folder),
        _language_model(groups, metrics, folder),
        _jobs(groups, folder),
        _applicants(groups, folder),
    ]
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        (files("experiments.pages") / "templates" / "report.html.j2").read_text()
    )
    page = folder / "report.html"
    page.write_text(
        template.render(
            title=title
            or "Job recommendation: " + (", ".join(groups) if len(groups) <= 3 else f"{len(groups)} agents"),
            headline=_headline(groups, runs[0]),
            unfinished=unfinished,
            tasks=list(dict.fromkeys(task_in_words(run.config, run.summary["market"]) for run in runs)),
            facts=_facts(runs),
            how_to_read=_band(groups),
            agents=[
                {
                    "label": label,
                    "words": agent_in_words(members[0].config),
                    "seeds": ", ".join(str(run.summary["seed"]) for run in members),
                    "command": command_of(members),
                    "folders": [str(run.folder) for run in members],
                    "config": OmegaConf.to_yaml(OmegaConf.create(members[0].config)),
                }
                for label, members in groups.items()
            ],
            explained=_EXPLAINED,
            study=study,
            study_tables=[Table(table["header"], table["rows"]) for table in study["tables"]] if study else [],
            sections=sections,
            differences=_differences(groups),
        )
    )
    return page


# ------------------------------------------------------------------------------------------------------------- sections


def _learning(groups: Groups, metrics: Mapping[str, Sequence[pd.DataFrame]], folder: Path) -> Section:
    references = next(iter(groups.values()))[0].summary["references"]
    wanted = (
        ("held_out_score", "score", "score", "Where the greedy choice stands between random (0) and the oracle (1)."),
        ("held_out_ndcg", "ndcg@10", "nDCG@10", "How well the agent orders all candidates."),
        ("held_out_apply_rate", "apply_rate", "apply rate", "Share of greedy choices that would be applied to."),
    )
    return Section(
        "learning",
        "Learning curves",
        "How good the greedy agent is on applicants that it never meets while learning, by how many recommendations it "
        "has learned from.",
        figures=[
            curves(
                folder,
                name,
                f"Held out: {title}",
                caption,
                metrics,
                "interactions",
                f"held_out/{key}",
                y_label=title,
                references={who: references[who][key] for who in _REFERENCES},
            )
            for name, key, title, caption in wanted
        ],
    )


def _held_out(groups: Groups) -> Section:
    runs = [run for members in groups.values() for run in members]
    agents: dict[str, Any] = {
        label: mean_and_spread([run.summary["held_out"] for run in members]) for label, members in groups.items()
    }
    header, rows = held_out_table(
        {**agents, **runs[0].summary["references"]}, (name for name in COLUMNS if name not in _EXPOSURE)
    )
    shown = [column for column in range(len(header)) if column == 0 or any(row[column] != "-" for row in rows)]
    same = all(run.summary["references"] == runs[0].summary["references"] for run in runs)
    tables = [
        Table(
            ["agent", *(header[column] for column in shown[1:])],
            [[row[column] for column in shown] for row in rows],
            "Mean over seeds ± one standard deviation."
            + ("" if same else " The runs differ in pairs or truth: random, cosine and oracle are of the first run."),
            n_agents=len(groups),
        )
    ]
    truths_header, truths_rows = truths_table(groups)
    if truths_rows:
        tables.append(
            Table(
                ["agent", *(f"score by {name}" for name in truths_header[1:])],
                truths_rows,
                "Scored by every signal: the same greedy agents, each signal taken as the truth. An agent scored by "
                "what it was trained on alone proves little.",
                n_agents=len(groups),
            )
        )
    return Section(
        "held-out",
        "Held-out applicants",
        "The greedy agents after training, beside three that learn "
        "nothing: a random choice, the job of highest cosine, and the oracle.",
        tables,
    )


def _regret(groups: Groups, metrics: Mapping[str, Sequence[pd.DataFrame]], folder: Path) -> Section:
    rows = []
    for label, members in groups.items():
        online = mean_and_spread([run.summary["online"] for run in members])
        regret, random = online["cumulative_regret"], online["cumulative_random_regret"]
        reward = online["cumulative_reward"]
        if regret is None or random is None or reward is None or random[0] == 0:
            continue
        sums = [f"{entry[0]:,.0f}{_plus_minus(entry)}" for entry in (reward, regret)]
        rows.append([label, *sums, f"{regret[0] / random[0]:.2f}"])
    first = next(iter(metrics.values()))
    column = "online/cumulative_regret"
    random_too = {_RANDOM: [table.assign(**{column: table["online/cumulative_random_regret"]}) for table in first]}
    return Section(
        "regret",
        "Regret while learning",
        "What learning cost: the expected reward of the best candidate less that of the recommended one, summed up "
        "over all recommendations made while learning, exploration included.",
        [Table(["agent", "reward, sum", "expected regret, sum", "regret / random's"], rows)] if rows else [],
        [
            curves(
                folder,
                "online_regret",
                "Cumulative expected regret",
                "Flat where nothing is missed any more; the dashed line would be a random choice's.",
                metrics,
                "interactions",
                column,
                y_label="cumulative regret",
                extra=random_too,
            ),
            curves(
                folder,
                "online_apply_rate",
                "Apply rate while learning",
                "Share of recommendations that would be applied to without noise, since the point before.",
                metrics,
                "interactions",
                "online/apply_rate",
                y_label="apply rate",
            ),
        ],
    )


def _reward(metrics: Mapping[str, Sequence[pd.DataFrame]], folder: Path) -> Section:
    wanted = (
        ("online_reward", "mean_reward", "Reward while learning", "reward", "What agents were paid."),
        (
            "online_cosine",
            "cosine",
            "Component: cosine reward",
            "cosine reward",
            "Of the same recommendations, on the scale of each agent's reward (unit: in [0, 1]; matched: on that of "
            "feedback). Known whether or not it is paid.",
        ),
        (
            "online_feedback",
            "feedback",
            "Component: feedback reward",
            "feedback reward",
            "What the decisions were worth, where somebody was asked.",
        ),
        ("cosine_weight", "cosine_weight", "Weight of the cosine", "weight", "1: cosine alone; 0: feedback alone."),
    )
    annealed = any(
        "online/cosine_weight" in table and table["online/cosine_weight"].notna().any()
        for tables in metrics.values()
        for table in tables
    )
    return Section(
        "reward",
        "What the reward is made of",
        "Means since the point before, exploration included."
        + ("" if annealed else " No reward here is annealed, so there is no weight over time."),
        figures=[
            curves(folder, name, title, caption, metrics, "interactions", f"online/{column}", y_label=label)
            for name, column, title, label, caption in wanted
        ],
    )


def _world_model(groups: Groups, progress: Mapping[str, Sequence[pd.DataFrame]], folder: Path) -> Section:
    title = "World model"
    rows = []
    for label, members in groups.items():
        last = [_last(table, "train/model_r2") for table in progress[label]]
        held_out = [(_outcomes(run).get("world_model") or {}) for run in members]
        entries = [
            mean_and_spread([{"value": value} for value in values])["value"]
            for values in (last, *([part.get(key) for part in held_out] for key in ("r2", "correlation")))
        ]
        if any(entry is not None for entry in entries):
            rows.append([label, *map(format_number, entries)])
    if not rows:
        return Section("world-model", title, "None of these agents has a world model.")
    return Section(
        "world-model",
        title,
        "How well the agent's model predicts the reward of a recommendation before it is made: 1 is perfect, 0 no "
        "better than the mean, below 0 worse.",
        [
            Table(
                ["agent", "R² while learning", "R² held out", "correlation held out"],
                rows,
                "While learning: of the rewards that the agent was paid, each predicted before the model was trained "
                "on it. Held out: of the expected rewards of all candidates under the truth, which is another signal "
                "than a cosine that an agent may have been paid; there only the correlation says something.",
            )
        ],
        [
            curves(
                folder,
                "model_r2",
                "R² of the world model",
                "Of rewards predicted before the model was trained on them; below -1 cut off.",
                progress,
                "time/total_timesteps",
                "train/model_r2",
                y_label="R²",
                limits=(-1.0, 1.02),
            ),
            curves(
                folder,
                "model_loss",
                "Loss of the world model",
                "Mean squared error of the reward, on replayed transitions.",
                progress,
                "time/total_timesteps",
                "train/model_loss",
                y_label="squared error",
                log=True,
            ),
        ],
    )


def _planning(groups: Groups, progress: Mapping[str, Sequence[pd.DataFrame]], folder: Path) -> Section:
    rows, compared = [], False
    for label, members in groups.items():
        steps = members[0].config["algo"].get("planning_steps")
        if not steps:
            continue
        updates = [
            mean_and_spread([{"value": _last(table, column)} for table in progress[label]])["value"]
            for column in ("train/n_updates", "train/planning_updates")
        ]
        score = mean_and_spread([run.summary["held_out"] for run in members])["score"]
        twins = _without_planning(groups, members)
        compared |= bool(twins)
        for twin in twins or [""]:
            seeds = {run.summary["seed"]: run.summary["held_out"]["score"] for run in groups[twin]} if twin else {}
            pairs = [
                (run.summary["held_out"]["score"], seeds[run.summary["seed"]])
                for run in members
                if seeds.get(run.summary["seed"]) is not None and run.summary["held_out"]["score"] is not None
            ]
            ours, theirs = np.array(pairs).T if pairs else (np.empty(0), np.empty(0))
            rows.append(
                [
                    label,
                    str(steps),
                    *("-" if entry is None else f"{entry[0]:,.0f}" for entry in updates),
                    format_number(score),
                    twin or "-",
                    f"{(ours - theirs).mean():+.3f}" if pairs else "-",
                    f"{probability_of_improvement(ours, theirs):.2f}" if pairs else "-",
                ]
            )
    if not rows:
        return Section("planning", "Planning", "None of these agents plans.")
    words = (
        "Each row compares an agent with one that is equal but does not plan, seed by seed."
        if compared
        else "No agent here has a twin without planning, so its effect cannot be told from these runs: add "
        "algo.planning_steps=0,5 to the sweep, or algo=dynaq,dynaq_noplan at equal numbers of updates."
    )
    header = [
        "agent",
        "planning steps",
        "direct updates",
        "planning updates",
        "score",
        "without planning",
        "difference",
    ]
    return Section(
        "planning",
        "Planning",
        words,
        [Table(header, [row[: len(header)] for row in rows])],
        [
            curves(
                folder,
                name,
                title,
                caption,
                progress,
                "time/total_timesteps",
                column,
                y_label="squared TD error",
                log=True,
            )
            for name, title, caption, column in (
                ("td_loss", "Q-network: direct updates", "On rewards that were paid.", "train/loss"),
                (
                    "planning_loss",
                    "Q-network: planning updates",
                    "On rewards that the world model imagined.",
                    "train/planning_loss",
                ),
            )
        ],
    )


def _language_model(groups: Groups, metrics: Mapping[str, Sequence[pd.DataFrame]], folder: Path) -> Section:
    rows = []
    for label, members in groups.items():
        if any(run.summary.get("feedback") is None for run in members):
            continue
        entry = mean_and_spread([_asked(run.summary["feedback"], run.summary["online"]) for run in members])
        if entry["decisions"] is None or not entry["decisions"][0]:
            continue
        whole = [
            f"{part[0]:,.0f}"
            for name in ("decisions", "calls", "cache_hits", "failures", "tokens")
            if (part := entry[name]) is not None
        ]
        rows.append([label, *whole, format_number(entry["cost_usd"]), format_number(entry["reward"])])
    title = "Feedback of a language model"
    if not rows:
        return Section("language-model", title, "No language model was asked: these runs cost no calls and no dollars.")
    header = ["agent", "decisions", "calls", "known before", "no answer", "tokens", "dollars"]
    asked = {label: [_with_asked(table) for table in tables] for label, tables in metrics.items()}
    by_decision = (
        (
            "reward_by_decision",
            "online/cumulative_expected_reward",
            "Expected reward by feedback asked",
            "expected reward, sum",
            "Sum while learning, over the decisions asked for; its slope is what a decision brings.",
        ),
        (
            "score_by_decision",
            "held_out/score",
            "Score by feedback asked",
            "score",
            "Held-out score over the decisions asked for, those known before included.",
        ),
    )
    return Section(
        "language-model",
        title,
        "What was asked of the language model in a run, mean over seeds: a decision that was known before costs "
        "nothing.",
        [Table([*header, "expected reward / decision"], rows)],
        [
            curves(
                folder,
                name,
                caption_title,
                text,
                asked,
                _DECISIONS_ASKED,
                column,
                y_label=label,
                x_label=_DECISIONS_ASKED,
            )
            for name, column, caption_title, label, text in by_decision
        ],
    )


def _jobs(groups: Groups, folder: Path) -> Section:
    title, first = "Which jobs are recommended", next(iter(groups.values()))[0]
    agents: dict[str, Any] = {
        label: mean_and_spread([run.summary["held_out"] for run in members]) for label, members in groups.items()
    }
    rows = []
    for label, entry in {**agents, **first.summary["references"]}.items():
        rows.append([label, *(format_number(entry.get(key)) for key in _EXPOSURE)])
    tables = [
        Table(
            ["agent", *(COLUMNS[key] for key in _EXPOSURE)],
            rows,
            "Coverage: share of the jobs that are recommended at all. Gini: 0 where all jobs are recommended equally "
            "often, near 1 where always the same. Congestion: the chance that two recommendations are of the same job, "
            "so that two applicants meet as rivals. A random choice shows how uneven chance alone is.",
            n_agents=len(groups),
        )
    ]
    with_exposure = {
        label: [part for run in members if (part := _outcomes(run).get("exposure"))]
        for label, members in groups.items()
    }
    with_exposure = {label: parts for label, parts in with_exposure.items() if parts}
    shares = {label: np.mean([part["lorenz"] for part in parts], axis=0) for label, parts in with_exposure.items()}
    for who in _REFERENCES if shares else ():
        if part := (first.summary.get("outcomes") or {}).get(who):
            shares[who] = np.array(part["exposure"]["lorenz"])
    n_jobs = min(_SHOWN_JOBS, max(1, _JOB_ROWS // max(len(groups), 1)))
    most = [
        [label, str(place), job["title"], job["key"], f"{job['share']:.1%}"]
        for label, parts in with_exposure.items()
        for place, job in enumerate(parts[0]["most_recommended"][:n_jobs], start=1)
    ]
    if most:
        note = "What the first seed of each agent recommends most often."
        tables.append(Table(["agent", "place", "job", "key", "share of recommendations"], most, note, n_words=4))
    figure = lorenz_curves(
        folder,
        "exposure",
        "Exposure of jobs",
        "Lorenz curves: what share of all recommendations the least recommended jobs get. The further below the "
        "straight line, the fewer jobs get most of them. Mean over seeds.",
        shares,
    )
    words = "Of the greedy choices on the held-out pairs."
    if not shares:
        words += " Runs of an earlier version kept no exposure: experiments.train resume=false makes them again."
    return Section("jobs", title, words, tables, [figure])


def _applicants(groups: Groups, folder: Path) -> Section:
    title, first = "Who is served how well", next(iter(groups.values()))[0]
    by_agent = {
        label: [part for run in members if (part := _outcomes(run).get("by_family"))]
        for label, members in groups.items()
    }
    by_agent = {label: parts for label, parts in by_agent.items() if parts}
    references = first.summary.get("outcomes") or {}
    if not by_agent or not references:
        return Section("applicants", title, "Runs of an earlier version kept no outcomes by family.")
    sizes = {family: int(part["n_pairs"]) for family, part in references["oracle"]["by_family"].items()}
    names = sorted(sizes, key=lambda family: -sizes[family])

    def spread(label: str, key: str) -> dict[str, Spread | None]:
        return mean_and_spread(
            [{family: part.get(family, {}).get(key) for family in names} for part in by_agent[label]]
        )

    rewards = {label: spread(label, "mean_reward") for label in by_agent}
    bounds = {
        family: tuple(references[who]["by_family"][family]["mean_reward"] for who in ("random", "oracle"))
        for family in names
    }
    rows = [
        [
            family,
            f"{sizes[family]:,}",
            *(format_number(rewards[label][family]) for label in by_agent),
            *(format_number(references[who]["by_family"][family]["mean_reward"]) for who in _REFERENCES),
        ]
        for family in names
    ]
    served = []
    for label in by_agent:
        scores = {f: entry[0] for f, entry in spread(label, "score").items() if entry and sizes[f] >= _FEW_PAIRS}
        if len(scores) > 1:
            worst, best = min(scores, key=lambda f: scores[f]), max(scores, key=lambda f: scores[f])
            cells = [f"{value:.3f}" for value in (scores[worst], scores[best], scores[best] - scores[worst])]
            served.append([label, worst, best, *cells])
    tables = []
    if served:
        tables.append(
            Table(
                ["agent", "worst served", "best served", "worst score", "best score", "gap"],
                served,
                f"Score within a family: 0 a random choice, 1 the best one, means over seeds; of families with at "
                f"least {_FEW_PAIRS} held-out pairs.",
                n_words=3,
            )
        )
    tables.append(
        Table(
            ["family", "pairs", *by_agent, *_REFERENCES],
            rows,
            "Mean expected reward of the greedy choice; agents: mean over seeds ± one standard deviation.",
        )
    )
    figure = families(
        folder,
        "families",
        "Mean reward by family",
        "Grey bars go from what a random choice earns to what the best one would; markers are agents, means over "
        "seeds. Families with the most held-out pairs stand on top.",
        bounds,
        rewards,
    )
    return Section(
        "applicants",
        title,
        "Outcomes on the held-out pairs by the applicant's family of occupations. Families differ in what the "
        "candidates offer them, so an agent is to be judged between the two ends of a family's bar.",
        tables,
        [figure],
    )


# ---------------------------------------------------------------------------------------------------------------- words


def read_study(folder: Path) -> dict[str, Any] | None:
    """What ``experiments.coldstart`` or ``experiments.demo`` left in a folder of runs; ``None`` if neither did."""
    if not (folder / COLDSTART).is_file():
        return None
    study = json.loads((folder / COLDSTART).read_text())
    figure = folder / study.get("figure", COLDSTART_FIGURE)
    return {**study, "png": base64.b64encode(figure.read_bytes()).decode()} if figure.is_file() else None


def _headline(groups: Groups, first: Run) -> str:
    """The best learner against cosine; empty where none learns, or nothing can be scored."""
    scores = {
        label: [run.summary["held_out"]["score"] for run in members if run.summary["held_out"]["score"] is not None]
        for label, members in groups.items()
        if not members[0].config["algo"]["_target_"].startswith(_OPPONENTS)
    }
    means = {label: float(np.mean(values)) for label, values in scores.items() if values}
    cosine = first.summary["references"]["cosine"]["score"]
    if not means or cosine is None:
        return ""
    best = max(means, key=lambda label: means[label])
    who = f"The best agent ({best})" if len(means) > 1 else "The agent"
    side = "above" if means[best] > cosine else "below"
    if f"{means[best]:.2f}" == f"{cosine:.2f}":
        side = "equal to"
    return (
        f"{who} scores {means[best]:.2f} on held-out applicants, {side} the job of highest cosine ({cosine:.2f}); "
        "0 is a random choice, 1 the best possible one."
    )


def _facts(runs: Sequence[Run]) -> list[tuple[str, str]]:
    def values(read: Any) -> str:
        found = list(dict.fromkeys(str(read(run)) for run in runs))
        return ", ".join(found[:6]) + (", ..." if len(found) > 6 else "")

    stopped = sum(run.summary.get("stopped") is not None for run in runs)
    seconds = sum(run.summary["wall_clock"]["seconds"] for run in runs)
    return [
        ("runs", str(len(runs))),
        ("interactions", values(lambda run: f"{run.summary['interactions']:,}") + " in each run"),
        ("commit", values(lambda run: run.summary.get("commit") or "not known")),
        (
            "versions",
            values(lambda run: ", ".join(f"{key} {item}" for key, item in run.summary["versions"].items() if item)),
        ),
        ("time", f"{seconds / 60:.1f} minutes in all"),
    ] + ([("stopped early", f"{stopped} of {len(runs)} runs, by a budget")] if stopped else [])


def _band(groups: Groups) -> str:
    """What lines and bands are."""
    sizes = sorted({len(members) for members in groups.values()})
    if sizes[-1] == 1:
        return "One seed each, so there are no intervals."
    n = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    few = ": so few seeds say little" if sizes[0] < 5 else ""
    return f"Lines are interquartile means over {n} seeds, bands their 95 % bootstrap intervals (rliable){few}."


def _truth(spec: Mapping[str, Any]) -> str:
    """What the truth of a run is called in a table."""
    target = spec["_target_"].rpartition(".")[2]
    return {"RuleSimulator": "planted", "RecordedSimulator": "recorded", "CosineTruth": "cosine"}.get(target, target)


def _outcomes(run: Run) -> Mapping[str, Any]:
    """Who got what from the agent of a run; empty in a run of an earlier version."""
    return (run.summary.get("outcomes") or {}).get("agent", {})


def _without_planning(groups: Groups, members: Sequence[Run]) -> list[str]:
    """Labels of the groups that are equal to one but do not plan, at the same or at an equal number of updates."""
    differ = ("algo.planning_steps", "algo.gradient_steps")

    def rest(run: Run) -> dict[str, Any]:
        return {
            key: value
            for key, value in _flatten(run.config).items()
            if key not in differ and key.rpartition(".")[2] != "seed"
        }

    return [
        label
        for label, others in groups.items()
        if others[0].config["algo"].get("planning_steps") == 0 and rest(others[0]) == rest(members[0])
    ]


def _last(table: pd.DataFrame, column: str) -> float | None:
    """The last known value of a column."""
    known = table[column].dropna() if column in table else pd.Series(dtype=float)
    return float(known.iloc[-1]) if len(known) else None


def _asked(feedback: Mapping[str, float], online: Mapping[str, float]) -> dict[str, float | None]:
    return {**feedback, "reward": online["cumulative_expected_reward"] / max(feedback["decisions"], 1)}


def _with_asked(table: pd.DataFrame) -> pd.DataFrame:
    """Adds how many decisions of a language model were asked for, where one was asked at all."""
    if "feedback/decisions" not in table or not table["feedback/decisions"].any():
        return table
    return table.assign(**{_DECISIONS_ASKED: table["feedback/decisions"]})


def truths_table(groups: Groups) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the scores of each group by each signal: its own truth and those of ``evaluation.also``.

    No rows where no run was scored by another signal than its own.
    """
    rows: dict[str, dict[str, Spread | None]] = {}
    cosine: dict[str, dict[str, Spread | None]] = {}
    for label, members in groups.items():
        truth = _truth(truth_spec(members[0].config))
        by_truth = [{truth: run.summary, **(run.summary.get("also") or {})} for run in members]
        rows[label] = mean_and_spread(
            [{name: part["held_out"]["score"] for name, part in each.items()} for each in by_truth]
        )
        market = f"highest cosine, market {members[0].summary['market']['name']}"
        known = cosine.setdefault(market, {})
        known |= mean_and_spread([{name: part["references"]["cosine"]["score"] for name, part in by_truth[0].items()}])
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    if len(names) < 2:
        return [], []
    return (
        ["score by", *names],
        [[agent, *(format_number(row.get(name)) for name in names)] for agent, row in (rows | cosine).items()],
    )


def _plus_minus(entry: Spread) -> str:
    return f" ± {entry[1]:,.0f}" if entry[2] > 1 else ""


def _differences(groups: Groups) -> list[list[str]]:
    """Entries of the config that are not the same in all groups: name, then a value for each."""
    flat = [_flatten(members[0].config) for members in groups.values()]
    keys = sorted({key for config in flat for key in config})
    return [
        [key, *(str(config.get(key, "-")) for config in flat)]
        for key in keys
        if len({str(config.get(key, "-")) for config in flat}) > 1 and key.rpartition(".")[2] != "seed"
    ]


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
