"""A job's LoRAs, on their way to the worker."""

from __future__ import annotations

from craftd.jobs.job import GenerateSpec
from craftd.loras.lora import Lora
from craftd.loras.service import LoraService
from craftd.store.disk import unwritable
from craftd.supervisor.supervisor import Supervisor


async def verified(spec: GenerateSpec, service: LoraService) -> list[Lora]:
    """In the spec's order, their files being what they were. Raises UNKNOWN_LORA, NO_INPUT, CORRUPT_FILE."""
    return [await service.verified(use.sha256) for use in spec.loras]


def provide(loras: list[Lora], supervisor: Supervisor) -> None:
    """Give the worker their files. Raises DISK_FULL, STORAGE_FAILED."""
    for lora in loras:
        try:
            supervisor.put_file(lora.sha256, lora.place.path)
        except OSError as exc:
            raise unwritable(lora.place.path, "the worker's link to it", exc) from exc
