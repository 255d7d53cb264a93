"""Files: what creates, maps, appends, renames, locks and unlinks.

Lives here: nothing but its rooms.
"""
