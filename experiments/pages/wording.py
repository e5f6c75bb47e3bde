"""A run's config in words, and the command that makes it again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.runs.arguments import as_override, written
from experiments.runs.build import truth_spec
from experiments.runs.careers import is_career
from experiments.runs.folders import WHERE_KEYS, Run, flat_config
from experiments.runs.grouping import name_of

__all__ = [
    "agent_in_words",
    "command_of",
    "over_seeds",
    "reward_in_words",
    "simulator_in_words",
    "task_in_words",
    "truth_in_a_word",
]

_OPPONENTS = {
    "RandomRecommender": "recommends any candidate",
    "CosineRecommender": "recommends the candidate of highest cosine",
    "OracleRecommender": "knows the truth",
    "PopularityRecommender": "recommends the job of the highest mean reward so far",
}
_SAMPLERS = {
    "uniform": "drawn uniformly",
    "retrieval": "the nearest by cosine",
    "mixed": "half drawn uniformly, half the nearest by cosine",
    "all": "the whole catalogue",
}


def task_in_words(config: Mapping[str, Any], market: Mapping[str, Any]) -> str:
    """The task of the agents in words: ``"..., 10 candidates drawn uniformly, ..."``."""
    env, evaluation = config["env"], config["evaluation"]
    sampler = _SAMPLERS.get(str(env["candidate_sampler"]), str(env["candidate_sampler"]))
    k = "all" if env["candidate_sampler"] == "all" else f"{env['num_candidates']:,}"
    steps, again = env["max_episode_steps"], "" if env["repeats"] else ", no job twice"
    shown = (
        f"An applicant of the market {market['name']} ({market['n_applicants']:,} applicants, {market['n_jobs']:,} "
        f"jobs) is shown one of {k} candidates, {sampler}; an episode is"
    )
    truth = simulator_in_words(truth_spec(config))
    if is_career(config):
        n = evaluation.get("n_applicants")
        return (
            f"{shown} up to {steps} recommendations to one applicant{again}, whose answers change that applicant: "
            "interest lets the applicant climb and earn more, and an applicant without patience leaves. Agents are "
            "scored by an episode with "
            f"{'each applicant' if n is None else f'{n:,} applicants'} of the {evaluation['split']} split (jobs of the "
            f"{evaluation['job_split']} split), the same for all. The score is the share of what the best policy "
            f"earns. Answers are those of {truth}."
        )
    return (
        f"{shown} {steps} recommendations to one applicant{again}. Agents are scored on {evaluation['n_pairs']:,} "
        f"fixed pairs of an applicant ({evaluation['split']} split) and candidates ({evaluation['job_split']} split), "
        f"the same for all, by {truth}."
    )


def agent_in_words(config: Mapping[str, Any], pretrained: Mapping[str, Any] | None) -> str:
    """The agent in words: its class, its reward, and its pre-training.

    Args:
        config: The config of a run.
        pretrained: The entry ``pretrain`` of the run's summary; ``None`` without pre-training.
    """
    algo = config["algo"]
    name = _class_of(algo["_target_"])
    if name in _OPPONENTS:
        return f"{_OPPONENTS[name]}; {reward_in_words(config)}"
    who = name
    if "planning_steps" in algo:
        n = algo["planning_steps"]
        who += f", {n} planning step{'' if n == 1 else 's'} after each real update" if n else ", no planning"
        who += f", features {(algo.get('policy_kwargs') or {}).get('features', 'concat')}"
    if pretrained:
        pairs = config["pretrain"]["dataset"] or f"{pretrained['n_pairs']:,} cosine rewards"
        who += f", pre-trained on {pairs} ({pretrained['epochs']} epochs)"
    return f"{who}; {reward_in_words(config)}"


def over_seeds(runs: Sequence[Run]) -> dict[str, Any]:
    """The config of runs that differ only by their seeds. Each entry ``seed`` lists all of them: ``"0, 1"``."""

    def merged(configs: Sequence[Any], key: str = "") -> Any:
        first = configs[0]
        if isinstance(first, Mapping):
            return {name: merged([config[name] for config in configs], name) for name in first}
        several = sorted(set(configs)) if key == "seed" else []
        return ", ".join(map(str, several)) if len(several) > 1 else first

    config: dict[str, Any] = merged([run.config for run in runs])
    return config


def _class_of(target: str) -> str:
    """The name of a class, or of a class and its method that makes an object: ``"DynaQ.plus"``."""
    *_, owner, name = f".{target}".split(".")
    return f"{owner}.{name}" if owner[:1].isupper() else name


def reward_in_words(config: Mapping[str, Any]) -> str:
    """The reward of an agent while it learns, in words."""
    reward = config["reward"]
    if reward["_target_"] is None:
        own = config["env"].get("simulator")
        return (
            f"paid by decisions of {simulator_in_words(own)}, times what the applicant earns"
            if own
            else "paid the cosine"
        )
    name = reward["_target_"].rpartition(".")[2].removeprefix("Vector")
    if name == "CosineReward":
        return f"paid the cosine similarity of applicant and job (scale {reward['scale']})"
    asked = reward["simulator"] or config["env"]["simulator"]  # a reward without a simulator asks the environment's
    decides = simulator_in_words(asked)
    if name == "HybridReward":
        schedule = reward["schedule"]
        if schedule["kind"] == "two_phase":
            over = f"until interaction {schedule['switch_at']:,}, then"
        else:
            over = f"annealed ({schedule['kind']}) over {schedule['steps']:,} interactions to"
        return f"paid the cosine (scale {reward['cosine_scale']}) {over} decisions by {decides}"
    return f"paid by decisions of {decides}" if name in ("FeedbackReward", "LLMReward") else f"paid by {name}"


def simulator_in_words(spec: Mapping[str, Any]) -> str:
    """A simulator in words: ``"the planted rules (seed 0, noise 0.5)"``."""
    name = spec["_target_"].rpartition(".")[2]
    if name == "LLMSimulator":
        return f"the language model {spec['model']}"
    if name == "RecordedSimulator":
        return "a language model, recorded"
    known = ", ".join(f"{key} {spec[key]}" for key in ("seed", "noise", "corruption") if spec.get(key) is not None)
    who = {"RuleSimulator": "the planted rules", "CosineTruth": "the cosine"}.get(name, name)
    return f"{who} ({known})" if known else who


def truth_in_a_word(config: Mapping[str, Any]) -> str:
    """The name of a run's truth in a table: ``"planted"``."""
    name: str = truth_spec(config)["_target_"].rpartition(".")[2]
    return {"RuleSimulator": "planted", "RecordedSimulator": "recorded", "CosineTruth": "cosine"}.get(name, name)


