"""The page's gallery and its viewer: ten thousand pictures, a search, several at once, one as large as the window."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator

import apsw
import pytest
from playwright.sync_api import Request, expect

from tests.http.browser import Studio, chromium, enter, natural_size, violations
from tests.http.shim import serving

MANY = 10_000
_SAME = "file, sha256, media_type, width, height, size_bytes, model, prompt, provenance"


@pytest.fixture(scope="module")
def studio() -> Iterator[Studio]:
    with serving(CRAFT_GENERATE_MODEL="pocket") as shim, chromium() as browser:
        yield Studio(shim, browser, shim.key("ada"))


def draw(studio: Studio, key: str, *prompts: str) -> list[str]:
    """The ids of their pictures."""
    made = [studio.shim.post("/jobs", key, prompt=prompt, steps=2).json()["id"] for prompt in prompts]
    return [studio.shim.finish(job).images[0].id for job in made]


def multiply(studio: Studio, image_id: str, count: int) -> None:
    """As if its job had been drawn so often: a row each, and a link to the one file."""
    connection = apsw.Connection(str(studio.shim.home.paths.database))
    connection.execute("PRAGMA busy_timeout = 10000")
    connection.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
        f' INSERT INTO images (id, job_id, "index", seed, create_time, {_SAME})'
        f" SELECT id || i, job_id, i, seed + i, create_time - i, {_SAME} FROM images, n WHERE id = ?",
        (count, image_id),
    )
    file = next(studio.shim.home.root.rglob(f"{image_id}.png"))
    for number in range(1, count + 1):
        file.with_name(f"{image_id}{number}.png").hardlink_to(file)
    connection.close()


def test_ten_thousand_pictures_are_a_screen_of_elements(studio: Studio) -> None:
    key = studio.shim.key("prolific")
    multiply(studio, draw(studio, key, "an ant")[0], MANY - 1)
    with studio.page(is_in=False) as page:
        asked: list[Request] = []
        page.on("request", lambda one: asked.append(one))  # noqa: PLW0108 - it marks what it calls
        enter(page, key)
        tiles = page.locator("#thumbs li")
        expect(tiles.first).to_be_visible()
        page.wait_for_function(
            "() => { scrollTo(0, document.documentElement.scrollHeight);"
            " return document.querySelector('#thumbs li:last-child').getAttribute('aria-posinset') > 700; }"
        )
        assert tiles.count() < 250
        assert page.evaluate("document.querySelectorAll('*').length") < 1500
        assert len([one for one in asked if "/images?" in one.url]) < 40, "pages of a hundred"
        page.locator("#thumbs button[tabindex='0']").focus()
        page.keyboard.press("End")
        expect(page.locator("#thumbs :focus")).to_be_in_viewport()
        page.keyboard.press("Home")
        expect(page.locator("#thumbs li[aria-posinset='1'] :focus")).to_be_in_viewport()


def test_pictures_are_searched_marked_zipped_and_deleted(studio: Studio) -> None:
    key = studio.shim.key("collector")
    ids = draw(studio, key, "a red fox", "a red hen", "a blue hen")
    with studio.page(is_in=False) as page:
        enter(page, key)
        tiles = page.locator("#thumbs .tile")
        expect(tiles).to_have_count(3)
        search = page.get_by_label("Words of the prompts")
        search.fill("HEN red")
        expect(tiles).to_have_count(1)
        page.get_by_text("More", exact=True).click()
        page.get_by_label("With the LoRA").fill("none")
        expect(page.locator("#gallery-empty")).to_have_text("None is like that.")
        for name, value in (("With the LoRA", ""), ("With the model", "pock"), ("From", "2020-01-01")):
            page.get_by_label(name, exact=True).fill(value)
        expect(tiles).to_have_count(1)
        search.fill("hen")
        expect(tiles).to_have_count(2)
        page.get_by_role("button", name="Select", exact=True).click()
        tiles.nth(0).press("Enter")
        tiles.nth(1).press("Space")
        expect(page.locator("#selected-count")).to_have_text("2 are selected")
        tiles.nth(0).press("Escape")
        expect(page.locator("#selection")).to_be_hidden()
        page.get_by_role("button", name="Select", exact=True).click()
        tiles.nth(0).click()
        tiles.nth(1).click(modifiers=["Shift"])
        expect(page.locator("#thumbs [aria-pressed='true']")).to_have_count(2)
        assert violations(page) == []
        with page.expect_download() as saved:
            page.get_by_role("button", name="Download").click()
        with zipfile.ZipFile(saved.value.path()) as file:
            assert file.testzip() is None and len(file.namelist()) == 2
        page.get_by_role("button", name="Compare two").click()
        slider = page.get_by_role("slider", name="The second over the first")
        expect(slider).to_be_focused()
        slider.fill("30")
        cut = page.locator("#viewer-other").evaluate("one => getComputedStyle(one).clipPath")
        assert cut == "inset(0px 0px 0px 30%)"
        page.get_by_role("button", name="Close").click()
        page.get_by_role("button", name="Make favourites").click()
        expect(page.locator("#thumbs .favourite")).to_have_count(2)
        delete = page.locator("#selected-delete")
        delete.click()
        delete.click()
        expect(page.locator("#gallery-empty")).to_be_visible()
        search.fill("")
        expect(tiles).to_have_count(1)
    assert [one["id"] for one in studio.shim.call("GET", "/images", key).json()["images"]] == [ids[0]]


def test_one_is_seen_as_large_as_the_window(studio: Studio) -> None:
    key = studio.shim.key("viewer")
    first, _ = draw(studio, key, "a bell", "a cup")
    with studio.page(is_in=False) as page:
        enter(page, key)
        page.get_by_role("button", name="a cup").click()
        page.get_by_role("button", name="View").press("Enter")
        picture, text = page.locator("#viewer-picture"), page.locator("#viewer-text")
        expect(text).to_contain_text("a cup")
        assert violations(page) == []
        page.keyboard.press("ArrowRight")
        expect(text).to_contain_text("a bell")
        assert natural_size(page, "#viewer-picture") == [256, 256]
        page.keyboard.press("+")
        page.keyboard.press("ArrowDown")
        expect(picture).to_have_css("transform", re.compile(r"matrix\(1\.5, 0, 0, 1\.5, 0, -80\)"))
        page.keyboard.press("0")
        page.keyboard.press("f")
        expect(page.get_by_role("button", name="Favourite")).to_have_attribute("aria-pressed", "true")
        address = f"/image/{first}"
        assert studio.shim.call("GET", address).status_code == 404
        page.get_by_role("button", name="Public", exact=True).click()
        page.get_by_role("button", name="Copy its link").click()
        expect(page.locator("#viewer-said")).to_have_text("The link is copied.")
        assert page.evaluate("navigator.clipboard.readText()") == studio.shim.url + address
        assert studio.shim.call("GET", address).status_code == 200
        page.get_by_role("button", name="Public", exact=True).click()
        expect(page.get_by_role("button", name="Copy its link")).to_be_hidden()
        assert studio.shim.call("GET", address).status_code == 404
        page.keyboard.press("Delete")
        page.keyboard.press("Delete")
        expect(text).to_contain_text("a cup")
        page.keyboard.press("Escape")
        expect(page.locator("#thumbs .tile")).to_have_count(1)


def test_zips_and_marks_are_of_ones_own(studio: Studio) -> None:
    mine, other = studio.shim.key("zipper"), studio.shim.key("stranger")
    ids = draw(studio, mine, "a key", "a lock")
    answer = studio.shim.post("/images/zip", mine, ids=[*ids, ids[0]])
    with zipfile.ZipFile(io.BytesIO(answer.content)) as file:
        assert sorted(name.rpartition("-")[2] for name in file.namelist()) == sorted(f"{one}.png" for one in ids)
    assert studio.shim.post("/images/zip", other, ids=ids).status_code == 404
    assert studio.shim.post("/images/zip", mine, ids=[]).status_code == 422
    assert studio.shim.call("PATCH", f"/images/{ids[0]}", other, json={"public": True}).status_code == 404
