"""craft daemon: the process that holds the models."""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import typer
from craft_protos import config, files, records
from craft_protos.reasons import CraftError
from craft_protos.settings import Settings

from craft_cli import errors
from craft_cli.connection import autostart, ending, services
from craft_cli.connection.session import START_COMMAND, Session
from craft_cli.generate import output
from craft_cli.parsing import QuickCommand, leaf, new_app
from craft_cli.render import units

app = new_app(
    "Start, stop and ask the daemon. Other commands start it by themselves.",
    examples=(
        "Examples:\n  craft daemon status --json | jq .queue\n  craft daemon logs -f\n"
        "  craft daemon install     (start it at every login)"
    ),
)

_JSON = typer.Option(False, "--json", help="JSON on stdout.")
_NOW = typer.Option(False, "--now", help="Do not wait for running jobs: they are drawn again at the next start.")
_NO_HTTP = "off"
HTTP = typer.Option(
    _NO_HTTP,
    "--http",
    metavar="[HOST:PORT]",
    show_default=False,
    help="Serve HTTP too, at 127.0.0.1:7811 unless told otherwise: --http=HOST:PORT.",
)
_LOOK_EVERY_S = 0.05


class _HttpCommand(QuickCommand):
    """With `--http[=HOST:PORT]`: Typer has no options whose value may be left out."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _joined(args))


def http_leaf(*examples: str) -> dict[str, Any]:
    return {**leaf(*examples), "cls": _HttpCommand}


@app.command("start", **http_leaf("craft daemon start", "craft daemon start --http"))
def start(http: str = HTTP) -> None:
    """Start the daemon and wait until it answers."""
    settings = http_settings(http)
    session = local_session()
    running = autostart.find(session.paths)
    found = running or autostart.start(session.paths, settings)
    address = _http_address(session, settings)
    errors.say(
        f"craft: the daemon {'runs already' if running else 'is up'}, pid {found.pid}, at {found.address}{address}"
    )


@app.command("stop", **leaf("craft daemon stop", "craft daemon stop --now"))
def stop(now: bool = _NOW) -> None:
    """Stop the daemon: running jobs finish, waiting ones stay queued for its next start.

    One that does not end is ended: with SIGTERM, then with SIGKILL. No job is lost.
    """
    session = Session(autostart=False)
    if session.target.host:
        session.client.shutdown(now=now)
        return
    if not _stop(session, now):
        errors.say("craft: no daemon runs")


@app.command("restart", **http_leaf("craft daemon restart", "craft daemon restart --http=127.0.0.1:8080"))
def restart(now: bool = _NOW, http: str = HTTP) -> None:
    """Stop the daemon and start a new one. One that hangs is ended."""
    settings = http_settings(http)
    session = local_session()
    wanted = config.load(session.paths.config_file, {**os.environ, **settings})
    autostart.check(session.paths, settings)  # a mistake must not cost the daemon that runs
    _check_addresses(session, wanted)
    _stop(session, now)
    found = autostart.start(session.paths, settings)
    address = _http_address(session, settings)
    errors.say(f"craft: the daemon is up, pid {found.pid}, at {found.address}{address}")


@app.command("status", **leaf("craft daemon status --json | jq .queue"))
def status(as_json: bool = _JSON) -> None:
    """Say what the daemon does. Exit code 69 where none runs; none is started."""
    from craft_cli.render import daemon_shapes

    message = Session(autostart=False).client.status()
    if as_json:
        output.print_json(daemon_shapes.status(message))
        return
    rows = [
        ["pid", str(message.pid)],
        ["version", message.version],
        *([["address", message.address]] if message.address else []),
        *([["listens at", message.listen]] if message.listen else []),
        *([["workers join at", message.worker_listen]] if message.worker_listen else []),
        ["http", message.http or "off"],
        ["up for", units.age_of(message.start_time.seconds)],
        ["memory", units.size(message.rss_bytes)],
        ["queue", f"{message.queued} queued, {message.running} running"],
    ]
    for one in message.workers:
        doing = daemon_shapes.worker(one)
        models = ", ".join(one.models) or "no model"
        process = f"{units.size(one.rss_bytes)}, pid {one.pid}" if one.pid else "no process"
        state = f"{doing['state']}, drained" if one.drained else doing["state"]
        rows.append(["worker", f"{one.name or one.device or '?'}: {state}, {models}, {process}"])
    if message.HasField("bot"):
        rows.append(["telegram bot", _bot_row(daemon_shapes.bot(message.bot))])
    rows += [["warning", warning] for warning in message.warnings]
    output.print_table(["daemon", "stopping" if message.draining else "running"], rows)


@app.command("wait", **leaf("craft daemon wait --timeout 10 && craft models list"))
def wait(timeout: float = typer.Option(60.0, "--timeout", metavar="SECONDS", help="Give up after this.")) -> None:
    """Wait until a daemon that somebody starts is ready. Exit code 69 where none comes."""
    units.require_range(timeout, "--timeout", 0)
    session = Session(autostart=False)
    deadline = time.monotonic() + timeout
    while not _serves(session):
        if time.monotonic() > deadline:
            raise CraftError("DAEMON_UNREACHABLE", f"no daemon was ready within {timeout:g} s", START_COMMAND)
        time.sleep(_LOOK_EVERY_S)


@app.command("logs", **leaf("craft daemon logs -f", "craft daemon logs -n 200 --json | jq -r .event"))
def logs(
    follow: bool = typer.Option(False, "-f", "--follow", help="Go on as new lines come."),
    lines: int = typer.Option(50, "-n", "--lines", help="How many lines of the past."),
    as_json: bool = _JSON,
) -> None:
    """Show the daemon's log."""
    units.require_range(lines, "-n", 0)
    session = Session(autostart=False)
    if session.target.host or autostart.find(session.paths):
        records: Iterator[str] = session.client.watch_logs(lines, follow)
    elif follow:
        raise CraftError("DAEMON_UNREACHABLE", "no daemon runs", f"start it: {START_COMMAND}")
    else:
        records = _tail(session, lines)
    for record in records:
        output.line(record if as_json else _readable(record))


