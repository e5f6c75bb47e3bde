"""``python -m experiments.make_vectors``: encodes the words of the embedded taxonomy into the package's vectors.

It writes ``jobrec_gym/data/vectors.npz``. With ``--check`` it writes nothing, compares the vectors with
that file, and fails on a difference that rounding does not explain.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.runs.command import plain_command
from jobrec_gym.encoders import make_encoder
from jobrec_gym.loaders.generated import VECTORS_FILE, load_taxonomy
from jobrec_gym.terminal import LineParser
from jobrec_gym.whole_files import whole_file

__all__ = ["ENCODER", "KINDS", "TOLERANCE", "encode_taxonomy", "main", "shipped_vectors"]

ENCODER = "all-MiniLM-L6-v2"
KINDS = ("titles", "experiences", "hard_skills", "soft_skills")
TOLERANCE = 2e-3
"""Largest allowed difference of one number. Rounding to float16 and other processors' kernels make differences."""

_FILE = Path(__file__).parents[1] / "jobrec_gym" / "data" / VECTORS_FILE


def encode_taxonomy() -> dict[str, NDArray[np.float16]]:
    """Unit vectors (n, 384) of each kind of the taxonomy's words, rows in the order of the vocabulary."""
    vocabulary = load_taxonomy().vocabulary
    encoder = make_encoder(ENCODER, cache_dir=False)
    return {kind: encoder.encode(list(getattr(vocabulary, kind))).astype(np.float16) for kind in KINDS}


def shipped_vectors() -> dict[str, NDArray[np.float16]]:
    """The vectors that the package ships."""
    with np.load(_FILE, allow_pickle=False) as file:
        return {kind: file[kind] for kind in file.files}


@plain_command
def main() -> int:
    """Runs the command."""
    parser = LineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the shipped file, write nothing")
    check = parser.parse_args().check
    new = encode_taxonomy()
    if not check:
        with whole_file(_FILE) as scratch, scratch.open("wb") as file:
            np.savez(file, **new)  # type: ignore[arg-type]
        print(f"{_FILE.name}: " + ", ".join(f"{kind} {len(rows)}" for kind, rows in new.items()))
        return 0
    shipped = shipped_vectors()
    for kind, rows in new.items():
        if shipped[kind].shape != rows.shape:
            print(f"{kind}: {shipped[kind].shape} shipped, {rows.shape} from the taxonomy; make the file again.")
            return 1
        difference = float(np.abs(shipped[kind].astype(np.float32) - rows.astype(np.float32)).max())
        print(f"{kind}: {len(rows)} rows, largest difference {difference:.1e}")
        if difference > TOLERANCE:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
