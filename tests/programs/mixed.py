"""Three processes use one queue, and their acts are interrupted at random; the program prints its counts as JSON.

Usage: python -m programs.mixed ACTS MAXSIZE SEED HOW [claims] [joinable] [durable] [authkey] [rolls] [nested]

HOW says how an act is interrupted, comma-separated: ``lines``, by an exception at a random line of the package, or
where a handler runs after that line; ``calls``, by an exception just after a random call there, where the interpreter
looks for signals; ``timer``, by the handler of a timer's signal; ``use``, by a handler that itself puts into the queue
and gets from it, and returns.

With ``nested`` the acts of a handler are interrupted, too, by a handler of the same kind.

Each process puts, gets, looks, claims (with ``claims``), and forks children that put and get a few items and leave.  In
between it opens and closes files of its own, whose descriptors must stay its own.

What is checked: an item whose put has returned arrives once; an item whose put was interrupted arrives once, or not at
all; each consumer gets the items of a producer in the order of their puts, except as many as have come back; a block of
``claimed`` has an item again only where the end of its first block was not reached; no file of the program's own was
touched; the queue goes on working, and nothing is left.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import json
import multiprocessing
import os
import pickle
import queue
import random
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from types import CodeType, FrameType
from typing import Any, Callable, NamedTuple, Optional

from interrupting import PACKAGE, interrupt

import tqshim.engine.tuning
import tqshim.protocol.figures
from tqshim import JoinableTurboQueue, TurboQueue
from tqshim.queues.claims import Claim
from tqshim.runtime import late

_LATE = "queues.buffers engine.durable engine.keyed engine.keys storage.corrupt storage.hardening storage.large_records"
for _room in _LATE.split():
    # Now, as the figures: some Pythons' own imports fail when a handler interrupts them that imports, too, and a
    # callback of all of them swallows what it raises there.
    late.room(_room)

WORKERS = 3
LIKELY = 0.3
"""With this probability an act is interrupted; with twice as much the first ones of a child."""
ENOUGH = 400
"""Items in the queue from which a process would rather get than put."""
FILES = 12
NEVER = sys.maxsize
"""The end of a get beyond which others are not ordered."""
HANGS = 150.0
"""Seconds after which a child must hang."""


class Interrupt(BaseException):
    """Like KeyboardInterrupt, no Exception."""


class Custom(Exception):
    """What a program's own handler may raise; a timeout, say."""


class Put(NamedTuple):
    """One item."""

    begin: int
    end: int
    """Ticks of its process between which it was put."""
    state: str
    """``sure``, ``unsure``: interrupted, ``refused``."""
    act: int
    place: int
    """Among those of one ``put_many``."""


class Account:
    """What one process knows of its items."""

    def __init__(self, who: int) -> None:
        self.who = who
        self.puts: dict[int, Put] = {}
        self.got: dict[int, list[tuple[int, int, list[tuple[int, int]]]]] = {}
        """By how many engines are interrupted, each of which is a consumer of its own: the gets, as the ticks between
        which each was made (or ``NEVER``), and its items."""
        self.had: list[tuple[int, int]] = []
        """Those of blocks whose end was interrupted, though the block had ended well."""
        self.done = [0, 0]
        """``task_done`` that have returned, and that were interrupted."""
        self.errors: list[str] = []
        self.hits: Counter[str] = Counter()
        self.descriptors = 0

    def write(self, folder: str) -> None:
        with open(os.path.join(folder, f"account_{self.who}"), "wb") as out:
            pickle.dump(self, out)


