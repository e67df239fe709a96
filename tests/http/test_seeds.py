"""The seed documents' own examples, run as they stand but for host, key and LoRA."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.home import HANG_S
from tests.http.shim import LORA, TRIGGER, Keys, Shim, tool

_SEEDS = Path(__file__).parent / "seeds"
_LORA_API = (_SEEDS / "lora-api.md").read_text(encoding="utf-8")
_VISIONCRAFT = (_SEEDS / "visioncraft.md").read_text(encoding="utf-8")
_HOSTS = ("https://api.craftengine.app", "https://rohkife.domcloud.io")


def blocks(document: str, language: str) -> list[str]:
    """What stands between fences of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", document, re.MULTILINE | re.DOTALL)


def adapted(example: str, shim: Shim, key: str) -> str:
    for host in _HOSTS:
        example = example.replace(host, shim.url)
    return example.replace("your-api-key", key).replace("your-lora-id", LORA)


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def is_whole(data: bytes, side: int = 256) -> bool:
    """The LoRA is for pocket, which draws 256 pixels square."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
        picture.load()
        return picture.size == (side, side)


def check_public(shim: Shim, answer: dict[str, str]) -> None:
    """As the document shows it; the url leads to the picture, without a key."""
    assert list(answer) == ["status", "url", "image_id", "processing_time"]
    assert answer["status"] == "success" and re.fullmatch(r"\d+\.\d", answer["processing_time"])
    assert answer["url"] == f"{shim.url}/image/{answer['image_id']}"
    assert is_whole(shim.session.get(answer["url"], timeout=HANG_S).content)
    assert shim.image(answer["image_id"]).prompt == f"{TRIGGER} chilling in the sun"


def test_the_curl_lines(shim: Shim, keys: Keys) -> None:
    (line,) = [block for block in blocks(_LORA_API, "bash") if block.startswith("curl")]
    assert tool("curl")
    check_public(shim, json.loads(run("bash", "-c", adapted(line, shim, keys.user))))


def test_the_python_snippet(shim: Shim, keys: Keys) -> None:
    (snippet,) = blocks(_LORA_API, "python")
    printed = run(sys.executable, "-c", adapted(snippet, shim, keys.user))
    check_public(shim, json.loads(printed.replace("'", '"')))


def test_the_javascript_snippet(shim: Shim, keys: Keys) -> None:
    (snippet,) = blocks(_LORA_API, "javascript")
    shown = run(tool("node"), "-e", adapted(snippet, shim, keys.user))
    check_public(shim, json.loads(re.sub(r"(\w+): ", r'"\1": ', shown).replace("'", '"')))


def test_base64_keeps_it_private(shim: Shim, keys: Keys) -> None:
    (snippet,) = blocks(_LORA_API, "python")
    private = adapted(snippet, shim, keys.user).replace('"url"  #', '"base64"  #')
    answer = json.loads(run(sys.executable, "-c", private).replace("'", '"'))
    assert list(answer) == ["status", "base64", "image_id", "processing_time"]
    assert is_whole(base64.b64decode(answer["base64"], validate=True))
    assert shim.call("GET", f"/image/{answer['image_id']}").status_code == 404
    assert shim.call("GET", f"/image/{answer['image_id']}", keys.user).status_code == 404
    assert is_whole(shim.call("GET", f"/images/{answer['image_id']}", keys.user).content)


@pytest.mark.parametrize("heading", ["Available Models", "Image Generation"])
def test_visioncrafts_requests(shim: Shim, keys: Keys, heading: str) -> None:
    (section,) = [part for part in re.split("^### ", _VISIONCRAFT, flags=re.MULTILINE) if part.startswith(heading)]
    request, *examples = blocks(section, "")
    method, url = adapted(request, shim, "").split()
    if method == "GET":
        answer = shim.session.get(url, timeout=HANG_S)
        assert answer.json() == ["pocket", "flat"]
        return
    body = json.loads(examples[0])
    body |= {"token": keys.user, "model": "flat"}
    answer = shim.session.request(method, url, json=body, timeout=HANG_S)
    assert answer.status_code == 200, answer.text
    pictures = [base64.b64decode(one, validate=True) for one in answer.json()]
    assert len(pictures) == body["image_count"] and len(set(pictures)) == len(pictures)
    assert all(is_whole(picture, 64) for picture in pictures)
