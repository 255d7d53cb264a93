"""Looking inside of queues, and helping queues in trouble: what ``python -m tqshim`` does, as functions.

Lives here: the names that programs use.

``queues``, ``status``, ``watch``, ``peek`` and ``check`` look without touching; ``stats`` is for a process that has the
queue open; ``recover``, ``drain``, ``fill`` and ``remove`` do something to it.
"""

from __future__ import annotations

from tqshim import engine as _engine  # noqa: F401  which says so where there are no queues of ours
from tqshim.monitor.checking import Finding, check
from tqshim.monitor.lines import NotJSONError, as_json, as_pickle, from_json, from_pickle
from tqshim.monitor.looking import Status, Summary, peek, queues, status
from tqshim.monitor.metrics import Stats, stats
from tqshim.monitor.moving import Drained, LineError, Recovery, drain, fill, recover, remove
from tqshim.monitor.seen import Member, Peeked, Process
from tqshim.monitor.watching import Rates, Watch, watch

__all__ = [
    "Drained",
    "Finding",
    "LineError",
    "Member",
    "NotJSONError",
    "Peeked",
    "Process",
    "Rates",
    "Recovery",
    "Stats",
    "Status",
    "Summary",
    "Watch",
    "as_json",
    "as_pickle",
    "check",
    "drain",
    "fill",
    "from_json",
    "from_pickle",
    "peek",
    "queues",
    "recover",
    "remove",
    "stats",
    "status",
    "watch",
]
