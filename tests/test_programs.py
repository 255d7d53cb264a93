"""Programs of others do the same with our queues as without, and the comparison can tell where they don't."""

from __future__ import annotations

import importlib.metadata
import re
import signal
import sys
from pathlib import Path

import pytest
from documents import rows

from compat.programs import __main__ as programs

HERE = Path(__file__).parent


@pytest.mark.in_turn
@pytest.mark.parametrize(
    "program",
    [
        pytest.param(program, id=program.name, marks=[] if program.name == "listener spawn" else [pytest.mark.stress])
        for program in programs.PROGRAMS
    ],
)
def test_a_program_comes_to_the_same(program: programs.Program) -> None:
    if programs.missing(program) or sys.version_info < program.least:
        pytest.skip(f"{program.needs} is not installed here")
    assert programs.difference(program) == ""


@pytest.mark.parametrize(
    ("source", "finding"),
    [
        (
            "import multiprocessing\nq = multiprocessing.Queue()\nq.put(1)\nprint(type(q).__name__, q.get())\n",
            "and with",
        ),
        ("print('no queue')\n", "makes no queue of ours"),
        ("import tqshim\ntqshim.TurboQueue()\n", "makes queues of ours by itself"),
        ("raise SystemExit(3)\n", "fails without us, too: 3"),
    ],
)
def test_a_difference_is_found(tmp_path: Path, source: str, finding: str) -> None:
    path = tmp_path / "program.py"
    path.write_text(source, "utf-8")
    assert finding in programs.difference(programs.Program("program", (str(path),), "logging"))


@pytest.mark.parametrize("hasty", [False, True])
def test_a_program_that_gives_little_time_is_tried_again(tmp_path: Path, hasty: bool) -> None:
    path = tmp_path / "program.py"
    path.write_text(
        "import multiprocessing, pathlib\nq = multiprocessing.Queue()\nq.put(1)\nprint(q.get())\n"
        "runs = pathlib.Path(__file__).with_name('runs')\n"
        "if 'tqshim' in type(q).__module__ and not runs.exists():\n    runs.touch()\n    raise SystemExit(1)\n",
        "utf-8",
    )
    program = programs.Program("program", (str(path),), "logging", hasty=hasty)
    assert programs.difference(program) == "" if hasty else "and with" in programs.difference(program)


@pytest.mark.in_turn
def test_a_program_that_hangs_says_where_and_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "program.py"
    path.write_text(
        "import os, signal\nprint('began', os.getpid(), flush=True)\nos.fork()\n"
        "def hang():\n    signal.pause()\nhang()\n",
        "utf-8",
    )
    monkeypatch.setattr(programs, "PATIENCE", 2.0)
    outcome = programs.run(programs.Program("program", (str(path),), "logging"), False)
    assert outcome.code == -signal.SIGABRT
    assert outcome.output.startswith("hangs:\nbegan ")
    assert outcome.output.count("in hang") == 2


def test_every_package_is_pinned() -> None:
    """To the version that is run, where it is installed."""
    text = (HERE.parent / "pyproject.toml").read_text("utf-8")
    for extra, big in (("programs", False), ("big-programs", True)):
        listed = text.partition(f"\n{extra} = [")[2].partition("]")[0]
        pinned = dict(re.findall(r'"([\w-]+)==([\d.]+)"', listed))
        chosen = [program for program in programs.PROGRAMS if program.big == big and program.package]
        assert set(pinned) - {"ipykernel"} == {program.package for program in chosen}  # which the notebook needs, too
        for program in chosen:
            if not programs.missing(program):
                assert importlib.metadata.version(program.package).partition("+")[0] == pinned[program.package]


def test_the_page_says_which_versions_are_run() -> None:
    text = (HERE.parent / "pyproject.toml").read_text("utf-8")
    told = [re.findall(r"([\w-]+) (\d[\d.]*)(?=[,:]|$)", row[1]) for row in rows("programs")]
    for ours, packages in ((True, told[0]), (False, told[1])):
        assert {name for name, _ in packages} == {p.package for p in programs.PROGRAMS if p.package and p.ours == ours}
        for name, version in packages:
            assert f'"{name}=={version}"' in text
    assert {f"{name} {version}" for name, version in told[3]} == set(programs.LEFT_OUT)


def test_a_program_that_is_not_installed_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was to be run; one that needs a later Python was not."""
    missing = programs.Program("missing", ("no.py",), "no_such_module", "no-such-package")
    later = programs.Program("later", ("no.py",), "no_such_module", least=(9, 9))
    monkeypatch.setattr(programs, "PROGRAMS", (missing, later))
    assert programs.main([]) == 1
    told = capsys.readouterr().out
    assert "missing: no_such_module is not installed (" in told
    assert "later: not in this version of Python (" in told
    assert all(f"{name}: left out, for " in told for name in programs.LEFT_OUT)
    assert programs.main(["later"]) == 1
    assert "no program whose name begins with later was run" in capsys.readouterr().out
    monkeypatch.setattr(programs, "PROGRAMS", (later,))
    assert programs.main([]) == 1
    assert "no program was run" in capsys.readouterr().out
