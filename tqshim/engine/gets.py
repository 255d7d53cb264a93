"""Getting: taking items, and waiting for them.

Lives here: the loop of one who gets or claims, its sleep, passing on a ring.  Not here: which item is whose
(``consumer``, ``acknowledge``).

Invariant: who has slept looks in the same act in which it says that it is awake; who falls asleep looks once more in
the act in which it says that it sleeps.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any, Optional

from tqshim import tuning
from tqshim.clock import monotonic
from tqshim.engine import puts, waits
from tqshim.engine.acknowledge import Hold
from tqshim.engine.acts import Acts
from tqshim.engine.consumer import Taken
from tqshim.engine.parts import Parts
from tqshim.sync import membarrier
from tqshim.sync.bell import Bell
from tqshim.sync.cells import ASLEEP, AWAITS_PLACE, SLEEPS

__all__ = ["take", "take_or_wait"]

_ASLEEP: int = ASLEEP[SLEEPS]


class Sleep:
    """One thread's wait for items."""

    __slots__ = ("began", "naps", "parts", "rung", "seconds")

    def __init__(self) -> None:
        self.parts: Optional[Parts] = None
        """Where it has said that it sleeps."""
        self.naps = 0
        self.began = self.seconds = 0.0
        self.rung = False
        """The last nap ended so."""


def take(engine: Acts, got: list[Taken], most: int) -> None:
    parts = engine.parts
    parts.consumer.take(got, most)
    if got and engine.maxsize:
        parts.waiter.ring(AWAITS_PLACE)


def take_or_wait(engine: Acts, take: Callable[[], None], got: list[Any], block: bool, timeout: Optional[float]) -> int:
    """Take, or wait, until there is something."""
    deadline: Optional[float] = None
    sleep = Sleep()
    spins = block
    while True:
        generation = engine.generation
        state = engine.parts.consumer.state
        bell = None
        try:
            with engine.lock:
                if engine.unsure:
                    engine._recover()
                    generation = engine.generation
                engine.unsure = True
                engine.parts.consumer.settle()
                if engine.beside is not None:
                    engine._take_over()
                if engine.parts.acknowledging.out:
                    engine.parts.acknowledging.take_back()
                if engine.parts.ending.is_wanted:
                    engine.parts.ending.help()
                state = engine.parts.consumer.state
                take()
                if sleep.parts is not None:
                    wake(engine, sleep)  # Not before: by now it is known who else may sleep.
                if not got and deadline is not None and not spins:
                    bell = fall_asleep_for_items(engine, sleep, deadline)
                    take()  # Whoever has put something before this did not see that we sleep.
                    if got:
                        wake(engine, sleep)
                engine.unsure = engine.stale
        except BaseException as error:
            if engine.parts.consumer.state is state and not any(isinstance(one, Hold) and one.number for one in got):
                got.clear()  # The journal knows whose they are, and the next act asks it.
            stop_sleeping(engine, sleep)
            if generation == engine.generation or not isinstance(error, (OSError, ValueError)):
                raise
        if generation != engine.generation:  # forked in the middle: what was got is the parent's
            got.clear()
            continue
        if got:
            if sleep.rung:
                pass_on(engine)
            return generation
        if engine.parts.ending.is_wanted:
            engine.unless_forked(None, engine.act, lambda: engine.parts.ending.help())
        if engine.parts.replica.ledger.shut and engine.unless_forked(False, engine.act, lambda: engine.parts.is_over()):
            engine.over = True
            if sleep.rung:
                puts.ring(engine)  # of all who sleep in a process one was rung for
            return generation
        if deadline is None:
            if not block:
                return generation
            deadline = inf if timeout is None else monotonic() + timeout
        if deadline is not inf and monotonic() >= deadline:
            stop_sleeping(engine, sleep)
            return generation
        if spins:
            spins = False
            engine.parts.waiter.spin(deadline, engine.parts.replica.ledger.totals.tobytes())
        elif bell is not None:
            sleep_until_rung(engine, sleep, bell, deadline)


def fall_asleep_for_items(engine: Acts, sleep: Sleep, deadline: float) -> Bell:
    """Say that we sleep until there is something to get."""
    parts = engine.parts
    sleep.began = now = monotonic()
    sleep.seconds = max(0.0, min(parts.waiter.nap(SLEEPS, sleep.naps), deadline - now))
    parts.waiter.fall_asleep(SLEEPS, waits.slot_for(engine, SLEEPS), sleep, now + sleep.seconds, sleep.seconds)
    sleep.parts = parts
    return parts.waiter.bell(SLEEPS)


def sleep_until_rung(engine: Acts, sleep: Sleep, bell: Bell, deadline: float) -> None:
    """Sleep until we are rung for, or look by ourselves."""
    try:
        sleep.rung = bell.sleep(sleep.seconds)
    except BaseException as error:
        generation = engine.generation
        stop_sleeping(engine, sleep)
        if generation == engine.generation or not isinstance(error, (OSError, ValueError)):
            raise
    sleep.naps += 1
    if not sleep.rung:
        engine.unless_forked(None, engine.act, partial(look_around, engine), sleep)


def stop_sleeping(engine: Acts, sleep: Sleep) -> None:
    """A signal handler, or what was got, has raised: what we may have been rung for is another's."""
    with engine.lock:
        parts, sleep.parts = sleep.parts, None
        if parts is engine.parts and not engine.stale:
            waits.forget_waiter(engine, SLEEPS, sleep, True)


def wake(engine: Acts, sleep: Sleep) -> None:
    parts, sleep.parts = sleep.parts, None
    if parts is engine.parts:  # else this process was forked meanwhile
        waits.forget_waiter(engine, SLEEPS, sleep, False)
        parts.consumer.measure_pace(monotonic() - sleep.began)


def look_around(engine: Acts, sleep: Sleep) -> None:
    """Nobody has rung: see who has died, and whether our lease keeps batch files for nothing."""
    parts = engine.parts
    parts.acknowledging.scan_if_due(monotonic())
    if sleep.naps == tuning.NAPS:
        parts.consumer.end_used_lease()


def pass_on(engine: Acts) -> None:
    """We were rung for, and have taken something: if there is more, it is for another who sleeps."""
    if engine.parts.members.cells.words[_ASLEEP]:
        engine.unless_forked(None, engine.act, partial(ring_if_more, engine))


def ring_if_more(engine: Acts) -> None:
    if engine.parts.members.counting:
        membarrier.barrier()  # What else was put by who has rung may not be seen yet.
    if engine.parts.count():
        engine.parts.waiter.ring(SLEEPS)
