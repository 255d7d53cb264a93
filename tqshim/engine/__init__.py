"""Acts on a queue folder: one engine a process and folder.

Lives here: nothing but its rooms, which are not imported where they would not work.
"""

from tqshim.errors import check_system

check_system()
