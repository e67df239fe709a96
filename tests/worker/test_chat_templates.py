"""A stranger's chat template: what it makes is what transformers makes, and it does no harm."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft_protos.reasons import CraftError
from craft_protos.worker_pb2 import ModelManifest
from craftd.models import choosing
from craftd.worker.inspection import chat
from craftd.worker.models.chat_templates import Framed

from tests import tiny_flows, tiny_models
from tests.worker.client import WorkerProcess, pixels, put_model, submit
from tests.worker.families import Truth, assert_same
from tests.worker.test_inspect import inspect

PLAIN = "{% for message in messages %}<{{ message.role }}>{{ message.content }}</>{% endfor %}"
GOOD = {
    "plain": PLAIN,
    "trimmed": "{% for message in messages %}[{{ message['content'] | trim }}]{% endfor %}",
    "trimmed on the left": "{%- for message in messages -%} {{ message.content.lstrip() }}| {%- endfor -%}",
    "thinking": PLAIN + "{% if add_generation_prompt %}<a>{% if enable_thinking is defined %}{{ enable_thinking }}"
    "{% endif %}{% endif %}",
    "of parts": "{% for message in messages %}{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}{% endif %}"
    "{% endfor %}",
    "looking back": "{% set ns = namespace(last=-1) %}{% for message in messages[::-1] %}"
    "{% if ns.last < 0 and message.role == 'user' %}{% set ns.last = (messages | length) - 1 - loop.index0 %}"
    "{% endif %}{% endfor %}{{ ns.last }}{{ messages[ns.last].content }}{{ eos_token }}",
    "with a rule": "{{ '-' * 20 }}{{ messages[-1].content }}{% if messages | length % 2 %}odd{% endif %}",
}
SAID = {
    "one message": [{"role": "user", "content": "a red cat"}],
    "white space": [{"role": "user", "content": "\n  a red cat \t"}],
    "marks and braces": [{"role": "user", "content": "\ue0000\ue001 {{ 7 * 7 }} \\1 \x0b"}],
    "a system": [{"role": "system", "content": " be kind "}, {"role": "user", "content": "a cat"}],
    "parts": [{"role": "user", "content": [{"type": "text", "text": " a cat"}]}],
}
HOSTILE = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "loops over words": "{% for i in range(90000) %}{% for a in messages[0].content * 800 %}{% endfor %}{% endfor %}",
    "doubling": "{% set ns = namespace(x='ab') %}{% for i in range(80) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "doubling lists": "{% set ns = namespace(x=[1]) %}{% for i in range(80) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "powers": "{{ 10 ** 10 ** 10 }}",
    "repeating": "{{ 'a' * 10000000000 }}",
    "repeating lists": "{{ 3000000000 * [1] }}",
    "filling up": "{{ '%1000000000d' % 1 }}",
    "much": "{% for i in range(90000) %}{{ messages }}{{ messages }}{% endfor %}",
    "itself": "{% macro f(n) %}{{ f(n + 1) }}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "classes": "{{ messages.__class__.__mro__[1].__subclasses__() }}",
    "code": "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "long": "{# " + "x" * 300_000 + " #}",
}


@pytest.mark.parametrize("said", SAID)
@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("how", [{}, {"add_generation_prompt": True, "enable_thinking": False}], ids=str)
def test_the_text_is_transformers_own(name: str, said: str, how: dict[str, Any]) -> None:
    if said == "parts" and name not in ("of parts", "plain"):
        pytest.skip("transformers refuses it too")
    tokenizer = tiny_flows.tokenizer()
    tokenizer.chat_template = GOOD[name]
    expected = tokenizer.apply_chat_template(SAID[said], tokenize=False, **how)
    if said == "parts" and name == "plain":  # the list itself is written down
        with pytest.raises(CraftError, match="words in a frame"):
            _framed(tokenizer)(SAID[said], tokenize=False, **how)
        return
    assert _framed(tokenizer)(SAID[said], tokenize=False, **how) == expected


def test_batches_and_tokens() -> None:
    tokenizer = tiny_flows.tokenizer()
    batch = [SAID["one message"], SAID["a system"]]
    how = {"tokenize": True, "padding": True, "return_dict": True, "return_tensors": "np"}
    expected = tokenizer.apply_chat_template(batch, **how)
    found = _framed(tokenizer)(batch, **how)
    assert np.array_equal(found["input_ids"], expected["input_ids"])
    assert np.array_equal(found["attention_mask"], expected["attention_mask"])


def test_a_frame_is_rendered_once() -> None:
    """However many prompts there are."""
    calls = []
    tokenizer = tiny_flows.tokenizer()

    def render(name: str, template: str, given: str) -> str:
        calls.append(given)
        return chat.render(name, template, json.loads(given))

    framed = Framed(tokenizer, "model", render)
    assert [framed([{"role": "user", "content": text}], tokenize=False)[:8] for text in "abc"] == [
        f"<user>\n{text}" for text in "abc"
    ]
    assert len(calls) == 1


@pytest.mark.parametrize("template", ["{{ messages[0].content[:3] }}", "{{ messages[0].content | tojson }}", "nothing"])
def test_what_is_no_frame_is_refused(template: str) -> None:
    tokenizer = tiny_flows.tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(CraftError, match="words in a frame"):
        _framed(tokenizer)(SAID["one message"], tokenize=False)


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_models.cached("z-image"), tmp_path / "stranger"))


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_templates_are_refused(stranger: Path, name: str) -> None:
    (stranger / "tokenizer" / chat.FILE).write_text(HOSTILE[name])
    assert inspect(stranger)["reason"] in ("UNSAFE_CONFIG", "CORRUPT_FILE")


@pytest.mark.parametrize("spoil", [lambda template: template, lambda template: [{"name": "x", "template": template}]])
def test_hostile_templates_in_a_configuration_are_refused(stranger: Path, spoil: Callable[[str], Any]) -> None:
    path = stranger / "tokenizer" / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": spoil(HOSTILE["loops"])}))
    assert inspect(stranger)["reason"] == "UNSAFE_CONFIG"


@pytest.mark.parametrize("name", GOOD)
def test_good_templates_pass(stranger: Path, name: str) -> None:
    (stranger / "tokenizer" / chat.FILE).write_text(GOOD[name])
    assert inspect(stranger)["reason"] == ""


def test_a_model_with_a_hostile_one_fails_its_job_alone(
    worker: WorkerProcess, stranger: Path, files: Path, models: dict[str, ModelManifest], flow_truth: Truth
) -> None:
    """Where nobody has checked it before."""
    (stranger / "tokenizer" / chat.FILE).write_text(HOSTILE["loops"])
    failed = worker.fail(submit(put_model(stranger, files, "hostile")))
    assert failed.error.reason == "UNSAFE_CONFIG"
    (image,) = worker.draw(submit(models["z-image"]))
    assert_same(pixels(image), flow_truth("z-image"))


def test_it_is_one_of_a_parts_files() -> None:
    """That is fetched, listed and handed to a worker; others of its kind are not."""
    names = ["merges.txt", "tokenizer_config.json", "chat_template.jinja", "tool_use.jinja", "README.md"]
    assert choosing.of_part(names, "tokenizer") == ["merges.txt", "tokenizer_config.json", "chat_template.jinja"]


def _framed(tokenizer: Any) -> Framed:
    return Framed(tokenizer, "model", lambda name, template, given: chat.render(name, template, json.loads(given)))
