"""What processes tell each other without a system call, and how they wake each other.

Lives here: nothing but its rooms.
"""
