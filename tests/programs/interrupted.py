"""A program whose calls are interrupted at random instants, thousands of times; prints what it counted, as JSON.

Usage: python -m programs.interrupted WHAT KIND COUNT MAXSIZE SEED MOST

WHAT: ``get``, ``get_many``, ``put``, ``put_many``, ``blocking`` (gets that mostly wait), ``returned`` (gets of items
that have come back), or ``claimed``.
KIND, what the handler does: ``keyboard`` or ``custom`` (raises), ``fork``, ``fork and go on`` (the child goes on with
the call that was interrupted), ``other`` (calls methods of other queues).
MOST: how many interrupts there are at most.
"""

from __future__ import annotations

import json
import os
import queue
import random
import signal
import sys
import threading
import time
from collections import Counter
from types import CodeType, FrameType
from typing import Any, Optional

from tqshim import TurboQueue
from tqshim.queues.claims import Claim

LONG = 60.0
LONGEST_WAIT = 30.0
"""Seconds after which what has not come counts as missing."""


class Interrupt(BaseException):
    """Like KeyboardInterrupt, no Exception."""


class Custom(Exception):
    """What a program's own handler may raise; a timeout, say."""


class Alarm:
    """Interrupts after random microseconds, again and again, while armed and inside a queue's method."""

    def __init__(self, kind: str, seed: int, longest: float, most: int) -> None:
        self.kind = kind
        self.choose = random.Random(seed)
        self.longest = longest
        self.hits = 0
        self.most = most
        self.rest = False
        self.armed = False
        self.children: list[int] = []
        self.is_child = False
        self.other: Any = TurboQueue() if kind == "other" else None
        self.other_sent = self.other_got = 0
        self.inside: set[CodeType] = set()
        for method in ("put", "get", "put_many", "get_many", "put_nowait", "get_nowait", "qsize"):
            self.inside.add(getattr(TurboQueue, method).__code__)
        self.inside |= {Claim.__enter__.__code__, Claim.__exit__.__code__}
        signal.signal(signal.SIGALRM, self.handle)

    def arm(self) -> None:
        """Before a call.  Half of the calls after an interrupted one are left alone: some of them must get through."""
        rest = self.rest
        self.rest = False
        if self.hits < self.most and not (rest and self.choose.random() < 0.5):
            self.armed = True
            self.again()

    def again(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, self.choose.uniform(1e-6, self.longest))

    def stop(self) -> None:
        self.armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)

    def in_a_call(self, frame: Optional[FrameType]) -> bool:
        """Whether a queue's method is under way: only there an exception says something about the queue.

        Before 3.11 a handler may also run when a method has returned and its caller does not have the value yet.  No
        queue, the standard library's neither, can know of that."""
        while frame is not None:
            if frame.f_code in self.inside:
                if sys.version_info < (3, 11) and frame.f_code.co_code[frame.f_lasti + 2] == RETURN_VALUE:
                    return False
                return True
            frame = frame.f_back
        return False

    def handle(self, number: int, frame: Optional[FrameType]) -> None:
        if not self.armed:
            return
        if not self.in_a_call(frame):
            self.again()
            return
        self.hits += 1
        if self.kind in ("keyboard", "custom"):
            self.armed = False  # the program arms it again once it has understood
            self.rest = True
            raise Custom if self.kind == "custom" else Interrupt
        if self.kind == "other":
            self.armed = False
            self.other.put(self.other_sent)
            self.other_sent += 1
            if self.hits % 3 == 0:
                assert self.other.get_nowait() == self.other_got
                self.other_got += 1
            self.armed = True
            self.again()
            return
        self.fork()

    def fork(self) -> None:
        self.armed = False
        child = os.fork()
        if child == 0:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self.is_child = True
            if self.kind == "fork":
                os._exit(0)
            return
        self.children.append(child)
        if self.kind == "fork" and len(self.children) > 5:
            self.reap()
        self.armed = True
        self.again()

    def reap(self) -> None:
        while self.children:
            os.waitpid(self.children.pop(), 0)


