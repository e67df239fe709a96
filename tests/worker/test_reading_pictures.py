"""What strangers send as start pictures and masks: read as it is seen, or refused with a reason."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from craft_protos.dispatch import File
from craft_protos.generate import Mask
from craft_protos.reasons import CraftError
from craftd.worker.inputs import masks
from craftd.worker.inputs.reading import read_mask, read_start
from PIL import Image, ImageCms

from tests.pictures import deep
from tests.worker import starts
from tests.worker.starts import encoded, spotted, start_picture

SIDEWAYS = 6


def put(files: Path, data: bytes | Image.Image, **how: object) -> File:
    sent = starts.put(files, data, "mine", **how)
    return File(sent.name, sent.sha256, sent.size_bytes)


def refused(files: Path, data: bytes) -> CraftError:
    with pytest.raises(CraftError) as raised:
        read_start(files, put(files, data))
    return raised.value


def bomb(side: int) -> bytes:
    """A PNG that says it is so large."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no JPEG, PNG or WebP"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no JPEG, PNG or WebP"),
        (encoded(start_picture(), format="GIF"), "no JPEG, PNG or WebP"),
        (encoded(start_picture(300, 300))[:2000], "cannot be decoded"),
        (encoded(start_picture(300, 300), format="JPEG")[:2000], "cannot be decoded"),
        (bomb(60_000), "more pixels than any picture"),
        (bomb(9_000), "the limit is 64 megapixels"),
        (
            encoded(start_picture(), save_all=True, append_images=[start_picture().rotate(90)], format="PNG"),
            "is an animation",
        ),
    ],
    ids=["empty", "svg", "gif", "cut png", "cut jpeg", "bomb", "large", "animated"],
)
def test_what_is_no_picture_is_refused(tmp_path: Path, data: bytes, why: str) -> None:
    error = refused(tmp_path, data)
    assert (error.reason, why in error.message, "mine" in error.message) == ("BAD_INPUT", True, True)
    assert str(tmp_path) not in error.message


def test_what_is_not_there_or_was_changed_is_unknown(tmp_path: Path) -> None:
    file = put(tmp_path, start_picture())
    (tmp_path / file.sha256).write_bytes(encoded(start_picture(32, 32)))
    with pytest.raises(CraftError, match="changed") as changed:
        read_start(tmp_path, file)
    (tmp_path / file.sha256).unlink()
    with pytest.raises(CraftError, match="not there") as missing:
        read_mask(tmp_path, file)
    with pytest.raises(CraftError) as outside:
        read_start(tmp_path, File("", "../secret", 1))
    assert {raised.value.reason for raised in (changed, missing, outside)} == {"UNKNOWN_INPUT"}


def test_start_and_mask_are_turned_alike(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = SIDEWAYS
    start, mask = start_picture(60, 40), spotted((60, 40), (0, 0, 20, 40))
    turned, _ = read_start(tmp_path, put(tmp_path, start, exif=exif))
    assert np.array_equal(np.asarray(turned), np.asarray(start.transpose(Image.Transpose.ROTATE_270)))
    expected = mask.transpose(Image.Transpose.ROTATE_270)
    assert np.array_equal(np.asarray(read_mask(tmp_path, put(tmp_path, mask, exif=exif))), np.asarray(expected))


def test_every_kind_of_pixel_becomes_colours_of_eight_bits(tmp_path: Path) -> None:
    plain = start_picture()
    for kind in ("L", "P", "1", "LA", "RGBA"):
        read, _ = read_start(tmp_path, put(tmp_path, plain.convert(kind)))
        assert (read.mode, read.size) == ("RGB", plain.size)
    deeply, _ = read_start(tmp_path, put(tmp_path, deep()))
    assert np.array_equal(np.asarray(deeply)[0, :, 0], np.arange(96))
    printed, _ = read_start(tmp_path, put(tmp_path, plain.convert("CMYK"), format="JPEG", quality=100))
    assert np.abs(np.asarray(printed).astype(int) - np.asarray(plain)).mean() < 4


def test_colour_profiles_are_followed_and_broken_ones_told(tmp_path: Path) -> None:
    plain = start_picture()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    same, remarks = read_start(tmp_path, put(tmp_path, plain, icc_profile=srgb))
    assert np.array_equal(np.asarray(same), np.asarray(plain))
    assert remarks == []
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()  # of other numbers than the picture's
    for broken in (b"no profile", lab):
        read, remarks = read_start(tmp_path, put(tmp_path, plain, icc_profile=broken))
        assert np.array_equal(np.asarray(read), np.asarray(plain))
        assert len(remarks) == 1


def test_transparency_is_kept_of_starts_and_black_in_masks(tmp_path: Path) -> None:
    clear = start_picture().convert("RGBA")
    clear.putalpha(spotted())
    read, _ = read_start(tmp_path, put(tmp_path, clear))
    assert np.array_equal(np.asarray(read), np.asarray(clear))
    strokes = Image.new("RGBA", (64, 64), (255, 255, 255, 0))
    strokes.paste((255, 255, 255, 100), (8, 8, 24, 24))
    levels = np.asarray(read_mask(tmp_path, put(tmp_path, strokes)))
    assert (levels[10, 10], levels[40, 40]) == (100, 0)


@pytest.mark.parametrize("by", [1, 2, 3, 7, 30, 5000])
def test_masks_grow_and_shrink_by_so_many_pixels(by: int) -> None:
    mask = spotted((50, 40), (20, 20, 22, 21))
    grown = masks.refined(mask, Mask(grow=by), mask.size)
    expected = (max(0, 20 - by), max(0, 20 - by), min(50, 22 + by), min(40, 21 + by))
    assert grown.getbbox() == expected
    assert set(np.unique(np.asarray(grown.crop(expected)))) == {255}
    if by < 30:
        assert masks.refined(grown, Mask(grow=-by), mask.size).getbbox() is not None
    assert masks.refined(mask, Mask(grow=-by), mask.size).getbbox() is None


def test_thin_lines_reach_the_latents() -> None:
    """One pixel is enough, wherever in a latent it lies; a grey mask's brightest counts as white."""
    levels = np.zeros((32, 32), np.uint8)
    levels[3, 13], levels[31, 31] = 255, 127
    assert masks.of_latents(levels, 8)[0, 0].nonzero().tolist() == [[0, 1]]
    assert masks.of_latents(np.full((32, 32), 90, np.uint8), 8).min() == 1


def test_masks_of_another_size_come_to_the_starts(tmp_path: Path) -> None:
    small = spotted((16, 16), (4, 4, 12, 8))
    scaled = masks.refined(read_mask(tmp_path, put(tmp_path, small)), Mask(), (64, 64))
    assert np.asarray(scaled)[24, 32] == 255
    assert np.asarray(scaled)[50:].max() == 0
