"""Run each program of this folder, and tests that packages bring, as they are and under ``python -m tqshim run``.

    python -m compat.programs [--big] [NAME ...]

A program passes if both runs end alike: with the same exit code and the same output, and if our queues were made in the
second one and none in the first; some make none by themselves, and must go on as they are. What a program prints is
what became of what it sent through its queues. One that is not installed fails.

``--big``: programs that take long to install or to run (extra: ``big-programs``), alone.
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
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parent.parent
PATIENCE: Final = 120.0
"""Seconds for one run."""
AT_ONCE: Final = 2
"""Programs that run at the same time: most of them wait most of the time."""
SAME: Final = "the same"
NOT_HERE: Final = "not in this version of Python"


class Program(NamedTuple):
    """What is run, and what must be installed for it."""

    name: str
    arguments: tuple[str, ...]
    needs: str
    package: str = ""
    """The distribution that ``needs`` comes with; none for the standard library."""
    big: bool = False
    ours: bool = True
    """It makes queues of ours; others bring their own, or do without."""
    hasty: bool = False
    """It gives processes a part of a second to start: where one comes too late, with our queues, it is tried again."""
    least: tuple[int, int] = (3, 9)
    """The first version of Python that has what it needs."""


def scripts(name: str, needs: str, package: str, methods: tuple[str, ...] = ("",), **more: Any) -> list[Program]:
    """A script of this folder, once for each start method."""
    path = str(HERE / f"{name}.py")
    return [
        Program(f"{name} {method}".strip(), (path, *filter(None, [method])), needs, package, **more)
        for method in methods
    ]


METHODS: Final = ("fork", "spawn", "forkserver")
FORK: Final = ("fork",)
PROGRAMS: Final = (
    *scripts("listener", "logging", "", METHODS),
    *scripts("refactoring", "lib2to3", "", ("",)),
    *scripts("loguru_enqueue", "loguru", "loguru", METHODS),
    *scripts("mpire_pool", "mpire", "mpire", METHODS),
    *scripts("logging_handler", "multiprocessing_logging", "multiprocessing-logging", ("",)),
    *scripts("aioprocessing_queues", "aioprocessing", "aioprocessing", METHODS),
    Program("aiomultiprocess tests", ("-m", "aiomultiprocess.tests"), "aiomultiprocess", "aiomultiprocess", hasty=True),
    *scripts("billiard_pool", "billiard", "billiard"),
    *scripts("black_format", "black", "black", ours=False),
    *scripts("cloudpickle_recipe", "cloudpickle", "cloudpickle"),
    *scripts("concurrent_log", "concurrent_log_handler", "concurrent-log-handler", METHODS),
    *scripts("configured_logging", "logging", "", METHODS, least=(3, 13)),
    *scripts("coverage_processes", "coverage", "coverage"),
    *scripts("deap_evolution", "deap", "deap", ours=False),
    *scripts("dill_recipe", "dill", "dill"),
    *scripts("gymnasium_vector", "gymnasium", "gymnasium", ("fork", "spawn")),
    *scripts("honcho_manager", "honcho", "honcho"),
    *scripts("joblib_parallel", "joblib", "joblib", ours=False),
    *scripts("locust_consumer", "locust", "locust"),
    *scripts("luigi_tasks", "luigi", "luigi"),
    *scripts("nfstream_flows", "nfstream", "nfstream"),
    *scripts("pathos_pool", "pathos", "pathos"),
    *scripts("pebble_pool", "pebble", "pebble", ("fork", "spawn")),
    *scripts("pylint_parallel", "pylint", "pylint", ours=False),
    *scripts("scrapy_process", "scrapy", "scrapy"),
    *scripts("sphinx_parallel", "sphinx", "sphinx", ours=False),
    *scripts("tqdm_progress", "tqdm", "tqdm", ours=False),
    *scripts("parmap_progress", "parmap", "parmap", ours=False),
    *scripts("batchgenerators_augmenter", "batchgenerators", "batchgenerators", big=True),
    *scripts("celery_worker", "celery", "celery", big=True),
    *scripts("distributed_nanny", "distributed", "distributed", big=True),
    *scripts("django_q_cluster", "django_q", "django-q2", big=True, ours=False),
    *scripts("frozen", "PyInstaller", "pyinstaller", big=True),
    *scripts("gensim_topics", "gensim", "gensim", big=True),
    *scripts("notebook", "nbclient", "nbclient", big=True),
    *scripts("parsl_apps", "parsl", "parsl", big=True, ours=False),
    *scripts("torch_loader", "torch", "torch", METHODS, big=True),
    *scripts("torch_queues", "torch", "torch", METHODS, big=True),
)
LEFT_OUT: Final = {
    "pypeln 0.4.9": "its stopit imports pkg_resources, which setuptools no longer has",
}
"""Programs that can't be run, and why."""


