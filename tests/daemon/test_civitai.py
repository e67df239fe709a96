"""What comes from Civitai: one checked file, its trigger words, and a key that nobody else gets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from craft_protos.reasons import CraftError
from craftd.hub import civitai, client, transfers, web
from craftd.hub.repository import Address, Listing
from craftd.loras import choosing
from huggingface_hub import constants

from tests.daemon.civitai import FILE, MODEL, VERSION, Civitai, environment, serving
from tests.daemon.hub import Answer

BIG = bytes(range(256)) * 400
TOKEN = "c1v1t41-secret"
WHOLE = Address(f"civitai:{MODEL}", str(VERSION))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Civitai]:
    with serving({FILE: BIG}) as one:
        for name, value in environment(one, tmp_path).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(web, "_WAIT_S", 0.0)
        yield one


def fetch(listing: Listing, token: str = "") -> None:
    """In this process."""
    where = civitai.site(token)
    transfers.fetch(listing.address.repository, listing.commit, listing.files, lambda *_: None, where)


def refused(address: Address = WHOLE) -> CraftError:
    with pytest.raises(CraftError) as caught:
        fetch(civitai.read(address), address.token)
    return caught.value


def kept(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file() and ".locks" not in path.parts]


def keeping(folder: Path, secret: str) -> list[Path]:
    """The files that hold it."""
    return [path for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    "address", [WHOLE, Address(f"civitai:{MODEL}"), Address("civitai:", str(VERSION))], ids=["both", "model", "version"]
)
def test_a_version_is_found_by_either_number(site: Civitai, address: Address) -> None:
    listing = civitai.read(address)
    assert listing.source == f"civitai:{MODEL}@{VERSION}"
    assert [(file.path, file.size_bytes) for file in listing.files] == [(FILE, len(BIG))]
    assert listing.trigger == "wtrclr style, soft, wet paper"


async def test_a_process_fetches_it_with_the_callers_key(site: Civitai, tmp_path: Path) -> None:
    site.token = TOKEN
    address = Address(f"civitai:{MODEL}", str(VERSION), TOKEN)
    assert TOKEN not in repr(address)
    listing, fetched = await client.fetch_files(address, lambda found: choosing.choose_all(found, ""), lambda *_: None)
    assert fetched.paths[FILE].read_bytes() == BIG and listing.trigger.startswith("wtrclr style")
    assert set(site.tokens()) == {f"Bearer {TOKEN}"}
    assert not await asyncio.to_thread(keeping, tmp_path, TOKEN)


def test_without_a_key_the_way_to_one_is_told(site: Civitai) -> None:
    site.token = TOKEN
    error = refused()
    assert error.reason == "HUB_GATED" and "CIVITAI_TOKEN" in error.hint
    wrong = refused(Address(f"civitai:{MODEL}", str(VERSION), "another"))
    assert wrong.reason == "HUB_GATED" and "another" not in f"{wrong.message}{wrong.hint}"


def test_the_primary_safetensors_file_is_taken(site: Civitai) -> None:
    site.files = {"it.ckpt": b"x", "small.safetensors": BIG[:1000], FILE: BIG}
    site.edit = lambda version: version["files"][2].update(primary=True)
    assert civitai.read(WHOLE).files[0].path == FILE
    site.edit = lambda version: version["files"][1].update(type="Training Data")
    assert civitai.read(WHOLE).files[0].path == FILE


def test_pickles_are_refused_with_the_way_on(site: Civitai) -> None:
    site.files = {"it.pt": b"x", "it.ckpt": b"x"}
    error = refused()
    assert error.reason == "UNSAFE_FORMAT" and "craft convert" in error.hint


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        ({"name": "../../up.safetensors"}, "UNSAFE_PATH"),
        ({"name": "a/b.safetensors"}, "HUB_UNTRUSTED"),
        ({"hashes": {}}, "HUB_UNTRUSTED"),
        ({"hashes": {"SHA256": "0" * 64}}, "CORRUPT_FILE"),
        ({"hashes": {"SHA256": "../" * 21 + "x"}}, "HUB_UNTRUSTED"),
        ({"sizeKB": -1}, "HUB_UNTRUSTED"),
        ({"sizeKB": True}, "HUB_UNTRUSTED"),
        ({"sizeKB": float("nan")}, "HUB_UNTRUSTED"),
        ({"sizeKB": 1}, "CORRUPT_FILE"),
        ({"downloadUrl": "http://169.254.169.254/latest"}, "HUB_UNTRUSTED"),
        ({"downloadUrl": "https://civitai.com.evil.example/api/download/models/1"}, "HUB_UNTRUSTED"),
        ({"downloadUrl": "file:///etc/passwd"}, "HUB_UNTRUSTED"),
        ({"downloadUrl": "http://127.0.0.1:99999999/api/download/models/1"}, "HUB_UNTRUSTED"),
    ],
)
def test_what_a_rogue_says_of_a_file(site: Civitai, tmp_path: Path, edit: dict[str, Any], reason: str) -> None:
    site.edit = lambda version: version["files"][0].update(edit)
    assert refused().reason == reason
    assert kept(tmp_path / "hub") == []


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        ({"files": None}, "HUB_UNTRUSTED"),
        ({"files": ["it.safetensors"]}, "HUB_UNTRUSTED"),
        ({"files": []}, "UNKNOWN_REPOSITORY"),
        ({"modelId": "1"}, "HUB_UNTRUSTED"),
        ({"modelId": 5}, "UNKNOWN_REPOSITORY"),
        ({"id": 7}, "HUB_UNTRUSTED"),
    ],
)
def test_what_a_rogue_says_of_a_version(site: Civitai, edit: dict[str, Any], reason: str) -> None:
    site.edit = lambda version: version.update(edit)
    assert refused().reason == reason


@pytest.mark.parametrize("words", [None, "many", [1, None], ["a\x1b[31m"], ["x" * 1000]])
def test_trigger_words_that_are_none(site: Civitai, words: object) -> None:
    site.edit = lambda version: version.update(trainedWords=words)
    assert civitai.read(WHOLE).trigger == ""


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(302, {"Location": "https://evil.example/x"}), "HUB_UNTRUSTED"),
        (Answer(302, {"Location": "https://b2.civitai.com.evil.example/x"}), "HUB_UNTRUSTED"),
        (Answer(302, {"Location": "http://b2.civitai.com/x"}), "HUB_UNTRUSTED"),
        (Answer(302, {"Location": "https://other.r2.cloudflarestorage.com/x"}), "HUB_UNTRUSTED"),
        (Answer(302, {"Location": "https://huggingface.co/x"}), "HUB_UNTRUSTED"),
        (Answer(body=b"<!DOCTYPE html>"), "CORRUPT_FILE"),
        (Answer(body=BIG[::-1]), "CORRUPT_FILE"),
        (Answer(is_endless=True), "CORRUPT_FILE"),
        (Answer(500), "HUB_UNREACHABLE"),
    ],
)
def test_what_a_rogue_sends(site: Civitai, answer: Answer, reason: str) -> None:
    site.download = answer
    error = refused()
    assert error.reason == reason and ("HF_" not in error.hint)


@pytest.mark.parametrize("host", civitai._STORAGE)
def test_its_storage_is_not_shown_the_key(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    asked: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        if request.url.host == "civitai.com":
            return httpx2.Response(307, headers={"Location": f"https://{host}/file?signature=x"})
        return httpx2.Response(200, stream=httpx2.ByteStream(b"it"))

    session = httpx2.Client(transport=httpx2.MockTransport(answer))
    monkeypatch.delenv("CIVITAI_ENDPOINT", raising=False)
    monkeypatch.setattr(web, "get_session", lambda: session)
    url = "https://civitai.com/api/download/models/1"
    assert web.read(url, "version 1", 100, civitai.site(TOKEN)) == b"it"
    assert [one.headers.get("authorization") for one in asked] == [f"Bearer {TOKEN}", None]


@pytest.mark.parametrize(
    ("address", "field"),
    [
        (Address("civitai:../../x"), "repository"),
        (Address("civitai:"), "repository"),
        (Address("civitai:0", "1"), "repository"),
        (Address(f"civitai:{MODEL}", "v2"), "repository"),
        (Address(f"civitai:{MODEL}", "1", "a\nb"), "token"),
        (Address(f"civitai:{MODEL}", "1", "x" * 201), "token"),
        (Address("some-org/it", "main", TOKEN), "token"),
    ],
)
def test_addresses_that_are_none(address: Address, field: str) -> None:
    with pytest.raises(CraftError) as caught:
        address.check()
    assert (caught.value.reason, caught.value.field) == ("INVALID_FIELD", field)
    assert TOKEN not in f"{caught.value.message}{caught.value.hint}"
