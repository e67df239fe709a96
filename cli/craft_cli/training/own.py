"""Pictures that craft has made, to train on: their captions are their prompts."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from craft_protos import formats
from craft_protos.reasons import CraftError

from craft_cli.generate import drawing
from craft_cli.training.pictures import Picture

if TYPE_CHECKING:
    from craft_protos import images_pb2

    from craft_cli.connection.session import Session


def _described(session: Session, name: str) -> images_pb2.Image:
    return drawing.insist(session, lambda client: client.describe_image(name))


def find(session: Session, named: Sequence[str]) -> list[images_pb2.Image]:
    """Each once, by its id or the beginning of it. Raises UNKNOWN_IMAGE, AMBIGUOUS_ID; also for those of others."""
    ids = [one for text in named for one in text.split(",") if one]
    found = [_described(session, one) for one in ids]
    return list({image.id: image for image in found}.values())


def captioned(images: Sequence[images_pb2.Image]) -> tuple[Picture, ...]:
    """Where they will lie, and their captions; none is there yet."""
    return tuple(Picture(Path(_name(image)), " ".join(image.prompt.split())) for image in images)


@contextmanager
def copied(session: Session, images: Sequence[images_pb2.Image]) -> Iterator[tuple[Picture, ...]]:
    """Their files, for as long as they are sent."""
    with tempfile.TemporaryDirectory(prefix="craft-train-") as folder:
        for image in images:
            (Path(folder) / _name(image)).write_bytes(drawing.fetch(session, image))
        yield tuple(Picture(Path(folder) / one.path, one.caption) for one in captioned(images))


def _name(image: images_pb2.Image) -> str:
    kind = formats.of_media_type(image.media_type)
    if kind is None:
        raise CraftError("BAD_DATASET", f"image {image.id} is a {image.media_type}", "train on PNG, JPEG or WebP")
    return f"{image.id}.{kind.name}"
