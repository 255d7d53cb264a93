"""Kill and stop the users of one queue at random instants, and count every item.

``python tests/kill_run.py --seconds 60 --seed 1 --maxsize 1000`` runs it by hand and prints what it counted; the exit
status is 1, after a list of findings, where the queue broke a promise.  ``TQSHIM_WITHOUT`` switches optimisations off,
as everywhere.

Each process has words of its own in an account, a mapped file that outlives the process.  Producers put (producer,
number, padding).  Before a put a producer writes into the account up to which number it may have put by the put's end,
and right after the put how many puts have returned.  A consumer writes there how many items it is about to take, notes
what it got in a file of its own, and sets that word back.  One more process kills, stops, continues and replaces them.
In the end:

- nothing arrived twice, nothing arrived that was not put, and each consumer got each producer's items in their order;
- each item whose put has returned arrived, whatever became of its producer; and so did all items that the producer put
  before one that arrived;
- only what a killed consumer had in its hand is missing: each missing item is matched with the hand of a killed
  consumer that had not got later items of that producer, that had room for the item in its hand, and that was killed
  after the item may have been put;
- with ``--claimed`` this share of the consumers use ``claimed`` blocks: they have nothing in their hands, whenever they
  are killed, and an item that comes to a second consumer is marked;
- with ``--joinable`` the queue counts as many items as finished as ``task_done`` was called for them, but for the one
  call that a killed consumer was in, and ``join`` returns once the rest is finished;
- some processes are not killed but asked to end, by SIGTERM, at any instant; some of these leave in an orderly way, and
  what they had in their hands may come again, behind later items;
- every process that was not killed ended when it was asked to;
- processes that waited for an item, with no other call, released what killed processes held, and deleted their files;
- a bounded queue takes exactly ``maxsize`` items again;
- no batch file and no folder is left.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import faulthandler
import mmap
import multiprocessing
import multiprocessing.util
import os
import pathlib
import random
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from typing import Any, NamedTuple, Optional

sys.path.insert(0, str(pathlib.Path(__file__).absolute().parent.parent))

import own_folder

import tqshim.engine.supply
import tqshim.engine.tuning
from tqshim import Empty, Full, JoinableTurboQueue, TurboQueue
from tqshim.protocol import names
from tqshim.sync.cells import COUNTER, SLOTS

RETURNED, MAY_BE_PUT, HAND, FINISHED, FINISHING, CLAIMING = range(6)
"""A process's words in the account.  Of a producer: puts that have returned; the number up to which, by the end of the
put that is under way, it may have put.  Of a consumer: the items that it may have taken and not noted; its calls of
``task_done`` that have returned; whether it is in one; whether it may have an item in a block and has not noted it."""
ROW = 8
"""Words of one process."""
GOT = struct.Struct("<qq")
"""Producer, number."""
SEEN = struct.Struct("<qqqq")
"""Producer, number, how often it had come back, and what a block notes."""
BEGUN, ENDING, ENDED = range(3)
"""That it has begun; that it ends well, as the last it does; that it has ended."""
STARTED_A_SECOND = 100
"""Processes that a run starts, at most."""
PATIENCE = 40.0
"""Seconds after which something is called hung: generous, for slow machines."""
STOP_PRODUCERS, STOP_CONSUMERS = 0, 1
POISON = -1


class Options(NamedTuple):
    seconds: float
    seed: int
    maxsize: int
    producers: int
    consumers: int
    many: int
    limits: Optional[tuple[int, int]]
    file_bytes: int
    spawn: float
    forkserver: float
    terminate: float
    stopped: tuple[float, float]
    joinable: bool
    pause: float
    one: bool
    big: bool
    claimed: float
    durable: bool
    authkey: bool


class Refused(Exception):
    """What a block raises that does not do its work."""


class Worker:
    """One process of the run, and what became of it."""

    def __init__(self, number: int, producer: bool, process: Any, most: int, blocking: bool, claims: bool) -> None:
        self.number = number
        self.producer = producer
        self.process = process
        self.most = most
        self.blocking = blocking
        self.claims = claims
        self.killed = False
        """By SIGKILL, or asked to end by SIGTERM."""
        self.left = False
        """In an orderly way, when it was asked to."""
        self.stopped_until = 0.0
        self.issued: list[int] = []
        """What all producers may have put by its end, if it had something in its hand then."""


# --- the processes that may be killed --------------------------------------------------------------------------------


def padding(number: int, producer: int, big: bool) -> bytes:
    chance = hash((number, producer)) % 1000
    size = 100_000 if big and chance == 0 else 3000 if chance < 30 else chance % 40
    return bytes([number & 255]) * size


def ask_to_end(number: int, frame: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once: what it does at its end is not interrupted
    sys.exit(0)


def seal_at(length: int) -> None:
    """Have batch files of so many bytes, those of large items four times as many."""
    tqshim.engine.tuning.FILE_BYTES, tqshim.engine.tuning.LARGE_FILE_BYTES = length, 4 * length  # type: ignore[misc]
    tqshim.engine.supply.FIRST_BYTES = length  # type: ignore[misc]


def map_words(path: str) -> memoryview:
    """A file's words in shared memory: a store outlives the process that has made it."""
    with open(path, "r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")


