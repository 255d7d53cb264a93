"""The commands that look inside of queues.

Lives here: a module for each: its options, and what a person and a program see.  What it does is in ``monitor``.
"""
