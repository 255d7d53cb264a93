"""The house: which room imports which, what a room keeps to itself, and what lies in the repository.

``HOUSE`` is the plan.  The tests read the sources with ``ast``: no room is imported to find out what it imports.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import inspect
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import documents
import pytest

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGE: Final = ROOT / "tqshim"


class Step(NamedTuple):
    """Rooms side by side: they may import from all steps below their own, and not from each other."""

    floor: int
    rooms: frozenset[str]


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Top first.  A floor may have several steps; an import leads down at least one.
HOUSE: Final = (
    Step(6, words("__main__")),
    Step(6, words("cli.main")),
    Step(6, words("cli.ls cli.stat cli.watch cli.peek cli.check")),
    Step(6, words("cli.recover cli.drain cli.fill cli.rm")),
    Step(6, words("cli.showing")),
    Step(6, words("cli")),
    Step(5, words("bench.command")),
    Step(5, words("bench.rounds bench.report bench.chart bench.programs")),
    Step(5, words("bench.measurements")),
    Step(5, words("bench.costs bench.paced")),
    Step(5, words("bench.runs")),
    Step(5, words("bench.workers")),
    Step(5, words("bench.workloads bench.machine")),
    Step(5, words("bench.kinds bench.crew")),
    Step(5, words("bench")),
    Step(5, words("kafka.command")),
    Step(5, words("kafka")),  # its face
    Step(5, words("kafka.running")),
    Step(5, words("kafka.topics")),
    Step(5, words("kafka.workers")),
    Step(5, words("kafka.messages kafka.offsets")),
    Step(5, words("cli.run")),
    Step(5, words("queues.patching")),
    Step(5, words("monitor")),  # the names that programs use
    Step(5, words("monitor.moving")),
    Step(5, words("monitor.checking monitor.watching monitor.metrics")),
    Step(5, words("monitor.looking")),
    Step(5, words("monitor.view")),
    Step(5, words("monitor.records monitor.files monitor.seen monitor.lines")),
    Step(4, words("__init__")),  # the package's face
    Step(4, words("queues.contexts")),
    Step(4, words("queues.family queues.asynchronous")),
    Step(4, words("queues.queue turbo_queue queues.fallback")),
    Step(4, words("queues.claims")),
    Step(4, words("queues.sharing")),
    Step(4, words("queues.pickling")),
    Step(4, words("queues.buffers")),
    Step(4, words("queues.attributes")),
    Step(4, words("queues")),
    Step(3, words("turbo_queue.emptying turbo_queue.shared")),
    Step(3, words("turbo_queue.batching")),
    Step(3, words("engine.registry")),
    Step(3, words("engine.engine engine.last")),
    Step(3, words("engine.gets")),
    Step(3, words("engine.puts")),
    Step(3, words("engine.waits")),
    Step(3, words("engine.acts")),
    Step(3, words("engine.parts")),
    Step(3, words("engine.acknowledge engine.shutdown engine.durable engine.keyed")),
    Step(3, words("engine.consumer engine.producer")),
    Step(3, words("engine.sole")),
    Step(3, words("engine.leasing engine.log engine.supply")),
    Step(3, words("engine.hand")),
    Step(3, words("engine.reader engine.reclaim engine.wait_policy")),
    Step(3, words("engine.membership")),
    Step(3, words("engine.replica")),
    Step(3, words("engine")),
    Step(3, words("engine.tuning engine.keys engine.dozing engine.yielding")),
    Step(2, words("storage.folder")),
    Step(2, words("sync")),
    Step(2, words("storage.journal storage.large_records storage.corrupt storage.lock_owners")),
    Step(2, words("turbo_queue.sqlite_files runtime.ending sync.cells sync.bell sync.membarrier")),
    Step(2, words("storage.batch_file storage.member_locks storage.hardening")),
    Step(2, words("storage.places")),
    Step(2, words("storage.files storage")),
    Step(2, words("runtime.postponed")),
    Step(2, words("runtime.late")),
    Step(2, words("runtime.mappings")),
    Step(2, words("runtime.locks")),
    Step(2, words("runtime.finder runtime.systems runtime.limits runtime.own_fcntl runtime.forks runtime.finalizers")),
    Step(2, words("runtime.clock")),
    Step(1, words("protocol.snapshot")),
    Step(1, words("protocol.ledger")),
    Step(1, words("protocol.bulk")),
    Step(1, words("protocol.state")),
    Step(1, words("protocol.extents protocol.records")),
    Step(0, words("protocol.pieces")),
    Step(0, words("protocol.index")),
    Step(0, words("protocol.names errors turbo_queue.states protocol.figures protocol.events protocol")),
    Step(0, words("runtime.tuples runtime")),
)
NEVER: Final = {
    4: words("fcntl mmap select threading"),
    3: words("fcntl mmap select pickle"),
    2: words("pickle"),
}
"""By floor: modules of the standard library that its rooms do without.  For the pure floors see below."""
MEASURING: Final = 5
"""The floor of rooms that look at queues from outside: they pickle as users do, and may use what is not installed."""
OPTIONAL: Final = words("confluent_kafka faster_fifo matplotlib matplotlib.pyplot numpy")
"""What rooms from that floor on import inside of the functions that need it, if it is installed."""
FACE: Final = words(
    "errors protocol.figures queues.claims queues.contexts queues.family queues.patching queues.queue runtime.finder"
    " runtime.forks runtime.late"
)
"""Rooms that the package itself shows."""

PURE_FLOORS: Final = {0, 1}
PURE_IMPORTS: Final = words(
    "__future__ _collections array binascii bisect collections collections.abc dataclasses enum functools heapq"
    " itertools operator re struct sys typing zlib"
)
"""All that a pure room needs: nothing that reaches the system, the clock, other threads or chance."""

FILE_SYSTEM: Final = words(
    "chflags chmod chown copy_file_range fchmod fchown fdatasync fsync ftruncate lchown link lockf lseek makedirs mkdir"
    " mkfifo mknod posix_fallocate pwrite pwritev remove removedirs rename renames replace rmdir sendfile symlink"
    " truncate unlink utime writev"
)
"""What of ``os`` changes the file system, or says where an append went: the folder's alone."""

