"""The start of a program: what the common case does not import, and that nothing is lost where it is imported later."""

from __future__ import annotations

import gc
import os
import pickle
import shutil
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any, Final

import pytest

import tqshim
from tqshim.protocol.records import Lease
from tqshim.runtime import late
from tqshim.runtime.tuples import NamedTuple
from tqshim.sync import membarrier

ROOT: Final = Path(__file__).resolve().parent.parent

PIPES: Final[Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": 100}

FIRST: Final = """
import multiprocessing.queues, sys
before = set(sys.modules)
from tqshim import TurboQueue
queue = TurboQueue()
queue.put(1)
assert queue.get() == 1
queue.close()
print(*sorted(set(sys.modules) - before))
"""
NOT_NEEDED: Final = (
    *("asyncio", "ctypes", "dataclasses", "hashlib", "inspect", "logging", "typing"),
    *("tqshim.queues.asynchronous", "tqshim.queues.buffers", "tqshim.queues.claims", "tqshim.queues.contexts"),
    *("tqshim.queues.family", "tqshim.queues.patching", "tqshim.protocol.figures", "tqshim.monitor"),
    *("tqshim.engine.durable", "tqshim.engine.keyed", "tqshim.engine.keys", "tqshim.storage.large"),
    *("tqshim.storage.corrupt", "tqshim.storage.hardening", "tqshim.storage.lock_owners"),
)
"""How the names of modules begin that a program's first put and get do without: each takes its time to load, more where
no bytecode may be written."""


def test_a_first_put_and_get_import_what_they_need_and_no_more() -> None:
    done = subprocess.run([sys.executable, "-c", FIRST], cwd=ROOT, capture_output=True, text=True, check=True)
    brought = done.stdout.split()
    assert "tqshim.engine.engine" in brought
    assert [name for name in brought if name.startswith(NOT_NEEDED)] == []


WITHOUT_PIPES: Final = """
import multiprocessing, sys
from tqshim import TurboQueue
queue = TurboQueue()
queue.put(1)
assert queue.get() == 1
print(*["tempfile"] * ("tempfile" in sys.modules), "Pipe" in vars(multiprocessing.connection))
WHAT
print("Pipe" in vars(multiprocessing.connection), type(multiprocessing.connection) is type(sys))
one, other = multiprocessing.Pipe()
one.send("sent")
print(other.recv())
"""
ASKS: Final = {
    "an attribute": "print(multiprocessing.connection.wait.__name__)",
    "a name": "from multiprocessing.connection import wait; print(wait.__name__)",
    "all names": "from multiprocessing.connection import *; print(wait.__name__)",
    "a new value": "multiprocessing.connection.wait = 'wait'; print(multiprocessing.connection.wait)",
    "a value less": "del multiprocessing.connection.CONNECTION_TIMEOUT\n"
    "print('wait' if 'CONNECTION_TIMEOUT' not in dir(multiprocessing.connection) else 'still there')",
    "a list": "print(*[name for name in dir(multiprocessing.connection) if name == 'wait'])",
    "a patch": "from unittest import mock\nwith mock.patch('multiprocessing.connection.wait', 'wait'):"
    " print(multiprocessing.connection.wait)",
    "to be read again": "import importlib; print(importlib.reload(multiprocessing.connection).wait.__name__)",
    "by a child": "p = multiprocessing.Process(target=print, args=('wait',)); p.start(); p.join(60)",
}
"""Ways in which a program asks a module for something."""


@pytest.mark.in_turn
@pytest.mark.parametrize("way", ASKS)
def test_what_pipes_need_is_imported_when_somebody_asks_for_a_pipe(way: str) -> None:
    """And is there as if it had been imported at once."""
    program = WITHOUT_PIPES.replace("WHAT", ASKS[way])
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], cwd=ROOT, **PIPES, text=True)
    assert done.stdout.split() == ["False", "wait", "True", "True", "sent"], done.stderr


IN_BETWEEN: Final = """
import contextlib, multiprocessing, os, sys, threading
from importlib.machinery import SourceFileLoader
from importlib.util import spec_from_loader

others, said, forking = [], [], threading.Event()

def asks():
    said.append(multiprocessing.connection.wait.__name__)

def fails():
    raise KeyError("interrupted")

def starts(what=asks):
    others.append(threading.Thread(target=what))
    others[-1].start()

def forks():
    starts(child)
    forking.wait()

def child():
    forking.set()
    child = os.fork()
    if not child:
        asks()
        os._exit(3)
    said.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

class Loader(SourceFileLoader):
    def exec_module(self, module):
        if does:
            does.pop()()
        super().exec_module(module)

class Finder:
    def find_spec(name, path, *_):
        if name == "multiprocessing.connection":
            return spec_from_loader(name, Loader(name, path[0] + "/connection.py"))

does = [globals()[sys.argv[1]]]
sys.meta_path.insert(0, Finder)
import tqshim
assert does
with contextlib.suppress(KeyError):
    asks()
asks()
for other in others:
    other.join()
print(*said)
"""


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("asks", ["wait"] * 3),  # as a signal handler may, in the middle
        ("fails", ["wait"]),
        ("starts", ["wait"] * 3),  # another thread
        ("forks", ["3", "wait", "wait"]),
    ],
)
def test_that_import_may_be_interrupted(what: str, said: list[str]) -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", IN_BETWEEN, what], cwd=ROOT, **PIPES, text=True)
    assert sorted(done.stdout.split()) == said, done.stderr


