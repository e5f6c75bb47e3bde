"""``python -m experiments.train``: makes one run, or with ``-m`` a sweep that skips finished runs."""

from __future__ import annotations

import shlex
import sys
from contextlib import suppress
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from experiments.runs import resolvers  # noqa: F401  # conf/train.yaml needs them before `main` begins
from experiments.runs.arguments import as_typed, require_plugin
from experiments.runs.command import command
from experiments.runs.folders import RunError
from experiments.runs.tables import columns_of, format_table, held_out_table
from jobrec_gym.terminal import output_may_fail


@command(config_path="../conf", config_name="train")
def main(cfg: DictConfig) -> float | None:
    """Trains if the run is not finished, prints scores and paths, and returns the held-out score."""
    # Not at the top, as in every command: `--help` is answered without torch.
    from experiments.runs.build import build
    from experiments.runs.training import in_words, run_training

    hydra_config = HydraConfig.get()
    folder, is_sweep = Path(hydra_config.runtime.output_dir), hydra_config.mode is RunMode.MULTIRUN
    try:
        setup = build(cfg)
        summary = run_training(setup, folder, list(hydra_config.overrides.task), waits=is_sweep)
    except RunError as error:
        if is_sweep:
            print(f"error: {error}", file=sys.stderr)
            raise  # Hydra continues with the other runs, and fails at the end. SystemExit would end the sweep.
        raise SystemExit(f"error: {error}") from error
    where = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    score: float | None = summary["held_out"]["score"]
    if is_sweep:
        with suppress(BrokenPipeError), output_may_fail(goes_on=True):  # the run is finished, whoever reads its score
            print(f"score {'-' if score is None else format(score, '.3f')}  {where}")
        return score
    held_out, name = summary["held_out"], setup.config.get("name") or "this run"
    print(format_table(*held_out_table({name: held_out}, summary["references"], columns_of(held_out, main=True))))
    if summary["feedback"] is not None:
        print(f"\nfeedback  {in_words(summary['feedback'])}")
    if summary["stopped"] is not None:
        print(
            "stopped   the budget of {cap:g} {limit} is reached; run it again with a higher cap".format(
                **summary["stopped"]
            )
        )
    print(f"\nrun       {where}\nevaluate  python -m experiments.evaluate {as_typed('run', where)}")
    print(f"report    python -m experiments.report {as_typed('runs', where)}")
    print(f"curves    tensorboard --logdir {shlex.quote(str(where))}")
    return score


if __name__ == "__main__":
    require_plugin(sys.argv[1:])
    main()
