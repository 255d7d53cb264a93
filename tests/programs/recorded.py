"""Acts on a queue, with the times at which each begins and ends, and whether one order of all explains the results.

Lives here: performing acts and noting them down (``perform``), and the checker (``contradiction``).  Not here: which
acts there are (``test_real_queues``).

The checker searches as Wing and Gong did: for an order of all acts in which no act comes before another that had ended
when it began, and in which each act has the result that a first-in-first-out queue with that bound gives.  States that
were reached before, in whatever order, are not searched again (Lowe).  What ``docs/guarantees.md`` leaves open is left
open here: items of different processes whose puts lie less than ``slack`` apart may come out in any order.  The
standard library's queue promises less, and is ``late``: no process finds an item that its feeder thread has not written
yet, or for which another process is just waiting.
"""

from __future__ import annotations

import queue
import random
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

from .crew import KEPT

Step = tuple[str, tuple[Any, ...]]
"""A method and its arguments; ``pause`` is a sleep."""
LATER = sys.maxsize
"""A slack of for ever."""
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


def sent(item: Any) -> Any:
    """What is put: a fourth number of an item is how many bytes it has beside the first three."""
    return (*item[:3], bytes([sum(item) % 256]) * item[3]) if isinstance(item, tuple) and len(item) == 4 else item


def received(thing: Any) -> Any:
    """The item that this was when it was put, or what was made of it."""
    if not (isinstance(thing, tuple) and len(thing) == 4):
        return thing
    item = (*thing[:3], len(thing[3]))
    return item if sent(item) == thing else f"{item}, damaged"


def said(error: Exception) -> str:
    if isinstance(error, (queue.Empty, queue.Full)):
        return type(error).__name__
    if isinstance(error, (ValueError, OSError)) and "is closed" in str(error):
        return "closed"
    if isinstance(error, ValueError) and str(error) == "task_done() called too many times":
        return "too many"
    return repr(error)


def act(q: Any, process: int, actor: int, method: str, arguments: tuple[Any, ...] = ()) -> Act:
    call, given = getattr(q, method), tuple(map(sent, arguments))
    kind: str = "value"
    begin = time.monotonic_ns()
    try:
        result = call(*given)
        end = time.monotonic_ns()
    except Exception as error:
        end = time.monotonic_ns()
        kind, result = "raised", said(error)
    return Act(begin, end, process, actor, method, arguments, kind, received(result))


def perform(q: Any, process: int, scripts: list[list[Step]], at: int, closes: bool = False) -> list[Act]:
    """Follow each script in a thread of its own, all from that instant on.  ``q``: a queue, or what it is kept as.

    ``closes``: close it behind them, and try what is closed."""
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
    if closes:
        for method, arguments in (("close", ()), ("put", ((process, 7, 0),)), ("get", ())):
            done[0].append(act(q, process, 0, method, arguments))
    return [one for acts in done for one in acts]


LOOKS = ("qsize", "empty", "full")
LARGE = (70_000, 600_000)


def script(
    choose: random.Random, process: int, actor: int, length: int, kind: str = "Queue", looks: Sequence[str] = LOOKS
) -> list[Step]:
    """Random acts on a queue of that kind; items say who has put them, and which of his they are.

    Who gets from a ``SimpleQueue``, or joins, waits for ever: somebody must see to it that there is an end."""
    steps: list[Step] = []
    simple = kind == "SimpleQueue"
    taste = choose.choice([(6, 3), (3, 6), (5, 5)])
    for number in range(length):
        way = choose.choices(["put", "get", "look", "pause", "done"], [*taste, 2, 1, 3 * (kind == "JoinableQueue")])[0]
        item: tuple[int, ...] = (process, actor, number)
        timeout = choose.choice([0, 0.0005, 0.003])
        if way == "put":
            if choose.random() < 0.05 and not simple:  # nobody else may be there to empty its pipe
                item = (*item, choose.choice(LARGE))
            ways: list[Step] = [("put", (item, True, timeout)), ("put", (item, False)), ("put_nowait", (item,))]
            steps.append(("put", (item,)) if simple else choose.choice(ways))
        elif way == "get":
            ways = [("get", (True, timeout)), ("get", (False,)), ("get_nowait", ())]
            steps.append(("get", ()) if simple else choose.choice(ways))
        elif way == "look":
            steps.append((choose.choice(looks), ()))
        elif way == "done":
            steps.append(("task_done", ()))
        else:
            steps.append(("pause", (choose.random() * 0.002,)))
    if kind == "JoinableQueue" and choose.random() < 0.4:
        steps.append(("join", ()))
    return steps


