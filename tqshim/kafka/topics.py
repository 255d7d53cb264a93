"""Topics and queues: a source that consumes a topic into a queue, a sink that produces to a topic.

Lives here: the broker's client, what was read and is not finished, commits, rebalances.  Not here: what becomes of an
event (``running``), processes (``workers``).

Each event that was read has a number, and is in one of these states:

    waiting --hand out--> queued --a worker takes it--> claimed --answer--> answered --finish--> its offset may be
       ^                    |                              |                    |                committed
       +---- withdraw ------+--- its worker was killed ----+---- try again -----+

While the source is open, nothing else puts into the queue, and the queue is first in, first out.  So its length tells
which events it still has: the last ones that were put.  The others were claimed, and no worker needs to say what it
took.

Invariant: an event is in one of these states, or finished, or of a partition that is not assigned any more.  At
whatever point the program is killed, it has committed nothing that is not finished.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, Optional

from tqshim.kafka.messages import Done, Event, Message
from tqshim.kafka.offsets import Offsets, Partition
from tqshim.kafka.workers import Task
from tqshim.queues.queue import Empty, TurboQueue

__all__ = ["Source", "TopicSink"]

LOG: Final = logging.getLogger("tqshim.kafka")

MOST: Final = 1000
"""Events read in one call, at most."""
AHEAD: Final = 100
"""So many times the queue's bound of finished events may wait for an unfinished one before them: they come again if the
program is killed."""
PATIENCE: Final = 1.0
"""Seconds for which there may be no room before the partitions are paused and the broker's requests are served."""
ANSWER: Final = 5.0
"""Seconds that the broker has to answer a question."""
LEAVING: Final = 30.0
"""Seconds that the client has to leave its group."""
WAITING_FOR_SPACE: Final = 0.1
"""Seconds of one wait for space among the messages that are being delivered, or for their delivery."""


