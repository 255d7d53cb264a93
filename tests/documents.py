"""What a stranger reads: the README, the pages in docs, CONTRIBUTING and SECURITY, as one text that tests look into.

Lives here: the pages, their blocks, tables between markers, and what is copied into them from the code and the tests.
Not here: the tests (``test_readme``, ``test_docs``, and those of each table's subject).

``python tests/documents.py`` brings the copied parts up to date.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final, NamedTuple

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parent
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from tqshim.protocol import events, ledger  # noqa: E402

PATHS: Final = [
    path
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted(ROOT.glob("docs/*.md")))
    if path.exists()
]
PAGES: Final = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in PATHS}
"""By path, as the repository has them."""
TEXT: Final = "\n".join(PAGES.values())
FLAT: Final = re.sub(r"\s+", " ", TEXT)
"""The same on one line: where a sentence is wrapped makes no difference."""


class Block(NamedTuple):
    """A fenced block."""

    page: str
    kind: str
    text: str


_FENCED: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS: Final = [Block(page, *found) for page, text in PAGES.items() for found in _FENCED.findall(text)]


def between(marker: str) -> str:
    """What stands between ``<!-- marker -->`` and ``<!-- /marker -->``, on whatever page."""
    found = re.findall(rf"<!-- {marker} -->\n(.*?)<!-- /{marker} -->", TEXT, re.DOTALL)
    assert len(found) == 1, f"the pages have {len(found)} blocks between {marker} markers"
    return str(found[0])


def rows(marker: str) -> list[list[str]]:
    """The cells of the one table between two markers, without its head; backquoted ``|`` are not expected."""
    lines = [line for line in between(marker).split("\n") if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def commands() -> list[str]:
    """Every command of every shell block, without the remark behind it."""
    lines = [line for block in BLOCKS if block.kind == "sh" for line in block.text.splitlines()]
    return [re.sub(r"\s+#.*", "", line) for line in lines if line.strip() and not line.startswith("#")]


# -- what is copied


def crash_table() -> str:
    """The crash table as its page must print it."""
    from crash_table import markdown

    return str(markdown())


def event_types() -> dict[str, int]:
    """Every type of event: there is one function for each that makes it."""
    made = [name.rstrip("_").upper() for name in events.__all__ if name.islower()]
    return {name: getattr(events, name) for name in made}


def event_table() -> str:
    """The rule table of the ledger's docstring as a table of a page, with the number of each type."""
    lines = (ledger.__doc__ or "").split("\n")
    edges = [number for number, line in enumerate(lines) if line.startswith("====")]
    columns = [match.span() for match in re.finditer("=+", lines[edges[0]])]
    cells: list[list[str]] = []
    for line in lines[edges[1] + 1 : edges[2]]:
        parts = [line[start:end].strip() for start, end in columns]
        parts[2] = line[columns[2][0] :].strip()
        # A name of an event begins a row; all other lines go on with the row above.
        if re.match("[A-Z]", parts[0]):
            cells.append(parts)
        else:
            cells[-1] = [f"{old} {new}".strip() for old, new in zip(cells[-1], parts)]
    types = event_types()
    numbered = [(types[re.match("[A-Z_]+", row[0])[0]], *row) for row in cells]  # type: ignore[index]
    head = "| type | event | valid iff, else void | effect |\n|---|---|---|---|\n"
    return head + "\n".join(f"| {number} | {' | '.join(row)} |".replace("``", "`") for number, *row in numbered)


COPIED: Final = {"events": event_table, "crash table": crash_table}
"""By marker: what stands there."""


def update() -> list[str]:
    """Bring the copied parts up to date; the pages that were changed."""
    changed = []
    for path in PATHS:
        text = former = path.read_text("utf-8")
        for marker, make in COPIED.items():
            begin, end = f"<!-- {marker} -->\n", f"<!-- /{marker} -->"
            head, found, rest = text.partition(begin)
            if found:
                text = f"{head}{begin}{make()}\n{end}{rest.partition(end)[2]}"
        if text != former:
            path.write_text(text, "utf-8")
            changed.append(path.name)
    return changed


if __name__ == "__main__":
    print(f"changed: {', '.join(update()) or 'nothing'}")
