"""``python -m tqshim check``.

Lives here: what is wrong with a queue folder, line by line.
"""

from __future__ import annotations

import argparse
from typing import Final

from tqshim import monitor
from tqshim.cli.showing import add_common, authkey, guarded, print_json, say

__all__ = ["EXAMPLE", "SUMMARY", "add_arguments", "run"]

SUMMARY: Final = "Look for damaged, unknown and left-over files of a queue; changes nothing."
EXAMPLE: Final = """\
  python -m tqshim check jobs            # exit status 0: sound, 1: left-over or unknown files, 2: damage
  python -m tqshim check jobs --json     # for programs"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_common(parser, "the queue's folder")


@guarded
def run(options: argparse.Namespace) -> int:
    """Print the findings.  Exit status: 0 sound; 1 left-over or unknown files; 2 damage, or no queue."""
    found = monitor.check(options.path, authkey=authkey())
    if options.json:
        print_json(found)
    else:
        for one in found:
            say(f"{one.level}: {one.path}: {one.finding}; {one.remedy}")
        if not found:
            say("sound")
    return max((one.status for one in found), default=0)
