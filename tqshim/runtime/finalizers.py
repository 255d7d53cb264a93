"""Finalizers that run last.

Lives here: when a thing is let go.  Not here: which things (``mappings``, ``batch_file``).

Objects that refer to each other in a circle are collected together, and all their finalizers run, in any order, before
the first of them is freed.  What a finalizer uses must be there until the last finalizer has run: to use memory that
was unmapped before kills the process.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable

__all__ = ["Finalizer"]


class _Last(tuple[Callable[[], object]]):
    """Calls its only item when it is freed."""

    __slots__ = ()
    __del__ = property(operator.itemgetter(0))


class Finalizer:
    """Calls a C function after nothing refers to this any more, and after the finalizers of all objects that are
    collected with it.  No Python code of ours runs then: a signal handler might interrupt such code, and what the
    handler raises would be lost."""

    # This finalizer makes the ``_Last`` that calls the function.  The ``_Last`` is no part of the collection under way,
    # so it is finalized when it is freed: with the list, after all finalizers.
    __slots__ = ("__del__",)

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        call = functools.partial(function, *arguments)
        last: list[_Last] = []
        self.__del__ = functools.partial(last.extend, map(_Last, ((call,),)))
