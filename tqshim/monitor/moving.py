"""What is done to a queue from outside: taking items out and putting them in, saving what can be read, deleting.

Lives here: recover, drain, fill, remove.  Not here: looking (``looking``); items as lines (``lines``); deleting files,
which the folder does.

Invariant: an item that can't be handed on stays in the queue, or is put back; a queue in use is neither deleted nor
mended unless that is forced; a recovery into another folder only reads the old one.
"""

from __future__ import annotations

import contextlib
import os
import pickletools
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from queue import Full
from typing import Any, Final, Optional, Union

from tqshim.engine.acknowledge import Hold
from tqshim.engine.keys import TAG
from tqshim.engine.registry import Engine, Use
from tqshim.errors import CorruptBatchError, FolderError
from tqshim.monitor.checking import Finding, check
from tqshim.monitor.files import located
from tqshim.monitor.lines import NotJSONError, as_json, from_json, looks_pickled
from tqshim.monitor.looking import anonymous_folders, in_use, is_queue
from tqshim.monitor.records import SeenBatch
from tqshim.monitor.seen import Peeked, Process
from tqshim.monitor.view import View
from tqshim.protocol import index, names
from tqshim.protocol.records import Held, Returned
from tqshim.queues.queue import ShutDown
from tqshim.storage import hardening, places
from tqshim.storage.folder import LogFolder
from tqshim.storage.places import is_late, reclaim

__all__ = [
    "Drained",
    "LineError",
    "Recovery",
    "drain",
    "fill",
    "recover",
    "remove",
]

TRIED: Final = 64
"""Records of a batch file that tell whether all of them are tagged."""


class LineError(ValueError):
    """A line whose item was not put.  ``number``: which, from 1; the lines before it are in the queue."""

    def __init__(self, number: int, problem: str) -> None:
        super().__init__(f"line {number}: {problem}")
        self.number = number
        self.problem = problem

    def __reduce__(self) -> tuple[type[LineError], tuple[int, str]]:
        return type(self), (self.number, self.problem)


@dataclass(frozen=True)
class Drained:
    """What ``drain`` did."""

    items: int
    """Items that were handed on."""
    damaged: list[str]
    """What was said of items that can't be read, a line for each file: they are lost."""


@dataclass(frozen=True)
class Recovery:
    """What ``recover`` did."""

    copied: int
    """Items that stand in the new folder."""
    unreadable: list[Peeked]
    """Items that could not be copied."""
    removed: list[str]
    """Files that nobody needed, and that are deleted."""
    guessed: bool
    """The journal could not be read: items come from the batch files alone, those too that somebody had got."""
    left: list[Finding]
    """What is still wrong with the folder that was recovered."""


# -- drain and fill


def drain(
    path: str,
    write: Callable[[str], Any],
    *,
    most: Optional[int] = None,
    encode: Callable[[bytes], str] = as_json,
    authkey: Optional[bytes] = None,
) -> Drained:
    """Take items, ``most`` or all that are there, and hand the line of each to ``write``, in their order.

    An item counts as got when ``write`` has returned, as at the end of a block of ``claimed``.  One whose ``write``
    raises, or that ``encode`` refuses with ``NotJSONError``, ends it and comes back to the head of the queue.  Killed:
    so does the item at hand, which may have been written.

    An anonymous queue that nobody else uses, and that still has items then, stays for a minute.  Raises
    ``FileNotFoundError``; ``ValueError`` where ``authkey`` is not that of the queue.

    >>> lines = []
    >>> queue = TurboQueue(path="jobs")
    >>> queue.put_many(["a", 2])
    >>> drained = drain("jobs", lines.append)
    >>> lines
    ['"a"', '2']"""
    path = located(path)
    if not os.listdir(path):  # if the folder does not exist, the error says so, and not that the queue is gone
        raise FolderError(path, "holds no queue", "give the folder of a queue")
    engine = Use.meet(path, authkey=authkey).engine
    done = 0
    damaged: dict[str, list[CorruptBatchError]] = {}
    try:
        while most is None or done < most:
            found: list[Hold] = []
            got = False
            try:
                engine.hold(found, False, None)
                if not found:
                    break
                write(encode(bytes(found[0].record)))
                got = True
                done += 1
            except CorruptBatchError as error:
                damaged.setdefault(error.path, []).append(error)
            except NotJSONError as error:
                raise NotJSONError(f"the oldest item is no JSON, and stays in the queue: {error}") from None
            finally:
                if found:
                    engine.let_go(found[0], got)
    finally:
        _keep(engine)
    return Drained(done, [*map(_lost, damaged.values())])


