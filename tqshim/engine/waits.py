"""Waiting: for places, for the end of all work, and in event loops.

Lives here: falling asleep, and looking again.  Not here: waiting for items (``gets``), whom to wake (``wait_policy``).

Invariant: each sleeper has said that it sleeps, and has looked once more since.
"""

from __future__ import annotations

import sys
from functools import partial

from tqshim.engine.acts import Acts
from tqshim.engine.wait_policy import Seen
from tqshim.runtime.clock import check_deadline, monotonic
from tqshim.sync.bell import Bell
from tqshim.sync.cells import AWAITS_DONE, AWAITS_PLACE, SLEEPS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Optional

__all__ = ["forget_waiter", "slot_for", "wait", "watch"]

_CLOSE: Final = 5e-3
"""Seconds of journal that may be left to read at a deadline."""


def wait(engine: Acts, kind: int, deadline: Optional[float], places: int = 1) -> bool:
    """Wait until there may be something to get, or a place to put to, or all is finished with; returns at the deadline
    too: the caller looks by itself.  ``False``: it need not look: there was no place, and nothing happened since."""
    if deadline is not None:
        check_deadline(deadline)
    parts = engine.parts
    started = monotonic()
    me = object()
    interrupted = True
    try:
        new = nap(engine, kind, deadline, places, me)
        interrupted = False
    finally:
        with engine.lock:
            if parts is engine.parts and not engine.stale:
                # Where a signal handler has raised, what we may have been rung for is for another sleeper.
                try:
                    forget_waiter(engine, kind, me, interrupted)
                except BaseException:
                    forget_waiter(engine, kind, me, True)
                    raise
                parts.hand.leave_out(started)
    return new


def nap(engine: Acts, kind: int, deadline: Optional[float], places: int, me: object) -> bool:
    """Do what ``wait`` does, but for saying that ``me`` sleeps no more."""
    naps = 0
    rung = False
    while True:
        now = monotonic()
        nap = engine.parts.waiter.nap(kind, naps)
        seconds = nap if deadline is None else min(nap, deadline - now)
        if kind == AWAITS_DONE and deadline is not None:
            # Nobody rings before the end of all: what a busy journal has grown by must be read before the deadline.
            seconds = min(seconds, max((deadline - now) / 2, _CLOSE))
        until = now + max(0.0, seconds)
        asleep = engine.act(partial(fall_asleep, engine), kind, places, me, until, nap, naps, rung)
        if asleep is None or seconds <= 0:
            return True
        bell, seen = asleep
        rung = engine.parts.waiter.rest(kind, me, bell, until - monotonic())
        naps += 1
        if rung and places == 1 and kind != AWAITS_DONE:  # The end of all work is everybody's: each sleeper rings on.
            if kind == AWAITS_PLACE:
                engine.parts.waiter.give_way(AWAITS_PLACE)
            return True  # one place, most likely; a caller that must sleep again says so again
        if deadline is not None and monotonic() >= deadline and not rung:
            return kind != AWAITS_PLACE or not engine.parts.waiter.is_still(seen)


def fall_asleep(
    engine: Acts, kind: int, places: int, me: object, until: float, nap: float, naps: int, rung: bool
) -> Optional[tuple[Bell, Seen]]:
    """Say that we sleep.  Returns the bell for us, and what we have seen; ``None``: what we wait for is there."""
    parts = engine.parts
    slot = slot_for(engine, kind)
    bell = parts.waiter.bell_for(kind, me)
    parts.waiter.fall_asleep(kind, slot, me, until, nap, naps)
    given = parts.members.cells.given()
    if look_once_more(engine, kind, places, me, rung) < places:
        return bell, parts.waiter.seen(given)
    return None


def look_once_more(engine: Acts, kind: int, wanted: int, me: object, rung: bool) -> int:
    """Return how many there are for ``me``, which has said that it sleeps: if there are enough, it sleeps no more."""
    parts = engine.parts
    there = available(engine, kind, wanted)
    if there < wanted and parts.reclaimer.scan_if_due(monotonic()):
        there = available(engine, kind, wanted)
    if there < wanted:
        parts.waiter.pass_on(kind, me, there, rung)
    else:
        forget_waiter(engine, kind, me, rung and there > wanted)
    return there


def slot_for(engine: Acts, kind: int) -> int:
    consumer, producer = engine.parts.consumer, engine.parts.producer
    if kind == SLEEPS or (kind == AWAITS_DONE and producer.slot is None):
        if consumer.slot is None:
            consumer.join()
        assert consumer.slot is not None
        return consumer.slot
    if producer.slot is None:
        producer.slot = engine.parts.members.join(consumer=False)
    return producer.slot


def forget_waiter(engine: Acts, kind: int, me: object, more: bool) -> None:
    consumer, producer = engine.parts.consumer, engine.parts.producer
    slot = consumer.slot if kind == SLEEPS or producer.slot is None else producer.slot
    if slot is not None:
        engine.parts.waiter.wake(kind, slot, me, more)


def available(engine: Acts, kind: int, places: int) -> int:
    """Return how many sleepers of that kind could go on, by the items, the places or the end of all work; all of them
    if the queue was shut down."""
    parts = engine.parts
    if kind == SLEEPS:
        if parts.finds_nothing_new():
            return 0
        count = parts.count()
        return sys.maxsize if not count and parts.replica.ledger.ending.shut and parts.is_over() else count
    if kind == AWAITS_DONE:
        return sys.maxsize if engine.parts.is_done(places) else 0
    parts.replica.sync()
    ledger = parts.replica.ledger
    if ledger.ending.shut or ledger.ending.shutting:
        return sys.maxsize
    taken = parts.producer.taken()
    if taken + places > engine.maxsize and (parts.make_room() or ledger.leases.sole):
        parts.producer.look_what_is_delivered()
        taken = parts.producer.taken()
    return engine.maxsize - taken


def watch(engine: Acts, kind: int, me: object, wanted: int, naps: int, rung: bool) -> tuple[int, float]:
    parts = engine.parts
    nap = parts.waiter.nap(kind, naps)
    now = monotonic()
    parts.waiter.fall_asleep(kind, slot_for(engine, kind), me, now + nap, nap, naps)
    there = look_once_more(engine, kind, wanted, me, rung)
    if naps == 2:
        parts.consumer.end_used_lease()
    return there, nap
