"""``python -m tqshim rm``.

Lives here: deleting a queue that nobody uses.
"""

from __future__ import annotations

import argparse
from typing import Final

from tqshim import monitor
from tqshim.cli.showing import add_common, guarded, print_json, say

__all__ = ["EXAMPLE", "SUMMARY", "add_arguments", "run"]

SUMMARY: Final = "Delete a queue with all its items; refuses one that is in use."
EXAMPLE: Final = """\
  python -m tqshim rm jobs            # says how many items went with it
  python -m tqshim rm jobs --json     # for programs"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_common(parser, "the queue's folder")


@guarded
def run(options: argparse.Namespace) -> int:
    """Delete the queue.  Exit status: 0; 2 where it is in use, or the path is no queue: then nothing has changed."""
    items = monitor.remove(options.path)
    if options.json:
        print_json({"removed": options.path, "items": items})
    else:
        with_it = "with it items that nobody could count" if items is None else f"{items} items with it"
        say(f"removed {options.path}, and {with_it}")
    return 0
