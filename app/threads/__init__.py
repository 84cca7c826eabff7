"""How the threads of one process get along: stopping, waiting, progress, memory, outages.

Protects: nobody waits without saying that he is well, and whoever is told to stop stops.
"""
