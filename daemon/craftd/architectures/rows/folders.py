"""Rows of models that are drawn by diffusers' own pipelines, from folders."""

from __future__ import annotations

from collections.abc import Mapping

from craftd.architectures.architecture import FLOW, VELOCITY, Architecture, Distilled
from craftd.architectures.rows.flows import FLUX
from craftd.architectures.rows.shared import UNUSED_PARTS, marks

LCM = Architecture(  # of which Stable Diffusion it was made, and so whose LoRAs fit, its pipeline does not tell
    id="", name="a latent consistency model", pipelines=("LatentConsistencyModelPipeline",), unused_parts=UNUSED_PARTS
)

HUNYUAN_DIT = Architecture(
    id="hunyuan-dit",
    name="Hunyuan-DiT",
    pipelines=("HunyuanDiTPipeline",),
    network="HunyuanDiT2DModel",
    predicts=VELOCITY,
    steps=50,
    guidance_scale=5.0,
    call={"use_resolution_binning": False},  # else it draws the nearest of a few sizes of its own
)

AURAFLOW = Architecture(
    id="auraflow",
    name="AuraFlow",
    pipelines=("AuraFlowPipeline",),
    network="AuraFlowTransformer2DModel",
    predicts=FLOW,
    steps=50,
    guidance_scale=3.5,
    marks=marks("double_layers.0.attn.w2q."),
    lora_like=FLUX.id,
)

LUMINA2 = Architecture(
    id="lumina2",
    name="Lumina 2",
    pipelines=("Lumina2Pipeline",),
    network="Lumina2Transformer2DModel",
    predicts=FLOW,
    steps=30,
    guidance_scale=4.0,
)

_AS_ASKED: Mapping[str, object] = {"use_resolution_binning": False}  # else the nearest of a few sizes is drawn

PIXART = Architecture(
    id="pixart",
    name="PixArt",
    pipelines=("PixArtAlphaPipeline", "PixArtSigmaPipeline"),
    network="PixArtTransformer2DModel",
    steps=20,
    guidance_scale=4.5,
    call=_AS_ASKED,
)

SANA = Architecture(
    id="sana",
    name="Sana",
    pipelines=("SanaPipeline",),
    network="SanaTransformer2DModel",
    predicts=FLOW,
    steps=20,
    guidance_scale=4.5,
    call=_AS_ASKED,
)

COGVIEW4 = Architecture(
    id="cogview4",
    name="CogView4",
    pipelines=("CogView4Pipeline",),
    network="CogView4Transformer2DModel",
    predicts=FLOW,
    steps=50,
    guidance_scale=5.0,
)

OVIS_IMAGE = Architecture(
    id="ovis-image",
    name="Ovis-Image",
    pipelines=("OvisImagePipeline",),
    network="OvisImageTransformer2DModel",
    predicts=FLOW,
    steps=50,
    guidance_scale=5.0,
)

ERNIE_IMAGE = Architecture(
    id="ernie-image",
    name="ERNIE-Image",
    pipelines=("ErnieImagePipeline",),
    network="ErnieImageTransformer2DModel",
    predicts=FLOW,
    steps=50,
    guidance_scale=4.0,
    unused_parts=frozenset({"pe", "pe_tokenizer"}),  # which write another prompt
    call={"use_pe": False},
)

IDEOGRAM4 = Architecture(
    id="ideogram4",
    name="Ideogram 4",
    pipelines=("Ideogram4Pipeline",),
    network="Ideogram4Transformer2DModel",
    predicts=FLOW,
    steps=48,
    guidance_scale=7.0,
    call={"guidance_schedule": None},  # one of its own, beside which it takes no other guidance
)

KANDINSKY5 = Architecture(
    id="kandinsky5",
    name="Kandinsky 5",
    pipelines=("Kandinsky5T2IPipeline",),
    network="Kandinsky5Transformer3DModel",
    predicts=FLOW,
    steps=50,
    guidance_scale=3.5,
)

LONGCAT_IMAGE = Architecture(
    id="longcat-image",
    name="LongCat-Image",
    pipelines=("LongCatImagePipeline",),
    network="LongCatImageTransformer2DModel",
    predicts=FLOW,
    steps=50,
    guidance_scale=4.5,
    unused_parts=frozenset({"text_processor"}),  # with which it would write another prompt
    call={"enable_prompt_rewrite": False},
)

QWEN_IMAGE_21 = Architecture(
    id="qwen-image-2.1",
    name="Qwen-Image 2.1",
    pipelines=("QwenImage21Pipeline",),
    network="QwenImage21Transformer2DModel",
    predicts=FLOW,
    steps=40,  # unless its configuration names the noise levels
    guidance_scale=1.0,
)

SANA_SPRINT = Architecture(  # whose network has the class of Sana's
    id="sana-sprint",
    name="Sana Sprint",
    pipelines=("SanaSprintPipeline",),
    predicts=FLOW,
    steps=2,
    guidance_scale=4.5,
    call=_AS_ASKED,
)

HIDREAM = Architecture(
    id="hidream",
    name="HiDream",
    pipelines=("HiDreamImagePipeline",),
    network="HiDreamImageTransformer2DModel",
    predicts=FLOW,
    steps=50,
    guidance_scale=5.0,
)

GLM_IMAGE = Architecture(
    id="glm-image",
    name="GLM-Image",
    pipelines=("GlmImagePipeline",),
    network="GlmImageTransformer2DModel",
    predicts=FLOW,
    steps=50,
    guidance_scale=1.5,
)

ANIMA = Architecture(
    id="anima",
    name="Anima",
    pipelines=("AnimaModularPipeline",),
    network="CosmosTransformer3DModel",
    predicts=FLOW,
    steps=50,
    guidance_scale=4.0,
)

FLUX3 = Architecture(
    id="flux3",
    name="FLUX.3",
    pipelines=("Flux3ModularPipeline", "Flux3DistilledModularPipeline"),
    network="Flux3Transformer2DModel",
    predicts=FLOW,
    steps=50,
    guidance_scale=3.5,
    distilled=Distilled("", "_class_name", "Flux3DistilledModularPipeline", steps=16, guidance_scale=1.0),
    unused_parts=frozenset({"prompt_upsampler", "prompt_upsampler_processor"}),  # which would write another prompt
)
