"""A kill right after each step of each act leaves what the crash table says, and the process named there repairs this.

A step is a change that other processes see: a file, a lock, an event, a word of the cells, a record.  A forked child,
the victim, carries out one act, traced line by line; ``onlooker.Walk`` notes each change and the line that makes it.
Then other victims are killed right after each step, or stopped right before it, or killed or stopped at any line.  The
process of the test is a peer that goes on using the queue and does nothing else: it must find what the table says, and
have it repaired by calls of the public interface alone.

``python tests/test_crash_table.py --write`` walks all acts and writes the table's rows as they are found.
"""

from __future__ import annotations

import ast
import collections
import contextlib
import functools
import gc
import json
import os
import pathlib
import pickle
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any, Callable, Optional

import documents
import pytest
from crash_table import LEFT, REPAIRERS, TABLE, Row
from onlooker import LOCKS, PACKAGE, Halt, Place, Step, View, Walk
from sampling import sampled
from watching import newcomer

import tqshim.engine.log
import tqshim.engine.tuning
import tqshim.storage.folder
import tqshim.storage.places
from tqshim import CorruptBatchError, Empty, Full, ShutDown, TurboQueue
from tqshim.engine.engine import Engine
from tqshim.engine.registry import Use
from tqshim.protocol import events, names
from tqshim.runtime import systems
from tqshim.runtime.clock import monotonic
from tqshim.storage.folder import LogFolder
from tqshim.sync import cells as words_of
from tqshim.sync import membarrier
from tqshim.sync.cells import SLEEPS, Cells

pytestmark = pytest.mark.skipif(not os.path.exists(LOCKS), reason="who has which lock is read from /proc")

PATIENCE = 3.0
"""Seconds for which anything may take its time; not more, or somebody hangs."""
SAMPLE = 2
"""Lines of an act, besides those of its steps, at which a victim is killed, and stopped, if not at all of them."""
SCAN_EVERY = 0.004
"""Seconds between two looks for the dead, here: one test waits as long as users do."""
NAP = 0.01
"""Seconds for which this process waits at a time."""
SOLE = tqshim.engine.tuning.SOLE
"""Leases of all that comes are not switched off for good: where they are no act's subject nobody takes one here."""
WAIT = 1.0
"""Seconds for which a victim waits: it comes to sleep however slow the machine is, and once."""
NEVER = 1 << 62
"""Nanoseconds: no put cuts."""


@pytest.fixture(autouse=True)
def all_is_cut_here(all_is_cut: None) -> None:
    """What is got was cut, and journals grow."""


# --- the acts --------------------------------------------------------------------------------------------------------

PATHS: dict[str, type[Path]] = {}


class Path:
    """One act.  ``done``: the steps that the victim has taken; they alone decide the outcome."""

    title = ""
    maxsize = 0
    items = 0
    """Items that this process puts beforehand: 0, 1, 2 …"""
    limits = (80, 80)
    """Events of the queue's journals."""
    wanted: tuple[Any, ...] = ()
    """Items that the victim gets if nobody comes in between."""
    puts: tuple[Any, ...] = ()
    """Items that the victim has put, in this order, once it is through."""
    needs: tuple[str, ...] = ()
    """Optimisations that it leads through, by their switches."""
    hungry = False
    """The victim may wait for an item, though it gets none if nobody comes in between."""
    alone = False
    """Nobody else uses the queue yet, or any more."""
    commit = "?"
    """What the step is called that decides, or part of that."""
    waits = False
    """It sleeps, and wakes up as often as it happens: each step is taken once, as far as the table goes."""
    again = False
    """Items may come back, and so come out of their order."""

    def __init_subclass__(cls) -> None:
        if cls.__dict__.get("title"):
            PATHS[cls.title] = cls

    def __init__(self, root: str, spill: str) -> None:
        self.root = root
        self.spill = spill
        self.queue: Any = None
        self.got: list[Any] = []
        """What the victim got."""
        self.taken: list[Any] = []
        """What this process got."""
        self.more: list[Any] = []
        """What this process put since the victim was set on its way."""
        self.stopped: Optional[list[str]] = None
        """The steps that a victim had taken when it was stopped."""
        self.said: list[Any] = []
        """What the victim has put, where that is not sure beforehand."""
        self.helper = -1
        self.trace: Any = None
        """In the victim: what traces it."""

    @property
    def engine(self) -> Any:
        return self.queue._engine

    @property
    def parts(self) -> Any:
        return self.queue._engine.parts

    def set_up(self) -> None:
        """In this process, before the victim is forked."""
        self.queue = TurboQueue(self.maxsize)
        self.consume()
        if self.items:
            self.queue.put_many(range(self.items))
            self.cut()

    def cut(self) -> None:
        """So that what this process has put is not the victim's to cut."""
        self.engine.act(self.parts.members.cut)

    def consume(self) -> None:
        """Be a consumer, and a producer, without a lease."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tqshim.engine.tuning, "LEASES", False)
            self.queue.put("warm")
            assert self.queue.get() == "warm"

    def prepare(self) -> None:
        """In the victim, before the act."""

    def act(self) -> None:
        """In the victim."""
        raise NotImplementedError

    def expected(self, done: list[str]) -> list[Any]:
        """What then is in the queue."""
        return list(range(self.items))

    def total(self, steps: list[str]) -> list[Any]:
        """All that anybody gets after the victim was set on its way."""
        return [*self.expected(steps), *self.wanted]

    @classmethod
    def commits(cls, done: list[str]) -> bool:
        """The last of these steps decides."""
        return cls.commit in done[-1]

    def release(self, done: list[str]) -> None:
        """Let a helper go on."""

    def end(self) -> None:
        """Before the end is looked at."""

    def look(self) -> View:
        while True:
            try:
                return View(self.root)
            except FileNotFoundError:  # a helper has just rolled the journal, after it was listed
                pass

    def is_left(self, name: str, before: View) -> bool:
        view = self.look()
        return view.taken(before) if name == "taken" else name in view.left()

    # -- what a peer does, through the public interface alone

    def take(self, **how: Any) -> bool:
        """Get once.  ``False``: there was nothing."""
        try:
            self.taken.append(self.queue.get(**how))
        except (Empty, ShutDown):
            return False
        return True

    def drain(self) -> None:
        """Get all that can be got now."""
        while self.take(block=False):
            pass

    def fill(self) -> None:
        """Put until the queue is full."""
        with contextlib.suppress(Full):
            while True:
                self.put_more(block=False)

    def put_more(self, **how: Any) -> None:
        self.queue.put(f"more {len(self.more):03}", **how)
        self.more.append(f"more {len(self.more):03}")

    def repair(self, repairer: str) -> None:
        """Once what that repairer does anyway."""
        if repairer == "waits":
            self.take(timeout=NAP)
        elif repairer == "gets":
            self.take(block=False)
        elif repairer == "puts":
            self.fill() if self.maxsize else self.put_more()
        elif repairer == "rings":
            self.ring()
        elif repairer == "joins":
            self.take(timeout=NAP)  # whose slot that is must be buried before
            os.waitpid(in_child(lambda: (self.queue.put("joined"), self.queue._engine.close())), 0)
            self.more.append("joined")
        elif repairer == "uses":
            self.queue.qsize()
        elif repairer == "opens":
            self.open()
        elif repairer == "makes":
            TurboQueue().close()
        elif repairer == "sleeps":
            time.sleep(0.001)  # it is not this process that repairs it
        else:
            raise AssertionError(repairer)

    def ring(self) -> None:
        """Do what those wait for who sleep."""
        self.put_more()

    def open(self) -> None:
        """Be a user of the queue."""

    def roll(self) -> None:
        """Use the queue until its journal was rolled twice."""
        number = self.journal()
        while self.journal() < number + 2:
            for _ in range(20):
                self.queue.put("probe", timeout=PATIENCE)
                found = self.queue.get(timeout=PATIENCE)
                if found != "probe":
                    self.taken.append(found)
                    self.drain_to_probe()

    def journal(self) -> int:
        """The number of the newest."""
        listed = os.listdir(self.engine.folder.path)
        return max(int(name[len(names.JOURNAL) :]) for name in listed if name.startswith(names.JOURNAL))

    def drain_to_probe(self) -> None:
        while (found := self.queue.get(timeout=PATIENCE)) != "probe":
            self.taken.append(found)

    # -- the end

    def check(self, done: list[str], before: View, expected: frozenset[str]) -> None:
        """That is left, those repair it who are said to, and then the queue is as if nobody had been killed."""
        view = self.look()
        found = view.left() | ({"taken"} if view.taken(before) else set())
        assert found == expected, "what is left"
        self.release(done)
        over = self.queue is not None and self.queue.is_shutdown
        for name in sorted(expected, key=list(LEFT).index):
            repairer = LEFT[name].repairer
            if not repairer or (over and repairer in ("waits", "puts", "joins")):
                continue
            deadline = monotonic() + PATIENCE
            while self.is_left(name, before):
                assert monotonic() < deadline, f"nobody has repaired it: {name}"
                self.repair(repairer)
        self.finish(done)

    def finish(self, done: list[str]) -> None:
        """All that should be there comes out, in its order, and the queue works."""
        self.drain()
        everything = [*self.expected(done), *self.more]
        if self.again:
            assert sorted(map(str, self.taken)) == sorted(map(str, everything))
        else:
            assert self.taken == everything
        self.check_queue()

    def check_queue(self) -> None:
        """A drained queue works, has all its places, and its folder holds nothing but what it needs."""
        queue, self.taken = self.queue, []
        if queue.is_shutdown:
            with pytest.raises(ShutDown):
                queue.put("probe")
            with pytest.raises(ShutDown):
                queue.get(timeout=PATIENCE)
            return
        assert queue.empty()
        queue.put("probe", timeout=PATIENCE)
        assert queue.get(timeout=PATIENCE) == "probe"
        if self.maxsize:
            self.more = []
            self.fill()
            assert len(self.more) == self.maxsize
            assert queue.full()
            self.drain()
            assert self.taken == self.more
            self.taken = []
        self.roll()
        deadline = monotonic() + PATIENCE
        while needless := self.needless():
            assert monotonic() < deadline, f"nobody has removed {needless}"
            assert not self.take(timeout=NAP)
        assert not self.taken

    def needless(self) -> set[str]:
        """What is left after all, and files that nobody needs."""
        view = self.look()
        assert view.ledger is not None
        found = view.left()
        living = {member.number for slot, member in view.ledger.members.by_slot.items() if view.lives(slot)}
        for name in view.files:
            parsed = names.parse(name)
            assert parsed is not None
            if parsed.kind in ("load", "ready", "free") and parsed.numbers[0] in living:
                continue
            needed = parsed.kind in ("cells", "members", "bell", "space", "done", "spill", "marker")
            if not needed and name not in (names.journal(view.number), names.spare(view.number + 1)):
                found.add(name)
        return {name for name in found if name not in LEFT or LEFT[name].repairer} - {"ASLEEP"}

    def tear_down(self) -> None:
        if self.queue is not None:
            self.queue.close()
            self.queue = None

    # -- for the acts

    def fill_journal(self, share: float) -> None:
        """Void events, up to so much of the journal."""
        replica = self.parts.replica

        def fill() -> None:
            while replica.ledger.position.index < share * replica.ledger.position.limit:
                replica.append(events.revoke(0, 0))

        self.engine.act(fill)

    def bury(self) -> None:
        self.queue.qsize()
        self.engine.act(self.parts.members.bury_the_dead)

    def flag(self, kind: int, slot: int) -> None:
        """Raise another's flag."""
        self.parts.members.cells.words[Cells.place(kind, slot)] = 1


