"""Inputs that are words of a command line: a run is composed, built, and makes two steps, or one line says why not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from robustness.edits import Edit
from robustness.files import one_of
from robustness.trying import Kind, Wrong

import experiments
from experiments.runs.arguments import add_own_arguments, refuse_lists_of_values
from experiments.runs.build import build
from experiments.runs.command import _is_of_a_user, in_one_line
from experiments.runs.keys import refuse_keys

CONF = Path(experiments.__file__).parents[1] / "conf"
SMALL = [
    *("market.n_jobs=60", "market.n_applicants=40", "env.num_candidates=5", "total_timesteps=30"),
    *("pretrain.n_pairs=100", "evaluation.n_pairs=8", "evaluation.n_episodes=2", "evaluation.at=[0,10]"),
    *("++algo.policy_kwargs.net_arch=[8]", "++algo.learning_starts=8", "++algo.batch_size=8"),
]
_VALUES = (
    *(
        "0",
        "1",
        "-1",
        "2",
        "0.5",
        "1e3",
        "3.7",
        "1e30",
        "-0.1",
        "nan",
        "inf",
        "true",
        "false",
        "null",
        "''",
        "x",
        "all",
    ),
    *(
        "[]",
        "[1]",
        "[x,y]",
        "{}",
        "{a:1}",
        "[[1]]",
        "'a b'",
        "é",
        "10000000000000000000",
        "0x10",
        "1_000",
        "yes",
        "none",
    ),
    *(
        "${seed}",
        "${nothing}",
        "${env.n_envs}",
        "'${'",
        "???",
        "os.system",
        "jobrec_gym.RuleSimulator",
        "a=b",
        "'",
        "[",
    ),
)
_OUTSIDE = (
    "seeed",
    "env.num_candidate",
    "market.n_job",
    "algo.gama",
    "simulator",
    "hydra.run",
    "reward.scale",
    "+x",
    "~env",
)
_SKIPPED = ("hydra", "market.encoder")


class Overrides(Kind):
    """Words on the command line of ``train``, on entries, on groups, beside them.

    What a user can cause is told in one line, which names what is wrong; what is built makes two steps.
    """

    name = "overrides"

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.groups = {
            group.name: sorted(option.stem for option in group.glob("*.yaml"))
            for group in CONF.iterdir()
            if group.is_dir()
            and group.name in ("algo", "env", "reward", "simulator", "setting", "experiment", "market")
        }
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("train", overrides=SMALL)
        self.entries = [
            name for name in _paths(OmegaConf.to_container(config, resolve=False)) if not name.startswith(_SKIPPED)
        ]

    def draw(self, rng: np.random.Generator) -> list[Edit]:
        words: list[Edit] = []
        for _ in range(int(rng.integers(1, 4))):
            how = rng.random()
            if how < 0.25:
                group = one_of(rng, list(self.groups))
                words.append([f"{group}={one_of(rng, [*self.groups[group], 'nothing'])}"])
            else:
                name = one_of(rng, self.entries) if how < 0.9 else one_of(rng, _OUTSIDE)
                sign = one_of(rng, ["", "", "", "+", "++", "~"])
                words.append([f"{sign}{name}={one_of(rng, _VALUES)}"])
        return words

    def try_(self, edits: Sequence[Edit]) -> None:
        words = [word for (word,) in edits]
        refuse_keys(words)
        refuse_lists_of_values(words, CONF)
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("train", overrides=add_own_arguments([*self._small(words), *words]))
        setup = build(cfg)
        env = setup.env
        agent = setup.algorithm.make(env)
        obs, _ = env.reset(seed=0)
        for _ in range(2):
            actions = np.atleast_1d(agent.predict(obs, deterministic=True)[0])
            obs, rewards, *_ = env.step(actions)
            if not np.isfinite(rewards).all():
                raise Wrong(f"reward: {rewards}")

    @staticmethod
    def _small(words: Sequence[str]) -> list[str]:
        """Sizes of a small run. Those of a market or agent that the words replace are left out: it may lack them."""
        other = {word.partition("=")[0].lstrip("+~") for word in words}
        fixed = bool(other & {"market", "setting", "experiment"})
        return [
            word
            for word in SMALL
            if not (fixed and word.startswith("market.")) and not ("algo" in other and word.startswith("++algo"))
        ]

    def explained(self, error: BaseException) -> bool:
        """Whether the command's one line explains the error, and does not send the user to ``debug=true``."""
        if isinstance(error, SystemExit):
            return isinstance(error.code, str) and error.code.startswith("error: ")
        return _is_of_a_user(error) and "(debug=true shows where)" not in in_one_line(error)


def _paths(config: dict[str, Any], before: str = "") -> Iterator[str]:
    for name, value in config.items():
        yield f"{before}{name}"
        if isinstance(value, dict):
            yield from _paths(value, f"{before}{name}.")


KINDS = (Overrides,)
