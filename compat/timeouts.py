"""How late waits end, beside the delays of the machine itself: each sample alternates with a plain sleep, or with the
standard library's queue.

    python -m compat.timeouts [NAME ...] [--count N] [--lanes N] [--beside CONDITION ...] [--json]

    get put put_many join claimed get_async    how late a timeout of 0.1 s ends, beside ``time.sleep(0.1)``;
                                               for ``get_async`` beside ``asyncio.wait_for`` of an event, and a timer
    visible      put, and tell another process by a pipe, which gets without waiting; the standard library's get waits
    wake_up      from a put to the return of a get that slept
    dead_holder  from a SIGKILL of a process that holds an item in ``claimed`` to the return of a get that waits
    dead_member  from a SIGKILL of a producer to the burial of its member, while another process waits

All run under each of these conditions, except that the last four do not run beside killed peers: two of the four
measure just that.

    nobody    the queue has no other user
    killed    before each sample a peer is killed: while it sleeps in the queue, while it holds an item, amid its calls
    stopped   a peer is stopped in one of these states all the time
    busy      as many peers as processors use all queues without a pause; beside the last four, whose items they would
              take, they use queues of their own

Many samples run at once, in lanes.  A lane is a process with a queue of its own; lanes begin one after another, so that
they don't wake at the same time.  A lane needs the processor for less than a hundredth of its time, and the time that
lanes take from each other they take from the sleeps, too.  Lanes have no busy peers of their own: the busy peers go
round all queues.

The exit status is 1 if a wait returned too early; if the 99th percentile is more than 1.5 times that of the sleep, or
of the other queue, and later by more than the least difference that counts; if an item was not seen; or if there are
fewer samples than were wanted.  A row says if it holds only by that least difference.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any, Final, NamedTuple

from tqshim import Empty, Full, JoinableTurboQueue, TurboQueue
from tqshim.sync.cells import AWAITS_DONE, AWAITS_PLACE, SLEEPS

FORK: Final = multiprocessing.get_context("fork")
TIMEOUT: Final = 0.1
PATIENCE: Final = 60.0
"""Seconds after which something hangs."""
EARLY: Final = time.get_clock_info("monotonic").resolution
"""Seconds by which a wait may end too early: what the clock can't tell, and event loops allow themselves."""
FACTOR: Final = 1.5
LEAST: Final = 0.5e-3
"""Seconds of difference that don't count, whatever the factor.  On an idle machine a sleep is 0.1 ms late, and Python
that has not run for that long takes 0.1 to 0.2 ms for its way out of a wait: its code is in no cache.  The standard
library's queues wait for whole milliseconds: half of one too long on average."""
NOTICED: Final = 2.0
"""Seconds within which the only one who waits notices a dead one, as docs/guarantees.md says."""
PLACES: Final = (os.cpu_count() or 1) + 1
"""Of a bounded queue: busy peers, who free one and fill it again, never free all, which ``put_many`` waits for."""
BESIDE: Final = ("nobody", "killed", "stopped", "busy")
STATES: Final = ("asleep", "holding", "calling")
"""In which a peer is killed or stopped, in turn: of three lanes each has another first."""


class Row(NamedTuple):
    """A row of the table: the measured seconds, in order."""

    name: str
    beside: str
    waits: list[float]
    plain: list[float]
    """Sleeps, or the other queue, of the same lanes; nothing where there is only a bound."""
    early: int
    missed: int
    """Items that were not seen."""
    wanted: int
    """Samples."""

    def holds(self) -> bool:
        if self.early or self.missed or len(self.waits) < self.wanted:
            return False
        return self.within() or self.within_least()

    def within(self) -> bool:
        """Whether it is in time without the least difference."""
        if not self.plain:
            return self.waits[-1] <= NOTICED
        return at(self.waits, 0.99) <= FACTOR * at(self.plain, 0.99)

    def within_least(self) -> bool:
        """Whether it is late by less than the difference that counts."""
        return bool(self.plain) and at(self.waits, 0.99) - at(self.plain, 0.99) <= LEAST


def at(values: list[float], share: float) -> float:
    """That percentile of values that are in order."""
    return values[min(len(values) - 1, int(share * len(values)))]


# -- waits with a timeout


class Kind(NamedTuple):
    make: Callable[[], Any]
    wait: Callable[[Any, float], bool]
    """Whether time ran out."""
    stir: Callable[[Any], object]
    """What a busy peer does, which brings what is waited for seldom, or never."""
    cell: int
    """What the engine calls it."""


