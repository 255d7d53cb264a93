"""From a Kafka topic through many processes into Elasticsearch, by the bulk helper of its official client.

    python -m compat.examples.kafka_to_elasticsearch --brokers localhost:9092 --in orders --index orders \\
        --url http://localhost:9200 --dead-letters orders-failed

A sink for ``tqshim.kafka.process_topic``: documents are collected and sent in bulk; the helper tries those again that
were too many at once; the events of documents that will never fit go to the dead letters; offsets are committed when
the documents are in. A document's id is its event's place: what is delivered twice is one document.
Needs the extra ``tqshim[examples]``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from elasticsearch import Elasticsearch, helpers

from tqshim.kafka import Counts, Event, Message, process_topic
from tqshim.kafka.messages import Done

BULK = 500
"""Documents of one request at most."""
LINGER = 0.2
"""Seconds for which the first of them waits for more."""
RETRIES = 8
"""How often a document or a request that was refused as too many is tried again, later each time."""


def to_document(event: Event) -> Message:
    """The work for a processor: parse, enrich, and give it the id that makes a second delivery harmless."""
    document = json.loads(event.value or b"null")
    document["words"] = len(str(document.get("text", "")).split())
    place = f"{event.topic}-{event.partition}-{event.offset}"
    return Message(json.dumps(document).encode(), place.encode())


class ElasticsearchSink:
    """Messages become documents of an index: the key the id, the value the JSON source."""

    def __init__(self, client: Elasticsearch, index: str) -> None:
        self._client = client
        self._index = index
        self._waiting: list[tuple[Message, Done]] = []
        self._since = 0.0

    def send(self, message: Message, done: Done) -> None:
        """Collect it; a full bulk is sent at once."""
        if not self._waiting:
            self._since = time.monotonic()
        self._waiting.append((message, done))
        if len(self._waiting) >= BULK:
            self.flush()

    def poll(self) -> None:
        """Send what has waited long enough."""
        if self._waiting and time.monotonic() - self._since > LINGER:
            self.flush()

    def flush(self) -> None:
        """Send all of it.

        Raises ``ApiError`` or ``TransportError`` if the cluster does not answer, ``TimeoutError`` if it is still
        full after all retries: the run ends, nothing of this is committed, and the next run reads it again."""
        waiting, self._waiting = self._waiting, []
        # The id leads from an answer to its message; of two with one id the later one stands for both.
        dones: dict[str, list[Done]] = {}
        for message, done in waiting:
            dones.setdefault((message.key or b"").decode(), []).append(done)
        for ok, answer in helpers.streaming_bulk(
            self._client,
            self._actions(waiting),
            raise_on_error=False,
            max_retries=RETRIES,
            initial_backoff=0.05,
            max_backoff=10,
        ):
            item = answer["index"]
            if item["status"] == 429:
                raise TimeoutError(f"Elasticsearch is still full after {RETRIES} retries: {item.get('error')}")
            for done in dones.pop(item["_id"]):
                done(None if ok else ValueError(f"{item['status']}: {item.get('error')}"))

    def _actions(self, waiting: list[tuple[Message, Done]]) -> Iterator[dict[str, Any]]:
        latest = {(message.key or b"").decode(): message.value for message, _ in waiting}
        for key, value in latest.items():
            yield {"_index": self._index, "_id": key, "_source": json.loads(value or b"null")}


def client(url: str) -> Elasticsearch:
    """A client that tries again what may pass: helpers do so for documents, this for requests."""
    return Elasticsearch(url, retry_on_status=(429, 502, 503, 504), max_retries=RETRIES, retry_on_timeout=True)


def main(arguments: Sequence[str]) -> int:
    """Run until a signal, or until nothing has come for a while."""
    parser = argparse.ArgumentParser(
        prog="python -m compat.examples.kafka_to_elasticsearch", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--brokers", default="localhost:9092", help="where to begin (default: localhost:9092)")
    parser.add_argument("--in", dest="topic", required=True, help="the topic to read")
    parser.add_argument("--index", required=True, help="the index to write")
    parser.add_argument("--url", default="http://localhost:9200", help="Elasticsearch (default: http://localhost:9200)")
    parser.add_argument("--dead-letters", help="a topic for events whose documents are refused")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="how many workers")
    parser.add_argument("--idle", type=float, help="end when nothing has come for so many seconds")
    parser.add_argument("--session", type=int, default=45_000, help="the group's session.timeout.ms (default: 45000)")
    options = parser.parse_args(arguments)

    def report(counts: Counts) -> None:
        print(f"{counts.finished:,} in the index, {counts.set_aside:,} set aside", file=sys.stderr)

    with client(options.url) as elasticsearch:
        process_topic(
            options.brokers,
            options.topic,
            ElasticsearchSink(elasticsearch, options.index),
            to_document,
            processes=options.processes,
            dead_letters=options.dead_letters,
            idle=options.idle,
            consumer={"session.timeout.ms": options.session, "heartbeat.interval.ms": options.session // 10},
            report=report,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
