"""The settings as users see them: value, unit, source, default, variable and meaning of each."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from craft_protos.settings import Settings, TierSettings, sections_of, variable_name

from craft_cli import errors

_INDENT = "    "


@dataclass(frozen=True)
class Knob:
    """One setting."""

    name: str
    value: Any
    source: str
    unit: str
    default: Any
    variable: str  # "" where no variable overrides it
    description: str

    @property
    def cells(self) -> list[str]:
        told = [shown(self.value), self.source, self.unit, shown(self.default), self.variable, self.description]
        return [self.name, *told]


def described(section: str, name: str, settings: Settings, source: str) -> Knob:
    """One setting of a section, with what its schema says of it."""
    schema = sections_of(Settings)[section]
    value = getattr(getattr(settings, section), name)
    return _knob(f"{section}.{name}", _field(schema, name), value, source, variable_name(section, name))


def of_tier(tier: str, limits: TierSettings) -> list[Knob]:
    return [
        _knob(f"tiers.{tier}.{one.name}", one, getattr(limits, one.name), "config.toml", "")
        for one in dataclasses.fields(limits)
    ]


def page(knobs: Sequence[Knob], width: int) -> Iterator[str]:
    """For a terminal: two lines a setting, wrapped at its width."""
    section = ""
    for knob in knobs:
        title = knob.name.rpartition(".")[0]
        if title != section:
            yield f"[{title}]" if not section else f"\n[{title}]"
            section = title
        yield from _wrapped(_headline(knob), width, "  ", _INDENT)
        about = f"{knob.description}." + (f" {knob.variable}" if knob.variable else "")
        yield from _wrapped(about, width, _INDENT, _INDENT)


def template() -> str:
    """A configuration file that says nothing yet: every setting as a comment, with its default."""
    import tomli_w

    lines = [
        "# craft's configuration. A setting counts once the # before it is gone; `craft config list` says what holds."
    ]
    for section, schema in sections_of(Settings).items():
        lines += ["", f"[{section}]"]
        for one in dataclasses.fields(schema):
            unit = f" ({one.metadata['unit']})" if one.metadata["unit"] else ""
            lines += [f"# {one.metadata['means']}{unit}", f"# {tomli_w.dumps({one.name: one.default}).strip()}"]
    return "\n".join(lines) + "\n"


def shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _headline(knob: Knob) -> str:
    unit = f" {knob.unit}" if knob.unit else ""
    where = "" if knob.source == "default" else f"  (from {knob.source}; default {_quoted(knob.default)})"
    return f"{knob.name.rpartition('.')[2]} = {_quoted(knob.value)}{unit}{where}"


def _quoted(value: object) -> str:
    """An empty text is seen too."""
    return errors.one_line(shown(value)) or '""'


def _wrapped(text: str, width: int, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        text,
        max(width, 20),
        initial_indent=first,
        subsequent_indent=rest,
        break_on_hyphens=False,
        break_long_words=False,
    )


def _knob(name: str, field: dataclasses.Field[Any], value: Any, source: str, variable: str) -> Knob:
    means, unit = field.metadata["means"], field.metadata["unit"]
    return Knob(name, value, source, unit, field.default, variable, means)


def _field(schema: type, name: str) -> dataclasses.Field[Any]:
    return next(one for one in dataclasses.fields(schema) if one.name == name)
