"""Shortages: a small or full disk, a limit on file sizes, no descriptors left.  Items that wait arrive all the same."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import multiprocessing
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import product
from typing import Any
from unittest import mock

import pytest
from places import lacking, needs
from sampling import sampled

import tqshim.engine.supply
import tqshim.engine.tuning
import tqshim.runtime.systems
import tqshim.storage.batch_file
import tqshim.storage.files
import tqshim.storage.folder
import tqshim.storage.journal
import tqshim.storage.large_records
import tqshim.storage.member_locks
import tqshim.storage.places
import tqshim.sync.membarrier
from tqshim import Empty, FolderError, TurboQueue, UnsupportedError, monitor
from tqshim.cli import main as cli
from tqshim.protocol import events
from tqshim.sync.cells import SLEEPS

PATIENCE = 120.0
MB = 1 << 20


SETS_ASIDE = tqshim.runtime.systems.RESVSP is not None or tqshim.runtime.systems.PREALLOCATE is not None
needs_reserved_space = pytest.mark.skipif(
    not SETS_ASIDE,
    reason="no disk space can be set aside here, so a journal may find the disk full",
)
needs_leases = pytest.mark.skipif(
    not (tqshim.engine.tuning.LEASES and tqshim.sync.membarrier.barrier_works()),
    reason="so many claims fill the journal, and the next one finds the disk full",
)


@contextlib.contextmanager
def full(disk: pathlib.Path) -> Iterator[None]:
    """No byte is left there."""
    fill(disk)
    yield
    (disk / "junk").unlink()


def fill(disk: pathlib.Path) -> None:
    with open(disk / "junk", "ab", buffering=0) as junk:
        for size in (MB, 4096, 1):
            with contextlib.suppress(OSError):
                while junk.write(bytes(size)) == size:
                    pass


def flow(queue: Any, megabytes: int) -> None:
    """So many megabytes through the queue, read more slowly than they are put, checked at the other end."""
    fork = multiprocessing.get_context("fork")
    producers = [fork.Process(target=_produce, args=(queue, n, megabytes // 2)) for n in range(2)]
    for producer in producers:
        producer.start()
    hashes = [hashlib.sha256(), hashlib.sha256()]
    counts = [0, 0]
    while min(counts) < megabytes // 2 * 16:
        producer_number, number, data = queue.get(timeout=PATIENCE)
        assert number == counts[producer_number]
        counts[producer_number] += 1
        hashes[producer_number].update(data)
    with pytest.raises(Empty):
        queue.get_nowait()
    for number, producer in enumerate(producers):
        producer.join(PATIENCE)
        assert producer.exitcode == 0
        expected = hashlib.sha256()
        for item in range(counts[number]):
            expected.update(_data(number, item))
        assert hashes[number].digest() == expected.digest()


def _data(producer: int, number: int) -> bytes:
    return (b"%d %d " % (producer, number)).ljust(16, b".") * 4096


def _produce(queue: Any, producer: int, megabytes: int) -> None:
    for number in range(megabytes * 16):
        queue.put((producer, number, _data(producer, number)))


def check_flow(disk: pathlib.Path, megabytes: int) -> None:
    queue = TurboQueue()
    flow(queue, megabytes)
    queue.put("one more")
    assert queue.get(timeout=PATIENCE) == "one more"
    path = queue._engine.folder.path

    def left() -> list[str]:
        found = [name for name in os.listdir(path) if name.startswith(("load_", "ready_"))]
        with contextlib.suppress(FileNotFoundError):
            found += [name for name in os.listdir(f"{path}/spill") if name != "home"]
        return found

    deadline = time.monotonic() + PATIENCE
    while len(left()) > 1:  # the last of the files is this process's own
        assert time.monotonic() < deadline, left()
        with pytest.raises(Empty):
            queue.get(timeout=0.3)  # who waits looks for files that nobody needs
    queue.close()


@pytest.mark.in_turn
@pytest.mark.parametrize("durable", [False, True])
def test_a_batch_for_which_the_disk_has_no_room_says_how_many_items_were_put(
    small_disk_alone: pathlib.Path, durable: bool
) -> None:
    """So that who tries again doubles none; who slept before them hears of them."""
    got: list[Any] = []
    q: Any = TurboQueue(path=str(small_disk_alone / "q"), durable=durable)
    reader = threading.Thread(target=lambda: got.append(q.get()))
    reader.start()
    while not q._engine.parts.waiter.waiting[SLEEPS]:
        time.sleep(1e-3)
    with pytest.raises(OSError, match=r"the first (\d+) items were put") as raised:
        q.put_many([bytes(50_000)] * 3000)
    assert raised.value.errno == errno.ENOSPC
    put = int(str(raised.value).split("the first ")[1].split()[0])
    reader.join(5.0)
    assert not reader.is_alive()
    assert 0 < put == len(got) + len(list(q.drain()))
    q.put_many([bytes(50_000)] * (put // 2))
    assert q.qsize() == put // 2


@pytest.mark.in_turn
def test_200_megabytes_flow_through_a_disk_of_64(small_disk: pathlib.Path) -> None:
    check_flow(small_disk, 200)


@pytest.mark.stress
def test_a_gigabyte_flows_through_a_disk_of_64_megabytes(small_disk: pathlib.Path) -> None:
    check_flow(small_disk, 1024)


def test_space_for_blocks_to_come_makes_no_journal_longer(monkeypatch: pytest.MonkeyPatch, all_is_cut: None) -> None:
    monkeypatch.setattr(tqshim.engine.tuning, "LEASES", False)
    with TurboQueue() as queue:
        replica = queue._engine.parts.replica
        while replica.journal.number < 4:
            queue.put(0)
            assert queue.get() == 0
        assert replica.ledger.position.limit == replica.ledger.settings.first_limit << 4


@pytest.mark.in_turn
@needs_reserved_space
@pytest.mark.parametrize(("size", "turn"), sampled("many", list(product((70_000, 300_000), range(2))), 1))
def test_many_producers_of_large_items_share_a_small_disk(small_disk: pathlib.Path, size: int, turn: int) -> None:
    """They fill it while no journal is at its half: each next one needs space for all the blocks that wait."""
    fork = multiprocessing.get_context("fork")
    count = 4 * 64 * MB // size // 20

    def produce(queue: Any, me: int) -> None:
        for number in range(count):
            queue.put((me, number, bytes([me]) * size))

    for _ in range(2):
        with TurboQueue() as queue:
            producers = [fork.Process(target=produce, args=(queue, me)) for me in range(20)]
            for producer in producers:
                producer.start()
            next_ones = [0] * 20
            for _ in range(20 * count):
                me, number, data = queue.get(timeout=PATIENCE)
                assert (number, data) == (next_ones[me], bytes([me]) * size)
                next_ones[me] += 1
            for producer in producers:
                producer.join(PATIENCE)
                assert producer.exitcode == 0


@contextlib.contextmanager
def full_but(size: int, disk: pathlib.Path, folder: tqshim.storage.folder.LogFolder) -> Iterator[None]:
    """So many bytes are left there."""
    with open(disk / "junk", "ab") as junk:
        os.posix_fallocate(junk.fileno(), 0, folder.room() - size)
    yield
    (disk / "junk").unlink()


@needs_reserved_space
def test_free_files_make_room_for_the_next_journal(small_disk: pathlib.Path) -> None:
    """Else they are refilled, and then the disk is full of items that no journal has room to say are got."""
    with TurboQueue() as queue:
        folder = queue._engine.folder
        (small_disk / folder.path / "free_0_0").write_bytes(bytes(MB))
        with full(small_disk):
            folder.set_space_aside(7, 10_000)
        assert (small_disk / folder.path / "spare_7").stat().st_blocks * 512 >= 80_000
        assert not (small_disk / folder.path / "free_0_0").exists()


@needs_reserved_space
def test_a_journal_too_short_for_all_claims_gives_way_to_one_that_is_not(
    small_disk: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tqshim.engine.tuning, "ROLL_PATIENCE_FULL", PATIENCE)
    with TurboQueue() as queue:
        for number in range(100):
            queue.put(number)
        engine = queue._engine
        replica = engine.parts.replica
        ledger = replica.ledger
        with engine.lock:
            number = replica.journal.number + 1
            while ledger.position.index < ledger.position.limit:
                replica.journal.append(events.seal(1))  # void until then
                replica.sync()
            engine.folder.set_space_aside(number, ledger.next_limit + 1000)
            key = replica._prepare_roll(number, whole=True)
            with full_but(4096, small_disk, engine.folder):  # half of what a whole one takes
                with pytest.raises(OSError) as raised:
                    replica._prepare_roll(number, whole=True)
                assert raised.value.errno == errno.ENOSPC
                rolls = [name for name in os.listdir(engine.folder.path) if name.startswith("roll_")]
                assert rolls == [f"roll_{number}_{key}"]
                seal_at = time.monotonic() + 10 * tqshim.engine.tuning.ROLL_PATIENCE
                limit = ledger.next_limit

                def wait(seconds: float) -> None:
                    """Who makes the whole one is kept from running so long."""
                    nonlocal seal_at
                    sleep(seconds)
                    if time.monotonic() > seal_at:
                        seal_at += PATIENCE
                        replica.journal.append(events.seal(int(key, 16)))

                sleep = time.sleep
                monkeypatch.setattr(time, "sleep", wait)
                replica.roll()
                monkeypatch.undo()
                assert (replica.journal.number, replica.ledger.position.limit) == (number, limit)
        assert [queue.get(timeout=PATIENCE) for _ in range(100)] == list(range(100))


@needs_reserved_space
def test_files_that_grow_leave_a_small_disk_room_for_journals(small_disk: pathlib.Path) -> None:
    with TurboQueue() as queue:
        queue.put(bytes(70_000))
        folder = queue._engine.folder
        with full_but(tqshim.storage.folder.SPILL_BELOW + 100_000, small_disk, folder):
            for _ in range(10):
                queue.put(bytes(70_000))
            assert folder.room() > tqshim.storage.folder.SPILL_BELOW - 100_000
        for _ in range(11):
            assert queue.get(timeout=PATIENCE) == bytes(70_000)


@pytest.mark.in_turn
def test_bounded_queue_flows_through_a_small_disk_without_spilling(small_disk_alone: pathlib.Path) -> None:
    queue = TurboQueue(200)
    flow(queue, 100)
    queue.close()


@pytest.mark.in_turn
@needs_reserved_space
@pytest.mark.parametrize("consumers", [1, 2])
@pytest.mark.parametrize(("items", "size"), [(40, MB), (20_000, 8), (100, 100)])
def test_full_disk_is_drained_by_claims_that_all_succeed(
    small_disk_alone: pathlib.Path, items: int, size: int, consumers: int
) -> None:
    queue = TurboQueue()
    with another_consumer(queue) if consumers == 2 else contextlib.nullcontext():
        for number in range(items):
            queue.put((number, b"." * size))
        assert queue.qsize() == items
        with full(small_disk_alone):
            for number in range(items):
                assert queue.get(timeout=PATIENCE) == (number, b"." * size)
                if number % 10 == 0:
                    fill(small_disk_alone)  # what the queue gives back is gone at once
            assert queue.empty()
        check_works(queue)


@contextlib.contextmanager
def another_consumer(queue: Any) -> Iterator[None]:
    """A process that has asked for an item, and now only lives: from then on nobody leases."""
    fork = multiprocessing.get_context("fork")
    joined, end = fork.Event(), fork.Event()
    process = fork.Process(target=_join, args=(queue, joined, end))
    process.start()
    try:
        assert joined.wait(PATIENCE)
        yield
    finally:
        end.set()
        process.join(PATIENCE)


def _join(queue: Any, joined: Any, end: Any) -> None:
    with contextlib.suppress(Empty):
        queue.get(timeout=0.01)
    joined.set()
    end.wait()


def test_put_to_a_full_disk_raises_and_goes_on_when_space_returns(small_disk_alone: pathlib.Path) -> None:
    queue = TurboQueue()
    queue.put("first")
    with full(small_disk_alone):
        theirs = multiprocessing.get_context("spawn").Queue()
        for number in range(300):
            theirs.put((number, b"." * 5000))
        assert [theirs.get(timeout=PATIENCE)[0] for _ in range(300)] == list(range(300))
        with pytest.raises(OSError, match="get items, or free space") as raised:
            for number in range(10_000):
                queue.put((number, b"." * 5000))
        assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, queue._engine.folder.path)
        returned = number
        assert queue.get(timeout=PATIENCE) == "first"
    queue.put("last")
    assert [queue.get(timeout=PATIENCE)[0] for _ in range(returned)] == list(range(returned))
    assert queue.get(timeout=PATIENCE) == "last"
    check_works(queue)


@pytest.mark.in_turn
def test_burst_to_a_full_disk_loses_nothing_whose_put_returned(small_disk_alone: pathlib.Path) -> None:
    queue = TurboQueue()
    queue.put(-1)
    returned = []
    with full(small_disk_alone):
        for number in range(3000):
            with contextlib.suppress(OSError):
                queue.put((number, b"." * 200))
                returned.append(number)
        assert queue.get(timeout=PATIENCE) == -1
    check = [queue.get(timeout=PATIENCE)[0] for _ in returned]
    assert check == returned
    check_works(queue)


@needs_reserved_space
@pytest.mark.parametrize("items", [150, pytest.param(300, marks=needs_leases)])
def test_put_to_a_full_disk_spills_over_where_there_is_another(small_disk: pathlib.Path, items: int) -> None:
    queue = TurboQueue()
    with full(small_disk):
        for number in range(items):
            queue.put((number, b"." * 50_000))
        for number in range(items):
            assert queue.get(timeout=PATIENCE)[0] == number
    check_works(queue)


@pytest.mark.parametrize("size", [70_000, MB])
def test_large_put_to_a_full_disk_raises_and_goes_on_when_space_returns(
    small_disk_alone: pathlib.Path, size: int
) -> None:
    with TurboQueue() as queue:
        put: list[int] = []
        with full(small_disk_alone):
            with pytest.raises(OSError) as raised:
                for number in range(1000):
                    queue.put((number, bytes(size)))
                    put.append(number)
            assert raised.value.errno == errno.ENOSPC
            for number in put:
                assert queue.get(timeout=PATIENCE) == (number, bytes(size))
        for number in range(5):
            queue.put((number, bytes(size)))
        for number in range(5):
            assert queue.get(timeout=PATIENCE) == (number, bytes(size))
        assert queue.empty()


@pytest.mark.skipif(not tqshim.engine.tuning.REFILLING, reason="no file is filled again")
def test_large_items_flow_through_a_full_disk_in_files_that_come_back(small_disk_alone: pathlib.Path) -> None:
    with TurboQueue() as queue:
        queue.put(b"." * MB)
        assert queue.get(timeout=PATIENCE) == b"." * MB
        queue.put(b"," * MB)  # in another: the first one comes back
        assert queue.get(timeout=PATIENCE) == b"," * MB
        with full(small_disk_alone):
            for number in range(20):
                queue.put(bytes([number]) * MB)
                assert queue.get(timeout=PATIENCE) == bytes([number]) * MB


@pytest.mark.skipif(not os.path.isdir(tqshim.runtime.systems.SHM or ""), reason="no pages are counted")
@pytest.mark.parametrize("sizes", [(10,), (5000, 10), (70_000, 10), (10, MB), (600_000, 70_000)])
def test_every_page_of_a_batch_file_is_there_before_it_is_mapped(
    small_disk_alone: pathlib.Path, sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store to a page that is not, or a look at one beyond the file's end, kills the process."""
    mapped = []
    take = tqshim.storage.batch_file.BatchFile.__init__

    def look(self: Any, file: Any, fd: int, *values: Any, **named: Any) -> None:
        status = os.fstat(fd)
        mapped.append(status.st_size)
        assert status.st_blocks * 512 >= status.st_size
        take(self, file, fd, *values, **named)
        assert len(self.memory) <= status.st_size

    monkeypatch.setattr(tqshim.storage.batch_file.BatchFile, "__init__", look)
    with TurboQueue() as queue:
        for number in range(60):
            items = [(number, bytes(size)) for size in sizes]
            queue.put_many(items)
            assert [queue.get(timeout=PATIENCE) for _ in items] == items
    assert mapped


