"""Writes the table of docs/samplers.md from the one table of samplers: `python -m docs.samplers`."""

from __future__ import annotations

from pathlib import Path

from craft_protos.samplers import ABOUT, FLOW, SAMPLERS, schedules_of

_PAGE = Path(__file__).with_suffix(".md")
_BEGIN, _END = "<!-- samplers: python -m docs.samplers -->\n", "<!-- /samplers -->\n"


def render(page: str) -> str:
    """The page with the table as it is now."""
    head, _, rest = page.partition(_BEGIN)
    lines = ["| Sampler | Also called | Equal to | Noise | Calls a step | Schedules | On flow models |"]
    lines += ["|---|---|---|---|---|---|---|", *map(_row, ABOUT)]
    return head + _BEGIN + "\n".join(lines) + "\n" + _END + rest.partition(_END)[2]


def _row(name: str) -> str:
    about, count = ABOUT[name], len(schedules_of(name))
    schedules = {0: "none", 4: "of timesteps"}.get(count, "all")
    told = [name, ", ".join(SAMPLERS[name]), about.reference, "yes" if about.is_random else "no"]
    told += [str(about.calls) if about.calls else "as it needs", schedules, "yes" if name in FLOW else "no"]
    return f"| {' | '.join(told)} |"


if __name__ == "__main__":
    _PAGE.write_text(render(_PAGE.read_text(encoding="utf-8")), encoding="utf-8")
