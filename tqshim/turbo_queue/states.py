"""The names of the original's batch files: a state, a time, an id.

Lives here: how such a name is made and read.  Not here: what is done with the files (``sqlite_files``).

::

    load_<seconds>_<id>.db             being filled
    ready_<seconds>_<id>.db            full, nobody's
    unload_<seconds>_<id>.db           a consumer's; with a consumer's number: unload_<seconds>_<id>.db_<number>
    invalid_file_<seconds>_<id>.db     set aside

Invariant: names of one producer's batches sort in the order in which they were begun, and a batch keeps what follows
its state for life, however often processes take it and give it back.
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
"""States in which a batch is somebody's; the last four are those of the original's older versions."""

_NAME: Final = re.compile(rf"({'|'.join((READY, *ABANDONED))})_((?:{UNLOAD}_)*)(.+)")
"""A batch that 0.8.0 has rolled back is called ready_unload_..., once more each time."""
_OWN: Final = re.compile(r"(.+?\.db)_.*")
_HELD: Final = "_temp_hold"
"""0.8.0 takes a batch in two renames; this ends its name in between."""
_COMPANIONS: Final = ("-journal", "-wal", "-shm")
"""Files that SQLite keeps beside a database."""


class BatchName(NamedTuple):
    """What a name says.  ``own``: what the batch keeps for life; ``held``: somebody is just taking it."""

    state: str
    own: str
    held: bool


def begin(nanoseconds: int, key: bytes) -> str:
    """The own part of a new batch's name: the time in which it was begun, and 12 bytes of chance.

    The id has the form of a UUID, as in 0.8.0; the first half of its bytes orders batches within a second."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    chance = key.hex()
    return f"{seconds}_{fraction:08x}-{chance[:4]}-4{chance[5:8]}-a{chance[9:12]}-{chance[12:24]}.db"


def name(state: str, own: str, number: Optional[object] = None) -> str:
    """The name of a batch in a state; ``number``: of the consumer that has taken it."""
    return f"{state}_{own}" if number is None else f"{state}_{own}_{number}"


def parse(text: str) -> Optional[BatchName]:
    """What a name says; ``None`` for a file that is no batch, or one that is set aside."""
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
    """Whether this names a batch that is ready."""
    return text.startswith("ready_") and not text.endswith(_COMPANIONS)