class CreateAnonymous(Path):
    title = "create an anonymous queue"
    commit = "link roll_"
    alone = True

    def set_up(self) -> None:
        pass

    def act(self) -> None:
        self.queue = TurboQueue()

    def finish(self, done: list[str]) -> None:
        pass  # ``made`` sees that nothing is left


class OpenAtPath(CreateAnonymous):
    title = "open a queue at a path"

    def act(self) -> None:
        self.queue = TurboQueue(path=self.root + "/shared/queue")

    def open(self) -> None:
        if self.queue is None:
            self.queue = TurboQueue(path=self.root + "/shared/queue")

    def repair(self, repairer: str) -> None:
        self.open()
        super().repair(repairer)

    def finish(self, done: list[str]) -> None:
        self.open()
        self.check_queue()

    def tear_down(self) -> None:
        super().tear_down()
        remove(pathlib.Path(self.root, "shared"))


class OpenAfterPowerCut(OpenAtPath):
    title = "open a durable queue whose journal ends in a hole"

    def set_up(self) -> None:
        os.waitpid(in_child(self.make), 0)

    def make(self) -> None:
        queue = TurboQueue(path=self.root + "/shared/queue", durable=True)
        queue.put("put")
        queue._engine.close()
        with open(self.root + "/shared/queue/journal_0", "ab") as journal:
            journal.write(bytes(8) + events.revoke(0, 0))

    def finish(self, done: list[str]) -> None:
        self.open()
        self.drain()
        assert self.taken == ["put"]
        self.check_queue()


class PickleHandle(Path):
    title = "pickle a handle"
    items = 1

    def act(self) -> None:
        pickle.dumps(self.queue)


class UnpickleHandle(Path):
    title = "unpickle a handle"
    items = 1

    def set_up(self) -> None:
        super().set_up()
        self.data = pickle.dumps(self.queue)

    def prepare(self) -> None:
        Use._all.clear()  # as in a program that meets this queue for the first time

    def act(self) -> None:
        pickle.loads(self.data)


# -- putting


class FirstPut(Path):
    title = "first put"
    items = 1
    puts = ("put",)
    commit = "store COUNTER"

    def act(self) -> None:
        self.queue.put("put")

    def expected(self, done: list[str]) -> list[Any]:
        came = any(self.commit in step for step in done)
        return [*range(self.items), *self.puts[: len(self.puts) - 1 + came]]


class Put(FirstPut):
    title = "put"
    puts = ("before", "put")

    def prepare(self) -> None:
        self.queue.put("before")


class PutThatCuts(Put):
    title = "put, where all marks are used"
    puts = ("before", "beside", "more", "put")

    def prepare(self) -> None:
        super().prepare()
        self.other = Engine(LogFolder.meet(self.engine.folder.path))
        self.other.put(pickle.dumps("beside"), True, None)
        log = self.parts.producer.log
        log.due = 0
        self.queue.put("more")
        # As if all our marks were used, and the last were old.
        log.due, log._marked = 0, words_of.MARKS_MOST


class PutToSleeper(Put):
    title = "put while somebody sleeps"
    items = 0
    hungry = False

    def set_up(self) -> None:
        super().set_up()
        self.read, write = os.pipe()
        ours = self.queue

        def help() -> None:
            tqshim.engine.tuning.NAP = tqshim.engine.tuning.NAP_LAST  # type: ignore[misc]  # it does not wake up before it is stopped
            with contextlib.suppress(ShutDown):
                os.write(write, str(ours.get(timeout=2 * PATIENCE)).encode())
            ours._engine.close()

        self.helper = in_child(help)
        os.close(write)
        deadline = monotonic() + PATIENCE
        while not self.asleep():
            assert monotonic() < deadline
        os.kill(self.helper, signal.SIGSTOP)  # it dozes only: no change of its own is taken for the victim's
        os.waitpid(self.helper, os.WUNTRACED)

    def asleep(self) -> bool:
        # Its bell is made last: a victim that came before would make it.
        bell = os.path.join(self.engine.folder.path, names.BELL)
        return os.path.exists(bell) and any(self.look().word(SLEEPS, slot) for slot in range(8))

    def prepare(self) -> None:
        pass

    def act(self) -> None:
        self.queue.put("put")

    puts = ("put",)

    def release(self, done: list[str]) -> None:
        os.kill(self.helper, signal.SIGCONT)
        if not self.expected(done):
            self.queue.put("another")
        assert os.read(self.read, 100).decode() == ("put" if self.expected(done) else "another")
        os.waitpid(self.helper, 0)
        os.close(self.read)
        self.taken += self.expected(done)


