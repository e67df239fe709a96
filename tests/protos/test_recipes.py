"""What pictures of other programs say, read from files that scripts write by the programs' formats."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest
from craft_protos import samplers
from craft_protos.generate import Hires
from craft_protos.recipes import asking, containers, finding, reading
from craft_protos.recipes.finding import Here
from craft_protos.recipes.recipe import LoraUse, Named, Recipe
from craft_protos.recipes.sampling import sampler_of
from craft_protos.recipes.told import json_of

from tests import recipe_files
from tests.recipe_files import COMFY, FILES, png

HASH = "ab" * 32
_WEBUI: dict[str, Any] = {
    **{
        "program": "AUTOMATIC1111",
        "prompt_syntax": "a1111",
        "prompt": "a red apple, (shiny:1.2)\non a table",
        "negative_prompt": "worm, bruise",
    },
    **{"width": 512, "height": 768, "steps": 20, "guidance_scale": 7.0, "seed": 965400086, "sampler": "DPM++ 2M"},
    **{"schedule": "Karras", "clip_skip": 2, "hires": Hires(2.0, 0.5, 10, "Lanczos")},
    **{"model": Named("v1-5-pruned", "6ce0161689"), "loras": (LoraUse("add_detail", "7c6bad76eb54", weight=0.7),)},
    "not_understood": ("ENSD: 31337",),
}
_COMFY: dict[str, Any] = {
    **{"program": "ComfyUI", "prompt": "a fox", "negative_prompt": "dog", "width": 896, "height": 1152, "steps": 22},
    **{"guidance_scale": 6.5, "seed": 7, "sampler": "dpmpp_2m_sde_gpu", "schedule": "karras", "clip_skip": 2},
    **{"model": Named("sd_xl_base_1.0"), "loras": (LoraUse("a", weight=0.8), LoraUse("b", weight=0.3))},
    "not_understood": ("FreeU (node 13)", "strength_clip: 0.5 of a: as its strength_model"),
}
_NOVELAI: dict[str, Any] = {
    **{"program": "NovelAI", "prompt": "1girl, rain", "negative_prompt": "lowres", "width": 832, "height": 1216},
    **{"steps": 28, "guidance_scale": 5.5, "seed": 3071474384, "sampler": "k_euler_ancestral"},
    **{"schedule": "Karras", "model": Named("NovelAI Diffusion V4.5 4BB8B1D7")},
    "not_understood": ("v4_prompt: 1 captions of characters", "sm: true"),
}
EXPECTED: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("webui", "webui in JPEG", "webui in WebP", "webui, hidden"), _WEBUI),
    "forge": {
        **{
            "program": "Forge",
            "prompt_syntax": "a1111",
            "prompt": "a fox",
            "width": 896,
            "height": 1152,
            "steps": 8,
            "guidance_scale": 3.5,
        },
        **{"seed": 5, "sampler": "Euler", "schedule": "Simple", "model": Named("flux1-dev-bnb-nf4", "4610115bb0")},
        "not_understood": ("Module 1: ae", "Module 2: t5xxl_fp16"),
    },
    "civitai": {
        **{
            "program": "AUTOMATIC1111",
            "prompt_syntax": "a1111",
            "prompt": "a fox",
            "negative_prompt": "dog",
            "width": 832,
            "height": 1216,
        },
        **{"steps": 25, "guidance_scale": 5.0, "seed": 9, "sampler": "Euler a", "clip_skip": 2},
        **{"model": Named("Pony", "67ab2fd8ec", "290640"), "loras": (LoraUse("Detail, more", "", "382152", 0.8),)},
    },
    "sd.cpp": {
        **{"program": "stable-diffusion.cpp", "prompt": "a cat", "negative_prompt": "dog", "width": 512, "height": 512},
        **{"steps": 20, "guidance_scale": 7.0, "seed": 42, "sampler": "euler_a karras", "model": Named("sd15")},
        "not_understood": ("RNG: cuda",),
    },
    "sdnext": {
        **{"program": "SD.Next", "prompt": "a cat", "negative_prompt": "dog", "width": 1024, "height": 1024},
        **{"steps": 20, "guidance_scale": 6.0, "seed": 3, "sampler": "UniPC", "model": Named("sdxl", "31e35c80fc")},
    },
    **dict.fromkeys(("novelai", "novelai, hidden"), _NOVELAI),
    "invokeai": {
        **{"program": "InvokeAI", "prompt": "a cat", "negative_prompt": "dog", "width": 1024, "height": 768},
        **{"steps": 30, "guidance_scale": 6.5, "seed": 42, "sampler": "dpmpp_2m", "schedule": "Karras"},
        **{"clip_skip": 2, "model": Named("Juggernaut"), "loras": (LoraUse("detail", HASH, weight=0.6),)},
        "not_understood": ("seamless_x: true",),
    },
    "old invokeai": {
        **{"program": "InvokeAI", "prompt": "an owl", "negative_prompt": "blurry", "width": 512, "height": 512},
        **{"steps": 50, "guidance_scale": 7.5, "seed": 7, "sampler": "lms", "model": Named("sd-1.5", HASH)},
        "not_understood": ("perlin: 0.1",),
    },
    "fooocus": {
        **{"program": "Fooocus", "prompt": "cinematic cat, detailed", "negative_prompt": "blurry", "width": 1152},
        **{"height": 896, "steps": 30, "guidance_scale": 4.0, "seed": 42, "sampler": "dpmpp_2m_sde_gpu"},
        **{"schedule": "karras", "model": Named("juggernautXL", "ab12cd34ef"), "not_understood": ("sharpness: 2",)},
        "loras": (LoraUse("offset", "cd12ef34ab", weight=0.1),),
    },
    "draw things": {
        **{"program": "Draw Things", "prompt": "a cube", "negative_prompt": "blue", "width": 64, "height": 32},
        **{"steps": 8, "guidance_scale": 4.5, "seed": 24, "sampler": "DPM++ 2M", "schedule": "Karras"},
        **{"model": Named("model"), "loras": (LoraUse("d", weight=0.8),), "not_understood": ("shift: 3",)},
    },
    "mflux": {
        **{"program": "mflux", "prompt": "a bat", "width": 32, "height": 64, "steps": 14, "guidance_scale": 3.5},
        **{"seed": 1, "strength": 0.6, "model": Named("FLUX.1-dev"), "loras": (LoraUse("it", weight=0.5),)},
        "not_understood": ("image_path: /x/a.png",),
    },
    "swarmui": {
        **{"program": "SwarmUI", "prompt": "a cat", "negative_prompt": "dog", "width": 512, "height": 768, "steps": 20},
        **{"guidance_scale": 7.0, "seed": 1, "sampler": "euler_ancestral", "schedule": "karras"},
        **{"model": Named("xl", HASH), "loras": (LoraUse("it", weight=0.5),)},
    },
    **dict.fromkeys(("comfyui", "comfyui in WebP"), _COMFY),
    "comfyui, flux": {
        **{
            "program": "ComfyUI",
            "prompt": "a whale",
            "width": 1024,
            "height": 1024,
            "steps": 20,
            "guidance_scale": 3.5,
        },
        **{"seed": 99, "sampler": "euler", "schedule": "simple", "model": Named("flux1-dev")},
    },
    "comfyui, a workflow": {
        **{"program": "ComfyUI", "prompt": "a fox", "negative_prompt": "dog", "steps": 22, "guidance_scale": 6.5},
        **{"seed": 7, "sampler": "euler", "schedule": "normal", "strength": 0.6, "model": Named("m")},
        **{"width": 8, "height": 8, "not_understood": ("ImageUpscaleWithModel (node 14)",)},
    },
}


@pytest.mark.parametrize("name", FILES)
def test_each_program(name: str) -> None:
    assert reading.read(FILES[name]) == Recipe(**EXPECTED[name])


def graph(**changes: Any) -> str:
    """ComfyUI's, with other nodes."""
    return json.dumps(COMFY | changes)