class Place:
    """What one process has of the run: its words, its log, the flags."""

    def __init__(self, options: Options, folder: str, number: int) -> None:
        self.random = random.Random(options.seed * 1_000_003 + number)
        self.flags = map_words(f"{folder}/flags")
        self.words = map_words(f"{folder}/account")[number * ROW : (number + 1) * ROW]
        self.log = os.open(f"{folder}/log_{number}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def set_up(options: Options, folder: str, number: int) -> Place:
    if number % 2:  # the others die of it, as of SIGKILL
        signal.signal(signal.SIGTERM, ask_to_end)
    if options.file_bytes:
        seal_at(options.file_bytes)
    stacks = open(f"{folder}/stack_{number}", "w")  # noqa: SIM115 - open as long as the process
    faulthandler.register(signal.SIGUSR1, stacks, all_threads=True)
    return Place(options, folder, number)


def done(queue: Any, options: Options, words: memoryview, count: int) -> None:
    """So many items are finished with; each call is noted."""
    if not options.joinable:
        return
    for _ in range(count):
        words[FINISHING] = 1
        queue.task_done()
        words[FINISHED] += 1
        words[FINISHING] = 0


def failed(folder: str, number: int) -> None:
    with open(f"{folder}/error_{number}", "a") as file:
        file.write(traceback.format_exc())


def produce(queue: Any, options: Options, folder: str, number: int) -> None:
    try:
        _produce(queue, options, number, set_up(options, folder, number))
    except SystemExit:
        raise
    except BaseException:
        failed(folder, number)
        raise
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _produce(queue: Any, options: Options, me: int, place: Place) -> None:
    rng, flags, words = place.random, place.flags, place.words
    number = 0
    lifetime = time.monotonic() + rng.expovariate(0.3)
    while not flags[STOP_PRODUCERS] and time.monotonic() < lifetime:
        way = rng.randrange(6)
        if way < 2 and options.many > 1:
            size = rng.randint(1, options.many)
            items = [(me, n, padding(n, me, options.big)) for n in range(number, number + size)]
            words[MAY_BE_PUT] = number + size
            try:
                queue.put_many(items, timeout=0.5 if options.maxsize else None)
            except Full as full:
                said = str(full).split()
                size = int(said[0]) if said else 0
            words[RETURNED] = number = number + size
            burst = 0
        else:
            burst = 1 if way == 2 or options.one else rng.choice((2, 10, 300, 2000))
        while burst and not flags[STOP_PRODUCERS]:
            burst -= 1
            item = (me, number, padding(number, me, options.big))
            words[MAY_BE_PUT] = number + 1
            try:
                if way == 3:
                    queue.put_nowait(item)
                elif way == 4:
                    queue.put(item, timeout=0.2)
                else:
                    queue.put(item)
            except Full:
                time.sleep(0.001)
                continue
            words[RETURNED] = number = number + 1
        if rng.random() < 0.5:
            time.sleep(rng.expovariate(1 / options.pause))
        if options.joinable and rng.random() < 0.1:
            queue.join(timeout=rng.choice((0.0, 0.01)))
        while not options.maxsize and rng.random() < 0.5 and not flags[STOP_PRODUCERS] and queue.qsize() > 20_000:
            time.sleep(0.01)


def consume(
    queue: Any, options: Options, folder: str, number: int, most: int, blocking: bool, life: float, claims: bool
) -> None:
    try:
        place = set_up(options, folder, number)
        if claims:
            _claim(queue, options, number, place, blocking, life)
        else:
            _consume(queue, options, place, most, blocking, life)
    except SystemExit:
        raise
    except BaseException:
        failed(folder, number)
        raise
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _consume(queue: Any, options: Options, place: Place, most: int, blocking: bool, life: float) -> None:
    rng, flags, words, log = place.random, place.flags, place.words, place.log
    lifetime = time.monotonic() + life
    slow = rng.random() < 0.3
    while not flags[STOP_CONSUMERS] and (blocking or time.monotonic() < lifetime):
        timeout = None if blocking else rng.choice((0.0, 0.001, 0.02, 0.3))
        count = rng.randint(1, most)
        words[HAND] = count
        try:
            items = [queue.get(timeout=timeout)] if most == 1 else queue.get_many(True, timeout, count)
        except Empty:
            words[HAND] = 0
            continue
        for producer, number, pad in items:
            if producer != POISON and pad != padding(number, producer, options.big):
                raise AssertionError(f"item {number} of producer {producer} arrived damaged")
        os.write(log, b"".join(GOT.pack(producer, number) for producer, number, _ in items))
        words[HAND] = 0
        done(queue, options, words, len(items))
        if any(producer == POISON for producer, _, _ in items):
            return
        if slow and rng.random() < 0.02:
            time.sleep(rng.expovariate(200))
        if time.monotonic() > lifetime and rng.random() < 0.001:
            return


def _claim(queue: Any, options: Options, me: int, place: Place, blocking: bool, life: float) -> None:
    rng, flags, words, log = place.random, place.flags, place.words, place.log
    lifetime = time.monotonic() + life
    slow = rng.random() < 0.3
    while not flags[STOP_CONSUMERS] and (blocking or time.monotonic() < lifetime):
        timeout = None if blocking else rng.choice((0.0, 0.001, 0.02, 0.3))
        claim = queue.claimed(True, timeout)
        words[CLAIMING] = 1
        try:
            with claim as (producer, number, pad):
                os.write(log, SEEN.pack(producer, number, claim.redelivered, BEGUN))
                words[CLAIMING] = 0
                if producer != POISON and pad != padding(number, producer, options.big):
                    raise AssertionError(f"item {number} of producer {producer} arrived damaged")
                if slow and rng.random() < 0.02:
                    time.sleep(rng.expovariate(200))
                if producer != POISON and rng.random() < 0.02:
                    raise Refused
                os.write(log, SEEN.pack(producer, number, claim.redelivered, ENDING))
            os.write(log, SEEN.pack(producer, number, claim.redelivered, ENDED))
            done(queue, options, words, 1)
        except (Empty, Refused):
            words[CLAIMING] = 0
            continue
        if producer == POISON or (time.monotonic() > lifetime and rng.random() < 0.001):
            return


# --- the process that kills ------------------------------------------------------------------------------------------


class Run:
    """One run: start, kill, stop and replace for a while, then count."""

    def __init__(self, options: Options, folder: str) -> None:
        self.options = options
        self.folder = folder
        self.random = random.Random(options.seed)
        self.workers: list[Worker] = []
        self.alive: list[Worker] = []
        self.findings: list[str] = []
        self.events: collections.Counter[str] = collections.Counter()
        self.unknown: set[tuple[int, int]] = set()
        """Items whose blocks may have ended when their claimers were killed."""
        self.late: list[str] = []
        """Items that came after later ones of their producer, to a consumer, and no block has said that it had them."""
        for name, size in ("flags", 4096), ("account", int(options.seconds + 100) * STARTED_A_SECOND * ROW * 8):
            with open(f"{folder}/{name}", "wb") as file:
                file.truncate(size)
        self.flags = map_words(f"{folder}/flags")
        self.account = map_words(f"{folder}/account")
        if options.limits:
            tqshim.engine.tuning.LIMITS = options.limits
        if options.file_bytes:
            seal_at(options.file_bytes)
        path = f"{folder}/queue" if options.durable or options.authkey else None
        authkey = os.urandom(32) if options.authkey else None
        kind = JoinableTurboQueue if options.joinable else TurboQueue
        self.queue: Any = kind(options.maxsize, path=path, durable=options.durable, authkey=authkey)

    def start(self, producer: bool, life: Optional[float] = None) -> None:
        options, rng = self.options, self.random
        number = len(self.workers)
        dice = rng.random()
        method = "spawn" if dice < options.spawn else "fork"
        if dice >= 1 - options.forkserver:
            method = "forkserver"
        most = rng.randint(2, options.many) if options.many > 1 and rng.random() < 0.5 else 1
        blocking = life is None and rng.random() < 0.4
        life = rng.expovariate(0.2) if life is None else life
        claims = not producer and rng.random() < options.claimed
        most = 1 if claims else most
        arguments = (self.queue, options, self.folder, number)
        make = multiprocessing.get_context(method).Process
        process = (
            make(target=produce, args=arguments)
            if producer
            else make(target=consume, args=(*arguments, most, blocking, life, claims))
        )
        process.start()
        worker = Worker(number, producer, process, most, blocking, claims)
        self.workers.append(worker)
        self.alive.append(worker)
        self.events["started by " + method] += 1

    def said(self, worker: Worker, word: int) -> int:
        """What that process has in the account."""
        return self.account[worker.number * ROW + word]

    def signal(self, worker: Worker, number: int) -> None:
        if worker.process.exitcode is None:  # else it has come to its own end, and Process.start may have reaped it
            with contextlib.suppress(ProcessLookupError):  # a fork server reaps its child before it says so
                os.kill(worker.process.pid, number)

    def go(self) -> bool:
        options, rng = self.options, self.random
        for _ in range(options.producers):
            self.start(True)
        for _ in range(options.consumers):
            self.start(False)
        end = time.monotonic() + options.seconds
        progress, progressed = -1, time.monotonic()
        while time.monotonic() < end:
            time.sleep(rng.expovariate(1 / 0.06))
            self.reap(replace=True)
            now = time.monotonic()
            for worker in self.alive:
                if worker.stopped_until and now > worker.stopped_until:
                    worker.stopped_until = 0.0
                    self.signal(worker, signal.SIGCONT)
            if not self.alive:
                continue
            worker = rng.choice(self.alive)
            what = rng.random()
            if what < 0.45:
                self.kill(worker)
            elif what < 0.9 and not worker.stopped_until:
                self.events["stopped"] += 1
                worker.stopped_until = now + rng.uniform(*options.stopped)
                self.signal(worker, signal.SIGSTOP)
                if not worker.producer and rng.random() < 0.3:
                    self.start(False, life=rng.expovariate(5))
            size = sum(
                os.path.getsize(f"{self.folder}/log_{w.number}")
                for w in self.workers
                if not w.producer and os.path.exists(f"{self.folder}/log_{w.number}")
            )
            if size != progress:
                progress, progressed = size, now
            elif now - progressed > PATIENCE / 2:
                self.hung(f"nothing arrived for {now - progressed:.0f} s", self.alive)
                return False
        return True

    def kill(self, worker: Worker, finally_: bool = False) -> None:
        if worker.process.exitcode is not None:
            return
        kind = "producers" if worker.producer else "claimers" if worker.claims else "consumers"
        if not finally_ and self.random.random() < self.options.terminate:
            self.events["asked to end: " + kind] += 1
            worker.killed = True
            self.signal(worker, signal.SIGTERM)  # seen when it goes on, if it is stopped
        else:
            self.events["killed " + kind] += 1
            self.signal(worker, signal.SIGKILL)
            worker.process.join()
            worker.killed = True
            self.reap(replace=False)  # now: what may be put from here on it did not take

    def reap(self, replace: bool) -> None:
        for worker in list(self.alive):
            code = worker.process.exitcode
            if code is None:
                continue
            self.alive.remove(worker)
            worker.process.close()
            worker.left = worker.killed and code == 0
            self.events["left in an orderly way when asked to"] += worker.left
            if self.said(worker, HAND):
                worker.issued = self.account[: len(self.workers) * ROW].tolist()[MAY_BE_PUT::ROW]
                if not worker.killed:
                    self.findings.append(f"process {worker.number} ended by itself, with something in its hand")
            if (code and not worker.killed) or code not in (0, -signal.SIGKILL, -signal.SIGTERM):
                self.findings.append(f"process {worker.number} ended with {code}")
        if replace:
            producers = sum(worker.producer for worker in self.alive)
            for _ in range(producers, self.options.producers):
                self.start(True)
            for _ in range(len(self.alive) - producers, self.options.consumers):
                self.start(False)
            # Of several consumers that end, and the ones that stepped in, only so many are replaced.

    def hung(self, finding: str, workers: list[Worker]) -> None:
        for worker in workers:
            self.signal(worker, signal.SIGUSR1)
        time.sleep(0.5)
        for worker in list(workers):
            kind = "producer" if worker.producer else "consumer"
            stacks = pathlib.Path(f"{self.folder}/stack_{worker.number}")
            stack = stacks.read_text()[-3000:] if stacks.exists() else "has not begun"
            finding += f"\n--- {kind} {worker.number}, blocking={worker.blocking}, most={worker.most}:\n{stack}"
            self.kill(worker, finally_=True)
        self.findings.append(f"hung: {finding}\nledger: {self.ledger()}")

    def ledger(self) -> str:
        parts = self.queue._engine.parts
        self.queue.qsize()
        found = parts.replica.ledger
        return (
            f"head={found.head} tail={found.tail} lease={found.leases.standing} "
            f"res={found.reservations.by_slot} reserved={found.reservations.places} "
            f"held={found.holds.held} returned={found.holds.returned} files={found.files.filling} "
            f"totals={found.totals[: found.slots].tolist()} "
            f"counters={parts.members.cells.words[COUNTER : COUNTER + min(SLOTS, found.slots)].tolist()} "
            f"maxsize={found.maxsize} members={found.members.by_slot} journal={parts.replica.journal.number}"
        )

    def finish(self) -> None:
        """Continue everybody, ask them to end, and drain what is left."""
        for worker in self.alive:
            if worker.stopped_until and worker.process.exitcode is None:
                self.signal(worker, signal.SIGCONT)
        self.flags[STOP_PRODUCERS] = 1
        self.wait_for(True)
        self.flags[STOP_CONSUMERS] = 1
        self.wait_for(False)

    def wait_for(self, producers: bool) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            self.reap(replace=False)
            left = [worker for worker in self.alive if worker.producer is producers]
            if not left:
                return
            if time.monotonic() > deadline:
                self.hung("asked to end, they did not", left)
                continue
            if not producers:
                with contextlib.suppress(Full):  # then nobody waits for an item, or the last has ended just now
                    self.queue.put_nowait((POISON, 0, b""))  # for workers that wait for ever
            elif not any(not worker.producer for worker in self.alive):
                self.start(False)  # somebody must take what blocks them
            time.sleep(0.02)

    # -- counting

    def drain(self) -> list[tuple[int, int]]:
        """Get what is left, and what comes back from the dead meanwhile: a get that waits looks for them."""
        drained: list[tuple[int, int]] = []
        while True:
            try:
                for producer, number, _ in self.queue.get_many(timeout=2.5):
                    drained.append((producer, number))
            except Empty:
                break
        ledger = self.queue._engine.parts.replica.ledger
        if ledger.holds.held:
            self.findings.append(f"items of the dead are held: {ledger.holds.held}, {ledger.members.by_slot}")
        if self.queue.qsize() or not self.queue.empty():
            self.findings.append(f"drained, but qsize() is {self.queue.qsize()}")
        return drained

    def count(self) -> None:
        drained = self.drain()
        got: collections.Counter[tuple[int, int]] = collections.Counter()
        takers: dict[tuple[int, int], list[int]] = {}
        blocks = self.read_blocks()
        noted: dict[int, dict[int, int]] = {}
        for worker in self.workers:
            if not worker.producer and not worker.claims:
                items = self.notes(worker, GOT)
                noted[worker.number] = self.count_consumer(worker.number, items, got, takers, blocks)
        self.count_consumer(-1, drained, got, takers, blocks)
        claimers = sum(worker.killed and self.said(worker, CLAIMING) for worker in self.workers)
        if len(self.late) > claimers + self.put_again():
            self.findings.append(
                f"out of order, {claimers} claimers were killed with one unnoted, {self.put_again()} items may have "
                f"been put again: {self.late[:20]}"
            )
        self.count_blocks(blocks, got, takers)
        self.events["items"] = sum(got.values())
        doubled = [item for item, times in got.items() if times > 1]
        if doubled:
            self.findings.append(f"{len(doubled)} items arrived twice: {[(i, takers[i]) for i in sorted(doubled)[:8]]}")
        if self.options.joinable:
            self.count_done()
        arrived: dict[int, set[int]] = collections.defaultdict(set)
        for producer, number in got:
            arrived[producer].add(number)
        missing = []
        for worker in self.workers:
            if worker.producer:
                missing += self.missing(worker, arrived[worker.number])
        self.account_for(missing, noted)

    def put_again(self) -> int:
        """Items that consumers had in their hands that were asked to end, and left: they come behind others."""
        return sum(self.said(one, HAND) for one in self.workers if one.left)

    def notes(self, worker: Worker, form: struct.Struct) -> list[tuple[Any, ...]]:
        """What a process has noted in its log; of what it was writing when it was killed, the whole entries."""
        log = pathlib.Path(f"{self.folder}/log_{worker.number}")
        data = log.read_bytes() if log.exists() else b""
        return list(form.iter_unpack(data[: len(data) // form.size * form.size]))

    def missing(self, worker: Worker, arrived: set[int]) -> list[tuple[int, int]]:
        """Items of a producer that must have arrived, and have not."""
        returned, most = self.said(worker, RETURNED), self.said(worker, MAY_BE_PUT)
        strangers = [number for number in arrived if not 0 <= number < most]
        if strangers:
            self.findings.append(
                f"items {strangers[:5]} of producer {worker.number} arrived, it had put {most} at most"
            )
        self.events["of puts that had not returned"] += sum(number >= returned for number in arrived)
        top = max(returned, max(arrived, default=-1) + 1)
        return [(worker.number, number) for number in range(top) if number not in arrived]

    def account_for(self, missing: list[tuple[int, int]], noted: dict[int, dict[int, int]]) -> None:
        """Match each missing item with the hand of a killed consumer in which it may have been."""
        hands = [worker for worker in self.workers if worker.issued]
        self.events["killed with something in hand"] = len(hands)
        self.events["missing"] = len(missing)
        full: dict[int, list[tuple[int, int]]] = {worker.number: [] for worker in hands}

        def fits(worker: Worker, item: tuple[int, int]) -> bool:
            producer, number = item
            before = noted[worker.number].get(producer, -1) < number
            return before and producer < len(worker.issued) and number < worker.issued[producer]

        def place(item: tuple[int, int], tried: set[int]) -> bool:
            for worker in hands:
                if worker.number in tried or not fits(worker, item):
                    continue
                tried.add(worker.number)
                hand = full[worker.number]
                if len(hand) < self.said(worker, HAND):
                    hand.append(item)
                    return True
                for at, other in enumerate(hand):
                    if place(other, tried):
                        hand[at] = item
                        return True
            return False

        lost = [item for item in missing if not place(item, set())]
        for producer, number in lost[:10]:
            worker = self.workers[producer]
            fate = "which was killed" if worker.killed else "which was not"
            self.findings.append(
                f"item {number} of producer {producer}, {fate}, is missing, and was in nobody's hand; "
                f"{self.said(worker, RETURNED)} of its puts had returned"
            )
        if len(lost) > 10:
            self.findings.append(f"so are {len(lost) - 10} others")

    def count_consumer(
        self,
        number: int,
        items: list[tuple[int, int]],
        got: collections.Counter[tuple[int, int]],
        takers: dict[tuple[int, int], list[int]],
        blocks: dict[tuple[int, int], list[tuple[int, int, bool]]],
    ) -> dict[int, int]:
        """Count what one consumer got; returns the last of each producer's."""
        last: dict[int, int] = {}
        for item in items:
            producer, count = item
            if producer == POISON:
                continue
            got[item] += 1
            takers.setdefault(item, []).append(number)
            if count <= last.get(producer, -1) and item not in blocks:
                # One that has come back is late; a claimer that was killed at once had no time to note that it held it.
                self.late.append(f"consumer {number} got item {count} of producer {producer} after {last[producer]}")
            last[producer] = max(count, last.get(producer, -1))
        return last

    def read_blocks(self) -> dict[tuple[int, int], list[tuple[int, int, bool]]]:
        """Of each item that blocks have had: by whom, how often it had come back, and whether that block ended well."""
        blocks: dict[tuple[int, int], list[tuple[int, int, bool]]] = {}
        for worker in self.workers:
            if not worker.claims:
                continue
            entries = self.notes(worker, SEEN)
            last: dict[int, int] = {}
            for at, (producer, number, times, note) in enumerate(entries):
                if producer == POISON or note != BEGUN:
                    continue
                if number <= last.get(producer, -1) and not times:  # unless it was put again, which is a new item
                    self.late.append(f"claimer {worker.number} got item {number} of {producer} after a later one")
                last[producer] = max(number, last.get(producer, -1))
                well = at + 2 < len(entries) and entries[at + 2] == (producer, number, times, ENDED)
                if not well and entries[at + 1 :] == [(producer, number, times, ENDING)]:
                    # Killed where it had ended, or was just about to.
                    self.events["blocks whose end is not known"] += 1
                    self.unknown.add((producer, number))
                blocks.setdefault((producer, number), []).append((worker.number, times, well))
        return blocks

    def count_blocks(
        self,
        blocks: dict[tuple[int, int], list[tuple[int, int, bool]]],
        got: collections.Counter[tuple[int, int]],
        takers: dict[tuple[int, int], list[int]],
    ) -> None:
        for item, visits in blocks.items():
            marks = [times for _, times, _ in visits]
            if len(set(marks)) != len(marks):
                self.findings.append(f"item {item} came to two blocks, and was not marked: {visits}")
            well = [worker for worker, _, ended in visits if ended]
            if well and max(marks) != max(times for _, times, ended in visits if ended):
                self.findings.append(f"item {item} came back after its block had ended: {visits}")
            if not well and not got[item]:
                if item not in self.unknown:
                    self.findings.append(f"item {item} has not come back: {visits}")
                well = [visits[0][0]]
            got[item] += len(well)
            takers.setdefault(item, []).extend(well)
            self.events["came back"] += max(marks)

    def count_done(self) -> None:
        consumers = [worker for worker in self.workers if not worker.producer]
        noted = sum(self.said(worker, FINISHED) for worker in consumers)
        killed = sum(worker.killed and self.said(worker, FINISHING) for worker in consumers)
        figures = self.queue.stats()
        left = figures.unfinished
        finished = figures.put - left
        self.events["finished"] = finished
        if not noted <= finished <= noted + killed + self.put_again():
            again = self.put_again()
            self.findings.append(
                f"{finished} items count as finished, {noted} do, {killed} did not say, {again} may have been put again"
            )
        if left and self.queue.join(timeout=0.0):
            self.findings.append(f"join returned, with {left} items unfinished")
        for _ in range(left):
            self.queue.task_done()
        if not self.queue.join(timeout=PATIENCE):
            self.findings.append(f"all is finished, and join does not return: {self.ledger()}")
        try:
            self.queue.task_done()
            self.findings.append("all is finished, and task_done counts on")
        except ValueError:
            pass

    def check_places(self) -> None:
        for number in range(self.options.maxsize):
            try:
                self.queue.put_nowait((POISON, number, b""))
            except Full:
                self.findings.append(f"only {number} of {self.options.maxsize} places are there: {self.ledger()}")
                break
        else:
            try:
                self.queue.put_nowait((POISON, -1, b""))
                self.findings.append(f"there are more than {self.options.maxsize} places: {self.ledger()}")
            except Full:
                pass
        try:
            while True:
                self.queue.get_many(timeout=1.5)
        except Empty:
            pass

    def check_folder(self) -> None:
        parts = self.queue._engine.parts
        path = self.queue._engine.folder.path
        batch = parts.producer.log.batch
        own = names.batch(names.LOAD, batch.file) if batch else ""
        for _ in range(5):
            # Who waits looks for what the dead have left, every second, and at many names in several pieces.
            with contextlib.suppress(Empty):
                self.queue.get(timeout=1.5)
            left = [name for name in os.listdir(path) if name.startswith(("load_", "ready_")) and name != own]
            rolls = [f for f in os.listdir(path) if f.startswith(("journal_", "roll_", "spare_", "corrupt_"))]
            if not left and len(rolls) <= 4 and len(parts.replica.ledger.members.by_slot) <= 2:
                break
        else:
            self.findings.append(
                f"files, journals or members are left in a drained queue: {sorted(left)[:8]}; {sorted(rolls)}, "
                f"{self.ledger()}"
            )
        del parts, batch
        root = os.environ["TQSHIM_DIR"]
        self.queue.close()
        del self.queue
        TurboQueue().close()
        left = os.listdir(root)
        if left:
            self.findings.append(f"folders are left: {left}, the queue's was {path}")


def main(arguments: Optional[list[str]] = None) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--maxsize", type=int, default=0)
    parser.add_argument("--producers", type=int, default=3)
    parser.add_argument("--consumers", type=int, default=3)
    parser.add_argument("--many", type=int, default=1, help="items of one put_many and get_many, at most")
    parser.add_argument("--limits", type=int, nargs=2, default=None, help="events of the first and the largest journal")
    parser.add_argument("--file-bytes", type=int, default=0, help="bytes of a batch file")
    parser.add_argument("--spawn", type=float, default=0.1, help="share of processes started by spawn")
    parser.add_argument("--forkserver", type=float, default=0.05, help="share of processes started by forkserver")
    parser.add_argument("--terminate", type=float, default=0.2, help="share of kills that are SIGTERM")
    parser.add_argument("--stopped", type=float, nargs=2, default=(0.05, 2.0), help="seconds for which one is stopped")
    parser.add_argument("--joinable", action="store_true", help="a JoinableTurboQueue, and its counts")
    parser.add_argument("--pause", type=float, default=0.01, help="mean seconds between two bursts of puts")
    parser.add_argument("--one", action="store_true", help="bursts of one item")
    parser.add_argument("--big", action="store_true", help="some items of 100 KB")
    parser.add_argument("--claimed", type=float, default=0.0, help="share of consumers that claim")
    parser.add_argument("--durable", action="store_true", help="a durable queue, on the disk of the temporary folder")
    parser.add_argument("--authkey", action="store_true", help="a queue with an authkey, there too")
    given = parser.parse_args(arguments)
    if given.seed is None:
        given.seed = int.from_bytes(os.urandom(3), "little")
    pairs = {"limits": tuple(given.limits) if given.limits else None, "stopped": tuple(given.stopped)}
    options = Options(**{**vars(given), **pairs})
    print(f"kill_run: {options}, without {os.environ.get('TQSHIM_WITHOUT', 'nothing')!r}", flush=True)
    faulthandler.dump_traceback_later(options.seconds + 3 * PATIENCE)  # if this process itself hangs
    folder = own_folder.make("kill-run-of-tqshim-")
    # In memory where there is room: what is measured is the queue, not the disk.
    memory = os.access("/dev/shm", os.W_OK)
    root = own_folder.make("kill-run-of-tqshim-", "/dev/shm") if memory else f"{folder}/queues"
    os.makedirs(root, exist_ok=True)
    os.environ["TQSHIM_DIR"] = root
    # A process that is killed while ``tempfile`` tries its folder leaves a file there.  multiprocessing's own folder
    # goes at the very end: it is elsewhere.
    multiprocessing.util.get_temp_dir()
    tempfile.tempdir = os.environ["TMPDIR"] = folder
    try:
        run = carry_out(options, folder)
    finally:
        for path in (folder, root):
            shutil.rmtree(path, ignore_errors=True)
    print("kill_run:", ", ".join(f"{count} {what}" for what, count in run.events.items()), flush=True)
    for finding in run.findings:
        print("FOUND:", finding, flush=True)
    if run.findings:
        print(f"kill_run: repeat with --seed {options.seed}", flush=True)
    return bool(run.findings)


def carry_out(options: Options, folder: str) -> Run:
    run = Run(options, folder)
    try:
        if run.go():
            run.finish()
            run.count()
            if options.maxsize:
                run.check_places()
            run.check_folder()
    finally:
        for worker in run.alive:
            if worker.process.exitcode is None:
                worker.process.kill()
                worker.process.join()
    for path in sorted(pathlib.Path(folder).glob("error_*")):
        run.findings.append(f"{path.name}: {path.read_text()[-3000:]}")
    return run


if __name__ == "__main__":
    sys.exit(main())
