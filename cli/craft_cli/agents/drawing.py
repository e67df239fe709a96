"""One tool call that draws: asked as a batch's line asks, followed to its end, its pictures kept in the folder."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from craft_protos import config
from craft_protos.agents import MOST_PICTURES, SHOWN_BYTES, SHOWN_SIDE
from craft_protos.generate import GenerateRequest

from craft_cli.agents import places
from craft_cli.connection.session import Session
from craft_cli.generate import drawing
from craft_cli.generate import spec as specs
from craft_cli.generate.inputs import Pictures
from craft_cli.render import shapes

if TYPE_CHECKING:
    from craft_protos import images_pb2, jobs_pb2

_PICTURES_NAMED = ("image", "mask")

Tell = Callable[[float, float, str], None]  # done, of, what


@dataclass(frozen=True)
class Drawn:
    """A picture that a call made: where it lies, and how it is shown to the client."""

    told: dict[str, Any]
    shown: str  # base64
    media_type: str


@dataclass
class Call:
    """One call's job, so that it can be cancelled from outside."""

    session: Session
    folder: Path
    roots: Sequence[Path]
    job_id: str = ""
    is_cancelled: bool = False
    _drawn: list[Drawn] = field(default_factory=list)

    def plan(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The plan of the request, as `craft generate --plan --json` tells it."""
        request = self._request(asked, lease=False)
        return shapes.plan(drawing.insist(self.session, lambda client: client.plan_job(request)), [])

    def draw(self, asked: dict[str, Any], tell: Tell) -> list[Drawn]:
        """Until all pictures are there. Raises what went wrong, CANCELLED among it."""
        request = self._request(asked, lease=True)
        job = drawing.submit(self.session, request)
        self.job_id = job.id
        if self.is_cancelled:
            self.cancel()
        progress = _Progress(tell)
        for event in drawing.follow(self.session, job.id):
            progress.note(event)
            if event.WhichOneof("event") == "finished":
                job = event.finished.job
        drawing.require_success(job)
        return [self._keep(job, image) for image in sorted(job.images, key=lambda image: image.index)]

    def cancel(self) -> None:
        """From another thread: what waits for the job hears of its end."""
        self.is_cancelled = True
        if self.job_id:
            self.session.client.cancel_job(self.job_id)

    def _request(self, asked: dict[str, Any], *, lease: bool) -> jobs_pb2.CreateJobRequest:
        given = {name: value for name, value in asked.items() if value is not None}
        for name in _PICTURES_NAMED:
            if name in given and not places.is_id(given[name]):
                given[name] = places.readable(given[name], self.roots)
        if "refs" in given:
            given["refs"] = [one if places.is_id(one) else places.readable(one, self.roots) for one in given["refs"]]
        settings = config.load(self.session.paths.config_file).generate
        wanted, _, wish = specs.from_line(json.dumps(given), GenerateRequest())
        specs.require_at_most(wanted, MOST_PICTURES)
        pictures = Pictures(self.session)
        wanted = specs.with_sides(pictures.attach(specs.with_settings(wanted, settings), wish), settings.sides)
        pictures.send(wanted)
        if not (wanted.upscale and not wanted.prompt):
            wanted = specs.with_default_model(wanted, settings.model)
        seed = drawing.new_seed() if wanted.seed is None else wanted.seed
        return specs.request(replace(wanted, seed=seed), lease=lease)

    def _keep(self, job: jobs_pb2.Job, image: images_pb2.Image) -> Drawn:
        data = drawing.fetch(self.session, image)
        extension = image.media_type.partition("/")[2] or "png"
        path = places.keep(self.folder, job.generate.prompt, image.seed, extension, data)
        told = {"path": str(path), "id": image.id, "job": job.id, "seed": image.seed, "model": job.generate.model}
        told |= {"width": image.width, "height": image.height}
        return Drawn(told, *_shown(data, image.media_type))


class _Progress:
    """Counts a job's steps over all its images."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._steps: dict[int, tuple[int, int]] = {}

    def note(self, event: jobs_pb2.JobEvent) -> None:
        match event.WhichOneof("event"):
            case "step":
                self._steps[event.step.index] = (event.step.step, event.step.of)
                done, of = (sum(one) for one in zip(*self._steps.values(), strict=True))
                self._tell(done, of, f"step {done} of {of}")
            case "loading":
                self._tell(0, 1, f"loading {event.loading.model}")
            case "queued" if event.queued.position or event.queued.why:
                self._tell(0, 1, event.queued.why or f"{event.queued.position} ahead")


def _shown(data: bytes, media_type: str) -> tuple[str, str]:
    """The picture for the client, smaller where it is large: (base64, media type)."""
    if len(data) > SHOWN_BYTES:
        from PIL import Image

        with Image.open(io.BytesIO(data)) as picture:
            picture.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
            smaller = io.BytesIO()
            picture.convert("RGB").save(smaller, "JPEG", quality=90)
        data, media_type = smaller.getvalue(), "image/jpeg"
    return base64.b64encode(data).decode("ascii"), media_type