def told(node: str, **inputs: Any) -> dict[str, Any]:
    return {node: {"class_type": COMFY[node]["class_type"], "inputs": COMFY[node]["inputs"] | inputs}}


CONTROL = {"40": {"class_type": "ControlNetApplyAdvanced", "inputs": {"positive": ["6", 0], "negative": ["7", 0]}}}


@pytest.mark.parametrize(
    "chunks",
    [
        {"prompt": "[" * 100_000},
        {"prompt": '{"a":' * 5000 + "1" + "}" * 5000},
        {"prompt": json.dumps({str(at): COMFY["3"] for at in range(6000)})},
        {"prompt": json.dumps({"3": {"class_type": ["KSampler"], "inputs": 3}, "4": None})},
        {"workflow": json.dumps({"nodes": [3, {"id": [1]}], "links": [[1], {}, [1, 2, 3, 4, 5, 6]]})},
        {"parameters": '"' * 100_000},
        {"parameters": "Steps: " * 20_000},
        {"parameters": "<lora:" * 20_000},
        {"sd-metadata": '{"image": {"prompt": [{"prompt": 3}]}}' * 2},
        {"XML:com.adobe.xmp": "<exif:UserComment" * 5000},
        {"Comment": "{}", "Description": "x"},
    ],
    ids=range(11),
)
def test_hostile_files_say_nothing(chunks: dict[str, str]) -> None:
    assert reading.read(png(chunks)) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (graph(**told("11", model=["10", 0]), **told("10", model=["11", 0])), {"model": Named()}),
        (graph(**told("6", text=["6", 0])), {"prompt": ""}),
        (graph(**told("3", seed=["3", 0], steps="many", cfg=float("nan"))), {"seed": None, "steps": None}),
        (graph(**told("3", seed=2**64 - 1)), {"seed": 2**64 - 1}),
        (graph(**told("3", positive=["40", 0], negative=["40", 1]), **CONTROL), {"negative_prompt": "dog"}),
        (graph(**told("6", text="a embedding:SDA768.pt fox")), {"prompt": "a SDA768 fox"}),
    ],
    ids=["cyclic", "a text of itself", "no numbers", "a long seed", "two outputs", "an embedding"],
)
def test_odd_graphs_are_read_as_far_as_they_go(text: str, expected: dict[str, Any]) -> None:
    found = reading.read(png({"prompt": text}))
    assert found is not None and {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("infotext", "expected"),
    [
        ("a fox. Steps: 20, Sampler: Euler, Seed: 1", {"prompt": "a fox.", "steps": 20}),
        ("a fox\r\nNegative prompt: dog\r\nSteps: 2, Seed: -1, Size: 8x8", {"negative_prompt": "dog", "seed": -1}),
        (
            'x <lora:n:1>\nSteps: 2, Seed: 1, TIPO: {"a": "b, Seed: 9"}, Lora hashes: "n: e3b0c44298fc"',
            {"seed": 1, "loras": (LoraUse("n"),), "not_understood": ('TIPO: {"a": "b, Seed: 9"}',)},
        ),
        ("a <lora:n:0.5:0.9>, <hypernet:h:1> b\nSteps: 2, Seed: 1, Size: 8x8", {"prompt": "a, b"}),
    ],
    ids=["in one line", "other line ends", "JSON, and a hash of nothing", "tags"],
)
def test_infotexts_as_they_are_met(infotext: str, expected: dict[str, Any]) -> None:
    found = reading.read(png({"parameters": infotext}))
    assert found is not None and {name: getattr(found, name) for name in expected} == expected


