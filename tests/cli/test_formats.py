"""One table of image formats, whatever speaks of them."""

from __future__ import annotations

import pytest
from craft_protos import formats, jobs_pb2
from craft_protos.formats import FORMATS


def test_every_format_of_the_contract_is_in_the_table() -> None:
    numbers = set(jobs_pb2.ImageFormat.values()) - {jobs_pb2.IMAGE_FORMAT_UNSPECIFIED}
    assert {one.number for one in FORMATS.values()} == numbers
    assert ", ".join(FORMATS).replace(", webp", " or webp") == formats.CHOICE


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_found_by_whatever_names_it(name: str) -> None:
    one = FORMATS[name]
    for text in (name, name.upper(), one.extension, f".{one.extension}"):
        assert formats.find(text) == one
    assert formats.of_media_type(one.media_type) == one
    assert formats.name_of(one.number) == name and formats.number_of(name) == one.number


def test_what_is_none() -> None:
    assert formats.find("gif") is None and formats.of_media_type("image/gif") is None
    assert formats.name_of(jobs_pb2.IMAGE_FORMAT_UNSPECIFIED) == ""
    assert formats.number_of("") == jobs_pb2.IMAGE_FORMAT_UNSPECIFIED
    assert formats.name_of(99) is None
