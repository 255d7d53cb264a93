"""Getting: taking items, and waiting for them.

Lives here: the loop of a caller that gets or claims, its sleep, passing on a ring.  Not here: which item is whose
(``consumer``, ``acknowledge``).

Invariant: a caller that has slept looks in the same act in which it says that it is awake; a caller that falls asleep
says so, and then looks once more.
"""

from __future__ import annotations

from functools import partial
from math import inf

from tqshim.engine import tuning, waits
from tqshim.engine.acknowledge import Hold
from tqshim.engine.acts import FORKED, Acts
from tqshim.engine.leasing import NO_STEPS
from tqshim.engine.parts import Parts
from tqshim.runtime.clock import after, check_deadline, monotonic
from tqshim.sync import membarrier
from tqshim.sync.bell import Bell
from tqshim.sync.cells import ASLEEP, AWAITS_PLACE, SLEEPS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final, Optional

__all__ = ["HOLD_ONE", "take_or_wait"]

_ASLEEP: int = ASLEEP[SLEEPS]
HOLD_ONE: Final = 0


class Sleep:
    """One thread's wait for items."""

    parts: Optional[Parts] = None
    """The parts in whose cells the thread has said that it sleeps."""
    bell: Optional[Bell] = None
    """The bell on which the thread is to sleep next."""
    read: Optional[tuple[int, int]] = None
    """The number of the journal, and up to where it was read, when the thread said that it sleeps."""
    spins: Optional[bool] = None
    """Whether the thread looks for a moment, or dozes, before it sleeps; decided when there is nothing."""
    looked = False
    """There was nothing just now; a caller that blocks spins or falls asleep first, and looks again behind that."""
    doubts = False
    """Something was new when the thread looked once more."""
    naps = 0
    seconds = 0.0
    rung = False
    """Somebody rang, and so ended the last nap."""


def take_or_wait(engine: Acts, got: list[Any], most: int, block: bool, timeout: Optional[float]) -> tuple[int, bool]:
    """Take ``most`` records at most, or hold one item (``HOLD_ONE``), or wait until there is something.

    Returns the generation that owns them, and whether they end where a lease ends, and there may be more."""
    began, deadline = monotonic(), inf
    if block and timeout is not None:
        check_deadline(deadline := after(began, timeout))
    sleep = Sleep()
    try:
        if most == 1 and take_short(engine, got, sleep, deadline if block else None):
            return engine.generation, False
        return take_in_acts(engine, got, most, block, began, deadline, sleep)
    except BaseException:
        stop_sleeping(engine, sleep)
        raise


def take_in_acts(  # noqa: C901  the same as ``Consumer.take``
    engine: Acts, got: list[Any], most: int, block: bool, began: float, deadline: float, sleep: Sleep
) -> tuple[int, bool]:
    """Do the same, by ``deadline``.  If an exception leaves ``sleep`` marked as asleep, the caller ends that."""
    cut_short = False
    while True:
        if sleep.bell is not None:
            sleep_until_rung(engine, sleep, sleep.bell, deadline)
            if sleep.rung and most == 1 and take_short(engine, got, sleep):
                pass_on(engine)
                return engine.generation, False
        generation = engine.generation
        state = engine.parts.hand.state
        try:
            with engine.lock:
                if engine.unsure or engine.stale:
                    engine._recover()
                    generation = engine.generation
                engine.unsure = True
                parts = engine.parts
                consumer, hand, leasing = parts.consumer, parts.hand, parts.leasing
                if leasing.steps is not NO_STEPS:
                    leasing.settle()
                if engine.beside is not None:
                    engine._take_over()
                if parts.acknowledging.out or parts.acknowledging.blocks:
                    parts.acknowledging.take_back()
                if parts.ending.is_wanted:
                    parts.ending.help()
                hand.measure_pace(began)
                state = hand.state
                ended = sleep.naps > 0 and monotonic() >= deadline
                if sleep.rung or not (sleep.looked or consumer.finds_nothing_new()):
                    take(parts, got, most, engine.generation, ended)
                if got:
                    if sleep.parts is not None:
                        wake(parts, sleep)  # Not before: by now it is known who else may sleep.
                    if engine.maxsize and most:
                        parts.waiter.ring(AWAITS_PLACE)
                    cut_short = hand.cut_short
                    hand.leave_out(began)
                elif block and not ended:
                    if sleep.spins is None:
                        sleep.spins = sleep.parts is None and parts.waiter.may_spin(SLEEPS)
                    if not sleep.spins:
                        fall_asleep(parts, sleep, deadline)
                if engine.beside is not None and engine.beside.owes:
                    leasing.settle()  # What a handler's get has left comes before what steps would deliver.
                engine.unsure = engine.stale
        except BaseException as error:
            if engine.parts.hand.state is state and not any(isinstance(one, Hold) and one.number for one in got):
                got.clear()  # The journal knows whose they are, and the next act asks it.
            if generation == engine.generation or not isinstance(error, FORKED):
                engine.folder.explain(error)
                raise
            stop_sleeping(engine, sleep)
        if generation != engine.generation:  # forked in the middle: what was got is the parent's
            got.clear()
            sleep.bell = None
            continue
        if got:
            if sleep.rung:
                pass_on(engine)
            return generation, cut_short
        ends = engine.parts.replica.ledger.ending.shutting
        if ends and engine.unless_forked(False, engine.act, partial(is_over, engine)):
            engine.over = True
            stop_sleeping(engine, sleep)  # of the threads that sleep in one process one was rung for
            return generation, cut_short
        if not block:
            return generation, cut_short
        looks, sleep.looked = sleep.looked, False
        if deadline is not inf and monotonic() >= deadline and not looks:
            stop_sleeping(engine, sleep)
            return generation, cut_short
        if sleep.spins:
            sleep.spins = False
            found = engine.parts.waiter.spin(deadline, engine.parts.consumer.known())
            sleep.looked = not (found or looks)  # what the spin looks at is not all there may be


