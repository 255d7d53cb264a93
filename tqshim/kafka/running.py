"""Events of a topic go through workers to a sink, each at least once.

Lives here: the loop that reads, collects answers, delivers and commits; attempts, dead letters, counts.

Invariant: an event is finished, and its offset may be committed, when every message that followed from it has been
delivered, or the event has been set aside as a dead letter.  Before that, whatever dies, the event is read again or
handed out again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final, Optional, Union

from tqshim.kafka.messages import Event, Message, Sink
from tqshim.kafka.topics import Source, TopicSink
from tqshim.kafka.workers import Finding, Worker, Workers
from tqshim.queues.queue import Empty, TurboQueue

__all__ = ["Counts", "WorkersDieError", "process_topic"]

MAXSIZE: Final = 1000
"""Events that wait in the queue by default: enough for short bursts, and few to read again."""
ATTEMPTS: Final = 3
IDLE_WAIT: Final = 0.2
"""Seconds to wait for an event when none is under way: signals are noticed in between."""
BUSY_WAIT: Final = 0.01
"""Seconds to wait for an answer before looking for more events."""
LOOK_AFTER_WORKERS: Final = 0.05
"""Seconds between two looks at which workers are alive."""
COMMIT_EVERY: Final = 0.2
"""Seconds between two commits: if the program is killed, what was delivered since the last commit comes twice."""
REPORT_EVERY: Final = 1.0
"""Seconds between two reports."""
SETTLE: Final = 10.0
"""Seconds for what is in workers' hands to be finished, before a partition is given back or the program ends."""
ERROR_BYTES: Final = 4000
"""Bytes of the end of a traceback, which go along with a dead letter."""


class WorkersDieError(RuntimeError):
    """Worker after worker has died before it had an event, and no event was answered in between."""


@dataclasses.dataclass
class Counts:
    """What a run has done so far."""

    read: int = 0
    """Events read from the topic."""
    finished: int = 0
    """Events all of whose messages were delivered."""
    delivered: int = 0
    """Messages delivered."""
    set_aside: int = 0
    """Events that went to the dead letters."""
    again: int = 0
    """Times that an event was handed out again, after an error or a killed worker."""
    replaced: int = 0
    """Workers that died and were replaced."""
    given_back: int = 0
    """Events that were read, and whose partition went to another member before they were finished."""
    seconds: float = 0.0


def process_topic(
    brokers: str,
    topic: str,
    output: Union[str, Sink],
    worker: Worker,
    *,
    processes: int,
    group: Optional[str] = None,
    dead_letters: Optional[str] = None,
    maxsize: int = MAXSIZE,
    attempts: int = ATTEMPTS,
    idle: Optional[float] = None,
    consumer: Optional[Mapping[str, Any]] = None,
    producer: Optional[Mapping[str, Any]] = None,
    report: Optional[Callable[[Counts], None]] = None,
) -> Counts:
    """Call ``worker`` in ``processes`` processes with each event of a topic, at least once, and deliver what it
    returns.

    ``output``: a topic, or a ``Sink``.
    ``worker``: a function at the top of a module, called with an ``Event``; see ``Result`` for what it may return.
    ``group``: the consumer group, by default ``tqshim-<topic>``; its members share the topic's partitions.
    ``dead_letters``: a topic for events for which the worker has raised or died ``attempts`` times, and for those of
    which the sink has refused a message.  Without this topic such an event ends the run with an error, and the next run
    reads the event again.
    ``maxsize``: events that wait in the queue at most; while the queue is full, nothing is read.
    ``idle``: end after so many seconds without an event, at the end of all partitions that are this member's; by
    default only a signal ends the run.
    ``consumer``, ``producer``: more settings of the clients, as librdkafka calls them.
    ``report``: called about once a second, and at the end, with the same object that is returned.

    In the main thread SIGTERM and SIGINT end the run cleanly: nothing more is read, what workers have in hand is
    finished, delivered and committed, the group is left.  A second signal has the effect that it had before the call.

    Raises ``WorkersDieError``, ``RuntimeError`` for an event that can't be set aside, ``KafkaException``, and what
    ``output`` raises; what was finished until then is committed.  ``ValueError`` for a number below 1.

    If the process is killed, the group's offsets are those of the last commit, a moment ago: the lowest unfinished
    event of each partition.  The next run reads on from there, and what had been delivered of that comes twice."""
    for name, value in (("processes", processes), ("maxsize", maxsize), ("attempts", attempts)):
        if value < 1:
            raise ValueError(f"{name}={value} must be 1 or more")
    servers = {"bootstrap.servers": brokers}
    into = {**servers, **(producer or {})}
    with _until_a_signal() as stopped, TurboQueue(maxsize) as tasks, TurboQueue() as findings:
        sink = TopicSink(into, output) if isinstance(output, str) else output
        dead = TopicSink(into, dead_letters) if dead_letters is not None else None
        workers = Workers(worker, processes, tasks, findings)
        try:
            run = _Run(findings, workers, sink, dead, attempts)
            run.source = source = Source(
                {"group.id": group or f"tqshim-{topic}", **servers, **(consumer or {})}, topic, tasks, run.settle
            )
            try:
                run.until(stopped, idle, report)
            finally:
                run.give_up()
                source.close()
            workers.end()
        finally:
            workers.kill()
    if report is not None:
        report(run.count())
    return run.count()