def _get(queue: Any, timeout: float) -> bool:
    try:
        queue.get(True, timeout)
    except Empty:
        return True
    return False


def _put(queue: Any, timeout: float) -> bool:
    try:
        queue.put(0, True, timeout)
    except Full:
        return True
    return False


def _put_many(queue: Any, timeout: float) -> bool:
    try:
        queue.put_many([0] * PLACES, True, timeout)
    except Full:
        return True
    return False


def _join(queue: Any, timeout: float) -> bool:
    return not queue.join(timeout=timeout)


def _claimed(queue: Any, timeout: float) -> bool:
    try:
        with queue.claimed(True, timeout):
            return False
    except Empty:
        return True


_LOOP: Final[list[asyncio.AbstractEventLoop]] = []


def _run(waiting: Any, timeout: float) -> bool:
    if not _LOOP:
        _LOOP.append(asyncio.new_event_loop())
    try:
        _LOOP[0].run_until_complete(asyncio.wait_for(waiting, timeout))
    except (asyncio.TimeoutError, TimeoutError):
        return True
    return False


def _get_async(queue: Any, timeout: float) -> bool:
    return _run(queue.get_async(), timeout)


async def _never() -> None:
    """Waits for an event that does not come.  A loop waits for whole milliseconds from one timer to the next, and a
    ``get_async`` has a timer for its looks meanwhile: so this wait has a timer, too."""
    timer = asyncio.get_running_loop().call_later(TIMEOUT / 2, lambda: None)
    try:
        await asyncio.Event().wait()
    finally:
        timer.cancel()


def _full() -> Any:
    queue: Any = TurboQueue(PLACES)
    queue.put_many([0] * PLACES)
    return queue


def _unfinished() -> Any:
    queue: Any = JoinableTurboQueue()
    queue.put(0)
    return queue


def _stir_empty(queue: Any) -> None:
    with contextlib.suppress(Empty):
        queue.get_nowait()
    if random.random() < 0.005:
        queue.put(0)
        with contextlib.suppress(Empty):
            queue.get_nowait()


def _stir_full(queue: Any) -> None:
    with contextlib.suppress(Full):
        queue.put_nowait(0)
    if random.random() < 0.005:
        _stir_places(queue)


def _stir_places(queue: Any) -> None:
    with contextlib.suppress(Empty):
        queue.get_nowait()
    with contextlib.suppress(Full):
        queue.put_nowait(0)


def _stir_unfinished(queue: Any) -> None:
    queue.put(0)
    queue.get()
    queue.task_done()


KINDS: Final[dict[str, Kind]] = {
    "get": Kind(TurboQueue, _get, _stir_empty, SLEEPS),
    "put": Kind(_full, _put, _stir_full, AWAITS_PLACE),
    "put_many": Kind(_full, _put_many, _stir_places, AWAITS_PLACE),
    "join": Kind(_unfinished, _join, _stir_unfinished, AWAITS_DONE),
    "claimed": Kind(TurboQueue, _claimed, _stir_empty, SLEEPS),
    "get_async": Kind(TurboQueue, _get_async, _stir_empty, SLEEPS),
}


def _sleeps(queue: Any, cell: int) -> bool:
    queue.qsize()
    members = queue._engine.parts.members
    members.see_all()
    return bool(members.cells.sleepers(cell))


def _until(condition: Callable[[], Any]) -> None:
    end = monotonic() + PATIENCE
    while not condition():
        if monotonic() > end:
            raise TimeoutError("a peer hangs")
        time.sleep(0.0005)


def forked(do: Callable[..., object], *arguments: Any) -> int:
    """Fork a peer, which ends as if it were killed, whatever it does."""
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        do(*arguments)
    finally:
        os._exit(1)


def end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _behave(queue: Any, kind: Kind, state: str, told: int) -> None:
    if state == "holding":
        claim = queue.claimed(True, PATIENCE)
        claim.__enter__()
        os.write(told, b"!")
        time.sleep(PATIENCE)
    os.write(told, b"!")
    while True:
        if state == "asleep":
            kind.wait(queue, PATIENCE)
        else:
            _stir_places(queue)


