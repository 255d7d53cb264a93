"""Items that may come back: each is held while a block runs, and then is got, or given back.

Lives here: holding an item, letting it go, and getting what has come back.  Not here: blocks and unpickling
(``queues``), waiting (``gets``).

Invariant: an item that is held here belongs to a block that runs, or to an act that is under way.  Whatever becomes of
this process, the journal has the hold: a GOT ends it, or the item comes back.
"""

from __future__ import annotations

import weakref

from tqshim.engine.consumer import Consumer
from tqshim.engine.hand import Handed
from tqshim.engine.membership import Membership
from tqshim.engine.reader import Reader, Taken
from tqshim.engine.reclaim import Reclaimer
from tqshim.engine.replica import Replica
from tqshim.engine.wait_policy import Waiter
from tqshim.errors import CorruptBatchError
from tqshim.protocol import events
from tqshim.protocol.records import Held
from tqshim.storage.files import a_full_disk_is_no_matter
from tqshim.sync.cells import AWAITS_PLACE, SLEEPS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

__all__ = ["Acknowledging", "Hold"]


class Hold:
    """An item that a block of this process has.  Where nobody refers to this object any more, the item comes back."""

    __slots__ = ("__weakref__", "done", "generation", "number", "record", "times")

    def __init__(self, record: Taken, number: Optional[int], times: int, generation: int) -> None:
        self.record = record
        self.number = number
        """The number of its HOLD; ``None``: an interrupted get had taken the item, which is this process's own."""
        self.times = times
        """How often it had come back before."""
        self.generation = generation
        self.done = [False]
        """Whether the block has ended well."""


_Out = tuple["weakref.ref[Hold]", Taken, int, list[bool]]
"""A hold on a record of the hand, that record, how often it had come back before, and whether its block ended well."""


