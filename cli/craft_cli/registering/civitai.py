"""Models and LoRAs of Civitai are named by a page, a download link or an AIR identifier.

https://civitai.com/models/ID[?modelVersionId=VERSION]   https://civitai.com/api/download/models/VERSION
urn:air:sdxl:lora:civitai:ID@VERSION                     civitai:ID[@VERSION]
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from craft_protos.reasons import CraftError

from craft_cli import errors

if TYPE_CHECKING:
    from craft_protos import models_pb2

    from craft_cli.connection.session import Session

TOKEN = "CIVITAI_TOKEN"
_LORAS = ("lora", "lycoris", "dora")
_NUMBER = r"[1-9]\d{0,11}"
_SITE = r"(?:https?://)?(?:www\.)?civitai\.com"
_PAGE = re.compile(
    rf"{_SITE}/models/(?P<model>{_NUMBER})(?:/[^?#\s]*)?(?:\?(?P<query>[^#\s]*))?(?:#\S*)?", re.IGNORECASE
)
_DOWNLOAD = re.compile(rf"{_SITE}/api/download/models/(?P<version>{_NUMBER})/?(?:[?#]\S*)?", re.IGNORECASE)
_AIR = re.compile(
    rf"(?:(?:urn:)?air:[\w.-]+:(?P<kind>[\w.-]+):)?civitai:(?P<model>{_NUMBER})(?:@(?P<version>{_NUMBER}))?(?:\.safetensors)?",
    re.IGNORECASE,
)
_OURS = re.compile(rf"{_SITE}(?:[/?#:].*)?|(?:(?:urn:)?air:.*|civitai:.*)", re.IGNORECASE)


def is_named(text: str) -> bool:
    """Says whether a text means something of Civitai, be it written right or wrong."""
    return _OURS.fullmatch(text) is not None


def is_air(text: str) -> bool:
    """Says whether a text is an AIR identifier, long or short, whose last number is no weight."""
    return _AIR.fullmatch(text) is not None


def require_lora(text: str) -> None:
    """Raises USAGE for an AIR identifier that says itself that it is a whole model's."""
    air = _AIR.fullmatch(text)
    if air and (air["kind"] or "").lower() == "checkpoint":
        raise CraftError("USAGE", f"{text[:100]} is a checkpoint, no LoRA", f"craft models pull {text[:100]}")


def require_model(text: str) -> None:
    """Raises USAGE for an AIR identifier that says itself that it is a LoRA's."""
    air = _AIR.fullmatch(text)
    if air and (air["kind"] or "").lower() in _LORAS:
        raise CraftError("USAGE", f"{text[:100]} is a LoRA, no model", f"craft lora add {text[:100]}")


def source(text: str) -> models_pb2.HubSource:
    """What the daemon is asked for. Raises USAGE."""
    from craft_protos import models_pb2

    if page := _PAGE.fullmatch(text):
        version = parse_qs(page["query"] or "").get("modelVersionId", [""])[0]
        if version and not re.fullmatch(_NUMBER, version):
            raise _wrong(text)
        return models_pb2.HubSource(repository=f"civitai:{page['model']}", revision=version)
    if link := _DOWNLOAD.fullmatch(text):
        return models_pb2.HubSource(repository="civitai:", revision=link["version"])
    if air := _AIR.fullmatch(text):
        return models_pb2.HubSource(repository=f"civitai:{air['model']}", revision=air["version"] or "")
    raise _wrong(text)


def is_registered(asked: str, known: str) -> bool:
    """Whether civitai:ID@VERSION, with nothing or * for what was not said, is what `known` was registered from."""
    model, version = asked.removeprefix("civitai:").split("@")
    wanted = rf"civitai:{model or _NUMBER}@{_NUMBER if version == '*' else version}(:.*)?"
    return re.fullmatch(wanted, known, re.DOTALL) is not None


def token(session: Session) -> str:
    """The key that Civitai is to be shown; "", which is said, where the way to the daemon could be listened to."""
    given = os.environ.get(TOKEN, "").strip()
    if given and not _is_private(session.target.host, session.target.ca_file):
        errors.say(f"craft: {TOKEN} is not sent: the daemon at {session.target.host} is reached without TLS")
        return ""
    return given


def _is_private(host: str, ca_file: str) -> bool:
    """The local socket, or TLS."""
    from craft_protos import channels

    return not host or host.startswith("unix:") or bool(ca_file) or not channels.is_local(host)


def _wrong(text: str) -> CraftError:
    forms = "https://civitai.com/models/ID?modelVersionId=VERSION, civitai:ID@VERSION or its AIR identifier"
    return CraftError("USAGE", f"{text.partition('?')[0][:100]!r} is nothing of Civitai's", f"write it as {forms}")
