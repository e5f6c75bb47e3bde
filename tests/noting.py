"""A simulator that notes which pairs it is asked about."""

from __future__ import annotations

from typing import Any

import numpy as np

from jobrec_gym import Feedback


class Noting:
    """Notes the pairs in ``asked``; a subclass says in ``answers`` what it answers about jobs (n,)."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def bind(self, market: Any) -> Noting:
        return self

    def feedback(self, applicant_ids: np.ndarray, job_ids: np.ndarray, interaction_keys: Any = None) -> Feedback:
        self.asked += list(zip(applicant_ids.tolist(), job_ids.tolist(), strict=True))
        return self.answers(job_ids)

    def answers(self, job_ids: np.ndarray) -> Feedback:
        raise NotImplementedError
