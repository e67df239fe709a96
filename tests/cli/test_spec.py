"""Options and batch lines become CreateJob's fields, or an error that names the field."""

from __future__ import annotations

import json
import re

import pytest
from craft_cli.generate.epilog import EXAMPLES
from craft_cli.generate.inputs import Wish
from craft_cli.generate.output import pictures
from craft_cli.generate.spec import Terms, from_line, request, with_seed
from craft_protos import jobs_pb2
from craft_protos.generate import GenerateRequest
from craft_protos.reasons import CraftError

DEFAULTS = GenerateRequest(model="pocket", steps=20)


def test_a_plain_line_is_a_prompt() -> None:
    assert from_line("a red apple", DEFAULTS) == (
        GenerateRequest(prompt="a red apple", model="pocket", steps=20),
        Terms(),
        Wish(),
    )


def test_a_json_line_has_the_names_of_the_contract() -> None:
    line = (
        '{"prompt": "x", "negative_prompt": "y", "model": "m", "width": 64, "height": 32, "steps": 4, '
        '"guidance_scale": 3, "seed": 9, "count": 2, "sampler": "DDIM", "format": "jpg", "deterministic": true, '
        '"request_id": "r1", "indices": [1], "expire_time": "2030-01-31T18:00:00Z", "priority": "interactive", '
        '"lease": false, "public": true}'
    )
    spec, terms, _ = from_line(line, DEFAULTS)
    message = request(spec, lease=True, batch=True, terms=terms)
    assert (message.request_id, message.lease, message.public) == ("r1", False, True)
    assert message.priority == jobs_pb2.PRIORITY_INTERACTIVE
    assert message.expire_time.ToJsonString() == "2030-01-31T18:00:00Z"
    assert list(message.generate.indices) == [1]
    assert [(picture.index, picture.seed, picture.n) for picture in pictures(spec)] == [(1, 10, 2)]
    generate = message.generate
    assert (generate.prompt, generate.negative_prompt, generate.model) == ("x", "y", "m")
    assert (generate.width, generate.height, generate.steps, generate.guidance_scale) == (64, 32, 4, 3.0)
    assert (generate.seed, generate.count, generate.sampler, generate.deterministic) == (9, 2, "DDIM", True)
    assert generate.format == jobs_pb2.IMAGE_FORMAT_JPEG


def test_a_line_that_says_nothing_of_its_job_leaves_it_to_the_command() -> None:
    spec, terms, _ = from_line('{"prompt": "x"}', DEFAULTS)
    message = request(with_seed(spec), lease=True, batch=True, terms=terms)
    assert (message.priority, message.lease) == (jobs_pb2.PRIORITY_BATCH, True)
    assert message.request_id and not message.HasField("expire_time")


def test_a_line_may_use_every_name_of_the_contract_and_help_tells_it() -> None:
    known = {field.name for field in jobs_pb2.GenerateSpec.DESCRIPTOR.fields}
    known -= {"expanded"}  # which is a job's alone
    assert set(vars(GenerateRequest())) == known
    besides = {field.name for field in jobs_pb2.CreateJobRequest.DESCRIPTOR.fields} - {"generate", "train"}
    assert set(vars(Terms())) == besides
    words = set(re.findall(r"\w+", EXAMPLES.partition("Batch:")[2]))
    assert known | besides | set(vars(Wish())) <= words


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
        ('{"indices": 1}', "INVALID_FIELD", "indices"),
        ('{"indices": [true]}', "INVALID_FIELD", "indices"),
        ('{"priority": "high"}', "INVALID_FIELD", "priority: must be interactive or batch"),
        ('{"priority": 2}', "INVALID_FIELD", "priority"),
        ('{"lease": "no"}', "INVALID_FIELD", "lease"),
        ('{"expire_time": 5}', "INVALID_FIELD", "expire_time"),
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
        (GenerateRequest(width=-8), "width"),
        (GenerateRequest(height=2**40), "height"),
        (GenerateRequest(steps=-1), "steps"),
        (GenerateRequest(seed=2**64), "seed"),
        (GenerateRequest(count=0), "count"),
        (GenerateRequest(count=-3), "count"),
        (GenerateRequest(prompt="\udcff"), "prompt"),
        (GenerateRequest(indices=(-1,)), "indices"),
        (GenerateRequest(indices=(10**400,)), "indices"),
    ],
)
def test_what_the_contract_cannot_carry_names_the_field(spec: GenerateRequest, name: str) -> None:
    with pytest.raises(CraftError) as caught:
        request(with_seed(spec), lease=False)
    assert caught.value.message.startswith(f"{name}: ")
    assert caught.value.exit_code == 65


@pytest.mark.parametrize("text", ["soon", "2030-01-31", "2030-01-31T18:00:00", "9" * 400])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(CraftError) as caught:
        from_line(json.dumps({"prompt": "x", "expire_time": text}), DEFAULTS)
    assert caught.value.message.startswith("expire_time: ") and len(caught.value.message) < 80


def test_seed_and_request_id_are_always_the_clients() -> None:
    one, two = (request(with_seed(GenerateRequest("x")), lease=True) for _ in range(2))
    assert one.request_id and one.request_id != two.request_id
    assert one.generate.HasField("seed")
    assert with_seed(GenerateRequest(seed=0)).seed == 0


@pytest.mark.parametrize(("width", "told"), [(-5, "width: -5 is too small"), (1 << 40, "is too large")])
def test_a_size_that_no_message_carries_is_told_which_way(width: int, told: str) -> None:
    with pytest.raises(CraftError, match=told) as refused:
        request(GenerateRequest(prompt="x", width=width, seed=1), lease=False)
    assert refused.value.hint
