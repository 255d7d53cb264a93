"""Kill and stop the users of one queue at random instants, and count every item.

``python tests/kill_run.py --seconds 60 --seed 1 --maxsize 1000`` runs it by hand and prints what it counted; it ends
with 1 and a list of findings where the queue broke its word.  ``TQSHIM_WITHOUT`` switches optimisations off, as
everywhere.

Producers put (producer, number, padding) and note in a file of their own what ``put`` has returned; consumers note what
they got before their next ``get``.  One process more kills, stops, continues and replaces them.  In the end:

- nothing arrived twice, nothing arrived that was not put, and each consumer got each producer's items in their order;
- what is missing was in the hand of a killed consumer (one item each, or the k of its ``get_many``), or is the
  unpublished end of a killed producer's burst: a contiguous tail, a few milliseconds of putting at most;
- with ``--claimed`` such a share of the consumers are in blocks: of those nothing is missing, whenever they are killed,
  and what comes to a second one is marked;
- with ``--joinable`` the queue counts as many items as finished as ``task_done`` was called for them, but for the one
  call that a killed consumer had no time to note, and ``join`` returns once the rest is finished with;
- some are not killed but asked to end, by SIGTERM: those that leave in an orderly way lose nothing that they had put;
- every process that was not killed ended when it was asked to;
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

import tqshim.engine
import tqshim.tuning
from tqshim import Empty, Full, JoinableTurboQueue, TurboQueue

PUT = struct.Struct("<qdd")
"""Number, when put was called, when it returned, by the ``Clock`` of its producer."""
GOT = struct.Struct("<qq")
"""Producer, number."""
SEEN = struct.Struct("<qqqq")
"""Producer, number, how often it had come back, and what a block notes."""
BEGUN, ENDING, ENDED = range(3)
"""That it has begun; that it ends well, as the last it does; that it has ended."""
TAIL = 0.002
"""Seconds of putting that a killed producer may take with it: a burst is published after one millisecond of puts."""
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
    big: bool
    claimed: float
    durable: bool
    authkey: bool


class Refused(Exception):
    """What a block raises that does not do its work."""


class Clock:
    """Seconds that a thread has worked or chosen to sleep: not those for which it was stopped or had no processor.

    Whatever keeps a producer from putting also keeps it from publishing."""

    def __init__(self) -> None:
        self.slept = 0.0

    def now(self) -> float:
        return time.thread_time() + self.slept

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)
        self.slept += seconds


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
        self.orderly = False
        """It has ended by itself, though it was asked to."""
        self.stopped_until = 0.0


# --- the processes that may be killed --------------------------------------------------------------------------------


def padding(number: int, producer: int, big: bool) -> bytes:
    chance = hash((number, producer)) % 1000
    size = 100_000 if big and chance == 0 else 3000 if chance < 30 else chance % 40
    return bytes([number & 255]) * size


def ask_to_end(number: int, frame: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once: what it does at its end is not interrupted
    sys.exit(0)


def seal_at(length: int) -> None:
    """Seal batch files at so many bytes, those of large items at four times as many."""
    tqshim.tuning.FILE_BYTES, tqshim.tuning.LARGE_FILE_BYTES = length, 4 * length  # type: ignore[misc]


def set_up(options: Options, folder: str, number: int) -> tuple[random.Random, mmap.mmap, int]:
    if number % 2:  # the others die of it, as of SIGKILL
        signal.signal(signal.SIGTERM, ask_to_end)
    if options.file_bytes:
        seal_at(options.file_bytes)
    stacks = open(f"{folder}/stack_{number}", "w")  # noqa: SIM115 - open as long as the process
    faulthandler.register(signal.SIGUSR1, stacks, all_threads=True)
    with open(f"{folder}/flags", "r+b") as file:
        flags = mmap.mmap(file.fileno(), 4096)
    log = os.open(f"{folder}/log_{number}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    return random.Random(options.seed * 1_000_003 + number), flags, log


def done(queue: Any, options: Options, folder: str, number: int, count: int) -> None:
    """So many items are finished with; each call is noted."""
    if not options.joinable:
        return
    log = os.open(f"{folder}/done_{number}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for _ in range(count):
        queue.task_done()
        os.write(log, b".")
    os.close(log)


def failed(folder: str, number: int) -> None:
    with open(f"{folder}/error_{number}", "a") as file:
        file.write(traceback.format_exc())


def produce(queue: Any, options: Options, folder: str, number: int) -> None:
    try:
        rng, flags, log = set_up(options, folder, number)
        _produce(queue, options, number, rng, flags, log)
    except SystemExit:
        raise
    except BaseException:
        failed(folder, number)
        raise
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _produce(queue: Any, options: Options, me: int, rng: random.Random, flags: mmap.mmap, log: int) -> None:
    number = 0
    clock = Clock()
    lifetime = time.monotonic() + rng.expovariate(0.3)
    while not flags[STOP_PRODUCERS] and time.monotonic() < lifetime:
        way = rng.randrange(6)
        if way < 2 and options.many > 1:
            size = rng.randint(1, options.many)
            items = [(me, n, padding(n, me, options.big)) for n in range(number, number + size)]
            before = clock.now()
            try:
                queue.put_many(items, timeout=0.5 if options.maxsize else None)
            except Full as full:
                words = str(full).split()
                size = int(words[0]) if words else 0
            after = clock.now()
            os.write(log, b"".join(PUT.pack(n, before, after) for n in range(number, number + size)))
            number += size
            burst = 0
        else:
            burst = 1 if way == 2 else rng.choice((2, 10, 300, 2000))
        while burst and not flags[STOP_PRODUCERS]:
            burst -= 1
            item = (me, number, padding(number, me, options.big))
            before = clock.now()
            try:
                if way == 3:
                    queue.put_nowait(item)
                elif way == 4:
                    queue.put(item, timeout=0.2)
                else:
                    queue.put(item)
            except Full:
                clock.sleep(0.001)
                continue
            os.write(log, PUT.pack(number, before, clock.now()))
            number += 1
        if rng.random() < 0.5:
            clock.sleep(rng.expovariate(1 / options.pause))
        if options.joinable and rng.random() < 0.1:
            queue.join(timeout=rng.choice((0.0, 0.01)))
        while not options.maxsize and rng.random() < 0.5 and not flags[STOP_PRODUCERS] and queue.qsize() > 20_000:
            clock.sleep(0.01)


def consume(
    queue: Any, options: Options, folder: str, number: int, most: int, blocking: bool, life: float, claims: bool
) -> None:
    try:
        rng, flags, log = set_up(options, folder, number)
        if claims:
            _claim(queue, options, folder, number, rng, flags, log, blocking, life)
        else:
            _consume(queue, options, folder, number, rng, flags, log, most, blocking, life)
    except SystemExit:
        raise
    except BaseException:
        failed(folder, number)
        raise
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _consume(
    queue: Any,
    options: Options,
    folder: str,
    me: int,
    rng: random.Random,
    flags: mmap.mmap,
    log: int,
    most: int,
    blocking: bool,
    life: float,
) -> None:
    lifetime = time.monotonic() + life
    slow = rng.random() < 0.3
    while not flags[STOP_CONSUMERS] and (blocking or time.monotonic() < lifetime):
        timeout = None if blocking else rng.choice((0.0, 0.001, 0.02, 0.3))
        try:
            items = [queue.get(timeout=timeout)] if most == 1 else queue.get_many(True, timeout, rng.randint(1, most))
        except Empty:
            continue
        for producer, number, pad in items:
            if producer != POISON and pad != padding(number, producer, options.big):
                raise AssertionError(f"item {number} of producer {producer} arrived damaged")
        os.write(log, b"".join(GOT.pack(producer, number) for producer, number, _ in items))
        done(queue, options, folder, me, len(items))
        if any(producer == POISON for producer, _, _ in items):
            return
        if slow and rng.random() < 0.02:
            time.sleep(rng.expovariate(200))
        if time.monotonic() > lifetime and rng.random() < 0.001:
            return


def _claim(
    queue: Any,
    options: Options,
    folder: str,
    me: int,
    rng: random.Random,
    flags: mmap.mmap,
    log: int,
    blocking: bool,
    life: float,
) -> None:
    lifetime = time.monotonic() + life
    slow = rng.random() < 0.3
    while not flags[STOP_CONSUMERS] and (blocking or time.monotonic() < lifetime):
        timeout = None if blocking else rng.choice((0.0, 0.001, 0.02, 0.3))
        claim = queue.claimed(True, timeout)
        try:
            with claim as (producer, number, pad):
                os.write(log, SEEN.pack(producer, number, claim.redelivered, BEGUN))
                if producer != POISON and pad != padding(number, producer, options.big):
                    raise AssertionError(f"item {number} of producer {producer} arrived damaged")
                if slow and rng.random() < 0.02:
                    time.sleep(rng.expovariate(200))
                if producer != POISON and rng.random() < 0.02:
                    raise Refused
                os.write(log, SEEN.pack(producer, number, claim.redelivered, ENDING))
            os.write(log, SEEN.pack(producer, number, claim.redelivered, ENDED))
            done(queue, options, folder, me, 1)
        except (Empty, Refused):
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
        self.longest = 0.0
        self.unknown: set[tuple[int, int]] = set()
        self.late: list[str] = []
        """Items whose blocks may have ended when their claimers were killed."""
        with open(f"{folder}/flags", "wb") as file:
            file.write(bytes(4096))
        with open(f"{folder}/flags", "r+b") as file:
            self.flags = mmap.mmap(file.fileno(), 4096)
        if options.limits:
            tqshim.tuning.LIMITS = options.limits
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

    def signal(self, worker: Worker, number: int) -> None:
        if worker.process.exitcode is None:  # else it has come to its own end, and Process.start may have reaped it
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
            self.signal(worker, signal.SIGTERM)  # seen when it goes on, if it is stopped
        else:
            self.events["killed " + kind] += 1
            self.signal(worker, signal.SIGKILL)
            worker.process.join()
        worker.killed = True

    def reap(self, replace: bool) -> None:
        for worker in list(self.alive):
            code = worker.process.exitcode
            if code is None:
                continue
            self.alive.remove(worker)
            worker.process.close()
            worker.orderly = code == 0
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
        for worker in workers:
            kind = "producer" if worker.producer else "consumer"
            stack = pathlib.Path(f"{self.folder}/stack_{worker.number}").read_text()[-3000:]
            finding += f"\n--- {kind} {worker.number}, blocking={worker.blocking}, most={worker.most}:\n{stack}"
            self.kill(worker, finally_=True)
        self.findings.append(f"hung: {finding}\nledger: {self.ledger()}")

    def ledger(self) -> str:
        engine = self.queue._engine
        with engine._lock:
            engine._sync()
            found = engine.ledger
            return (
                f"head={found.head} tail={found.tail} lease={found.lease} res={found.res} reserved={found.reserved} "
                f"held={found.held} returned={found.returned} "
                f"maxsize={found.maxsize} members={found.members} journal={engine.journal.number}"
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
                    self.queue.put_nowait((POISON, 0, b""))  # for those who wait for ever
            elif not any(not worker.producer for worker in self.alive):
                self.start(False)  # somebody must take what blocks them
            time.sleep(0.02)

    # -- counting

    def bury(self) -> bool:
        """All claimers have ended: what they held comes back.  ``False``: they held nothing."""
        engine = self.queue._engine
        with engine._lock:
            engine._begin()
            engine._sync()
            held = bool(engine.ledger.held)
            engine._scan()
            if engine.ledger.held:
                self.findings.append(f"items of the dead are held: {engine.ledger.held}, {engine.ledger.members}")
                held = False
            engine._unsure = False
        return held

    def count(self) -> None:
        drained: list[tuple[int, int]] = []
        while True:
            try:
                for producer, number, _ in self.queue.get_many(timeout=2.5):
                    drained.append((producer, number))
            except Empty:
                if not self.bury():
                    break
        if self.queue.qsize() or not self.queue.empty():
            self.findings.append(f"drained, but qsize() is {self.queue.qsize()}")
        put: dict[int, list[tuple[int, float, float]]] = {}
        got: collections.Counter[tuple[int, int]] = collections.Counter()
        takers: dict[tuple[int, int], list[int]] = {}
        blocks = self.read_blocks()
        for worker in self.workers:
            log = pathlib.Path(f"{self.folder}/log_{worker.number}")
            data = log.read_bytes() if log.exists() else b""
            if worker.producer:
                put[worker.number] = list(PUT.iter_unpack(data[: len(data) // PUT.size * PUT.size]))
            elif not worker.claims:
                self.count_consumer(worker.number, list(GOT.iter_unpack(data)), got, takers, blocks)
        self.count_consumer(-1, drained, got, takers, blocks)
        claimers = sum(worker.killed and worker.claims for worker in self.workers)
        if len(self.late) > claimers:
            self.findings.append(f"out of order, though {claimers} claimers were killed: {self.late[:20]}")
        self.count_blocks(blocks, got, takers)
        self.events["items"] = sum(got.values())
        doubled = [item for item, times in got.items() if times > 1]
        if doubled:
            self.findings.append(f"{len(doubled)} items arrived twice: {[(i, takers[i]) for i in sorted(doubled)[:8]]}")
        in_hand = 0
        hands = sum(
            worker.most for worker in self.workers if worker.killed and not worker.producer and not worker.claims
        )
        if self.options.joinable:
            self.count_done()
        producers = {worker.number: worker for worker in self.workers if worker.producer}
        arrived: dict[int, set[int]] = collections.defaultdict(set)
        for producer, number in got:
            arrived[producer].add(number)
        missing_list = []
        for number, worker in producers.items():
            noted = put[number]
            missing = [n for n, _, _ in noted if n not in arrived[number]]
            strangers = [n for n in arrived[number] if n > len(noted) + self.options.many]
            if strangers:
                self.findings.append(f"items {strangers[:5]} of producer {number} arrived, it had put {len(noted)}")
            if worker.killed and not worker.orderly and missing:
                cut = len(noted)
                last = noted[-1][1]
                while cut and noted[cut - 1][0] not in arrived[number] and noted[cut - 1][2] >= last - TAIL:
                    cut -= 1
                if any(n >= len(noted) for n in arrived[number]):
                    cut = len(noted)  # something later arrived: that was no tail
                self.events["unpublished ends"] += len(noted) - cut
                if cut < len(noted):
                    self.longest = max(self.longest, last - noted[cut][2])
                missing = [n for n in missing if n < cut]
            in_hand += len(missing)
            missing_list += [(number, n, len(noted), worker.killed) for n in missing]
        self.events["missing, in hand"] = in_hand
        self.events["hands that were killed"] = hands
        if in_hand > hands:
            self.findings.append(f"{in_hand} items are missing, killed hands held {hands} at most: {missing_list[:10]}")

    def count_consumer(
        self,
        number: int,
        items: list[tuple[int, int]],
        got: collections.Counter[tuple[int, int]],
        takers: dict[tuple[int, int], list[int]],
        blocks: dict[tuple[int, int], list[tuple[int, int, bool]]],
    ) -> None:
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

    def read_blocks(self) -> dict[tuple[int, int], list[tuple[int, int, bool]]]:
        """Of each item that blocks have had: by whom, how often it had come back, and whether that block ended well."""
        blocks: dict[tuple[int, int], list[tuple[int, int, bool]]] = {}
        for worker in self.workers:
            log = pathlib.Path(f"{self.folder}/log_{worker.number}")
            if not worker.claims or not log.exists():
                continue
            entries = list(SEEN.iter_unpack(log.read_bytes()))
            last: dict[int, int] = {}
            for at, (producer, number, times, note) in enumerate(entries):
                if producer == POISON or note != BEGUN:
                    continue
                if number <= last.get(producer, -1) and not times:
                    self.findings.append(f"claimer {worker.number} got item {number} of {producer} after a later one")
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
        noted = sum(path.stat().st_size for path in pathlib.Path(self.folder).glob("done_*"))
        killed = sum(worker.killed and not worker.producer for worker in self.workers)
        ledger = self.queue._engine.ledger
        self.events["finished"] = ledger.finished
        if not noted <= ledger.finished <= noted + killed:
            self.findings.append(f"{ledger.finished} items count as finished, {noted} do, {killed} did not say")
        left = ledger.unfinished
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
        engine = self.queue._engine
        path = engine.folder.path
        with engine._lock:
            engine._scan()
        own = f"load_{engine._file.member:x}_{engine._file.serial:x}" if engine._file else ""
        left = [name for name in os.listdir(path) if name.startswith(("load_", "ready_")) and name != own]
        if left:
            self.findings.append(f"batch files are left in a drained queue: {sorted(left)[:8]}; {self.ledger()}")
        rolls = [f for f in os.listdir(path) if f.startswith(("journal_", "roll_", "spare_", "corrupt_"))]
        if len(rolls) > 4:
            self.findings.append(f"journals are left: {sorted(rolls)}, the newest is {engine.journal.number}")
        if len(engine.ledger.members) > 2:
            self.findings.append(f"dead members are left: {self.ledger()}")
        del engine
        root = os.environ["TQSHIM_DIR"]
        self.queue.close()
        del self.queue
        deadline = time.monotonic() + PATIENCE
        while True:
            TurboQueue().close()
            left = os.listdir(root)
            if not left or time.monotonic() > deadline:
                break
            time.sleep(0.01)  # a flusher thread may hold an engine for a moment
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
    parser.add_argument("--file-bytes", type=int, default=0, help="length at which a batch file is sealed")
    parser.add_argument("--spawn", type=float, default=0.1, help="share of processes started by spawn")
    parser.add_argument("--forkserver", type=float, default=0.05, help="share of processes started by forkserver")
    parser.add_argument("--terminate", type=float, default=0.2, help="share of kills that are SIGTERM")
    parser.add_argument("--stopped", type=float, nargs=2, default=(0.05, 2.0), help="seconds for which one is stopped")
    parser.add_argument("--joinable", action="store_true", help="a JoinableTurboQueue, and its counts")
    parser.add_argument("--pause", type=float, default=0.01, help="mean seconds between two bursts")
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
    print(f"kill_run: the longest unpublished end took {run.longest * 1000:.3f} ms to put", flush=True)
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