class Interrupter:
    """Interrupts acts of one process."""

    def __init__(self, how: list[str], choose: random.Random, use: Callable[[], None]) -> None:
        self.how = how
        self.choose = choose
        self.use = use
        self.armed = ""
        self.hits: Counter[str] = Counter()
        self.where = ""
        self.returned: Optional[FrameType] = None
        inside = {Claim.__enter__.__code__, Claim.__exit__.__code__}
        for name, method in vars(TurboQueue).items():
            if not name.startswith("__") and hasattr(method, "__code__"):
                inside.add(method.__code__)
        inside |= {JoinableTurboQueue.task_done.__code__, JoinableTurboQueue.join.__code__}
        self.inside: set[CodeType] = inside
        signal.signal(signal.SIGALRM, self.handle)

    def arm(self) -> None:
        how = self.choose.choice(self.how)
        if how == "timer" or (how == "use" and self.choose.random() < 0.5):
            self.arm_timer(how)
        else:
            self.armed, self.raises = how, how != "use"
            self.left = self.choose.randrange(1, self.choose.choice([8, 40, 150, 400]))
            sys.settrace(self.trace_calls if how == "calls" else self.trace_lines)

    def arm_timer(self, how: str = "") -> None:
        self.armed = how or self.choose.choice(["timer", "use"])
        self.raises = self.armed != "use"
        longest = self.choose.choice([1e-4, 1e-3, 5e-3, 2e-2])
        signal.setitimer(signal.ITIMER_REAL, longest * self.choose.random() + 1e-6)

    def disarm(self) -> None:
        self.armed = ""
        sys.settrace(None)
        signal.setitimer(signal.ITIMER_REAL, 0)

    def hit(self, frame: Optional[FrameType]) -> None:
        how, self.armed = self.armed, ""
        self.hits[how] += 1
        if frame is not None:
            self.where = f"{how} {os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"
        if self.raises:
            raise Custom if self.choose.random() < 0.3 else Interrupt
        self.use()

    def handle(self, number: int, frame: Optional[FrameType]) -> None:
        if self.armed and self.in_a_call(frame):
            self.hit(frame)

    def in_a_call(self, frame: Optional[FrameType]) -> bool:
        """A queue's method is under way: only there an exception says something about the queue."""
        while frame is not None and frame.f_code is not self.use.__code__:
            if frame.f_code in self.inside:
                return True
            frame = frame.f_back
        return False

    def trace_lines(self, frame: FrameType, event: str, argument: Any) -> Optional[Callable[..., Any]]:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            self.left -= 1
            if not self.left:
                return interrupt(frame, signal.SIGALRM)  # a queue asks whether a handler has raised
        return self.trace_lines

    def trace_calls(self, frame: FrameType, event: str, argument: Any) -> Optional[Callable[..., Any]]:
        if event == "return":
            # No signal handler runs between what a function written in Python returns and its caller's next step.
            self.returned = frame.f_back
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return self.trace_calls
        frame.f_trace_opcodes = True
        if event != "opcode":
            return self.trace_calls
        returned, self.returned = self.returned, None
        if frame is not returned and frame.f_lasti in after_calls(frame.f_code):
            self.left -= 1
            if not self.left:
                sys.settrace(None)
                self.handle(signal.SIGALRM, frame)
                return None
        return self.trace_calls


@functools.lru_cache(None)
def after_calls(code: CodeType) -> frozenset[int]:
    """Where instructions begin before which a signal handler may run: where one follows a call,
    and is guarded as it is."""

    def guard(offset: int) -> Any:
        return next((entry.target for entry in table if entry.start <= offset < entry.end), None)

    table = dis._parse_exception_table(code)  # type: ignore[attr-defined]
    found = []
    before: Optional[dis.Instruction] = None
    for here in dis.get_instructions(code):
        called = before is not None and before.opname in ("CALL", "CALL_FUNCTION_EX", "CALL_KW", "RESUME")
        if called and before is not None and guard(before.offset) == guard(here.offset):
            found.append(here.offset)
        before = here
    return frozenset(found)


class OwnFiles:
    """Files of the program's own: nobody else writes to them, or closes them."""

    def __init__(self, folder: str, choose: random.Random) -> None:
        self.folder = folder
        self.choose = choose
        self.files: list[tuple[int, int, bytes]] = []
        self.made = 0

    def use(self) -> None:
        """Open one, or close one."""
        if len(self.files) < FILES and self.choose.random() < 0.6:
            self.made += 1
            path = os.path.join(self.folder, f"own_{os.getpid()}_{self.made}")
            content = os.urandom(16)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(fd, content)
            os.unlink(path)
            self.files.append((fd, os.fstat(fd).st_ino, content))
        elif self.files:
            self.close(self.choose.randrange(len(self.files)))

    def close(self, at: int) -> None:
        fd, inode, content = self.files.pop(at)
        try:
            found = os.fstat(fd)
            if found.st_ino != inode or found.st_size != len(content) or os.pread(fd, 32, 0) != content:
                raise AssertionError(f"somebody has written to descriptor {fd}, or it is another file: {found}")
        except OSError:
            raise AssertionError(f"somebody has closed descriptor {fd}") from None
        os.close(fd)

    def close_all(self) -> None:
        while self.files:
            self.close(-1)

    def forget(self) -> None:
        """In a forked child: they are the parent's, whose numbers may be used here again."""
        while self.files:
            os.close(self.files.pop()[0])


