"""Names of the original's batch files: made, read, sorted."""

from __future__ import annotations

import re
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tqshim.turbo_queue import states
from tqshim.turbo_queue.states import BatchName

OWN = "1700000000_123e4567-e89b-42d3-a456-426614174000.db"


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        (f"ready_{OWN}", BatchName("ready", OWN, False)),
        (f"load_{OWN}", BatchName("load", OWN, False)),
        (f"unload_{OWN}", BatchName("unload", OWN, False)),
        (f"unload_{OWN}_17", BatchName("unload", OWN, False)),
        (f"ready_{OWN}_temp_hold", BatchName("ready", OWN, True)),
        (f"ready_{OWN}_temp_hold_temp_hold", BatchName("ready", OWN, True)),
        (f"unload_{OWN}_temp_hold_3", BatchName("unload", OWN, False)),
        (f"ready_unload_{OWN}", BatchName("ready", OWN, False)),  # rolled back by 0.8.0
        (f"ready_unload_unload_{OWN}_3_3", BatchName("ready", OWN, False)),
        ("ready_1700000000_x_recovered.db", BatchName("ready", "1700000000_x_recovered.db", False)),
        (f"chosen_{OWN}", BatchName("chosen", OWN, False)),  # of older versions
        ("ready_anything", BatchName("ready", "anything", False)),
        (f"load_{OWN}-journal", None),
        (f"invalid_file_{OWN}", None),
        ("ready_", None),
        ("ready", None),
        ("journal_0", None),
        ("", None),
    ],
)
def test_names_are_read(name: str, parsed: BatchName | None) -> None:
    assert states.parse(name) == parsed


@given(
    st.sampled_from((states.READY, *states.ABANDONED)),
    st.integers(0, 2**62),
    st.binary(min_size=12, max_size=12),
    st.none() | st.integers(0, 10**6),
)
def test_a_batch_keeps_its_own_part(state: str, time: int, key: bytes, number: int | None) -> None:
    own = states.begin(time, key)
    assert states.parse(states.name(state, own, number)) == BatchName(state, own, False)


@given(st.lists(st.integers(10**18, 9 * 10**18), unique=True, min_size=2), st.data())
def test_names_sort_as_their_batches_were_begun(times: list[int], data: st.DataObject) -> None:
    keys = data.draw(st.lists(st.binary(min_size=12, max_size=12), min_size=len(times), max_size=len(times)))
    begun = [states.begin(time, key) for time, key in zip(sorted(times), keys)]
    assert sorted(begun) == begun


@given(st.integers(0, 2**62), st.binary(min_size=12, max_size=12))
def test_a_name_has_the_originals_form(time: int, key: bytes) -> None:
    found = re.fullmatch(r"(\d+)_([0-9a-f-]{36})\.db", states.begin(time, key))
    assert found
    assert int(found[1]) == time // 10**9
    assert uuid.UUID(found[2]).version == 4
