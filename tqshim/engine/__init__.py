"""Acts on a queue folder: one engine a process and folder.

Lives here: nothing but its rooms.
"""
