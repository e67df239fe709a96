"""The table of a training's options (train_options) as options of a command."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import Field
from typing import Any

import typer
from craft_protos import train_options


def offered(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option for each row of the table, all of which it gets as `**options`."""
    own = inspect.signature(command, eval_str=True)
    parameters = [one for one in own.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
    rows = [_parameter(one) for one in train_options.options()]

    @functools.wraps(command)
    def called(*given: Any, **options: Any) -> None:
        command(*given, **options)

    called.__signature__ = own.replace(parameters=[*parameters, *rows])  # type: ignore[attr-defined]
    called.__annotations__ = {one.name: one.annotation for one in [*parameters, *rows]}
    return called


def chosen(options: Mapping[str, Any]) -> dict[str, Any]:
    """What a request has of them."""
    return {name: _plain(value) for name, value in options.items()}


def _parameter(row: Field[Any]) -> inspect.Parameter:
    is_list = isinstance(row.default, tuple)
    flag, told = row.metadata["flag"], row.metadata["help"]
    option = typer.Option(
        [] if is_list else row.default, flag, help=told, metavar=row.metadata["metavar"] or None, show_default=False
    )
    kind = list[str] if is_list else type(row.default)
    return inspect.Parameter(row.name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=kind)


def _plain(value: Any) -> Any:
    match value:
        case list():
            return tuple(value)
        case str():
            return value.lower()
        case _:
            return value
