"""``python -m tqshim peek``.

Lives here: the oldest items, as bytes; as Python objects only where that is asked for.
"""

from __future__ import annotations

import argparse
import reprlib
import string
from typing import Final

from tqshim import monitor
from tqshim.cli.showing import add_common, authkey, count, guarded, plain, print_json, say, size
from tqshim.monitor.lines import unpickled
from tqshim.storage.folder import LogFolder

__all__ = ["EXAMPLE", "SUMMARY", "add_arguments", "run"]

SUMMARY: Final = "Show the oldest items of a queue without taking or unpickling them."
EXAMPLE: Final = """\
  python -m tqshim peek jobs                     # the oldest item: its size, and its first bytes
  python -m tqshim peek jobs -n 3 --unpickle     # three, as Python shows them; unpickling runs code
  python -m tqshim peek jobs -n 100 --json       # for programs"""

SHOWN: Final = 200
"""Characters of an object that are shown."""
_PRINTABLE: Final = set(map(ord, string.digits + string.ascii_letters + string.punctuation + " "))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_common(parser, "the queue's folder")
    parser.add_argument("-n", "--number", type=count, default=1, metavar="N", help="so many items (default: 1)")
    parser.add_argument(
        "--unpickle", action="store_true", help="show objects; this runs code that their producer may have chosen"
    )


@guarded
def run(options: argparse.Namespace) -> int:
    """Print the items.  Exit status: 0; 1 where an item can't be read; 2 where the path is no queue."""
    found = monitor.peek(options.path, options.number, whole=options.unpickle, authkey=authkey())
    if options.unpickle:
        # Check owner and mode of the folder, as before any other unpickling: this raises where they are refused.
        LogFolder.meet(options.path).close()
    bad = 0
    shown = []
    for one in found:
        text, failed = _object(one) if options.unpickle and one.record is not None else ("", False)
        bad += failed or bool(one.problem)
        if options.json:
            fields = plain(one)
            del fields["record"]
            shown.append({**fields, "object": text or None})
        else:
            uncut = ", not cut yet" if one.uncut else ""
            say(f"item {one.number}{uncut}, {size(one.size)}, at byte {one.offset} of {one.file}")
            say(f"  {one.problem or text or _bytes(one)}")
    if options.json:
        print_json(shown)
    elif not found:
        say("no items")
    return 1 if bad else 0


def _object(one: monitor.Peeked) -> tuple[str, bool]:
    """Return the object of a record as text, and whether unpickling it failed."""
    shown = reprlib.Repr()
    shown.maxstring = shown.maxother = SHOWN
    try:
        return unpickled(one.record or b"", shown.repr), False
    except ValueError as error:
        return str(error), True


def _bytes(one: monitor.Peeked) -> str:
    text = "".join(chr(byte) if byte in _PRINTABLE else "." for byte in one.preview)
    return f"{one.preview.hex(' ')}{' ...' if one.size > len(one.preview) else ''}  {text}"
