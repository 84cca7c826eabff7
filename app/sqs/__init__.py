"""One SQS queue, a message received from it, and what becomes of that message.

Protects: a message is deleted only after its outcome is safe.
"""
