"""Pictures as other programs write them, from descriptions of their formats: chunks and tags around eight pixels."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Mapping
from io import BytesIO
from typing import Any

from PIL import Image, PngImagePlugin

WEBUI = """a red apple <lora:add_detail:0.7>, (shiny:1.2)
on a table
Negative prompt: worm, bruise
Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 965400086, Size: 512x768, \
Model hash: 6ce0161689, Model: v1-5-pruned, Clip skip: 2, Denoising strength: 0.5, Hires upscale: 2, \
Hires steps: 10, Hires upscaler: Lanczos, ENSD: 31337, Lora hashes: "add_detail: 7c6bad76eb54", Version: v1.10.1"""
FORGE = """a fox
Steps: 8, Sampler: Euler, Schedule type: Simple, CFG scale: 1, Distilled CFG Scale: 3.5, Seed: 5, Size: 896x1152, \
Model hash: 4610115bb0, Model: flux1-dev-bnb-nf4, Version: f2.0.1v1.10.1, Module 1: ae, Module 2: t5xxl_fp16"""
CIVITAI = """a fox
Negative prompt: dog
Steps: 25, Sampler: Euler a, CFG scale: 5, Seed: 9, Size: 832x1216, Clip skip: 2, Created Date: 2024-09-01T00:00:00Z, \
Civitai resources: [{"type":"checkpoint","modelVersionId":290640,"modelName":"Pony","modelVersionName":"V6"},\
{"type":"lora","weight":0.8,"modelVersionId":382152,"modelName":"Detail, more"}], \
Civitai metadata: {"remixOfId": 1}, Hashes: {"model": "67ab2fd8ec"}"""
SD_CPP = """a cat
Negative prompt: dog
Steps: 20, CFG scale: 7.000000, Guidance: 3.500000, Eta: 0.000000, Seed: 42, Size: 512x512, Model: sd15.safetensors, \
RNG: cuda, Sampler: euler_a karras, Version: stable-diffusion.cpp"""
SDNEXT = """a cat
Negative prompt: dog
Steps: 20, Size: 1024x1024, Seed: 3, CFG scale: 6, App: SD.Next, Version: 5c684ca, Pipeline: \
StableDiffusionXLPipeline, Operations: txt2img, Model: sdxl, Model hash: 31e35c80fc, Sampler: UniPC"""
NOVELAI = {
    **{
        "prompt": "1girl, rain",
        "uc": "lowres",
        "steps": 28,
        "height": 1216,
        "width": 832,
        "scale": 5.5,
        "cfg_rescale": 0,
    },
    **{"seed": 3071474384, "n_samples": 1, "noise_schedule": "karras", "sampler": "k_euler_ancestral", "sm": True},
    "v4_prompt": {"caption": {"base_caption": "1girl", "char_captions": [{"char_caption": "umbrella"}]}},
}
INVOKE = {
    **{"generation_mode": "sdxl_txt2img", "positive_prompt": "a cat", "negative_prompt": "dog", "width": 1024},
    **{"height": 768, "seed": 42, "cfg_scale": 6.5, "steps": 30, "scheduler": "dpmpp_2m_k", "clip_skip": 1},
    "model": {"key": "k", "hash": "blake3:00", "name": "Juggernaut", "base": "sdxl", "type": "main"},
    "loras": [{"model": {"name": "detail", "hash": "sha256:" + "ab" * 32}, "weight": 0.6}],
    **{"seamless_x": True, "app_version": "5.0.0"},
}
OLD_INVOKE = {
    **{"model": "stable diffusion", "model_weights": "sd-1.5", "model_hash": "ab" * 32, "app_version": "2.3"},
    "image": {
        "prompt": [{"prompt": "an owl [blurry]", "weight": 1}],
        **{"steps": 50, "cfg_scale": 7.5, "seed": 7, "width": 512, "height": 512, "sampler": "k_lms", "perlin": 0.1},
    },
}
FOOOCUS = {
    **{"prompt": "cat", "full_prompt": ["cinematic cat", "detailed"], "full_negative_prompt": ["blurry"], "steps": 30},
    **{"negative_prompt": "", "resolution": "(1152, 896)", "guidance_scale": 4, "sampler": "dpmpp_2m_sde_gpu"},
    **{
        "scheduler": "karras",
        "seed": "42",
        "base_model": "juggernautXL",
        "base_model_hash": "ab12cd34ef",
        "sharpness": 2,
    },
    **{"loras": [["offset", 0.1, "cd12ef34ab"]], "lora_combined_1": "offset : 0.1", "version": "Fooocus v2.5.0"},
}
DRAW_THINGS = {
    **{"c": "a cube", "uc": "blue", "model": "model.ckpt", "sampler": "DPM++ 2M Karras", "scale": 4.5, "seed": 24},
    **{"size": "64x32", "steps": 8, "strength": 1, "shift": 3, "v2": {"loras": [{"file": "d.ckpt", "weight": 0.8}]}},
}
MFLUX = {
    **{"mflux_version": "0.4", "model": "black-forest-labs/FLUX.1-dev", "seed": 1, "steps": 14, "guidance": 3.5},
    **{"height": 64, "width": 32, "lora_paths": ["/x/it.safetensors"], "lora_scales": [0.5], "prompt": "a bat"},
    **{"image_path": "/x/a.png", "image_strength": 0.4, "quantize": 4},
}
SWARM = {
    "sui_image_params": {
        **{"prompt": "a cat", "negativeprompt": "dog", "model": "sub/xl", "seed": 1, "steps": 20, "cfgscale": 7.0},
        **{"width": 512, "height": 768, "sampler": "euler_ancestral", "scheduler": "karras", "loras": ["it"]},
        **{"loraweights": ["0.5"], "swarm_version": "0.9"},
    },
    "sui_models": [{"name": "sub/xl.safetensors", "param": "model", "hash": "0x" + "ab" * 32}],
}


def _node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


COMFY = {
    "3": _node(
        "KSampler",
        **{
            "seed": 7,
            "steps": 22,
            "cfg": 6.5,
            "sampler_name": "dpmpp_2m_sde_gpu",
            "scheduler": "karras",
            "denoise": 1.0,
        },
        **{"model": ["11", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]},
    ),
    "4": _node("CheckpointLoaderSimple", ckpt_name="XL\\sd_xl_base_1.0.safetensors"),
    "5": _node("EmptyLatentImage", width=["20", 0], height=1152, batch_size=1),
    "6": _node("CLIPTextEncode", text="a fox", clip=["12", 0]),
    "7": _node("CLIPTextEncode", text="dog", clip=["12", 0]),
    "8": _node("VAEDecode", samples=["3", 0], vae=["4", 2]),
    "9": _node("SaveImage", images=["8", 0], filename_prefix="x"),
    "10": _node(
        "LoraLoader",
        **{"lora_name": "a.safetensors", "strength_model": 0.8, "strength_clip": 0.5},
        model=["4", 0],
        clip=["4", 1],
    ),
    "11": _node("LoraLoaderModelOnly", lora_name="b.safetensors", strength_model=0.3, model=["13", 0]),
    "12": _node("CLIPSetLastLayer", stop_at_clip_layer=-2, clip=["10", 1]),
    "13": _node("FreeU", b1=1.3, model=["10", 0]),
    "20": _node("PrimitiveInt", value=896),
    "30": _node("CLIPTextEncode", text="of nothing", clip=["4", 1]),
}
COMFY_FLUX = {
    "1": _node(
        "SamplerCustomAdvanced",
        noise=["2", 0],
        guider=["3", 0],
        sampler=["4", 0],
        sigmas=["5", 0],
        latent_image=["6", 0],
    ),
    "2": _node("RandomNoise", noise_seed=99),
    "3": _node("BasicGuider", model=["7", 0], conditioning=["8", 0]),
    "4": _node("KSamplerSelect", sampler_name="euler"),
    "5": _node("BasicScheduler", scheduler="simple", steps=20, denoise=1.0, model=["7", 0]),
    "6": _node("EmptySD3LatentImage", width=1024, height=1024, batch_size=1),
    "7": _node("UNETLoader", unet_name="flux1-dev.safetensors", weight_dtype="default"),
    "8": _node("FluxGuidance", guidance=3.5, conditioning=["9", 0]),
    "9": _node("CLIPTextEncode", text="a whale", clip=["10", 0]),
    "10": _node("DualCLIPLoader", clip_name1="t5xxl.safetensors", clip_name2="clip_l.safetensors", type="flux"),
    "11": _node("VAEDecode", samples=["1", 0]),
    "12": _node("SaveImage", images=["11", 0]),
}
COMFY_WORKFLOW = {
    "nodes": [
        {
            "id": 3,
            "type": "KSampler",
            "mode": 0,
            "widgets_values": [7, "fixed", 22, 6.5, "euler", "normal", 0.6],
            "inputs": [
                {"name": "model", "link": 1},
                {"name": "positive", "link": 2},
                {"name": "negative", "link": 3},
                {"name": "latent_image", "link": 4},
            ],
        },
        {"id": 4, "type": "CheckpointLoaderSimple", "widgets_values": ["m.safetensors"]},
        {"id": 6, "type": "CLIPTextEncode", "widgets_values": ["a fox"], "inputs": [{"name": "clip", "link": 6}]},
        {"id": 7, "type": "CLIPTextEncode", "widgets_values": ["dog"]},
        {
            "id": 10,
            "type": "LoraLoader",
            "mode": 4,
            "widgets_values": ["off.safetensors", 1, 1],
            "inputs": [{"name": "model", "link": 5}],
        },
        {"id": 12, "type": "VAEEncode", "inputs": []},
        {"id": 9, "type": "SaveImage", "inputs": [{"name": "images", "link": 7}]},
        {"id": 14, "type": "ImageUpscaleWithModel", "inputs": [{"name": "image", "link": 8}]},
    ],
    "links": [
        [1, 10, 0, 3, 0, "MODEL"],
        [2, 6, 0, 3, 1, "CONDITIONING"],
        [3, 7, 0, 3, 2, "CONDITIONING"],
        [4, 12, 0, 3, 3, "LATENT"],
        [5, 4, 0, 10, 0, "MODEL"],
        [6, 4, 1, 6, 0, "CLIP"],
        [7, 14, 0, 9, 0, "IMAGE"],
        [8, 3, 0, 14, 0, "IMAGE"],
    ],
}
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description><xmp:CreatorTool>Draw Things</xmp:CreatorTool>'
    '<exif:UserComment><rdf:Alt><rdf:li xml:lang="x-default">{}</rdf:li></rdf:Alt></exif:UserComment>'
    "</rdf:Description></rdf:RDF></x:xmpmeta>"
)


def png(chunks: Mapping[str, str], size: tuple[int, int] = (8, 8)) -> bytes:
    """Texts as PNG's chunks: those that are not Latin-1, and XMP, in iTXt."""
    notes, out = PngImagePlugin.PngInfo(), BytesIO()
    for name, text in chunks.items():
        if name.startswith("XML:"):
            notes.add_itxt(name, text, zip=True)
        else:
            notes.add_text(name, text, zip=len(text) > 2000)
    Image.new("RGB", size).save(out, "PNG", pnginfo=notes)
    return out.getvalue()


