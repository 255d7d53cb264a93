"""``python -m tqshim stat``.

Lives here: one queue in detail, in words.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Final

from tqshim import monitor
from tqshim.cli.showing import add_common, guarded, print_json, say, size, span

__all__ = ["EXAMPLE", "SUMMARY", "add_arguments", "run"]

SHOWN: Final = 100
"""Characters of a command line that are shown."""
SUMMARY: Final = "Show one queue in detail: items, places, journal, batch files, members."
EXAMPLE: Final = """\
  python -m tqshim stat jobs            # in words
  python -m tqshim stat jobs --json     # for programs"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_common(parser, "the queue's folder")


@guarded
def run(options: argparse.Namespace) -> int:
    """Print the queue's status.  Exit status: 0; 2 where the path is no queue, or the queue can't be read."""
    found = monitor.status(options.path)
    if options.json:
        print_json(found)
        return 0
    for label, text in _lines(found):
        say(f"{label:<12}{text}")
    return 0


def _lines(queue: monitor.Status) -> Iterator[tuple[str, str]]:
    shut = ", shut down" if queue.shut else ""
    kind = "anonymous" if queue.anonymous else "at a path"
    kind += ", durable" * queue.durable + ", with an authkey" * queue.keyed
    yield "queue", f"{queue.path}, {kind}, made {span(queue.age)} ago{shut}"
    leased = f", {queue.leased} of them leased to one consumer" if queue.leased else ""
    returned = f", {queue.returned} of them returned" if queue.returned else ""
    held = f", {queue.held} held in blocks of claimed" if queue.held else ""
    uncut = f", {queue.uncut} of them not cut yet" if queue.uncut else ""
    waiting = f"{queue.items} waiting{uncut}{leased}{returned}{held}"
    yield "items", f"{waiting}; {queue.put} put and {queue.got} got since it was made"
    if queue.items:
        waited = (
            "" if queue.oldest_at_least is None else f"; the oldest waits for {span(queue.oldest_at_least)} or longer"
        )
        yield "", f"{size(queue.item_bytes)} in their records{waited}"
    if queue.unfinished < queue.put:  # somebody calls task_done at all
        yield "", f"{queue.unfinished} for which nobody has called task_done"
    if queue.places is None:
        yield "places", "unbounded"
    else:
        reserved = f", {queue.reserved} reserved by producers" if queue.reserved else ""
        yield "places", f"{queue.places} of {queue.maxsize} free{reserved}"
    events = f"{queue.journal_events} of {queue.journal_limit} events before the next roll"
    yield "journal", f"number {queue.journal}, {size(queue.journal_bytes)}, {events}"
    spill = f", spilling to {queue.spill}" if queue.spill else ""
    yield "disk", f"{size(queue.bytes)}, {queue.batches} batch files{spill}; {size(queue.disk_free)} free"
    yield "consumers", f"{queue.consumers}, {queue.waiting_consumers} of them asleep, waiting for items"
    yield "producers", f"{queue.producers}, {queue.waiting_producers} of them asleep, waiting for places"
    for member in queue.members:
        process = member.process
        who = _process(process) if process else "no process"
        waits = ", waits" if member.waits else ""
        yield "member", f"slot {member.slot}, {member.role}, {member.state}{waits}: {who}"
    for process in queue.open_by:
        yield "open by", _process(process)
    if not queue.open_by:
        yield "open by", "nobody that can be seen from here"


def _process(process: monitor.Process) -> str:
    return f"process {process.pid or '?'} {process.command[:SHOWN]}".rstrip()
