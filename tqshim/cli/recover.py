"""``python -m tqshim recover``.

Lives here: saying what was saved, and what was not.
"""

from __future__ import annotations

import argparse
from itertools import groupby
from typing import Final

from tqshim import monitor
from tqshim.cli.showing import add_common, authkey, guarded, print_json, say

__all__ = ["EXAMPLE", "SUMMARY", "add_arguments", "run"]

SUMMARY: Final = "Copy what can be read of a damaged queue to a new one, or remove left-over files."
EXAMPLE: Final = """\
  python -m tqshim recover jobs --into jobs-saved    # all items that can be read; jobs stays as it is
  python -m tqshim recover jobs                      # no copy: files that nobody needs are deleted
  python -m tqshim recover jobs --json               # for programs"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_common(parser, "the queue's folder")
    parser.add_argument(
        "--into", metavar="NEW", help="an empty or new folder for the items; this one is only read then"
    )
    parser.add_argument(
        "--force", action="store_true", help="although the queue is in use: what is copied is got twice"
    )


@guarded
def run(options: argparse.Namespace) -> int:
    """Recover.  Exit status: 0; 1 where an item could not be saved, or damage is left; 2 where nothing was done, or the
    new folder found no space for all."""
    done = monitor.recover(options.path, options.into, force=options.force, authkey=authkey())
    damage = [one for one in done.left if one.status == 2]
    if options.json:
        print_json(done)
    else:
        if options.into is not None:
            say(f"{done.copied} items copied to {options.into}")
            if done.guessed:
                say("the journal could not be read: among them may be items that somebody had got")
            for file, lost in groupby(done.unreadable, lambda one: one.file):
                items = list(lost)
                them = f"item {items[0].number}" if len(items) == 1 else f"{len(items)} items from {items[0].number} on"
                say(f"lost: {them}, in {file}: {items[0].problem}")
        else:
            say(" ".join((f"{len(done.removed)} files removed", *done.removed)))
        for one in damage:
            say(f"still damaged: {one.path}: {one.finding}; {one.remedy}")
    return 1 if done.unreadable or (damage and options.into is None) else 0
