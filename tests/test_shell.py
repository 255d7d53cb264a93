"""The commands as shells call them: closed streams, bytes, paths that a variable should have held; and what a program
does to a queue's folder meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tqshim.monitor.moving
import tqshim.storage.folder
from tqshim import FolderError, TurboQueue, monitor

LONG = 60.0
COMMAND = f"{sys.executable} -m tqshim"


def shell(line: str, given: bytes = b"", folder: str = ".") -> subprocess.CompletedProcess[bytes]:
    """What a shell makes of that line, ``tqshim`` being our command."""
    line = f'tqshim() {{ {COMMAND} "$@"; }}\n{line}'
    return subprocess.run(["sh", "-c", line], input=given, capture_output=True, timeout=LONG, cwd=folder)


def one_line(done: subprocess.CompletedProcess[bytes], status: int, *words: str) -> None:
    """It ended with that status, and one line on stderr that holds these words."""
    said = done.stderr.decode()
    assert (done.returncode, said.count("\n")) == (status, 1) and all(word in said for word in words), said


def filled(path: str, *items: Any) -> str:
    with TurboQueue(path=path) as queue:
        queue.put_many(items)
    return path


@pytest.mark.parametrize("command", ["rm", "drain", "fill", "stat", "peek", "check", "ls", "recover"])
def test_an_empty_path_is_refused_and_not_the_current_folder(command: str, path: str) -> None:
    filled(path, "a")
    one_line(shell(f'tqshim {command} "$UNSET"', folder=path), 2, "path is empty")
    assert TurboQueue(path=path).get(timeout=LONG) == "a"


def test_a_copy_is_not_made_within_what_is_only_read(path: str) -> None:
    filled(path, "a")
    with pytest.raises(FolderError, match="recover into another folder"):
        monitor.recover(path, into=f"{path}/copy")
    assert monitor.recover(path, into=f"{path}-copy").copied == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [(b'"\xff"', "can't decode byte 0xff"), (b"[" * 50_000 + b"]" * 50_000, "recursion")],
    ids=["no UTF-8", "deep"],
)
def test_a_line_that_is_no_item_is_named_and_those_before_it_are_put(line: bytes, words: str, path: str) -> None:
    done = shell(f"PYTHONIOENCODING=utf-8:strict tqshim fill {path}", b"1\n2\n" + line + b"\n3\n")
    one_line(done, 1, "line 3", words, "the lines before it are in the queue")
    assert TurboQueue(path=path).get_many() == [1, 2]


def test_bytes_are_utf8_whatever_the_locale_is(path: str) -> None:
    assert shell(f"LC_ALL=C PYTHONUTF8=0 tqshim fill {path}", '"é"\n'.encode()).returncode == 0
    assert TurboQueue(path=path).get(timeout=LONG) == "é"


@pytest.mark.parametrize("command", ["drain", "ls", "stat", "rm"])
def test_where_stdout_is_closed_nothing_is_done(command: str, path: str) -> None:
    filled(path, "a")
    one_line(shell(f"tqshim {command} {path} >&-"), 2, "standard output is closed")
    assert TurboQueue(path=path).get(timeout=LONG) == "a"


def test_closed_streams_are_said_where_they_can_be(path: str) -> None:
    one_line(shell(f"tqshim fill {path} <&-"), 2, "standard input is closed")
    done = shell(f"tqshim stat {path} 2>&-")
    assert (done.returncode, done.stdout, done.stderr) == (2, b"", b"")


class Leaves:
    """An item whose unpickling ends the program."""

    def __reduce__(self) -> Any:
        return sys.exit, (9,)


def test_an_item_whose_unpickling_raises_system_exit_is_told_as_any_that_fails(path: str) -> None:
    filled(path, Leaves())
    one_line(shell(f"tqshim drain {path}"), 1, "can't be unpickled here: SystemExit: 9")
    done = shell(f"tqshim peek --unpickle {path}")
    assert (done.returncode, done.stderr) == (1, b"") and b"can't be unpickled here: SystemExit" in done.stdout
    assert TurboQueue(path=path).qsize() == 1


def test_rm_counts_what_goes_with_it_and_not_what_somebody_got_before(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(path, "a", "b", "c")
    real = tqshim.monitor.moving.reclaim

    def late(*arguments: Any) -> bool:
        with TurboQueue(path=path) as queue:
            queue.get(timeout=LONG)
        return real(*arguments)

    monkeypatch.setattr(tqshim.monitor.moving, "reclaim", late)
    assert monitor.remove(path) == 2


def test_a_queue_that_is_removed_while_it_is_opened_is_made_anew(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = tqshim.storage.folder.make_folder

    def removed_at_once(where: str) -> None:
        monkeypatch.undo()
        real(where)
        os.rmdir(where)

    monkeypatch.setattr(tqshim.storage.folder, "make_folder", removed_at_once)
    queue = TurboQueue(path=path)
    queue.put("a")
    assert queue.get(timeout=LONG) == "a" and Path(path, "cells").exists()


def test_a_queue_that_was_renamed_in_use_is_that_of_its_new_path(path: str) -> None:
    """As logs are rotated: its handles travel to it, and not to who has its former path."""
    first, box = TurboQueue(path=path), TurboQueue()
    first.put_many(["a", "b"])
    os.rename(path, f"{path}.old")
    new, old = TurboQueue(path=path), TurboQueue(path=f"{path}.old")
    assert (new.path, old.path) == (path, f"{path}.old")
    for handle in (old, first):
        box.put(handle)
        assert box.get(timeout=LONG).qsize() == 2
    assert new.qsize() == 0


def test_a_queue_that_has_two_names_keeps_the_first(path: str) -> None:
    first = TurboQueue(path=path)
    os.symlink(path, f"{path}-link")
    again = TurboQueue(path=f"{path}-link")
    again.put("a")
    assert (first.get(timeout=LONG), first.path) == ("a", path)
