"""`TurboQueue` and `queue.Queue` side by side: the same calls have the same results, whatever happens in between."""

from __future__ import annotations

import pickle
import queue
import threading
from bisect import insort
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Optional

import pytest
import sampling
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from programs import lockstep
from programs.crew import Crew
from programs.lockstep import outcome

from tqshim import TurboQueue
from tqshim.engine import tuning

SIZES = [0, 1, 2, 3, 7, 20, 1000, 3000]
CONSTANTS: dict[str, list[Any]] = {
    "SHORT_WAYS": [tuning.SHORT_WAYS, tuning.SHORT_WAYS, False],  # on 3.9 they are none
    "LEASES": [True, True, False],
    "RESERVATIONS": [True, True, False],
    "SPINNING": [False, False, True],
    # Small, so that a few steps come to what otherwise needs thousands.
    "LIMITS": [(16, 64), (16, 64), (448, 1 << 16)],
    "PLACES": [1, 2, 256],
    "PLACES_LEAST": [1, 16],
    "LEASE_FROM": [1, 2, 8],
    "SOLE_ENOUGH": [1, 2, 32],
    "LEASE_ITEMS": [1, 4, 1 << 14],
    "FILE_BYTES": [64, 256, 1 << 20],
    "LARGE_FILE_BYTES": [64, 1 << 20, 4 << 20],
    "SCAN_EVERY": [0.0, 1.0],
    "MARK_EVERY": [0],  # Each put cuts: within a millisecond the order of two processes is nobody's promise.
}
"""Constants of the engine, and values under which its rules must hold as well."""


class Keeping(queue.Queue[Any]):
    """A `queue.Queue` whose items can be held, and keep their places until they are got."""

    def __init__(self, maxsize: int) -> None:
        super().__init__()
        self.bound = maxsize
        self.held = 0

    def put(self, item: Any, block: bool = True, timeout: Optional[float] = None) -> None:
        if self.full():
            raise queue.Full
        super().put(item)

    def full(self) -> bool:
        return 0 < self.bound <= self.qsize() + self.held

    def give_back(self, item: Any) -> None:
        """Items are numbered in the order of their puts: all that have come back are before all others."""
        self.held -= 1
        insort(self.queue, item)


class Model:
    """A `queue.Queue` with the batch calls: all or nothing, pieces where that cannot be."""

    def __init__(self, maxsize: int) -> None:
        self.queue = Keeping(maxsize)
        self.maxsize = maxsize

    def call(self, method: str, *arguments: Any) -> tuple[str, Any]:
        if method == "put_many_nowait":
            (items,) = arguments
            if self.maxsize and self.queue.qsize() + self.queue.held + len(items) > self.maxsize:
                return "raised", "Full"
            for item in items:
                self.queue.put_nowait(item)
            return "value", None
        return outcome(self.queue, method, arguments)

    def take(self, items: list[Any]) -> bool:
        """The items are those at the head; they are taken out."""
        return [self.queue.get_nowait() for _ in items] == items

    def look(self) -> tuple[int, bool, bool]:
        return self.queue.qsize(), self.queue.empty(), self.queue.full()


