"""Typed code keeps its types: what a checker says of a program does not change with its import line."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import pickle
import re
import subprocess
import sys
import typing
from typing import Any, Final, Generic, TypeVar

import pytest

import tqshim
from tqshim import JoinableTurboQueue, SimpleTurboQueue, TurboQueue

ROOT: Final = pathlib.Path(__file__).absolute().parent.parent
_T = TypeVar("_T")

# A program as people write it for mypy --strict; only its first import line is another one with ours.
PROGRAM: Final = """\
from __future__ import annotations

import multiprocessing
import multiprocessing.context
import queue
from multiprocessing import {names}
from multiprocessing import queues
from typing import Optional


def square(tasks: queues.Queue[Optional[int]], results: queues.Queue[tuple[int, int]]) -> None:
    while (number := tasks.get()) is not None:
        results.put((number, number**2))


class Owner:
    def __init__(self) -> None:
        self.tasks: queues.Queue[Optional[int]] = Queue()
        self.results: queues.Queue[tuple[int, int]] = Queue(maxsize=100)
        self.done: queues.JoinableQueue[str] = JoinableQueue()
        self.log: queues.SimpleQueue[str] = SimpleQueue()

    def run(self, context: multiprocessing.context.BaseContext) -> int:
        worker = multiprocessing.Process(target=square, args=(self.tasks, self.results))
        worker.start()
        for number in range(10):
            self.tasks.put(number, timeout=60)
        self.tasks.put(None)
        total = sum(self.results.get(True, 60)[1] for _ in range(10))
        worker.join()
        self.log.put("text")
        self.done.put(self.log.get())
        self.done.task_done()
        self.done.join()
        try:
            self.results.get_nowait()
        except queue.Empty:
            return total
        other = context.Queue(10)
        return int(other.get())


if __name__ == "__main__":
    print(Owner().run(multiprocessing.get_context()))
"""
STDLIB: Final = PROGRAM.replace("{names}", "JoinableQueue, Queue, SimpleQueue")
OURS: Final = STDLIB.replace("from multiprocessing import JoinableQueue", "from tqshim import JoinableQueue")

# What ours alone can say; the remark behind a line is what a checker must find the expression to be.
TYPES: Final = """\
from pathlib import Path
from typing import Any

import tqshim
from tqshim import Claim, JoinableTurboQueue, SimpleTurboQueue, Stats, TurboQueue, get_context

q = TurboQueue[int](10, path=Path("here"))
reveal_type(q)  # TurboQueue[int]
reveal_type(q.get())  # int
reveal_type(q.get_nowait())  # int
reveal_type(q.get_many())  # list[int]
reveal_type(q.claimed())  # Claim[int]
reveal_type(next(q.drain()))  # int
reveal_type(q.stats())  # Stats
reveal_type(TurboQueue())  # TurboQueue[Any]
reveal_type(JoinableTurboQueue[str]().get())  # str
reveal_type(SimpleTurboQueue[bytes]().get())  # bytes
reveal_type(tqshim.Queue[float]().get())  # float
reveal_type(get_context("spawn").Queue())  # TurboQueue[Any]
reveal_type(get_context().JoinableQueue())  # JoinableTurboQueue[Any]
reveal_type(get_context("spawn"))  # TurboSpawnContext
with q.claimed() as item, q as same:
    reveal_type(item)  # int
    reveal_type(same)  # TurboQueue[int]
process = get_context("spawn").Process(target=print)
other = get_context().Process(target=print)


async def gather() -> list[int]:
    await q.put_async(1)
    reveal_type(await q.get_async())  # int
    return [item async for item in q]


class Named(TurboQueue[str]):
    pass


reveal_type(Named().get())  # str


def work(claim: Claim[int], figures: Stats, queue: TurboQueue[int], untyped: TurboQueue) -> None:
    queue.put_many([claim.redelivered, figures.put])
"""

# Each of these lines is wrong, and a checker must say so.
WRONG: Final = """\
from tqshim import TurboQueue

