"""What PostgreSQL says is still to be sent: completion messages (relay) and lost segments (sweep).

Protects: whatever dies, a completion is announced and a lost message comes back.
"""
