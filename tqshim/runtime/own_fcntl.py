"""The module ``fcntl``, as it was when this package was imported.

Lives here: its names, bound anew.  Not here: what is done with them (``storage``).

Invariant: locks say who lives, whatever a program's tests have put in the place of ``fcntl.flock`` meanwhile: where
each lock seems to be free, all queues of this user would be taken for abandoned, and deleted.
"""

from fcntl import *  # noqa: F403