class SpillOver(FirstPut):
    title = "put to a full disk: spill over"

    def prepare(self) -> None:
        tqshim.storage.folder.LogFolder.wants_spill = lambda folder: True  # type: ignore[method-assign]
        tqshim.storage.places.spill_root = lambda path: self.spill


class PutLarge(Put):
    title = "put of a large item"
    puts = ("before", b"large" * 40_000)

    def act(self) -> None:
        self.queue.put(self.puts[1])


class PutToFullFile(Put):
    title = "put to a full batch file"

    def prepare(self) -> None:
        self.engine.set_batch_size(1)
        super().prepare()


class PutAfterInterrupted(Put):
    title = "put after an interrupted one"

    def prepare(self) -> None:
        super().prepare()
        log = self.parts.producer.log

        def interrupted() -> None:
            number = log.counts[log.cell] - log.first
            log.memory[log.ends[number] : log.ends[number] + 11] = b"interrupted"
            log.ends[number + 1] = log.ends[number] + 11
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            self.engine.act(interrupted)


class PutMany(Put):
    title = "put of several"
    puts = ("before", "a", "b", "c")

    def act(self) -> None:
        self.queue.put_many("abc")

    def expected(self, done: list[str]) -> list[Any]:
        return [0, *self.puts[: 4 if "store COUNTER" in done else 1]]


class PutByJournal(Put):
    title = "put where no counter counts"

    def set_up(self) -> None:
        membarrier.barrier_works = lambda: False  # ``made`` puts the real one back
        super().set_up()

    commit = "append PUBLISH"


class DurablePut(Put):
    title = "put to a durable queue"
    commit = "append PUBLISH"

    def set_up(self) -> None:
        self.queue = TurboQueue(path=self.root + "/shared/queue", durable=True)
        self.consume()
        self.queue.put(0)

    def tear_down(self) -> None:
        super().tear_down()
        remove(pathlib.Path(self.root, "shared"))


class PutByJournalAfterKill(PutByJournal):
    title = "first put where no counter counts, after one that was killed"
    puts = ("put",)

    def set_up(self) -> None:
        super().set_up()

        def put_and_be_killed() -> None:
            self.queue.put("killed one's")
            self.parts.producer.log.counts[self.parts.producer.log.cell] -= 1  # it did not come to that

        os.waitpid(in_child(put_and_be_killed), 0)
        self.bury()
        assert [self.queue.get() for _ in range(2)] == [0, "killed one's"]

    def prepare(self) -> None:
        pass

    def expected(self, done: list[str]) -> list[Any]:
        return super().expected(done)[1:]


class PutNearBound(Put):
    title = "put to a bounded queue, near its bound"
    commit = "PUBLISH"
    maxsize = 3


class Reserve(Put):
    title = "put to a bounded queue, far from its bound"
    needs = ("RESERVATIONS",)
    commit = "store COUNTER"
    maxsize = 50


class PutReserved(Reserve):
    title = "put within a reservation"
    puts = ("before", "before", "put")

    def prepare(self) -> None:
        self.queue.put("before")
        self.queue.put("before")
        assert self.parts.replica.ledger.reservations.by_slot


class ReserveAgain(PutReserved):
    title = "put behind a reservation that somebody has ended"

    def prepare(self) -> None:
        super().prepare()
        replica, slot = self.parts.replica, self.parts.producer.slot
        own = replica.ledger.reservations.by_slot[slot]
        # By what they see who want it to end, and do so while the next put is under way.
        used = self.parts.members.word(words_of.COUNTER, slot) - own.begin
        replica.journal.append(events.trim(slot, used, own.grant))
        self.flag(words_of.FLAG, slot)


class ReserveAnew(ReserveAgain):
    title = "put that reserves anew"
    commit = "store COUNTER"
    puts = ("before", "before", "between", "put")

    def prepare(self) -> None:
        super().prepare()
        self.queue.put("between")


class Settle(PutReserved):
    title = "put within a reservation that somebody wants to end"

    def prepare(self) -> None:
        super().prepare()
        self.flag(words_of.FLAG, self.parts.producer.slot)

    def expected(self, done: list[str]) -> list[Any]:
        return [0, *self.puts[: 2 + ("store COUNTER" in done)]]


class FirstPutBeside(FirstPut):
    title = "first put to a bounded queue that another has put to alone"
    commit = "PUBLISH"
    maxsize = 50


class PutAlone(Put):
    title = "put of a bounded queue's only producer"
    needs = ("ALONE",)
    commit = "store COUNTER"
    maxsize = 50
    puts = ("before", "before", "put")
    items = 0

    def set_up(self) -> None:
        self.queue = TurboQueue(self.maxsize)
        self.engine.act(self.parts.consumer.join)

    def prepare(self) -> None:
        self.queue.put("before")
        self.queue.put("before")
        assert not self.parts.replica.ledger.reservations.by_slot


class PutAloneNoMore(PutAlone):
    title = "put of a bounded queue's only producer, whom another asks to say more"

    def prepare(self) -> None:
        super().prepare()
        self.flag(words_of.FLAG, self.parts.producer.slot)


class PutAloneAgain(PutAlone):
    title = "put of a bounded queue's only producer, whose flag is up"
    puts = ("before", "before", "between", "put")

    def prepare(self) -> None:
        super().prepare()
        self.flag(words_of.FLAG, self.parts.producer.slot)
        self.queue.put("between")


class Trim(Path):
    title = "put to a queue full of others' reservations"
    commit = "PUBLISH"
    needs = ("RESERVATIONS",)
    maxsize = 20
    puts = ("put",)

    def set_up(self) -> None:
        super().set_up()
        ready, end = os.pipe(), os.pipe()

        def help() -> None:
            os.close(end[1])
            self.queue.put("helper's first")
            self.queue.put("helper's second")
            os.write(ready[1], b"!" if self.parts.replica.ledger.reservations.by_slot else b"?")
            os.read(end[0], 1)
            self.engine.close()

        self.helper = in_child(help)
        assert os.read(ready[0], 1) == b"!"
        for fd in (*ready, end[0]):
            os.close(fd)
        self.wire = end[1]

    def prepare(self) -> None:
        tqshim.engine.tuning.RESERVATIONS = False  # type: ignore[misc]
        self.engine.qsize()
        ledger = self.parts.replica.ledger
        self.queue.put_many(range(self.maxsize - ledger.used))

    def act(self) -> None:
        self.queue.put("put", timeout=PATIENCE)

    def end(self) -> None:
        if self.helper > 0:
            os.close(self.wire)
            os.waitpid(self.helper, 0)
            self.helper = -1

    def finish(self, done: list[str]) -> None:
        self.end()
        self.drain()
        got = [item for item in self.taken if not str(item).startswith("helper's")]
        assert len(self.taken) - len(got) == 2
        numbers = [item for item in got if isinstance(item, int)]
        assert numbers == list(range(len(numbers)))
        assert got == [*numbers, *["put"] * any("PUBLISH" in step for step in done), *self.more]
        self.check_queue()

    def total(self, steps: list[str]) -> list[Any]:
        numbers = [item for item in self.taken + self.got if isinstance(item, int)]
        return ["helper's first", "helper's second", *sorted(numbers), "put"]

    def tear_down(self) -> None:
        self.end()
        super().tear_down()


class PutThatWaits(Path):
    title = "first put that waits"
    waits = True
    maxsize = 2
    items = 2

    def act(self) -> None:
        with contextlib.suppress(Full):
            self.queue.put("put", timeout=PATIENCE if self.stopped is not None else WAIT)
            self.said.append("put")

    def total(self, steps: list[str]) -> list[Any]:
        # While it was stopped somebody has made room. That may be too late for who has slept: it looks at its deadline.
        return [0, 1, *(self.said if "store ASLEEP" in (self.stopped or ()) else ["put"])]

    def ring(self) -> None:
        self.take()


