"""Pictures to train on: checked one by one, named where they are bad, kept once, swept when nobody needs them."""

from __future__ import annotations

import asyncio
import io
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from craft_protos import jobs_pb2, training_pb2
from craft_protos.reasons import CraftError
from craft_protos.settings import LimitSettings
from craft_protos.train import Picture
from craftd.datasets import table
from craftd.datasets.dataset import Dataset, Incoming, Progress, Upload, id_of, in_order
from craftd.datasets.service import DatasetService
from craftd.store.contents import Contents
from craftd.store.database import Database
from craftd.workers.pictures import PictureFindings
from PIL import Image

from tests.daemon import trains
from tests.daemon.harness import Daemon, reason, running
from tests.home import HANG_S, Home
from tests.pictures import deep, picture, pictures

Kinds = training_pb2.UploadDatasetRequest


def bomb() -> bytes:
    """A small file of a picture of 400 megapixels."""
    stream = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(stream, "PNG")
    return stream.getvalue()


def damaged() -> bytes:
    return picture(1)[:-200]


def animation() -> bytes:
    frames = [Image.open(io.BytesIO(picture(number))) for number in range(2)]
    stream = io.BytesIO()
    frames[0].save(stream, "WEBP", save_all=True, append_images=frames[1:])
    return stream.getvalue()


def sideways() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return picture(5, width=128, height=96, kind="JPEG", exif=exif)


def liar() -> bytes:
    """A PNG whose header names a size that its data does not have."""
    good = picture(3)
    header = (5000).to_bytes(4, "big") + (5000).to_bytes(4, "big") + good[24:29]
    return good[:16] + header + zlib.crc32(b"IHDR" + header).to_bytes(4, "big") + good[33:]


BAD = {
    "bomb.png": (bomb, "megapixels"),
    "damaged.png": (damaged, "cannot be decoded"),
    "liar.png": (liar, "cannot be decoded"),
    "page.jpg": (lambda: b"<html>not found</html>", "no JPEG, PNG or WebP"),
    "moving.webp": (animation, "animation"),
    "tiny.png": (lambda: picture(4, width=20, height=20), "tiny"),
    "strip.png": (lambda: picture(6, width=1000, height=80), "slender"),
    "icon.gif": (lambda: picture(7, kind="GIF"), "no JPEG, PNG or WebP"),
}


async def test_good_pictures_become_a_dataset(daemon: Daemon) -> None:
    files = {**pictures(3), "side.jpg": sideways(), "w.webp": picture(8, kind="WEBP")}
    made = await trains.upload(daemon, files, {"0.png": " a red apple ", "side.jpg": "a café"})
    assert [one.file_name for one in made.pictures] == list(files)
    by_name = {one.file_name: one for one in made.pictures}
    assert (by_name["side.jpg"].width, by_name["side.jpg"].height) == (96, 128)  # upright
    assert (by_name["0.png"].caption, by_name["1.png"].caption) == ("a red apple", "")
    assert await daemon.training.GetDataset(training_pb2.GetDatasetRequest(id=made.id)) == made
    for one in made.pictures:
        kept = daemon.home.paths.datasets_dir / one.sha256
        assert kept.read_bytes() == files[one.file_name]
    again = await trains.upload(daemon, dict(reversed(files.items())), {"0.png": "a red apple", "side.jpg": "a café"})
    assert again.id == made.id
    other = await trains.upload(daemon, files, {"0.png": "a green apple"})
    assert other.id != made.id


async def test_bad_pictures_are_named_with_what_is_wrong(daemon: Daemon) -> None:
    bad = {name: make() for name, (make, _) in BAD.items()}
    with pytest.raises(trains.Refused) as error:
        await trains.upload(daemon, {**pictures(3), **bad})
    said = str(error.value)
    assert error.value.reason == "BAD_DATASET" and "and 3 more" in said
    assert str(daemon.home.root) not in said
    made = await trains.upload(daemon, {**pictures(3), **bad}, skip_bad=True)
    assert [one.file_name for one in made.pictures] == ["0.png", "1.png", "2.png"]
    why = {one.file_name: one.why for one in made.left_out}
    assert why.keys() == bad.keys()
    for name, (_, expected) in BAD.items():
        assert expected in why[name], (name, why[name])
        assert str(daemon.home.root) not in why[name]


