"""The page draws from pictures: chosen, pasted, dropped, with a mask painted by hand or by keyboard."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.http.browser import Studio, chromium, generate, is_scrollable_sideways, natural_size, violations
from tests.http.drawn_from import GREEN, RED, encoded, kept, picture, sha256_of
from tests.http.shim import serving
from tests.recipe_files import with_comment

_FILE = {"name": "my photo.png", "mimeType": "image/png"}


@pytest.fixture(scope="module")
def studio() -> Iterator[Studio]:
    with serving(CRAFT_GENERATE_MODEL="pocket") as shim, chromium() as browser:
        yield Studio(shim, browser, shim.key("ada"))


def choose(page: Page, data: bytes) -> None:
    page.get_by_label("Picture to begin from").first.set_input_files({**_FILE, "buffer": data})  # type: ignore[arg-type]
    expect(page.get_by_role("img", name="The picture to begin from")).to_be_visible()


def drawn(page: Page) -> None:
    expect(page.locator("#tiles .tile.drawn > img:first-child")).to_have_count(1)
    expect(page.get_by_role("button", name="Generate")).to_have_attribute("aria-disabled", "false")


def hand_over(page: Page, kind: str, data: bytes) -> None:
    """As the browser does when a file is pasted, or dropped on the page."""
    page.evaluate(
        """([kind, text]) => {
          const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
          const data = new DataTransfer();
          data.items.add(new File([bytes], "handed.png", { type: "image/png" }));
          const how = { bubbles: true, cancelable: true };
          const event = kind === "paste" ? new ClipboardEvent(kind, { clipboardData: data, ...how })
            : new DragEvent(kind, { dataTransfer: data, ...how });
          document.body.dispatchEvent(event);
        }""",
        [kind, encoded(data)],
    )


def test_a_picture_is_drawn_from_and_compared(studio: Studio) -> None:
    image = picture((96, 64))
    with studio.page() as page:
        choose(page, image)
        expect(page.get_by_label("Size", exact=True)).to_have_value("picture")
        page.get_by_role("spinbutton", name="Strength").fill("0.25")
        expect(page.get_by_role("slider", name="Strength, by a slider")).to_have_value("0.25")
        generate(page, "a red apple", steps="8")
        drawn(page)
        made = studio.newest().generate
        assert (made.start.sha256, made.start.strength, made.width, made.height) == (sha256_of(image), 0.25, 96, 64)
        assert not made.HasField("mask")
        assert natural_size(page, "#tiles img") == [96, 64]
        before = page.locator("#tiles .before")
        assert before.evaluate("one => getComputedStyle(one).clipPath") == "inset(0px 100% 0px 0px)"
        page.get_by_role("slider", name="Before and after").fill("60")
        assert before.evaluate("one => getComputedStyle(one).clipPath") == "inset(0px 40% 0px 0px)"
        expect(page.locator("#facts")).to_contain_text("Strength0.25")
        expect(page.locator("#command")).to_contain_text("-i 'my photo.png' --strength 0.25")
        job = studio.end(studio.newest())
        result = studio.shim.call("GET", f"/images/{job.images[0].id}", studio.key).content
        page.get_by_role("button", name="Draw from it").click()
        expect(page.get_by_role("spinbutton", name="Strength")).to_be_focused()
        generate(page, "a green apple")
        expect(page.locator("#caption")).to_have_text("a green apple")
        assert studio.newest().generate.start.sha256 == sha256_of(result)


def test_a_mask_is_painted(studio: Studio) -> None:
    """With the pointer; undone, inverted, cleared. What is painted is white for the daemon."""
    with studio.page() as page:
        choose(page, picture((128, 128)))
        undo, clear = page.get_by_role("button", name="Undo"), page.get_by_role("button", name="Clear")
        expect(undo).to_be_disabled()
        expect(page.get_by_role("spinbutton", name="Strength")).to_have_value("0.8")
        board = page.locator("#board")
        board.scroll_into_view_if_needed()
        box = board.bounding_box()
        assert box is not None
        middle = box["y"] + box["height"] / 2
        page.mouse.move(box["x"] + 1, middle)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] / 2, middle, steps=3)
        page.mouse.up()
        expect(page.get_by_role("spinbutton", name="Strength")).to_have_value("1")
        clear.click()
        expect(clear).to_be_disabled()
        undo.click()
        expect(clear).to_be_enabled()
        generate(page, "a red apple", steps="2")
        drawn(page)
        made = studio.newest().generate
        mask = kept(studio.shim, made.mask.sha256).convert("L")
        assert made.start.strength == 1 and mask.size == (128, 128)
        assert [mask.getpixel(place) for place in ((8, 64), (60, 64), (120, 64), (8, 8))] == [255, 255, 0, 0]
        page.get_by_role("button", name="Invert").click()
        generate(page, "a red apple", steps="2")
        expect(page.locator("#said")).to_have_text("The picture is done.")
        drawn(page)
        mask = kept(studio.shim, studio.newest().generate.mask.sha256).convert("L")
        assert [mask.getpixel(place) for place in ((8, 64), (60, 64), (120, 64), (8, 8))] == [0, 0, 255, 255]


def test_all_of_it_by_keyboard(studio: Studio) -> None:
    with studio.page() as page:
        choose(page, picture((128, 128), GREEN))
        page.locator("#board").focus()
        page.keyboard.press(" ")
        for key in ("ArrowLeft", "ArrowLeft", "Shift+ArrowLeft", "Shift+ArrowLeft"):
            page.keyboard.press(key)
        page.keyboard.press("Space")
        page.keyboard.press("Control+z")
        page.get_by_label("Prompt", exact=True).focus()
        page.keyboard.type("a red apple")
        page.keyboard.press("Control+Enter")
        drawn(page)
        mask = kept(studio.shim, studio.newest().generate.mask.sha256).convert("L")
        assert (mask.getpixel((64, 64)), mask.getpixel((40, 64)), mask.getpixel((64, 20))) == (255, 255, 0)
        page.get_by_role("button", name="Remove the picture").press("Enter")
        expect(page.get_by_label("Picture to begin from").first).to_be_focused()
        expect(page.get_by_label("Size", exact=True)).to_have_value("256x256")
        page.keyboard.press("Tab")
        generate(page, "a rocket", steps="2")
        expect(page.locator("#caption")).to_have_text("a rocket")
        assert not studio.newest().generate.HasField("start")


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_handed_over(studio: Studio, kind: str) -> None:
    with studio.page() as page:
        hand_over(page, kind, picture((64, 96)))
        expect(page.locator("#start-said")).to_have_text("64 × 96")
        expect(page.get_by_label("Prompt", exact=True)).to_have_value("")
        page.get_by_role("button", name="Generate").click()  # a picture says enough
        drawn(page)
        assert (studio.newest().generate.width, studio.newest().generate.height) == (64, 96)


def test_what_is_no_picture(studio: Studio) -> None:
    with studio.page() as page:
        page.get_by_label("Picture to begin from").first.set_input_files({**_FILE, "buffer": b"no"})  # type: ignore[arg-type]
        expect(page.locator("#wish-error")).to_contain_text("my photo.png is no picture")
        expect(page.locator("#picture")).to_be_hidden()
        stream = io.BytesIO()
        Image.new("RGB", (16, 16), RED).save(stream, "GIF")  # a browser shows it, craft does not take it
        choose(page, stream.getvalue())
        generate(page, "x")
        expect(page.locator("#wish-error")).to_contain_text("is no JPEG, PNG or WebP picture")
        expect(page.get_by_label("Picture to begin from").first).to_have_attribute("aria-invalid", "true")
    studio.complaints.clear()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible_and_narrow(studio: Studio, scheme: str) -> None:
    with studio.page(width=320, height=700, scheme=scheme) as page:
        choose(page, picture((300, 200)))
        assert not is_scrollable_sideways(page) and not violations(page)


def test_a_picture_that_was_made_is_enlarged(studio: Studio) -> None:
    """In the form, and afterwards by a button."""
    with studio.page() as page:
        page.get_by_label("Enlarge", exact=True).select_option("2")
        generate(page, "an apple", steps="2")
        drawn(page)
        made = studio.newest()
        assert made.generate.upscale.scale == 2 and made.images[0].width == 2 * made.generate.width
        expect(page.locator("#command")).to_contain_text("--upscale 2")
        page.get_by_role("button", name="Enlarge", exact=True).click()
        expect(page.locator("#caption")).to_have_text(re.compile(r"Enlarged \d times"))
        larger = studio.newest()
        assert (larger.generate.steps, larger.images[0].width) == (
            0,
            made.images[0].width * larger.generate.upscale.scale,
        )
        expect(page.locator("#command")).to_contain_text("craft upscale PICTURE")
        expect(page.get_by_role("button", name="Use again")).to_be_hidden()


def test_a_picture_is_drawn_again_at_twice_its_size(studio: Studio) -> None:
    """By the upscaler and as far as was chosen; and so once more from what was made."""
    with studio.page() as page:
        expect(page.get_by_label("Enlarged by")).to_be_hidden()
        page.get_by_label("Enlarge", exact=True).select_option("2 times, drawn again")
        page.get_by_label("Enlarged by").select_option("lanczos")
        page.get_by_label("Drawn again").fill("0.35")
        generate(page, "an apple", steps="4")
        drawn(page)
        made = studio.newest()
        hires = made.generate.hires
        assert (hires.scale, hires.strength, hires.upscaler) == (2, 0.35, "lanczos")
        assert not made.generate.HasField("upscale") and made.images[0].width == hires.width == 2 * made.generate.width
        expect(page.locator("#command")).to_contain_text("--hires 2 --hires-strength 0.35")
        page.get_by_label("Enlarge", exact=True).select_option("No")
        expect(page.get_by_label("Drawn again")).to_be_hidden()
        page.get_by_role("button", name="Use again").click()
        expect(page.get_by_label("Drawn again")).to_have_value("0.35")
        expect(page.get_by_label("Enlarged by")).to_have_value("lanczos")
        assert not violations(page)


def test_an_upscaler_is_chosen(studio: Studio) -> None:
    with studio.page() as page:
        page.get_by_label("Enlarge", exact=True).select_option("4 times")
        expect(page.get_by_label("Enlarged by")).to_have_value("pocket-x4")
        page.get_by_label("Enlarged by").select_option("lanczos")
        generate(page, "an apple", steps="2")
        drawn(page)
        upscale = studio.newest().generate.upscale
        assert (upscale.scale, upscale.model) == (4, "lanczos")


def test_a_picture_s_settings_fill_the_form(studio: Studio) -> None:
    settings = "Steps: 5, Sampler: Euler, Schedule type: Karras, CFG scale: 4, Seed: 77, Clip skip: 2, ENSD: 1"
    text = f"a fox <lora:far:1>\n{settings}, Model: pocket"
    with studio.page() as page:
        page.get_by_label("Settings of a picture").set_input_files(
            {**_FILE, "buffer": with_comment(text, "JPEG")}  # type: ignore[arg-type]
        )
        said = page.locator("#like-said")
        expect(said).to_contain_text("my photo.png, a picture of AUTOMATIC1111")
        for part in (
            "Not here: the LoRA far",
            "Not honoured: clip_skip: 2",
            "Not honoured: prompt_syntax: a1111",
            "Not honoured: ENSD: 1",
        ):
            expect(said).to_contain_text(part)
        expect(page.get_by_label("Prompt", exact=True)).to_have_value("a fox")
        expect(page.get_by_label("Sampler")).to_have_value("Euler Karras")
        expect(page.get_by_role("textbox", name="Seed")).to_have_value("77")
        assert violations(page) == []
