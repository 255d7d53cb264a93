"""What other processes do with ``claimed``: they hold items, end well or badly, or are killed."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any


class Refused(Exception):
    """What a block raises that can't do its work."""


def hold_for_ever(q: Any, ready: Any) -> None:
    """Hold an item, tell which, and wait to be killed."""
    claim = q.claimed(timeout=60)
    with claim as item:
        ready.send((item, claim.redelivered))
        while True:
            signal.pause()


def die_in_block(q: Any, how: str) -> None:
    with q.claimed(timeout=60):
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "gone":
            os._exit(0)
        sys.exit(0)


def pass_on_and_die(q: Any, results: Any) -> None:
    """A burst of results for one item, and killed behind the block."""
    with q.claimed(timeout=60) as item:
        for number in range(50):
            results.put((item, number))
    os.kill(os.getpid(), signal.SIGKILL)


def claim_until_shut(q: Any, done: Any, fails: bool) -> None:
    """Work until there is nothing any more; if it is to fail: it is killed in its first block, after a shutdown."""
    from tqshim import ShutDown

    while True:
        claim = q.claimed()
        try:
            with claim as item:
                while fails and not q.is_shutdown:
                    time.sleep(0.001)
                if fails:
                    os.kill(os.getpid(), signal.SIGKILL)
                done.put((item, claim.redelivered))
        except ShutDown:
            return


def get_one(q: Any) -> Any:
    return q.get(timeout=60)
