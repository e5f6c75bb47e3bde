"""``python -m dynaq_algo convert OLD.zip NEW.zip``: an agent of an earlier version, as this one writes it.

The arguments of an earlier agent are pickled Python. Converting it runs what is in it: only for a file of your own, or
where nothing else is at stake.
"""

from __future__ import annotations

import sys

from dynaq_algo.agent_file import convert_agent

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Convert, and say so."""
    if len(arguments) != 3 or arguments[0] != "convert":
        raise SystemExit(f"usage: python -m dynaq_algo convert OLD.zip NEW.zip\n\n{__doc__}")
    _, old, new = arguments
    try:
        convert_agent(old, new)
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error
    sys.stdout.write(f"{new}: what {old} holds, as JSON and tensors\n")


if __name__ == "__main__":
    main(sys.argv[1:])
