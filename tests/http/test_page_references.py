"""The page shows a model pictures: chosen, pasted or dropped, in an order that can be changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.home import KLEIN, write_model
from tests.http.browser import Studio, chromium, generate, is_scrollable_sideways, violations
from tests.http.drawn_from import GREEN, picture, sha256_of
from tests.http.shim import serving
from tests.http.test_page_pictures import drawn, hand_over

A, B, C = picture((48, 64)), picture((64, 48), GREEN), picture((32, 32), (0, 0, 200))


@pytest.fixture(scope="module")
def studio() -> Iterator[Studio]:
    with serving() as shim, chromium() as browser:
        for name, more in (("klein", {}), ("kontext", {"pipeline": "FluxKontextPipeline"})):
            folder = write_model(shim.home.work / name, **(KLEIN | more))
            assert shim.home.craft("models", "add", str(folder)).returncode == 0
        yield Studio(shim, browser, shim.key("ada"))


@contextmanager
def opened(studio: Studio, **how: Any) -> Iterator[Page]:
    with studio.page(**how) as page:
        page.get_by_label("Model", exact=True).select_option("klein")
        yield page


def choose(page: Page, *pictures: bytes) -> None:
    files = [{"name": f"{number}.png", "mimeType": "image/png", "buffer": one} for number, one in enumerate(pictures)]
    page.get_by_label("Reference pictures").set_input_files(files)  # type: ignore[arg-type]


def draw(page: Page, studio: Studio) -> list[str]:
    """The hashes of what the model was shown."""
    generate(page, "both", steps="2")
    drawn(page)
    return [one.sha256 for one in studio.newest().generate.references]


def test_they_are_chosen_and_reordered(studio: Studio) -> None:
    with opened(studio) as page:
        choose(page, A, B)
        expect(page.locator("#reference-list li")).to_have_count(2)
        expect(page.get_by_label("Size", exact=True)).to_have_value("picture")
        choose(page, C)
        expect(page.locator("#reference-list li")).to_have_count(3)
        page.get_by_role("button", name="Move picture 3 up").press("Enter")
        expect(page.get_by_role("button", name="Move picture 2 up")).to_be_focused()
        page.get_by_role("button", name="Remove picture 1").click()
        assert draw(page, studio) == [sha256_of(C), sha256_of(B)]
        assert not studio.newest().generate.HasField("start")
        expect(page.locator("#command")).to_contain_text("--ref 0.png --ref 1.png")
        expect(page.locator("#facts")).to_contain_text("Shown2")


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_what_is_handed_over_is_shown(studio: Studio, kind: str) -> None:
    """A model that edits is never made to begin from a picture unasked."""
    with opened(studio) as page:
        hand_over(page, kind, A)
        expect(page.locator("#reference-list li")).to_have_count(1)
        assert draw(page, studio) == [sha256_of(A)]
        assert not studio.newest().generate.HasField("start")


def test_one_that_is_shown_one_takes_the_last(studio: Studio) -> None:
    with opened(studio) as page:
        choose(page, A, B)
        expect(page.locator("#reference-list li")).to_have_count(2)
        page.get_by_label("Model", exact=True).select_option("kontext")
        expect(page.locator("#reference-list li")).to_have_count(1)
        choose(page, C)
        expect(page.locator("#reference-list li")).to_have_count(1)
        assert draw(page, studio) == [sha256_of(C)]
        page.get_by_label("Model", exact=True).select_option("flat")
        expect(page.get_by_label("Reference pictures")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible_and_narrow(studio: Studio, scheme: str) -> None:
    with opened(studio, width=320, height=700, scheme=scheme) as page:
        choose(page, A, B)
        expect(page.locator("#reference-list li")).to_have_count(2)
        assert not is_scrollable_sideways(page) and not violations(page)
