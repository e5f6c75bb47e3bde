"""The ledger behind the caps on calls, tokens and dollars, held across all processes that share a cache."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

from jobrec_gym.simulators.arguments import Budget
from jobrec_gym.simulators.cache import AnswerCache

__all__ = ["BudgetReached", "Ledger", "Spending"]

_NO_CAPS = Budget()
_ARGUMENTS = {"calls": "budget.max_calls", "tokens": "budget.max_tokens", "usd": "max_usd"}


@dataclass(frozen=True, slots=True)
class Spending:
    """What was spent.

    Attributes:
        calls: Calls that were sent, failed ones too.
        tokens: Tokens in and out.
        cost_usd: Dollars.
    """

    calls: int = 0
    tokens: int = 0
    cost_usd: float = 0.0


class BudgetReached(RuntimeError):
    """The next call could pass a cap, so it was not sent.

    Attributes:
        limit: ``calls``, ``tokens`` or ``usd``.
        spent: What was spent until now, open calls at their upper bounds.
        pending: Whether it may yet fit, when calls that are under way turn out below their bounds.
    """

    def __init__(self, limit: str, cap: float, spent: Spending, pending: bool = False):
        super().__init__(
            f"the budget of {cap:g} {limit} is reached: {spent.calls} calls, {spent.tokens} tokens and "
            f"${spent.cost_usd:.4f} are spent or reserved. What was answered is kept; raise "
            f"`{_ARGUMENTS[limit]}` to go on."
        )
        self.limit = limit
        self.cap = cap
        self.spent = spent
        self.pending = pending

    def __reduce__(self) -> tuple[type[BudgetReached], tuple[Any, ...]]:
        return type(self), (self.limit, self.cap, self.spent, self.pending)


class Ledger:
    """What was spent, in the cache's file, and the caps on it: processes that share the file share the caps.

    A call is reserved at an upper bound before it is sent, and settled at its real figures. The reservation of a
    process that was killed counts on at its bound: the caps are never passed.

    Args:
        path: The cache's SQLite file.
        budget: The caps on calls and tokens; ledgers of one name in one file are one.
        max_usd: Most dollars, ``None`` for no cap.

    Raises:
        ValueError: For a negative cap.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        budget: Budget = _NO_CAPS,
        max_usd: float | None = None,
    ):
        if max_usd is not None and not max_usd >= 0:
            raise ValueError(f"`max_usd` must be at least 0, or None for no cap, got {max_usd}.")
        self.caps: dict[str, float | None] = {
            "calls": budget.max_calls,
            "tokens": budget.max_tokens,
            "usd": max_usd,
        }
        self.name = budget.name
        self._cache = AnswerCache(path)

    @property
    def spent(self) -> Spending:
        """What was spent, open reservations included."""
        with self._cache.transaction() as connection:
            return self._spent(connection)

    def reserve(self, *, tokens: int, cost_usd: float, seconds: float = 60.0) -> int:
        """Reserves one call at upper bounds of its tokens and dollars.

        Args:
            tokens: Upper bound.
            cost_usd: Upper bound.
            seconds: How long the call may be under way; a reservation that is open for longer is of a process that
                died, and counts at its bounds for good.

        Returns:
            A number for :meth:`settle` or :meth:`cancel`.

        Raises:
            BudgetReached: If a cap could be passed.
        """
        with self._cache.transaction() as connection:
            spent, open_ = self._spent(connection), self._under_way(connection)
            after = {"calls": spent.calls + 1, "tokens": spent.tokens + tokens, "usd": spent.cost_usd + cost_usd}
            open_bounds = {"calls": 0, "tokens": open_.tokens, "usd": open_.cost_usd}
            for limit, cap in self.caps.items():
                if cap is not None and after[limit] > cap:
                    raise BudgetReached(limit, cap, spent, after[limit] - open_bounds[limit] <= cap)
            row = (self.name, tokens, cost_usd, time.time() + seconds)
            done = connection.execute(
                "INSERT INTO calls (budget, tokens, cost_usd, settled, until) VALUES (?, ?, ?, 0, ?)", row
            )
            return int(done.lastrowid or 0)

    def settle(self, reservation: int, *, tokens: int, cost_usd: float) -> None:
        """Puts the real figures of a call, failed or not, in place of the reserved ones.

        Raises:
            ValueError: If there is no such open reservation.
        """
        with self._cache.transaction() as connection:
            done = connection.execute(
                "UPDATE calls SET tokens = ?, cost_usd = ?, settled = 1 WHERE id = ? AND settled = 0",
                (tokens, cost_usd, reservation),
            )
            self._check(done.rowcount, reservation)

    def cancel(self, reservation: int) -> None:
        """Takes a reservation back whose call was never sent.

        Raises:
            ValueError: If there is no such open reservation.
        """
        with self._cache.transaction() as connection:
            done = connection.execute("DELETE FROM calls WHERE id = ? AND settled = 0", (reservation,))
            self._check(done.rowcount, reservation)

    def _spent(self, connection: Any) -> Spending:
        query = "SELECT COUNT(*), COALESCE(SUM(tokens), 0), COALESCE(SUM(cost_usd), 0.0) FROM calls WHERE budget = ?"
        return Spending(*connection.execute(query, (self.name,)).fetchone())

    def _under_way(self, connection: Any) -> Spending:
        query = (
            "SELECT COUNT(*), COALESCE(SUM(tokens), 0), COALESCE(SUM(cost_usd), 0.0) FROM calls "
            "WHERE budget = ? AND settled = 0 AND until > ?"
        )
        return Spending(*connection.execute(query, (self.name, time.time())).fetchone())

    @staticmethod
    def _check(changed: int, reservation: int) -> None:
        if not changed:
            raise ValueError(f"`reservation` {reservation} is not open: it was settled or cancelled before.")