try:
    import dis

    RETURN_VALUE = dis.opmap["RETURN_VALUE"]
except KeyError:
    RETURN_VALUE = -1


def feed(q: Any, count: int, stop: threading.Event) -> None:
    """Another thread puts what the main thread gets."""
    for number in range(count):
        while not stop.is_set():
            try:
                q.put(number, True, 0.5)
                break
            except queue.Full:
                continue


def interrupted_gets(q: Any, alarm: Alarm, count: int, what: str) -> list[int]:
    """Get all of them, however often a call is interrupted."""
    got: list[int] = []
    choose = random.Random(count)
    last = time.monotonic()
    while len(got) < count:
        items: list[int] = []
        alarm.arm()
        try:
            if what == "get_many":
                items = q.get_many(True, LONGEST_WAIT, choose.randrange(1, 30))
            elif what == "blocking":
                items = [q.get(True, LONGEST_WAIT)]
            elif choose.random() < 0.2:
                items = [q.get_nowait()]
            else:
                items = [q.get(True, LONGEST_WAIT)]
        except (Interrupt, Custom):
            pass
        except queue.Empty:
            if time.monotonic() > last + LONGEST_WAIT:
                break  # the report will say what is missing
        alarm.armed = False
        if items:
            last = time.monotonic()
        got += items
        if alarm.is_child:
            return got
    alarm.stop()
    return got


def interrupted_claims(q: Any, alarm: Alarm, count: int) -> tuple[list[int], list[int], list[int]]:
    """Claim all of them, however often the beginning or the end of a block is interrupted.

    The items that blocks have had, each once; which came again although their block had ended well, or came
    again and were not marked; which were marked and no block had had."""
    had: list[int] = []
    done: set[int] = set()
    wrong: list[int] = []
    spurious: list[int] = []
    last = time.monotonic()
    while len(done) < count:
        claim = q.claimed(True, 0.2)
        item = -1
        alarm.arm()
        try:
            with claim as item:
                alarm.armed = False
                last = time.monotonic()
                if item in done or (item in had) > (claim.redelivered > 0):
                    wrong.append(item)
                if claim.redelivered and item not in had:
                    spurious.append(item)
                if item not in had:
                    had.append(item)
                alarm.arm()
            done.add(item)
        except (Interrupt, Custom):
            pass
        except queue.Empty:
            # All were had, and nothing is left of blocks whose end was interrupted: either of both is right.
            if len(had) == count or time.monotonic() > last + LONGEST_WAIT:
                break
        alarm.armed = False
    alarm.stop()
    return had, wrong, spurious


def all_come_back(q: Any, count: int) -> None:
    claims = [q.claimed() for _ in range(count)]
    for claim in claims:
        claim.__enter__()
    for claim in claims:
        claim.__exit__(KeyError, None, None)


def interrupted_puts(q: Any, alarm: Alarm, count: int, what: str) -> tuple[list[int], list[int]]:
    """Put numbers; the ones whose call returned, and the ones whose call was interrupted."""
    sure: list[int] = []
    unsure: list[int] = []
    number = 0
    while number < count:
        size = 1 if what == "put" else number % 23 + 1
        items = list(range(number, number + size))
        number += size
        alarm.arm()
        done = False
        try:
            if what == "put":
                q.put(items[0], True, LONG)
            else:
                q.put_many(items, True, LONG)
            done = True
        except (Interrupt, Custom):
            pass
        alarm.armed = False
        (sure if done else unsure).extend(items)
        if alarm.is_child:
            break
    alarm.stop()
    return sure, unsure


