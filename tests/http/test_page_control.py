"""The page draws with a control picture: chosen or dropped, with what is made of it and how much it counts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.daemon.safetensors import write_checkpoint
from tests.home import SD1, write_model
from tests.http.browser import Studio, chromium, generate, is_scrollable_sideways, violations
from tests.http.drawn_from import picture, sha256_of
from tests.http.shim import serving
from tests.http.test_page_pictures import drawn

A = picture((48, 64))


@pytest.fixture(scope="module")
def studio() -> Iterator[Studio]:
    with serving() as shim, chromium() as browser:
        paths = [write_model(shim.home.work / "sd", **SD1)]
        for name in ("my-canny", "my-depth"):
            path = shim.home.work / f"{name}.safetensors"
            paths.append(write_checkpoint(path, "control-sd1", metadata={"of": name}))
        for path in paths:
            assert shim.home.craft("models", "add", str(path)).returncode == 0
        yield Studio(shim, browser, shim.key("ada"))


def choose(page: Page, studio: Studio) -> None:
    page.get_by_label("Model", exact=True).select_option("sd")
    page.get_by_label("Control picture").set_input_files(  # type: ignore[arg-type]
        [{"name": "room.png", "mimeType": "image/png", "buffer": A}]
    )


def test_it_is_drawn_with(studio: Studio) -> None:
    with studio.page() as page:
        expect(page.get_by_label("Control picture")).to_be_hidden()
        choose(page, studio)
        expect(page.get_by_label("What is made of it")).to_have_value("canny")
        expect(page.get_by_label("Read by")).to_have_value("my-canny")
        page.get_by_label("What is made of it").select_option("none")
        page.get_by_label("Read by").select_option("my-depth")
        page.locator("#control-scale").fill("0.7")
        expect(page.get_by_label("Size", exact=True)).to_have_value("picture")
        generate(page, "a room", steps="2")
        drawn(page)
        (one,) = studio.newest().generate.controls
        assert (one.sha256, one.kind, one.model, one.scale) == (sha256_of(A), "none", "my-depth", 0.7)
        expect(page.locator("#command")).to_contain_text("--control none=room.png:0.7 --control-model my-depth")
        expect(page.locator("#facts")).to_contain_text("none by my-depth, 0.7")
        page.get_by_role("button", name="Remove the control picture").click()
        expect(page.get_by_label("Control picture")).to_be_focused()
        generate(page, "a room", steps="2")
        drawn(page)
        assert not studio.newest().generate.controls


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible_and_narrow(studio: Studio, scheme: str) -> None:
    with studio.page(width=320, height=700, scheme=scheme) as page:
        choose(page, studio)
        expect(page.locator("#control-picture img")).to_be_visible()
        assert violations(page) == [] and not is_scrollable_sideways(page)
