"""What the commands have in common: tables, sizes, times, JSON, errors and ends.

Lives here: how things are shown.  Not here: what is shown (the modules beside this one).

Invariant: whatever stops a command (a closed pipe, Ctrl-C, a queue that is gone) gives an exit status and at most one
line on stderr, never a traceback.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import dataclasses
import functools
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from queue import Full
from typing import Any, Final, Optional

from tqshim.runtime.clock import FOREVER

__all__ = [
    "add_common",
    "authkey",
    "clean",
    "count",
    "guarded",
    "plain",
    "print_json",
    "say",
    "seconds",
    "size",
    "span",
    "table",
    "warn",
]

TROUBLE: Final = 2
"""Exit status where nothing could be done."""
INTERRUPTED: Final = 130
CUT_OFF: Final = 141
"""Exit statuses that shells expect after Ctrl-C, and when nobody reads what is printed."""


def add_common(parser: argparse.ArgumentParser, path: str = "") -> None:
    """Declare the arguments that all commands have.  ``path``: the help of PATH, if the command has one."""
    if path:
        parser.add_argument("path", metavar="PATH", help=path)
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def authkey() -> Optional[bytes]:
    """Return the key of the queue, from the environment: other users may read arguments.  ``None``: it is not set."""
    return os.fsencode(os.environ.get("TQSHIM_AUTHKEY", "")) or None


def count(text: str) -> int:
    """An option's value: a number from 1 on."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def seconds(text: str) -> float:
    """An option's value: a time from 0 on."""
    value = float(text)
    if not 0 <= value < FOREVER:
        raise argparse.ArgumentTypeError(f"{text} is no time to wait: give 0 or more seconds")
    return value


def guarded(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Wrap a command's ``run`` so that an error that stops it is printed in one line."""

    @functools.wraps(run)
    def safe(options: argparse.Namespace) -> int:
        try:
            if sys.stdout is None:
                raise ValueError("standard output is closed")
            try:
                return run(options)
            finally:
                sys.stdout.flush()
        except BrokenPipeError:
            # Else the interpreter tries to flush once more at its end, and complains.
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return CUT_OFF
        except KeyboardInterrupt:
            return INTERRUPTED
        except (OSError, ValueError, Full) as error:
            if isinstance(error, OSError) and error.filename is not None:
                warn(options, f"{error.filename}: {error.strerror}")
            else:
                warn(options, str(error) or type(error).__name__)
            return TROUBLE

    return safe


def clean(text: str) -> str:
    """Escape characters that a terminal would obey, or that its encoding lacks: a file may have any name."""
    shown = "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def say(text: str) -> None:
    """Print for a person."""
    print(clean(text))


def warn(options: argparse.Namespace, text: str) -> None:
    """Print one line on stderr that begins like the messages about wrong options."""
    if sys.stderr is not None:  # else print would write to stdout
        print(f"python -m tqshim {options.command}: {clean(text)}", file=sys.stderr)


def plain(thing: Any) -> Any:
    """Convert something made of dataclasses to what JSON can say: bytes become base64."""
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        return {field.name: plain(getattr(thing, field.name)) for field in dataclasses.fields(thing)}
    if isinstance(thing, (list, tuple)):
        return [plain(one) for one in thing]
    return base64.b64encode(thing).decode() if isinstance(thing, bytes) else thing


def print_json(thing: Any, lines: bool = False) -> None:
    """Print one JSON document; ``lines``: in a line of its own, at once."""
    print(json.dumps(plain(thing), indent=None if lines else 1), flush=lines)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table: the first column is aligned left, all others right."""
    lines = [list(head), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return [
        "  ".join(
            cell.ljust(width) if not at else cell.rjust(width) for at, (cell, width) in enumerate(zip(line, widths))
        )
        for line in lines
    ]


def size(octets: int) -> str:
    """Format a number of bytes in three figures."""
    value = float(octets)
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TB"


def span(seconds: float) -> str:
    """Format a time as people say it."""
    for limit, unit, name in ((60, 1, "s"), (3600, 60, "min"), (86400, 3600, "h")):
        if seconds < limit:
            value = seconds / unit
            return f"{value:.1f} {name}" if value < 10 else f"{value:.0f} {name}"
    return f"{seconds / 86400:.0f} d"
