"""The grammar of names: ``parse`` undoes the makers and takes nothing else."""

from __future__ import annotations

import string
from typing import Optional

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tqshim.protocol import index, names
from tqshim.protocol.names import FileId, Name

numbers = st.integers(0, (1 << 40) - 1)
keys = st.text("0123456789abcdef", min_size=1, max_size=32)


@given(st.sampled_from([names.LOAD, names.READY]), numbers, numbers)
def test_batch_names_come_back(state: str, member: int, serial: int) -> None:
    """A batch file's name gives its state and its id, in this order."""
    assert names.parse(names.batch(state, FileId(member, serial))) == Name(state, (member, serial))


@given(numbers)
def test_journal_and_spare_names_come_back(number: int) -> None:
    assert names.parse(names.journal(number)) == Name("journal", (number,))
    assert names.parse(names.spare(number)) == Name("spare", (number,))


@given(numbers, keys)
def test_roll_and_marker_names_come_back(number: int, key: str) -> None:
    assert names.parse(names.roll(number, key)) == Name("roll", (number,))
    assert names.parse(names.marker(key)) == Name("marker", ())


@pytest.mark.parametrize("name", [names.CELLS, names.MEMBERS, names.BELL, names.SPACE, names.DONE, names.SPILL])
def test_fixed_names_come_back(name: str) -> None:
    assert names.parse(name) == Name(name, ())


@given(st.sampled_from([names.batch(names.READY, FileId(10, 3)), names.journal(7), "anything at all"]))
def test_what_was_set_aside_is_known_as_such(name: str) -> None:
    """A file that was set aside is not taken for what it was."""
    assert names.parse(names.corrupt(name)) == names.parse(names.reason(name)) == Name("corrupt", ())
    assert [names.is_reason(one) for one in (names.reason(name), names.corrupt(name), name)] == [True, False, False]


@given(numbers, st.integers(0, (1 << 39) - 1))
def test_serial_tells_where_a_batch_file_lies(member: int, count: int) -> None:
    assert not FileId(member, 2 * count).spilled
    assert FileId(member, 2 * count + 1).spilled


@pytest.mark.filterwarnings("error::DeprecationWarning")
@given(numbers, numbers, st.integers(0, 1 << 16))
@example((1 << 40) - 1, (1 << 40) - 1, 0)
def test_records_of_any_batch_file_have_checks(member: int, serial: int, number: int) -> None:
    """From 3.15 on ``crc32`` warns of, or refuses, a beginning of more than 32 bits."""
    assert len(index.check(b"record", FileId(member, serial), number)) == 4


def made(name: Name, key: str) -> Optional[str]:
    """The name that the makers give to what ``parse`` has read, with the key that it does not return."""
    kind = name.kind
    if kind in (names.LOAD, names.READY):
        return names.batch(kind, FileId(*name.numbers))
    if kind == "journal":
        return names.journal(*name.numbers)
    if kind == "spare":
        return names.spare(*name.numbers)
    if kind == "roll":
        return names.roll(name.numbers[0], key)
    if kind == "marker":
        return names.marker(key)
    if kind == "corrupt":
        return names.corrupt(key)
    return kind if not name.numbers else None


near = st.one_of(
    st.from_regex(
        r"(load|ready|journal|spare|roll|marker|corrupt|cells|bell|dead|loads|Load)[_ -]?[0-9a-fA-Fx_ +-]{0,12}\n?",
        fullmatch=True,
    ),
    st.text(string.printable, max_size=40),
    st.text(max_size=40),
)


@given(near)
@example("journal_007")
@example("journal_٣")  # a digit, but none of ours
@example("load_0a_1")
@example("load_A_1")
@example("ready_1_2_3")
@example("journal_1\n")
@example("journal_-1")
@example("journal_")
@example("cells_1")
@example("dead_x")
@example("")
def test_every_name_that_parses_could_have_been_made(name: str) -> None:
    """What no maker makes is not ours: making what was read gives the same name again."""
    found = names.parse(name)
    if found is None:
        return
    key = name.split("_", 1 if found.kind in ("marker", "corrupt") else 2)[-1]
    assert made(found, key) == name


STRANGE = """
journal journal_ journal_x journal_-1 journal_01 journal_+1 journal_1_2 Journal_1 xjournal_1 load_1 load_1_
load_01_1 load_1_2_3 load_g_1 ready_1_G seal_1_2 roll_1 roll_1_ roll_1_xyz roll_01_a marker_ marker_ZZ corrupt_ cells_1
cell dead_1 spare_ spare_00 spare_1_2 __init__.py . ..
"""


@pytest.mark.parametrize("name", [*STRANGE.split(), "", "journal_1\n", " journal_1", "journal 1"])
def test_strange_names_are_not_ours(name: str) -> None:
    assert names.parse(name) is None
