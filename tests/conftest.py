"""What all tests share: a folder of their own for anonymous queues, start methods, switches, workers.

After each test, and once more after the session, nothing may lie in that folder: a queue whose users are gone, killed
or not, is gone once another queue has been made.
"""

from __future__ import annotations

import faulthandler
import gc
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from hypothesis import HealthCheck, settings

HERE = Path(__file__).absolute().parent
PACKAGE = HERE.parent
CONTRACT = HERE / "contract"


def roomy(folder: str) -> bool:
    """Files can be made there, and a gigabyte of them has room."""
    if not os.access(folder, os.W_OK):
        return False
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize > 1 << 30


SHM = "/dev/shm" if roomy("/dev/shm") and not os.environ.get("TQSHIM_PORTABLE") else None
sys.path.insert(0, str(HERE))
import own_folder  # noqa: E402

ROOT = own_folder.make("test-run-of-tqshim-", SHM)
os.environ["TQSHIM_DIR"] = ROOT
# What spills out of queues that go with that folder goes, too.
SPILL = own_folder.make("test-run-of-tqshim-")
os.environ["TQSHIM_SPILL_DIR"] = SPILL
# For children that are no multiprocessing ones: this package, and the programs that they run.
os.environ["PYTHONPATH"] = os.pathsep.join([str(PACKAGE), str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
for folder in (str(PACKAGE), str(HERE)):
    if folder not in sys.path:
        sys.path.insert(0, folder)

import may_skip  # noqa: E402
from compiling import compiled  # noqa: E402
from places import lacking, needs  # noqa: E402
from programs.crew import Crew  # noqa: E402
from sampling import REST, SEED, SHARE, TURNS, examples, has_turn  # noqa: E402

import tqshim.engine.registry  # noqa: E402
import tqshim.engine.tuning  # noqa: E402
import tqshim.storage.places  # noqa: E402

METHODS = multiprocessing.get_all_start_methods()
SWITCHES = ("LEASES", "RESERVATIONS", "SHORT_WAYS", "SPINNING")
FORKED = 10
"""Forked workers: as many as any test wants."""
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # So shells start what runs in their background, and what tests start would inherit it: deaf to Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples each time, or those of the seed in ``TQSHIM_SEED``; and no limit on the time of one.
settings.register_profile(
    "same",
    max_examples=examples(100),
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("random", settings.get_profile("same"), derandomize=False)
SEEDED = bool(os.environ.get("TQSHIM_SEED"))
settings.load_profile("random" if SEEDED else "same")

HANG = 240
"""Seconds after which a test must hang; stress tests get ten times as much."""
STDERR = 2
PATIENCE = 20.0
"""Seconds for which children that are just ending may keep a folder."""


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Each of some workers and a thousand children would compile anew all that it imports."""
    if SEEDED and config.getoption("hypothesis_seed", None) is None:
        config.option.hypothesis_seed = str(SEED)  # which hypothesis reads next, and prints where a test fails
    global STDERR
    STDERR = os.dup(2)  # before a test's output is captured: what is said of one that hangs would be lost with it
    config.pluginmanager.register(may_skip, "may_skip")
    if not hasattr(config, "workerinput"):
        wanted = [Path(argument.partition("::")[0]).absolute() for argument in config.args]
        tests = [test for one in wanted for test in ([one] if one.is_file() else one.rglob("test_*.py"))]
        compiled([PACKAGE / room for room in ("tqshim", "tests", "compat")], tests)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Cases that take long come in turn."""
    marked = {mark.name for mark in item.iter_markers()}
    if "in_turn" in marked and "stress" not in marked and not has_turn(item.nodeid, TURNS):
        for mark in REST:
            item.add_marker(mark)


@pytest.hookimpl(trylast=True)  # a share of what the markers have left
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where a share of the tests runs, all of the contract do."""
    if SHARE > 1:
        wanted: dict[bool, list[pytest.Item]] = {True: [], False: []}
        for item in items:
            wanted[CONTRACT in item.path.parents or has_turn(item.nodeid, SHARE)].append(item)
        items[:] = wanted[True]
        config.hook.pytest_deselected(items=wanted[False])


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in which only this test's anonymous queues lie."""
    folder = Path(os.environ["TQSHIM_DIR"]) / ("root-" + tmp_path.name)
    folder.mkdir()
    monkeypatch.setenv("TQSHIM_DIR", str(folder))
    yield folder
    left = [path.name for path in folder.iterdir()]
    shutil.rmtree(folder)
    assert left == []


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where a queue may lie."""
    return str(tmp_path / "queue")


@pytest.fixture(scope="session", autouse=True)
def forkserver_of_the_session() -> None:
    """It keeps the environment of its first use: not that of a test that has set another root for queues.

    Its children find pytest imported: each that calls a function of a test would import it anew, 0.3 s of processor."""
    if "forkserver" in METHODS:
        from multiprocessing import forkserver

        forkserver.set_forkserver_preload(["__main__", "pytest"])
        forkserver.ensure_running()


def leftovers(root: str = ROOT) -> list[str]:
    """Queue folders there, living or dead."""
    return sorted(name for name in os.listdir(root) if name.startswith(("tqshim-", "dead_tqshim-")))


def settle(allowed: set[str], root: str = ROOT) -> list[str]:
    """What is left in there although nobody uses it: after a look, a collection, and another queue's making."""
    deadline = time.monotonic() + PATIENCE
    first = True
    while True:
        found = [name for name in leftovers(root) if name not in allowed]
        if not found or time.monotonic() > deadline:
            return found
        if first:
            gc.collect()
            first = False
        else:
            time.sleep(0.01)  # for children that are just ending
        tqshim.TurboQueue().close()


def in_use() -> set[str]:
    """Folders of queues that this process still has handles of."""
    return {os.path.basename(engine.folder.path) for engine in list(tqshim.engine.registry.Engine.all)}


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: Any) -> Iterator[None]:
    outcome: Any = yield
    if outcome.get_result().failed:
        item.tqshim_failed = True


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test leaves the folder of anonymous queues as it found it, and ends."""
    before = in_use() | set(leftovers())
    limit = HANG * (10 if request.node.get_closest_marker("stress") else 1)
    faulthandler.dump_traceback_later(limit, exit=True, file=STDERR)
    yield
    failed = getattr(request.node, "tqshim_failed", False)
    if failed:  # its frames, and what lives in them, are kept for the report
        before |= in_use()
    found = settle(before)
    faulthandler.cancel_dump_traceback_later()
    if found and not failed:
        pytest.fail(f"left over in {ROOT}: {found}")


def pytest_collection_finish() -> None:
    """All that is there by now, hundreds of thousands of objects, stays to the end of the session.

    Who collects garbage need not look at it again, nor has the kernel to copy it when that happens beside a child."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session) -> None:
    # Handles that were pickled and never came to life keep a folder for a minute: don't wait for it.
    tqshim.storage.places.MARKER_LIFE = 0.0
    sys.last_traceback = sys.last_value = None  # type: ignore[assignment]
    found = settle(in_use())
    shutil.rmtree(ROOT, ignore_errors=True)
    shutil.rmtree(SPILL, ignore_errors=True)
    if hasattr(session.config, "workeroutput"):  # one of several processes that run the tests
        session.config.workeroutput["left over"] = found
        return
    left_over = [*found, *_left_by_workers]
    if left_over:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        print(f"\nleft over after the session: {left_over}", file=sys.__stderr__)


_left_by_workers: list[str] = []


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A process that ran tests has ended."""
    _left_by_workers.extend(getattr(node, "workeroutput", {}).get("left over", []))


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    """A start method of multiprocessing."""
    return str(request.param)


@pytest.fixture
def context(method: str) -> Any:
    """The context of a start method."""
    return multiprocessing.get_context(method)


@pytest.fixture(params=["", *(switch.lower() for switch in SWITCHES), ",".join(SWITCHES).lower()])
def without(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Optimisations that are switched off, here and in children that are not forked: none, each, all."""
    off = str(request.param)
    monkeypatch.setenv("TQSHIM_WITHOUT", off)
    for switch in SWITCHES:
        monkeypatch.setattr(tqshim.engine.tuning, switch, switch.lower() not in off.split(","))
    return off


@pytest.fixture
def many_rolls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Queues that this process makes roll their journal every few events."""
    monkeypatch.setattr(tqshim.engine.tuning, "LIMITS", (16, 64))


@pytest.fixture
def all_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """No consumer of this process leases all that comes: what it gets was cut."""
    monkeypatch.setattr(tqshim.engine.tuning, "SOLE", False)


@pytest.fixture(scope="session")
def crews() -> Iterator[Callable[[str, int], Crew]]:
    """Workers of a start method, that many; made when first wanted, kept for the session."""
    made: dict[str, Crew] = {}
    if "fork" in METHODS:
        # All of them before there is any queue, whose handle they would inherit and never let go.
        made["fork"] = Crew("fork")
        made["fork"].grow(FORKED)

    def crew(start_method: str, size: int) -> Crew:
        found = made.setdefault(start_method, Crew(start_method))
        found.grow(size)
        return found

    yield crew
    for one in made.values():
        one.close()


@pytest.fixture
def crew(crews: Callable[[str, int], Crew], method: str) -> Iterator[Callable[[int], Crew]]:
    """So many workers of each start method; they forget the test's queues at its end."""
    used: list[Crew] = []

    def get(size: int) -> Crew:
        used.append(crews(method, size))
        return used[-1]

    yield get
    for one in used[:1]:
        one.forget()


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A tmpfs of 64 MB on which anonymous queues lie; spilled files go elsewhere."""
    disk, spill = tmp_path / "disk", tmp_path / "spill"
    disk.mkdir()
    spill.mkdir()
    needs("mount", "--version")
    words = ["mount", "-t", "tmpfs", "-o", "size=64m,mode=0700", "tqshim-test", str(disk)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        lacking("small tmpfs", done.stderr.strip())
    monkeypatch.setenv("TQSHIM_DIR", str(disk))
    monkeypatch.setenv("TQSHIM_SPILL_DIR", str(spill))
    try:
        yield disk
        gc.collect()  # exceptions that were caught still hold their frames
        deadline = time.monotonic() + PATIENCE
        left = ["?"]
        while left and time.monotonic() < deadline:
            left = [name for name in os.listdir(disk) if "tqshim" in name] + os.listdir(spill)
            time.sleep(0.005)  # children that were forked may be just ending
        assert left == []
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.fixture
def small_disk_alone(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, with no other place to go to."""
    monkeypatch.setenv("TQSHIM_SPILL_DIR", str(small_disk))
    return small_disk