def test_a_wide_and_deep_graph_is_read_in_a_bounded_way() -> None:
    chain = {str(at): {"class_type": "KSampler", "inputs": {"latent_image": [str(at + 1), 0]}} for at in range(2400)}
    ends = {f"e{at}": {"class_type": "SaveImage", "inputs": {"images": ["0", 0]}} for at in range(2400)}
    found = reading.read(png({"prompt": json.dumps(chain | ends)}))
    assert found is not None and len(found.not_understood) == 101 and found.not_understood[-1].endswith("settings more")


def test_any_beginning_of_a_file_is_read() -> None:
    for data in (FILES["webui"], FILES["webui in JPEG"], FILES["comfyui in WebP"]):
        for end in range(0, len(data), 7):
            reading.read(data[:end])


def test_texts_together_are_bounded() -> None:
    words = containers.words_of(png({f"k{at}": "x" * (3 << 20) for at in range(8)}))
    assert sum(map(len, words.texts.values())) <= 16 << 20


@pytest.mark.parametrize(
    ("signature", "length"), [("stealth_pngcomp", 2**32 - 1), ("stealth_pnginfo", 2**24), ("none", 8)]
)
def test_what_is_hidden_is_bounded(signature: str, length: int) -> None:
    assert reading.read(recipe_files.hidden(recipe_files.WEBUI, signature, length)) is None


