"""The standard library's contract.

Lives here: a room for queues, one for each thing that they need, and what puts ours in the place of theirs.  Not here:
what a queue does in its folder (``engine``).
"""

import multiprocessing

from tqshim.runtime import postponed

# ``multiprocessing.queues`` imports it, and so ``tempfile``, ``shutil``, ``random`` and what these need, for pipes:
# ours have none.
postponed.postpone(multiprocessing, "connection")
