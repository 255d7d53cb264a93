"""turbo-queue 0.8.0 beside tqshim.turbo_queue: its faults, its quickstart, one folder for both, its names.

0.8.0 runs in processes of its own only: its import changes the logging of the process.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from documents import TEXT, rows
from sampling import sampled

import tqshim.runtime.systems
from compat import original_exchange, original_faults, original_speed
from tqshim import turbo_queue

ROOT: Final = Path(__file__).resolve().parent.parent
PATIENCE: Final = 60.0
FEW: Final = 6000
MANY: Final = 100_000


def theirs() -> None:
    """Skip where 0.8.0 is not installed."""
    try:
        installed = importlib.metadata.version("turbo-queue")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("turbo-queue is not installed: pip install tqshim[original]")
    assert installed == "0.8.0"


# -- faults


@pytest.mark.in_turn
@pytest.mark.parametrize("name", sampled("faults here", list(original_faults.FAULTS), 5))
def test_fault_of_the_original_is_not_here(name: str) -> None:
    found = original_faults.run("tqshim", name)
    assert original_faults.verdict("tqshim", name, found), found


@pytest.mark.in_turn
@pytest.mark.parametrize("name", sampled("faults", list(original_faults.FAULTS), 4))
def test_fault_of_the_original_is_there(name: str) -> None:
    """Which never changes any more."""
    theirs()
    found = original_faults.run("0.8.0", name)
    assert original_faults.verdict("0.8.0", name, found), found or "it runs"


def test_a_program_that_fails_in_another_way_shows_no_fault() -> None:
    assert not original_faults.verdict("0.8.0", "numbers", "")
    assert not original_faults.verdict("0.8.0", "numbers", "Traceback:\n  TypeError\nKeyError: 1")
    assert not original_faults.verdict("tqshim", "numbers", "TypeError")


def test_the_docs_tell_all_faults() -> None:
    assert rows("faults") == [[fault.title, f"`{fault.name}`"] for fault in original_faults.FAULTS.values()]


def test_each_crash_that_the_docs_tell_has_a_test() -> None:
    told = {test for row in rows("original crashes") for test in re.findall(r"\btest_\w+", row[-1])}
    text = "".join(path.read_text("utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    assert len(told) >= len(rows("original crashes"))
    assert all(f"def {test}(" in text for test in told)


def test_the_figures_of_the_docs_are_of_all_workloads() -> None:
    assert "python -m compat.original_speed" in TEXT
    wanted = []
    for name in original_speed.CASES:
        shape, size, *tight = name.split("/")
        shape = shape.replace("x", " \N{MULTIPLICATION SIGN} ")
        wanted.append([shape, f"{int(size):,}", "each batch" if tight else "each event"])
    assert [row[:3] for row in rows("original figures")] == wanted


# -- the quickstart


def quickstart() -> str:
    """The quickstart of the published package, which carries its README with it."""
    text = importlib.metadata.metadata("turbo-queue").get_payload()
    assert isinstance(text, str)
    (program,) = [block for block in re.findall(r"```\n(.*?)```", text, re.DOTALL) if "on_start_cleanup" in block]
    return str(program)


def test_quickstart_of_the_original_runs_with_another_import_line(tmp_path: Path) -> None:
    theirs()
    program = quickstart()
    changes = [
        ("import turbo_queue\n", "from tqshim import turbo_queue\n"),
        # What is published is no Python: it lacks a colon.  And its folder is made at the root of the file system.
        ("def process_data(data)\n", "def process_data(data):\n  print(data)\n"),
        ("'/path/to/queue'", repr(str(tmp_path / "path" / "to" / "queue"))),
    ]
    for old, new in changes:
        assert program.count(old) == 1
        program = program.replace(old, new)
    script = tmp_path / "quickstart.py"
    script.write_text(program)
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ['{"data":"add_to_queue"}'] * 5000
    assert os.listdir(tmp_path / "path" / "to" / "queue" / "data_in") == []
    assert sorted(os.listdir(tmp_path)) == ["path", "quickstart.py"]


# -- one folder


@pytest.mark.in_turn
@pytest.mark.parametrize("way", list(original_exchange.WAYS))
def test_events_are_exchanged_with_the_original(way: str, tmp_path: Path) -> None:
    theirs()
    assert sum(original_exchange.exchange(way, FEW, PATIENCE, str(tmp_path))) == FEW


@pytest.mark.stress
@pytest.mark.parametrize("way", list(original_exchange.WAYS))
def test_many_events_are_exchanged_with_the_original(way: str, tmp_path: Path) -> None:
    theirs()
    assert sum(original_exchange.exchange(way, MANY, 10 * PATIENCE, str(tmp_path))) == MANY


SCRIPTED: Final = """
import sys, json, logging, multiprocessing, os
os.chdir(sys.argv[1])
import turbo_queue
multiprocessing.get_logger().setLevel(logging.CRITICAL)
for kind, more in ((turbo_queue.Enqueue, {"max_events_per_file": 4}), (turbo_queue.Dequeue, {})):
    queue = kind()
    queue.setup_logging(log_file=os.devnull)
    queue.root_path, queue.queue_name = sys.argv[1], "queue"
    for name, value in more.items():
        setattr(queue, name, value)
    if more:
        enqueue = queue
        enqueue.start()
events = queue.get()
for line in sys.stdin:
    word, value = json.loads(line)
    if word == "add":
        enqueue.add(value)
    print(json.dumps(next(events) if word == "get" else None), flush=True)
