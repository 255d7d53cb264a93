"""``claimed``: an item counts as got when its block ends well; else it comes back to the head, marked."""

from __future__ import annotations

import asyncio
import collections
import errno
import gc
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from programs import claiming
from programs.claiming import Refused
from programs.things import BadAtLoading
from watching import AWAITS_PLACE, asleep, no_naps, until, until_asleep

import tqshim
from tqshim import Empty, Full, JoinableTurboQueue, ShutDown, TurboQueue, monitor
from tqshim.engine import tuning
from tqshim.engine.acknowledge import Acknowledging, Hold
from tqshim.engine.consumer import Consumer
from tqshim.engine.engine import Engine
from tqshim.engine.membership import Membership
from tqshim.engine.replica import Replica
from tqshim.errors import CorruptBatchError
from tqshim.protocol import events
from tqshim.storage.folder import LogFolder
from tqshim.sync import membarrier
from tqshim.sync.bell import Bell
from tqshim.sync.cells import SCANNED, SLEEPS, Cells, sleep_word

PATIENCE = 60.0
FORK = multiprocessing.get_context("fork")


def fails(q: Any, times: int = 1) -> list[Any]:
    """Blocks that raise, so many at once: their items."""
    claims = [q.claimed(False) for _ in range(times)]
    items = [claim.__enter__() for claim in claims]
    for claim in claims:
        claim.__exit__(Refused, Refused(), None)
    return items


def rest(q: Any) -> list[Any]:
    return list(q.drain())


def claim_all(q: Any) -> list[tuple[Any, int]]:
    """What blocks get, and how often it had come back."""
    found = []
    while True:
        claim = q.claimed(False)
        try:
            with claim as item:
                found.append((item, claim.redelivered))
        except (Empty, ShutDown):
            return found


def ledger(q: Any) -> Any:
    return q._engine.parts.replica.ledger


def held_by(q: Any) -> int:
    q.qsize()
    return len(ledger(q).holds.held)


# -- one process


@pytest.mark.parametrize("maxsize", [0, 3])
def test_an_item_counts_as_got_when_its_block_ends(maxsize: int) -> None:
    """While it runs it can't be got, and keeps its place."""
    q: Any = TurboQueue(maxsize)
    q.put_many("abc")
    with q.claimed() as item:
        assert item == "a"
        assert q.qsize() == 2
        assert [q.get(), q.get()] == ["b", "c"]
        assert q.empty()
        with pytest.raises(Empty):
            q.get_nowait()
        if maxsize:
            q.put_many_nowait("de")
            assert q.full()
            with pytest.raises(Full):
                q.put_nowait("f")
    if maxsize:
        q.put_nowait("f")
        assert q.full()
        assert rest(q) == ["d", "e", "f"]
    assert q.empty()


@pytest.mark.parametrize("error", [Refused, KeyboardInterrupt, SystemExit, asyncio.CancelledError, GeneratorExit])
def test_an_item_whose_block_raises_comes_back_to_the_head_and_is_marked(error: type[BaseException]) -> None:
    q: Any = TurboQueue(3)
    q.put_many("abc")
    for times in range(3):
        claim = q.claimed()
        with pytest.raises(error):
            with claim as item:
                assert (item, claim.redelivered) == ("a", times)
                raise error
        assert q.full()
        assert q.qsize() == 3
    assert claim_all(q) == [("a", 3), ("b", 0), ("c", 0)]


def test_leaving_a_block_by_return_break_or_continue_is_a_good_end() -> None:
    q: Any = TurboQueue()
    q.put_many("abc")

    def returns() -> Any:
        with q.claimed() as item:
            return item

    assert returns() == "a"
    for _ in range(1):
        with q.claimed():
            break
    for _ in range(1):
        with q.claimed():
            continue
    assert q.empty()


def test_what_comes_back_goes_before_all_that_waits_the_oldest_first() -> None:
    """In whichever order blocks fail, for get, get_many, drain and claimed."""
    ways: list[Callable[[Any], list[Any]]] = [
        lambda q: [q.get() for _ in range(6)],
        lambda q: q.get_many(max_messages_to_get=6),
        lambda q: rest(q),
        lambda q: [item for item, _ in claim_all(q)],
        lambda q: [*q.get_many(max_messages_to_get=2), q.get(), *q.get_many()],
    ]
    for take in ways:
        q: Any = TurboQueue(10)
        q.put_many(range(6))
        claims = [q.claimed() for _ in range(4)]
        for claim in claims:
            claim.__enter__()
        for index, error in ((2, Refused), (0, Refused), (1, None), (3, Refused)):
            claims[index].__exit__(error, None, None)
        assert q.qsize() == 5
        q.put("last")
        assert take(q) == [0, 2, 3, 4, 5, "last"]
        assert q.empty()
        q.put_many_nowait(range(10))
        with pytest.raises(Full):
            q.put_nowait(None)


