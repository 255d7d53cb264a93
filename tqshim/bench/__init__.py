"""The benchmark.

Lives here: kinds of queues, processes that use them, what is measured, rounds, tables and the picture.  This module
imports none of these: a process that only puts and gets loads little.
"""
