"""The long-running worker: lanes, heartbeat, housekeeping, start and stop.

Protects: what was received gets one outcome from this process, or comes back when the process is gone.
"""
