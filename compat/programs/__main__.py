"""Run each program of this folder, and tests that packages bring, as they are and under ``python -m tqshim run``.

    python -m compat.programs [NAME ...]

A program passes if both runs end alike: with the same exit code and the same output, and if our queues were made in the
second one and none in the first. What a program prints is what became of what it sent through its queues.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final, NamedTuple

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parent.parent
PATIENCE: Final = 120.0
"""Seconds for one run."""


class Program(NamedTuple):
    """What is run, and what must be installed for it."""

    name: str
    arguments: tuple[str, ...]
    needs: str
    package: str = ""
    """The distribution that ``needs`` comes with; none for the standard library."""


def scripts(name: str, needs: str, package: str, methods: tuple[str, ...]) -> list[Program]:
    """A script of this folder, once for each start method."""
    path = str(HERE / f"{name}.py")
    return [Program(f"{name} {method}".strip(), (path, *filter(None, [method])), needs, package) for method in methods]


METHODS: Final = ("fork", "spawn", "forkserver")
PROGRAMS: Final = (
    *scripts("listener", "logging", "", METHODS),
    *scripts("refactoring", "lib2to3", "", ("",)),
    *scripts("loguru_enqueue", "loguru", "loguru", METHODS),
    *scripts("mpire_pool", "mpire", "mpire", METHODS),
    *scripts("logging_handler", "multiprocessing_logging", "multiprocessing-logging", ("",)),
    *scripts("aioprocessing_queues", "aioprocessing", "aioprocessing", METHODS),
    Program("aiomultiprocess tests", ("-m", "aiomultiprocess.tests"), "aiomultiprocess", "aiomultiprocess"),
)


class Outcome(NamedTuple):
    """How a run ended; ``ours``: our queues were made."""

    code: int
    output: str
    ours: bool


def run(program: Program, turbo: bool) -> Outcome:
    """One run, in a folder of its own, with a folder of its own for queues."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as queues:
        environment = {**os.environ, "TQSHIM_DIR": queues, "PYTHONWARNINGS": "ignore", "PYTHONHASHSEED": "0"}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment["PYTHONFAULTHANDLER"] = "1"
        before = os.stat(queues).st_mtime_ns
        process = subprocess.Popen(
            [sys.executable, *(("-m", "tqshim", "run") if turbo else ()), *program.arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            _abort(process.pid)
            output = f"hangs:\n{process.communicate()[0]}"
        ours = os.stat(queues).st_mtime_ns != before
    told = re.sub(r"\d+\.\d+ ?s\b|(?<=process )\d+", "…", output)  # times and process numbers
    return Outcome(process.returncode, told, ours)


def _abort(group: int) -> None:
    """End all processes of a group.  Where they can be listed, one after the other, so that what faulthandler says of
    each, where it hangs, stands together."""
    for pid in sorted(map(int, filter(str.isdigit, os.listdir("/proc")))) if os.path.isdir("/proc/self") else ():
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(pid) == group:
                os.kill(pid, signal.SIGABRT)
                time.sleep(0.5)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGABRT)


def difference(program: Program) -> str:
    """Run a program both ways; what is wrong, or nothing."""
    theirs, ours = run(program, False), run(program, True)
    if theirs.code:
        return f"fails without us, too: {theirs.code}\n{theirs.output}"
    if theirs[:2] != ours[:2]:
        return f"{theirs.code}, and with our queues {ours.code}:\n{theirs.output}\n{ours.output}"
    if theirs.ours or not ours.ours:
        return "makes no queue of ours" if not ours.ours else "makes queues of ours by itself"
    return ""


def missing(program: Program) -> bool:
    """What the program stands on is not installed."""
    return importlib.util.find_spec(program.needs) is None


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m compat.programs", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", nargs="*", help="the beginning of a program's name (default: all)")
    names = parser.parse_args(arguments).name
    chosen = [one for one in PROGRAMS if not names or one.name.startswith(tuple(names))]
    failed = 0
    for program in chosen:
        version = f" {importlib.metadata.version(program.package)}" if program.package and not missing(program) else ""
        wrong = None if missing(program) else difference(program)
        failed += bool(wrong)
        result = "not installed here" if wrong is None else wrong or "the same"
        print(f"{program.name}{version}: {result}", flush=True)
    return int(failed > 0 or not chosen)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
