"""One chat completion through litellm: its content and cost, or what went wrong and whether to try again."""

from __future__ import annotations

import logging
import os
import queue
import re
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any

from jobrec_gym.credentials import is_credential_name, mask
from jobrec_gym.extras import install_command
from jobrec_gym.sharing import Shared
from jobrec_gym.shown_text import without_commands

__all__ = ["CallFailed", "ChatModel", "Completion", "ModelUnusable"]

_log = logging.getLogger(__name__)

_importing = Shared()
_TOKENS_OF_A_MESSAGE = 8  # those that a chat template puts around each message
_MAX_REASON = 300
_MOST_TOKENS = 1 << 40
"""No call takes more tokens; a larger number is not taken for a count."""
_LENGTHS = ("max_tokens", "max_completion_tokens")
_NO_MONEY_CODES = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")
_NO_MONEY = re.compile(
    rf"\b({'|'.join(_NO_MONEY_CODES)}|insufficient (credits?|balance)|credit balance is too low)\b", re.IGNORECASE
)
_PAYMENT_REQUIRED = 402
_OF_THE_ACCOUNT = (_PAYMENT_REQUIRED, 403, 429)
"""Statuses whose words are about the account. The words of others, such as 400, may quote the text of a job."""
_NO_MONEY_AT_ONCE = re.compile(r'(Exception - |"message": ?")(your )?credit balance is too low', re.IGNORECASE)
"""The beginning of Anthropic's words for an account without money; the status is 400."""


class ModelUnusable(RuntimeError):
    """No call can succeed: a missing key, an unknown model, no money, a parameter that the provider does not have."""


class CallFailed(Exception):
    """A call brought no completion.

    Attributes:
        status: ``rate_limit``, ``server_error``, ``timeout``, ``connection``, ``refusal``, ``rejected`` or
            ``bad_response``.
        again: Whether another try is worthwhile.
        billed: Whether the call may be on a bill, because it was sent and not refused.
        wait: Seconds that the server asks to wait, 0 if it does not say.
        reason: The reason in the server's words, cut to a bound, with API keys masked.
    """

    def __init__(self, status: str, reason: str, *, again: bool = False, billed: bool = False, wait: float = 0.0):
        super().__init__(f"{status}: {reason}")
        self.status = status
        self.again = again
        self.billed = billed
        self.wait = wait
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Completion:
    """A completion of a model.

    Attributes:
        choice: The first entry of ``choices``, as plain data.
        tokens: Tokens in and out; ``None`` if the server does not say.
        cost_usd: Dollars at the model's price, 0.0 if it has none.
    """

    choice: Mapping[str, Any]
    tokens: int | None
    cost_usd: float


