"""One chat completion through litellm: what it said and cost, or what went wrong and whether to try again."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["CallFailed", "ChatModel", "Completion", "ModelUnusable"]

_import_lock = threading.Lock()
_TOKENS_OF_A_MESSAGE = 8  # what a chat template puts around each


class ModelUnusable(RuntimeError):
    """No call can succeed: a missing key, an unknown model, a parameter that the provider does not have."""


class CallFailed(Exception):
    """A call that brought no completion.

    Attributes:
        status: ``rate_limit``, ``server_error``, ``timeout``, ``connection``, ``refusal`` or ``rejected``.
        again: Whether it is worth another try.
        wait: Seconds that the server asks to wait, 0 if it does not say.
        reason: In the server's words.
    """

    def __init__(self, status: str, reason: str, *, again: bool = False, wait: float = 0.0):
        super().__init__(f"{status}: {reason}")
        self.status = status
        self.again = again
        self.wait = wait
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model said.

    Attributes:
        choice: The first entry of ``choices``, as plain data.
        tokens: Tokens in and out.
        cost_usd: Dollars at the model's list price, 0.0 where it has none.
    """

    choice: Mapping[str, Any]
    tokens: int
    cost_usd: float


class ChatModel:
    """A chat model of any provider, or behind an OpenAI-compatible address.

    Args:
        model: litellm's name, e.g. ``openai/gpt-4o-mini``.
        api_base: Address of a local server; ``None`` for the provider's own.
        api_key: The key; ``None`` takes the provider's environment variable, and for an ``api_base`` none is needed.
        options: Further keywords of each call: sampling, ``response_format``, ``logprobs``, ``extra_body``.
        prices: Dollars per token in and out; ``None`` takes litellm's list.

    Raises:
        ImportError: Without the extra ``llm``.
    """

    def __init__(
        self,
        model: str,
        *,
        api_base: str | None = None,
        api_key: str | None = None,
        options: Mapping[str, Any],
        prices: tuple[float, float] | None = None,
    ):
        self.model = model
        self._litellm = _import_litellm()
        self._api_base = api_base
        self._api_key = "none" if api_key is None and api_base is not None else api_key
        self._options = dict(options)
        self.prices = self._listed_prices() if prices is None else prices
        if self._api_key is None:
            self._check_environment()

    def bounds(self, messages: Sequence[Mapping[str, str]]) -> tuple[int, float]:
        """Upper bounds of what a call takes: tokens (no token is shorter than a byte) and dollars."""
        tokens_in = sum(len(each["content"].encode()) + _TOKENS_OF_A_MESSAGE for each in messages)
        tokens_out = int(self._options["max_tokens"])
        price_in, price_out = self.prices or (0.0, 0.0)
        return tokens_in + tokens_out, tokens_in * price_in + tokens_out * price_out

    def complete(self, messages: Sequence[Mapping[str, str]], timeout: float) -> Completion:
        """Sends one request, without retries.

        Args:
            messages: Chat messages.
            timeout: Seconds.

        Raises:
            CallFailed: If it brought no completion.
            ModelUnusable: If no other could either.
        """
        try:
            response = self._litellm.completion(
                model=self.model,
                messages=list(messages),
                api_base=self._api_base,
                api_key=self._api_key,
                timeout=timeout,
                max_retries=0,
                **self._options,
            )
        except Exception as error:
            raise _sorted_out(self._litellm, error, self.model) from error
        plain = response.model_dump()
        usage = plain.get("usage") or {}
        tokens_in, tokens_out = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
        price_in, price_out = self.prices or (0.0, 0.0)
        choice = dict((plain.get("choices") or [{}])[0])
        message = dict(choice.get("message") or {})
        # litellm moves what is not in every provider's answers.
        message["refusal"] = (message.get("provider_specific_fields") or {}).get("refusal")
        choice["message"] = message
        return Completion(choice, tokens_in + tokens_out, tokens_in * price_in + tokens_out * price_out)

    def _listed_prices(self) -> tuple[float, float] | None:
        try:
            info = self._litellm.get_model_info(self.model)
        except Exception:  # litellm raises a bare Exception for a model that is not on its list
            return None
        return float(info.get("input_cost_per_token") or 0.0), float(info.get("output_cost_per_token") or 0.0)

    def _check_environment(self) -> None:
        missing = self._litellm.validate_environment(self.model)["missing_keys"]
        if missing:
            raise ModelUnusable(
                f"model {self.model!r} needs a key: set {' and '.join(missing)} or give `api_key`; a server of "
                "your own needs `api_base`."
            )


def _import_litellm() -> Any:
    # Without these it fetches a price list and reads .env of the working folder.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ.setdefault("LITELLM_MODE", "PRODUCTION")
    with _import_lock:
        try:
            import litellm
        except ImportError as error:
            raise ImportError('a language model needs an extra: pip install "jobrec-gym[llm]"') from error
        litellm.suppress_debug_info = True
        # Two lines a call otherwise, wherever the root logger shows INFO.
        for name in ("LiteLLM", "httpx"):
            if logging.getLogger(name).level == logging.NOTSET:
                logging.getLogger(name).setLevel(logging.WARNING)
    return litellm


def _sorted_out(litellm: Any, error: Exception, model: str) -> Exception:
    """What an exception of litellm means for the caller."""
    known = litellm.exceptions
    reason = " ".join(str(error).split())[:300]
    code = getattr(error, "status_code", None)
    if isinstance(error, known.Timeout):
        return CallFailed("timeout", reason, again=True)
    if isinstance(error, known.RateLimitError):
        return CallFailed("rate_limit", reason, again=True, wait=_retry_after(error))
    if isinstance(error, known.ContentPolicyViolationError):
        return CallFailed("refusal", reason)
    if isinstance(error, known.UnsupportedParamsError):
        return ModelUnusable(
            f"model {model!r} lacks a parameter of the call ({reason}): give `temperature` or `seed` as None, or "
            'take mode="decision", which needs no token probabilities.'
        )
    if code in (401, 403, 404):
        return ModelUnusable(f"model {model!r} cannot be asked: {reason}")
    # litellm reports a broken connection as an internal error of the server; the client's own error is its context.
    if isinstance(error, known.APIConnectionError) or _has_cause(error, "APIConnectionError"):
        return CallFailed("connection", reason)
    if isinstance(code, int) and code >= 500:
        return CallFailed("server_error", reason, again=True, wait=_retry_after(error))
    return CallFailed("rejected", reason)


def _has_cause(error: BaseException | None, name: str) -> bool:
    while error is not None:
        if type(error).__name__ == name:
            return True
        error = error.__cause__ or error.__context__
    return False


def _retry_after(error: Exception) -> float:
    response = getattr(error, "response", None)
    headers = getattr(response, "headers", None) or getattr(error, "litellm_response_headers", None) or {}
    try:
        return max(0.0, float(headers.get("retry-after") or 0.0))
    except ValueError:  # a date
        return 0.0
