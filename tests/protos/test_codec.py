"""The schema's dataclasses and the contract's messages are one and the same, field by field."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from craft_protos import jobs_pb2, training_pb2
from craft_protos.codec import enum_name, from_json, from_message, hints_of, rule_of, to_json, to_message
from craft_protos.generate import GenerateRequest, GenerateSpec, Mask, Start, public_json
from craft_protos.job_request import JobRequest
from craft_protos.lora import LoraRef
from craft_protos.reasons import CraftError
from craft_protos.train import TrainRequest, TrainSpec

_ASKED_ONLY = {"trigger_words", "default_model"}  # a request's fields that nothing is left of in a spec
_SCHEMA = [
    (GenerateRequest, jobs_pb2.GenerateSpec, {"expanded"}),
    (GenerateSpec, jobs_pb2.GenerateSpec, _ASKED_ONLY),
    (TrainRequest, training_pb2.TrainSpec, {"base_lora_sha256"}),
    (TrainSpec, training_pb2.TrainSpec, set()),
    (LoraRef, jobs_pb2.LoraUse, set()),
    (Start, jobs_pb2.Start, set()),
    (Mask, jobs_pb2.Mask, set()),
]
_CPP_TYPES = {bool: ("BOOL",), int: ("INT32", "UINT32", "INT64", "UINT64"), float: ("DOUBLE",), str: ("STRING", "ENUM")}


@pytest.mark.parametrize(("kind", "message", "left_out"), _SCHEMA)
def test_a_dataclass_has_the_fields_of_its_message(kind: Any, message: Any, left_out: set[str]) -> None:
    fields = message.DESCRIPTOR.fields_by_name
    assert hints_of(kind).keys() == set(fields) - left_out
    for name, hint in hints_of(kind).items():
        is_list = get_origin(hint) is tuple
        assert fields[name].is_repeated == is_list, name
        if fields[name].message_type is None:
            types = _CPP_TYPES[get_args(hint)[0] if is_list else hint]
            assert fields[name].cpp_type in {getattr(fields[name], f"CPPTYPE_{one}") for one in types}, name


@pytest.mark.parametrize(("kind", "message", "left_out"), _SCHEMA)
def test_what_may_be_unset_in_a_request_has_presence_in_its_message(kind: Any, message: Any, left_out: Any) -> None:
    optional = {field.name for field in dataclasses.fields(kind) if field.default is None}
    present = {field for field in message.DESCRIPTOR.fields if field.has_presence}
    if kind in (GenerateSpec, TrainSpec):  # resolved: what is not there at all may be missing, a number may not
        present = {field for field in present if field.message_type is not None}
    assert optional <= {field.name for field in present}
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    assert all(defaults[field.name] for field in present if field.name not in optional), "0 would be what is not said"


@pytest.mark.parametrize("name", ["format", "lora_missing"])
def test_the_choices_of_a_field_are_the_values_of_its_enum(name: str) -> None:
    enum = jobs_pb2.GenerateSpec.DESCRIPTOR.fields_by_name[name].enum_type
    values = {enum_name(enum, value.number) for value in enum.values[1:]}
    assert values == set(rule_of(GenerateRequest, name).values) - {""}


REQUEST = GenerateRequest(
    "a red apple", width=64, guidance_scale=3.5, seed=0, count=2, format="jpeg", indices=(0, 1), lora_missing="skip",
    loras=(LoraRef("it"), LoraRef("other", 0.5)), trigger_words=True,
)  # fmt: skip
SPEC = GenerateSpec(
    "a red apple", "", "flat", 64, 64, 4, 3.5, 0, 2, "Euler", "png", False, (1,), (LoraRef("a1", 0.5, "it", "f" * 64),)
)


@pytest.mark.parametrize("value", [REQUEST, GenerateRequest(), SPEC, LoraRef("it", 0.0)])
def test_what_goes_into_a_message_or_json_comes_out_of_it(value: Any) -> None:
    message = jobs_pb2.LoraUse() if isinstance(value, LoraRef) else jobs_pb2.GenerateSpec()
    assert from_message(type(value), to_message(value, message)) == value
    assert from_json(type(value), to_json(value)) == value


@pytest.mark.parametrize("spec", [REQUEST, TrainRequest("it", rank=4, sample_prompts=("x",), resume="")])
def test_a_oneof_is_a_union(spec: Any) -> None:
    request = JobRequest("r", spec, expire_time=1.5, priority="batch", lease=True)
    message = to_message(request, jobs_pb2.CreateJobRequest())
    assert (message.expire_time.seconds, message.expire_time.nanos) == (1, 500_000_000)
    assert message.priority == jobs_pb2.PRIORITY_BATCH
    assert from_message(JobRequest, message) == request


def test_an_unspecified_value_is_the_fields_default() -> None:
    read = from_message(GenerateRequest, jobs_pb2.GenerateSpec(prompt="x"))
    assert (read.format, read.lora_missing, read.width, read.count) == ("", "fail", None, 0)


def test_a_number_that_is_none_of_an_enums_is_refused_by_its_fields_name() -> None:
    with pytest.raises(CraftError, match="format: 7 is none of png, jpeg, webp"):
        from_message(GenerateRequest, jobs_pb2.GenerateSpec(format=7))  # type: ignore[arg-type]


def test_a_spec_that_was_stored_before_a_field_joined_is_read() -> None:
    stored = {name: value for name, value in to_json(SPEC).items() if name not in ("loras", "lora_missing")}
    assert from_json(GenerateSpec, stored) == dataclasses.replace(SPEC, loras=(), lora_missing="fail")


def test_a_spec_is_told_under_the_names_that_programs_rely_on() -> None:
    told = public_json(SPEC)
    assert "indices" not in told
    assert told["loras"] == [{"id": "a1", "name": "it", "sha256": "f" * 64, "weight": 0.5}]


def test_clip_skip_is_made_again() -> None:
    from craft_protos.dispatch import Dispatch, ModelManifest
    from craft_protos.provenance import record, request

    job = Dispatch("j", 1, dataclasses.replace(SPEC, clip_skip=2), ModelManifest("flat"))
    made = record(job, 1, (), {})
    assert (made["clip_skip"], made["seed"], made["index"], "count" in made) == (2, 1, 1, False)
    again = request(made | {"count": 2, "craft": "0"}, ())
    assert (again.clip_skip, again.seed, again.count, again.indices) == (2, 1, 1, ())
    assert request({name: value for name, value in made.items() if name != "clip_skip"}, ()).clip_skip is None


def test_a_dataclass_that_extends_the_schemas_goes_as_what_its_field_is_declared_to_be() -> None:
    from craft_protos.dispatch import Load, ModelFile
    from craft_protos.frames import to_worker
    from craftd.models.model import Manifest

    manifest = Manifest("flat", files=(ModelFile("a", "b", 1),), sources=(Path("a"),))
    sent = to_worker(Load(manifest)).load.model
    assert (sent.name, [file.path for file in sent.files]) == ("flat", ["a"])
