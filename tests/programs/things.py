"""Items and subclasses that tests put and make, importable in every process."""

from __future__ import annotations

import mmap
import os
import pickle
import signal
from typing import Any

from tqshim import TurboQueue


class Unpicklable:
    def __reduce__(self) -> Any:
        raise TypeError("this thing stays here")


class BadAtLoading:
    """Pickles; fails to unpickle."""

    def __init__(self, name: str = "bad") -> None:
        self.name = name

    def __reduce__(self) -> Any:
        return fail, (self.name,)


def fail(name: str) -> None:
    raise ValueError(f"{name} can't be loaded")


class Counting:
    """Counts how often it is unpickled, and fails in that if it is told to."""

    count = 0

    def __init__(self, error: Any = None) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        return count, (self.error,)


def count(error: Any) -> int:
    Counting.count += 1
    if error is not None:
        raise error
    return Counting.count


class Array:
    """What hands its bytes over as a buffer, and takes whatever shows them."""

    def __init__(self, data: Any) -> None:
        self.data = memoryview(data)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Array, (pickle.PickleBuffer(self.data),)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Array) and self.data == other.data

    @property
    def is_mapped(self) -> bool:
        return isinstance(self.data.obj, mmap.mmap)


class Ringing:
    """Sends its process a signal the first time it is unpickled there."""

    rung = False

    def __reduce__(self) -> Any:
        return ring, ()


def ring() -> str:
    if not Ringing.rung:
        Ringing.rung = True
        signal.raise_signal(signal.SIGUSR1)
    return "rung"


class Registered:
    """Can only be pickled by the reducer that is registered for it with multiprocessing."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __reduce__(self) -> Any:
        raise TypeError("not by me")


def make_registered(value: int) -> Registered:
    made = Registered(0)
    made.value = value + 1000
    return made


def reduce_registered(thing: Registered) -> Any:
    return make_registered, (thing.value,)


class Labelled(TurboQueue):
    """A subclass with attributes of its own, as programs write them for multiprocessing.queues.Queue."""

    def __init__(self, maxsize: int = 0, label: str = "", **options: Any) -> None:
        super().__init__(maxsize, **options)
        self.label = label
        self.count = 0

    def __getstate__(self) -> Any:
        return super().__getstate__(), self.label, self.count

    def __setstate__(self, state: Any) -> None:
        inner, self.label, self.count = state
        super().__setstate__(inner)

    def put(self, obj: Any, *arguments: Any, **options: Any) -> None:
        super().put((self.label, obj), *arguments, **options)


class Reporting(TurboQueue):
    """Overrides the hook, as concurrent.futures does."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.reported: list[Any] = []

    def _on_queue_feeder_error(self, e: Exception, obj: Any) -> None:  # type: ignore[override]
        self.reported.append((type(e), obj))


def pid_and_label(q: Any) -> None:
    q.put((os.getpid(), q.label))
