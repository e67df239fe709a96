"""What is written for TensorBoard is what its own messages say; TensorBoard itself reads it where it is installed."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from craft_cli.training import tensorboard
from craft_protos.training_pb2 import TrainingStep
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_KINDS = descriptor_pb2.FieldDescriptorProto
STEPS = [
    TrainingStep(step=1, of=300, loss=0.5, learning_rate=1e-4),
    TrainingStep(step=300, of=300, loss=0.25, learning_rate=5e-5, validation_loss=0.75),
]


def _messages() -> type:
    """tensorflow's Event with the fields that are used, by protobuf's own library."""
    file = descriptor_pb2.FileDescriptorProto(name="event.proto", package="t", syntax="proto3")
    for name, fields in {
        "Value": (("tag", 1, _KINDS.TYPE_STRING), ("simple_value", 2, _KINDS.TYPE_FLOAT)),
        "Summary": (("value", 1, "Value"),),
        "Event": (
            ("wall_time", 1, _KINDS.TYPE_DOUBLE),
            ("step", 2, _KINDS.TYPE_INT64),
            ("file_version", 3, _KINDS.TYPE_STRING),
            ("summary", 5, "Summary"),
        ),
    }.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            made = message.field.add(name=field, number=number, label=_KINDS.LABEL_OPTIONAL)
            if isinstance(kind, str):
                made.type, made.type_name = _KINDS.TYPE_MESSAGE, f".t.{kind}"
            else:
                made.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Event"))


def test_records_hold_the_messages() -> None:
    data, found, event = tensorboard.events(STEPS, 1.5), [], _messages()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        assert data[8:12] == tensorboard._masked(data[:8])
        body, data = data[12 : 12 + length], data[12 + length :]
        assert data[:4] == tensorboard._masked(body)
        found.append(event.FromString(body))
        data = data[4:]
    assert (found[0].file_version, found[0].wall_time) == ("brain.Event:2", 1.5)
    assert [(one.step, one.summary.value.tag) for one in found[1:]] == [
        *(
            (1, "loss/train"),
            (1, "learning_rate"),
            (300, "loss/train"),
            (300, "learning_rate"),
            (300, "loss/validation"),
        )
    ]
    assert [one.summary.value.simple_value for one in found if one.step == 300][::2] == [0.25, 0.75]


def test_the_checksum_is_the_published_one() -> None:
    assert tensorboard.crc32c(b"123456789") == 0xE3069283
    assert tensorboard.crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4


def test_tensorboard_reads_it(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (tmp_path / "events.out.tfevents.1.x").write_bytes(tensorboard.events(STEPS, 1.0))
    found = reader.EventAccumulator(str(tmp_path))
    found.Reload()
    assert [(one.step, one.value) for one in found.Scalars("loss/train")] == [(1, 0.5), (300, 0.25)]
