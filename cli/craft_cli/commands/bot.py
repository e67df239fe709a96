"""craft bot: the Telegram bot that gives keys."""

from __future__ import annotations

import importlib.util
import os
import sys

from craft_protos.reasons import CraftError

from craft_cli.connection.session import Session
from craft_cli.parsing import leaf, new_app

app = new_app(
    "Give keys to the members of a Telegram channel; see docs/telegram.md.",
    examples="Examples:\n  craft bot run\n  craft config set telegram.enabled true     (the daemon keeps it running)",
)


@app.callback()
def _group() -> None:
    """Keeps `run` a command of its own: Typer would take a lone command for the whole group."""


@app.command("run", **leaf("craft bot run", "CRAFT_HOST=there:7810 CRAFT_API_KEY_FILE=admin.key craft bot run"))
def run() -> None:
    """Run the bot in the foreground, until Ctrl-C."""
    for module in ("telegram", "apsw"):
        if importlib.util.find_spec(module) is None:
            message = "the Telegram bot needs python-telegram-bot, which is not installed here"
            raise CraftError("EXTRA_MISSING", message, "pip install 'craftengine[telegram]'")
    session = Session()
    session.client.list_keys()  # the daemon is there, and takes the caller for an admin
    session.close()
    os.execv(sys.executable, [sys.executable, "-P", "-m", "craftd.bot"])