def test_bounded_put_to_a_full_disk_raises_and_keeps_its_place(small_disk_alone: pathlib.Path) -> None:
    queue = TurboQueue(2000)
    queue.put("first")
    with full(small_disk_alone):
        with pytest.raises(OSError):
            queue.put_many([b"." * 1000] * 1000)
        with pytest.raises(OSError):
            for _ in range(1000):
                queue.put(b"." * 5000)
        while not queue.empty():
            queue.get(timeout=PATIENCE)
    for number in range(2000):
        queue.put_nowait(number)
    with pytest.raises(tqshim.Full):
        queue.put_nowait(None)
    assert queue.get_many(max_messages_to_get=2000) == list(range(2000))
    check_works(queue)


def test_new_queue_on_a_full_disk_is_refused_and_leaves_nothing(small_disk_alone: pathlib.Path) -> None:
    with full(small_disk_alone):
        with pytest.raises(OSError, match=f"{small_disk_alone}/tqshim-") as raised:
            TurboQueue()
        assert raised.value.errno == errno.ENOSPC
        assert os.listdir(small_disk_alone) == ["junk"]


def test_new_queue_at_a_path_on_a_full_disk_says_the_path_and_can_be_made_later(small_disk: pathlib.Path) -> None:
    path = f"{small_disk}/queue"
    with full(small_disk), pytest.raises(OSError, match=path) as raised:
        TurboQueue(path=path)
    assert raised.value.errno == errno.ENOSPC
    with TurboQueue(path=path) as queue:
        queue.put(1)
        assert queue.get(timeout=PATIENCE) == 1


