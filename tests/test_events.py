"""The grammar of events: what is packed can be read again, and no field reaches into another."""

from __future__ import annotations

from typing import Any, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tqshim import events

SLOT = (8, 16)
REST = (24, 40)

# Maker, its type, and for each argument where it stands: the first bit and how many there are.
LAYOUT: list[tuple[Callable[..., bytes], int, list[tuple[int, int]]]] = [
    (events.join, events.JOIN, [(24, 1)]),
    (events.leave, events.LEAVE, [SLOT, REST]),
    (events.open_, events.OPEN, [SLOT, REST]),
    (events.publish, events.PUBLISH, [SLOT, (24, 15), (40, 24), (39, 1)]),
    (events.claim, events.CLAIM, [SLOT]),
    (events.claim_many, events.CLAIM_MANY, [SLOT, REST]),
    (events.lease, events.LEASE, [SLOT, REST]),
    (events.revoke, events.REVOKE, [SLOT, REST]),
    (events.reserve, events.RESERVE, [SLOT, REST]),
    (events.trim, events.TRIM, [SLOT, (24, 10), (34, 30)]),
    (events.seal, events.SEAL, [REST]),
    (events.task_done, events.TASK_DONE, []),
    (events.shutdown, events.SHUTDOWN, [(24, 1)]),
    (events.publish_late, events.PUBLISH_LATE, [SLOT, (24, 15), (40, 24)]),
    (events.hold, events.HOLD, [SLOT]),
    (events.got, events.GOT, [REST]),
    (events.return_, events.RETURN, [REST]),
]
NAMES = [maker.__name__ for maker, _, _ in LAYOUT]


def field(event: bytes, first: int, bits: int) -> int:
    return int.from_bytes(event, "little") >> first & ((1 << bits) - 1)


@pytest.mark.parametrize(("maker", "kind", "fields"), LAYOUT, ids=NAMES)
@given(data=st.data())
def test_fields_come_back_and_every_other_bit_is_zero(
    maker: Callable[..., bytes], kind: int, fields: list[tuple[int, int]], data: Any
) -> None:
    """Each field is read where the layout says, whatever stands in the others, and nothing stands beside them."""
    values = [data.draw(st.integers(0, (1 << bits) - 1)) for _, bits in fields]
    event = maker(*values)
    assert len(event) == events.SIZE
    assert event[0] == kind
    assert [field(event, *where) for where in fields] == values
    assert int.from_bytes(event, "little") == kind | sum(v << first for v, (first, _) in zip(values, fields))


@pytest.mark.parametrize(("maker", "kind", "fields"), LAYOUT, ids=NAMES)
def test_fields_do_not_overlap(maker: Callable[..., bytes], kind: int, fields: list[tuple[int, int]]) -> None:
    """All ones in one field leave all other fields at zero."""
    for i in range(len(fields)):
        values = [(1 << bits) - 1 if j == i else 0 for j, (_, bits) in enumerate(fields)]
        event = maker(*values)
        assert event[0] == kind
        assert [field(event, *where) for where in fields] == values


def test_types_are_distinct_and_none_is_zero() -> None:
    """Type 0 is what a reader sees where the bytes of an event have not arrived yet."""
    kinds = [kind for _, kind, _ in LAYOUT]
    assert len(set(kinds)) == len(kinds)
    assert all(0 < kind < 256 for kind in kinds)


def test_limits_are_what_the_fields_hold() -> None:
    """Each limit that a writer keeps to is the most that its field can say."""
    assert events.SLOTS == 1 << 16
    assert events.REST_LIMIT == 1 << 40
    assert field(events.publish(0, events.PUBLISH_MOST, events.UNITS_MOST), 24, 16) == events.PUBLISH_MOST
    assert field(events.publish(0, events.PUBLISH_MOST, events.UNITS_MOST), 40, 24) == events.UNITS_MOST
    assert field(events.revoke(events.LEASE_MOST, 0), *SLOT) == events.LEASE_MOST
    assert field(events.trim(0, events.RESERVE_MOST, 0), 24, 40) == events.RESERVE_MOST


@given(st.integers(0, 1 << 60), st.integers(0, events.RESERVE_MOST))
def test_grants_are_numbered_modulo_their_field(grant: int, kept: int) -> None:
    """A grant's number that has outgrown the field still leaves the field beside it alone."""
    event = events.trim(1, kept, grant)
    assert field(event, 24, 10) == kept
    assert field(event, 34, 30) == grant % events.GRANT_LIMIT
