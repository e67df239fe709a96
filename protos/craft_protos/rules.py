"""What the value of a setting, or of a request's field, must be, besides of the right type."""

from __future__ import annotations

import re
from collections.abc import Sized
from dataclasses import field
from typing import Any, Protocol, TypeVar

from craft_protos.frozen import dataclass
from craft_protos.reasons import CraftError

T = TypeVar("T")

_LAST_PORT = 65535


class Rule(Protocol):
    def complaint(self, value: Any) -> str:
        """ "" where nothing is wrong."""
        ...


def ruled(default: T, rule: Rule) -> T:
    """A dataclass's field with its rule."""
    made: T = field(default=default, metadata={"rule": rule})
    return made


@dataclass(frozen=True)
class Range:
    least: float
    most: float

    def complaint(self, value: float) -> str:
        return "" if self.least <= value <= self.most else f"must be from {self.least} to {self.most}, not {value}"


@dataclass(frozen=True)
class Choice:
    values: tuple[str, ...]

    def complaint(self, value: str) -> str:
        return "" if value in self.values else f"must be one of {', '.join(self.values)}, not {value!r}"


@dataclass(frozen=True)
class Length:
    """Of a list, at most."""

    most: int

    def complaint(self, value: Sized) -> str:
        return f"are {len(value)}; the limit is {self.most}" if len(value) > self.most else ""


@dataclass(frozen=True)
class Form:
    pattern: str
    meaning: str

    def complaint(self, value: str) -> str:
        return "" if re.fullmatch(self.pattern, value) else f"must be {self.meaning}, not {value!r}"


@dataclass(frozen=True)
class Address:
    """HOST:PORT, an IPv6 host in brackets."""

    may_be_empty: bool = False

    def complaint(self, value: str) -> str:
        if not value and self.may_be_empty:
            return ""
        found = re.fullmatch(r"(?:\[[0-9A-Fa-f:.]+\]|[\w.-]+):([0-9]{1,5})", value)
        is_right = found is not None and int(found[1]) <= _LAST_PORT
        return "" if is_right else f"must be HOST:PORT, the port at most {_LAST_PORT}, not {value!r}"


class Addresses:
    """IP addresses or networks, comma between."""

    def complaint(self, value: str) -> str:
        import ipaddress  # few have one set

        for part in filter(None, map(str.strip, value.split(","))):
            try:
                ipaddress.ip_network(part, strict=False)
            except ValueError:
                return f"must be IP addresses or networks such as 127.0.0.1, 10.0.0.0/8, not {part!r}"
        return ""


class Sampler:
    def complaint(self, value: str) -> str:
        from craft_protos import samplers  # few have one set

        try:
            if value:
                samplers.canonical(value)
        except CraftError as exc:
            return f"names no sampler: {value!r}; {exc.hint}"
        return ""
