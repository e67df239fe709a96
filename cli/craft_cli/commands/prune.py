"""craft prune: remove what is old."""

from __future__ import annotations

import typer

from craft_cli.confirming import FORCE, confirm
from craft_cli.connection.session import Session
from craft_cli.generate import output
from craft_cli.parsing import leaf
from craft_cli.render import units

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
_WHAT = typer.Argument(
    None, metavar="[pictures|jobs|data|inputs|checkpoints|orphans]...", help="Which; all but pictures if not given."
)
_USUAL = ("jobs", "data", "inputs", "checkpoints", "orphans")


@app.command("prune", **leaf("craft prune --dry-run", "craft prune pictures --older-than 90d", "craft prune --force"))
def prune(
    what: list[str] = _WHAT,
    *,
    older_than: str = typer.Option("30d", "--older-than", metavar="AGE", help="Those older than 12h, 30d, 8w."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say how much it is."),
    force: bool = FORCE,
    as_json: bool = typer.Option(False, "--json", help="JSON on stdout."),
) -> None:
    """Remove what is old: finished jobs without pictures, pictures of trainings (data), checkpoints, orphaned files.

    What unfinished jobs need stays. The daemon does the same by itself, as [keep] and [images] say: craft df.
    """
    from craft_cli.generate import drawing

    kinds, age_s = what or list(_USUAL), units.age_s(older_than, "--older-than")
    session = Session()
    planned = drawing.insist(session, lambda client: client.prune(kinds, age_s, dry_run=True))
    if any(one.count for one in planned) and not (dry_run or force):
        told = ", ".join(units.counted(one.count, one.what) for one in planned if one.count)
        confirm(f"remove {told}, {units.size(sum(one.bytes for one in planned))}?", "nothing was removed")
    gone = planned if dry_run else session.client.prune(kinds, age_s, dry_run=False)
    if as_json:
        output.print_json([{"what": one.what, "count": one.count, "bytes": one.bytes} for one in gone])
        return
    for one in gone:
        output.line(f"{one.what}\t{one.count}\t{units.size(one.bytes)}")
