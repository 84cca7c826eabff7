"""The real services on a bare machine, from packages: PostgreSQL, Neo4j, an SQS server, a Redis-protocol cache."""