class ChatModel:
    """A chat model of any provider, or behind an OpenAI-compatible address.

    Args:
        model: litellm's name, e.g. ``openai/gpt-4o-mini``.
        api_base: Address of a local server; ``None`` for the provider's own.
        api_key: The key; ``None`` takes the provider's environment variable. With an ``api_base`` no key is needed.
        options: Further keywords of each call: sampling, ``response_format``, ``logprobs``, ``extra_body``, and the
            length of an answer as ``max_tokens`` or ``max_completion_tokens``.
        prices: Dollars per token in and out; ``None`` takes litellm's list.

    Raises:
        ImportError: Without the extra ``llm``.
        ModelUnusable: If a key is missing, or the model cannot be asked in this way.
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
        self._api_key = self._found_key() if api_key is None else api_key
        self._options = dict(options)
        self._check_parameters()
        self.prices = self._listed_prices() if prices is None else prices

    def bounds(self, messages: Sequence[Mapping[str, str]]) -> tuple[int, float]:
        """Upper bounds of a call's tokens (no token is shorter than a byte) and dollars."""
        tokens_in = sum(len(each["content"].encode()) + _TOKENS_OF_A_MESSAGE for each in messages)
        tokens_out = int(next(self._options[name] for name in _LENGTHS if name in self._options))
        price_in, price_out = self.prices or (0.0, 0.0)
        return tokens_in + tokens_out, tokens_in * price_in + tokens_out * price_out

    def complete(self, messages: Sequence[Mapping[str, str]], timeout: float) -> Completion:
        """Sends one request, without retries.

        Args:
            messages: Chat messages.
            timeout: Seconds until the whole answer must be there.

        Raises:
            CallFailed: If the request brought no completion.
            ModelUnusable: If no other request could bring one either.
        """

        def call() -> Any:
            return self._litellm.completion(
                model=self.model,
                messages=list(messages),
                api_base=self._api_base,
                api_key=self._api_key,
                timeout=timeout,
                max_retries=0,
                drop_params=True,  # only `seed` and `temperature` can be dropped, see _check_parameters
                **self._options,
            ).model_dump()

        plain: Any = None
        failure: Exception | None = None
        try:
            plain = _within(timeout, call)
        except CallFailed as failed:
            failure = failed
        except Exception as error:
            failure = _sorted_out(self._litellm, error, self.model, self._api_key)
        if failure is not None:
            # `failure` is raised outside of the handler. In the handler litellm's exception, which may hold the key,
            # would be part of the traceback.
            raise failure
        try:
            choice, (tokens_in, tokens_out, undivided) = _choice_of(plain), _tokens_of(plain)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise CallFailed("bad_response", f"not the form of a chat completion: {error}", billed=True) from None
        price_in, price_out = self.prices or (0.0, 0.0)
        if choice.get("finish_reason") == "error":
            raise CallFailed("server_error", "the server ended the answer with an error", billed=True)
        cost = tokens_in * price_in + tokens_out * price_out + undivided * max(price_in, price_out)
        return Completion(choice, (tokens_in + tokens_out + undivided) or None, cost)

    def _listed_prices(self) -> tuple[float, float] | None:
        try:
            info = self._litellm.get_model_info(self.model)
        except Exception:  # litellm raises a bare Exception for a model that is not on its list
            return None
        return float(info.get("input_cost_per_token") or 0.0), float(info.get("output_cost_per_token") or 0.0)

    def _found_key(self) -> str | None:
        """``None`` if litellm finds the key itself; a placeholder for a server of your own, which needs no key."""
        wanted = self._litellm.validate_environment(self.model)["missing_keys"]
        missing = [name for name in wanted if not os.environ.get(name)]
        if not missing:
            return None
        if self._api_base is None:
            raise ModelUnusable(
                f"model {self.model!r} needs a key: set {' and '.join(missing)} or give `api_key`; a server of "
                "your own needs `api_base`."
            )
        return "none" if any(map(is_credential_name, missing)) else None

    def _check_parameters(self) -> None:
        """Refuses a model that cannot enforce a schema or give token probabilities; logs dropped parameters."""
        supported = self._litellm.get_supported_openai_params(model=self.model)
        if supported is None:  # not on litellm's list
            return
        needed = {"response_format", "logprobs", "top_logprobs", "max_completion_tokens"} & self._options.keys()
        if missing := sorted(needed - set(supported)):
            raise ModelUnusable(
                f"model {self.model!r} has no {' and no '.join(missing)}, which this `mode` or `sampling` needs: "
                "choose another `mode` or `sampling`, or another model."
            )
        if dropped := sorted({"seed", "temperature"} & self._options.keys() - set(supported)):
            _log.warning("model %r has no %s: left out of its calls.", self.model, " and no ".join(dropped))


def _choice_of(plain: Mapping[str, Any]) -> dict[str, Any]:
    """The first choice of a completion; its message is a mapping with an entry ``refusal``."""
    choice = dict(plain["choices"][0])
    message = dict(choice.get("message") or {})
    # Fields that not every provider has are moved by litellm, into `provider_specific_fields`.
    message["refusal"] = (message.get("provider_specific_fields") or {}).get("refusal")
    return choice | {"message": message}


def _tokens_of(plain: Mapping[str, Any]) -> tuple[int, int, int]:
    """Tokens in, tokens out, and tokens of which the server does not say where they belong.

    All three are 0 if the server does not say how many tokens the call took. A prompt has at least one token, so a 0 in
    its place says nothing, and an answer of 0 tokens counts only if the total agrees.

    Raises:
        ValueError: For a value that is not a count.
    """
    usage = plain.get("usage") or {}
    counts = [usage.get(name) or 0 for name in ("prompt_tokens", "completion_tokens", "total_tokens")]
    for count in counts:
        if isinstance(count, bool) or not isinstance(count, (int, float)) or not 0 <= count <= _MOST_TOKENS:
            raise ValueError(f"`usage` must have counts of tokens, got {str(count)[:40]}")
    tokens_in, tokens_out, total = map(int, counts)
    if tokens_in and (tokens_out or total >= tokens_in):
        return tokens_in, tokens_out or total - tokens_in, 0
    if tokens_out and total > tokens_out:
        return total - tokens_out, tokens_out, 0
    return 0, 0, 0 if tokens_in or tokens_out else total


def _within(seconds: float, call: Callable[[], Any]) -> Any:
    """The call's result, if it comes in time; a client's own time-out would start anew with each byte."""
    done: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            done.put((call(), None))
        except Exception as error:
            done.put((None, error))

    threading.Thread(target=run, daemon=True, name="call").start()
    try:
        result, error = done.get(timeout=seconds)
    except queue.Empty:
        raise CallFailed("timeout", f"no whole answer in {seconds:g} seconds", again=True, billed=True) from None
    if error is not None:
        raise error
    return result


