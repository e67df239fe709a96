"""A job as JSON, for whoever is told of it by no face."""

from __future__ import annotations

from typing import Any

from google.protobuf.json_format import MessageToDict

from craftd.jobs.job import JobView
from craftd.rpc.mapping import job


def as_json(view: JobView) -> dict[str, Any]:
    """Its fields by jobs.proto's names."""
    return dict(MessageToDict(job(view), preserving_proto_field_name=True))
