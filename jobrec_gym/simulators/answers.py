"""What a chat completion says: checked against a closed set, read from token probabilities, never guessed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

__all__ = ["ParsedAnswer", "parse_decision", "parse_probability", "response_format"]

_MAX_REASON = 200
_WORDS = ("Yes", "No")

Form = TypeVar("Form", bound=BaseModel)


class _Decision(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    reason: str = Field(max_length=_MAX_REASON)
    decision: Literal["ignore", "click", "save", "apply"]


class _Application(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    apply: Literal["Yes", "No"]


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """What an answer says, or what is wrong with it.

    Attributes:
        status: ``ok``, ``refusal``, ``truncated``, ``bad_json``, ``wrong_schema``, ``foreign_word`` or ``no_logprobs``.
        decision: One of :data:`~jobrec_gym.simulators.base.DECISIONS`; "" without one.
        probability: ``P(Yes) / (P(Yes) + P(No))``; NaN without one.
        reason: In the model's words; may be empty.
    """

    status: str
    decision: str = ""
    probability: float = math.nan
    reason: str = ""


def response_format(mode: Literal["decision", "probability"], decisions: Sequence[str]) -> dict[str, Any]:
    """The OpenAI form of a JSON schema that an answer must keep to.

    Args:
        mode: How the model is asked.
        decisions: The closed set, in the order in which it is listed; ``"decision"`` only.
    """
    if mode == "decision":
        properties: dict[str, Any] = {
            "reason": {"type": "string", "maxLength": _MAX_REASON},
            "decision": {"type": "string", "enum": list(decisions)},
        }
    else:
        properties = {"apply": {"type": "string", "enum": list(_WORDS)}}
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": mode, "strict": True, "schema": schema}}


def parse_decision(choice: Mapping[str, Any]) -> ParsedAnswer:
    """The decision of a completion that was asked for :data:`DECISION_SCHEMA`.

    Args:
        choice: An entry of ``choices`` of a chat completion, as a plain dictionary.
    """
    answer = _checked(choice, _Decision)
    if isinstance(answer, ParsedAnswer):
        return answer
    return ParsedAnswer("ok", decision=answer.decision, reason=answer.reason)


def parse_probability(choice: Mapping[str, Any]) -> ParsedAnswer:
    """The probability of an application of a completion that was asked for :data:`PROBABILITY_SCHEMA`.

    It is read where the value of ``apply`` begins, from the alternatives of that token: those that say exactly Yes or
    No, but for blanks and the opening quotation mark.

    Args:
        choice: An entry of ``choices`` of a chat completion with ``logprobs``, as a plain dictionary.
    """
    answer = _checked(choice, _Application)
    if isinstance(answer, ParsedAnswer):
        return answer
    mass = dict.fromkeys(_WORDS, 0.0)
    try:
        for alternative in _alternatives_at_value((choice.get("logprobs") or {}).get("content") or ()):
            word = alternative["token"].strip(' "')
            if word in mass:
                mass[word] += math.exp(alternative["logprob"])
    except (AttributeError, KeyError, OverflowError, TypeError):  # of another form than it should have
        return ParsedAnswer("no_logprobs")
    total = sum(mass.values())
    if not 0 < total < math.inf:
        return ParsedAnswer("no_logprobs")
    return ParsedAnswer("ok", probability=mass["Yes"] / total)


def _checked(choice: Mapping[str, Any], form: type[Form]) -> Form | ParsedAnswer:
    """The answer in its form, or what is wrong with it."""
    message = choice.get("message") or {}
    if message.get("refusal") or choice.get("finish_reason") == "content_filter":
        return ParsedAnswer("refusal", reason=str(message.get("refusal") or "")[:_MAX_REASON])
    if choice.get("finish_reason") == "length":
        return ParsedAnswer("truncated")
    try:
        return form.model_validate_json(message.get("content") or "")
    except ValidationError as error:
        faults = error.errors()
    if faults[0]["type"] == "json_invalid":
        return ParsedAnswer("bad_json")
    foreign = all(fault["type"] == "literal_error" and isinstance(fault["input"], str) for fault in faults)
    return ParsedAnswer("foreign_word" if foreign else "wrong_schema")


def _alternatives_at_value(tokens: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The alternatives of the token in which the value's first letter stands; none if there is no such token."""
    text = "".join(token["token"] for token in tokens)
    colon = text.find(":", text.find('"apply"') + len('"apply"'))
    quote = text.find('"', colon)
    if text.find('"apply"') < 0 or colon < 0 or quote < 0:
        return ()
    end = 0
    for token in tokens:
        end += len(token["token"])
        if end > quote + 1:
            return token.get("top_logprobs") or ()
    return ()
