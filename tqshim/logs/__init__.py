"""Acts on a queue folder of logs: the second engine, built beside the first.

Lives here: nothing but its rooms.
"""