def take_short(engine: Acts, got: list[Any], sleep: Sleep, deadline: Optional[float] = None) -> bool:
    """Get by the short way, under a lease of all that comes or by a claim, where all is as usual.  An item ends
    ``sleep``.  ``deadline``: until when a caller waits that is just to begin; it begins here if the lease goes on."""
    generation, parts = engine.generation, engine.parts
    state = parts.hand.state
    if parts.sole.lease is None and not (tuning.SHORT_CLAIMS and parts.consumer.may_claim()):
        return False  # as far as can be seen without the lock
    try:
        with engine.lock:
            parts = engine.parts
            sole, hand = parts.sole, parts.hand
            if (
                engine.unsure
                or engine.stale
                or engine.beside is not None
                or parts.acknowledging.out
                or parts.acknowledging.blocks
                or hand.state[1]  # records that come before what is taken next
                or hand.damage is not None
            ):
                return False
            engine.unsure = True
            state = hand.state
            if parts.leasing.steps is not NO_STEPS:
                parts.leasing.settle()
            if sole.lease is None:
                hand.measure_pace(began := monotonic())
                parts.consumer.take_one(got)
                hand.leave_out(began)
            elif not sole.take(got) and deadline is not None and sole.lease is not None:
                sleep.looked = True
                sleep.spins = parts.waiter.may_spin(SLEEPS)
                if not sleep.spins:
                    fall_asleep(parts, sleep, deadline)
            if got:
                if engine.maxsize:
                    parts.waiter.ring(AWAITS_PLACE)
                if sleep.parts is not None:
                    wake(parts, sleep)
            if engine.beside is not None and engine.beside.owes:
                parts.leasing.settle()  # as in ``take_in_acts``
            engine.unsure = engine.stale
    except BaseException as error:
        if engine.parts.hand.state is state:
            got.clear()
        if generation == engine.generation or not isinstance(error, FORKED):
            engine.folder.explain(error)
            raise
        stop_sleeping(engine, sleep)
    if generation != engine.generation:  # forked in the middle: what was got is the parent's
        got.clear()
    return bool(got)


def take(parts: Parts, got: list[Any], most: int, generation: int, ended: bool) -> None:
    if most:
        parts.consumer.take(got, most)
    else:
        if not ended:
            parts.reclaimer.scan_if_due(monotonic())  # what a dead process held comes first
        parts.acknowledging.hold(got, generation)


def is_over(engine: Acts) -> bool:
    """Return whether the queue was shut down, and there is nothing any more.  The process that was to shut it down may
    have been killed."""
    if engine.parts.ending.is_wanted:
        engine.parts.ending.help()
    return bool(engine.parts.replica.ledger.ending.shut) and engine.parts.is_over()