def peer(queue: Any, kind: Kind, state: str) -> int:
    """Return a process that is in that state by then."""
    if state == "holding":
        with contextlib.suppress(Full):
            queue.put_nowait(0)  # killed peers may have had all other items in their hands
    heard, told = os.pipe()
    pid = forked(_behave, queue, kind, state, told)
    os.close(told)
    os.read(heard, 1)
    os.close(heard)
    if state == "calling":
        time.sleep(random.random() * 0.005)
    elif state == "asleep":
        _until(lambda: _sleeps(queue, kind.cell))
    return pid


def stopped_peer(queue: Any, kind: Kind, state: str) -> int:
    """A process that is stopped in that state."""
    pid = peer(queue, kind, state)
    os.kill(pid, signal.SIGSTOP)
    os.waitpid(pid, os.WUNTRACED)
    return pid


def lane(name: str, beside: str, queue: Any, count: int, number: int, start: float) -> tuple[list[float], list[float]]:
    """Take so many samples: how late waits were, and sleeps."""
    kind = KINDS[name]
    queue = kind.make() if queue is None else queue
    kind.wait(queue, 0.01)  # what is imported and made for the first wait is not measured
    time.sleep(max(0.0, start - monotonic()))
    waits: list[float] = []
    plain: list[float] = []
    stopped = 0
    try:
        if beside == "stopped":
            stopped = stopped_peer(queue, kind, STATES[number % len(STATES)])
        for turn in range(20 * count):
            if beside == "killed":
                end(peer(queue, kind, STATES[(number + turn) % len(STATES)]))
            began = monotonic()
            ran_out = kind.wait(queue, TIMEOUT)
            late = monotonic() - began - TIMEOUT
            if not ran_out:
                continue  # the item that the wait was for was there
            waits.append(late)
            began = monotonic()
            if name == "get_async":
                _run(_never(), TIMEOUT)
            else:
                time.sleep(TIMEOUT)
            plain.append(monotonic() - began - TIMEOUT)
            if len(waits) == count:
                break
    finally:
        if stopped:
            end(stopped)
    return waits, plain


def _tell(told: Any, do: Callable[..., Any], *arguments: Any) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    told.send(do(*arguments))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the process ends by itself; a signal would make it print an error


def _busy(queues: list[tuple[Kind, Any]]) -> None:
    while True:
        for kind, queue in queues:
            kind.stir(queue)


def in_lanes(jobs: list[tuple[Any, ...]]) -> list[Any]:
    """Return the results of functions, each in a process of its own, all at once."""
    running: list[tuple[Any, Any]] = []
    try:
        for job in jobs:
            heard, told = FORK.Pipe(False)
            process = FORK.Process(target=_tell, args=(told, *job))
            process.start()
            told.close()
            running.append((process, heard))
        return [heard.recv() for _, heard in running]
    finally:
        for process, _ in running:
            process.terminate()
            process.join()


