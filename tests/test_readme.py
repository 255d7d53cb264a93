"""The README and the pages in docs are true: programs run, commands exist, tables are those of code and tests.

The tests called ``test_differs_...`` are the rows of the table of differences: each does one thing to
``multiprocessing.Queue`` and to ``TurboQueue``, side by side, and finds what the row says.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import gc
import importlib
import inspect
import multiprocessing
import os
import pickle
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import connection, queues, synchronize
from pathlib import Path
from typing import Any, Final

import documents
import pytest
from documents import (
    BLOCKS,
    FLAT,
    HERE,
    PAGES,
    ROOT,
    TEXT,
    between,
    commands,
    crash_table,
    event_table,
    event_types,
    rows,
)
from sampling import some
from test_real_queues import DIFFERENCES
from test_timeouts import check_anywhere

import tqshim
from compat.timeouts import EARLY, TIMEOUT, Row
from tqshim import Empty, Full, JoinableTurboQueue, TurboQueue
from tqshim.engine import tuning
from tqshim.protocol import names
from tqshim.runtime import mappings, systems

CONTEXT: Final = multiprocessing.get_context("spawn")
PATIENCE: Final = 30.0
"""Seconds within which everything that must happen happens."""
LONG: Final = 1.5
"""Seconds after which what has not happened is taken to hang, where it is the stdlib that must."""
PROGRAMS: Final = [block for block in BLOCKS if block.kind == "python"]


# -- what is printed is so


@pytest.mark.parametrize("number", range(len(PROGRAMS)), ids=lambda number: f"{PROGRAMS[number].page}-{number}")
def test_python_blocks_run(number: int, tmp_path: Path) -> None:
    block = PROGRAMS[number].text
    script = tmp_path / "program.py"
    script.write_text(block, "utf-8")
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")
    said = re.findall(r"# prints (.*)$", block, re.MULTILINE)
    assert done.stdout.splitlines() == said


def test_all_blocks_are_of_a_kind_that_is_tested() -> None:
    """The examples of docs/api.md are the docstrings', which ``test_docs`` tests; what is drawn is copied."""
    assert {block.kind for block in BLOCKS if block.page != "docs/api.md"} <= {"python", "sh", "text", "mermaid"}
    assert {block.kind for block in BLOCKS if block.page == "docs/api.md"} == {"pycon"}
    assert len(re.findall("^```", TEXT, re.MULTILINE)) == 2 * len(BLOCKS)


def test_the_test_command_stands_in_the_script_of_the_checks() -> None:
    (command,) = [line for line in commands() if "-m venv" in line]
    assert command == "python3 -m venv .venv && .venv/bin/pip install -q -e '.[test]' && .venv/bin/pytest"
    assert command in (ROOT / ".ci" / "run").read_text("utf-8").splitlines()


def test_the_main_job_runs() -> None:
    (command,) = [line for line in commands() if "parse_stdlib_turbo" in line]
    assert command == "python3 -m compat.legacy.parse_stdlib_turbo"
    words = [sys.executable, *shlex.split(command)[1:], "--limit", "20"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE * 4)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() and "20" in done.stdout + done.stderr


def python_options(words: list[str]) -> str:
    """What the Python program of a command says to ``--help``."""
    end = 3 if words[:2] == ["-m", "tqshim"] else 2 if words[0] == "-m" else 1
    return help_of(*words[:end])