def _lost(items: list[CorruptBatchError]) -> str:
    """Return the message about all lost items of one file."""
    return str(items[0]) if len(items) == 1 else f"{len(items)} items, the first: {items[0]}"


def _keep(engine: Engine) -> None:
    """Keep an anonymous queue with items for a while: it goes with its last user, which may be this process."""
    if engine.folder.anonymous and engine.qsize():
        engine.folder.mark()


def fill(
    path: str,
    lines: Iterable[Union[str, bytes]],
    *,
    decode: Callable[[str], bytes] = from_json,
    maxsize: int = 0,
    timeout: Optional[float] = None,
    authkey: Optional[bytes] = None,
) -> int:
    """Put an item for each line that is not empty, and return how many; the queue is made if it is not there, with that
    ``authkey``.  Lines of bytes are UTF-8.

    Raises ``LineError`` for a line that ``decode`` refuses with ``ValueError``, or that ``put`` does with ``OSError``
    (the disk is full), its ``__cause__`` then; ``Full`` where no place came free for ``timeout`` seconds (for ever by
    default); ``ShutDown`` where the queue was shut down.  What stood before that line is in the queue.  ``ValueError``
    where ``authkey`` is not that of the queue.

    >>> fill("jobs", ['"a"', '{"page": 1}'])
    2
    >>> TurboQueue(path="jobs").get()
    'a'"""
    path = located(path)
    if names.is_anonymous(os.path.basename(path)):
        os.stat(path)  # as in drain
        use = Use.meet(path, authkey=authkey)
    else:
        use = Use.open(path, maxsize, authkey=authkey)
    engine = use.engine
    done = 0
    try:
        for number, line in enumerate(lines, 1):
            try:
                text = (line if isinstance(line, str) else line.decode()).strip()
                if not text:
                    continue
                record = decode(text)
            except (ValueError, RecursionError) as error:
                raise LineError(number, str(error)) from None
            try:
                is_put = engine.put(record, True, timeout)
            except OSError as error:
                raise LineError(number, _told(error)) from error
            if not is_put:
                if engine.shut:
                    raise ShutDown(f"line {number}: the queue was shut down; {done} items were put")
                raise Full(f"line {number}: no place came free within {timeout} s; {done} items were put")
            done += 1
    finally:
        _keep(engine)
    return done


def _told(error: OSError) -> str:
    """Return what the error says, without its number."""
    return str(error) if error.strerror is None else f"{error.filename}: {error.strerror}"


# -- recover and remove


def recover(path: str, into: Optional[str] = None, *, force: bool = False, authkey: Optional[bytes] = None) -> Recovery:
    """Save what can be saved.

    With ``into``: copy all items that can be read, and that nobody has got, to a new queue there, a durable one if this
    is one, first the ones that a block of ``claimed`` has or had; nothing is unpickled, and this folder is only read.
    Where its journal can't be read any more, all records that stand in its batch files are copied, in their producers'
    order: among them may be items that somebody had got.

    ``authkey``: that of the queue, if it has one, and of the copy.  Only what it has tagged is copied: nothing where
    the journal can't be read, which says what the key is tried on.  Without it the records of such a folder are copied
    as any other's, to a queue without a key.

    Without ``into``: delete files that nobody needs (old journals, batch files without items, markers).

    Raises ``FolderError`` for a queue in use, unless forced: a copy is one of a moment then, and its items are got
    twice; of the files only old journals and markers go.  Also where ``into`` is not empty, and where nothing can be
    recovered.  Killed: the new folder has some of the items; start again with another.

    >>> TurboQueue(path="jobs").put("a")
    >>> saved = recover("jobs", into="saved")
    >>> TurboQueue(path="saved").get()
    'a'"""
    path = located(path)
    with View(path, authkey) as view:
        held = in_use(view)
        if held and not force:
            raise FolderError(path, f"is in use by {_listed(held)}", "end them, or force it")
        if into is not None:
            return _copy(view, located(into), authkey)
        return _tidy(view, bool(held))


