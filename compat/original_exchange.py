"""Programs on turbo-queue 0.8.0 and on tqshim.turbo_queue share one folder: every event arrives once.

    python -m compat.original_exchange
    python -m compat.original_exchange --events 6000 --only both

Events go from 0.8.0's producers to our consumers, from ours to 0.8.0's, and from both to both at once. The exit code
is 0 if none was lost or doubled.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Final

from compat.original_speed import OURS, THEIRS, consume, default_root, produce
from tqshim.bench.command import positive, say
from tqshim.bench.crew import Crew, RunError
from tqshim.bench.workloads import check_delivery

WAYS: Final = {
    "in": ((THEIRS, THEIRS), (OURS, OURS)),
    "out": ((OURS, OURS), (THEIRS, THEIRS)),
    "both": ((THEIRS, OURS), (THEIRS, OURS, THEIRS, OURS)),
}
"""Producers and consumers."""
SIZE: Final = 100  # bytes of an event
BATCH: Final = 1000


def exchange(way: str, events: int, limit: float, root: str) -> list[int]:
    """Return how many events each consumer got. Raises RunError unless all arrived once."""
    producers, consumers = WAYS[way]
    each = events // len(producers) // BATCH * BATCH
    if not each:
        raise ValueError(f"{events} events are less than {BATCH * len(producers)}, a batch for each producer")
    context = multiprocessing.get_context()
    folder = tempfile.mkdtemp(prefix="original-exchange-", dir=root)
    try:
        with Crew(context, limit) as crew:
            gate = context.Barrier(len(producers) + len(consumers), timeout=limit)
            counts = context.RawArray("q", len(consumers) + 1)
            getting = [
                crew.start(consume, kind, folder, SIZE, counts, place, gate) for place, kind in enumerate(consumers)
            ]
            putting = []
            for place, kind in enumerate(producers):
                numbers = range(place, len(producers) * each, len(producers))
                putting.append(crew.start(produce, kind, folder, numbers, SIZE, "/tight", gate))
            for member in putting:
                crew.result(member)
            total = len(producers) * each
            while sum(counts[:-1]) < total and time.monotonic() < crew.deadline:
                if not all(member.process.is_alive() for member in getting):
                    break
                time.sleep(0.01)
            counts[len(consumers)] = 1
            shares = [numbers for _, numbers in (crew.result(member) for member in getting)]
        # In any order: 0.8.0 keeps none.
        check_delivery([sorted(share) for share in shares], len(producers), each)
        left = [name for name in os.listdir(os.path.join(folder, "events")) if name.startswith(("ready_", "unload_"))]
        if left:
            raise RunError(f"all events arrived, and yet there is {left}")
        return [len(share) for share in shares]
    finally:
        shutil.rmtree(folder)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m compat.original_exchange", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--events", type=int, default=100_000, help="in each direction (default: 100000)")
    parser.add_argument("--only", action="append", choices=list(WAYS), help="a direction; repeatable")
    parser.add_argument("--root", default=default_root(), help="where queues lie (default: where TurboQueue's do)")
    parser.add_argument("--limit", type=positive, default=120.0, help="seconds for one direction (default: 120)")
    args = parser.parse_args(argv)
    failed = False
    for way in args.only or WAYS:
        say(f"{way}: {args.events:,} events")
        try:
            got = exchange(way, args.events, args.limit, args.root)
        except RunError as failure:
            failed = True
            print(f"{way}: {failure}")
            continue
        except ValueError as error:
            parser.error(str(error))
        print(f"{way}: {sum(got):,} events, each once; by consumer: {got}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
