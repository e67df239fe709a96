"""Ten thousand pictures in the page's gallery: how smoothly Chromium scrolls through them, and what it keeps.

    python -m benchmarks.gallery [--pictures N] [--frames N] [--pixels N]

A real craftd with the worker without torch, one picture of it, and rows as if it had been drawn so often.
The page is scrolled so many pixels a frame, up to the gallery's end or so many frames. A frame that took
longer than 50 ms is one that is seen to stutter; the heap is JavaScript's, after a collection.
"""

from __future__ import annotations

import argparse
import sys
from typing import TypedDict

from playwright.sync_api import Page, expect

from benchmarks import figures
from benchmarks.figures import Figure
from tests.http.browser import Studio, chromium
from tests.http.shim import serving
from tests.http.test_page_gallery import draw, multiply

LONG_MS = 50.0
NODES = 1500
_SCROLL = """([frames, pixels]) => new Promise((resolve) => {
  const took = [];
  let last = performance.now();
  const step = (now) => {
    took.push(now - last);
    last = now;
    scrollBy(0, pixels);
    if (took.length < frames) return requestAnimationFrame(step);
    const places = [...document.querySelectorAll("#thumbs li")].map((one) => Number(one.getAttribute("aria-posinset")));
    resolve({ took: took.slice(1), reached: Math.max(...places) });
  };
  requestAnimationFrame(step);
})"""


class Scrolled(TypedDict):
    took: list[float]  # milliseconds, of each frame
    reached: int  # the place of the last picture in the document


def main() -> int:
    asked = _parse()
    with serving(CRAFT_GENERATE_MODEL="pocket") as shim, chromium() as browser:
        studio = Studio(shim, browser, shim.key("ada"))
        multiply(studio, draw(studio, studio.key, "an ant")[0], asked.pictures - 1)
        with studio.page() as page:
            expect(page.locator("#thumbs li").first).to_be_visible()
            scrolled: Scrolled = page.evaluate(_SCROLL, [asked.frames, asked.pixels])
            nodes: int = page.evaluate("document.querySelectorAll('*').length")
            heap_mb = _heap_mb(page)
    print(f"{len(scrolled['took'])} frames; picture {scrolled['reached']} of {asked.pictures} was reached")
    return figures.tell(_figures(scrolled["took"], nodes, heap_mb, f"{asked.pictures} pictures in the gallery"))


def _figures(took: list[float], nodes: int, heap_mb: float, what: str) -> list[Figure]:
    ordered = sorted(took)
    late = sum(one > LONG_MS for one in took)
    share = late / len(took)
    median, p99 = ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]
    return [
        Figure(f"{what}, scrolled: share of frames over 50 ms", "none", share, share, share),
        Figure(f"{what}, scrolled: a frame, its median", "16.7 ms", median, ordered[0], p99, "ms"),
        Figure(f"{what}, scrolled: the longest frame", "50 ms", ordered[-1], p99, ordered[-1], "ms"),
        Figure(f"{what}: JavaScript's heap at the end", "none", heap_mb, heap_mb, heap_mb, "MB"),
        Figure(f"{what}: elements at the end", "a budget", nodes, nodes, nodes, at_most=NODES),
    ]


def _heap_mb(page: Page) -> float:
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    used: float = session.send("Runtime.getHeapUsage")["usedSize"]
    return used / 1e6


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--pixels", type=int, default=400, help="scrolled each frame")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
