"""Every documented argument is in a config, with its default: nobody has to know what may be added."""

import inspect
from dataclasses import MISSING, fields

import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from hydra.utils import get_object
from omegaconf import OmegaConf

from jobrec_gym import (
    AnnealSchedule,
    JobRecCareerVectorEnv,
    JobRecVectorEnv,
    LLMSimulator,
    RecordedSimulator,
    RuleSimulator,
    VectorCosineReward,
    VectorFeedbackReward,
    VectorHybridReward,
    VectorLLMReward,
)
from jobrec_gym.loaders.dynaq_json import load_dynaq_json
from jobrec_gym.loaders.esco import load_esco
from jobrec_gym.loaders.generated import load_default
from jobrec_gym.loaders.onet import load_onet
from jobrec_gym.loaders.tables import load_table
from jobrec_gym.simulators.arguments import Budget, Calls, Elicitation, Retries, Sampling

HERE = "here"

CASES = {
    # What: its callable, overrides, where it is, arguments that are elsewhere, or nowhere and why, and other defaults.
    "rules": (RuleSimulator, [], "simulator", {}, ()),
    "recorded": (RecordedSimulator, ["simulator=recorded"], "simulator", {}, ()),
    "llm": (
        LLMSimulator,
        ["simulator=llm"],
        "simulator",
        {"api_key": "a key is not written down"},
        # A model has to be named; what is paid is kept and bounded; values are compared below.
        ("model", "cache", "elicitation", "sampling", "budget", "calls", "retries"),
    ),
    "env": (
        JobRecVectorEnv,
        [],
        "env",
        {
            "num_envs": "n_envs",
            "autoreset_mode": "what a recorder reads",
            "market": "a group of its own",
            "render_mode": "training shows nothing",
        },
        ("observation",),  # ids: faster
    ),
    "career": (
        JobRecCareerVectorEnv,
        ["env=career"],
        "env",
        {
            "num_envs": "n_envs",
            "autoreset_mode": "what a recorder reads",
            "market": "a group of its own",
            "render_mode": "training shows nothing",
            "start": "short for dynamics.start",
            "the environment": "id",
        },
        ("observation", "simulator", "dynamics"),
    ),
    "cosine": (VectorCosineReward, ["reward=cosine"], "reward", {"env": "made"}, ()),
    "feedback": (VectorFeedbackReward, ["reward=feedback"], "reward", {"env": "made"}, ("simulator",)),
    "llm reward": (VectorLLMReward, ["reward=llm"], "reward", {"env": "made"}, ("simulator",)),
    "hybrid": (
        VectorHybridReward,
        ["reward=hybrid"],
        "reward",
        {"env": "made"},
        ("simulator", "schedule", "cosine_scale"),
    ),
    "schedule": (AnnealSchedule, ["reward=hybrid"], "reward.schedule", {}, ("steps",)),
    "default": (load_default, [], "market", {}, ()),
    "onet": (load_onet, ["market=onet", f"market.path={HERE}"], "market", {}, ("path",)),
    "esco": (load_esco, ["market=esco", f"market.path={HERE}"], "market", {}, ("path",)),
    "dynaq-json": (load_dynaq_json, ["market=dynaq_json", f"market.path={HERE}"], "market", {}, ("path",)),
    **{
        scheme: (load_table, [f"market={scheme}", f"market.path={HERE}"], "market", {"kind": "scheme"}, ("path",))
        for scheme in ("csv", "json", "jsonl", "parquet", "job_posting")
    },
    "json_resume": (
        load_table,
        ["market=json_resume", f"market.path={HERE}"],
        "market",
        {"kind": "scheme", "the people are in `path`": "jobs"},
        ("path",),
    ),
}
VALUES = {"elicitation": Elicitation, "sampling": Sampling, "budget": Budget, "calls": Calls, "retries": Retries}
OTHER_VALUES = {"budget": ("max_calls", "on_reached")}  # a run is bounded, and a cap that is reached ends it well


def plain(value):
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("case", CASES)
def test_every_argument_is_in_its_config_with_its_default(config, case):
    kind, overrides, place, elsewhere, other = CASES[case]
    node = OmegaConf.select(config("train", *overrides), place)
    entry = {key: value for key, value in OmegaConf.to_container(node, resolve=False).items() if key != "_target_"}
    parameters = inspect.signature(kind).parameters

    assert {*entry} - {"scheme", "source"} >= {*parameters} - {*elsewhere}
    strange = {*entry} - {*parameters} - {"scheme", "source", *elsewhere.values()}
    assert not strange, "they are no arguments"
    for name, parameter in parameters.items():
        if name in {*elsewhere, *other} or parameter.default is parameter.empty:
            continue
        assert entry[name] == plain(parameter.default), name


@pytest.mark.parametrize("name", VALUES)
def test_every_field_of_a_value_is_in_the_config_of_the_language_model(config, name):
    entry = OmegaConf.to_container(config("train", "simulator=llm").simulator[name])

    assert {*entry} == {field.name for field in fields(VALUES[name])}
    for field in fields(VALUES[name]):
        assert field.default is not MISSING
        if field.name not in OTHER_VALUES.get(name, ()):
            assert entry[field.name] == plain(field.default), field.name


def test_what_each_config_names_is_what_is_compared_here(config):
    for case, (kind, overrides, place, *_) in CASES.items():
        if case in ("env", "career"):
            continue  # it is made by experiments.runs.build
        target = OmegaConf.select(config("train", *overrides), f"{place}._target_")
        named = get_object(target)
        assert named is kind or named.__name__ in ("load_market", "open_market"), case
