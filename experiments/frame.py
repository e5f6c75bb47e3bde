"""``python -m experiments.frame run=FOLDER out=frame.png``: draws a step, with its candidates ranked by an agent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from experiments.runs.command import command
from experiments.runs.folders import RunError, find_runs
from jobrec_gym.whole_files import whole_file

__all__ = ["draw_step"]


@command(config_path="../conf", config_name="frame")
def main(cfg: DictConfig) -> None:
    """Draws the step and writes the picture."""
    # Not at the top: `--help` is answered without torch.
    import torch

    torch.set_num_threads(cfg.threads)
    options: Any = OmegaConf.to_container(cfg, resolve=True)
    out = Path(options["out"])
    try:
        if out.suffix != ".png":
            raise RunError(f"`out` must end in .png, got {str(out)!r}.")
        frame = draw_step(options)
    except (RunError, ValueError, ImportError) as error:
        raise SystemExit(f"error: {error}") from error
    from PIL import Image  # if it is missing, drawing has already raised an error

    # The picture has few colours, so a palette takes a third of the bytes.
    picture = Image.fromarray(frame).quantize(256, dither=Image.Dither.NONE)
    with whole_file(out) as scratch:
        picture.save(scratch, format="PNG", optimize=True)
    print(f"picture  {out}, {frame.shape[1]} x {frame.shape[0]}")


def draw_step(options: Mapping[str, Any]) -> NDArray[np.uint8]:
    """The picture (height, width, 3) after some steps in which an agent recommends greedily.

    Args:
        options: The entries of ``conf/frame.yaml``.

    Raises:
        RunError: If ``run`` is not exactly one run, if there are overrides for a finished run, or if the agent gives
            candidates no values.
        ValueError: For an unknown applicant, more candidates than there are jobs, or a step that no episode reaches.
        ImportError: If Pillow is not installed.
    """
    from hydra import compose

    from experiments.runs.build import build
    from experiments.runs.recording import LearningProgress
    from experiments.runs.saved import load_run

    if options["run"] is None:
        setup = build(compose("train", ["algo=dynaq_plus", *options["overrides"]]))
        agent = setup.algorithm.make(setup.env)
        agent.learn(options["total_timesteps"], callback=LearningProgress(options["total_timesteps"]))
    else:
        if options["overrides"]:
            raise RunError("`overrides` are for an agent that is trained now; `run` is given and has its own config.")
        runs = find_runs(options["run"], "run")
        if len(runs) != 1:
            raise RunError(f"`run` holds {len(runs)} runs; say which: {', '.join(str(run.folder) for run in runs)}.")
        setup, agent = load_run(runs[0], {}, options["trust"])
    if not hasattr(agent, "q_values"):
        raise RunError(f"{setup.algorithm.target} gives candidates no values to rank them by: take another run.")
    drawn = {
        "num_candidates": options["num_candidates"],
        "render_mode": "rgb_array",
        "render_size": options["size"],
    }
    env = build({**setup.config, "env": {**setup.config["env"], **drawn}}).single_env()
    env.unwrapped.rank_by(agent.q_values)  # type: ignore[attr-defined]
    who = {} if options["applicant"] is None else {"applicant_key": str(options["applicant"])}
    limit = setup.config["env"]["max_episode_steps"]
    if not 1 <= options["steps"] <= limit:
        raise ValueError(f"`steps` must be in [1, max_episode_steps={limit}], got {options['steps']}.")
    obs, info = env.reset(seed=options["seed"], options=who)
    ended = False
    for number in range(options["steps"]):
        if ended:
            raise ValueError(
                f"`steps` must be at most {number} with seed={options['seed']}, since the episode ends there, "
                f"got {options['steps']}."
            )
        values = np.where(info["action_mask"] == 1, agent.q_values(obs), -np.inf)
        obs, _, terminated, truncated, info = env.step(int(values.argmax()))
        ended = terminated or truncated
    return env.render()  # type: ignore[return-value]


if __name__ == "__main__":
    main()
