"""A power cut, simulated: what a disk may hold after one, for every legal choice of what it was not yet told to keep.

A ``Recorder`` stands in for ``os`` in the rooms that change files, and notes each change and each ``fsync`` while a
program uses a queue.  ``Disk`` then makes what may be there if the power goes at some moment:

- A file has what was written to it before the beginning of its last ``fsync`` that has returned.  Of what was written
  later each 64 bytes are there or not, by themselves.  So is the file's new length: the file may be longer than what is
  there, and then it has zeros there.  (No disk writes less than 512 bytes; with less, short programs already leave
  holes in a journal.)
- A folder has the names that it had at the beginning of its last ``fsync`` that has returned.  Each later change of a
  name (made, renamed, linked, deleted) has happened or not, by itself, if the changes that it builds on have happened.
- Mapped memory of the cells is as it was made, or as it was last, each 64 bytes by themselves.  What is stored to
  mapped memory of batch files is not there.
- FIFOs and locks are gone.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union

_NAMES = ["batch_file", "corrupt", "files", "folder", "hardening", "journal", "large_records", "places"]
ROOMS: Any = [importlib.import_module(f"tqshim.storage.{name}") for name in _NAMES]
"""The calls that change files."""
SECTOR = 64
CELLS = "cells"
_QUIET = {"harden", "harden_names", "_harden_names", "harden_journal", "_then_hardened", "act"}
_QUIET |= {"surely", "unless_forked", "<lambda>"}
"""Functions that harden for others: a seam is named for those."""


class Write(NamedTuple):
    """Bytes were written to a file; if they are none, it became as long as that, if it was not."""

    file: int
    offset: int
    data: bytes


class Empty(NamedTuple):
    """A file was cut down to nothing."""

    file: int


class Name(NamedTuple):
    """A name in a folder changed: made for ``file`` (``old`` is empty), renamed from ``old``, or deleted (``new``)."""

    folder: int
    old: str
    new: str
    file: int


class Start(NamedTuple):
    """An ``fsync`` began."""

    file: int


class End(NamedTuple):
    """The ``fsync`` returned that began as that step."""

    start: int


class Said(NamedTuple):
    """What the program knew from then on."""

    what: str
    value: Any


Step = Union[Write, Empty, Name, Start, End, Said]


class Recorder:
    """Notes what is done to the files below ``root``, in order."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.steps: list[Step] = []
        self.folders: dict[int, dict[str, int]] = {0: {}}
        """The names in each folder, as they are now; folder 0 is ``root``, which was there before."""
        self.count = 1
        self.open_files: dict[int, int] = {}
        self.cells: dict[int, str] = {}
        """By file: where the cells are that are mapped."""
        self.without = ""
        """An ``fsync`` of that seam is left out, as if the line were not there."""
        self.seams: set[str] = set()
        """The ones that were met."""
        self.inside: dict[str, Callable[[], Any]] = {}
        """By seam: what another does while its next ``fsync`` is under way."""
        self._acts = False
        self._note_what_is_there(Path(root), 0)
        self.begun = len(self.steps)
        """The first step after what was there before."""

    def _note_what_is_there(self, path: Path, folder: int) -> None:
        """It is on the disk."""
        for one in path.iterdir():
            made = self.folders[folder][one.name] = self._new()
            self.steps.append(Name(folder, "", one.name, made))
            if one.is_dir():
                self.folders[made] = {}
                self._note_what_is_there(one, made)
            elif one.is_file():
                self.steps.append(Write(made, 0, one.read_bytes()))
                self._harden(made)
        self._harden(folder)

    def _harden(self, file: int) -> None:
        self.steps += (Start(file), End(len(self.steps)))

    def say(self, what: str, value: Any = None) -> None:
        self.steps.append(Said(what, value))

    @contextmanager
    def standing_in(self) -> Iterator[None]:
        for room in ROOMS:
            room.os = _Stand(self)
        try:
            yield
        finally:
            for room in ROOMS:
                room.os = os
            for file, path in self.cells.items():
                with open(path, "rb") as there:
                    self.cells[file] = there.read()  # type: ignore[assignment]

    # -- where a call leads

    def _find(self, path: str) -> Optional[int]:
        """The folder or file at a path below ``root``."""
        if path == self.root:
            return 0
        if not path.startswith(self.root + os.sep):
            return None
        at: Optional[int] = 0
        for part in path[len(self.root) + 1 :].split(os.sep):
            at = self.folders[at].get(part) if at in self.folders else None  # type: ignore[index]
        return at

    def _place(self, name: str, home: Optional[int]) -> Optional[tuple[int, str]]:
        """The folder in which a name stands, and the name there."""
        if home is not None:
            folder = self.open_files.get(home)
            return None if folder is None else (folder, name)
        folder = self._find(os.path.dirname(name))
        return None if folder is None else (folder, os.path.basename(name))

    def _new(self) -> int:
        self.count += 1
        return self.count

    # -- the calls

    def open(self, name: str, flags: int, mode: int = 0o777, *, dir_fd: Optional[int] = None) -> int:
        fd = os.open(name, flags, mode, dir_fd=dir_fd)
        found = self._find(name) if dir_fd is None else None
        place = self._place(name, dir_fd)
        if found is None and place is not None:
            folder, name = place
            found = self.folders[folder].get(name)
            if found is None and flags & os.O_CREAT:
                found = self.folders[folder][name] = self._new()
                self.steps.append(Name(folder, "", name, found))
            if name == CELLS and found is not None:
                self.cells[found] = os.readlink(f"/proc/self/fd/{fd}")
        self.open_files.pop(fd, None)
        if found is not None:
            self.open_files[fd] = found
        return fd

    def close(self, fd: int) -> None:
        self.open_files.pop(fd, None)
        os.close(fd)

    def mkdir(self, name: str, mode: int = 0o777) -> None:
        os.mkdir(name, mode)
        self._made(name)

    def makedirs(self, name: str, mode: int = 0o777, exist_ok: bool = False) -> None:
        missing = []
        at = name
        while not os.path.exists(at):
            missing.append(at)
            at = os.path.dirname(at)
        os.makedirs(name, mode, exist_ok=exist_ok)
        for path in reversed(missing):
            self._made(path)

    def _made(self, path: str) -> None:
        place = self._place(path, None)
        assert place is not None
        folder, name = place
        made = self.folders[folder][name] = self._new()
        self.folders[made] = {}
        self.steps.append(Name(folder, "", name, made))

    def write(self, fd: int, data: bytes) -> int:
        file = self.open_files.get(fd)
        written = os.write(fd, data)
        if file is not None:
            end = os.lseek(fd, 0, os.SEEK_CUR)
            self.steps.append(Write(file, end - written, bytes(data[:written])))
        return written

    def posix_fallocate(self, fd: int, offset: int, size: int) -> None:
        os.posix_fallocate(fd, offset, size)
        self.steps.append(Write(self.open_files[fd], offset + size, b""))

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        written = os.pwrite(fd, data, offset)
        self.steps.append(Write(self.open_files[fd], offset, bytes(memoryview(data)[:written])))
        return written

    def pwritev(self, fd: int, parts: list[bytes], offset: int) -> int:
        written = os.pwritev(fd, parts, offset)
        self.steps.append(Write(self.open_files[fd], offset, b"".join(parts)[:written]))
        return written

    def ftruncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)
        assert size == 0
        self.steps.append(Empty(self.open_files[fd]))

    def rename(self, old: str, new: str, *, src_dir_fd: Optional[int] = None, dst_dir_fd: Optional[int] = None) -> None:
        os.rename(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        assert src_dir_fd == dst_dir_fd
        place = self._place(old, src_dir_fd)
        assert place is not None
        folder, old = place
        self.folders[folder][new] = file = self.folders[folder].pop(old)
        self.steps.append(Name(folder, old, new, file))

    def link(self, old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        os.link(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        folder = self.open_files[src_dir_fd]
        self.folders[folder][new] = file = self.folders[folder][old]
        self.steps.append(Name(folder, "", new, file))

    def unlink(self, name: str, *, dir_fd: int) -> None:
        os.unlink(name, dir_fd=dir_fd)
        folder = self.open_files[dir_fd]
        self.steps.append(Name(folder, name, "", self.folders[folder].pop(name)))

    def fsync(self, fd: int) -> None:
        file = self.open_files.get(fd)
        if file is None:  # a folder above
            os.fsync(fd)
            return
        seam = f"{_seam()}: {'names' if file in self.folders else 'bytes'}"
        self.seams.add(seam)
        start = len(self.steps)
        if seam != self.without:
            self.steps.append(Start(file))
        self._meanwhile(seam)
        os.fsync(fd)
        if seam != self.without:
            self.steps.append(End(start))

    def _meanwhile(self, seam: str) -> None:
        """One other acts at a time: it would wait for itself."""
        if not self._acts and seam in self.inside:
            self._acts = True
            self.inside.pop(seam)()
            self._acts = False


class _Stand:
    """Stands in for ``os``."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._recorder, name, None) or getattr(os, name)


def _seam() -> str:
    """Who hardens: the first function above that does not do it for others."""
    frame = sys._getframe(2)
    while frame.f_code.co_name in _QUIET:
        assert frame.f_back is not None
        frame = frame.f_back
    return frame.f_code.co_name


class Disk:
    """What may be there when the power goes after so many steps.  ``keep`` is asked, for all that need not be there,
    how much of it is: for a number of versions, the oldest being 0, which one."""

    def __init__(self, recorder: Recorder, cut: int, keep: Callable[[str, int], int]) -> None:
        self.recorder = recorder
        self.steps = recorder.steps[:cut]
        self.keep = keep
        hard = {0: -1}
        for step in self.steps:
            if isinstance(step, End):
                start = self.steps[step.start]
                assert isinstance(start, Start)
                hard[start.file] = max(step.start, hard.get(start.file, -1))
        self.hard = hard
        """By file or folder: the step before which everything is there for good."""
        self.folders = self._names()
        self.changes: dict[int, list[tuple[int, Union[Write, Empty]]]] = {}
        """By file, each with the number of its step."""
        for at, step in enumerate(self.steps):
            if isinstance(step, (Write, Empty)):
                self.changes.setdefault(step.file, []).append((at, step))
        self.files: dict[int, bytes] = {}
        for names in self.folders.values():
            for file in names.values():
                if file not in recorder.folders and file not in self.files:
                    self.files[file] = self._bytes(file)

    def _names(self) -> dict[int, dict[str, int]]:
        found: dict[int, dict[str, int]] = {folder: {} for folder in self.recorder.folders}
        for at, step in enumerate(self.steps):
            if not isinstance(step, Name):
                continue
            names = found[step.folder]
            if step.old and names.get(step.old) != step.file:
                continue  # what it builds on did not happen
            if not step.old and step.new in names:
                continue
            if at > self.hard.get(step.folder, -1) and not self.keep("name", 2):
                continue
            if step.old:
                del names[step.old]
            if step.new:
                names[step.new] = step.file
        return found

    def _bytes(self, file: int) -> bytes:
        data = bytearray()
        later: list[tuple[int, bytes, bool]] = []
        longest = 0
        for at, step in self.changes.get(file, ()):
            if isinstance(step, Write):
                change = step.offset, step.data, False
                longest = max(longest, step.offset + len(step.data))
            else:
                change = 0, bytes(longest), True
            if at < self.hard.get(file, -1):
                _put(data, *change)
            else:
                later.append(change)
        if later:
            # The length after so many of the later changes; what is there of each sector, after so many that touch it.
            size = len(data)
            for offset, new, emptied in later[: self.keep("length", len(later) + 1)]:
                size = 0 if emptied else max(size, offset + len(new))
            del data[size:]
            data.extend(bytes(size - len(data)))
            for start in range(0, size, SECTOR):
                end = min(size, start + SECTOR)
                here = [change for change in later if change[0] < end and change[0] + len(change[1]) > start]
                if not here:
                    continue
                for offset, new, _ in here[: self.keep("sector", len(here) + 1)]:
                    first, last = max(start, offset), min(end, offset + len(new))
                    data[first:last] = new[first - offset : last - offset]
        mapped: Any = self.recorder.cells.get(file)
        if mapped is not None:
            for start in range(0, len(data), SECTOR):
                then = mapped[start : start + SECTOR].ljust(len(data[start : start + SECTOR]), b"\0")
                if data[start : start + SECTOR] != then and self.keep("cells", 2):
                    data[start : start + SECTOR] = then
        return bytes(data)

    @property
    def said(self) -> list[tuple[int, Said]]:
        """What the program knew when the power went, and since which step."""
        return [(at, step) for at, step in enumerate(self.steps) if isinstance(step, Said)]

    def write_to(self, root: Path) -> None:
        """Make these folders and files below ``root``."""
        self._write_folder(0, root)

    def _write_folder(self, folder: int, path: Path) -> None:
        for name, file in self.folders[folder].items():
            if file in self.recorder.folders:
                (path / name).mkdir(0o700)
                self._write_folder(file, path / name)
            else:
                (path / name).write_bytes(self.files[file])
                (path / name).chmod(0o600)

    def likeness(self) -> tuple[Any, ...]:
        """Two disks that are alike are equal in this."""
        return tuple(
            (folder, *((name, self.files.get(file, file)) for name, file in sorted(names.items())))
            for folder, names in sorted(self.folders.items())
        )


def _put(data: bytearray, offset: int, new: bytes, emptied: bool) -> None:
    if emptied:
        data.clear()
        return
    if len(data) < offset:
        data.extend(bytes(offset - len(data)))
    data[offset : offset + len(new)] = new
