"""Civitai on loopback: one model's version, answered truly or as roguishly as a test wants."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.daemon import hub as hubs
from tests.daemon.hub import Answer, Hub, Repository

MODEL, VERSION = 827184, 2514310
FILE = "wtrclr.safetensors"


@dataclass
class Civitai:
    """`hub` is the server; `files` are what the version has, the first one its primary file."""

    files: dict[str, bytes]
    hub: Hub = field(default_factory=lambda: Hub({}))
    edit: Callable[[dict[str, Any]], object] = lambda version: None  # of the answer, before it is sent
    token: str = ""  # needed for the file
    download: Answer | None = None  # in the place of the file

    @property
    def version(self) -> dict[str, Any]:
        told = {
            "id": VERSION,
            "modelId": MODEL,
            "baseModel": "SDXL 1.0",
            "trainedWords": ["wtrclr style", "soft, wet paper", "wtrclr style"],
            "files": [self._told(number, *item) for number, item in enumerate(self.files.items())],
        }
        self.edit(told)
        return told

    def tokens(self) -> list[str]:
        """What each request had for a key."""
        return [headers.get("authorization", "") for _, headers in self.hub.asked]

    def answer(self, path: str, headers: dict[str, str]) -> Answer | None:
        match path.strip("/").split("/"):
            case ["api", "v1", "models", number]:
                versions = {"modelVersions": [{"id": VERSION}, {"id": VERSION - 1}]}
                return _json(versions) if number == str(MODEL) else Answer(404)
            case ["api", "v1", "model-versions", number]:
                return _json(self.version) if number == str(VERSION) else Answer(404)
            case ["api", "download", "models", _, place]:
                return self._file([*self.files][int(place)], headers)
            case _:
                return None

    def _file(self, name: str, headers: dict[str, str]) -> Answer:
        if self.token and headers.get("authorization") != f"Bearer {self.token}":
            return Answer(401)
        whole = Repository("", {}), self.files[name], headers.get("range", "")
        return self.download or hubs.file_of(*whole)

    def _told(self, place: int, name: str, content: bytes) -> dict[str, Any]:
        is_safe = name.endswith(".safetensors")
        return {
            "name": name,
            "sizeKB": len(content) / 1024,
            "type": "Model",
            "primary": place == 0,
            "metadata": {"format": "SafeTensor" if is_safe else "PickleTensor"},
            "hashes": {"SHA256": hashlib.sha256(content).hexdigest().upper()},
            "downloadUrl": f"{self.hub.address}/api/download/models/{VERSION}/{place}",
        }


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[Civitai]:
    with hubs.serving() as hub:
        site = Civitai(files, hub)
        hub.other = site.answer
        yield site


def environment(site: Civitai, cache: Path) -> dict[str, str]:
    return {**hubs.environment(site.hub, cache), "CIVITAI_ENDPOINT": site.hub.address}


def _json(answer: dict[str, Any]) -> Answer:
    return Answer(body=json.dumps(answer).encode())
