"""Acts on a queue, with the times of their begins and ends, and whether one order of them explains what they came to.

Lives here: who acts and notes it down (``perform``), and the checker (``contradiction``).  Not here: which acts
(``test_real_queues``).

The checker searches as Wing and Gong did: an order of all acts in which none comes before another that had ended when
it began, and in which each comes to what a first-in-first-out queue with that bound comes to.  States that were reached
before, in whatever order, are not searched again (Lowe).  What ``docs/guarantees.md`` leaves open is left open here:
items of different processes whose puts lie less than ``slack`` apart may come out in any order.
"""

from __future__ import annotations

import queue
import random
import sys
import threading
import time
from typing import Any, NamedTuple, Optional

from .crew import KEPT

Step = tuple[str, tuple[Any, ...]]
"""A method and its arguments; ``pause`` is a sleep."""
STATES = 500_000
"""States of a search, at most: a history that needs more is too large for it."""
PATIENCE = 60.0


class Undecided(Exception):
    """The search has seen too many states: nobody knows whether some order explains the history."""


class Act(NamedTuple):
    """One call.  Times are ``time.monotonic_ns``, which all processes of a machine share."""

    begin: int
    end: int
    process: int
    actor: int
    method: str
    arguments: tuple[Any, ...]
    kind: str
    """``value`` or ``raised``."""
    result: Any

    def __str__(self) -> str:
        shown = ", ".join(map(repr, self.arguments))
        came = f"raised {self.result}" if self.kind == "raised" else repr(self.result)
        return f"{self.begin:>15,} .. {self.end:>15,}  {self.process}.{self.actor}  {self.method}({shown}): {came}"


def act(q: Any, process: int, actor: int, method: str, arguments: tuple[Any, ...]) -> Act:
    call = getattr(q, method)
    kind: str = "value"
    begin = time.monotonic_ns()
    try:
        result = call(*arguments)
        end = time.monotonic_ns()
    except Exception as error:
        end = time.monotonic_ns()
        known = isinstance(error, (queue.Empty, queue.Full))
        kind, result = "raised", type(error).__name__ if known else repr(error)
    return Act(begin, end, process, actor, method, arguments, kind, result)


def perform(q: Any, process: int, scripts: list[list[Step]], at: int) -> list[Act]:
    """Follow each script in a thread of its own, all from that instant on.  ``q``: a queue, or what it is kept as."""
    if isinstance(q, str):
        q = KEPT[q]
    done: list[list[Act]] = [[] for _ in scripts]

    def follow(actor: int) -> None:
        while time.monotonic_ns() < at:
            pass
        for method, arguments in scripts[actor]:
            if method == "pause":
                time.sleep(*arguments)
            else:
                done[actor].append(act(q, process, actor, method, arguments))

    threads = [threading.Thread(target=follow, args=(actor,), daemon=True) for actor in range(1, len(scripts))]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)  # that threads change in the midst of an act
    try:
        for thread in threads:
            thread.start()
        follow(0)
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a thread hangs"
    finally:
        sys.setswitchinterval(interval)
    return [one for acts in done for one in acts]


def script(choose: random.Random, process: int, actor: int, length: int) -> list[Step]:
    """Random acts; items say who has put them, and which of his they are."""
    steps: list[Step] = []
    taste = choose.choice([(6, 3), (3, 6), (5, 5)])
    for number in range(length):
        way = choose.choices(["put", "get", "look", "pause"], [*taste, 2, 1])[0]
        item = (process, actor, number)
        timeout = choose.choice([0, 0.0005, 0.003])
        if way == "put":
            steps.append(
                choose.choice([("put", (item, True, timeout)), ("put", (item, False)), ("put_nowait", (item,))])
            )
        elif way == "get":
            steps.append(choose.choice([("get", (True, timeout)), ("get", (False,)), ("get_nowait", ())]))
        elif way == "look":
            steps.append((choose.choice(["qsize", "empty", "full"]), ()))
        else:
            steps.append(("pause", (choose.random() * 0.002,)))
    return steps


def contradiction(acts: list[Act], maxsize: int, slack: int) -> Optional[str]:
    """``None`` if some order explains all acts on a queue that was empty before; else what can't be explained.

    ``slack``: nanoseconds between the puts of two processes within which their items may change places.

    Raises ``Undecided``."""
    acts = sorted(acts)
    puts = {one.arguments[0]: number for number, one in enumerate(acts) if one.method.startswith("put")}
    for one in acts:
        if one.kind == "raised" and one.result not in ("Empty", "Full"):
            return f"neither Empty nor Full: {one}"
        if one.method.startswith("get") and one.kind == "value" and one.result not in puts:
            return f"an item from nowhere: {one}"
    by_end = sorted(range(len(acts)), key=lambda number: acts[number].end)
    processes = sorted({one.process for one in acts})
    everything = (1 << len(acts)) - 1
    # A state: which acts have had their turn, and for each process its items in the queue, oldest first.
    State = tuple[int, tuple[tuple[int, ...], ...]]
    start: State = (0, tuple(() for _ in processes))
    seen: set[State] = {start}
    stack = [start]
    furthest = start

    def after(number: int, lists: tuple[tuple[int, ...], ...]) -> Optional[tuple[tuple[int, ...], ...]]:
        """The items in the queue once this act has had its turn; ``None``: it would come to something else."""
        one = acts[number]
        size = sum(map(len, lists))
        if one.method in ("qsize", "empty", "full"):
            real = {"qsize": size, "empty": size == 0, "full": 0 < maxsize <= size}[one.method]
            return lists if one.kind == "value" and one.result == real else None
        if one.method.startswith("put"):
            if one.kind == "raised":
                return lists if one.result == "Full" and 0 < maxsize <= size else None
            if 0 < maxsize <= size:
                return None
            place = processes.index(one.process)
            return (*lists[:place], (*lists[place], number), *lists[place + 1 :])
        if one.kind == "raised":
            return lists if one.result == "Empty" and not size else None
        item = puts[one.result]
        place = next((place for place, items in enumerate(lists) if items[:1] == (item,)), None)
        if place is None:
            return None
        for other, waiting in enumerate(lists):
            if other != place and any(acts[old].end + slack < acts[item].begin for old in waiting):
                return None
        return (*lists[:place], lists[place][1:], *lists[place + 1 :])

    while stack:
        mask, lists = stack.pop()
        if mask == everything:
            return None
        if bin(mask).count("1") > bin(furthest[0]).count("1"):
            furthest = mask, lists
        first_end = next(acts[number].end for number in by_end if not mask >> number & 1)
        following: list[State] = []
        for number, one in enumerate(acts):
            if one.begin > first_end:
                break
            if mask >> number & 1:
                continue
            new = after(number, lists)
            if new is None:
                continue
            if new is lists:  # it changes nothing: to let it have its turn now shuts off no other order
                following = [(mask | 1 << number, lists)]
                break
            following.append((mask | 1 << number, new))
        for state in reversed(following):
            if state not in seen:
                seen.add(state)
                stack.append(state)
        if len(seen) > STATES:
            raise Undecided(f"{len(acts)} acts, more than {STATES} states")
    done, left = furthest
    lines = [f"{'  ' if done >> number & 1 else '? '}{one}" for number, one in enumerate(acts)]
    items = [acts[item].arguments[0] for items in left for item in items]
    head = f"no order explains these acts (maxsize {maxsize}, slack {slack} ns); the longest leaves those with ?,"
    return "\n".join([head, *lines, f"with these items in the queue: {items}"])
