"""Files from a hub that means well, and from one that doesn't."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from craft_protos.reasons import CraftError
from craftd.hub import client, listings, transfers, web
from craftd.hub.client import HubProcess
from craftd.hub.repository import Address, Fetched
from huggingface_hub import constants

from tests.daemon import hub as hubs
from tests.daemon.hub import COMMIT, Answer, Hub, Repository

NAME = "stranger/things"
BIG = bytes(range(256)) * 400  # 100 kB
FILES = {"it.safetensors": BIG, "README.md": b"hello", "unet/config.json": b"{}"}
_HTML = b"<!DOCTYPE html><html>sign in</html>"


def _ignore(doing: str, done: int, total: int) -> None: ...


@pytest.fixture
def repository() -> Repository:
    return Repository(NAME, dict(FILES))


@pytest.fixture
def hub(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    with hubs.serving(repository) as running:
        for name, value in hubs.environment(running, tmp_path).items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield running


@pytest.fixture
async def process(hub: Hub) -> AsyncIterator[HubProcess]:
    async with client.connect() as one:
        yield one


async def _fetch(process: HubProcess, *paths: str, revision: str = "main") -> Fetched:
    return await process.fetch(await process.list(Address(NAME, revision)), paths or tuple(FILES), _ignore)


async def test_chosen_files_come_whole_and_pinned(process: HubProcess, hub: Hub, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    listing = await process.list(Address(NAME))
    assert listing.source == f"{NAME}@{COMMIT}"
    missing = await process.missing(listing, ["it.safetensors"])
    assert missing.bytes == len(BIG)
    fetched = await process.fetch(listing, ["it.safetensors"], lambda *one: told.append(one))
    assert fetched.paths["it.safetensors"].read_bytes() == BIG
    assert [fetched.paths["it.safetensors"].resolve()] == list(missing.blobs)
    assert fetched.folder == tmp_path / "hub" / "models--stranger--things" / "snapshots" / COMMIT
    assert (fetched.commit, fetched.downloaded_bytes) == (COMMIT, len(BIG))
    assert hub.downloads() == ["it.safetensors"]
    assert told[-1] == ("downloaded", len(BIG), len(BIG))
    assert ("downloading it.safetensors", len(BIG)) in {(doing, total) for doing, _, total in told}


async def test_what_is_cached_is_used_where_it_lies(process: HubProcess, hub: Hub, tmp_path: Path) -> None:
    await _fetch(process)
    before = len(hub.downloads())
    again = await _fetch(process, revision=COMMIT)
    assert (again.downloaded_bytes, len(hub.downloads())) == (0, before)
    refs = tmp_path / "hub" / "models--stranger--things" / "refs"
    assert (refs / "main").read_text() == COMMIT  # as huggingface_hub has it


async def test_huggingface_hub_finds_what_craft_fetched_and_craft_what_it_has(
    process: HubProcess, hub: Hub, tmp_path: Path
) -> None:
    from huggingface_hub import try_to_load_from_cache

    await _fetch(process, "unet/config.json")
    found = try_to_load_from_cache(NAME, "unet/config.json", cache_dir=tmp_path / "hub")
    assert isinstance(found, str)
    assert await asyncio.to_thread(Path(found).read_bytes) == b"{}"


async def test_a_damaged_cached_file_is_fetched_again(process: HubProcess, hub: Hub) -> None:
    fetched = await _fetch(process, "it.safetensors")
    blob = fetched.paths["it.safetensors"].resolve()
    blob.write_bytes(BIG[::-1])
    assert (await _fetch(process, "it.safetensors")).paths["it.safetensors"].read_bytes() == BIG


async def test_nothing_is_asked_but_what_a_download_needs(process: HubProcess, hub: Hub) -> None:
    """The library would fetch lists of its own from the hub, and tell it what is installed here."""
    await _fetch(process)
    asked = {path.split("?")[0].split("/resolve/")[0] for path in hub.paths()}
    assert asked == {f"/api/models/{NAME}/revision/main", f"/{NAME}"}
    assert not [agent for _, headers in hub.asked if "torch" in (agent := headers.get("user-agent", ""))]


async def test_without_a_hub_the_cache_suffices(process: HubProcess, hub: Hub, repository: Repository) -> None:
    await _fetch(process)
    repository.answers[""] = Answer(503)
    listing = await process.list(Address(NAME))
    assert (listing.is_offline, listing.commit) == (True, COMMIT)
    fetched = await process.fetch(listing, ["it.safetensors"], _ignore)
    assert fetched.paths["it.safetensors"].read_bytes() == BIG
    with pytest.raises(CraftError) as caught:
        await process.list(Address(NAME, "other"))
    assert caught.value.reason == "HUB_UNREACHABLE"


async def test_a_broken_connection_is_gone_on_with(process: HubProcess, hub: Hub, repository: Repository) -> None:
    repository.most_bytes = len(BIG) // 2
    assert (await _fetch(process, "it.safetensors")).paths["it.safetensors"].read_bytes() == BIG
    ranges = [headers.get("range") for path, headers in hub.asked if "/resolve/" in path]
    assert ranges == [None, f"bytes={len(BIG) // 2}-"]


async def test_the_token_goes_to_the_hub_alone(
    hub: Hub, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.token = "hf_secret"
    with pytest.raises(CraftError) as caught:
        await client.fetch_files(Address(NAME), lambda _: ["it.safetensors"], _ignore)
    assert caught.value.reason == "HUB_GATED"
    assert f"{hub.address}/{NAME}" in caught.value.hint
    assert "HF_TOKEN" in caught.value.hint
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    _, fetched = await client.fetch_files(Address(NAME), lambda _: ["it.safetensors"], _ignore)
    assert fetched.paths["it.safetensors"].read_bytes() == BIG


async def test_redirects_inside_the_hub_are_followed(process: HubProcess, hub: Hub, repository: Repository) -> None:
    repository.needs_storage = True
    assert (await _fetch(process, "it.safetensors")).paths["it.safetensors"].read_bytes() == BIG
    assert any(path.startswith("/storage/") for path in hub.paths())


@pytest.mark.parametrize(
    ("address", "reason", "said"),
    [
        (Address("nobody/nothing"), "UNKNOWN_REPOSITORY", "no repository nobody/nothing"),
        (Address(NAME, "no-such-tag"), "UNKNOWN_REPOSITORY", "no such revision"),
        (Address("../../etc", "main"), "INVALID_FIELD", "repository"),
        (Address("a/b/c", "main"), "INVALID_FIELD", "repository"),
        (Address(NAME, "../../x"), "INVALID_FIELD", "revision"),
        (Address(NAME, "a\nb"), "INVALID_FIELD", "revision"),
    ],
)
async def test_what_is_not_there(process: HubProcess, address: Address, reason: str, said: str) -> None:
    with pytest.raises(CraftError, match=said) as caught:
        await process.list(address)
    assert caught.value.reason == reason


async def test_a_file_that_is_not_there(process: HubProcess) -> None:
    with pytest.raises(CraftError, match=r"other\.safetensors") as caught:
        await _fetch(process, "other.safetensors")
    assert caught.value.reason == "UNKNOWN_REPOSITORY"


async def test_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    async with client.connect() as process:
        with pytest.raises(CraftError, match=re.escape("http://127.0.0.1:9")) as caught:
            await process.list(Address(NAME))
    assert caught.value.reason == "HUB_UNREACHABLE"


@dataclass(frozen=True)
class Here:
    """The hub's client side in this process: quick, for what needs no process."""

    cache: Path

    def fetch(self, *paths: str) -> None:
        listing = listings.read(Address(NAME))
        files = [file for file in listing.files if file.path in paths]
        transfers.fetch(NAME, listing.commit, files, _ignore)

    def refused(self) -> CraftError:
        with pytest.raises(CraftError) as caught:
            self.fetch("it.safetensors")
        return caught.value

    def kept(self) -> list[str]:
        """Everything in the cache that may pass for a file."""
        return [path.name for path in self.cache.rglob("*") if path.is_file() and ".locks" not in path.parts]