def check_works(queue: Any) -> None:
    queue.put("probe", timeout=PATIENCE)
    assert queue.get(timeout=PATIENCE) == "probe"
    queue.close()


# --- limits of the process -------------------------------------------------------------------------------------------


def in_child(code: str) -> str:
    """Run a program with limits of its own and return what it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_limit_on_file_sizes_is_refused_at_construction() -> None:
    said = in_child(
        "import resource, tqshim\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))\n"
        "try: tqshim.TurboQueue()\n"
        "except tqshim.UnsupportedError as error: print(error)\n"
    )
    assert "RLIMIT_FSIZE" in said and "ulimit -f" in said
    assert issubclass(UnsupportedError, OSError)


def test_large_limit_on_file_sizes_is_accepted() -> None:
    said = in_child(
        "import resource, tqshim\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, resource.RLIM_INFINITY))\n"
        "queue = tqshim.TurboQueue(); queue.put('it works'); print(queue.get(timeout=60))\n"
    )
    assert said == "it works\n"


NO_DESCRIPTORS = """
import os, resource, tqshim
from programs.descriptors import use_up
from tqshim import Empty, TurboQueue

resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
queue = TurboQueue({maxsize})
if {joined}:
    queue.put("first")
    assert queue.get() == "first"

put, got, errors = [], [], []
for but in range(8):
    taken = use_up(but)
    try:
        TurboQueue().close()
    except OSError as error:
        errors.append(error)
    for _ in range(3):
        number = 100 * but + _
        try:
            queue.put(number, timeout=5)
            put.append(number)
        except OSError as error:
            errors.append(error)
        try:
            got.append(queue.get(timeout=0.001))
        except Empty:
            pass
        except OSError as error:
            errors.append(error)
    for fd in taken:
        os.close(fd)
