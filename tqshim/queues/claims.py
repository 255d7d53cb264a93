"""Claims: blocks that have an item.

Lives here: what ``claimed`` returns.  Not here: which items are held, and when they come back (``engine.acknowledge``).

Invariant: an item that a block has counts as got when the block ends well, and comes back otherwise.
"""

from __future__ import annotations

import contextlib
from types import GenericAlias, TracebackType

from tqshim.queues.pickling import is_fault, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Generic, Optional

    from typing_extensions import TypeVar  # which checkers have; older interpreters know no default

    from tqshim.engine.acknowledge import Hold
    from tqshim.engine.registry import Use

    _T = TypeVar("_T", default=Any)
else:
    _T = None  # as in ``queues``
    Generic = {_T: object}

__all__ = ["Claim"]


class Claim(Generic[_T]):
    """What ``claimed`` returns: a block that has an item, which counts as got when the block ends well."""

    __slots__ = ("_block", "_hold", "_queue", "_timeout", "_use", "redelivered")

    if not TYPE_CHECKING:
        __class_getitem__ = classmethod(GenericAlias)

    def __init__(self, queue: Any, block: bool, timeout: Optional[float]) -> None:
        self._queue = queue
        self._block = block
        self._timeout = timeout
        self._use: Optional[Use] = None
        self._hold: Optional[Hold] = None
        self.redelivered = 0
        """How often the item had come back before: others, or this process, may have worked on it."""

    def __enter__(self) -> _T:
        """Take the oldest item.  Raises what ``get`` raises; ``RuntimeError`` if a block of this claim has one."""
        if self._hold is not None:
            raise RuntimeError("a block has an item of this already: call claimed() for each")
        use = self._queue._use
        engine = self._queue._open_engine()
        found: list[Hold] = []
        loading = False
        try:
            engine.hold(found, self._block, self._timeout)
            if found:
                loading = True
                item: _T = load(found[0].record, once=True)
                self.redelivered = found[0].times
                self._use, self._hold = use, found[0]
                return item
        except BaseException as error:
            self._hold = None
            if found:
                engine.let_go(found[0], loading and is_fault(error))
            raise
        raise self._queue._nothing[engine.over]

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        """Count the item as got, or let it come back if there was an exception."""
        hold, use = self._hold, self._use
        if hold is None or use is None:
            return
        try:
            use.engine.let_go(hold, kind is None)
        except BaseException:
            with contextlib.suppress(OSError):  # interrupted: the block has ended all the same
                use.engine.let_go(hold, kind is None)
            raise
        finally:
            self._hold = self._use = None