class Worker:
    """One process that uses the queue."""

    def __init__(self, q: Any, who: int, seed: int, folder: str, how: list[str], words: list[str]) -> None:
        self.q = q
        self.folder = folder
        self.claims = "claims" in words
        self.joinable = "joinable" in words
        self.nested = "nested" in words
        self.maxsize: int = q._maxsize
        self.children = 0
        self.depth = 0
        self.tick = self.number = self.acts = 0
        self.broken_off = 0
        """The tick at which the last get of a handler was interrupted: what it had taken comes back after what the get
        takes that the handler has interrupted."""
        self.how = how
        self.begin(who, seed)

    def begin(self, who: int, seed: int) -> None:
        """Also in a forked child."""
        self.choose = random.Random(seed)
        self.account = Account(who)
        self.files = OwnFiles(self.folder, self.choose)
        self.interrupter = Interrupter(self.how, self.choose, self.use)
        self.likely = LIKELY
        self.row = False

    # -- acts

    def guarded(self, act: Callable[[], Any], likely: Optional[float] = None) -> tuple[str, Any]:
        """``done`` and what it returned, or ``interrupted``, or the name of what it raised."""
        chance = self.likely if likely is None else likely
        if self.row:
            chance = min(0.6, 2 * chance)
        self.row = False
        if not self.depth and self.choose.random() < chance:
            self.interrupter.arm()
        elif self.depth == 1 and self.nested and self.choose.random() < LIKELY:
            self.interrupter.arm_timer()  # no tracer runs in what a tracer does
        try:
            value = act()
            self.interrupter.disarm() if self.depth < 2 else None
            return "done", value
        except (Interrupt, Custom):
            self.row = True
            return "interrupted", None
        except (queue.Full, queue.Empty) as error:
            return type(error).__name__, None
        finally:
            if self.depth < 2:
                self.interrupter.disarm()

    def use(self) -> None:
        """What a handler does that uses the queue."""
        depth, self.depth = self.depth, self.depth + 1
        try:
            for _ in range(self.choose.randrange(1, 4)):
                kind = self.choose.choice(["put", "get", "put_many", "get_many", "qsize", "claim", "large"])
                getattr(self, f"act_{kind}")()
        finally:
            self.depth = depth

    def item(self, number: int, large: bool) -> Any:
        who = self.account.who
        if not large:
            return who, number
        size = self.choose.choice([70_000, 100_000, 300_000, 600_000, 1_000_000])
        data = struct.pack("<II", who, number) + bytes([number & 255]) * size
        return bytearray(data) if self.choose.random() < 0.3 else data

    def see(self, item: Any) -> tuple[int, int]:
        if isinstance(item, tuple):
            return item[0], item[1]
        who, number = struct.unpack("<II", item[:8])
        assert bytes(item[8:]) == bytes([number & 255]) * (len(item) - 8), f"item {who} {number} is damaged"
        return who, number

    def stream(self) -> int:
        """How many engines of this process are in the middle of an act just now."""
        engine, count = self.q._engine, 0
        while engine is not None and engine.is_interrupted:
            engine, count = engine.beside, count + 1
        return count

    def take(self, act: Callable[[], Any]) -> tuple[str, Any]:
        outcome, value = self.guarded(act)
        if outcome == "interrupted" and self.depth:
            self.broken_off = self.begins()
        return outcome, value

    def got(self, items: list[Any], stream: int, begin: int) -> None:
        self.tick += 1
        end = self.tick if self.broken_off < begin else NEVER
        self.account.got.setdefault(stream, []).append((begin, end, list(map(self.see, items))))

    def begins(self) -> int:
        self.tick += 1
        return self.tick

    def timeout(self) -> float:
        return 0.002 if self.depth else self.choose.choice([0.001, 0.01, 0.05])

    def put(self, count: int, large: bool, put: Callable[[list[Any]], Any]) -> None:
        numbers = list(range(self.number, self.number + count))
        self.number += count
        act = self.acts = self.acts + 1
        items = [self.item(number, large) for number in numbers]
        begin = self.begins()
        outcome, _ = self.guarded(lambda: put(items))
        self.tick += 1
        state = {"done": "sure", "interrupted": "unsure", "Full": "refused"}[outcome]
        for place, number in enumerate(numbers):
            self.account.puts[number] = Put(begin, self.tick, state, act, place)

    def act_put(self, large: bool = False) -> None:
        if self.choose.random() < 0.3:
            self.put(1, large, lambda items: self.q.put_nowait(items[0]))
        else:
            timeout = self.timeout()
            self.put(1, large, lambda items: self.q.put(items[0], True, timeout))

    def act_large(self) -> None:
        self.act_put(True)

    def act_put_many(self) -> None:
        count = self.choose.randrange(1, 30)
        if self.maxsize:
            count = min(count, self.maxsize)
        timeout = self.timeout()
        self.put(count, False, lambda items: self.q.put_many(items, True, timeout))

    def act_get(self) -> None:
        timeout, stream, begin = self.timeout(), self.stream(), self.begins()
        if self.choose.random() < 0.3:
            outcome, item = self.take(lambda: self.q.get_nowait())
        else:
            outcome, item = self.take(lambda: self.q.get(True, timeout))
        if outcome == "done":
            self.got([item], stream, begin)
            self.finish(1)

    def act_get_many(self) -> None:
        timeout, most = self.timeout(), self.choose.choice([1, 5, 30, 1000])
        stream, begin = self.stream(), self.begins()
        outcome, items = self.take(lambda: self.q.get_many(True, timeout, most))
        if outcome == "done":
            self.got(items, stream, begin)
            self.finish(len(items))

    def finish(self, count: int) -> None:
        """Some of them now; the rest is left to the final count."""
        if self.joinable and self.choose.random() < 0.5:
            for _ in range(min(count, 5)):
                outcome, _ = self.guarded(self.q.task_done)
                self.account.done[outcome != "done"] += 1

    def act_claim(self) -> None:
        if not self.claims:
            return self.act_get()
        timeout, stream, begin = self.timeout(), self.stream(), self.begins()
        claim = self.q.claimed(True, timeout)
        outcome, item = self.take(claim.__enter__)
        if outcome != "done":
            return None
        found, entered = self.see(item), self.begins()
        fails = self.choose.random() < 0.3
        if self.choose.random() < 0.3 and self.depth < 2:
            self.act_put()  # in the block
        outcome, _ = self.guarded(lambda: claim.__exit__(*((KeyError, KeyError(), None) if fails else (None,) * 3)))
        if outcome == "done" and not fails:
            entered = entered if self.broken_off < begin else NEVER
            self.account.got.setdefault(stream, []).append((begin, entered, [found]))
            self.finish(1)
        elif not fails:
            self.account.had.append(found)
        return None

    def act_qsize(self) -> None:
        outcome, size = self.guarded(self.choose.choice([self.q.qsize, self.q.empty, self.q.full, self.q.stats]))
        if outcome == "done" and type(size) is int:
            # What an interrupted get had taken comes again, and has no place any more.
            engine, again = self.q._engine, 0
            while engine is not None:
                again += len(engine.parts.hand.state[1])
                engine = engine.beside
            assert 0 <= size <= (self.maxsize or sys.maxsize) + again

    def act_join(self) -> None:
        if self.joinable:
            self.guarded(lambda: self.q.join(timeout=0.002))

    def act_fork(self) -> None:
        """A child that puts and gets a few items and leaves."""
        self.children += 1
        who, seed = self.account.who * 1000 + self.children, self.choose.getrandbits(30)
        leaves = self.choose.random() < 0.5
        if leaves:
            process = multiprocessing.get_context("fork").Process(target=self.child, args=(who, seed))
            process.start()
            process.join(HANGS)
            code: Optional[int] = process.exitcode
        else:
            child = os.fork()
            if child == 0:
                try:
                    self.child(who, seed)
                    os._exit(0)
                except BaseException:
                    traceback.print_exc()
                    sys.stderr.flush()
                    os._exit(1)
            code = os.waitpid(child, 0)[1]
        assert code == 0, f"child {who} ended with {code}"

    def child(self, who: int, seed: int) -> None:
        former = self.files
        self.begin(who, seed)
        if self.choose.random() < 0.5:
            former.forget()
        self.likely = 2 * LIKELY
        self.run(self.choose.randrange(1, 12), ["put", "get", "put", "put_many", "get_many", "qsize", "claim", "large"])

    # -- all of it

    def run(self, count: int, kinds: Optional[list[str]] = None) -> None:
        """So many acts, then some that leave nothing behind."""
        for turn in range(count):
            try:
                self.files.use()
                kind = self.choose.choice(kinds or self.kinds(turn))
                getattr(self, f"act_{kind}")()
            except Exception:
                self.account.errors.append(f"after {self.interrupter.where}: {traceback.format_exc()[-3000:]}")
                if len(self.account.errors) > 3:
                    break
        self.interrupter.disarm()
        self.likely, self.row = 0.0, False
        try:
            self.files.use()
            self.act_put()
            self.empty_hand()
            self.files.close_all()
        except Exception:
            self.account.errors.append(f"at the end, after {self.interrupter.where}: {traceback.format_exc()[-3000:]}")
        self.account.hits = self.interrupter.hits
        self.account.descriptors = len(os.listdir("/dev/fd"))
        self.account.write(self.folder)

    def kinds(self, turn: int) -> list[str]:
        if turn == 20:
            return ["fork"]  # by chance some runs of a few hundred acts would have none
        if not turn % 16:
            self.size = self.q.qsize()
        puts, gets = ["put"] * 4 + ["put_many"] * 2, ["get"] * 6 + ["get_many"] * 2
        if self.size > ENOUGH:
            puts = []
        rare = ["qsize", "claim", "join"]
        if self.choose.random() < 0.1:
            rare += ["large", "large"]
        if self.choose.random() < 0.05:
            rare += ["fork", "fork"]
        return puts + gets + rare

    def empty_hand(self) -> None:
        """Get what was taken for this process by gets that were interrupted: nobody else can."""
        self.q.qsize()  # what blocks had that were interrupted at their end has come back then
        engine = self.q._engine
        while engine.parts.hand.state[1]:
            begin = self.begins()
            self.got([self.q.get_nowait()], 0, begin)
        if engine.parts.hand.damage is not None:
            raise engine.parts.hand.damage  # what no get has told