assert errors
for error in errors:
    assert "tqshim-" in str(error) and "ulimit -n" in str(error), error
assert all(error.errno == 24 for error in errors), errors
queue.put("last")
while True:
    item = queue.get(timeout=60)
    if item == "last":
        break
    got.append(item)
# A put that raised may have left its item, or not; one that returned has.
assert got == sorted(set(got)) and set(put) <= set(got), (put, got)
try:
    queue.get(timeout=0.01)
except Empty:
    pass
for _ in range(300):
    queue.put(_)
    assert queue.get(timeout=60) == _
queue.close()
print(len(os.listdir("/proc/self/fd")) < 20)
"""


@pytest.mark.in_turn
@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="descriptors are counted with the help of /proc")
@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("maxsize", [0, 10])
def test_queue_goes_on_after_descriptors_ran_out(maxsize: int, joined: bool) -> None:
    assert in_child(NO_DESCRIPTORS.format(maxsize=maxsize, joined=joined)) == "True\n"


FEW_DESCRIPTORS = """
import os, resource, tqshim
from programs.descriptors import use_up

resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
queue = tqshim.TurboQueue(batch_size=256)
for number in range(10_000):
    queue.put(number)
taken = use_up()
for free in range(3):
    try:
        print(queue.stats().bytes)
    except OSError as error:
        print(error.errno, "tqshim-" in str(error) and "ulimit -n" in str(error))
    os.close(taken.pop())