def _listed(processes: list[Process]) -> str:
    told = ", ".join(str(process.pid or "of another container") for process in processes)
    return f"process{'es' if len(processes) > 1 else ''} {told}"


def _copy(view: View, into: str, authkey: Optional[bytes]) -> Recovery:
    if os.path.exists(into) and os.listdir(into):
        raise FolderError(into, "is not empty", "recover into a new folder")
    unreadable: list[Peeked] = []
    guessed = durable = False
    try:
        ledger = view.look()
        maxsize, durable, records = ledger.maxsize, ledger.settings.durable, _records(view, unreadable)
    except FolderError:
        if view.former or (view.newest() is None and not view.has_batches()):
            raise
        if authkey is not None:
            remedy = "restore it, or recover without the authkey what may be anybody's"
            raise FolderError(
                view.path, "has no journal that can be read: nothing can be authenticated", remedy
            ) from None
        guessed = True
        maxsize, records = 0, _scavenge(view)
    first = next(records, None)
    if guessed and first is None:
        raise FolderError(view.path, "has no journal that can be read, and no items", "restore the journal")
    if os.path.realpath(into).startswith(os.path.realpath(view.path) + os.sep):
        raise FolderError(into, f"lies in {view.path}, which is only read", "recover into another folder")
    use = Use.open(into, maxsize, durable, authkey)
    copied = 0
    for record in chain(() if first is None else (first,), records):
        try:
            use.engine.put(record, True, None)
        except OSError as error:
            what = os.strerror(error.errno) if error.errno else error
            finding = f"{what}: {copied} items are copied into it"
            raise FolderError(into, finding, "delete it, free space, and begin again") from error
        copied += 1
    return Recovery(copied, unreadable, [], guessed, check(view.path, authkey=authkey))


def _records(view: View, unreadable: list[Peeked]) -> Iterator[bytes]:
    """Yield the records of all items that nobody has got; add items that can't be read to ``unreadable``."""
    ledger = view.ledger
    apart: list[Union[Held, Returned]] = sorted((*ledger.holds.held.values(), *ledger.holds.returned), key=_item)
    waiting = (view.read(stretch, whole=True) for stretch in view.stretches())
    for one in chain(view.read_apart(apart, whole=True), chain.from_iterable(waiting)):
        if one.record is None:
            unreadable.append(one)
        else:
            yield one.record


def _item(one: Union[Held, Returned]) -> int:
    return one.item


def _scavenge(view: View) -> Iterator[bytes]:
    """Yield all records that can be found in the batch files without a journal, each producer's in its order."""
    parsed = [names.parse(name) for name in (*view.names(), *view.spilled_names())]
    files = {names.FileId(*name.numbers) for name in parsed if name and name.kind in (names.LOAD, names.READY)}
    for file in sorted(files):
        try:
            fd, name = view.open_batch(file)
            batch = SeenBatch(fd, file, name)
        except (OSError, ValueError):
            continue
        try:
            yield from records_in(batch)
        finally:
            batch.close()


def records_in(batch: SeenBatch) -> Iterator[bytes]:
    """Yield the records of a batch file by its index alone, up to the first that can't end where the index says."""
    capacity = index.capacity(batch.file.serial)
    tag = TAG if _is_tagged(batch, capacity) else 0
    for number in range(capacity):
        begin, end = batch.ends(number, 1)
        if not _goes_on(batch, number, begin, end):
            return
        try:
            record = batch.record(number)
        except (ValueError, OSError):  # it fails its check
            continue
        record = record[: len(record) - tag]
        if looks_pickled(record):
            yield record


def _goes_on(batch: SeenBatch, number: int, begin: int, end: int) -> bool:
    """Whether there is a record of that number, as far as can be told."""
    least = index.data_begin(batch.file.serial)
    return (begin >= least if number else begin == least) and begin < end <= batch.size


