"""What AUTOMATIC1111's ControlNet extension calls a unit, in `alwayson_scripts`, and what it asks craft for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from craft_protos.generate import LARGEST_CONTROL, MAP, MAPS, MOST_CONTROLS, Control
from craft_protos.reasons import invalid
from pydantic import BaseModel, Field, ValidationError

from craftd.http.fields import Real, Text, Whole
from craftd.http.forms.automatic1111 import name_of
from craftd.http.forms.lenient import Lenient
from craftd.jobs.controls import check_kind
from craftd.models.part import Part

SCRIPT = "controlnet"
FIELD = "alwayson_scripts.controlnet.args"
_MOST_CHARS = 64 << 20
_FITS = ("stretch", "crop", "fill")  # by resize_mode
_FITS_BY_NAME = {
    **dict.fromkeys(("just resize", "resize"), "stretch"),
    **dict.fromkeys(("crop and resize", "scale to fit (inner fit)", "inner fit"), "crop"),
    **dict.fromkeys(("resize and fill", "envelope (outer fit)", "outer fit"), "fill"),
}
_BALANCED = (None, 0, "Balanced", "ControlMode.BALANCED")
# Their names of what is made of a picture -> craft's.
MODULES = {
    **dict.fromkeys(("none", ""), MAP),
    **{name: name for name in MAPS},
    "canny": "canny",
    "edges": "edges",
    **dict.fromkeys(("scribble", "scribble_xdog"), "scribble"),
    **dict.fromkeys(("tile", "tile_resample"), "tile"),
    **dict.fromkeys(("invert", "invert (from white bg & black line)"), "invert"),
}
# Others of theirs, by the kind that craft lacks a network for; longer beginnings first.
_NEED_NETWORKS = (
    *(("depth", "depth"), ("openpose", "pose"), ("dw_openpose", "pose"), ("densepose", "pose"), ("normal", "normal")),
    *(
        ("mlsd", "lines"),
        ("seg", "segmentation"),
        ("lineart", "lineart"),
        ("softedge", "softedge"),
        ("hed", "softedge"),
    ),
    *(("scribble_", "scribble"), ("shuffle", "shuffle"), ("pidi", "softedge")),
)

Encoded = Annotated[str, Field(max_length=_MOST_CHARS)]


class Shown(Lenient):
    """A picture, and a mask beside it, as pages send them."""

    image: Encoded = ""
    mask: Encoded | None = None


class Unit(Lenient):
    enabled: bool = True
    image: Encoded | Shown | None = None
    input_image: Encoded | Shown | None = None  # its older name
    mask: Encoded | None = None
    module: Text = "none"
    model: Text = "None"
    weight: Annotated[Real, Field(ge=0, le=LARGEST_CONTROL)] = 1.0
    resize_mode: Annotated[Whole, Field(ge=0, le=2)] | Text = "Crop and Resize"
    guidance_start: Annotated[Real, Field(ge=0, le=1)] = 0.0
    guidance_end: Annotated[Real, Field(ge=0, le=1)] = 1.0
    control_mode: Whole | Text | None = None
    hr_option: Text = "Both"
    threshold_a: Real | None = None
    threshold_b: Real | None = None

    @property
    def encoded(self) -> str:
        """The picture; "" where it has none."""
        given = self.image or self.input_image
        return given.image if isinstance(given, Shown) else given or ""

    @property
    def has_mask(self) -> bool:
        given = self.image or self.input_image
        return bool(self.mask or (isinstance(given, Shown) and given.mask))


class VersionAnswer(BaseModel):
    version: int = 2


class ModelListAnswer(BaseModel):
    model_list: list[str]


class ModuleListAnswer(BaseModel):
    module_list: list[str]
    module_detail: dict[str, dict[str, Any]]


class SettingsAnswer(BaseModel):
    control_net_unit_count: int = MOST_CONTROLS


class ControlType(BaseModel):
    module_list: list[str]
    model_list: list[str]
    default_option: str
    default_model: str


class ControlTypesAnswer(BaseModel):
    control_types: dict[str, ControlType]


class DetectRequest(Lenient):
    controlnet_module: Text = "none"
    controlnet_input_images: list[Encoded] = Field(default_factory=list, max_length=MOST_CONTROLS)
    controlnet_images: list[Encoded] = Field(default_factory=list, max_length=MOST_CONTROLS)  # as webuiapi says it

    @property
    def pictures(self) -> list[tuple[str, str]]:
        """Each with the field that it came in. Raises INVALID_FIELD where there are none."""
        fields = {"controlnet_input_images": self.controlnet_input_images, "controlnet_images": self.controlnet_images}
        found = [(f"{name}[{place}]", one) for name, some in fields.items() for place, one in enumerate(some)]
        if not found:
            raise invalid("controlnet_input_images", "are none", "give pictures, in base64")
        return found


class DetectAnswer(BaseModel):
    images: list[str] = Field(description="PNG, base64.")
    info: Literal["Success"] = "Success"


def title_of(control: Part) -> str:
    """A control model, with the beginning of its weights' hash."""
    return f"{control.name} [{control.sha256[:8]}]"