HEAVY: Final = (
    "asyncio",
    "concurrent",
    "ctypes",
    "multiprocessing.managers",
    "multiprocessing.pool",
    "multiprocessing.synchronize",
    "subprocess",
    "unittest",
)


class Rooms(Mapping[str, ast.Module]):
    """The package's modules, each taken apart when it is wanted; those in a folder are called ``folder.module``."""

    def __init__(self) -> None:
        self.paths: dict[str, Path] = {}
        self.trees: dict[str, ast.Module] = {}
        for path in sorted(PACKAGE.rglob("*.py")):
            parts = path.relative_to(PACKAGE).with_suffix("").parts
            self.paths[".".join(parts[:-1] if parts[1:] and parts[-1] == "__init__" else parts)] = path

    def __getitem__(self, room: str) -> ast.Module:
        if room not in self.trees:
            self.trees[room] = ast.parse(self.paths[room].read_text("utf-8"), str(self.paths[room]))
        return self.trees[room]

    def __iter__(self) -> Iterator[str]:
        return iter(self.paths)

    def __len__(self) -> int:
        return len(self.paths)


ROOMS: Final = Rooms()
INSIDE: Final = sorted(set(ROOMS) - {"__init__"})
KEEPERS: Final = {"turbo_queue.sqlite_files", *(room for room in INSIDE if room.startswith("storage."))}
"""Rooms that change the file system: one for each kind of queue folder."""


