"""A job's LoRAs, on their way to the worker."""

from __future__ import annotations

from craft_protos.reasons import CraftError

from craftd.jobs.job import GenerateSpec
from craftd.loras.lora import Lora
from craftd.loras.service import LoraService
from craftd.supervisor.supervisor import Supervisor


async def verified(spec: GenerateSpec, service: LoraService) -> list[Lora]:
    """In the spec's order, their files being what they were. Raises UNKNOWN_LORA, NO_INPUT, CORRUPT_FILE."""
    return [await service.verified(use.sha256) for use in spec.loras]


def provide(loras: list[Lora], supervisor: Supervisor) -> None:
    """Give the worker their files. Raises DISK_FULL."""
    try:
        for lora in loras:
            supervisor.put_file(lora.sha256, lora.place.path)
    except OSError as exc:
        raise CraftError("DISK_FULL", f"a LoRA's file could not be linked: {exc}", "free some space") from exc
