"""The page in Debian's Chromium, before a real craftd."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from craft_protos import jobs_pb2, keys_pb2
from craftd.http import page as page_folder
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from tests.home import HANG_S
from tests.http.shim import Shim, tool
from tests.lora_files import kohya

_ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
_PATIENCE_MS = HANG_S * 1000
_EXPECTED = "Failed to load resource"  # how Chromium tells of a status that the page handles
LORA, TRIGGER = "ink", "ink wash"

expect.set_options(timeout=_PATIENCE_MS)


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=tool("chromium"), args=_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


def give_lora(shim: Shim) -> None:
    """For pocket, with a trigger phrase."""
    folder = shim.home.root / "loras"
    folder.mkdir()
    shim.add_lora(kohya(folder / "ink.safetensors", metadata={"modelspec.trigger_phrase": TRIGGER}), LORA)


@dataclass
class Studio:
    """Pages of one browser, and what they said that they should not have."""

    shim: Shim
    browser: Browser
    key: str
    complaints: list[str] = field(default_factory=list)

    @contextmanager
    def page(
        self, *, width: int = 1280, height: int = 900, scheme: str = "light", is_in: bool = True
    ) -> Iterator[Page]:
        """`is_in`: with the key given. Closed however the test goes; the console must have stayed empty."""
        context = self.browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if scheme == "dark" else "light",
            reduced_motion="reduce",
        )
        context.grant_permissions(["clipboard-read", "clipboard-write"], origin=self.shim.url)
        try:
            page = context.new_page()
            page.set_default_timeout(_PATIENCE_MS)
            page.on("console", self._on_console)
            page.on("pageerror", lambda error: self.complaints.append(str(error)))
            page.goto(self.shim.url)
            if is_in:
                enter(page, self.key)
            yield page
        finally:
            context.close()
        assert not self.complaints

    def newest(self) -> jobs_pb2.Job:
        return self.shim.newest()

    def end(self, job: jobs_pb2.Job) -> jobs_pb2.Job:
        """Its last state."""
        return self.shim.finish(job.id)

    def suspend(self, owner: str) -> None:
        self.shim.keys.SuspendKey(keys_pb2.SuspendKeyRequest(key=owner))

    @contextmanager
    def held(self) -> Iterator[None]:
        """`[held]` jobs stand still until it ends."""
        release = self.shim.home.paths.files_dir / "release"
        release.unlink(missing_ok=True)
        try:
            yield
        finally:
            self.shim.home.release()

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith(_EXPECTED):
            self.complaints.append(message.text)


def enter(page: Page, key: str) -> None:
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_label("Prompt", exact=True)).to_be_visible()


def generate(page: Page, prompt: str, **fields: str) -> None:
    """`fields` by their ids."""
    page.get_by_label("Prompt", exact=True).fill(prompt)
    for name, value in fields.items():
        page.locator(f"#{name}").fill(value)
    page.get_by_role("button", name="Generate").click()


def violations(page: Page) -> list[str]:
    """What axe-core finds, all its rules."""
    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {node['html'][:200]}" for one in found for node in one["nodes"]]


def natural_size(page: Page, selector: str) -> list[int]:
    size: list[int] = page.locator(selector).first.evaluate("image => [image.naturalWidth, image.naturalHeight]")
    return size


def is_scrollable_sideways(page: Page) -> bool:
    width: int = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return width > 0


def static_files() -> list[Path]:
    return sorted((Path(page_folder.__file__).parent / "static").iterdir())