async def test_the_same_picture_twice_counts_once(daemon: Daemon) -> None:
    """Equal pixels in another file too; with another caption it is meant."""
    stream = io.BytesIO()
    Image.open(io.BytesIO(picture(0))).save(stream, "PNG", compress_level=1)
    files = {**pictures(3), "copy.png": stream.getvalue(), "meant.png": picture(1)}
    made = await trains.upload(daemon, files, {"meant.png": "something else"})
    assert [one.file_name for one in made.pictures] == ["0.png", "1.png", "2.png", "meant.png"]
    assert [(one.file_name, one.why) for one in made.left_out] == [("copy.png", "is the same picture as 0.png")]


async def test_pictures_with_sixteen_bits_are_as_different_as_they_are(daemon: Daemon) -> None:
    """They all were white, and so the same."""
    files = {f"{number}.png": deep(number) for number in range(1, 5)}
    made = await trains.upload(daemon, files)
    assert [one.file_name for one in made.pictures] == list(files)
    assert not made.left_out


async def test_pictures_have_repeats_and_masks(daemon: Daemon) -> None:
    """A picture whose mask is of another form, or none, is bad as a whole; masks are kept as long as their pictures."""
    good, skewed = picture(50), picture(51, height=64)
    parts = [_first(pictures=5, masks=3, skip_bad=True)]
    for name, data, more in (
        *((f"{number}.png", picture(number), {"repeats": number}) for number in range(5)),
        ("good", good, {"mask_of": "1.png"}),
        ("skewed", skewed, {"mask_of": "3.png"}),
        ("broken", good[:100], {"mask_of": "4.png"}),
    ):
        parts += [Kinds(picture=_header(name, len(data), **more)), Kinds(chunk=data)]
    made = await trains.send(daemon, parts)
    assert [(one.file_name, one.repeats) for one in made.pictures] == [("0.png", 1), ("1.png", 1), ("2.png", 2)]
    assert [bool(one.mask_sha256) for one in made.pictures] == [False, True, False]
    why = {one.file_name: one.why for one in made.left_out}
    assert "96x96, and its mask, skewed, 96x64" in why["3.png"] and "has a mask, broken, that" in why["4.png"]
    assert await daemon.training.GetDataset(training_pb2.GetDatasetRequest(id=made.id)) == made
    assert (daemon.home.paths.datasets_dir / made.pictures[1].mask_sha256).read_bytes() == good
    plan = await daemon.jobs.PlanJob(trains.request(made.id, epochs=1, batch_size=1, steps=None))
    assert plan.train.steps == 4 and any("1 pictures have masks" in note for note in plan.notes)
    done = await daemon.finish((await daemon.jobs.CreateJob(trains.request(made.id))).id)
    assert done.lora, done.error


async def test_too_few(daemon: Daemon) -> None:
    for more, said in (
        ({}, "2 pictures are too few"),
        ({"x.png": b"x"}, "2 pictures are too few, without x.png"),
        ({"0-again.png": picture(0)}, "without 0-again.png is the same picture as 0.png"),
    ):
        with pytest.raises(trains.Refused) as error:
            await trains.upload(daemon, {**pictures(2), **more}, skip_bad=True)
        assert error.value.reason == "BAD_DATASET"
        assert said in str(error.value)


async def test_limits_hold_before_anything_is_decoded(make_home: Callable[..., Home]) -> None:
    home = make_home(
        CRAFT_LIMITS_MAX_PICTURES="5", CRAFT_LIMITS_MAX_PICTURE_BYTES="2000", CRAFT_LIMITS_MAX_DATASET_BYTES="3000"
    )
    async with running(home) as daemon:
        assert 3000 / 5 < len(picture()) < 2000
        for files, said in (
            (pictures(6), "6 pictures are too many"),
            ({**pictures(2), "big.png": bytes(2001)}, "big.png: has 2001 bytes"),
            ({**pictures(2), "none.png": b""}, "none.png: has 0 bytes"),
            (pictures(5), "more than 3000 bytes"),
        ):
            with pytest.raises(trains.Refused) as error:
                await trains.upload(daemon, files)
            assert said in str(error.value)
        assert list(home.paths.datasets_dir.iterdir()) == []


def _first(**header: int) -> training_pb2.UploadDatasetRequest:
    return Kinds(header=Kinds.Header(**header))  # type: ignore[arg-type]


def _named(name: str, size: int = 10) -> training_pb2.UploadDatasetRequest:
    return Kinds(picture=Kinds.PictureHeader(file_name=name, size_bytes=size))


