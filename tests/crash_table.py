"""The crash table: each file-system step of each path of the protocol, and what a kill right after it leaves.

``python tests/crash_table.py`` prints it.  ``test_crash_table`` kills a process before and after each step of each path
and finds what the table says; a step without a row fails there, and so does a row without a step.

A step is named for what it does to which kind of file.  ``!`` marks the commit point of a path: killed before it, the
act has not happened; killed after it, it has.  Steps that only read are left out, for they change nothing.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Row(NamedTuple):
    """What a process that is killed right after a step leaves, and who repairs it."""

    step: str
    left: str
    repaired: str = "-"

    @property
    def commits(self) -> bool:
        return self.step.startswith("!")

    @property
    def name(self) -> str:
        return self.step.lstrip("!")


SCAN = "the next scan (a consumer's JOIN, a sleeper once a second) buries it: LEAVE"
BURIED = "the next scan buries it, removes the file once its items are claimed"
SWEEP = "the next creation of an anonymous queue sweeps it away"
LOOKS = "whoever waits looks by itself within half a second"
CLAIMS = "nobody: the next CLAIM takes what is left"
REVOKED = "whoever wants an item revokes the lease where its position cell stands"
TRIMMED = "whoever would say Full trims it, or buries the member"
ROLLER = "the next scan after the roll removes it"

LATER = "the next scan removes it"
DAMAGED = "who takes the next item that is damaged, too; if all others are whole nobody needs to"

COMES_BACK = "the next scan buries the process: LEAVE, and the item is at the head again, marked"

JOINED = Row("append JOIN", "a member whose slot nobody locks", SCAN)
LOCKED = Row("lock slot", "a member whose lock is gone with its process", SCAN)
CREATED = Row("create load_", "an empty batch file that no event names", BURIED)
OPENED = Row("append OPEN", "an empty batch file; the slot's former one is sealed in the journal", BURIED)
SPARE = Row("create spare_", "an empty file", "whoever rolls uses it")
ASIDE = Row("reserve spare_", "disk space set aside", "whoever rolls uses it")
WRITTEN = Row("write load_", "records that no event names: they were never put", BURIED)
PUBLISHED = Row("!append PUBLISH", "the items are in the queue", BURIED)
CLAIMED = Row("!append CLAIM", "an item that was in the killed process's hand: lost", CLAIMS)
HELD_BY_IT = Row("append HOLD", "an item that a killed process holds: it keeps its place", COMES_BACK)
ENDED = Row("!append SHUTDOWN", "a queue that is shut down; nobody may have been rung for", LOOKS)
ENDED_AT_ONCE = Row("!append SHUTDOWN", "nothing waits any more; nobody may have been rung for", LOOKS)
EMPTY_FOLDER = "a folder without a journal"
DEAD = "a folder under its dead_ name, some of its files gone"
HELD = "a folder that nobody holds any more"

TABLE: Final[dict[str, tuple[Row, ...]]] = {
    "create an anonymous queue": (
        Row("make folder", EMPTY_FOLDER, SWEEP),
        Row("hold folder", EMPTY_FOLDER + "; the hold ends with the process", SWEEP),
        Row("create cells", EMPTY_FOLDER, SWEEP),
        Row("create members", EMPTY_FOLDER, SWEEP),
        Row("write cells", EMPTY_FOLDER, SWEEP),
        Row("create roll_", EMPTY_FOLDER, SWEEP),
        Row("reserve roll_", EMPTY_FOLDER, SWEEP),
        Row("write roll_", EMPTY_FOLDER, SWEEP),
        Row("!link roll_ to journal_", "an empty queue that nobody holds", SWEEP),
        Row("unlink roll_", "an empty queue that nobody holds", SWEEP),
    ),
    "open a queue at a path": (
        Row("make folder", "an empty folder", "whoever opens the path furnishes it"),
        Row("hold folder", EMPTY_FOLDER, "whoever opens the path furnishes it"),
        Row("create cells", EMPTY_FOLDER, "whoever opens the path goes on from there"),
        Row("create members", EMPTY_FOLDER, "whoever opens the path goes on from there"),
        Row("write cells", EMPTY_FOLDER, "whoever opens the path goes on from there"),
        Row("create roll_", EMPTY_FOLDER, "whoever opens the path makes another; the next scan removes this one"),
        Row("reserve roll_", EMPTY_FOLDER, "whoever opens the path makes another; the next scan removes this one"),
        Row("write roll_", EMPTY_FOLDER, "whoever opens the path makes another; the next scan removes this one"),
        Row("!link roll_ to journal_", "a queue, and a second name of its journal", "the next scan removes that name"),
        Row("unlink roll_", "a queue"),
    ),
    "open a durable queue whose journal ends in a hole": (
        Row("make folder", "what the power cut has left: makedirs finds the folder there"),
        Row("hold folder", "what the power cut has left"),
        Row("lock folder alone", "the same; the lock ends with the process"),
        Row("hold folder", "the same"),
        Row("create roll_", "a file that nobody uses", "whoever opens the path makes another; " + LATER),
        Row("reserve roll_", "a file that nobody uses", "whoever opens the path makes another; " + LATER),
        Row("write roll_", "a journal that nobody uses", "whoever opens the path makes another; " + LATER),
        Row("!link roll_ to journal_", "the next journal, a second name of it; one journal too many", LATER),
        Row("unlink roll_", "the next journal; one journal too many", LATER),
    ),
    "pickle a handle": (
        Row("create marker_", "a marker that nobody will fetch", "it expires after a minute; then " + SWEEP),
    ),
    "unpickle a handle": (
        Row("hold folder", "the marker", "it expires after a minute; then " + SWEEP),
        Row("unlink marker_", "nothing"),
    ),
    "first put": (JOINED, LOCKED, CREATED, OPENED, WRITTEN, PUBLISHED),
    "put": (WRITTEN, PUBLISHED),
    "put of a large item": (WRITTEN, PUBLISHED),
    "put to a full disk: spill over": (
        JOINED,
        LOCKED,
        SPARE,
        ASIDE,
        Row(
            "symlink spill",
            "a link that leads nowhere",
            "the next spill makes the folder; else goes with the queue folder",
        ),
        Row("make folder", "an empty spill folder", "the next spill uses it; else goes with the queue folder"),
        CREATED,
        OPENED,
        WRITTEN,
        PUBLISHED,
    ),
    "get of a spilled file's last item": (
        CLAIMED,
        Row("unlink in spill", "an item that was in the killed process's hand: lost", CLAIMS),
    ),
    "put after an interrupted one": (
        Row("rename load_ to ready_", "a batch file, its end a record that no event names", BURIED),
        Row("create load_", "an empty batch file that no event names", BURIED),
        OPENED,
        WRITTEN,
        PUBLISHED,
    ),
    "put to a full batch file": (
        Row("create load_", "an empty batch file that no event names", BURIED),
        Row("append OPEN", "the former file is sealed in the journal, not yet by name", BURIED),
        Row("rename load_ to ready_", "an empty batch file", BURIED),
        WRITTEN,
        PUBLISHED,
    ),
    "put of a large item, to a batch file that is refilled": (
        SPARE,
        ASIDE,
        Row("rename free_ to load_", "a batch file with old bytes that no event names", BURIED),
        Row("append OPEN", "the same; the slot's former one is sealed in the journal, not yet by name", BURIED),
        Row("rename load_ to ready_", "the same", BURIED),
        WRITTEN,
        PUBLISHED,
    ),
    "put of several to a bounded queue": (
        Row("append RESERVE", "places that are nobody's", TRIMMED),
        WRITTEN,
        Row("!append PUBLISH", "the first block is in the queue, the rest of the places reserved", TRIMMED),
        WRITTEN,
        Row("!append PUBLISH", "the items are in the queue", BURIED),
    ),
    "put of very many to a bounded queue": (
        Row("append RESERVE", "more places than a TRIM can count, nobody's", "whoever would say Full buries it"),
        WRITTEN,
        Row("!append PUBLISH", "the first block is in the queue, the rest of the places reserved", "the same"),
        WRITTEN,
        Row("!append PUBLISH", "the items are in the queue", BURIED),
    ),
    "join beyond the cells": (
        JOINED,
        Row("write cells", "a member whose slot nobody locks", SCAN),
        LOCKED,
    ),
    "burst to a bounded queue": (
        Row("append RESERVE", "places that are nobody's", TRIMMED),
        Row("write load_", "records that no event names: the end of the burst is lost", TRIMMED),
        PUBLISHED,
    ),
    "reservation that somebody contests": (
        Row("append TRIM", "places that are nobody's: as many as were used; the end of the burst is lost", SCAN),
        Row("write load_", "records that no event names: the end of the burst is lost", SCAN),
        PUBLISHED,
    ),
    "put to a queue full of others' reservations": (
        Row("append TRIM", "the other's reservation is cut to what it used"),
        WRITTEN,
        PUBLISHED,
    ),
    "first put that waits": (
        JOINED,
        LOCKED,
        Row("make space", "a FIFO in which nobody waits", "whoever waits next uses it"),
    ),
    "first get": (JOINED, LOCKED, CLAIMED),
    "get": (CLAIMED,),
    "get of several": (Row("!append CLAIM_MANY", "items that were in the killed process's hand: lost", CLAIMS),),
    "get of a file's last item": (
        CLAIMED,
        Row("unlink ready_", "an item that was in the killed process's hand: lost", CLAIMS),
    ),
    "get of a large file's last item": (
        CLAIMED,
        Row(
            "rename ready_ to free_",
            "an item that was in the killed process's hand: lost; a batch file to be refilled",
            "its producer refills it, or the next scan after that one has left removes it",
        ),
    ),
    "get from a damaged batch file": (
        JOINED,
        LOCKED,
        Row("!append CLAIM", "a damaged item that was in the killed process's hand; its file as it was", DAMAGED),
        Row("create corrupt_", "no reason beside the file yet, or a warning that was logged", DAMAGED),
        Row("write corrupt_", "the reason, beside a file with its former name", DAMAGED),
        Row("rename ready_ to corrupt_", "the file and the reason; what is whole in it is read from there"),
    ),
    "claimed, and its block": (
        JOINED,
        LOCKED,
        HELD_BY_IT,
        Row("!append GOT", "the item is got; nobody may have been rung for its place", LOOKS),
    ),
    "claimed, and its block raises": (
        JOINED,
        LOCKED,
        HELD_BY_IT,
        Row("!append RETURN", "the item is at the head again, marked; nobody may have been rung for", LOOKS),
    ),
    "get of what has come back": (
        JOINED,
        LOCKED,
        HELD_BY_IT,
        Row("!append GOT", "an item that was in the killed process's hand: lost", CLAIMS),
    ),
    "leave out of a block": (
        Row("unlock slot", "a member whose lock is gone, and the item that it holds", SCAN),
        Row("!append LEAVE", "the item is at the head again, marked; nobody may have been rung for", LOOKS),
    ),
    "bury a killed member that holds an item": (
        Row("lock slot", "the killed member still, and the item that it holds", SCAN),
        Row("!append LEAVE", "the item is at the head again, marked; nobody may have been rung for", LOOKS),
        Row("unlock slot", "the same", LOOKS),
    ),
    "first get that waits": (
        JOINED,
        LOCKED,
        Row("make bell", "a FIFO in which nobody waits", "whoever waits next uses it"),
    ),
    "lease": (
        JOINED,
        LOCKED,
        Row("append LEASE", "items leased to a killed process, none of them in its hand", REVOKED),
    ),
    "lease that somebody contests": (
        Row("!append REVOKE", "an item that was in the killed process's hand: lost", CLAIMS),
    ),
    "get of another's lease": (
        JOINED,
        LOCKED,
        Row("append REVOKE", "the other's lease is over", CLAIMS),
        CLAIMED,
    ),
    "task_done": (Row("!append TASK_DONE", "one item less is unfinished; nobody may have been rung for", LOOKS),),
    "task_done of the last item": (
        Row("!append TASK_DONE", "all is finished with; nobody may have been rung for", LOOKS),
    ),
    "task_done behind a burst": (
        WRITTEN,
        PUBLISHED,
        Row("!append TASK_DONE", "one item less is unfinished; nobody may have been rung for", LOOKS),
    ),
    "first join that waits": (
        JOINED,
        LOCKED,
        Row("make done", "a FIFO in which nobody waits", "whoever waits next uses it"),
    ),
    "shutdown": (ENDED,),
    "shutdown behind a burst": (WRITTEN, PUBLISHED, ENDED),
    "shutdown at once, with a burst": (
        Row("create load_", "an empty batch file that no event names", BURIED),
        OPENED,
        Row("rename load_ to ready_", "an empty batch file", BURIED),
        WRITTEN,
        PUBLISHED,
        ENDED_AT_ONCE,
        Row("unlink ready_", "the same", BURIED),
    ),
    "shutdown at once, with a lease": (
        Row("append REVOKE", "the lease is over; all that it did not deliver is there"),
        ENDED_AT_ONCE,
    ),
    "shutdown at once, with another's lease": (
        Row("append REVOKE", "the other's lease is over; all that it did not deliver is there"),
        ENDED_AT_ONCE,
    ),
    "burst that a shutdown overtakes": (
        WRITTEN,
        Row("append PUBLISH", "a void PUBLISH; the end of the burst is lost", BURIED),
        Row("write load_", "the same", BURIED),
        Row("!append PUBLISH_LATE", "the items are in the queue", BURIED),
    ),
    "put at half of a journal": (
        WRITTEN,
        PUBLISHED,
        SPARE,
        ASIDE,
    ),
    "roll": (
        WRITTEN,
        Row("rename spare_ to roll_", "a file that nobody uses", ROLLER),
        Row("reserve roll_", "a file that nobody uses", ROLLER),
        Row("write roll_", "a journal that nobody uses", ROLLER),
        Row("!append SEAL", "the next journal is decided, under its roll_ name", "whoever reads that far renames it"),
        Row("rename roll_ to journal_", "the next journal; one journal too many", "a scan or the next roll removes it"),
        Row("unlink journal_", "the next journal"),
        SPARE,
        ASIDE,
        Row("!append PUBLISH", "the items are in the queue", BURIED),
    ),
    "roll that somebody else wins": (
        WRITTEN,
        Row("create roll_", "a file that nobody uses", ROLLER),
        Row("reserve roll_", "a file that nobody uses", ROLLER),
        Row("write roll_", "a journal that nobody uses", ROLLER),
        Row("append SEAL", "a void SEAL after the one that decided", ROLLER),
        Row("unlink roll_", "the next journal is decided, under its roll_ name", "whoever reads that far renames it"),
        Row("rename roll_ to journal_", "the next journal; one journal too many", "a scan or the next roll removes it"),
        Row("unlink journal_", "the next journal"),
        SPARE,
        ASIDE,
        Row("!append PUBLISH", "the items are in the queue", BURIED),
    ),
    "leave with a lease and a burst": (
        Row("write load_", "records that no event names: the end of the burst is lost", BURIED),
        Row("!append PUBLISH", "the items are in the queue; the lease stands", REVOKED),
        Row("append REVOKE", "nothing is lost; two members whose locks are gone", SCAN),
        Row("unlock slot", "the same", SCAN),
        Row("append LEAVE", "the producer's member", SCAN),
        Row("unlock slot", "the same", SCAN),
        Row("append LEAVE", "a batch file without a producer, called load_", "removed once its items are claimed"),
        Row("rename load_ to ready_", "nothing: it has left", "the file is removed once its items are claimed"),
    ),
    "bury a killed member": (
        Row("lock slot", "the killed member still, the lock is gone with its process", SCAN),
        Row("append LEAVE", "its batch file", "the next scan removes it"),
        Row("unlock slot", "its batch file", "the next scan removes it"),
        Row("unlink load_", "nothing"),
    ),
    "scan of what the dead have left": (
        Row("unlink load_", "what was not yet come to", LATER),
        Row("unlink free_", "what was not yet come to", LATER),
        Row("unlink roll_", "nothing"),
    ),
    "a program ends, others go on": (
        Row("unlock slot", "a member whose lock is gone", SCAN),
        Row("append LEAVE", "a batch file without a producer, called load_", "removed once its items are claimed"),
        Row("rename load_ to ready_", "nothing: it has left", "the file is removed once its items are claimed"),
        Row("hold folder", "nothing: the hold ends with the process"),
    ),
    "last user leaves": (
        Row("lock folder alone", HELD, SWEEP),
        Row("!rename folder to dead_", DEAD, SWEEP),
        Row("unlink in dead_", DEAD, SWEEP),
        Row("remove folder", "nothing"),
    ),
    "sweep": (
        Row("lock folder alone", HELD, SWEEP),
        Row("!rename folder to dead_", DEAD, SWEEP),
        Row("unlink in spill", DEAD, SWEEP),
        Row("remove folder", DEAD, SWEEP),
        Row("unlink in dead_", DEAD, SWEEP),
        Row("remove folder", "nothing"),
    ),
}


def markdown() -> str:
    """The table as the README prints it."""
    lines = ["| path | killed right after | on disk | repaired by |", "|---|---|---|---|"]
    for path, rows in TABLE.items():
        for row in rows:
            step = f"**{row.name}**" if row.commits else row.name
            lines.append(f"| {path} | {step} | {row.left} | {row.repaired} |")
            path = ""
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown())
