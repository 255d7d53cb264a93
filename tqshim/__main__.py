"""The command line: ``python -m tqshim COMMAND``.

Lives here: which command is whose.  Not here: what a command does (a room for each).
"""

from __future__ import annotations

import sys
from typing import Final

from . import run

COMMANDS: Final = {"run": run.main}
USAGE: Final = f"usage: python -m tqshim {{{','.join(COMMANDS)}}} ...\n"


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""
    command = COMMANDS.get(arguments[0]) if arguments else None
    if command is None:
        asked = arguments[:1] in (["-h"], ["--help"])
        print(USAGE, end="", file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    return command(arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