@app.command("install", **leaf("craft daemon install", "craft daemon install --uninstall"))
def install(uninstall: bool = typer.Option(False, "--uninstall", help="Take it away again.")) -> None:
    """Start the daemon at every login: a systemd user unit, or a launchd agent on macOS."""
    paths = config.find_paths()
    if uninstall:
        service = services.describe(paths)
        errors.say(f"craft: removed {service.file}" if service.uninstall() else f"craft: there is no {service.file}")
        return
    autostart.require_daemon_package()
    service = services.describe(paths, config.load(paths.config_file).daemon.grace_s)
    service.install()
    output.line(service.file)
    if service.activate():
        errors.say("craft: the service is enabled and started")
    else:
        errors.say(f"craft: enable it with: {' '.join(service.enable)}")


def _bot_row(bot: dict[str, Any]) -> str:
    name = f"@{bot['username']}: " if bot["username"] else ""
    parts = [
        f"{name}{bot['state']}",
        *([f"pid {bot['pid']}"] if bot["pid"] else []),
        f"{bot['updates']} updates",
        *([f"{bot['waiting']} waiting"] if bot["waiting"] else []),
        *([f"{bot['restarts']} restarts"] if bot["restarts"] else []),
        *([bot["problem"]] if bot["problem"] else []),
    ]
    return errors.one_line(", ".join(parts))


def _joined(args: list[str]) -> list[str]:
    """`--http` and `--http HOST:PORT` as one word: there are no other arguments that it could take for its value."""
    if "--http" not in args:
        return args
    place = args.index("--http")
    value, rest = args[place + 1 : place + 2], args[place + 2 :]
    if value and not value[0].startswith("-"):
        return [*args[:place], f"--http={value[0]}", *rest]
    return [*args[:place], "--http=", *value, *rest]


