"""Control models: networks that read a picture of where things are, and tell a model while it draws.

They are parts of their own: registered as those are, and drawn with by name. What a picture must show for one of them
to read it (edges, depth, a pose) stands nowhere in its file: its name says it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from craft_protos.generate import MAPS

from craftd.architectures.architecture import Architecture, Mark, PartKind

CONTROL = "control model"

# A kind's id: this and the architecture's, and what tells others of that architecture from its ControlNets.
_BEFORE, _BEHIND = "control-", ":"
# diffusers' classes
CONTROLNET, T2I_ADAPTER, OF_FLUX = "ControlNetModel", "T2IAdapter", "FluxControlNetModel"
OF_SD3, OF_QWEN, OF_Z_IMAGE = "SD3ControlNetModel", "QwenImageControlNetModel", "ZImageControlNetModel"
_UNION = "union"  # what tells those that read several kinds of pictures, and are told which
_CONTROLNET, _OF_SEVERAL = "a ControlNet of {}", "a ControlNet of {} for several kinds of pictures"
_ORIGINAL, _DIFFUSERS = ("control_model.", ""), ("", "controlnet.")
_ADAPTER, _LIGHT = ("", "adapter."), ("body.0.in_conv.", "body.0.out_conv.")
_WIDTH = "*attn2.to_k.weight"  # of the text that it attends to

# What names say: the kind of picture -> words, the more telling first.
_SAID = {
    "canny": ("canny",),
    "edges": ("edges", "edge"),
    "softedge": ("softedge", "hed", "pidinet"),
    "scribble": ("scribble", "sketch"),
    "lineart": ("lineart",),
    "depth": ("depth", "zoe"),
    "pose": ("openpose", "pose", "dwpose"),
    "normal": ("normalbae", "normal", "normals"),
    "segmentation": ("seg", "segmentation"),
    "lines": ("mlsd",),
    "tile": ("tile",),
    "inpaint": ("inpaint", "inpainting"),
    "shuffle": ("shuffle",),
    "instruction": ("ip2p",),
    "brightness": ("brightness", "illumination"),
    "qr": ("qr", "qrcode", "monster"),
}
# What craft makes of a picture -> the kinds of pictures that it then is.
_MADE: dict[str, tuple[str, ...]] = {
    "canny": ("canny",),
    "edges": ("edges", "softedge", "lineart"),
    "scribble": ("scribble",),
    "tile": ("tile",),
    **{name: (name.removesuffix("-map"),) for name in MAPS},
}
_LINES = frozenset(("edges", "softedge", "lineart", "scribble"))
NEED_NETWORKS = tuple(name for name in _SAID if name not in _MADE and name not in ("inpaint", "qr"))


def _kind(
    architecture: str, name: str, *marks: Mark, network: str = CONTROLNET, further: str = "", what: str = _CONTROLNET
) -> tuple[PartKind, ...]:
    """One for each layout; `further`: what the architecture has beside its ControlNets."""
    number = _BEFORE + architecture + (_BEHIND + further if further else "")
    shown = what.format(name)
    return tuple(PartKind(id=number, name=shown, role=CONTROL, mark=mark, network=network) for mark in marks)


def _both(architecture: str, name: str, width: int, *, is_xl: bool = False) -> tuple[PartKind, ...]:
    """The original layout and diffusers'."""
    told, lacks = (("label_emb.",), ()) if is_xl else ((), ("label_emb.",))
    original = Mark(("zero_convs.", "input_hint_block.", *told), lacks, (_WIDTH, -1, width), _ORIGINAL)
    common = ("controlnet_down_blocks.", "controlnet_cond_embedding.", "conv_in.")
    told, lacks = (("add_embedding.linear_1.",), ()) if is_xl else ((), ("add_embedding.",))
    lacks = (*lacks, "task_embedding", "control_add_embedding.")
    diffusers = Mark((*common, *told), lacks, (_WIDTH, -1, width), _DIFFUSERS)
    return _kind(architecture, name, original, diffusers)


def _adapter(architecture: str, name: str, *inputs: int) -> tuple[PartKind, ...]:
    """diffusers' layout, the original one, and the original light one, of one colour and of three."""
    full = [("conv_in.", "body.0.resnets."), ("conv_in.", "body.0.block1.")]
    marks = [Mark(has, (), ("conv_in.weight", 1, side), _ADAPTER) for has in full for side in inputs]
    light = [Mark(_LIGHT, ("conv_in.",), (f"{_LIGHT[0]}weight", 1, side), _ADAPTER) for side in inputs]
    return _kind(
        architecture, name, *marks, *light, network=T2I_ADAPTER, further="t2i-adapter", what="a T2I-adapter of {}"
    )


def _transformer(
    architecture: str, name: str, network: str, *has: str, side: tuple[str, int, int] | None = None, mode: str = ""
) -> tuple[PartKind, ...]:
    """diffusers' layout; `mode`: what those have besides that are told the kind of their picture."""
    one = _kind(architecture, name, Mark(has, (mode,) if mode else (), side, _DIFFUSERS), network=network)
    if not mode:
        return one
    union = Mark((*has, mode), (), side, _DIFFUSERS)
    return *one, *_kind(architecture, name, union, network=network, further=_UNION, what=_OF_SEVERAL)


