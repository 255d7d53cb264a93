"""Compile once, before the tests, what each process would else compile again when it imports it.

Lives here: pytest's own bytecode of the tests, in which asserts say what they compared, and Python's bytecode of all
modules that children import.  Each of pytest's workers would make the former again, in ten seconds of processor time,
and under ``PYTHONDONTWRITEBYTECODE`` in each run.
"""

from __future__ import annotations

import compileall
import multiprocessing
import os
import types
from collections.abc import Iterable
from pathlib import Path

from _pytest.assertion import rewrite

__all__ = ["compiled"]


def compiled(rooms: Iterable[Path], tests: Iterable[Path]) -> None:
    """Both for all of them: folders of sources, and files of tests."""
    for room in rooms:
        compileall.compile_dir(room, quiet=2)
    try:
        new = [str(test) for test in tests if not cached(test)]
        if len(new) > 1 and hasattr(os, "fork"):
            with multiprocessing.get_context("fork").Pool(os.cpu_count()) as pool:
                pool.map(rewrite_asserts, new, 1)
    except (AttributeError, TypeError):
        pass  # another version of pytest: its workers do it


def bytecode(test: Path) -> Path:
    """Where pytest looks for it."""
    return rewrite.get_cache_dir(test) / (test.stem + rewrite.PYC_TAIL)


def cached(test: Path) -> bool:
    """It is there, of just these sources."""
    return rewrite._read_pyc(test, bytecode(test)) is not None


def rewrite_asserts(test: str) -> None:
    """As pytest does when it imports the file; it never reads what is not whole."""
    found, code = rewrite._rewrite_test(Path(test), None)  # type: ignore[arg-type]  # but for hooks that we don't have
    there = bytecode(Path(test))
    there.parent.mkdir(exist_ok=True)
    rewrite._write_pyc(types.SimpleNamespace(trace=print), code, found, there)  # type: ignore[arg-type]
