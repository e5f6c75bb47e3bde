"""The ledger behind the caps on calls, tokens and dollars, for all processes with one cache and one budget name."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from jobrec_gym.simulators.arguments import Budget, most_dollars
from jobrec_gym.simulators.cache import AnswerStore, CapReached
from jobrec_gym.simulators.stores import open_cache

__all__ = ["BudgetReached", "Ledger", "Spending"]

_NO_CAPS = Budget()
_ARGUMENTS = {"calls": "budget.max_calls", "tokens": "budget.max_tokens", "usd": "max_usd"}


@dataclass(frozen=True, slots=True)
class Spending:
    """What was spent.

    Attributes:
        calls: Calls that were sent, failed ones included.
        tokens: Tokens in and out.
        cost_usd: Dollars.
    """

    calls: int = 0
    tokens: int = 0
    cost_usd: float = 0.0


class BudgetReached(RuntimeError):
    """The next call could exceed a cap, so it was not sent.

    Attributes:
        limit: ``calls``, ``tokens`` or ``usd``.
        spent: What was spent so far; running calls count at their upper bounds.
        pending: Whether the call may still fit, because running calls may cost less than their bounds.
        is_kept: Whether answers outlive the process, so that it can be started again without loss.
    """

    def __init__(self, limit: str, cap: float, spent: Spending, pending: bool = False, is_kept: bool = True):
        kept = "What was answered is kept; raise" if is_kept else "Give `cache` a file, which keeps answers, and raise"
        super().__init__(
            f"the budget of {cap:g} {limit} is reached: {spent.calls} calls, {spent.tokens} tokens and "
            f"${spent.cost_usd:.4f} are spent or reserved. {kept} `{_ARGUMENTS[limit]}` to go on."
        )
        self.limit = limit
        self.cap = cap
        self.spent = spent
        self.pending = pending
        self.is_kept = is_kept

    def __reduce__(self) -> tuple[type[BudgetReached], tuple[Any, ...]]:
        return type(self), (self.limit, self.cap, self.spent, self.pending, self.is_kept)


class Ledger:
    """The record of what was spent, and the caps on it.

    The record lies in the cache, under the budget's name: all who use that cache and that name count into it. Each
    ledger has its own caps. It compares them with the whole record, which also has what all others spent.

    A call is reserved at an upper bound before it is sent, and settled at its real figures. The reservation of a
    process that was killed keeps counting at its bound, so the caps are never exceeded.

    Args:
        cache: The cache, or its path or address.
        budget: The caps on calls and tokens; ledgers with the same name in one cache share one record.
        max_usd: Most dollars, ``None`` for no cap.
        is_kept: Whether the cache outlives the process; an error about a cap says so.

    Raises:
        ValueError: For a cap that is not a finite number of at least 0.
    """

    def __init__(
        self,
        cache: str | os.PathLike[str] | AnswerStore,
        budget: Budget = _NO_CAPS,
        max_usd: float | None = None,
        *,
        is_kept: bool = True,
    ):
        self.caps: dict[str, float | None] = {
            "calls": budget.max_calls,
            "tokens": budget.max_tokens,
            "usd": most_dollars(max_usd),
        }
        self.name = budget.name
        self._is_kept = is_kept
        self._cache = open_cache(cache)

    @property
    def spent(self) -> Spending:
        """What was spent, open reservations included."""
        return Spending(*self._cache.spent(self.name))

    def reserve(self, *, tokens: int, cost_usd: float, seconds: float = 60.0) -> Any:
        """Reserves one call at upper bounds of its tokens and dollars.

        Args:
            tokens: Upper bound of tokens.
            cost_usd: Upper bound of dollars.
            seconds: How long the call may take. A reservation that is open for longer belongs to a process that died,
                and counts at its bounds for good.

        Returns:
            A reservation, for :meth:`settle` and :meth:`cancel`.

        Raises:
            BudgetReached: If a cap could be exceeded.
        """
        made = self._cache.reserve(self.name, self.caps, tokens=tokens, cost_usd=cost_usd, seconds=seconds)
        if isinstance(made, CapReached):
            cap, spent = self.caps[made.limit] or 0, Spending(*made.spent)
            raise BudgetReached(made.limit, cap, spent, made.pending, self._is_kept)
        return made

    def settle(self, reservation: Any, *, tokens: int, cost_usd: float) -> None:
        """Puts the real figures of a call, failed or not, in place of the reserved ones.

        Raises:
            ValueError: If there is no such open reservation.
        """
        self._check(self._cache.settle(reservation, tokens=tokens, cost_usd=cost_usd), reservation)

    def cancel(self, reservation: Any) -> None:
        """Cancels a reservation whose call was never sent.

        Raises:
            ValueError: If there is no such open reservation.
        """
        self._check(self._cache.cancel(reservation), reservation)

    @staticmethod
    def _check(was_open: bool, reservation: Any) -> None:
        if not was_open:
            raise ValueError(f"`reservation` {reservation} is not open: it was settled or cancelled before.")
