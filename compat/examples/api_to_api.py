"""From one HTTP API to another, with work for processors between: limited rates, retries, nothing lost on failure.

    python -m compat.examples.api_to_api --events 5000 --processes 2 --rate 200

    source --pages--> fetchers --> tasks (bounded) --> workers --> results (bounded) --batches--> posters --> target

Fetchers and posters are coroutines of this process, workers are processes. The bounds are the backpressure: a slow
target fills the results, full results stop the workers, full tasks stop the fetchers. A batch that the target refuses
too often goes back into its queue, and is posted again later.

Workers may be killed at any instant. Each has its event as ``claimed``: the event counts as got once its result stands
in the results, and comes back if the work fails or its worker is killed before that. So every event arrives at least
once. Killed in between, a worker leaves a result and an event that comes back: the target stores results under their
key, the event's number, and one that comes again changes nothing. A killed worker is replaced.

Both services are stand-ins on loopback that refuse every seventh request. Needs the extra ``tqshim[examples]``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import multiprocessing
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from multiprocessing.process import BaseProcess
from typing import Any

import aiohttp
import tenacity
from aiolimiter import AsyncLimiter

from compat.examples.services import Source, Target, serving
from tqshim import Empty, Full, ShutDown, TurboQueue

PAGE = 100
"""Events of one request, and results of one post at most."""
FETCHERS = POSTERS = 4
"""Requests under way at once, on each side."""
ATTEMPTS = 3
"""How often a request is tried in a row."""
FAIL_EVERY = 97
"""The worker of the example fails at every so manyth event, the first time."""
GIVE_UP = 5
"""An event that has come back so often is posted as an error: it may be what kills its workers."""
POLL = 0.1
"""Seconds after which a coroutine that waits looks whether all is over."""


class NotAtOnce(Exception):
    """What the worker of the example fails with."""


def work(tasks: TurboQueue, results: TurboQueue) -> None:
    """A worker: events in, results out, until there are no tasks any more."""
    with contextlib.suppress(ShutDown):
        while True:
            claim = tasks.claimed()
            # The result is in its queue before the event counts as got; if the block raises, the event comes back.
            with contextlib.suppress(NotAtOnce), claim as event:
                results.put(result_of(event, claim.redelivered))


def result_of(event: dict[str, Any], redelivered: int) -> dict[str, Any]:
    """What is posted for an event, under its number."""
    if redelivered >= GIVE_UP:
        return {"number": event["number"], "error": f"came back {redelivered} times"}
    if event["number"] % FAIL_EVERY == 0 and not redelivered:
        raise NotAtOnce
    return {"number": event["number"], "digest": digest(event["text"])}


def digest(text: str) -> str:
    """The work for a processor."""
    return hashlib.pbkdf2_hmac("sha256", text.encode(), b"salt", 500).hex()


async def tried(request: Callable[[], Awaitable[Any]]) -> Any:
    """What the request returns; tried again after refusals and broken connections, later each time.

    Raises what the last attempt raised."""
    async for attempt in tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type((aiohttp.ClientError, asyncio.TimeoutError)),
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=tenacity.wait_random_exponential(multiplier=0.01, max=1),
        reraise=True,
    ):
        with attempt:
            return await request()
    raise AssertionError("tenacity raises after the last attempt")


class Transfer:
    """One transfer: what is still to be fetched, and what has arrived."""

    def __init__(self, session: aiohttp.ClientSession, options: argparse.Namespace) -> None:
        self.session = session
        self.options = options
        self.tasks, self.results = TurboQueue(options.maxsize), TurboQueue(options.maxsize)
        self.pages = list(range(0, options.events, PAGE))
        self.posted: set[int] = set()
        self.returned = self.replaced = 0
        # Spawned, for a fork would take along the locks of this process's threads.
        self.context = multiprocessing.get_context("spawn")
        self.crew: list[BaseProcess] = []
        # One limit a service, for all who ask; a second's worth at once at most.
        self.from_source, self.to_target = AsyncLimiter(options.rate, 1), AsyncLimiter(options.rate, 1)

    def over(self) -> bool:
        return len(self.posted) == self.options.events

    async def fetch(self, source: str) -> None:
        """One of several fetchers; they alone wait for places among the tasks."""

        async def get(first: int) -> Any:
            async with (
                self.from_source,
                self.session.get(
                    f"{source}/events", params={"from": first, "limit": PAGE}, raise_for_status=True
                ) as response,
            ):
                return await response.json()

        while self.pages:
            first = self.pages.pop(0)
            try:
                events = await tried(partial(get, first))
            except (aiohttp.ClientError, asyncio.TimeoutError):
                self.pages.append(first)
                self.returned += 1
                continue
            while True:
                try:
                    await asyncio.to_thread(self.tasks.put_many, events, timeout=POLL)
                    break
                except Full:  # none of them: no more than a page is put at once
                    continue

    async def post(self, target: str) -> None:
        """One of several posters; they never wait for a place, for they are the ones who make room."""

        async def post(batch: list[Any]) -> None:
            async with self.to_target, self.session.post(f"{target}/results", json=batch, raise_for_status=True):
                pass

        batch: list[Any] = []
        while not self.over():
            if not batch:
                try:
                    batch = await asyncio.to_thread(self.results.get_many, timeout=POLL, max_messages_to_get=PAGE)
                except Empty:
                    continue
            try:
                await tried(partial(post, batch))
            except (aiohttp.ClientError, asyncio.TimeoutError):
                self.returned += 1
                with contextlib.suppress(Full):  # then this poster keeps it, and tries again itself
                    self.results.put_many_nowait(batch)
                    batch = []
            else:
                self.posted.update(result["number"] for result in batch)
                batch = []
                print(f"{len(self.posted):,} of {self.options.events:,} posted", file=sys.stderr)

    def start_worker(self) -> BaseProcess:
        process = self.context.Process(target=work, args=(self.tasks, self.results))
        process.start()
        return process

    async def replace_workers(self) -> None:
        """A new one for each that was killed.  Raises ``RuntimeError`` if one ended by itself: the next would, too."""
        while not self.over():
            for place, process in enumerate(self.crew):
                if process.exitcode is None:
                    continue
                if process.exitcode >= 0:
                    raise RuntimeError(f"a worker ended with status {process.exitcode}")
                self.crew[place] = self.start_worker()
                self.replaced += 1
            await asyncio.sleep(POLL)

    async def run(self, source: str, target: str) -> None:
        """All of it; the workers are ended, whatever happens."""
        try:
            self.crew += [self.start_worker() for _ in range(self.options.processes)]
            await asyncio.gather(
                self.replace_workers(),
                *(self.fetch(source) for _ in range(FETCHERS)),
                *(self.post(target) for _ in range(POSTERS)),
            )
        finally:
            for process in self.crew:
                process.kill()  # all is posted, or an error is on its way up
                process.join()


async def transfer(source: str, target: str, options: argparse.Namespace) -> Transfer:
    """Pull, process, push; what it has counted."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        one = Transfer(session, options)
        await one.run(source, target)
        return one


def main(arguments: Sequence[str]) -> int:
    """Run the example between two stand-ins; exit status 1 if a result is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m compat.examples.api_to_api", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--events", type=int, default=5000, help="how many events the source has (default: 5000)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="how many workers")
    parser.add_argument(
        "--rate", type=float, default=200.0, help="requests a second and service at most (default: 200)"
    )
    parser.add_argument("--maxsize", type=int, default=500, help="items in each queue at most (default: 500)")
    options = parser.parse_args(arguments)
    if options.maxsize < PAGE:
        parser.error(f"--maxsize {options.maxsize} has no room for a page of {PAGE}")
    Source.events = options.events
    with serving(Source) as source, serving(Target) as target:
        done = asyncio.run(transfer(source, target, options))
    print(f"events      {options.events}")
    print(f"posted      {len(Target.results)}")
    print(f"twice       {Target.repeated}")
    print(f"errors      {sum('error' in result for result in Target.results.values())}")
    print(f"refused     {Source.refused + Target.refused}")
    print(f"returned    {done.returned}")
    print(f"replaced    {done.replaced}")
    print(f"redelivered {done.tasks.stats().redelivered}")
    return 0 if set(Target.results) == set(range(options.events)) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
