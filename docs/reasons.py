"""Writes docs/reasons.md from the one table of reasons: `make docs`."""

from __future__ import annotations

from pathlib import Path

from craft_protos.reasons import REASONS


def render() -> str:
    """The page's text."""
    head = (
        "# Reasons\n\nEvery error craft reports carries one of these names. Generated from"
        " `protos/craft_protos/reasons.py` by `make docs`.\n\n"
        "| Reason | Meaning | gRPC | HTTP | Exit |\n|---|---|---|---|---|\n"
    )
    return head + "".join(
        f"| `{name}` | {r.meaning} | {r.grpc} | {r.http} | {r.exit} |\n" for name, r in REASONS.items()
    )


if __name__ == "__main__":
    Path(__file__).with_suffix(".md").write_text(render(), encoding="utf-8")