def work(q: Any, who: int, seed: int, folder: str, how: list[str], words: list[str], acts: int) -> None:
    Worker(q, who, seed, folder, how, words).run(acts)
    if who % 2:
        q.close()


def drain(q: Any, found: Account, patience: float) -> None:
    """Get all that is left, also what has to come back from processes that left."""
    deadline = time.monotonic() + patience
    worker = found.got.setdefault(0, [])
    see = Worker.see
    while True:
        with contextlib.suppress(queue.Empty):
            items = [see(None, item) for item in q.get_many(True, 0.05)]  # type: ignore[arg-type]
            worker.append((2 * len(worker), 2 * len(worker) + 1, items))
            continue
        figures = q.stats()
        if not figures.items and not figures.held and not figures.returned:
            return
        if time.monotonic() > deadline:
            found.errors.append(f"something is left: {figures}")
            return


def check(accounts: list[Account], redelivered: int, maxsize: int) -> dict[str, Any]:
    """What is wrong."""
    puts = {(one.who, number): put for one in accounts for number, put in one.puts.items()}
    times = Counter(item for one in accounts for stream in one.got.values() for get in stream for item in get[2])
    had = {item for one in accounts for item in one.had}
    arrived = set(times) | had
    report: dict[str, Any] = {
        "missing": sorted(item for item, put in puts.items() if put.state == "sure" and item not in arrived),
        "doubled": sorted(item for item, count in times.items() if count > 1),
        "strange": sorted(item for item in arrived if item not in puts or puts[item].state == "refused"),
    }
    # Of a put_many that was interrupted: the first ones; of a bounded queue all, or none.
    acts: dict[tuple[int, int], list[tuple[int, bool]]] = {}
    for item, put in puts.items():
        acts.setdefault((item[0], put.act), []).append((put.place, item in arrived))
    report["parts"] = []
    for act, places in acts.items():
        there = [is_there for _, is_there in sorted(places)]
        if there != sorted(there, reverse=True) or (maxsize and len(set(there)) > 1):
            report["parts"].append((act, there))
    late = [(one.who, depth, item) for one in accounts for depth in one.got for item in too_late(one.got[depth], puts)]
    report["late"] = late if len(late) > redelivered else []
    report["put"] = len(puts)
    report["arrived"] = len(arrived)
    report["unsure"] = sum(put.state == "unsure" for put in puts.values())
    return report


