"""CPython's own queue tests pass with TurboQueue, and the runner that says so can also report failures."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from sampling import sampled

from compat import cpython_suite
from compat import interpreters as others
from compat.interpreters import VERSIONS, interpreters

RUNNER = cpython_suite.__file__
SUMMARY = re.compile(r"^(\w+), Python .*: (\d+) run, (\d+) failed, (\d+) skipped, (\d+) excluded$", re.MULTILINE)
QUICK = ("WithProcessesTestQueue.*", "AdaptedTest.*", "FifoTest.*", "Test*", "SimpleFifoTest.test_order")

if importlib.util.find_spec("test._test_multiprocessing") is None:
    pytest.skip("this interpreter comes without its test suite", allow_module_level=True)


def run_suite(*arguments: str, python: str = sys.executable, path: Path | None = None) -> CompletedProcess[str]:
    """Run the runner and return what it printed; `path` is where it finds further modules."""
    environment = dict(os.environ)
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    return subprocess.run(
        [python, RUNNER, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=540,
        check=False,
    )


def assert_passed(outcome: CompletedProcess[str], *methods: str) -> None:
    """Check that each of `methods` ran tests and that none failed."""
    assert outcome.returncode == 0, outcome.stdout
    summaries = SUMMARY.findall(outcome.stdout)
    assert [summary[0] for summary in summaries] == list(methods), outcome.stdout
    for _, run, failed, skipped, excluded in summaries:
        assert int(failed) == 0
        assert int(run) - int(skipped) > 0
        assert int(excluded) > 0


def selectors(*patterns: str) -> list[str]:
    """Return the options that select `patterns`."""
    return [f"-k={pattern}" for pattern in patterns]


@pytest.mark.parametrize("method", sampled("suite", list(cpython_suite.METHODS), 1))
def test_turboqueue_passes_the_queue_tests_of_this_interpreter(method: str) -> None:
    """The quick ones: all but those of processes and barriers in general and of fifty threads."""
    outcome = run_suite("-v", "--method", method, *selectors(*QUICK))
    assert_passed(outcome, method)
    names = set(re.findall(r"^(test_\w+) \(", outcome.stdout, re.MULTILINE))
    assert names >= {"test_put", "test_get", "test_fork", "test_qsize", "test_timeout", "test_nowait"}


@pytest.mark.stress
@pytest.mark.timeout(600)
@pytest.mark.parametrize("queue", ["tqshim", "stdlib"])
@pytest.mark.parametrize("version", VERSIONS)
def test_all_queue_tests_pass_on_each_version(version: str, queue: str) -> None:
    """All start methods; the stdlib's own queue is the control: what fails with it says nothing about TurboQueue."""
    if version not in interpreters():
        pytest.skip(f"no Python {version} with its test suite here; TQSHIM_PYTHONS can name one")
    assert_passed(run_suite("--queue", queue, python=interpreters()[version]), *cpython_suite.METHODS)


def test_a_version_that_was_asked_for_and_is_not_there_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tested: list[tuple[str, bool]] = []
    other, absent = [version for version in VERSIONS if not version.startswith("{}.{}".format(*sys.version_info))][:2]
    monkeypatch.setattr(others, "interpreters", lambda: {other: "python"})

    def run_suite(version: str, python: str, tests: tuple[str, ...]) -> bool:
        assert set(others.QUICK) <= set(tests)
        tested.append((version, set(others.MORE) <= set(tests)))
        return True

    monkeypatch.setattr(others, "run_suite", run_suite)
    assert others.main(["--only", other]) == 0
    assert others.main(["--only", other, "--only", absent, "--more"]) == 1
    assert f"not found, and so not tested: Python {absent}; TQSHIM_PYTHONS can name one" in capsys.readouterr().out
    assert others.main(["--only", absent, "--list"]) == 0
    assert tested == [(other, False), (other, True)]
    assert all((others.ROOT / test).exists() for test in (*others.QUICK, *others.MORE))


def test_each_version_has_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest each time; of the others as many seeds in a row have each once."""
    found = ["3.9", "3.10", "3.12", "3.13"]
    monkeypatch.delenv("TQSHIM_SHARE", raising=False)
    assert others.in_turn(found) == found
    monkeypatch.setenv("TQSHIM_SHARE", "4")
    turns = []
    for seed in range(1000, 1003):
        monkeypatch.setenv("TQSHIM_SEED", str(seed))
        turns += others.in_turn(found)
    assert sorted(turns) == ["3.10", "3.12", "3.13", "3.9", "3.9", "3.9"]
    assert others.in_turn(["3.9"]) == ["3.9"]


def test_a_version_that_may_not_be_missing_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(others, "interpreters", dict)
    monkeypatch.setattr(others, "passes", lambda *_, **variables: variables == {"TQSHIM_PORTABLE": "1"})
    for strict, status in (("", 0), ("1", 1)):
        monkeypatch.setenv("TQSHIM_ALL_PLACES", strict)
        assert others.main([]) == status
    missed = re.findall("^Python ([^:]*): MISSING", capsys.readouterr().out, re.MULTILINE)
    assert missed == [version for version in VERSIONS if version not in (*others.MAY_LACK, others.HERE)]
    assert {"3.9", "3.10", "3.12", "3.13"} - {others.HERE} <= set(missed)


LIFO = """
import multiprocessing.queues
class Queue(multiprocessing.queues.Queue):
    def get(self, block=True, timeout=None):
        item = super().get(block, timeout)
        return {2: 3, 3: 2}.get(item, item)
