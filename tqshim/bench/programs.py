"""Whole programs, each once over ``multiprocessing.Queue`` and once over ``TurboQueue``.

Lives here: finding pairs of programs, running one program, and what the processes of its tree used.  Not here: turns
and ratios (``rounds``).

A pair is two files in one folder, ``NAME_mp.py`` and ``NAME_turbo.py``, that differ in the import alone.  A run is one
of these programs in an interpreter of its own, from its start to its exit.  The processor time of a run is that of
every process of the program's tree: the program waits for its workers, and on Linux the bench waits for what the
program leaves behind in its process group, such as the servers of ``spawn`` and ``forkserver``.

Invariant: a figure comes only from a run that exits with 0 and prints what its measurement's first run has printed.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Optional

import tqshim
from tqshim.bench.crew import RunError
from tqshim.bench.kinds import STDLIB, TURBO, Kind
from tqshim.bench.measurements import Level, Measurement, Metric
from tqshim.bench.runs import Setting, task_turns

__all__ = ["CPU", "FOLDER", "POOL", "WALL", "find", "measurements", "why_not"]

_ABOVE: Final = os.path.dirname(os.path.dirname(os.path.abspath(tqshim.__file__)))
"""The folder in which this very package lies: the programs must import no other copy of it."""
FOLDER: Final = os.path.join(_ABOVE, "compat", "legacy")
"""The pairs that come with the source; an installed package has none beside it."""
_ENDINGS: Final = {STDLIB: "_mp.py", TURBO: "_turbo.py"}

WALL, CPU = Metric("wall", "s", 3), Metric("processor", "s", 3)

POOL: Final = "task_pool"
"""The pair that is run with tasks of several lengths."""
_LENGTHS: Final = (
    # A second of work for each length, which two processors share in half a second; less where tasks would be too many.
    ("0us", 0.0, 20_000),
    ("10us", 10e-6, 20_000),
    ("100us", 100e-6, 10_000),
    ("1ms", 1e-3, 1_000),
    ("10ms", 10e-3, 100),
)
_WORKERS: Final = (2, 8)
_LONG: Final = {"parse_stdlib": 2}
"""Pairs that take many seconds, and in how many rounds they are run at most."""
_SET_CHILD_SUBREAPER: Final = 36


def find(folder: str) -> list[str]:
    """Return the names of the pairs in a folder."""
    try:
        files = set(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    old, new = _ENDINGS.values()
    names = sorted(file[: -len(old)] for file in files if file.endswith(old))
    return [name for name in names if name + new in files]


def why_not(folder: str) -> str:
    """Return why there is nothing to run in a folder; an empty text: there are pairs."""
    if find(folder):
        return ""
    return (
        f"{folder}: no pairs of programs (NAME_mp.py and NAME_turbo.py) are here. Those of this project come with its"
        " source, not with the package: run this in a checkout, or name a folder with pairs of your own"
    )


def measurements(folder: str, method: Optional[str]) -> Iterator[Measurement]:
    """Yield what is measured of the pairs in a folder: each as it is, and ``POOL`` with tasks of several lengths."""
    options = ["--method", method] if method else []
    for name in find(folder):
        if name == POOL:
            continue
        long = _LONG.get(name, 0)
        yield Measurement(
            name,
            "the program as it is",
            (STDLIB, TURBO),
            (WALL, CPU),
            _Pair(folder, name, options).run,
            Level.DEFAULT if long else Level.QUICK,
            shares=(1.0, 1.0),
            most=long,
        )
    if POOL not in find(folder):
        return
    for workers in _WORKERS:
        for label, seconds, tasks in _LENGTHS:
            words = [*options, "--workers", str(workers)]
            yield Measurement(
                f"{POOL}/{workers}/{label}",
                f"{tasks:,} tasks of {label} each, {workers} workers",
                (STDLIB, TURBO),
                (WALL, CPU),
                _Pair(folder, POOL, words, tasks, seconds).run,
                shares=(0.2, 1.0),
            )


@dataclasses.dataclass
class _Pair:
    """The two versions of a program."""

    folder: str
    name: str
    options: Sequence[str]
    tasks: int = 0
    """How many tasks the program is told to do at full scale; 0: the program takes no such option."""
    seconds: float = 0.0
    """The processor time of each task."""
    turns: Optional[int] = None
    """The same time in turns of ``workers.burn``, as both versions are told it; measured before the first run."""
    printed: Optional[str] = None

    def run(self, kind: Kind, setting: Setting) -> list[float]:
        """Run the version for that kind of queue; return seconds from start to exit, and of processor time."""
        words = [sys.executable, os.path.join(self.folder, self.name + _ENDINGS[kind.name]), *self.options]
        if self.tasks:
            if self.turns is None:
                self.turns = task_turns(self.seconds) if self.seconds else 0
            words += ["--tasks", str(setting.count(self.tasks)), "--turns", str(self.turns)]
        printed, wall, processor = _run(words, setting.limit)
        if self.printed is None:
            self.printed = printed
        if printed != self.printed:
            raise RunError(f"{shlex.join(words)} printed\n{printed}and the first run of the pair\n{self.printed}")
        return [wall, processor]


def _run(words: Sequence[str], limit: float) -> tuple[str, float, float]:
    """Run a program; return what it printed, the seconds until its exit, and the processor time of its tree."""
    _adopt_orphans()
    paths = os.pathsep.join(filter(None, (_ABOVE, os.environ.get("PYTHONPATH"))))
    began = time.perf_counter()
    process = subprocess.Popen(
        words,
        env={**os.environ, "PYTHONPATH": paths},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None and process.stderr is not None
    alarm = threading.Timer(limit, _kill, (process.pid,))
    with process, ThreadPoolExecutor(2) as readers:
        try:
            alarm.start()
            reading = [readers.submit(pipe.read) for pipe in (process.stdout, process.stderr)]
            wall, processor = _reap(process, began)
            output, errors = (read.result() for read in reading)
        except BaseException:
            _kill(process.pid)
            _reap(process, began)
            raise
        finally:
            alarm.cancel()
    if process.returncode == -signal.SIGKILL and wall >= limit:
        raise RunError(f"{shlex.join(words)} has not finished within {limit:g} s\n{errors}")
    if process.returncode:
        raise RunError(f"{shlex.join(words)} has ended with {process.returncode}\n{errors}")
    return output, wall, processor


def _reap(process: subprocess.Popen[str], began: float) -> tuple[float, float]:
    """Wait for a process, and for what it leaves behind in its group; return the seconds until the exit of that
    process, and the processor time of all."""
    wall = processor = 0.0
    while True:
        try:
            # Only its group: other children of this process are not ours to reap.
            number, status, used = os.wait4(-process.pid, 0)
        except ChildProcessError:
            return wall, processor
        processor += used.ru_utime + used.ru_stime  # and that of the children for which it has waited
        if number == process.pid:
            wall = time.perf_counter() - began
            process.returncode = os.waitstatus_to_exitcode(status)


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _adopt_orphans() -> None:
    """Become the parent of the processes that a program leaves behind, where the system can do that."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
