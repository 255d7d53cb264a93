"""Putting: what comes before and after a put, and waiting for a place.

Lives here: the cut before a put, the ring after it, many puts at once.  Not here: when a record is put (``producer``),
how it is written, the short way (``log``).

Invariant: a record belongs to a mark of its log that is a millisecond old at most when it is put.  There a process
that cuts finds it beside what others have put meanwhile.  On a full disk, where marks are used up and nobody can cut,
it belongs to the last mark.
"""

from __future__ import annotations

from functools import partial

from tqshim.engine import waits
from tqshim.engine.acts import Acts
from tqshim.engine.log import NO_LOG
from tqshim.engine.parts import nothing
from tqshim.protocol.pieces import NewRecord, Pieces
from tqshim.runtime import locks
from tqshim.runtime.clock import monotonic, monotonic_ns
from tqshim.storage.files import a_full_disk_is_no_matter
from tqshim.sync.cells import ASLEEP, AWAITS_PLACE, SLEEPS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

__all__ = ["cut_if_due", "put_waiting"]

_ASLEEP: int = ASLEEP[SLEEPS]
_AWAIT_PLACE: int = ASLEEP[AWAITS_PLACE]


def cut_if_due(engine: Acts) -> bool:
    """Cut, if too much of our log is not cut: what is put from here on comes behind all that was put before."""
    log, now = engine.parts.producer.log, monotonic_ns()
    try:
        if not log.stop or now <= log.due or log.is_watched or log.mark(now):
            return False
    except ValueError:  # forked just now
        return False
    engine.cut()
    return True


def put_waiting(engine: Acts, records: list[NewRecord], block: bool, deadline: Optional[float]) -> int:
    """Put these records; returns how many were put.

    Raises ``OSError`` if none was put; else the put of the rest raises it."""
    put, spins, waited = 0, True, False
    while True:
        left = records[put:] if put else records
        crowd = engine.parts.crowd
        try:
            put += engine.act(put_once, engine, left, not put) if crowd is None else put_with_others(engine, left)
        except OSError:
            if put:
                return put
            raise
        if put == len(records) or engine.parts.replica.ledger.ending.shut:
            if waited and engine.parts.members.cells.words[_AWAIT_PLACE]:
                engine.unless_forked(None, engine.act, pass_on, engine)
            return put
        if not engine.maxsize:
            continue
        for record in left:
            if isinstance(record, Pieces):
                record.keep()
        if not block or (deadline is not None and monotonic() >= deadline):
            if engine.act(has_room, engine, len(left)):
                continue
            return put
        if spins and not put:
            spins = False  # Once: the places that are found may be too few.
            waiter = engine.parts.waiter
            if waiter.may_spin(AWAITS_PLACE) and waiter.spin_for_place(deadline):
                continue
        if not waits.wait(engine, AWAITS_PLACE, deadline, len(records) - put):
            return put
        waited = True


def has_room(engine: Acts, places: int) -> bool:
    return engine.parts.has_room(places)


def pass_on(engine: Acts) -> None:
    """Ring for another sleeper if there are more places: we may have been rung for, and have put something."""
    with a_full_disk_is_no_matter():
        if waits.available(engine, AWAITS_PLACE, 1) > 0:
            engine.parts.waiter.ring(AWAITS_PLACE)


def put_with_others(engine: Acts, records: list[NewRecord]) -> int:
    if engine.stale:
        engine.act(nothing, [], 0)  # In a forked child, first: the crowd is the parent's.
    crowd = engine.parts.crowd
    assert crowd is not None
    return crowd.put(records, engine.act, partial(put_once, engine))


def put_once(engine: Acts, records: list[NewRecord], again: bool) -> int:
    parts = engine.parts
    log, now = parts.producer.log, monotonic_ns()
    if log is NO_LOG or now <= log.due:
        pass
    elif not parts.members.counting:
        log.look_for_sleepers()
    elif not log.mark(now):
        with a_full_disk_is_no_matter():
            parts.members.cut()  # first, as in ``cut_if_due``
    put = parts.producer.put(records)
    if not put and again and engine.maxsize and engine.parts.make_room():
        put = parts.producer.put(records)
    if put:
        words = parts.members.cells.words
        locks.fence()
        if words[_ASLEEP]:
            parts.waiter.ring_surely(SLEEPS)
        if parts.replica.wants_space_aside:
            parts.replica.set_space_aside()
    return put
