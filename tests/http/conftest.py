"""One daemon for all tests that do not disturb each other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.http.shim import Keys, Shim, give_lora, make_keys, serving


@pytest.fixture(scope="session")
def shim() -> Iterator[Shim]:
    with serving() as one:
        give_lora(one)
        yield one


@pytest.fixture(scope="session")
def keys(shim: Shim) -> Keys:
    return make_keys(shim)
