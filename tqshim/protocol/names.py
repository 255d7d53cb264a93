"""The grammar of names in a queue folder: a file's name says what it is and in which state.

Lives here: every name, how it is made and how it is read.  Not here: what is done with the files (``folder``).

Invariant: ``parse`` undoes the makers, and returns ``None`` for every name that they can't make.
"""

from __future__ import annotations

from tqshim.runtime.tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Optional

__all__ = [
    "BELL",
    "CELLS",
    "DEAD",
    "DONE",
    "FREE",
    "LOAD",
    "MEMBERS",
    "PREFIX",
    "READY",
    "SPACE",
    "SPILL",
    "SPILLED",
    "FileId",
    "Name",
    "batch",
    "corrupt",
    "dead",
    "free",
    "is_anonymous",
    "is_reason",
    "journal",
    "marker",
    "of_batch",
    "parse",
    "reason",
    "roll",
    "spare",
]

CELLS: Final = "cells"
MEMBERS: Final = "members"
BELL: Final = "bell"
SPACE: Final = "space"
DONE: Final = "done"
JOURNAL: Final = "journal_"
"""How the name of a journal begins."""
SPILL: Final = "spill"
"""A symbolic link to the folder for batch files that found no space here."""
SPILLED: Final = "-spill"
"""Spill folders are named as anonymous queue folders are, with this at the end."""

LOAD: Final = "load"
READY: Final = "ready"
FREE: Final = 2
"""Places that a producer has for batch files to refill: more would be memory that nobody uses, and no faster."""
FREE_MAPPED: Final = 4
"""``FREE``, where the producer may have these files mapped."""
PREFIX: Final = "tqshim-"
"""The names of anonymous queue folders are this and something random."""
DEAD: Final = "dead_"
"""A folder whose name begins so belongs to nobody and is being deleted."""


class FileId(NamedTuple):
    """A batch file, for ever: the number of its producer's JOIN, and a count of that producer's files.

    The lowest bit of ``serial`` tells where the file lies: 0 in the queue folder, 1 in the spill folder.  The next bit
    is set where its records are large: such a file is filled again."""

    member: int
    serial: int

    @property
    def spilled(self) -> bool:
        return bool(self.serial & 1)

    @property
    def large(self) -> bool:
        return bool(self.serial & 2)


class Name(NamedTuple):
    """What a name says: a kind, and its numbers."""

    kind: str
    numbers: tuple[int, ...]


def batch(state: str, file: FileId) -> str:
    """The name of a batch file that is filled (``LOAD``) or sealed (``READY``)."""
    return f"{state}_{file.member:x}_{file.serial:x}"


def free(member: int, place: int) -> str:
    """A batch file that nobody needs any more, to be refilled by its producer, which has ``FREE`` places for such."""
    return f"free_{member:x}_{place:x}"


def journal(number: int) -> str:
    return f"{JOURNAL}{number}"


def roll(number: int, key: str) -> str:
    """The next journal while one process builds it; ``key`` is that process's own."""
    return f"roll_{number}_{key}"


def spare(number: int) -> str:
    """Disk space set aside for the journal of that number."""
    return f"spare_{number}"


def marker(key: str) -> str:
    """The name of a file that says that a pickled handle is on its way."""
    return f"marker_{key}"


def corrupt(name: str) -> str:
    return f"corrupt_{name}"


def of_batch(file: FileId) -> tuple[str, str, str]:
    """The names that a batch file has one after another: a process that tries them in this order does not miss it."""
    sealed = batch(READY, file)
    return batch(LOAD, file), sealed, corrupt(sealed)


def reason(name: str) -> str:
    """The name of the text that says why a file was set aside; the text is there first."""
    return corrupt(name) + ".txt"


def is_reason(name: str) -> bool:
    """Whether a file of that name says why another was set aside."""
    return name.startswith("corrupt_") and name.endswith(".txt")


def dead(name: str) -> str:
    return DEAD + name


_HEX: Final = "0123456789abcdef"
_DECIMAL: Final = "0123456789"
_FIXED: Final = frozenset((CELLS, MEMBERS, BELL, SPACE, DONE, SPILL))


# Not with regular expressions: to compile those takes 2 ms of each program's start.
def is_anonymous(name: str) -> bool:
    """Whether a folder of that name is, or was, the queue folder of an anonymous queue."""
    return name.startswith(PREFIX) and len(name) == len(PREFIX) + 16 and _consists(name[len(PREFIX) :], _HEX)


def parse(name: str) -> Optional[Name]:
    """What a file of that name is, or ``None``: not one of ours."""
    if name in _FIXED:
        return Name(name, ())
    kind, _, rest = name.partition("_")
    if kind == "corrupt":
        return Name(kind, ()) if rest and "\n" not in rest else None
    fields = rest.split("_")
    if kind in (LOAD, READY, "free"):
        base, count, digits = 16, 2, _HEX
    elif kind in ("journal", "spare"):
        base, count, digits = 10, 1, _DECIMAL
    elif kind in ("roll", "marker") and _consists(fields[-1], _HEX):
        base, count, digits = 10, int(kind == "roll"), _DECIMAL
        fields.pop()
    else:
        return None
    if len(fields) != count or not all(_consists(field, digits) for field in fields):
        return None
    if any(field[0] == "0" and field != "0" for field in fields):
        return None
    return Name(kind, tuple(int(field, base) for field in fields))


def _consists(text: str, of: str) -> bool:
    """Whether the text is not empty and has only these characters."""
    return bool(text) and not text.strip(of)
