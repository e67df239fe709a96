"""LoRAs without a daemon: tags in prompts, full disks, the hub's files, and who may name a path."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from craft_protos import loras_pb2
from craft_protos.lora import LoraRef, parse_tags
from craft_protos.reasons import CraftError
from craft_protos.settings import Settings
from craftd.hub.repository import Address, Fetched, Listing, RemoteFile
from craftd.keys.caller import LOCAL, Caller, Role
from craftd.loras import choosing, names
from craftd.loras.files import LoraFiles
from craftd.loras.lora import Linked, Lora, Remote, Source, Upload, Wish
from craftd.loras.owning import LoraQuota
from craftd.loras.service import LoraService
from craftd.models.service import ModelService
from craftd.rpc.loras import Loras
from craftd.store.database import Database
from craftd.workers.inspector import LoraFindings

from tests.lora_files import kohya, numbers, write

QUOTA = LoraQuota(Settings())


async def inspect(path: Path) -> LoraFindings:
    """In this process: the check itself is tested elsewhere."""
    from craftd.worker.inspection import lora

    found = lora.check(path)
    answer: dict[str, Any] = {**vars(found), "adapter": vars(found.adapter)}
    return LoraFindings.of(answer)


@pytest.fixture
def service(database: Database, tmp_path: Path) -> LoraService:
    return LoraService(database, LoraFiles(tmp_path / "loras"), inspect, quota=QUOTA)


async def add(service: LoraService, source: Source, wish: Wish = Wish()) -> Lora:  # noqa: B008 - frozen
    events = [event async for event in service.add(source, wish, LOCAL)]
    assert isinstance(events[-1], Lora)
    return events[-1]


# Tags


@pytest.mark.parametrize(
    ("prompt", "text", "refs"),
    [
        ("a cat", "a cat", []),
        (" a cat ", " a cat ", []),
        ("a <lora:it:0.8> cat", "a cat", [LoraRef("it", 0.8)]),
        ("a cat <lora:it>, red", "a cat, red", [LoraRef("it")]),
        ("<lora:it:-1>a cat", "a cat", [LoraRef("it", -1.0)]),
        ("a cat <LoRA: my it : .5 >", "a cat", [LoraRef("my it", 0.5)]),
        ("<lyco:it:1><lora:b:2> x", "x", [LoraRef("it", 1.0), LoraRef("b", 2.0)]),
        ("a<lora:it:1>b", "a b", [LoraRef("it", 1.0)]),
        ("a < b, <loral> and lora:it", "a < b, <loral> and lora:it", []),
    ],
)
def test_tags(prompt: str, text: str, refs: list[LoraRef]) -> None:
    assert parse_tags(prompt) == (text, tuple(refs))


@pytest.mark.parametrize(
    "prompt",
    [
        "<lora:it:>",
        "<lora:it:1:2:3>",
        "<lora:it:dyn=1>",
        "<lora:it:1e9999>",
        "<lora:>",
        "<lora>",
        "< lora:it:1>",
        "<lora:it:1",
    ],
)
def test_what_only_looks_like_a_tag(prompt: str) -> None:
    with pytest.raises(CraftError) as caught:
        parse_tags(f"a cat {prompt}, red")
    assert (caught.value.reason, caught.value.field) == ("INVALID_FIELD", "prompt")


def test_a_prompt_of_many_brackets_is_read_in_time() -> None:
    prompt = "<lora" * 2_000 + "<" * 10_000
    with pytest.raises(CraftError):
        parse_tags(prompt)
    assert parse_tags(" " * 20_000 + "x")[1] == ()


# Names


def test_names_from_files() -> None:
    assert names.derived("my it: v2.safetensors") == "my-it-v2"
    assert names.derived("pytorch_lora_weights.safetensors", "ORG/water-color") == "water-color"
    assert names.derived("???.safetensors") == "lora"
    for made in ("my-it-v2", "Ä1", "a" * 100, names.derived("x" * 300 + ".safetensors")):
        assert names.check(made) == made


def test_an_id_is_longer_where_the_short_one_is_taken() -> None:
    sha256 = "0123456789abcdef" * 4
    assert names.new_id(sha256, []) == "01234567"
    assert names.new_id(sha256, ["01234567", "012345678"]) == "0123456789"


# Disks


async def chunks(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 1000):
        yield data[start : start + 1000]


async def test_only_a_full_disk_is_called_full(database: Database, tmp_path: Path) -> None:
    def write(descriptor: int, data: bytes) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    data = kohya(tmp_path / "it.safetensors").read_bytes()
    with pytest.raises(CraftError, match=os.strerror(errno.EIO)) as caught:
        await add(
            LoraService(database, LoraFiles(tmp_path / "loras", write=write), inspect, quota=QUOTA),
            Upload("it.safetensors", len(data), chunks(data)),
        )
    assert caught.value.reason == "STORAGE_FAILED"


async def test_a_full_disk_leaves_no_torn_file_and_recovers(database: Database, tmp_path: Path) -> None:
    data = kohya(tmp_path / "it.safetensors").read_bytes()
    written: list[int] = []

    def write(descriptor: int, data: bytes) -> int:
        if sum(written) > 1500 and not is_freed:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(os.write(descriptor, data))
        return written[-1]

    is_freed = False
    service = LoraService(database, LoraFiles(tmp_path / "loras", write=write), inspect, quota=QUOTA)
    with pytest.raises(CraftError) as caught:
        await add(service, Upload("it.safetensors", len(data), chunks(data)))
    assert caught.value.reason == "DISK_FULL"
    assert list((tmp_path / "loras").iterdir()) == [] and service.list(LOCAL) == []
    is_freed = True
    assert (await add(service, Upload("it.safetensors", len(data), chunks(data)))).name == "it"


async def test_files_over_the_limit(database: Database, tmp_path: Path) -> None:
    path = kohya(tmp_path / "it.safetensors")
    service = LoraService(database, LoraFiles(tmp_path / "loras", largest_bytes=100), inspect, quota=QUOTA)
    for source in (Linked(path), Upload("it.safetensors", path.stat().st_size, chunks(path.read_bytes()))):
        with pytest.raises(CraftError) as caught:
            await add(service, source)
        assert caught.value.reason == "INVALID_FIELD" and "100" in caught.value.message


async def test_many_at_once_of_one_file_are_one(service: LoraService, tmp_path: Path) -> None:
    path = kohya(tmp_path / "it.safetensors")
    data = path.read_bytes()
    made = await asyncio.gather(
        *(add(service, Linked(path)) for _ in range(3)),
        *(add(service, Upload("it.safetensors", len(data), chunks(data))) for _ in range(3)),
    )
    assert len({lora.id for lora in made}) == len(service.list(LOCAL)) == 1
    assert [path.name for path in (tmp_path / "loras").iterdir() if path.name.startswith(".")] == []


async def test_an_upload_heals_a_lora_whose_file_is_lost(service: LoraService, tmp_path: Path) -> None:
    path = kohya(tmp_path / "it.safetensors")
    data = path.read_bytes()
    made = await add(service, Linked(path))
    path.unlink()
    with pytest.raises(CraftError):
        await service.verified(made.id)
    healed = await add(service, Upload("sent.safetensors", len(data), chunks(data)))
    assert (healed.id, healed.place.is_owned) == (made.id, True)
    assert (await service.verified(made.id)).place.path.read_bytes() == data


async def test_a_caller_who_leaves_does_not_part_memory_from_the_store(
    service: LoraService, database: Database, tmp_path: Path
) -> None:
    for turns in range(0, 300, 20):  # left at one of its many steps
        adding = asyncio.ensure_future(add(service, Linked(kohya(tmp_path / f"it{turns}.safetensors", seed=turns))))
        for _ in range(turns):
            await asyncio.sleep(0)
        adding.cancel()
        await asyncio.wait([adding])
    await add(service, Linked(kohya(tmp_path / "last.safetensors", seed=99)))  # after whatever was under way
    again = LoraService(database, LoraFiles(tmp_path / "loras"), inspect, quota=QUOTA)
    await again.open()
    assert [lora.id for lora in again.list(LOCAL)] == [lora.id for lora in service.list(LOCAL)]


# What peft saves in two files

CONFIG = b'{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "alpha_pattern": {"to_q": 16}}'


def of_peft(folder: Path, config: bytes | None = CONFIG, metadata: dict[str, str] | None = None) -> Path:
    """As save_pretrained makes it."""
    folder.mkdir()
    if config is not None:
        (folder / "adapter_config.json").write_bytes(config)
    name = "base_model.model.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q"
    tensors = {
        f"{name}.lora_A.weight": ("F32", (4, 8), numbers(32)),
        f"{name}.lora_B.weight": ("F32", (8, 4), numbers(32, 1)),
    }
    return write(folder / "adapter_model.safetensors", tensors, metadata)


def said_of_strength(path: Path) -> object:
    """What the file itself says, for whoever opens it alone."""
    from craftd import safetensors
    from craftd.worker.inspection.tree import single

    return json.loads(safetensors.read(single(path)).metadata.get("lora_adapter_metadata", "null"))


async def test_the_strength_that_peft_keeps_beside_the_file_is_part_of_the_lora(
    service: LoraService, tmp_path: Path
) -> None:
    """However it comes: its folder, its file, or its bytes."""
    file = of_peft(tmp_path / "rex-lora", metadata={"format": "pt"})
    linked = await add(service, Linked(file.parent))
    assert (linked.name, linked.file_name, linked.place.source) == ("rex-lora", file.name, str(file))
    assert linked.place.is_owned and said_of_strength(linked.place.path) == json.loads(CONFIG)
    assert linked.findings.notes == []
    data = file.read_bytes()
    uploaded = await add(service, Upload(file.name, len(data), chunks(data), CONFIG))
    assert {uploaded.id, (await add(service, Linked(file))).id} == {linked.id}
    shutil.rmtree(file.parent)
    assert (await service.verified(service.find("rex-lora", LOCAL).id)).sha256 == linked.sha256
    assert sorted(path.name for path in (tmp_path / "loras").iterdir()) == [f"{linked.sha256}.safetensors"]


async def test_another_strength_is_another_lora(service: LoraService, tmp_path: Path) -> None:
    one = await add(service, Linked(of_peft(tmp_path / "one")))
    two = await add(service, Linked(of_peft(tmp_path / "two", CONFIG.replace(b"8", b"4", 1))))
    assert one.sha256 != two.sha256 and one.ss_hash == two.ss_hash


async def test_a_file_that_says_its_strength_itself_stays_as_it_is(service: LoraService, tmp_path: Path) -> None:
    own = {"lora_adapter_metadata": '{"lora_alpha": 2}'}
    file = of_peft(tmp_path / "own", metadata=own)
    lora = await add(service, Linked(file))
    assert (lora.place.path, lora.place.is_owned) == (file, False)


async def test_a_strength_that_is_nowhere_is_noted(service: LoraService, tmp_path: Path) -> None:
    lora = await add(service, Linked(of_peft(tmp_path / "bare", config=None)))
    assert "adapter_config.json" in lora.findings.notes[0]


@pytest.mark.parametrize(
    ("config", "reason", "says"),
    [
        (b"[1]", "CORRUPT_FILE", "no JSON object"),
        (b"{" * 5000, "CORRUPT_FILE", "no JSON object"),
        (b'{"x": "' + b"x" * (1 << 20) + b'"}', "CORRUPT_FILE", "more than"),
        (b'{"peft_type": "LOHA"}', "UNSUPPORTED_LORA", "LOHA"),
        (b'{"init_lora_weights": "pissa"}', "UNSUPPORTED_LORA", "pissa"),
    ],
)
async def test_configurations_that_cannot_be_followed(
    service: LoraService, tmp_path: Path, config: bytes, reason: str, says: str
) -> None:
    file = of_peft(tmp_path / "it", config)
    data = file.read_bytes()
    for source in (Linked(file), Upload(file.name, len(data), chunks(data), config)):
        with pytest.raises(CraftError, match=says) as caught:
            await add(service, source)
        assert caught.value.reason == reason
    assert list((tmp_path / "loras").iterdir()) == []


# The hub


def listing(*paths: str) -> Listing:
    return Listing(Address("ORG/water-color"), "c" * 40, tuple(RemoteFile(path, 1, "") for path in paths))


def test_which_file_is_the_lora() -> None:
    assert choosing.choose(listing("README.md", "it.safetensors"), "") == "it.safetensors"
    assert choosing.choose(listing("a.safetensors", "pytorch_lora_weights.safetensors"), "").startswith("pytorch")
    assert choosing.choose(listing("a.safetensors", "b/c.safetensors"), "b/c.safetensors") == "b/c.safetensors"
    peft = listing("adapter_config.json", "adapter_model.safetensors", "tokenizer.safetensors")
    assert choosing.choose_all(peft, "") == ["adapter_model.safetensors", "adapter_config.json"]
    nested = listing("x/adapter_config.json", "x/adapter_model.safetensors", "adapter_config.json")
    assert choosing.choose_all(nested, "") == ["x/adapter_model.safetensors", "x/adapter_config.json"]
    assert choosing.choose_all(listing("it.safetensors", "adapter_config.json"), "") == ["it.safetensors"]
    for wrong, file, reason in (
        (listing("a.safetensors", "b.safetensors"), "", "BAD_DATA"),
        (listing("a.bin"), "", "UNSAFE_FORMAT"),
        (listing("README.md"), "", "UNKNOWN_REPOSITORY"),
        (listing("a.safetensors"), "b.safetensors", "UNKNOWN_REPOSITORY"),
    ):
        with pytest.raises(CraftError) as caught:
            choosing.choose(wrong, file)
        assert caught.value.reason == reason


async def test_a_file_of_the_hub_lies_in_its_cache(database: Database, tmp_path: Path) -> None:
    path = kohya(tmp_path / "pytorch_lora_weights.safetensors")

    async def fetch(
        address: Address, choose: Callable[[Listing], Sequence[str]], progress: Callable[[str, int, int], None]
    ) -> tuple[Listing, Fetched]:
        found = Listing(address, "c" * 40, (RemoteFile(path.name, 1, ""), RemoteFile("README.md", 1, "")))
        assert choose(found) == [path.name]
        progress(f"downloading {path.name}", 1, 2)
        return found, Fetched("c" * 40, tmp_path, {path.name: path}, 1)

    service = LoraService(database, LoraFiles(tmp_path / "loras"), inspect, fetch, quota=QUOTA)
    events = [event async for event in service.add(Remote(Address("ORG/water-color")), Wish(), LOCAL)]
    lora = events[-1]
    assert isinstance(lora, Lora)
    assert [event.doing for event in events[:-1] if not isinstance(event, Lora)] == [
        f"downloading {path.name}",
        "checking",
    ]
    assert (lora.name, lora.place.path, lora.place.is_owned) == ("water-color", path, False)
    assert lora.place.source == f"ORG/water-color@{'c' * 40}:{path.name}"
    await service.delete(lora.id, LOCAL)
    assert path.exists()


# Who may name a path


@pytest.mark.parametrize(
    ("caller", "is_allowed"),
    [(LOCAL, True), (Caller("ops", Role.ADMIN, "k1"), True), (Caller("alice", Role.USER, "k2"), False)],
)
async def test_paths_are_for_admins(service: LoraService, tmp_path: Path, caller: Caller, is_allowed: bool) -> None:
    path = kohya(tmp_path / "it.safetensors")
    rpc = Loras(service, cast(ModelService, None))

    async def parts() -> AsyncIterator[loras_pb2.ImportLoraRequest]:
        yield loras_pb2.ImportLoraRequest(header={"path": str(path)})

    if is_allowed:
        events = [event async for event in rpc.ImportLora(parts(), caller)]
        assert events[-1].lora.name == "it"
        return
    with pytest.raises(CraftError) as caught:
        _ = [event async for event in rpc.ImportLora(parts(), caller)]
    assert caught.value.reason == "NOT_ALLOWED" and service.list(LOCAL) == []