@contextlib.contextmanager
def _until_a_signal() -> Iterator[threading.Event]:
    """Yield an event that the first SIGTERM or SIGINT sets; a second signal has the effect that it had before."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    asking = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in asking}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(*_: object) -> None:
        stopped.set()
        restore()

    for number in asking:
        signal.signal(number, stop)
    try:
        yield stopped
    finally:
        restore()


class _Delivery:
    """The messages of one event that are on their way."""

    __slots__ = ("errors", "left")

    def __init__(self, left: int) -> None:
        self.left = left
        self.errors: list[str] = []


class _Run:
    """One run: the loop, and what the loop knows beyond its source."""

    source: Source

    def __init__(
        self, findings: TurboQueue, workers: Workers, sink: Sink, dead: Optional[TopicSink], attempts: int
    ) -> None:
        self._findings = findings
        self._workers = workers
        self._sink = sink
        self._dead = dead
        self._attempts = attempts
        self._failures: dict[int, int] = {}
        self._counts = Counts()
        self._began = time.monotonic()
        self._looked_after = 0.0
        self._idle_deaths = 0
        self._given_up = False

    def count(self) -> Counts:
        """Return the counts as they are now."""
        self._counts.read, self._counts.given_back = self.source.read, self.source.given_back
        self._counts.seconds = time.monotonic() - self._began
        return self._counts

    def until(
        self, stopped: threading.Event, idle: Optional[float], report: Optional[Callable[[Counts], None]]
    ) -> None:
        """Go round until stopped or idle; then finish what is in hand, and commit."""
        reported = committed = last_event = time.monotonic()
        while not stopped.is_set():
            self.source.fill(0.0 if len(self.source) else IDLE_WAIT)
            busy = bool(len(self.source))
            if busy:
                self._collect(BUSY_WAIT)
            self._advance()
            now = time.monotonic()
            if busy or not self.source.assigned:
                last_event = now
            elif idle is not None and now - last_event > idle:
                if self.source.at_end():
                    break
                last_event = now
            if now - committed > COMMIT_EVERY:
                committed = now
                self.source.commit(wait=False)
            if report is not None and now - reported > REPORT_EVERY:
                reported = now
                report(self.count())
        self.settle()
        self.source.commit(wait=True)

    def _advance(self) -> None:
        """Do what needs no waiting: go on with deliveries, and look after workers now and then."""
        self._sink.poll()
        if self._dead is not None:
            self._dead.poll()
        if time.monotonic() - self._looked_after > LOOK_AFTER_WORKERS:
            self._look_after_workers()
            self._looked_after = time.monotonic()

    def settle(self) -> None:
        """Finish what is in workers' hands, and take back what is not, so that little is done twice."""
        if self._given_up:
            return
        self.source.withdraw()
        deadline = time.monotonic() + SETTLE
        while self.source.claimed() and time.monotonic() < deadline:
            self._collect(LOOK_AFTER_WORKERS)
            self._advance()
        self._sink.flush()
        if self._dead is not None:
            self._dead.flush()

    def give_up(self) -> None:
        """Let later calls of ``settle`` do nothing: all is settled, or an error is about to be raised."""
        self._given_up = True

    # -- answers

    def _collect(self, timeout: float) -> int:
        """Take the answers that are there, wait ``timeout`` seconds for the first; return how many were taken."""
        try:
            findings: list[Finding] = self._findings.get_many(timeout=timeout)
        except Empty:
            return 0
        self._idle_deaths = 0
        for number, messages, error in findings:
            event = self.source.answer(number)
            if event is None:
                continue
            if error is not None:
                self._failed(number, event, error)
            elif messages:
                self._deliver(number, messages)
            else:
                self._finish(number)
        return len(findings)

    def _deliver(self, number: int, messages: tuple[Message, ...]) -> None:
        delivery = _Delivery(len(messages))
        for message in messages:
            self._sink.send(message, partial(self._delivered, number, delivery))

    def _delivered(self, number: int, delivery: _Delivery, error: Optional[Exception]) -> None:
        delivery.left -= 1
        if error is None:
            self._counts.delivered += 1
        else:
            delivery.errors.append(f"the sink refused a message: {error}")
        if delivery.left == 0:
            event = self.source.event(number)
            if event is not None and delivery.errors:
                self._set_aside(number, event, delivery.errors[0])
            elif event is not None:
                self._finish(number)

    def _finish(self, number: int) -> None:
        self.source.finish(number)
        self._failures.pop(number, None)
        self._counts.finished += 1

    def _failed(self, number: int, event: Event, error: str) -> None:
        """Try an event again, or set it aside, after an attempt at it has failed."""
        self._failures[number] = tried = self._failures.get(number, 0) + 1
        if tried >= self._attempts:
            self._set_aside(number, event, error)
        else:
            self.source.try_again(number)
            self._counts.again += 1

    def _set_aside(self, number: int, event: Event, error: str) -> None:
        place = f"{event.topic}[{event.partition}] at offset {event.offset}"
        if self._dead is None:
            raise RuntimeError(
                f"the event of {place} can't be processed, and there is no topic for dead letters: {error}"
            )
        headers = (
            *event.headers,
            ("tqshim-error", error.encode()[-ERROR_BYTES:]),
            ("tqshim-place", f"{event.topic}/{event.partition}/{event.offset}".encode()),
        )

        def done(refusal: Optional[Exception]) -> None:
            if refusal is not None:
                raise RuntimeError(f"the event of {place} can't be set aside: {refusal}")
            if self.source.event(number) is not None:
                self.source.finish(number)
                self._failures.pop(number, None)
                self._counts.set_aside += 1

        self._dead.send(Message(event.value, event.key, headers), done)

    # -- workers

    def _look_after_workers(self) -> None:
        dead = self._workers.replace_dead()
        if not dead:
            return
        left = self._findings.qsize()
        while left > 0:
            left -= self._collect(0.0) or left  # all that the dead have put: a killed worker's answer counts, too
        self._counts.replaced += len(dead)
        for number, code in dead:
            event = self.source.answer(number)
            if event is not None:
                self._failed(number, event, f"its worker died with exit code {code}")
                continue
            self._idle_deaths += 1
            if self._idle_deaths > self._attempts * len(self._workers.pids()):
                raise WorkersDieError(
                    f"{self._idle_deaths} workers died in a row before they had an event, the last with exit code"
                    f" {code}"
                )
        self._counts.again += self.source.recover(self._workers.in_hand())