def test_claimed_raises_what_get_raises() -> None:
    q: Any = TurboQueue()
    for arguments in ((False,), (True, 0), (True, 0.01), (True, -1)):
        with pytest.raises(Empty):
            with q.claimed(*arguments):
                pytest.fail("there is nothing")
    q.put(1)
    q.shutdown()
    assert claim_all(q) == [(1, 0)]
    with pytest.raises(ShutDown):
        q.claimed().__enter__()
    q.close()
    with pytest.raises(ValueError, match="closed"):
        q.claimed().__enter__()


def test_each_block_needs_a_claim_of_its_own() -> None:
    """A nested one of the same is refused; after the block it can be used again."""
    q: Any = TurboQueue()
    q.put_many("ab")
    claim = q.claimed()
    with claim:
        with pytest.raises(RuntimeError):
            claim.__enter__()
        assert held_by(q) == 1
    with claim as item:
        assert item == "b"
    assert q.empty()


def test_a_block_may_close_its_handle() -> None:
    """It ends well or badly all the same."""
    q: Any = TurboQueue()
    other: Any = pickle.loads(pickle.dumps(q))
    q.put_many("ab")
    with q.claimed():
        q.close()
    with pytest.raises(Refused):
        with other.claimed():
            other.close()
            raise Refused
    q = TurboQueue(path=os.path.join(os.environ["TQSHIM_DIR"], "closing"))
    q.put("a")
    with pytest.raises(Refused):
        with q.claimed():
            q.close()
            raise Refused
    gc.collect()
    q = TurboQueue(path=os.path.join(os.environ["TQSHIM_DIR"], "closing"))
    assert claim_all(q) == [("a", 1)]
    q.close()


def test_an_item_that_fails_to_unpickle_is_gone_and_all_others_arrive() -> None:
    q: Any = TurboQueue(3)
    q.put_many(["a", BadAtLoading(), "b"])
    with q.claimed() as item:
        assert item == "a"
        with pytest.raises(ValueError, match="can't be loaded"):
            with q.claimed():
                pytest.fail("there is no item")
        assert held_by(q) == 1
    assert claim_all(q) == [("b", 0)]
    q.put_many_nowait(range(3))


def test_an_item_that_can_not_be_read_is_gone_and_all_others_arrive() -> None:
    q: Any = TurboQueue(6)
    child = FORK.Process(target=q.put_many, args=("abc",))
    child.start()
    child.join(PATIENCE)
    (path,) = (path for path in Path(q._engine.folder.path).iterdir() if path.name.startswith(("load_", "ready_")))
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.write(bytes(size))
    for _ in range(2):
        with pytest.raises(CorruptBatchError):
            q.claimed(False).__enter__()
    with pytest.raises(CorruptBatchError):
        q.get_nowait()
    q.put("d")
    assert claim_all(q) == [("d", 0)]
    assert held_by(q) == 0
    q.put_many_nowait(range(6))


def test_a_block_that_is_thrown_away_gives_its_item_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A generator that nobody goes on with, say."""
    monkeypatch.setattr(tuning, "SCAN_EVERY", 0.0)
    q: Any = TurboQueue()
    q.put("a")
    q.claimed().__enter__()
    gc.collect()
    assert claim_all(q) == [("a", 1)]


def test_many_threads_claim_each_item_once() -> None:
    q: Any = TurboQueue(50)
    count = 3000
    seen: collections.Counter[int] = collections.Counter()
    wrong: list[Any] = []

    def work(failing: int) -> None:
        while True:
            claim = q.claimed()
            try:
                with claim as item:
                    if item is None:
                        return
                    if item % 7 == failing and not claim.redelivered:
                        raise Refused
                    seen[item] += 1
            except Refused:
                pass
            except BaseException as error:
                wrong.append(error)
                raise

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for item in range(count):
        q.put(item)
    for _ in threads:
        q.put(None)
    for thread in threads:
        thread.join(PATIENCE)
    assert not wrong
    # An item of the poison's time may have come back behind the None of who would have taken it.
    seen.update(item for item, _ in claim_all(q))
    assert seen == collections.Counter(range(count))


# -- interrupted acts, one by one


def interrupt_got(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next GOT of this process is interrupted before it is written."""
    append = Replica.append

    def interrupted(replica: Replica, data: bytes) -> Any:
        if data[-events.SIZE] == events.GOT:
            monkeypatch.undo()
            raise KeyboardInterrupt
        return append(replica, data)

    monkeypatch.setattr(Replica, "append", interrupted)


