"""Public pictures show themselves, not what they were made from."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft_protos.reasons import CraftError
from craftd.http.bare import bare
from craftd.worker.output import picture
from PIL import ExifTags, Image

from tests.home import HANG_S
from tests.http.shim import LORA, TRIGGER, Keys, Shim, give_lora, serving
from tests.lora_files import kohya

_SECRET = "a wish that is nobody's business"
_FORMATS = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}


def words_of(data: bytes) -> list[str]:
    """All that a reader finds beside the pixels."""
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        exif = image.getexif()
        found: dict[Any, Any] = {**getattr(image, "text", {}), **exif, **exif.get_ifd(ExifTags.IFD.Exif)}
        return [str(value) for value in found.values()]


def publish(shim: Shim, key: str, image_format: str) -> str:
    body = {"prompt": _SECRET, "output_format": image_format, "loras": [LORA], "response_format": "url"}
    answer = shim.post("/v1/images/generations", key, model="flat", num_inference_steps=2, **body)
    assert answer.status_code == 200, answer.text
    url: str = answer.json()["data"][0]["url"]
    return url


@pytest.mark.parametrize("image_format", _FORMATS)
def test_only_its_owner_is_told(shim: Shim, keys: Keys, image_format: str) -> None:
    path = publish(shim, keys.user, image_format).removeprefix(shim.url)
    job = shim.newest()
    assert job.images[0].id in path
    for key in ("", keys.other, "nonsense", keys.suspended):
        seen = shim.call("GET", path, key)
        assert seen.headers["content-type"] == _FORMATS[image_format] and "public" in seen.headers["cache-control"]
        assert words_of(seen.content) == []
        for secret in (_SECRET, LORA, TRIGGER, job.id, job.images[0].sha256):
            assert secret.encode() not in seen.content
        again = shim.call("GET", path, key, headers={"if-none-match": seen.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    own = shim.call("GET", f"/images/{job.images[0].id}", keys.user).content
    for key in (keys.user, keys.admin):
        whole = shim.call("GET", path, key)
        assert whole.content == own and "private" in whole.headers["cache-control"]
        assert whole.headers["etag"] != seen.headers["etag"] and "x-api-key" in whole.headers["vary"]
    assert any(_SECRET in word for word in words_of(own)) == (image_format == "png")  # the worker that needs no torch
    assert np.array_equal(*(np.asarray(Image.open(io.BytesIO(data))) for data in (own, seen.content)))


@pytest.mark.parametrize(("owners", "told"), [("alice, carol", {"alice"}), ("*", {"alice", "bob"})])
def test_the_configuration_may_say_otherwise(owners: str, told: set[str]) -> None:
    with serving(CRAFT_HTTP_PUBLIC_METADATA=owners) as own:
        give_lora(own)
        for owner in ("alice", "bob"):
            url = publish(own, own.key(owner), "png")
            words = words_of(own.session.get(url, timeout=HANG_S).content)
            assert any(_SECRET in word for word in words) == (owner in told)


def test_a_lora_that_is_not_shared_is_told_to_nobody(tmp_path: Path) -> None:
    with serving(CRAFT_HTTP_PUBLIC_METADATA="*", CRAFT_HTTP_OPEN_LISTS="true") as own:
        key = own.key("alice")
        own.send_lora(kohya(tmp_path / "hero.safetensors"), "alice")
        assert own.call("GET", "/loras").json() == []
        url = publish(own, key, "png")
        assert words_of(own.session.get(url, timeout=HANG_S).content) == []
        assert any(LORA in word for word in words_of(own.call("GET", url.removeprefix(own.url), key).content))


@pytest.mark.parametrize("image_format", _FORMATS)
def test_pixels_stay_as_they_are(image_format: str) -> None:
    """Of files as the worker writes them."""
    pixels = np.random.default_rng(1).integers(0, 256, (48, 40, 3), dtype=np.uint8)
    data = picture.encode(pixels, image_format, json.dumps({"prompt": _SECRET}), _SECRET)
    left = bare(data, _FORMATS[image_format])
    assert _SECRET.encode() in data and _SECRET.encode() not in left and words_of(left) == []
    assert np.array_equal(*(np.asarray(Image.open(io.BytesIO(one))) for one in (data, left)))
    with pytest.raises(CraftError, match="damaged"):
        bare(data[:20] if image_format != "webp" else data[:14], _FORMATS[image_format])


def test_what_other_writers_put_in_goes_too() -> None:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    stream = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(stream, "PNG")
    data = stream.getvalue()
    more = chunk(b"tIME", b"\x07\xe8\1\1\1\1\1") + chunk(b"eXIf", b"II*\0") + chunk(b"iTXt", b"a\0\0\0\0\0secret")
    assert bare(data[:33] + more + data[33:], "image/png") == data
    stream = io.BytesIO()
    profile = b"a profile that is kept"
    Image.new("CMYK", (8, 8)).save(stream, "JPEG", comment=b"secret", icc_profile=profile)
    left = bare(stream.getvalue(), "image/jpeg")
    assert b"secret" not in left and Image.open(io.BytesIO(left)).info["icc_profile"] == profile
