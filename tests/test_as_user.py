"""The tests that ``as_user`` runs are run by a user who is not root, and ``as_user`` fails if one of them fails."""

from __future__ import annotations

import os
from pathlib import Path

import as_user
import own_folder
import pytest
from places import MOUNTS, needs

PROGRAM = """
import os, pathlib, pytest, tempfile

def test_this_is_somebody_else(tmp_path):
    assert os.getresuid() == (54321,) * 3 and os.getgroups() == []
    assert {pathlib.Path(__file__).parent.parent, pathlib.Path(tempfile.gettempdir()).parent} == {pathlib.Path.home()}
    path = tmp_path / "file"
    path.touch(0o400)
    with pytest.raises(PermissionError):
        path.write_text("root may write")

def test_fails():
    assert False
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_user_who_is_not_root_runs_the_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    needs(*MOUNTS)
    needs("setpriv", "--no-new-privs")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_program.py").write_text(PROGRAM, "utf-8")
    made: list[str] = []

    def make(prefix: str) -> str:
        made.append(own_folder.make(prefix))
        return made[-1]

    monkeypatch.setattr(as_user, "make", make)
    monkeypatch.setattr(as_user, "ROOT", tmp_path)
    monkeypatch.setattr(as_user, "COPIED", ("tests",))
    assert as_user.main(["-q", "-n", "0", "-c", os.devnull, "--rootdir", "."]) == 1
    told = capfd.readouterr().out
    assert "1 failed, 1 passed" in told and "test_program.py::test_fails" in told
    assert len(made) == 1 and not os.path.exists(made[0])


def test_who_is_not_root_says_what_was_not_tested(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert as_user.main([]) == 0
    assert "WAS NOT TESTED" in capsys.readouterr().out
