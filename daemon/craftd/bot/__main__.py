"""`python -m craftd.bot`: the bot, until a signal, or until its daemon's end of its stdin closes."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import importlib.util
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from craft_protos import config
from craft_protos.config import Client
from craft_protos.paths import Paths
from craft_protos.reasons import CraftError
from craft_protos.settings import Settings

from craftd.bot import logs, token

if TYPE_CHECKING:
    from craftd.bot.report import Report

_log = logging.getLogger("craft.bot")


def main() -> None:
    arguments = _parse()
    try:
        _run(is_supervised=arguments.supervised)
    except CraftError as exc:
        lines = [f"craft bot: {exc.message}", *([f"  {exc.hint}"] if exc.hint else [])]
        print(*map(logs.redacted, lines), sep="\n", file=sys.stderr)
        sys.exit(exc.exit_code)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="craft bot run", description="the Telegram bot that gives keys")
    parser.add_argument(
        "--supervised", action="store_true", help="end with stdin, and say on stdout how it goes: for craftd"
    )
    return parser.parse_args()


def _run(*, is_supervised: bool) -> None:
    os.umask(0o077)
    if is_supervised:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    paths = config.find_paths()
    settings, client = config.load(paths.config_file), config.client()
    logs.open_log(settings.daemon.log_level)
    secret = token.load(settings.telegram.token_file)
    if not settings.telegram.channel:
        raise CraftError(
            "CONFIG_INVALID",
            "telegram.channel: is not set",
            "craft config set telegram.channel @NAME, whose members get keys",
        )
    _require_library()
    with _lock(paths.bot_lock_file):
        asyncio.run(_serve(paths, settings, client, secret, is_supervised=is_supervised))


def _end_with_stdin() -> None:
    """A bot without its daemon would stand in the way of the next one."""
    while os.read(0, 1024):
        continue
    os._exit(0)


def _require_library() -> None:
    for name in ("telegram", "apsw"):
        if importlib.util.find_spec(name) is None:
            message = "the Telegram bot needs python-telegram-bot, which is not installed here"
            raise CraftError("EXTRA_MISSING", message, "pip install 'craftengine[telegram]'")


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One bot to a data folder: two would answer each update twice. Raises ALREADY_RUNNING."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        message = f"a bot of {path.parent} runs already"
        raise CraftError("ALREADY_RUNNING", message, "end it, or let it be: `craft daemon status`") from exc
    else:
        yield
    finally:
        os.close(descriptor)


async def _serve(paths: Paths, settings: Settings, client: Client, secret: str, *, is_supervised: bool) -> None:
    from craftd.bot import report as reports
    from craftd.bot import texts
    from craftd.bot.api import Api
    from craftd.bot.bot import Bot
    from craftd.bot.daemon import DaemonClient
    from craftd.bot.store import BotStore

    answers, store, report = texts.load(settings.telegram.texts_file), BotStore(paths.bot_database), reports.Report()
    daemon = DaemonClient(client.host or f"unix:{paths.socket}", api_key=client.api_key, ca_file=client.ca_file)
    api = Api(settings.telegram, secret, report)
    bot = asyncio.create_task(Bot(settings, api, daemon, store, texts=answers, report=report).run(), name="bot")
    telling = asyncio.create_task(reports.tell(report), name="report") if is_supervised else None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, bot.cancel)
    try:
        await _until_cancelled(bot, report)
    finally:
        if telling is not None:
            telling.cancel()
        await api.close()
        await daemon.close()
        store.close()


async def _until_cancelled(bot: asyncio.Task[None], report: Report) -> None:
    import apsw

    try:
        await bot
    except asyncio.CancelledError:
        _log.info("stopped", extra={"waiting": report.waiting})
    except CraftError:
        raise
    except apsw.Error as exc:
        message = f"the bot's database cannot be written: {exc}"
        raise CraftError("STORAGE_FAILED", message, "see that its disk has room and is sound") from exc
    except Exception as exc:  # the process's outermost frame
        _log.exception("a bug")
        raise CraftError("INTERNAL", f"a bug in craft's bot: {type(exc).__name__}", "see the lines above") from exc


if __name__ == "__main__":
    main()
