"""What people and programs see over HTTP: the pages at ``/`` and the JSON answers beside them.

Invariant: importing it reads no setting and connects to nothing.
"""
