"""Which queues there are, who has them open, and what is in one.

Lives here: lists of queues, processes that hold them, a queue's status.  Not here: how a folder is read (``view``),
rates (``watching``), damage (``checking``), what takes or puts items (``moving``).

Invariant: as in ``view``: a look changes nothing.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Optional

from tqshim.errors import FolderError
from tqshim.monitor.files import located
from tqshim.monitor.seen import Member, Peeked, Process
from tqshim.monitor.view import View, command
from tqshim.protocol import names
from tqshim.runtime import systems
from tqshim.storage.places import anonymous_root, anonymous_roots, spill_root
from tqshim.sync.cells import AWAITS_PLACE, SLEEPS

__all__ = [
    "Status",
    "Summary",
    "anonymous_folders",
    "in_use",
    "is_queue",
    "open_by",
    "peek",
    "queues",
    "roots",
    "status",
    "users",
]


@dataclass(frozen=True)
class Summary:
    """A queue in one line."""

    path: str
    items: Optional[int]
    """Items that can be got now; ``None`` where the queue could not be read: then ``problem`` says why."""
    bytes: int
    """Bytes that its files take on disk, those in its spill folder too."""
    batches: int
    consumers: int
    producers: int
    open_by: list[Process]
    age: float
    """Seconds since the queue was made."""
    problem: str


@dataclass(frozen=True)
class Status:
    """A queue in detail.  Counts of items are since the queue was made."""

    path: str
    anonymous: bool
    maxsize: int
    """0: unbounded."""
    durable: bool
    """What was put survives a power cut."""
    keyed: bool
    """It was made with an ``authkey``."""
    items: int
    put: int
    got: int
    unfinished: int
    """Items that were put and for which nobody has called ``task_done``: of interest where somebody does."""
    uncut: int
    """Items among ``items`` that are put and not cut yet: nobody has given them their place in the order."""
    shut: bool
    """The queue was shut down: nothing can be put any more."""
    held: int
    """Items that a block of ``claimed`` has: they are neither among ``items`` nor among ``got``."""
    returned: int
    """Items among ``items`` that were in such a block, and have come back."""
    redelivered: int
    """How often an item was taken again that had come back."""
    leased: int
    """Items that its only fast consumer works off on its own; they count among ``items`` until they are delivered."""
    reserved: int
    """Places that producers have set aside for their next puts."""
    places: Optional[int]
    """Places that are free; ``None``: any number."""
    item_bytes: int
    """Bytes of the records that wait, with what checks them, without records that have come back."""
    oldest_at_least: Optional[float]
    """Seconds for which the oldest item has waited, at least; ``None`` where there is none."""
    journal: int
    """The number of the newest journal."""
    journal_events: int
    journal_limit: int
    """Events after which the journal is rolled."""
    journal_bytes: int
    batches: int
    bytes: int
    disk_free: int
    spill: Optional[str]
    consumers: int
    producers: int
    waiting_consumers: int
    waiting_producers: int
    members: list[Member]
    open_by: list[Process]
    age: float


# -- who uses what


def users() -> dict[tuple[int, int], tuple[str, list[Process]]]:
    """Return, by device and inode, each folder on which some process holds a lock, as users of queues do: its path as
    that process knows it, and the processes.  Other users' processes are left out; without ``/proc`` all are."""
    found: dict[tuple[int, int], tuple[str, list[Process]]] = {}
    try:
        pids = [int(name) for name in os.listdir(systems.PROC) if name.isdigit()]
    except OSError:
        return found
    for pid in sorted(pids):
        with contextlib.suppress(OSError):
            for name in os.listdir(f"{systems.PROC}/{pid}/fd"):
                with contextlib.suppress(OSError):
                    status = os.stat(f"{systems.PROC}/{pid}/fd/{name}")
                    if not stat.S_ISDIR(status.st_mode) or not _is_locked(pid, name):
                        continue
                    path = os.readlink(f"{systems.PROC}/{pid}/fd/{name}")
                    held = found.setdefault((status.st_dev, status.st_ino), (path, []))[1]
                    if all(process.pid != pid for process in held):
                        held.append(Process(pid, command(pid)))
    return found


def _is_locked(pid: int, fd: str) -> bool:
    with open(f"{systems.PROC}/{pid}/fdinfo/{fd}", "rb") as file:
        return b"FLOCK" in file.read()


def open_by(fd: int, known: dict[tuple[int, int], tuple[str, list[Process]]]) -> list[Process]:
    """Return the processes that use the queue in this folder."""
    status = os.fstat(fd)
    return known.get((status.st_dev, status.st_ino), ("", []))[1]


def in_use(view: View) -> list[Process]:
    """Return the processes that use a queue, as far as can be seen: those that hold its folder, and living members.

    Members are seen from other containers too, and where there is no ``/proc``."""
    found = list(open_by(view.fd, users()))
    with contextlib.suppress(FolderError):
        view.follow()
        living = [member.process for member in view.members() if member.process is not None]
        found += [process for process in living if all(process.pid != other.pid for other in found)]
    return found


def roots() -> list[str]:
    """Return the folders in which anonymous queues of this program's environment lie, or to which they spill."""
    found = dict.fromkeys((*anonymous_roots(), spill_root(anonymous_root())))
    return [root for root in found if root is not None]


