"""Imports without what the command has no use of, where a package imports a submodule that others need."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def without(package: str, submodule: str) -> Iterator[None]:
    """Within, importing the package finds an empty module in the submodule's place; whoever imports that afterwards
    gets the real one.
    """
    name = f"{package}.{submodule}"
    if name in sys.modules or package in sys.modules:
        yield
        return
    sys.modules[name] = empty = ModuleType(name)
    try:
        yield
    finally:
        if sys.modules.get(name) is empty:
            del sys.modules[name]
        if vars(sys.modules.get(package, empty)).get(submodule) is empty:
            delattr(sys.modules[package], submodule)
