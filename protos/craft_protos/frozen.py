"""`dataclass(frozen=True)` that costs a short command little: its methods are written once, here.

The standard decorator compiles six methods for each class, which was a seventh of what `craft generate` takes. Type
checkers see the standard one, and tests/protos/test_frozen.py holds this one to its behaviour.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import MISSING, FrozenInstanceError, fields
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass"]

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(*, frozen: bool, kw_only: bool = False) -> Callable[[type], type]:
        """The decorator; frozen has to be True."""
        assert frozen, "others are the standard decorator's"
        return lambda made: _finish(made, kw_only)


def _finish(made: Any, kw_only: bool) -> Any:
    is_derived = any(dataclasses.is_dataclass(base) for base in made.__bases__)  # it has to be as frozen as its base
    made.__doc__ = made.__doc__ or made.__name__  # the standard library would read the signature for one
    made = dataclasses.dataclass(init=False, repr=False, eq=False, frozen=is_derived, kw_only=kw_only)(made)
    made.__dataclass_params__.frozen = True  # for the standard decorator of classes derived from it
    own = fields(made)
    made.__frozen_names__ = tuple(one.name for one in own)
    made.__frozen_places__ = tuple(one.name for one in own if not one.kw_only)
    made.__frozen_defaults__ = {one.name: one.default for one in own if one.default is not MISSING}
    made.__frozen_factories__ = [(one.name, one.default_factory) for one in own if one.default_factory is not MISSING]
    for name, method in _METHODS.items():
        if name not in vars(made):
            setattr(made, name, method)
    return made


def _init(self: Any, /, *values: Any, **named: Any) -> None:
    made, own = type(self), self.__dict__
    own.update(made.__frozen_defaults__)
    own.update(zip(made.__frozen_places__, values, strict=False))
    own.update(named)
    for name, factory in made.__frozen_factories__:
        if name not in own:
            own[name] = factory()
    if values or len(own) != len(made.__frozen_names__):
        _refuse_arguments(made, values, named, own)


def _refuse_arguments(made: Any, values: Sequence[Any], named: dict[str, Any], own: dict[str, Any]) -> None:
    """TypeError, as a function with such parameters raises it."""
    call, places = f"{made.__name__}.__init__()", made.__frozen_places__
    if len(values) > len(places):
        raise TypeError(f"{call} takes {len(places)} positional arguments but {len(values)} were given")
    for name in named:
        if name not in made.__frozen_names__:
            raise TypeError(f"{call} got an unexpected keyword argument {name!r}")
        if name in places[: len(values)]:
            raise TypeError(f"{call} got multiple values for argument {name!r}")
    if missing := [name for name in made.__frozen_names__ if name not in own]:
        raise TypeError(f"{call} missing required arguments: {', '.join(missing)}")


def _values(record: Any) -> tuple[Any, ...]:
    own = record.__dict__
    return tuple([own[name] for name in type(record).__frozen_names__])


def _repr(self: Any) -> str:
    told = ", ".join(f"{name}={self.__dict__[name]!r}" for name in type(self).__frozen_names__)
    return f"{type(self).__qualname__}({told})"


def _eq(self: Any, other: Any) -> bool:
    return _values(self) == _values(other) if type(other) is type(self) else NotImplemented


def _hash(self: Any) -> int:
    return hash(_values(self))


def _setattr(self: Any, name: str, value: Any) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _delattr(self: Any, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


_METHODS: dict[str, Callable[..., Any]] = {
    "__init__": _init,
    "__repr__": _repr,
    "__eq__": _eq,
    "__hash__": _hash,
    "__setattr__": _setattr,
    "__delattr__": _delattr,
}