class Acknowledging:
    """The items of one queue that this process holds."""

    __slots__ = (
        "_again",
        "_consumer",
        "_ended",
        "_hand",
        "_members",
        "_reader",
        "_reclaimer",
        "_replica",
        "_waiter",
        "blocks",
        "out",
    )

    def __init__(
        self,
        replica: Replica,
        members: Membership,
        reader: Reader,
        reclaimer: Reclaimer,
        consumer: Consumer,
        waiter: Waiter,
    ) -> None:
        self._replica = replica
        self._members = members
        self._reader = reader
        self._reclaimer = reclaimer
        self._consumer = consumer
        self._hand = consumer.hand
        self._waiter = waiter
        consumer.take_returned = self._take_returned
        reclaimer.settle = self.settle  # nobody else can look for what we hold
        self._ended: dict[int, bool] = {}
        """By number: holds of ours that are to end, and whether the item is got; else it is to come back."""
        self.blocks: dict[int, weakref.ref[Hold]] = {}
        """By number: the holds of the blocks that run in this process."""
        self.out: tuple[_Out, ...] = ()
        """The records that blocks have, and that were in the hand."""
        self._again: list[tuple[Taken, int]] = []
        """Records in the hand that blocks have had, and how often."""

    # -- holding

    def hold(self, found: list[Hold], generation: int) -> None:
        """Append to ``found`` the oldest item, if there is one.

        If this raises, what ``found`` holds is held, and is to be let go."""
        consumer, hand, replica = self._consumer, self._hand, self._replica
        damage, hand.damage = hand.damage, None
        if damage is not None:
            raise damage
        while True:
            last, records = hand.state
            if records:
                record = records[0]
                times = max((times for again, times in self._again if again is record), default=0)
                hold = Hold(record, None, times, generation)
                out = (*self.out, (weakref.ref(hold), record, times, hold.done))
                found.append(hold)
                # At once: a signal handler finds both done, or neither.
                self.out, hand.state = out, (last, records[1:])
                return
            ledger = replica.ledger
            cut = False
            if ledger.head >= ledger.tail and not ledger.holds.returned:
                counters = self._members.look()
                ledger = replica.ledger
                if ledger.head >= ledger.tail and not ledger.holds.returned:
                    cut = bool(ledger.grown(counters))
                    if not cut and consumer.delivered() >= ledger.head:
                        if self._members.grows(counters):
                            continue
                        return
            if consumer.slot is None:
                consumer.join()
                continue
            if consumer.end_any_lease():
                continue
            held = self._append_hold(cut)
            if held is not None:
                hold = Hold(self._record(held), held.number, held.times, generation)
                self.blocks[held.number] = weakref.ref(hold)
                found.append(hold)
                self._reclaimer.reclaim_done()
                return

    def _append_hold(self, cut: bool = False) -> Optional[Held]:
        consumer = self._consumer
        assert consumer.slot is not None
        consumer.claim_from = self._replica.now  # No earlier claim of ours is under way any more.
        hold = events.hold(consumer.slot)
        # Commit point: the item is held.
        held = self._members.cut(hold)[-1] if cut else self._replica.append_one(hold)
        return held if isinstance(held, Held) else None

    def _record(self, held: Held) -> Taken:
        """Return the record of an item that we hold.  If the record can't be read the item is lost, as in a get."""
        try:
            return self._reader.read(held.place, held.item)
        except CorruptBatchError:
            self._replica.append(events.got(held.number))
            raise

    def let_go(self, hold: Hold, got: bool) -> None:
        """End the hold of a block that has ended: its item counts as got, or it comes back."""
        number = hold.number
        if number is None:
            out = tuple([entry for entry in self.out if entry[1] is not hold.record])
            if len(out) == len(self.out):  # another engine's of this process, which ends it: ``is_to_end`` noted it
                return
            if got:
                self.out = out
            else:
                self._come_back([(hold.record, hold.times)], out)
            return
        self._end_hold(number, got)

    def _come_back(self, entries: list[tuple[Taken, int]], out: tuple[_Out, ...]) -> None:
        hand = self._hand.state[1]
        self._again = [entry for entry in self._again if any(entry[0] is record for record in hand)]
        self._again += [(record, times + 1) for record, times in entries]
        state = self._hand.with_these([record for record, _ in entries])
        # At once, as above.
        self.out, self._hand.state = out, state

    def take_back(self) -> None:
        """Take back what blocks had that were thrown away, or interrupted at their end."""
        if not (self.blocks or self.out):
            return
        with a_full_disk_is_no_matter():  # the next get does it
            for number in [number for number, block in self.blocks.items() if block() is None]:
                self._end_hold(number, self._ended.get(number, False))
        left = [entry for entry in self.out if entry[0]() is None]
        if left:
            out = tuple([entry for entry in self.out if entry not in left])
            self._come_back([(record, times) for _, record, times, done in left if not done[0]], out)

    def take_all_back(self) -> None:
        """Do the same for blocks that go on."""
        if self.out:
            self._come_back([(record, times) for _, record, times, done in self.out if not done[0]], ())

    def is_to_end(self, hold: Hold, got: bool) -> None:
        """Note how that hold ends: from here on its end is carried out, if need be by the next act."""
        hold.done[0] = got
        if hold.number is not None:
            self._ended[hold.number] = got

    def has_ended(self, hold: Hold) -> None:
        """Note that another engine of this process has carried out the end of that hold."""
        if hold.number is not None:
            self._ended.pop(hold.number, None)
            self.blocks.pop(hold.number, None)

    def _end_hold(self, number: int, got: bool) -> None:
        replica = self._replica
        if number not in replica.ledger.holds.held:
            replica.sync()  # the hold is of another engine of this process, a handler's
        if number in replica.ledger.holds.held:  # else this process has left meanwhile, and the item has come back
            # Commit point.
            replica.append(events.got(number) if got else events.return_(number))
        self._ended.pop(number, None)
        self.blocks.pop(number, None)
        if not got:
            self.announce()
            return
        self._tell_got()
        if self._replica.ledger.files.done:
            self._reclaimer.reclaim_done()

    def settle(self) -> None:
        """Let go what we hold and no block has: items of interrupted acts, and of blocks that were thrown away."""
        slot, state = self._consumer.slot, self._hand.state
        member = self._members.slots.get(slot) if slot is not None else None
        if member is None:
            return
        handed = state.number if isinstance(state, Handed) else None
        for held in list(self._replica.ledger.holds.held.values()):
            if held.member != member or held.number == handed:
                continue
            block = self.blocks.get(held.number)
            if held.number in self._ended or block is None or block() is None:
                self._end_hold(held.number, self._ended.get(held.number, False))

    def recover(self) -> None:
        """Finish an interrupted act: the item that it had handed out is got, and holds that it was to end, end."""
        state = self._hand.state
        if isinstance(state, Handed):
            self._ended[state.number] = True
            self._hand.state = state[0], state[1]
        if self._replica.ledger.holds.held:
            self.settle()
        self._ended.clear()

    # -- waking others

    def announce(self) -> None:
        """Wake consumers: items have come back."""
        if self._replica.ledger.ending.shut:
            self._waiter.ring_all(SLEEPS)
        else:
            self._waiter.ring(SLEEPS)

    def _tell_got(self) -> None:
        """Wake sleepers that await the place of a held item that is got, or the end of a queue that was shut down."""
        ledger = self._replica.ledger
        if ledger.maxsize:
            self._waiter.ring(AWAITS_PLACE)
        if ledger.ending.shut and not ledger.holds.held:
            self._waiter.ring_all(SLEEPS)  # nothing comes back any more

    # -- for gets

    def held_by_others(self) -> bool:
        """Return whether items may still come back from other processes."""
        slot = self._consumer.slot
        mine = None if slot is None else self._members.slots.get(slot)
        return any(held.member != mine for held in self._replica.ledger.holds.held.values())

    def _take_returned(self, got: list[Taken], most: int) -> None:
        wanted = len(got) + most
        while self._replica.ledger.holds.returned and len(got) < wanted:
            held = self._append_hold()
            if held is not None:
                self._deliver_held(got, held)
        self._hand.cut_short = len(got) < wanted
        self._reclaimer.reclaim_done()

    def _deliver_held(self, got: list[Taken], held: Held) -> None:
        """Deliver a held item, then say that it is got: if this process is killed in between, nobody has got the item,
        and it comes back."""
        hand = self._hand
        record = self._record(held)
        before = len(got)
        state = hand.state
        last, records = state
        handed = Handed((last, records))
        handed.number = held.number
        try:
            got.append(record)
            hand.state = handed
        except BaseException:
            if hand.state is state:
                del got[before:]
            raise
        hand.taken += 1
        self._replica.append(events.got(held.number))
        hand.state = last, records
        self._tell_got()