def with_comment(text: str, kind: str, order: str = "be") -> bytes:
    """The text in EXIF's UserComment, in UTF-16."""
    exif, out = Image.Exif(), BytesIO()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + text.encode(f"utf-16-{order}")
    Image.new("RGB", (8, 8)).save(out, kind, exif=exif)
    return out.getvalue()


def with_make(text: str) -> bytes:
    """The text in EXIF's Make, as ComfyUI has it in WebP."""
    exif, out = Image.Exif(), BytesIO()
    exif[0x010F] = text
    Image.new("RGB", (8, 8)).save(out, "WEBP", exif=exif)
    return out.getvalue()


def hidden(text: str, signature: str = "stealth_pngcomp", length: int | None = None) -> bytes:
    """The text in the lowest bits of alpha, column by column; `length`: in bits, as it is said to have."""
    body = gzip.compress(text.encode()) if signature.endswith("comp") else text.encode()
    whole = signature.encode() + struct.pack(">I", 8 * len(body) if length is None else length) + body
    bits = [int(bit) for byte in whole for bit in f"{byte:08b}"]
    height, out = 100, BytesIO()
    picture = Image.new("RGBA", (len(bits) // height + 1, height), (9, 9, 9, 254))
    for at, bit in enumerate(bits):
        picture.putpixel((at // height, at % height), (9, 9, 9, 254 | bit))
    picture.save(out, "PNG")
    return out.getvalue()


_SOURCE = "NovelAI Diffusion V4.5 4BB8B1D7"
_NOVELAI = {"Software": "NovelAI", "Source": _SOURCE, "Comment": json.dumps(NOVELAI)}
FILES = {
    "webui": png({"parameters": WEBUI}),
    "webui in JPEG": with_comment(WEBUI, "JPEG"),
    "webui in WebP": with_comment(WEBUI, "WEBP", "le"),
    "forge": png({"parameters": FORGE}),
    "civitai": with_comment(CIVITAI, "JPEG"),
    "sd.cpp": png({"parameters": SD_CPP}),
    "sdnext": png({"parameters": SDNEXT}),
    "novelai": png(_NOVELAI),
    "novelai, hidden": hidden(json.dumps(_NOVELAI)),
    "webui, hidden": hidden(WEBUI, "stealth_pnginfo"),
    "invokeai": png({"invokeai_metadata": json.dumps(INVOKE)}),
    "old invokeai": png({"sd-metadata": json.dumps(OLD_INVOKE)}),
    "fooocus": png({"parameters": json.dumps(FOOOCUS), "fooocus_scheme": "fooocus"}),
    "draw things": png({"XML:com.adobe.xmp": XMP.format(json.dumps(DRAW_THINGS).replace('"', "&quot;"))}),
    "mflux": with_comment(json.dumps(MFLUX), "JPEG"),
    "swarmui": png({"parameters": json.dumps(SWARM)}),
    "comfyui": png({"prompt": json.dumps(COMFY), "workflow": "{}"}),
    "comfyui in WebP": with_make("prompt:" + json.dumps(COMFY)),
    "comfyui, flux": png({"prompt": json.dumps(COMFY_FLUX)}),
    "comfyui, a workflow": png({"workflow": json.dumps(COMFY_WORKFLOW)}),
}