def types_of(controls: Sequence[Part]) -> dict[str, ControlType]:
    """All of them, and by what their names say that they read."""
    told = {reads.capitalize(): [one for one in controls if one.reads == reads] for reads in _reads(controls)}
    return {name: _type(name.lower(), some) for name, some in {"All": list(controls), **told}.items()}


def _reads(controls: Sequence[Part]) -> list[str]:
    return sorted({one.reads for one in controls if one.reads})


def _type(reads: str, some: Sequence[Part]) -> ControlType:
    modules = [name for name in MODULES if name and (reads == "all" or MODULES[name] in (MAP, reads))]
    titles = ["None", *map(title_of, some)]
    return ControlType(module_list=modules, model_list=titles, default_option=modules[-1], default_model=titles[-1])


def units_of(scripts: dict[str, Any] | None) -> list[tuple[str, Unit]]:
    """Those that are switched on, and what each is called in errors. Raises INVALID_FIELD."""
    script = next((one for name, one in (scripts or {}).items() if is_controlnet(name)), None)
    args = script.get("args") if isinstance(script, dict) else script
    found = [_unit(f"{FIELD}[{place}]", one) for place, one in enumerate(args)] if isinstance(args, list) else []
    found = [(name, unit) for name, unit in found if unit.enabled]
    if len(found) > MOST_CONTROLS:
        raise invalid(FIELD, f"are {len(found)}; the limit is {MOST_CONTROLS}", "leave some out")
    return found


def is_controlnet(name: str) -> bool:
    """Says whether a script's name is the extension's."""
    return name.lower() == SCRIPT


def control_of(name: str, unit: Unit, sha256: str) -> Control:
    """`sha256`: of its picture. Raises INVALID_FIELD for what craft does not do."""
    check(name, unit)
    return Control(
        sha256,
        kind_of(f"{name}.module", unit.module),
        "" if unit.model.lower() in ("none", "") else name_of(unit.model),
        scale=float(unit.weight),
        start=float(unit.guidance_start),
        end=float(unit.guidance_end),
        fit=_fit(f"{name}.resize_mode", unit.resize_mode),
    )


def check(name: str, unit: Unit) -> None:
    """Raises INVALID_FIELD for what is known and not done."""
    if unit.has_mask:
        raise invalid(f"{name}.mask", "is not in craft: a control picture counts everywhere", "leave it out")
    if unit.control_mode not in _BALANCED:
        raise invalid(f"{name}.control_mode", f"{unit.control_mode} is not in craft", "take Balanced, or a weight")
    if unit.hr_option.lower() not in ("both", "hiresfixoption.both"):
        raise invalid(f"{name}.hr_option", "is not in craft", "take Both")
    kind_of(f"{name}.module", unit.module)
    _fit(f"{name}.resize_mode", unit.resize_mode)


def not_done(units: Sequence[tuple[str, Unit]]) -> list[str]:
    """Thresholds of canny's that are drawn as craft's own, and said to be."""
    others = [(name, unit) for name, unit in units if unit.module == "canny"]
    return [f"{name}.threshold_a" for name, unit in others if (unit.threshold_a, unit.threshold_b) not in _THRESHOLDS]


_THRESHOLDS = ((None, None), (-1, -1), (100, 200))


def kind_of(field: str, module: str) -> str:
    """craft's name of what is made of the picture. Raises INVALID_FIELD for what craft does not make."""
    name = module.strip().lower()
    if name in MODULES:
        return MODULES[name]
    needs = next((kind for beginning, kind in _NEED_NETWORKS if name.startswith(beginning)), None)
    if needs == "scribble":
        raise invalid(field, f"{module[:60]} takes a network that craft does not have", "take scribble_xdog")
    if needs is not None:
        check_kind(needs, field)
    raise invalid(field, f"{module[:60]!r} is not in craft", f"known: {', '.join(sorted(filter(None, MODULES)))}")


def _unit(name: str, given: object) -> tuple[str, Unit]:
    if not isinstance(given, dict):
        raise invalid(name, "must be an object", "name its fields")
    try:
        return name, Unit.model_validate(given)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(one) for one in first["loc"][:1])
        raise invalid(f"{name}.{place}", str(first["msg"])[:200]) from exc


def _fit(field: str, mode: int | str) -> str:
    if isinstance(mode, int):
        return _FITS[mode]
    found = _FITS_BY_NAME.get(mode.strip().lower())
    if found is None:
        raise invalid(field, f"{mode[:60]!r} is not known", "take Just Resize, Crop and Resize, or Resize and Fill")
    return found
