"""Which CPython interpreters of the supported versions this machine has, and the quick suite on each of them.

    python -m compat.interpreters [--only VERSION] [--list]

The quick suite: the tests that hold the contract (QUICK), and CPython's own queue tests with one start method, which
differs from version to version. It runs on every interpreter except the one that runs this program, and on that one as
on systems that are not Linux (TQSHIM_PORTABLE). With TQSHIM_SHARE it runs on the oldest interpreter and on one of the
others, which changes with the seed (TQSHIM_SEED), and CPython's tests run on all. Each interpreter gets an environment
of its own under .venv, kept for the next run, with what the extra `quick` names; where that can't be installed,
CPython's tests run alone. The program names a version that is not found, or for which nothing can be installed, and
does not count it as a failure; a test that fails is a failure, and so is a version that --only names and that is not
found.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import glob
import importlib.metadata
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

VERSIONS: Final = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14", "3.15", "3.13t", "3.14t", "3.15t")
"""Those with a t are the free-threaded builds: `free_threaded.sh` makes one."""
HERE: Final = "{}.{}".format(*sys.version_info) + "t" * bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
"""The running one's."""
MAY_LACK: Final = {
    "3.14": "what installs interpreters knows of none as yet on many machines",
    "3.15": "as above",
    "3.13t": "built from source, by free_threaded.sh",
    "3.14t": "as above",
    "3.15t": "as above",
}
"""Versions that a continuous-integration run may do without, and why."""
EXTRA: Final = "TQSHIM_PYTHONS"  # Further interpreters, separated as in PATH.
PROBE: Final = (
    "import importlib.util, sys, sysconfig; importlib.util.find_spec('test._test_multiprocessing') or sys.exit(1); "
    "free = bool(sysconfig.get_config_var('Py_GIL_DISABLED')); "
    "print(sys.implementation.name, '%d.%d' % sys.version_info[:2] + 't' * free)"
)
ROOT: Final = Path(__file__).resolve().parent.parent
ENVIRONMENTS: Final = ROOT / ".venv" / "others"
METHODS: Final = ("fork", "spawn", "forkserver")
QUICK: Final = (
    "tests/contract",
    *(
        f"tests/test_{name}.py"
        for name in (
            *("queue", "family", "async", "travel", "signals", "traps", "security", "space", "lifetime", "folder"),
            *("instructions", "turbo_queue", "patching", "systems", "names", "states", "copies", "arguments"),
            *("real_queues", "back_jumps", "alone", "short_ways", "start"),
        )
    ),
)
"""What differs between interpreters: calls, signals, forks, pickles, exits, files.  The pure rules don't."""
MORE: Final = tuple(
    f"tests/test_{name}.py" for name in ("sharing", "places", "file_systems", "monitor", "cli", "windows")
)
"""What hardly differs, and is tested at full size alone: commands, odd places, shortages."""
PORTABLE: Final = (*QUICK, "tests/test_crash_table.py")
"""What is tested without all that only Linux has."""
LIMIT: Final = 900.0
"""Seconds that a suite may take before it counts as hanging; a quick one takes 70 to 200, on two processors."""
SETTING_UP: Final = 180.0
"""Seconds that an environment, or what goes into it, may take."""


def roots_of_pyenv() -> list[str]:
    """The folders where pyenv may keep its versions: that of its variable, beside its shims on PATH, at home."""
    shims = [entry for entry in os.environ.get("PATH", "").split(os.pathsep) if os.path.basename(entry) == "shims"]
    named = [os.environ.get("PYENV_ROOT", ""), *map(os.path.dirname, shims), os.path.expanduser("~/.pyenv")]
    return list(dict.fromkeys(filter(None, named)))


@functools.cache
def interpreters() -> dict[str, str]:
    """Return the path of one interpreter that has its test suite for each supported version found.

    They are looked for in this order: the running one, TQSHIM_PYTHONS, python3.X on PATH, pyenv's versions. A program
    that does not run (a shim of a version that is not chosen) is passed over.
    """
    candidates = [sys.executable, *os.environ.get(EXTRA, "").split(os.pathsep)]
    candidates += [shutil.which(f"python{version}") or "" for version in VERSIONS]
    for root in roots_of_pyenv():
        candidates += sorted(glob.glob(os.path.join(root, "versions", "3.*", "bin", "python")))
    found: dict[str, str] = {}
    for path in filter(None, candidates):
        try:
            probe = subprocess.run([path, "-c", PROBE], capture_output=True, text=True, timeout=60, check=True)
        except (OSError, subprocess.SubprocessError):
            continue
        found.setdefault(probe.stdout.strip(), path)
    return {version: found[f"cpython {version}"] for version in VERSIONS if f"cpython {version}" in found}


def needed() -> list[str]:
    """The packages that the quick suite needs, as the extra of that name lists them."""
    wanted = [line.partition(";") for line in importlib.metadata.requires("tqshim") or ()]
    return [name.strip() for name, _, marker in wanted if marker.replace("'", '"').strip() == 'extra == "quick"']