def too_late(gets: list[tuple[int, int, list[tuple[int, int]]]], puts: dict[tuple[int, int], Put]) -> list[Any]:
    """Items that one consumer got when an earlier get of its had got something that was put later.

    Within a get that encloses a handler's, which was interrupted, any order will do: that one had taken the older items
    before, and has given them back in the middle of it."""
    found = []
    newest: dict[int, tuple[int, int, int]] = {}
    """By producer: when the last put began of which something had been got, which act, and which item of it."""
    ended = sorted(gets, key=lambda get: get[1])
    at = 0
    for begin, end, items in sorted(gets):
        while ended[at][1] < begin:
            see_items(ended[at][2], puts, newest)
            at += 1
        for together in [[item] for item in items] if end == NEVER else [items]:
            found += see_items(together, puts, dict(newest))
    return found


def see_items(
    items: list[tuple[int, int]], puts: dict[tuple[int, int], Put], newest: dict[int, tuple[int, int, int]]
) -> list[Any]:
    """Note that these came one after another; the ones that came too late."""
    found = []
    for item in items:
        put = puts.get(item)
        if put is None:
            continue
        begin, act, place = newest.get(item[0], (0, 0, 0))
        if put.end < begin or (put.act == act and put.place < place):
            found.append(item)
        if put.begin >= begin:
            newest[item[0]] = put.begin, put.act, put.place
    return found