@functools.cache
def help_of(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.in_turn
@pytest.mark.parametrize("few", [True, pytest.param(False, marks=(pytest.mark.stress, pytest.mark.rest))])
def test_all_other_commands_exist_with_their_options(few: bool) -> None:
    for command in some("commands", commands(), 10) if few else commands():
        words = shlex.split(command)
        while "=" in words[0]:
            assert words[0].partition("=")[0] in sources(), f"{words[0]} is read by nobody"
            words.pop(0)
        if words[0].endswith("pip"):
            (extra,) = re.findall(r"\.(?:\[(\w+)\])?$", words[-1])
            assert re.fullmatch(r"(\.venv/bin/)?pip install (-q )?(-e )?", command.partition(".[")[0].rstrip(".'"))
            assert not extra or f"\n{extra} = [" in (ROOT / "pyproject.toml").read_text("utf-8")
        elif "&&" in words or words[0] in (".venv/bin/ruff", ".venv/bin/mypy"):
            assert command in (ROOT / ".ci" / "run").read_text("utf-8")
        elif words[0] == ".venv/bin/pytest":
            assert all((ROOT / word).exists() for word in words[1:] if "/" in word)
        else:
            assert re.fullmatch(r"python3?", words[0]), command
            options = [word for word in words[1:] if word.startswith("-") and word != "-m"]
            if words[1] == "tests/documents.py":
                assert not options
            else:
                shown = python_options(words[1:])
                assert all(option in shown for option in options), f"{command}: {options}"


def sources() -> str:
    """All Python text of the package, the runners and the tests."""
    paths = [path for room in ("tqshim", "compat", "tests") for path in sorted((ROOT / room).rglob("*.py"))]
    return "\n".join(path.read_text("utf-8") for path in paths)


def test_variables_of_the_environment_stand_in_one_table() -> None:
    told = [row[0].strip("`") for row in rows("variables")]
    assert sorted(told) == sorted(set(re.findall(r"[\"'](TQSHIM_[A-Z_]+)[\"']", sources())))
    assert set(re.findall(r"\bTQSHIM_[A-Z_]+", TEXT)) <= set(told)


def test_switches_are_all_told() -> None:
    (told,) = [re.findall(r"`(\w+)`", row[2]) for row in rows("variables") if row[0] == "`TQSHIM_WITHOUT`"]
    package = (ROOT / "tqshim" / "engine" / "tuning.py").read_text("utf-8")
    assert told == re.findall(r"\"(\w+)\" not in _WITHOUT", package)


def test_files_and_modules_that_are_named_exist() -> None:
    for found in re.findall(r"`((?:tqshim|tests|compat|\.ci)/[\w/.]*)`", TEXT):
        assert (ROOT / found).exists(), found
    for found in re.findall(r"-m ((?:compat|tqshim)[\w.]*)", TEXT):
        path = ROOT / found.replace(".", "/")
        assert path.with_suffix(".py").exists() or path.is_dir(), found


def anchors(text: str) -> set[str]:
    """What the headings of a page are called in links."""
    heads = re.findall(r"^#+ (.*)", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", PAGES[page])):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        there = (ROOT / page).parent / path if path else ROOT / page
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there.read_text("utf-8")), target


def test_the_event_table_is_the_ledgers() -> None:
    assert between("events").strip() == event_table()


def test_every_type_of_event_occurs_once() -> None:
    types = event_types()
    assert len(set(types.values())) == len(types)
    told = [(row[1].partition("(")[0], int(row[0])) for row in rows("events")]
    assert sorted(told) == sorted(types.items())


def test_every_kind_of_name_occurs_once_and_no_other() -> None:
    parts = {"member": "1f", "serial": "a", "place": "1", "n": "7", "key": "0123456789", "name": "ready_1f_a"}
    told = []
    for row in rows("names"):
        for form in re.findall(r"`([^`]+)`", row[0]):
            name = names.parse(re.sub(r"<(\w+)>", lambda found: parts[found[1]], form))
            assert name is not None, f"{form} is no name of a queue folder"
            told.append(name.kind)
    file, key = names.FileId(1, 2), parts["key"]
    made = [names.batch(names.LOAD, file), names.batch(names.READY, file), names.free(1, 0), names.corrupt("ready_1_2")]
    made += [names.journal(7), names.roll(7, key), names.spare(7), names.marker(key)]
    made += [names.CELLS, names.MEMBERS, names.BELL, names.SPACE, names.DONE, names.SPILL]
    kinds = [name.kind for name in map(names.parse, made) if name is not None]
    assert len(kinds) == len(made)
    assert sorted(told) == sorted(kinds)


def test_names_of_folders_are_those_of_the_code() -> None:
    told = re.findall(r"`([^`]+)`", " ".join(row[0] for row in rows("folders")))
    assert told == [f"{names.PREFIX}<random>", f"{names.PREFIX}<random>{names.SPILLED}", f"{names.DEAD}<name>"]


def test_the_crash_table_is_that_of_the_tests() -> None:
    assert between("crash table").strip() == crash_table()


def test_the_api_page_says_what_the_docstrings_say() -> None:
    assert between("api").strip() == documents.api().strip(), "python tests/documents.py"


NUMBERS: Final = (
    ("1,000 at most, and waits", {"GET_MANY": 1000}),
    ("32 MB are free there", {"ENOUGH": 32 << 20}),
    ("less than 4 MB left", {"SPILL_BELOW": 4 << 20}),
    ("two a producer at most, or four in memory with plenty of room", {"FREE": 2, "FREE_MAPPED": 4}),
    ("up to 16 of them, or 128 MB", {"KEPT_FILES": 16, "KEPT_BYTES": 128 << 20}),
    ("records of less than 2 MB", {"COPIED": 2 << 20}),
    ("2 ms for 4 MB", {"REFILL_PATIENCE": 5e-10}),
    ("first batch file has 16 KB", {"FIRST_BYTES": 16 << 10}),
    ("up to 1 MB, one of large records", {"FILE_BYTES": 1 << 20}),
    ("large records up to 4 MB, or a 64th of what is free", {"LARGE_FILE_BYTES": 4 << 20, "SHARES": 64}),
    ("after a minute", {"MARKER_LIFE": 60.0}),
    ("If the last mark is older than a millisecond", {"MARK_EVERY": 1_000_000}),
    ("look at them for 60 µs", {"SPIN": 60e-6}),
    ("five items or more", {"LEASE_FROM": 5}),
    ("where 32 items or more wait", {"SOLE_ENOUGH": 32}),
    (
        "RESERVE: 256 places (in queues of more than 16,384 a 64th of them, up to 1,000)",
        {"PLACES_FEW": 256, "PLACES": 1000},
    ),
    ("448 events at first, doubling to 8,192", {"FIRST_LIMIT": 448, "LAST_LIMIT": 1 << 13}),
    ("once a second", {"SCAN_EVERY": 1.0}),
    ("nothing new there for five seconds", {"UNSEEN_PATIENCE": 5.0}),
)


def constants() -> dict[str, Any]:
    """All constants of all rooms."""
    found: dict[str, Any] = {}
    for path in [*(ROOT / "tqshim").glob("[a-z]*.py"), *(ROOT / "tqshim").glob("[epqrs]*/[a-z]*.py")]:
        room = path.relative_to(ROOT).with_suffix("")
        module = importlib.import_module(".".join(room.parts))
        found.update({name: value for name, value in vars(module).items() if name.isupper()})
    return found


@pytest.mark.parametrize("phrase", [phrase for phrase, _ in NUMBERS])
def test_numbers_that_are_told_are_those_of_the_code(phrase: str) -> None:
    wanted = dict(NUMBERS)[phrase]
    known = constants()
    assert phrase in FLAT
    assert {name: known.get(name) for name in wanted} == wanted


@functools.cache
def names_of_tests(folder: Path) -> set[str]:
    """Names of all tests there."""
    return {
        node.name
        for path in folder.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


@pytest.mark.in_turn
def test_each_difference_has_a_test_that_shows_it() -> None:
    known = names_of_tests(HERE)
    named = [re.findall(r"\b(test_\w+)", row[-1]) for row in rows("differences")]
    assert all(named), "each row names a test in a comment"
    assert {test for tests in named for test in tests} <= known
    assert {test for test in known if test.startswith("test_differs_")} <= {test for tests in named for test in tests}


SIDE_BY_SIDE: Final = {
    "the name": "test_differs_class",
    "order": "test_differs_order_between_producers",
    "a process that has put exits": "test_differs_exit_without_a_reader",
    "`close`, `join_thread`, `cancel_join_thread`": "test_differs_ending_has_nothing_to_do",
    "a place comes free in a full queue": "test_differs_waiting_put_takes_a_free_place_in_time",
    "several consumers": "test_differs_fast_consumer_takes_more_at_a_time",
    "a producer is killed": "test_differs_nothing_dies_with_its_producer",
    "a process is killed or stopped in": "test_differs_killed_or_stopped_consumer_blocks_nobody",
    "Ctrl-C in `get`": "test_differs_interrupted_item_comes_back",
    "a signal handler, or a destructor,": "test_differs_handler_uses_the_queue_that_it_interrupts",
    "`set_start_method` behind": "test_differs_a_queue_fixes_no_start_method",
    "a closed handle: ": "test_differs_closed_handle_keeps_its_last_size",
    "a closed handle that never put": "test_differs_closed_handle_stays_at_home",
    "numpy arrays": "test_differs_arrays_share_their_memory",
    "where items wait": "test_differs_items_lie_in_files",
    "descriptors of a process": "test_differs_descriptors",
    "where it works": "test_differs_platforms",
}
"""Rows, by their first words, that no step of a program shows, and the test that does the same to both queues."""
ALONE: Final = {
    "a pickled handle of an anonymous queue that nobody uses": "there handles are not pickled so",
    "a full disk": "there nothing is written to one",
    "files damaged by others": "there are no files there",
    "who may use it": "there it has no name that others could call it by",
}
"""Rows that have nothing beside them, and why."""


def test_each_row_is_shown_by_a_program_or_side_by_side() -> None:
    """The rows are those: a new one is a difference that nobody has compared yet; one that is gone explains none."""
    told = {row[0]: row[-1] for row in rows("differences")}
    shown = {difference.row for difference in DIFFERENCES}
    known = [*shown, *SIDE_BY_SIDE, *ALONE]
    assert {head: [one for one in known if head.startswith(one)] for head in told} == {
        head: [next((one for one in known if head.startswith(one)), "a program, or a test in SIDE_BY_SIDE")]
        for head in told
    }
    assert len(told) == len(known)
    for start, test in SIDE_BY_SIDE.items():
        (comment,) = [last for head, last in told.items() if head.startswith(start)]
        source = inspect.getsource(globals()[test])
        assert test in comment
        assert re.search(r"\b(CONTEXT|queues|multiprocessing)\.\w*Queue\b", source), f"{test} has no real queue"
        assert re.search(r"\bTurboQueue\b", source), f"{test} has none of ours"


def test_each_thing_out_of_reach_has_a_test() -> None:
    named = [re.findall(r"\b(test_\w+)", row[-1]) for row in rows("out of reach")]
    assert len(named) == 5
    assert all(named)
    assert {test for tests in named for test in tests} <= names_of_tests(HERE)


def test_each_guarantee_has_a_test_that_can_fail() -> None:
    named = [re.findall(r"\btest_\w+", item) for item in re.split(r"^\d\. ", between("guarantees"), flags=re.M)[1:]]
    assert len(named) == 8
    assert all(named)
    assert {test for tests in named for test in tests} <= names_of_tests(HERE)


def test_each_promise_about_power_cuts_has_a_test() -> None:
    named = [re.findall(r"\btest_\w+", item) for item in re.split(r"^- ", between("power cuts"), flags=re.M)[1:]]
    assert len(named) == 5
    assert all(named)
    assert {test for tests in named for test in tests} <= names_of_tests(HERE)


def test_each_promise_about_keys_has_a_test() -> None:
    named = [re.findall(r"\btest_\w+", item) for item in re.split(r"^- ", between("authkey"), flags=re.M)[1:]]
    assert [bool(tests) for tests in named] == [True] * 4 + [False] + [True] * 3
    assert {test for tests in named for test in tests} <= names_of_tests(HERE)


# -- what differs, side by side

Make = Callable[..., Any]


may_go_on = threading.Event()
may_go_on.set()


class Slow:
    """Takes its time to be pickled: until it may go on, as ``put`` of our queue may, which waits for it."""

    def __reduce__(self) -> tuple[Any, ...]:
        may_go_on.wait(PATIENCE)
        return str, ("slow",)


@contextlib.contextmanager
def held_up() -> Iterator[None]:
    """Whatever is slow is not pickled before the end of the block."""
    may_go_on.clear()
    try:
        yield
    finally:
        may_go_on.set()


class Witness:
    """Says which thread pickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return str, (threading.current_thread().name,)


class Locked:
    """Can be pickled only where nobody has its lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __getstate__(self) -> bool:
        had = self.lock.acquire(timeout=1)
        if had:
            self.lock.release()
        return had

    def __setstate__(self, had: bool) -> None:
        self.had = had


class Refusing:
    """Can't be pickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("not me")


@contextlib.contextmanager
def child(target: Callable[..., None], *args: Any) -> Iterator[Any]:
    """A process that does not outlive the test."""
    process = CONTEXT.Process(target=target, args=args)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()
        process.close()


def drain(queue: Any, patience: float = 0.3) -> list[Any]:
    """All that can still be got."""
    got = []
    with contextlib.suppress(Empty):
        while True:
            got.append(queue.get(timeout=patience))
    return got


def put_unread(queue: Any, told: Any, count: int, end: str) -> None:
    """Put records of a kilobyte, more than a pipe holds, and end in some way."""
    if end == "cancel":
        queue.cancel_join_thread()
    for number in range(count):
        queue.put(b"%1000d" % number)
    told.send("put")
    if end == "wait":
        time.sleep(600)
    told.close()


def kill(process: Any, end: signal.Signals = signal.SIGKILL) -> None:
    """Kill or stop it, and wait until it does nothing any more."""
    os.kill(process.pid, end)
    if end == signal.SIGSTOP:
        os.waitpid(process.pid, os.WUNTRACED)
    else:
        process.join()


def get_for_ever(queue: Any) -> None:
    while True:
        queue.get()


def put_for_ever(queue: Any) -> None:
    while True:
        queue.put(0)


def put_one(queue: Any, item: object) -> None:
    queue.put(item)


def put_one_when_told(queue: Any, told: Any) -> None:
    told.send("here")
    told.recv()
    queue.put("mine")
    told.send("put")
    told.recv()


def get_one_when_told(queue: Any, told: Any) -> None:
    told.recv()
    queue.get()
    told.send("got")
    told.recv()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_differs_unpicklable_item(capsys: pytest.CaptureFixture[str]) -> None:
    theirs, ours = CONTEXT.Queue(), TurboQueue()
    theirs.put(Refusing())
    theirs.put("next")
    assert theirs.get(timeout=PATIENCE) == "next"
    assert "TypeError: not me" in capsys.readouterr().err
    with pytest.raises(TypeError, match="not me"):
        ours.put(Refusing())
    ours.put("next")
    assert ours.get_nowait() == "next"


def nested(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


def put_from(depth: int, queue: Any) -> None:
    if depth:
        put_from(depth - 1, queue)
    else:
        queue.put(nested(sys.getrecursionlimit() // 4))


def test_differs_pickling_on_the_stack_of_who_puts() -> None:
    theirs, ours = CONTEXT.Queue(), TurboQueue()
    locked = Locked()
    with locked.lock:
        theirs.put(locked)
    assert theirs.get(timeout=PATIENCE).had
    with locked.lock:
        ours.put(locked)
    assert not ours.get_nowait().had
    # pytest itself has some frames.
    depth = sys.getrecursionlimit() * 3 // 4 - 100
    put_from(depth, theirs)
    assert theirs.get(timeout=PATIENCE)
    with pytest.raises(RecursionError) if sys.version_info < (3, 12) else contextlib.nullcontext():
        put_from(depth, ours)
    assert ours.empty() is (sys.version_info < (3, 12))


class Collecting(TurboQueue):
    """As ``concurrent.futures`` does it: errors go elsewhere."""

    def _on_queue_feeder_error(self, e: Exception, obj: Any) -> None:  # type: ignore[override]
        errors.append((e, obj, threading.current_thread().name))


errors: list[Any] = []


def test_differs_unpicklable_item_of_a_subclass() -> None:
    errors.clear()
    item = Refusing()
    Collecting().put(item)
    ((error, obj, thread),) = errors
    errors.clear()
    assert isinstance(error, TypeError) and obj is item and thread == threading.current_thread().name
    error.__traceback__ = None  # its frames hold the queue


def test_differs_item_is_pickled_in_put() -> None:
    theirs, ours = CONTEXT.Queue(), TurboQueue()
    theirs.put(Witness())
    assert theirs.get(timeout=PATIENCE) == "QueueFeederThread"
    ours.put(Witness())
    assert ours.get_nowait() == threading.current_thread().name
    items: list[Any] = [Slow()]
    with held_up():
        theirs.put(items)
        items.append("late")
    assert theirs.get(timeout=PATIENCE) == ["slow", "late"]
    items = [Slow()]
    ours.put(items)
    items.append("late")
    assert ours.get_nowait() == ["slow"]


def test_differs_what_was_put_is_there() -> None:
    theirs, ours = CONTEXT.Queue(), TurboQueue()
    with held_up():
        theirs.put(Slow())
        assert theirs.empty()
        with pytest.raises(Empty):
            theirs.get_nowait()
    assert theirs.get(timeout=PATIENCE) == "slow"
    ours.put(Slow())
    assert not ours.empty()
    assert ours.get_nowait() == "slow"


def is_in(thread: threading.Thread, method: Any) -> bool:
    """Whether that thread is just calling it."""
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None and frame.f_code is not method.__code__:
        frame = frame.f_back
    return frame is not None


def test_differs_waiting_put_takes_a_free_place_in_time() -> None:
    """Ours may take a while, which ``compat.timeouts`` measures; both take it, and then the queue is full again."""
    for queue in (CONTEXT.Queue(1000), TurboQueue(1000)):
        for number in range(1000):
            queue.put(number)
        with pytest.raises(Full):
            queue.put(None, timeout=0.01)
        waiting = threading.Thread(target=queue.put, args=("waits",), kwargs={"timeout": PATIENCE})
        waiting.start()
        wait_until(lambda: is_in(waiting, type(queue).put))  # noqa: B023
        assert queue.get(timeout=PATIENCE) == 0
        waiting.join(PATIENCE)
        assert queue.full()
        assert queue.get(timeout=PATIENCE) == 1
        queue.put_nowait("does not")
        assert queue.full()
        assert [queue.get(timeout=PATIENCE) for _ in range(1000)] == [*range(2, 1000), "waits", "does not"]


def get_twice(queues: Any, told: Any) -> None:
    """Of each get a thousand items, say so, and as many again once told to go on."""
    for queue in queues:
        for _ in range(2):
            for _ in range(1000):
                queue.get()
            told.send("got")
            told.recv()


def test_differs_fast_consumer_takes_more_at_a_time() -> None:
    """It leases what is there; but nobody has to wait who does not want to, and nobody waits for long."""
    both: list[Any] = [CONTEXT.Queue(), TurboQueue()]
    mine, other = CONTEXT.Pipe()
    with child(get_twice, both, other):
        for queue in both:
            for number in range(2500):
                queue.put(number)
            assert mine.recv() == "got"
            if sys.platform != "darwin" or isinstance(queue, TurboQueue):
                assert queue.qsize() == 1500
            taken = [queue.get(timeout=PATIENCE) for _ in range(20)]
            mine.send("go on")
            taken += [queue.get(timeout=PATIENCE) for _ in range(20)]
            assert mine.recv() == "got"
            mine.send("go on")
            assert taken[:20] == list(range(1000, 1020))
            assert taken == sorted(set(taken))
            assert len([queue.get(timeout=PATIENCE) for _ in range(460)]) == 460
            assert queue.empty()


def test_differs_order_between_producers() -> None:
    """With us an item stands where its ``put`` has put it; without, where the feeder thread gets to write it."""

    def is_last(queue: Any) -> bool:
        mine, other = CONTEXT.Pipe()
        with child(put_one_when_told, queue, other):
            assert mine.recv() == "here"
            if isinstance(queue, TurboQueue):
                held: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
            else:
                held = held_up()
            with held:
                queue.put(Slow())
                for number in range(2000):
                    queue.put(b"%1000d" % number)
                time.sleep(0.002)
                mine.send("now")
                assert mine.recv() == "put"
                wait_until(lambda: not queue.empty())
            got = [queue.get(timeout=PATIENCE) for _ in range(2002)]
            mine.send("end")
        assert sorted(map(len, got)) == [len("mine"), len("slow"), *[1000] * 2000]
        return bool(got[-1] == "mine")

    assert is_last(TurboQueue())
    assert not is_last(CONTEXT.Queue())


def test_differs_exit_without_a_reader() -> None:
    for make, waits in ((CONTEXT.Queue, True), (TurboQueue, False)):
        queue = make()
        mine, other = CONTEXT.Pipe()
        with child(put_unread, queue, other, 1000, "end") as process:
            assert mine.recv() == "put"
            process.join(LONG if waits else PATIENCE)
            assert process.is_alive() is waits
            assert len([queue.get(timeout=PATIENCE) for _ in range(1000)]) == 1000
            process.join(PATIENCE)
            assert process.exitcode == 0


@pytest.mark.parametrize("end", ["wait", "cancel"])
def test_differs_nothing_dies_with_its_producer(end: str) -> None:
    """``wait``: killed right after its last put; ``cancel``: it had called ``cancel_join_thread``."""
    for make, loses in ((CONTEXT.Queue, True), (TurboQueue, False)):
        queue = make()
        mine, other = CONTEXT.Pipe()
        with child(put_unread, queue, other, 1000, end) as process:
            assert mine.recv() == "put"
            if end == "wait":
                kill(process)
            process.join(PATIENCE)
            assert process.exitcode == (-signal.SIGKILL if end == "wait" else 0)
            assert (len(drain(queue)) < 1000) is loses


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
def test_differs_killed_or_stopped_consumer_blocks_nobody(end: signal.Signals) -> None:
    theirs, ours = CONTEXT.Queue(), TurboQueue()
    with child(get_for_ever, theirs) as process:

        def waits() -> bool:
            if theirs._rlock.acquire(False):
                theirs._rlock.release()
                return False
            return True

        wait_until(waits)
        kill(process, end)
        theirs.put(1)
        with pytest.raises(Empty):
            theirs.get(timeout=LONG)
    with child(get_for_ever, ours) as process:
        ours.put("first")
        wait_until(ours.empty)
        kill(process, end)
        ours.put(1)
        assert ours.get(timeout=PATIENCE) == 1


interrupts: list[str] = []


class Interrupting:
    """Ctrl-C comes when it is unpickled for the first time."""

    def __reduce__(self) -> tuple[Any, ...]:
        return interrupt_once, ()


def interrupt_once() -> str:
    if not interrupts:
        interrupts.append("Ctrl-C")
        signal.raise_signal(signal.SIGINT)
    return "item"


def test_differs_interrupted_item_comes_back() -> None:
    for make, left in ((CONTEXT.Queue, []), (TurboQueue, ["item"])):
        interrupts.clear()
        queue = make()
        queue.put(Interrupting())
        with pytest.raises(KeyboardInterrupt):
            queue.get(timeout=PATIENCE)
        assert drain(queue, 0) == left


def test_differs_handler_uses_the_queue_that_it_interrupts() -> None:
    """In a ``get`` both work.  In a ``put`` theirs hangs on its own lock, if the handler comes while it has that."""
    theirs, ours = CONTEXT.Queue(), TurboQueue()
    for queue in (theirs, ours):
        former = signal.signal(signal.SIGALRM, lambda *_, queue=queue: queue.put("from the handler"))
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            assert queue.get(timeout=PATIENCE) == "from the handler"
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, former)
    with theirs._notempty:
        putting = threading.Thread(target=theirs.put, args=("hangs",))
        putting.start()
        putting.join(0.1)
        assert putting.is_alive()
    putting.join(PATIENCE)
    assert theirs.get(timeout=PATIENCE) == "hangs"
    # While an item is pickled we are in the midst of ours.
    former = signal.signal(signal.SIGUSR1, lambda *_: ours.put("of the handler"))
    try:
        ours.put(Ringing())
    finally:
        signal.signal(signal.SIGUSR1, former)
    assert drain(ours, 0) == ["of the handler", "rung"]


class Ringing:
    """A signal comes when it is pickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        signal.raise_signal(signal.SIGUSR1)
        return str, ("rung",)


def test_differs_arrays_share_their_memory() -> None:
    """There small ones don't."""
    numpy = pytest.importorskip("numpy")
    for queue, owns in ((CONTEXT.Queue(), True), (TurboQueue(), False)):
        queue.put(numpy.arange(3))
        found = queue.get(timeout=PATIENCE)
        assert (found.flags.owndata, found.flags.writeable) == (owns, True)
        with contextlib.nullcontext() if owns else pytest.raises(ValueError, match="own its"):
            found.resize(2000, refcheck=False)
        queue.put(numpy.arange(3, dtype=numpy.dtype(int).newbyteorder()))
        assert queue.get(timeout=PATIENCE).dtype.isnative == owns


def test_differs_a_queue_fixes_no_start_method() -> None:
    for kind, fixes in (("multiprocessing.Queue", True), ("tqshim.TurboQueue", False)):
        program = f"import multiprocessing, tqshim; {kind}(); multiprocessing.set_start_method('spawn')"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert ("context has already been set" in done.stderr) == (done.returncode != 0) == fixes


@pytest.mark.in_turn
def test_timeouts_hold_beside_stopped_processes() -> None:
    """No side by side: there the stdlib hangs.  Stopped anywhere in a put or a get, one after the other; beside sleeps
    of the same run."""
    queue = TurboQueue(5)
    sleeps: list[float] = []
    late: dict[str, list[float]] = {"get": [], "put": []}
    in_vain: dict[str, list[float]] = {"get": [], "put": []}

    def once(name: str) -> bool:
        """Whether it was in vain."""
        began = time.monotonic()
        try:
            queue.get(timeout=TIMEOUT) if name == "get" else queue.put(1, timeout=TIMEOUT)
        except (Empty, Full):
            in_vain[name].append(time.monotonic() - began - TIMEOUT)
            return True
        late[name].append(time.monotonic() - began - TIMEOUT)
        return False

    with child(get_for_ever, queue) as consumer, child(put_for_ever, queue) as producer:
        for victims in ([consumer], [consumer, producer], [producer]) * 3:
            time.sleep(0.05)
            for victim in victims:
                os.kill(victim.pid, signal.SIGSTOP)
            for name in ("get", "put"):
                once(name)
            if consumer in victims:
                wait_until(lambda: once("put"))
            if producer in victims:
                wait_until(lambda: once("get"))
            began = time.monotonic()
            time.sleep(TIMEOUT)
            sleeps.append(time.monotonic() - began - TIMEOUT)
            for victim in victims:
                os.kill(victim.pid, signal.SIGCONT)
    for name in ("get", "put"):
        early = sum(one < -EARLY for one in in_vain[name])
        check_anywhere(
            [
                Row(name, "stopped", sorted(in_vain[name]), sorted(sleeps), early, 0, 6),
                Row(f"{name} of what is there", "stopped", sorted(late[name]), sorted(sleeps), 0, 0, 1),
            ]
        )


def test_differs_handles_travel() -> None:
    theirs, ours = CONTEXT.Queue(), TurboQueue()
    with pytest.raises(RuntimeError, match="inheritance"):
        pickle.dumps(theirs)
    again = pickle.loads(pickle.dumps(ours))
    again.put(1)
    assert ours.get_nowait() == 1
    ours.put(TurboQueue())
    ours.get_nowait().put("inside")
    with CONTEXT.Pool(1) as pool:
        with pytest.raises(RuntimeError, match="inheritance"):
            pool.apply(put_one, (theirs, 2))
        pool.apply(put_one, (ours, 2))
        assert ours.get(timeout=PATIENCE) == 2


def test_differs_maxsize_is_a_number_like_any_other() -> None:
    most = synchronize.SEM_VALUE_MAX  # 32,767 on macOS
    with pytest.raises((OverflowError, ValueError, OSError)):
        CONTEXT.Queue(most + 1)
    assert CONTEXT.Queue()._maxsize == most, "even unbounded it is bounded"
    ours = TurboQueue(most + 1)
    ours.put(1)
    assert (ours.qsize(), ours.full()) == (1, False)
    small = TurboQueue(1)
    small.put(1)
    with pytest.raises(Full):
        small.put_nowait(2)


def test_differs_qsize_is_exact_everywhere() -> None:
    theirs, ours = CONTEXT.Queue(), TurboQueue()
    with held_up():
        theirs.put(Slow())
        if sys.platform == "darwin":
            with pytest.raises(NotImplementedError):
                theirs.qsize()
        else:
            assert theirs.qsize() == 1 and theirs.empty(), "one item, and none"
    assert theirs.get(timeout=PATIENCE) == "slow"
    ours.put(Slow())
    assert ours.qsize() == 1 and not ours.empty()


def test_differs_closed_handle_keeps_its_last_size() -> None:
    sizes = []
    for make in (CONTEXT.Queue, TurboQueue):
        queue = make()
        queue.put(1)
        queue.put(2)
        mine, other = CONTEXT.Pipe()
        with child(get_one_when_told, queue, other):
            queue.close()
            queue.join_thread()
            mine.send("now")
            assert mine.recv() == "got"
            if sys.platform != "darwin" or make is TurboQueue:
                sizes.append(queue.qsize())
            mine.send("end")
    assert sizes[-1] == 2
    assert sizes[:-1] in ([1], [])


def test_differs_closed_handle_stays_at_home() -> None:
    for make, travels in ((CONTEXT.Queue, True), (TurboQueue, False)):
        queue = make()
        queue.close()
        process = CONTEXT.Process(target=str, args=(queue,))
        with contextlib.nullcontext() if travels else pytest.raises(OSError, match="is closed"):
            process.start()
            process.join()


def test_differs_ending_has_nothing_to_do() -> None:
    ours = TurboQueue()
    ours.put(1)
    assert ours.cancel_join_thread() is None
    again = pickle.loads(pickle.dumps(ours))
    ours.close()
    assert again.get_nowait() == 1, "close has published what was put"
    assert ours.join_thread() is None
    for queue in (CONTEXT.Queue(), again):
        with pytest.raises(AssertionError):
            queue.join_thread()


def test_differs_extras(tmp_path: Path) -> None:
    assert not hasattr(queues.Queue, "put_many") and not hasattr(queues.Queue, "__enter__")
    path = tmp_path / "meeting"
    with TurboQueue(3, path=str(path), batch_size=10) as ours:
        ours.put_many([1, 2, 3])
        with pytest.raises(Full):
            ours.put_many_nowait([4])
        assert ours.get_many(max_messages_to_get=2) == [1, 2]
    with TurboQueue(path=str(path)) as ours:
        assert ours.get_many_nowait() == [3]
        with pytest.raises(Empty):
            ours.get_many_nowait()
        ours.put_many([1, 2, 3])
        assert ours.full()


def test_differs_extras_of_the_family() -> None:
    for name in ("shutdown", "is_shutdown", "drain", "stats", "get_async", "put_async", "__aiter__"):
        assert not hasattr(queues.JoinableQueue, name)
        assert hasattr(tqshim.JoinableQueue, name)
    theirs, ours = CONTEXT.JoinableQueue(), tqshim.JoinableQueue()
    for one in (theirs, ours):
        one.put(1)
    with pytest.raises(TypeError, match="timeout"):
        theirs.join(timeout=0)
    assert ours.join(timeout=0) is False
    theirs.close()
    theirs.cancel_join_thread()


def test_differs_claimed() -> None:
    """Two blocks that end badly, one by a kill, and one that ends well."""
    assert not hasattr(CONTEXT.Queue(), "claimed")
    ours = TurboQueue(2)
    ours.put_many(["job", "another"])
    with contextlib.suppress(KeyError):
        with ours.claimed() as item:
            assert item == "job"
            assert (ours.qsize(), ours.full()) == (1, True)
            raise KeyError
    with child(claim_and_be_killed, ours) as process:
        process.join(PATIENCE)
        assert process.exitcode == -signal.SIGKILL
    found = []
    for _ in range(2):
        claim = ours.claimed(timeout=PATIENCE)
        with claim as item:
            found.append((item, claim.redelivered))
    assert sorted(found) == [("another", 0), ("job", 2)]
    with pytest.raises(Empty):
        ours.get_nowait()


def claim_and_be_killed(queue: Any) -> None:
    with queue.claimed():
        os.kill(os.getpid(), signal.SIGKILL)


def test_differs_simple_queue_has_no_bound() -> None:
    """What nobody reads fills a pipe; here nobody waits."""
    theirs, ours = CONTEXT.SimpleQueue(), tqshim.SimpleQueue()
    item = bytes(1 << 20)
    putting = threading.Thread(target=theirs.put, args=(item,), daemon=True)
    putting.start()
    putting.join(0.2)
    assert putting.is_alive()
    ours.put(item)
    assert theirs.get() == ours.get() == item
    putting.join(PATIENCE)
    with pytest.raises(RuntimeError, match="only be shared"):
        pickle.dumps(theirs)
    ours.put(1)
    assert pickle.loads(pickle.dumps(ours)).get() == 1


def test_differs_class() -> None:
    with pytest.raises(TypeError):
        isinstance(None, multiprocessing.Queue)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="ctx"):
        queues.Queue(3)  # type: ignore[call-arg]
    assert isinstance(TurboQueue(3), queues.Queue)


def test_differs_no_pipe_inside() -> None:
    theirs, ours = CONTEXT.Queue(), TurboQueue()
    theirs.put(1)
    assert connection.wait([theirs._reader], PATIENCE)
    for private in ("_reader", "_writer", "_rlock", "_wlock", "_sem", "_buffer", "_thread", "_notempty"):
        assert hasattr(theirs, private)
        assert not hasattr(ours, private)


def test_differs_threads() -> None:
    def threads_after_a_put(queue: Any) -> int:
        before = set(threading.enumerate())  # some of them may be just ending
        queue.put(1)
        return len(set(threading.enumerate()) - before)

    assert threads_after_a_put(CONTEXT.Queue()) == 1
    assert threads_after_a_put(TurboQueue()) == 0


def test_differs_items_lie_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TQSHIM_DIR", str(tmp_path))
    theirs = CONTEXT.Queue()
    theirs.put(bytes(10_000))
    assert os.listdir(tmp_path) == []
    ours = TurboQueue()
    ours.put(bytes(10_000))
    (folder,) = tmp_path.glob("tqshim-*")
    assert sum(file.stat().st_size for file in folder.glob("load_*")) > 10_000
    ours.close()
    assert os.listdir(tmp_path) == []


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))


