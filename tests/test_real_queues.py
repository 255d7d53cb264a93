"""The same programs on the real queues and on ours, and histories of our queues that some order must explain.

Sequential programs agree step by step with ``multiprocessing``'s queues (and ``queue.Queue``), except for rows of
the table of differences: ``DIFFERENCES`` names them.  Concurrent ones are checked by ``programs.recorded``.

Each run tries the same programs, or those of the seed in ``TQSHIM_SEED``, or, where ``CI`` is set, new programs each
time; a test that fails prints the seed.
"""

from __future__ import annotations

import array
import contextlib
import inspect
import io
import itertools
import math
import multiprocessing
import os
import pickle
import queue
import random
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import synchronize
from pathlib import Path
from queue import Full
from typing import Any, NamedTuple, Optional

import pytest
import sampling
from hypothesis import HealthCheck, Phase, given, note, seed, settings
from hypothesis import strategies as st
from programs import histories, lockstep, recorded
from programs.crew import Crew, forget, keep
from programs.recorded import Act, Undecided, contradiction
from programs.things import BadAtLoading, Counting, Unpicklable
from test_equivalence import CONSTANTS

import tqshim
from tqshim import TurboQueue
from tqshim.engine import puts, tuning
from tqshim.engine.engine import Engine
from tqshim.engine.membership import Membership
from tqshim.engine.parts import Parts
from tqshim.engine.replica import Replica
from tqshim.storage.folder import LogFolder
from tqshim.sync import membarrier
from tqshim.sync.cells import AWAITS_DONE

METHODS = multiprocessing.get_all_start_methods()
THEIRS = multiprocessing.get_context()
SEED = int(os.environ.get("TQSHIM_SEED") or (random.SystemRandom().randrange(2**32) if os.environ.get("CI") else 19))
PATIENCE = 20.0
MILLISECOND = 1_000_000
STRESS = [pytest.mark.stress, pytest.mark.timeout(3600)]


@pytest.fixture(autouse=True)
def the_seed_is_told() -> None:
    print(f"these programs again: TQSHIM_SEED={SEED}")


# -- items


class Witness:
    """Unpickles to the name of the thread that has pickled it."""

    def __reduce__(self) -> Any:
        return str, (threading.current_thread().name,)


class HeldUp:
    """Keeps a feeder thread waiting until the gate is open."""

    gate = threading.Event()

    def __reduce__(self) -> Any:
        if threading.current_thread() is not threading.main_thread():
            self.gate.wait(PATIENCE)
        return str, ("held up",)


class Protocol:
    """Unpickles to the protocol with which it was pickled."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        return int, (int(protocol),)


ITEMS: dict[str, Callable[[int], Any]] = {
    "small": lambda number: (number, "x" * (number % 7)),
    "none": lambda number: None,
    "text": lambda number: "\u00e4" * number,
    "nested": lambda number: {"a": [number, {"b": {number}}], "c": (1.5, -(2**70), math.inf)},
    "error": lambda number: ValueError("an item", number),
    "large": lambda number: bytes([number % 256]) * 20_000,
    "huge": lambda number: bytes([number % 256]) * 200_000,
    "buffer": lambda number: bytearray(b"%05d" % number * 300),
    "array": lambda number: array.array("d", [number] * 100),
    "unpicklable": lambda number: Unpicklable(),
    "lambda": lambda number: lambda: number,
    "view": lambda number: memoryview(b"view"),
    "bad": lambda number: BadAtLoading(f"item {number}"),
    "exits": lambda number: Counting(SystemExit(number)),
    "recursive": lambda number: recursive(number),
    "shared": lambda number: ["shared"],
    "twins": lambda number: ["twin"],
    "witness": lambda number: Witness(),
    "held": lambda number: HeldUp(),
    "protocol": lambda number: Protocol(),
    "raw buffer": lambda number: pickle.PickleBuffer(bytearray(b"%05d" % number)),
}
UNPICKLABLE = ("unpicklable", "lambda", "view")
SIZES = {"large": 20_100, "huge": 200_100}
PIPE = 60_000
"""Bytes that a pipe takes, and no more than those."""
LATER = ("witness", "held", "protocol", "raw buffer")
"""Items of the examples alone."""


def recursive(number: int) -> Any:
    made: list[Any] = [number]
    made.append(made)
    return made


class Item(NamedTuple):
    """An item by its description: each side makes its own."""

    kind: str
    number: int


class Call(NamedTuple):
    """One step of a program."""

    method: str
    arguments: tuple[Any, ...] = ()
    keywords: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        shown = [*map(shown_value, self.arguments), *(f"{name}={shown_value(value)}" for name, value in self.keywords)]
        return f"{self.method}({', '.join(shown)})"


def shown_value(value: Any) -> str:
    return repr(value)[:40]


# -- outcomes

NAMES = re.compile(r"<[^<>]*Queue[^<>]*>")
CLASSES = re.compile(r"\b(Joinable|Simple)?(Turbo)?Queue\.")
ADDRESSES = re.compile(r"\bat 0x\w+")


class Side:
    """One of the two queues, and what identity its items have there."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.things: dict[str, Any] = {}
        self.known: list[Any] = []
        self.queue: Any = None
        self.made = self.outcome(lambda: setattr(self, "queue", make()))

    def item(self, item: Item) -> Any:
        """What is shared is one object, however often it is put."""
        if item.kind in ("shared", "twins"):
            thing = self.things.setdefault(item.kind, ITEMS[item.kind](0))
            made: Any = (thing, thing) if item.kind == "twins" else thing
        else:
            made = ITEMS[item.kind](item.number)
        self.plain(made)
        return made

    def outcome(self, call: Callable[[], Any]) -> tuple[str, Any]:
        """The value, as what can be compared, or the exception's type and arguments."""
        try:
            return "value", self.plain(call())
        except (Exception, SystemExit) as error:
            texts = [one.replace("'item'", "'obj'") if isinstance(one, str) else one for one in error.args]
            for pattern, by in ((NAMES, "<queue>"), (CLASSES, "Queue."), (ADDRESSES, "somewhere")):
                texts = [pattern.sub(by, one) if isinstance(one, str) else one for one in texts]
            error.__traceback__ = None  # its frames hold the queue
            return "raised", (type(error), texts)

    def plain(self, value: Any) -> Any:
        """A value with its types, and the identity of what is mutable: which of all objects so far it is."""
        if isinstance(value, (list, bytearray, array.array, dict, set)):
            for number, known in enumerate(self.known):
                if known is value:
                    return "the same as", number
            self.known.append(value)
        name = type(value).__name__
        if isinstance(value, dict):
            return name, [(self.plain(key), self.plain(one)) for key, one in value.items()]
        if isinstance(value, (list, tuple)):
            return name, [self.plain(one) for one in value]
        if isinstance(value, BaseException):
            return name, self.plain(value.args)
        if isinstance(value, (int, float, str, bytes, bytearray, set, array.array, type(None))):
            return name, value if not isinstance(value, bytearray) else bytes(value)
        return name


# -- programs

ODD: list[Any] = [math.nan, math.inf, 1e30, 10**400, "x", []]
"""Timeouts that are no time, or longer than a clock counts."""
TIMEOUTS: list[Any] = [None, 0, 0.0, -1, -0.5, -math.inf, 0.001, 5, True, *ODD]
EXTRAS = ("put_many", "put_many_nowait", "get_many", "get_many_nowait", "shutdown", "drain", "stats", "claimed")


class Difference(NamedTuple):
    """A row of the table, by the first words of its first cell, and whether a step shows it."""

    row: str
    shows: Callable[[Any, Call, Any, Any], bool]


def timeout_of(call: Call) -> Any:
    """The timeout that is given, or ``None``; ``ValueError`` for a call that no signature fits."""
    if call.method not in ("put", "get"):
        return None
    return bound(call)[1]


def bound(call: Call) -> tuple[bool, Any]:
    """``block`` and ``timeout`` of a put or a get.  Raises ``TypeError`` where the arguments fit no signature."""
    if call.method.endswith("_nowait"):
        return False, None
    given = inspect.signature(getattr(TurboQueue, call.method)).bind(None, *call.arguments, **dict(call.keywords))
    given.apply_defaults()
    return bool(given.arguments["block"]), given.arguments["timeout"]


def is_odd(call: Call) -> bool:
    try:
        timeout = timeout_of(call)
    except TypeError:
        return False
    return isinstance(timeout, (str, list)) or (timeout is not None and not -math.inf <= timeout < 1e20)


def put_item(call: Call) -> Optional[str]:
    """The kind of the item that a call puts."""
    for one in (*call.arguments, *dict(call.keywords).values()):
        if isinstance(one, Item):
            return one.kind
    return None


def raised(outcome: Any, *kinds: type[BaseException]) -> bool:
    return outcome[0] == "raised" and issubclass(outcome[1][0], kinds)


NOTHING = ("value", ("NoneType", None))
YES, NO = ("value", ("bool", True)), ("value", ("bool", False))
CLOSED = ("raised", (OSError, ["handle is closed"]))
OVERDONE = ("raised", (ValueError, ["task_done() called too many times"]))


