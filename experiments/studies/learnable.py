"""``python -m experiments.studies.learnable setting=NAME``: what there is to learn in a setting, as a card."""

from __future__ import annotations

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from experiments.runs.command import command, typed_command
from experiments.runs.folders import RunError, commit_of_checkout, write_json, write_text
from experiments.runs.numbers import require_list

CARD, CARD_TEXT = "learnable.json", "learnable.md"


@command(config_path="../../conf", config_name="learnable")
def main(cfg: DictConfig) -> None:
    """Makes the card, prints it, and writes it as ``learnable.md`` and ``learnable.json``."""
    # Not at the top: `--help` is answered without torch.
    from experiments.runs.build import build_seeds
    from experiments.studies.card import card_text, make_card, seeds_from

    setting = HydraConfig.get().runtime.choices["setting"]
    made_by = {
        "command": typed_command("experiments.studies.learnable"),
        "commit": commit_of_checkout(),
        "setting": setting,
    }
    try:
        require_list("n_pairs", cfg.n_pairs, 2)
        setups = build_seeds(cfg, seeds_from(cfg.seed, cfg.n_seeds))
        card = {**made_by, **make_card(setups, list(cfg.n_pairs))}
    except RunError as error:
        raise SystemExit(f"error: {error}") from error
    text = card_text(card)
    folder = Path(cfg.folder) / setting
    write_text(folder / CARD_TEXT, text)
    write_json(folder / CARD, card)
    print(f"{text}\ncard     {folder / CARD_TEXT}\nnumbers  {folder / CARD}")


if __name__ == "__main__":
    main()