def _header(name: str, size: int = 10, **more: Any) -> training_pb2.UploadDatasetRequest.PictureHeader:
    return Kinds.PictureHeader(file_name=name, size_bytes=size, **more)


TEN = Kinds(chunk=bytes(10))


SENDERS: list[tuple[list[training_pb2.UploadDatasetRequest], str]] = [
    ([], "INVALID_FIELD"),
    ([_named("a.png")], "INVALID_FIELD"),
    ([_first(pictures=3), TEN], "INVALID_FIELD"),
    ([_first(pictures=3), Kinds()], "INVALID_FIELD"),
    ([_first(pictures=3), _named("a.png"), Kinds(chunk=bytes(11))], "INVALID_FIELD"),
    ([_first(pictures=3), _named("a.png", 20), TEN, _named("b.png")], "CORRUPT_FILE"),
    ([_first(pictures=3), _named("a.png", 20), TEN], "CORRUPT_FILE"),
    ([_first(pictures=3), _named("a.png"), TEN], "BAD_DATASET"),
    ([_first(pictures=3), _named("../a.png")], "INVALID_FIELD"),
    ([_first(pictures=3), _named("a\nb.png")], "INVALID_FIELD"),
    ([_first(pictures=3), _named("a.png"), TEN, _named("a.png")], "INVALID_FIELD"),
    ([_first(pictures=3, masks=4)], "INVALID_FIELD"),
    ([_first(pictures=3, masks=1), Kinds(picture=_header("m", mask_of="a"))], "INVALID_FIELD"),
    ([_first(pictures=3), Kinds(picture=_header("a", repeats=1001))], "BAD_DATASET"),
    ([_first(pictures=3), *[one for name in "abcd" for one in (_named(name), TEN)]], "BAD_DATASET"),
]


async def test_senders_that_do_not_keep_to_it(daemon: Daemon) -> None:
    for parts, why in SENDERS:
        with pytest.raises(trains.Refused) as error:
            await trains.send(daemon, parts)
        assert error.value.reason == why, (parts, str(error.value))
    assert list(daemon.home.paths.datasets_dir.iterdir()) == []


async def test_an_unknown_dataset(daemon: Daemon) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await daemon.training.GetDataset(training_pb2.GetDatasetRequest(id="nothing"))
    assert reason(error.value) == "UNKNOWN_DATASET"


async def test_what_nobody_needs_is_swept(home: Home) -> None:
    """A day after the upload; not while a job waits for it, nor for a week where the job could be gone on with."""
    async with running(home) as daemon:
        unused = await trains.upload(daemon, pictures(3))
        waiting = await trains.upload(daemon, {f"w{n}.png": picture(20 + n) for n in range(3)})
        done = await trains.upload(daemon, {f"d{n}.png": picture(30 + n) for n in range(3)})
        given_up = await trains.upload(daemon, {f"g{n}.png": picture(40 + n) for n in range(3)})
        assert (await daemon.finish((await daemon.jobs.CreateJob(trains.request(done.id))).id)).lora
        await daemon.jobs.CreateJob(trains.request(waiting.id, trigger="sks [held]"))
        failed = await daemon.jobs.CreateJob(trains.request(given_up.id))
        await daemon.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=failed.id))
        await daemon.stop()
    home.rows("UPDATE datasets SET create_time = create_time - 90000")
    async with running(home) as daemon:
        for dataset in (waiting, given_up):
            assert await daemon.training.GetDataset(training_pb2.GetDatasetRequest(id=dataset.id)) == _older(dataset)
        for dataset in (unused, done):
            with pytest.raises(grpc.aio.AioRpcError):
                await daemon.training.GetDataset(training_pb2.GetDatasetRequest(id=dataset.id))
            assert not any((home.paths.datasets_dir / one.sha256).exists() for one in dataset.pictures)
        await daemon.stop()
    home.rows("UPDATE jobs SET finish_time = finish_time - 700000 WHERE state = 'CANCELLED'")
    async with running(home) as daemon:
        with pytest.raises(grpc.aio.AioRpcError):
            await daemon.training.GetDataset(training_pb2.GetDatasetRequest(id=given_up.id))


def _older(dataset: training_pb2.Dataset) -> training_pb2.Dataset:
    older = training_pb2.Dataset()
    older.CopyFrom(dataset)
    older.create_time.seconds -= 90000
    return older