REGISTERS: Final = """
import multiprocessing, os, threading
from tqshim.sync import membarrier

asked, ask = [], membarrier._membarrier

def noted(command):
    if command == membarrier._REGISTER:
        asked.append((len(os.listdir("/proc/self/task")), multiprocessing.current_process().name))
    return ask(command)

membarrier._membarrier = noted
from tqshim import TurboQueue

def use(queue, back):
    queue.put(1)
    back.put((queue.get(), *[what for what in asked if what[1] != "MainProcess"]))

if __name__ == "__main__":
    queue, back = TurboQueue(), TurboQueue()
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    use(queue, back)
    child = multiprocessing.get_context("fork").Process(target=use, args=(queue, back), name="child")
    child.start()
    child.join()
    print(asked, *back.get_many())
"""


@pytest.mark.skipif(not membarrier.barrier_works(), reason="each put goes through the journal")
def test_no_process_registers_for_barriers_once_it_has_threads() -> None:
    """The kernel takes some ten milliseconds for that: the first get of a program with a Pool took them."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", REGISTERS], cwd=ROOT, **PIPES, text=True, check=True)
    assert done.stdout.splitlines() == ["[(1, 'MainProcess')] (1,) (1, (1, 'child'))"], done.stderr


HALF_THERE: Final = """
import tqshim
from tqshim.runtime import late

if not tqshim.seen:
    tqshim.seen.append(None)
    tqshim.seen[0] = late.room("half_there")  # as a signal handler would, just here
whole = True
"""


IN_SERVER: Final = """
import multiprocessing, sys
if "MAIN" != "main imports it" or __name__ != "__main__":
    import tqshim

def engine_is_there():
    return "tqshim.engine.engine" in sys.modules

if __name__ == "__main__":
    context = multiprocessing.get_context("forkserver")
    if "MAIN" == "preloaded":
        context.set_forkserver_preload(["tqshim"])
    elif "MAIN" == "nothing is preloaded":
        context.set_forkserver_preload([])
    with context.Pool(1) as pool:
        print(pool.apply(engine_is_there), engine_is_there())
"""


# Before 3.14 some fork servers import the program's main module, and some don't, by their patch level.
@pytest.mark.parametrize(
    "what", ["preloaded", "nothing is preloaded", *["main imports it"] * (sys.version_info >= (3, 14))]
)
def test_a_fork_server_that_imports_the_package_has_the_engine_for_its_children(what: str, tmp_path: Path) -> None:
    """A child of one that does not, and a program, import it with their first queue."""
    program = tmp_path / "program.py"
    program.write_text(IN_SERVER.replace("MAIN", what))
    done = subprocess.run([sys.executable, program], env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True, **PIPES)
    assert (done.stdout.split(), done.stderr) == ([str(what != "nothing is preloaded"), "False"], "")


def test_who_interrupts_the_import_of_a_room_finds_it_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_there.py").write_text(HALF_THERE, "utf-8")
    monkeypatch.setattr(tqshim, "__path__", [*tqshim.__path__, str(tmp_path)])
    seen: list[Any] = []
    monkeypatch.setattr(tqshim, "seen", seen, raising=False)
    try:
        room = late.room("half_there")
        assert room.whole
        assert seen[0].whole
        assert seen[0] is not room
        assert late.room("half_there") is room
    finally:
        sys.modules.pop("tqshim.half_there", None)


def test_an_import_of_a_room_goes_on_though_a_handler_that_imports_has_interrupted_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's own fails then, before 3.12: where it takes the module's lock."""
    for name in ("wanted", "besides"):
        (tmp_path / f"{name}.py").write_text("whole = True", "utf-8")
    monkeypatch.setattr(tqshim, "__path__", [*tqshim.__path__, str(tmp_path)])
    steps: list[int] = []

    def trace(frame: Any, event: str, _: Any) -> Any:
        if frame.f_code.co_name != "acquire" or "importlib" not in frame.f_code.co_filename:
            return None
        if event == "line":
            steps.append(frame.f_lineno)
            if len(steps) == 4:
                sys.settrace(None)
                assert late.room("besides").whole
        return trace

    former = sys.gettrace()
    try:
        sys.settrace(trace)
        assert late.room("wanted").whole
        assert late.room("besides").whole
        assert len(steps) >= 4
    finally:
        sys.settrace(former)
        for name in ("wanted", "besides"):
            sys.modules.pop(f"tqshim.{name}", None)


