"""Checks of arguments, with suggestions for misspelt names."""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

__all__ = [
    "BOOTSTRAPS",
    "PLANNING",
    "check_collecting",
    "check_learning",
    "is_whole",
    "python_numbers",
    "refuse_other_choice",
    "refuse_unknown_arguments",
    "refuse_unknown_first",
    "refuse_unknown_kwargs",
    "require_flag",
    "require_names",
    "require_number",
    "require_planning_gamma",
    "require_row",
    "require_sizes",
    "require_whole",
    "suggestion",
]


C = TypeVar("C", bound=Callable[..., None])

BOOTSTRAPS = ("same_action", "max", "double")
PLANNING = ("background", "decision_time")
MOST_BONUS = 1_000_000
"""Largest `exploration_bonus`."""
MOST_COLLECTED = 1_000_000
"""Most steps from one training to the next."""
MOST_DRAWN = 1 << 24
"""Most transitions of one draw. This many take a gigabyte or more."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """The end of a sentence: a suggestion for a misspelt name, or a full stop if no name is near. Case is ignored."""
    folded = {one.casefold(): one for one in reversed(list(known))}
    matches = difflib.get_close_matches(str(name).casefold(), list(folded), n=1)
    return f": did you mean {folded[matches[0]]!r}?" if matches else "."


def refuse_other_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse a value of an argument that is not among the known ones.

    Raises:
        ValueError: If the value is not among them.
    """
    if value not in known:
        raise ValueError(f"`{name}` must be one of {known}, got {value!r:.80}{suggestion(value, known)}")