for fd in taken:
    os.close(fd)
print(queue.stats().bytes)
"""


def test_stats_needs_two_descriptors_and_says_so_where_there_are_fewer() -> None:
    """Forty batch files are waiting: as many bytes are counted with two descriptors as with sixty."""
    none, one, two, many = in_child(FEW_DESCRIPTORS).splitlines()
    assert none == one == f"{errno.EMFILE} True"
    assert int(two) == int(many) > 10_000


# --- shortages that a call reports ------------------------------------------------------------------------------------


class Failing:
    """The module ``os``, or another, of which some call fails once with some error."""

    def __init__(self, call: str, number: int, nth: int, module: Any = os) -> None:
        self._call = call
        self._number = number
        self._left = nth
        self._module = module

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._module, name)
        if name != self._call:
            return real

        def maybe(*values: Any, **named: Any) -> Any:
            self._left -= 1
            if not self._left:
                raise OSError(self._number, os.strerror(self._number))
            return real(*values, **named)

        return maybe

    @property
    def failed(self) -> bool:
        return self._left <= 0


def test_an_event_that_is_torn_names_the_queue_and_what_saves_its_items(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Tearing:
        def __getattr__(self, name: str) -> Any:
            return (lambda fd, data: os.write(fd, data[:5])) if name == "write" else getattr(os, name)

    queue = TurboQueue(path=path)
    queue.put("item")
    with monkeypatch.context() as torn:
        torn.setattr(tqshim.storage.journal, "os", Tearing())
        with pytest.raises(FolderError, match="torn; python -m tqshim recover --into") as told:
            queue.get(timeout=1)
    assert told.value.path == f"{path}/journal_0"
    queue.close()


REPORTED = ["EDQUOT", "ENOSPC", "EIO", "EROFS", "EMFILE", "ENFILE", "ENOMEM"]


CALLS = ["open", "write", "posix_fallocate", "pread", "rename", "unlink"]
LARGE_CALLS = ["open", "posix_fallocate", "pwritev", "pread", "preadv", "rename", "unlink", "fstat", "statvfs"]


@pytest.mark.in_turn
@pytest.mark.parametrize(("name", "call", "maxsize"), sampled("failed", list(product(REPORTED, CALLS, (0, 100))), 16))
def test_failed_call_costs_no_item_whose_put_returned(
    monkeypatch: pytest.MonkeyPatch, name: str, call: str, maxsize: int
) -> None:
    """Wherever it fails: the act raises that error, or copes; afterwards everything goes on."""
    if call == "posix_fallocate" and not tqshim.runtime.systems.ALLOCATE:
        pytest.skip("here zeros are written instead")
    check_failed_calls(monkeypatch, name, call, maxsize, os)


@pytest.mark.in_turn
@pytest.mark.parametrize(
    ("name", "call", "maxsize"),
    sampled("failed large", list(product(("ENOSPC", "EIO", "EMFILE"), LARGE_CALLS, (0, 100))), 8),
)
def test_failed_call_costs_no_large_item_whose_put_returned(
    monkeypatch: pytest.MonkeyPatch, name: str, call: str, maxsize: int
) -> None:
    """Of 70 KB, which are copied, and of 600 KB, which are unpickled from their files."""
    if (call == "posix_fallocate" and not tqshim.runtime.systems.ALLOCATE) or (
        call == "pwritev" and not tqshim.runtime.systems.PWRITEV
    ):
        pytest.skip("that call is not made here")
    if call == "preadv" and (tqshim.runtime.systems.OFD_TEST is None or not tqshim.engine.tuning.IN_FILES):
        pytest.skip("nothing is unpickled from its file")
    if call == "preadv":
        monkeypatch.setattr(tqshim.engine.tuning, "MAPPINGS", False)
    check_failed_calls(monkeypatch, name, call, maxsize, os, (70_000, 600_000))


@pytest.mark.in_turn
@pytest.mark.parametrize("maxsize", [0, 100])
@pytest.mark.parametrize("call", ["fcntl", "ioctl"])
@pytest.mark.parametrize("name", ["ENOLCK", "EIO", "EINTR", "ENOSPC"])
def test_failed_lock_or_reservation_costs_no_item_whose_put_returned(
    monkeypatch: pytest.MonkeyPatch, name: str, call: str, maxsize: int
) -> None:
    if call == "ioctl" and tqshim.runtime.systems.RESVSP is None:
        pytest.skip("no disk space is set aside by ioctl here")
    check_failed_calls(monkeypatch, name, call, maxsize, fcntl)


ROOMS = (
    tqshim.runtime.systems,
    tqshim.storage.batch_file,
    tqshim.storage.files,
    tqshim.storage.folder,
    tqshim.storage.journal,
    tqshim.storage.large_records,
    tqshim.storage.member_locks,
    tqshim.storage.places,
)
"""Where files are used."""


def check_failed_calls(
    monkeypatch: pytest.MonkeyPatch, name: str, call: str, maxsize: int, module: Any, sizes: tuple[int, ...] = (100,)
) -> None:
    number = getattr(errno, name)
    monkeypatch.setattr(tqshim.engine.tuning, "LIMITS", (16, 64))
    monkeypatch.setattr(tqshim.engine.tuning, "FILE_BYTES", 1 << 10)
    monkeypatch.setattr(tqshim.engine.supply, "FIRST_BYTES", 1 << 10)
    failures = 0
    for nth in range(1, 12):
        failing = Failing(call, number, nth, module)
        queue = TurboQueue(maxsize)
        put: list[int] = []
        got: list[Any] = []
        errors: list[OSError] = []
        with monkeypatch.context() as patch:
            for room in ROOMS:
                if hasattr(room, module.__name__):
                    patch.setattr(room, module.__name__, failing)
            for item in range(60 if max(sizes) < 1000 else 20):
                try:
                    queue.put((item, b"." * sizes[item % len(sizes)]), timeout=PATIENCE)
                    put.append(item)
                except OSError as error:
                    errors.append(error)
                if item % 3:
                    try:
                        got.append(queue.get(timeout=PATIENCE)[0])
                    except OSError as error:
                        errors.append(error)
        failures += failing.failed
        lost = [error for error in errors if isinstance(error, tqshim.CorruptBatchError)]
        # Of bytes that can't be read nobody knows whether that is for once only.
        assert not lost or (name == "EIO" and call in ("open", "pread", "preadv", "fstat"))
        assert all(error.errno == number for error in errors if error not in lost), errors
        while True:
            try:
                got.append(queue.get_nowait()[0])
            except Empty:
                break
            except tqshim.CorruptBatchError as error:
                lost.append(error)
        assert got == sorted(set(got))
        assert len(set(put) - set(got)) <= len(lost), (put, got, errors)
        check_works(queue)
    assert failures


class Short:
    """The module ``os``, whose writes of more than a few events end half-way, as they may on a disk that is nearly
    full; space for events is set aside."""

    def __init__(self) -> None:
        self.cut = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def write(self, fd: int, data: Any) -> int:
        return os.write(fd, self.half(data))

    def pwrite(self, fd: int, data: Any, offset: int) -> int:
        return os.pwrite(fd, self.half(data), offset)

    def pwritev(self, fd: int, parts: Any, offset: int) -> int:
        return os.pwrite(fd, self.half(b"".join(parts)), offset)

    def half(self, data: Any) -> Any:
        if len(data) <= 128:
            return data
        self.cut += 1
        return memoryview(data)[: len(data) // 2]


@pytest.mark.parametrize("maxsize", [0, 50])
def test_writes_that_are_cut_short_are_gone_on_with(monkeypatch: pytest.MonkeyPatch, maxsize: int) -> None:
    monkeypatch.setattr(tqshim.engine.tuning, "LIMITS", (16, 64))
    monkeypatch.setattr(tqshim.engine.tuning, "MAPPINGS", False)  # else little is written
    short = Short()
    for room in ROOMS:
        monkeypatch.setattr(room, "os", short)
    queue = TurboQueue(maxsize)
    for size in (1, 100, 70_000, 1 << 20) * 10:
        queue.put_many([size, b"." * size, b"," * size])
        assert queue.get_many(timeout=PATIENCE, max_messages_to_get=3) == [size, b"." * size, b"," * size]
    assert short.cut > 40
    check_works(queue)


def mounted(path: pathlib.Path, options: str) -> None:
    needs("mount", "--version")
    words = ["mount", "-t", "tmpfs", "-o", options, "tqshim-test", str(path)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        lacking("small tmpfs", done.stderr.strip())


FILL = """
import errno, os, random, sys
from tqshim import TurboQueue
me = int(sys.argv[2])
random.seed(me)
queue = TurboQueue(path=sys.argv[1])
refused = 0
for number in range(3000):
    try:
        queue.put((me, number, bytes(random.choice([10, 1000, 20000, 200000, 900000]))))
    except OSError as error:
        assert error.errno == errno.ENOSPC, error
        refused += 1
        if refused == 40:
            break
    else:
        os.write(1, b"%d\\n" % number)
