"""Six environments that are no markets, with other vectors, utilities and rewards; settings were chosen on all six."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


class Kind(NamedTuple):
    """What readers of a library want, and what they answer.

    Attributes:
        dim: Size of the vectors of readers and books.
        n_books: In the library.
        k: Books that are shown at a time.
        halves: Weight of the likeness of each half of the vectors in a reader's utility.
        quality: Standard deviation of a book's own part of it.
        taste: Weight of a random matrix between reader and book.
        threshold: Utility, times 4, from which a book is taken more often than not.
        paid: For a book that is not taken, and for one that is.
        rated: Whether books are rated in steps of a quarter, with noise, in place of being taken.
    """

    dim: int
    n_books: int
    k: int
    halves: tuple[float, float]
    quality: float
    threshold: float
    taste: float = 0.0
    paid: tuple[float, float] = (-0.2, 1.0)
    rated: bool = False


KINDS = {
    "clicks": Kind(24, 150, 10, (0.6, 0.6), 0.25, 1.0, paid=(0.0, 1.0)),
    "half": Kind(32, 300, 15, (1.0, -0.3), 0.125, 1.5),
    "rare": Kind(32, 300, 15, (1.0, -0.3), 0.125, 3.2),
    "taste": Kind(40, 400, 20, (0.6, 0.4), 0.15, 1.2, taste=0.45),
    "ratings": Kind(24, 200, 12, (0.7, 0.2), 0.2, 0.0, rated=True),
    "contrary": Kind(32, 300, 15, (-0.8, -0.2), 0.125, 1.5),
}


class Library(gym.Env):
    """Readers are shown k books, for five steps each. All vectors lie in a narrow cone, as those of texts do."""

    def __init__(self, kind: Kind, seed: int):
        self.kind = kind
        rng = np.random.default_rng(seed)
        self.books, readers = (rng.normal(0.6, 1.0, (n, kind.dim)).astype(np.float32) for n in (kind.n_books, 700))
        self.readers, self.held_out = readers[:400], readers[400:]
        self.quality = rng.normal(0.0, kind.quality, kind.n_books)
        self.matrix = rng.normal(0.0, kind.taste / kind.dim, (kind.dim, kind.dim))
        box = gym.spaces.Box
        self.observation_space = gym.spaces.Dict(
            applicant=box(-np.inf, np.inf, (kind.dim,)), candidates=box(-np.inf, np.inf, (kind.k, kind.dim))
        )
        self.action_space = gym.spaces.Discrete(kind.k)

    def chance(self, readers: Array, shown: NDArray[np.int64]) -> Array:
        """Of books (..., k) to be taken by readers (..., dim); of ratings their mean."""
        centre = self.books.mean(axis=0)
        reader, books = readers - centre, self.books[shown] - centre
        half = self.kind.dim // 2
        like = np.einsum("...d,...kd->...kd", reader, books)
        first, second = like[..., :half].sum(-1) / half, like[..., half:].sum(-1) / half
        utility = self.kind.halves[0] * first + self.kind.halves[1] * second + self.quality[shown]
        utility = utility + np.einsum("...d,de,...ke->...k", reader, self.matrix, books)
        if self.kind.rated:
            return np.clip(0.5 + utility / 4, 0, 1)
        return 1 / (1 + np.exp(self.kind.threshold - 4 * utility))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.reader = self.readers[self.np_random.integers(len(self.readers))]
        self.shown = self.np_random.choice(self.kind.n_books, self.kind.k, replace=False)
        self.n_steps = 0
        return self.observation(), {}

    def step(self, action: int):
        chance = self.chance(self.reader, self.shown)[action]
        if self.kind.rated:
            reward = np.round(4 * (chance + self.np_random.normal(0, 0.25))) / 4
        else:
            reward = self.kind.paid[int(self.np_random.random() < chance)]
        self.n_steps += 1
        return self.observation(), float(reward), False, self.n_steps == 5, {}

    def observation(self) -> dict[str, Array]:
        return {"applicant": self.reader, "candidates": self.books[self.shown]}

    def score(self, values_of: Callable[[dict[str, Array]], Array]) -> float:
        """Of the greedy choice for 300 other readers: 0 a random one, 1 the best one."""
        n, k = len(self.held_out), self.kind.k
        shown = np.stack([np.random.default_rng(i).choice(self.kind.n_books, k, replace=False) for i in range(n)])
        worth = self.chance(self.held_out, shown)
        choice = values_of({"applicant": self.held_out, "candidates": self.books[shown]}).argmax(axis=1)
        return (worth[np.arange(n), choice].mean() - worth.mean()) / (worth.max(axis=1).mean() - worth.mean())


def cosine(observation: dict[str, Array]) -> Array:
    """Cosines (n, k) of readers and books, times the length of the reader's vector, which changes no ranking."""
    reader, books = observation["applicant"], observation["candidates"]
    return np.einsum("nd,nkd->nk", reader, books) / np.linalg.norm(books, axis=2)
