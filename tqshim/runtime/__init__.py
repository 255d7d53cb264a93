"""What Python and the system have to be tamed for.

Lives here: a room each for clocks, locks, forks, exits, imports and mapped memory.  Not here: anything of queues.
"""
