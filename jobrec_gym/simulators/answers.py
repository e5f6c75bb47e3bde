"""What a chat completion says: checked against a closed set, read from token probabilities, never guessed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobrec_gym.simulators.base import DECISIONS

__all__ = ["DECISION_SCHEMA", "PROBABILITY_SCHEMA", "ParsedAnswer", "parse_decision", "parse_probability"]

_MAX_REASON = 200
_WORDS = ("Yes", "No")

DECISION_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "reason": {"type": "string", "maxLength": _MAX_REASON},
        "decision": {"type": "string", "enum": list(DECISIONS)},
    },
    "required": ["reason", "decision"],
    "additionalProperties": False,
}
"""JSON schema of an answer of ``mode="decision"``."""

PROBABILITY_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {"apply": {"type": "string", "enum": list(_WORDS)}},
    "required": ["apply"],
    "additionalProperties": False,
}
"""JSON schema of an answer of ``mode="probability"``."""


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


def parse_decision(choice: Mapping[str, Any]) -> ParsedAnswer:
    """The decision of a completion that was asked for :data:`DECISION_SCHEMA`.

    Args:
        choice: An entry of ``choices`` of a chat completion, as a plain dictionary.
    """
    answer = _checked_object(choice, {"reason", "decision"})
    if isinstance(answer, ParsedAnswer):
        return answer
    if len(answer["reason"]) > _MAX_REASON:
        return ParsedAnswer("wrong_schema")
    if answer["decision"] not in DECISIONS:
        return ParsedAnswer("foreign_word", reason=answer["reason"])
    return ParsedAnswer("ok", decision=answer["decision"], reason=answer["reason"])


def parse_probability(choice: Mapping[str, Any]) -> ParsedAnswer:
    """The probability of an application of a completion that was asked for :data:`PROBABILITY_SCHEMA`.

    It is read where the value of ``apply`` begins, from the alternatives of that token: those that say exactly Yes or
    No, but for blanks and the opening quotation mark.

    Args:
        choice: An entry of ``choices`` of a chat completion with ``logprobs``, as a plain dictionary.
    """
    answer = _checked_object(choice, {"apply"})
    if isinstance(answer, ParsedAnswer):
        return answer
    if answer["apply"] not in _WORDS:
        return ParsedAnswer("foreign_word")
    tokens: Sequence[Mapping[str, Any]] = (choice.get("logprobs") or {}).get("content") or ()
    alternatives = _alternatives_at_value(tokens)
    mass = dict.fromkeys(_WORDS, 0.0)
    for alternative in alternatives:
        word = alternative["token"].strip(' "')
        if word in mass:
            mass[word] += math.exp(alternative["logprob"])
    total = sum(mass.values())
    if not total > 0:
        return ParsedAnswer("no_logprobs")
    return ParsedAnswer("ok", probability=mass["Yes"] / total)


def _checked_object(choice: Mapping[str, Any], keys: set[str]) -> dict[str, str] | ParsedAnswer:
    """The answer's object with just these keys and texts as values, or what is wrong with it."""
    message = choice.get("message") or {}
    if message.get("refusal") or choice.get("finish_reason") == "content_filter":
        return ParsedAnswer("refusal")
    if choice.get("finish_reason") == "length":
        return ParsedAnswer("truncated")
    try:
        answer = json.loads(message.get("content") or "")
    except (json.JSONDecodeError, TypeError):
        return ParsedAnswer("bad_json")
    if (
        not isinstance(answer, dict)
        or set(answer) != keys
        or not all(isinstance(each, str) for each in answer.values())
    ):
        return ParsedAnswer("wrong_schema")
    return answer


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
