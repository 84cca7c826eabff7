"""Values and ports: what the service speaks of. Pure, so that it can be read and tested without a service running."""
