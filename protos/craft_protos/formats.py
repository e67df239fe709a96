"""The image formats craft writes: the one table."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from craft_protos.frozen import dataclass

if TYPE_CHECKING:
    from craft_protos import jobs_pb2


@dataclass(frozen=True)
class Format:
    """One of them. `name` is what options and settings say."""

    name: str
    extension: str
    media_type: str

    @property
    def pillow(self) -> str:
        """Pillow's name of it."""
        return self.name.upper()

    @cached_property
    def number(self) -> jobs_pb2.ImageFormat.ValueType:
        """The contract's."""
        from craft_protos import jobs_pb2

        return jobs_pb2.ImageFormat.Value(f"IMAGE_FORMAT_{self.name.upper()}")


FORMATS = {
    one.name: one
    for one in (
        Format("png", "png", "image/png"),
        Format("jpeg", "jpg", "image/jpeg"),
        Format("webp", "webp", "image/webp"),
    )
}
CHOICE = "png, jpeg or webp"
JPEG_EXTENSIONS = ("jpg", "jpeg", "jfif", "jpe")  # by which the field calls one and the same thing
OTHERS = (".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jxl", ".svg", ".psd", ".ico", ".tga")


def find(text: str) -> Format | None:
    """By name or extension, as people write it."""
    wanted = text.lower().lstrip(".")
    wanted = "jpeg" if wanted in JPEG_EXTENSIONS else wanted
    return next((one for one in FORMATS.values() if wanted in (one.name, one.extension)), None)


def of_media_type(media_type: str) -> Format | None:
    return next((one for one in FORMATS.values() if one.media_type == media_type), None)


def number_of(name: str) -> jobs_pb2.ImageFormat.ValueType:
    """The contract's number of a name; of an empty one, the unspecified format's."""
    from craft_protos import jobs_pb2

    return FORMATS[name].number if name else jobs_pb2.IMAGE_FORMAT_UNSPECIFIED


def name_of(number: int) -> str | None:
    """Empty for the unspecified format; None for a number that is none."""
    from craft_protos import jobs_pb2

    if number == jobs_pb2.IMAGE_FORMAT_UNSPECIFIED:
        return ""
    return next((one.name for one in FORMATS.values() if one.number == number), None)
