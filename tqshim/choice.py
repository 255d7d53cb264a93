"""Which engine this process uses.

Lives here: the switch between the two, as long as there are two.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

__all__ = ["LOGS", "Engine", "Use"]

LOGS = os.environ.get("TQSHIM_ENGINE") == "logs"
"""The second engine, of logs and cuts: not yet the default."""

if TYPE_CHECKING or not LOGS:
    from .engine import Engine, Use
else:
    from .logs.registry import Engine, Use
