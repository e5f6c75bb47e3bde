"""``python -m experiments.llm.record``: asks a language model about every pair of a market, and keeps its answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from experiments.runs.command import command
from experiments.runs.progress import Progress
from jobrec_gym import LabourMarket, LLMSimulator
from jobrec_gym.simulators.arguments import rising_shares
from jobrec_gym.simulators.llm import FeedbackError
from jobrec_gym.simulators.recorded import Recording

__all__ = ["record_market"]

_ALL_APPLY = (0.0, 0.0, 0.0)  # thresholds that are never read: only the probabilities are kept


@command(
    config_path="../../conf",
    config_name="record",
    kept="every answer so far, in {simulator.cache}",
)
def main(cfg: DictConfig) -> None:
    """Records, writes the file, and prints its path and the number of calls."""
    # Not at the top: `--help` is answered without torch.
    from experiments.runs.build import build_task

    task = build_task(cfg)
    market, simulator = task.market, task.make_simulator()
    quantiles: Any = OmegaConf.to_container(cfg)["quantiles"]  # type: ignore[call-overload,index]
    try:
        recording = record_market(simulator, market, quantiles, cfg.chunk)
    except (ValueError, RuntimeError, LookupError) as error:
        raise SystemExit(f"error: {error}") from error
    path = Path(cfg.output)
    path.parent.mkdir(parents=True, exist_ok=True)
    recording.save(path)
    missing = int(np.isnan(recording.probability).sum())
    print(
        f"{recording.probability.size:,} pairs, {missing:,} of them without an answer; {simulator.spent.calls:,} calls"
    )
    print(f"click, save and apply from a probability of {', '.join(f'{cut:.4f}' for cut in recording.thresholds)}")
    print(f"recording  {path}")


def record_market(
    simulator: LLMSimulator,
    market: LabourMarket,
    quantiles: list[float],
    chunk: int = 40,
) -> Recording:
    """Asks about every pair of a market.

    The pairs of one applicant stand together, so a server can reuse the applicant's document.

    Args:
        simulator: A language model in mode ``"probability"``.
        market: The market whose pairs are asked about.
        quantiles: Shares of the pairs whose probabilities lie below the thresholds of click, save and apply.
        chunk: Pairs in one batch.

    Raises:
        ValueError: If the simulator is in mode ``"decision"``, or ``quantiles`` are no three rising shares. No
            question is asked then.
        FeedbackError: If the simulator's policies for failures say so, or no pair was answered.
    """
    shares = rising_shares(quantiles)
    if simulator.mode != "probability":
        raise ValueError('`simulator.mode` must be "probability": decisions are cut from probabilities afterwards.')
    bound = simulator.changed(elicitation=replace(simulator.elicitation, calibration=_ALL_APPLY)).bind(market)
    n, m = len(market.applicants), len(market.jobs)
    pairs = np.arange(n * m)
    probability = np.full(n * m, np.nan)
    with Progress(n * m, "recording", "pair") as progress:
        for start in range(0, n * m, chunk):
            rows = pairs[start : start + chunk]
            probability[rows] = bound.feedback(rows // m, rows % m).probability
            progress.update(len(rows))
    known = probability[~np.isnan(probability)]
    if not len(known):
        raise FeedbackError("not_recorded", "no pair was answered: nothing can be recorded.")
    return Recording.of(
        market,
        probability.reshape(n, m),
        np.quantile(known, shares).tolist(),
        model=simulator.model,
        prompt=simulator.prompt_version,
        persona=simulator.persona,
    )


if __name__ == "__main__":
    main()
