"""The commands as shells call them: closed streams, bytes, paths from an empty variable; and what another program
does to a queue's folder meanwhile."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tqshim.monitor.moving
import tqshim.monitor.view
import tqshim.runtime.systems
import tqshim.storage.folder
import tqshim.storage.places
from tqshim import FolderError, TurboQueue, monitor

LONG = 60.0
TOO_DEEP = "Stack overflow" if sys.version_info >= (3, 14) else "recursion"
"""How Python calls what is nested too deeply."""
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
    [(b'"\xff"', "can't decode byte 0xff"), (b"[" * 50_000 + b"]" * 50_000, TOO_DEEP)],
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


@pytest.mark.parametrize("way", ["drained", "opened"])
def test_handlers_find_a_renamed_queue(way: str, path: str) -> None:
    """Also a handler that interrupts a handler, each of which has a hold of its own."""
    first = TurboQueue(path=path)
    first.put_many(["a", "b", "c", "d"])
    engine = first._engine
    if way == "opened":
        with engine.lock:  # as in the middle of an act
            assert first.get(timeout=LONG) == "a"
    os.rename(path, f"{path}.old")
    if way == "opened":
        again = TurboQueue(path=f"{path}.old")
    else:
        assert monitor.drain(f"{path}.old", print, most=1).items == 1
    with engine.lock:
        assert first.get(timeout=LONG) == "b"
        assert engine.beside is not None
        with engine.beside.lock:
            assert first.get(timeout=LONG) == "c"
    assert first.get(timeout=LONG) == "d"
    if way == "opened":
        assert again.empty()


def test_an_anonymous_folder_that_was_renamed_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TQSHIM_DIR", str(tmp_path))
    with TurboQueue() as queue:
        queue.put("a")
        (anonymous,) = tmp_path.iterdir()
        anonymous.rename(tmp_path / "kept")
        with TurboQueue(path=tmp_path / "kept") as kept:
            assert kept.qsize() == 1
    assert TurboQueue(path=tmp_path / "kept").get(timeout=LONG) == "a"


def test_where_memory_is_short_a_new_queue_does_not_look_at_our_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What killed programs have left there goes, and nobody tries to delete what is in use here."""
    monkeypatch.delenv("TQSHIM_DIR", raising=False)
    monkeypatch.setattr(tqshim.runtime.systems, "SHM", str(tmp_path))
    queues = [TurboQueue() for _ in range(3)]
    ours = {str(one) for one in tmp_path.iterdir()}
    left = tmp_path / f"{os.path.basename(min(ours))[:-4]}0000"
    left.mkdir(0o700)
    tried: list[str] = []

    def reclaim(path: str, then: Any = tqshim.storage.places.reclaim) -> bool:
        tried.append(path)
        return bool(then(path))

    monkeypatch.setattr(tqshim.storage.places, "reclaim", reclaim)
    monkeypatch.setattr(tqshim.runtime.systems, "room_of", lambda place: 0)
    queues.append(TurboQueue())
    assert len(ours) == 3 and str(left) in tried and not ours & set(tried) and not left.exists()
    for one in queues:
        one.close()


def test_a_shortage_is_not_told_as_somebody_who_uses_the_queue(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(path, "a")

    def look(view: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(tqshim.monitor.view.View, "look", look)
        with pytest.raises(OSError, match="Too many open files"):
            monitor.remove(path)
    assert monitor.remove(path) == 1


def test_items_of_a_queue_whose_removal_was_cut_short_are_counted(path: str, tmp_path: Path) -> None:
    os.rename(filled(path, "a", "b"), tmp_path / "dead_queue")
    assert monitor.remove(str(tmp_path / "dead_queue")) == 2


def test_an_item_too_deep_to_compare_is_told_in_one_line_and_stays(path: str) -> None:
    item: Any = 0
    for _ in range(300):
        item = {"a": item}
    filled(path, item)
    limit = "import sys, tqshim.__main__ as tqshim; sys.setrecursionlimit(500); sys.exit(tqshim.main())"
    one_line(shell(f"{sys.executable} -c '{limit}' drain {path}"), 1, "recursion", "--pickle")
    assert TurboQueue(path=path).qsize() == 1


def test_a_handler_may_end_a_program_that_drains(path: str) -> None:
    """``SystemExit`` of an item is the item's, that of a handler is the program's."""

    class Ends:
        def __reduce__(self) -> Any:
            return os.kill, (os.getpid(), signal.SIGUSR1)

    filled(path, Ends())
    before = signal.signal(signal.SIGUSR1, lambda *_: sys.exit("asked to end"))
    try:
        with pytest.raises(SystemExit, match="asked to end"):
            monitor.drain(path, print, encode=monitor.as_json)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_queue_that_has_two_names_keeps_the_first(path: str) -> None:
    first = TurboQueue(path=path)
    os.symlink(path, f"{path}-link")
    again = TurboQueue(path=f"{path}-link")
    again.put("a")
    assert (first.get(timeout=LONG), first.path) == ("a", path)
