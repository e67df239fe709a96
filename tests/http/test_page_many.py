"""The page where there is much: LoRAs to search and their trigger words, and an admin's view of everybody."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from craft_protos import jobs_pb2
from playwright.sync_api import expect

from tests.http.browser import Studio, chromium, enter, is_scrollable_sideways, violations
from tests.http.shim import Shim, serving
from tests.lora_files import kohya


@pytest.fixture(scope="module")
def studio() -> Iterator[Studio]:
    with serving(CRAFT_GENERATE_MODEL="pocket") as shim, chromium() as browser:
        _give_loras(shim)
        yield Studio(shim, browser, shim.key("ada"))


def _give_loras(shim: Shim) -> None:
    folder = shim.home.root / "loras"
    folder.mkdir()
    for number in range(10):
        words = {"modelspec.trigger_phrase": f"style {number}, soft light"}
        shim.add_lora(kohya(folder / f"{number}.safetensors", metadata=words), f"look-{number}")


def test_a_lora_is_searched_and_its_words_are_clicked(studio: Studio) -> None:
    with studio.page() as page:
        options = page.get_by_label("LoRA to add").locator("option")
        expect(options).to_have_count(10)
        page.get_by_label("Search these LoRAs").fill("STYLE 7")
        expect(options).to_have_text(["look-7"])
        page.get_by_role("button", name="Add", exact=True).click()
        for word in ("style 7", "soft light"):
            page.get_by_role("button", name=f"Add “{word}” to the prompt").click()
        expect(page.get_by_label("Prompt", exact=True)).to_have_value("style 7, soft light")
        assert violations(page) == []
    lora = studio.shim.call("GET", "/choices", studio.key).json()["models"][0]["loras"][0]
    assert not lora["has_preview"]
    assert studio.shim.call("GET", f"/loras/{lora['id']}/preview", studio.key).status_code == 404


def test_an_admin_sees_everybody_and_ends_a_job(studio: Studio) -> None:
    admin = studio.shim.key("boss", admin=True)
    assert studio.shim.call("GET", "/overview", studio.key).status_code == 403
    with studio.held(), studio.page(width=390, is_in=False) as page:
        job = studio.shim.post("/jobs", studio.key, prompt="a [held] ship").json()["id"]
        enter(page, admin)
        page.get_by_role("button", name="Administration").press("Enter")
        tables = page.locator("#admin-tables")
        for text in ("a [held] ship", "pocket", "boss"):
            expect(tables).to_contain_text(text)
        assert violations(page) == [] and not is_scrollable_sideways(page)
        page.get_by_role("button", name=f"Stop ada's job {job}").click()
        expect(tables).not_to_contain_text("a [held] ship")
        page.get_by_role("button", name="Administration").click()
        expect(page.get_by_label("Prompt", exact=True)).to_be_visible()
    assert studio.end(jobs_pb2.Job(id=job)).state == jobs_pb2.JOB_STATE_CANCELLED
    with studio.page() as page:
        expect(page.get_by_role("button", name="Administration")).to_be_hidden()