def unpicklable(run: Any, call: Call, outcome: Any) -> bool:
    """The call raised what pickling its item by itself raises."""
    kind = put_item(call)
    return kind in UNPICKLABLE and outcome == run.ours.outcome(lambda: pickle.dumps(ITEMS[kind](0), 5))


def no_time(call: Call, theirs: Any, ours: Any) -> bool:
    """Ours raised the type that theirs raised, or says what is wrong where theirs says ``Invalid argument``."""
    if not (is_odd(call) and raised(theirs, OSError, OverflowError, ValueError, TypeError)):
        return False
    block, timeout = bound(call)
    if call.method == "get" and not block and ours == ("raised", (queue.Empty, [])):  # it did not look at it
        return theirs[1][0] is OverflowError
    kind = theirs[1][0]
    if kind is OSError:
        kind = OverflowError if timeout == timeout else ValueError
    says = {
        ValueError: r"timeout is not a number \(NaN\)",
        OverflowError: r"timeout is too large: wait for less than \d+ seconds, or for ever \(None\)",
        TypeError: rf".*\b{type(timeout).__name__}\b.*",
    }[kind]
    return bool(ours[0] == "raised" and ours[1][0] is kind and re.fullmatch(says, *ours[1][1]))


def lacks(outcome: Any, name: str) -> bool:
    """It raised that there is no such attribute."""
    return raised(outcome, AttributeError) and f"object has no attribute {name!r}" in outcome[1][1][0]


DIFFERENCES = [
    Difference(
        "a call that is wrong in two ways",
        lambda run, call, theirs, ours: (
            (run.full() and raised(theirs, queue.Full) and unpicklable(run, call, ours))
            or (is_odd(call) and raised(theirs, OSError, OverflowError, TypeError) and unpicklable(run, call, ours))
            or (run.kind == "SimpleQueue" and run.closed and unpicklable(run, call, theirs) and ours == CLOSED)
        ),
    ),
    Difference(
        "when an item is pickled",
        lambda run, call, theirs, ours: (
            theirs == ("value", ("str", "QueueFeederThread"))
            and ours == ("value", ("str", threading.main_thread().name))
        ),
    ),
    Difference(
        "an item that can't be pickled",
        lambda run, call, theirs, ours: theirs == NOTHING and unpicklable(run, call, ours),
    ),
    Difference(
        "an item that can't be pickled",  # there it counts as unfinished, and its feeder thread was started
        lambda run, call, theirs, ours: (
            (run.overdone and theirs == NOTHING and ours == OVERDONE)
            or (
                call.method == "empty"
                and (run.closed and run.has_dropped and not run.has_put)
                and theirs == CLOSED
                and ours == ("value", ("bool", True))
            )
        ),
    ),
    Difference(
        "the pickle protocol",
        lambda run, call, theirs, ours: (
            (theirs == ("value", ("int", run.protocol)) and ours == ("value", ("int", 5)))
            or (
                (run.protocol < 5 and put_item(call) == "raw buffer")
                and (raised(theirs, pickle.PicklingError) and ours == NOTHING)
            )
            or (run.one_more and call.method == "empty" and (theirs, ours) == (YES, NO))
        ),
    ),
    Difference(
        "after `put` returns",
        lambda run, call, theirs, ours: (
            run.held
            and (
                (call.method == "empty" and (theirs, ours) == (YES, NO))
                or (raised(theirs, queue.Empty) and ours == ("value", ("str", "held up")))
            )
        ),
    ),
    Difference(
        "`maxsize`",
        lambda run, call, theirs, ours: (
            call.method == "made"
            and call.arguments[0] > synchronize.SEM_VALUE_MAX
            and raised(theirs, OSError, OverflowError, ValueError)
            and ours == NOTHING
        ),
    ),
    Difference(
        "`qsize()`",
        lambda run, call, theirs, ours: (
            call.method == "qsize"
            and raised(theirs, NotImplementedError)
            and ours == ("value", ("int", len(run.waiting)))
        ),
    ),
    Difference("a timeout that is no time", lambda run, call, theirs, ours: no_time(call, theirs, ours)),
    Difference(
        "what an exception says",
        lambda run, call, theirs, ours: (
            run.closed and theirs == CLOSED and ours == ("raised", (OSError, ["Queue <queue> is closed"]))
        ),
    ),
    Difference(
        "inside",
        lambda run, call, theirs, ours: call.method.startswith("_") and theirs == NOTHING and lacks(ours, call.method),
    ),
    Difference(
        "a handle travels",
        lambda run, call, theirs, ours: call.method == "pickled" and raised(theirs, RuntimeError) and ours == NOTHING,
    ),
    Difference(
        "threads",
        lambda run, call, theirs, ours: (
            call.method == "threads" and theirs[1][1] == [("str", "QueueFeederThread")] and ours[1][1] == []
        ),
    ),
    Difference(
        "extras",
        lambda run, call, theirs, ours: call.method in EXTRAS[:4] and lacks(theirs, call.method) and ours == NOTHING,
    ),
    Difference(
        "more extras",
        lambda run, call, theirs, ours: (
            (call.method in EXTRAS[4:7] and lacks(theirs, call.method) and ours == NOTHING)
            or (run.shut and raised(theirs, queue.Empty) and ours == ("raised", (tqshim.ShutDown, [])))
            or (call.method == "join" and theirs == NOTHING and ours == YES)
            or (
                call.method == "join"
                and ("timeout" in dict(call.keywords))
                and raised(theirs, TypeError)
                and ours == run.all_done()
            )
        ),
    ),
    Difference(
        "at least once",
        lambda run, call, theirs, ours: call.method == "claimed" and lacks(theirs, call.method) and ours == NOTHING,
    ),
    Difference(
        "`SimpleQueue`: `put` without a reader",
        lambda run, call, theirs, ours: run.kind == "SimpleQueue" and theirs[0] == "waits" and ours == NOTHING,
    ),
]


