"""What odd programs do, and what the standard library's queues allow: names of their own, daemon threads to the end,
hints that somebody evaluates, exceptions that can't be shown, streams that are closed, modules that are replaced."""

from __future__ import annotations

import dataclasses
import inspect
import pickle
import shlex
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any, Final
from unittest import mock

import pytest

import tqshim.storage.folder
from tqshim import JoinableTurboQueue, SimpleTurboQueue, TurboQueue

LONG: Final = 60.0
CLASSES: Final = (TurboQueue, JoinableTurboQueue, SimpleTurboQueue)


def run(program: str, folder: Path) -> str:
    """What a script there prints; it says nothing on stderr."""
    (folder / "script.py").write_text(program, encoding="utf-8")
    words = [sys.executable, str(folder / "script.py")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=LONG, cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize(
    ("first", "own"),
    [("import resource", "class Resource: pass"), ("pass", "class Resource: pass"), ("pass", "raise RuntimeError")],
)
def test_a_module_of_the_program_s_may_be_called_resource(first: str, own: str, tmp_path: Path) -> None:
    """Queues ask the standard library's for the limits of the process, and leave the name to the program."""
    (tmp_path / "resource.py").write_text(own, encoding="utf-8")
    said = run(
        f"""
{first}
import sys
from tqshim import Queue

queue = Queue()
queue.put("a")
print(queue.get(), "resource" in sys.modules)
""",
        tmp_path,
    )
    assert said == f"a {first != 'pass'}\n"


def test_daemon_threads_that_put_to_the_end_say_nothing(tmp_path: Path) -> None:
    """Their queues are deleted one after another, while they go on."""
    program = """
import threading, time
from tqshim import Queue

def beat(queue):
    while True:
        queue.put("beat")
        time.sleep(0.0005)

queues = [Queue() for _ in range(4)]
for queue in queues:
    threading.Thread(target=beat, args=(queue,), daemon=True).start()
time.sleep(0.05)
print("end")
"""
    for _ in range(6):
        assert run(program, tmp_path) == "end\n"


def test_where_warnings_are_errors_install_does_nothing_and_children_go_on(tmp_path: Path) -> None:
    """The warning is of a queue that was made before: in a child of a fork server, by the program's own module."""
    said = run(
        """
import multiprocessing, pickle, warnings

import tqshim
from tqshim.queues import patching

before = multiprocessing.Queue()
with warnings.catch_warnings():
    warnings.simplefilter("error")
    try:
        tqshim.install()
    except RuntimeWarning as warning:
        print(warning)
    print(type(multiprocessing.Queue()).__name__)
    in_child = pickle.dumps(patching._Reinstall())
    warnings.showwarning = lambda message, *_: print(message)
    pickle.loads(in_child)
print(type(multiprocessing.Queue()).__name__)
""",
        tmp_path,
    )
    warning = "tqshim.install: queues made before stay multiprocessing's ({}); install before they are made"
    assert said.splitlines() == [warning.format(1), "Queue", warning.format(1), "TurboQueue"]


def test_a_child_that_can_import_nothing_any_more_ends_in_peace(tmp_path: Path) -> None:
    """As in another root: what it has no room for it can't get, and others get the rest."""
    said = run(
        """
import os, sys
from tqshim import Queue

queue = Queue()
queue.put(b"." * 100_000)
queue.put("next")
sys.stdout.flush()
if not os.fork():
    sys.meta_path.clear()
    try:
        queue.get(timeout=10)
    except ImportError as error:
        print(type(error).__name__)
    sys.exit()
os.wait()
print(queue.get(timeout=10) == "next")
""",
        tmp_path,
    )
    assert said == "ModuleNotFoundError\nTrue\n"


@pytest.mark.parametrize("kind", CLASSES)
def test_hints_can_be_evaluated(kind: Any) -> None:
    """As validators and injectors do; at run time they come to little."""
    for name, function in inspect.getmembers(kind, inspect.isfunction):
        if not name.startswith("_") or name == "__init__":
            typing.get_type_hints(function)
            if sys.version_info >= (3, 10):
                inspect.signature(function, eval_str=True)
    assert typing.get_type_hints(TurboQueue.put)["block"] is bool


class Unshown(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    number: int = 1


class Fails:
    """Pickling it raises that, or unpickling it does."""

    def __init__(self, error: type[Exception], late: bool) -> None:
        self.error, self.late = error, late

    def __reduce__(self) -> Any:
        if self.late:
            return raises, (self.error,)
        raise self.error


def raises(error: type[Exception]) -> None:
    raise error


@pytest.mark.parametrize("error", [Unshown, Frozen])
def test_an_item_s_own_exception_arrives_whatever_it_is(error: type[Exception]) -> None:
    with TurboQueue() as queue:
        with pytest.raises(error):
            queue.put(Fails(error, late=False))
        queue.put(Fails(error, late=True))
        queue.put("next")
        with pytest.raises(error):
            queue.get(timeout=LONG)
        assert queue.get(timeout=LONG) == "next"


def test_a_subclass_may_have_an_attribute_of_its_own_called_is_shutdown() -> None:
    class Own(TurboQueue[Any]):
        def __init__(self) -> None:
            super().__init__()
            self.is_shutdown = False  # type: ignore[misc]

    with Own() as queue, TurboQueue() as other:
        queue.shutdown()
        other.shutdown()
        assert not queue.is_shutdown and other.is_shutdown
        assert TurboQueue.is_shutdown.__doc__


@pytest.mark.parametrize("call", ["os.mkdir", "os.stat"])
def test_a_queue_that_is_never_there_is_an_error_and_no_loop(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tqshim.storage.folder, "HOLD_PATIENCE", 0.05)
    with mock.patch(call), pytest.raises(Exception, match=r"locked|gone|No such file|MagicMock|int"):
        TurboQueue()


def test_a_queue_whose_every_name_is_taken_is_an_error_and_no_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tqshim.storage.folder, "HOLD_PATIENCE", 0.05)
    with mock.patch("os.mkdir", side_effect=FileExistsError("taken")), pytest.raises(FileExistsError, match="taken"):
        TurboQueue()


def test_a_prompt_after_a_program_comes_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("print('done')", encoding="utf-8")
    words = [sys.executable, "-i", "-q", "-m", "tqshim", "run", str(tmp_path / "script.py")]
    done = subprocess.run(words, input="", capture_output=True, text=True, timeout=LONG)
    assert done.returncode == 0 and done.stdout.startswith("done") and "Traceback" not in done.stderr


@pytest.mark.parametrize("closed", ["<&-", "<&- >&- 2>&-"])
def test_a_program_without_stdin_or_more_starts_children(tmp_path: Path, closed: str) -> None:
    """The first descriptors that it opens have their numbers, which each spawned child takes for its own streams."""
    (tmp_path / "script.py").write_text(
        """
import tqshim

def work(queue):
    queue.put("done")

if __name__ == "__main__":
    context = tqshim.get_context("spawn")
    queue = context.Queue()
    queue.put("first")
    child = context.Process(target=work, args=(queue,))
    child.start()
    child.join()
    found = [queue.get_nowait() for _ in range(2)] if not child.exitcode else child.exitcode
    with open("found", "w") as file:
        file.write(repr(found))
""",
        encoding="utf-8",
    )
    command = f"exec {shlex.quote(sys.executable)} script.py {closed}"
    subprocess.run(["sh", "-c", command], cwd=tmp_path, timeout=LONG, stderr=subprocess.DEVNULL, check=False)
    assert (tmp_path / "found").read_text(encoding="utf-8") == "['first', 'done']"


def test_queues_are_made_where_random_numbers_repeat_themselves_or_the_environment_is_a_mock() -> None:
    with mock.patch("os.urandom", lambda size: b"\1" * size), TurboQueue() as one, TurboQueue() as other:
        one.put(1)
        handles = [pickle.dumps(one), pickle.dumps(one)]
        assert other.empty() and [pickle.loads(handle).qsize() for handle in handles] == [1, 1]
    with mock.patch("os.environ.get", return_value="production"), TurboQueue() as one:
        one.put(1)
        assert one.get() == 1


@pytest.mark.parametrize("call", ["fcntl.flock", "fcntl.fcntl"])
def test_queues_in_use_are_not_deleted_where_locks_are_a_mock(root: Path, call: str) -> None:
    """As in a program's tests of its own locks: each seems to be free, and a new queue deletes abandoned ones."""
    script = "import tqshim; q = tqshim.Queue(); q.put(1); print(1, flush=True); input(); print(q.get())"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdout.readline()
        with mock.patch(call, return_value=0), TurboQueue() as own:
            own.put(2)
            assert own.get() == 2
        found, _ = other.communicate("go on\n", timeout=LONG)
    assert found == "1\n"


class Tagged(SimpleTurboQueue[str]):
    """Has more of a state, as a subclass of the standard library's queue has."""

    def __init__(self) -> None:
        super().__init__()
        self.tag = "tagged"

    def __getstate__(self) -> tuple[Any, ...]:
        return (*super().__getstate__(), self.tag)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        *rest, self.tag = state
        super().__setstate__(tuple(rest))


def test_a_subclass_of_a_simple_queue_adds_to_its_state() -> None:
    queue = Tagged()
    queue.put("there")
    arrived = pickle.loads(pickle.dumps(queue))
    assert (arrived.tag, arrived.get()) == ("tagged", "there")
    arrived.close()
    queue.close()


@pytest.mark.parametrize("forks", [True, False])
def test_a_put_of_a_destructor_when_the_interpreter_ends_is_silent(tmp_path: Path, forks: bool) -> None:
    run(
        f"""
import os, sys, tqshim

queue = tqshim.Queue(path={str(tmp_path / "queue")!r})

class Late:
    def __init__(self):
        self.queue, self.me = queue, self

    def __del__(self):
        self.queue.put("late")

queue.put("warm")
queue.get()
if not {forks} or os.fork() == 0:
    late = Late()
    sys.exit()
os.wait()
""",
        tmp_path,
    )
