"""The table of action features. A candidate id is the number of a row."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from dynaq_algo.agent_file import place_of, reading

__all__ = ["ActionTable", "find_action_table", "table_elsewhere"]

_AS_READ = np.dtype("<f4")
"""The type of the numbers that an agent reads."""


class ActionTable:
    """The features of every action, one row for each id. The table may stay on disk.

    Args:
        values: (n_actions, d_a), of floats or whole numbers, or the path of an `.npy` file, which is memory-mapped.

    Attributes:
        path: Where the table lies on disk (also for an `np.memmap`), or None.
        dim: d_a.

    Raises:
        FileNotFoundError: If there is no such file.
        AgentFileError: If it is not an `.npy` file, or not a whole one.
        ValueError: If `values` is not a two-dimensional array of numbers, or a number is not finite in float32.
    """

    def __init__(self, values: np.ndarray | str | PathLike[str]):
        if isinstance(values, (str, PathLike)):
            with reading(str(values), ".npy file of `action_features`"):
                values = np.lib.format.open_memmap(place_of(values), mode="r")
        if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype.kind not in "iuf":
            found = f"{values.dtype} {values.shape}" if isinstance(values, np.ndarray) else type(values).__name__
            raise ValueError(
                "`action_features` must be an array (n_actions, d_a) of numbers or the path of an .npy file, "
                f"got {found}."
            )
        _refuse_not_finite(values)
        self.values = values
        self.dim = int(values.shape[1])
        self.path = _memmap_path(values)
        # Checksums of the whole table, by the type of the numbers.
        self._sha256: dict[np.dtype[Any], str] = {}

    def __len__(self) -> int:
        """Number of actions."""
        return len(self.values)

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Features (..., d_a) float32 of ids (...).

        Raises:
            ValueError: If an id names no row.
        """
        self.check(ids)
        return np.asarray(self.values[ids], np.float32)

    def check(self, ids: np.ndarray) -> None:
        """Refuse ids (...) that name no row.

        Raises:
            ValueError: If there is such an id.
        """
        if ids.size and not 0 <= ids.min() <= ids.max() < len(self):
            raise ValueError(
                f"Ids must be in [0, {len(self)}), the rows of `action_features`, got {ids.min()} to {ids.max()}. "
                "Pass the table that the environment's ids refer to."
            )

    @property
    def reference(self) -> dict[str, str | int | None]:
        """The path, checksums and number of rows of the table, in plain JSON, for a saved agent."""
        of_float32 = self._sha256_of_first(len(self), _AS_READ)
        return {"path": self.path, "sha256": self.sha256, "sha256_of_float32": of_float32, "rows": len(self)}

    def check_beginning(self, reference: Mapping[str, Any]) -> None:
        """Refuse this table if it does not begin with the rows of a saved table.

        Tables of another type are equal if all numbers are the same in float32, because an agent reads them so.

        Args:
            reference: The saved table's :attr:`reference`.

        Raises:
            ValueError: If this table is shorter, or its first rows differ.
        """
        n, sha256 = int(reference["rows"] or 0), str(reference["sha256"])
        # Earlier versions saved one checksum, which is that of float32 if the table was of this type.
        as_read = str(reference.get("sha256_of_float32") or sha256)
        if len(self) < n or (self.sha256_of_first(n) != sha256 and self._sha256_of_first(n, _AS_READ) != as_read):
            raise ValueError(
                f"`action_features` must begin with the {n} rows of the table that the agent was trained with (sha256 "
                f"{sha256[:12]}...), got a table {self.values.shape} that does not, so its ids name other actions. "
                "Pass the table of the training run, with new actions at its end, or train a new agent."
            )

    def or_longer(self, values: np.ndarray | None) -> ActionTable:
        """The table of another environment, or this table if the environment has none or has the same array.

        Args:
            values: The environment's attribute `action_features`. It may have more rows at the end.

        Raises:
            ValueError: If the other table does not begin with the rows of this one.
        """
        if values is None or values is self.values:
            return self
        table = ActionTable(values)
        table.check_beginning(self.reference)
        return table

    @property
    def sha256(self) -> str:
        """Checksum over type, shape and values. The values are read once, in pieces."""
        return self.sha256_of_first(len(self))

    def sha256_of_first(self, n: int) -> str:
        """The checksum that a table of the first n rows would have."""
        return self._sha256_of_first(n, self.values.dtype)

    def _sha256_of_first(self, n: int, dtype: np.dtype[Any]) -> str:
        """The checksum of the first n rows as numbers of a type."""
        if n != len(self):
            return self._checksum(n, dtype)
        if dtype not in self._sha256:
            self._sha256[dtype] = self._checksum(n, dtype)
        return self._sha256[dtype]

    def _checksum(self, n: int, dtype: np.dtype[Any]) -> str:
        digest = hashlib.sha256(f"{dtype.str} {(n, self.dim)}".encode())
        for start in range(0, n, 65_536):
            digest.update(np.ascontiguousarray(self.values[start : min(start + 65_536, n)], dtype).data)
        return digest.hexdigest()