class Run:
    """A program on a real queue and on ours."""

    def __init__(self, kind: str, maxsize: int) -> None:
        self.kind = kind
        self.maxsize = maxsize
        self.steps: list[str] = []
        self.shown: set[str] = set()
        self.closed = self.held = self.shut = False
        self.has_put = self.has_dropped = False
        """Whether the real queue has ever been given an item that could be pickled, and one that could not."""
        self.one_more = False
        """Ours has an item that the real queue could not pickle."""
        self.waiting: deque[int] = deque()
        """Bytes of each item in the real queue."""
        self.unfinished = self.dropped = 0
        """Of the real queue; and how many of those it could not pickle, which ours does not count."""
        self.overdone = False
        """Nothing was unfinished in ours at this ``task_done``."""
        self.protocol = pickle.DEFAULT_PROTOCOL
        size = () if kind == "SimpleQueue" else (maxsize,)
        self.theirs = Side(lambda: getattr(THEIRS, kind)(*size))
        self.ours = Side(lambda: getattr(tqshim, kind)(*size))
        self.compare(Call("made", size), self.theirs.made, self.ours.made)

    def compare(self, call: Call, theirs: Any, ours: Any) -> None:
        self.steps.append(f"{call}: {shown_value(theirs)}")
        if theirs == ours and not self.overdone:
            return
        for difference in DIFFERENCES:
            if difference.shows(self, call, theirs, ours):
                self.shown.add(difference.row)
                return
        told = "\n".join(self.steps)
        raise AssertionError(f"{self.kind}({self.maxsize}):\n{told}\ntheirs: {theirs!r:.2000}\nours:   {ours!r:.2000}")

    def step(self, call: Call) -> None:
        if self.would_wait(call) or self.parts_company(call):
            return
        outcomes = []
        for side in (self.theirs, self.ours):
            work = self.work(side, call)
            with contextlib.redirect_stderr(io.StringIO()):  # where the feeder prints what it can't pickle
                outcomes.append(("waits", None) if side is self.ours and self.hangs(call) else side.outcome(work))
                if side is self.theirs:
                    self.note(call, outcomes[0])
                    self.settle()
        self.compare(call, *outcomes)

    def work(self, side: Side, call: Call) -> Callable[[], Any]:
        given = [side.item(one) if isinstance(one, Item) else one for one in call.arguments]
        named = {name: side.item(one) if isinstance(one, Item) else one for name, one in call.keywords}
        if call.method == "change":
            return lambda: [thing.append(len(thing)) for thing in side.things.values()] and None
        if call.method == "release":
            return HeldUp.gate.set
        if call.method == "pickled":
            return lambda: pickle.loads(pickle.dumps(side.queue)).close()
        if call.method == "threads":
            theirs = getattr(side.queue, "_thread", None)
            return lambda: [one.name for one in threading.enumerate() if one is theirs]
        if call.method.startswith("_"):
            return lambda: type(getattr(side.queue, call.method)) and None
        return lambda: (getattr(side.queue, call.method)(*given, **named), None)[call.method in EXTRAS]

    def would_wait(self, call: Call) -> bool:
        """For ever, or longer than a test should."""
        name = call.method
        if name == "join" and not call.keywords:
            return self.unfinished > 0
        if name in ("close", "change"):  # the feeder can't go on before somebody reads
            return sum(self.waiting) > PIPE or self.held
        if name.startswith("put") and put_item(call) in UNPICKLABLE and sum(self.waiting) > PIPE:
            return True  # neither does it come to this item
        if self.kind == "SimpleQueue":
            size = SIZES.get(put_item(call) or "", 2000)
            return (name == "get" and not self.waiting) or (name == "put" and sum(self.waiting) + size > PIPE)
        if self.closed or not ((name == "put" and self.full()) or (name == "get" and not self.waiting)):
            return False
        try:
            block, timeout = bound(call)
        except TypeError:
            return False
        return block and (timeout is None or (not is_odd(call) and timeout > 0.01))

    def parts_company(self, call: Call) -> bool:
        """Ours gets an item where theirs raises, since it does not look at a timeout that it does not need."""
        with contextlib.suppress(TypeError):
            return call.method == "get" and bool(self.waiting) and is_odd(call) and not bound(call)[0]
        return False

    def hangs(self, call: Call) -> bool:
        """Theirs had an item, or a place, and ours has none."""
        ours = self.ours.queue
        if self.closed or call.method not in ("put", "get"):
            return False
        with contextlib.suppress(TypeError):
            block, timeout = (True, None) if self.kind == "SimpleQueue" else bound(call)
            if block and (timeout is None or (not is_odd(call) and timeout > 0.01)):
                return bool(ours.empty() if call.method == "get" else self.kind != "SimpleQueue" and ours.full())
        return False

    def full(self) -> bool:
        return 0 < self.maxsize <= len(self.waiting)

    def note(self, call: Call, outcome: Any) -> None:
        """What the step has made of the real queue."""
        name, kind = call.method, put_item(call)
        self.one_more |= kind == "raw buffer" and self.protocol < 5
        self.overdone = name == "task_done" and outcome == NOTHING and self.unfinished == self.dropped
        if name in ("put", "put_nowait") and outcome == NOTHING:
            self.unfinished += 1
            if kind in UNPICKLABLE:
                self.has_dropped = True
                self.dropped += 1
            elif kind != "raw buffer" or self.protocol >= 5:
                self.has_put = True
                self.waiting.append(SIZES.get(str(kind), 2000))
                self.held |= kind == "held"
        elif name in ("get", "get_nowait") and not self.closed and self.waiting and not self.still_there(outcome):
            self.waiting.popleft()
        elif name == "task_done" and outcome == NOTHING:
            self.unfinished -= 1
            self.dropped -= self.overdone
        elif name == "close":
            self.closed = True
        elif name == "shutdown":
            self.shut = True
        elif name == "release":
            self.held = False

    def all_done(self) -> tuple[str, Any]:
        """What ours says of its items."""
        return YES if self.unfinished == self.dropped else NO

    def still_there(self, outcome: Any) -> bool:
        """The get took nothing: its arguments were refused, or it found nothing."""
        if outcome[0] == "value":
            return False
        kind, said = outcome[1]
        return not (kind is SystemExit or (kind is ValueError and "can't be loaded" in str(said)))

    def settle(self) -> None:
        """Wait until the feeder thread has written what was put, or dropped it."""
        real = self.theirs.queue
        if self.held or self.kind == "SimpleQueue" or real is None:
            return
        deadline = time.monotonic() + PATIENCE
        if self.closed:
            if real._thread is not None:
                real._thread.join(PATIENCE)
            return
        while True:
            left = len(self.waiting)
            counted = sys.platform == "darwin" or real.qsize() == left
            idle = sum(self.waiting) > PIPE or real._thread is None or (not real._buffer and real._notempty._waiters)
            if counted and idle and real.empty() == (left == 0):
                return
            assert time.monotonic() < deadline, f"the real queue has not {left} items: {self.steps}"
            time.sleep(0.00002)

    def end(self) -> None:
        """Both queues have the same items to the end."""
        HeldUp.gate.set()
        try:
            if self.held:
                self.held = False
                self.settle()
            if self.theirs.queue is not None and not self.closed:
                while self.waiting:
                    self.step(Call("get"))
                if self.kind != "SimpleQueue":
                    self.step(Call("get_nowait"))
                self.step(Call("empty"))
        finally:
            HeldUp.gate.clear()
            for side in (self.theirs, self.ours):
                if side.queue is not None:
                    if side is self.theirs and self.waiting and not self.closed and self.kind != "SimpleQueue":
                        side.queue.cancel_join_thread()
                    side.queue.close()
            self.closed = True


def run_program(kind: str, maxsize: int, program: list[Call]) -> Run:
    """What it came to, to the end."""
    run = Run(kind, maxsize)
    try:
        for call in program:
            if run.theirs.queue is not None:
                run.step(call)
    except BaseException:
        with contextlib.suppress(AssertionError):
            run.end()
        raise
    run.end()
    return run


def forms(
    block: Any, timeout: Any, put: bool
) -> st.SearchStrategy[tuple[tuple[Any, ...], tuple[tuple[str, Any], ...]]]:
    """Ways to say the same, and some that say nothing."""
    wrong = [((block, timeout, 1), ()), ((), (("bogus", 1),)), ((block,), (("block", block),))]
    right = [
        ((), ()),
        ((block,), ()),
        ((block, timeout), ()),
        ((block,), (("timeout", timeout),)),
        ((), (("block", block),)),
        ((), (("timeout", timeout),)),
        ((), (("timeout", timeout), ("block", block))),
    ]
    return st.sampled_from([*right * 4, *wrong])  # type: ignore[arg-type]


KINDS_OF_ITEMS = [kind for kind in ITEMS if kind not in LATER]


@st.composite
def calls(draw: Any, kind: str, items: list[str], timeouts: list[Any], more: list[Call]) -> Call:
    way = draw(st.sampled_from(["put", "put", "put", "get", "get", "look", "look", "more"]))
    if way == "look" or (way == "more" and not more):
        return Call(draw(st.sampled_from(["empty"] if kind == "SimpleQueue" else ["qsize", "empty", "full"])))
    if way == "more":
        return draw(st.sampled_from(more))  # type: ignore[no-any-return]
    method = way if kind == "SimpleQueue" else draw(st.sampled_from([way, way, f"{way}_nowait"]))
    arguments: tuple[Any, ...] = ()
    keywords: tuple[tuple[str, Any], ...] = ()
    if kind != "SimpleQueue" and method == way:
        block = draw(st.sampled_from([True, False, 1, 0]))
        arguments, keywords = draw(forms(block, draw(st.sampled_from(timeouts)), way == "put"))
    if way == "put":
        item = Item(draw(st.sampled_from(items)), draw(st.integers(0, 99)))
        if not arguments and kind != "threads" and draw(st.booleans()):  # theirs calls it ``item``
            keywords = (*keywords, ("obj", item))
        elif arguments or draw(st.integers(0, 30)) != 7:  # sometimes there is none
            arguments = (item, *arguments)
    return Call(method, arguments, keywords)


ENDING = [Call("close"), Call("join_thread"), Call("cancel_join_thread"), Call("change")]
COUNTING = [Call("task_done"), Call("task_done"), Call("join")]
MORE = {
    "Queue": ENDING,
    "JoinableQueue": [*ENDING, *COUNTING * 2],
    "SimpleQueue": [Call("close"), Call("change"), Call("change")],
}


def programs(kind: str) -> st.SearchStrategy[list[Call]]:
    step = calls(kind, KINDS_OF_ITEMS, TIMEOUTS, MORE[kind])
    return st.lists(step, max_size=25)


def many(check: Callable[[int, list[Call]], int], examples: int, bounds: list[int], programs: Any) -> None:
    """So many programs of the seed, and no fewer; ``check`` says how many steps it has compared."""
    compared = []

    def counted(maxsize: int, program: list[Call]) -> None:
        compared.append(check(maxsize, program))

    decide = settings(
        max_examples=examples,
        deadline=None,
        derandomize=False,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
        # To shrink a program that waits takes many minutes, and a long run knows enough without.
        phases=[Phase.generate] if examples > 1000 else [Phase.generate, Phase.shrink],
    )
    seed(SEED)(decide(given(st.sampled_from(bounds), programs)(counted)))()
    assert len(compared) >= examples
    assert sum(compared) >= 3 * examples, "steps that nobody can compare are left out, but not most"


EXAMPLES = [sampling.examples(60), pytest.param(1000, marks=sampling.REST), pytest.param(8000, marks=STRESS)]


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize("kind", list(MORE))
def test_a_program_comes_to_the_same_on_a_real_queue(kind: str, examples: int) -> None:

    def check(maxsize: int, program: list[Call]) -> int:
        note(f"{kind}({maxsize}): {'; '.join(map(str, program))}")
        return len(run_program(kind, maxsize, program).steps)

    many(check, examples, [0, 1, 2, 3, -1, 7], programs(kind))