def timeouts(names: list[str], beside: str, count: int, lanes: int) -> Iterator[Row]:
    """Measure all timeouts under one condition, at once."""
    each = -(-count // lanes)
    places = [(name, KINDS[name].make() if beside == "busy" else None) for name in names for _ in range(lanes)]
    step = 2 * TIMEOUT / len(places)
    peers: list[int] = []
    try:
        if beside == "busy":
            queues = [(KINDS[name], queue) for name, queue in places]
            for _ in range(os.cpu_count() or 1):
                random.shuffle(queues)
                peers.append(forked(_busy, queues))
        start = monotonic() + 0.02 * len(places)  # when all have been forked
        found = in_lanes(
            [
                (lane, name, beside, queue, each, number, start + number * step)
                for number, (name, queue) in enumerate(places)
            ]
        )
    finally:
        for pid in peers:
            end(pid)
    for number, name in enumerate(names):
        mine = found[number * lanes : (number + 1) * lanes]
        waits = sorted(late for lates, _ in mine for late in lates)
        plain = sorted(late for _, lates in mine for late in lates)
        yield Row(name, beside, waits, plain, sum(late < -EARLY for late in waits), 0, count)


# -- what others do, and when it is noticed


@contextlib.contextmanager
def beside_stopped(queue: Any, state: str) -> Iterator[None]:
    """A peer that is stopped in that state, if one is wanted, and that counts as no sleeper; the queue is empty."""
    pid = stopped_peer(queue, KINDS["get"], state) if state else 0
    try:
        if state == "calling":
            with contextlib.suppress(Empty):
                while True:
                    queue.get_nowait()
        _until(lambda: not _sleeps(queue, SLEEPS))
        yield
    finally:
        if pid:
            end(pid)


Noticed = tuple[list[float], list[float], int]
"""How long it took, and beside it the standard library's queue; items that were not seen."""


def visible(count: int, state: str) -> Noticed:
    """Put, tell the other process, wait for its answer; count how often it found nothing."""
    queue: Any = TurboQueue()
    with beside_stopped(queue, state):
        return _visible(queue, count, FORK.Queue())


def _visible(queue: Any, count: int, standard: Any) -> Noticed:
    heard, tell = os.pipe()
    answered, answer = os.pipe()

    def gets() -> None:
        while os.read(heard, 1) == b"q":
            with contextlib.suppress(Empty):
                queue.get_nowait()
                os.write(answer, b"+")
                os.read(heard, 1)
                standard.get()
                os.write(answer, b"+")
                continue
            os.write(answer, b"-")

    pid = forked(gets)
    waits: list[float] = []
    plain: list[float] = []
    missed = 0
    try:
        for item in range(-1, count):
            time.sleep(random.random() * 0.004)
            began = monotonic()
            queue.put(item)
            os.write(tell, b"q")
            seen = os.read(answered, 1)
            if item >= 0:  # what is imported and made for the first put is not measured
                waits.append(monotonic() - began)
            if seen != b"+":
                missed += 1
                continue
            time.sleep(random.random() * 0.004)
            began = monotonic()
            standard.put(item)
            os.write(tell, b"p")
            os.read(answered, 1)
            if item >= 0:
                plain.append(monotonic() - began)
    finally:
        end(pid)
        for fd in (heard, tell, answered, answer):
            os.close(fd)
    return waits, plain, missed


def wake_up(count: int, state: str) -> Noticed:
    """Measure from a put to the return of a get that slept."""
    queue: Any = TurboQueue()
    with beside_stopped(queue, state):
        return _wake_up(queue, count, FORK.Queue())


def _wake_up(queue: Any, count: int, standard: Any) -> Noticed:
    answered, answer = FORK.Pipe(False)

    def wakes() -> None:
        while True:
            queue.get()
            answer.send(monotonic())
            standard.get()
            answer.send(monotonic())

    pid = forked(wakes)
    waits: list[float] = []
    plain: list[float] = []
    try:
        for item in range(-1, count):
            _until(lambda: _sleeps(queue, SLEEPS))
            time.sleep(random.random() * 0.08)  # in the first nap, or in the second
            began = monotonic()
            queue.put(item)
            late = answered.recv() - began
            if item >= 0:  # what is made for the first put, and the first get, is not measured
                waits.append(late)
            time.sleep(0.001 + random.random() * 0.08)
            began = monotonic()
            standard.put(item)
            late = answered.recv() - began
            if item >= 0:
                plain.append(late)
    finally:
        end(pid)
    return waits, plain, 0


def dead_holder(count: int, state: str) -> Noticed:
    found = []
    for _ in range(count):
        queue: Any = TurboQueue()
        with beside_stopped(queue, state):
            pid = peer(queue, KINDS["get"], "holding")
            time.sleep(random.random())
            killed = FORK.Value("d", 0.0)

            def kill(pid: int = pid, killed: Any = killed) -> None:
                time.sleep(random.random() * 2)
                killed.value = monotonic()
                os.kill(pid, signal.SIGKILL)

            killer = forked(kill)
            queue.get(True, PATIENCE)
            found.append(monotonic() - killed.value)
            os.waitpid(killer, 0)
            os.waitpid(pid, 0)
    return found, [], 0


def dead_member(count: int, state: str) -> Noticed:
    found = []
    for _ in range(count):
        queue: Any = TurboQueue()

        def put_one(queue: Any = queue) -> None:
            queue.put(0)
            queue.put(0)
            time.sleep(PATIENCE)

        with beside_stopped(queue, state):
            producer = forked(put_one)
            queue.get(True, PATIENCE)
            queue.get(True, PATIENCE)
            waiter = forked(queue.get)
            try:
                _until(lambda queue=queue: _sleeps(queue, SLEEPS))
                time.sleep(random.random() * 2)
                killed = monotonic()
                end(producer)
                _until(lambda queue=queue: not queue.stats().producers)
                found.append(monotonic() - killed)
            finally:
                end(waiter)
    return found, [], 0


NOTICES: Final[dict[str, Callable[..., Noticed]]] = {
    run.__name__: run for run in (visible, wake_up, dead_holder, dead_member)
}
NOTICED_BESIDE: Final = ("nobody", "stopped", "busy")


def notice(name: str, beside: str, count: int, lanes: int) -> Row:
    """Measurements that use a processor all the time run alone."""
    # Where the last producer is to be seen to die, no peer that is stopped may be one.
    states = [""] if beside != "stopped" else ["asleep"] if name == "dead_member" else [*STATES]
    alone = name == "visible"
    lanes = max(len(states), 1 if alone else min(count, lanes))
    jobs = [(NOTICES[name], -(-count // lanes), states[number % len(states)]) for number in range(lanes)]
    peers: list[int] = []
    try:
        for _ in range((os.cpu_count() or 1) if beside == "busy" else 0):
            peers.append(forked(_busy, [(KINDS["get"], TurboQueue())]))
        found = [one for job in jobs for one in in_lanes([job])] if alone else in_lanes(jobs)
    finally:
        for pid in peers:
            end(pid)
    waits = sorted(value for values, _, _ in found for value in values)
    plain = sorted(value for _, values, _ in found for value in values)
    return Row(name, beside, waits, plain, 0, sum(missed for _, _, missed in found), count)


# -- the table


def measure(names: list[str], besides: list[str], count: int, lanes: int) -> Iterator[Row]:
    waits = [name for name in KINDS if name in names]
    for beside in besides if waits else ():
        yield from timeouts(waits, beside, count, lanes)
    for beside in filter(NOTICED_BESIDE.__contains__, besides):
        for name in filter(names.__contains__, NOTICES):
            # Measurements that take a second or two a sample run in many lanes, and less often.
            seldom = name.startswith("dead")
            yield notice(name, beside, -(-count // 20) if seldom else count, 10 * lanes if seldom else lanes)


HEAD: Final = f"{'ms':<12} {'beside':<8} {'samples':>7}   {'p50':>7} {'p99':>7} {'max':>7}   {'p50':>7} {'p99':>7} " + (
    f"{'max':>7}   {'ratio':>5}\n{'':32}{'the wait':>22}   {'the sleep, the other':>23}   {'p99s':>5}"
)


def line(row: Row) -> str:
    def times(values: list[float]) -> str:
        if not values:
            return f"{'-':>7} {'-':>7} {'-':>7}"
        return " ".join(f"{1000 * value:7.2f}" for value in (at(values, 0.5), at(values, 0.99), values[-1]))

    ratio = f"{at(row.waits, 0.99) / at(row.plain, 0.99):5.2f}" if row.plain and row.waits else f"{'-':>5}"
    told = f"{row.name:<12} {row.beside:<8} {len(row.waits):7}   {times(row.waits)}   {times(row.plain)}   {ratio}"
    told += f"  {row.early} TOO EARLY" if row.early else ""
    told += f"  {row.missed} NOT SEEN" if row.missed else ""
    told += f"  {row.wanted} WERE WANTED" if len(row.waits) < row.wanted else ""
    if not row.waits or row.within():
        return told
    return f"{told}  holds by less than {1000 * LEAST} ms" if row.within_least() else f"{told}  TOO LATE"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m compat.timeouts", description=str(__doc__).split("\n", 1)[0])
    everything = [*KINDS, *NOTICES]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(everything)}; all by default")
    parser.add_argument("--count", type=int, default=200, metavar="N", help="samples of each kind (default: 200)")
    parser.add_argument("--lanes", type=int, default=4, metavar="N", help="of each kind at once (default: 4)")
    parser.add_argument("--beside", nargs="+", choices=BESIDE, default=list(BESIDE), help="conditions; all by default")
    parser.add_argument("--json", action="store_true", help="all samples, in seconds, a line for each row")
    given = parser.parse_args(arguments)
    unknown = sorted(set(given.names) - set(everything))
    if unknown:
        parser.error(f"there is no {unknown[0]!r}; there are {', '.join(everything)}")
    if not given.json:
        print(HEAD)
    good = True
    for row in measure(given.names or everything, given.beside, given.count, given.lanes):
        good &= row.holds()
        print(json.dumps(row._asdict()) if given.json else line(row), flush=True)
    return int(not good)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