class JoinBeyondCells(Path):
    title = "join beyond the cells"
    commit = "JOIN"
    items = 1
    limits = (1000, 1000)

    def set_up(self) -> None:
        super().set_up()
        replica = self.parts.replica
        self.engine.act(lambda: [replica.append(events.join(False)) for _ in range(words_of.SLOTS)])

    def act(self) -> None:
        self.engine.act(lambda: self.parts.members.join(consumer=False))


# -- getting


class FirstGet(Path):
    title = "first get"
    commit = "CLAIM"
    items = 3
    wanted: tuple[Any, ...] = (0,)
    first = 0

    def act(self) -> None:
        self.got.append(self.queue.get())

    def expected(self, done: list[str]) -> list[Any]:
        claimed = any("CLAIM" in step for step in done)
        return list(range(self.first + len(self.wanted) * claimed, self.items))


class Get(FirstGet):
    title = "get"
    wanted = (1,)
    first = 1

    def prepare(self) -> None:
        assert self.queue.get() == 0


class GetUncut(Get):
    title = "get of what is not cut yet"

    def set_up(self) -> None:
        super().set_up()

    def prepare(self) -> None:
        assert [self.queue.get() for _ in range(3)] == [0, 1, 2]
        os.waitpid(in_child(lambda: (self.queue.put("uncut"), os._exit(0))), 0)

    wanted = ("uncut",)

    def expected(self, done: list[str]) -> list[Any]:
        return [] if any("CLAIM" in step for step in done) else ["uncut"]

    def total(self, steps: list[str]) -> list[Any]:
        return ["uncut"]


class GetMany(Get):
    title = "get of several"
    items = 5
    wanted = (1, 2, 3)

    def act(self) -> None:
        self.got += self.queue.get_many(max_messages_to_get=3)


class GetLastOfFile(Get):
    title = "get of a batch file's last item"
    items = 0
    wanted = ("a",)

    def prepare(self) -> None:
        self.engine.set_batch_size(1)
        self.queue.put("a")
        self.queue.put("b")
        self.engine.act(self.parts.consumer.join)

    def expected(self, done: list[str]) -> list[Any]:
        return ["b"] if any("CLAIM" in step for step in done) else ["a", "b"]


class GetLastOfSpilled(GetLastOfFile):
    title = "get of a spilled batch file's last item"

    def prepare(self) -> None:
        tqshim.storage.folder.LogFolder.wants_spill = lambda folder: True  # type: ignore[method-assign]
        tqshim.storage.places.spill_root = lambda path: self.spill
        super().prepare()


class GetLastOfLarge(GetLastOfFile):
    title = "get of a large batch file's last item"
    needs = ("REFILLING",)
    commit = "CLAIM"

    def prepare(self) -> None:
        tqshim.engine.tuning.BLOCK_BYTES = 1  # type: ignore[misc]
        super().prepare()


class PutToRefilled(GetLastOfLarge):
    title = "put of a large item, to a batch file that is refilled"
    commit = "store COUNTER"
    wanted = ()
    puts = ("a", "b", "c")

    def prepare(self) -> None:
        super().prepare()
        assert self.queue.get() == "a"

    def act(self) -> None:
        self.queue.put("c")

    def expected(self, done: list[str]) -> list[Any]:
        return ["b", *["c"] * ("store COUNTER" in done)]


class GetDamaged(Path):
    title = "get from a damaged batch file"
    commit = "CLAIM"
    hungry = True

    def set_up(self) -> None:
        super().set_up()
        self.errors = 0
        self.aside: list[str] = []

        def put_and_leave() -> None:
            for item in range(3):
                self.queue.put(item)
            self.engine.close()

        os.waitpid(in_child(put_and_leave), 0)
        (self.file,) = pathlib.Path(self.engine.folder.path).glob("ready_*")
        data = bytearray(self.file.read_bytes())
        data[8:10] = b"\xff\xff"  # the first record reaches beyond the end
        self.file.write_bytes(data)

    def act(self) -> None:
        with contextlib.suppress(CorruptBatchError):
            self.got.append(self.queue.get())

    def take(self, **how: Any) -> bool:
        try:
            return super().take(**how)
        except CorruptBatchError:
            self.errors += 1
            return True

    def expected(self, done: list[str]) -> list[Any]:
        return [2]

    def finish(self, done: list[str]) -> None:
        self.drain()
        claimed = any("CLAIM" in step for step in done)
        # Of three items the first reaches too far, the second begins where that ends.
        assert self.taken == [2]
        assert self.errors == 2 - claimed
        self.end()
        assert sorted(self.aside) == [names.corrupt(self.file.name), names.reason(self.file.name)]
        self.check_queue()

    def end(self) -> None:
        for file in pathlib.Path(self.engine.folder.path).glob("corrupt_*"):  # kept for a person to look at
            self.aside.append(file.name)
            file.unlink()


class GetThatWaits(Path):
    title = "first get that waits"
    waits = True

    def act(self) -> None:
        with contextlib.suppress(Empty):
            self.queue.get(timeout=WAIT)


# -- leases


class TakeLease(Path):
    title = "lease"
    commit = "store LEASE_POSITION"
    needs = ("LEASES",)
    items = 20
    wanted: tuple[Any, ...] = (0,)
    first = 0

    def consume(self) -> None:
        pass  # the victim is the only consumer

    def act(self) -> None:
        self.got.append(self.queue.get())

    def expected(self, done: list[str]) -> list[Any]:
        # An item is the holder's as soon as the position cell is beyond it.
        leased = [at for at, step in enumerate(done) if step == "store LEASE_POSITION"]
        return list(range(self.first + bool(leased), 20))


class LeaseAgain(TakeLease):
    title = "lease behind one that somebody has ended"
    wanted = (4,)
    first = 4

    def prepare(self) -> None:
        tqshim.engine.tuning.LEASE_PACE = float("inf")  # type: ignore[misc]
        assert [self.queue.get() for _ in range(3)] == [0, 1, 2]
        os.waitpid(in_child(lambda: (self.queue.get(), self.engine.close())), 0)
        assert self.parts.leasing.lease is not None

    @classmethod
    def commits(cls, done: list[str]) -> bool:
        # Not that of the lease that has ended.
        return done[-1] == "store LEASE_POSITION" and "append LEASE" in done

    def expected(self, done: list[str]) -> list[Any]:
        taken = any(self.commits(done[: at + 1]) for at in range(len(done)))
        return list(range(4 + taken, 20))


class GetLeased(TakeLease):
    title = "get of what is leased"
    wanted = (3,)
    first = 3

    def prepare(self) -> None:
        assert [self.queue.get() for _ in range(3)] == [0, 1, 2]
        assert self.parts.leasing.lease is not None


class ContestedLease(GetLeased):
    title = "get of a lease that somebody wants to end"

    def prepare(self) -> None:
        super().prepare()
        self.flag(words_of.LEASE_FLAG, self.parts.consumer.slot)


class Revoke(TakeLease):
    title = "get of another's lease"
    commit = "CLAIM"
    wanted = (3,)

    def set_up(self) -> None:
        super().set_up()
        assert [self.queue.get() for _ in range(3)] == [0, 1, 2]
        assert self.parts.leasing.lease is not None

    def expected(self, done: list[str]) -> list[Any]:
        return list(range(3 + any("CLAIM" in step for step in done), 20))


# -- leases of all that comes


class LeaseAll(Path):
    title = "lease of all that comes"
    commit = "store GIVEN"
    needs = ("SOLE",)
    items = 3
    wanted: tuple[Any, ...] = (0,)

    def consume(self) -> None:
        pass  # the victim is the only consumer

    def cut(self) -> None:
        pass

    def prepare(self) -> None:
        tqshim.engine.tuning.SOLE = True  # type: ignore[misc]

    def act(self) -> None:
        self.got.append(self.queue.get())

    def expected(self, done: list[str]) -> list[Any]:
        # An item is the holder's as soon as its log's cell is beyond it.
        first = self.wanted[0]
        return list(range(first + any(self.commits([step]) for step in done), self.items))


class GetGiven(LeaseAll):
    title = "get under a lease of all that comes"
    wanted = (1,)

    def prepare(self) -> None:
        super().prepare()
        assert self.queue.get() == 0
        assert self.parts.sole.lease is not None