"""


class Original:
    """A process on 0.8.0, with a producer that has started and a consumer, which does what it is told."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPTED, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.do("wait")

    def do(self, word: str, value: Any = None) -> Any:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps([word, value]) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def original(tmp_path: Path) -> Iterator[Original]:
    theirs()
    process = Original(tmp_path)
    yield process
    process.kill()


def ours(kind: Any, folder: Path) -> Any:
    queue = kind()
    queue.root_path, queue.queue_name = str(folder), "queue"
    return queue


def clean_up(folder: Path) -> None:
    ours(turbo_queue.Startup, folder).on_start_cleanup()


def get_all(folder: Path) -> list[Any]:
    with ours(turbo_queue.Dequeue, folder) as dequeue:
        events = dequeue.get()
        return list(iter(lambda: next(events), None))


OPEN_FILES_ARE_TOLD: Final = os.path.isdir(f"{tqshim.runtime.systems.PROC}/self/fd")
needs_open_files: Final = pytest.mark.skipif(
    not OPEN_FILES_ARE_TOLD, reason="files of theirs that are not locked are asked for there"
)


@pytest.mark.in_turn
@needs_open_files
@pytest.mark.parametrize("added", [0, 1, 3])
def test_cleanup_leaves_a_living_producer_of_the_original_alone(added: int, original: Original, tmp_path: Path) -> None:
    for number in range(added):
        original.do("add", [number])
    clean_up(tmp_path)
    for number in range(added, 4):
        original.do("add", [number])
    assert get_all(tmp_path) == [[0], [1], [2], [3]]


@pytest.mark.in_turn
@pytest.mark.parametrize("got", [1, 3, pytest.param(4, marks=needs_open_files)])
def test_cleanup_leaves_a_living_consumer_of_the_original_alone(got: int, original: Original, tmp_path: Path) -> None:
    for number in range(4):
        original.do("add", [number])
    numbers = [original.do("get") for _ in range(got)]
    clean_up(tmp_path)
    assert get_all(tmp_path) == []
    numbers += [original.do("get") for _ in range(4 - got)]
    assert numbers == [[0], [1], [2], [3]]


@pytest.mark.in_turn
def test_cleanup_recovers_what_a_killed_process_of_the_original_had_taken(original: Original, tmp_path: Path) -> None:
    for number in range(5):  # the last one is in a batch that it has not stored: nobody can recover that
        original.do("add", [number])
    assert [original.do("get"), original.do("get")] == [[0], [1]]
    original.kill()
    clean_up(tmp_path)
    assert get_all(tmp_path) == [[0], [1], [2], [3]]
    # Where nobody tells that its empty file is not in use any more, that stays.
    assert [name[:5] for name in os.listdir(tmp_path / "queue")] == ([] if OPEN_FILES_ARE_TOLD else ["load_"])


# -- names


LIST_NAMES: Final = """
import json, os, sys
os.chdir(sys.argv[1])
import turbo_queue
print(json.dumps({kind.__name__: [name for name in dir(kind()) if name[0] != "_"]
    for kind in (turbo_queue.Startup, turbo_queue.Enqueue, turbo_queue.Dequeue)}))
"""


def test_all_public_names_of_the_original_are_here(tmp_path: Path) -> None:
    theirs()
    done = subprocess.run(
        [sys.executable, "-c", LIST_NAMES, str(tmp_path)], capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    for kind, names in json.loads(done.stdout).items():
        queue = getattr(turbo_queue, kind)()
        assert [name for name in names if not hasattr(queue, name)] == []


LIST_CLASSES: Final = """
import json, os, sys
os.chdir(sys.argv[1])
import turbo_queue
print(json.dumps([name for name, value in vars(turbo_queue).items() if isinstance(value, type)]))
"""


def test_the_docs_tell_which_classes_of_the_original_are_not_here(tmp_path: Path) -> None:
    theirs()
    done = subprocess.run(
        [sys.executable, "-c", LIST_CLASSES, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    classes = set(json.loads(done.stdout))
    assert classes > set(turbo_queue.__all__)
    assert {name for name in classes if f"`{name}`" in TEXT} == classes


DEFAULTS: Final = """
import json, os, sys
os.chdir(sys.argv[1])
import turbo_queue
queue = turbo_queue.Dequeue()
print(json.dumps({name: getattr(queue, name) for name, value in vars(type(queue).__mro__[1]).items()
    if isinstance(value, property)}))
"""


def test_attributes_begin_as_in_the_original(tmp_path: Path) -> None:
    theirs()
    done = subprocess.run(
        [sys.executable, "-c", DEFAULTS, str(tmp_path)], capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    found = json.loads(done.stdout)
    assert len(found) > 8
    queue = turbo_queue.Dequeue()
    assert found.pop("remove_invalid") and not queue.remove_invalid  # here nothing is deleted that can't be read
    assert {name: getattr(queue, name) for name in found} == found


# -- the comparison


@pytest.mark.in_turn
@pytest.mark.parametrize("case", ["1x1/100", "3x10/1000/tight"])
def test_speed_is_measured_of_runs_in_which_all_arrives(case: str) -> None:
    theirs()
    words = [
        sys.executable,
        "-m",
        "compat.original_speed",
        "--json",
        "--rounds",
        "1",
        "--scale",
        "0.02",
        "--only",
        case,
    ]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=2 * PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)["cases"][case]
    assert set(result) == set(original_speed.KINDS)
    assert all(figure["ratio"]["median"] > 0 for figure in result.values())


def test_an_event_is_as_long_as_is_said() -> None:
    for size in original_speed.SIZES:
        assert len(json.dumps(original_speed.event(123_456, original_speed.filling(size)))) == size