class Source:
    """A topic that this process, as a member of a consumer group, consumes into a queue.

    ``configuration``: that of the client, with the brokers and the group in it.
    ``queue``: bounded; it takes numbered events, and nobody else puts into it.
    ``before_revoke``: called when partitions are about to go to another member, to finish what can be finished.

    Methods raise ``KafkaException`` where the topic does not exist or may not be read, or the client can't go on."""

    def __init__(
        self, configuration: Mapping[str, Any], topic: str, queue: TurboQueue, before_revoke: Callable[[], None]
    ) -> None:
        from confluent_kafka import Consumer

        self._queue = queue
        self._bound: int = queue._maxsize
        self._before_revoke = before_revoke
        self._offsets = Offsets()
        self._events: dict[int, Event] = {}
        self._unanswered: set[int] = set()
        self._waiting: deque[int] = deque()
        self._queued: deque[int] = deque()
        self._claimed: set[int] = set()
        self._last_number = 0
        self._had_room = time.monotonic()
        self._paused: list[Any] = []
        self._mine: set[Partition] = set()
        self.assigned = False
        """Whether the group has given this member its share, be it none."""
        self.read = 0
        """Events read."""
        self.given_back = 0
        """Events that were read, and whose partition went to another member before they were finished: that member
        reads them again."""
        self._consumer = Consumer(
            {
                "auto.offset.reset": "earliest",
                **configuration,
                "enable.auto.commit": False,  # that would commit what was read, finished or not
                "on_commit": self._commit_answered,
            },
            logger=LOG,
        )
        self._consumer.subscribe(
            [topic], on_assign=self._partitions_assigned, on_revoke=self._partitions_revoked, on_lost=self._forget
        )

    # -- from the topic into the queue

    def fill(self, timeout: float) -> int:
        """Read what there is room for, wait ``timeout`` seconds for the first; return how many were read."""
        self._hand_out()
        room = min(
            self._bound - len(self._queued) - len(self._waiting),
            2 * self._bound - len(self._events),
            AHEAD * self._bound - self._offsets.held_up(),
        )
        if room <= 0:
            if time.monotonic() - self._had_room > PATIENCE:
                self._serve_without_reading()
            return 0
        self._had_room = time.monotonic()
        if self._paused:
            self._consumer.resume(self._paused)
            self._paused = []
        return self._take(self._consumer.consume(min(room, MOST), timeout))

    def _serve_without_reading(self) -> None:
        """Ask the broker with all partitions paused: a member that never asks is taken for dead, and can't be told of a
        rebalance."""
        paused = {(place.topic, place.partition) for place in self._paused}
        running = [place for place in self._consumer.assignment() if (place.topic, place.partition) not in paused]
        if running:
            self._consumer.pause(running)
            self._paused += running
        self._take(self._consumer.consume(1, 0.0))

    def _take(self, found: list[Any]) -> int:
        read = 0
        for message in found:
            if message.error():
                self._complain(message.error())
                continue
            if (message.topic(), message.partition()) not in self._mine:
                continue  # fetched before its partition went to another member
            event = Event(
                message.topic(),
                message.partition(),
                message.offset(),
                message.key(),
                message.value(),
                tuple(message.headers() or ()),
                message.timestamp()[1] if message.timestamp()[0] else None,
            )
            self._last_number = number = self._last_number + 1
            self._offsets.read(*event[:3])
            self._events[number] = event
            self._unanswered.add(number)
            self._waiting.append(number)
            read += 1
        self.read += read
        self._hand_out()
        return read

    @staticmethod
    def _complain(error: Any) -> None:
        from confluent_kafka import KafkaError, KafkaException

        final = (
            KafkaError.UNKNOWN_TOPIC_OR_PART,
            KafkaError.TOPIC_AUTHORIZATION_FAILED,
            KafkaError.GROUP_AUTHORIZATION_FAILED,
        )
        if error.fatal() or error.code() in final:
            raise KafkaException(error)
        LOG.warning("reading: %s; the client goes on trying", error)

    def _hand_out(self) -> None:
        self._look()
        tasks: list[Task] = []
        while self._waiting and len(self._queued) + len(tasks) < self._bound:
            number = self._waiting.popleft()
            if number in self._unanswered:
                tasks.append((number, self._events[number]))
        if tasks:
            self._queue.put_many(tasks)
            self._queued.extend(number for number, _ in tasks)

    def _look(self) -> None:
        """Note as claimed what has left the queue since the last look."""
        for _ in range(len(self._queued) - self._queue.qsize()):
            number = self._queued.popleft()
            if number in self._unanswered:
                self._claimed.add(number)

    def at_end(self) -> bool:
        """Whether nothing is left to read in the partitions that are assigned; False, too, if no broker answers."""
        from confluent_kafka import KafkaException

        try:
            places = self._consumer.position(self._consumer.assignment())
            for place in places:
                # The end that the last fetch has told: not every broker knows the end of a batch when asked for it.
                _, end = self._consumer.get_watermark_offsets(place, ANSWER, cached=True)
                if place.offset < 0:  # nothing was read from this partition yet
                    (place,) = self._consumer.committed([place], ANSWER)
                if end < 0 or max(place.offset, 0) < end:
                    return False
        except KafkaException as error:
            LOG.warning("asking for the ends of partitions: %s", error)
            return False
        return True

    # -- what becomes of an event

    def __len__(self) -> int:
        """Return how many events were read and are not finished."""
        return len(self._events)

    def event(self, number: int) -> Optional[Event]:
        """Return the event of that number; None if it is finished, or its partition went to another member."""
        return self._events.get(number)

    def answer(self, number: int) -> Optional[Event]:
        """Note that a worker has answered for an event, and return the event; None if the event has an answer already,
        or its partition went to another member."""
        if number not in self._unanswered:
            return None
        self._unanswered.remove(number)
        self._claimed.discard(number)
        return self._events[number]

    def try_again(self, number: int) -> None:
        """Let an event wait again, after an answer that was of no use."""
        if number in self._events:
            self._unanswered.add(number)
            self._waiting.append(number)

    def finish(self, number: int) -> None:
        """Note that an event is finished: its messages are delivered, or it is set aside."""
        event = self._events.pop(number, None)
        if event is not None:
            self._unanswered.discard(number)
            self._claimed.discard(number)
            self._offsets.finish(*event[:3])

    def claimed(self) -> int:
        """Return how many events are in workers' hands, or have their answer on the way."""
        self._look()
        return len(self._claimed)

    def recover(self, in_hand: Collection[int]) -> int:
        """Hand out again what was claimed, but for what living workers have in hand: to be called after a worker died,
        and when all answers of dead workers have been read.

        A living worker may have just taken an event that is handed out again, or have its answer on the way: then the
        first answer counts.  Returns how many events are handed out again."""
        self._look()
        lost = sorted(self._claimed.difference(in_hand))
        self._claimed.difference_update(lost)
        self._waiting.extendleft(reversed(lost))
        return len(lost)

    def withdraw(self) -> None:
        """Take back out of the queue what no worker has claimed yet."""
        self._look()
        numbers: list[int] = []
        try:
            while True:
                numbers += [number for number, _ in self._queue.get_many_nowait()]
        except Empty:
            pass
        # Workers have claimed these between the look and the withdrawal.
        self._claimed.update(self._unanswered.intersection(self._queued).difference(numbers))
        self._queued.clear()
        self._waiting.extendleft(reversed(numbers))

    # -- offsets

    def commit(self, wait: bool) -> None:
        """Commit up to the lowest unfinished event of each partition, if that has moved.

        A commit that fails is logged: the next one makes up for it; without a next one, events come again."""
        from confluent_kafka import KafkaException, TopicPartition

        places = [TopicPartition(*place) for place in self._offsets.to_commit()]
        if not places:
            return
        try:
            if wait:
                self._commit_answered(None, self._consumer.commit(offsets=places, asynchronous=False) or [])
            else:
                self._consumer.commit(offsets=places, asynchronous=True)
        except KafkaException as error:
            LOG.warning("committing: %s; what is not committed will be read again", error)

    def _commit_answered(self, error: Any, places: list[Any]) -> None:
        for place in places:
            if error or place.error:
                LOG.warning("committing %s[%s]: %s", place.topic, place.partition, error or place.error)
            else:
                self._offsets.committed(place.topic, place.partition, place.offset)

    def _partitions_assigned(self, _: Any, partitions: list[Any]) -> None:
        self.assigned = True
        self._mine.update((place.topic, place.partition) for place in partitions)

    def _partitions_revoked(self, consumer: Any, partitions: list[Any]) -> None:
        self._before_revoke()
        self.commit(wait=True)
        self._forget(consumer, partitions)

    def _forget(self, consumer: Any, partitions: list[Any]) -> None:
        """Forget all of these partitions: another member reads again what is not finished of them."""
        gone = {(place.topic, place.partition) for place in partitions}
        self._mine -= gone
        for partition in gone:
            self._offsets.forget(*partition)
        numbers = [number for number, event in self._events.items() if event[:2] in gone]
        for number in numbers:
            del self._events[number]
        self.given_back += len(numbers)
        self._unanswered.difference_update(numbers)
        self._claimed.difference_update(numbers)
        # The client remembers which partitions were paused, also when one comes back.
        consumer.resume([place for place in self._paused if (place.topic, place.partition) in gone])
        self._paused = [place for place in self._paused if (place.topic, place.partition) not in gone]

    def close(self) -> None:
        """Leave the group, so that other members need not wait until this one is taken for dead.

        A client that has not left within ``LEAVING`` seconds is abandoned to its thread, which ends with the process:
        librdkafka may wait for its own rebalance for ever (its issues 4041 and 4884)."""
        raised: list[BaseException] = []

        def leave() -> None:
            try:
                self._consumer.close()
            except BaseException as error:
                raised.append(error)

        thread = threading.Thread(target=leave, daemon=True)
        thread.start()
        thread.join(LEAVING)
        if raised:
            raise raised[0]
        if thread.is_alive():
            LOG.warning("the client has not left its group in %s seconds; the broker will take it for dead", LEAVING)