class GetGivenOfAnother(GetGiven):
    title = "get under a lease of all that comes, from another log than the one before"
    items = 4
    wanted = (2,)

    def set_up(self) -> None:
        self.queue = TurboQueue()
        self.other = newcomer(self.engine.folder.path)
        self.queue.put(0)
        self.other.put(2)  # cuts the first
        self.queue.put(1)  # belongs to the same mark
        self.other.put(3)

    def tear_down(self) -> None:
        self.other._use.engine.close()
        super().tear_down()

    def prepare(self) -> None:
        LeaseAll.prepare(self)
        assert [self.queue.get() for _ in range(2)] == [0, 1]
        assert self.parts.sole.lease is not None


class ContestedAll(GetGiven):
    title = "get under a lease of all that comes that somebody wants to end"

    def prepare(self) -> None:
        super().prepare()
        self.flag(words_of.LEASE_FLAG, self.parts.consumer.slot)


class LostAll(GetGiven):
    title = "get under a lease of all that comes that somebody has ended"
    commit = "CLAIM"
    wanted = (2,)

    def prepare(self) -> None:
        super().prepare()
        os.waitpid(in_child(lambda: (self.queue.get(), self.engine.close())), 0)
        assert self.parts.sole.lease is not None


class GetBesideAll(LeaseAll):
    title = "get beside another's lease of all that comes"
    commit = "CLAIM"
    wanted = (1,)

    def set_up(self) -> None:
        super().set_up()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tqshim.engine.tuning, "SOLE", True)
            assert self.queue.get() == 0
        assert self.parts.sole.lease is not None

    def prepare(self) -> None:
        pass


class PutBesideAll(GetBesideAll):
    title = "first put beside another's lease of all that comes"
    commit = "store COUNTER"
    wanted = ()
    puts = ("a",)

    def act(self) -> None:
        self.queue.put("a")

    def expected(self, done: list[str]) -> list[Any]:
        return [1, 2, *self.puts[: any(self.commits([step]) for step in done)]]


# -- items that may come back


class Claimed(Path):
    title = "claimed, and its block"
    commit = "GOT"
    items = 3
    wanted: tuple[Any, ...] = (0,)
    again = True

    def act(self) -> None:
        with self.queue.claimed() as item:
            self.got.append(item)

    def expected(self, done: list[str]) -> list[Any]:
        return list(range(self.items))[any("GOT" in step for step in done) :]


class ClaimedThatRaises(Claimed):
    title = "claimed, and its block raises"
    commit = "RETURN"
    wanted = ()

    def act(self) -> None:
        with contextlib.suppress(KeyError, Empty):
            with self.queue.claimed(False):
                raise KeyError


class GetOfReturned(Claimed):
    title = "get of what has come back"
    commit = "GOT"

    def set_up(self) -> None:
        super().set_up()
        with contextlib.suppress(KeyError):
            with self.queue.claimed():
                raise KeyError

    def act(self) -> None:
        self.got.append(self.queue.get())


class LeaveInBlock(Path):
    title = "leave out of a block"
    commit = "LEAVE"
    items = 3
    again = True

    def prepare(self) -> None:
        self.claim = self.queue.claimed()
        assert self.claim.__enter__() == 0

    def act(self) -> None:
        self.engine.close()


class BuryHolder(LeaveInBlock):
    title = "bury a killed member that holds an item"
    commit = "LEAVE"

    def set_up(self) -> None:
        super().set_up()
        os.waitpid(in_child(self.queue.claimed().__enter__), 0)

    def prepare(self) -> None:
        pass

    def act(self) -> None:
        self.bury()


# -- ends


class Counted(Path):
    """Afterwards as many items are unfinished as were put and not counted off, and who counts them off has all."""

    finished = 0
    """What this process has counted off."""

    def ring(self) -> None:
        assert self.engine.task_done()
        self.finished += 1

    def finish(self, done: list[str]) -> None:
        left = len(self.expected(done)) + len(self.more) - sum("TASK_DONE" in step for step in done) - self.finished
        stats = self.queue.stats()
        assert stats.unfinished == left
        engine = self.engine
        assert engine.join(0.0) == (not left)
        for _ in range(left):
            assert engine.task_done()
        assert not engine.task_done()
        assert engine.join(PATIENCE)
        super().finish(done)

    def consume(self) -> None:
        super().consume()
        assert self.engine.task_done()


class TaskDone(Counted):
    title = "task_done"
    commit = "TASK_DONE"
    items = 3

    def act(self) -> None:
        assert self.engine.task_done()


class TaskDoneOfLast(TaskDone):
    title = "task_done of the last item"
    items = 1


class JoinThatWaits(Counted):
    title = "first join that waits"
    waits = True
    items = 1

    def act(self) -> None:
        assert not self.engine.join(WAIT)


class Shutdown(Path):
    title = "shutdown"
    commit = "CLOSING"
    items = 3
    shuts = False
    """The queue is being shut down already."""

    def act(self) -> None:
        self.queue.shutdown()

    def finish(self, done: list[str]) -> None:
        closed = self.shuts or any("CLOSING" in step for step in done)
        assert self.queue.is_shutdown == closed
        super().finish(done)


class ShutdownOverSleeper(PutToSleeper):
    title = "shutdown while somebody sleeps"
    commit = "CLOSING"
    puts = ()

    def act(self) -> None:
        self.queue.shutdown()

    def expected(self, done: list[str]) -> list[Any]:
        return []

    def release(self, done: list[str]) -> None:
        os.kill(self.helper, signal.SIGCONT)
        closed = any("CLOSING" in step for step in done)
        if not closed:
            self.queue.put("another")
        assert os.read(self.read, 100).decode() == ("" if closed else "another")
        os.waitpid(self.helper, 0)
        os.close(self.read)


class ShutdownBehindPuts(Shutdown):
    title = "shutdown behind puts"
    items = 1
    puts = ("a", "b")

    def prepare(self) -> None:
        self.queue.put("a")
        self.queue.put("b")

    def expected(self, done: list[str]) -> list[Any]:
        return [0, "a", "b"]


class ShutdownAtOnce(Shutdown):
    title = "shutdown at once"

    def act(self) -> None:
        self.queue.shutdown(immediate=True)

    def expected(self, done: list[str]) -> list[Any]:
        return [] if any("CLOSING" in step for step in done) else list(range(self.items))

    def total(self, steps: list[str]) -> list[Any]:
        # What was there was taken while it was stopped; if the intention was known by then, or part of that.
        assert self.stopped is not None
        got = [item for item in self.taken if isinstance(item, int)]
        there = self.expected([])
        assert got == (there if self.expected(self.stopped) else there[: len(got)])
        return got


class ShutdownOfLease(ShutdownAtOnce):
    title = "shutdown at once, with a lease"
    needs = ("LEASES",)
    items = 20

    def consume(self) -> None:
        pass

    def prepare(self) -> None:
        assert [self.queue.get() for _ in range(3)] == [0, 1, 2]
        assert self.parts.leasing.lease is not None

    def expected(self, done: list[str]) -> list[Any]:
        return [] if any("CLOSING" in step for step in done) else list(range(3, 20))


class ShutdownOfAnothersLease(ShutdownOfLease):
    title = "shutdown at once, with another's lease"

    def set_up(self) -> None:
        super().set_up()
        super().prepare()

    def prepare(self) -> None:
        pass


class PutThatHelps(Shutdown):
    title = "put to a queue that somebody is shutting down"
    commit = "store COUNTER"
    items = 1
    puts = ("before", "put")
    shuts = True

    def prepare(self) -> None:
        self.queue.put("before")
        self.parts.replica.journal.append(events.closing(False))
        for producer in self.parts.replica.ledger.files.filling:
            self.flag(words_of.FLAG, producer)

    def act(self) -> None:
        with contextlib.suppress(ShutDown):
            self.queue.put("put")
            self.said.append("put")

    def expected(self, done: list[str]) -> list[Any]:
        return [0, "before", *["put"] * ("store COUNTER" in done)]

    def total(self, steps: list[str]) -> list[Any]:
        return [0, "before", *self.said]