@functools.cache
def imports(tree: ast.Module) -> tuple[set[str], set[str]]:
    """The rooms and the foreign modules that a room imports, also inside of functions."""
    inside, outside = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first, _, rest = alias.name.partition(".")
                if first == "tqshim":
                    inside.add(rest or "__init__")
                else:
                    outside.add(alias.name)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level or module.partition(".")[0] == "tqshim":
                room = module if node.level else module.partition(".")[2]
                inside |= {room_of(room, alias.name) for alias in node.names}
            elif module == "multiprocessing":
                outside |= {f"{module}.{alias.name}" for alias in node.names}
            else:
                outside.add(module)
    return inside, outside


def room_of(module: str, name: str) -> str:
    """Whether ``from module import name`` is a room of that name, or something from the room ``module``."""
    inner = f"{module}.{name}" if module else name
    return inner if inner in ROOMS else module or "__init__"


def step_of(room: str) -> int:
    """Which step of the house a room stands on, from the top; a room without a place is an error."""
    for number, there in enumerate(HOUSE):
        if room in there.rooms:
            return number
    raise LookupError(f"{room} has no place in the house: give it a step in HOUSE")


def repository() -> list[str]:
    """All files that are, or would be, in the repository."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no git checkout")
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


LONG: Final = {
    ("engine.consumer", "take"): "each get goes through it: each step in a function of its own would be a call",
    ("engine.gets", "take_in_acts"): "the same",
    ("protocol.bulk", "apply_often"): "the same of each event that others write",
    ("bench.measurements", "measurements"): "a table",
}
"""Functions of more than 60 lines, and why."""


def test_the_house_is_easy_to_survey() -> None:
    """At most 16 entries at its top, no room longer than 500 lines, no function than 60, its docstring left out."""
    assert len([entry for entry in PACKAGE.iterdir() if entry.name != "__pycache__"]) <= 16
    long = set()
    for room, tree in ROOMS.items():
        assert max(getattr(node, "end_lineno", 0) for node in tree.body) <= 500, room
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                first = node.body[min(1, len(node.body) - 1)] if ast.get_docstring(node) else node
                if (node.end_lineno or 0) - first.lineno >= 60:
                    long.add((room, node.name))
    assert long == set(LONG)


MANY: Final = {
    ("turbo_queue.shared", "Shared"): "an attribute for each option of the original",
    ("kafka.topics", "Source"): "its events, by how far each has got",
}
"""Classes with more than 15 attributes, and why."""


def attributes(node: ast.ClassDef) -> set[str]:
    """What the objects of a class have: its slots, and what its methods give to ``self``."""
    found = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Assign) and any(getattr(to, "id", "") == "__slots__" for to in part.targets):
            found.update(ast.literal_eval(part.value) if isinstance(part.value, ast.Tuple) else ())
        elif isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store):
            found.update([part.attr] if getattr(part.value, "id", "") == "self" else [])
    return found


def test_no_class_has_many_attributes() -> None:
    """15 at most."""
    classes = [
        (room, node) for room, tree in ROOMS.items() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
    ]
    assert {(room, node.name) for room, node in classes if len(attributes(node)) > 15} == set(MANY)


def test_every_room_has_one_place() -> None:
    placed = [room for there in HOUSE for room in there.rooms]
    assert len(placed) == len(set(placed))
    assert set(INSIDE) <= set(placed), "give the new room a step in HOUSE"
    assert [there.floor for there in HOUSE] == sorted((there.floor for there in HOUSE), reverse=True)


def test_contributors_are_shown_the_house_as_it_is() -> None:
    told = {(room, int(cells[0])) for cells in documents.rows("house") for room in re.findall(r"`([\w.]+)`", cells[1])}
    assert told == {(room, HOUSE[step_of(room)].floor) for room in INSIDE}, "bring CONTRIBUTING's house up to date"


def test_imports_go_down() -> None:
    for room in INSIDE:
        inside, _ = imports(ROOMS[room])
        mine = step_of(room)
        up = sorted(other for other in inside if step_of(other) <= mine)
        assert not up, f"{room} imports {up}, which do not lie below it"


def test_a_room_does_without_what_belongs_elsewhere() -> None:
    for room in INSIDE:
        _, outside = imports(ROOMS[room])
        never = NEVER.get(HOUSE[step_of(room)].floor, frozenset())
        assert not {module for module in outside if module in never or module.partition(".")[0] in never}, room


def test_pure_rooms_reach_no_system() -> None:
    for room in (room for there in HOUSE if there.floor in PURE_FLOORS for room in there.rooms):
        _, outside = imports(ROOMS[room])
        assert outside <= PURE_IMPORTS, room
        names = {node.id for node in ast.walk(ROOMS[room]) if isinstance(node, ast.Name)}
        assert not names & {"open", "exec", "eval", "input", "print", "__import__"}, room


def test_only_the_folder_changes_the_file_system() -> None:
    for room in set(INSIDE) - KEEPERS:
        used = {
            node.attr
            for node in ast.walk(ROOMS[room])
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os"
        }
        named = {
            alias.name
            for node in ast.walk(ROOMS[room])
            if isinstance(node, ast.ImportFrom) and node.module == "os"
            for alias in node.names
        }
        assert not (used | named) & FILE_SYSTEM, room
        # One is for the keepers alone, one asks a pipe; the queues of the third lie at a path while they are measured.
        allowed = {"runtime.own_fcntl": {"fcntl"}, "cli.drain": {"fcntl"}, "bench.costs": {"tempfile"}}.get(room, set())
        inside, outside = imports(ROOMS[room])
        assert not outside & {"fcntl", "pathlib", "shutil", "tempfile"} - allowed, room
        assert "runtime.own_fcntl" not in inside, room


def test_only_queues_and_their_buffers_pickle() -> None:
    pickling = [room for room in INSIDE if "pickle" in imports(ROOMS[room])[1]]
    below = [room for room in pickling if HOUSE[step_of(room)].floor < MEASURING]
    assert below == ["queues.buffers", "queues.pickling"]


def test_the_face_shows_few_rooms() -> None:
    inside, outside = imports(ROOMS["__init__"])
    assert inside == FACE
    assert outside <= {"__future__", "typing"}


def test_only_the_standard_library_is_imported() -> None:
    """At run time; ``find_spec`` says where each module comes from, on every version."""
    homes = {os.path.realpath(sysconfig.get_path(kind)) for kind in ("stdlib", "platstdlib")}
    others = {os.path.realpath(sysconfig.get_path(kind)) for kind in ("purelib", "platlib")}
    importers: dict[str, str] = {}
    for room, tree in ROOMS.items():
        outside = imports(tree)[1] - {"typing_extensions"}  # of checkers; nothing else may import it, as seen below
        if room in INSIDE and HOUSE[step_of(room)].floor >= MEASURING:
            outside -= OPTIONAL
        importers.update(dict.fromkeys(outside, room))
    for name, room in importers.items():
        try:
            spec = importlib.util.find_spec(name)
        except ModuleNotFoundError:  # a name in a module, not a module in a package
            spec = importlib.util.find_spec(name.rpartition(".")[0])
        if spec is None and name in {"fcntl", "resource"}:
            continue  # not on Windows, which is told so
        assert spec is not None, name
        if spec.origin in (None, "built-in", "frozen"):
            continue
        origin = os.path.realpath(spec.origin)
        assert origin.startswith(tuple(home + os.sep for home in homes)), f"{room} imports {name} from {origin}"
        assert not origin.startswith(tuple(other + os.sep for other in others)), f"{room} imports {name} from {origin}"


def test_what_is_optional_is_imported_only_where_it_is_used() -> None:
    for room, tree in ROOMS.items():
        at_once = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
        assert not imports(ast.Module(body=at_once, type_ignores=[]))[1] & OPTIONAL, room


def test_what_only_checkers_have_is_never_imported() -> None:
    program = "import sys, tqshim.queues.contexts; assert 'typing_extensions' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60)


def test_no_dependency_is_declared() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    assert re.search(r"^dependencies = \[\]$", text, re.MULTILINE)


def test_importing_the_package_is_light() -> None:
    """Beyond what ``multiprocessing.queues`` brings, no module of weight; no thread, no process, no file."""
    program = (
        "import multiprocessing.queues, os, sys, threading\n"
        "before = set(sys.modules)\n"
        "files = os.listdir('.')\n"
        "import tqshim\n"
        "assert threading.active_count() == 1\n"
        "assert os.listdir('.') == files\n"
        "print(*sorted(set(sys.modules) - before))\n"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    brought = done.stdout.split()
    assert "tqshim.queues.queue" in brought
    assert "tqshim.engine.engine" not in brought, "it comes with the first queue"
    assert not [name for name in brought if name.startswith(HEAVY)]


def test_names_that_a_room_offers_exist() -> None:
    for room, tree in ROOMS.items():
        module = importlib.import_module("tqshim" if room == "__init__" else f"tqshim.{room}")
        if not hasattr(module, "__all__"):  # then it holds constants and nothing else, or is a program
            functions = [node.name for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
            assert functions == (["main"] if room == "__main__" else []), room
            continue
        names = module.__all__
        assert all(hasattr(module, name) for name in names), room
        assert names == sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name)), room


def test_what_a_room_takes_from_another_is_public() -> None:
    for room, tree in ROOMS.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("tqshim")):
                private = [alias.name for alias in node.names if alias.name.startswith("_")]
                assert private in ([], ["__version__"]), room


def test_a_room_opens_with_what_lives_there_or_its_invariant() -> None:
    for room in INSIDE:
        text = ast.get_docstring(ROOMS[room]) or ""
        assert text.partition("\n")[0].endswith("."), f"{room}: the first line is a sentence"
        assert "Invariant: " in text or "Lives here: " in text, room


def test_everything_public_says_what_it_does() -> None:
    import tqshim

    assert tqshim.__doc__
    for name in tqshim.__all__:
        thing = getattr(tqshim, name)
        assert inspect.getdoc(thing), name
        if isinstance(thing, type) and thing.__module__.startswith("tqshim"):
            assert vars(thing).get("__doc__"), f"{name} has its parent's docstring"
            for member, value in vars(thing).items():
                if not member.startswith("_") and callable(value):
                    text = value.__doc__ or ""
                    assert re.match(r"[`A-Z].*[.:]$", text.partition("\n")[0]), f"{name}.{member}: {text!r}"


def test_repository_holds_what_the_plan_says() -> None:
    top = {name.partition("/")[0] for name in repository()}
    plain = {name for name in top if not name.startswith(".")}
    pages = {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs", "LICENSE"}
    assert plain <= {"tqshim", "tests", "compat", "pyproject.toml", *pages}


def test_no_file_knows_a_machine_or_a_registry() -> None:
    # Put together here, so that this file does not hold them either.
    homes = "root|home|work|Users|mnt|scratch"
    hosts = "|".join(("py" r"pi\.(?:org|python)", "python" r"hosted\.org", "ana" r"conda\.org", "proxy" r"\.golang"))
    # A path of some machine begins like a word of its own; `queue/home` and `{root}/work/` are none.
    found = re.compile(rf"(?<![\w.}}\]/~-])/(?:{homes})/\w|/tm" rf"p/(?!\.)\w|{hosts}")
    guilty = []
    for name in repository():
        lines = (ROOT / name).read_text("utf-8", errors="replace").split("\n")
        guilty += [f"{name}:{number}: {line.strip()}" for number, line in enumerate(lines, 1) if found.search(line)]
    assert not guilty


def test_version_is_the_changelogs_newest_or_not_yet_in_it() -> None:
    import tqshim

    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    released = re.findall(r"^## \[(\d[^\]]*)\]", text, re.MULTILINE)
    assert re.fullmatch(r"\d+\.\d+\.\d+", tqshim.__version__)
    assert "## [Unreleased]" in text
    assert not released or released[0] == tqshim.__version__