"""


@pytest.mark.in_turn
def test_a_queue_out_of_order_fails(tmp_path: Path) -> None:
    """The tests reach the substituted class, and their failure is the runner's."""
    (tmp_path / "swapping.py").write_text(LIFO)
    options = ("--queue", "swapping:Queue", "--method", "spawn", *selectors("WithProcessesTestQueue.test_get"))
    outcome = run_suite(*options, path=tmp_path)
    assert outcome.returncode == 1
    assert SUMMARY.findall(outcome.stdout)[0][1:3] == ("1", "1"), outcome.stdout
    assert "AssertionError: 3 != 2" in outcome.stdout


ELSEWHERE = """
from multiprocessing.queues import Queue as Other
class Queue:
    def __new__(cls, maxsize=0, *, ctx):
        return Other(maxsize, ctx=ctx)
"""


def test_a_test_that_never_makes_the_queue_fails(tmp_path: Path) -> None:
    """A test that passes with another queue than the one under test proves nothing."""
    (tmp_path / "elsewhere.py").write_text(ELSEWHERE)
    options = ("--queue", "elsewhere:Queue", "--method", "fork", *selectors("*Test.test_references_*"))
    outcome = run_suite(*options, path=tmp_path)
    assert outcome.returncode == 1
    assert SUMMARY.findall(outcome.stdout)[0][1:3] == ("1", "1"), outcome.stdout
    assert "test_references_are_dropped_with_the_item made no queue of the class under test" in outcome.stdout


HANGING = """
import multiprocessing.queues, time
from compat import cpython_suite
cpython_suite.TEST_TIMEOUT = 0.5
class Queue(multiprocessing.queues.Queue):
    def get(self, block=True, timeout=None):
        time.sleep(60)
"""


def test_a_test_that_hangs_ends_the_run_with_its_trace(tmp_path: Path) -> None:
    """A hang is a failure that shows where it hangs."""
    (tmp_path / "hanging.py").write_text(HANGING)
    options = ("--queue", "hanging:Queue", "--method", "fork", *selectors("WithProcessesTestQueue.test_timeout"))
    outcome = run_suite(*options, path=tmp_path)
    assert outcome.returncode == 1
    assert "Timeout" in outcome.stdout
    assert "hanging.py" in outcome.stdout
    assert not SUMMARY.findall(outcome.stdout)


def test_a_run_of_no_test_fails() -> None:
    """A pattern that matches nothing is no success."""
    outcome = run_suite("--queue", "stdlib", "--method", "fork", *selectors("NoSuchTest.*"))
    assert outcome.returncode == 1
    assert "no test was executed" in outcome.stdout


def test_an_exclusion_without_a_test_is_an_error() -> None:
    """Exclusions go when the tests they name have gone; other versions' entries do not count."""
    entry = cpython_suite.Exclusion("SomeTest.test_*", (3, 9), (3, 11), "reason")
    tests = {"SomeTest.test_one", "OtherTest.test_one"}
    assert cpython_suite.leave_out(tests, (entry,), (3, 11)) == {"SomeTest.test_one"}
    assert cpython_suite.leave_out(tests, (entry,), (3, 12)) == set()
    with pytest.raises(LookupError, match="SomeTest"):
        cpython_suite.leave_out({"OtherTest.test_one"}, (entry,), (3, 9))


def test_users_of_a_queue_are_found_through_calls_and_written_modules() -> None:
    """A queue made by a called function, or in the text of a module, counts; a manager's or a thread's does not."""
    source = """
def make():
    return multiprocessing.Queue()
class T:
    def test_direct(self): self.Queue(1)
    def test_called(self): make()
    def test_written(self): write("q = multiprocessing.Queue()")
    def test_manager(self): self.manager.Queue()
    def test_thread(self): pyqueue.Queue()
    def test_context(self): get_context("spawn").Queue()
"""
    expected = {"make", "T.test_direct", "T.test_called", "T.test_written", "T.test_context"}
    assert cpython_suite.queue_users(source) == expected