class TopicSink:
    """Produces messages to a topic; a message is delivered when the broker has acknowledged it.

    A message that the broker will never take, because of its size or its form, is refused.  Everything else that goes
    wrong, after the client has tried for its ``message.timeout.ms``, is raised as ``KafkaException``."""

    def __init__(self, configuration: Mapping[str, Any], topic: str) -> None:
        from confluent_kafka import KafkaError, KafkaException, Producer

        self._topic = topic
        self._producer = Producer(dict(configuration), logger=LOG)
        self._exception = KafkaException
        self._refusals = {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG, KafkaError.INVALID_MSG_SIZE}
        self._failure: Optional[Exception] = None

    def send(self, message: Message, done: Done) -> None:
        """Begin to deliver the message; wait only while too many messages are under way."""

        def delivered(error: Any, _: Any) -> None:
            if error is None:
                done(None)
            else:
                self._failed(error, done)

        while True:
            try:
                self._producer.produce(
                    self._topic, message.value, message.key, headers=list(message.headers), on_delivery=delivered
                )
                return
            except BufferError:
                self._wait(self._producer.poll)
            except self._exception as error:
                self._failed(error.args[0], done)
                return

    def _failed(self, error: Any, done: Done) -> None:
        failure = self._exception(error)
        if error.code() in self._refusals:
            done(failure)
        else:
            self._failure = failure

    def _wait(self, way: Callable[[float], int]) -> int:
        left = way(WAITING_FOR_SPACE)  # not longer: signals are noticed in between
        self._raise_failure()
        return left

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def poll(self) -> None:
        """Call ``done`` of messages that were acknowledged or refused; raise any other failure."""
        self._producer.poll(0)
        self._raise_failure()

    def flush(self) -> None:
        """Wait until all messages are delivered or refused."""
        while self._wait(self._producer.flush):
            pass