SMALL, SECOND = Call("put", (Item("small", 0),)), Call("put", (Item("small", 1),))
SHOWING: list[tuple[str, str, int, list[Call]]] = [
    ("when an item is pickled", "Queue", 0, [Call("put", (Item("witness", 0),)), Call("get")]),
    *[
        ("an item that can't be pickled", kind, 1, [Call("put", (Item(item, 0),)), Call("qsize"), SECOND, Call("get")])
        for kind in ("Queue", "JoinableQueue")
        for item in UNPICKLABLE
    ],
    ("an item that can't be pickled", "JoinableQueue", 0, [Call("put", (Item("view", 0),)), Call("task_done")]),
    ("an item that can't be pickled", "Queue", 0, [Call("put", (Item("view", 0),)), Call("close"), Call("empty")]),
    ("a call that is wrong in two ways", "Queue", 1, [SMALL, Call("put", (Item("view", 0), True, 0.01))]),
    ("a call that is wrong in two ways", "Queue", 1, [SMALL, Call("put", (Item("view", 0), True, math.nan))]),
    ("a call that is wrong in two ways", "SimpleQueue", 0, [Call("close"), Call("put", (Item("view", 0),))]),
    ("the pickle protocol", "Queue", 0, [Call("put", (Item("protocol", 0),)), Call("get")]),
    ("the pickle protocol", "SimpleQueue", 0, [Call("put", (Item("raw buffer", 0),))]),
    ("after `put` returns", "Queue", 0, [Call("put", (Item("held", 0),)), Call("empty"), Call("release"), Call("get")]),
    ("`maxsize`", "Queue", 2**31, []),
    ("a timeout that is no time", "Queue", 1, [Call("get", (True, math.nan))]),
    ("a timeout that is no time", "Queue", 1, [SMALL, Call("put", (Item("small", 1), True, math.nan))]),
    ("a timeout that is no time", "Queue", 1, [Call("get", (False, 10**400))]),
    ("what an exception says", "Queue", 0, [SMALL, Call("close"), Call("empty")]),
    *[("inside", "Queue", 0, [Call(name)]) for name in ("_reader", "_writer", "_rlock", "_wlock", "_sem", "_buffer")],
    ("a handle travels", "Queue", 0, [Call("pickled")]),
    ("a handle travels", "SimpleQueue", 0, [Call("pickled")]),
    ("threads", "Queue", 0, [SMALL, Call("threads")]),
    ("extras", "Queue", 0, [Call("put_many", ([],)), Call("put_many_nowait", ([],))]),
    ("more extras", "JoinableQueue", 0, [Call("join", (), (("timeout", 0),)), Call("drain"), Call("stats")]),
    ("more extras", "JoinableQueue", 0, [Call("join")]),
    ("more extras", "Queue", 0, [Call("shutdown")]),
    ("at least once", "Queue", 0, [Call("claimed")]),
]


@pytest.mark.parametrize("row, kind, maxsize, program", SHOWING, ids=lambda value: str(value)[:24])
def test_a_program_shows_the_difference(row: str, kind: str, maxsize: int, program: list[Call]) -> None:
    if row == "the pickle protocol" and pickle.DEFAULT_PROTOCOL >= 5:
        pytest.skip("from 3.14 on it is the same")
    assert row in run_program(kind, maxsize, program).shown


def test_a_simple_queue_whose_pipe_is_full_shows_the_difference() -> None:
    run = Run("SimpleQueue", 0)
    item = b"x" * 200_000
    putting = threading.Thread(target=run.theirs.queue.put, args=(item,), daemon=True)
    putting.start()
    putting.join(0.2)
    outcome = ("waits" if putting.is_alive() else "value", ("NoneType", None))
    run.compare(Call("put", (item,)), outcome, run.ours.outcome(lambda: run.ours.queue.put(item)))
    assert run.shown == {"`SimpleQueue`: `put` without a reader"}
    assert run.theirs.queue.get() == run.ours.queue.get() == item
    putting.join(PATIENCE)
    run.end()


class Uncounted:
    """A semaphore that can't say how often it may be acquired, as on macOS."""

    def __init__(self, real: Any) -> None:
        self.real = real
        self._semlock = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def get_value(self) -> int:
        raise NotImplementedError

    _get_value = get_value  # before 3.14


def test_a_queue_that_can_not_count_shows_the_difference() -> None:
    run = Run("Queue", 0)
    run.step(SMALL)
    real = run.theirs.queue
    real._sem = Uncounted(real._sem)
    run.compare(Call("qsize"), run.theirs.outcome(real.qsize), run.ours.outcome(run.ours.queue.qsize))
    real._sem = real._sem.real
    assert run.shown == {"`qsize()`"}
    run.end()


def test_each_difference_is_shown() -> None:
    """One that no program shows is to be taken out of ``DIFFERENCES``; that each is a row, ``test_readme`` tests."""
    shown = {row for row, *_ in SHOWING} | {"`SimpleQueue`: `put` without a reader", "`qsize()`"}
    assert {difference.row for difference in DIFFERENCES} == shown


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*arguments: Any, **keywords: Any) -> None:
        raise error

    return fail


VIEW = Call("put", (Item("view", 0),))
FAULTS: list[tuple[str, str, Callable[..., Any], list[Call]]] = [
    ("Queue", "qsize", lambda: 7, [SMALL, Call("qsize")]),
    ("Queue", "empty", lambda: None, [Call("empty")]),
    ("Queue", "empty", lambda: False, [SECOND, Call("get"), Call("empty")]),
    ("Queue", "full", lambda: 1, [Call("full")]),
    ("Queue", "get", lambda *a, **k: bytearray(b"1"), [SMALL, Call("get")]),
    ("Queue", "get_nowait", raising(tqshim.ShutDown()), [Call("get_nowait")]),
    ("Queue", "get_nowait", raising(tqshim.ShutDown()), [SMALL, Call("get_nowait")]),
    ("Queue", "get", raising(ValueError("nonsense")), [Call("get", (True, math.nan))]),
    ("Queue", "get", raising(OverflowError("no time")), [Call("get", (True, "x"))]),
    ("Queue", "get", raising(TypeError("no time")), [Call("get", (True, "x"))]),
    ("Queue", "get", raising(TypeError("int")), [Call("get", (True, 1e30))]),
    ("Queue", "get", raising(queue.Empty()), [Call("get", (False, "x"))]),
    ("Queue", "put", raising(ValueError("timeout is too large")), [SMALL, SECOND._replace(arguments=(1, True, 1e30))]),
    ("Queue", "put", raising(AttributeError("no such thing")), [VIEW]),
    ("Queue", "put", raising(TypeError("no such thing")), [SMALL, Call("put", (*VIEW.arguments, True, math.nan))]),
    ("Queue", "put_nowait", raising(TypeError("no such thing")), [SMALL, Call("put_nowait", VIEW.arguments)]),
    ("SimpleQueue", "put", raising(OSError("nonsense")), [Call("close"), VIEW]),
    ("Queue", "empty", raising(IsADirectoryError("Queue <Queue> is closed")), [SMALL, Call("close"), Call("empty")]),
    ("Queue", "empty", raising(OSError("what an exception says")), [SMALL, Call("close"), Call("empty")]),
    ("Queue", "empty", lambda: True, [SMALL, Call("close"), Call("empty")]),
    ("Queue", "empty", lambda: False, [VIEW, Call("close"), Call("empty")]),
    ("JoinableQueue", "task_done", raising(ValueError(*OVERDONE[1][1])), [VIEW, SMALL, Call("task_done")]),
    ("JoinableQueue", "task_done", raising(ValueError("nonsense")), [VIEW, Call("task_done")]),
    ("JoinableQueue", "task_done", lambda: None, [VIEW, Call("task_done")]),
    ("JoinableQueue", "join", lambda **k: True, [SMALL, Call("join", (), (("timeout", 0),))]),
    ("JoinableQueue", "join", lambda **k: False, [VIEW, Call("join", (), (("timeout", 0),))]),
    ("Queue", "drain", raising(OSError("nonsense")), [Call("drain")]),
    ("Queue", "put_many", raising(OSError("nonsense")), [Call("put_many", ([],))]),
    ("Queue", "claimed", raising(OSError("nonsense")), [Call("claimed")]),
]
"""A kind of queue, a method of ours that is wrong, how, and a program that must find out."""


@pytest.mark.parametrize("kind, method, wrong, program", FAULTS, ids=lambda value: str(value)[:24])
def test_a_difference_that_no_row_explains_fails(
    kind: str, method: str, wrong: Callable[..., Any], program: list[Call]
) -> None:
    run = Run(kind, 1)
    setattr(run.ours.queue, method, wrong)
    with pytest.raises(AssertionError, match="theirs: "):
        for call in program:
            run.step(call)
    delattr(run.ours.queue, method)
    with contextlib.suppress(AssertionError):
        run.end()


# -- queue.Queue


SHUTDOWN = hasattr(queue, "ShutDown")  # from Python 3.13 on
IN_THREADS = [
    *COUNTING,
    *([Call("shutdown"), Call("shutdown", (True,)), Call("shutdown", (), (("immediate", False),))] if SHUTDOWN else []),
]


def run_beside_threads(maxsize: int, program: list[Call]) -> int:
    """How many steps came to the same."""
    theirs: queue.Queue[Any] = queue.Queue(maxsize)
    real, ours = Side(lambda: theirs), Side(lambda: tqshim.JoinableQueue(maxsize))
    told = []
    for call in program:
        over = getattr(theirs, "is_shutdown", False)
        if call.method == "join" and theirs.unfinished_tasks:
            continue
        if not over and ((call.method == "put" and theirs.full()) or (call.method == "get" and theirs.empty())):
            with contextlib.suppress(TypeError):
                block, timeout = bound(call)
                if block and (timeout is None or timeout > 0.01):
                    continue
        outcomes = []
        for side, one in ((real, theirs), (ours, ours.queue)):
            given = [side.item(value) if isinstance(value, Item) else value for value in call.arguments]
            named = {name: side.item(value) if isinstance(value, Item) else value for name, value in call.keywords}
            outcomes.append(
                side.outcome(
                    lambda one=one, given=given, named=named, name=call.method: one_call(one, name, given, named)
                )
            )
        told.append(f"{call}: {shown_value(outcomes[0])}")
        assert outcomes[0] == outcomes[1], "\n".join(told)
    ours.queue.close()
    return len(told)


