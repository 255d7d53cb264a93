"""A signal before each instruction of the package that an act comes to: the handler raises, puts, gets or forks
where the interpreter runs it, and no item is lost or doubled, and no lock stays taken."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import queue
import shutil
import signal
import tempfile
import traceback
from collections import Counter
from itertools import count, product
from types import FrameType
from typing import Any, Callable, Optional

import pytest
from interrupting import PACKAGE, Interrupted, is_inside
from sampling import chooser, examples
from signalling import instructions, signalled_before
from test_signals import raised
from watching import newcomer

import tqshim.engine.tuning
from tqshim import JoinableTurboQueue

SIGNAL = signal.SIGUSR1
LONG = 20.0
SHORT = 1e-3
FROM_HANDLER, OF_ANOTHER, OF_CHILD = "from the handler", "another's", "of the child"


class Story:
    """A queue, what was put into it, and what came out."""

    def __init__(self, act: Any, kind: str, maxsize: int, waiting: int, is_member: bool) -> None:
        if act is Story.waits:
            kind, waiting, is_member = "plain" if kind in ("returned", "another's", "freed") else kind, 0, False
        if kind == "freed":
            maxsize = 60
        self.folder = tempfile.mkdtemp(dir=os.environ["TQSHIM_DIR"]) if kind in ("durable", "authkey") else None
        authkey = b"key" if kind == "authkey" else None
        self.q: Any = JoinableTurboQueue(maxsize, path=self.folder, durable=kind == "durable" or None, authkey=authkey)
        self.put: list[Any] = list(range(waiting))
        self.unsure: list[Any] = []
        """Puts that have begun, and have not returned."""
        self.got: list[Any] = []
        self.taken: list[Any] = []
        """What a handler has got, who is a consumer of its own where it comes into the midst of an act."""
        self.held: list[Any] = []
        """What a block has had whose end has not returned."""
        self.done = 0
        """``task_done`` that have returned."""
        self.q.put_many(self.put)
        self.children: list[int] = []
        self.others: list[Any] = []
        if kind == "returned":
            with contextlib.suppress(KeyError), self.q.claimed():
                raise KeyError
        elif kind == "another's":
            other = newcomer(self.q._engine.folder.path)
            self.others.append(other)
            other.put(OF_ANOTHER)
            self.put.append(OF_ANOTHER)
        if is_member:
            self.q.put("first")
            self.q.put_many(["second"])
            self.put += ["first", "second"]
            self.got.append(self.q.get())
        if kind == "freed":
            self.fill()
            other = newcomer(self.q._engine.folder.path)
            self.others.append(other)
            self.got += [other.get() for _ in range(5)]  # more than a put, a handler's and a child's take
        elif act is Story.puts_in_vain and maxsize:
            more = list(range(1000, 1000 + maxsize - self.q.stats().items))
            self.q.put_many(more)
            self.put += more
        self.known, self.before = len(self.put), len(self.got)

    def fill(self) -> None:
        """Put as many as there are places for, one by one: the last one closes the short way."""
        for item in range(2000, 2000 + self.q._maxsize - self.q.qsize()):
            self.q.put(item)
            self.put.append(item)

    # -- acts

    def puts(self) -> None:
        self._puts(self.q.put, "new", ["new"])

    def puts_many(self) -> None:
        self._puts(self.q.put_many, ["new", "newer"], ["new", "newer"])

    def puts_in_vain(self) -> None:
        """A bounded queue is full."""
        try:
            self._puts(lambda item: self.q.put(item, timeout=SHORT), "new", ["new"])
        except queue.Full:
            self.unsure.clear()

    def _puts(self, put: Callable[[Any], None], argument: Any, items: list[Any]) -> None:
        self.unsure += items
        put(argument)
        self.unsure.clear()
        self.put += items

    def gets(self) -> None:
        self.got.append(self.q.get(timeout=LONG))

    def gets_many(self) -> None:
        self.got += self.q.get_many(False, None, 2)

    def waits(self) -> None:
        """For an item that does not come."""
        with contextlib.suppress(queue.Empty):
            self.got.append(self.q.get(timeout=SHORT))

    def claims(self) -> None:
        with self.q.claimed(timeout=LONG) as item:
            self.held.append(item)
        self.got += self.held
        self.held.clear()

    def joins(self) -> None:
        self.q.join(timeout=SHORT)

    def finishes(self) -> None:
        self.q.task_done()
        self.done += 1
        self.q.join(timeout=SHORT)

    # -- handlers

    def raise_(self) -> None:
        raise Interrupted

    def put_one(self) -> None:
        with contextlib.suppress(queue.Full):
            self.q.put(FROM_HANDLER, timeout=SHORT)
            self.put.append(FROM_HANDLER)

    def get_one(self) -> None:
        """There are more than an act takes, or none."""
        if self.known:
            self.taken.append(self.q.get(timeout=LONG))
        else:
            with contextlib.suppress(queue.Empty):
                self.taken.append(self.q.get(timeout=SHORT))

    def fork(self) -> None:
        self.children.append(os.fork())

    # -- the end

    def tell(self, writer: int) -> None:
        """In a child, once the act has returned, which it was forked in: it goes on as a member of its own."""
        own: list[str] = []
        with contextlib.suppress(queue.Full):
            self.q.put(OF_CHILD, timeout=SHORT)
            own.append(OF_CHILD)
        self.q.close()
        os.write(writer, json.dumps([own, self.got[self.before :]]).encode())

    def rest(self) -> list[Any]:
        return [self.q.get(timeout=LONG) for _ in range(self.q.qsize())]

    def check(self, where: str, interrupted: bool, told: Optional[list[Any]]) -> None:
        """All is there, as often as it should be, and in order; ``told``: what a child has put and got."""
        came = self.rest()
        self.q.put("last")
        came += self.rest()
        order = [*self.put, *self.unsure, "last"]
        got = self.got + self.taken + came
        least = Counter([*self.put, "last"])
        most = least + Counter(self.unsure)
        least -= Counter(self.held)
        if told is not None:
            own, its = told
            least += Counter(own)
            # It goes on with a put, and makes it, too; and with a get that had its items, and returns them.
            most += Counter([*own, *self.put[self.known :], *(item for item in self.got[self.before :] if item in its)])
            got += its
        times = Counter(got)
        found = (
            f"{where}: {self.got}, {self.taken} in a handler, then {came}; a child: {told}; {self.put}, "
            f"perhaps {self.unsure}, held {self.held}"
        )
        assert not (least - times) and not (times - most), found
        if told is None:
            left = len(times | Counter(self.held)) - self.done
            assert left - interrupted <= self.q.stats().unfinished <= left, found
            if not self.held:  # else one comes back
                others = (FROM_HANDLER, OF_ANOTHER)
                one_producers = [item for item in self.got + came if item not in others]
                assert one_producers == sorted(one_producers, key=order.index), found
                waited = [item for item in order if item not in (*self.got[: self.before], *others)]
                places = [waited.index(item) for item in self.taken if item not in others]
                # Before what the act has got, or behind it.
                assert all(place <= len(self.got) - self.before for place in places), found
        self.q.close()
        for other in self.others:
            other._use.engine.close()
        if self.folder is not None:
            shutil.rmtree(self.folder)


ACTS = [
    *(Story.puts, Story.puts_in_vain, Story.puts_many, Story.gets, Story.gets_many),
    *(Story.waits, Story.claims, Story.joins, Story.finishes),
]
HANDLERS = [Story.raise_, Story.put_one, Story.get_one, Story.fork]
KINDS = ["plain", "rolls", "durable", "authkey", "returned", "another's", "freed"]
CASES = list(product((0, 60), (3, 40), (False, True)))
WALKS = [
    pytest.param(act, handler, marks=raised if handler is Story.raise_ else ())
    for act, handler in product(ACTS, HANDLERS)
]


def at(instruction: int, act: Any, handler: Any, case: tuple[str, int, int, bool]) -> bool:
    """The signal comes before that instruction of the act; ``False``: it has not so many."""
    story = Story(act, *case)

    def handle(_: int, frame: Optional[FrameType]) -> None:
        if is_inside(frame):
            handler(story)

    former = signal.signal(SIGNAL, handle)
    reader, writer = os.pipe()
    where, interrupted = f"instruction {instruction} of {act.__name__}, {case}", False
    try:
        try:
            came = signalled_before(instruction, PACKAGE, SIGNAL, functools.partial(act, story))
            if 0 in story.children:
                signal.alarm(60)
                story.tell(writer)
                os._exit(0)
        finally:
            if 0 in story.children:
                traceback.print_exc()
                os._exit(1)
    except Interrupted:
        came = interrupted = True
    finally:
        signal.signal(SIGNAL, former)
        os.close(writer)
        with open(reader, "rb") as lines:
            report = lines.read()
    told = None
    if story.children:
        assert os.waitpid(story.children[0], 0)[1] == 0, f"{where}: a child fails that was forked there"
        told = json.loads(report)
    story.check(where, interrupted, told)
    return came


@pytest.mark.in_turn
@pytest.mark.parametrize(("act", "handler"), WALKS)
def test_a_handler_at_some_instructions_of_an_act_does_no_harm(
    act: Any, handler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose = chooser(f"instructions {act.__name__} {handler.__name__}")
    case = choose.choice(KINDS), *choose.choice(CASES)
    if case[0] == "rolls":
        monkeypatch.setattr(tqshim.engine.tuning, "LIMITS", (16, 64))
    assert at(1, act, handler, case)  # which imports what is imported when it is needed, too
    story = Story(act, *case)
    most = instructions(PACKAGE, functools.partial(act, story))
    story.check("nowhere", False, None)
    came = [at(choose.randrange(1, most), act, handler, case) for _ in range(examples(12))]
    assert any(came), f"it has {most}, or some less"


@pytest.mark.stress
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("act", "handler"), WALKS)
def test_a_handler_at_any_instruction_of_an_act_does_no_harm(
    act: Any, handler: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "rolls":
        monkeypatch.setattr(tqshim.engine.tuning, "LIMITS", (16, 64))
    case = kind, *chooser(f"instructions {act.__name__} {handler.__name__} {kind}").choice(CASES)
    for instruction in count(1):
        if not at(instruction, act, handler, case):
            break
    assert instruction > 50