def find_action_table(
    given: np.ndarray | str | PathLike[str] | None,
    of_environment: np.ndarray | None,
    trained_with: Mapping[str, Any] | None,
    largest_id: int,
) -> ActionTable:
    """Find the table of action features: the given one, the environment's, or the one that a saved agent points to.

    Args:
        given: The argument `action_features`.
        of_environment: The environment's attribute `action_features`.
        trained_with: The :attr:`ActionTable.reference` of a saved agent's table. The table that is found must begin
            with the rows of the saved one.
        largest_id: The largest id that an observation may hold.

    Raises:
        ValueError: If there is no table, if it names other actions, or if it lacks a row.
    """
    saved = trained_with or {}
    source: Any = given if given is not None else of_environment
    if source is None and saved.get("path") and Path(str(saved["path"])).exists():
        source = saved["path"]
    if source is None:
        where = f" The agent was trained with {saved['path']}, which is not there." if saved.get("path") else ""
        raise ValueError(
            "`candidates` are ids, so a table (n_actions, d_a) of their features is needed, and neither "
            f"`action_features=` nor an attribute `action_features` of the environment gives one.{where} Pass "
            "`action_features=` (an array or the path of an .npy file) or `env=`."
        )
    table = source if isinstance(source, ActionTable) else ActionTable(source)
    _refuse_too_few_rows(table, largest_id)
    if saved.get("sha256"):
        table.check_beginning(saved)
    return table


def table_elsewhere(
    table: ActionTable, is_given: bool, before: np.ndarray | None, now: np.ndarray | None, largest_id: int
) -> ActionTable:
    """The table of an agent that goes on in another environment, whose ids must name the same actions.

    Args:
        table: The agent's table.
        is_given: Whether the agent's table was given as `action_features=`. The environments' tables may
            then hold other values.
        before: The attribute `action_features` of the environment so far; None if it is not known.
        now: The attribute `action_features` of the other environment.
        largest_id: The largest id that an observation of the other environment may hold.

    Returns:
        The other environment's table if it begins with the rows of `table`. Otherwise `table`.

    Raises:
        ValueError: If ids name other actions in the other environment, or `table` lacks a row.
    """
    try:
        table = table.or_longer(now)
    except ValueError:
        if not is_given:
            raise
        if before is not None:
            ActionTable(before).or_longer(now)
    _refuse_too_few_rows(table, largest_id)
    return table


def _refuse_too_few_rows(table: ActionTable, largest_id: int) -> None:
    if largest_id >= len(table):
        raise ValueError(
            f"`action_features` must have a row for every id that `candidates` may hold, 0 to {largest_id}, "
            f"got {len(table)} rows. Pass the whole table, or lower the bound of the space."
        )


def _refuse_not_finite(values: np.ndarray) -> None:
    """Refuse a table with a number that is not finite in float32: such a number would spoil all that was learned."""
    if values.dtype.kind != "f":
        return
    most = np.finfo(np.float32).max
    for start in range(0, len(values), 8_192):
        piece = values[start : start + 8_192]
        if not (good := np.abs(piece) <= most).all():
            row = start + int(good.all(axis=1).argmin())
            raise ValueError(
                f"`action_features` must hold finite numbers (in float32), row {row} does not. Give unknown values a "
                "number, such as 0."
            )


def _memmap_path(values: np.ndarray) -> str | None:
    """The file that an array is mapped from, even if the array is a view of the memory map."""
    base: Any = values
    while base is not None:
        if isinstance(base, np.memmap) and base.filename is not None:
            return str(Path(base.filename).resolve())
        base = getattr(base, "base", None)
    return None
