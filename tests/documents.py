"""What a stranger reads: the README, the pages in docs, CONTRIBUTING and SECURITY, as one text that the tests search.

Lives here: the pages, their blocks, tables between markers, and what is copied into them from the code and the tests.
Not here: the tests (``test_readme``, ``test_docs``, and those of each table's subject).

``python tests/documents.py`` brings the copied parts, and the pictures, up to date.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parent
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from compat import figures, pictures  # noqa: E402
from tqshim.protocol import events, ledger  # noqa: E402
from tqshim.queues.attributes import overridable  # noqa: E402

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


PUBLIC: Final = ("tqshim", "tqshim.monitor", "tqshim.turbo_queue", "tqshim.kafka")
"""Modules with names for programs, as ``__all__`` of each lists them."""
RETURNED: Final = ("Claim", "Stats")
"""What public methods return, which no program makes by itself."""


def api() -> str:
    """Every public name, as its docstring tells of it."""
    return "\n".join(line for name in PUBLIC for line in _module(importlib.import_module(name)))


def _module(module: ModuleType) -> Iterator[str]:
    yield f"\n## {module.__name__}\n"
    things = {name: getattr(module, name) for name in module.__all__}
    names = {id(thing): name for name, thing in reversed(things.items()) if name == getattr(thing, "__name__", name)}
    for name, thing in things.items():
        yield f"### {name}\n"
        if names.get(id(thing), name) != name:
            yield f"Another name of `{names[id(thing)]}`.\n"
        elif name in RETURNED and module.__name__ != "tqshim":
            yield f"As [above](#{name.lower()}).\n"
        elif name in ("Empty", "Full", "ShutDown"):
            ours = "; before Python 3.13, which has it first, a class of our own" if name == "ShutDown" else ""
            yield f"The standard library's `queue.{name}`{ours}.\n"
        else:
            yield from _thing(name, thing, module)


def _thing(name: str, thing: Any, module: ModuleType) -> Iterator[str]:
    home = sys.modules[getattr(thing, "__module__", module.__name__)]
    if not isinstance(thing, type) and not inspect.isfunction(thing):  # an alias of types
        yield _prose(_said_beside(_tree_of(name, module)).get(name, "")) + "\n"
        return
    made = not (dataclasses.is_dataclass(thing) or name in RETURNED or getattr(thing, "_is_protocol", False))
    if made and not (isinstance(thing, type) and issubclass(thing, BaseException)):
        yield f"`{name}({_parameters(thing)})`\n"
    yield _prose(thing.__doc__ or "") + "\n"
    if isinstance(thing, type):
        members = list(_members(thing, home))
        if members:
            yield "\n".join(members) + "\n"


def _members(thing: type, home: ModuleType) -> Iterator[str]:
    """What a class has: attributes, as the source describes them, and methods."""
    (tree,) = [node for node in _tree(home).body if isinstance(node, ast.ClassDef) and node.name == thing.__name__]
    beside = _said_beside(tree)
    said = {}
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            said[node.target.id] = beside.get(node.target.id, "")
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            said.update(_said_beside(node))
    for name, text in said.items():
        if not name.startswith("_"):
            yield f"- `{name}`" + (f": {_prose(text, 2)}" if text else "")
    inherited = [base for base in thing.__mro__[1:] if base.__module__ == f"{home.__name__}.shared"]
    for name, value in [*vars(thing).items(), *(item for base in inherited for item in vars(base).items())]:
        if name.startswith("_") or name in said:
            continue
        if isinstance(value, (property, functools.cached_property, overridable)):
            yield f"- `{name}`: {_prose(value.__doc__ or '', 2)}"
        elif callable(value) and value.__doc__:
            yield f"- `{name}({_parameters(value, own=False)})`: {_prose(value.__doc__, 2)}"


def _said_beside(tree: Any) -> dict[str, str]:
    """By name: what a string behind its assignment says of it."""
    found = {}
    for node, after in zip(tree.body, tree.body[1:]):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        name = getattr(targets[0], "id", None) or getattr(targets[0], "attr", None)
        if name and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            found[name] = str(after.value.value)
    return found


def _tree(module: ModuleType) -> ast.Module:
    return ast.parse(Path(str(module.__file__)).read_text("utf-8"))


def _tree_of(name: str, module: ModuleType) -> ast.Module:
    """The source of the module from which this one has that name."""
    for node in _tree(module).body:
        if isinstance(node, ast.ImportFrom) and name in [alias.name for alias in node.names]:
            return _tree(importlib.import_module("." * node.level + str(node.module), module.__package__))
    return _tree(module)


def _parameters(thing: Any, own: bool = True) -> str:
    """Names and defaults; of a method without the first."""
    parts, keywords = [], False
    for parameter in list(inspect.signature(thing).parameters.values())[0 if own else 1 :]:
        if parameter.kind is parameter.KEYWORD_ONLY and not keywords:
            keywords = True
            parts.append("*")
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        keywords = keywords or stars == "*"
        default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
        if " at 0x" in default:  # an object that says: not given
            default = "=..."
        parts.append(f"{stars}{parameter.name}{default}")
    return ", ".join(parts)


def _prose(text: str, indent: int = 0) -> str:
    """A docstring as Markdown: what describes one argument is an item of a list, the example at its end is code."""
    text, shown, example = inspect.cleandoc(text).partition("\n\n>>> ")
    lines, listed = [], False
    for number, line in enumerate(text.replace("``", "`").split("\n")):
        begins = number > 0 and re.match(r"`\w+`(, `\w+`)*: ", line) is not None
        if begins and not listed and lines and lines[-1]:
            lines.append("")
        listed = begins or (listed and bool(line))
        lines.append(f"- {line}" if begins else f"  {line}" if listed else line)
    if shown:
        lines += ["", "```pycon", *f">>> {example}".split("\n"), "```"]
    return "\n".join(f"{' ' * indent}{line}".rstrip() for line in lines).strip()


def evidence_table() -> str:
    """The long checks, and when each last ran at full size."""
    from evidence import table

    return table()


def mutant_table() -> str:
    """The faults that tests of the contract are shown to catch."""
    from mutants import table

    return table()


def imports_picture() -> str:
    """Which package imports from which, as a Mermaid graph; what is reached through another is left out."""
    package = ROOT / "tqshim"
    below: dict[str, set[str]] = {}
    for path in sorted(package.rglob("*.py")):
        home = path.relative_to(package).parts[0].partition(".")[0]
        names = [
            f"{node.module}.{alias.name}"
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "tqshim"
            for alias in node.names
        ]
        found = {name.split(".")[1] for name in names}
        below.setdefault(home, set()).update(one for one in found if one != home and (package / one).is_dir())

    @functools.lru_cache(None)
    def reached(home: str) -> frozenset[str]:
        return frozenset(below[home].union(*map(reached, below[home])))

    edges = [(a, b) for a in below for b in sorted(below[a]) if not any(b in reached(c) for c in below[a])]
    return "\n".join(["```mermaid", "graph TD", *(f"    {a} --> {b}" for a, b in edges), "```"])


def table_of_figures(marker: str) -> str:
    """A table of what docs/figures.json keeps."""
    return "\n".join(figures.TABLES[marker](figures.kept()))


COPIED: Final[dict[str, Callable[[], str]]] = {
    **{marker: functools.partial(table_of_figures, marker) for marker in figures.TABLES},
    "events": event_table,
    "crash table": crash_table,
    "api": api,
    "evidence": evidence_table,
    "imports": imports_picture,
    "mutants": mutant_table,
}
"""By marker: what stands there."""


def update() -> list[str]:
    """Bring the copied parts and the pictures up to date; what was changed."""
    changed = pictures.draw()
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
