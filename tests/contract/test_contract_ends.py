"""Joins end when all is done, no earlier; shutdowns let in what was put before them, and nothing after."""

from __future__ import annotations

import asyncio
import gc
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from contract_tools import PATIENCE, all_of, within

import tqshim


def test_a_put_after_anothers_shutdown_is_refused(other: Any) -> None:
    for maxsize in (0, 1, 300):
        with tqshim.Queue(maxsize) as q:
            putter = other(q)
            for _ in range(20):
                putter.do("put", "item")
                q.get()
            q.shutdown()
            for name, items in (("put", "late"), ("put_many", ["late"]), ("put", bytes(100_000))):
                with pytest.raises(tqshim.ShutDown):
                    putter.do(name, items)
                with pytest.raises(tqshim.ShutDown):
                    getattr(q, name)(items)
            with pytest.raises(tqshim.ShutDown):
                q.get()
            putter.kill()


def test_what_was_put_before_a_shutdown_arrives(other: Any) -> None:
    for maxsize in (0, 300):
        with tqshim.Queue(maxsize) as q:
            putters = [other(q), other(q)]
            for putter in putters:
                for number in range(5):
                    putter.do("put", number)
            q.shutdown()
            assert q.is_shutdown
            assert sorted(q.get() for _ in range(10)) == sorted([*range(5)] * 2)
            with pytest.raises(tqshim.ShutDown):
                putters[0].do("get")
            for putter in putters:
                putter.kill()


def test_a_shutdown_at_once_drops_what_waits_in_every_process(other: Any) -> None:
    for first in (False, True):
        with tqshim.JoinableQueue() as q:
            putter, reader = other(q), other(q)
            putter.do("put_many", range(100))
            for number in range(3):
                putter.do("put", number)
            assert reader.do("get") == 0
            if first:
                q.shutdown()
            q.shutdown(immediate=True)
            for one in (putter, reader):
                with pytest.raises(tqshim.ShutDown):
                    one.do("get")
            assert q.empty()
            assert not q.join(timeout=0)
            reader.do("task_done")
            assert q.join(timeout=PATIENCE)
            putter.kill()
            reader.kill()


def test_a_queue_at_a_path_stays_shut_down(tmp_path: Path) -> None:
    with tqshim.Queue(path=tmp_path / "q") as q:
        q.put("item")
        q.shutdown()
        for number in range(600):
            q.qsize()
            with pytest.raises(tqshim.ShutDown):
                q.put(number)
    with tqshim.Queue(path=tmp_path / "q") as q:
        assert q.is_shutdown
        with pytest.raises(tqshim.ShutDown):
            q.put("late")
        assert all_of(q) == ["item"]


def test_get_waits_for_what_others_hold_before_it_ends(other: Any) -> None:
    for good in (True, False):
        with tqshim.Queue() as q:
            holder, reader = other(q), other(q)
            q.put("held")
            holder.begin(_hold_until_told, good)
            assert within(PATIENCE, q.empty)
            q.shutdown()
            reader.begin("get")
            time.sleep(0.15)
            assert not reader.is_done()
            holder.signal(signal.SIGUSR1)
            if good:
                with pytest.raises(tqshim.ShutDown):
                    reader.answer()
            else:
                assert reader.answer() == "held"
            holder.kill()
            reader.kill()


def _hold_until_told(q: Any, good: bool) -> None:
    signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        with q.claimed():
            signal.pause()
            if not good:
                raise ZeroDivisionError
    except ZeroDivisionError:
        pass


def test_who_waits_in_an_event_loop_wakes_at_a_shutdown_that_its_process_has_seen_before() -> None:
    """Before the loop runs again another get has seen all that there is to see."""

    async def main(q: Any) -> None:
        waiting = asyncio.ensure_future(q.get_async())
        while not q.stats().waiting_consumers:
            await asyncio.sleep(0)
        q.shutdown()
        with pytest.raises(tqshim.ShutDown):
            q.get_nowait()
        with pytest.raises(tqshim.ShutDown):
            await asyncio.wait_for(waiting, PATIENCE)

    with tqshim.Queue() as q:
        asyncio.run(main(q))


def test_join_ends_when_all_items_are_done_and_no_earlier(other: Any) -> None:
    with tqshim.JoinableQueue() as q:
        putter, joiner = other(q), other(q)
        for _ in range(3):
            putter.do("put", "one")
            q.put("two")
            joiner.begin("join")
            for left in (1, 0):
                time.sleep(0.02)
                assert not joiner.is_done()
                q.get()
                q.task_done()
                assert bool(q.join(timeout=0)) == (not left)
            assert joiner.answer()
        with pytest.raises(ValueError, match="too many"):
            q.task_done()


def test_an_item_that_another_has_just_put_keeps_a_join_waiting(other: Any) -> None:
    """It was put before the last one was counted off."""
    with tqshim.JoinableQueue() as q:
        putter, joiner = other(q), other(q)
        putter.do("put", "warm")
        q.get()
        q.task_done()
        for _ in range(5):
            q.put("one")
            assert q.get() == "one"
            joiner.begin("join")
            time.sleep(0.02)
            putter.do("put", "two")
            q.task_done()
            time.sleep(0.02)
            assert not joiner.is_done()
            assert q.get() == "two"
            q.task_done()
            assert joiner.answer()


def test_a_join_goes_on_although_more_is_put_at_once(other: Any) -> None:
    with tqshim.JoinableQueue() as q:
        joiner = other(q)
        q.put("one")
        joiner.begin("join")
        time.sleep(0.05)
        joiner.stop()
        q.get()
        q.task_done()
        q.put("two")
        joiner.go_on()
        assert joiner.answer()


def test_counts_outlive_the_processes_that_counted(tmp_path: Path) -> None:
    for turn in range(3):
        with tqshim.JoinableQueue(path=tmp_path / "q") as q:
            for number in range(400):
                q.put(number)
                q.get()
                if number < 399:
                    q.task_done()
            assert q.join(timeout=0) is False
            if turn:
                q.task_done()
        del q  # which counts off after it was closed, too
        gc.collect()
    with tqshim.JoinableQueue(path=tmp_path / "q") as q:
        assert not q.join(timeout=0)
        q.task_done()
        assert q.join(timeout=0)
        with pytest.raises(ValueError, match="too many"):
            q.task_done()


@pytest.mark.parametrize("more", [0, 1])
def test_no_act_is_lost_where_a_journal_ends(more: int) -> None:
    """One or the other is the first, or the second, of what is written together, at the end of a journal."""
    with tqshim.JoinableQueue() as q:
        for _ in range(1 + more):
            q.put("item")
        for _ in range(1 + more):
            q.task_done()
        for number in range(1000):
            q.put(number)
            q.task_done()
            assert q.join(timeout=0)
        with pytest.raises(ValueError, match="too many"):
            q.task_done()


def test_a_held_item_that_a_shutdown_drops_keeps_no_join_waiting(other: Any) -> None:
    with tqshim.JoinableQueue() as q:
        joiner = other(q)
        q.put_many(["held", "waiting"])
        with pytest.raises(ZeroDivisionError), q.claimed() as item:
            assert item == "held"
            q.shutdown(immediate=True)
            joiner.begin("join")
            time.sleep(0.05)
            assert not joiner.is_done()
            raise ZeroDivisionError
        assert joiner.answer()
        with pytest.raises(tqshim.ShutDown):
            q.get()