def http_settings(http: str) -> dict[str, str]:
    """The daemon's variables for `--http[=HOST:PORT]`. Raises CONFIG_INVALID."""
    if http == _NO_HTTP:
        return {}
    listen = {"CRAFT_HTTP_LISTEN": config.parse(http, "http", "listen", "--http")} if http else {}
    return {"CRAFT_HTTP_ENABLED": "true", **listen}


def _http_address(session: Session, settings: dict[str, str]) -> str:
    """What is said of it. Raises ALREADY_RUNNING where a daemon runs that serves elsewhere, or not at all."""
    if not settings:
        return ""
    address, wanted = session.client.status().http, settings.get("CRAFT_HTTP_LISTEN", "")
    if address and (not wanted or wanted.endswith(":0") or _port(address) == _port(wanted)):
        return f"; HTTP at {address}"
    message = f"the daemon runs already, {f'with HTTP at {address}' if address else 'without HTTP'}"
    raise CraftError("ALREADY_RUNNING", message, f"craft daemon restart --http{'=' if wanted else ''}{wanted}")


def _check_addresses(session: Session, wanted: Settings) -> None:
    """Raises CONFIG_INVALID where a new daemon could not listen, though it may where the running one does."""
    asked = {
        "http.listen": wanted.http.listen if wanted.http.enabled else "",
        "daemon.listen": wanted.daemon.listen,
        "worker.listen": wanted.worker.listen,
    }
    if not any(asked.values()) or not autostart.find(session.paths):
        return
    try:
        running = session.client.status()
    except CraftError:  # it hangs, or ends: nothing is lost with it
        return
    own = {_port(address) for address in (running.http, running.listen, running.worker_listen) if address}
    for name, address in asked.items():
        if address and _port(address) not in own:
            _check_free(name, address)


def _check_free(name: str, address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        family, kind, _, _, place = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as exc:
        message = f"{name}: {address}: {exc.strerror or exc}; the daemon that runs goes on"
        raise CraftError("CONFIG_INVALID", message, "choose another: HOST:PORT") from exc


def _port(address: str) -> str:
    return address.rpartition(":")[2]


def local_session() -> Session:
    session = Session()
    if session.target.host:
        raise CraftError("USAGE", f"CRAFT_HOST names a daemon elsewhere ({session.target.host})", "unset CRAFT_HOST")
    return session


def _stop(session: Session, now: bool) -> bool:
    """Whether there was a daemon. Raises where it would not end."""
    if not autostart.is_held(session.paths):
        return False
    ending.end(session, now=now)
    return True


def _serves(session: Session) -> bool:
    try:
        if session.client.is_serving(timeout_s=1.0):
            return True
    except CraftError as error:
        if error.reason not in autostart.ENDING:
            raise
    session.close()
    return False


def _tail(session: Session, lines: int) -> Iterator[str]:
    try:
        with session.paths.log_file.open(encoding="utf-8", errors="replace") as file:
            yield from (line.rstrip("\n") for line in deque(file, max(0, lines)))
    except OSError as error:
        raise files.unreadable(session.paths.log_file, error, START_COMMAND) from error


def _readable(record: str) -> str:
    """time level logger event key=value ..., and the lines of a traceback."""
    import json

    try:
        fields = json.loads(record)
    except ValueError:
        return errors.one_line(record)
    if not isinstance(fields, dict):
        return errors.one_line(record)
    head = [str(fields.pop(name)) for name in records.HEAD if name in fields]
    traceback = str(fields.pop(records.TRACEBACK, ""))
    line = errors.one_line(" ".join([*head, *(f"{name}={value}" for name, value in fields.items())]))
    return "\n".join([line, *map(errors.printable, traceback.splitlines())])
