"""The four services in the order in which they are started: slow ones first, so that they boot side by side."""

from devstack.services.base import Service
from devstack.services.cache import Cache
from devstack.services.neo4j import Neo4j
from devstack.services.postgres import Postgres
from devstack.services.sqs import Sqs

SERVICES: dict[str, type[Service]] = {each.name: each for each in (Neo4j, Sqs, Postgres, Cache)}

__all__ = ["SERVICES", "Cache", "Neo4j", "Postgres", "Service", "Sqs"]