def main(what: str, kind: str, count: int, maxsize: int, seed: int, most: int) -> dict[str, Any]:
    q: Any = TurboQueue(maxsize)
    alarm = Alarm(kind, seed, 5e-4 if kind.startswith("fork") else 2e-4, most)
    report: dict[str, Any] = {}
    feeding = 0
    reader, writer = os.pipe()
    if what == "claimed":
        q.put_many(range(count))
        had, wrong, spurious = interrupted_claims(q, alarm, count)
        report.update(got=len(had), missing=sorted(set(range(count)) - set(had))[:20], doubled=wrong[:20])
        report.update({"in order": had == sorted(had), "spurious": len(spurious)})
    elif what in ("get", "get_many", "blocking", "returned"):
        stop = threading.Event()
        feeder = None
        if what == "blocking" or maxsize:
            feeder = threading.Thread(target=feed, args=(q, count, stop), daemon=True)
            if kind.startswith("fork"):  # threads and forks are another test: fed by a process
                feeder = None
                feeding = os.fork()
                if feeding == 0:
                    feed(q, count, stop)
                    q.close()
                    sys.exit(0)
        else:
            q.put_many(range(count))
        if feeder is not None:
            feeder.start()
        if what == "returned":
            all_come_back(q, count)
        if kind == "fork and go on":
            got = forking_gets(q, alarm, what, reader, writer, feeding)
        else:
            got = interrupted_gets(q, alarm, count, what)
        stop.set()
        report["got"] = len(got)
        missing = sorted(set(range(count)) - set(got))
        report["missing"] = missing[:20]
        report["doubled"] = [item for item, times in Counter(got).items() if times > 1][:20]
        report["in order"] = kind == "fork and go on" or got == sorted(got)
        if feeder is not None:
            feeder.join(LONG)
    else:
        consumed: list[int] = []
        ended = threading.Event()

        def drain() -> None:
            while True:
                try:
                    consumed.append(q.get(True, 0.2))
                except queue.Empty:
                    if ended.is_set():
                        return

        drainer = threading.Thread(target=drain, daemon=True)
        if maxsize:
            drainer.start()
        sure, unsure = interrupted_puts(q, alarm, count, what)
        if alarm.is_child:
            q.close()
            sys.exit(0)
        alarm.reap()
        ended.set()
        if maxsize:
            drainer.join(LONG)
        while not q.empty():
            consumed += q.get_many(True, LONG)
        report["got"] = len(consumed)
        report["missing"] = sorted(set(sure) - set(consumed))[:20]
        times = Counter(consumed)
        # A child that goes on with a put makes it too.
        report["doubled"] = [n for n in times if times[n] > 1 and kind != "fork and go on"][:20]
        report["strange"] = sorted(set(consumed) - set(sure) - set(unsure))[:20]
        report["in order"] = kind == "fork and go on" or consumed == sorted(consumed)
        report["unsure"] = len(unsure)
    report["hits"] = alarm.hits
    report["left"] = q.qsize()
    if alarm.other is not None:
        rest = [alarm.other.get_nowait() for _ in range(alarm.other.qsize())]
        report["other"] = rest == list(range(alarm.other_got, alarm.other_sent))
    return report


def forking_gets(q: Any, alarm: Alarm, what: str, reader: int, writer: int, feeding: int) -> list[int]:
    """What parent and children got together: each child goes on with the call in which it was forked, and tells.

    ``feeding``: a process that puts what they get, or 0: nothing is missing before that has ended.

    A child forked when the parent's call had its items already, and only had to return them, is a copy that returns
    them too, as with every queue; that counts once."""
    calls: list[list[int]] = []
    told: list[int] = []
    deadline = time.monotonic() + LONG
    while time.monotonic() < deadline:
        items: list[int] = []
        if len(alarm.children) < 40:
            alarm.arm()
        try:
            items = q.get_many(True, 0.3, 5) if what == "get_many" else [q.get(True, 0.3)]
        except queue.Empty:
            pass
        alarm.armed = False
        if alarm.is_child:
            os.write(writer, json.dumps([len(calls), items]).encode() + b"\n")
            q.close()
            sys.exit(0)
        calls.append(items)
        if not items:
            alarm.reap()
            if feeding and os.waitpid(feeding, os.WNOHANG)[0]:
                feeding = 0
            elif not feeding and not q.qsize():
                break
    alarm.stop()
    alarm.reap()
    os.close(writer)
    with open(reader) as lines:
        for line in lines:
            call, items = json.loads(line)
            if items != calls[call]:
                told += items
    return [item for items in calls for item in items] + told


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:7]))))
