"""The answer in a chat completion: checked against a closed set or read from token probabilities, never guessed."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from jobrec_gym.credentials import mask

__all__ = ["ParsedAnswer", "parse_decision", "parse_probability", "response_format"]

_MAX_REASON = 200
_MAX_TOLD = 120
_WORDS = ("Yes", "No")
_FENCE = re.compile(r"""(?:[^\n{}`~"]{1,80}:\s*)?(`{3,}|~{3,})[ ]*[a-zA-Z]*""")
"""The opening of a code fence, with at most one line before it that ends in a colon, such as "Here it is:"."""
_PAGE = re.compile(r"\s*<(!doctype|html|head|body)\b", re.IGNORECASE)
"""The beginning of a web page: something between here and the model, such as a gateway, sent its error as an answer."""

Form = TypeVar("Form", bound=BaseModel)


class _Decision(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    reason: str
    decision: Literal["ignore", "click", "save", "apply"]


class _Application(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    apply: Literal["Yes", "No"]


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """The content of an answer, or what is wrong with it.

    Attributes:
        status: ``ok``, ``refusal``, ``truncated``, ``bad_json``, ``wrong_schema``, ``foreign_word`` or ``no_logprobs``.
        decision: One of :data:`~jobrec_gym.simulators.base.DECISIONS`; "" if there is none.
        probability: ``P(Yes) / (P(Yes) + P(No))``; NaN if there is none.
        reason: The model's reason in its own words; without a valid answer, what came instead. May be empty.
        kept: Whether the same question would bring the same answer; False if the server's settings are at fault.
    """

    status: str
    decision: str = ""
    probability: float = math.nan
    reason: str = ""
    kept: bool = True


def response_format(mode: Literal["decision", "probability"], decisions: Sequence[str]) -> dict[str, Any]:
    """The JSON schema of an answer, in the form that OpenAI's interface takes.

    Args:
        mode: How the model is asked.
        decisions: The allowed decisions, in the order in which the prompt lists them; mode ``"decision"`` only.
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


def parse_decision(choice: Mapping[str, Any], length: str = "max_tokens") -> ParsedAnswer:
    """The decision of a completion with the ``response_format`` of mode ``"decision"``.

    Args:
        choice: An entry of ``choices`` of a chat completion, as a plain dictionary.
        length: Name of the argument that set the length of an answer, ``max_tokens`` or ``max_completion_tokens``. The
            reason of an answer that was cut contains this name.
    """
    answer = _checked(choice, _Decision, length)
    if isinstance(answer, ParsedAnswer):
        return answer
    return ParsedAnswer("ok", decision=answer.decision, reason=mask(answer.reason)[:_MAX_REASON])


def parse_probability(choice: Mapping[str, Any], length: str = "max_tokens") -> ParsedAnswer:
    """The probability of an application, from a completion with the ``response_format`` of mode ``"probability"``.

    The probability is read at the token in which the value of ``apply`` begins. An alternative to this token counts
    only if it says exactly Yes or No, apart from blanks and the opening quotation mark.

    Args:
        choice: An entry of ``choices`` of a chat completion with ``logprobs``, as a plain dictionary.
        length: See :func:`parse_decision`.
    """
    answer = _checked(choice, _Application, length)
    if isinstance(answer, ParsedAnswer):
        return answer
    came = _what_came(choice["message"])
    if not choice.get("logprobs"):
        return ParsedAnswer("no_logprobs", reason="the server sent no token probabilities", kept=False)
    mass = dict.fromkeys(_WORDS, 0.0)
    try:
        alternatives = _alternatives_at_value(choice["logprobs"].get("content") or ())
        for alternative in alternatives:
            word = alternative["token"].strip(' "')
            if word in mass:
                mass[word] += math.exp(alternative["logprob"])
    except (AttributeError, KeyError, OverflowError, TypeError):
        reason = f"the server sent token probabilities of another form than OpenAI's; {came}"
        return ParsedAnswer("no_logprobs", reason=reason, kept=False)
    if not alternatives:
        reason = f"the server sent no alternatives (`top_logprobs`) of the token of the answer; {came}"
        return ParsedAnswer("no_logprobs", reason=reason, kept=False)
    total = sum(mass.values())
    if not 0 < total < math.inf:
        return ParsedAnswer("no_logprobs", reason=f"neither Yes nor No was among the likely tokens; {came}")
    return ParsedAnswer("ok", probability=mass["Yes"] / total)


def _checked(choice: Mapping[str, Any], form: type[Form], length: str) -> Form | ParsedAnswer:
    """The answer in its form, or what is wrong with it."""
    message = choice.get("message") or {}
    content = message.get("content") or ""
    content = _text(content) if isinstance(content, str) else ""
    said = bool(content.strip())
    if message.get("refusal") or choice.get("finish_reason") == "content_filter":
        return ParsedAnswer("refusal", reason=mask(_text(message.get("refusal") or ""))[:_MAX_REASON])
    try:
        # Also if the limit of tokens was used up: some models go on with blanks after a whole answer.
        return form.model_validate_json(_unfenced(content))
    except ValidationError as error:
        faults = error.errors()
    if choice.get("finish_reason") == "length":
        longer = f"the limit of tokens was used up: raise `sampling.{length}`"
        return ParsedAnswer("truncated", reason=f"{longer}; {_what_came(message)}", kept=said)
    if not said:
        return ParsedAnswer("bad_json", reason=_what_came(message), kept=False)
    if faults[0]["type"] == "json_invalid":
        mended = _has_an_answer_within(content) or _PAGE.match(content) is not None
        return ParsedAnswer("bad_json", reason=_what_came(message), kept=not mended)
    foreign = all(fault["type"] == "literal_error" and isinstance(fault["input"], str) for fault in faults)
    return ParsedAnswer("foreign_word" if foreign else "wrong_schema", reason=_what_came(message))


def _unfenced(content: str) -> str:
    """What is in a code fence, if the content is one; otherwise the content itself."""
    text = content.strip()
    fence = _FENCE.match(text)
    return text[fence.end() : -len(fence[1])] if fence and text.endswith(fence[1]) else text


def _what_came(message: Mapping[str, Any]) -> str:
    """The text of a message that is not an answer, cut to a bound, with API keys masked."""
    content = message.get("content")
    if content:
        whole = " ".join(mask(_text(content)).split())
        return f"what came: {whole[:_MAX_TOLD]}{'...' if len(whole) > _MAX_TOLD else ''}"
    thought = message.get("reasoning_content") or message.get("reasoning")
    if thought:
        return (
            f"no content came, only {len(str(thought)):,} characters of reasoning: let the model think less, or not at "
            "all"
        )
    return "no content came"


def _text(value: Any) -> str:
    """A value as text that can be encoded: JSON may escape halves of characters."""
    return str(value).encode(errors="replace").decode()


def _has_an_answer_within(content: str) -> bool:
    """Whether a text has words around a JSON object, which a server that enforces the schema would not allow.

    Such an object is not read, because the words around it may change its meaning.
    """
    begin, end = content.find("{"), content.rfind("}")
    try:
        return isinstance(json.loads(content[begin : end + 1]), dict)
    except (ValueError, RecursionError):
        return False


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
