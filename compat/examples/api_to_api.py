"""From one HTTP API to another, with work for processors between: limited rates, retries, nothing lost on failure.

    python -m compat.examples.api_to_api --events 5000 --processes 2 --rate 200

    source --pages--> fetchers --> tasks (bounded) --> workers --> results (bounded) --batches--> posters --> target

Fetchers and posters are coroutines of this process, workers are processes. The bounds are the backpressure: a slow
target fills the results, full results stop the workers, full tasks stop the fetchers. A batch that the target refuses
too often goes back into its queue, and is posted again later; so does an event that its worker failed at. What a killed
worker had in its hand is lost: it is missed at the end, and fetched again.

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
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import aiohttp
import tenacity
from aiolimiter import AsyncLimiter

from compat.examples.services import Source, Target, serving
from tqshim import Empty, Full, TurboQueue

PAGE = 100
"""Events of one request, and results of one post at most."""
FETCHERS = POSTERS = 4
"""Requests under way at once, on each side."""
ATTEMPTS = 3
"""How often a request is tried in a row."""
FAIL_EVERY = 97
"""The worker of the example fails at every so manyth event, the first time."""
POLL = 0.1
"""Seconds after which a coroutine that waits looks whether all is over."""
QUIET = 5.0
"""Seconds without progress after which what is still missing is fetched again."""


def work(tasks: TurboQueue, results: TurboQueue) -> None:
    """A worker: events in, results out; None ends it."""
    for event in iter(tasks.get, None):
        try:
            result = {"number": event["number"], "digest": digest(event)}
        except ValueError:
            # Back to the end of the queue. It may be full, and waiting for a place would be waiting for ourselves.
            try:
                tasks.put_nowait({**event, "failed": True})
            except Full:
                results.put({**event, "failed": True})
        else:
            results.put(result)


def digest(event: dict[str, Any]) -> str:
    """The work for a processor."""
    if event["number"] % FAIL_EVERY == 0 and not event.get("failed"):
        raise ValueError("not at once")
    return hashlib.pbkdf2_hmac("sha256", event["text"].encode(), b"salt", 500).hex()


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
        self.failed: list[Any] = []
        self.posted: set[int] = set()
        self.posted_at = time.monotonic()
        self.returned = self.fetched_again = 0
        # One limit a service, whoever asks; a second's worth at once at most.
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

        while not self.over():
            if self.failed:
                events, self.failed = self.failed[:PAGE], self.failed[PAGE:]
            elif self.pages:
                first = self.pages.pop(0)
                try:
                    events = await tried(partial(get, first))
                except (aiohttp.ClientError, asyncio.TimeoutError):
                    self.pages.append(first)
                    self.returned += 1
                    continue
            else:
                await asyncio.sleep(POLL)
                continue
            missing = [event for event in events if event["number"] not in self.posted]
            while missing:
                try:
                    await asyncio.to_thread(self.tasks.put_many, missing, timeout=POLL)
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
            self.failed += [event for event in batch if event.get("failed")]
            batch = [result for result in batch if not result.get("failed")]
            try:
                await tried(partial(post, batch))
            except (aiohttp.ClientError, asyncio.TimeoutError):
                self.returned += 1
                with contextlib.suppress(Full):  # then this poster keeps it, and tries again itself
                    self.results.put_many_nowait(batch)
                    batch = []
            else:
                self.posted.update(result["number"] for result in batch)
                self.posted_at = time.monotonic()
                batch = []
                print(f"{len(self.posted):,} of {self.options.events:,} posted", file=sys.stderr)

    async def look_for_lost(self) -> None:
        """When nothing moves any more, a worker was killed with an event in its hand: fetch what never came."""
        while not self.over():
            await asyncio.sleep(POLL)
            if time.monotonic() - self.posted_at > QUIET and not self.pages and not self.failed and self.tasks.empty():
                self.pages = [page for page in range(0, self.options.events, PAGE) if self.is_missing(page)]
                self.fetched_again += len(self.pages)
                self.posted_at = time.monotonic()

    def is_missing(self, page: int) -> bool:
        return not self.posted.issuperset(range(page, min(page + PAGE, self.options.events)))

    async def run(self, source: str, target: str) -> None:
        """All of it; the workers are ended, whatever happens."""
        # Spawned, for a fork would take along the locks of this process's threads.
        context = multiprocessing.get_context("spawn")
        crew = [context.Process(target=work, args=(self.tasks, self.results)) for _ in range(self.options.processes)]
        for process in crew:
            process.start()
        try:
            await asyncio.gather(
                self.look_for_lost(),
                *(self.fetch(source) for _ in range(FETCHERS)),
                *(self.post(target) for _ in range(POSTERS)),
            )
        finally:
            for process in crew:
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
    taken = Target.taken
    print(f"events      {options.events}")
    print(f"posted      {len(taken)}")
    print(f"twice       {sum(taken.values()) - len(taken)}")
    print(f"refused     {Source.refused + Target.refused}")
    print(f"returned    {done.returned}")
    print(f"again       {done.fetched_again}")
    return 0 if set(taken) == set(range(options.events)) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
