"""Between the schema's dataclasses, protobuf's messages and JSON: field by field, by name.

An enum of a message is text in a dataclass: IMAGE_FORMAT_PNG is "png", the unspecified value the field's default.
A timestamp is seconds. A oneof is a field whose type is a union, its members in the oneof's order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from types import NoneType
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args, get_origin, get_type_hints

from craft_protos.reasons import CraftError, invalid

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp

T = TypeVar("T")
M = TypeVar("M", bound="Message")

_Descriptor = Any  # protobuf has two classes of each, of which its stubs name one

_MEANINGS: dict[Any, str] = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
_TIMESTAMP = "google.protobuf.Timestamp"
_MAX_SHOWN = 40  # characters of a value in a message


def to_message(value: Any, message: M, kind: Any = None) -> M:
    """Fills the message with the fields of a dataclass, or of one that it extends, `kind`; None is left out.

    Raises INVALID_FIELD for what the message cannot carry.
    """
    declared: Any = kind or type(value)
    for name, hint in hints_of(declared).items():
        if (found := getattr(value, name)) is not None:
            _put(message, _to_field(message, name, hint, type(found)), hint, found)
    return message


def from_message(kind: Callable[..., T], message: Message) -> T:
    """Raises INVALID_FIELD for an enum's number that has no name, and for a oneof of which nothing is set."""
    arguments = {}
    for name, hint in hints_of(kind).items():
        field, has_default = _from_field(message, name), _fields_of(kind)[name].default is not MISSING
        if has_default and not _is_set(message, field):
            continue
        member = hint if field.name == name else get_args(hint)[field.containing_oneof.fields.index(field)]
        arguments[name] = _of_message(member, field, getattr(message, field.name))
    return kind(**arguments)


def to_json(value: Any) -> dict[str, Any]:
    """What json.dumps takes."""
    return dataclasses.asdict(value)


def from_json(kind: Callable[..., T], known: Mapping[str, Any]) -> T:
    """What is null is left out. Raises INVALID_FIELD for a value that is not of its field's type."""
    return kind(**{name: field_of_json(kind, name, value) for name, value in known.items() if value is not None})


def field_of_json(kind: Any, name: str, value: Any) -> Any:
    """One field's value. Raises INVALID_FIELD where it is not of the field's type, or none of its choices."""
    choices = getattr(rule_of(kind, name), "values", ())
    if choices and value not in choices:
        raise invalid(name, f"must be {' or '.join(filter(None, choices))}")
    return _of_json(name, hints_of(kind)[name], value)


@cache
def hints_of(kind: Any) -> dict[str, Any]:
    """The types of a dataclass's fields; of those that may be None, the other one."""
    return {name: _without_none(hint) for name, hint in get_type_hints(kind).items()}


def rule_of(kind: Any, name: str) -> Any:
    """The rule of a dataclass's field; None where it has none."""
    return _fields_of(kind)[name].metadata.get("rule")


def enum_name(enum: _Descriptor, number: int) -> str | None:
    """ "png" of IMAGE_FORMAT_PNG; None for a number that the enum does not have."""
    found = enum.values_by_number.get(number)
    return None if found is None else str(found.name).removeprefix(_prefix(enum)).lower()


def out_of_range(name: str, value: Any) -> CraftError:
    if value < 0:
        return invalid(name, f"{shortened(value)} is too small", "give a number from 0 up")
    return invalid(name, f"{shortened(value)} is too large", "give a smaller one")


