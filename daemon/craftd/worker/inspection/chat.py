"""Chat templates: programs of strangers' that make one text of a conversation. They are bounded in length and time.

transformers runs them in a sandbox that no bound holds, and with every prompt. Here one is rendered in a process that
may be ended (`--inspect --chat`), with marks in the places of a prompt's words; `worker/models/chat_templates.py` puts
the words where the marks are.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from craft_protos.reasons import CraftError
from jinja2 import TemplateError
from jinja2.exceptions import SecurityError, TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from craftd import documents
from craftd.documents import File
from craftd.refusal import shown, unsafe_config, unsupported

FILE = "chat_template.jinja"  # beside a tokenizer
_KEY = "chat_template"  # of a configuration
_MOST_CHARACTERS = 64 << 10  # a tokenizer for agents has 20,000
_MOST_RENDERED = 256 << 10  # characters
_LIMIT_S = 5.0  # of computing; a good one takes a thousandth
_MOST_REPEATED = 4096
_ASKED: dict[str, object] = {"messages": [{"role": "user", "content": "a cat"}], "add_generation_prompt": True}


def is_one(file: File) -> bool:
    return file.base == FILE


def check(file: File) -> None:
    """A file that is one. Raises UNSAFE_CONFIG, CORRUPT_FILE, UNSUPPORTED_MODEL."""
    if file.size_bytes > 4 * _MOST_CHARACTERS:
        raise unsafe_config(file.name, f"a chat template of {file.size_bytes} bytes")
    _check(file.name, file.read(0, file.size_bytes).decode("utf-8", "replace"))


def check_configuration(file: File) -> None:
    """Those that a configuration holds, by name or alone. Raises as `check`."""
    found = documents.read(file).get(_KEY)
    for one in found if isinstance(found, list) else [found]:
        template = one.get("template") if isinstance(one, dict) else one
        if template is not None:
            _check(file.name, template if isinstance(template, str) else "{{ neither text nor list }}")


def render(name: str, template: str, given: Mapping[str, object]) -> str:
    """The text. Raises UNSAFE_CONFIG for one that takes too long, and UNSUPPORTED_MODEL for what it cannot do."""
    if len(template) > _MOST_CHARACTERS:
        raise unsafe_config(name, f"a chat template of {len(template)} characters")
    try:
        with _limited(name):
            text = "".join(_at_most(_environment().from_string(template).generate(**given), name))
    except SecurityError as exc:
        raise unsafe_config(name, f"its chat template asks for what none needs: {shown(str(exc))}") from exc
    except TemplateSyntaxError as exc:
        raise unsupported(name, f"its chat template is none: {shown(str(exc))}") from exc
    except (TemplateError, TypeError, ValueError, KeyError, IndexError, AttributeError, ArithmeticError) as exc:
        raise unsupported(name, f"its chat template fails: {shown(str(exc))}") from exc
    except RecursionError as exc:
        raise unsafe_config(name, "its chat template calls itself without end") from exc
    return text


def _check(name: str, template: str) -> None:
    """Whether it does harm to a conversation of one message; what it fails at may be another kind's."""
    try:
        render(name, template, _ASKED)
    except CraftError as exc:
        if exc.reason == "UNSAFE_CONFIG":
            raise


class _Environment(ImmutableSandboxedEnvironment):
    """As transformers has it, without what makes much of little."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        are_numbers = all(isinstance(one, int | float) for one in (left, right))
        if operator == "**" or (operator == "%" and not are_numbers):
            raise SecurityError(f"the operator {operator}")
        if operator == "*" and not are_numbers and _repeated(left, right) > _MOST_REPEATED:
            raise SecurityError("repeating without end")
        return super().call_binop(context, operator, left, right)


def _repeated(left: Any, right: Any) -> int:
    """How long a sequence times a number would be."""
    sequence, times = (right, left) if isinstance(left, int) else (left, right)
    return len(sequence) * int(times)


def _environment() -> _Environment:
    made = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    made.filters["tojson"] = _to_json
    made.globals |= {"raise_exception": _raise, "strftime_now": _now}
    return made


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _now(how: str) -> str:
    return datetime.now().strftime(how)


def _raise(message: object) -> None:
    raise TemplateError(str(message))


def _at_most(pieces: Iterator[str], name: str) -> Iterator[str]:
    left = _MOST_RENDERED
    for piece in pieces:
        left -= len(piece)
        if left < 0:
            raise unsafe_config(name, f"its chat template makes more than {_MOST_RENDERED} characters of a text")
        yield piece


@contextmanager
def _limited(name: str) -> Iterator[None]:
    """While it holds, computing for too long is interrupted; what cannot be is ended by the process's own limit."""

    def late(*_: object) -> None:
        raise unsafe_config(name, f"its chat template takes more than {_LIMIT_S:g} s")

    before = signal.signal(signal.SIGVTALRM, late)
    signal.setitimer(signal.ITIMER_VIRTUAL, _LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
