"""The benchmark.

Lives here: kinds of queues, processes that use them, what is measured, rounds, tables and the picture.  Its parts are
imported by name, so that a process which only puts and gets loads little.
"""
