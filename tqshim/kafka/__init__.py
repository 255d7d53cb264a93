"""Kafka: events go from a topic through a queue to workers in many processes, and on to a topic; each at least once.

Lives here: the names that programs use.  Needs the extra ``tqshim[kafka]``.
"""

from __future__ import annotations

from tqshim.kafka.messages import Event, Message, Result, Sink
from tqshim.kafka.running import Counts, WorkersDieError, process_topic
from tqshim.kafka.topics import Source, TopicSink

__all__ = ["Counts", "Event", "Message", "Result", "Sink", "Source", "TopicSink", "WorkersDieError", "process_topic"]
