"""Ports are free when chosen, on 127.0.0.1 only, and outside the range that outgoing connections are given.

An outgoing connection of any program could otherwise sit on a service's port while the service is down.
"""

import random
import socket
from collections.abc import Container

HOST = "127.0.0.1"
LOWEST_PORT = 20_000
HIGHEST_PORT = 31_999  # Linux hands out 32768 and up to clients, macOS 49152 and up
CHOICES = 200


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` now; connections left in TIME_WAIT do not count."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def choose(taken: Container[int]) -> int:
    """A random free port; random, so that two stacks choosing at once do not meet."""
    for _ in range(CHOICES):
        port = random.randint(LOWEST_PORT, HIGHEST_PORT)
        if port not in taken and is_free(port):
            return port
    raise OSError(f"no free port found between {LOWEST_PORT} and {HIGHEST_PORT}")