FORKED: Final = """
import os, sys, threading
import tqshim
from tqshim.runtime import late

begun, may_end = threading.Event(), threading.Event()
tqshim.begun, tqshim.may_end = begun, may_end
tqshim.__path__.append(sys.argv[1])
other = threading.Thread(target=late.room, args=("slow",))
other.start()
begun.wait()
threading.Timer(0.1, may_end.set).start()
child = os.fork()
if not child:
    os._exit(late.room("slow").whole + 2)
other.join()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
SLOW: Final = """
import tqshim
tqshim.begun.set()
tqshim.may_end.wait()
whole = True
"""


def test_a_fork_waits_for_the_import_of_a_room_by_another_thread(tmp_path: Path) -> None:
    """In the child that import would never end: each caller that needs the room would wait for it."""
    (tmp_path / "slow.py").write_text(SLOW, "utf-8")
    command = [sys.executable, "-c", FORKED, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["3"]


COLLECTING: Final = """
import gc, os, sys
import tqshim

before = sys.argv[1]
if before == "off":
    gc.disable()
if before == "frozen":
    gc.freeze()
said, frozen = gc.isenabled(), gc.get_freeze_count()
run = []
gc.callbacks.append(lambda phase, _: run.append(phase))
queue = tqshim.TurboQueue()
gc.callbacks.clear()
modules = [name for name in sys.modules if name.startswith("tqshim.engine.")]
queue.close()
print(len(modules) > 20, gc.isenabled() == said, abs(gc.get_freeze_count() - frozen) < 100, len(run) < 3)
"""


@pytest.mark.parametrize("before", ["on", "off", "frozen"])
def test_the_first_queue_leaves_the_collector_as_it_is(before: str) -> None:
    """No garbage is collected while the engine is imported; what the program has frozen stays so."""
    done = subprocess.run([sys.executable, "-c", COLLECTING, before], cwd=ROOT, **PIPES, text=True)
    assert done.stdout.split() == ["True"] * 4, done.stderr


IN_THE_MIDDLE: Final = """
import gc, os
assert not gc.isenabled()
child = os.fork()
if not child:
    os._exit(gc.isenabled() + 2)
status = os.waitpid(child, 0)[1]
raise KeyError(status >> 8)
"""


def test_an_import_that_fails_or_forks_leaves_the_collector_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A forked child may never come back to it."""
    (tmp_path / "in_the_middle.py").write_text(IN_THE_MIDDLE, "utf-8")
    monkeypatch.setattr(tqshim, "__path__", [*tqshim.__path__, str(tmp_path)])
    assert gc.isenabled()
    with pytest.raises(KeyError, match="3"):
        late.room("in_the_middle")
    assert gc.isenabled()


AT_A_FORK: Final = """
import os, sys, tempfile, threading, time
import tqshim

begun, may_end = threading.Event(), threading.Event()

def slowly():
    begun.set()
    may_end.wait()

class Slow:
    def find_spec(name, *_):
        if name == sys.argv[1]:
            slowly()

if sys.argv[1] == "tempfile":
    theirs = tempfile._candidate_tempdir_list
    tempfile._candidate_tempdir_list = lambda: (slowly(), theirs())[1]
sys.meta_path.insert(0, Slow)
other = threading.Thread(target=tqshim.TurboQueue)
other.start()
begun.wait(1)  # for ever, where it does not come to that
threading.Timer(0.1, may_end.set).start()
child = os.fork()
if not child:
    may_end.set()
    queue = tqshim.TurboQueue()
    queue.put(7)
    os._exit(queue.get())
for _ in range(2000):
    found, status = os.waitpid(child, os.WNOHANG)
    if found:
        break
    time.sleep(0.01)
else:
    os.kill(child, 9)
print(os.waitstatus_to_exitcode(status) if found else "hangs")
other.join()
"""


@pytest.mark.in_turn
@pytest.mark.parametrize("during", ["tempfile", "_ctypes", "tqshim.engine.engine"])
def test_a_fork_while_another_thread_makes_the_first_queue(during: str) -> None:
    """The child makes one of its own."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", AT_A_FORK, during], cwd=ROOT, **PIPES, text=True)
    assert done.stdout.split() == ["7"], done.stderr


IN_A_HANDLER: Final = """
import signal, sys, tempfile
import tqshim