def test_json_is_bounded() -> None:
    assert json_of('{"a": "[[[[' + "[" * 100 + '"}') is not None  # within a text
    assert json_of('{"a": ' + "[" * 70 + "]" * 70 + "}") is None


@pytest.mark.parametrize(
    ("sampler", "schedule", "is_flow", "name", "left"),
    [
        ("DPM++ 2M Karras", "", False, "DPM++ 2M Karras", 0),
        ("dpmpp_2m_sde_gpu", "karras", False, "DPM++ 2M SDE Karras", 0),
        ("euler_ancestral", "sgm_uniform", False, "Euler a SGM Uniform", 0),
        ("uni_pc_bh2", "", False, "UniPC", 0),
        ("Euler a", "no such", False, "Euler a", 1),
        ("no such", "karras", False, "", 1),
        ("euler_a discrete", "", False, "Euler a", 0),
        ("Euler a", "", True, "", 1),
        ("euler", "simple", True, "Euler Simple", 0),
        ("euler", "kl_optimal", True, "Euler", 1),
        ("", "karras", False, "", 1),
    ],
)
def test_samplers_by_craft_s_names(sampler: str, schedule: str, is_flow: bool, name: str, left: int) -> None:
    found, unknown = sampler_of(sampler, schedule, is_flow=is_flow)
    assert found == name and len(unknown) == left
    assert not found or samplers.canonical(found) == found


def test_what_a_request_cannot_have_is_named() -> None:
    recipe = Recipe("x", seed=2**60, steps=0, width=64, strength=0.5, clip_skip=2, hires=Hires(2, 3.0, 0, "4x-Ultra"))
    found = asking.asked(recipe, is_flow=True)
    request = found.request
    assert (request.seed, request.steps, request.width, request.clip_skip) == (None, None, None, None)
    assert request.hires == Hires(2) and found.strength == 0.5
    names = [one.partition(":")[0] for one in found.not_honoured]
    assert names == ["steps", "seed", "clip_skip", "hires strength", "hires steps", "hires upscaler", "strength"]


HERE = [
    Here("one", ("6ce0161689" + "0" * 54, "7c6bad76eb54" + "0" * 52), ("add detail.safetensors",), "/m/Add_Detail.st"),
    Here("two", (), (), "civitai:12@345:x.safetensors"),
]


@pytest.mark.parametrize(
    ("file", "name"),
    [
        (Named("", "6ce0161689"), "one"),
        (Named("x", "7c6bad76eb54"), "one"),
        (Named("x", "ffffffffff", "345"), "two"),
        (Named("add_detail"), "one"),
        (Named("Add Detail"), "one"),
        (Named("add_detail", "ffffffffff"), None),  # another file of that name
        (Named("", "6ce0"), None),
        (Named(), None),
    ],
)
def test_files_are_found_by_hash_version_and_name(file: Named, name: str | None) -> None:
    found = finding.find(file, HERE)
    assert (found.name if found else None) == name


def test_every_field_is_tried() -> None:
    tried = {name for one in EXPECTED.values() for name in one}
    assert {field.name for field in fields(Recipe)} - tried <= {"guidance_rescale"}
    assert recipe_files.FILES.keys() == EXPECTED.keys()
