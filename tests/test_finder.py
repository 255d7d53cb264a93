"""How rooms are found and read: as the import system would, only faster."""

from __future__ import annotations

import importlib
import os
import pkgutil
import shutil
import subprocess
import sys
import zipapp
from importlib.machinery import FileFinder, SourceFileLoader
from pathlib import Path
from typing import Any

import pytest

import tqshim
from tqshim.runtime import finder

COUNT = """
import sys
from importlib.machinery import SourceFileLoader
ordinary, read = [], SourceFileLoader.get_code
def get_code(self, name):
    ordinary.append(name)
    return read(self, name)
SourceFileLoader.get_code = get_code
import tqshim
q = tqshim.Queue()
q.put(tqshim.errors.MARK)
rooms = [name for name in sys.modules if name.startswith("tqshim.")]
print(q.get(), len(set(ordinary) & set(rooms)), len(rooms))
"""
"""Prints a mark that was in the source, and how many rooms the import system has read itself, of how many."""
FIRST = {"tqshim.runtime", "tqshim.runtime.finder"}
"""What is read before it."""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package, without bytecode."""
    shutil.copytree(Path(tqshim.__file__).parent, tmp_path / "tqshim", ignore=shutil.ignore_patterns("__pycache__"))
    mark(tmp_path, 1)
    return tmp_path


def mark(copy: Path, number: int) -> None:
    room = copy / "tqshim" / "errors.py"
    lines = [line for line in room.read_text().splitlines() if not line.startswith("MARK")]
    room.write_text("\n".join([*lines, f"MARK = {number}", ""]))


def started(copy: Path, *options: str, **variables: str) -> list[int]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, *options, "-c", COUNT],
        env={**environment, "PYTHONPATH": str(copy), **variables},
        capture_output=True,
        text=True,
        cwd=copy,
    )
    assert not done.returncode, done.stderr
    return [int(word) for word in done.stdout.split()]


def test_rooms_say_of_themselves_what_the_import_system_says() -> None:
    names = [found.name for found in pkgutil.walk_packages(tqshim.__path__, "tqshim.")]
    assert len(names) > 50
    for name in names:
        if name.endswith("__main__"):
            continue
        module: Any = importlib.import_module(name)
        folder = os.path.dirname(module.__path__[0] if hasattr(module, "__path__") else module.__file__)
        ordinary = FileFinder(folder, (SourceFileLoader, [".py"])).find_spec(name)
        assert ordinary is not None and isinstance(module.__loader__, SourceFileLoader)
        for attribute in ("name", "origin", "cached", "has_location", "parent", "submodule_search_locations"):
            assert getattr(module.__spec__, attribute) == getattr(ordinary, attribute), (name, attribute)
        assert module.__loader__.path == module.__file__ == ordinary.origin  # type: ignore[union-attr]
        assert module.__loader__.get_source(name).startswith('"""')


def test_a_room_that_is_not_there_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'tqshim.engine.nothing'"):
        importlib.import_module("tqshim.engine.nothing")


def test_a_room_can_be_loaded_again_and_caches_can_be_cleared() -> None:
    importlib.invalidate_caches()
    room = importlib.import_module("tqshim.bench.chart")
    assert importlib.reload(room) is room
    sys.path_importer_cache.clear()
    del sys.modules["tqshim.bench.chart"]
    assert importlib.import_module("tqshim.bench.chart").__file__ == room.__file__


@pytest.mark.in_turn
def test_bytecode_is_written_once_and_used_as_long_as_it_fits(copy: Path) -> None:
    number, ordinary, rooms = started(copy)
    assert (number, ordinary) == (1, rooms)
    assert started(copy) == [1, len(FIRST), rooms]
    mark(copy, 23)  # of another length
    assert started(copy) == [23, len(FIRST) + 1, rooms]
    assert started(copy) == [23, len(FIRST), rooms]
    mark(copy, 42)
    os.utime(copy / "tqshim" / "errors.py", (1e9, 1e9))  # of another time alone
    assert started(copy) == [42, len(FIRST) + 1, rooms]
    assert started(copy) == [42, len(FIRST), rooms]


@pytest.mark.in_turn
@pytest.mark.parametrize("kind", ["checked-hash", "unchecked-hash"])
def test_other_bytecode_is_the_import_systems(copy: Path, kind: str) -> None:
    command = [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", kind, str(copy / "tqshim")]
    subprocess.run(command, check=True)
    number, ordinary, rooms = started(copy)
    assert (number, ordinary) == (1, rooms)
    mark(copy, 23)
    assert started(copy)[0] == (23 if kind == "checked-hash" else 1)


@pytest.mark.in_turn
def test_bytecode_that_is_cut_short_is_made_anew(copy: Path) -> None:
    rooms = started(copy)[2]
    for bytecode in (copy / "tqshim" / "engine" / "__pycache__").glob("acts.*"):
        bytecode.write_bytes(bytecode.read_bytes()[:10])
    assert started(copy) == [1, len(FIRST) + 1, rooms]
    assert started(copy) == [1, len(FIRST), rooms]


@pytest.mark.in_turn
def test_bytecode_of_another_path_says_where_its_source_is(copy: Path) -> None:
    subprocess.run([sys.executable, "-m", "compileall", "-q", "-d", "/elsewhere", str(copy / "tqshim")], check=True)
    code = "import tqshim.engine.acts as a; print(a.Acts.act.__code__.co_filename)"
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    command = [sys.executable, "-c", code]
    said = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == str(copy / "tqshim" / "engine" / "acts.py")


@pytest.mark.in_turn
def test_where_no_bytecode_lies_beside_its_source_the_import_system_reads_it(copy: Path, tmp_path: Path) -> None:
    for _ in range(2):
        number, ordinary, rooms = started(copy, PYTHONPYCACHEPREFIX=str(tmp_path / "elsewhere"))
        assert (number, ordinary) == (1, rooms)
        number, ordinary, rooms = started(copy, "-B")
        assert (number, ordinary) == (1, rooms)
    assert not list(copy.glob("tqshim/**/__pycache__"))


def test_optimised_bytecode_is_its_own(copy: Path) -> None:
    rooms = started(copy)[2]
    assert started(copy, "-O") == [1, rooms, rooms]
    assert started(copy, "-O") == [1, len(FIRST), rooms]


def test_a_package_in_an_archive_is_read_from_there(copy: Path, tmp_path: Path) -> None:
    (copy / "__main__.py").write_text("import tqshim\nq = tqshim.Queue(); q.put(1); print(q.get(), q.path)\n")
    zipapp.create_archive(copy, tmp_path.parent / f"{tmp_path.name}.pyz")
    archive = tmp_path.parent / f"{tmp_path.name}.pyz"
    done = subprocess.run([sys.executable, str(archive)], capture_output=True, text=True, env=os.environ, check=True)
    assert done.stdout == "1 None\n"


def test_it_is_used_here() -> None:
    assert isinstance(tqshim.errors.__spec__.loader, finder._Room)