seen = []

def handle(*_):
    try:
        queue = tqshim.TurboQueue()
        queue.put(1)
        seen.append(queue.get())
    except (AttributeError, ImportError):  # a module that is half there, as with the standard library's
        seen.append(None)

def come():
    if not seen:
        seen.append("come")
        signal.raise_signal(signal.SIGUSR1)

class Finder:
    def find_spec(name, *_):
        if name == sys.argv[1]:
            come()

signal.signal(signal.SIGUSR1, handle)
if sys.argv[1] == "tempfile":
    theirs = tempfile._candidate_tempdir_list
    tempfile._candidate_tempdir_list = lambda: (come(), theirs())[1]
sys.meta_path.insert(0, Finder)
for number in range(2):
    queue = tqshim.TurboQueue()
    queue.put(number)
    print(queue.get())
"""


@pytest.mark.parametrize("during", ["tempfile", "_ctypes", "tqshim.engine.engine"])
def test_a_handler_that_makes_a_queue_while_the_first_one_is_made(during: str) -> None:
    """That one, and all later ones, work."""
    done = subprocess.run([sys.executable, "-c", IN_A_HANDLER, during], cwd=ROOT, **PIPES, text=True)
    assert done.stdout.split() == ["0", "1"], done.stderr


NOWHERE: Final = """
import os, sys, tempfile, tqshim
os.chdir(sys.argv[1])
os.rmdir(sys.argv[1])
os.environ["TMPDIR"] = "relative"
queue = tqshim.TurboQueue()
queue.put(1)
print(queue.get())
"""


def test_a_first_queue_in_a_folder_that_was_deleted(tmp_path: Path) -> None:
    """A relative ``TMPDIR`` is nowhere then."""
    command = [sys.executable, "-c", NOWHERE, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, **PIPES, text=True)
    assert done.stdout.split() == ["1"], done.stderr


GONE: Final = """
import os, resource, shutil, sys
import tqshim
from tqshim.protocol import names

assert tqshim.__file__.startswith(sys.argv[1])
q = tqshim.TurboQueue()
q.put(bytes(100_000))
assert len(q.get()) == 100_000
if sys.argv[2] == "gone":
    shutil.rmtree(sys.argv[1])
for number in range(20):  # large ones, whose files are filled again
    q.put(bytes(1_000_000))
    assert len(q.get()) == 1_000_000
folder, journal = q._engine.folder, q._engine.parts.replica.journal.number
for number in range(5000):
    q.put(number)
    assert q.get() == number
assert q._engine.parts.replica.journal.number > journal, "it has not rolled"
q._engine.parts.reclaimer._scan()
child = os.fork()
if not child:
    q.put(q.get() + 1)
    os._exit(0)
q.put(5)
os.waitpid(child, 0)
assert q.get(timeout=60) == 6
opened = []
if sys.argv[2] == "full":
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    try:
        while True:
            opened.append(os.open("/", os.O_RDONLY))
    except OSError:
        pass
print(folder.set_aside(names.FileId(0, 1), "damaged").endswith("/corrupt_ready_0_1"))
print("tqshim.storage.corrupt" in sys.modules)
while opened:
    os.close(opened.pop())
q.close()
print(os.path.exists(folder.path))
"""


@pytest.mark.in_turn
@pytest.mark.parametrize("how", ["gone", "full"])
def test_a_program_goes_on_without_the_package_on_the_disk_or_descriptors(how: str, tmp_path: Path) -> None:
    """An update takes the package away, as a change of the root or the user does.  What a queue needs that is in use is
    there: it rolls, fills files again, forks, and ends; damage is reported although the file can't be set aside."""
    shutil.copytree(ROOT / "tqshim", tmp_path / "tqshim", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-c", GONE, str(tmp_path / "tqshim"), how]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, text=True, **PIPES)
    assert done.stdout.split() == ["True", "False", "False"], done.stderr


class Theirs(typing.NamedTuple):
    first: int
    second: str


class Ours(NamedTuple):
    first: int
    second: str


def test_our_named_tuples_are_as_those_of_typing() -> None:
    theirs, ours = Theirs(1, "a"), Ours(1, "a")
    assert ours == theirs == (1, "a")
    assert hash(ours) == hash(theirs)
    assert (ours.first, ours.second) == (1, "a")
    assert repr(ours) == repr(theirs).replace("Theirs", "Ours")
    assert type(pickle.loads(pickle.dumps(ours))) is Ours
    assert Ours._fields == Theirs._fields
    assert not hasattr(ours, "__dict__")
    with pytest.raises(AttributeError):
        ours.first = 2  # type: ignore[misc]
    assert Lease(0, 1, 2, 3, 4).number == 3
