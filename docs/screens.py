"""The page's screenshots in docs/http.md: `python -m docs.screens` takes them anew, drawn by the built-in model."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page

from tests.http.browser import Studio, chromium
from tests.http.shim import serving

FOLDER = Path(__file__).parent / "screens"
LOOKS: dict[str, dict[str, object]] = {
    "desktop": {},
    "phone": {"width": 390, "height": 844},
    "dark": {"scheme": "dark"},
    "at-200-percent": {"width": 640, "height": 450},
    "forced-colours": {},
}
DRAWN, LONG = "a green frog on a yellow background", 400  # steps, so that it is still drawn when the picture is taken
PROMPTS = ("a red apple on a white background", "a panda on a pink background", "a rocket and a star, night")


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with serving(CRAFT_GENERATE_MODEL="pocket", CRAFT_WORKER_MODULE="craftd.worker") as shim, chromium() as browser:
        studio = Studio(shim, browser, shim.key("ada"))
        for prompt in PROMPTS:
            shim.finish(shim.post("/jobs", studio.key, prompt=prompt, count=4).json()["id"])
        for name, look in LOOKS.items():
            drawn = shim.post("/jobs", studio.key, prompt=DRAWN, steps=LONG).json()["id"]
            with studio.page(**look) as page:  # type: ignore[arg-type]
                if name == "forced-colours":
                    page.emulate_media(forced_colors="active")
                _fill(page)
                _save(page, name)
            shim.call("DELETE", f"/jobs/{drawn}", studio.key)
            shim.finish(drawn)


def _fill(page: Page) -> None:
    """A job that is drawn, as far as it is, and a picture on the stage."""
    page.wait_for_selector("#strip-list li img:not([hidden])")
    page.locator("#thumbs .tile").nth(2).click()
    page.wait_for_selector("#tiles .drawn img:not([hidden])")
    page.locator("#prompt").fill(PROMPTS[-1])
    page.locator("#gallery").scroll_into_view_if_needed()
    page.wait_for_selector("#thumbs li:nth-child(3) img:not([hidden])")
    page.evaluate("scrollTo(0, 0)")


def _save(page: Page, name: str) -> None:
    with Image.open(io.BytesIO(page.screenshot())) as picture:
        picture.convert("RGB").save(FOLDER / f"{name}.webp", "WEBP", quality=70, method=6)


if __name__ == "__main__":
    main()
