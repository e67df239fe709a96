"""A model hub on loopback: the few addresses that craft asks, answered truly or as roguishly as a test wants."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

COMMIT = "c0ffee" + "0" * 34
LFS_FROM_BYTES = 1000


@dataclass
class Answer:
    """What a request gets instead of the truth."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    length: int | None = None  # claimed
    is_endless: bool = False


@dataclass
class Repository:
    name: str
    files: dict[str, bytes]
    commit: str = COMMIT
    revisions: tuple[str, ...] = ("main",)
    edit: Callable[[dict[str, Any]], object] = lambda listing: None  # of the listing, before it is sent
    answers: dict[str, Answer] = field(default_factory=dict)  # by file name, or "" for the listing
    token: str = ""  # needed for the files
    most_bytes: int | None = None  # of one response: then the connection breaks
    needs_storage: bool = False  # files are had by a redirect, as the real hub's large ones are

    def listing(self) -> dict[str, Any]:
        return {"id": self.name, "sha": self.commit, "siblings": [_sibling(*item) for item in self.files.items()]}


@dataclass
class Hub:
    """`asked`: the requests so far, as (path, headers)."""

    repositories: dict[str, Repository]
    address: str = ""
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    on_request: Callable[[str], object] = lambda path: None
    other: Callable[[str, dict[str, str]], Answer | None] = lambda path, headers: None  # what another site answers

    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]

    def downloads(self) -> list[str]:
        return [path.partition("/resolve/")[2].partition("/")[2] for path in self.paths() if "/resolve/" in path]


@contextmanager
def serving(*repositories: Repository) -> Iterator[Hub]:
    hub = Hub({one.name: one for one in repositories})
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def environment(hub: Hub, cache: Path) -> dict[str, str]:
    """What makes huggingface_hub ask this hub and use that cache."""
    return {"HF_ENDPOINT": hub.address, "HF_HOME": str(cache), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


def folder(path: Path) -> dict[str, bytes]:
    """A model folder's files, as a repository's."""
    return {one.relative_to(path).as_posix(): one.read_bytes() for one in sorted(path.rglob("*")) if one.is_file()}


def _sibling(name: str, content: bytes) -> dict[str, Any]:
    git = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
    sibling: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": git}
    if len(content) >= LFS_FROM_BYTES:
        sibling["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return sibling


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = unquote(self.path.partition("?")[0])
            headers = {key.lower(): value for key, value in self.headers.items()}
            hub.asked.append((path, headers))
            hub.on_request(path)
            self._answer(_find(hub, path, headers))

        def _answer(self, answer: Answer) -> None:
            self.send_response(answer.status)
            length = len(answer.body) if answer.length is None else answer.length
            for name, value in ({"Content-Length": str(length)} | answer.headers).items():
                if not (answer.is_endless and name == "Content-Length"):
                    self.send_header(name, value)
            self.end_headers()
            try:
                self.wfile.write(answer.body)
                while answer.is_endless:
                    self.wfile.write(b"x" * 65536)
            except OSError:
                pass  # whoever asked has had enough
            if answer.is_endless or length != len(answer.body):
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None: ...

    return Handler


def _find(hub: Hub, path: str, headers: dict[str, str]) -> Answer:
    if (answer := hub.other(path, headers)) is not None:
        return answer
    if found := re.fullmatch(r"/api/models/(.+)/revision/(.+)", path):
        return _listing(hub.repositories.get(found[1]), found[2])
    found = re.fullmatch(r"/(storage/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
    repository = hub.repositories.get(found[2]) if found else None
    if found is None or repository is None or found[4] not in repository.files:
        return Answer(404, {"X-Error-Code": "EntryNotFound"})
    if repository.token and headers.get("authorization") != f"Bearer {repository.token}":
        return Answer(401, {"X-Error-Code": "GatedRepo"})
    if repository.needs_storage and not found[1]:
        return Answer(302, {"Location": f"/storage{path}"})
    told = repository.answers.get(found[4])
    return told or file_of(repository, repository.files[found[4]], headers.get("range", ""))


def _listing(repository: Repository | None, revision: str) -> Answer:
    if repository is None:
        return Answer(401, {"X-Error-Code": "RepoNotFound"})
    if "" in repository.answers:
        return repository.answers[""]
    if revision not in (*repository.revisions, repository.commit):
        return Answer(404, {"X-Error-Code": "RevisionNotFound"})
    listing = repository.listing()
    repository.edit(listing)
    return Answer(body=json.dumps(listing).encode())


def file_of(repository: Repository, content: bytes, wanted: str) -> Answer:
    begin = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
    rest = content[begin:]
    body = rest if repository.most_bytes is None else rest[: repository.most_bytes]
    headers = {"Content-Range": f"bytes {begin}-{len(content) - 1}/{len(content)}"} if wanted else {}
    return Answer(206 if wanted else 200, headers, body, length=len(rest))