class PutTooLate(PutThatHelps):
    title = "put that a shutdown overtakes"
    commit = "?"
    puts = ("before",)

    def prepare(self) -> None:
        self.queue.put("before")
        slot = self.parts.producer.slot
        for producer in self.parts.replica.ledger.files.filling:
            self.flag(words_of.FLAG, producer)
        self.parts.replica.journal.append(events.cut(slot, 1) + events.shutdown(False), 0)

    def expected(self, done: list[str]) -> list[Any]:
        return [0, "before"]


# -- journals


class PutAtHalf(PutByJournal):
    title = "put at half of a journal"

    def prepare(self) -> None:
        super().prepare()
        self.fill_journal(0.5)


class Roll(PutByJournal):
    title = "roll"

    def prepare(self) -> None:
        super().prepare()
        for _ in range(2):
            self.fill_journal(1.0)
            self.engine.act(self.parts.replica.append, events.revoke(0, 0))
        self.fill_journal(1.0)

    def expected(self, done: list[str]) -> list[Any]:
        moved = "rename roll_ to journal_"
        return [0, "before", *["put"] * (moved in done and "append PUBLISH" in done[done.index(moved) :])]


class LostRoll(Roll):
    title = "roll that somebody else wins"

    def prepare(self) -> None:
        super().prepare()
        folder = self.engine.folder
        prepare_roll = folder.prepare_roll

        def slow(*how: Any, **more: Any) -> str:
            key = str(prepare_roll(*how, **more))
            with self.trace.paused():
                self.parts.replica.journal.append(events.seal(int(prepare_roll(*how, **more), 16)))
            return key

        folder.prepare_roll = slow
        for name in os.listdir(folder.path):
            if name.startswith("spare_"):
                os.unlink(f"{folder.path}/{name}")


# -- leaving


class Leave(Path):
    title = "leave with a lease and puts"
    commit = "LEAVE"
    needs = ("LEASES",)
    items = 20
    puts = ("a", "b")

    def consume(self) -> None:
        pass

    def prepare(self) -> None:
        assert [self.queue.get() for _ in range(3)] == [0, 1, 2]
        self.queue.put("a")
        self.queue.put("b")

    def act(self) -> None:
        self.engine.close()

    def expected(self, done: list[str]) -> list[Any]:
        return [*range(3, 20), "a", "b"]


class LeaveWithItem(Path):
    title = "leave a full queue with an item that a get had taken"
    commit = "PUT_BACK"
    maxsize = 3
    items = 3
    puts = ("last",)
    again = True

    def prepare(self) -> None:
        taken: list[Any] = []
        self.engine.get(taken, 1, False, None)
        self.engine.give_back(taken)
        self.queue.put("last")

    def act(self) -> None:
        self.engine.close()

    def expected(self, done: list[str]) -> list[Any]:
        return [1, 2, "last", *[0] * any("PUT_BACK" in step for step in done)]


class Bury(Path):
    title = "bury a killed producer"
    commit = "LEAVE"
    items = 1

    def set_up(self) -> None:
        super().set_up()
        assert self.queue.get() == 0
        os.waitpid(in_child(lambda: self.queue.put("killed one's")), 0)

    def act(self) -> None:
        self.bury()

    def expected(self, done: list[str]) -> list[Any]:
        return ["killed one's"]


class BuryConsumer(Path):
    title = "bury a killed consumer"
    commit = "LEAVE"
    items = 1

    def set_up(self) -> None:
        super().set_up()

        def join_and_be_killed() -> None:
            self.engine.act(self.parts.consumer.join)
            for kind in (words_of.SLEEPS, words_of.POSITION):
                self.flag(kind, self.parts.consumer.slot)

        self.queue.qsize()
        os.waitpid(in_child(lambda: (self.queue.qsize(), join_and_be_killed())), 0)

    def act(self) -> None:
        self.bury()


class Scan(Path):
    title = "scan of what the dead have left"

    def set_up(self) -> None:
        super().set_up()
        self.roll()
        number = self.look().number
        folder = pathlib.Path(self.engine.folder.path)
        for name in ("load_1_2", "free_1_0", f"roll_{number}_00000000aa"):
            (folder / name).touch(0o600)

    def act(self) -> None:
        tqshim.engine.tuning.SCAN_EVERY = 0.0  # type: ignore[misc]
        self.engine.act(self.parts.reclaimer.scan_if_due, monotonic() + 1)


class ProgramEnds(Path):
    title = "a program ends, others go on"
    commit = "LEAVE"
    items = 1
    puts = ("put",)

    def prepare(self) -> None:
        self.queue.put("put")

    def act(self) -> None:
        self.engine.retire()

    def expected(self, done: list[str]) -> list[Any]:
        return [0, "put"]


class LastUserLeaves(CreateAnonymous):
    title = "last user leaves"
    commit = "to dead_"

    def prepare(self) -> None:
        self.queue = TurboQueue()

    def act(self) -> None:
        self.engine.close()


class Sweep(CreateAnonymous):
    title = "sweep"
    commit = "to dead_"

    def set_up(self) -> None:
        def spill_and_be_killed() -> None:
            tqshim.storage.folder.LogFolder.wants_spill = lambda folder: True  # type: ignore[method-assign]
            tqshim.storage.places.spill_root = lambda path: self.spill
            queue = TurboQueue()
            queue.put("spilled")
            os._exit(0)

        os.waitpid(in_child(spill_and_be_killed), 0)

    def act(self) -> None:
        tqshim.storage.places.sweep(self.root, ())


# --- victims ---------------------------------------------------------------------------------------------------------


def remove(folder: pathlib.Path) -> None:
    """Delete a folder at a path, which nobody uses any more."""
    if folder.exists():
        shutil.rmtree(folder)


def in_child(act: Callable[[], Any]) -> int:
    """Fork a child that does that and ends at once, whatever happens."""
    pid = os.fork()
    if not pid:
        try:
            act()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    return pid


def set_out(path: Path, halt: Optional[tuple[Place, signal.Signals]]) -> tuple[int, int, View]:
    """Fork a victim that carries out the act; returns its process, a pipe from it, and what there was before it."""
    read, write = os.pipe()
    start, go = os.pipe()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.close(read)
            os.close(go)
            # Nothing but the act's own steps, however slow the machine is.
            tqshim.engine.tuning.SCAN_EVERY = 1000.0  # type: ignore[misc]
            tqshim.engine.tuning.NAP = tqshim.engine.tuning.NAP_LAST  # type: ignore[misc]
            if path.queue is not None:
                path.queue.qsize()  # this process is a user of its own from here on
            # A put that finds itself traced goes the long way: other threads might run between two lines.
            tqshim.engine.log.watchers = lambda: None
            path.prepare()
            os.write(write, b"!")
            os.read(start, 1)
            path.trace = Walk(path.root, path.spill) if halt is None else Halt(*halt)
            with path.trace:
                path.act()
            found = [path.trace.steps, path.trace.places] if halt is None else []
            os.write(write, json.dumps([path.got, path.said, *found], default=repr).encode())
            code = 0
        except BaseException:
            os.write(write, traceback.format_exc().encode()[-4000:])
        finally:
            os._exit(code)
    os.close(write)
    os.close(start)
    prepared = os.read(read, 1)
    before = path.look()
    os.close(go)
    if prepared != b"!":
        heard(read)
    return pid, read, before


def heard(read: int) -> Any:
    """What a victim says that has come to the end of its act."""
    with os.fdopen(read) as pipe:
        said = pipe.read()
    assert said.startswith("["), said or "the victim was killed"
    return json.loads(said)


class Course(list):  # type: ignore[type-arg]  # of Steps
    """The steps of an act, and all the places that it comes to."""

    places: list[Place]
    got: list[Any]
    waits: bool

    def done(self, place: Place) -> list[Step]:
        """The steps that were taken when it came there."""
        before = self.places.index(place)
        return [step for step in self if step.after <= before]

    def behind(self, at: int) -> Optional[Place]:
        """A place at which that step is done, and no other yet; ``None``: the end.

        The one that comes first among those on its line, as far as there is a choice: others may come later, or never,
        where the act waits in between."""
        stop = next((step.after for step in self[at:] if step.after > self[at].after), len(self.places))
        return min(self.places[self[at].after : stop], key=lambda place: place.count, default=None)


