"""``python -m tqshim recover``.

Lives here: saying what was saved, and what was not.
"""

from __future__ import annotations

import argparse
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
        "--into", metavar="NEW", help="an empty or new folder for the items; with it, the queue at PATH is only read"
    )
    parser.add_argument(
        "--force", action="store_true", help="recover although the queue is in use: copied items are then got twice"
    )


@guarded
def run(options: argparse.Namespace) -> int:
    """Recover.  Exit status: 0; 1 where an item could not be saved, or, without ``--into``, damage is left; 2 where
    nothing was done, or the new folder has no space for all items."""
    done = monitor.recover(options.path, options.into, force=options.force, authkey=authkey())
    damage = [one for one in done.left if one.status == 2]
    if options.json:
        print_json(done)
    else:
        if options.into is not None:
            say(f"{done.copied} items copied to {options.into}")
            if done.guessed:
                say("the journal could not be read: some of these items may have been got before")
            by_file: dict[str, list[monitor.Peeked]] = {}
            for one in done.unreadable:
                by_file.setdefault(one.file, []).append(one)
            for file, lost in by_file.items():
                many = f"{len(lost)} items, the first of them {lost[0].number}"
                say(f"lost: {f'item {lost[0].number}' if len(lost) == 1 else many}, in {file}: {lost[0].problem}")
            if damage:
                say(f"{options.path} stays as it was, damaged; rm deletes it, when you have what you need")
        else:
            say(" ".join((f"{len(done.removed)} files removed", *done.removed)))
            for found in damage:
                say(f"still damaged: {found.path}: {found.finding}; {found.remedy}")
    return 1 if done.unreadable or (damage and options.into is None) else 0
