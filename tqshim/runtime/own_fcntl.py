"""The module ``fcntl``, as it was when this package was imported.

Lives here: its names, bound anew.  Not here: what is done with them (``storage``).

Invariant: locks tell which processes live, whatever a program's tests have put in the place of ``fcntl.flock``
meanwhile: if each lock seemed to be free, all queues of this user would be taken for abandoned, and deleted.
"""

from fcntl import *  # noqa: F403