def test_a_get_that_is_interrupted_before_its_got_has_the_item(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has been delivered: the next act says so to the journal, and it comes to nobody else."""
    q: Any = TurboQueue()
    q.put_many("ab")
    fails(q)
    interrupt_got(monkeypatch)
    got: list[Any] = []
    with pytest.raises(KeyboardInterrupt):
        q._engine.get(got, 1, False, None)
    assert len(got) == 1
    assert held_by(q) == 0
    assert claim_all(q) == [("b", 0)]


def test_a_get_that_is_interrupted_before_its_got_comes_to_the_next_get(monkeypatch: pytest.MonkeyPatch) -> None:
    q: Any = TurboQueue()
    q.put_many("ab")
    fails(q)
    interrupt_got(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        q.get()
    assert rest(q) == ["a", "b"]
    assert held_by(q) == 0


@pytest.mark.parametrize("delivered", [0, 1])
def test_a_get_that_is_interrupted_while_it_delivers_leaves_the_item_to_the_journal(delivered: int) -> None:
    """The list has it already, the engine's state does not.  Those before it have been delivered."""

    class Interrupting(list[Any]):
        def append(self, item: Any) -> None:
            super().append(item)
            if len(self) > delivered:
                raise KeyboardInterrupt

    q: Any = TurboQueue()
    q.put_many("abc")
    fails(q, 2)
    got = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        q._engine.get(got, 2, False, None)
    assert len(got) == delivered
    expected = [("b", 2), ("c", 0)] if delivered else [("a", 2), ("b", 1), ("c", 0)]
    assert claim_all(q) == expected


@pytest.mark.parametrize("got", [True, False])
def test_the_end_of_a_block_that_is_interrupted_is_carried_out_by_the_next_act(
    got: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether in its own append or in the recovery before that."""
    for room, method in ((Replica, "append"), (Engine, "_recover"), (Acknowledging, "_end_hold")):
        q: Any = TurboQueue()
        q.put_many("ab")
        claim = q.claimed()
        claim.__enter__()

        def interrupted(*_: Any, **__: Any) -> None:
            monkeypatch.undo()
            raise KeyboardInterrupt

        monkeypatch.setattr(room, method, interrupted)
        q._engine.unsure = method == "_recover"  # as an act leaves it that was interrupted
        with pytest.raises(KeyboardInterrupt):
            claim.__exit__(None if got else Refused, None, None)
        del claim
        gc.collect()
        assert claim_all(q) == ([("b", 0)] if got else [("a", 1), ("b", 0)])


def test_a_claim_that_is_interrupted_with_its_item_gives_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once: in whatever way the exception is kept."""
    q: Any = TurboQueue()
    q.put_many("ab")

    def interrupted(record: Any, once: bool) -> Any:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(tqshim.queues.claims, "load", interrupted)
    with pytest.raises(KeyboardInterrupt) as kept:
        q.claimed().__enter__()
    assert claim_all(q) == [("a", 1), ("b", 0)]
    assert kept.value is not None


def test_what_an_interrupted_get_had_taken_is_claimed_first_and_comes_back_marked() -> None:
    q: Any = TurboQueue()
    q.put_many("abc")
    got: list[Any] = []
    engine = q._engine
    engine.get(got, 1, False, None)
    engine.give_back(got)
    assert fails(q) == ["a"]
    assert q.qsize() == 3
    assert fails(q) == ["a"]
    assert claim_all(q) == [("a", 2), ("b", 0), ("c", 0)]
    assert q.empty()


# -- leases


def test_no_lease_stands_while_an_item_is_held_and_one_may_after_that() -> None:
    q: Any = TurboQueue()
    q.put_many(range(100))
    assert q.get() == 0
    assert (ledger(q).leases.standing is not None) == (tuning.LEASES and membarrier.barrier_works())
    with q.claimed() as item:
        assert item == 1
        assert [q.get() for _ in range(20)] == list(range(2, 22))
        assert ledger(q).leases.standing is None
    assert [q.get() for _ in range(20)] == list(range(22, 42))
    assert (ledger(q).leases.standing is not None) == (tuning.LEASES and membarrier.barrier_works())
    with pytest.raises(Refused):
        with q.claimed() as item:
            assert item == 42
            assert q.get() == 43
            raise Refused
    assert [q.get() for _ in range(57)] == [42, *range(44, 100)]


def test_an_item_comes_back_before_those_of_anothers_lease(crews: Any) -> None:
    """The other process, which gets from its lease, does not overlook it."""
    crew = crews("forkserver", 1)
    q: Any = TurboQueue()
    q.put_many(range(100))
    with q.claimed() as item:
        assert item == 0
    assert [crew.call(0, claiming.get_one, q) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(Refused):
        with q.claimed() as item:
            assert item == 4
            assert crew.call(0, claiming.get_one, q) == 5
            raise Refused
    assert [crew.call(0, claiming.get_one, q) for _ in range(3)] == [4, 6, 7]
    crew.forget()


# -- killed, and forked


@pytest.mark.parametrize("how", ["killed", "gone", "ended"])
@pytest.mark.parametrize("maxsize", [0, 2])
def test_an_item_comes_back_whose_process_ends_in_the_block(how: str, maxsize: int) -> None:
    q: Any = TurboQueue(maxsize)
    q.put_many("ab")
    child = FORK.Process(target=claiming.die_in_block, args=(q, how))
    child.start()
    child.join(PATIENCE)
    claim = q.claimed()
    with claim as item:
        assert (item, claim.redelivered) == ("a", 1)
    assert claim_all(q) == [("b", 0)]
    if maxsize:
        q.put_many_nowait("cd")
        with pytest.raises(Full):
            q.put_nowait("e")


@pytest.mark.parametrize("maxsize", [0, 1000])
def test_what_a_block_has_put_is_there_once_its_item_is_got(maxsize: int) -> None:
    """Although its process was killed just behind the block."""
    q, results = TurboQueue(), TurboQueue(maxsize)
    q.put("a")
    child = FORK.Process(target=claiming.pass_on_and_die, args=(q, results))
    child.start()
    child.join(PATIENCE)
    assert child.exitcode == -signal.SIGKILL
    assert q.empty() and not held_by(q)
    assert rest(results) == [("a", number) for number in range(50)]


def test_an_item_comes_back_if_there_is_no_space_for_what_its_block_puts(monkeypatch: pytest.MonkeyPatch) -> None:
    q: Any = TurboQueue()
    results: Any = TurboQueue()
    q.put("a")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        with pytest.raises(OSError, match="full"):
            with q.claimed():
                results.put(0)
                patch.setattr(LogFolder, "create_log", full)
                results.put(bytes(100_000))
    claim = q.claimed(False)
    with claim as item:
        assert (item, claim.redelivered) == ("a", 1)
    results.put("goes on")
    assert rest(results) == [0, "goes on"]


@pytest.mark.in_turn
@pytest.mark.parametrize("take", ["get", "claimed", "get_nowait", "get_many"])
def test_who_takes_items_notices_that_a_holder_was_killed(
    context: Any, take: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that was a consumer before, and never waits."""
    monkeypatch.setattr(tuning, "SCAN_EVERY", 0.05)
    q: Any = TurboQueue()
    q.put_many("ab")
    assert q.get() == "a"
    ready, theirs = context.Pipe()
    child = context.Process(target=claiming.hold_for_ever, args=(q, theirs))
    child.start()
    assert ready.recv() == ("b", 0)
    with pytest.raises(Empty):
        q.get_nowait()
    child.kill()
    child.join(PATIENCE)
    if take == "claimed":
        claim = q.claimed(timeout=PATIENCE)
        with claim as item:
            assert (item, claim.redelivered) == ("b", 1)
    elif take == "get_nowait":
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                assert q.get_nowait() == "b"
                break
            except Empty:
                assert time.monotonic() < deadline
                time.sleep(0.01)
    elif take == "get":
        assert q.get(timeout=PATIENCE) == "b"
    else:
        assert q.get_many(timeout=PATIENCE) == ["b"]
    assert held_by(q) == 0


def engines(q: Any, count: int) -> list[Any]:
    """The queue's, and others, as other processes have them."""
    others = [Engine(LogFolder.meet(q._engine.folder.path)) for _ in range(count - 1)]
    for other in others:
        other.act(other.parts.consumer.join)
    return [q._engine, *others]


def looks(one: Any, now: float) -> bool:
    """A waiter wakes up at that time: whether it looks who has died."""
    return bool(one.act(one.parts.reclaimer.scan_if_due, now))


@pytest.mark.parametrize("count", [1, 3, 40])
def test_one_of_all_who_wait_looks_each_second_however_many_they_are(count: int) -> None:
    """Each wakes up every half second, at a time of its own."""
    q: Any = TurboQueue()
    waiters = engines(q, count)
    start = time.monotonic() + 1000
    wakes = [(start + turn / 2 + number / 97, number) for turn in range(60) for number in range(count)]
    times = [now for now, number in sorted(wakes) if looks(waiters[number], now)]
    gaps = [after - before for before, after in zip(times, times[1:])]
    assert all(tuning.SCAN_EVERY <= gap <= tuning.SCAN_EVERY + 0.5 for gap in gaps)
    assert 20 <= len(times) <= 31
    for waiter in waiters:
        waiter.close()


def test_a_block_that_a_signal_handler_throws_away_gives_its_item_to_the_next_get(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It had interrupted a get, and so used an engine of its own."""
    q: Any = TurboQueue()
    q.put_many("abc")
    real = Consumer.take

    def interrupted(consumer: Consumer, *arguments: Any) -> None:
        monkeypatch.undo()
        assert q.claimed().__enter__() == "a"
        gc.collect()
        real(consumer, *arguments)

    monkeypatch.setattr(Consumer, "take", interrupted)
    assert q.get() == "b"
    assert [q.get(timeout=PATIENCE) for _ in range(2)] == ["a", "c"]
    assert q.empty() and held_by(q) == 0


@pytest.mark.parametrize(("others", "least", "most"), [("sleep", 6, 12), ("work", 30, 60)])
def test_who_waits_looks_every_ten_seconds_beside_forty_others_or_each_second_where_they_work(
    others: str, least: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may have been stopped.  The clock goes on only while it sleeps."""
    q: Any = TurboQueue()
    waiters = engines(q, 40)
    now, looks = [time.monotonic()], []
    for waiter in waiters[1:]:
        parts = waiter.parts
        if others == "sleep":
            parts.members.cells.words[Cells.place(SLEEPS, parts.consumer.slot)] = sleep_word(now[0] + 1000, 10)

    def sleep(bell: Bell, seconds: float) -> bool:
        now[0] += seconds
        return False

    rooms = [room for name, room in sys.modules.items() if name.startswith("tqshim.engine.")]
    for room in rooms:
        if hasattr(room, "monotonic"):
            monkeypatch.setattr(room, "monotonic", lambda: now[0])
        if hasattr(room, "monotonic_ns"):
            monkeypatch.setattr(room, "monotonic_ns", lambda: int(now[0] * 1e9))
    monkeypatch.setattr(tuning, "SPINNING", False)
    monkeypatch.setattr(Bell, "sleep", sleep)
    monkeypatch.setattr(Membership, "bury_the_dead", lambda members: looks.append(now[0]))
    with pytest.raises(Empty):
        q.get(timeout=60)
    assert least <= len(looks) <= most
    monkeypatch.undo()
    for waiter in waiters:
        waiter.close()


def test_a_look_that_never_came_to_its_end_is_made_up_for_a_second_later() -> None:
    """Who looked was killed or stopped; and the clock may have begun anew since the last look, with the machine."""
    q: Any = TurboQueue()
    first, second = engines(q, 2)
    now = time.monotonic() + 1000
    words = q._engine.parts.members.cells.words
    words[SCANNED] = int(now * 1e6)
    assert not looks(first, now + 0.5)
    assert looks(first, now + 1.5)
    assert not looks(second, now + 1.6)
    words[SCANNED] = int((now + 1e6) * 1e6)
    assert looks(second, now + 3)
    assert words[SCANNED] == int((now + 3) * 1e6)
    second.close()


def test_a_block_that_is_thrown_away_gives_its_item_back_though_another_looks() -> None:
    q: Any = TurboQueue()
    first, second = engines(q, 2)
    q.put("a")
    q.claimed().__enter__()
    gc.collect()
    now = time.monotonic() + 1000
    assert looks(second, now)
    assert len(ledger(q).holds.held) == 1
    assert not looks(first, now + 0.5)
    assert not ledger(q).holds.held
    second.close()
    assert claim_all(q) == [("a", 1)]


def test_naps_are_short_however_many_consumers_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or nobody would be awake to look."""
    q: Any = TurboQueue()
    naps: list[float] = []
    monkeypatch.setattr(tuning, "NAP", 10.0)
    monkeypatch.setattr(Bell, "sleep", lambda bell, seconds: naps.append(seconds) or q.put(1))
    assert q.get() == 1
    assert naps and max(naps) <= tuning.NAP_LAST


@pytest.mark.in_turn
def test_a_stopped_holder_keeps_its_item_and_nobody_waiting_for_others() -> None:
    q: Any = TurboQueue(2)
    q.put_many("ab")
    ready, theirs = FORK.Pipe()
    child = FORK.Process(target=claiming.hold_for_ever, args=(q, theirs))
    child.start()
    assert ready.recv() == ("a", 0)
    os.kill(child.pid, signal.SIGSTOP)
    assert q.get(timeout=PATIENCE) == "b"
    q.put("c", timeout=PATIENCE)
    assert q.full()
    with pytest.raises(Full):
        q.put_nowait("d")
    assert q.get() == "c"
    assert not q._engine.act(q._engine.parts.members.bury_the_dead)
    assert held_by(q) == 1
    child.kill()
    child.join(PATIENCE)
    assert q.get(timeout=PATIENCE) == "a"


def test_a_child_that_is_forked_in_a_block_does_not_end_it() -> None:
    q: Any = TurboQueue()
    q.put("a")
    pid = 0
    try:
        with q.claimed():
            pid = os.fork()
            if not pid:
                raise Refused
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
            with pytest.raises(Empty):
                q.get_nowait()
            second = os.fork()
            if not second:
                pid = 0
        if pid:
            os.waitpid(second, 0)
    except Refused:
        os._exit(3)
    if not pid:
        os._exit(3)
    assert claim_all(q) == []
    assert ledger(q).joins.finished == 0


@pytest.mark.in_turn
def test_a_child_of_a_block_may_hold_items_of_its_own() -> None:
    q: Any = TurboQueue()
    q.put_many("abc")
    with q.claimed():
        child = FORK.Process(target=claiming.die_in_block, args=(q, "killed"))
        child.start()
        child.join(PATIENCE)
        assert q.get(timeout=PATIENCE) in ("b", "c")
        assert q.get(timeout=PATIENCE) in ("b", "c")
    assert q.empty()


# -- waking up


@pytest.fixture
def nobody_looks_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    no_naps(monkeypatch)


def in_thread(function: Callable[..., Any], *arguments: Any) -> tuple[threading.Thread, list[Any]]:
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(function(*arguments))
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, found


@pytest.mark.usefixtures("nobody_looks_by_itself")
@pytest.mark.parametrize("way", ["get", "claimed"])
def test_who_waits_for_an_item_is_woken_when_one_comes_back(way: str) -> None:
    q: Any = TurboQueue()
    q.put("a")
    claim = q.claimed()
    claim.__enter__()
    thread, found = in_thread(q.get if way == "get" else q.claimed().__enter__)
    until_asleep(q)
    claim.__exit__(Refused, None, None)
    thread.join(PATIENCE)
    assert found == ["a"]


@pytest.mark.usefixtures("nobody_looks_by_itself")
def test_as_many_who_wait_go_on_as_items_come_back() -> None:
    q: Any = TurboQueue()
    q.put_many("abc")
    claims = [q.claimed() for _ in range(3)]
    for claim in claims:
        claim.__enter__()
    waiters = [in_thread(q.get) for _ in range(3)]
    until_asleep(q, threads=3)
    for claim in claims:
        claim.__exit__(Refused, None, None)
    for thread, _ in waiters:
        thread.join(PATIENCE)
    assert sorted(found[0] for _, found in waiters) == ["a", "b", "c"]


@pytest.mark.usefixtures("nobody_looks_by_itself")
@pytest.mark.parametrize("way", ["claimed", "get"])
def test_who_waits_for_a_place_is_woken_when_a_held_item_is_got(way: str) -> None:
    """By a block, or by a get of what had come back."""
    q: Any = TurboQueue(1)
    q.put("a")
    if way == "get":
        fails(q)
    claim = q.claimed()
    if way == "claimed":
        claim.__enter__()
    thread, found = in_thread(q.put, "b")
    until_asleep(q, AWAITS_PLACE)
    if way == "get":
        assert q.get() == "a"
    else:
        claim.__exit__(None, None, None)
    thread.join(PATIENCE)
    assert found == [None]
    assert q.get() == "b"


@pytest.mark.usefixtures("nobody_looks_by_itself")
def test_who_awaits_in_an_event_loop_is_woken_when_an_item_comes_back() -> None:
    q: Any = TurboQueue()
    q.put("a")
    claim = q.claimed()
    claim.__enter__()

    async def main() -> Any:
        getting = asyncio.ensure_future(q.get_async())
        while not asleep(q):
            await asyncio.sleep(0)
        claim.__exit__(Refused, None, None)
        return await asyncio.wait_for(getting, PATIENCE)

    assert asyncio.run(main()) == "a"


# -- shutting down, counting off


@pytest.mark.in_turn
def test_get_waits_for_what_others_hold_before_it_raises_shutdown() -> None:
    """One that is killed in its last block leaves nothing undone, though all others had nothing to do any more."""
    q: Any = TurboQueue()
    q.put("a")
    ready, theirs = FORK.Pipe()
    child = FORK.Process(target=claiming.hold_for_ever, args=(q, theirs))
    child.start()
    assert ready.recv() == ("a", 0)
    q.shutdown()
    with pytest.raises(Empty):
        q.get_nowait()
    with pytest.raises(Empty):
        q.get(timeout=0.01)
    thread, found = in_thread(q.get)
    child.kill()
    child.join(PATIENCE)
    thread.join(PATIENCE)
    assert found == ["a"]
    with pytest.raises(ShutDown):
        q.get()
    with pytest.raises(ShutDown):
        q.claimed().__enter__()


@pytest.mark.usefixtures("nobody_looks_by_itself")
def test_who_waits_for_what_others_hold_is_woken_when_that_is_got(crews: Any) -> None:
    q: Any = TurboQueue()
    q.put_many(["a", "b"])
    crew = crews("fork", 1)
    crew.call(0, hold, q)
    q.shutdown()
    assert q.get() == "b"
    thread, found = in_thread(q.get)
    until_asleep(q)
    crew.call(0, let_go, True)
    thread.join(PATIENCE)
    assert [type(one) for one in found] == [ShutDown]
    crew.forget()


def hold(q: Any) -> None:
    from programs.crew import KEPT

    claim = KEPT["claim"] = q.claimed()
    claim.__enter__()


def let_go(got: bool) -> None:
    from programs.crew import KEPT

    KEPT.pop("claim").__exit__(None if got else Refused, None, None)


def test_a_block_that_gets_after_a_shutdown_does_not_wait_for_itself() -> None:
    q: Any = TurboQueue()
    q.put("a")
    with q.claimed():
        q.shutdown()
        with pytest.raises(ShutDown):
            q.get()


@pytest.mark.parametrize("got", [True, False])
def test_a_shutdown_at_once_drops_what_has_come_back_and_what_will(got: bool) -> None:
    q: Any = JoinableTurboQueue()
    q.put_many("abcd")
    fails(q)
    claims = [q.claimed(), q.claimed()]
    assert [claim.__enter__() for claim in claims] == ["a", "b"]
    claims[0].__exit__(Refused, None, None)
    q.shutdown(immediate=True)
    with pytest.raises(ShutDown):
        q.get()
    assert not q.join(timeout=0)
    claims[1].__exit__(None if got else Refused, None, None)
    with pytest.raises(ShutDown):
        q.get()
    assert q.join(timeout=0) != got
    if got:
        q.task_done()
    assert q.join()
    assert q.empty()


def test_task_done_behind_the_block_counts_each_item_once() -> None:
    q: Any = JoinableTurboQueue()
    q.put_many("ab")
    fails(q)
    assert not q.join(timeout=0)
    for _ in range(2):
        with q.claimed():
            pass
        q.task_done()
    assert q.join()
    with pytest.raises(ValueError):
        q.task_done()


@pytest.mark.in_turn
def test_a_worker_that_claims_does_what_others_were_killed_over_also_after_a_shutdown() -> None:
    """It does not leave while they hold items, and so nothing is left undone."""
    q: Any = TurboQueue(10)
    done: Any = TurboQueue()
    q.put_many(range(10))
    killed = [FORK.Process(target=claiming.claim_until_shut, args=(q, done, True)) for _ in range(2)]
    for child in killed:
        child.start()
    until(lambda: held_by(q) == 2)
    worker = FORK.Process(target=claiming.claim_until_shut, args=(q, done, False))
    worker.start()
    until(q.empty)
    q.shutdown()
    for child in (*killed, worker):
        child.join(PATIENCE)
    assert [child.exitcode for child in (*killed, worker)] == [-9, -9, 0]
    assert sorted(done.drain()) == [(0, 1), (1, 1), *((item, 0) for item in range(2, 10))]


# -- journals, batch files, what others see


@pytest.mark.in_turn
def test_what_is_held_or_has_come_back_outlives_rolls_and_its_files_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the last of them is got, and then they go."""
    monkeypatch.setattr(tuning, "LIMITS", (20, 40))
    monkeypatch.setattr(tuning, "SCAN_EVERY", 0.0)
    q: Any = TurboQueue(batch_size=1)
    q.put("first")
    q.put_many(["second", "third"])
    q.put("fourth")
    fails(q, 2)
    held = q.claimed()
    assert held.__enter__() == "first"
    for turn in range(100):
        if turn % 10 == 0:
            assert fails(q) == ["second"]
            roll(q)
        q.put(turn)
        claims = [q.claimed(), q.claimed()]
        assert [claim.__enter__() for claim in claims] == ["second", "third"]
        for claim in claims:
            claim.__exit__(Refused, None, None)
    path = q._engine.folder.path
    seen = FORK.Pipe()
    child = FORK.Process(target=tell_peeked, args=(path, seen[1]))  # a newcomer loads a snapshot
    child.start()
    assert seen[0].recv()[:3] == ["second", "third", "fourth"]
    child.join(PATIENCE)
    assert q.get_many(max_messages_to_get=200) == ["second", "third", "fourth", *range(100)]
    held.__exit__(Refused, None, None)
    assert claim_all(q) == [("first", 2)]
    q.put("last")
    assert q.get() == "last"
    looks(q._engine, time.monotonic() + 1000)
    names = [name for name in os.listdir(path) if name.startswith(("load_", "ready_"))]
    assert len(names) == 1


def roll(q: Any) -> None:
    """Void events, until the next journal is there."""
    replica = q._engine.parts.replica
    number = replica.journal.number
    while replica.journal.number == number:
        q._engine.act(replica.append, events.revoke(0, 0))


def tell_peeked(path: str, pipe: Any) -> None:
    import pickle

    pipe.send([pickle.loads(one.record) for one in monitor.peek(path, 3, whole=True) if one.record])


def test_the_monitor_tells_what_is_held_and_what_has_come_back() -> None:
    q: Any = TurboQueue(9)
    q.put_many(range(6))
    fails(q, 3)
    claims = [q.claimed(), q.claimed()]
    for claim in claims:
        claim.__enter__()
    assert q.get() == 2
    fails(q)
    path = q._engine.folder.path
    found = monitor.status(path)
    assert (found.items, found.held, found.returned, found.got, found.put, found.places) == (3, 2, 1, 1, 6, 4)
    assert [one.number for one in monitor.peek(path, 9)] == [3, 4, 5]
    assert [one.number for one in monitor.peek(path, 1)] == [3]
    (summary,) = (one for one in monitor.queues() if one.path == path)
    assert summary.items == 3
    stats = monitor.stats(q)
    assert (stats.items, stats.held, stats.got, stats.put) == (3, 2, 1, 6)
    assert monitor.check(path) == []
    with monitor.Watch(path) as watch:
        claims[0].__exit__(None, None, None)
        rates = watch.look()
        assert (rates.items, rates.got, rates.put) == (3, 2, 6)
        assert rates.got_rate > 0
    claims[1].__exit__(None, None, None)
    assert rest(q) == [3, 4, 5]


def test_check_finds_a_held_item_that_can_not_be_read() -> None:
    q: Any = TurboQueue(batch_size=1)
    q.put("a")
    q.put("b")
    claim = q.claimed()
    claim.__enter__()
    path = q._engine.folder.path
    assert monitor.check(path) == []
    (name,) = (name for name in os.listdir(path) if name.startswith("ready_"))
    os.rename(f"{path}/{name}", f"{path}/corrupt_x")
    levels = {one.path: one.level for one in monitor.check(path)}
    assert levels[f"{path}/{name}"] == "damage"
    os.rename(f"{path}/corrupt_x", f"{path}/{name}")
    claim.__exit__(None, None, None)
    assert rest(q) == ["b"]


def test_recover_copies_what_is_held_and_what_has_come_back(tmp_path: Path) -> None:
    q: Any = TurboQueue(path=str(tmp_path / "queue"))
    q.put_many(range(5))
    fails(q, 2)
    claim = q.claimed()
    claim.__enter__()
    monitor.recover(str(tmp_path / "queue"), str(tmp_path / "copy"), force=True)
    copy: Any = TurboQueue(path=str(tmp_path / "copy"))
    assert rest(copy) == list(range(5))
    claim.__exit__(None, None, None)


def test_drain_of_the_monitor_takes_what_has_come_back(tmp_path: Path) -> None:
    q: Any = TurboQueue(path=str(tmp_path / "queue"))
    q.put_many(range(4))
    fails(q, 2)
    lines: list[str] = []
    drained = monitor.drain(str(tmp_path / "queue"), lines.append)
    assert drained.items == 4
    assert [line.strip() for line in lines] == ["0", "1", "2", "3"]


# -- what it costs processes that do not claim


def test_a_hold_refers_to_nothing_of_its_engine() -> None:
    """So that a block which is thrown away is seen to be."""
    assert "engine" not in Hold.__slots__
