"""Kafka: a topic into a queue, work in many processes, and out of a queue to another topic; at least once.

Lives here: the names that programs use.  Needs the extra ``tqshim[kafka]``.
"""

from __future__ import annotations

from tqshim.kafka.messages import Event, Message, Result, Sink
from tqshim.kafka.running import Counts, WorkersDieError, process_topic
from tqshim.kafka.topics import Source, TopicSink

__all__ = ["Counts", "Event", "Message", "Result", "Sink", "Source", "TopicSink", "WorkersDieError", "process_topic"]
