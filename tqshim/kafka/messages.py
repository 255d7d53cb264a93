"""What goes to a worker and what comes back.

Lives here: events, messages, sinks, and what a worker function may return.  Not here: brokers and processes.

Invariant: whatever travels through a queue here is made of ``bytes``, ``str``, ``int`` and ``None``, and tuples of
these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, Optional, Protocol, Union

__all__ = ["Done", "Event", "Header", "Message", "Result", "Sink", "messages"]

Header = tuple[str, Optional[bytes]]


class Event(NamedTuple):
    """A message that was read: what a worker function is called with."""

    topic: str
    partition: int
    offset: int
    key: Optional[bytes]
    value: Optional[bytes]
    headers: tuple[Header, ...]
    timestamp: Optional[int]
    """Milliseconds since 1970, or None where the message has none."""


class Message(NamedTuple):
    """A message to deliver: what a worker function returns, alone or in a list, where ``bytes`` are not enough."""

    value: Optional[bytes]
    key: Optional[bytes] = None
    headers: tuple[Header, ...] = ()


Result = Union[None, bytes, Message, Iterable[Union[bytes, Message]]]
"""What a worker function returns: nothing to deliver, a value under the event's own key, a message, or several."""

Done = Callable[[Optional[Exception]], None]
"""Called once: with None when a message has been delivered, or with the reason why it never will be."""


class Sink(Protocol):
    """Where messages go.  All calls come from one thread."""

    def send(self, message: Message, done: Done) -> None:
        """Begin to deliver the message; ``done`` is called later, from ``poll`` or ``flush``, or at once.

        ``done(error)`` says that this message can't be delivered: its event is set aside.  Whatever is wrong with the
        sink as a whole is raised, here or by ``poll`` or ``flush``, and ends the run: nothing is lost, because only
        finished events are committed."""

    def poll(self) -> None:
        """Go on delivering, without waiting long, and call ``done`` of the messages for which that is due."""

    def flush(self) -> None:
        """Deliver all messages that were sent, and call ``done`` of each."""


def messages(event: Event, result: Result) -> tuple[Message, ...]:
    """Return the messages that a worker's result stands for.

    Raises ``TypeError`` for a result of a form that ``Result`` does not list."""
    if result is None:
        return ()
    if isinstance(result, (bytes, Message)):
        return (_message(event, result),)
    if isinstance(result, (str, bytearray, memoryview)) or not isinstance(result, Iterable):
        raise TypeError(f"a worker returns None, bytes, a Message or an iterable of these, not {type(result).__name__}")
    return tuple(_message(event, one) for one in result)


def _message(event: Event, one: object) -> Message:
    if isinstance(one, Message):
        return one
    if isinstance(one, bytes):
        return Message(one, event.key)
    raise TypeError(f"a worker returns bytes or a Message for each message, not {type(one).__name__}")