def test_differs_descriptors() -> None:
    gc.collect()  # what else closes, closes now
    wait_until(lambda: not any(thread.name == "QueueFeederThread" for thread in threading.enumerate()))
    before = descriptors()
    theirs = CONTEXT.Queue()
    theirs.put(1)
    theirs.get()
    theirs_has = descriptors() - before
    assert theirs_has == 2 if sys.platform == "linux" else theirs_has <= 4  # elsewhere its locks may have some
    before = descriptors()
    ours = TurboQueue()
    counts = [descriptors() - before]
    for _ in range(3):
        ours.put(1)
        assert ours.get() == 1
    counts.append(descriptors() - before)
    with pytest.raises(Empty):
        ours.get(timeout=0.01)
    counts.append(descriptors() - before)
    if mappings.system() is not None and systems.EPOLL:
        assert counts == [2, 3, 5]
    assert all(count <= most for count, most in zip(counts, [3, 6, 10])), counts
    del theirs


def test_differs_descriptors_of_many_queues() -> None:
    """At most 3 each, whatever they are used for, and those of the bells that a process keeps."""
    gc.collect()  # what else closes, closes now
    before = descriptors()
    queues: list[Any] = []
    for _ in range(tuning.BELLS + 20):
        queue: Any = JoinableTurboQueue(1)
        queue.put(1)
        with pytest.raises(Full):
            queue.put(2, timeout=0.001)
        assert not queue.join(timeout=0.001)
        assert queue.get() == 1
        with pytest.raises(Empty):
            queue.get(timeout=0.001)
        queues.append(queue)
    if mappings.system() is not None and systems.EPOLL:
        assert descriptors() - before <= 3 * len(queues) + 2 * tuning.BELLS
    queues.clear()
    del queue
    assert descriptors() <= before


MANY_QUEUES = """
import resource, tqshim
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
queues = [tqshim.TurboQueue() for _ in range(300)]
for queue in queues:
    queue.put(1)
    queue.get()
    try:
        queue.get(timeout=0.001)
    except tqshim.Empty:
        pass
print(len(queues))
"""


def test_as_many_queues_are_in_use_at_once_as_the_page_says() -> None:
    assert "usual limit of 1,024 a process has 300 queues in use at once" in FLAT
    done = subprocess.run([sys.executable, "-c", MANY_QUEUES], capture_output=True, text=True, timeout=200)
    assert done.stdout == "300\n" or mappings.system() is None or not systems.EPOLL, done.stderr


def test_differs_platforms() -> None:
    """Elsewhere nothing of the engine is imported; ``test_windows`` has a whole program."""
    program = (
        "import multiprocessing.queues, sys; sys.platform = 'freebsd15'; queue = multiprocessing.Queue(); "
        "queue.put('theirs'); print(queue.get(timeout=60), flush=True); import tqshim; tqshim.TurboQueue()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "theirs\n"
    assert done.stderr.splitlines()[-1].startswith("tqshim.errors.UnsupportedError: freebsd15: ")
    assert "Linux or macOS" in done.stderr
