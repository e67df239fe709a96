"""craftd: the daemon. Parses its few arguments, takes the lock, serves.

What is imported before the lock is taken stays light: of fifty daemons started at once,
forty-nine should find out soon.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from craft_protos import config, files
from craft_protos.paths import Paths
from craft_protos.reasons import CraftError
from craft_protos.version import __version__

from craftd import checking
from craftd.announce import ReadyPipe, notify
from craftd.endpoint import Endpoint
from craftd.lock import DaemonLock


def main() -> None:
    arguments = _parse()
    pipe = ReadyPipe(arguments.ready_fd)
    try:
        if arguments.check:
            checking.check(paths := config.find_paths(), config.load(paths.config_file))
        else:
            if arguments.foreground:
                from craftd import logs

                logs.log_to_stderr()
            _run_or_say_why(config.find_paths(), pipe)
    except CraftError as exc:
        pipe.failed(exc)
        print(f"craftd: {exc.message}", *([f"  {exc.hint}"] if exc.hint else []), sep="\n", file=sys.stderr)
        sys.exit(exc.exit_code)


def _run_or_say_why(paths: Paths, pipe: ReadyPipe) -> None:
    """What a system refuses is no bug: whoever started the daemon hears which file it was."""
    try:
        _run(paths, pipe)
    except OSError as exc:
        raise files.trouble(exc) from exc


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="craftd", description="craft's daemon; `craft daemon start` starts it for you"
    )
    parser.add_argument("--version", action="version", version=f"craftd {__version__}")
    parser.add_argument("--ready-fd", type=int, metavar="N", help="write one JSON line there when ready, or why not")
    parser.add_argument(
        "--check", action="store_true", help="say there whether a daemon could start with the configuration, and end"
    )
    parser.add_argument("--foreground", action="store_true", help="write the log to stderr too")
    return parser.parse_args()


def _run(paths: Paths, pipe: ReadyPipe) -> None:
    os.umask(0o077)  # prompts and pictures are nobody else's
    for complaint in config.complaints():
        print(f"craftd: {complaint}", file=sys.stderr)
    settings = config.load(paths.config_file)
    endpoint = Endpoint(paths.socket)
    notify_socket = config.notify_socket()

    def announce(state: str) -> None:
        notify(notify_socket, f"{state.upper()}=1")
        if state == "ready":
            pipe.ready(endpoint.address)

    with _lock(paths.lock_file, endpoint.address):
        import asyncio

        from craftd.serve import Setting, serve

        asyncio.run(serve(Setting(paths, settings, endpoint, announce)))


def _lock(path: Path, address: str) -> DaemonLock:
    try:
        return DaemonLock(path, address)
    except OSError as exc:
        raise CraftError(
            "CONFIG_INVALID", f"{path}: {exc.strerror}", "set CRAFT_DATA_DIR to a folder that you can write"
        ) from exc


if __name__ == "__main__":
    main()