_JOINT = ("controlnet_blocks.", "controlnet_x_embedder.", "context_embedder.", "transformer_blocks.")
_LATENTS = ("controlnet_x_embedder.weight", 1, 64)  # others are shown a mask, too
_PATCHES = ("pos_embed_input.proj.weight", 1, 16)  # the same
_OF_POCKET = Mark(
    ("controlnet_down_blocks.", "controlnet_cond_embedding."), (), ("add_embedding.proj.weight", -1, 256), ("",)
)
KINDS = (
    *_both("sd1", "Stable Diffusion 1", 768),
    *_both("sd2", "Stable Diffusion 2", 1024),
    *_both("sdxl", "Stable Diffusion XL", 2048, is_xl=True),
    *_kind("pocket", "pocket", _OF_POCKET),
    # Channels of a picture that is taken apart: by eights of pixels, and by sixteens.
    *_adapter("sd1", "Stable Diffusion 1", 64, 192),
    *_adapter("sdxl", "Stable Diffusion XL", 256, 768),
    *_transformer("flux", "FLUX.1", OF_FLUX, *_JOINT, "x_embedder.", side=_LATENTS, mode="controlnet_mode_embedder."),
    *_transformer("sd3", "Stable Diffusion 3", OF_SD3, "controlnet_blocks.", "transformer_blocks.", side=_PATCHES),
    *_transformer("qwen-image", "Qwen-Image", OF_QWEN, *_JOINT[:2], "img_in.", "transformer_blocks.", side=_LATENTS),
    *_transformer("z-image", "Z-Image", OF_Z_IMAGE, "control_all_x_embedder.", "control_layers.0.before_proj."),
)
# Those that craft does not draw with, by what they are.
DRAWN_WITH = (
    "craft draws with ControlNets of Stable Diffusion 1, 2, 3 and XL, FLUX.1, Qwen-Image, Z-Image and pocket, "
    "and T2I-adapters of Stable Diffusion 1 and XL"
)
# What a FLUX.1's union ControlNet is told of its picture -> the number of it.
FLUX_MODES = {
    **{"canny": 0, "tile": 1, "depth-map": 2, "blur-map": 3},
    **{"pose-map": 4, "gray-map": 5, "low-quality-map": 6},
}
_MODES = {"flux": FLUX_MODES}
STRANGERS: dict[str, tuple[Mark, ...]] = {
    f"{what}; {DRAWN_WITH}": tuple(
        Mark(beginnings, prefixes=("", "controlnet.", "control_model.")) for beginnings in marks
    )
    for what, *marks in (
        (
            "a ControlNet of Stable Diffusion 3 of another form",
            ("controlnet_blocks.", "pos_embed_input."),
            ("controlnet_blocks.", "joint_blocks."),
        ),
        (
            "a ControlNet of Qwen-Image that is shown more than a picture",
            ("controlnet_blocks.", "transformer_blocks.0.img_mod."),
        ),
        ("a ControlNet of FLUX.1 that is shown more than a picture", ("controlnet_blocks.", "x_embedder.")),
        ("a ControlNet of FLUX.1 in its makers' own layout", ("controlnet_blocks.", "double_blocks.")),
        ("a ControlNet of Z-Image of another form", ("control_all_x_embedder.",), ("control_layers.",)),
        (
            "a ControlNet for several kinds of pictures (union)",
            ("control_add_embedding.",),
            ("task_embedding", "controlnet_cond_embedding."),
        ),
        ("a ControlNet in kohya's small form (LLLite)", ("lllite_unet",)),
        ("a control LoRA", ("lora_controlnet",)),
        ("a T2I-adapter of another kind", ("adapter.body.",), _LIGHT, ("body.0.resnets.", "conv_in.")),
        ("a ControlNet", ("controlnet_blocks.",), ("controlnet_cond_embedding.",), ("input_hint_block.",)),
    )
}


def is_control(kind: str) -> bool:
    """Says whether a part's kind is one of control models."""
    return kind.startswith(_BEFORE)


def kind_of(architecture: Architecture) -> str:
    """The kind of an architecture's ControlNets."""
    return _BEFORE + architecture.id


def is_for(kind: str, architecture: Architecture) -> bool:
    """Says whether a model of this architecture draws with control models of that kind."""
    return kind.partition(_BEHIND)[0] == kind_of(architecture)


def modes_of(kind: str) -> Mapping[str, int]:
    """The kinds of pictures that one control model of that kind reads and is told; {} where it reads but one."""
    architecture, _, further = kind.removeprefix(_BEFORE).partition(_BEHIND)
    return _MODES[architecture] if further == _UNION else {}


def network_of(kind: str) -> str:
    """diffusers' class of control models of that kind."""
    return next(one.network for one in KINDS if one.id == kind)


def said_by(*names: str) -> str:
    """What pictures a control model of these names reads; "" where none of them says it."""
    for name in names:
        words = re.findall(r"[a-z]+\d?[a-z]+|[a-z]+", name.lower())
        for said, telling in _SAID.items():
            if any(word in words for word in telling):
                return said
    return ""


def reads(said: str, kind: str) -> bool:
    """Says whether a control model whose name says that reads what craft makes of a picture as that kind."""
    return kind not in _MADE or said in _MADE[kind]


def reads_lines(said: str, kind: str) -> bool:
    """Says whether a control model that is for one kind of lines is shown another, which it reads nearly as well."""
    return said in _LINES and kind in _LINES
