"""Networks whose blocks have numbers that people know: those of lists of block weights."""

from __future__ import annotations

from craft_protos.lora_strength import COUNTS, FLUX_BLOCKS

from craftd.architectures.rows.flows import FLUX
from craftd.architectures.rows.unets import SD1

UNET, FLUX_TRANSFORMER = SD1.network, FLUX.network  # diffusers' classes
LENGTHS = {  # family -> how long its lists of block weights are
    **dict.fromkeys(("sd", "sdxl", "sdxl-refiner"), COUNTS[:-1]),
    **dict.fromkeys(("flux", "flux-fill", "flux-kontext"), (FLUX_BLOCKS,)),
}
