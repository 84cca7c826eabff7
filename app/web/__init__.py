"""The HTTP side's routes, answers and errors; ``app/relation.py`` puts them together.

Invariant: every answer is typed, every error a problem of RFC 9457 that says what to do, and nothing is connected to
before the first request that needs it.
"""