q = TurboQueue[int]()
q.put("text")  # wrong
q.put_many(["text"])  # wrong
text: str = q.get()  # wrong
other: TurboQueue[str] = q  # wrong
"""


CHECKERS: Final = {
    "mypy": ["--strict", "--cache-dir", os.devnull],
    "pyright": ["--pythonpath", sys.executable],
}
"""Who says what of programs of somebody who has the package installed; where it is installed itself."""


@pytest.mark.in_turn
@pytest.mark.parametrize("checker", CHECKERS)
def test_a_checker_finds_types_of_items_kept_whichever_the_import_line(checker: str, tmp_path: pathlib.Path) -> None:
    """All programs at once: most of its time goes into the standard library's types and ours."""
    if importlib.util.find_spec(checker) is None:
        pytest.skip(f"{checker} is not installed")
    programs = {"stdlib": STDLIB, "ours": OURS, "revealing": TYPES, "wrong": WRONG}
    for name, text in programs.items():
        (tmp_path / f"{name}.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", checker, *CHECKERS[checker], *(f"{name}.py" for name in programs)],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(ROOT), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    output = done.stdout + done.stderr
    marked = {number for number, line in enumerate(WRONG.splitlines(), 1) if "# wrong" in line}
    errors = {(name, int(line)) for name, line in re.findall(r"(\w+)\.py:(\d+):.*error", output)}
    assert errors == {("wrong", number) for number in marked}, output
    assert done.returncode == 1, output
    assert re.search(rf"\b{len(marked)} errors\b", output), output
    revealed = {
        int(line): re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Za-z])", "", kind)
        for line, kind in re.findall(r'revealing\.py:(\d+):.*(?:Revealed type is|is) "(.*)"$', output, re.MULTILINE)
    }
    wanted = {
        number: line.partition("  # ")[2] for number, line in enumerate(TYPES.splitlines(), 1) if "reveal_type(" in line
    }
    assert revealed == wanted


@pytest.mark.parametrize("text", [STDLIB, OURS], ids=["stdlib", "ours"])
def test_the_typed_program_runs_with_either_import_line(text: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "program.py").write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "program.py"]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("285\n", "")


# -- at run time


@pytest.mark.parametrize("kind", [TurboQueue, JoinableTurboQueue, SimpleTurboQueue])
def test_a_queue_class_takes_a_type_at_run_time(kind: Any) -> None:
    q = kind[int]()
    assert type(q) is kind
    q.put(1)
    assert q.get() == 1
    assert typing.get_args(kind[int]) == (int,)
    assert isinstance(pickle.loads(pickle.dumps(q)), kind)
    q.close()


@pytest.mark.parametrize("kind", [TurboQueue, JoinableTurboQueue, SimpleTurboQueue])
def test_a_subclass_may_say_of_what_it_is_or_leave_it_open(kind: Any) -> None:
    class OfText(kind[str]):  # type: ignore[misc]
        pass

    class Open(kind[_T], Generic[_T]):  # type: ignore[misc]
        pass

    for made in (OfText(), Open[int](), Open()):
        made.put("a")
        assert made.get() == "a"
        assert isinstance(made, kind)
        made.close()
    assert kind.__bases__[-1].__module__.startswith("multiprocessing")


def test_what_claimed_and_stats_return_is_public() -> None:
    q = TurboQueue[int]()
    assert type(q.claimed()) is tqshim.Claim
    assert type(q.stats()) is tqshim.Stats
    assert tqshim.Claim[int]
    q.close()


# -- what a handle tells


def test_path_is_where_others_find_the_queue(tmp_path: pathlib.Path) -> None:
    place = tmp_path / "jobs"
    q = TurboQueue[int](path=place)
    assert q.path == str(place)
    assert pickle.loads(pickle.dumps(q)).path == str(place)
    assert TurboQueue[int](path=str(place)).path == str(place)
    q.close()
    assert q.path == str(place)
    anonymous = TurboQueue[int]()
    assert anonymous.path is None
    anonymous.close()


def test_a_subclass_may_have_a_path_of_its_own() -> None:
    class Setting(TurboQueue[int]):
        def __init__(self, path: str) -> None:
            self.path = path
            super().__init__()

    class Calling(TurboQueue[int]):
        def path(self) -> str:  # type: ignore[override]
            return "mine"

    assert Setting("mine").path == "mine"
    assert Calling().path() == "mine"


def test_the_repr_says_where_how_many_and_how_many_at_most(tmp_path: pathlib.Path) -> None:
    place = tmp_path / "jobs"
    q = TurboQueue[int](10, path=place)
    q.put_many([1, 2, 3])
    assert repr(q) == f"<TurboQueue at {str(place)!r}, items=3, maxsize=10>"
    other = JoinableTurboQueue[int]()
    assert repr(other) == "<JoinableTurboQueue anonymous, items=0, maxsize=0>"
    for closed in (q, other):
        closed.close()
    assert repr(q) == f"<TurboQueue at {str(place)!r}, closed>"
    with pytest.raises(ValueError, match=r"Queue <JoinableTurboQueue anonymous, closed> is closed"):
        other.put(1)


def test_the_repr_of_a_queue_whose_folder_is_gone_is_no_error(tmp_path: pathlib.Path) -> None:
    place = tmp_path / "jobs"
    q = TurboQueue[int](path=place)
    q.put(1)
    for file in place.iterdir():
        file.unlink()
    place.rmdir()
    assert repr(q).startswith(f"<TurboQueue at {str(place)!r}, ")