class SideBySide(RuleBasedStateMachine):
    """Calls through handles of one process, from its own thread and from others."""

    looks = False
    """Compare sizes after every step: that cuts what was put, so half the machines don't."""

    def __init__(self) -> None:
        super().__init__()
        self.saved = {name: getattr(tuning, name) for name in CONSTANTS}
        self.handles: list[Any] = []
        self.number = 0
        self.claims: list[tuple[Any, Any]] = []
        self.times: dict[Any, int] = {}
        self.model: Optional[Model] = None

    @initialize(maxsize=st.sampled_from(SIZES), batch=st.sampled_from([1, 3, 256]), data=st.data())
    def make(self, maxsize: int, batch: int, data: Any) -> None:
        chosen = {name: data.draw(st.sampled_from(values), label=name) for name, values in CONSTANTS.items()}
        self.configure(chosen)
        self.model = Model(maxsize)
        self.maxsize = maxsize
        self.batch = batch
        self.handles = [TurboQueue(maxsize, batch_size=batch)]

    def configure(self, chosen: dict[str, Any]) -> None:
        lockstep.configure(chosen)

    def teardown(self) -> None:
        for claim, _ in self.claims:
            claim.__exit__(None, None, None)
        self.claims.clear()
        for handle in self.handles:
            handle.close()
        self.handles.clear()
        lockstep.configure(self.saved)

    def item(self) -> tuple[int, str]:
        self.number += 1
        return self.number, "x" * (self.number % 37)

    def both(self, handle: Any, method: str, *arguments: Any) -> None:
        assert self.model is not None
        expected = self.model.call(method, *arguments)
        assert outcome(handle, method, arguments) == expected, (method, arguments)

    def some_handle(self, data: Any) -> Any:
        return self.handles[data.draw(st.integers(0, len(self.handles) - 1), label="handle")]

    @rule(data=st.data(), count=st.integers(1, 12))
    def put_some(self, data: Any, count: int) -> None:
        handle = self.some_handle(data)
        for _ in range(count):
            self.both(handle, "put", self.item(), False)

    @rule(data=st.data(), timeout=st.sampled_from([0, 0.0001]))
    def put_with_a_timeout(self, data: Any, timeout: float) -> None:
        self.both(self.some_handle(data), "put", self.item(), True, timeout)

    @rule(data=st.data())
    def put_nowait(self, data: Any) -> None:
        self.both(self.some_handle(data), "put_nowait", self.item())

    @rule(data=st.data(), count=st.integers(1, 12))
    def get_some(self, data: Any, count: int) -> None:
        for _ in range(count):
            self.both(self.some_handle(data), "get", False)

    @rule(data=st.data(), timeout=st.sampled_from([0, 0.0001]))
    def get_with_a_timeout(self, data: Any, timeout: float) -> None:
        self.both(self.some_handle(data), "get", True, timeout)

    @rule(data=st.data())
    def get_nowait(self, data: Any) -> None:
        self.both(self.some_handle(data), "get_nowait")

    @rule(data=st.data(), count=st.integers(0, 25))
    def put_many(self, data: Any, count: int) -> None:
        items = [self.item() for _ in range(count)]
        self.both(self.some_handle(data), "put_many_nowait", items)

    @rule(data=st.data(), most=st.integers(1, 30), timeout=st.sampled_from([None, 0, 0.0001]))
    def get_many(self, data: Any, most: int, timeout: Optional[float]) -> None:
        handle = self.some_handle(data)
        how = (False, None) if timeout is None else (True, timeout)
        self.take_many(lambda left: outcome(handle, "get_many", (*how, left)), most)

    def take_many(self, call: Callable[[int], tuple[str, Any]], most: int) -> None:
        """Each call takes at least one item where there is one, at most as many as asked for, those at the head.

        How many is its own affair, and changes with the time that calls take: it is called until so many are taken, or
        none is left, for hypothesis wants the same choices to come to the same state."""
        assert self.model is not None
        if self.model.queue.empty():
            assert call(most) == ("raised", "Empty")
        while most and not self.model.queue.empty():
            what, items = call(most)
            assert what == "value", items
            assert 1 <= len(items) <= most
            assert self.model.take(items)
            most -= len(items)

    @rule(data=st.data(), timeout=st.sampled_from([None, 0, 0.0001]))
    def begin_a_block(self, data: Any, timeout: Optional[float]) -> None:
        assert self.model is not None
        claim = self.some_handle(data).claimed(timeout is not None, timeout)
        expected = outcome(self.model.queue, "get_nowait", ())
        assert outcome(claim, "__enter__", ()) == expected
        if expected[0] == "value":
            self.claims.append((claim, expected[1]))
            self.model.queue.held += 1
            assert claim.redelivered == self.times.get(expected[1], 0)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), error=st.sampled_from([None, None, KeyError]))
    def end_a_block(self, data: Any, error: Optional[type[Exception]]) -> None:
        assert self.model is not None
        claim, item = self.claims.pop(data.draw(st.integers(0, len(self.claims) - 1), label="block"))
        claim.__exit__(error, None, None)
        if error is None:
            self.model.queue.held -= 1
        else:
            self.model.queue.give_back(item)
            self.times[item] = self.times.get(item, 0) + 1

    @rule(data=st.data())
    def fill(self, data: Any) -> None:
        """Up to the bound, and once beyond."""
        assert self.model is not None
        handle = self.some_handle(data)
        if self.maxsize and self.maxsize <= 20:
            while not self.model.queue.full():
                self.both(handle, "put_nowait", self.item())
            self.both(handle, "put_nowait", self.item())
            assert handle.full()

    @rule(data=st.data())
    def drain(self, data: Any) -> None:
        assert self.model is not None
        handle = self.some_handle(data)
        while not self.model.queue.empty():
            self.both(handle, "get_nowait")
        self.both(handle, "get_nowait")

    @rule(data=st.data(), method=st.sampled_from(["qsize", "empty", "full"]))
    def look(self, data: Any, method: str) -> None:
        self.both(self.some_handle(data), method)

    @rule(data=st.data(), puts=st.booleans(), count=st.integers(1, 9))
    def call_in_a_thread(self, data: Any, puts: bool, count: int) -> None:
        handle = self.some_handle(data)
        failures: list[BaseException] = []

        def work() -> None:
            try:
                for _ in range(count):
                    if puts:
                        self.both(handle, "put_nowait", self.item())
                    else:
                        self.both(handle, "get_nowait")
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join(60)
        assert not thread.is_alive()
        if failures:
            raise failures[0]

    @precondition(lambda self: len(self.handles) < 4)
    @rule(data=st.data(), by_pickle=st.booleans())
    def another_handle(self, data: Any, by_pickle: bool) -> None:
        handle = self.some_handle(data)
        if by_pickle:
            self.handles.append(pickle.loads(pickle.dumps(handle)))
        else:  # inside the queue itself
            assert self.model is not None
            if self.model.queue.empty() and not self.model.queue.full():
                handle.put(handle)
                self.handles.append(handle.get())

    @precondition(lambda self: len(self.handles) > 1)
    @rule(data=st.data())
    def close_a_handle(self, data: Any) -> None:
        handle = self.some_handle(data)
        self.handles.remove(handle)
        handle.close()
        with pytest.raises(ValueError):
            handle.put(1)
        with pytest.raises(ValueError):
            handle.get_nowait()

    @invariant()
    def sizes_are_the_same(self) -> None:
        if self.looks and self.model is not None:
            for handle in self.handles:
                assert lockstep.look(handle) == self.model.look()