def _is_tagged(batch: SeenBatch, capacity: int) -> bool:
    """Whether the records of a file seem to be those of a queue with a key: more of the first few pickles end where a
    tag would begin than at the end of their records."""
    with_tag = without = 0
    for number in range(min(capacity, TRIED)):
        begin, end = batch.ends(number, 1)
        if not _goes_on(batch, number, begin, end):
            break
        try:
            record = batch.record(number)
        except (ValueError, OSError):
            continue
        end = _end_of_pickle(record)
        without += end == len(record)
        with_tag += end == len(record) - TAG
    return with_tag > without


def _end_of_pickle(record: bytes) -> int:
    """Return where the pickle at the start of these bytes ends; -1: there is none.  Nothing of it is executed."""
    try:
        return 1 + max(at for _, _, at in pickletools.genops(record) if at is not None)
    except Exception:  # these may be any bytes
        return -1


def _tidy(view: View, in_use: bool) -> Recovery:
    ledger = view.look()
    number = view.newest()
    folder = LogFolder.meet(view.path)
    try:
        if ledger.settings.durable:  # So no power cut can make the files that go needed again.
            hardening.harden(view.journal.fd)
            hardening.harden_names(folder)
        before = {*view.names(), *view.spilled_names()}
        if number is not None:
            folder.remove_old_journals(number)
        folder.remove_free(keep={member.number for member in ledger.members.by_slot.values()})
        for file in () if in_use else folder.batches():  # in use: somebody may just be about to read one
            if ledger.is_done(file):
                folder.remove_batch(file)
        for name in before:
            parsed = names.parse(name)
            is_marker = parsed is not None and parsed.kind == "marker"
            if is_marker and is_late(os.stat(name, dir_fd=view.fd, follow_symlinks=False)):
                folder.unmark(name.partition("_")[2])
        removed = sorted(before - {*view.names(), *view.spilled_names()})
    finally:
        folder.close()
    return Recovery(0, [], removed, False, check(view.path))


def remove(path: str) -> Optional[int]:
    """Delete a queue that nobody uses, and return how many items lay in it (`None` where that can't be told); also what
    is left where one was not made to its end.

    Raises ``FolderError`` for a queue in use, a folder in which something else lies, and one that is no queue;
    ``FileNotFoundError``.  Killed: the folder is called ``dead_…``, and can be removed under that name.

    >>> TurboQueue(path="jobs").put("a")
    >>> remove("jobs")
    1"""
    path = os.path.realpath(located(path))
    with View(path) as view:
        name = os.path.basename(path)
        begun = view.is_begun()
        ours = begun or is_queue(path) or view.has_batches()
        if not ours and not names.is_anonymous(name) and not name.startswith(names.DEAD):
            raise FolderError(path, "holds no queue", "give the folder of a queue")
        places.check_file_system(path, view.fd)  # else its users' locks may not be seen from here
        if home := _spilling_to(path):
            raise FolderError(path, f"is where {home} has spilled items to", "remove that queue, and it goes along")
        strangers = sorted(one for one in view.names() if names.parse(one) is None or _is_folder(view, one))
        if strangers:
            raise FolderError(path, f"holds {strangers[0]!r}, which is no part of a queue", "delete that first")
        items, shortage = 0 if begun else None, None

        def count() -> None:
            nonlocal items, shortage
            try:
                items = len(view.look().holds.held) + view.waiting
            except FolderError:
                pass
            except OSError as error:
                shortage = error
                raise

        if reclaim(path, count):
            return items
        if shortage is not None:
            raise shortage
        held = in_use(view)
        owner = os.fstat(view.fd).st_uid
    if held:
        raise FolderError(path, f"is in use by {_listed(held)}", "end them first")
    if owner != os.geteuid():
        raise FolderError(path, f"belongs to user {owner}, not {os.geteuid()}", "only that user can delete it")
    raise FolderError(
        path,
        "is in use, or a pickled handle is on its way to it",
        "look who has it open; a handle on its way counts for a minute",
    )


def _spilling_to(path: str) -> Optional[str]:
    """Return the anonymous queue that spills to this folder, if it can be found."""
    if path.endswith(names.SPILLED):
        for home in anonymous_folders():
            with contextlib.suppress(OSError):
                if os.path.samefile(os.path.join(home, names.SPILL), path):
                    return home
    return None


def _is_folder(view: View, name: str) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return stat.S_ISDIR(os.stat(name, dir_fd=view.fd, follow_symlinks=False).st_mode)
    return False