def refuse_unknown_arguments(whose: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse names of arguments that are not known.

    Raises:
        TypeError: If a name is unknown.
    """
    known = sorted(known)
    if unknown := [name for name in given if name not in known]:
        raise TypeError(f"{whose} has no argument {unknown[0]!r:.80}{suggestion(unknown[0], known)}")


def refuse_unknown_kwargs(name: str, made: Callable[..., Any], given: Iterable[str]) -> None:
    """Refuse keywords in the argument `name` that the class or function `made` does not take.

    Raises:
        TypeError: If a keyword is unknown.
    """
    if not callable(made):
        raise TypeError(f"`{name}` need a class or function that takes them, got {made!r:.80} in its place.")
    parameters = inspect.signature(made).parameters
    if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters.values()):
        refuse_unknown_arguments(f"{made.__name__}, which takes `{name}`,", given, parameters)


def refuse_unknown_first(constructor: C) -> C:
    """A constructor that refuses unknown keywords by :func:`refuse_unknown_arguments`, before anything else."""
    known = list(inspect.signature(constructor).parameters)[1:]  # without `self`
    whose = constructor.__qualname__.removesuffix(".__init__")

    @functools.wraps(constructor)
    def checked(*args: Any, **kwargs: Any) -> None:
        refuse_unknown_arguments(whose, kwargs, known)
        constructor(*args, **kwargs)

    return checked  # type: ignore[return-value]


def python_numbers(value: Any) -> Any:
    """The value with Python's numbers in place of NumPy's, also within dictionaries, lists and tuples.

    SB3 and torch refuse some of NumPy's numbers, and an agent whose file holds one cannot be loaded. Arrays stay as
    they are. A value without NumPy's numbers is returned itself.
    """
    if isinstance(value, np.generic):
        return value.item()
    if type(value) not in (dict, list, tuple):
        return value
    items = list(value.values() if type(value) is dict else value)
    plain = [python_numbers(item) for item in items]
    if all(one is other for one, other in zip(plain, items, strict=True)):
        return value
    return dict(zip(value, plain, strict=True)) if type(value) is dict else type(value)(plain)


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number of any type. True and False do not count as numbers."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def require_whole(name: str, value: Any, least: int) -> int:
    """A whole number of any type as an int.

    Args:
        name: Name of the argument.
        value: The given value; True and False do not count as numbers.
        least: The smallest allowed number.

    Raises:
        ValueError: If the value is not a whole number, or too small.
    """
    if not is_whole(value):
        raise ValueError(f"`{name}` must be a whole number of {least} or more, got {value!r:.80}.")
    if value < least:
        raise ValueError(f"`{name}` must be {least} or more, got {value}.")
    return int(value)


def require_flag(name: str, value: Any) -> bool:
    """True or False, also of NumPy's type. Anything else is refused: a text such as "no" would count as True.

    Raises:
        ValueError: If the value is neither.
    """
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"`{name}` must be True or False, got {value!r:.80}.")
    return bool(value)


def require_names(name: str, value: Iterable[str]) -> set[str]:
    """Names, as a set. A single text is refused: its letters would count as names.

    Raises:
        ValueError: If the value is a text, or holds something else than texts.
    """
    names = [value] if isinstance(value, str) or not isinstance(value, Iterable) else list(value)
    if isinstance(value, str) or not all(isinstance(one, str) for one in names):
        example = [value] if isinstance(value, str) else ["policy_kwargs"]
        raise ValueError(f"`{name}` must be a list of names, such as {example}, got {value!r:.80}.")
    return set(names)


def require_sizes(name: str, value: Any) -> list[int]:
    """Sizes of hidden layers.

    Raises:
        ValueError: If they are not whole numbers of 1 or more, or if there are none.
    """
    whole = isinstance(value, Sequence) and all(
        isinstance(size, numbers.Integral) and not isinstance(size, bool) and int(size) >= 1 for size in value
    )
    if not whole or not value:
        raise ValueError(f"`{name}` must name at least one hidden layer of size 1 or more, got {value!r:.80}.")
    return [int(size) for size in value]


def require_number(name: str, value: Any) -> float:
    """A finite number.

    Raises:
        ValueError: If the value is not a finite number.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise ValueError(f"`{name}` must be a finite number, got {value!r:.80}.")
    return float(value)


def require_row(name: str, value: Any) -> list[float]:
    """Numbers in a row, as a list.

    Raises:
        ValueError: If the value is not numbers in a row.
    """
    try:
        return [float(number) for number in value]
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{name}` must be numbers in a row, such as [0.1, 0.1], got {value!r:.80}.") from error


def check_collecting(given: Mapping[str, Any]) -> None:
    """Check those arguments of :class:`stable_baselines3.DQN` that it does not check itself.

    Raises:
        ValueError: If an argument is of another kind or out of range.
    """
    for name, least in (("learning_starts", 0), ("gradient_steps", -1)):
        if given.get(name) is not None:
            require_whole(name, given[name], least)
    for name in ("exploration_initial_eps", "exploration_final_eps", "tau"):
        if name in given and not 0 <= require_number(name, given[name]) <= 1:
            raise ValueError(f"`{name}` must be in [0, 1], got {given[name]}.")
    if "exploration_fraction" in given and require_number("exploration_fraction", given["exploration_fraction"]) < 0:
        raise ValueError(f"`exploration_fraction` must be 0 or more, got {given['exploration_fraction']}.")
    if not callable(rate := given.get("learning_rate", 0.0)):
        require_number("learning_rate", rate)
    frequency = given.get("train_freq", 1)
    if isinstance(frequency, tuple | list):
        if len(frequency) != 2 or frequency[1] not in ("step", "episode"):
            raise ValueError(f'`train_freq` must be a number, or a tuple such as (4, "step"), got {frequency!r:.80}.')
        frequency = frequency[0]
    require_whole("train_freq", frequency, 1)


def check_learning(given: Mapping[str, Any]) -> None:
    """Check those arguments of :class:`~dynaq_algo.dynaq.DynaQ` that control learning; others are ignored.

    Raises:
        ValueError: If a choice is unknown, or a number is out of range.
    """
    refuse_other_choice("planning", given["planning"], PLANNING)
    refuse_other_choice("bootstrap", given["bootstrap"], BOOTSTRAPS)
    gamma: float = given["gamma"]
    weight_pull: float = given["weight_pull"]
    exploration_bonus: float = given["exploration_bonus"]
    require_number("gamma", gamma)
    if isinstance(weight_pull, bool) or not (isinstance(weight_pull, numbers.Real) and 0 <= weight_pull <= 1):
        raise ValueError(
            f"`weight_pull` must be a share in [0, 1], got {weight_pull!r:.80}. For no pull leave it out, or give 0."
        )
    if not (isinstance(exploration_bonus, numbers.Real) and 0 <= exploration_bonus < math.inf):
        raise ValueError(f"`exploration_bonus` must be a finite number of 0 or more, got {exploration_bonus}.")
    if exploration_bonus > MOST_BONUS:
        raise ValueError(f"`exploration_bonus` must be {MOST_BONUS:,} or less, got {exploration_bonus!r:.80}.")
    if not 0 <= gamma <= 1 or (given["bootstrap"] == "same_action" and gamma == 1):
        raise ValueError(
            f'`gamma` must be in [0, 1], and below 1 for `bootstrap="same_action"` (an action is then worth r / '
            f'(1 - gamma)), got {gamma}. Lower it, or use `bootstrap="max"`.'
        )
    max_grad_norm = given["max_grad_norm"]
    if isinstance(max_grad_norm, bool) or not (isinstance(max_grad_norm, numbers.Real) and max_grad_norm > 0):
        raise ValueError(
            f"`max_grad_norm` must be above 0, got {max_grad_norm!r:.80}. To clip no gradient leave it out."
        )
    frequency = given["train_freq"]
    every = frequency[0] if isinstance(frequency, tuple | list) else frequency
    if every > MOST_COLLECTED:
        raise ValueError(
            f"`train_freq` must be {MOST_COLLECTED:,} or less, got {every}: learning begins only after that many "
            "steps or episodes."
        )
    for name in ("planning_steps", "planning_horizon", "batch_size", "target_update_interval"):
        require_whole(name, given[name], 0 if name == "planning_steps" else 1)
    if given["world_model_name"] == "transitions":
        _check_learning_transitions(given)
    elif given["planning_horizon"] > 1:
        raise ValueError(
            f'`planning_horizon` must be 1 unless `world_model` is "transitions", got {given["planning_horizon"]}: '
            "other world models imagine one step. Leave it out, or raise `planning_steps`."
        )
    drawn = max(1, given["planning_steps"]) * given["batch_size"]
    if drawn > MOST_DRAWN:
        raise ValueError(
            f"`batch_size` times `planning_steps` must be at most {MOST_DRAWN:,}, because their product is the number "
            "of transitions that are drawn from replay at once, got "
            f"{given['batch_size']} and {given['planning_steps']}: lower either."
        )


def require_planning_gamma(gamma: float) -> float:
    """`gamma` if a model of transitions can plan with it, or raise ValueError."""
    if not 0 <= gamma < 1:
        raise ValueError(
            f'`gamma` must be at least 0 and below 1 with `world_model="transitions"`, got {gamma}: that model plans '
            "without a last step, so the values of states would grow without end. Use 0.99."
        )
    return gamma


def _check_learning_transitions(given: Mapping[str, Any]) -> None:
    """Refuse arguments of other world models, which a model of transitions would not read, and a `gamma` of 1.

    A model of transitions plans without a last step, so with a `gamma` of 1 the values would grow without end.
    """
    require_planning_gamma(given["gamma"])
    if (source := given["planning_source"]) not in ("visited", "candidates"):
        raise ValueError(
            '`planning_source` must be "visited" or "candidates" with `world_model="transitions"`, got '
            f"{source!r:.80}: that model imagines whole candidate sets, each for the applicant to whom it was shown."
        )
    if given["weight_pull"]:
        raise ValueError(
            f'`weight_pull` must be 0 with `world_model="transitions"`, got {given["weight_pull"]}: that model has no '
            "weights of pre-training to go back to. Leave it out."
        )
    if given["exploration_bonus"]:
        raise ValueError(
            f'`exploration_bonus` must be 0 with `world_model="transitions"`, got {given["exploration_bonus"]}: the '
            "rewards of that model have no standard deviation. Raise `exploration_final_eps`, or "
            '`world_model_kwargs={"bonus": ...}` for values of `progress` that were seldom visited.'
        )
