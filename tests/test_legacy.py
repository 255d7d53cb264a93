"""The programs of compat/legacy: one import line apart, and no other difference that anyone could see.

Each program exists twice, as `NAME_mp.py` over multiprocessing.Queue and as `NAME_turbo.py` over TurboQueue. Here
both run as a user runs them, from the top folder, and must print the same; what they print is also compared with what
it must be, so that two programs that are wrong in the same way don't pass.
"""

from __future__ import annotations

import difflib
import multiprocessing
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest
import sampling

ROOT = pathlib.Path(__file__).absolute().parent.parent
LEGACY = ROOT / "compat" / "legacy"
PROGRAMS = sorted(path.name[: -len("_mp.py")] for path in LEGACY.glob("*_mp.py"))
METHODS = multiprocessing.get_all_start_methods()
LIMIT = 120  # seconds for one program, which takes one or two

# Lines that a right run prints, worked out here and not by the programs.
EXPECTED = {
    "bounded_pipeline": ["400 lines, 2000 words", "queues empty: True"],
    "burst_and_barrier": ["4 workers passed the barrier", "100 items, each once: True", "in order: True"],
    "logging_listener": [
        "worker.0 INFO    job 00 begins",
        "worker.3 ERROR   job 09 fails ZeroDivisionError: division by zero",
        "worker.2 WARNING job 08 ends with 2",
        "80 records",
    ],
    "parse_stdlib": ["longest functions lines"],
    "ping_pong": ["the ball was hit 2000 times; the other side says bye"],
    "pool_initializer": ["reports: 300", "reports agree with results: True"],
    "producer_consumer": [
        *(f"producer {number}: 500 items consumed" for number in range(3)),
        f"sum of squares: {3 * sum(number**2 for number in range(500))}",
        "each producer's items in order: True",
        "left over: 0",
    ],
    "scraper": ["120 of 120 pages in the table, 7 of them missing", "words: 22487"],
    "task_pool": ["2000 tasks, 2000 of them right"],
    "threads_and_processes": [
        *(f"{kind} {n}: 300 items, 300 different, sum 44850" for kind in ("process", "thread") for n in range(2)),
        "1200 items in 4 shares",
        "in order: True",
    ],
    "thumbnails": ["60 thumbnails, 216000 bytes of pixels, 0 failed"],
    "worker_framework": [
        "660 tasks, 72 tried again, 12 failed",
        f"flaky    {sum(number for number in range(1, 61) if number % 5)}",
        "ConnectionError: 12",
    ],
}


def command(program: str, version: str, *options: str) -> list[str]:
    return [sys.executable, "-m", f"compat.legacy.{program}_{version}", *options]


def start(
    words: list[str], environment: dict[str, str] | None = None, stderr: int = subprocess.PIPE
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], limit: float = LIMIT) -> tuple[str, str]:
    """Wait for a program; if it hangs, end it with all its children and say so."""
    try:
        return process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # the whole session: its workers hold the pipes open
        output, errors = process.communicate()
        pytest.fail(f"{process.args!r} hangs\nstdout: {output}\nstderr: {errors}")


def run(words: list[str], environment: dict[str, str] | None = None) -> tuple[str, str]:
    process = start(words, environment)
    output, errors = finish(process)
    assert process.returncode == 0, f"{words}: exit code {process.returncode}\n{errors}"
    return output, errors


def options_for(program: str) -> list[str]:
    return ["--limit", "40", "--workers", "3"] if program == "parse_stdlib" else []


def files_below(folder: pathlib.Path) -> list[pathlib.Path]:
    return [path for path in folder.rglob("*") if not path.is_dir()]


def test_each_program_comes_in_two_versions() -> None:
    assert sorted(EXPECTED) == PROGRAMS
    assert {path.name for path in LEGACY.glob("*.py")} - {"__init__.py"} == {
        f"{program}_{version}.py" for program in PROGRAMS for version in ("mp", "turbo")
    }


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_two_versions_differ_in_their_import_line_only(program: str) -> None:
    old, new = ((LEGACY / f"{program}_{version}.py").read_text().splitlines() for version in ("mp", "turbo"))
    changes = [line for line in difflib.ndiff(old, new) if line[0] in "-+"]
    assert changes == ["- from multiprocessing import Queue", "+ from tqshim import TurboQueue as Queue"]


@pytest.mark.in_turn
@pytest.mark.parametrize("program", sampling.sampled("programs", list(PROGRAMS), 3, rest=False))
def test_both_versions_print_what_they_must_and_the_turbo_version_leaves_nothing(
    program: str, tmp_path: pathlib.Path
) -> None:
    """With one start method each, others with each seed."""
    run_both(program, sampling.chooser(program).choice(METHODS), tmp_path)


@pytest.mark.stress
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_both_versions_print_the_same_with_every_start_method(
    program: str, method: str, tmp_path: pathlib.Path
) -> None:
    run_both(program, method, tmp_path)


