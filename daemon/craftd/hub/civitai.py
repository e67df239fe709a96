"""What Civitai has under a model's number or a version's: one file, its SHA256, and the trigger words of its page.

GET /api/v1/models/ID                the newest version of a model comes first
GET /api/v1/model-versions/VERSION   its files
"""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.parse import urlsplit

from craft_protos.reasons import CraftError

from craftd.hub import names, web
from craftd.hub.repository import CIVITAI, DEFAULT_REVISION, Address, Listing, RemoteFile

_ENDPOINT = "https://civitai.com"
# What the site redirects downloads to: its own names, and its bucket at Cloudflare.
_STORAGE = ("b2.civitai.com", "civitai-delivery-worker-prod.5ac0637cfd0766c97916cefa3764fbdf.r2.cloudflarestorage.com")
_LONGEST_ANSWER_BYTES = 16 << 20
_LONGEST_TRIGGER = 500
_HEX = frozenset("0123456789abcdef")
_TRAINING = ("Training Data", "Archive", "Config")  # types of files that are no weights


def site(token: str) -> web.Site:
    return web.Site(
        "Civitai",
        lambda: os.environ.get("CIVITAI_ENDPOINT", _ENDPOINT).rstrip("/"),
        lambda: {"User-Agent": "craft", **({"Authorization": f"Bearer {token}"} if token else {})},
        lambda host: host in _STORAGE,
        lambda _: "log in there, make a key in your account's settings, and set CIVITAI_TOKEN to it where craft is run",
        "CIVITAI_ENDPOINT",
        "",
        "check the number",
    )


def read(address: Address) -> Listing:
    """A version's one file, which is the newest version's where none is named.

    Raises UNKNOWN_REPOSITORY, UNSAFE_FORMAT, UNSAFE_PATH, HUB_GATED, HUB_UNREACHABLE, HUB_UNTRUSTED.
    """
    where = site(address.token)
    version = address.revision
    if version == DEFAULT_REVISION:
        version = _newest(address, where)
    told = _json(f"model-versions/{version}", f"version {version}", where)
    model = told.get("modelId")
    asked = address.repository.removeprefix(CIVITAI)
    if type(model) is not int or str(told.get("id")) != version:
        raise where.untrusted("answers with another version than was asked for")
    if asked and asked != str(model):
        raise CraftError(
            "UNKNOWN_REPOSITORY",
            f"Civitai's version {version} is of the model {model}, not of {asked}",
            f"ask for {CIVITAI}{model}@{version}",
        )
    name = f"{CIVITAI}{model}"
    file = _file(f"{name}@{version}", told.get("files"), where)
    return Listing(Address(name, version, address.token), version, (file,), trigger=_trigger(told.get("trainedWords")))


def _newest(address: Address, where: web.Site) -> str:
    model = address.repository.removeprefix(CIVITAI)
    versions = _json(f"models/{model}", f"model {model}", where).get("modelVersions")
    first = versions[0] if isinstance(versions, list) and versions else None
    number = first.get("id") if isinstance(first, dict) else None
    if type(number) is not int or number <= 0:
        raise where.untrusted(f"names no version of the model {model}")
    return str(number)


def _json(path: str, what: str, where: web.Site) -> dict[str, Any]:
    content = web.read(f"{where.endpoint()}/api/v1/{path}", what, _LONGEST_ANSWER_BYTES, where)
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError) as exc:
        raise where.untrusted(f"answers with something else than JSON where {what} was asked for") from exc
    if not isinstance(answer, dict):
        raise where.untrusted(f"answers with something else than {what}")
    return answer


def _file(source: str, files: object, where: web.Site) -> RemoteFile:
    """The safetensors file, the primary one of several."""
    if not isinstance(files, list) or not all(isinstance(one, dict) for one in files):
        raise where.untrusted("lists no files")
    weights = [one for one in files if one.get("type") not in _TRAINING]
    safe = [one for one in weights if str(one.get("name", "")).lower().endswith(".safetensors")]
    if not safe and weights:
        raise CraftError(
            "UNSAFE_FORMAT",
            f"{source} has pickle files only, which could run code",
            "download one in a browser, then: craft convert FILE",
        )
    if not safe:
        raise CraftError("UNKNOWN_REPOSITORY", f"{source} has no .safetensors file", "see its files on its page")
    return _checked(source, next((one for one in safe if one.get("primary") is True), safe[0]), where)


def _checked(source: str, told: dict[str, Any], where: web.Site) -> RemoteFile:
    path = names.check(source, told.get("name"))
    if "/" in path:
        raise where.untrusted(f"names a file with folders, {path[:100]!r}")
    hashes, size_kb, url = told.get("hashes"), told.get("sizeKB"), told.get("downloadUrl")
    digest = str(hashes.get("SHA256", "")).lower() if isinstance(hashes, dict) else ""
    if len(digest) != 64 or not _HEX.issuperset(digest):
        raise where.untrusted(f"gives no SHA256 of {path}")
    if not isinstance(size_kb, int | float) or size_kb is True or not 0 < size_kb < 1 << 40:
        raise where.untrusted(f"does not say how big {path} is")
    if not isinstance(url, str) or not _is_download(url, where):
        raise where.untrusted(f"has {path} downloaded from elsewhere")
    return RemoteFile(path, round(size_kb * 1024), digest, url)


def _is_download(url: str, where: web.Site) -> bool:
    try:
        return where.is_own(url) and urlsplit(url).path.startswith("/api/download/models/")
    except ValueError:
        return False


def _trigger(words: object) -> str:
    """Trigger words, as a prompt has them."""
    told = [one.strip(" ,") for one in words if isinstance(one, str)] if isinstance(words, list) else []
    text = ", ".join(dict.fromkeys(one for one in told if one and one.isprintable()))
    return text if len(text) <= _LONGEST_TRIGGER else text[:_LONGEST_TRIGGER].rpartition(",")[0]
