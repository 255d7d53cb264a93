"""The engine's numbers, each with its unit and its reason, and the switches of its optimisations.

Lives here: constants, and nothing else.  They are private: tests set them, programs don't.
"""

from __future__ import annotations

import os
import sys

from tqshim.protocol import state
from tqshim.runtime import systems

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_WITHOUT: Final = frozenset(os.environ.get("TQSHIM_WITHOUT", "").split(","))
"""Optimisations that are switched off: the suites run with and without each."""
LEASES: Final = "leases" not in _WITHOUT
SOLE: Final = "sole" not in _WITHOUT
RESERVATIONS: Final = "reservations" not in _WITHOUT
ALONE: Final = "alone" not in _WITHOUT
SPINNING: Final = "spinning" not in _WITHOUT
DOZING: Final = "dozing" not in _WITHOUT
YIELDING: Final = "yielding" not in _WITHOUT
REFILLING: Final = "refilling" not in _WITHOUT
IN_FILES: Final = "in_files" not in _WITHOUT
MAPPINGS: Final = "mappings" not in _WITHOUT
GIL: Final = "t" not in getattr(sys, "abiflags", "")
"""Not as ``sys._is_gil_enabled`` says: a free-threaded build may have the GIL just while something is imported.
Without it several threads must not make and drop views of one buffer: each record is copied."""
_SHORT: Final = "short_ways" not in _WITHOUT and sys.implementation.name == "cpython" and sys.version_info >= (3, 10)
"""Threads change, and signal handlers run, only at calls and jumps back; before 3.10 between any two instructions."""
SHORT_WAYS: Final = _SHORT and GIL
GUARDED: Final = _SHORT and not GIL
"""Without the GIL a put takes its short way with the engine's lock held."""
SHORT_CLAIMS: Final = "short_claims" not in _WITHOUT
FIRST_NAPS: Final = "first_naps" not in _WITHOUT and systems.STORES_IN_ORDER
"""The first nap begins without a barrier: see ``Waiter.fall_asleep``."""

CHECK_ALL: Final = os.environ.get("TQSHIM_CHECK") == "all"
"""Records that this process puts have a check, the large ones, too."""

LIMITS = (state.FIRST_LIMIT, state.LAST_LIMIT)
"""Events of the first and of the largest journal of a new queue."""
BLOCK_BYTES: Final = 1 << 16
"""Bytes from which on a record is a large one: it goes to a file that was made for large records."""
FILE_BYTES: Final = 1 << 20
"""A batch file is sealed at this length: large against what making one costs, small against 64 MB."""
LARGE_FILE_BYTES: Final = 4 << 20
"""The same for a batch file of large records.  Each is filled again and again, and each time
its names change; with 4 MB, items of 100 KB to 1 MB are put 1.2 to 1.4 times as fast."""
SHARES: Final = 64
"""Where less is free than so many such files take, a file is this part of what is free, but no shorter than the first
file of a producer."""
LARGE: Final = 1 << 19
"""Bytes from which a record that is got alone is unpickled straight from its file.  Smaller ones are read into memory
that is warm, and cost more to open than to copy."""
REFILL_PATIENCE: Final = 5e-10
"""Seconds, for each byte, that a producer waits for a file to fill again: to fill a new one takes as long."""
REFILL_LOOK: Final = 1e-4
"""Seconds between two looks for such a file."""
PARTS: Final = 512
"""Pieces that are written at once; the kernel takes 1,024."""
UNSEEN_PATIENCE: Final = 5.0
"""Seconds for which what another process has written may stay unseen, before that is taken for damage."""
MARK_EVERY: Final = 1_000_000
"""Nanoseconds after the last mark in its log from which on a put makes another mark: by so much items of several
producers may be out of order."""
LOOKS: Final = 10
"""Looks for a moment in which nobody puts: one look takes some microseconds, and a stream leaves no such moment."""
READ_SMALL: Final = 1 << 12
READ_LARGE: Final = 1 << 16
"""Bytes of journal that are read at once."""
NAP: Final = 0.05
"""Seconds for which a waiter sleeps at first before it looks by itself, times the waiters there may be; each nap is
twice the one before.  A waiter is rung for when there is something: naps make up for rings in the middle of which a
process died."""
NAP_LAST: Final = 0.5
NAP_MOST: Final = 10.0
"""Seconds of the longest nap: ``NAP_LAST`` times the waiters, and ``NAP_MOST`` in all."""
TURN: Final = 5e-3
"""Seconds after which a process that is woken before all others lets them be woken first.  While it is woken again and
again its caches stay warm; but each other sleeper waits so long."""
BELLS: Final = 32
"""Bells that a process keeps open, each with one or two descriptors: it opens others for each sleep and each ring."""
SPIN: Final = 60e-6
"""Seconds for which a consumer looks before it sleeps: about what waking it would cost."""
LEASE_FROM: Final = 5
"""Waiting items from which a lease is worth its events: it costs as much as four or five claims."""
LEASE_MORE: Final = 32
"""Waiting items up to which a lease is to have items, too, that are put and not cut."""
SOLE_BELOW: Final = 8
"""Waiting items from which on the only consumer leases these items, and not all that comes."""
SOLE_ENOUGH: Final = 32
"""Waiting items from which on a lease of all that comes ends: more than a loop of tasks and results has under way, or
the loop would end each lease that begins."""
SOLE_FEW: Final = 64
"""Places of a bounded queue up to which a lease of all that comes goes on, however many wait: there are never many."""
PACE_ITEMS: Final = 4
"""Items over which a consumer measures how fast it is, at least."""
LEASE_PACE: Final = 10e-6
"""Seconds for which the caller of a consumer is busy with an item, if it leases beside other consumers: if busy for
longer than a claim costs, consumers would end each other's leases after an item or two."""
LEASE_EXTENTS: Final = 16
"""Extents of one lease, at most: each costs a look."""
PLACES: Final = 1000
PLACES_FEW: Final = 256
"""Places of one reservation, at most: a 64th of all, but never more than ``PLACES`` or fewer than ``PLACES_FEW``."""
PLACES_LEAST: Final = 3
"""Places from which a reservation is worth its event."""
LEASE_ITEMS: Final = 1 << 14
LEASE_ITEMS_FEW: Final = 1 << 10
"""Items of one lease, of a sole consumer and beside others: its batch files stay until the lease ends."""
SCAN_EVERY: Final = 1.0
"""Seconds between two looks for members that died and batch files that they left, by one of all that wait or claim."""
SCAN_LOOK: Final = 0.02
"""Seconds that one such look is to take, where there are very many names."""
SCAN_NAMES: Final = 2000
SCAN_NAMES_LEAST: Final = 100
"""Names in one such look, at most, and at least and at first: on a disk it takes some 100 us to delete a file."""
SCAN_REST: Final = 2
"""Where a look has not seen all names: the next one begins after so many times as long as that look took."""
SLOT_PATIENCE: Final = 0.02
"""Seconds to wait for the lock of a new slot: its former member is just leaving, or was stopped while it left."""
ROLL_PATIENCE: Final = 0.02
ROLL_PATIENCE_WORD: Final = 2.5e-7
"""Seconds for which a process waits for another's roll before it rolls itself, and seconds for each word of extents
that the other writes down (at 30 MB a second)."""
ROLL_PATIENCE_FULL: Final = 2.0
"""The same where there is no space for its own roll, and the other, which may be kept from running, has begun one."""
PIN_PATIENCE: Final = 1.0
"""Seconds after which it is worth asking the journal what a member pins that does not move on."""
