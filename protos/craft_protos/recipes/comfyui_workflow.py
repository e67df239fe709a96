"""ComfyUI's workflow, as its page keeps it: made the graph that would be run, for the nodes that are known."""

from __future__ import annotations

from typing import Any

_MOST_NODES, _MOST_LINKS = 5000, 50_000
_MUTED, _BYPASSED = 2, 4
_Source = tuple[str, Any, Any]  # a node, its output, the type
_Sources = dict[Any, _Source]  # by links
_SEED = ("seed", "control_after_generate")
_WIDGETS = {  # the settings of a node in the order in which a workflow has them
    "KSampler": (*_SEED, "steps", "cfg", "sampler_name", "scheduler", "denoise"),
    "KSamplerAdvanced": (
        *("add_noise", "noise_seed", "control_after_generate", "steps", "cfg", "sampler_name", "scheduler"),
        *("start_at_step", "end_at_step", "return_with_leftover_noise"),
    ),
    "SamplerCustom": ("add_noise", "noise_seed", "control_after_generate", "cfg"),
    "CheckpointLoaderSimple": ("ckpt_name",),
    "UNETLoader": ("unet_name", "weight_dtype"),
    "UnetLoaderGGUF": ("unet_name",),
    "VAELoader": ("vae_name",),
    "CLIPTextEncode": ("text",),
    "CLIPTextEncodeFlux": ("clip_l", "t5xxl", "guidance"),
    "CLIPTextEncodeSDXL": ("width", "height", "crop_w", "crop_h", "target_width", "target_height", "text_g", "text_l"),
    "CLIPSetLastLayer": ("stop_at_clip_layer",),
    "LoraLoader": ("lora_name", "strength_model", "strength_clip"),
    "LoraLoaderModelOnly": ("lora_name", "strength_model"),
    "EmptyLatentImage": ("width", "height", "batch_size"),
    "EmptySD3LatentImage": ("width", "height", "batch_size"),
    "EmptyFlux2LatentImage": ("width", "height", "batch_size"),
    "FluxGuidance": ("guidance",),
    "RandomNoise": ("noise_seed", "control_after_generate"),
    "BasicScheduler": ("scheduler", "steps", "denoise"),
    "Flux2Scheduler": ("steps", "width", "height"),
    "KSamplerSelect": ("sampler_name",),
    "CFGGuider": ("cfg",),
    "PrimitiveNode": ("value",),
    "PrimitiveInt": ("value",),
    "PrimitiveFloat": ("value",),
    "PrimitiveString": ("value",),
    "PrimitiveStringMultiline": ("value",),
}


def as_run(workflow: dict[str, Any] | None) -> dict[str, Any] | None:
    """Nodes by their ids, each with its kind and inputs. None for what is no workflow, or too large."""
    nodes, links = (workflow or {}).get("nodes"), (workflow or {}).get("links")
    if not isinstance(nodes, list) or not isinstance(links, list):
        return None
    if len(nodes) > _MOST_NODES or len(links) > _MOST_LINKS:
        return None
    known = {str(one.get("id")): one for one in nodes if isinstance(one, dict)}
    sources = {one[0]: (str(one[1]), one[2], one[5]) for one in links if _is_link(one)}
    return {
        name: {"class_type": node.get("type"), "inputs": _inputs(node, known, sources)}
        for name, node in known.items()
        if node.get("mode") not in (_MUTED, _BYPASSED)
    }


def _is_link(one: Any) -> bool:
    """[its id, from a node, its output, to a node, its input, the type]."""
    return isinstance(one, list) and len(one) >= 6 and all(isinstance(one[at], int | str) for at in (0, 1, 2, 5))


def _inputs(node: dict[str, Any], known: dict[str, Any], sources: _Sources) -> dict[str, Any]:
    values, names = node.get("widgets_values"), _WIDGETS.get(str(node.get("type")), ())
    told: dict[str, Any] = {}
    if isinstance(values, dict):
        told |= {str(name): value for name, value in values.items()}
    elif isinstance(values, list):
        told |= dict(zip(names, values, strict=False))
        told |= {f"widget_{at}": value for at, value in enumerate(values) if isinstance(value, dict)}
    for name, link in _linked(node):
        source = _awake(sources.get(link), known, sources)
        if source is not None:
            told[name] = list(source)
    return told


def _linked(node: dict[str, Any]) -> list[tuple[str, Any]]:
    inputs = node.get("inputs")
    listed = [one for one in inputs if isinstance(one, dict)] if isinstance(inputs, list) else []
    named = [(str(one.get("name") or one.get("type")), one.get("link")) for one in listed]
    return [(name, link) for name, link in named if isinstance(link, int | str)]


def _awake(source: _Source | None, known: dict[str, Any], sources: _Sources) -> tuple[str, Any] | None:
    """The node that a link comes from, and its output; through bypassed ones, along what they are given of its type."""
    seen = set[str]()
    while source is not None and source[0] not in seen:
        name, output, kind = source
        node = known.get(name)
        if node is None or node.get("mode") != _BYPASSED:
            return (name, output) if node is not None else None
        seen.add(name)
        same = (link for _, link in _linked(node) if sources.get(link, ("", 0, None))[2] == kind)
        source = sources.get(next(same, None))
    return None
