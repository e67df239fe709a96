"""Options and batch lines become CreateJob's fields, or an error that names the field."""

from __future__ import annotations

import pytest
from craft_cli.spec import Spec, format_of, from_line, request
from craft_protos import jobs_pb2
from craft_protos.reasons import CraftError

DEFAULTS = Spec(model="pocket", steps=20)


def test_a_plain_line_is_a_prompt() -> None:
    assert from_line("a red apple", DEFAULTS) == (Spec(prompt="a red apple", model="pocket", steps=20), "")


def test_a_json_line_has_the_names_of_the_contract() -> None:
    line = (
        '{"prompt": "x", "negative_prompt": "y", "model": "m", "width": 64, "height": 32, "steps": 4, '
        '"guidance_scale": 3, "seed": 9, "count": 2, "sampler": "DDIM", "format": "jpg", "deterministic": true, '
        '"request_id": "r1"}'
    )
    spec, request_id = from_line(line, DEFAULTS)
    message = request(spec, lease=True, batch=True, request_id=request_id)
    assert message.request_id == "r1"
    assert message.priority == jobs_pb2.PRIORITY_BATCH
    generate = message.generate
    assert (generate.prompt, generate.negative_prompt, generate.model) == ("x", "y", "m")
    assert (generate.width, generate.height, generate.steps, generate.guidance_scale) == (64, 32, 4, 3.0)
    assert (generate.seed, generate.count, generate.sampler, generate.deterministic) == (9, 2, "DDIM", True)
    assert format_of(generate.format) == "jpeg"


def test_every_name_that_a_line_may_use_is_one_of_the_contract() -> None:
    known = {field.name for field in jobs_pb2.GenerateSpec.DESCRIPTOR.fields}
    assert set(vars(Spec())) <= known


@pytest.mark.parametrize(
    ("line", "reason", "told"),
    [
        ('{"prompt": ', "BAD_DATA", "not valid JSON"),
        ("{" * 100_000, "BAD_DATA", "not valid JSON"),
        ('{"promt": "x"}', "INVALID_FIELD", "promt"),
        ('{"prompt": 3}', "INVALID_FIELD", "prompt"),
        ('{"steps": "4"}', "INVALID_FIELD", "steps"),
        ('{"steps": true}', "INVALID_FIELD", "steps"),
        ('{"steps": 1.5}', "INVALID_FIELD", "steps"),
        ('{"format": "gif"}', "INVALID_FIELD", "format"),
        ('{"deterministic": 1}', "INVALID_FIELD", "deterministic"),
        ('{"request_id": 1}', "INVALID_FIELD", "request_id"),
        ('{"prompt": null}', "INVALID_FIELD", "prompt"),
    ],
)
def test_a_bad_line_names_what_is_wrong(line: str, reason: str, told: str) -> None:
    with pytest.raises(CraftError) as caught:
        from_line(line, DEFAULTS)
    assert caught.value.reason == reason
    assert told in caught.value.message
    assert caught.value.exit_code == 65


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        (Spec(width=-8), "width"),
        (Spec(height=2**40), "height"),
        (Spec(steps=-1), "steps"),
        (Spec(seed=2**64), "seed"),
        (Spec(count=0), "count"),
        (Spec(count=-3), "count"),
        (Spec(prompt="\udcff"), "prompt"),
    ],
)
def test_what_the_contract_cannot_carry_names_the_field(spec: Spec, name: str) -> None:
    with pytest.raises(CraftError) as caught:
        request(spec.with_seed(), lease=False)
    assert caught.value.message.startswith(f"{name}: ")
    assert caught.value.exit_code == 65


def test_seed_and_request_id_are_always_the_clients() -> None:
    one, two = (request(Spec(prompt="x").with_seed(), lease=True) for _ in range(2))
    assert one.request_id and one.request_id != two.request_id
    assert one.generate.HasField("seed")
    assert Spec(seed=0).with_seed().seed == 0
