"""A loaded model's chat templates, each rendered once for each kind of conversation, outside of this process.

What a template makes of a conversation is a frame with marks where the user's words belong; the words are put there.
So a template cannot look at what is said, and cannot take long when it is drawn with.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from craft_protos.reasons import CraftError

_LIMIT_S = 60.0  # of wall-clock time, on a busy machine; its own limit is of computing
_KEPT = 16  # frames
# A mark stands between white space, so that a template which trims is seen to.
_MARK = re.compile("(\x0b?)\ue000([0-9]+)\ue001(\x0b?)")
_QUOTED = "\\u000b"  # the white space in JSON
_AS_IT_IS = "{{ messages[0]['content'] }}"

Render = Callable[[str, str, str], str]  # the model's name, template, JSON of what it is given -> text


def guard(pipe: Any, model: str) -> None:
    """Have the pipeline's tokenizers and processors use frames from now on."""
    for part in pipe.components.values():
        if getattr(part, "chat_template", None) and hasattr(part, "apply_chat_template"):
            part.apply_chat_template = Framed(part, model)


class Framed:
    """Takes the place of a tokenizer's `apply_chat_template`."""

    def __init__(self, tokenizer: Any, model: str, render: Render | None = None) -> None:
        self._own = tokenizer.apply_chat_template
        self._tokenizer = tokenizer
        self._render = lru_cache(_KEPT)(render or rendered)
        self._model = model

    def __call__(self, conversation: Any, chat_template: Any = None, **how: Any) -> Any:
        """As its own; a template that is given comes from a pipeline's code. Raises what rendering raises."""
        if chat_template is not None:
            return self._own(conversation, chat_template=chat_template, **how)
        is_one = bool(conversation) and isinstance(conversation[0], Mapping)
        texts = [self._text(one, how) for one in ([conversation] if is_one else conversation)]
        said = [[{"role": "user", "content": text}] for text in texts]
        return self._own(said[0] if is_one else said, chat_template=_AS_IT_IS, **how)

    def _text(self, conversation: Any, how: Mapping[str, Any]) -> str:
        words: list[str] = []
        messages = [_marked(message, words) for message in conversation]
        seen = {key: value for key, value in how.items() if value is None or isinstance(value, str | int | float)}
        given = {"tools": None, "documents": None, "add_generation_prompt": False, **self._special_tokens, **seen}
        frame = self._render(self._model, self._template(), json.dumps({**given, "messages": messages}, sort_keys=True))
        marks = sorted(int(number) for _, number, _ in _MARK.findall(frame))
        if marks != list(range(len(words))) or _QUOTED in frame:
            raise _unframed(self._model)
        return _MARK.sub(lambda mark: _trimmed(mark, words), frame)

    def _template(self) -> str:
        choose = getattr(self._tokenizer, "get_chat_template", None)
        return str(self._tokenizer.chat_template if choose is None else choose())

    @property
    def _special_tokens(self) -> dict[str, str]:
        its = getattr(self._tokenizer, "tokenizer", self._tokenizer)  # a processor has one
        own = getattr(its, "special_tokens_map", {})
        return {key: value for key, value in own.items() if isinstance(value, str)}


def rendered(model: str, template: str, given: str) -> str:
    """By a process that may be ended. Raises UNSAFE_CONFIG, UNSUPPORTED_MODEL."""
    command = [sys.executable, "-m", "craftd.worker", "--inspect", "--chat"]
    asked = json.dumps({"name": model, "template": template, "given": json.loads(given)})
    try:
        done = subprocess.run(command, input=asked.encode(), capture_output=True, timeout=_LIMIT_S, check=True)
        answer = json.loads(done.stdout)
    except (subprocess.SubprocessError, ValueError) as exc:
        raise CraftError("UNSAFE_CONFIG", f"model {model}: its chat template has no end", "use another model") from exc
    if answer["reason"]:
        raise CraftError(answer["reason"], answer["message"], answer["hint"])
    return str(answer["text"])


def _marked(message: Any, words: list[str]) -> Any:
    """A message with marks for what a user says; that is added to `words`."""
    if message.get("role") != "user":
        return message
    content = message["content"]
    return {**message, "content": _mark(content, words) if isinstance(content, str) else list(_parts(content, words))}


def _parts(content: Any, words: list[str]) -> Iterator[Any]:
    for part in content:
        is_text = isinstance(part, Mapping) and isinstance(part.get("text"), str)
        yield {**part, "text": _mark(part["text"], words)} if is_text else part


def _mark(text: str, words: list[str]) -> str:
    words.append(text)
    return f"\x0b\ue000{len(words) - 1}\ue001\x0b"


def _trimmed(mark: re.Match[str], words: list[str]) -> str:
    before, number, after = mark.groups()
    text = words[int(number)]
    text = text if before else text.lstrip()
    return text if after else text.rstrip()


def _unframed(model: str) -> CraftError:
    why = "its chat template makes something else of a prompt than words in a frame"
    return CraftError("UNSUPPORTED_MODEL", f"model {model}: {why}", "use another model")