"""


@pytest.mark.in_turn
@pytest.mark.parametrize("drained", [False, True])
def test_producers_that_fill_a_tiny_disk_and_end_have_put_what_they_were_told(
    tmp_path: pathlib.Path, drained: bool
) -> None:
    """Also where nothing is left to drain by then, and only they themselves have kept the space."""
    mounted(tmp_path, "size=2m,mode=0700")
    try:
        queue: Any = TurboQueue(path=str(tmp_path / "queue"))
        words = [sys.executable, "-c", FILL, str(tmp_path / "queue")]
        children = [subprocess.Popen([*words, str(number)], stdout=subprocess.PIPE) for number in range(2)]
        found: list[tuple[int, int]] = []
        while drained and any(child.poll() is None for child in children):
            try:
                found.append(queue.get(timeout=0.01)[:2])
            except Empty:
                pass
            except OSError as error:
                # Else its journal may find the disk full, until the producers have ended.
                if error.errno != errno.ENOSPC or SETS_ASIDE:
                    raise
        told = [child.communicate()[0].split() for child in children]
        assert [child.returncode for child in children] == [0, 0]
        with contextlib.suppress(Empty):
            while True:
                found.append(queue.get(False)[:2])
        for number, numbers in enumerate(told):
            assert [one for me, one in found if me == number] == [*map(int, numbers)]
        queue._engine.close()
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def test_fill_says_where_a_full_disk_ended_it(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Which line that was, so that nothing is put twice or forgotten when the rest is."""
    mounted(tmp_path, "size=1m,mode=0700")
    try:
        path, lines = str(tmp_path / "queue"), [str(number) for number in range(200_000)]
        with pytest.raises(monitor.LineError, match=r"free space") as raised:
            monitor.fill(path, lines)
        cause = raised.value.__cause__
        assert isinstance(cause, OSError) and cause.errno == errno.ENOSPC
        put = raised.value.number - 1
        assert 0 < put < len(lines)
        assert monitor.status(path).items == put
        with mock.patch.object(sys, "stdin", lines):
            assert cli.main(["fill", path]) == 1
        assert re.search(r"line \d+: .* free space .*; the lines before it are in the queue\n", capsys.readouterr().err)
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