@contextlib.contextmanager
def made(cls: type[Path]) -> Iterator[Path]:
    """An act that is set up, and torn down without anything left."""
    with contextlib.ExitStack() as stack:
        root = stack.enter_context(tempfile.TemporaryDirectory(dir=os.environ["TQSHIM_DIR"], prefix="crash-"))
        spill = stack.enter_context(tempfile.TemporaryDirectory(dir=os.environ["TQSHIM_SPILL_DIR"], prefix="crash-"))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("TQSHIM_DIR", root)
        patch.setenv("TQSHIM_SPILL_DIR", spill)
        patch.setattr(tqshim.engine.tuning, "LIMITS", cls.limits)
        patch.setattr(tqshim.engine.tuning, "MARK_EVERY", NEVER)
        patch.setattr(tqshim.engine.tuning, "SCAN_EVERY", SCAN_EVERY)
        patch.setattr(tqshim.storage.places, "MARKER_LIFE", 0.0)
        patch.setattr(membarrier, "barrier_works", membarrier.barrier_works)
        path = cls(root, spill)
        path.set_up()
        try:
            yield path
        finally:
            path.tear_down()
        TurboQueue().close()
        left = os.listdir(root) + os.listdir(spill)
        if left:  # handles that only a collection finds
            gc.collect()
            TurboQueue().close()
            left = os.listdir(root) + os.listdir(spill)
        assert left == [], "after the next creation nothing is left"


def unable(cls: type[Path]) -> str:
    """Why the act can't be walked here; empty where it can."""
    off = [need for need in cls.needs if not (SOLE if need == "SOLE" else getattr(tqshim.engine.tuning, need))]
    if off:
        return f"switched off: {off}"
    if not membarrier.barrier_works():
        return "this system has no barrier for counters, or is not to use it"
    return ""


@functools.cache
def course_of(cls: type[Path]) -> Course:
    """The steps of an act in which nobody is killed."""
    with made(cls) as path:
        pid, read, _ = set_out(path, None)
        got, _, steps, places = heard(read)
        os.waitpid(pid, 0)
        path.release([step[0] for step in steps])
        course = Course(Step(name, Place(*place), after) for name, place, after in steps)
        course.places = [Place(*place) for place in places]
        course.got = got
        course.waits = cls.waits
    return course


def walked(cls: type[Path]) -> Course:
    if unable(cls):
        pytest.skip(unable(cls))
    return course_of(cls)


def kill(cls: type[Path], place: Optional[Place], done: list[str], left: Optional[frozenset[str]]) -> frozenset[str]:
    """Kill a victim there, or at the end of its act; returns what is left, which is repaired if it was expected."""
    with made(cls) as path:
        pid, read, before = set_out(path, (place, signal.SIGKILL) if place is not None else None)
        if place is None:
            heard(read)
        else:
            os.close(read)
        status = os.waitpid(pid, 0)[1]
        if place is not None:
            assert os.WIFSIGNALED(status), "the act did not come there"
        view = path.look()
        found = frozenset(view.left() | ({"taken"} if view.taken(before) else set()))
        path.check(done, before, found if left is None else left)
    return found


def rows_of(title: str) -> list[Row]:
    """The rows of an act; without the setting aside of disk space, where systems can't."""
    return [row for row in TABLE[title] if systems.RESVSP is not None or not row.name.startswith("reserve ")]


def stop(cls: type[Path], place: Place, done: list[str], steps: list[str]) -> None:
    """Stop a victim there, use the queue, leave it two journals behind, let it go on, and count everything."""
    with made(cls) as path:
        path.stopped = done
        pid, read, _ = set_out(path, (place, signal.SIGSTOP))
        assert os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1]), "the act did not come there"
        try:
            path.release(done)
            path.drain()
            path.take(timeout=NAP)
            if not path.queue.is_shutdown:
                path.fill() if cls.maxsize else path.put_more(timeout=PATIENCE)
                path.drain()
                path.roll()
        finally:
            os.kill(pid, signal.SIGCONT)
        go_on(path, pid)
        path.got, path.said = heard(read)
        path.end()
        path.drain()
        # An item that came back just now is there after the next look.
        path.take(timeout=NAP)
        everything = [*path.total(steps), *path.more]
        assert collections.Counter(map(str, [*path.taken, *path.got])) == collections.Counter(map(str, everything))
        if not cls.again:
            for produced in ([*range(cls.items), *path.more], list(cls.puts)):
                for consumed in (path.taken, path.got):
                    rest = iter(map(str, produced))
                    assert all(item in rest for item in map(str, consumed) if item in set(map(str, produced)))
        path.check_queue()


def go_on(path: Path, pid: int) -> None:
    """Wait for a victim that goes on; this process may have taken what it is about to get, so put more."""
    deadline = monotonic() + PATIENCE
    while not os.waitpid(pid, os.WNOHANG)[0]:
        if monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise AssertionError("it hangs")
        time.sleep(0.002)
        if path.wanted or path.hungry:
            path.put_more()
        elif path.maxsize:
            path.drain()


# --- the tests -------------------------------------------------------------------------------------------------------


def groups(course: Course) -> list[tuple[str, list[int]]]:
    """By name: steps that follow one another."""
    found = groupby(enumerate(course), key=lambda one: one[1].name)
    listed = [(name, [at for at, _ in numbered]) for name, numbered in found]
    first = dict(reversed(listed))
    return [(name, numbers) for name, numbers in listed if not course.waits or numbers is first[name]]


def each(cases: Iterator[tuple[str, Callable[[], Any]]]) -> None:
    """Try all, and then tell which failed."""
    failures = []
    for where, try_it in cases:
        try:
            try_it()
        except (AssertionError, OSError, pytest.fail.Exception) as error:
            failures.append(f"{where}: {error}"[:1500])
    assert not failures, "\n".join(failures)


def named(steps: Iterable[Step]) -> list[str]:
    return [step.name for step in steps]


WITH_A_PEER = [title for title in TABLE if not PATHS[title].alone]
ALONE = [title for title in TABLE if PATHS[title].alone]
KILLED = 8
"""Acts of the default run whose victims are killed after each step."""
STOPPED = 7
HALTED = 8
"""Acts at some lines of which they are killed, and stopped."""


def each_act(name: str, titles: list[str], count: int) -> pytest.MarkDecorator:
    """A test of all acts: so many in the default run.

    By its scope pytest runs all tests of an act one after the other: the process that has walked it does."""
    return pytest.mark.parametrize("title", sampled(name, titles, count), scope="module")


@pytest.mark.in_turn
@each_act("killed", WITH_A_PEER + ALONE, KILLED)
def test_kill_right_after_each_step_leaves_what_the_table_says(title: str) -> None:
    cls = PATHS[title]
    course = walked(cls)
    rows = rows_of(title)
    steps = groups(course)
    assert [name for name, _ in steps] == [row.name for row in rows]

    def cases() -> Iterator[tuple[str, Callable[[], Any]]]:
        for (name, numbers), row in zip(steps, rows):
            at, done = numbers[0], named(course[: numbers[0] + 1])
            yield (
                f"after step {at + 1}, {name}",
                functools.partial(kill, cls, course.behind(at), done, frozenset(row.left)),
            )

    each(cases())


@pytest.mark.in_turn
@each_act("stopped", WITH_A_PEER, STOPPED)
def test_stop_before_each_step_keeps_nobody_waiting_and_loses_nothing(title: str) -> None:
    cls = PATHS[title]
    course = walked(cls)

    def cases() -> Iterator[tuple[str, Callable[[], Any]]]:
        for name, numbers in groups(course):
            step = course[numbers[0]]
            yield (
                f"before {name}, {step.place}",
                functools.partial(stop, cls, step.place, named(course[: numbers[0]]), named(course)),
            )

    each(cases())


