"""An image: what is known of a file in the images folder."""

from __future__ import annotations

import json
from dataclasses import dataclass

from craft_protos.formats import FORMATS
from craft_protos.lora import DETAILS
from craft_protos.provenance import AppliedLora

EXTENSIONS = {one.media_type: one.extension for one in FORMATS.values()}


@dataclass(frozen=True)
class Image:
    id: str
    job_id: str
    index: int
    seed: int  # its own, not the job's
    sha256: str
    media_type: str
    width: int
    height: int
    size_bytes: int
    create_time: float
    model: str
    prompt: str
    provenance: str  # JSON, the same text as in the file
    is_favourite: bool = False
    is_public: bool = False  # whoever has its id may see it

    @property
    def file_name(self) -> str:
        return f"{self.id}.{EXTENSIONS.get(self.media_type, 'bin')}"

    @property
    def loras(self) -> tuple[AppliedLora, ...]:
        """As its provenance tells."""
        told = json.loads(self.provenance).get("loras", []) if self.provenance else []
        return tuple(
            AppliedLora(
                id=str(one.get("id", "")),
                name=str(one.get("name", "")),
                sha256=str(one.get("sha256", "")),
                weight=float(one.get("weight", 1.0)),
                matched=int(one.get("matched", 0)),
                total=int(one.get("total", 0)),
                **{name: value for name in DETAILS if (value := one.get(name)) is not None},
            )
            for one in told
        )
