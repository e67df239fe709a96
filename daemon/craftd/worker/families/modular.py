"""diffusers' modular pipelines, drawn as others are: by their own loop, in a thread that takes turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import Parameter
from types import SimpleNamespace
from typing import Any

from craftd.worker.families.generic import PipelineRunner

_GUIDANCE = "guidance_scale"


class ModularRunner(PipelineRunner):
    """The runner over a modular pipeline: its blocks' inputs are the arguments of its call."""

    @staticmethod
    def parameters(pipe: Any) -> Mapping[str, Parameter]:
        """Where a guider guides, its scale is one of them too."""
        named = [one for one in pipe.blocks.inputs if one.name]
        given = {one.name: one.default for one in named} | ({_GUIDANCE: None} if _guider(pipe) else {})
        return {name: Parameter(name, Parameter.KEYWORD_ONLY, default=value) for name, value in given.items()}

    @staticmethod
    def callable(pipe: Any) -> Callable[..., Any]:
        def call(**asked: Any) -> SimpleNamespace:
            if (guider := _guider(pipe)) is not None:
                pipe.guider = guider.new(guidance_scale=asked.pop(_GUIDANCE))
            return SimpleNamespace(images=pipe(output="images", **asked))

        return call


def _guider(pipe: Any) -> Any:
    return getattr(pipe, "guider", None)