def main(acts: int, maxsize: int, seed: int, how: list[str], words: list[str]) -> dict[str, Any]:
    folder = tempfile.mkdtemp(dir=os.environ.get("TQSHIM_DIR"))
    try:
        kind: Any = JoinableTurboQueue if "joinable" in words else TurboQueue
        if "rolls" in words:
            tqshim.engine.tuning.LIMITS = (16, 64)  # type: ignore[misc]
        path = os.path.join(folder, "queue") if {"durable", "authkey"} & set(words) else None
        q = kind(maxsize, path=path, durable="durable" in words or None, authkey=b"key" if "authkey" in words else None)
        context = multiprocessing.get_context("fork")
        workers = [
            context.Process(target=work, args=(q, who, seed * 100 + who, folder, how, words, acts))
            for who in range(1, WORKERS + 1)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        codes = [worker.exitcode for worker in workers]
        own = Account(0)
        drain(q, own, 30.0)
        accounts = [own]
        for name in sorted(os.listdir(folder)):
            if name.startswith("account_"):
                with open(os.path.join(folder, name), "rb") as file:
                    accounts.append(pickle.load(file))
        figures = q.stats()
        report = check(accounts, figures.redelivered if "claims" in words else 0, maxsize)
        report["errors"] = [error for one in accounts for error in one.errors][:3]
        if "joinable" in words:
            sure = sum(one.done[0] for one in accounts)
            unsure = sum(one.done[1] for one in accounts)
            if not sure <= report["arrived"] - figures.unfinished <= sure + unsure:
                report["errors"].append(f"{sure} and perhaps {unsure} finished of {report['arrived']}: {figures}")
            for _ in range(figures.unfinished):
                q.task_done()
            if not q.join(timeout=30):
                report["errors"].append("the join does not end")
        hits: Counter[str] = Counter()
        for one in accounts:
            hits += one.hits
        report.update(codes=codes, hits=hits, processes=len(accounts), redelivered=figures.redelivered)
        report["corrupt"] = figures.corrupt
        report["descriptors"] = max(one.descriptors for one in accounts)
        q.put("last")
        assert q.get(True, 10) == "last"
        q.close()
        return report
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    print(json.dumps(main(*map(int, sys.argv[1:4]), sys.argv[4].split(","), sys.argv[5:])))  # type: ignore[arg-type]