class SideBySideLooking(SideBySide):
    looks = True


class TwoProcesses(SideBySide):
    """Calls here and in another process, in turn.  After each call its process looks."""

    crew: Crew
    looks = True

    def configure(self, chosen: dict[str, Any]) -> None:
        super().configure(chosen)
        self.chosen = chosen

    @initialize()
    def meet(self) -> None:
        self.met = False

    def remote(self, method: str, *arguments: Any) -> tuple[str, Any]:
        assert self.model is not None
        if not self.met:
            self.crew.call(0, lockstep.configure, self.chosen)
            self.crew.call(0, lockstep.meet, self.handles[0])
            self.met = True
        result, sizes = self.crew.call(0, lockstep.act, method, arguments)
        self.remote_sizes = sizes
        return tuple(result)  # type: ignore[return-value]

    def both_remotely(self, method: str, *arguments: Any) -> None:
        assert self.model is not None
        expected = self.model.call(method, *arguments)
        assert self.remote(method, *arguments) == expected, (method, arguments)
        assert self.remote_sizes == self.model.look()

    @rule(count=st.integers(1, 12))
    def put_some_there(self, count: int) -> None:
        for _ in range(count):
            self.both_remotely("put", self.item(), False)

    @rule(count=st.integers(1, 12))
    def get_some_there(self, count: int) -> None:
        for _ in range(count):
            self.both_remotely("get", False)

    @rule(count=st.integers(0, 25))
    def put_many_there(self, count: int) -> None:
        self.both_remotely("put_many_nowait", [self.item() for _ in range(count)])

    @rule(timeout=st.sampled_from([0, 0.0001]), puts=st.booleans())
    def call_there_with_a_timeout(self, timeout: float, puts: bool) -> None:
        if puts:
            self.both_remotely("put", self.item(), True, timeout)
        else:
            self.both_remotely("get", True, timeout)

    @rule(most=st.integers(1, 30))
    def get_many_there(self, most: int) -> None:
        self.take_many(lambda left: self.remote("get_many", False, None, left), most)

    @rule()
    def the_other_process_leaves_and_returns(self) -> None:
        if self.met:
            self.crew.call(0, lockstep.leave_and_return)

    def teardown(self) -> None:
        with suppress(Exception):
            self.crew.forget()
        self.crew.call(0, lockstep.configure, self.saved)
        super().teardown()


def run(machine: type[SideBySide], examples: int, steps: int = 40, **more: bool) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            **more,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("machine", [SideBySide, SideBySideLooking])
def test_calls_in_one_process_come_to_the_same(machine: type[SideBySide]) -> None:
    run(machine, sampling.examples(60))


def test_calls_in_two_processes_come_to_the_same(crews: Any) -> None:
    TwoProcesses.crew = crews("forkserver", 1)
    run(TwoProcesses, sampling.examples(30))


@pytest.mark.stress
@pytest.mark.parametrize("machine", [SideBySide, SideBySideLooking])
def test_calls_in_one_process_come_to_the_same_in_thousands_of_histories(machine: type[SideBySide]) -> None:
    run(machine, 3000, 60, derandomize=False)


@pytest.mark.stress
def test_calls_in_two_processes_come_to_the_same_in_thousands_of_histories(crews: Any) -> None:
    TwoProcesses.crew = crews("forkserver", 1)
    run(TwoProcesses, 1500, 60, derandomize=False)
