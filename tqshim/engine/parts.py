"""What an engine is made of.

Lives here: making the parts, and what is asked of several of them.  Not here: what each does.

Invariant: a forked child makes all of them anew, before anything else.
"""

from __future__ import annotations

from tqshim.engine.acknowledge import Acknowledging
from tqshim.engine.consumer import Consumer
from tqshim.engine.membership import Membership
from tqshim.engine.producer import Producer
from tqshim.engine.reader import Reader, Taken
from tqshim.engine.reclaim import Reclaimer
from tqshim.engine.replica import Replica
from tqshim.engine.shutdown import Ending
from tqshim.engine.wait_policy import Waiter
from tqshim.protocol import events
from tqshim.protocol.records import SHUT
from tqshim.runtime import late
from tqshim.storage.folder import LogFolder
from tqshim.sync import membarrier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

    from tqshim.engine.durable import Crowd, Disk
    from tqshim.engine.keys import Key

__all__ = ["Parts", "load", "nothing"]


class Parts:
    """What an engine is made of: all that a forked child makes anew."""

    __slots__ = (
        "acknowledging",
        "consumer",
        "crowd",
        "disk",
        "ending",
        "hand",
        "leasing",
        "members",
        "producer",
        "reader",
        "reclaimer",
        "replica",
        "sole",
        "waiter",
    )

    def __init__(self, folder: LogFolder, replica: Replica, key: Optional[Key], lock: Any) -> None:
        self.replica = replica
        self.members = Membership(folder, replica, membarrier.barrier_works() and not replica.ledger.settings.durable)
        self.reclaimer = Reclaimer(folder, replica, self.members)
        self.reader = Reader(folder, replica)
        self.waiter = Waiter(folder, replica, self.members)
        self.producer = Producer(folder, replica, self.members, self.reclaimer, lock)
        self.consumer = Consumer(replica, self.members, self.reader, self.reclaimer)
        self.hand = self.consumer.hand
        self.leasing = self.consumer.leasing
        self.sole = self.consumer.sole
        self.acknowledging = Acknowledging(
            replica, self.members, self.reader, self.reclaimer, self.consumer, self.waiter
        )
        self.ending = Ending(replica, self.members, self.consumer, self.waiter.ring_all)
        self.producer.help_to_shut = self.ending.help
        self.producer.supply.taken_elsewhere = self.consumer.taken_elsewhere
        self.reclaimer.forget = self.reader.forget
        self.reclaimer.announce = self.acknowledging.announce
        self.disk: Optional[Disk] = None
        self.crowd: Optional[Crowd] = None
        """Of a durable queue."""
        if replica.ledger.settings.durable:
            durable = late.room("engine.durable")
            disk = self.disk = durable.Disk(folder, replica)
            self.crowd = durable.Crowd(disk, replica, self.members, self.producer)
            self.producer.writer.harden = disk.harden_records
            self.reclaimer.may_remove = disk.lets_remove
            replica.rolled = disk.has_rolled
        if key is not None:
            late.room("engine.keyed").use_key(key, self.producer, self.reader)

    def close(self) -> None:
        self.replica.close()
        self.waiter.close()
        self.reader.close()
        self.producer.close()
        self.consumer.take_returned = nothing  # the former would keep all of this alive
        self.reclaimer.announce = self.reclaimer.settle = self.replica.rolled = int
        self.members.close()

    def make_room(self) -> bool:
        """Look for hidden places in a queue that looks full.  ``True``: look again.

        What hides one: what a lease has delivered, another thread's put that does not count, or a reservation."""
        passed, _ = self.members.passed()
        if passed:
            self.replica.append_one(passed)  # void where another has said it just now, or ended the lease
            return True
        producer = self.producer
        taken = producer.taken()
        if taken > self.replica.ledger.used:
            producer.settle_all(producer)  # What another thread has put beyond its reservation may not count.
            if producer.taken() < taken:
                return True
        reservations = self.replica.ledger.reservations
        if not reservations.places:
            return False
        standing = [slot for slot, own in reservations.by_slot.items() if not own.cut]
        return sum([producer.trim(slot) for slot in standing]) > 0

    def put_back(self, record: bytes) -> bool:
        """Put what this process, which leaves, had got and not delivered: be there a place or not, for its item had
        one, and also into a queue that is shut down.  ``False``: that was done at once, and drops it.

        Raises ``OSError`` where there is no space."""
        producer = self.producer
        producer.end()
        producer.settle_all(producer)
        total, count = producer.write([record])
        return producer.append(total, total + count, events.put_back) > 0

    def has_room(self, count: int) -> bool:
        """Return whether there seem to be so many places, though a put has found none.

        Others had reserved them, and have used fewer since, or got items."""
        if self.make_room():
            return True
        ledger = self.replica.ledger
        return not ledger.ending.shutting and self.producer.taken(count) <= ledger.maxsize

    def is_over(self) -> bool:
        """The queue was shut down, and nothing can be got any more."""
        if self.consumer.count():
            return False
        ledger = self.replica.ledger
        return ledger.ending.shut != SHUT or not (ledger.holds.held and self.acknowledging.held_by_others())

    def finds_nothing_new(self) -> bool:
        """There was nothing to get, nothing has happened since, and there is nothing to do.

        ``False`` from the beginning of a shutdown on: somebody else in this process may have seen all that happens."""
        acknowledging = self.acknowledging
        ends = self.ending.is_wanted or self.replica.ledger.ending.shutting
        at_work = acknowledging.blocks or acknowledging.out or ends
        return not at_work and self.consumer.finds_nothing_new()

    def count(self) -> int:
        """Return how many items could be got now.

        Finishes a shutdown first: the process that was to do so may have been killed in the middle of it."""
        self.acknowledging.take_back()
        count = self.consumer.count()
        if self.ending.is_wanted:
            self.ending.help()
            count = self.consumer.count()
        return count

    def is_done(self, completions: int) -> bool:
        return not self.ending.unfinished() or self.replica.ledger.joins.completions >= completions


def load(replica: Replica) -> None:
    replica.load()
    if replica.ledger.settings.durable:
        late.room("engine.durable").open_surely(replica)


def nothing(got: list[Taken], most: int) -> None:
    pass
