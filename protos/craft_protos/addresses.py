"""Where a daemon may be reached without TLS: both sides go by this."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """A name or an address, an IPv6 one with or without its brackets."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