class Outcome(NamedTuple):
    """How a run ended; ``ours``: our queues were made."""

    code: int
    output: str
    ours: bool


def run(program: Program, turbo: bool) -> Outcome:
    """One run, in a folder of its own, with a folder of its own for queues."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as queues:
        environment = {**os.environ, "TQSHIM_DIR": queues, "PYTHONWARNINGS": "ignore", "PYTHONHASHSEED": "0"}
        environment["PYTHONFAULTHANDLER"] = "1"
        before = os.stat(queues).st_mtime_ns
        code, output = end_of(program.arguments, turbo, folder, environment, PATIENCE * (5 if program.big else 1))
        ours = os.stat(queues).st_mtime_ns != before
    told = re.sub(r"\d+\.\d+ ?s\b|(?<=process )\d+", "…", output)  # times and process numbers
    return Outcome(code, told, ours)


def end_of(
    arguments: Iterable[str], turbo: bool, folder: str, environment: dict[str, str], patience: float
) -> tuple[int, str]:
    """Run Python in a folder, as it is or under ``python -m tqshim run``: the exit code, and all that was said.  What
    lasts longer is ended with all its processes."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, *(("-m", "tqshim", "run") if turbo else ()), *arguments],
        cwd=folder,
        env={**environment, "PYTHONPATH": paths},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="backslashreplace",
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        _abort(process.pid)
        output = f"hangs:\n{process.communicate()[0]}"
    return process.returncode, output


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


AGAIN: Final = 2
"""A program that fails without us is tried so often again: mpire takes a worker for dead on a busy machine.  So is one
that comes to something else without us: gevent raises in the standard library's ``put`` now and then, in locust's."""


def difference(program: Program) -> str:
    """Run a program both ways; what is wrong, or nothing."""
    theirs = run(program, False)
    for _ in range(AGAIN):
        if theirs.code:
            theirs = run(program, False)
    if theirs.code:
        return f"fails without us, too: {theirs.code}\n{theirs.output}"
    ours = run(program, True)
    for _ in range(AGAIN if program.hasty else 0):
        if ours.code:
            ours = run(program, True)
    for _ in range(AGAIN):
        if theirs[:2] != ours[:2] and not ours.code:
            theirs = run(program, False)
    if theirs[:2] != ours[:2]:
        return f"{theirs.code}, and with our queues {ours.code}:\n{theirs.output}\n{ours.output}"
    if theirs.ours or ours.ours != program.ours:
        return "makes no queue of ours" if not ours.ours else "makes queues of ours by itself"
    return ""


def missing(program: Program) -> bool:
    """What the program stands on is not installed."""
    return importlib.util.find_spec(program.needs) is None


def outcome(program: Program) -> tuple[str, float]:
    """What came of a program, and after how many seconds."""
    began = time.monotonic()
    if sys.version_info < program.least or (program.needs == "lib2to3" and sys.version_info >= (3, 13)):
        result = NOT_HERE
    else:
        result = (f"{program.needs} is not installed" if missing(program) else difference(program)) or SAME
    return result, time.monotonic() - began


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m compat.programs", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", nargs="*", help="the beginning of a program's name (default: all)")
    parser.add_argument("--big", action="store_true", help="programs that take long to install or to run, alone")
    options = parser.parse_args(arguments)
    chosen = [
        one
        for one in PROGRAMS
        if (one.name.startswith(tuple(options.name)) if options.name else one.big == options.big)
    ]
    failed = False
    ran: list[str] = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for program, (result, seconds) in zip(chosen, pool.map(outcome, chosen)):
            known = program.package and not missing(program)
            version = f" {importlib.metadata.version(program.package)}" if known else ""
            print(f"{program.name}{version}: {result} ({seconds:.0f} s)", flush=True)
            failed |= result not in (SAME, NOT_HERE)
            ran += [program.name] * (result != NOT_HERE)
    for name, reason in LEFT_OUT.items():
        print(f"{name}: left out, for {reason}")
    idle = [name for name in options.name or [""] if not any(one.startswith(name) for one in ran)]
    for name in idle:
        print(f"no program {f'whose name begins with {name} ' if name else ''}was run")
    return int(failed or bool(idle))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