@pytest.mark.in_turn
def test_recover_to_a_full_disk_says_what_is_there_and_what_to_do(tmp_path: pathlib.Path) -> None:
    disk, path = tmp_path / "disk", str(tmp_path / "queue")
    disk.mkdir()
    with TurboQueue(path=path) as queue:
        queue.put_many(range(50_000))
    mounted(disk, "size=1m,mode=0700")
    try:
        into = str(disk / "saved")
        with pytest.raises(FolderError, match="delete it, free space, and begin again") as raised:
            monitor.recover(path, into)
        copied = int(re.findall(r"No space left on device: (\d+) items are copied into it", str(raised.value))[0])
        assert raised.value.path == into and 0 < copied == monitor.status(into).items
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
    assert monitor.recover(path, str(tmp_path / "elsewhere")).copied == 50_000


def test_disk_without_inodes_raises_and_goes_on_when_there_are_some(tmp_path: pathlib.Path) -> None:
    mounted(tmp_path, "size=16m,nr_inodes=40,mode=0700")
    try:
        queue = TurboQueue(path=str(tmp_path / "queue"))
        queue.put(-1)
        with contextlib.suppress(OSError):
            for number in range(100):
                (tmp_path / f"junk_{number}").touch()
        put: list[int] = []
        with pytest.raises(OSError) as raised:
            for number in range(1000):  # until another batch file is wanted
                queue.put((number, b"." * 5000))
                put.append(number)
        assert raised.value.errno == errno.ENOSPC
        assert queue.get(timeout=PATIENCE) == -1
        for junk in tmp_path.glob("junk_*"):
            junk.unlink()
        queue.put((-2, b""))
        assert [queue.get(timeout=PATIENCE)[0] for _ in range(len(put) + 1)] == [*put, -2]
        queue._engine.close()
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def test_read_only_disk_is_said_and_keeps_the_items(tmp_path: pathlib.Path) -> None:
    mounted(tmp_path, "size=16m,mode=0700")
    try:
        path = str(tmp_path / "queue")
        queue = TurboQueue(path=path)
        queue.put("item")
        queue._engine.close()
        for way, works in (("ro", False), ("rw", True)):
            done = subprocess.run(["mount", "-o", f"remount,{way}", str(tmp_path)], capture_output=True, text=True)
            if done.returncode:
                lacking("disk that is read-only", done.stderr.strip())
            if not works:
                with pytest.raises(OSError) as raised:
                    TurboQueue(path=path)
                assert raised.value.errno == errno.EROFS
        queue = TurboQueue(path=path)
        assert queue.get(timeout=PATIENCE) == "item"
        queue._engine.close()
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


SMALL_FILES = """
import errno, resource
from tqshim import TurboQueue

queue = TurboQueue()
queue.put("first")
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
put = []
try:
    for number in range(1000):
        queue.put((number, b"." * 5000))
        put.append(number)
except OSError as error:
    print(errno.errorcode[error.errno])
assert queue.get(timeout=60) == "first"
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))
queue.put((-1, b""))
assert [queue.get(timeout=60)[0] for _ in range(len(put) + 1)] == [*put, -1]
queue.close()
"""


def test_limit_on_file_sizes_that_comes_later_loses_nothing() -> None:
    assert in_child(SMALL_FILES) == "EFBIG\n"


# --- signals in the middle of calls ----------------------------------------------------------------------------------


needs_ioctl = pytest.mark.skipif(
    tqshim.runtime.systems.RESVSP is None, reason="no disk space is set aside by ioctl here"
)


