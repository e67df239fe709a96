"""`python -m craftd.joining HOST:PORT [--ca sha256:...]`: what `craft worker join` runs."""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import getpass
import logging
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from craft_protos import config, files
from craft_protos.reasons import CraftError
from craft_protos.rules import Address
from craft_protos.settings import Settings

from craftd import logs
from craftd.joining.agent import Agent
from craftd.joining.host import Host
from craftd.joining.identity import Identity
from craftd.workers.local import LocalConnection

_FINGERPRINT = re.compile(r"sha256:[0-9a-f]{64}")
_LONGEST_TOKEN = 200
_INVITING = "`craft fleet invite NAME` prints it"
_GIB = 1 << 30


def main() -> None:
    try:
        try:
            _run(_parse())
        except OSError as exc:
            raise files.trouble(exc) from exc
    except CraftError as exc:
        print(f"craft: {exc.message}", *([f"  {exc.hint}"] if exc.hint else []), sep="\n", file=sys.stderr)
        sys.exit(exc.exit_code)


def _parse() -> argparse.Namespace:
    """Raises USAGE."""
    parser = argparse.ArgumentParser(prog="craft worker join")
    parser.add_argument("address")
    parser.add_argument("--ca", default="")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--device", default="")
    given = parser.parse_args()
    if complaint := Address().complaint(given.address):
        raise CraftError(
            "USAGE", f"the daemon's address {complaint}", "its worker.listen, as `craft daemon status` has it"
        )
    if given.ca and not _FINGERPRINT.fullmatch(given.ca):
        raise CraftError(
            "USAGE", "--ca must be sha256: and 64 hexadecimal digits", "`craft fleet invite NAME` prints it"
        )
    return given


def _run(given: argparse.Namespace) -> None:
    os.umask(0o077)
    token, paths = config.take_join_token(), config.find_paths()
    settings = config.load(paths.config_file)
    folder = given.folder or paths.joined_dir / re.sub(r"[^\w.-]", "-", given.address)
    with _lock(folder):
        logs.log_to_stderr()
        logging.getLogger().setLevel(settings.daemon.log_level.upper())
        asyncio.run(_serve(given, Identity(folder), token, settings))


async def _serve(given: argparse.Namespace, identity: Identity, token: str, settings: Settings) -> None:
    """Until a signal. Raises WORKER_REFUSED, DAEMON_UNREACHABLE."""
    address, ca, device = str(given.address), str(given.ca), str(given.device)
    if not identity.is_there:
        if not ca:
            raise CraftError(
                "USAGE", "--ca is missing: this worker has not joined before", "`craft fleet invite NAME` prints it"
            )
        await identity.join(address, ca, token or await asyncio.to_thread(_ask_token))
    elif ca and ca != identity.fingerprint:
        message = f"{identity.folder} belongs to a worker of another daemon ({identity.fingerprint})"
        raise CraftError("WORKER_REFUSED", message, "give another --folder, or delete that one")
    print(f"craft: this is worker {identity.name} of {address}; Ctrl-C ends it", file=sys.stderr)
    worker = replace(settings.worker, device=device or settings.worker.device)
    start = partial(LocalConnection.start, worker)
    host = Host(identity.folder, int(settings.worker.files_gib * _GIB), start)
    agent = Agent(address, identity, host, settings.daemon.keep_alive_s)
    running, loop = asyncio.create_task(agent.run()), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, running.cancel)
    try:
        await running
    except asyncio.CancelledError:
        print("craft: the worker ends; started again, it needs no token", file=sys.stderr)


def _ask_token() -> str:
    """From stdin: typed and not shown, or the first line of what is piped in."""
    is_typed = sys.stdin.isatty()
    token = getpass.getpass("token: ", stream=sys.stderr) if is_typed else sys.stdin.readline(_LONGEST_TOKEN)
    if not token.strip():
        hint = "give it on stdin, or in CRAFT_JOIN_TOKEN; `craft fleet invite NAME` prints one"
        raise CraftError("USAGE", "the token is missing", hint)
    return token.strip()


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """One process for a folder. Raises ALREADY_RUNNING."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            hint = "give this one another --folder"
            raise CraftError("ALREADY_RUNNING", f"another worker has the folder {folder}", hint) from exc
        yield


if __name__ == "__main__":
    main()