def run_both(program: str, method: str, tmp_path: pathlib.Path) -> None:
    options = ["--method", method, *options_for(program)]
    expected, errors = run(command(program, "mp", *options))
    missing = set(EXPECTED[program]) - set(expected.splitlines())
    assert not missing, expected
    output, our_errors = run(command(program, "turbo", *options), {"TQSHIM_DIR": str(tmp_path)})
    assert output == expected
    if program != "parse_stdlib":
        assert (errors, our_errors) == ("", "")
    assert files_below(tmp_path) == []


# --- the main job ----------------------------------------------------------------------------------------------------

GOOD = b"""\
import os.path, sys
from . import sibling
from collections.abc import Iterator

class Kind:
    async def method(self):
        pass

def longest():
    import sys
    return [
        1,
    ]
"""


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """Make a folder with two good files and all that a parser may choke on."""
    top = tmp_path / "sources"
    for name, content in {
        "good.py": GOOD,
        "sub/latin.py": b"# coding: latin-1\nname = '\xe9'\n",
        "sub/notes.txt": b"no Python",
        "site-packages/other.py": b"import nothing\n",
        "grammar.py": b"def\n",
        "encoding.py": b"# coding: nonsense\n",
        "bytes.py": b"name = '\xe9'\n",
        "null.py": b"x = 1\0\n",
        "nested.py": b"(" * 5000 + b")" * 5000,
        "chained.py": b"x" + b".y" * 100_000,
    }.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(content)
    return top


@pytest.mark.parametrize("version", ["mp", "turbo"])
def test_main_job_counts_and_skips_what_does_not_parse(version: str, folder: pathlib.Path) -> None:
    output, errors = run(command("parse_stdlib", version, "--workers", "2", str(folder)))
    figures = dict(re.findall(r"^(files \w+|lines|imports|functions|classes) +(\d+)", output, re.MULTILINE))
    # Whether a very long chain is too deep depends on the interpreter; the other five never parse.
    deep = 0 if re.search(r"RecursionError|MemoryError 2", output) is None else 1
    assert figures == {
        "files parsed": str(3 - deep),
        "files skipped": str(5 + deep),
        "lines": str(GOOD.count(b"\n") + 2),
        "imports": "4",
        "functions": "2",
        "classes": "1",
    }
    assert re.search(r"^sys +2$", output, re.MULTILINE)
    assert re.search(r"^longest +5  good\.py:9$", output, re.MULTILINE)
    assert re.search(r"^method +2  good\.py:6$", output, re.MULTILINE)
    assert "nothing" not in output
    assert "Traceback" not in errors


@pytest.mark.in_turn
@pytest.mark.parametrize("version", ["mp", "turbo"])
def test_main_job_shows_progress_and_ends_with_how_fast(version: str) -> None:
    output, errors = run(command("parse_stdlib", version, "--limit", "40", "--workers", "2"))
    lines = errors.splitlines()
    assert re.fullmatch(r"1 of 40 files, [\d,]+ a second", lines[0])
    assert re.fullmatch(r"40 of 40 files, [\d,]+ a second", lines[-2])
    assert re.fullmatch(r"40 files, [\d.]+ MB in [\d.]+ s with 2 workers \(\w+\): [\d,]+ files a second", lines[-1])
    assert "a second" not in output


@pytest.mark.parametrize("version", ["mp", "turbo"])
def test_main_job_shows_progress_in_place_on_a_terminal(version: str) -> None:
    terminal, inner = os.openpty()
    try:
        process = start(command("parse_stdlib", version, "--limit", "40", "--workers", "2"), stderr=inner)
        finish(process)
        shown = os.read(terminal, 65536).decode()
    finally:
        os.close(terminal)
        os.close(inner)
    assert process.returncode == 0
    assert shown.startswith("\r1 of 40 files")
    assert "\r40 of 40 files" in shown
    # Two lines in all: the one that is written over again and again, and the last.
    assert shown.replace("\r\n", "\n").count("\n") == 2


@pytest.mark.parametrize("version", ["mp", "turbo"])
def test_ctrl_c_ends_the_main_job_at_once_and_without_a_traceback(version: str, tmp_path: pathlib.Path) -> None:
    # One worker, so that none is just being started, and has not forbidden itself to be interrupted yet.
    process = start(command("parse_stdlib", version, "--workers", "1"), {"TQSHIM_DIR": str(tmp_path)})
    assert process.stderr is not None
    first = process.stderr.readline()  # now all names have been put and the worker is at it
    os.killpg(process.pid, signal.SIGINT)
    _, errors = finish(process)
    assert "of" in first
    assert process.returncode == 130
    assert "Traceback" not in errors
    deadline = time.monotonic() + LIMIT
    while True:  # nobody of its session is left
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        assert time.monotonic() < deadline, "a worker has outlived the job"
        time.sleep(0.01)


@pytest.mark.stress
@pytest.mark.parametrize("method", METHODS)
def test_main_job_prints_the_same_for_the_whole_standard_library(method: str) -> None:
    options = ["--method", method]
    expected, _ = run(command("parse_stdlib", "mp", *options))
    output, errors = run(command("parse_stdlib", "turbo", *options))
    assert output == expected
    assert "Traceback" not in errors
    parsed = re.search(r"^files parsed +([\d,]+)$", output, re.MULTILINE)
    assert parsed is not None
    assert int(parsed[1].replace(",", "")) > 300  # the smallest installations, without tests, have more
