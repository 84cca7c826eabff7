"""The producer's and the operator's side: make jobs, look at them, repair them. ``python -m app.jobs``.

Protects: a job is committed before its first message is sent, and nothing is repaired that is not broken.
"""
