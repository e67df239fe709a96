"""What fills the page's form: shapes, resets, what the browser keeps, and pictures that say how they were made."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from craft_protos import jobs_pb2
from playwright.sync_api import Page, expect

from tests.http.browser import Studio, chromium, generate, is_scrollable_sideways, violations
from tests.http.drawn_from import picture
from tests.http.shim import serving
from tests.http.test_page_pictures import hand_over
from tests.recipe_files import with_comment


@pytest.fixture(scope="module")
def studio() -> Iterator[Studio]:
    with serving(CRAFT_GENERATE_MODEL="pocket") as shim, chromium() as browser:
        yield Studio(shim, browser, shim.key("ada"))


def _drawn(studio: Studio, page: Page, prompt: str) -> jobs_pb2.GenerateSpec:
    expect(page.locator("#caption")).to_have_text(prompt)
    return studio.newest().generate


def test_sizes_are_shapes_and_each_field_goes_back(studio: Studio) -> None:
    with studio.page() as page:
        shape = page.get_by_role("radio", name="Portrait 3:4, 224 × 288")
        shape.check()
        expect(page.get_by_label("Size", exact=True)).to_have_value("224x288")
        page.get_by_role("button", name="Swap width and height").click()
        expect(page.get_by_role("radio", name="Landscape 4:3, 288 × 224")).to_be_checked()
        page.get_by_label("Steps", exact=True).fill("3")
        page.get_by_label("Wildcards").check()
        resets = page.get_by_role("button", name="Reset")
        expect(resets).to_have_count(2)
        assert violations(page) == []
        generate(page, "a {red|red} hat", seed="4")
        spec = _drawn(studio, page, "a red hat")
        assert (spec.width, spec.height, spec.steps, spec.wildcards) == (288, 224, 3, True)
        expect(page.locator("#command")).to_contain_text("craft generate 'a red hat'")
        for _ in range(3):  # the seed's too
            resets.first.press("Enter")
        expect(resets).to_have_count(0)
        expect(page.get_by_role("radio", name="Default, 256 × 256")).to_be_checked()
        expect(page.get_by_label("Seed", exact=True)).to_be_focused()


def test_prompts_styles_and_presets_are_kept(studio: Studio) -> None:
    with studio.page() as page:
        prompt, style, preset = (page.get_by_label(name, exact=True) for name in ("Prompt", "Style", "Presets"))
        style.select_option("Line drawing")
        generate(page, "a $& fox", steps="2")
        spec = _drawn(studio, page, "line drawing of a $& fox, black ink on white")
        assert spec.negative_prompt == "colour, shading"
        expect(prompt).to_have_value("a $& fox")
        prompt.fill("{prompt} by night")
        page.get_by_role("button", name="Keep…").click()
        page.get_by_role("button", name="Keep as a style").click()
        expect(page.locator("#shelf-said")).to_have_text("Give it a name first.")
        page.get_by_label("Name", exact=True).fill("Night")
        page.get_by_role("button", name="Keep as a style").click()
        page.get_by_role("button", name="Keep as a preset").click()
        expect(page.locator("#shelf-said")).to_have_text("The preset Night is kept.")
        assert violations(page) == []
        page.keyboard.press("Escape")
        page.reload()
        page.get_by_label("Earlier prompts").select_option(label="a $& fox")
        page.get_by_label("Steps", exact=True).fill("7")
        preset.select_option("Night")
        expect(page.get_by_label("Steps", exact=True)).to_have_value("2")
        expect(preset).to_have_value("")
        style.select_option("Night")
        page.get_by_role("button", name="Generate").click()
        _drawn(studio, page, "a $& fox by night")
        page.get_by_role("button", name="Keep…").click()
        page.get_by_role("button", name="Delete the style Night").click()
        page.get_by_role("button", name="Close").click()
        expect(style).to_have_value("")


def test_a_picture_that_says_how_it_was_made_is_asked_about(studio: Studio) -> None:
    made = with_comment("an owl\nSteps: 5, Sampler: Euler, CFG scale: 4, Seed: 78, Model: pocket", "JPEG")
    with studio.page(width=390, height=800) as page:
        for kind, button in (("drop", "Take its settings"), ("paste", "Draw from it")):
            hand_over(page, kind, made)
            expect(page.locator("#asking-said")).to_contain_text("handed.png says how AUTOMATIC1111 made it")
            expect(page.get_by_role("button", name="Take its settings")).to_be_focused()
            assert violations(page) == [] and not is_scrollable_sideways(page)
            page.get_by_role("button", name=button).press("Enter")
            expect(page.locator("#asking")).to_be_hidden()
        expect(page.get_by_label("Prompt", exact=True)).to_have_value("an owl")
        expect(page.get_by_label("Seed", exact=True)).to_have_value("78")
        expect(page.get_by_role("img", name="The picture to begin from")).to_be_visible()
        hand_over(page, "drop", picture((64, 96)))  # it says nothing: it is drawn from
        expect(page.locator("#start-said")).to_have_text("64 × 96")
