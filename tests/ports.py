"""Ports for programs that are told one."""

import random
import socket


def free_port() -> int:
    """A port on which nobody listens, below those that the system hands to connections: it stays free."""
    for port in random.SystemRandom().sample(range(15_000, 32_000), 100):
        with socket.socket() as one:
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no free port in 15000-31999")
