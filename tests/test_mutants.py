"""Faults that are planted in a copy of the engine are caught by tests of the contract, which use public names only.

A few of them in each run, chosen by ``TQSHIM_SEED``; all of them under the marker ``stress``, or by
``python tests/mutants.py``."""

from __future__ import annotations

import ast
import os
import random
import re
import sys
from pathlib import Path

import mutants
import pytest
from documents import between, rows
from mutant_list import MUTANTS
from sampling import SEED

import tqshim
import tqshim.engine.tuning

CONTRACT = Path(mutants.ROOT / mutants.TESTS)
FEW = 2
AS_ALWAYS = (
    sys.platform == "linux"
    and tqshim.engine.tuning.SHORT_WAYS
    and not {"TQSHIM_WITHOUT", "TQSHIM_PORTABLE", "TQSHIM_CHECK"}.intersection(os.environ)
)
PUBLIC = {"tqshim", *(name.split(".")[0] for name in sys.stdlib_module_names)} if sys.version_info >= (3, 10) else set()
OWN = {path.stem for path in CONTRACT.glob("*.py")}
OF_PYTHON = ("__code__", "__enter__", "__exit__", "__traceback__")


def of_a_test(path: Path) -> set[str]:
    """The tests in a file, without their parameters."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {one.name for one in tree.body if isinstance(one, ast.FunctionDef) and one.name.startswith("test_")}


def test_there_are_enough_of_them_and_each_has_a_name_of_its_own() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 60
    assert all(mutant.old != mutant.new for mutant in MUTANTS)


def test_the_old_text_of_each_stands_in_the_package_once() -> None:
    rooms = {mutants.place(mutant).parts[0] for mutant in MUTANTS}
    assert {"engine", "protocol", "sync", "storage", "queues", "runtime"} <= rooms


@pytest.mark.in_turn
def test_the_new_text_of_each_compiles() -> None:
    for mutant in MUTANTS:
        text = mutants.sources()[mutants.place(mutant)]
        compile(text.replace(mutant.old, mutant.new), mutant.name, "exec")


def test_an_old_text_that_stands_nowhere_or_twice_is_an_error() -> None:
    for old, told in (("this stands nowhere", "nowhere"), ("from __future__ import annotations", "__init__.py")):
        with pytest.raises(ValueError, match=re.escape(told)):
            mutants.place(MUTANTS[0]._replace(old=old))


def test_each_names_a_test_of_the_contract() -> None:
    known = {path.name: of_a_test(path) for path in CONTRACT.glob("test_*.py")}
    for mutant in MUTANTS:
        file, test = mutant.test.split("::")
        assert test.split("[")[0] in known[file], mutant.name


def test_the_page_has_all_of_them() -> None:
    assert between("mutants").strip() == mutants.table()
    shown = rows("mutants")
    assert [row[0] for row in shown] == [mutant.name for mutant in MUTANTS]
    assert {len(row) for row in shown} == {4}


@pytest.mark.skipif(sys.version_info < (3, 10), reason="there is no list of the standard library's modules")
@pytest.mark.parametrize("path", sorted(CONTRACT.glob("*.py")), ids=lambda path: path.name)
def test_tests_of_the_contract_use_public_names_only(path: Path) -> None:
    """No room of the package, no name of it that begins with an underscore, nor such an attribute of anything."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [one.name for one in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module != "__future__":
            modules = [node.module or "."]
            if modules == ["tqshim"]:
                found += [f"tqshim.{one.name}" for one in node.names if one.name not in tqshim.__all__]
        found += [one for one in modules if one.split(".")[0] not in {*PUBLIC, *OWN, "pytest", "hypothesis"}]
        found += [one for one in modules if one.startswith("tqshim.")]
        if isinstance(node, ast.Attribute):
            hidden = node.attr.startswith("_") and node.attr not in OF_PYTHON
            of_tqshim = isinstance(node.value, ast.Name) and node.value.id == "tqshim"
            if hidden and not (isinstance(node.value, ast.Name) and node.value.id == "os" and node.attr == "_exit"):
                found.append(f"line {node.lineno}: .{node.attr}")
            if of_tqshim and node.attr not in tqshim.__all__:
                found.append(f"line {node.lineno}: tqshim.{node.attr}")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("vars", "setattr"):
            found.append(f"line {node.lineno}: {node.func.id}")
    assert not found


@pytest.mark.in_turn
def test_a_fault_that_its_test_does_not_notice_survives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutants, "TRIES", 2)
    name = next(one for one in mutants.sources()[Path("__init__.py")].splitlines() if one.startswith('"""'))
    test = "test_contract_order.py::test_an_object_that_is_put_twice_arrives_twice"
    harmless = MUTANTS[0]._replace(old=name, new=name + " ", test=test)
    (verdict,) = mutants.judge_all([harmless])
    assert verdict.what == "survived"


@pytest.mark.in_turn
def test_a_limit_that_strikes_just_as_its_test_has_ended_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest takes it for an error of its own there, and says nothing of the test any more."""
    monkeypatch.setattr(mutants, "HANG", "0.5")
    test = "test_contract_order.py::test_an_object_that_is_put_twice_arrives_twice"
    with mutants.copied() as home:
        with (home / "conftest.py").open("a", encoding="utf-8") as file:
            file.write("\n\nimport time\n\n\ndef pytest_runtest_makereport():\n    time.sleep(20)\n")
        outcome = mutants.run(home, [test])[test]
    assert outcome.what == "failed" and "Timeout" in outcome.how


def check(chosen: list[mutants.Mutant]) -> None:
    wrong = [verdict for verdict in mutants.judge_all(chosen) if verdict.what != mutants.CAUGHT]
    told = "\n".join(f"{one.mutant.name}: {one.what} ({one.mutant.test}) {one.how}" for one in wrong)
    assert not wrong, f"TQSHIM_SEED={SEED}\n{told}"


@pytest.mark.in_turn
@pytest.mark.skipif(not AS_ALWAYS, reason="some are in what is only used on Linux, with all optimisations")
def test_a_few_are_caught() -> None:
    check(random.Random(SEED).sample(MUTANTS, FEW))


@pytest.mark.stress
@pytest.mark.skipif(not AS_ALWAYS, reason="as above")
def test_all_are_caught() -> None:
    check(MUTANTS)