ERRORS = {"Empty": "get", "Full": "put", "too many": "task_done"}
"""What a method may raise."""


def contradiction(acts: list[Act], maxsize: int, slack: int, late: bool = False) -> Optional[str]:
    """``None`` if some order explains all acts on a queue that was empty before; else what can't be explained.

    ``slack``: nanoseconds between the puts of two processes within which their items may change places.  ``late``: who
    finds nothing may be wrong, and of two threads that put at once one may take its place in the bound first and the
    other that in the order.

    Raises ``Undecided``."""
    closed = {one.process: one.end for one in acts if one.method == "close"}
    behind = [one for one in acts if one.begin >= closed.get(one.process, one.begin + 1)]
    for one in behind:
        if (one.kind, one.result) != ("raised", "closed"):
            return f"the handle was closed: {one}"
    acts = sorted(one for one in acts if one not in behind and (one.method != "close" or one.kind == "raised"))
    puts = {one.arguments[0]: number for number, one in enumerate(acts) if one.method.startswith("put")}
    for one in acts:
        if one.kind == "raised" and not one.method.startswith(ERRORS.get(one.result, "nothing")):
            return f"it may not raise that: {one}"
        if one.method.startswith("get") and one.kind == "value" and one.result not in puts:
            return f"an item from nowhere: {one}"
    by_end = sorted(range(len(acts)), key=lambda number: acts[number].end)
    owners = [(one.process, one.actor if late else 0) for one in acts]
    places = {owner: place for place, owner in enumerate(sorted(set(owners)))}
    everything = (1 << len(acts)) - 1
    changes = [one.kind == "value" and one.method not in (*LOOKS, "join") for one in acts]
    begun, done = (
        sum(1 << number for number, one in enumerate(acts) if changes[number] and one.method.startswith(method))
        for method in ("put", "task_done")
    )
    # A state: which acts have had their turn, and for each process (or thread) its items in the queue, oldest first.
    State = tuple[int, tuple[tuple[int, ...], ...]]
    start: State = (0, ((),) * len(places))
    seen: set[State] = {start}
    stack = [start]
    furthest = start

    def after(mask: int, number: int, lists: tuple[tuple[int, ...], ...]) -> Optional[tuple[tuple[int, ...], ...]]:
        """The items in the queue once this act has had its turn; ``None``: it would come to something else."""
        one = acts[number]
        size = sum(map(len, lists))
        if one.method in ("join", "task_done"):
            idle = bin(mask & begun).count("1") == bin(mask & done).count("1")
            return lists if idle is (one.method == "join" or one.kind == "raised") else None
        if one.method in LOOKS:
            if late and one.method == "empty" and one.result is True:
                return lists
            real = {"qsize": size, "empty": size == 0, "full": 0 < maxsize <= size}[one.method]
            return lists if one.kind == "value" and one.result == real else None
        if one.method.startswith("put"):
            if one.kind == "raised":
                return lists if one.result == "Full" and 0 < maxsize <= size else None
            if 0 < maxsize <= size:
                return None
            place = places[owners[number]]
            return (*lists[:place], (*lists[place], number), *lists[place + 1 :])
        if one.kind == "raised":
            return lists if late or not size else None
        item = puts[one.result]
        place = next((place for place, items in enumerate(lists) if items[:1] == (item,)), None)
        if place is None:
            return None
        for other, waiting in enumerate(lists):
            for old in waiting if other != place else ():
                together = acts[old].process == acts[item].process
                if acts[old].end + (0 if together else slack) < acts[item].begin:
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
            new = after(mask, number, lists)
            if new is None:
                continue
            if not changes[number]:  # to let it have its turn now shuts off no other order
                following = [(mask | 1 << number, lists)]
                break
            following.append((mask | 1 << number, new))
        for state in reversed(following):
            if state not in seen:
                seen.add(state)
                stack.append(state)
        if len(seen) > STATES:
            raise Undecided(f"{len(acts)} acts, more than {STATES} states")
    reached, left = furthest
    lines = [f"{'  ' if reached >> number & 1 else '? '}{one}" for number, one in enumerate(acts)]
    items = [acts[item].arguments[0] for items in left for item in items]
    head = f"no order explains these acts (maxsize {maxsize}, slack {slack} ns); the longest leaves those with ?,"
    return "\n".join([head, *lines, f"with these items in the queue: {items}"])
