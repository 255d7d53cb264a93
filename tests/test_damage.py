"""Damage: whatever others have done to a queue's files, no item comes that was not put, nothing hangs, and all that is
whole arrives; what is damaged is kept for a person to look at, with a reason."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tqshim import CorruptBatchError, Empty, TurboQueue, names

PATIENCE = 60.0
RECORD = 40
"""Characters of an item, so that each stands in a block of its own with room for damage."""


def item(number: int) -> str:
    return f"{number} ".ljust(RECORD, ".")


def blocks_in_one_file(path: Path, count: int = 4) -> Path:
    """A queue with so many items, each in a block of its own, all in one sealed batch file, which is returned."""
    queue = TurboQueue(path=str(path))
    for number in range(count):
        queue.put_many([item(number)])
    queue._engine.close()
    (file,) = path.glob("ready_*")
    return file


def drain(path: Path, most: int = 100) -> tuple[list[Any], list[CorruptBatchError]]:
    """All that can be got from there, and what damage was said on the way."""
    queue = TurboQueue(path=str(path))
    got: list[Any] = []
    errors: list[CorruptBatchError] = []
    for _ in range(most):
        try:
            got.append(queue.get(block=False))
        except Empty:
            break
        except CorruptBatchError as error:
            errors.append(error)
    else:
        pytest.fail("there is no end to it")
    queue.put("goes on")
    assert queue.get(timeout=PATIENCE) == "goes on"
    assert queue.empty()
    queue._engine.close()
    return got, errors


def test_damaged_file_is_set_aside_with_a_reason_and_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = blocks_in_one_file(tmp_path / "queue")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2 + 1])
    with caplog.at_level(logging.WARNING, "tqshim"):
        got, errors = drain(tmp_path / "queue")
    assert got == [item(0), item(1)]
    assert len(errors) == 2
    aside = file.with_name(names.corrupt(file.name))
    assert aside.read_bytes() == whole[: len(whole) // 2 + 1]
    assert not file.exists()
    assert all(error.path == str(aside) for error in errors)
    (record,) = caplog.records
    assert record.name == "tqshim" and file.name in record.getMessage()
    assert errors[0].finding in file.with_name(names.reason(file.name)).read_text()


def test_blocks_that_are_whole_arrive_from_a_file_that_was_set_aside(tmp_path: Path) -> None:
    file = blocks_in_one_file(tmp_path / "queue", 5)
    data = bytearray(file.read_bytes())
    data[1:3] = b"\xff\xff"  # the first record reaches beyond the block
    file.write_bytes(data)
    queue = TurboQueue(path=str(tmp_path / "queue"))
    with pytest.raises(CorruptBatchError, match="items 0 to 0"):
        queue.get(timeout=PATIENCE)
    queue._engine.close()
    # Another process, which has never seen the file under its former name.
    program = "import sys; from tqshim import TurboQueue; print(TurboQueue(path=sys.argv[1]).get_many())"
    words = [sys.executable, "-c", program, str(tmp_path / "queue")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE)
    assert done.stdout.strip() == str([item(number) for number in range(1, 5)]), done.stderr


def in_place_of(file: Path, make: Callable[[Path], object]) -> None:
    file.unlink()
    make(file)


def a_socket(file: Path) -> None:
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(str(file))


WAYS: dict[str, Callable[[Path], object]] = {
    "nothing": lambda file: None,
    "empty": lambda file: file.touch(),
    "folder": lambda file: file.mkdir(),
    "full folder": lambda file: (file / "inside").mkdir(parents=True),
    "fifo": lambda file: os.mkfifo(file),
    "socket": a_socket,
    "link": lambda file: file.symlink_to("/etc/passwd"),
    "link to itself": lambda file: file.symlink_to(file),
    "zeros": lambda file: file.write_bytes(bytes(1 << 16)),
    "ones": lambda file: file.write_bytes(b"\xff" * (1 << 16)),
}


@pytest.mark.parametrize("way", WAYS)
def test_whatever_stands_in_a_batch_files_place_the_others_items_arrive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    path = Path("queue")
    file = blocks_in_one_file(path)
    second = TurboQueue(path=str(path))
    second.put_many(["in another file"])
    second._engine.close()
    in_place_of(file, WAYS[way])
    got, errors = drain(path)
    assert got == ["in another file"]
    assert len(errors) == 4
    assert file.with_name(names.reason(file.name)).exists()
    if way != "nothing":
        assert os.path.lexists(file.with_name(names.corrupt(file.name)))


@pytest.mark.parametrize("way", ["folder", "full folder", "fifo"])
def test_something_in_place_of_a_file_whose_items_were_got_stops_nobody(tmp_path: Path, way: str) -> None:
    """The one who deletes batch files finds it."""
    path = tmp_path / "queue"
    blocks_in_one_file(path)
    queue = TurboQueue(path=str(path))
    assert queue.get(timeout=PATIENCE) == item(0)
    (file,) = path.glob("ready_*")
    in_place_of(file, WAYS[way])
    assert [queue.get(timeout=PATIENCE) for _ in range(3)] == [item(1), item(2), item(3)]
    queue.put("goes on")
    assert queue.get(timeout=PATIENCE) == "goes on"
    queue._engine.close()
    assert not list(path.glob("ready_*"))


def test_damage_met_while_an_interrupted_get_is_made_good_reaches_the_next_get_alone(tmp_path: Path) -> None:
    """Not a put or a look, which are no business of that item's."""
    path = tmp_path / "queue"
    file = blocks_in_one_file(path, 6)
    data = bytearray(file.read_bytes())
    size = 64  # of each block: 4 bytes of index and the record, in units of 16
    for block in (1, 3):
        data[block * size + 1 : block * size + 3] = b"\xff\xff"
    file.write_bytes(data)
    queue = TurboQueue(path=str(path))
    with pytest.raises(CorruptBatchError, match="items 1 to 1"):
        queue.get_many()
    assert queue.qsize() >= 0
    queue.put("last")
    got: list[Any] = []
    errors = 0
    while len(got) < 5:
        try:
            got += queue.get_many(timeout=PATIENCE)
        except CorruptBatchError:
            errors += 1
    assert got == [item(0), item(2), item(4), item(5), "last"]
    assert errors == 1
    queue._engine.close()


def test_a_spill_folder_that_is_gone_costs_its_own_items_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tqshim.folder

    spill = tmp_path / "spill"
    spill.mkdir()
    monkeypatch.setattr(tqshim.folder, "spill_root", lambda path: str(spill))
    queue = TurboQueue()
    monkeypatch.setattr(tqshim.folder.Folder, "wants_spill", lambda self: True)
    queue.put("lost")
    queue._engine.flush()
    monkeypatch.setattr(tqshim.folder.Folder, "wants_spill", lambda self: False)
    (home,) = spill.iterdir()
    shutil.rmtree(home)
    with pytest.raises(CorruptBatchError, match="missing"):
        queue.get(timeout=PATIENCE)
    queue.close()
