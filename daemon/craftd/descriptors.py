"""How many files and connections this process may have open, and how many of them callers may take."""

from __future__ import annotations

import resource

_WANTED = 16_384
_MOST_CONNECTIONS = 1024  # through one face
_FACES = 3  # the local socket, TCP, HTTP


def raise_descriptor_limit() -> None:
    """As far as the system lets a process do it itself: shells and service managers often allow 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED if hard == resource.RLIM_INFINITY else min(_WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def most_connections() -> int:
    """That one face takes: together they leave a good part of the descriptors to the daemon's own work."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_CONNECTIONS if soft == resource.RLIM_INFINITY else min(_MOST_CONNECTIONS, soft // (2 * _FACES))
