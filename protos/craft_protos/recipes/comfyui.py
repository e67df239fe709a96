"""ComfyUI's graph, in its plain cases: one sampler, what it is given, and the loaders behind that.

The chunk `prompt` has the graph as it was run, `workflow` as it was drawn, from which the same is made.
What lies on the way and is none of the nodes below is named. A graph is anybody's: it may be cyclic, or huge.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from craft_protos.recipes import comfyui_workflow
from craft_protos.recipes.comfyui_graph import Graph, Node, graph_of
from craft_protos.recipes.recipe import MOST_LORAS, LoraUse, Named, Recipe
from craft_protos.recipes.told import json_of, named, number_of, whole_of

_SAMPLERS = ("KSampler", "KSamplerAdvanced", "SamplerCustom", "SamplerCustomAdvanced")
_CHECKPOINTS = {
    **dict.fromkeys(("CheckpointLoaderSimple", "CheckpointLoader", "unCLIPCheckpointLoader"), "ckpt_name"),
    **dict.fromkeys(("UNETLoader", "UnetLoaderGGUF", "UnetLoaderGGUFAdvanced"), "unet_name"),
    "NunchakuFluxDiTLoader": "model_path",
}
_LORA, _LORA_ALONE, _LORAS = "LoraLoader", "LoraLoaderModelOnly", "Power Lora Loader (rgthree)"
_EMPTY = ("EmptyLatentImage", "EmptySD3LatentImage", "EmptyFlux2LatentImage", "EmptyHunyuanLatentVideo")
_ENCODED = ("VAEEncode", "VAEEncodeForInpaint", "VAEEncodeTiled")
_SILENT = ("Reroute", "ConditioningZeroOut", "BasicGuider", "CFGGuider", "CLIPLoader", "DualCLIPLoader", "RandomNoise")
_PIXELS = ("latent_image", "samples", "images", "image", "pixels", "latent")
_CONDITIONINGS = ("conditioning", "positive", "conditioning_1", "conditioning_to", "CONDITIONING")
_TEXTS = ("text", "text_g", "t5xxl", "prompt")
_DECODING = ("VAEDecode", "VAEDecodeTiled")
_ENDS = ("Save", "Preview")
_EMBEDDING = re.compile(r"\bembedding:([\w-]+)(?:\.(?:pt|safetensors|bin)\b)?", re.IGNORECASE)
_ALL_STEPS = 10_000  # what KSamplerAdvanced ends at where it does not end early


def read(texts: Mapping[str, str]) -> Recipe | None:
    """None where neither chunk has a graph with a sampler."""
    for fields in (json_of(texts.get("prompt", "")), comfyui_workflow.as_run(json_of(texts.get("workflow", "")))):
        graph = graph_of(fields)
        if graph is not None and (samplers := _samplers(graph)):
            return _Reading(graph, samplers).whole()
    return None


def _samplers(graph: Graph) -> list[Node]:
    """Those that a picture came from, the first to draw last: of several pictures, of that with most behind it."""
    found = [[node for node in graph.above(end, _PIXELS) if node.kind in _SAMPLERS] for end in graph.ends()]
    return max(found, key=len, default=[]) or [node for node in graph.nodes if node.kind in _SAMPLERS][:1]


class _Reading:
    """One picture's way through a graph."""

    def __init__(self, graph: Graph, samplers: list[Node]) -> None:
        self._graph = graph
        self._sampler = samplers[-1]
        self._loras: list[LoraUse] = []
        self._model = Named()
        self._clip_skip: int | None = None
        self._distilled: float | None = None
        self._unread = [*self._after()]
        self._unread += [f"a second {one.kind} (node {one.id}): it is drawn once" for one in samplers[:-1]]

    def _after(self) -> Iterator[str]:
        """What lies between the sampler and the pictures, and is neither a decoder nor a place to save to."""
        for end in self._graph.ends():
            way = list[str]()
            for node in self._walk(end, _PIXELS):
                if node.kind in _SAMPLERS:
                    yield from way
                    break
                if node.kind not in _DECODING and not node.kind.startswith(_ENDS):
                    way.append(f"{node.kind} (node {node.id})")

    def whole(self) -> Recipe:
        guider = self._input(self._sampler, "guider") or self._sampler
        self._follow_model(self._input(guider, "model"))
        prompt = self._text(guider, ("positive", "conditioning", "cond1"))
        negative = self._text(guider, ("negative",))
        scheduling = self._input(self._sampler, "sigmas") or self._sampler
        (width, height), strength = self._latents(scheduling)
        scale = number_of(self._value(guider, "cfg" if "cfg" in guider.inputs else "cfg_conds"))
        return Recipe(
            program="ComfyUI",
            prompt=prompt,
            negative_prompt=negative,
            width=width,
            height=height,
            steps=self._steps(scheduling),
            guidance_scale=self._guidance(scale),
            seed=self._seed(),
            sampler=self._said(self._input(self._sampler, "sampler") or self._sampler, "sampler_name"),
            schedule=self._said(scheduling, "scheduler"),
            clip_skip=self._clip_skip,
            strength=strength,
            model=self._model,
            loras=tuple(reversed(self._loras[:MOST_LORAS])),
            not_understood=tuple(dict.fromkeys(self._unread)),
        )

    def _seed(self) -> int | None:
        noise = self._input(self._sampler, "noise") or self._sampler
        found = self._value(noise, "seed")
        return whole_of(self._value(noise, "noise_seed") if found is None else found)

    def _steps(self, scheduling: Node) -> int | None:
        steps, first = whole_of(self._value(scheduling, "steps")), whole_of(self._value(scheduling, "start_at_step"))
        last = whole_of(self._value(scheduling, "end_at_step"))
        if first or (last is not None and last < min(steps or 0, _ALL_STEPS)):
            self._unread.append(f"start_at_step {first}, end_at_step {last}: all steps are done")
        return steps

    def _guidance(self, scale: float | None) -> float | None:
        """A distilled model's own where the graph has it; another beside it is named."""
        if self._distilled is None:
            return scale
        if scale not in (None, 1.0):
            self._unread.append(f"cfg: {scale:g}, beside a guidance of {self._distilled:g}")
        return self._distilled

    def _latents(self, scheduling: Node) -> tuple[tuple[int | None, int | None], float | None]:
        """The size, and how much of a start picture was drawn anew, where there is one."""
        denoise = number_of(self._value(scheduling, "denoise"))
        is_partial = denoise is not None and denoise < 1
        latents = self._input(self._sampler, "latent_image")
        for node in self._walk(latents, ("samples", "latent", "pixels", "image", "LATENT")):
            if "width" in node.inputs and node.kind not in _ENCODED and "samples" not in node.inputs:
                if is_partial:
                    self._unread.append(f"denoise: {denoise:g} from an empty picture")
                if node.kind not in _EMPTY:
                    self._unread.append(f"{node.kind} (node {node.id}): its size alone is used")
                return (whole_of(self._value(node, "width")), whole_of(self._value(node, "height"))), None
            if node.kind in _ENCODED:
                return (None, None), denoise if denoise is not None else 1.0
            self._note(node)
        return (None, None), denoise if is_partial else None

    def _follow_model(self, node: Node | None) -> None:
        for one in self._walk(node, ("model", "model1", "MODEL")):
            if one.kind in _CHECKPOINTS:
                self._model = named(self._value(one, _CHECKPOINTS[one.kind]))
                return
            if one.kind in (_LORA, _LORA_ALONE):
                self._add_lora(one)
            elif one.kind == _LORAS:
                self._add_loras(one)
            else:
                self._note(one)

    def _add_lora(self, node: Node) -> None:
        strength, clip = (number_of(self._value(node, name)) for name in ("strength_model", "strength_clip"))
        file = named(self._value(node, "lora_name"))
        if clip is not None and clip != strength:
            self._unread.append(f"strength_clip: {clip:g} of {file.name}: as its strength_model")
        self._loras.append(LoraUse(file.name, weight=1.0 if strength is None else strength))

    def _add_loras(self, node: Node) -> None:
        """Of a loader with a switch for each."""
        for value in reversed(list(node.inputs.values())):
            if isinstance(value, dict) and value.get("on") is True and len(self._loras) < MOST_LORAS:
                strength = number_of(value.get("strength"))
                self._loras.append(LoraUse(named(value.get("lora")).name, weight=1.0 if strength is None else strength))

    def _text(self, node: Node, names: tuple[str, ...]) -> str:
        """Of a conditioning behind one of the inputs, through what may lie before it."""
        for one in self._conditionings(node, names):
            if one.kind == "ConditioningZeroOut":
                return ""
            if one.kind == "FluxGuidance":
                self._distilled = number_of(self._value(one, "guidance"))
                continue
            text = next((found for name in _TEXTS if (found := self._said(one, name))), "")
            if any(self._input(one, name) for name in _CONDITIONINGS) or ("clip" not in one.inputs and not text):
                self._note(one)
                continue
            self._note_encoder(one, text)
            return _EMBEDDING.sub(r"\1", text)
        return ""

    def _conditionings(self, node: Node, names: tuple[str, ...]) -> Iterator[Node]:
        """Those before a node; of one that has two outputs, the input that belongs to the one that is used."""
        seen = set[str]()
        while node.id not in seen:
            seen.add(node.id)
            name = next((one for one in names if self._input(node, one)), "")
            before = self._input(node, name)
            if before is None:
                return
            is_second = self._graph.output(node, name) == 1
            node, names = before, ("negative",) if is_second and "negative" in before.inputs else _CONDITIONINGS
            yield node

    def _note_encoder(self, node: Node, text: str) -> None:
        if "guidance" in node.inputs:
            self._distilled = number_of(self._value(node, "guidance"))
        for name in ("text_l", "clip_l"):
            if (other := self._said(node, name)) and other != text:
                self._unread.append(f"{name} of node {node.id}: another text for one of the encoders")
        for one in self._walk(self._input(node, "clip"), ("clip", "CLIP")):
            if one.kind == "CLIPSetLastLayer":
                layer = whole_of(self._value(one, "stop_at_clip_layer"))
                self._clip_skip = -layer if layer is not None and layer < -1 else None

    def _note(self, node: Node) -> None:
        if node.kind not in _SILENT:
            self._unread.append(f"{node.kind} (node {node.id})")

    def _walk(self, node: Node | None, names: tuple[str, ...]) -> Iterator[Node]:
        """A node and those before it, along the first of these inputs that each has."""
        seen = set[str]()
        while node is not None and node.id not in seen:
            seen.add(node.id)
            yield node
            node = next((found for name in names if (found := self._input(node, name))), None)

    def _input(self, node: Node, name: str) -> Node | None:
        return self._graph.behind(node, name)

    def _value(self, node: Node, name: str) -> Any:
        """A setting, or what the node says that it is linked to."""
        return self._graph.value(node, name)

    def _said(self, node: Node, name: str) -> str:
        found = self._value(node, name)
        return found if isinstance(found, str) else ""
