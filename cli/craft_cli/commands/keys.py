"""craft keys: who may call from afar, and how much."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import typer
from craft_protos.reasons import CraftError

from craft_cli import completing, errors
from craft_cli.confirming import FORCE, confirm
from craft_cli.connection.session import Session
from craft_cli.generate import output
from craft_cli.parsing import leaf, new_app
from craft_cli.render import units

if TYPE_CHECKING:
    from craft_cli.connection.client import Client

app = new_app(
    "Give callers from afar their keys, and take them away. A key goes by its id or its owner.",
    examples=(
        "Examples:\n  craft keys create --owner alice\n"
        "  craft keys create --owner ops --admin --json | jq -r .key\n"
        "  craft keys suspend alice\n"
        "  craft keys list --json | jq -r '.[] | select(.last_used_time == null).owner'"
    ),
)

_KEYS = typer.Argument(..., metavar="ID|OWNER...", help="Keys' ids or owners.", autocompletion=completing.keys)
_JSON = typer.Option(False, "--json", help="JSON on stdout.")


@app.command("create", **leaf("craft keys create --owner alice", "craft keys create --owner alice --tier paying"))
def create(
    owner: str = typer.Option(..., "--owner", metavar="NAME", help="Whose it is; an owner has one key."),
    *,
    admin: bool = typer.Option(False, "--admin", help="It may do what the local user may, and sees everybody's jobs."),
    tier: str = typer.Option("", "--tier", help="How much it may ask for; a [tiers.NAME] of the configuration."),
    as_json: bool = _JSON,
) -> None:
    """Make a key. It is shown this once: only a hash of it is kept."""
    from craft_protos import keys_pb2

    _require_name(owner)
    role = keys_pb2.KEY_ROLE_ADMIN if admin else keys_pb2.KEY_ROLE_USER
    made = Session().client.create_key(keys_pb2.CreateKeyRequest(owner=owner, role=role, tier=tier))
    if as_json:
        output.print_json({"key": made.secret, "id": made.key.id, "owner": made.key.owner})
        return
    output.line(made.secret)
    errors.remark("craft: it is not shown again; its owner puts it into CRAFT_API_KEY")


@app.command("list", **leaf("craft keys list --json | jq -r '.[].owner'"))
def list_keys(as_json: bool = _JSON) -> None:
    """List keys, and who is banned."""
    from craft_cli.generate import drawing
    from craft_cli.render import shapes

    keys = drawing.insist(Session(), lambda client: client.list_keys())
    shown = [shapes.key(key) for key in keys]
    if as_json:
        output.print_json(shown)
        return
    ages = [units.age_of(key.last_used_time.seconds) if key.last_used_time.seconds else "never" for key in keys]
    output.print_table(
        ["id", "owner", "role", "state", "tier", "last used"],
        [
            [one["id"] or "-", one["owner"], one["role"], one["state"], one["tier"], age]
            for one, age in zip(shown, ages, strict=True)
        ],
        none="no keys yet; craft keys create --owner NAME makes one",
    )


@app.command("suspend", **leaf("craft keys suspend alice"))
def suspend(keys: list[str] = _KEYS) -> None:
    """Refuse keys from now on, until they are resumed. What they asked for already is still drawn."""
    _tell_each(keys, lambda client, name: client.suspend_key(name).owner)


@app.command("resume", **leaf("craft keys resume alice"))
def resume(keys: list[str] = _KEYS) -> None:
    """Let suspended keys work again, unchanged."""
    _tell_each(keys, lambda client, name: client.resume_key(name).owner)


@app.command("ban", **leaf("craft keys ban alice", "craft keys ban alice --force"))
def ban(keys: list[str] = _KEYS, force: bool = FORCE) -> None:
    """Refuse keys for good: their owners never get others. Asks first: a ban is not taken back."""
    _require_names(keys)
    if not force:
        confirm(f"ban {', '.join(map(errors.one_line, keys))} for ever?", "nobody was banned")
    _tell_each(keys, lambda client, name: client.ban_owner(name).owner)


@app.command("rm", **leaf("craft keys rm alice"))
def remove(keys: list[str] = _KEYS) -> None:
    """Delete keys. Their owners may get others, unless they are banned; their jobs and pictures stay."""
    _require_names(keys)
    session = Session()
    for name in keys:
        session.client.delete_key(name)
        output.line(name)


def _tell_each(keys: list[str], change: Callable[[Client, str], str]) -> None:
    """The owner of each, changed in a way that may be asked for twice."""
    from craft_cli.generate import drawing

    _require_names(keys)
    session = Session()
    for name in keys:
        output.line(drawing.insist(session, lambda client, name=name: change(client, name)))  # type: ignore[misc]


def _require_names(keys: list[str]) -> None:
    for name in keys:
        _require_name(name)


def _require_name(name: str) -> None:
    """A key in argv is seen by everybody on the machine."""
    if re.match(r"craft_[0-9a-z]{10}_", name):
        raise CraftError("USAGE", "that is a key itself", "name it by its id or its owner, and keep it out of commands")
