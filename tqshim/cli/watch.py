"""``python -m tqshim watch``.

Lives here: rates, drawn over and over in one place on a terminal, line after line elsewhere.
"""

from __future__ import annotations

import argparse
import math
import sys
from typing import Final, Optional

from tqshim import monitor
from tqshim.cli.showing import add_common, clean, count, guarded, print_json, span

__all__ = ["EXAMPLE", "SUMMARY", "add_arguments", "run"]

SUMMARY: Final = "Watch a queue: items put and got a second, who waits, how old the oldest item is."
EXAMPLE: Final = """\
  python -m tqshim watch jobs                              # once a second, until Ctrl-C
  python -m tqshim watch jobs --interval 0.2 --count 10    # ten looks, two seconds in all
  python -m tqshim watch jobs --json                       # one JSON object a line"""

UP: Final = "\x1b[{}A\r\x1b[J"
"""Moves the cursor up by so many lines, to the beginning of a line, and clears all below."""


def interval(text: str) -> float:
    """Seconds between two looks."""
    value = float(text)
    if not 0.01 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not 0.01 or more")
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_common(parser, "the queue's folder")
    parser.add_argument("--interval", type=interval, default=1.0, metavar="SECONDS", help="between looks (default: 1)")
    parser.add_argument("--count", type=count, metavar="N", help="end after so many looks")


@guarded
def run(options: argparse.Namespace) -> int:
    """Print rates.  Exit status: 0; 2 where the path is no queue, or the queue goes away; 130 after Ctrl-C."""
    redraw = sys.stdout.isatty() and not options.json
    drawn = 0
    for rates in monitor.watch(options.path, options.interval, options.count):
        if options.json:
            print_json(rates, lines=True)
        elif redraw:
            lines = _picture(rates)
            print((UP.format(drawn) if drawn else "") + "\n".join(lines), flush=True)
            drawn = len(lines)
        else:
            print(_line(rates), flush=True)
    return 0


def _line(rates: monitor.Rates) -> str:
    return (
        f"put/s {rates.put_rate:,.0f}  got/s {rates.got_rate:,.0f}  items {rates.items:,}"
        f"  consumers {rates.consumers} ({rates.waiting_consumers} waiting)"
        f"  producers {rates.producers} ({rates.waiting_producers} waiting)"
        f"  oldest {_oldest(rates.oldest_at_least, rates.oldest_at_most)}"
    )


def _picture(rates: monitor.Rates) -> list[str]:
    bound = f" of {rates.maxsize:,}" if rates.maxsize else ""
    return [
        clean(rates.path),
        f"  put       {rates.put_rate:>14,.0f} /s   {rates.put:>16,} in all",
        f"  got       {rates.got_rate:>14,.0f} /s   {rates.got:>16,} in all",
        f"  items     {rates.items:>14,}{bound}, the oldest {_oldest(rates.oldest_at_least, rates.oldest_at_most)}",
        f"  consumers {rates.consumers:>14,}, {rates.waiting_consumers:,} waiting",
        f"  producers {rates.producers:>14,}, {rates.waiting_producers:,} waiting",
    ]


def _oldest(at_least: Optional[float], at_most: Optional[float]) -> str:
    if at_least is None:
        return "-"
    return f"{span(at_least)} or more" if at_most is None else f"{span(at_least)} to {span(at_most)}"
