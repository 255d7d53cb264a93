"""``python -m tqshim ls``.

Lives here: the list of queues on this machine.
"""

from __future__ import annotations

import argparse
from typing import Final

from tqshim import monitor
from tqshim.cli.showing import add_common, guarded, print_json, say, size, span, table

__all__ = ["EXAMPLE", "SUMMARY", "add_arguments", "run"]

SUMMARY: Final = "List the queues on this machine: what lies in them, and who has them open."
EXAMPLE: Final = """\
  python -m tqshim ls                         # anonymous queues, and what processes of yours have open
  python -m tqshim ls jobs projects           # the queue at jobs, and those in the folder projects
  python -m tqshim ls --json > queues.json    # for programs"""

HEAD: Final = ("path", "items", "on disk", "batches", "consumers", "producers", "age", "open by")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "folders", metavar="FOLDER", nargs="*", help="a queue, or a folder with queues; only these are listed"
    )
    add_common(parser)


@guarded
def run(options: argparse.Namespace) -> int:
    """Print the list.  Exit status: 0; 2 where a folder can't be listed."""
    found = monitor.queues(options.folders)
    if options.json:
        print_json(found)
    elif not found:
        say("no queues")
    else:
        for line in table(HEAD, map(_row, found)):
            say(line)
    return 0


def _row(queue: monitor.Summary) -> tuple[str, ...]:
    return (
        queue.path,
        "?" if queue.items is None else str(queue.items),
        size(queue.bytes),
        str(queue.batches),
        str(queue.consumers),
        str(queue.producers),
        span(queue.age),
        queue.problem or " ".join(str(process.pid) for process in queue.open_by) or "nobody",
    )
