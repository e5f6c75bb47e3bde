"""``python -m experiments.llm.demo``: 200 steps with feedback from a small language model on this machine."""

from __future__ import annotations

import subprocess
import sys

from experiments.llm.serve import serve
from experiments.llm.weights import fetch_smollm2
from experiments.runs.command import plain_command
from jobrec_gym.terminal import LineParser

__all__: list[str] = []

_PORT = 18_111
"""Always the same port, because the server's address is part of the cache key of its answers."""


@plain_command
def main() -> None:
    """Serves the model, trains in another process, and says what was asked; a second run asks nothing."""
    parser = LineParser(description=main.__doc__)
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="of experiments.train, such as seed=1")
    given = parser.parse_args().overrides
    with serve(fetch_smollm2(), port=_PORT) as address:
        print(f"serving SmolLM2-135M-Instruct at {address}; the first time takes some minutes", flush=True)
        overrides = ["experiment=llm_demo", f"simulator.api_base={address}", "resume=false"]
        done = subprocess.run([sys.executable, "-m", "experiments.train", *overrides, *given])
    raise SystemExit(done.returncode)


if __name__ == "__main__":
    main()