def shortened(value: object) -> str:
    """A value of any length, for a message."""
    text = str(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def _put(message: Message, field: _Descriptor, hint: Any, value: Any) -> None:
    if field.is_repeated:
        inside = next(iter(get_args(hint)), None)
        for one in value:
            _put_one(message, field, one, inside if is_dataclass(inside) else None)
    elif field.message_type is None:
        _put_one(message, field, value)
    else:
        inside = getattr(message, field.name)
        inside.SetInParent()
        if field.message_type.full_name == _TIMESTAMP:
            _put_time(inside, value)
        else:
            with _inside(field.name, isinstance(hint, type)):
                to_message(value, inside, hint if is_dataclass(hint) else None)


def _put_one(message: Message, field: _Descriptor, value: Any, kind: Any = None) -> None:
    name = field.name
    try:
        if field.message_type is not None:
            to_message(value, getattr(message, name).add(), kind)
        elif field.is_repeated:
            getattr(message, name).append(value)
        elif field.enum_type is not None:
            setattr(message, name, _enum_value(name, field.enum_type, value))
        else:
            setattr(message, name, value)
    except UnicodeEncodeError as error:
        raise invalid(name, "not valid text (it is not UTF-8)") from error
    except ValueError as error:  # what a protobuf integer cannot hold
        raise out_of_range(name, value) from error


def _enum_value(name: str, enum: _Descriptor, value: str) -> str:
    known = f"{_prefix(enum)}{(value or 'unspecified').upper()}"
    if known not in enum.values_by_name:
        raise invalid(name, f"must be one of {', '.join(_names(enum))}, not {shortened(value)!r}")
    return known


def _put_time(message: Timestamp, seconds: float) -> None:
    message.seconds = int(seconds // 1)
    message.nanos = min(999_999_999, round((seconds % 1) * 1e9))


def _to_field(message: Message, name: str, hint: Any, kind: type) -> _Descriptor:
    """Where a value of that type goes: the field of that name, or one of the oneof of that name."""
    descriptor = message.DESCRIPTOR
    if name in descriptor.fields_by_name:
        return descriptor.fields_by_name[name]
    return descriptor.oneofs_by_name[name].fields[get_args(hint).index(kind)]


def _from_field(message: Message, name: str) -> _Descriptor:
    descriptor = message.DESCRIPTOR
    if name in descriptor.oneofs_by_name:
        name = message.WhichOneof(name) or _refuse_missing(name)
    return descriptor.fields_by_name[name]


def _refuse_missing(name: str) -> str:
    raise invalid(name, "is missing", "say what to draw or to train")


def _is_set(message: Message, field: _Descriptor) -> bool:
    """False where the dataclass's default holds."""
    if field.has_presence:
        return message.HasField(field.name)
    return field.enum_type is None or getattr(message, field.name) != 0


def _of_message(hint: Any, field: _Descriptor, value: Any) -> Any:
    if field.is_repeated:
        inside: Any = get_args(hint)[0]
        return tuple(from_message(cast(Any, inside), one) for one in value) if is_dataclass(inside) else tuple(value)
    if field.enum_type is not None:
        name = enum_name(field.enum_type, value)
        if name is None:
            raise invalid(field.name, f"{value} is none of {', '.join(_names(field.enum_type))}")
        return name
    if field.message_type is None:
        return value
    if field.message_type.full_name == _TIMESTAMP:
        return value.seconds + value.nanos / 1e9
    return from_message(hint, value)


def _of_json(name: str, hint: Any, value: Any) -> Any:
    if get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise invalid(name, "must be a list")
        return tuple(_of_json(name, get_args(hint)[0], one) for one in value)
    if is_dataclass(hint):
        return _object_of_json(name, hint, value)
    if hint is float and type(value) is int:
        try:
            return float(value)
        except OverflowError as error:
            raise out_of_range(name, value) from error
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise invalid(name, f"must be {_MEANINGS[hint]}")
    return value


def _object_of_json(name: str, hint: Any, value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise invalid(name, "must be an object")
    for one in value:
        if one not in hints_of(hint):
            raise invalid(f"{name}.{shortened(one)}", "no such field", f"known: {', '.join(hints_of(hint))}")
    with _inside(name):
        return from_json(hint, value)
    raise AssertionError("unreachable")


@contextmanager
def _inside(name: str, is_named: bool = True) -> Iterator[None]:
    """What is wrong with a field of an object's is told by a name such as start.strength; of a oneof's by its own."""
    try:
        yield
    except CraftError as error:
        if not is_named:
            raise
        message = error.message.removeprefix(f"{error.field}: ")
        raise invalid(f"{name}.{error.field}", message, error.hint) from error


def _without_none(hint: Any) -> Any:
    """`int` of `int | None`; a union of several dataclasses stays one."""
    rest = [one for one in get_args(hint) if one is not NoneType]
    return rest[0] if NoneType in get_args(hint) and len(rest) == 1 else hint


@cache
def _fields_of(kind: Any) -> dict[str, Field[Any]]:
    return {field.name: field for field in fields(kind)}


def _prefix(enum: _Descriptor) -> str:
    return str(enum.values[0].name).removesuffix("UNSPECIFIED")


def _names(enum: _Descriptor) -> list[str]:
    return [name for value in enum.values[1:] if (name := enum_name(enum, value.number))]
