"""Neo4j: the driver, its time-outs and its errors in our words.

Protects: it only reads, and every wait for the server ends.
"""
