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
DEATH = "test_contract_death.py::"
ENDS = "test_contract_ends.py::"
CLAIMED = "test_contract_claimed.py::"
PLACES = "test_contract_places.py::"
LARGE = "test_contract_large.py::"
POWER = PLACES + "test_what_a_durable_put_has_put_survives_a_power_cut"

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
        "an item is damaged whose producer was stopped or killed while it wrote it",
        ORDER + "test_what_a_stopped_producer_has_put_is_whole",
    ),
    Mutant(
        "counter before large record",
        "        return total, self.writer.write(self._own_log(), total, records[:count])\n",
        "        self._commit(total, total + count)\n"
        "        return total, self.writer.write(self._own_log(), total, records[:count])\n",
        "a consumer that looks in that moment finds a damaged item",
        ORDER + "test_a_large_item_is_whole_once_it_can_be_seen",
    ),
    Mutant(
        "put rings nobody",
        "                if counts[self.flag] or counts[_ASLEEP]:\n",
        "                if counts[self.flag]:\n",
        "who sleeps in get finds an item seconds late",
        WAKING + "test_as_many_wake_up_as_items_come[get-put]",
    ),
    Mutant(
        "batch rings nobody",
        "        if words[_ASLEEP]:\n            parts.waiter.ring_surely(SLEEPS)\n",
        "",
        "who sleeps in get finds items seconds late that were put as a batch",
        WAKING + "test_as_many_wake_up_as_items_come[get-put_many]",
    ),
    Mutant(
        "one mark is for ever",
        "        self.due = now + tuning.MARK_EVERY\n",
        "        self.due = now + (tuning.MARK_EVERY << 20)\n",
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
        "        return self.taken(count) <= self._replica.ledger.maxsize",
        "        return self.taken(count) < self._replica.ledger.maxsize",
        "a batch as large as the queue is refused although the queue is empty",
        BOUNDS + "test_as_many_as_fit_are_put_at_once[10]",
    ),
    Mutant(
        "who puts alone is not told that another has joined",
        "            self.raise_flag(words_of.FLAG, others[0])\n",
        "",
        "a bounded queue holds more items than it may",
        BOUNDS + "test_who_was_the_only_one_to_put_takes_no_place_of_who_joins[5-10]",
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
        ORDER + "test_who_comes_late_to_a_consumers_items_gets_none_twice",
    ),
    Mutant(
        "steps are forgotten",
        "            self.at = at\n            self.steps = NO_STEPS",
        "            self.steps = NO_STEPS",
        "a process gets the same items again when it changes from get to get_many",
        ORDER + "test_what_a_consumer_has_left_of_many_items_is_anothers",
    ),
    Mutant(
        "news of others not looked for",
        "            self._seen == cells.counters()\n",
        "            True\n",
        "get_nowait raises Empty although another process has put an item",
        ORDER + "test_another_process_sees_at_once_what_was_put[2]",
    ),
    Mutant(
        "a get of many stops where a lease ends",
        "                if not (got and cut_short and len(got) < max_messages_to_get):\n",
        "                if got or not (cut_short and len(got) < max_messages_to_get):\n",
        "get_many returns fewer items than there are",
        ORDER + "test_a_get_of_many_takes_all_that_is_there",
    ),
    Mutant(
        "the end of a lease of all that comes says nothing of what it has delivered",
        '        return b"".join(said) + events.revoke(0, lease.number)\n',
        '        return b"".join(said[:0]) + events.revoke(0, lease.number)\n',
        "items are got twice when a second consumer comes",
        ORDER + "test_what_comes_one_by_one_to_the_only_consumer_is_got_once_when_another_comes",
    ),
    Mutant(
        "nobody else sees what a lease of all that comes has delivered",
        "            return ledger.head + sum([at - ledger.totals[slot] for slot, at in self._members.given().items()])"
        "\n",
        "            return ledger.head\n",
        "qsize counts items that a consumer has got",
        ORDER + "test_what_comes_one_by_one_to_the_only_consumer_is_got_once_when_another_comes",
    ),
    Mutant(
        "what several logs have under a lease of all that comes is got log by log",
        "        stretches = in_order(grown, begins, self._members.cells.marks)\n",
        "        stretches = [(0, slot, total) for slot, total in grown]\n",
        "what one process has put milliseconds after another is got before it",
        ORDER + "test_what_several_put_while_the_only_consumer_is_busy_comes_in_the_order_of_time",
    ),
    Mutant(
        "a log's marks are packed while what was put before the last of them waits",
        "        elif number > 1 and counts[last] < counts[self._given]:\n",
        "        elif number > 1:\n",
        "what one process has put milliseconds after another is got before it",
        ORDER + "test_what_several_put_while_the_only_consumer_is_busy_comes_in_the_order_of_time",
    ),
    # -- waiting
    Mutant(
        "a ring is not passed on",
        "                pass_on(engine)\n                return engine.generation, False\n",
        "                return engine.generation, False\n",
        "one of several sleepers wakes up, the others seconds later",
        WAKING + "test_as_many_wake_up_as_items_come[get-put_many]",
    ),
    Mutant(
        "a ring for who claims is not passed on",
        "            if sleep.rung:\n                pass_on(engine)\n",
        "",
        "one of several sleepers in claimed wakes up, the others seconds later",
        WAKING + "test_as_many_wake_up_as_items_come[claimed-put_many]",
    ),
    Mutant(
        "who has woken up believes that nothing is left",
        "not (tuning.FIRST_NAPS and finds_nothing_new(engine))",
        "not tuning.FIRST_NAPS",
        "one of several sleepers wakes up, the others seconds later",
        WAKING + "test_as_many_wake_up_as_items_come[get-put_many]",
    ),
    Mutant(
        "no second look before sleep",
        "        sleep.doubts = not (sleep.doubts or finds_nothing_new(engine, sleep.read))\n",
        "        sleep.doubts = False\n",
        "now and then a get sleeps for part of a second beside an item",
        WAKING + "test_who_is_stopped_as_it_falls_asleep_finds_what_came_meanwhile",
    ),
    Mutant(
        "a get rings no producer",
        "                if engine.maxsize:\n                    parts.waiter.ring(AWAITS_PLACE)\n",
        "",
        "who sleeps in put finds a place seconds late",
        WAKING + "test_as_many_go_on_as_places_become_free[get-1]",
    ),
    Mutant(
        "a get of many rings no producer",
        "                    if engine.maxsize and most:\n                        parts.waiter.ring(AWAITS_PLACE)\n",
        "",
        "who sleeps in put finds places seconds late",
        WAKING + "test_as_many_go_on_as_places_become_free[get_many-5]",
    ),
    Mutant(
        "a place is not passed on",
        "                engine.unless_forked(None, engine.act, pass_on, engine)\n",
        "                pass\n",
        "of several who sleep in put one goes on when many items are got at once, the others seconds later",
        WAKING + "test_as_many_go_on_as_places_become_free[get_many-5]",
    ),
    Mutant(
        "a get from a lease rings no producer",
        "                    engine.ring_for_place()\n",
        "                    pass\n",
        "who sleeps in put finds a place seconds late while a long backlog is got",
        WAKING + "test_as_many_go_on_as_places_become_free[get-200]",
    ),
    Mutant(
        "a full file is taken for a full queue",
        "not (self._replica.ledger.shutting or self._may_cut(1)) else None\n",
        "not self._replica.ledger.shutting else None\n",
        "a put raises Full, or waits, though there are places",
        DEATH + "test_a_killed_producer_keeps_no_place",
    ),
    Mutant(
        "a free place is one too few",
        "    return engine.maxsize - taken\n",
        "    return engine.maxsize - taken - 1\n",
        "who awaits put_async sleeps on beside the last free place",
        WAKING + "test_event_loops_go_on_as_soon_as_they_can[put]",
    ),
    Mutant(
        "timeout of get doubled",
        "        check_deadline(deadline := after(began, timeout))\n",
        "        check_deadline(deadline := after(began, 2 * timeout))\n",
        "get(timeout=0.3) returns after 0.6 s",
        WAKING + "test_a_wait_that_is_in_vain_ends_in_time[get]",
    ),
    Mutant(
        "timeout of put doubled",
        "        deadline = None if timeout is None else after(monotonic(), timeout)\n        return self.unless_f",
        "        deadline = None if timeout is None else monotonic() + 2 * timeout\n        return self.unless_f",
        "put(timeout=0.3) returns after 0.6 s",
        WAKING + "test_a_wait_that_is_in_vain_ends_in_time[put]",
    ),
    Mutant(
        "timeout of join doubled",
        "        deadline = None if timeout is None else after(monotonic(), timeout)\n        unfinished, wanted",
        "        deadline = None if timeout is None else monotonic() + 2 * timeout\n        unfinished, wanted",
        "join(timeout=0.3) returns after 0.6 s",
        WAKING + "test_a_wait_that_is_in_vain_ends_in_time[join]",
    ),
    Mutant(
        "who lives is taken for a dead sleeper",
        "    return (word >> 16) + 3 * _NAP_UNIT * (word & 0xFFFF) + 2000\n",
        "    return (word >> 16) - 3 * _NAP_UNIT * (word & 0xFFFF) + 2000\n",
        "nobody who sleeps is woken",
        WAKING + "test_as_many_wake_up_as_items_come[get-put one by one]",
    ),
    Mutant(
        "only a sleeper whom the word names is rung for",
        "            if members.cells.is_asleep(kind, said) or members.sleepers(kind, 1):\n",
        "            if members.cells.is_asleep(kind, said):\n",
        "of several who sleep one is woken, the others look seconds later",
        WAKING + "test_as_many_wake_up_as_items_come[get-put one by one]",
    ),
    Mutant(
        "who wakes up does not say that others sleep",
        "        if self._members.sleepers(kind, 1):\n"
        "            cells.words[ASLEEP[kind]] = 1\n"
        "            if more:\n",
        "        if self._members.sleepers(kind, 1):\n            if more:\n",
        "of several who sleep one is woken, the others look seconds later",
        WAKING + "test_as_many_wake_up_as_items_come[get-put]",
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
    # -- who lives and who died
    Mutant(
        "a member is buried alive",
        "                members.slots.pop(slot, None)\n                return False\n",
        "                return True\n",
        "what a producer puts after another has looked for the dead is lost",
        DEATH + "test_who_lives_is_not_taken_for_dead",
    ),
    Mutant(
        "a burial cuts nothing",
        "            then = self.skip(slot) + events.leave(slot, member.number)\n            self.see_all()\n",
        "            self._replica.append(events.leave(slot, member.number))\n            return True\n",
        "what a killed producer had put is lost",
        DEATH + "test_what_was_put_is_there_whatever_became_of_its_producer[0-kill]",
    ),
    Mutant(
        "who leaves cuts nothing",
        "        then = self.skip(slot) + events.leave(slot, number)\n        self.cells.clear(slot)\n",
        "        self._replica.append(events.leave(slot, number))\n        return\n",
        "what a producer has put is lost when it ends",
        DEATH + "test_what_was_put_is_there_whatever_became_of_its_producer[0-end]",
    ),
    Mutant(
        "the dead keep what they hold",
        "        for held in [held for held in self.held.values() if held.member == number]:\n",
        "        for held in [held for held in self.held.values() if held.item == number]:\n",
        "an item never comes back whose holder was killed",
        DEATH + "test_an_item_comes_back_whose_holder_was_killed[True]",
    ),
    Mutant(
        "nobody looks for the dead",
        "        return now - self.scanned > tuning.SCAN_EVERY\n",
        "        return now - self.scanned > tuning.SCAN_EVERY * 60\n",
        "an item comes back a minute after its holder was killed",
        DEATH + "test_an_item_comes_back_whose_holder_was_killed[True]",
    ),
    Mutant(
        "what is in the hand is buried with its process",
        "        with a_full_disk_is_no_matter():\n            self._put_again()\n",
        "",
        "items are lost that a get had taken and not returned when its process ends",
        DEATH + "test_who_ends_leaves_what_a_get_had_taken_to_others[unbounded-end]",
    ),
    Mutant(
        "what comes back to the hand goes behind it",
        "(*records, *hand)",
        "(*hand, *records)",
        "items change their order behind one that could not be unpickled",
        DEATH + "test_items_behind_one_that_cannot_be_unpickled_keep_their_order",
    ),
    Mutant(
        "what is in the hand is not counted",
        "            count = max(0, self._replica.ledger.uncut(counters) + self.size()) + len(self.hand.state[1])\n",
        "            count = max(0, self._replica.ledger.uncut(counters) + self.size())\n",
        "qsize is too small behind an item that could not be unpickled",
        DEATH + "test_items_behind_one_that_cannot_be_unpickled_keep_their_order",
    ),
    Mutant(
        "an item that can't be unpickled is given back",
        "            if got and not (loading and is_fault(error)):\n",
        "            if got:\n",
        "get raises the same error for ever",
        DEATH + "test_an_item_that_cannot_be_unpickled_is_gone_and_all_others_arrive",
    ),
    Mutant(
        "counters of the first page alone",
        "        if self.pages == 1:\n            return self._counters[0].tobytes()\n",
        "        if self.pages:\n            return self._counters[0].tobytes()\n",
        "what the 65th process puts is not in the queue",
        DEATH + "test_more_processes_than_a_page_has_slots",
    ),
    Mutant(
        "claim not in hand",
        "        self._recover_items(mine)\n",
        "        self._recover_items(mine[1:])\n",
        "an item is lost whose get a signal handler has interrupted",
        DEATH + "test_interruptions_lose_and_double_nothing[get]",
    ),
    Mutant(
        "an interrupted get hands out what it had not delivered",
        "            engine.unsure = True\n            state = hand.state\n",
        "            state = hand.state\n",
        "an item is lost whose get a signal handler has interrupted",
        DEATH + "test_interruptions_lose_and_double_nothing[get]",
    ),
    Mutant(
        "an interrupted get of many hands out what it had not delivered",
        "                engine.unsure = True\n                parts = engine.parts\n",
        "                parts = engine.parts\n",
        "an item is lost whose get_many a signal handler has interrupted",
        DEATH + "test_interruptions_lose_and_double_nothing[get_many]",
    ),
    Mutant(
        "a handler acts in the middle of an act",
        "        return bool(self.lock._is_owned()) or (crowd is not None and crowd.is_led_here)\n",
        "        return crowd is not None and crowd.is_led_here\n",
        "items are lost or doubled when a signal handler puts",
        ORDER + "test_a_handler_that_puts_in_the_middle_of_a_put_is_heard_in_between",
    ),
    Mutant(
        "what a handler puts is not cut before what follows",
        "put = above.put_many(records, before, block, timeout)\n                above.cut_for_below()\n",
        "put = above.put_many(records, before, block, timeout)\n",
        "what a signal handler has put comes behind what was put after it",
        ORDER + "test_a_handler_that_puts_in_the_middle_of_a_put_is_heard_in_between",
    ),
    # -- forks and locks
    Mutant(
        "a child goes on with its parent's items",
        "        parts.leasing.steps = NO_STEPS\n        log = parts.producer.log\n",
        "        log = parts.producer.log\n",
        "a forked child gets the items that its parent gets",
        DEATH + "test_a_child_that_is_forked_takes_nothing_of_its_parents",
    ),
    Mutant(
        "the hooks of a fork do not run",
        "after_in_child=_run_in_child\n",
        "after_in_child=lambda: None\n",
        "a forked child writes over what its parent puts, and gets what its parent gets",
        DEATH + "test_a_child_that_is_forked_takes_nothing_of_its_parents",
    ),
    Mutant(
        "a child keeps the lock of its parent's thread",
        "        former, self.lock = self.lock, locks.RLock()\n        locks.forked(former)\n",
        "",
        "a child that is forked beside a busy thread hangs in its first put",
        DEATH + "test_children_that_are_forked_beside_busy_threads_go_on",
    ),
    Mutant(
        "a child's frame waits for its parent's thread",
        "        lock._release_save()\n",
        "        pass\n",
        "a child that a signal handler has forked hangs in the call that the handler has interrupted",
        DEATH + "test_who_forks_in_a_handler_while_it_waits_for_a_thread_goes_on[qsize]",
    ),
    # -- space
    Mutant(
        "files are never reclaimed",
        "        if self._replica.ledger.done or self._pending:\n            self.reclaim()\n",
        "",
        "the disk fills up with what was got long ago",
        DEATH + "test_what_went_through_a_queue_takes_no_space",
    ),
    Mutant(
        "a held item's file is deleted",
        "        if file not in self.kept_files:\n            self.done.append((file, end))\n",
        "        self.done.append((file, end))\n",
        "an item that comes back can't be read any more",
        CLAIMED + "test_what_is_held_or_has_come_back_outlives_what_others_do[700]",
    ),
    # -- ends
    Mutant(
        "a shutdown raises no flag",
        "                for slot in list(ledger.files):\n"
        "                    members.raise_flag(words_of.FLAG, slot)\n",
        "",
        "a put after another's shutdown returns, and its item is lost",
        ENDS + "test_a_put_after_anothers_shutdown_is_refused",
    ),
    Mutant(
        "a put does not look at its flag",
        "                if counts[self.flag] or counts[_ASLEEP]:\n",
        "                if counts[_ASLEEP]:\n",
        "a put after another's shutdown returns, and its item is lost",
        ENDS + "test_a_put_after_anothers_shutdown_is_refused",
    ),
    Mutant(
        "a refused put says that it is in",
        "        kept = total - 1 not in owner.lost\n",
        "        kept = True\n",
        "a put after another's shutdown returns, and its item is lost",
        ENDS + "test_a_put_after_anothers_shutdown_is_refused",
    ),
    Mutant(
        "a shutdown cuts nothing",
        "            members.cut(events.shutdown(immediate))\n",
        "            replica.append(events.shutdown(immediate))\n",
        "what was put just before a shutdown is lost",
        ENDS + "test_what_was_put_before_a_shutdown_arrives",
    ),
    Mutant(
        "closing forgets how",
        "    return _pack(CLOSING | immediate << 24)\n",
        "    return _pack(CLOSING)\n",
        "shutdown(immediate=True) drops nothing",
        ENDS + "test_a_shutdown_at_once_drops_what_waits_in_every_process",
    ),
    Mutant(
        "items that a shutdown drops are never finished",
        "            self._finish(min(self.tail - self.head + len(self.returned), self.unfinished))\n",
        "",
        "join waits for ever after shutdown(immediate=True)",
        ENDS + "test_a_shutdown_at_once_drops_what_waits_in_every_process",
    ),
    Mutant(
        "a held item that a shutdown drops is never finished",
        "            self._finish(min(1, self.unfinished))\n",
        "",
        "join waits for ever when a block fails after shutdown(immediate=True)",
        ENDS + "test_a_held_item_that_a_shutdown_drops_keeps_no_join_waiting",
    ),
    Mutant(
        "nobody else may hold anything",
        "        return any(held.member != mine for held in self._replica.ledger.held.values())\n",
        "        return False\n",
        "get raises ShutDown although an item may come back",
        ENDS + "test_get_waits_for_what_others_hold_before_it_ends",
    ),
    Mutant(
        "who has seen a shutdown is asked for nothing",
        " or self.ending.is_wanted or self.replica.ledger.shutting\n",
        " or self.ending.is_wanted\n",
        "who awaits get_async sleeps on after a shutdown that another get of its process has seen",
        ENDS + "test_who_waits_in_an_event_loop_wakes_at_a_shutdown_that_its_process_has_seen_before",
    ),
    Mutant(
        "a task is counted off before what was put is counted",
        "        left = self._members.cut(events.task_done())[-1]\n",
        "        left = self._replica.append(events.task_done())[-1]\n",
        "join ends although an item that was put is not done",
        ENDS + "test_an_item_that_another_has_just_put_keeps_a_join_waiting",
    ),
    Mutant(
        "a join overlooks that all was done",
        "        return not self.ending.unfinished() or self.replica.ledger.completions >= completions\n",
        "        return not self.ending.unfinished()\n",
        "join waits on, where more is put at once",
        ENDS + "test_a_join_goes_on_although_more_is_put_at_once",
    ),
    # -- claimed
    Mutant(
        "a block that fails has its item",
        "            self._replica.append(events.got(number) if got else events.return_(number))\n",
        "            self._replica.append(events.got(number))\n",
        "an item is lost whose block has failed",
        CLAIMED + "test_an_item_whose_block_fails_comes_back_and_says_how_often",
    ),
    Mutant(
        "nobody counts how often an item came back",
        "            insort(self.returned, Returned(held.item, held.times + 1, held.place))\n",
        "            insort(self.returned, Returned(held.item, held.times, held.place))\n",
        "redelivered is 0 for an item that has come back",
        CLAIMED + "test_an_item_whose_block_fails_comes_back_and_says_how_often",
    ),
    Mutant(
        "items come back in the order in which their blocks failed",
        "            insort(self.returned, Returned(held.item, held.times + 1, held.place))\n",
        "            self.returned.append(Returned(held.item, held.times + 1, held.place))\n",
        "items that come back change their order",
        CLAIMED + "test_what_comes_back_goes_before_all_that_waits_the_oldest_first",
    ),
    Mutant(
        "a block that was thrown away is not missed",
        "                self._end_hold(number, self._ended.get(number, False))\n        left",
        "                del number\n        left",
        "an item whose block was interrupted at its end comes back a second later, or never",
        CLAIMED + "test_an_item_whose_block_was_thrown_away_is_the_next_one[get]",
    ),
    Mutant(
        "what this process holds is never looked for",
        "            if self._replica.ledger.held:\n                self.settle()\n",
        "            pass\n",
        "an item whose block was thrown away stays held where its process does not get anything",
        CLAIMED + "test_an_item_whose_block_was_thrown_away_comes_back_to_others[others come]",
    ),
    Mutant(
        "a held item has left its place",
        "        return self.tail - low + self.reserved + self.apart\n",
        "        return self.tail - low + self.reserved\n",
        "a bounded queue holds more items than it may",
        BOUNDS + "test_an_item_that_is_held_keeps_its_place",
    ),
    Mutant(
        "places that are reserved are anyone's",
        "        return self.tail - low + self.reserved + self.apart\n",
        "        return self.tail - low + self.apart\n",
        "a bounded queue holds more items than it may",
        BOUNDS + "test_places_that_another_has_not_used_are_anyones[300]",
    ),
    Mutant(
        "a held item that is got keeps its place",
        "        if held is not None:\n            self._let_go(held.place.file)\n",
        "",
        "a bounded queue is full for ever after some blocks",
        BOUNDS + "test_places_of_held_items_are_free_again_however_many_there_were",
    ),
    Mutant(
        "nobody is told that a held item is got",
        "        if ledger.maxsize:\n            self._waiter.ring(AWAITS_PLACE)\n",
        "",
        "who sleeps in put finds the place of a held item seconds late",
        WAKING + "test_as_many_go_on_as_places_become_free[claimed-1]",
    ),
    Mutant(
        "nobody is told that an item has come back",
        "        else:\n            self._waiter.ring(SLEEPS)\n",
        "        else:\n            pass\n",
        "who sleeps in get finds an item that came back seconds late",
        WAKING + "test_who_waits_for_what_is_held_wakes_up_when_it_comes_back",
    ),
    # -- the rules
    Mutant(
        "cut twice",
        "        self.totals[slot] = total\n        return range(first, self.tail)\n",
        "        return range(first, self.tail)\n",
        "items are got again and again",
        ORDER + "test_another_process_sees_at_once_what_was_put[2]",
    ),
    Mutant(
        "a claim beyond the tail",
        "        items = range(self.head, min(self.head + most, self.tail))\n",
        "        items = range(self.head, self.head + most)\n",
        "get_many of more than there are raises an error",
        ORDER + "test_one_process_finds_what_a_deque_holds[0]",
    ),
    Mutant(
        "what was forgotten shifts nothing",
        "            self._where[at] += low - self._first\n",
        "",
        "items come out in the place of others once half of them were got",
        CLAIMED + "test_what_is_held_or_has_come_back_outlives_what_others_do[700]",
    ),
    Mutant(
        "the first item of a stretch is the last of the one before",
        "            index = bisect_right(ends, item, at)\n",
        "            index = bisect_right(ends, item - 1, at)\n",
        "items come out in the place of others",
        ORDER + "test_items_of_several_logs_keep_their_places",
    ),
    Mutant(
        "an act that comes too late for its journal is lost",
        "            if counts >= size:\n",
        "            if counts >= 0:\n",
        "of some thousand acts one or the other never happens",
        ENDS + "test_no_act_is_lost_where_a_journal_ends[0]",
    ),
    Mutant(
        "nobody asks for places back",
        "        return sum([producer.trim(slot) for slot, own in list(res.items()) if not own.cut]) > 0\n",
        "        return False\n",
        "a bounded queue is full although places are free that another producer might use",
        BOUNDS + "test_places_that_another_has_not_used_are_anyones[300]",
    ),
    # -- snapshots
    Mutant(
        "a newcomer does not count items that have come back",
        "    ledger.apart = held + returned\n",
        "    ledger.apart = held\n",
        "who opens a bounded queue then puts more than fits",
        CLAIMED + "test_what_has_come_back_is_known_to_who_comes_many_acts_later",
    ),
    Mutant(
        "a snapshot forgets how often items came back",
        "        words += (item, times, *place.file, place.record)\n",
        "        words += (item, 0, *place.file, place.record)\n",
        "redelivered is too small for who has opened the queue later",
        CLAIMED + "test_what_has_come_back_is_known_to_who_comes_many_acts_later",
    ),
    Mutant(
        "a snapshot takes completions for what is finished",
        "ledger.opened, ledger.finished, ledger.completions = words[12:18]\n",
        "ledger.opened, ledger.completions, ledger.finished = words[12:18]\n",
        "join never ends, or too early, for who has opened the queue later",
        CLAIMED + "test_what_has_come_back_is_known_to_who_comes_many_acts_later",
    ),
    # -- one queue, many programs
    Mutant(
        "each handle has an engine of its own",
        "        use = cls._all[folder.key] = cls(engine)\n",
        "        use = cls(engine)\n",
        "items that one process puts through two handles change their order",
        ORDER + "test_all_handles_of_a_process_see_one_order",
    ),
    Mutant(
        "nobody holds the folder",
        "                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)\n                found = os.stat(path)\n",
        "                found = os.stat(path)\n",
        "a queue is deleted while it is used, when another program makes one",
        PLACES + "test_a_queue_that_somebody_uses_is_not_taken_for_an_abandoned_one",
    ),
    Mutant(
        "the last user leaves the folder",
        "        if places.reclaim(self.path):\n            return True\n        if hold",
        "        return True\n        if hold",
        "/dev/shm fills up with queues that nobody uses",
        PLACES + "test_an_anonymous_queue_goes_with_its_last_user",
    ),
    Mutant(
        "a process comes not back for what it has left",
        "            engine.retire(deletes)\n    reclaim_left()\n",
        "            engine.retire(deletes)\n",
        "/dev/shm fills up with the queues of programs whose daemon workers are ended by multiprocessing",
        PLACES + "test_daemons_that_the_end_of_a_program_ends_leave_nothing",
    ),
    Mutant(
        "who ends holds its queues on",
        "self.folder.delete_unless_used(hold=False)",
        "self.folder.delete_unless_used()",
        "/dev/shm fills up with the queues of workers that end at the same time",
        PLACES + "test_of_several_that_end_at_once_the_last_one_deletes_the_queue",
    ),
    Mutant(
        "nobody sweeps",
        "        sweep(os.path.dirname(folder.path), [folder.path, *others])\n",
        "",
        "what killed programs have left stays for ever",
        PLACES + "test_what_killed_programs_have_left_goes_with_the_next_queue",
    ),
    Mutant(
        "a marker keeps nothing",
        ".st_mtime) >= MARKER_LIFE",
        ".st_mtime) < MARKER_LIFE",
        "a queue is gone whose last handle is on its way",
        PLACES + "test_a_handle_on_its_way_keeps_its_queue",
    ),
    Mutant(
        "a folder that others may look into is taken",
        "    if not finding and status.st_mode & 0o077:\n",
        "    if not finding and status.st_mode & 0o022:\n",
        "others can read what is put",
        PLACES + "test_nobody_else_gets_in",
    ),
    Mutant(
        "files are made for everybody",
        "    fd = os.open(name, flags, 0o600, dir_fd=where)\n",
        "    fd = os.open(name, flags, 0o644, dir_fd=where)\n",
        "the files of a queue can be read by all once its folder is opened to them",
        PLACES + "test_nobody_else_gets_in",
    ),
    Mutant(
        "a stranger's file is taken for a batch file",
        '    kind, _, rest = name.partition("_")\n',
        '    kind, _, rest = name.replace("notes", LOAD).partition("_")\n',
        "a folder with other files in it becomes a queue",
        PLACES + "test_a_folder_with_something_else_in_it_is_refused",
    ),
    # -- damage and keys
    Mutant(
        "a file that was set aside is not read on",
        "    return batch(LOAD, file), sealed, corrupt(sealed)\n",
        "    return batch(LOAD, file), sealed, sealed\n",
        "one damaged item takes all others of its file along",
        PLACES + "test_what_nobody_with_the_key_has_written_is_never_unpickled",
    ),
    Mutant(
        "a damaged item stays at the head",
        "            # It is lost; the next take finds the ones behind it in the journal.\n"
        "            self.hand.lose(item)\n",
        "",
        "get raises the same error for ever",
        PLACES + "test_what_nobody_with_the_key_has_written_is_never_unpickled",
    ),
    Mutant(
        "tags are not looked at",
        "        if size < 0 or not self._same(self.tag(file, number, record), view[size:]):\n",
        "        if size < 0:\n",
        "what somebody without the key has written is unpickled",
        PLACES + "test_what_nobody_with_the_key_has_written_is_never_unpickled",
    ),
    Mutant(
        "a tag says nothing of its place",
        '        return self._hmac(b"%d %d %d\\0" % (file.member, file.serial, number), record)\n',
        '        return self._hmac(b"%d %d\\0" % (file.member, file.serial), record)\n',
        "items can be put into the places of others by who has no key",
        PLACES + "test_what_was_written_for_another_place_is_never_unpickled",
    ),
    Mutant(
        "records are tagged one place too early",
        "        return [self._tagged(file, at, record) for at, record in enumerate(records, number)]\n",
        "        return [self._tagged(file, number, record) for at, record in enumerate(records, number)]\n",
        "items that were put as a batch fail their HMAC",
        PLACES + "test_a_queue_opens_with_its_own_key_alone",
    ),
    Mutant(
        "any key will do",
        "    if not key._same(key.proof, proof):\n",
        "    if not key.proof:\n",
        "a program with another key opens the queue",
        PLACES + "test_a_queue_opens_with_its_own_key_alone",
    ),
    Mutant(
        "checks are not looked at",
        "        self.verify(record, number, end - CHECK)\n        return record\n",
        "        return record\n",
        "damaged items are delivered although TQSHIM_CHECK=all",
        PLACES + "test_a_damaged_item_is_found_where_all_are_checked",
    ),
    # -- power cuts
    Mutant(
        "a put does not wait for its journal",
        "        self._disk.harden_journal()\n        for one, count in zip(left, counts):\n",
        "        for one, count in zip(left, counts):\n",
        "a power cut takes what a durable put has put",
        POWER + "[10]",
    ),
    Mutant(
        "a put does not wait for its record",
        "            self.harden(log.batch)\n            return len(records)\n",
        "            return len(records)\n",
        "a power cut leaves damaged items of a durable queue",
        POWER + "[10]",
    ),
    Mutant(
        "a put does not wait for the name of its file",
        "            self._harden_names()\n            self._named = batch.file\n",
        "            self._named = batch.file\n",
        "a power cut takes a whole file of a durable queue's items",
        POWER + "[1]",
    ),
    Mutant(
        "files go before the disk knows that their items are got",
        "            self.harden_journal()\n        except FolderError:\n            return False\n",
        "            self.check()\n        except FolderError:\n            return False\n",
        "after a power cut items are missing that a durable queue's journal names",
        POWER + "[10]",
    ),
    Mutant(
        "a durable queue's files have no descriptor",
        "        return BatchFile(file, fd, True, closing if file.large or home.durable else None)\n",
        "        return BatchFile(file, fd, True, closing if file.large else None)\n",
        "a durable put raises an error",
        POWER + "[1]",
    ),
    # -- lifetime
    Mutant(
        "memory goes while other finalizers may look at it",
        "        self.__del__ = functools.partial(last.extend, map(_Last, ((call,),)))\n",
        "        self.__del__ = call\n",
        "a program that drops a queue in a reference cycle dies of SIGSEGV",
        DEATH + "test_a_queue_whose_memory_is_collected_first_leaves_in_an_orderly_way",
    ),
    # -- large items
    Mutant(
        "readers keep no file from being filled again",
        "    return systems.kind_and_process(answer)[0] != fcntl.F_UNLCK\n",
        "    return systems.kind_and_process(answer)[0] == fcntl.F_WRLCK\n",
        "an array that was got changes when others are put",
        LARGE + "test_what_was_got_stays_as_it_was[600000]",
    ),
    Mutant(
        "buffers come in another order",
        "buffers=[record[begin:end] for begin, end in found])\n",
        "buffers=[record[begin:end] for begin, end in sorted(found, reverse=True)])\n",
        "the arrays of an item change places",
        LARGE + "test_several_buffers_of_an_item_keep_their_places",
    ),
    Mutant(
        "a part is read again",
        "            size += count\n            self._at += count\n",
        "            size += count\n",
        "what follows a large part of an item is unpickled wrongly",
        LARGE + "test_the_parts_of_an_item_are_read_one_behind_the_other",
    ),
    Mutant(
        "no room for the index",
        "            needed = (index.data_begin(serial) + size + _PAGE - 1) // _PAGE * _PAGE\n",
        "            needed = (size + _PAGE - 1) // _PAGE * _PAGE\n",
        "a put of a large item hangs, or finds an unbounded queue full",
        ORDER + "test_an_item_of_any_size_arrives_whole_between_small_ones[12000000]",
    ),
    Mutant(
        "a file has half the places that it needs",
        "        scale = max(0, min(index.SCALES - 1, (max(1, records) - 1).bit_length() - 8))\n",
        "        scale = max(0, min(index.SCALES - 1, (max(1, records) - 1).bit_length() - 9))\n",
        "a large batch is refused although the queue is empty",
        BOUNDS + "test_a_large_batch_goes_in_at_once",
    ),
    Mutant(
        "a window is as large as it can be",
        "        count = min(end - first, WINDOW)\n",
        "        count = WINDOW\n",
        "get_many returns items that others get, too",
        ORDER + "test_a_get_of_many_takes_no_more_than_it_may",
    ),
    Mutant(
        "slots of all pages share the cells of the first",
        "        return (slot // SLOTS) * _WORDS + kind + slot % SLOTS\n",
        "        return kind + slot % SLOTS\n",
        "what the 65th process puts is lost",
        DEATH + "test_more_processes_than_a_page_has_slots",
    ),
    Mutant(
        "a reservation that was ended keeps its places",
        "        self.res[slot] = Reservation(own.begin, stop, own.grant, True)\n",
        "        self.res[slot] = own\n",
        "a bounded queue is full although places are free that another producer might use",
        BOUNDS + "test_places_that_another_has_not_used_are_anyones[300]",
    ),
    Mutant(
        "an object that was pickled is remembered",
        "    pickler.clear_memo()\n    record = written.pop()",
        "    record = written.pop()",
        "an object that is put twice can't be unpickled the second time",
        ORDER + "test_an_object_that_is_put_twice_arrives_twice",
    ),
]
