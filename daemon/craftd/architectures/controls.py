"""Control models: networks that read a picture of where things are, and tell a UNet while it draws.

They are parts of their own: registered as those are, and drawn with by name. What a picture must show for one of them
to read it (edges, depth, a pose) stands nowhere in its file: its name says it.
"""

from __future__ import annotations

import re

from craftd.architectures.architecture import Architecture, Mark, PartKind

CONTROL = "control model"

_BEFORE = "control-"  # a kind's id: this and the architecture's
_ORIGINAL, _DIFFUSERS = ("control_model.", ""), ("", "controlnet.")
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
}
_LINES = frozenset(("edges", "softedge", "lineart", "scribble"))
NEED_NETWORKS = tuple(name for name in _SAID if name not in _MADE and name not in ("inpaint", "qr"))


def _kind(architecture: str, name: str, *marks: Mark) -> tuple[PartKind, ...]:
    """One for each layout."""
    shown = f"a ControlNet of {name}"
    return tuple(PartKind(id=_BEFORE + architecture, name=shown, role=CONTROL, mark=mark) for mark in marks)


def _both(architecture: str, name: str, width: int, *, is_xl: bool = False) -> tuple[PartKind, ...]:
    """The original layout and diffusers'."""
    told, lacks = (("label_emb.",), ()) if is_xl else ((), ("label_emb.",))
    original = Mark(("zero_convs.", "input_hint_block.", *told), lacks, (_WIDTH, -1, width), _ORIGINAL)
    common = ("controlnet_down_blocks.", "controlnet_cond_embedding.", "conv_in.")
    told, lacks = (("add_embedding.linear_1.",), ()) if is_xl else ((), ("add_embedding.",))
    lacks = (*lacks, "task_embedding", "control_add_embedding.")
    diffusers = Mark((*common, *told), lacks, (_WIDTH, -1, width), _DIFFUSERS)
    return _kind(architecture, name, original, diffusers)


_OF_POCKET = Mark(
    ("controlnet_down_blocks.", "controlnet_cond_embedding."), (), ("add_embedding.proj.weight", -1, 256), ("",)
)
KINDS = (
    *_both("sd1", "Stable Diffusion 1", 768),
    *_both("sd2", "Stable Diffusion 2", 1024),
    *_both("sdxl", "Stable Diffusion XL", 2048, is_xl=True),
    *_kind("pocket", "pocket", _OF_POCKET),
)
# Those that craft does not draw with, by what they are.
DRAWN_WITH = "craft draws with ControlNets of Stable Diffusion 1, 2 and XL, and of pocket"
STRANGERS: dict[str, tuple[Mark, ...]] = {
    f"{what}; {DRAWN_WITH}": tuple(
        Mark(beginnings, prefixes=("", "controlnet.", "control_model.")) for beginnings in marks
    )
    for what, *marks in (
        (
            "a ControlNet of Stable Diffusion 3",
            ("controlnet_blocks.", "pos_embed_input."),
            ("controlnet_blocks.", "joint_blocks."),
        ),
        (
            "a ControlNet of Qwen-Image",
            ("controlnet_blocks.", "transformer_blocks.0.img_mod."),
        ),
        ("a ControlNet of FLUX.1", ("controlnet_blocks.", "x_embedder."), ("controlnet_blocks.", "double_blocks.")),
        ("a ControlNet of Z-Image", ("control_all_x_embedder.",), ("control_layers.",)),
        (
            "a ControlNet for several kinds of pictures (union)",
            ("control_add_embedding.",),
            ("task_embedding", "controlnet_cond_embedding."),
        ),
        ("a ControlNet in kohya's small form (LLLite)", ("lllite_unet",)),
        ("a control LoRA", ("lora_controlnet",)),
        ("a T2I-adapter", ("adapter.body.",), ("body.0.in_conv.",), ("body.0.resnets.", "conv_in.")),
        ("a ControlNet", ("controlnet_blocks.",), ("controlnet_cond_embedding.",), ("input_hint_block.",)),
    )
}


def is_control(kind: str) -> bool:
    """Says whether a part's kind is one of control models."""
    return kind.startswith(_BEFORE)


def kind_of(architecture: Architecture) -> str:
    """The kind of the parts that a model of this architecture draws with."""
    return _BEFORE + architecture.id


def architecture_of(kind: str) -> str:
    """The id of the architecture that control models of this kind are for."""
    return kind.removeprefix(_BEFORE)


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
