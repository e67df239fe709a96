"""Requests to a site that has models: huggingface_hub's session, with redirects, tokens and errors under our own rules.

A Site says what differs between them: the hub is one (HUB), Civitai another (craftd.hub.civitai).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

import httpx2
from craft_protos.reasons import CraftError
from huggingface_hub import constants
from huggingface_hub.errors import OfflineModeIsEnabled
from huggingface_hub.utils._headers import build_hf_headers
from huggingface_hub.utils._http import get_session

_TIMEOUT = httpx2.Timeout(10.0, read=30.0)
_MOST_REDIRECTS = 5
_MOST_TRIES = 3
_WAIT_S = 0.5
_STORAGE = ("huggingface.co", "hf.co")  # where the public hub, and mirrors of it, send downloads to
_Origin = tuple[str, str, int]


@dataclass(frozen=True)
class Site:
    """Where models are had from: its address, what each request to it carries, and where it sends downloads to."""

    name: str
    endpoint: Callable[[], str]
    headers: Callable[[], dict[str, str]]  # for the site itself: its token is for nobody else
    is_storage: Callable[[str], bool]  # whether a host name is that of its storage
    way_in: Callable[[str], str]  # what to do where it does not let us in, by a repository's name
    setting: str  # the environment variable that names another endpoint
    thing: str  # what it has, before a name
    check_name: str  # what to do where there is none

    def unreachable(self, why: str) -> CraftError:
        return CraftError(
            "HUB_UNREACHABLE",
            f"{self.name} at {shown(self.endpoint())} cannot be reached: {why}",
            f"check the network and {self.setting}, then run it again: a download goes on where it was",
        )

    def untrusted(self, why: str) -> CraftError:
        message = f"{self.name} at {shown(self.endpoint())} {why}"
        return CraftError("HUB_UNTRUSTED", message, f"check {self.setting}; nothing was kept")

    def is_own(self, url: str) -> bool:
        return _origin(url) == _origin(self.endpoint())

    def may_send_to(self, url: str) -> bool:
        """Itself, or its storage over https. Raises ValueError for a port that is none, say."""
        scheme, host, port = _origin(url)
        return self.is_own(url) or (scheme == "https" and port == 443 and self.is_storage(host))


HUB = Site(
    "the model hub",
    lambda: constants.ENDPOINT,
    lambda: build_hf_headers(library_name="craft"),
    lambda host: any(host == one or host.endswith(f".{one}") for one in _STORAGE),
    lambda repository: (
        f"accept its terms at {shown(constants.ENDPOINT)}/{repository}, then log in with `hf auth login`, or set "
        "HF_TOKEN and run `craft daemon restart`"
    ),
    "HF_ENDPOINT",
    "repository ",
    "check the name; a private one needs a token in HF_TOKEN",
)


def read(url: str, repository: str, most_bytes: int, site: Site = HUB) -> bytes:
    """The whole of a small answer. Raises HUB_GATED, HUB_UNREACHABLE, HUB_UNTRUSTED, UNKNOWN_REPOSITORY."""
    content = bytearray()
    try:
        with response(url, repository, site=site) as answer:
            for chunk in answer.iter_raw():
                content += chunk
                if len(content) > most_bytes:
                    raise site.untrusted(f"answers with more than {most_bytes} bytes")
    except httpx2.TransportError as exc:
        raise site.unreachable(f"the connection broke ({_why(exc)})") from exc
    return bytes(content)


@contextmanager
def response(
    url: str, repository: str, headers: dict[str, str] | None = None, *, site: Site = HUB
) -> Iterator[httpx2.Response]:
    """Of 200 or 206, its body still to be read: that may raise httpx2.TransportError. Raises as `read`."""
    found = _patiently(url, repository, headers or {}, site)
    try:
        yield found
    finally:
        found.close()


def api_url(repository: str, revision: str) -> str:
    return f"{constants.ENDPOINT}/api/models/{repository}/revision/{quote(revision, safe='')}?blobs=true"


def file_url(repository: str, commit: str, path: str) -> str:
    return f"{constants.ENDPOINT}/{repository}/resolve/{commit}/{quote(path)}"


def _patiently(url: str, repository: str, headers: dict[str, str], site: Site) -> httpx2.Response:
    """What passes by itself is tried again."""
    for left in reversed(range(_MOST_TRIES)):
        try:
            found = _followed(url, headers, site)
        except OfflineModeIsEnabled as exc:
            raise site.unreachable("HF_HUB_OFFLINE is set") from exc
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as exc:
            if not left:
                raise site.unreachable(_why(exc)) from exc
        else:
            if not left or not _is_passing(found.status_code):
                return _checked(found, repository, site)
            found.close()
        time.sleep(_WAIT_S * (_MOST_TRIES - left))
    raise AssertionError("the last try returns or raises")


def _checked(found: httpx2.Response, repository: str, site: Site) -> httpx2.Response:
    try:
        _raise_for_status(found, repository, site)
    except CraftError:
        found.close()
        raise
    return found


def _followed(url: str, headers: dict[str, str], site: Site) -> httpx2.Response:
    """After the redirects that a site has reason to make; the token is for the site alone."""
    session = get_session()
    for _ in range(_MOST_REDIRECTS + 1):
        own = site.headers() if site.is_own(url) else {}
        request = session.build_request(
            "GET", url, headers={**own, "Accept-Encoding": "identity", **headers}, timeout=_TIMEOUT
        )
        response = session.send(request, stream=True, follow_redirects=False)
        if not response.has_redirect_location:
            return response
        response.close()
        url = _target(url, response.headers["Location"], site)
    raise site.untrusted("redirects for ever")


def _target(url: str, location: str, site: Site) -> str:
    target = urljoin(url, location)
    try:
        is_allowed = site.may_send_to(target)
    except ValueError:  # a port that is none, say
        is_allowed = False
    if not is_allowed:
        raise site.untrusted(f"redirects to {shown(target)}, which is neither itself nor its storage")
    return target


def _origin(url: str) -> _Origin:
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    return scheme, (parts.hostname or "").lower(), parts.port or {"http": 80, "https": 443}.get(scheme, 0)


def _is_passing(status: int) -> bool:
    return status in (408, 429) or status >= 500


def _raise_for_status(response: httpx2.Response, repository: str, site: Site) -> None:
    status, code = response.status_code, response.headers.get("X-Error-Code", "")
    if status in (200, 206):
        return
    if code == "RevisionNotFound":
        raise _unknown(f"{repository} has no such revision", "see its branches and tags on its page")
    if code == "EntryNotFound":
        raise _unknown(f"{repository} has no such file", "see its files on its page")
    if status == 404 or (status == 401 and code == "RepoNotFound"):
        raise _unknown(f"{site.name} has no {site.thing}{repository}", site.check_name)
    if status in (401, 403):
        message = f"{repository} is gated, and {site.name} does not let us in"
        raise CraftError("HUB_GATED", message, site.way_in(repository))
    if _is_passing(status):
        raise site.unreachable(f"it answers with {status}")
    raise site.untrusted(f"answers with {status}")


def _unknown(message: str, hint: str) -> CraftError:
    return CraftError("UNKNOWN_REPOSITORY", message, hint)


def _why(exc: Exception) -> str:
    text = (str(exc).splitlines() or [""])[0]
    return text[:200] or type(exc).__name__


def shown(url: str) -> str:
    """Without a password, a query or control characters."""
    parts = urlsplit(url)
    text = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")
    return "".join(c if c.isprintable() else "?" for c in text)[:200]