def one_call(q: Any, method: str, given: list[Any], named: dict[str, Any]) -> Any:
    value = getattr(q, method)(*given, **named)
    return None if method == "join" else value  # ours says whether all items are done


@pytest.mark.parametrize(
    "examples",
    [sampling.examples(150), pytest.param(2000, marks=sampling.REST), pytest.param(4000, marks=STRESS)],
)
def test_a_program_comes_to_the_same_on_a_queue_for_threads(examples: int) -> None:
    """But for negative timeouts, which ``queue.Queue`` refuses, and for pickling, which it does not do."""

    def check(maxsize: int, program: list[Call]) -> int:
        note(f"({maxsize}): {'; '.join(map(str, program))}")
        return run_beside_threads(maxsize, program)

    step = calls("threads", ["small", "none", "text", "large"], [None, 0, 0.001, 5], IN_THREADS)
    many(check, examples, [0, 1, 2, 3, -1], st.lists(step, max_size=30))


# -- histories

UNTOUCHED = {name: getattr(tuning, name) for name in CONSTANTS}


class Kind(NamedTuple):
    """A kind of queue that histories are of."""

    name: str
    make: Callable[..., Any]
    real: bool = False

    def bound(self, told: str) -> int:
        """The bound of the queue of these histories.  A real ``JoinableQueue`` counts an item at one moment, and takes
        its place at another: it has none."""
        if self.name == "SimpleQueue" or (self.real and self.name == "JoinableQueue"):
            return 0
        return random.Random(f"{told} bound").choice([0, 0, 1, 2, 3, 6])

    def made(self, told: str) -> Any:
        return self.make() if self.name == "SimpleQueue" else self.make(self.bound(told))

    def owes(self, chosen: dict[str, Any]) -> tuple[int, bool]:
        """What order, and whether what was put is there: see ``contradiction``."""
        if self.real:
            return (0, False) if self.name == "SimpleQueue" else (recorded.LATER, True)
        return chosen.get("MARK_EVERY", UNTOUCHED["MARK_EVERY"]), False


OURS = {name: Kind(name, getattr(tqshim, name)) for name in MORE}
REAL = {name: Kind(name, getattr(THEIRS, name), real=True) for name in MORE}
LOOKS = {"Queue": recorded.LOOKS, "JoinableQueue": recorded.LOOKS, "SimpleQueue": ("empty",)}
NOT_COUNTED = ("empty", "full")
"""What can be asked of a real ``JoinableQueue``, and, on macOS, of each."""
History = tuple[list[Act], int, int]


def ended(working: list[Callable[[], bool]], q: Any, kind: Kind) -> list[Act]:
    """What we have done until nobody works any more: who waits for an item gets one, who joins finds all done."""
    acts: list[Act] = []
    begin = time.monotonic()
    while any(works() for works in working):
        assert time.monotonic() < begin + recorded.PATIENCE, "somebody hangs"
        time.sleep(0.001)
        if time.monotonic() < begin + 0.015 or kind.name == "Queue":
            continue  # they may yet do without us
        if kind.name == "SimpleQueue":
            acts.append(recorded.act(q, 0, 8, "put", ((0, 8, len(acts)),)))
        else:
            acts += taken(q, 0.001)
            acts.append(recorded.act(q, 0, 8, "task_done"))
            if acts[-1].kind == "raised":
                acts.pop()  # nothing is as it was before, and we ask often
    return acts


def taken(q: Any, timeout: float) -> list[Act]:
    found = recorded.act(q, 0, 8, "get", (True, timeout))
    return [found] if found.kind == "value" else []


def emptied(acts: list[Act], q: Any, kind: Kind) -> list[Act]:
    """What there was to get when nobody did anything any more, and what is said of an empty queue."""
    put = sum(one.method.startswith("put") and one.kind == "value" for one in acts)
    left = put - sum(one.method.startswith("get") and one.kind == "value" for one in acts)
    found: list[Act] = []
    if kind.name == "SimpleQueue":
        found.append(recorded.act(q, 0, 8, "empty"))
        while found[-1].result is False:
            assert len(found) < 1000, "the queue does not end"
            found += [recorded.act(q, 0, 8, "get"), recorded.act(q, 0, 8, "empty")]
        return found
    if kind.real:  # its feeder threads may be at work
        for number in range(left):
            found += taken(q, PATIENCE)
            assert len(found) == number + 1, f"{left - number} items have not come"
    found.append(recorded.act(q, 0, 8, "get_nowait"))
    while found[-1].result != "Empty":
        assert len(found) < 1000, "the queue does not end"
        found.append(recorded.act(q, 0, 8, "get_nowait"))
    if not (kind.real and (kind.name == "JoinableQueue" or sys.platform == "darwin")):
        found.append(recorded.act(q, 0, 8, "qsize"))
    if kind.name == "JoinableQueue":
        for _ in range(1000):
            found.append(recorded.act(q, 0, 8, "task_done"))
            if found[-1].kind == "raised":
                return [*found, recorded.act(q, 0, 8, "join")]
        raise AssertionError("the items are never done")
    return found


class Turn(NamedTuple):
    """One history's program."""

    before: list[tuple[int, int, int]]
    """What is put first."""
    scripts: list[list[list[recorded.Step]]]
    """Of the threads of each process; this one is the first."""
    closes: list[bool]
    """Which processes close their handle behind them."""


def program(told: str, name: str, rounds: int, most: int) -> list[Turn]:
    """What two to six threads do in this process and others, at most so many, on the queue of that name."""
    choose = random.Random(told)
    actors = choose.randint(2, 6)
    others = choose.randint(1, min(actors, most)) if most else 0
    threads = [0 if most and choose.random() < 0.5 else 1] + [1] * others
    while sum(threads) < actors:
        threads[choose.randrange(len(threads))] += 1
    turns = []
    for turn in range(rounds):
        before = [(0, 9, number) for number in range(choose.randint(0, 4))]
        scripts = [
            [recorded.script(choose, process, actor, choose.randint(2, 8), name, LOOKS[name]) for actor in range(count)]
            for process, count in enumerate(threads)
        ]
        ends = [process > 0 and turn == rounds - 1 and choose.random() < 0.5 for process in range(len(threads))]
        turns.append(Turn(before, scripts, ends))
    return turns


def askable(scripts: list[list[recorded.Step]], kind: Kind) -> list[list[recorded.Step]]:
    """Without looks that this kind of queue has no answer to."""
    if not (kind.real and (kind.name == "JoinableQueue" or sys.platform == "darwin")):
        return scripts
    return [[step for step in script if step[0] not in recorded.LOOKS or step[0] in NOT_COUNTED] for script in scripts]


def concurrent(
    crew: Optional[Crew], told: str, rounds: int, kind: Kind = OURS["Queue"], most: int = 6
) -> list[History]:
    """Histories of one queue: the acts of its ``program``, its bound, what order it owes.

    As the checker has decided them; it gives some up.  ``told``: the seed of all choices.  ``crew``: who the other
    processes are, which have a real queue that is kept as ``told``; ``None``: there are none."""
    maxsize = kind.bound(told)
    choose = random.Random(f"{told} constants")
    chosen: dict[str, Any] = {}
    if choose.random() < 0.6 and not kind.real:
        chosen = {name: choose.choice(values) for name, values in CONSTANTS.items()}
        chosen["MARK_EVERY"] = choose.choice([0, UNTOUCHED["MARK_EVERY"]])
    slack, late = kind.owes(chosen)
    turns = program(told, kind.name, rounds, most if crew is not None else 0)
    threads = list(map(len, turns[0].scripts))
    others = len(threads) - 1
    found = []
    name = told if kind.real else "queue"
    try:
        lockstep.configure(chosen)
        q: Any = crew.kept[told] if kind.real and crew is not None else kind.made(told)
        for worker in range(others):
            assert crew is not None
            crew.call(worker, lockstep.configure, chosen)
            if not kind.real:
                crew.call(worker, keep, name, q)
        for number, turn in enumerate(turns):
            scripts = [askable(one, kind) for one in turn.scripts]
            way = "put" if kind.name == "SimpleQueue" else "put_nowait"
            acts = [recorded.act(q, 0, 9, way, (item,)) for item in turn.before]
            at = time.monotonic_ns() + (2 * MILLISECOND if others else 0)
            for worker in range(others):
                assert crew is not None
                process = worker + 1
                crew.start(worker, recorded.perform, name, process, scripts[process], at, turn.closes[process])
            acts += beside(crew, others, q, scripts[0], at, kind)
            acts += emptied(acts, q, kind)
            try:
                wrong = contradiction(acts, maxsize, slack, late)
            except Undecided:
                continue
            assert wrong is None, f"TQSHIM_SEED={SEED}, {told!r}, round {number}, threads {threads}, {chosen}:\n{wrong}"
            found.append((acts, maxsize, slack))
        return found
    finally:
        lockstep.configure(UNTOUCHED)
        for worker in range(others):
            assert crew is not None
            crew.call(worker, lockstep.configure, UNTOUCHED)
            if not kind.real:
                crew.call(worker, forget)