def test_the_id_is_of_pictures_and_captions_alone() -> None:
    one, two = Picture("a.png", "1", 1, 64, 64, "x"), Picture("b.png", "2", 1, 64, 64)
    assert id_of([one, two]) == id_of([two, Picture("c.jpg", "1", 9, 1, 1, "x")])
    assert id_of([one, two]) != id_of([one, Picture("b.png", "2", 1, 64, 64, "y")])


def test_equal_datasets_are_trained_on_in_one_order() -> None:
    """A checkpoint is of pictures in their order; which names they were sent under says nothing of it."""
    sent = [Picture(f"{number}.png", sha256, 1, 64, 64, caption) for number, (sha256, caption) in enumerate(SENT)]
    again = [Picture(f"again-{one.file_name}", one.sha256, 1, 64, 64, one.caption) for one in reversed(sent)]
    assert id_of(sent) == id_of(again)
    found = [[(one.sha256, one.caption) for one in in_order(order)] for order in (sent, again)]
    assert found[0] == found[1] == sorted(SENT)


SENT = [("2", "x"), ("1", ""), ("2", ""), ("0", "y")]


async def test_who_sent_it_has_it_under_their_names(tmp_path: Path) -> None:
    """Equal pictures that somebody else sends later change nothing for a training that goes on."""
    database = Database(tmp_path / "craft.db")
    try:
        for when, owner in enumerate(("ann", "bob")):
            kept = tuple(Picture(f"{owner}-{sha}.png", sha, 1, 64, 64, caption) for sha, caption in SENT)
            made = Dataset(id_of(kept), owner, kept, (), float(when))
            await database.run(lambda connection, made=made: table.put(connection, made))  # type: ignore[misc]
        for scope, owner, expected in (("", "ann", "ann"), ("", "bob", "bob"), ("ann", "ann", "ann"), ("", "x", "bob")):
            found = await database.run(
                lambda connection, scope=scope, owner=owner: table.find(connection, made.id, scope, owner)  # type: ignore[misc]
            )
            assert found.owner == expected
            assert all(one.file_name.startswith(expected) for one in found.pictures)
        with pytest.raises(CraftError):
            await database.run(lambda connection: table.find(connection, made.id, "eve", "eve"))
    finally:
        await database.close()


async def all_fit(paths: Iterable[Path]) -> AsyncGenerator[PictureFindings, None]:
    for number, _ in enumerate(paths):
        yield PictureFindings("", 64, 64, str(number))


async def sending(parts: int, has_begun: asyncio.Event) -> AsyncIterator[Incoming | bytes]:
    """So many of the parts of three pictures, and then nothing more."""
    for number in range(parts):
        yield bytes([number]) * 10 if number % 2 else Incoming(f"{number}.png", 10, "")
    has_begun.set()
    if parts < 6:
        await asyncio.Event().wait()


async def received(service: DatasetService, owner: str, parts: int, has_begun: asyncio.Event) -> Progress | Dataset:
    """The last that is said of an upload."""
    upload = Upload(owner, False, 3, sending(parts, has_begun))
    return [event async for event in service.receive(upload)][-1]


async def test_uploads_that_stand_still_end_and_stop_nobody_else(tmp_path: Path) -> None:
    database = Database(tmp_path / "craft.db")
    files, limits = Contents(tmp_path / "datasets", "datasets"), LimitSettings()
    patient = DatasetService(database, files, all_fit, limits, patience_s=3600)
    hasty = DatasetService(database, files, all_fit, limits, patience_s=0.05)
    begun = [asyncio.Event() for _ in range(4)]
    stuck = [asyncio.create_task(received(patient, "ann", 3, one)) for one in begun]
    try:
        async with asyncio.timeout(HANG_S):
            await asyncio.gather(*(one.wait() for one in begun[:2]))
            assert isinstance(await received(patient, "bob", 6, asyncio.Event()), Dataset)
            assert not begun[2].is_set()  # hers wait for one another
            with pytest.raises(CraftError, match=r"nothing came for 0.05 s after 2.png") as error:
                await received(hasty, "ann", 3, asyncio.Event())
        assert error.value.reason == "CORRUPT_FILE"
    finally:
        for task in stuck:
            task.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)
        await database.close()
    assert not [path for path in (tmp_path / "datasets").iterdir() if path.name.startswith(".incoming-")]