def fall_asleep(parts: Parts, sleep: Sleep, deadline: float) -> None:
    """Say that we sleep until there is something to get.  ``sleep_until_rung`` looks once more, and sleeps."""
    waiter, consumer = parts.waiter, parts.consumer
    if sleep.parts is not parts:
        sleep.parts = parts
    bell = waiter.bell_for(SLEEPS, sleep)
    now = monotonic()
    nap = waiter.nap(SLEEPS, sleep.naps)
    sleep.seconds = nap if now + nap <= deadline else max(0.0, deadline - now)
    if consumer.slot is None:
        consumer.join()
    assert consumer.slot is not None
    waiter.fall_asleep(SLEEPS, consumer.slot, sleep, now + sleep.seconds, sleep.seconds, sleep.naps)
    sleep.read, sleep.bell = (parts.replica.journal.number, parts.replica.pos), bell


def finds_nothing_new(engine: Acts, read: Optional[tuple[int, int]] = None) -> bool:
    """Return whether there was nothing, nothing was put or written to the journal since then, and the journal was read
    no further than ``read``, as far as can be seen without the lock."""
    try:
        parts, replica = engine.parts, engine.parts.replica
        nothing = parts.consumer.finds_nothing_new()
        # Last: another thread, or a handler, may have read on meanwhile.
        return nothing and read in (None, (replica.journal.number, replica.pos))
    except (OSError, ValueError):  # another thread, or a signal handler, leaves that journal at this moment
        return False


def sleep_until_rung(engine: Acts, sleep: Sleep, bell: Bell, deadline: float) -> None:
    """Sleep until somebody rings for us, or it is time to look by ourselves.  Don't sleep if something was put before
    we said that we sleep: that put did not see it."""
    generation = engine.generation
    try:
        sleep.bell, sleep.looked = None, False
        sleep.doubts = not (sleep.doubts or finds_nothing_new(engine, sleep.read))
        if sleep.doubts:
            return
        now = monotonic()
        if not sleep.rung and (sleep.naps or (deadline <= now + sleep.seconds and engine.parts.reclaimer.is_due(now))):
            # Before this nap, which may be the last: a caller that looks after others at its deadline returns late.
            engine.unless_forked(None, engine.act, partial(look_around, engine), sleep)
            sleep.seconds = max(0.0, min(sleep.seconds, deadline - monotonic()))
        if engine.stale or sleep.parts is not engine.parts:
            return  # forked by a handler: nobody knows that this process sleeps
        sleep.rung = False
        sleep.rung = bell.sleep(sleep.seconds)
        if sleep.rung:
            engine.parts.waiter.give_way(SLEEPS, engine.parts.consumer.known)
    except BaseException as error:
        stop_sleeping(engine, sleep)
        if generation == engine.generation or not isinstance(error, FORKED):
            raise
    sleep.naps += 1


def stop_sleeping(engine: Acts, sleep: Sleep) -> None:
    """Say that we sleep no more, and have got nothing: what we may have been rung for is for another sleeper."""
    engine.unless_forked(None, say_awake, engine, sleep)


def say_awake(engine: Acts, sleep: Sleep) -> None:
    with engine.lock:
        if sleep.parts is engine.parts and not engine.stale:
            waits.forget_waiter(engine, SLEEPS, sleep, True)
        sleep.parts = None


def wake(parts: Parts, sleep: Sleep) -> None:
    slot = parts.consumer.slot
    if sleep.parts is parts and slot is not None:  # else this process was forked meanwhile
        parts.waiter.wake(SLEEPS, slot, sleep, False)
    sleep.parts = None  # Not before: if that is interrupted, ``stop_sleeping`` sees to it.


def look_around(engine: Acts, sleep: Sleep) -> None:
    """Nobody has rung: see who has died, and whether our lease keeps batch files for nothing."""
    parts = engine.parts
    parts.reclaimer.scan_if_due(monotonic())
    if sleep.naps:  # nothing has come for a while
        parts.consumer.end_used_lease()


def pass_on(engine: Acts) -> None:
    """Ring for another sleeper, if there is more: we were rung for, and have taken something."""
    if engine.parts.members.cells.words[_ASLEEP] and not (tuning.FIRST_NAPS and finds_nothing_new(engine)):
        engine.unless_forked(None, engine.act, partial(ring_if_more, engine))


def ring_if_more(engine: Acts) -> None:
    parts = engine.parts
    known = parts.replica.ledger.head < parts.replica.ledger.tail
    if parts.members.counting and not (known or tuning.FIRST_NAPS):
        # What else the process that rang has put may not be seen yet.  With ``FIRST_NAPS`` time stands in for this, as
        # in ``Waiter.fall_asleep``: if something should be missed, the other sleeper finds it by its own look.
        membarrier.barrier()
    if known or parts.count():
        parts.waiter.ring(SLEEPS)
