"""The page for every eye and every screen, with the picture that the real model draws, and after the daemon's death."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.http.again import free_port, kill, running_again
from tests.http.browser import (
    LORA,
    Studio,
    chromium,
    enter,
    generate,
    give_lora,
    is_scrollable_sideways,
    natural_size,
    violations,
)
from tests.http.shim import serving

LONG = "a " + "very" * 60 + " [fail] thing with <b>markup</b> and https://example.org/" + "x" * 80


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as one:
        yield one


@pytest.fixture(scope="module")
def studio(browser: Browser) -> Iterator[Studio]:
    with serving(CRAFT_GENERATE_MODEL="pocket") as shim:
        give_lora(shim)
        yield Studio(shim, browser, shim.key("ada"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_wrong_with_any_of_its_states(studio: Studio, scheme: str) -> None:
    with studio.page(scheme=scheme, is_in=False) as page:
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", paper)[:3])) < 384) == (scheme == "dark")
        page.get_by_role("button", name="Continue").click()
        assert violations(page) == []
        page.get_by_label("API key").fill("craft_wrong")
        page.get_by_role("button", name="Continue").click()
        expect(page.get_by_role("alert")).to_be_visible()
        assert violations(page) == []
        enter(page, studio.key)
        page.get_by_role("button", name="Add", exact=True).click()
        generate(page, "", seed="")
        expect(page.locator("#wish-error")).to_be_visible()
        assert violations(page) == []
        with studio.held():
            generate(page, "a [held] apple", count="2")
            expect(page.get_by_role("progressbar")).to_be_visible()
            assert violations(page) == []
        expect(page.locator("#tiles .tile.drawn img")).to_have_count(2)
        expect(page.locator("#thumbs img").first).to_be_visible()
        assert violations(page) == []
        generate(page, "[fail]", count="1")
        expect(page.locator("#stage-error")).to_be_visible()
        assert violations(page) == []


@pytest.mark.parametrize(("width", "scheme"), [(320, "dark"), (390, "light")])
def test_no_screen_is_scrolled_sideways(studio: Studio, width: int, scheme: str) -> None:
    with studio.page(width=width, height=800, scheme=scheme, is_in=False) as page:
        assert not is_scrollable_sideways(page)
        enter(page, studio.key)
        page.get_by_role("button", name="Add", exact=True).click()
        page.get_by_label("Size", exact=True).select_option(label="Another…")
        assert not is_scrollable_sideways(page)
        generate(page, LONG.replace("[fail]", ""), negative_prompt="y" * 200, seed=str(2**53 - 1))
        expect(page.locator("#tiles .tile.drawn img")).to_have_count(1)
        expect(page.locator("#facts")).to_contain_text(LORA)
        assert not is_scrollable_sideways(page)
        expect(page.locator("#tiles")).to_be_in_viewport()
        generate(page, LONG)
        expect(page.locator("#stage-error")).to_be_visible()
        assert not is_scrollable_sideways(page)


def test_touch_targets_are_large_enough(studio: Studio) -> None:
    with studio.page(width=390, height=800) as page:
        page.get_by_role("button", name="Add", exact=True).click()
        generate(page, "a hand")
        expect(page.locator("#result")).to_be_visible()
        small = page.evaluate(
            "[...document.querySelectorAll('button, a, select, input, textarea')]"
            ".filter(one => one.checkVisibility()).map(one => [one.getBoundingClientRect(), one])"
            ".filter(([box]) => box.width < 24 || box.height < 24).map(([, one]) => one.outerHTML)"
        )
        assert small == [], "WCAG 2.2, 2.5.8"


def test_a_daemon_that_dies_and_comes_back_does_not_lose_the_job(browser: Browser) -> None:
    listen = f"127.0.0.1:{free_port()}"
    with serving(CRAFT_GENERATE_MODEL="pocket", CRAFT_HTTP_LISTEN=listen) as shim:
        studio = Studio(shim, browser, shim.key("ada"))
        with studio.page() as page:
            generate(page, "a [slow] whale", steps="900", seed="3")
            expect(page.locator("#doing")).to_have_text(re.compile(r"Step \d+ of 900"))
            kill(shim)
            shim.home.hurry()
            expect(page.locator("#doing")).to_have_text("The connection was lost; trying again…")
            with running_again(shim):
                expect(page.locator("#tiles .tile.drawn img")).to_have_count(1)
                expect(page.locator("#facts")).to_contain_text("Seed3")


_NOTE_WHAT_IT_DOES = """() => {
  window.said = [];
  const doing = document.querySelector("#doing");
  new MutationObserver(() => window.said.push(doing.textContent)).observe(doing, { childList: true });
}"""  # a busy machine may look too late for a step


def test_the_real_model_draws_what_is_shown(browser: Browser) -> None:
    real = {"CRAFT_GENERATE_MODEL": "pocket", "CRAFT_WORKER_MODULE": "craftd.worker", "CRAFT_WORKER_THREADS": "1"}
    with serving(**real) as shim, Studio(shim, browser, shim.key("ada")).page() as page:
        page.evaluate(_NOTE_WHAT_IT_DOES)
        generate(page, "a red apple on a blue background", steps="6", seed="1")
        expect(page.locator("#tiles .tile.drawn img")).to_have_count(1)
        assert any(re.fullmatch(r"Step \d of 6", said) for said in page.evaluate("window.said"))
        assert natural_size(page, "#tiles img") == [256, 256]
        corner = page.locator("#tiles img").evaluate(
            "image => { const canvas = new OffscreenCanvas(1, 1).getContext('2d');"
            " canvas.drawImage(image, -4, -4); return [...canvas.getImageData(0, 0, 1, 1).data]; }"
        )
        assert corner[2] > max(corner[0], corner[1]) + 40, "the background is blue"
