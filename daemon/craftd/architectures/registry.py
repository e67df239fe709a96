"""The architectures that craft knows: one row for each, and nothing of one anywhere else but in its family.

The front and the worker both read it, so nothing here imports torch. `detect.py` finds the row of a folder, of a
checkpoint, of a network or of a LoRA. A pipeline of diffusers' that has no row is drawn by the generic family.
"""

from __future__ import annotations

from collections.abc import Mapping

from craftd.architectures import controls
from craftd.architectures.architecture import Architecture, Mark
from craftd.architectures.rows.flows import (
    CHROMA,
    FLUX,
    FLUX2,
    FLUX2_DEV,
    FLUX_FILL,
    FLUX_KONTEXT,
    KREA2,
    QWEN_IMAGE,
    QWEN_IMAGE_EDIT,
    QWEN_IMAGE_EDIT_PLUS,
    SD3,
    ZIMAGE,
)
from craftd.architectures.rows.folders import (
    ANIMA,
    AURAFLOW,
    COGVIEW4,
    ERNIE_IMAGE,
    FLUX3,
    GLM_IMAGE,
    HIDREAM,
    HUNYUAN_DIT,
    IDEOGRAM4,
    KANDINSKY5,
    LCM,
    LONGCAT_IMAGE,
    LUMINA2,
    OVIS_IMAGE,
    PIXART,
    QWEN_IMAGE_21,
    SANA,
    SANA_SPRINT,
)
from craftd.architectures.rows.shared import OF_FLUX2, marks
from craftd.architectures.rows.unets import (
    POCKET,
    SD1,
    SD1_INPAINTING,
    SD2,
    SD2_INPAINTING,
    SDXL,
    SDXL_INPAINTING,
    SDXL_REFINER,
)

ROWS = (
    *(
        SD1,
        SD2,
        SDXL,
        SD1_INPAINTING,
        SD2_INPAINTING,
        SDXL_INPAINTING,
        SDXL_REFINER,
        SD3,
        FLUX2,
        FLUX2_DEV,
        FLUX,
        FLUX_KONTEXT,
        FLUX_FILL,
        POCKET,
        LCM,
        HUNYUAN_DIT,
        CHROMA,
        AURAFLOW,
        LUMINA2,
    ),
    *(
        ZIMAGE,
        QWEN_IMAGE,
        QWEN_IMAGE_EDIT,
        QWEN_IMAGE_EDIT_PLUS,
        KREA2,
        PIXART,
        SANA,
        SANA_SPRINT,
        COGVIEW4,
        OVIS_IMAGE,
        ERNIE_IMAGE,
        IDEOGRAM4,
        KANDINSKY5,
        LONGCAT_IMAGE,
        QWEN_IMAGE_21,
        HIDREAM,
        GLM_IMAGE,
        ANIMA,
        FLUX3,
    ),
)

UNKNOWN = Architecture(id="")

UPSCALER = Architecture(id="upscaler", name="an upscaler", family="upscaler", steps=0, guidance_scale=0.0)

# Single files that craft cannot draw with, by what they are. These are looked for before the rows' checkpoints ...
_UPSCALER = ("*attn2.to_k.weight", -1, 1024)

STRANGERS: dict[str, tuple[Mark, ...]] = {
    **controls.STRANGERS,
    "Playground v2.5, whose noise schedule craft does not have": marks("edm_mean"),
    "CosXL, whose noise schedule craft does not have": marks("edm_vpred."),
    "an upscaler of Stable Diffusion, which needs a picture to begin with": marks("label_emb.", side=_UPSCALER),
    **{
        f"{name}, which craft draws with as a diffusers folder, if at all": marks(*beginnings)
        for name, *beginnings in (
            ("HiDream", "double_stream_blocks.0.block."),
            ("Hunyuan Video", "txt_in.individual_token_refiner."),
            ("Wan", "head.modulation"),
            ("Stable Cascade", "clip_txt_mapper.", "down_blocks.1.0.channelwise."),
            ("Sana", "blocks.0.cross_attn.q_linear."),
        )
    },
}

# ... and these after them.
LEFTOVERS: Mapping[str, tuple[Mark, ...]] = {
    "a Stable Diffusion of a size that craft does not know": marks("input_blocks."),
    "a UNet of a size that craft does not know": (Mark(("down_blocks.", "conv_in."), prefixes=("unet.", "")),),
    "a Stable Diffusion 3 of a size that craft does not know": marks("joint_blocks.0.context_block."),
    "a transformer that craft knows only as part of a diffusers folder": (
        Mark(("transformer_blocks.", "proj_out."), prefixes=("transformer.", "")),
    ),
    "a Qwen-Image that edits, or another that craft knows only as a diffusers folder": marks(
        "transformer_blocks.0.img_mod."
    ),
    "a FLUX.2 of a size that craft knows only as a diffusers folder": marks(OF_FLUX2),
    "a Lumina or a Z-Image of a kind that craft does not know": marks("cap_embedder."),
    "a text encoder, not a whole model": marks(
        "text_model.", "encoder.block.", "text_encoders.", "embeddings.token_embedding."
    ),
    "a VAE, not a whole model": marks("encoder.", "decoder.", "first_stage_model.", "vae."),
}
