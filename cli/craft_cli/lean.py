"""Modules that a short command imports and never uses: they are loaded when somebody looks into them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType
from typing import Any

# By grpc for its asynchronous side, by protobuf for messages without its C library, by typer for completion, by the
# standard library and the command itself for what few calls of theirs do.
UNUSED = frozenset(
    {
        "asyncio",
        "google.protobuf.internal.python_message",
        "grpc.aio",
        "ipaddress",
        "subprocess",
        "tokenize",
    }
)


class _Loader(LazyLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        module.__class__ = _patient(type(module))


def _patient(lazy: type[ModuleType]) -> type[ModuleType]:
    """The class of LazyLoader's modules, but for their spec: a second import reads it, and that is no use yet."""

    def look(module: ModuleType, name: str) -> Any:
        return object.__getattribute__(module, name) if name == "__spec__" else lazy.__getattribute__(module, name)

    return type("Patient", (lazy,), {"__getattribute__": look})


class _Finder:
    """One of sys.meta_path."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's own spec, its loader waiting for the first attribute that is asked for."""
        if fullname not in UNUSED:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


def begin() -> None:
    """From here on, importing one of UNUSED costs nothing until it is used."""
    sys.meta_path.insert(0, _Finder())
