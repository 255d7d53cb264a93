"""Grammars and rules of a queue folder: pure, and the same for every process that reads it.

Lives here: nothing but its rooms.
"""
