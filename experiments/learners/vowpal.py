"""Vowpal Wabbit's contextual bandit, a library used in production, with the methods of the other opponents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from experiments.learners.opponents import Recommender
from jobrec_gym.extras import install_command
from jobrec_gym.whole_files import whole_file

__all__ = ["VowpalWabbit"]

Obs = Mapping[str, NDArray[Any]]


class VowpalWabbit(Recommender):
    """``cb_explore_adf`` of Vowpal Wabbit (SquareCB by default) on applicant x job interactions.

    A 768 x 768 interaction has more features than a cold start has answers, so applicants and jobs are given by their
    first principal components. The cosine and the numbers `pairs` of an observation are given too.

    Args:
        env: A ``JobRecVectorEnv`` with its reward wrapper.
        exploration: Vowpal Wabbit's options for exploration.
        learning_rate: Learning rate of its online gradient steps.
        n_components: How many principal components describe each applicant and each job.
        gamma: Used only for the discounted return of an evaluation.
        seed: Seed of the environments and of the learner's own draws.

    Raises:
        ImportError: Without the extra ``opponents``.
    """

    def __init__(
        self,
        env: VectorEnv,
        exploration: str = "--squarecb --gamma_scale 1000",
        learning_rate: float = 0.5,
        n_components: int = 24,
        gamma: float = 0.9,
        seed: int = 0,
    ):
        super().__init__(
            env, gamma, seed, exploration=exploration, learning_rate=learning_rate, n_components=n_components
        )
        try:
            from vowpalwabbit import Workspace
        except ImportError as error:
            raise ImportError(f"Vowpal Wabbit needs an extra: {install_command('opponents')}") from error
        self._arguments_of_vw = (
            f"--cb_explore_adf {exploration} --interactions sa --learning_rate {learning_rate} --quiet "
            f"--random_seed {seed}"
        )
        self._workspace = Workspace(self._arguments_of_vw)
        applicants, jobs = self._market.applicants.vectors, self._market.jobs.vectors
        self._means = applicants.mean(axis=0), jobs.mean(axis=0)
        self._axes = tuple(
            np.linalg.svd(vectors - mean, full_matrices=False)[2][:n_components].T
            for vectors, mean in zip((applicants, jobs), self._means, strict=True)
        )
        self._cosine = self._cosine_spread()

    def q_values(self, obs: Obs) -> NDArray[np.float64]:
        """Probabilities (n, k) with which candidates would be chosen. The candidate that seems best has the highest."""
        return np.stack([self._probabilities(lines) for lines in self._lines(obs)])

    def save(self, path: Path) -> None:  # type: ignore[override]
        """Writes the arguments into a zip, and what was learned into a second file, with the suffix ``.vw``."""
        super().save(path)
        with whole_file(_model_of(path)) as scratch:
            self._workspace.save(str(scratch))

    @classmethod
    def load(cls, path: Path, env: VectorEnv, **arguments: Any) -> Self:  # type: ignore[override]
        """Loads what :meth:`save` wrote, for an environment."""
        from vowpalwabbit import Workspace

        bandit = super().load(path, env, **arguments)
        bandit._workspace = Workspace(f"{bandit._arguments_of_vw} -i {_model_of(path)}")
        return bandit

    def explore(self, obs: Obs) -> NDArray[np.float64]:
        """A draw from the probabilities (n, k): 1 for the drawn candidate, 0 for the others."""
        chances = self._chances(obs)
        drawn = (chances.cumsum(axis=1) > self.rng.random((len(chances), 1))).argmax(axis=1)
        return np.eye(chances.shape[1])[drawn]

    def observe(self, obs: Obs, action: NDArray[np.int64] | int, reward: NDArray[np.floating] | float) -> None:
        """Learns from answers to candidates that :meth:`explore` has drawn.

        It computes the chances of these draws again, and learning changes chances. So no other answer may be learned
        between a draw and the answer to it.
        """
        chances = self._chances(obs)
        answers = zip(self._lines(obs), chances, np.reshape(action, -1), np.reshape(reward, -1), strict=True)
        for lines, chance, chosen, value in answers:
            # The reward is negated, because Vowpal Wabbit minimises costs.
            lines[chosen + 1] = f"0:{-float(value)}:{chance[chosen]} {lines[chosen + 1]}"
            self._workspace.learn(lines)

    def _chances(self, obs: Obs) -> NDArray[np.float64]:
        """Probabilities (n, k) that :meth:`explore` draws from, 0 for what is not allowed."""
        chances = self.q_values(obs)
        if self.layout.has_mask:
            chances = np.where(np.reshape(obs["action_mask"], chances.shape), chances + 1e-9, 0.0)
        return chances / chances.sum(axis=1, keepdims=True)

    def _probabilities(self, lines: list[str]) -> NDArray[np.float64]:
        return np.asarray(self._workspace.predict(lines), dtype=np.float64)

    def _lines(self, obs: Obs) -> Iterable[list[str]]:
        """Each observation in Vowpal Wabbit's text format: a line for the applicant, then one for each candidate."""
        states, jobs = self._applicants(obs), self._job_vectors(obs)
        mean, spread = self._cosine
        cosine = (np.einsum("nd,nkd->nk", states, jobs) - mean) / spread
        left = (states - self._means[0]) @ self._axes[0] * 4
        right = (jobs - self._means[1]) @ self._axes[1] * 4
        pairs = self.layout.read(obs).pairs
        if pairs is None:
            pairs = np.zeros((*cosine.shape, 0))
        for state, *of_candidates in zip(left, right, cosine, pairs, strict=True):
            yield [
                "shared |s " + _numbers(state),
                *(
                    f"|a {_numbers(job)} |c cosine:{near:.4f} |p {_numbers(numbers)}"
                    for job, near, numbers in zip(*of_candidates, strict=True)
                ),
            ]


def _numbers(values: NDArray[Any]) -> str:
    return " ".join(f"{name}:{value:.4f}" for name, value in enumerate(values.tolist()))


def _model_of(path: Path) -> Path:
    return path.with_suffix(".vw")