def command_of(runs: Sequence[Run]) -> str:
    """The command that makes some runs again. The runs differ only by their seeds."""
    given = [_given(run) for run in runs]
    flat = [flat_config(run.config) for run in runs]
    values: dict[str, list[str]] = {}
    for key in dict.fromkeys([*(key for each in given for key in each), "seed"]):
        entry = key.lstrip("+~")
        own = [each.get(key) for each in given]
        if entry.rpartition(".")[2] == "seed" and all(entry in config for config in flat):
            # A seed can be the default of one run, and an override of another.
            own = [written(config[entry]) if value is None else value for value, config in zip(own, flat, strict=True)]
        several = list(dict.fromkeys(value for value in own if value is not None))
        if len(several) > 1 or any(key in each for each in given):
            values[key] = several
    if name := name_of(runs[0]):
        values["name"] = [as_override("name", name).removeprefix("name=")]
    sweep = ["-m"] if any(len(several) > 1 for several in values.values()) else []
    items = [f"{key}={','.join(several)}" if several != [""] else key for key, several in values.items()]
    return shlex.join(["python", "-m", "experiments.train", *sweep, *items])


def _given(run: Run) -> dict[str, str]:
    """The overrides of a run that say what it is, by key."""
    split = [item.partition("=") for item in run.summary.get("overrides", [])]
    return {key: value for key, _, value in split if key.lstrip("+~").partition(".")[0] not in WHERE_KEYS}
