"""The crash table: what a process leaves that is killed right after each step of each act, and who repairs it.

``python tests/crash_table.py`` prints it.  ``test_crash_table`` kills a process right after each step, finds what the
table says, no more and no less, and then does what the table says is enough.  A step without a row fails there, and so
does a row without a step; ``python tests/test_crash_table.py --write`` writes the rows as they are found.

A step is named for what it changes: a file, a lock, an event in the journal, a word of the cells, a record.  ``!``
marks the commit point of an act: killed before it, the act has not happened; killed after it, it has.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Left(NamedTuple):
    """Something that is there only because somebody was killed."""

    text: str
    """What it is."""
    repairer: str
    """What a peer does that repairs it, by the words of ``REPAIRERS``; empty: nothing is to be repaired."""


REPAIRERS: Final = {
    "": "nobody needs to",
    "gets": "the next get",
    "puts": "the next put; in a bounded queue one that would say Full",
    "rings": "the next ring: of a put, a get, a task_done",
    "uses": "whatever anybody does next",
    "sleeps": "the sleeper itself, which looks within half a second for each that waits, ten at most",
    "waits": "the waiting processes: one of them scans, every one to six seconds",
    "joins": "the next producer that joins, once it is buried",
    "opens": "the next process that opens the path",
    "makes": "the next creation of an anonymous queue",
}

LEFT: Final = {
    "taken": Left("the item was its own: lost, unless it had delivered it", ""),
    "reason alone": Left("a damaged file under its former name, and the reason why it is to be set aside", "gets"),
    "returned item": Left("an item at the head again, marked", "gets"),
    "lease": Left("a lease of a killed process; what it has not delivered can be got", "gets"),
    "uncut items": Left("items that were put and are not cut: they count, they can be got", "gets"),
    "raised LEASE_FLAG": Left("a holder of a lease looks once too often", "gets"),
    "next journal": Left("the next journal is decided, under its roll_ name", "uses"),
    "sleeper": Left("what somebody sleeps for is there, and nobody has rung", "sleeps"),
    "CLOSING alone": Left("the intention to shut down", "waits"),
    "reserved places": Left("places of a killed producer", "puts"),
    "ASLEEP": Left("a word that says that somebody sleeps", "rings"),
    "raised FLAG": Left("a producer asks the journal at its next put", ""),
    "dead member": Left("a member whose slot nobody locks", "waits"),
    "held item": Left("an item that a killed process holds: it comes back", "waits"),
    "pin": Left("a word that keeps batch files", "waits"),
    "sleep cell": Left("a word that says that a killed process sleeps", "waits"),
    "unput record": Left("a record that was never put", "waits"),
    "batch file": Left("a batch file without items, which nobody fills", "waits"),
    "free_ file": Left("a batch file that a killed producer was to fill again", "waits"),
    "late COUNTER": Left("a counter below what is cut", "joins"),
    "old journal": Left("a journal that was replaced", "waits"),
    "roll_ file": Left("a journal that nobody uses", "waits"),
    "second name": Left("a second name of a journal", "waits"),
    "no journal": Left("a folder that is no queue yet", "opens"),
    "spill link": Left("a link that leads nowhere: the next spill makes the folder", ""),
    "marker_": Left("a marker of a handle on its way, which expires after a minute", ""),
    "folder of nobody": Left("a folder that nobody holds", "makes"),
    "dead_ folder": Left("a folder under its dead_ name", "makes"),
}


class Row(NamedTuple):
    """What is left of a process that is killed right after a step."""

    step: str
    left: tuple[str, ...] = ()

    @property
    def commits(self) -> bool:
        return self.step.startswith("!")

    @property
    def name(self) -> str:
        return self.step.lstrip("!")


TABLE: Final[dict[str, tuple[Row, ...]]] = {
    "create an anonymous queue": (
        Row("make folder", ("folder of nobody",)),
        Row("hold folder", ("folder of nobody",)),
        Row("create members", ("folder of nobody",)),
        Row("create cells", ("folder of nobody",)),
        Row("write cells", ("folder of nobody",)),
        Row("create roll_", ("folder of nobody",)),
        Row("reserve roll_", ("folder of nobody",)),
        Row("write roll_", ("folder of nobody",)),
        Row("!link roll_ to journal_", ("folder of nobody",)),
        Row("!unlink roll_", ("folder of nobody",)),
    ),
    "open a queue at a path": (
        Row("make folder", ("no journal",)),
        Row("hold folder", ("no journal",)),
        Row("create members", ("no journal",)),
        Row("create cells", ("no journal",)),
        Row("write cells", ("no journal",)),
        Row("create roll_", ("no journal",)),
        Row("reserve roll_", ("no journal",)),
        Row("write roll_", ("no journal",)),
        Row("!link roll_ to journal_", ("second name",)),
        Row("!unlink roll_"),
    ),
    "open a durable queue whose journal ends in a hole": (
        Row("hold folder"),
        Row("lock folder alone"),
        Row("hold folder"),
        Row("create roll_", ("roll_ file",)),
        Row("reserve roll_", ("roll_ file",)),
        Row("write roll_", ("roll_ file",)),
        Row("!link roll_ to journal_", ("old journal", "second name")),
        Row("!unlink roll_", ("old journal",)),
    ),
    "pickle a handle": (
        Row("create marker_", ("marker_",)),
    ),
    "unpickle a handle": (
        Row("unlink marker_"),
    ),
    "first put": (
        Row("append JOIN", ("dead member",)),
        Row("lock slot", ("dead member",)),
        Row("create load_", ("dead member", "batch file")),
        Row("allocate load_", ("dead member", "batch file")),
        Row("write index", ("dead member", "batch file")),
        Row("append OPEN", ("dead member", "batch file")),
        Row("write record", ("dead member", "unput record", "batch file")),
        Row("write index", ("dead member", "unput record", "batch file")),
        Row("store mark", ("dead member", "unput record", "batch file")),
        Row("!store COUNTER", ("uncut items", "dead member")),
    ),
    "put": (
        Row("write record", ("uncut items", "dead member", "unput record")),
        Row("write index", ("uncut items", "dead member", "unput record")),
        Row("!store COUNTER", ("uncut items", "dead member")),
    ),
    "put, where all marks are used": (
        Row("append CUT, CUT", ("dead member",)),
        Row("store CUT_UP_TO", ("dead member",)),
        Row("store mark", ("dead member",)),
        Row("write record", ("dead member", "unput record")),
        Row("write index", ("dead member", "unput record")),
        Row("!store COUNTER", ("uncut items", "dead member")),
    ),
    "put while somebody sleeps": (
        Row("append JOIN", ("dead member",)),
        Row("lock slot", ("dead member",)),
        Row("create load_", ("dead member", "batch file")),
        Row("allocate load_", ("dead member", "batch file")),
        Row("write index", ("dead member", "batch file")),
        Row("append OPEN", ("dead member", "batch file")),
        Row("write record", ("dead member", "unput record", "batch file")),
        Row("write index", ("dead member", "unput record", "batch file")),
        Row("store mark", ("dead member", "unput record", "batch file")),
        Row("!store COUNTER", ("uncut items", "sleeper", "dead member")),
        Row("clear ASLEEP", ("uncut items", "sleeper", "dead member")),
        Row("ring bell", ("uncut items", "dead member")),
    ),
    "put to a full disk: spill over": (
        Row("append JOIN", ("dead member",)),
        Row("lock slot", ("dead member",)),
        Row("create spare_", ("dead member",)),
        Row("reserve spare_", ("dead member",)),
        Row("symlink spill", ("dead member", "spill link")),
        Row("make folder", ("dead member",)),
        Row("create load_", ("dead member", "batch file")),
        Row("allocate load_", ("dead member", "batch file")),
        Row("write index", ("dead member", "batch file")),
        Row("append OPEN", ("dead member", "batch file")),
        Row("write record", ("dead member", "unput record", "batch file")),
        Row("write index", ("dead member", "unput record", "batch file")),
        Row("store mark", ("dead member", "unput record", "batch file")),
        Row("!store COUNTER", ("uncut items", "dead member")),
    ),
    "put of a large item": (
        Row("create spare_", ("uncut items", "dead member")),
        Row("reserve spare_", ("uncut items", "dead member")),
        Row("create load_", ("uncut items", "dead member", "batch file")),
        Row("allocate load_", ("uncut items", "dead member", "batch file")),
        Row("write index", ("uncut items", "dead member", "batch file")),
        Row("append CUT, OPEN", ("dead member", "batch file")),
        Row("store CUT_UP_TO", ("dead member", "batch file")),
        Row("rename load_ to ready_", ("dead member", "batch file")),
        Row("write record", ("dead member", "unput record", "batch file")),
        Row("write index", ("dead member", "unput record", "batch file")),
        Row("store mark", ("dead member", "unput record", "batch file")),
        Row("!store COUNTER", ("uncut items", "dead member")),
    ),
    "put to a full batch file": (
        Row("create load_", ("uncut items", "dead member", "batch file")),
        Row("allocate load_", ("uncut items", "dead member", "batch file")),
        Row("write index", ("uncut items", "dead member", "batch file")),
        Row("append CUT, OPEN", ("dead member", "batch file")),
        Row("store CUT_UP_TO", ("dead member", "batch file")),
        Row("rename load_ to ready_", ("dead member", "batch file")),
        Row("write record", ("dead member", "unput record", "batch file")),
        Row("write index", ("dead member", "unput record", "batch file")),
        Row("store mark", ("dead member", "unput record", "batch file")),
        Row("!store COUNTER", ("uncut items", "dead member")),
    ),
    "put after an interrupted one": (
        Row("write record", ("uncut items", "dead member", "unput record")),
        Row("write index", ("uncut items", "dead member", "unput record")),
        Row("!store COUNTER", ("uncut items", "dead member")),
    ),
    "put of several": (
        Row("write record", ("uncut items", "dead member", "unput record")),
        Row("write index", ("uncut items", "dead member", "unput record")),
        Row("!store COUNTER", ("uncut items", "dead member")),
    ),
    "put where no counter counts": (
        Row("write record", ("dead member", "unput record")),
        Row("write index", ("dead member", "unput record")),
        Row("!append PUBLISH", ("dead member", "late COUNTER")),
        Row("store CUT_UP_TO", ("dead member", "late COUNTER")),
        Row("store COUNTER", ("dead member",)),
    ),
    "put to a durable queue": (
        Row("write record", ("dead member", "unput record")),
        Row("write index", ("dead member", "unput record")),
        Row("!append PUBLISH", ("dead member", "late COUNTER")),
        Row("store CUT_UP_TO", ("dead member", "late COUNTER")),
        Row("store COUNTER", ("dead member",)),
    ),
    "first put where no counter counts, after one that was killed": (
        Row("append JOIN", ("dead member", "late COUNTER")),
        Row("lock slot", ("dead member", "late COUNTER")),
        Row("store COUNTER", ("dead member",)),
        Row("create load_", ("dead member", "batch file")),
        Row("allocate load_", ("dead member", "batch file")),
        Row("write index", ("dead member", "batch file")),
        Row("append OPEN", ("dead member", "batch file")),
        Row("write record", ("dead member", "unput record", "batch file")),
        Row("write index", ("dead member", "unput record", "batch file")),
        Row("!append PUBLISH", ("dead member", "late COUNTER")),
        Row("store CUT_UP_TO", ("dead member", "late COUNTER")),
        Row("store COUNTER", ("dead member",)),
    ),
    "put to a bounded queue, near its bound": (
        Row("store mark", ("raised FLAG", "dead member")),
        Row("write record", ("raised FLAG", "dead member", "unput record")),
        Row("write index", ("raised FLAG", "dead member", "unput record")),
        Row("!append PUBLISH", ("raised FLAG", "dead member", "late COUNTER")),
        Row("store COUNTER", ("raised FLAG", "dead member")),
    ),
    "put to a bounded queue, far from its bound": (
        Row("store mark", ("raised FLAG", "dead member")),
        Row("append CUT, RESERVE", ("reserved places", "raised FLAG", "dead member")),
        Row("write record", ("reserved places", "raised FLAG", "dead member", "unput record")),
        Row("write index", ("reserved places", "raised FLAG", "dead member", "unput record")),
        Row("!store COUNTER", ("uncut items", "reserved places", "raised FLAG", "dead member")),
    ),
    "put within a reservation": (
        Row("write record", ("uncut items", "reserved places", "raised FLAG", "dead member", "unput record")),
        Row("write index", ("uncut items", "reserved places", "raised FLAG", "dead member", "unput record")),
        Row("!store COUNTER", ("uncut items", "reserved places", "raised FLAG", "dead member")),
    ),
    "put behind a reservation that somebody has ended": (
        Row("write record", ("uncut items", "raised FLAG", "dead member", "unput record")),
        Row("write index", ("uncut items", "raised FLAG", "dead member", "unput record")),
        Row("!store COUNTER", ("uncut items", "raised FLAG", "dead member")),
        Row("append CUT, CUT, SKIP", ("raised FLAG", "dead member")),
        Row("store CUT_UP_TO", ("raised FLAG", "dead member")),
    ),
    "put that reserves anew": (
        Row("clear FLAG", ("raised FLAG", "dead member")),
        Row("append CUT, RESERVE", ("reserved places", "raised FLAG", "dead member")),
        Row("write record", ("reserved places", "raised FLAG", "dead member", "unput record")),
        Row("write index", ("reserved places", "raised FLAG", "dead member", "unput record")),
        Row("!store COUNTER", ("uncut items", "reserved places", "raised FLAG", "dead member")),
    ),
    "put within a reservation that somebody wants to end": (
        Row("write record", ("uncut items", "reserved places", "raised FLAG", "dead member", "unput record")),
        Row("write index", ("uncut items", "reserved places", "raised FLAG", "dead member", "unput record")),
        Row("!store COUNTER", ("uncut items", "reserved places", "raised FLAG", "dead member")),
        Row("append CUT, TRIM, CUT, SKIP", ("raised FLAG", "dead member")),
        Row("store CUT_UP_TO", ("raised FLAG", "dead member")),
    ),
    "put to a queue full of others' reservations": (
        Row("append JOIN", ("raised FLAG", "dead member")),
        Row("lock slot", ("raised FLAG", "dead member")),
        Row("store FLAG", ("raised FLAG", "dead member")),
        Row("append TRIM", ("raised FLAG", "dead member")),
        Row("create load_", ("raised FLAG", "dead member", "batch file")),
        Row("allocate load_", ("raised FLAG", "dead member", "batch file")),
        Row("write index", ("raised FLAG", "dead member", "batch file")),
        Row("append CUT, OPEN", ("raised FLAG", "dead member", "batch file")),
        Row("store CUT_UP_TO", ("raised FLAG", "dead member", "batch file")),
        Row("write record", ("raised FLAG", "dead member", "unput record", "batch file")),
        Row("write index", ("raised FLAG", "dead member", "unput record", "batch file")),
        Row("!append PUBLISH", ("raised FLAG", "dead member", "late COUNTER")),
        Row("store CUT_UP_TO", ("raised FLAG", "dead member", "late COUNTER")),
        Row("store COUNTER", ("raised FLAG", "dead member")),
    ),
    "first put to a bounded queue that another has put to alone": (
        Row("append JOIN", ("dead member",)),
        Row("lock slot", ("dead member",)),
        Row("store FLAG", ("raised FLAG", "dead member")),
        Row("create load_", ("raised FLAG", "dead member", "batch file")),
        Row("allocate load_", ("raised FLAG", "dead member", "batch file")),
        Row("write index", ("raised FLAG", "dead member", "batch file")),
        Row("append OPEN", ("raised FLAG", "dead member", "batch file")),
        Row("write record", ("raised FLAG", "dead member", "unput record", "batch file")),
        Row("write index", ("raised FLAG", "dead member", "unput record", "batch file")),
        Row("!append PUBLISH", ("raised FLAG", "dead member", "late COUNTER")),
        Row("store CUT_UP_TO", ("raised FLAG", "dead member", "late COUNTER")),
        Row("store COUNTER", ("raised FLAG", "dead member")),
    ),
    "put of a bounded queue's only producer": (
        Row("write record", ("uncut items", "dead member", "unput record")),
        Row("write index", ("uncut items", "dead member", "unput record")),
        Row("!store COUNTER", ("uncut items", "dead member")),
    ),
    "put of a bounded queue's only producer, whom another asks to say more": (
        Row("write record", ("uncut items", "dead member", "unput record")),
        Row("write index", ("uncut items", "dead member", "unput record")),
        Row("!store COUNTER", ("uncut items", "dead member")),
        Row("append CUT, CUT, SKIP", ("dead member",)),
        Row("store CUT_UP_TO", ("dead member",)),
    ),
    "put of a bounded queue's only producer, whose flag is up": (
        Row("clear FLAG", ("dead member",)),
        Row("write record", ("dead member", "unput record")),
        Row("write index", ("dead member", "unput record")),
        Row("!store COUNTER", ("uncut items", "dead member")),
    ),
    "first put that waits": (
        Row("append JOIN", ("dead member",)),
        Row("lock slot", ("dead member",)),
        Row("store FLAG", ("raised FLAG", "dead member")),
        Row("make space", ("raised FLAG", "dead member")),
        Row("store sleep cell", ("raised FLAG", "dead member", "sleep cell")),
        Row("store ASLEEP", ("ASLEEP", "raised FLAG", "dead member", "sleep cell")),
        Row("clear sleep cell", ("ASLEEP", "raised FLAG", "dead member")),
    ),
    "join beyond the cells": (
        Row("!append JOIN", ("dead member",)),
        Row("write cells", ("dead member",)),
        Row("lock slot", ("dead member",)),
        Row("store BEYOND", ("dead member",)),
    ),
    "first get": (
        Row("append JOIN", ("dead member",)),
        Row("lock slot", ("dead member",)),
        Row("store POSITION", ("dead member", "pin")),
        Row("!append CLAIM", ("taken", "dead member", "pin")),
        Row("clear POSITION", ("taken", "dead member")),
    ),
    "get": (
        Row("store POSITION", ("dead member", "pin")),
        Row("!append CLAIM", ("taken", "dead member", "pin")),
        Row("clear POSITION", ("taken", "dead member")),
    ),
    "get of what is not cut yet": (
        Row("store POSITION", ("uncut items", "dead member", "pin")),
        Row("!append CUT, CLAIM", ("taken", "dead member", "pin", "batch file")),
        Row("store CUT_UP_TO", ("taken", "dead member", "pin", "batch file")),
        Row("clear POSITION", ("taken", "dead member", "batch file")),
    ),
    "get of several": (
        Row("store POSITION", ("dead member", "pin")),
        Row("!append CLAIM_MANY", ("taken", "dead member", "pin")),
        Row("clear POSITION", ("taken", "dead member")),
    ),
    "get of a batch file's last item": (
        Row("store POSITION", ("uncut items", "dead member", "pin")),
        Row("!append CLAIM", ("taken", "uncut items", "dead member", "pin", "batch file")),
        Row("clear POSITION", ("taken", "uncut items", "dead member", "batch file")),
        Row("unlink ready_", ("taken", "uncut items", "dead member")),
    ),
    "get of a spilled batch file's last item": (
        Row("store POSITION", ("uncut items", "dead member", "pin")),
        Row("!append CLAIM", ("taken", "uncut items", "dead member", "pin", "batch file")),
        Row("clear POSITION", ("taken", "uncut items", "dead member", "batch file")),
        Row("unlink in spill", ("taken", "uncut items", "dead member")),
    ),
    "get of a large batch file's last item": (
        Row("store POSITION", ("uncut items", "dead member", "pin")),
        Row("!append CLAIM", ("taken", "uncut items", "dead member", "pin", "batch file")),
        Row("clear POSITION", ("taken", "uncut items", "dead member", "batch file")),
        Row("rename ready_ to free_", ("taken", "uncut items", "dead member", "free_ file")),
    ),
    "put of a large item, to a batch file that is refilled": (
        Row("rename free_ to load_", ("uncut items", "dead member", "batch file")),
        Row("write load_", ("uncut items", "dead member", "batch file")),
        Row("append CUT, OPEN", ("dead member", "unput record", "batch file")),
        Row("store CUT_UP_TO", ("dead member", "unput record", "batch file")),
        Row("rename load_ to ready_", ("dead member", "unput record", "batch file")),
        Row("write record", ("dead member", "unput record", "batch file")),
        Row("store mark", ("dead member", "unput record", "batch file")),
        Row("!store COUNTER", ("uncut items", "dead member")),
    ),
    "get from a damaged batch file": (
        Row("append JOIN", ("dead member",)),
        Row("lock slot", ("dead member",)),
        Row("store POSITION", ("dead member", "pin")),
        Row("!append CLAIM", ("taken", "dead member", "pin")),
        Row("create corrupt_", ("taken", "reason alone", "dead member", "pin")),
        Row("write corrupt_", ("taken", "reason alone", "dead member", "pin")),
        Row("rename ready_ to corrupt_", ("taken", "dead member", "pin")),
    ),
    "first get that waits": (
        Row("make bell"),
        Row("append JOIN", ("dead member",)),
        Row("lock slot", ("dead member",)),
        Row("store sleep cell", ("dead member", "sleep cell")),
        Row("store ASLEEP", ("ASLEEP", "dead member", "sleep cell")),
        Row("clear sleep cell", ("ASLEEP", "dead member")),
    ),
    "lease": (
        Row("append JOIN", ("dead member",)),
        Row("lock slot", ("dead member",)),
        Row("append LEASE", ("lease", "dead member")),
        Row("store POSITION", ("lease", "dead member", "pin")),
        Row("!store LEASE_POSITION", ("taken", "lease", "dead member", "pin")),
        Row("clear POSITION", ("taken", "lease", "dead member")),
    ),
    "lease behind one that somebody has ended": (
        Row("store LEASE_POSITION", ("dead member",)),
        Row("clear LEASE_FLAG", ("dead member",)),
        Row("append LEASE", ("lease", "dead member")),
        Row("store POSITION", ("lease", "dead member", "pin")),
        Row("!store LEASE_POSITION", ("taken", "lease", "dead member", "pin")),
        Row("clear POSITION", ("taken", "lease", "dead member")),
    ),
    "get of what is leased": (
        Row("!store LEASE_POSITION", ("taken", "lease", "dead member")),
    ),
    "get of a lease that somebody wants to end": (
        Row("!store LEASE_POSITION", ("taken", "lease", "dead member")),
        Row("append REVOKE", ("taken", "dead member")),
    ),
    "get of another's lease": (
        Row("append JOIN", ("dead member",)),
        Row("lock slot", ("dead member",)),
        Row("store LEASE_FLAG", ("raised LEASE_FLAG", "dead member")),
        Row("append REVOKE", ("dead member",)),
        Row("store POSITION", ("dead member", "pin")),
        Row("!append CLAIM", ("taken", "dead member", "pin")),
        Row("clear POSITION", ("taken", "dead member")),
    ),
    "lease of all that comes": (
        Row("append JOIN", ("dead member",)),
        Row("lock slot", ("dead member",)),
        Row("store POSITION", ("dead member", "pin")),
        Row("append LEASE_ALL", ("lease", "dead member", "pin")),
        Row("!store GIVEN", ("taken", "lease", "dead member", "pin")),
    ),
    "get under a lease of all that comes": (
        Row("!store GIVEN", ("taken", "lease", "dead member", "pin")),
    ),
    "get under a lease of all that comes that somebody wants to end": (
        Row("!store GIVEN", ("taken", "lease", "dead member", "pin")),
        Row("append DELIVERED, REVOKE", ("taken", "dead member", "pin")),
        Row("clear POSITION", ("taken", "dead member")),
    ),
    "get under a lease of all that comes that somebody has ended": (
        Row("store GIVEN", ("dead member", "pin")),
        Row("clear POSITION", ("dead member",)),
        Row("store GIVEN", ("dead member",)),
        Row("store POSITION", ("dead member", "pin")),
        Row("!append CLAIM", ("taken", "dead member", "pin")),
        Row("clear POSITION", ("taken", "dead member")),
    ),
    "get beside another's lease of all that comes": (
        Row("append JOIN", ("dead member",)),
        Row("lock slot", ("dead member",)),
        Row("store LEASE_FLAG", ("raised LEASE_FLAG", "dead member")),
        Row("append DELIVERED, REVOKE", ("dead member",)),
        Row("store POSITION", ("dead member", "pin")),
        Row("!append CUT, CLAIM", ("taken", "dead member", "pin")),
        Row("store CUT_UP_TO", ("taken", "dead member", "pin")),
        Row("clear POSITION", ("taken", "dead member")),
    ),
    "first put beside another's lease of all that comes": (
        Row("append JOIN", ("dead member",)),
        Row("lock slot", ("dead member",)),
        Row("create load_", ("dead member", "batch file")),
        Row("allocate load_", ("dead member", "batch file")),
        Row("write index", ("dead member", "batch file")),
        Row("store LEASE_FLAG", ("raised LEASE_FLAG", "dead member", "batch file")),
        Row("append DELIVERED, REVOKE, CUT, OPEN", ("dead member", "batch file")),
        Row("store CUT_UP_TO", ("dead member", "batch file")),
        Row("write record", ("dead member", "unput record", "batch file")),
        Row("write index", ("dead member", "unput record", "batch file")),
        Row("store mark", ("dead member", "unput record", "batch file")),
        Row("!store COUNTER", ("uncut items", "dead member")),
    ),
    "claimed, and its block": (
        Row("append JOIN", ("dead member",)),
        Row("lock slot", ("dead member",)),
        Row("append HOLD", ("dead member", "held item")),
        Row("!append GOT", ("taken", "dead member")),
    ),
    "claimed, and its block raises": (
        Row("append JOIN", ("dead member",)),
        Row("lock slot", ("dead member",)),
        Row("append HOLD", ("dead member", "held item")),
        Row("!append RETURN", ("returned item", "dead member")),
    ),
    "get of what has come back": (
        Row("append JOIN", ("returned item", "dead member")),
        Row("lock slot", ("returned item", "dead member")),
        Row("append HOLD", ("dead member", "held item")),
        Row("!append GOT", ("taken", "dead member")),
    ),
    "leave out of a block": (
        Row("unlock slot", ("dead member", "held item")),
        Row("!append LEAVE", ("returned item",)),
    ),
    "bury a killed member that holds an item": (
        Row("lock slot", ("dead member", "held item")),
        Row("!append LEAVE", ("returned item",)),
        Row("unlock slot", ("returned item",)),
    ),
    "task_done": (
        Row("!append TASK_DONE"),
    ),
    "task_done of the last item": (
        Row("!append TASK_DONE"),
    ),
    "first join that waits": (
        Row("append JOIN", ("dead member",)),
        Row("lock slot", ("dead member",)),
        Row("make done", ("dead member",)),
        Row("store sleep cell", ("dead member", "sleep cell")),
        Row("store ASLEEP", ("ASLEEP", "dead member", "sleep cell")),
        Row("clear sleep cell", ("ASLEEP", "dead member")),
    ),
    "shutdown": (
        Row("!append CLOSING", ("CLOSING alone",)),
        Row("store FLAG", ("CLOSING alone",)),
        Row("append SHUTDOWN"),
    ),
    "shutdown while somebody sleeps": (
        Row("!append CLOSING", ("CLOSING alone",)),
        Row("store FLAG", ("CLOSING alone",)),
        Row("append SHUTDOWN", ("sleeper",)),
        Row("clear ASLEEP", ("sleeper",)),
        Row("ring bell"),
    ),
    "shutdown behind puts": (
        Row("!append CLOSING", ("uncut items", "CLOSING alone", "dead member")),
        Row("store FLAG", ("uncut items", "CLOSING alone", "dead member")),
        Row("append CUT, SHUTDOWN", ("dead member",)),
        Row("store CUT_UP_TO", ("dead member",)),
    ),
    "shutdown at once": (
        Row("!append CLOSING", ("CLOSING alone",)),
        Row("store FLAG", ("CLOSING alone",)),
        Row("append SHUTDOWN"),
    ),
    "shutdown at once, with a lease": (
        Row("!append CLOSING", ("lease", "CLOSING alone", "dead member")),
        Row("append REVOKE", ("CLOSING alone", "dead member")),
        Row("store FLAG", ("CLOSING alone", "dead member")),
        Row("append SHUTDOWN", ("dead member",)),
    ),
    "shutdown at once, with another's lease": (
        Row("!append CLOSING", ("CLOSING alone",)),
        Row("store LEASE_FLAG", ("raised LEASE_FLAG", "CLOSING alone")),
        Row("append REVOKE", ("CLOSING alone",)),
        Row("store FLAG", ("CLOSING alone",)),
        Row("append SHUTDOWN"),
    ),
    "put to a queue that somebody is shutting down": (
        Row("write record", ("uncut items", "CLOSING alone", "dead member", "unput record")),
        Row("write index", ("uncut items", "CLOSING alone", "dead member", "unput record")),
        Row("!store COUNTER", ("uncut items", "CLOSING alone", "dead member")),
        Row("append CUT, CUT, SKIP", ("CLOSING alone", "dead member")),
        Row("store CUT_UP_TO", ("CLOSING alone", "dead member")),
        Row("append SHUTDOWN", ("dead member",)),
    ),
    "put that a shutdown overtakes": (
        Row("write record", ("dead member", "unput record")),
        Row("write index", ("dead member", "unput record")),
        Row("store COUNTER", ("dead member",)),
        Row("append CUT, SKIP", ("dead member",)),
        Row("store CUT_UP_TO", ("dead member",)),
    ),
    "put at half of a journal": (
        Row("write record", ("dead member", "unput record")),
        Row("write index", ("dead member", "unput record")),
        Row("!append PUBLISH", ("dead member", "late COUNTER")),
        Row("create spare_", ("dead member", "late COUNTER")),
        Row("reserve spare_", ("dead member", "late COUNTER")),
        Row("store CUT_UP_TO", ("dead member", "late COUNTER")),
        Row("store COUNTER", ("dead member",)),
    ),
    "roll": (
        Row("write record", ("dead member", "unput record")),
        Row("write index", ("dead member", "unput record")),
        Row("rename spare_ to roll_", ("dead member", "unput record", "roll_ file")),
        Row("write roll_", ("dead member", "unput record", "roll_ file")),
        Row("append SEAL", ("next journal", "dead member", "unput record")),
        Row("rename roll_ to journal_", ("dead member", "unput record", "old journal")),
        Row("unlink journal_", ("dead member", "unput record")),
        Row("create spare_", ("dead member", "unput record")),
        Row("reserve spare_", ("dead member", "unput record")),
        Row("!append PUBLISH", ("dead member", "late COUNTER")),
        Row("store CUT_UP_TO", ("dead member", "late COUNTER")),
        Row("store COUNTER", ("dead member",)),
    ),
    "roll that somebody else wins": (
        Row("write record", ("dead member", "unput record")),
        Row("write index", ("dead member", "unput record")),
        Row("create roll_", ("dead member", "unput record", "roll_ file")),
        Row("reserve roll_", ("dead member", "unput record", "roll_ file")),
        Row("write roll_", ("dead member", "unput record", "roll_ file")),
        Row("append SEAL", ("next journal", "dead member", "unput record", "roll_ file")),
        Row("unlink roll_", ("next journal", "dead member", "unput record")),
        Row("rename roll_ to journal_", ("dead member", "unput record", "old journal")),
        Row("unlink journal_", ("dead member", "unput record")),
        Row("create spare_", ("dead member", "unput record")),
        Row("reserve spare_", ("dead member", "unput record")),
        Row("!append PUBLISH", ("dead member", "late COUNTER")),
        Row("store CUT_UP_TO", ("dead member", "late COUNTER")),
        Row("store COUNTER", ("dead member",)),
    ),
    "leave with a lease and puts": (
        Row("append REVOKE", ("uncut items", "dead member")),
        Row("unlock slot", ("uncut items", "dead member")),
        Row("!append LEAVE", ("uncut items", "dead member")),
        Row("unlock slot", ("uncut items", "dead member")),
        Row("!append CUT, LEAVE"),
        Row("store CUT_UP_TO"),
        Row("rename load_ to ready_"),
    ),
    "bury a killed producer": (
        Row("lock slot", ("uncut items", "dead member")),
        Row("!append CUT, LEAVE"),
        Row("store CUT_UP_TO"),
        Row("unlock slot"),
    ),
    "bury a killed consumer": (
        Row("lock slot", ("dead member", "pin", "sleep cell")),
        Row("clear sleep cell", ("dead member", "pin")),
        Row("clear POSITION", ("dead member",)),
        Row("!append LEAVE"),
        Row("unlock slot"),
    ),
    "scan of what the dead have left": (
        Row("store SCANNED", ("batch file", "free_ file", "roll_ file")),
        Row("unlink load_", ("free_ file", "roll_ file")),
        Row("unlink free_", ("roll_ file",)),
        Row("unlink roll_"),
    ),
    "a program ends, others go on": (
        Row("unlock slot", ("uncut items", "dead member")),
        Row("!append CUT, LEAVE"),
        Row("store CUT_UP_TO"),
        Row("rename load_ to ready_"),
    ),
    "last user leaves": (
        Row("let go of folder", ("folder of nobody",)),
        Row("lock folder alone", ("folder of nobody",)),
        Row("!rename folder to dead_", ("dead_ folder",)),
        Row("unlink in dead_", ("dead_ folder",)),
        Row("remove folder"),
        Row("let go of folder"),
    ),
    "sweep": (
        Row("lock folder alone", ("folder of nobody",)),
        Row("!rename folder to dead_", ("dead_ folder",)),
        Row("unlink in spill", ("dead_ folder",)),
        Row("remove folder", ("dead_ folder",)),
        Row("unlink in dead_", ("dead_ folder",)),
        Row("remove folder"),
        Row("let go of folder"),
    ),
}


def markdown() -> str:
    """The table as its page prints it: what may be left, then what is."""
    lines = ["| left on disk | what it is | repaired by |", "|---|---|---|"]
    lines += [f"| {name} | {one.text} | {REPAIRERS[one.repairer]} |" for name, one in LEFT.items()]
    lines += ["", "| act | killed right after | left on disk |", "|---|---|---|"]
    for act, rows in TABLE.items():
        for row in rows:
            step = f"**{row.name}**" if row.commits else row.name
            lines.append(f"| {act} | {step} | {', '.join(row.left) or '-'} |")
            act = ""
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown())
