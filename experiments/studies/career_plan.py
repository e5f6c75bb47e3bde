"""The plan of ``experiments.career``: which runs its config asks for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, get_args

from experiments.runs.folders import RunError
from experiments.runs.numbers import MOST, require_known, require_once, require_whole
from experiments.runs.sb3_arguments import require_sb3_arguments
from jobrec_gym.oracle import OraclePolicy

__all__ = ["SET", "Options", "left_out", "plan_of", "require_free"]

Options = Mapping[str, Any]

_COSINE = "cosine"
_VARIED = "dynaq_plus"
_SHOWN = ("ids", "pairs")
_SECTIONS = ("define", "one_by_one", "only_first", "env", "simulator")
SET = {
    "observation": "it is always ids",
    "split": "learners are trained on the train split and scored on the test split",
    "simulator": "it is the planted truth of each seed, which noise= changes",
}
"""Arguments of the environment that commands with careers set themselves, and how."""

_INSTALLED_BY = {"sb3_contrib": "sb3-contrib>=2.9,<3"}
"""Names for pip of packages that opponents need, by their import name. No extra of this project has them."""


def plan_of(options: Options) -> list[dict[str, Any]]:
    """The runs that a config asks for, each in plain JSON. Entries for equal work are equal.

    Raises:
        RunError: If a learner or policy is unknown, a number is out of its range, points do not ascend, or there is no
            learner or no policy to compare with.
    """
    for name in _SECTIONS:
        if not isinstance(options.get(name, {}), Mapping):
            raise RunError(f"`{name}` must be entries with values, {name}={{ENTRY: VALUE}}, got {options[name]!r:.80}.")
    require_free("env", options.get("env", {}), {**SET, "simulator": f"{SET['simulator']}, as +simulator.reach= does"})
    set_by = {"type": "it is the planted truth", "seed": "it is one of seeds=[...]", "noise": "give noise= instead"}
    require_free("simulator", options.get("simulator", {}), set_by)
    at = list(options["at"])
    if not at or at[0] < 0 or at != sorted(set(at)):
        raise RunError(f"`at` must be ascending numbers of interactions of 0 or more, got {at}.")
    if not options["oracles"]:
        raise RunError("`oracles` must name at least one policy to compare with, such as oracles=[best], got none.")
    require_known("oracles", options["oracles"], get_args(OraclePolicy), "the exact policies")
    if "best" not in options["oracles"]:
        raise RunError(
            "`oracles` must contain best, because results are shares of the best policy's return, such as "
            f"oracles=[best], got {options['oracles']}."
        )
    define = _defined(options)
    varied = _one_by_one(options, define)
    names = [*options["learners"], *varied]
    if not names:
        raise RunError(f"`learners` must name at least one, such as learners=[{_VARIED}], got none.")
    define |= varied
    only_first, known = options.get("only_first", {}), [_COSINE, *define]
    for argument, given in (("learners", names), ("draw", options.get("draw", ())), ("only_first", only_first)):
        require_known(argument, given, known, "`define`")
    for name, how_many in only_first.items():
        require_whole(f"only_first.{name}", how_many, 1, MOST, optional=True)  # null: all seeds
    missing = left_out(options)
    names = [name for name in names if name not in missing]
    for name in names:
        # Values of the argument that varies were checked before, so what is wrong stands in dynaq_plus itself.
        require_sb3_arguments(f"define.{_VARIED if name in varied else name}", define.get(name, {}))
    shared = {key: options[key] for key in ("env", "noise", "n_applicants")}
    # Without further arguments there is no entry, so that runs of earlier versions are kept.
    shared |= {"simulator": options["simulator"]} if options.get("simulator") else {}
    plan = [
        {"oracle": policy, "seed": seed, "n_sets": options["n_sets"], **shared}
        for policy in options["oracles"]
        for seed in options["seeds"]
    ]
    for name in names:
        learner = {} if name == _COSINE else define[name]
        points = [0] if name == _COSINE else at
        seeds = options["seeds"][: only_first.get(name)]
        plan += [{"name": name, "learner": learner, "seed": seed, "at": points, **shared} for seed in seeds]
    return plan


def require_free(name: str, arguments: Mapping[str, Any], taken: Mapping[str, str]) -> None:
    """Refuses arguments that a command sets itself.

    Args:
        name: The entry of the config that has the arguments.
        arguments: The arguments.
        taken: Those that the command sets -> how it sets them.

    Raises:
        RunError: If one of them is given.
    """
    for argument in arguments:
        if argument in taken:
            raise RunError(f"`{name}.{argument}` cannot be given, because the command sets it: {taken[argument]}.")


def left_out(options: Options) -> dict[str, str]:
    """Learners of a config whose package is not installed, and how to install it."""
    missing = {}
    for name in options["learners"]:
        package = options["define"].get(name, {}).get("_target_", "").partition(".")[0]
        if package in _INSTALLED_BY and find_spec(package) is None:
            missing[name] = f"it needs {_INSTALLED_BY[package]}: pip install '{_INSTALLED_BY[package]}'"
    return missing


def _defined(options: Options) -> dict[str, Any]:
    """The learners that can be chosen, by name."""
    for name, entry in options["define"].items():
        if not isinstance(entry, Mapping) or not isinstance(entry.get("_target_"), str):
            raise RunError(f"`define.{name}` must be {{_target_: package.Class, ...}}, got {entry!r:.80}.")
        require_known(f"define.{name}.shows", [entry.get("shows", "ids")], _SHOWN, "the observations")
    return dict(options["define"])


def _one_by_one(options: Options, define: Mapping[str, Any]) -> dict[str, Any]:
    """The learners that differ from ``dynaq_plus`` in one argument, by name."""
    arguments, varied = options["one_by_one"], {}
    if arguments:
        require_known("one_by_one", [_VARIED], list(define), "`define`")
    for argument, values in arguments.items():
        place = f"one_by_one.{argument}"
        if not isinstance(values, list) or not values:
            example = f"+{place}=[{1 if isinstance(values, list) else values!s:.40}]"
            raise RunError(f"`{place}` must be a list of one value or more, such as {example}, got {values!r:.80}.")
        require_once(place, values)
        for value in values:
            require_sb3_arguments("one_by_one", {"_target_": define[_VARIED]["_target_"], argument: value})
            varied[f"{_VARIED}, {argument} {value}"] = {**define[_VARIED], argument: value}
    return varied