def beside(
    crew: Optional[Crew], others: int, q: Any, scripts: list[list[recorded.Step]], at: int, kind: Kind
) -> list[Act]:
    """What we do beside the workers, and what they have done."""
    mine: list[Act] = []
    if kind.name == "Queue":  # nobody waits for ever
        mine = recorded.perform(q, 0, scripts, at) if scripts else []
    else:
        here = threading.Thread(target=lambda: mine.extend(recorded.perform(q, 0, scripts or [[]], at)), daemon=True)
        here.start()
        working = [here.is_alive]
        for worker in range(others):
            assert crew is not None
            working.append(lambda pipe=crew.workers[worker][1]: not pipe.poll())  # type: ignore[misc]
        helped = ended(working, q, kind)
        here.join()
        mine += helped
    if crew is not None:
        mine += [one for theirs in crew.results(range(others)) for one in theirs]
    return mine


ROUNDS = 5
THREADS = "threads"
"""In the place of a start method: there is no other process."""


def decided(crew: Optional[Crew], where: str, numbers: range, kind: Kind = OURS["Queue"], most: int = 6) -> None:
    """Histories of the queues of those numbers, of which the checker may give up one in a hundred, or one."""
    names = seeds(kind, where, numbers)
    total = len(names) * ROUNDS
    count = sum(len(concurrent(crew, name, ROUNDS, kind, most)) for name in names)
    print(f"{count} histories of {total} are decided: {names[0]} and on")
    assert total - count <= max(1, total // 100), f"TQSHIM_SEED={SEED}: make these histories smaller"


def seeds(kind: Kind, where: str, numbers: range) -> list[str]:
    """The seeds of the queues of those numbers, which are the same for a real queue and for ours."""
    return [f"{SEED} {kind.name} {where} {number}" for number in numbers]


@pytest.mark.parametrize(
    "method, queues, most",
    [
        ("fork", 25, 6),
        ("spawn", 4, 2),
        ("forkserver", 4, 2),
        pytest.param("fork", 200, 6, marks=sampling.REST),
        pytest.param("spawn", 40, 6, marks=sampling.REST),
        pytest.param("forkserver", 40, 6, marks=sampling.REST),
        pytest.param("fork", 800, 6, marks=STRESS),
        pytest.param("spawn", 100, 6, marks=STRESS),
        pytest.param("forkserver", 100, 6, marks=STRESS),
    ],
)
def test_some_order_explains_what_processes_and_threads_saw(crews: Any, method: str, queues: int, most: int) -> None:
    if method not in METHODS:
        pytest.skip(f"there is no {method} here")
    decided(crews(method, most), method, range(queues), most=most)


@pytest.mark.parametrize("queues", [20, pytest.param(200, marks=sampling.REST), pytest.param(1000, marks=STRESS)])
def test_some_order_explains_what_threads_saw(queues: int) -> None:
    decided(None, THREADS, range(queues))


def cases(names: Sequence[str], quick: Sequence[str]) -> list[Any]:
    """Parameters ``name``, ``where``, ``queues`` and ``most``: in the default run for threads, forks and those."""
    made = []
    for name, where in itertools.product(names, (THREADS, *METHODS)):
        fast = where in (THREADS, "fork")
        if fast or where in quick:
            made.append(pytest.param(name, where, *((5, 4) if fast else (2, 2))))
        made.append(pytest.param(name, where, 80 if fast else 40, 6, marks=sampling.REST))
        made.append(pytest.param(name, where, 400 if fast else 100, 6, marks=STRESS))
    return made


PORTION = 40
"""Real queues that a process is given when it starts: a fork server passes on so many descriptors and not many more."""


def explained(crews: Any, kind: Kind, where: str, queues: int, most: int) -> None:
    """What threads, and up to so many other processes, see of so many queues."""
    if where == THREADS:
        decided(None, where, range(queues), kind)
        return
    if not kind.real:
        decided(crews(where, most), where, range(queues), kind, most)
        return
    context = multiprocessing.get_context(where)
    kind = kind._replace(make=getattr(context, kind.name))
    for first in range(0, queues, PORTION):
        numbers = range(first, min(first + PORTION, queues))
        crew = Crew(where, {name: kind.made(name) for name in seeds(kind, where, numbers)})
        try:
            crew.grow(most)
            decided(crew, where, numbers, kind, most)
        finally:
            crew.close()


@pytest.mark.parametrize(("name", "where", "queues", "most"), cases(["JoinableQueue", "SimpleQueue"], METHODS))
def test_some_order_explains_what_was_seen_of_other_kinds(
    crews: Any, name: str, where: str, queues: int, most: int
) -> None:
    explained(crews, OURS[name], where, queues, most)


@pytest.mark.parametrize(("name", "where", "queues", "most"), cases(list(REAL), []))
def test_some_order_explains_what_was_seen_of_real_queues(
    crews: Any, name: str, where: str, queues: int, most: int
) -> None:
    """So the scripts are those of programs that work there, and the checker asks for no more than there is."""
    explained(crews, REAL[name], where, queues, most)


@pytest.mark.parametrize("name", list(REAL))
def test_histories_of_a_real_queue_and_of_ours_are_of_the_same_programs(
    crews: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for looks that the real one has no answer to."""
    places = [where for where in (THREADS, "fork") if where in (THREADS, *METHODS)]
    found: list[list[Any]] = []

    def noted(acts: list[Act], *_: Any) -> None:
        done = [(one.process, one.actor, one.method, one.arguments) for one in acts if one.actor != 8]
        found[-1].append(sorted(it for it in done if it[2] not in recorded.LOOKS or it[2] in NOT_COUNTED))

    monkeypatch.setattr(sys.modules[__name__], "contradiction", noted)
    for kind in (OURS[name], REAL[name]):
        found.append([])
        for where in places:
            explained(crews, kind, where, 2, 4)
    ours, theirs = found
    assert ours == theirs and len(ours) == 2 * ROUNDS * len(places)
    assert all(ours) and len({repr(one) for one in ours}) > ROUNDS


# -- the checker


def one(begin: int, end: int, who: str, method: str, item: Any = None, result: Any = None) -> Act:
    """An act of process and actor ``who``; a result that is the word for an exception was raised."""
    process, actor = map(int, who.split("."))
    kind = "raised" if result in ("Empty", "Full", "too many", "closed") else "value"
    return Act(begin, end, process, actor, method, () if item is None else (item,), kind, result)


A, B, C = "a", "b", "c"
RIGHT: dict[str, tuple[int, list[Act]]] = {
    "nothing": (0, []),
    "in turn": (2, [one(0, 1, "1.0", "put", A), one(2, 3, "1.0", "put", B), one(4, 5, "2.0", "get", None, A),
                    one(6, 7, "2.0", "get", None, B), one(8, 9, "2.0", "get", None, "Empty")]),
    "Empty beside a put": (0, [one(0, 5, "1.0", "put", A), one(1, 2, "2.0", "get", None, "Empty"),
                               one(6, 7, "2.0", "get", None, A)]),
    "Full beside a get": (1, [one(0, 1, "1.0", "put", A), one(2, 9, "2.0", "get", None, A),
                              one(3, 4, "1.0", "put", B, "Full")]),
    "puts beside each other, either order": (0, [one(0, 5, "1.0", "put", A), one(1, 4, "2.0", "put", B),
                                                 one(6, 7, "2.0", "get", None, A), one(8, 9, "2.0", "get", None, B)]),
    "gets beside each other": (0, [one(0, 1, "1.0", "put", A), one(2, 3, "1.0", "put", B),
                                   one(4, 9, "1.0", "get", None, B), one(5, 8, "2.0", "get", None, A)]),
    "a get that waits for its put": (0, [one(0, 9, "2.0", "get", None, A), one(3, 4, "1.0", "put", A)]),
    "a put that waits for its place": (1, [one(0, 1, "1.0", "put", A), one(2, 9, "1.0", "put", B),
                                           one(3, 4, "2.0", "get", None, A), one(10, 11, "2.0", "get", None, B)]),
    "sizes": (2, [one(0, 1, "1.0", "put", A), one(2, 3, "2.0", "qsize", None, 1), one(4, 5, "2.0", "full", None, False),
                  one(6, 7, "2.0", "empty", None, False)]),
    "other processes' items within the slack": (0, [one(0, 1, "1.0", "put", A), one(50, 51, "2.0", "put", B),
                                                    one(60, 61, "3.0", "get", None, B),
                                                    one(62, 63, "3.0", "get", None, A)]),
    "joins": (0, [one(0, 1, "1.0", "task_done", None, "too many"), one(2, 3, "1.0", "join"),
                  one(4, 5, "1.0", "put", A), one(6, 20, "2.0", "join"), one(7, 8, "2.1", "get", None, A),
                  one(9, 15, "2.1", "task_done"), one(16, 17, "1.0", "task_done", None, "too many")]),
    "a task_done of what is still there": (0, [one(0, 1, "1.0", "put", A), one(2, 3, "1.0", "task_done"),
                                               one(4, 5, "1.0", "join"), one(6, 7, "1.0", "get", None, A)]),
    "closed": (0, [one(0, 1, "1.0", "put", A), one(2, 3, "1.0", "close"), one(4, 5, "1.0", "put", B, "closed"),
                   one(6, 7, "2.0", "get", None, A)]),
}  # fmt: skip
LATE: dict[str, tuple[int, list[Act]]] = {
    "Empty and empty": (0, [one(0, 1, "1.0", "put", A), one(2, 3, "1.0", "empty", None, True),
                            one(4, 5, "2.0", "get", None, "Empty"), one(6, 7, "2.0", "get", None, A)]),
    "other processes' items whenever": (0, [one(0, 1, "1.0", "put", A), one(10**9, 10**9 + 1, "2.0", "put", B),
                                            one(2 * 10**9, 2 * 10**9 + 1, "3.0", "get", None, B),
                                            one(3 * 10**9, 3 * 10**9 + 1, "3.0", "get", None, A)]),
    "threads that put at once": (2, [one(0, 9, "1.0", "put", A), one(1, 2, "2.0", "qsize", None, 1),
                                     one(3, 4, "1.1", "put", B), one(10, 11, "2.0", "get", None, B),
                                     one(12, 13, "2.0", "get", None, A)]),
}  # fmt: skip
"""What only a real queue may do, whose feeder threads are late."""
STILL_WRONG = ("doubled", "lost", "from nowhere", "before its put", "reordered", "reordered, threads of one process",
               "unjustified Full", "beyond the bound", "a size that never was", "full though it is not",
               "a task_done too many", "a join too early", "used when it was closed")  # fmt: skip
"""What that allows no queue to do."""
WRONG: dict[str, tuple[int, list[Act]]] = {
    "doubled": (0, [one(0, 1, "1.0", "put", A), one(2, 5, "1.0", "get", None, A), one(3, 4, "2.0", "get", None, A)]),
    "lost": (0, [one(0, 1, "1.0", "put", A), one(2, 3, "1.0", "put", B), one(4, 5, "2.0", "get", None, B),
                 one(6, 7, "2.0", "get", None, "Empty")]),
    "from nowhere": (0, [one(0, 1, "1.0", "put", A), one(2, 3, "2.0", "get", None, C)]),
    "before its put": (0, [one(0, 1, "2.0", "get", None, A), one(2, 3, "1.0", "put", A)]),
    "reordered": (0, [one(0, 1, "1.0", "put", A), one(2, 3, "1.0", "put", B), one(4, 5, "2.0", "get", None, B),
                      one(6, 7, "2.0", "get", None, A)]),
    "reordered, threads of one process": (0, [one(0, 1, "1.0", "put", A), one(2, 3, "1.1", "put", B),
                                              one(4, 5, "2.0", "get", None, B), one(6, 7, "2.0", "get", None, A)]),
    "reordered, seen by two": (0, [one(0, 1, "1.0", "put", A), one(2, 3, "1.0", "put", B),
                                   one(4, 5, "2.0", "get", None, B), one(6, 7, "3.0", "get", None, A)]),
    "other processes' items beyond the slack": (0, [one(0, 1, "1.0", "put", A), one(150, 151, "2.0", "put", B),
                                                    one(160, 161, "3.0", "get", None, B),
                                                    one(162, 163, "3.0", "get", None, A)]),
    "unjustified Empty": (0, [one(0, 1, "1.0", "put", A), one(2, 3, "2.0", "get", None, "Empty"),
                              one(4, 5, "2.0", "get", None, A)]),
    "unjustified Empty beside gets": (0, [one(0, 1, "1.0", "put", A), one(0, 1, "1.1", "put", B),
                                          one(2, 9, "2.0", "get", None, A), one(3, 8, "3.0", "get", None, "Empty"),
                                          one(10, 11, "2.0", "get", None, B)]),
    "unjustified Full": (2, [one(0, 1, "1.0", "put", A), one(2, 3, "1.0", "put", B, "Full")]),
    "Full without a bound": (0, [one(0, 1, "1.0", "put", A, "Full")]),
    "beyond the bound": (1, [one(0, 1, "1.0", "put", A), one(2, 3, "2.0", "put", B), one(4, 5, "1.0", "get", None, A),
                             one(6, 7, "1.0", "get", None, B)]),
    "beyond the bound, beside each other": (1, [one(0, 5, "1.0", "put", A), one(1, 6, "2.0", "put", B),
                                                one(7, 8, "1.0", "get", None, A), one(9, 10, "1.0", "get", None, B)]),
    "a size that never was": (0, [one(0, 1, "1.0", "put", A), one(2, 3, "2.0", "qsize", None, 2)]),
    "empty though it is not": (0, [one(0, 1, "1.0", "put", A), one(2, 3, "2.0", "empty", None, True)]),
    "full though it is not": (2, [one(0, 1, "1.0", "put", A), one(2, 3, "2.0", "full", None, True)]),
    "another exception": (0, [one(0, 1, "1.0", "put", A)._replace(kind="raised", result="OSError()")]),
    "another method's exception": (1, [one(0, 1, "1.0", "put", A), one(2, 3, "1.0", "get", None, "Full")]),
    "damaged": (0, [one(0, 1, "1.0", "put", (1, 0, 0, 9)),
                    one(2, 3, "1.0", "get", None, recorded.received((1, 0, 0, b"123456789")))]),
    "a task_done too many": (0, [one(0, 1, "1.0", "put", A), one(2, 3, "1.0", "task_done"),
                                 one(4, 5, "2.0", "task_done")]),
    "a task_done that was none too many": (0, [one(0, 1, "1.0", "put", A),
                                               one(2, 3, "1.0", "task_done", None, "too many")]),
    "a join too early": (0, [one(0, 1, "1.0", "put", A), one(2, 5, "2.0", "join"), one(6, 7, "1.0", "task_done")]),
    "used when it was closed": (0, [one(0, 1, "1.0", "close"), one(2, 3, "1.0", "put", A)]),
    "closed by nobody": (0, [one(0, 1, "1.0", "put", A, "closed")]),
    "closed by another": (0, [one(0, 1, "2.0", "close"), one(2, 3, "1.0", "put", A, "closed")]),
}  # fmt: skip


@pytest.mark.parametrize("name", list(RIGHT))
def test_the_checker_finds_the_order(name: str) -> None:
    maxsize, acts = RIGHT[name]
    assert contradiction(acts, maxsize, 100) is None


@pytest.mark.parametrize("name", list(WRONG))
def test_the_checker_finds_the_fault(name: str) -> None:
    maxsize, acts = WRONG[name]
    assert contradiction(acts, maxsize, 100) is not None


@pytest.mark.parametrize("name", list(LATE))
def test_the_checker_allows_a_real_queue_what_it_forbids_ours(name: str) -> None:
    maxsize, acts = LATE[name]
    assert contradiction(acts, maxsize, recorded.LATER, late=True) is None
    assert contradiction(acts, maxsize, 100) is not None


@pytest.mark.parametrize("name", list(RIGHT))
def test_what_is_right_for_ours_is_right_for_a_real_queue(name: str) -> None:
    maxsize, acts = RIGHT[name]
    assert contradiction(acts, maxsize, recorded.LATER, late=True) is None


@pytest.mark.parametrize("name", STILL_WRONG)
def test_the_checker_finds_the_fault_of_a_real_queue(name: str) -> None:
    maxsize, acts = WRONG[name]
    assert contradiction(acts, maxsize, recorded.LATER, late=True) is not None


def planted(fault: str, acts: list[Act], choose: random.Random) -> Optional[list[Act]]:
    """A history with a fault in it; ``None``: there is no place for one."""
    gets = sorted(one for one in acts if one.method.startswith("get") and one.kind == "value")
    drained = [one for one in gets if one.actor == 8]
    places = list(acts)

    def changed(which: Act, **to: Any) -> None:
        places[places.index(which)] = which._replace(**to)

    if fault == "doubled" and len(gets) > 1:
        first, second = choose.sample(gets, 2)
        changed(first, result=second.result)
    elif fault == "lost" and gets:
        places.remove(choose.choice(gets))
    elif fault == "reordered":
        pairs = [
            (old, new)
            for old in gets
            for new in gets
            if old.end < new.begin and old.result[:2] == new.result[:2] and old.result[2] < new.result[2]
        ]
        if not pairs:
            return None
        old, new = choose.choice(pairs)
        changed(old, result=new.result)
        changed(new, result=old.result)
    elif fault == "Empty" and drained:
        begin = choose.choice(drained).begin - 1
        places.append(Act(begin, begin, 7, 0, "get_nowait", (), "raised", "Empty"))
    elif fault == "Full":
        end = max(one.end for one in acts)
        places.append(Act(end + 1, end + 2, 7, 0, "put_nowait", ((7, 0, 0),), "raised", "Full"))
    elif fault == "qsize":
        looks = [one for one in acts if one.method == "qsize"]
        changed(choose.choice(looks), result=50)
    else:
        return None
    return places


@pytest.mark.in_turn
@pytest.mark.parametrize("fault", ["doubled", "lost", "reordered", "Empty", "Full", "qsize"])
def test_a_fault_that_is_planted_in_a_history_is_found(fault: str) -> None:
    choose = random.Random(f"{SEED} {fault}")
    tried = 0
    for number in range(40):
        for acts, maxsize, slack in concurrent(None, f"{SEED} {fault} {number}", 2):
            wrong = planted(fault, acts, choose)
            if wrong is not None:
                with contextlib.suppress(Undecided):
                    assert contradiction(wrong, maxsize, slack) is not None, "\n".join(map(str, sorted(wrong)))
                    tried += 1
    assert tried >= 10


class Broken(queue.Queue):  # type: ignore[type-arg]
    """Does one thing wrong, now and then."""

    fault = ""
    choose: random.Random
    """One for all queues: with some seeds none of its first numbers is small, and each queue asks for few."""

    def errs(self, fault: str) -> bool:
        return self.fault == fault and self.choose.random() < 0.2

    def put(self, item: Any, block: bool = True, timeout: Optional[float] = None) -> None:
        if self.errs("lost"):
            return
        if self.errs("Full"):
            raise queue.Full
        if self.errs("bound"):
            with self.mutex:
                self._put(item)
            return
        super().put(item, block, timeout)
        if self.errs("doubled"):
            with self.mutex:
                self._put(item)

    def get(self, block: bool = True, timeout: Optional[float] = None) -> Any:
        if self.errs("Empty"):
            raise queue.Empty
        item = super().get(block, timeout)
        return (*item[:3], item[3][:-1] + b"!") if self.fault == "damaged" and len(item) == 4 else item

    def _get(self) -> Any:
        return self.queue.pop() if self.errs("reordered") else self.queue.popleft()

    def qsize(self) -> int:
        return super().qsize() + self.errs("qsize")

    def task_done(self) -> None:
        if not self.errs("not counted"):
            super().task_done()

    def join(self) -> None:
        if not self.errs("joined"):
            super().join()


@pytest.mark.parametrize(
    "fault",
    ["", "lost", "doubled", "reordered", "Empty", "Full", "bound", "qsize", "damaged", "not counted", "joined"],
)
def test_a_queue_that_does_one_thing_wrong_is_found_out(fault: str) -> None:
    """And one that does nothing wrong is not."""
    kind = type("Kind", (Broken,), {"fault": fault, "choose": random.Random(SEED)})

    def run_all() -> None:
        # With some seeds few of these programs ask for what is wrong; the first that finds it ends this.
        for number in range(500 if fault else 20):
            name = "JoinableQueue" if fault in ("not counted", "joined") else "Queue"
            concurrent(None, f"{SEED} broken {number}", ROUNDS, Kind(name, kind))

    if not fault:
        run_all()
    else:
        with pytest.raises(AssertionError, match=r"no order explains|does not end|from nowhere"):
            run_all()


# -- what histories have found


@pytest.mark.parametrize("waiting", [1, 4])
@pytest.mark.parametrize("method", ["qsize", "empty", "get_nowait"])
def test_a_look_is_of_one_moment(crews: Any, monkeypatch: pytest.MonkeyPatch, method: str, waiting: int) -> None:
    """While we look another process puts an item, and then gets one: there is never one less than before."""
    q: Any = TurboQueue()
    for number in range(waiting):
        q.put(number)
    crew = crews("fork", 1)
    crew.call(0, keep, "queue", q)
    assert crew.call(0, histories.act, "queue", "qsize") == waiting
    sync, meanwhile = Replica.sync, [True]

    def look(self: Replica) -> None:
        if meanwhile and self is q._engine.parts.replica:
            meanwhile.clear()
            crew.call(0, histories.act, "queue", "put", "late")
            assert crew.call(0, histories.act, "queue", "get_nowait") == 0
        sync(self)

    monkeypatch.setattr(Replica, "sync", look)
    right = {"qsize": (waiting, waiting + 1), "empty": (False,), "get_nowait": ("late", 1)}
    assert getattr(q, method)() in right[method]
    assert not meanwhile
    monkeypatch.undo()
    crew.forget()


def test_no_join_ends_before_what_was_put_before_it_is_done(crews: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between our ``task_done``'s look at what is put, and its event, another process puts an item and joins."""
    q: Any = tqshim.JoinableQueue()
    crew = crews("fork", 1)
    crew.call(0, keep, "queue", q)
    q.put("first")
    assert q.get() == "first"
    append, meanwhile = Replica.append, [True]

    def appending(self: Replica, *arguments: Any) -> Any:
        if meanwhile and self is q._engine.parts.replica:
            meanwhile.clear()
            crew.start(0, histories.put_and_join, "queue", "second", 0.5)
            deadline = time.monotonic() + PATIENCE
            while not somebody_joins():
                assert time.monotonic() < deadline
                time.sleep(0.001)
        return append(self, *arguments)

    def somebody_joins() -> bool:
        return bool(q._engine.parts.members.cells.sleepers(AWAITS_DONE))

    monkeypatch.setattr(Replica, "append", appending)
    q.task_done()
    monkeypatch.undo()
    assert not meanwhile
    assert crew.result(0) is False, "it has not been got yet"
    assert q.get() == "second"
    q.task_done()
    assert q.join(timeout=0) is True
    crew.forget()


def test_places_that_another_has_just_told_of_are_taken(crews: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The items that our lease has delivered keep their places until somebody says so: we are about to, and another
    process, which gets an item, is faster."""
    if not (tuning.LEASES and membarrier.barrier_works()):
        pytest.skip("there are no leases here")
    q: Any = TurboQueue(10)
    crew = crews("fork", 1)
    crew.call(0, keep, "queue", q)
    for number in range(10):
        q.put(number)
    assert [q.get_nowait(), q.get_nowait()] == [0, 1]
    make_room, passed, meanwhile = Parts.make_room, Membership.passed, [False]

    def making_room(self: Parts) -> bool:
        meanwhile[0] = True
        return make_room(self)

    def passing(self: Membership) -> tuple[bytes, int]:
        found = passed(self)
        if meanwhile[0] and found[0]:
            meanwhile[0] = False
            assert crew.call(0, histories.act, "queue", "get_nowait") == 2
            told.append(found)
        return found

    told: list[Any] = []
    monkeypatch.setattr(Parts, "make_room", making_room)
    monkeypatch.setattr(Membership, "passed", passing)
    q.put_many_nowait([10, 11])
    assert told, "the way has changed: nobody is told"
    assert q.get_many_nowait() == [*range(3, 12)]
    crew.forget()


@pytest.fixture
def two_producers(tmp_path: Path) -> Iterator[tuple[Any, Engine]]:
    """A queue of six places, which two engines have put an item into, and the other of them."""
    if not (tuning.RESERVATIONS and tuning.SHORT_WAYS and membarrier.barrier_works()):
        pytest.skip("nobody reserves places here")
    q: Any = TurboQueue(6, path=tmp_path / "queue")
    other = Engine(LogFolder.meet(q._engine.folder.path))
    for put in (lambda: q.put(0), lambda: other.put(b"N.", False, None)):
        put()
    yield q, other
    other.close()
    q.close()


def reserve(engine: Engine) -> None:
    engine.act(engine.parts.replica.sync)
    assert engine.act(engine.parts.producer._has_place)


def trim(engine: Engine, whose: Engine) -> None:
    """That engine ends the other's reservation."""
    slot = whose.parts.producer.slot
    assert slot is not None
    engine.act(engine.parts.replica.sync)
    assert engine.act(engine.parts.producer.trim, slot)


def test_places_that_others_reserve_and_do_not_use_make_nothing_full(
    two_producers: tuple[Any, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They had reserved them at each look of a put, and again just after it had ended that; and let them go then."""
    q, other = two_producers
    reserve(other)
    real, looks = puts.put_once, []

    def put_once(engine: Engine, records: list[Any], again: bool) -> int:
        put = real(engine, records, again)
        if engine is q._engine and not looks:
            looks.append(put)
            trim(other, other)
            engine.parts.replica.sync()  # as another thread of ours may
        return put

    def make_room(self: Parts) -> bool:
        made = making(self)
        if made and not looks:
            reserve(other)
        return made

    making = Parts.make_room
    monkeypatch.setattr(puts, "put_once", put_once)
    monkeypatch.setattr(Parts, "make_room", make_room)
    q.put_nowait(1)
    assert looks[0] == 0, "the way has changed: there was a place at once"
    assert q.qsize() == 3


def test_what_makes_a_queue_full_is_in_it(two_producers: tuple[Any, Engine]) -> None:
    """A thread of ours has stored a record by the short way just as another process ended our reservation."""
    q, other = two_producers
    engine = q._engine
    reserve(engine)
    engine.act(engine.parts.producer._limit)
    trim(other, engine)
    total = engine.parts.producer.log.put(b"N.")
    assert total > 0, "it is to ask whether that is put"
    for _ in range(3):
        assert other.put(b"N.", False, None)
    trim(other, other)
    with pytest.raises(Full):  # with it six are there
        q.put_nowait(bytes(70_000))  # which takes the long way
    assert not other.put(b"N.", False, None), "nobody takes its place"
    assert engine.has_put(total) and q.qsize() == 6