def _import_litellm() -> Any:
    # Without these, litellm fetches a price list and reads .env of the working folder.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ.setdefault("LITELLM_MODE", "PRODUCTION")
    with _importing.lock:
        try:
            import litellm
        except ImportError as error:
            raise ImportError(f"a language model needs an extra: {install_command('llm')}") from error
        litellm.suppress_debug_info = True
        utils: Any = litellm.utils
        if not isinstance(utils.executor, _LogOfCalls):
            utils.executor = _LogOfCalls(utils.executor)
        # Without levels of their own these loggers write two lines a call if the root logger shows INFO.
        for name in ("LiteLLM", "httpx"):
            logger = logging.getLogger(name)
            if logger.level == logging.NOTSET:
                logger.setLevel(logging.WARNING)
            if _masked not in logger.filters:
                logger.addFilter(_masked)
    # litellm also warns of answers of a wrong form. Such answers have a status here, so the warning adds nothing.
    warnings.filterwarnings("ignore", "Pydantic serializer warnings", UserWarning)
    return litellm


class _LogOfCalls(Executor):
    """litellm's pool of threads that log calls, with the difference that a log entry may be lost.

    litellm hands each answer to this pool before it returns the answer, and loses the answer if the pool takes nothing
    any more. That is so when a script has ended and its last calls still run.
    """

    def __init__(self, pool: Executor):
        self._pool = pool

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Hands a call to the pool; the future of an entry that is lost is cancelled."""
        try:
            return self._pool.submit(fn, *args, **kwargs)
        except RuntimeError:
            lost: Future[Any] = Future()
            lost.cancel()
            return lost


def _masked(record: logging.LogRecord) -> bool:
    """Masks keys in a library's log records, spells out control letters, and drops tracebacks, which hold requests.

    It is a filter that lets every record pass.
    """
    record.msg = without_commands(mask(record.getMessage()))
    record.args, record.exc_info, record.exc_text = (), None, None
    return True


def _forget_connections() -> None:
    """Drops litellm's open connections in a forked process: they are the parent's, and would mix up the answers."""
    litellm = sys.modules.get("litellm")
    clients = getattr(litellm, "in_memory_llm_clients_cache", None)
    if clients is not None:
        clients.flush_cache()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_connections)


def _sorted_out(litellm: Any, error: Exception, model: str, api_key: str | None) -> Exception:
    """The exception that the caller gets in place of one of litellm's."""
    known = litellm.exceptions
    said = " ".join(str(error).split()).partition(" Traceback (most recent call last)")[0]
    reason = without_commands(mask(said, api_key)[:_MAX_REASON])
    code = getattr(error, "status_code", None)
    if isinstance(error, known.Timeout):
        return CallFailed("timeout", reason, again=True, billed=True)
    words = _NO_MONEY if code in _OF_THE_ACCOUNT else _NO_MONEY_AT_ONCE
    if words.search(str(error)) or _is_about_money(error):
        return ModelUnusable(f"model {model!r} cannot be asked, the account has no money left: {reason}")
    if isinstance(error, known.RateLimitError):
        return CallFailed("rate_limit", reason, again=True, wait=_retry_after(error))
    if isinstance(error, known.ContentPolicyViolationError):
        return CallFailed("refusal", reason)
    if isinstance(error, known.UnsupportedParamsError):
        return ModelUnusable(f"model {model!r} lacks a parameter of the call: {reason}")
    if code in (401, 403, 404):
        return ModelUnusable(f"model {model!r} cannot be asked: {reason}")
    # litellm reports a broken connection, and an answer that it cannot read, as an internal error of the server.
    if isinstance(error, known.APIConnectionError) or _has_cause(error, "APIConnectionError"):
        return CallFailed("connection", reason, billed=not _has_cause(error, "ConnectError"))
    if isinstance(code, int) and 400 <= code < 500:
        return CallFailed("rejected", reason)
    is_of_server = isinstance(code, int) and code >= 500
    if is_of_server and _has_cause(error.__cause__ or error.__context__, "InternalServerError", "HTTPStatusError"):
        return CallFailed("server_error", reason, again=True, wait=_retry_after(error))
    # Anything else was raised after the request was sent, as far as is known, and may be on the bill.
    return CallFailed("bad_response", reason, billed=True)


def _is_about_money(error: BaseException | None) -> bool:
    """Whether an error, or one of its causes, has a provider's code or an HTTP status for an account without money."""
    while error is not None:
        codes = getattr(error, "code", None), getattr(error, "type", None)
        if any(code in _NO_MONEY_CODES for code in codes) or getattr(error, "status_code", None) == _PAYMENT_REQUIRED:
            return True
        error = error.__cause__ or error.__context__
    return False


def _has_cause(error: BaseException | None, *names: str) -> bool:
    """Whether an error, or one of its causes, is of a class with one of these names."""
    while error is not None:
        if type(error).__name__ in names:
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