class Interrupted:
    """The module ``fcntl`` whose ``ioctl`` a signal interrupts so many times: Python does not try that call again."""

    def __init__(self, times: int) -> None:
        self.left = times

    def __getattr__(self, name: str) -> Any:
        return getattr(fcntl, name)

    def ioctl(self, *values: Any) -> Any:
        if self.left:
            self.left -= 1
            raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))
        return fcntl.ioctl(*values)


@needs_ioctl
def test_disk_space_is_set_aside_though_a_signal_interrupts_that(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = TurboQueue()
    folder = queue._engine.folder
    monkeypatch.setattr(tqshim.storage.journal, "fcntl", Interrupted(3))
    folder.set_space_aside(7, 1000)
    status = os.stat(f"{folder.path}/spare_7")
    assert status.st_blocks * 512 >= 8000
    queue.close()


@needs_ioctl
def test_signals_without_end_keep_nobody_setting_space_aside_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Old kernels give up at each signal, and a timer may be faster than they are: less is set aside, or nothing."""
    monkeypatch.setattr(tqshim.engine.tuning, "LIMITS", (16, 64))
    queue = TurboQueue()
    monkeypatch.setattr(tqshim.storage.journal, "fcntl", Interrupted(1 << 30))
    for number in range(300):  # rolls
        queue.put(number)
        assert queue.get(timeout=PATIENCE) == number
    monkeypatch.setattr(tqshim.storage.journal, "fcntl", fcntl)
    check_works(queue)


INTERRUPTED = """
import faulthandler, multiprocessing, signal, sys
from tqshim import Empty, Full, JoinableQueue, TurboQueue

faulthandler.dump_traceback_later(100, exit=True)

hits = 0

def ring(number, frame):
    global hits
    hits += 1

def alarms():
    # Python sets no SA_RESTART: whatever call the signal finds waiting ends with EINTR.
    signal.signal(signal.SIGALRM, ring)
    signal.siginterrupt(signal.SIGALRM, True)
    signal.setitimer(signal.ITIMER_REAL, 5e-4, 5e-4)

def echo(there, back):
    alarms()
    for item in iter(there.get, None):
        back.put(item)

def call(queue, name, *values):
    try:
        return getattr(queue, name)(*values)
    except (Empty, Full) as error:
        return type(error).__name__

alarms()
path = sys.argv[1]
durable = {durable}
there = TurboQueue({maxsize}, path=path + "/there", durable=durable)
back = TurboQueue(path=path + "/back")
fork = multiprocessing.get_context("fork")
child = fork.Process(target=echo, args=(there, back))
child.start()
seen = []
# The calls that wait, to the end of their time and no longer: none begins anew at each signal.
seen.append(call(back, "get", True, 0.1))
full = TurboQueue(1)
full.put(0)
seen.append(call(full, "put", 1, True, 0.1))
seen.append(call(full, "put_many", [1, 2], True, 0.1))
jobs = JoinableQueue()
jobs.put("job")
seen.append(jobs.join(timeout=0.1))
assert seen == ["Empty", "Full", "Full", False], seen
# The calls that work: small and large, one and several, in blocks and not, files made, sealed, set aside and deleted.
items = [*range({count}), *(bytes([n]) * 3_000_000 for n in range(4)), *("x" * 5000 for _ in range(200))]
put = 0
got = []
while len(got) < len(items):
    while put < len(items) and put - len(got) < 500:
        step = 1 + put % 7
        try:
            there.put_many(items[put:put + step], True, 0.001)
            put += len(items[put:put + step])
        except Full as error:
            put += int(str(error).split()[0]) if str(error)[:1].isdigit() else 0
            break
    try:
        if len(got) % 3:
            got.append(back.get(timeout=60 if put == len(items) else 0.001))
        else:
            with back.claimed(True, 60 if put == len(items) else 0.001) as item:
                got.append(item)
    except Empty:
        pass
assert got == items, "not what was put, in its order"
there.put(None)
child.join()
assert child.exitcode == 0, child.exitcode
for turn in range(100):  # opening, meeting, leaving
    one = TurboQueue()
    one.put(turn)
    assert one.get(timeout=60) == turn
    one.close()
    TurboQueue(path=path + "/there").close()
signal.setitimer(signal.ITIMER_REAL, 0)
there.close(), back.close(), full.close(), jobs.close()
assert hits > 100, hits
print("all")
"""


@pytest.mark.in_turn
@pytest.mark.parametrize(
    ("maxsize", "durable", "count"), sampled("calls", [(0, False, 4000), (50, False, 2000), (0, True, 300)], 1)
)
def test_calls_that_a_signal_interrupts_go_on(tmp_path: pathlib.Path, maxsize: int, durable: bool, count: int) -> None:
    """A real signal without SA_RESTART every half a millisecond, on both sides, in every system call that there is."""
    code = INTERRUPTED.format(maxsize=maxsize, durable=durable, count=count)
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        said, errors = child.communicate(timeout=PATIENCE)
    finally:
        with contextlib.suppress(ProcessLookupError):  # a child of its own, where it has failed
            os.killpg(child.pid, signal.SIGKILL)
    assert child.returncode == 0, errors
    assert said == "all\n"
