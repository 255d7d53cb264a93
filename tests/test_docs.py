"""The pages as a whole: no reader gets lost, and commands do what the pages show them for."""

from __future__ import annotations

import asyncio
import doctest
import importlib
import inspect
import multiprocessing
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import evidence
import pytest
from documents import BLOCKS, PAGES, PUBLIC, RETURNED, ROOT, between, commands

from tqshim import TurboQueue

PATIENCE = 120.0


def test_the_readme_takes_two_minutes() -> None:
    assert PAGES["README.md"].count("\n") <= 250


def test_the_readme_leads_to_every_page() -> None:
    linked = set(re.findall(r"\]\(((?:docs/)?[\w-]+\.md)", PAGES["README.md"]))
    assert linked - {"CHANGELOG.md"} == set(PAGES) - {"README.md"}


def test_the_commands_for_a_queue_work_in_the_order_in_which_they_are_shown(tmp_path: Path) -> None:
    """On a queue with three items: each ends well, and the items are where they say."""
    (block,) = [block for block in BLOCKS if block.page == "docs/tools.md" and block.kind == "sh"]
    shown = [re.sub(r"\s+#.*", "", line) for line in block.text.splitlines()]
    with TurboQueue(path=str(tmp_path / "jobs")) as queue:
        queue.put_many(["a", 2, None])
    (tmp_path / "python").symlink_to(sys.executable)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    for command in shown:
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
    assert (tmp_path / "items.jsonl").read_text("utf-8") == '"a"\n2\nnull\n'
    assert not (tmp_path / "jobs").exists()
    with TurboQueue(path=str(tmp_path / "saved")) as queue:
        assert queue.get_many() == ["a", 2, None]


def test_programs_are_run_as_the_page_shows(tmp_path: Path) -> None:
    program = "import multiprocessing, sys; print(type(multiprocessing.Queue()).__name__, sys.argv[1:])"
    for name in ("script.py", "module.py"):
        (tmp_path / name).write_text(program, "utf-8")
    shown = sorted({command for command in commands() if "tqshim run" in command})
    assert len(shown) == 2
    for command in shown:
        words = [sys.executable, *command.split()[1:]]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE)
        assert (done.stdout, done.returncode) == ("TurboQueue ['arguments']\n", 0), done.stderr


def public_things() -> dict[str, Any]:
    """By name: the functions and classes of this package that programs call."""
    found: dict[str, Any] = {}
    for name in PUBLIC:
        module = importlib.import_module(name)
        for thing in (getattr(module, one) for one in module.__all__):
            is_ours = getattr(thing, "__module__", "").startswith("tqshim")
            if is_ours and (inspect.isfunction(thing) or inspect.isclass(thing)) and not is_returned(thing):
                found[f"{name}.{thing.__name__}"] = thing
    return found


def is_returned(thing: Any) -> bool:
    """Programs get it, or catch it, and make none."""
    return (
        hasattr(thing, "__dataclass_fields__")
        or thing.__name__ in RETURNED
        or (inspect.isclass(thing) and issubclass(thing, BaseException))
    )


THINGS = public_things()
WITHOUT_EXAMPLE = ("tqshim.monitor.Watch", "tqshim.kafka.")
"""``watch`` has one; what needs a broker has docs/kafka.md."""


@pytest.mark.parametrize("name", sorted(THINGS))
def test_each_public_name_has_an_example_that_works(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    thing = THINGS[name]
    told: dict[str, Any] = {"asyncio": asyncio, "multiprocessing": multiprocessing, "pickle": pickle}
    for module in ("tqshim.monitor", "tqshim.turbo_queue", "tqshim", thing.__module__):
        told.update(vars(sys.modules[module]))
    runner = doctest.DocTestRunner(verbose=False)
    tried = 0
    for number, test in enumerate(doctest.DocTestFinder().find(thing, thing.__name__, globs=told)):
        place = tmp_path / str(number)
        place.mkdir()
        monkeypatch.chdir(place)
        tried += runner.run(test).attempted
    assert runner.summarize(verbose=False).failed == 0
    assert (tried == 0) == name.startswith(WITHOUT_EXAMPLE)


def test_the_list_of_long_runs_is_of_checks_that_there_are() -> None:
    for check in evidence.CHECKS.values():
        named = [word for word in check.command.split() if "/" in word or word.startswith("compat.")]
        assert named
        for name in named:
            module = ROOT / name.replace(".", "/")
            assert (ROOT / name).exists() or module.with_suffix(".py").is_file() or module.is_dir(), check
    assert set(evidence.newest()) <= set(evidence.CHECKS)
    assert between("evidence").strip() == evidence.table()
    told = subprocess.run(
        [sys.executable, "tests/evidence.py", "nothing"], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE
    )
    assert told.returncode == 2 and "no such check: nothing" in told.stderr


def test_each_long_check_is_run_by_what_the_list_says() -> None:
    """By words of ``.ci/run``, or a test of the default run, which that begins with."""
    lines = (ROOT / ".ci" / "run").read_text("utf-8").replace("\\\n", "").splitlines()
    commands_of_ci = " ".join(" ".join(line for line in lines if not line.lstrip().startswith("#")).split())
    tests = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))

    def runs_by_default(test: str) -> bool:
        above, found, _ = tests.partition(f"\ndef {test}(")
        return bool(found) and "@pytest.mark.stress" not in above.rpartition("\n\n\n")[2]

    assert runs_by_default("test_queue_survives_random_kills") and not runs_by_default("test_random_kills_for_a_minute")
    for name, check in evidence.CHECKS.items():
        assert bool(check.by) == (check.in_ci != "none"), name
        for by in check.by:
            assert runs_by_default(by) if by.startswith("test_") else by in commands_of_ci, f"{name}: {by}"


def test_what_is_noted_of_long_runs_can_be() -> None:
    """Each row has a command and a result, and is of a commit that there is."""
    for row in evidence.rows():
        assert tuple(row) == evidence.COLUMNS
        assert row["command"].startswith("python ") and int(row["seconds"]) > 0
        if row["status"] == "0":
            assert re.search(r"\d", row["result"]) and "no tests ran" not in row["result"], row
    if (ROOT / ".git").exists() and evidence.asked("rev-parse", "--is-shallow-repository").strip() == "false":
        for commit in {row["commit"] for row in evidence.rows()}:
            assert evidence.age(commit).endswith("in tqshim/")
        with pytest.raises(subprocess.CalledProcessError):
            evidence.age("no such commit")


def test_no_long_check_has_failed_when_it_ran_last() -> None:
    failed = [f"{name}: {evidence.told(row)}" for name, row in evidence.newest().items() if row["status"] != "0"]
    assert not failed
