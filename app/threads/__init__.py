"""How the threads of one process get along: stopping, waiting, progress, memory, outages.

Protects: a thread that waits still reports progress, so that a hang is told from a wait; one that is told to stop ends.
"""
