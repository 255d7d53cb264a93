"""Errors of a full disk.

Lives here: their name, for ``producer``.  Not here: files (``storage``).
"""

from tqshim.storage.files import NO_SPACE

__all__ = ["NO_SPACE"]
