"""The crash table: what a process leaves if it is killed right after a step of an act, and which process repairs it.

Its rows stand in ``docs/crash-table.md``, from where they are read.  ``test_crash_table`` kills a process right after
each step, finds what the table says, no more and no less, and then does what the table says is enough.  The test fails
for a step without a row, and for a row without a step; ``python tests/test_crash_table.py --write`` writes the rows as
they are found.

A step is named for what it changes: a file, a lock, an event in the journal, a word of the cells, a record.  ``!``
marks the commit point of an act: if the process is killed before it, the act has not happened, and after it, it has.
"""

from __future__ import annotations

from pathlib import Path
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


PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "crash-table.md"
_HEAD: Final = "| act | killed right after | left on disk |\n|---|---|---|\n"


def rows_of(page: str) -> dict[str, tuple[Row, ...]]:
    """By act: what that page says is left after each of its steps."""
    found: dict[str, tuple[Row, ...]] = {}
    act = ""
    for line in page.partition(_HEAD)[2].partition("<!--")[0].splitlines():
        title, step, left = (cell.strip() for cell in line.strip("|").split("|"))
        act = title or act
        name = f"!{step[2:-2]}" if step.startswith("**") else step
        found[act] = (*found.get(act, ()), Row(name, tuple(left.split(", ")) if left != "-" else ()))
    return found


TABLE: Final = rows_of(PAGE.read_text("utf-8"))


def markdown() -> str:
    """The table as its page prints it: what may be left, then what is."""
    lines = ["| left on disk | what it is | repaired by |", "|---|---|---|"]
    lines += [f"| {name} | {one.text} | {REPAIRERS[one.repairer]} |" for name, one in LEFT.items()]
    lines += ["", *_HEAD.splitlines()]
    for act, rows in TABLE.items():
        for row in rows:
            step = f"**{row.name}**" if row.commits else row.name
            lines.append(f"| {act} | {step} | {', '.join(row.left) or '-'} |")
            act = ""
    return "\n".join(lines)
