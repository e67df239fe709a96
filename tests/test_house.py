"""Nobody works on another's insides: what a collaborator is made of is its own affair."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import craftd

FOLDER = Path(craftd.__file__).parent
FOLDERS = ("datasets", "images", "jobs", "keys", "loras", "models", "scheduler", "training", "upkeep", "workers")
FRONT = ("serve.py", "control.py", *(f"{folder}/**/*.py" for folder in FOLDERS))
# Collaborators that are values, whose fields are there to be read: settings, messages, architectures.
VALUES = {"_settings", "model", "vitals"}


def test_no_call_goes_through_a_collaborator_to_what_it_is_made_of() -> None:
    """`self._jobs.end()` is a request; `self._jobs.queue.remove()` would be surgery."""
    assert list(_through_collaborators()) == []


def _through_collaborators() -> Iterator[str]:
    for pattern in FRONT:
        for file in sorted(FOLDER.glob(pattern)):
            for node in ast.walk(ast.parse(file.read_text())):
                chain = _chain(node.func) if isinstance(node, ast.Call) else []
                if chain[:1] == ["self"] and len(chain) > 3 and chain[1] not in VALUES:
                    yield f"{file.relative_to(FOLDER)}:{node.lineno}: {'.'.join(chain)}()"


def _chain(node: ast.expr) -> list[str]:
    """["self", "_jobs", "end"] for `self._jobs.end`; [] where it doesn't begin with a name."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return [node.id, *reversed(names)] if isinstance(node, ast.Name) else []
