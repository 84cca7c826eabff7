"""Tiers of pages before the graph: this process's memory, then the cache that workers share.

Protects: a job never sees a page that was read before the job was made, nor one that nobody with the key has written.
"""
