"""The steps of the service: claim, charge, settle, and the answers to what could not be claimed.

Protects: an outcome is what PostgreSQL has committed; an attempt is charged to the segment whose own it was.
"""
