"""``python -m tqshim kafka``: events of a topic through a function in many processes to another topic.

Lives here: the command's options, progress, counts.  Not here: how the command works (``running``).

Invariant: whatever ends the command, nothing is lost; what is not finished is read again by the next run of the same
group.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import os
import sys
import time
from typing import Final

from tqshim.kafka.running import ATTEMPTS, MAXSIZE, Counts, process_topic
from tqshim.kafka.workers import load

__all__ = ["EXAMPLE", "SUMMARY", "add_arguments", "run"]

SUMMARY: Final = "Call a function in many processes with each event of a Kafka topic; at least once."
EXAMPLE: Final = """\
  python -m tqshim kafka --in orders --out bills --worker shop:bill             # until SIGTERM or Ctrl-C
  python -m tqshim kafka --in a --out b --worker m:f --processes 8 --idle 60    # until nothing came for a minute
  python -m tqshim kafka --in a --out b --worker m:f --dead-letters a-failed    # set aside what can't be processed"""


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--in", dest="topic", metavar="TOPIC", required=True, help="the topic to read")
    parser.add_argument("--out", metavar="TOPIC", required=True, help="the topic to which results go")
    parser.add_argument(
        "--worker", metavar="MODULE:FUNCTION", required=True, help="what to call with each event; see tqshim.kafka"
    )
    parser.add_argument(
        "--processes", type=_count, default=os.cpu_count() or 1, help="how many workers (default: one a processor)"
    )
    parser.add_argument(
        "--brokers", metavar="HOST:PORT,…", default="localhost:9092", help="where to begin (default: localhost:9092)"
    )
    parser.add_argument("--group", metavar="NAME", help="the consumer group (default: tqshim-TOPIC)")
    parser.add_argument(
        "--dead-letters",
        metavar="TOPIC",
        help="where events go that failed so often; without it such an event ends the run",
    )
    parser.add_argument(
        "--attempts", type=_count, default=ATTEMPTS, help=f"how often to try an event (default: {ATTEMPTS})"
    )
    parser.add_argument(
        "--maxsize", type=_count, default=MAXSIZE, help=f"events that wait in the queue at most (default: {MAXSIZE})"
    )
    parser.add_argument("--idle", type=float, metavar="SECONDS", help="end when nothing was left to read for so long")
    for client in ("consumer", "producer"):
        parser.add_argument(
            f"--{client}",
            type=_setting,
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help=f"a setting of librdkafka's {client}; repeatable",
        )


def run(options: argparse.Namespace) -> int:
    """Process the topic.  Exit status: 0 after a clean end; 1 after an error; 2 if confluent-kafka
    or the worker is missing."""
    if importlib.util.find_spec("confluent_kafka") is None:
        print("python -m tqshim kafka: confluent-kafka is not installed; pip install 'tqshim[kafka]'", file=sys.stderr)
        return 2
    try:
        worker = load(options.worker)
    except (ImportError, ValueError) as error:
        print(f"python -m tqshim kafka: {error}", file=sys.stderr)
        return 2
    from confluent_kafka import KafkaException

    progress = _Progress()
    try:
        counts = process_topic(
            options.brokers,
            options.topic,
            options.out,
            worker,
            processes=options.processes,
            group=options.group,
            dead_letters=options.dead_letters,
            maxsize=options.maxsize,
            attempts=options.attempts,
            idle=options.idle,
            consumer=dict(options.consumer),
            producer=dict(options.producer),
            report=progress,
        )
    except (KafkaException, RuntimeError, OSError) as error:
        progress.end()
        print(f"python -m tqshim kafka: {error}", file=sys.stderr)
        return 1
    progress.end()
    for name, value in dataclasses.asdict(counts).items():
        print(f"{name.replace('_', ' '):<12}{round(value, 1):,}")
    return 0


class _Progress:
    """Progress on stderr, each line in place of the last one on a terminal."""

    def __init__(self) -> None:
        self._last = (time.monotonic(), 0)
        self._shown = ""

    def __call__(self, counts: Counts) -> None:
        now, done = time.monotonic(), counts.finished + counts.set_aside
        rate = (done - self._last[1]) / max(now - self._last[0], 0.001)
        self._last = now, done
        line = f"{counts.read:,} read, {counts.finished:,} finished, {counts.set_aside:,} set aside"
        if sys.stderr.isatty():
            print(f"\r\x1b[K{line}, {rate:,.0f} a second", end="", file=sys.stderr, flush=True)
        elif line != self._shown:  # the same line again would fill up a log while nothing happens
            print(f"{line}, {rate:,.0f} a second", file=sys.stderr, flush=True)
        self._shown = line

    def end(self) -> None:
        """Let what is printed next begin a line of its own."""
        if sys.stderr.isatty():
            print(file=sys.stderr)
