"""The faults that ``mutants`` plants, one at a time."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["MUTANTS", "Mutant"]


class Mutant(NamedTuple):
    """One fault."""

    name: str
    old: str
    """What stands in one file of the package, once; which one that is, is looked up."""
    new: str
    seen: str
    """What a user would see."""
    test: str
    """The test in ``tests/contract`` that fails then."""


ORDER = "test_contract_order.py::"
BOUNDS = "test_contract_bounds.py::"
WAKING = "test_contract_waking.py::"

MUTANTS = [
    # -- putting
    Mutant(
        "counter before record",
        "                self.memory[begin:end] = record\n"
        "                ends[number + 1] = end\n"
        "                # Commit point: from here on the item is in the queue.\n"
        "                counts[self.cell] = total = total + 1\n",
        "                counts[self.cell] = total = total + 1\n"
        "                self.memory[begin:end] = record\n"
        "                ends[number + 1] = end\n",
        "an item is damaged whose producer was killed while it wrote it",
        ORDER + "test_what_killed_producers_have_put_is_whole",
    ),
    Mutant(
        "counter before large record",
        "        return self._commit(total, total + self._write(total, records[:count]), by_counter)",
        "        put = self._commit(total, total + count, by_counter)\n"
        "        self._write(total, records[:count])\n"
        "        return put",
        "a consumer that looks in that moment finds a damaged item",
        ORDER + "test_a_large_item_is_whole_once_it_can_be_seen",
    ),
    Mutant(
        "put rings nobody",
        "                if counts[self.flag] or counts[_ASLEEP]:\n",
        "                if counts[self.flag]:\n",
        "who sleeps in get finds an item seconds late",
        WAKING + "test_as_many_wake_up_as_items_come[put]",
    ),
    Mutant(
        "batch rings nobody",
        "        if words[_ASLEEP]:\n            parts.waiter.ring(SLEEPS)\n",
        "",
        "who sleeps in get finds items seconds late that were put as a batch",
        WAKING + "test_as_many_wake_up_as_items_come[put_many]",
    ),
    Mutant(
        "no cut is ever due",
        "        self.due = now + tuning.CUT_EVERY\n        return False\n",
        "        self.due = now + (tuning.CUT_EVERY << 20)\n        return False\n",
        "items of two processes come out in another order than that in which they were put",
        ORDER + "test_two_processes_that_put_in_turn_are_heard_in_turn",
    ),
    Mutant(
        "batches ask an old ledger for places",
        "                replica.sync()  # Others may have got some meanwhile.\n",
        "                pass\n",
        "put_many_nowait raises Full although the queue is empty",
        BOUNDS + "test_as_many_as_fit_are_put_at_once[3]",
    ),
    Mutant(
        "last place of a batch refused",
        "        return ledger.used + max(0, beyond) <= ledger.maxsize",
        "        return ledger.used + max(0, beyond) < ledger.maxsize",
        "a batch as large as the queue is refused although the queue is empty",
        BOUNDS + "test_as_many_as_fit_are_put_at_once[10]",
    ),
    Mutant(
        "one place too many taken from a reservation",
        "            used = members.word(words_of.COUNTER, slot) - own.begin\n",
        "            used = members.word(words_of.COUNTER, slot) - own.begin + 1\n",
        "a bounded queue is full one item too early",
        BOUNDS + "test_places_that_another_has_not_used_are_anyones[300]",
    ),
    Mutant(
        "capacity of large files in three bits",
        "    return FIRST << (serial >> 3 & 15)",
        "    return FIRST << (serial >> 3 & 7)",
        "a batch of many items hangs in its put",
        BOUNDS + "test_a_large_batch_goes_in_at_once",
    ),
    # -- getting
    Mutant(
        "a claim of several takes the whole extent",
        "            stop = min(stop, claimed.stop)\n",
        "",
        "get_many returns more items than it was asked for, and others get them again",
        ORDER + "test_a_get_of_many_takes_no_more_than_it_may",
    ),
    Mutant(
        "a lease revoked one item too late",
        "        count = max(0, min(position, lease.end) - lease.first)\n",
        "        count = max(0, min(position + 1, lease.end) - lease.first)\n",
        "an item is lost when a second consumer comes",
        ORDER + "test_what_a_consumer_has_left_of_many_items_is_anothers",
    ),
    Mutant(
        "a lease revoked one item too early",
        "        count = max(0, min(position, lease.end) - lease.first)\n",
        "        count = max(0, min(position, lease.end) - lease.first - 1)\n",
        "an item is got twice when a second consumer comes",
        ORDER + "test_what_a_consumer_has_left_of_many_items_is_anothers",
    ),
    Mutant(
        "the flag of a lease is not looked at",
        "                if contested:\n                    generation = engine.generation\n",
        "                if contested and engine.closed:\n                    generation = engine.generation\n",
        "a consumer gets items that another has got",
        ORDER + "test_whoever_comes_late_to_a_consumers_items_gets_none_twice",
    ),
    Mutant(
        "steps are forgotten",
        "            self._at = at\n            self.steps = NO_STEPS",
        "            self.steps = NO_STEPS",
        "a process gets the same items again when it changes from get to get_many",
        ORDER + "test_what_a_consumer_has_left_of_many_items_is_anothers",
    ),
    Mutant(
        "news of others not looked for",
        "            and self._seen == self._members.cells.counters()\n",
        "",
        "get_nowait raises Empty although another process has put an item",
        ORDER + "test_another_process_sees_at_once_what_was_put",
    ),
    Mutant(
        "a get of many stops where a lease ends",
        "            while got and cut_short and len(got) < max_messages_to_get:\n",
        "            while not got and cut_short and len(got) < max_messages_to_get:\n",
        "get_many returns fewer items than there are",
        ORDER + "test_a_get_of_many_takes_all_that_is_there",
    ),
    # -- waiting
    Mutant(
        "a ring is not passed on",
        "            if sleep.rung:\n                pass_on(engine)\n",
        "",
        "one of several sleepers wakes up, the others seconds later",
        WAKING + "test_as_many_wake_up_as_items_come[put_many]",
    ),
    Mutant(
        "no second look before sleep",
        "                        if not consumer.finds_nothing_new():\n"
        "                            # Whoever has put something before this did not see that we sleep.\n",
        "                        if False:\n",
        "now and then a get sleeps for part of a second beside an item",
        WAKING + "test_who_falls_asleep_just_then_is_woken",
    ),
    Mutant(
        "a get rings no producer",
        "                    if engine.maxsize and most:\n                        parts.waiter.ring(AWAITS_PLACE)\n",
        "",
        "who sleeps in put finds a place seconds late",
        WAKING + "test_as_many_go_on_as_places_become_free[get-1]",
    ),
    Mutant(
        "a get from a lease rings no producer",
        "                    engine.ring_for_place()\n",
        "                    pass\n",
        "who sleeps in put finds a place seconds late while a long backlog is got",
        WAKING + "test_as_many_go_on_as_places_become_free[get-200]",
    ),
    Mutant(
        "a free place is one too few",
        "    return engine.maxsize - ledger.used\n",
        "    return engine.maxsize - ledger.used - 1\n",
        "who sleeps in put sleeps on beside the last free place",
        WAKING + "test_as_many_go_on_as_places_become_free[get-1]",
    ),
    Mutant(
        "timeout of get doubled",
        "        check_deadline(deadline := monotonic() + timeout)\n",
        "        check_deadline(deadline := monotonic() + 2 * timeout)\n",
        "get(timeout=0.3) returns after 0.6 s",
        WAKING + "test_a_wait_that_is_in_vain_ends_in_time[get]",
    ),
    Mutant(
        "timeout of put doubled",
        "        deadline = None if timeout is None else monotonic() + timeout\n        return self.unless_f",
        "        deadline = None if timeout is None else monotonic() + 2 * timeout\n        return self.unless_f",
        "put(timeout=0.3) returns after 0.6 s",
        WAKING + "test_a_wait_that_is_in_vain_ends_in_time[put]",
    ),
    Mutant(
        "timeout of join doubled",
        "        deadline = None if timeout is None else monotonic() + timeout\n        unfinished, wanted",
        "        deadline = None if timeout is None else monotonic() + 2 * timeout\n        unfinished, wanted",
        "join(timeout=0.3) returns after 0.6 s",
        WAKING + "test_a_wait_that_is_in_vain_ends_in_time[join]",
    ),
    Mutant(
        "who lives is taken for a dead sleeper",
        "                if until + 3 * _NAP_UNIT * (word & 0xFFFF) + 2000 >= now:\n",
        "                if until + 3 * _NAP_UNIT * (word & 0xFFFF) + 2000 < now:\n",
        "nobody who sleeps is woken",
        WAKING + "test_as_many_wake_up_as_items_come[put one by one]",
    ),
    Mutant(
        "who wakes up does not say that others sleep",
        "        if cells.sleepers(kind):\n            cells.words[ASLEEP[kind]] = 1\n            if more:\n",
        "        if cells.sleepers(kind):\n            if more:\n",
        "of several who sleep one is woken, the others look seconds later",
        WAKING + "test_as_many_wake_up_as_items_come[put]",
    ),
    Mutant(
        "a shutdown wakes nobody",
        "        for kind in KINDS:\n            self._ring_all(kind)\n",
        "",
        "who sleeps hears of the shutdown seconds later",
        WAKING + "test_all_who_wait_wake_up_at_a_shutdown[items]",
    ),
    Mutant(
        "a ring is heard and not taken",
        "            return bool(read(self.fd, 1))\n",
        "            return True\n",
        "who waits burns a processor once somebody has rung",
        WAKING + "test_who_waits_costs_no_time_of_the_processor",
    ),
]
