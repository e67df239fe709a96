"""Where webhooks may go: `[webhooks] hosts`, and what of a URL is looked at."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

from craft_protos.reasons import CraftError, invalid

_LONGEST = 2048
_HOST = re.compile(r"[\w.:-]+", re.ASCII)
_DEFAULT_PORTS = {"https": 443, "http": 80}
_Place = tuple[str, str, int]  # scheme, host, port


class Targets:
    """The hosts of the configuration: `example.org` and `example.org:8443` are spoken to over HTTPS, in plain only what
    is written as `http://HOST:PORT`. None: webhooks are off.
    """

    def __init__(self, hosts: str) -> None:
        """Raises CONFIG_INVALID."""
        self._places = frozenset(_listed(one.strip()) for one in hosts.split(",") if one.strip())

    @property
    def is_on(self) -> bool:
        return bool(self._places)

    def check(self, url: str) -> None:
        """A job's webhook; "" is none. Raises INVALID_FIELD, NOT_ALLOWED."""
        if not url:
            return
        if not self.is_on:
            raise _refused("this daemon sends none")
        place = _place(url)
        if place not in self._places:
            raise _refused("{}://{}:{} is not among the hosts that this daemon sends to".format(*place))


def _refused(why: str) -> CraftError:
    return CraftError("NOT_ALLOWED", f"webhook: {why}", "its admin names hosts in webhooks.hosts", field="webhook")


def _listed(text: str) -> _Place:
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        if parts.path.strip("/") or parts.query:
            raise ValueError
        return _of(parts)
    except ValueError:
        why = f"webhooks.hosts: {text[:200]!r} is no host"
        raise CraftError("CONFIG_INVALID", why, "write HOST, HOST:PORT or http://HOST:PORT, comma between") from None


def _place(url: str) -> _Place:
    """Raises INVALID_FIELD."""
    if len(url) > _LONGEST or not url.isascii() or not url.isprintable() or " " in url:
        raise invalid("webhook", "is no URL", "write it like https://example.org/pictures")
    try:
        return _of(urlsplit(url))
    except ValueError:
        raise invalid("webhook", "is no URL to send to", "write it like https://example.org/pictures") from None


def _of(parts: SplitResult) -> _Place:
    """Raises ValueError for what cannot be sent to, or says who asks."""
    host = (parts.hostname or "").lower().rstrip(".")
    if parts.scheme not in _DEFAULT_PORTS or "@" in parts.netloc or parts.fragment or not _HOST.fullmatch(host):
        raise ValueError
    return parts.scheme, host, parts.port or _DEFAULT_PORTS[parts.scheme]
