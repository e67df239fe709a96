"""torchvision, which craft does not need: hidden from whoever imports it, and stood in for while Spandrel does."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import cast

_NAMES = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")


def hide() -> None:
    """From now on nothing finds it; unless it has been imported already, which then was none of craft's doing."""
    sys.modules.setdefault("torchvision", cast(ModuleType, None))


@contextmanager
def stood_in() -> Iterator[None]:
    """Names of it can be imported in here. None of them does anything."""
    before = {name: sys.modules[name] for name in _NAMES if name in sys.modules}
    sys.modules.update({name: _StandIn(name) for name in _NAMES})
    try:
        yield
    finally:
        for name in _NAMES:
            sys.modules.pop(name)
        sys.modules.update(before)


class _StandIn(ModuleType):
    """A module with every name in it."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return sys.modules.get(f"{self.__name__}.{name}", _absent)


def _absent(*_args: object, **_named: object) -> None:
    raise NotImplementedError("craft works without torchvision")
