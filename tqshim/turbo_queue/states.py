"""The names of the original's batch files: a state, a time, an id.

Lives here: how such a name is made and read.  Not here: what is done with the files (``sqlite_files``).

::

    load_<seconds>_<id>.db             being filled
    ready_<seconds>_<id>.db            no longer filled, taken by nobody
    unload_<seconds>_<id>.db           taken by a consumer; if that has a number: unload_<seconds>_<id>.db_<number>
    invalid_file_<seconds>_<id>.db     set aside

Invariant: names of one producer's batches sort in the order in which they were begun, and a batch keeps its time and
its id for life, however often processes take it and give it back (unless a copy of its file has that name by then).
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple, Optional

__all__ = [
    "ABANDONED",
    "INVALID",
    "LOAD",
    "READY",
    "UNLOAD",
    "BatchName",
    "begin",
    "is_ready",
    "name",
    "parse",
]

LOAD: Final = "load"
READY: Final = "ready"
UNLOAD: Final = "unload"
INVALID: Final = "invalid_file"
ABANDONED: Final = (LOAD, UNLOAD, "loading", "chosen", "avail", "assigned")
"""States in which a batch belongs to a process; the last four are those of the original's older versions."""

_NAME: Final = re.compile(rf"({'|'.join((READY, *ABANDONED))})_((?:{UNLOAD}_)*)(.+)")
"""A batch that 0.8.0 has rolled back is called ready_unload_...; each further time puts one more unload_ in."""
_OWN: Final = re.compile(r"(.+?\.db)_.*")
_HELD: Final = "_temp_hold"
"""0.8.0 takes a batch in two renames; this ends its name in between."""
_COMPANIONS: Final = ("-journal", "-wal", "-shm")
"""Files that SQLite keeps beside a database."""


class BatchName(NamedTuple):
    """What a name says.  ``own``: the part that the batch keeps for life; ``held``: a process is just taking the
    batch."""

    state: str
    own: str
    held: bool


def begin(nanoseconds: int, key: bytes) -> str:
    """Return the own part of a new batch's name, from the time at which the batch was begun and 12 random bytes.

    The id has the form of a UUID, as in 0.8.0; the first four of its bytes order batches within a second."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    chance = key.hex()
    return f"{seconds}_{fraction:08x}-{chance[:4]}-4{chance[5:8]}-a{chance[9:12]}-{chance[12:24]}.db"


def name(state: str, own: str, number: Optional[object] = None) -> str:
    """Return the name of a batch in a state; ``number``: that of the consumer that has taken the batch."""
    return f"{state}_{own}" if number is None else f"{state}_{own}_{number}"


def parse(text: str) -> Optional[BatchName]:
    """Return what a name says; ``None`` for a file that is no batch, or one that is set aside."""
    found = _NAME.fullmatch(text)
    if found is None or text.endswith(_COMPANIONS):
        return None
    state, _, own = found.groups()
    held = own.endswith(_HELD)
    while own.endswith(_HELD):
        own = own[: -len(_HELD)]
    numbered = _OWN.fullmatch(own)
    return BatchName(state, numbered[1] if numbered else own, held) if own else None


def is_ready(text: str) -> bool:
    """Whether this is the name of a batch that is ready."""
    return text.startswith("ready_") and not text.endswith(_COMPANIONS)
