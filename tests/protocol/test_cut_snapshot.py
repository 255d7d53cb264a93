"""Snapshots: ``load`` undoes ``dump``, and raises ``ValueError`` alone for what is none.

Lives here: tests of ``tqshim.protocol.snapshot`` on ledgers that random histories have made.

Invariant: a ledger that is loaded from a snapshot of another goes on as that one does.
"""

from __future__ import annotations

import random
import struct
from binascii import crc32
from collections.abc import Iterator
from typing import Final

import pytest
from histories_of_events import ROOM, History, check, contents, some_event, word
from hypothesis import given, settings
from hypothesis import strategies as st
from sampling import examples

from tqshim.protocol import events, records, snapshot
from tqshim.protocol.extents import CHUNK
from tqshim.protocol.ledger import Ledger

FLIPS: Final = 4000


@pytest.fixture(autouse=True, scope="module")
def short_files() -> Iterator[None]:
    """Batch files hold few records."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "capacity", lambda serial: ROOM)
        yield


def grown(seed: int, steps: int = 90) -> History:
    history = History(random.Random(seed))
    history.go(steps, check_each=False)
    return history


@settings(max_examples=examples(100))
@given(seed=st.integers(0, 1 << 32), steps=st.integers(0, 120))
@pytest.mark.usefixtures("chunk")
def test_load_undoes_dump(seed: int, steps: int) -> None:
    """All that the state is, and the bytes once more."""
    ledger = grown(seed, steps).ledger
    data = snapshot.dump(ledger)
    snapshot.check(data)
    assert len(data) % 8 == 0
    assert snapshot.size_of(data) == len(data)
    other = snapshot.load(data)
    assert contents(other) == contents(ledger)
    assert snapshot.dump(other) == data
    assert snapshot.load(data + b"events that follow").tail == ledger.tail


@settings(max_examples=examples(100))
@given(seed=st.integers(0, 1 << 32))
def test_who_loads_a_snapshot_goes_on_as_the_others_do(chunk: int, seed: int) -> None:
    """Also over a roll: by ``roll``, and by the snapshot with which the next journal begins."""
    history = grown(seed, 60)
    ledger = history.ledger
    if history.dice.random() < 0.5:
        data = snapshot.dump(ledger, rolled=True, limit=77)
        ledger.roll(77)
        assert snapshot.limit_of(data) == 77
    else:
        data = snapshot.dump(ledger)
    assert data == snapshot.dump(ledger)
    other = snapshot.load(data)
    for n in range(60):
        event = some_event(history.dice, ledger, ends=n > 40)
        assert other.step(word(event)) == ledger.step(word(event))
        if n % 10 == 0 and chunk == CHUNK:  # small chunks begin for each where it has forgotten
            assert snapshot.dump(other) == snapshot.dump(ledger)
    assert contents(other) == contents(ledger)


def test_a_loaded_ledger_holds_what_must_hold() -> None:
    for seed in range(30):
        history = grown(seed)
        history.ledger.trim()
        history.ledger = snapshot.load(snapshot.dump(history.ledger))
        check(history)
        history.go(30)


def test_the_kind_of_a_queue_is_read_from_the_head_alone() -> None:
    proof = bytes(range(32))
    assert snapshot.kind(snapshot.dump(Ledger(3, durable=True, proof=proof))) == (True, proof)
    assert snapshot.kind(snapshot.dump(Ledger())) == (False, b"")


def test_words_after_is_about_right() -> None:
    for seed in range(30):
        ledger = grown(seed).ledger
        words = len(snapshot.dump(ledger)) // 8
        assert words - 8 <= snapshot.words_after(ledger, 0) <= words + 8 * len(ledger.files.filling) + 8


def damaged(dice: random.Random, data: bytes) -> bytes:
    """A word or a bit of it is another, or a piece is missing, with a check that fits."""
    words = list(struct.unpack(f"<{len(data) // 8}Q", data))
    for _ in range(dice.choice([1, 1, 1, 2, 5])):
        at = dice.randrange(len(words) - 1)
        how = dice.randrange(6)
        if how == 0:
            words[at] ^= 1 << dice.randrange(64)
        elif how == 1:
            words[at] = dice.choice([0, 1, 2, 255, 1 << 16, 1 << 40, (1 << 63) - 1, (1 << 64) - 1])
        elif how == 2:
            words[at] = (words[at] + dice.choice([-2, -1, 1, 2])) % (1 << 64)
        elif how == 3 and len(words) > 3:
            del words[at]
        elif how == 4:
            words.insert(at, dice.choice([0, 1, words[at]]))
        else:
            words[at] = words[dice.randrange(len(words))]
    if dice.random() < 0.3:
        words[1] = len(words)
    body = struct.pack(f"<{len(words) - 1}Q", *words[:-1])
    return body + struct.pack("<Q", crc32(body))


def test_damage_is_a_value_error_or_another_ledger(chunk: int) -> None:
    """Whatever is damaged, with a check that fits: ``load`` raises nothing but ``ValueError``."""
    dice = random.Random(5)
    kinds = [snapshot.dump(grown(seed).ledger) for seed in range(40)]
    refused = 0
    for _ in range(FLIPS):
        data = damaged(dice, dice.choice(kinds))
        try:
            snapshot.load(data)
        except ValueError:
            refused += 1
    assert 0 < refused < FLIPS


def test_the_check_sees_each_flipped_bit() -> None:
    data = snapshot.dump(grown(3).ledger)
    dice = random.Random(7)
    for _ in range(500):
        bit = dice.randrange(8 * (len(data) - 4))
        broken = bytearray(data)
        broken[bit >> 3] ^= 1 << (bit & 7)
        with pytest.raises(ValueError, match="check"):
            snapshot.check(bytes(broken))


def test_every_cut_of_a_snapshot_is_a_value_error() -> None:
    data = snapshot.dump(grown(11).ledger)
    for size in range(len(data)):
        with pytest.raises(ValueError, match=r"short|check"):
            snapshot.load(data[:size])


def test_what_is_no_journal_is_named() -> None:
    """An earlier version's, another's, and one without bytes."""
    with pytest.raises(ValueError, match="format 09"):
        snapshot.size_of(b"tqshim09" + bytes(8))
    with pytest.raises(ValueError, match="no known version"):
        snapshot.load(b"x" * 999)
    with pytest.raises(ValueError, match="too short"):
        snapshot.load(b"")


def test_an_event_is_eight_bytes_and_never_of_type_nothing() -> None:
    """What a kernel shows before the bytes are there is no event."""
    most = (1 << 40) - 1
    made = [
        events.join(True),
        events.leave(65535, most),
        events.open_(65535, most),
        events.cut(65535, most),
        events.publish(65535, most),
        events.skip(65535, most),
        events.claim(65535),
        events.claim_many(65535, most),
        events.lease(65535, events.LEASE_MOST),
        events.revoke(events.LEASE_MOST, most),
        events.passed(events.LEASE_MOST, most),
        events.reserve(65535, events.RESERVE_MOST),
        events.trim(65535, events.RESERVE_MOST, (1 << 40) - 1),
        events.seal(most),
        events.task_done(),
        events.closing(True),
        events.shutdown(True),
        events.hold(65535),
        events.got(most),
        events.return_(most),
    ]
    assert all(len(event) == events.SIZE and event[0] for event in made)
    assert len({event[0] for event in made}) == len(made) == 20
