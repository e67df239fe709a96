"""Typer's commands, quick to parse.

Typer turns words into values with pydantic, whose import alone takes as long as
everything else `craft` does at its start. craft's options are text, numbers and
flags, so these classes convert them on their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, ClassVar, get_args, get_origin

import typer
from craft_protos.frozen import dataclass
from typer._click.exceptions import UsageError
from typer.core import TyperCommand, TyperGroup


@dataclass(frozen=True)
class _Plain:
    """Stands where Typer would keep its pydantic adapter."""

    kind: type
    is_list: bool

    def coerce(self, value: Any, param: Any, ctx: typer.Context) -> Any:
        if self.is_list:
            return [self._convert(item, param, ctx) for item in value or ()]
        return None if value is None else self._convert(value, param, ctx)

    def _convert(self, value: Any, param: Any, ctx: typer.Context) -> Any:
        if isinstance(value, self.kind):
            return value
        try:
            return self.kind(value)
        except ValueError:
            raise typer.BadParameter(f"{value!r} is not {_KINDS[self.kind]}", ctx=ctx, param=param) from None


_KINDS = {int: "a whole number", float: "a number"}


def _quicken(params: Sequence[Any]) -> None:
    for param in params:
        annotation = param.type_descriptor.annotation
        is_list = get_origin(annotation) is list
        kind = get_args(annotation)[0] if is_list else annotation
        if kind in (str, int, float, bool):
            param._runtime_param = _Plain(kind, is_list)


@contextmanager
def _told_of(ctx: Any) -> Iterator[None]:
    """Within, a wrong call is one of this command: Typer's parser does not say whose option lacks its value."""
    try:
        yield
    except typer.TyperException as error:
        if isinstance(error, UsageError) and error.ctx is None:
            error.ctx = ctx
        raise


class QuickCommand(TyperCommand):
    """A command that parses without pydantic."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _quicken(self.get_params(ctx))
        with _told_of(ctx):
            return super().parse_args(ctx, args)


class SpokenCommand(QuickCommand):
    """One whose errors name its options, where they would name the contract's fields."""

    flags: ClassVar[Mapping[str, str]] = {}

    def invoke(self, ctx: Any) -> Any:
        from craft_cli.generate import flags

        with flags.spoken(self.flags):
            return super().invoke(ctx)


class QuickGroup(TyperGroup):
    """A group that parses without pydantic; without arguments it shows its help. `ls` is `list` in each."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            typer.echo(ctx.get_help(), err=True)
            raise typer.Exit(2)
        _quicken(self.get_params(ctx))
        with _told_of(ctx):
            return super().parse_args(ctx, args)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return super().get_command(ctx, cmd_name) or (super().get_command(ctx, "list") if cmd_name == "ls" else None)


@dataclass(frozen=True)
class Member:
    """Where a command lives: a module with an `app`, of which it is the whole group, one command, or the only one."""

    module: str
    command: str = ""  # of a group: only this one
    path: str = ""  # where else that one is: "models list"
    is_group: bool = False
    is_hidden: bool = False  # understood, and not listed

    def load(self) -> Any:
        app = import_module(f"craft_cli.commands.{self.module}").app
        if not (self.is_group or self.command):
            return typer.main.get_command(app)
        group: Any = typer.main.get_group(app)
        return group.commands[self.command] if self.command else group


class LazyGroup(QuickGroup):
    """A group whose members are imported when they are asked for."""

    members: ClassVar[dict[str, Member]] = {}

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        # Only the names matter here: Typer suggests from them.
        self.commands = dict.fromkeys(self.members)  # type: ignore[assignment]

    def list_commands(self, ctx: Any) -> list[str]:
        return [name for name, member in self.members.items() if not member.is_hidden]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.members:
            return None
        if self.commands[cmd_name] is None:
            self.commands[cmd_name] = self._load(cmd_name)
        return self.commands[cmd_name]

    def _load(self, name: str) -> Any:
        member = self.members[name]
        command = member.load()
        command.name = name
        if member.path and command.epilog:
            command.epilog = command.epilog.replace(f"craft {member.path}", f"craft {name}")
        return command


def new_app(help_text: str, *, examples: str = "") -> typer.Typer:
    """A Typer of craft's kind: plain help, no tracebacks, no completion options of its own."""
    return typer.Typer(
        cls=QuickGroup,
        help=help_text,
        epilog=f"\b\n{examples}" if examples else None,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings=CONTEXT,
    )


def leaf(*examples: str) -> dict[str, Any]:
    """What every command of a group is registered with; its help ends with the examples."""
    lines = "\n".join(f"  {example}" for example in examples)
    return {"cls": QuickCommand, "context_settings": CONTEXT, "epilog": f"\b\nExamples:\n{lines}"}


CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
