"""A continuous-integration run may skip only what is listed, each listed reason occurs, and any other skip fails."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import may_skip
from may_skip import MAY_SKIP

HERE = Path(__file__).resolve().parent
PATIENCE = 120.0
PROGRAM = """
import pytest

def test_passes(): pass
def test_a_process_exits_although_nobody_reads(): pytest.skip("once is enough")
def test_it_is_another_that_may(): pytest.skip("once is enough")
@pytest.mark.skipif(True, reason="queue.Queue.shutdown is of Python 3.13")
def test_of_another_version(): pass
def test_is_skipped_within(): pytest.skip("no such thing here")
@pytest.mark.skipif(True, reason="no such mark here")
def test_is_skipped_by_a_mark(): pass
@pytest.mark.skipif(True, reason="there is no short way")
def test_may_be_skipped_elsewhere(): pass
@pytest.mark.xfail(reason="known", raises=AssertionError)
def test_is_expected_to_fail(): assert False
"""


def test_each_reason_in_the_list_is_one_that_there_is() -> None:
    """As a whole string of some test, but for what is filled in."""
    own = (Path(may_skip.__file__).resolve(), Path(__file__).resolve())
    text = "\n".join(path.read_text("utf-8") for path in HERE.rglob("*.py") if path not in own)
    assert [reason for reason in MAY_SKIP if not _stands(reason, text)] == []
    assert not _stands("no such reason", text) and not _stands("no Python * here", text)
    assert not _stands("no such place here: *", text)


def _stands(reason: str, text: str) -> bool:
    place = re.fullmatch(r"no (.*) here: \*", reason)  # as places.lacking says it, of what a test needs
    if place is not None:
        return f'"{place[1]}"' in text or all(f'"{word}"' in text for word in place[1].split())
    return re.search('"' + r'[^"\n]*'.join(map(re.escape, reason.split("*"))) + '"', text) is not None


def test_what_is_not_in_the_list_fails(tmp_path: Path) -> None:
    """Also a whole file."""
    (tmp_path / "test_single.py").write_text(PROGRAM, "utf-8")
    (tmp_path / "test_whole.py").write_text("import pytest\npytest.importorskip('no_such_module')\n", "utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TQSHIM_")}
    environment.update(PYTEST_DISABLE_PLUGIN_AUTOLOAD="1", TQSHIM_ALL_PLACES="1")
    options = ["-p", "may_skip", "-p", "no:cacheprovider", "-q", "-rfE", "-c", os.devnull, "--rootdir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--continue-on-collection-errors", str(tmp_path)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    told = done.stdout
    here = sys.version_info >= (3, 13)
    counts = "1 skipped, 1 xfailed, 4 errors" if here else "2 skipped, 1 xfailed, 3 errors"
    assert f"2 failed, 1 passed, {counts}" in told, told + done.stderr
    assert {line.split(" - ")[0] for line in told.splitlines() if line.startswith(("FAILED", "ERROR "))} == {
        "FAILED test_single.py::test_is_skipped_within",
        "FAILED test_single.py::test_it_is_another_that_may",
        "ERROR test_single.py::test_is_skipped_by_a_mark",
        "ERROR test_single.py::test_may_be_skipped_elsewhere",
        "ERROR test_whole.py",
        *(["ERROR test_single.py::test_of_another_version"] if here else []),
    }
    assert "'no such thing here' is not in tests/may_skip.py" in told
    assert "may be skipped elsewhere (without what is switched off: the default run has it)" in told
