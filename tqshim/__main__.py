"""``python -m tqshim``.

Lives here: the way in, and nothing else; the commands stand in ``cli``.
"""

from __future__ import annotations

import sys

from . import supported


def main() -> int:
    """Run the command that the command line names."""
    if sys.argv[1:2] == ["run"]:
        # A program is about to run here: nothing is imported that it does not need, and its options are not ours.
        from tqshim.cli.run import main as run

        return run(sys.argv[2:])
    if not supported:
        print("python -m tqshim: there are no queues of ours on this system; only run works", file=sys.stderr)
        return 2
    from tqshim.cli.main import main as others

    return others()


if __name__ == "__main__":
    if status := main():  # after ``python -i`` a prompt would come with the traceback of an exit
        sys.exit(status)