def anonymous_folders() -> list[str]:
    """Return the folders of anonymous queues in ``roots()``."""
    return [os.path.join(root, name) for root in roots() for name in _listed(root) if names.is_anonymous(name)]


def queues(folders: Iterable[str] = ()) -> list[Summary]:
    """The queues at or in ``folders``, by path; without them the ones on this machine: anonymous ones, and queues that
    processes of this user have open.

    Raises ``OSError`` for a given folder that can't be listed; a queue that can't be read has its ``problem``.

    >>> queue = TurboQueue(path="jobs")
    >>> queue.put("a")
    >>> [(one.items, one.problem) for one in queues(["jobs"])]
    [(1, '')]"""
    known = users()
    paths: list[str] = []
    folders = list(map(located, folders))
    if not folders:
        paths = anonymous_folders()
        paths += [path for path, _ in known.values() if is_queue(path)]
    for folder in folders:
        inside = [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
        paths += [folder] if is_queue(folder) else [path for path in inside if is_queue(path)]
    found = []
    for path in sorted(set(map(os.path.abspath, paths))):
        with contextlib.suppress(FileNotFoundError):  # gone meanwhile
            found.append(_summary(path, known))
    return found


def _listed(root: str) -> list[str]:
    try:
        return os.listdir(root)
    except OSError:
        return []


def is_queue(path: str) -> bool:
    """Whether a journal lies there."""
    try:
        found = map(names.parse, os.listdir(path))
    except OSError:
        return False
    return any(name is not None and name.kind == "journal" for name in found)


def _summary(path: str, known: dict[tuple[int, int], tuple[str, list[Process]]]) -> Summary:
    try:
        view = View(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        return Summary(path, None, 0, 0, 0, 0, [], 0.0, error.strerror or str(error))
    with view:
        taken, batches = view.sizes()
        age, held = view.age(), open_by(view.fd, known)
        try:
            ledger = view.look()
        except FileNotFoundError:
            raise
        except FolderError as error:
            return Summary(path, None, taken, batches, 0, 0, held, age, error.finding)
        except OSError as error:
            return Summary(path, None, taken, batches, 0, 0, held, age, str(error))
        producers = ledger.producers
        return Summary(path, view.waiting, taken, batches, ledger.members.consumers, producers, held, age, "")


def status(path: str) -> Status:
    """A queue in detail.

    Raises ``FileNotFoundError``, ``NotADirectoryError``, ``PermissionError``; ``FolderError`` where it is no queue;
    ``CorruptBatchError`` where its newest journal is damaged.

    >>> queue = TurboQueue(9, path="jobs")
    >>> queue.put("a")
    >>> status("jobs").maxsize
    9"""
    with View(path) as view:
        ledger = view.look()
        cells, delivered, uncut = view.cells, view.delivered, view.uncut
        reserved = max(0, ledger.reservations.places - uncut)
        journal = os.fstat(view.journal.fd)
        taken, batches = view.sizes()
        return Status(
            path=view.path,
            anonymous=names.is_anonymous(os.path.basename(view.path)),
            maxsize=ledger.maxsize,
            durable=ledger.settings.durable,
            keyed=bool(ledger.settings.proof),
            items=view.waiting,
            put=view.put,
            got=delivered - ledger.holds.apart,
            unfinished=view.put - ledger.joins.finished,
            uncut=uncut,
            shut=bool(ledger.ending.shut),
            held=len(ledger.holds.held),
            returned=len(ledger.holds.returned),
            redelivered=ledger.holds.redelivered,
            leased=max(0, ledger.leases.standing.end - delivered) if ledger.leases.standing else 0,
            # Items that are put and not cut stand in reserved places, or in free ones where one producer puts alone.
            reserved=reserved,
            places=max(0, ledger.maxsize - view.waiting - len(ledger.holds.held) - reserved)
            if ledger.maxsize
            else None,
            item_bytes=view.item_bytes,
            oldest_at_least=view.oldest_at_least,
            journal=view.journal.number,
            journal_events=ledger.position.index,
            journal_limit=ledger.position.limit,
            journal_bytes=journal.st_size,
            batches=batches,
            bytes=taken,
            disk_free=systems.room_of(view.fd),
            spill=view.spill_path(),
            consumers=ledger.members.consumers,
            producers=ledger.producers,
            waiting_consumers=len(cells.sleepers(SLEEPS)) if cells else 0,
            waiting_producers=len(cells.sleepers(AWAITS_PLACE)) if cells else 0,
            members=view.members(),
            open_by=open_by(view.fd, users()),
            age=view.age(),
        )


def peek(path: str, count: int = 1, whole: bool = False, *, authkey: Optional[bytes] = None) -> list[Peeked]:
    """The oldest items, ``count`` or fewer, without taking or unpickling them; raises what ``status`` raises.

    ``authkey``: that of the queue, if it has one: without it there are no whole records, and none is authenticated.
    Raises ``ValueError`` where it is missing for that, or wrong.

    >>> queue = TurboQueue(path="jobs")
    >>> queue.put("a")
    >>> [pickle.loads(one.record) for one in peek("jobs", whole=True)]
    ['a']"""
    if count < 1:
        raise ValueError(f"count={count} must be 1 or more")
    with View(path, authkey) as view:
        return view.peek(count, whole)