def environment(version: str, python: str) -> str:
    """The interpreter of an environment for the quick suite, made if there is none yet; empty if it can't be made."""
    if not needed():
        print("The extra `quick` is not known to this environment: install tqshim into it anew", flush=True)
        return ""
    home = ENVIRONMENTS / version
    inside = str(home / "bin" / "python")
    names = [name.partition(">")[0] for name in needed()]
    check = f"import importlib.metadata as m; [m.version(name) for name in {names!r}]"
    if os.path.exists(inside) and not subprocess.run([inside, "-c", check], capture_output=True).returncode:
        return inside
    for command in (
        [python, "-m", "venv", "--clear", str(home)],
        [inside, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--prefer-binary", *needed()],
    ):
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SETTING_UP)
            failure = ((done.stderr or done.stdout).strip().splitlines() or ["-"])[-1] if done.returncode else ""
        except (OSError, subprocess.TimeoutExpired) as error:
            failure = str(error)
        if failure:
            print(f"Python {version}: {' '.join(command[1:4])} failed: {failure}", flush=True)
            return ""
    return inside


def passes(title: str, command: list[str], **variables: str) -> bool:
    """Run a command and print how it ended; if it failed, print all its output, too."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **variables}, stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            code = str(process.wait(LIMIT))
        except subprocess.TimeoutExpired:
            code = f"none after {LIMIT:.0f} s"
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # no process of its session is left
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        said = output.read().decode(errors="replace").strip()
    good = code == "0"
    if not good:
        print(said, flush=True)
    closing = said.splitlines()[-1].strip("= ") if said else ""
    seconds = time.monotonic() - began
    print(f"{title}: {'passed' if good else 'FAILED, exit code ' + code}, {seconds:.0f} s: {closing}", flush=True)
    return good


def lacks(versions: Iterable[str]) -> list[str]:
    """Those of the versions that must not be missing here."""
    return [version for version in versions if os.environ.get("TQSHIM_ALL_PLACES") and version not in MAY_LACK]


def in_turn(found: list[str]) -> list[str]:
    """Those of the versions on which the quick suite runs."""
    if not os.environ.get("TQSHIM_SHARE") or len(found) < 2:
        return found
    return [found[0], found[1 + int(os.environ.get("TQSHIM_SEED") or 0) % (len(found) - 1)]]


def run_suite(version: str, python: str, tests: Iterable[str]) -> bool:
    """Run these tests, and CPython's own, on another interpreter."""
    method = METHODS[VERSIONS.index(version) % len(METHODS)]
    inside = environment(version, python) if tests else ""
    suite = [inside or python, "compat/cpython_suite.py", "--method", method]
    with ThreadPoolExecutor() as pool:  # CPython's tests mostly wait
        theirs = pool.submit(passes, f"Python {version}, CPython's tests", suite)
        good = True
        if inside:
            good = passes(f"Python {version}, tests", [inside, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests])
        elif tests:
            good = not lacks([version])
            print(f"Python {version}: without pytest only CPython's own queue tests run", flush=True)
        return theirs.result() and good


def main(arguments: list[str] | None = None) -> int:
    """Run the quick suites one after another; return 0 if all passed."""
    parser = argparse.ArgumentParser(description="Run the quick suite on every other interpreter that is found.")
    parser.add_argument("--only", choices=VERSIONS, action="append", help="this version; may be given again")
    parser.add_argument("--list", action="store_true", help="say what is found and what is not, and run nothing")
    parser.add_argument("--more", action="store_true", help="and what hardly differs between interpreters")
    given = parser.parse_args(arguments)
    tests = (*QUICK, *MORE) if given.more else QUICK
    found = interpreters()
    wanted = [version for version in given.only or VERSIONS if version != HERE]
    for version in wanted:
        print(f"Python {version}: {found.get(version, 'not found: untested here')}", flush=True)
    if given.list:
        return 0
    missing = lacks(version for version in wanted if version not in found)
    for version in missing:
        print(f"Python {version}: MISSING; where TQSHIM_ALL_PLACES is set, it may not be", flush=True)
    there = [version for version in wanted if version in found]
    whole = in_turn(there)
    with ThreadPoolExecutor(1) as pool:
        alone = [pool.submit(run_suite, one, found[one], ()) for one in there if one not in whole]
        good = [not missing, *(run_suite(one, found[one], tests) for one in whole)]
        good += [one.result() for one in alone]
    if not given.only or HERE in given.only:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *PORTABLE]
        good.append(passes(f"Python {HERE}, as on other systems", command, TQSHIM_PORTABLE="1"))
    absent = [version for version in given.only or () if version != HERE and version not in found]
    if absent:
        print(f"not found, and so not tested: Python {', '.join(absent)}; {EXTRA} can name one", flush=True)
    return int(bool(absent) or not all(good))


if __name__ == "__main__":
    sys.exit(main())
