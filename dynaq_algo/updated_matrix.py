"""A symmetric matrix that changes by one outer product at a time."""

from __future__ import annotations

from collections.abc import Mapping

import torch as th
from torch.nn import functional as F

__all__ = ["UpdatedMatrix"]

_DEFERRED_FROM = 1_536
"""With at least this many rows, outer products are added several at a time. A smaller matrix stays in the processor's
caches, and gains nothing."""

_MOST_PENDING = 32
"""This many outer products are added at a time."""

_BLOCK = 256
"""This many rows of a large matrix are multiplied at a time."""


class UpdatedMatrix:
    """A symmetric matrix (n, n), float64, to which multiples of outer products are added.

    An addition reads and writes the whole matrix, which takes longer than all else once the matrix is large. So the
    latest additions to a large matrix are *pending*. They are kept as columns, and a product with the matrix takes them
    into account. Several of them are then added to the matrix at once.

    Args:
        device: Where the matrix is kept.
    """

    def __init__(self, device: th.device | str = "cpu"):
        self.n = 0
        self._matrix = th.zeros(0, 0, dtype=th.float64, device=device)
        self._columns = th.zeros(_MOST_PENDING, 0, dtype=th.float64, device=device)  # a row for each pending column
        self._sizes = th.zeros(_MOST_PENDING, dtype=th.float64, device=device)
        self._n_pending = 0

    def grow(self) -> None:
        """Add a row and a column of zeros."""
        self.n += 1
        if self.n > len(self._matrix):
            more = max(64, len(self._matrix))
            self._matrix, self._columns = F.pad(self._matrix, (0, more, 0, more)), F.pad(self._columns, (0, more))

    def times(self, vectors: th.Tensor) -> th.Tensor:
        """The matrix times each of the vectors (n,) or (m, n)."""
        matrix, columns, sizes = self._parts()
        product = matrix @ vectors if vectors.ndim == 1 else vectors @ matrix
        return product + (vectors @ columns.T * sizes) @ columns if len(sizes) else product

    def quadratic(self, vectors: th.Tensor) -> th.Tensor:
        """Each vector of (m, n) times the matrix times the same vector: (m,)."""
        matrix, columns, sizes = self._parts()
        if self.n < _DEFERRED_FROM:
            return self.times(vectors).mul_(vectors).sum(dim=1)
        total = (vectors @ columns.T).square() @ sizes
        # Only blocks on and above the diagonal are multiplied: those below it are the same, and count by the factor 2.
        for start in range(0, self.n, _BLOCK):
            end = start + _BLOCK
            products = (vectors[:, start:end] @ matrix[start:end, start:]).mul_(vectors[:, start:])
            total += products[:, :_BLOCK].sum(dim=1) + 2 * products[:, _BLOCK:].sum(dim=1)
        return total

    def column(self, place: int) -> th.Tensor:
        """A copy of a column, (n,)."""
        matrix, columns, sizes = self._parts()
        return matrix[:, place] + (sizes * columns[:, place]) @ columns if len(sizes) else matrix[:, place].clone()

    def add(self, column: th.Tensor, size: th.Tensor) -> None:
        """Add `size`, a number (), times the outer product of a column (n,) with itself."""
        self._columns[self._n_pending, : self.n] = column
        self._sizes[self._n_pending] = size
        self._n_pending += 1
        if self.n < _DEFERRED_FROM or self._n_pending == _MOST_PENDING:
            self._add_pending()

    def clear(self, place: int) -> None:
        """Set a row and a column to exactly 0."""
        self._matrix[place] = self._matrix[:, place] = self._columns[:, place] = 0.0

    def put(self, places: th.Tensor, values: th.Tensor) -> None:
        """Set the entries in rows and columns at places (m,) to values (m, m), and all other entries to 0."""
        self._matrix.zero_()
        self._n_pending = 0
        self._matrix[places.unsqueeze(1), places] = values

    def get_state(self) -> dict[str, th.Tensor]:
        """The matrix, and what is pending, as they are: a loaded matrix then gives the same results, to the bit."""
        matrix, columns, sizes = self._parts()
        return {"inverse": matrix.clone(), "pending": columns.clone(), "pending_sizes": sizes.clone()}

    def set_state(self, state: Mapping[str, th.Tensor]) -> None:
        """Put back what :meth:`get_state` gave, for a matrix of as many rows.

        Raises:
            ValueError: If more additions are pending than can be.
        """
        # Earlier versions kept nothing pending.
        state = {"pending": self._columns[:0, : self.n], "pending_sizes": self._sizes[:0], **state}
        if (n_pending := len(state["pending_sizes"])) >= _MOST_PENDING:
            raise ValueError(f"fewer than {_MOST_PENDING} additions can be pending, got {n_pending}")
        self._n_pending = n_pending
        matrix, columns, sizes = self._parts()
        matrix[:], columns[:], sizes[:] = state["inverse"], state["pending"], state["pending_sizes"]

    def _parts(self) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        """The matrix (n, n), and what is pending: columns (r, n), one in each row, and their sizes (r,)."""
        r = self._n_pending
        return self._matrix[: self.n, : self.n], self._columns[:r, : self.n], self._sizes[:r]

    def _add_pending(self) -> None:
        matrix, columns, sizes = self._parts()
        if len(sizes) == 1:
            matrix.addr_(columns[0], sizes * columns[0])
        else:
            matrix.addmm_((columns * sizes.unsqueeze(1)).T, columns)
        self._n_pending = 0
