"""CPython's own test modules have the same results under ``run``, and the comparison can tell where they differ."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from documents import rows

from compat import whole_suites

MODULE = """
import multiprocessing, time, unittest

kind = type(multiprocessing.Queue()).__name__

class Mine(unittest.TestCase):
    def test_passes(self):
        pass

    def test_fails_everywhere(self):
        self.fail("no")

    def test_sees_a_difference(self):
        self.assertEqual(kind, "Queue", "not theirs")

    @unittest.skipIf(kind == "{skipped_with}", "")
    def test_is_skipped(self):
        pass
"""


@pytest.mark.in_turn
@pytest.mark.parametrize("skipped_with", ["TurboQueue", ""])
def test_a_difference_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skipped_with: str) -> None:
    """What fails in both runs is none."""
    (tmp_path / "theirs.py").write_text(MODULE.replace("{skipped_with}", skipped_with), "utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    *counts, failure = whole_suites.difference("theirs")
    assert counts == (["(4, 0) tests ran and were skipped, with us (4, 1)"] if skipped_with else [])
    assert failure.startswith("theirs.Mine.test_sees_a_difference fails with our queues alone:\nFAIL: test_sees")
    assert "not theirs" in failure
    monkeypatch.setitem(whole_suites.DIFFERENCES, "*.test_sees_*", "the name")
    assert whole_suites.difference("theirs") == counts


@pytest.mark.in_turn
def test_a_run_that_does_not_end_as_unittest_does_is_a_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "theirs.py").write_text(
        "import multiprocessing, os\nif type(multiprocessing.Queue()).__name__ != 'Queue':\n    os._exit(0)\n" + MODULE,
        "utf-8",
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert any(line.startswith("no end fails with our queues alone") for line in whole_suites.difference("theirs"))


@pytest.mark.parametrize("body", ["import os; os._exit(0)", "", "raise ImportError"], ids=["ends", "empty", "broken"])
def test_a_module_of_which_nothing_runs_without_us_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    (tmp_path / "theirs.py").write_text(body, "utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (told,) = whole_suites.difference("theirs")
    assert told.startswith("without us nothing of it has run, either:\n")


def test_each_difference_is_a_row_of_the_table() -> None:
    assert set(whole_suites.DIFFERENCES.values()) <= {row[0] for row in rows("differences")}


def test_nothing_to_compare_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert whole_suites.main(["test_no_such_module"]) == 1
    assert "comes without it" in capsys.readouterr().out


@pytest.mark.stress
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("module", whole_suites.MODULES)
def test_cpythons_own_tests_come_to_the_same(module: str) -> None:
    if importlib.util.find_spec(f"test.{module}") is None:
        pytest.skip("this interpreter comes without it")
    assert whole_suites.difference(f"test.{module}") == []