@pytest.fixture
def here(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Here:
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(web, "_WAIT_S", 0.0)
    return Here(tmp_path / "hub")


_HOSTILE_NAMES = ["../../../../up.safetensors", "/etc/passwd", "a/../../b", "a\\..\\b", "C:evil", "a\nb"]


@pytest.mark.parametrize("name", [*_HOSTILE_NAMES, "a//b", "./a", "", "x" * 300, "a\u202eb"])
def test_hostile_names(here: Here, hub: Hub, repository: Repository, name: str) -> None:
    repository.files[name] = BIG
    error = here.refused()
    assert (error.reason, hub.downloads(), here.kept()) == ("UNSAFE_PATH", [], [])
    assert error.message.isprintable()


@pytest.mark.parametrize(
    "listing",
    [
        {"sha": "../../../escape"},
        {"sha": None},
        {"siblings": "all"},
        {"siblings": None},
        {"siblings": ["it.safetensors"]},
        {"siblings": [{"rfilename": f"f{n}"} for n in range(20_001)]},
        {"siblings": [{"rfilename": "it.safetensors", "size": 3}]},
        {"siblings": [{"rfilename": "it.safetensors", "size": 3, "blobId": "0" * 40}] * 2},
    ],
)
def test_hostile_listings(here: Here, repository: Repository, listing: dict[str, Any]) -> None:
    repository.edit = lambda true: true.update(listing)
    assert (here.refused().reason, here.kept()) == ("HUB_UNTRUSTED", [])


@pytest.mark.parametrize(
    ("claim", "reason"),
    [
        ({"sha256": "../" * 21 + "x"}, "HUB_UNTRUSTED"),
        ({"sha256": "0" * 64}, "CORRUPT_FILE"),
        ({"size": -1}, "HUB_UNTRUSTED"),
        ({"size": True}, "HUB_UNTRUSTED"),
        ({"size": 1 << 60}, "HUB_UNTRUSTED"),
        ({"size": len(BIG) + 1}, "CORRUPT_FILE"),
        ({"size": len(BIG) - 1}, "CORRUPT_FILE"),
        ({"size": 1 << 49}, "DISK_FULL"),
    ],
)
def test_wrong_claims_about_a_file(here: Here, repository: Repository, claim: dict[str, Any], reason: str) -> None:
    repository.edit = lambda true: true["siblings"][0]["lfs"].update(claim)
    assert (here.refused().reason, here.kept()) == (reason, [])


def test_a_small_file_with_another_hash(here: Here, repository: Repository) -> None:
    repository.edit = lambda true: true["siblings"][2].update(blobId="1" * 40)
    with pytest.raises(CraftError, match="a file that hashes to 1111"):
        here.fetch("unet/config.json")
    assert here.kept() == []


@dataclass(frozen=True)
class Bad:
    """An answer, and what is said of it."""

    answer: Answer
    reason: str
    said: str


def _redirect(location: str) -> Answer:
    return Answer(302, {"Location": location})


@pytest.mark.parametrize(
    "bad",
    [
        Bad(Answer(body=BIG[:1000]), "CORRUPT_FILE", "expected 102400 bytes, found 1000"),
        Bad(Answer(body=_HTML), "CORRUPT_FILE", "HTML"),
        Bad(Answer(body=BIG[::-1]), "CORRUPT_FILE", "hash"),
        Bad(Answer(is_endless=True), "CORRUPT_FILE", "more"),
        Bad(_redirect("file:///etc/passwd"), "HUB_UNTRUSTED", "redirects to file:"),
        Bad(_redirect("http://127.0.0.1:1/x"), "HUB_UNTRUSTED", "redirects to http://127.0.0.1:1"),
        Bad(_redirect("http://169.254.169.254/latest"), "HUB_UNTRUSTED", "redirects to http://169.254.169.254"),
        Bad(_redirect("https://evil.example/x"), "HUB_UNTRUSTED", "evil.example"),
        Bad(_redirect("https://huggingface.co.evil.example/x"), "HUB_UNTRUSTED", "evil.example"),
        Bad(_redirect("https://huggingface.co@evil.example/x"), "HUB_UNTRUSTED", "evil.example"),
        Bad(_redirect("http://localhost:99999999/x"), "HUB_UNTRUSTED", "redirects"),
        Bad(_redirect("it.safetensors"), "HUB_UNTRUSTED", "for ever"),
        Bad(Answer(403), "HUB_GATED", "gated"),
        Bad(Answer(404), "UNKNOWN_REPOSITORY", ""),
        Bad(Answer(418), "HUB_UNTRUSTED", "418"),
        Bad(Answer(500), "HUB_UNREACHABLE", "500"),
        Bad(Answer(206, {"Content-Range": "bytes 7-9/10"}, b"abc"), "HUB_UNTRUSTED", "another part"),
    ],
    ids=lambda bad: f"{bad.reason}-{bad.said}",
)
def test_hostile_files(here: Here, repository: Repository, bad: Bad) -> None:
    repository.answers["it.safetensors"] = bad.answer
    error = here.refused()
    assert error.reason == bad.reason
    assert bad.said in error.message
    assert [name for name in here.kept() if not name.endswith(".craft-part")] == []
    assert here.kept() == [] or bad.reason.startswith(("HUB_", "UNKNOWN_"))


def test_a_listing_that_is_none(here: Here, repository: Repository) -> None:
    repository.answers[""] = Answer(is_endless=True)
    assert here.refused().reason == "HUB_UNTRUSTED"
    repository.answers[""] = Answer(body=_HTML)
    assert "HTML" in here.refused().message
    repository.answers[""] = Answer(body=b"[" * 100_000)
    assert here.refused().reason == "HUB_UNTRUSTED"


async def test_whoever_goes_away_ends_it_and_a_new_one_goes_on(
    hub: Hub, repository: Repository, tmp_path: Path
) -> None:
    """Killed half-way, it leaves nothing with a file's own name; the next one asks for the rest alone."""
    repository.most_bytes = 60_000
    asked_twice = asyncio.Event()
    loop = asyncio.get_running_loop()

    def notice(path: str) -> None:
        if len(hub.downloads()) == 2:
            loop.call_soon_threadsafe(asked_twice.set)

    hub.on_request = notice
    async with client.connect() as process:
        listing = await process.list(Address(NAME))
        fetching = asyncio.create_task(process.fetch(listing, ["it.safetensors"], _ignore))
        await asked_twice.wait()
        fetching.cancel()
    assert not (tmp_path / "hub" / "models--stranger--things" / "snapshots").exists()
    hub.on_request = lambda path: None
    hub.asked.clear()
    _, fetched = await client.fetch_files(Address(NAME), lambda _: ["it.safetensors"], _ignore)
    assert fetched.paths["it.safetensors"].read_bytes() == BIG


async def test_what_an_earlier_attempt_left_is_gone_on_with(hub: Hub, tmp_path: Path) -> None:
    import hashlib

    part = tmp_path / "hub/models--stranger--things/blobs" / f"{hashlib.sha256(BIG).hexdigest()}.craft-part"
    part.parent.mkdir(parents=True)
    part.write_bytes(BIG[:70_000])
    async with client.connect() as process:
        listing = await process.list(Address(NAME))
        assert (await process.missing(listing, ["it.safetensors"])).bytes == len(BIG) - 70_000
        fetched = await process.fetch(listing, ["it.safetensors"], _ignore)
    assert fetched.paths["it.safetensors"].read_bytes() == BIG
    assert hub.asked[-1][1]["range"] == "bytes=70000-"
    assert not part.exists()


async def test_an_earlier_attempt_that_was_wrong_is_begun_anew(hub: Hub, tmp_path: Path) -> None:
    import hashlib

    part = tmp_path / "hub/models--stranger--things/blobs" / f"{hashlib.sha256(BIG).hexdigest()}.craft-part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"y" * 70_000)
    _, fetched = await client.fetch_files(Address(NAME), lambda _: ["it.safetensors"], _ignore)
    assert fetched.paths["it.safetensors"].read_bytes() == BIG


async def test_the_process_ends_with_its_daemon(hub: Hub) -> None:
    """As when the daemon is killed: its end of the pipe is closed by the system."""
    async with client.connect() as process:
        await process.list(Address(NAME))
        inner: asyncio.subprocess.Process = process._process
        assert inner.stdin is not None
        inner.stdin.close()
        assert await inner.wait() == 0


async def test_a_process_that_dies_is_said(hub: Hub) -> None:
    async with client.connect() as process:
        os.killpg(process._process.pid, signal.SIGKILL)
        with pytest.raises(CraftError, match="ended by itself"):
            await process.list(Address(NAME))


def test_nothing_of_it_imports_torch() -> None:
    import subprocess
    import sys

    code = "import sys, craftd.hub.__main__; print([m for m in ('torch', 'diffusers', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
