"""craft mcp: craft as tools for agents."""

from __future__ import annotations

from pathlib import Path

import platformdirs
import typer
from craft_protos import files
from craft_protos.reasons import CraftError

from craft_cli.connection.session import Session
from craft_cli.parsing import leaf

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

_OF_THE_EXTRA = ("mcp", "mcp_types", "anyio", "pydantic")
_EXAMPLES = ("craft mcp", "craft mcp --folder ~/Pictures/agents --root ~/photos")


_FOLDER = typer.Option(
    "", "--folder", metavar="DIR", help="Where pictures are written, always as new files; Pictures/craft."
)
_ROOTS = typer.Option(
    [], "--root", metavar="DIR", help="Pictures below it may be read, beside those below the client's roots."
)


@app.command("mcp", **leaf(*_EXAMPLES))
def serve(folder: str = _FOLDER, root: list[str] = _ROOTS) -> None:
    """Serve the Model Context Protocol on stdin and stdout, for an agent that starts this command.

    Its tools draw, edit, enlarge, plan, list and cancel. docs/agents.md has the lines for agents' configurations.
    """
    try:
        from craft_cli.agents.tools import Tools
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _OF_THE_EXTRA:
            raise
        message = "craft mcp needs the package mcp, which is not installed here"
        raise CraftError("EXTRA_MISSING", message, "pip install 'craftengine[mcp]'") from error
    writes = Path(folder).expanduser().resolve() if folder else Path(platformdirs.user_pictures_dir(), "craft")
    for one in root:
        if not Path(one).expanduser().is_dir():
            raise CraftError("NO_INPUT", f"--root: there is no folder {one}", "make it first, or name another")
    if folder:
        try:
            writes.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise files.unwritable(writes, error, "name another --folder") from error
    Tools(Session(), writes, [Path(one).expanduser() for one in root]).server().run("stdio")