def lines_of(course: Course, most: Optional[int]) -> list[Place]:
    """Places of an act, each line at its first visit; so many of them, or all."""
    lines = [place for place in course.places if place.count == 1]
    return lines if most is None else lines[:: max(1, len(lines) // most)][:most]


def at_lines(title: str, most: Optional[int]) -> None:
    cls = PATHS[title]
    course = walked(cls)

    def cases() -> Iterator[tuple[str, Callable[[], Any]]]:
        for place in lines_of(course, most):
            done = named(course.done(place))
            yield f"killed at {place}", functools.partial(kill, cls, place, done, None)
            if not cls.alone:
                yield f"stopped at {place}", functools.partial(stop, cls, place, done, named(course))

    each(cases())


@pytest.mark.in_turn
@each_act("halted", WITH_A_PEER + ALONE, HALTED)
def test_kill_and_stop_at_some_lines(title: str) -> None:
    at_lines(title, SAMPLE)


@pytest.mark.stress
@pytest.mark.parametrize("title", WITH_A_PEER + ALONE, scope="module")
def test_kill_and_stop_at_each_line(title: str) -> None:
    at_lines(title, None)


CHANGING = "mkdir makedirs rmdir symlink mkfifo pwritev write pwrite rename link unlink flock ioctl"
CHANGING += " ftruncate posix_fallocate"
"""Calls that change what is on disk, or who holds what; and ``open`` where it may create, ``fcntl`` where it locks."""
SHARED = ("words", "counts", "memory", "ends")
"""How memory is called that others see, where somebody stores to it."""
ELSEWHERE = {
    "_create_in: rmdir": "a file system that is refused: test_folder",
    "_delete_batch: ioctl": "of a file that has no name any more: test_large",
    "_mkfifo_by_path: mkfifo": "where a FIFO can't be made relative to a folder: test_systems",
    "allocate: write": "where a file system can't set space aside: test_systems",
    "delete_unless_used: flock": "beside other users one shared lock more, which looks as before: test_lifetime",
    "lock_to_read: fcntl": "who reads a record in its file keeps that from being filled again: test_large",
    "open: rmdir": "a file system that is refused: test_folder",
    "pass_on: words": "who was rung for in vain tells the next; it sleeps on itself: test_waking",
    "look_for_sleepers: counts": "who was rung for may have been killed, and the put that follows rings: test_marks",
    "prepare_roll: ftruncate": "only a power cut leaves a file that long under a new name: test_durability",
    "recover: counts": "what an interrupted act has left in its own cells: test_signals",
    "recover: words": "the same",
    "refill_batch: unlink": "a file that is left in the place of the one taken, in that very moment: test_large",
    "ring_again: words": "an act was interrupted that may have rung for nobody: test_signals",
}
"""Changes that no act of the table leads to, and why."""


def changes() -> dict[tuple[str, int], str]:
    """By room and line: what changes something that others see, as function and call, or function and memory."""
    found = {}
    rooms = [pathlib.Path(PACKAGE, "runtime", "mappings.py")]
    for inner in ("storage", "engine", "sync"):
        rooms += pathlib.Path(PACKAGE, inner).glob("*.py")
    for path in rooms:
        room = str(path.relative_to(PACKAGE))
        for function in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(function, ast.FunctionDef):
                continue
            for node in ast.walk(function):
                said = changed_by(node)
                if said:
                    assert isinstance(node, (ast.Call, ast.Assign)) and node.end_lineno is not None
                    for line in range(node.lineno, node.end_lineno + 1):
                        found[room, line] = f"{function.name}: {said}"
    return found


def changed_by(node: ast.AST) -> str:
    """What that changes; empty: nothing."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
        call = node.func.attr
        creates = call == "open" and "O_CREAT" in ast.unparse(node)
        locks = call == "fcntl" and re.search("OFD_SET|F_SETLK", ast.unparse(node))
        if node.func.value.id in ("os", "fcntl", "mappings") and (creates or locks or call in CHANGING.split()):
            return call
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
        memory = ast.unparse(node.targets[0].value).rpartition(".")[2]
        if memory in SHARED:
            return memory
    return ""


@pytest.mark.skipif(systems.PORTABLE, reason="only where nothing is done without")
@pytest.mark.stress  # it walks all acts
@pytest.mark.rest
def test_each_change_that_the_sources_make_is_a_step_of_some_act() -> None:
    if any(map(unable, PATHS.values())):
        pytest.skip("not all acts can be walked here")
    seen = {(step.place.room, step.place.line) for cls in PATHS.values() for step in course_of(cls)}
    there = changes()
    assert len(set(there.values())) > 40
    made = {there[at] for at in seen if at in there}
    assert set(there.values()) - made == set(ELSEWHERE)


DOCUMENTED = 5.0
"""Seconds for what takes a second or so, on a machine that is busy."""
BY_SCAN = {
    "first put": "append OPEN",
    "first get": "store POSITION",
    "first get that waits": "store ASLEEP",
    "claimed, and its block": "append HOLD",
    "put where no counter counts": "append PUBLISH",
    "shutdown": "append CLOSING",
    "bury a killed producer": "lock slot",
    "roll that somebody else wins": "write roll_",
}
"""By act: a step after which something is left that a scan repairs."""


@pytest.mark.in_turn
@pytest.mark.parametrize("title", BY_SCAN)
def test_fresh_process_that_waits_repairs_it_within_a_second_or_so(title: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cls = PATHS[title]
    course = walked(cls)
    monkeypatch.setattr(sys.modules[__name__], "SCAN_EVERY", tqshim.engine.tuning.SCAN_EVERY)
    at = named(course).index(BY_SCAN[title])
    with made(cls) as path:
        place = course.behind(at)
        assert place is not None
        victim, read, _ = set_out(path, (place, signal.SIGKILL))
        os.close(read)
        os.waitpid(victim, 0)
        assert by_scan(path), "nothing is left"

        def wait() -> None:
            with contextlib.suppress(ShutDown):
                while True:
                    path.queue.get()
            path.engine.close()

        fresh = in_child(wait)
        deadline = monotonic() + DOCUMENTED
        while left := by_scan(path):
            assert monotonic() < deadline, f"nobody has repaired {left}"
            time.sleep(0.01)  # this process is idle
        os.kill(fresh, signal.SIGKILL)
        os.waitpid(fresh, 0)


def by_scan(path: Path) -> set[str]:
    """What is left that a scan repairs."""
    return {name for name in path.look().left() if LEFT[name].repairer == "waits"}


def test_each_path_has_its_rows_and_each_row_its_path() -> None:
    assert sorted(PATHS) == sorted(TABLE)


def test_commit_points_are_marked() -> None:
    for title, rows in TABLE.items():
        done = [row.name for row in rows]
        assert [row.commits for row in rows] == [PATHS[title].commits(done[: at + 1]) for at in range(len(rows))], title


def test_whatever_is_left_by_some_row_is_told_of_and_has_its_repairer() -> None:
    left = {name for rows in TABLE.values() for row in rows for name in row.left}
    assert left == set(LEFT)
    assert {one.repairer for one in LEFT.values()} == set(REPAIRERS)


# --- walking, and printing what is found -----------------------------------------------------------------------------


def main(titles: list[str]) -> None:
    """Print the rows of these acts, or of all, as they are found; ``--write``: write them into the table, too."""
    found: dict[str, tuple[Row, ...]] = {}
    for title in [title for title in titles if title != "--write"] or list(PATHS):
        cls = PATHS[title]
        course = course_of(cls)
        for name, numbers in groups(course):
            done = named(course[: numbers[0] + 1])
            bang = "!" if cls.commits(done) else ""
            left = kill(cls, course.behind(numbers[0]), done, None)
            row = Row(bang + name, tuple(sorted(left, key=list(LEFT).index)))
            print(f"{title}: {row}")
            found[title] = (*found.get(title, ()), row)
    if "--write" in titles:
        TABLE.update(found)
        documents.update()


if __name__ == "__main__":
    import conftest

    try:
        main(sys.argv[1:])
    finally:
        shutil.rmtree(conftest.ROOT, ignore_errors=True)
        shutil.rmtree(conftest.SPILL, ignore_errors=True)
