"""A call of CreateJob. The fields are jobs.proto's."""

from __future__ import annotations

from craft_protos.frozen import dataclass
from craft_protos.generate import GenerateRequest
from craft_protos.rules import Choice, ruled
from craft_protos.train import TrainRequest


@dataclass(frozen=True)
class JobRequest:
    """`request_id` is the client's: the same one with the same body is the same job."""

    request_id: str
    spec: GenerateRequest | TrainRequest
    expire_time: float | None = None  # seconds since 1970; not begun if its turn comes later
    priority: str = ruled("interactive", Choice(("interactive", "batch")))
    lease: bool = False  # cancelled when nobody has watched it for a while
    public: bool = False  # whoever has an image's id may see it
    webhook: str = ""  # a URL that hears of the job's end
