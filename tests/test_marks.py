"""Marks: items of several producers come in the order of time, and a put cuts only where its marks are used.

What may happen to a real program at any instant happens here at a chosen one: a thread or a handler comes in between, a
lease ends meanwhile, a journal is too short.
"""

from __future__ import annotations

from typing import Any

import pytest
from watching import events_of, newcomer

from tqshim import TurboQueue
from tqshim.engine import tuning
from tqshim.engine.log import Log
from tqshim.engine.sole import SoleLease
from tqshim.engine.wait_policy import Waiter
from tqshim.runtime import systems
from tqshim.sync import cells as words_of
from tqshim.sync import membarrier
from tqshim.sync.cells import ASLEEP, MARKS_MOST, SLEEPS

LONG = 30.0
counting = pytest.mark.skipif(not membarrier.barrier_works(), reason="each put goes through the journal")


@pytest.fixture
def each_put_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    """No two are put at the same time: their order is known."""
    monkeypatch.setattr(tuning, "MARK_EVERY", 0)


@counting
def test_puts_cut_nothing_until_their_marks_are_used(path: str, each_put_marks: None) -> None:
    with TurboQueue(path=path) as queue:
        others = [newcomer(path) for _ in range(2)]
        for one in (queue, *others):
            one.put("first")
        queue._engine.cut()
        before = events_of(queue)
        puts = [(number, who) for number in range(MARKS_MOST) for who in range(3)]
        for number, who in puts:
            (queue, *others)[who].put((number, who))
        assert events_of(queue) == before
        queue.put("cuts all")
        assert events_of(queue) == before + len(puts)
        assert queue.get_many(max_messages_to_get=100) == [*["first"] * 3, *puts, "cuts all"]
        for one in others:
            one.close()


@pytest.mark.parametrize("limit", [16, 64])
def test_more_stretches_may_be_cut_than_a_journal_takes(
    path: str, monkeypatch: pytest.MonkeyPatch, each_put_marks: None, limit: int
) -> None:
    monkeypatch.setattr(tuning, "LIMITS", (limit, limit))
    with TurboQueue(path=path) as queue:
        others = [newcomer(path) for _ in range(limit // 4)]
        for one in others:
            one.put("first")
        assert queue.get_many(True, LONG, 100) == ["first"] * len(others)
        puts = [(number, who) for number in range(MARKS_MOST) for who in range(len(others))]
        for number, who in puts:
            others[who].put((number, who))
        queue.put("last")
        got: list[Any] = []
        while len(got) <= len(puts):
            got += queue.get_many(True, LONG, 1000)
        assert got == [*puts, "last"]
        for one in others:
            one.close()


@counting
def test_what_is_put_between_a_look_at_the_clock_and_the_mark_keeps_its_place(
    path: str, monkeypatch: pytest.MonkeyPatch, each_put_marks: None
) -> None:
    """By a handler, or another thread, of the same process: it has a later mark, which counts for what is put next."""
    mark = Log.mark

    def interrupted(log: Log, now: int) -> bool:
        monkeypatch.setattr(Log, "mark", mark)
        other.put("older")
        queue.put("newer")
        return log.mark(now)

    with TurboQueue(path=path) as queue:
        other = newcomer(path)
        for one in (queue, other):
            one.put("first")
        assert queue.get_many(True, LONG) == ["first"] * 2
        monkeypatch.setattr(Log, "mark", interrupted)
        queue.put("under way")
        got = queue.get_many(True, LONG)
        assert [item for item in got if item != "under way"] == ["older", "newer"]
        other.close()


@counting
@pytest.mark.skipif(not (tuning.SOLE and systems.STORES_IN_ORDER), reason="there is no such lease")
def test_a_record_that_a_lease_seems_to_have_delivered_keeps_its_mark(
    path: str, monkeypatch: pytest.MonkeyPatch, each_put_marks: None
) -> None:
    """A lease of all that comes has ended, and its holder, which has not seen it, says that it takes one more: it takes
    that back in a moment, but what is put in between must not count from the same mark."""
    contest = SoleLease._contest

    def contested(lease: SoleLease) -> bool:
        queue.put("newest")
        return contest(lease)

    queue: Any = TurboQueue(path=path)
    holder, other = newcomer(path), newcomer(path)
    for number in range(3 * MARKS_MOST):
        queue.put(number)
        assert holder.get(timeout=LONG) == number
    assert holder._engine.parts.sole.lease is not None
    other.put("older")
    queue.put("newer")
    monkeypatch.setattr(SoleLease, "_contest", contested)
    got: list[Any] = []
    holder._engine.parts.consumer.sole.take(got)
    assert got == []
    assert queue.get_many(True, LONG) == ["older", "newer", "newest"]
    for one in (holder, other, queue):
        one.close()


@pytest.mark.parametrize("durable", [False, True])
def test_a_put_rings_where_who_was_rung_for_has_told_nobody(
    path: str, monkeypatch: pytest.MonkeyPatch, each_put_marks: None, durable: bool
) -> None:
    """It was killed before it could say that others sleep."""
    rung: list[int] = []
    with TurboQueue(path=path, durable=durable) as queue:
        queue.put("first")
        words = queue._engine.parts.members.cells.words
        words[SLEEPS + 40] = 1
        assert words[ASLEEP[SLEEPS]] == 0
        monkeypatch.setattr(Waiter, "ring", lambda waiter, kind: rung.append(kind))
        queue.put("second")
        assert rung == [SLEEPS]
        words[SLEEPS + 40] = words[ASLEEP[SLEEPS]] = 0


@counting
def test_marks_of_a_put_that_failed_are_not_used_up(path: str, each_put_marks: None) -> None:
    """Where nothing was put since the last mark the next one takes its place."""
    with TurboQueue(path=path) as queue:
        queue.put("first")
        log = queue._engine.parts.producer.log
        for now in range(1, 2 * MARKS_MOST):
            assert log.mark(log.due + now)
        cells = queue._engine.parts.members.cells
        marks = cells.marks(queue._engine.parts.producer.slot)
        assert marks[2] == 1 == cells.words[words_of.COUNTER + queue._engine.parts.producer.slot]
        assert marks[4:] == [0] * (2 * MARKS_MOST - 4)
