"""What another picture was drawn with, as a request: `craft images replay` of others', `craft generate --like`.

craft's own pictures are told from provenance, those of other programs from their recipes, whose models and LoRAs are
found here by their hashes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from craft_protos.codec import shortened
from craft_protos.generate import UPSCALER, GenerateRequest
from craft_protos.lora import MOST_LORAS, LoraRef
from craft_protos.reasons import CraftError
from craft_protos.recipes import asking, finding, reading
from craft_protos.recipes.finding import Here
from craft_protos.recipes.recipe import LoraUse, Named, Recipe

from craft_cli import errors
from craft_cli.generate import drawing, provenance, remaking
from craft_cli.generate.inputs import STDIN, Pictures, Wish
from craft_cli.generate.provenance import Provenance

if TYPE_CHECKING:
    from craft_protos import models_pb2

    from craft_cli.connection.session import Session

_FLOW = "flow"  # a model's prediction
_PICTURES = ("start", "mask", "references", "controls")
_NOT_OF_LIKE = ("count", "format", "deterministic", "indices", "lora_missing", "default_model", *_PICTURES)


@dataclass(frozen=True)
class Source:
    """A picture's file, and what it says: one of the two."""

    name: str
    own: Provenance | None
    recipe: Recipe | None


@dataclass(frozen=True)
class Given:
    """What is asked for beside the file, and wins."""

    model: str = ""
    has_loras: bool = False
    skips_missing: bool = False  # a LoRA that is not here is left out
    has_start: bool = False


@dataclass(frozen=True)
class Liked:
    """A picture's settings, and what of them is lost."""

    request: GenerateRequest
    strength: float | None
    not_honoured: tuple[str, ...]

    def told(self, given: Given) -> list[str]:
        """What is lost; a strength is not, where a start picture is given."""
        return [one for one in self.not_honoured if not (given.has_start and one.startswith("strength:"))]


def read(name: str) -> Source:
    """What a file says, or stdin for `-`. Raises NO_INPUT, BAD_DATA, NO_PROVENANCE."""
    data = provenance.read_source(name)
    shown = "stdin" if name == STDIN else name
    picture = provenance.open_picture(data, shown)
    try:
        return Source(shown, provenance.read(picture, shown), None)
    except CraftError:
        recipe = reading.read(data)
        if recipe is None:
            raise
    return Source(shown, None, recipe)


def described(name: str) -> dict[str, Any]:
    """`images show FILE --json`: as craft's own, or with a recipe. Raises NO_INPUT, BAD_DATA or NO_PROVENANCE."""
    data = provenance.read_source(name)
    try:
        return provenance.described(name, data)
    except CraftError as error:
        recipe = reading.read(data) if error.reason == "NO_PROVENANCE" else None
        if recipe is None:
            raise
        return {**provenance.outside(name, data), "provenance": None, "recipe": asdict(recipe)}


def shown(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe's rows in a table: what it says alone, files by their names and hashes."""
    said = {name: value for name, value in recipe.items() if value not in (None, "", (), [])}
    width, height = said.pop("width", None), said.pop("height", None)
    said["size"] = f"{width}x{height}" if width and height else ""
    said["model"] = finding.told(Named(**recipe["model"])) if any(recipe["model"].values()) else "not said"
    uses = [LoraUse(**one) for one in recipe["loras"]]
    said["loras"] = ", ".join(f"{finding.told(one)}:{one.weight:g}" for one in uses)
    said["not_understood"] = "; ".join(recipe["not_understood"])
    return {name: value for name, value in said.items() if value != ""}


def after(session: Session, source: Source, given: Given) -> Liked:
    """What draws after another program's picture. Raises UNKNOWN_MODEL, UNKNOWN_LORA with all that is not here."""
    assert source.recipe is not None
    recipe = source.recipe
    model = _model(session, recipe.model, given.model)
    loras, missing = _loras(session, () if given.has_loras else recipe.loras)
    gone = [] if given.model or model else [recipe.model] if recipe.model != Named() else []
    lost = [] if given.skips_missing else [*missing]
    if gone or lost:
        raise _not_here(source.name, gone, lost)
    is_flow = model is not None and model.prediction == _FLOW
    settled = asking.asked(recipe, is_flow=is_flow, upscalers=_upscalers(session) if recipe.hires else ())
    left_out = tuple(f"LoRA {finding.told(one)}, which is not here" for one in missing)
    over = tuple(f"LoRA {one.lora}: a picture has {MOST_LORAS} at the most" for one in loras[MOST_LORAS:])
    request = replace(
        settled.request, model=model.name if model is not None else given.model, loras=tuple(loras[:MOST_LORAS])
    )
    return Liked(request, settled.strength, (*settled.not_honoured, *left_out, *over))


def again(session: Session, source: Source, model: str, wish: Wish) -> GenerateRequest:
    """What draws another program's picture once more, from the pictures that are given. Raises as `after`."""
    from craft_protos import config

    from craft_cli.generate import spec as specs

    pictures = Pictures(session)
    given = Given(model, has_start=wish.image is not None)
    liked = after(session, source, given)
    tell(source, liked.told(given))
    wish = replace(wish, strength=liked.strength if given.has_start else None)
    spec = _filled(GenerateRequest(), liked.request, has_start=given.has_start)
    spec = specs.with_default_model(spec, config.load(session.paths.config_file).generate.model)
    spec = specs.with_seed(replace(pictures.attach(spec, wish), format="png"))
    pictures.send(spec)
    return spec


def like(session: Session, name: str, wanted: GenerateRequest, wish: Wish) -> tuple[GenerateRequest, Wish]:
    """A request, and what it says of pictures, with what a file says where neither says anything. Raises as `after`."""
    source = read(name)
    given = Given(wanted.model, bool(wanted.loras), wanted.lora_missing == "skip", wish.image is not None)
    liked = after(session, source, given) if source.own is None else _own(session, source.own, given)
    tell(source, liked.told(given))
    if given.has_start and wish.strength is None and liked.strength is not None:
        wish = replace(wish, strength=liked.strength)
    return _filled(wanted, liked.request, has_start=given.has_start), wish


def tell(source: Source, not_honoured: Sequence[str]) -> None:
    """On stderr: whose picture it is, and what of it is lost."""
    if source.recipe is not None:
        promise = "it will be alike, not the same: craft repeats only its own pictures exactly"
        errors.say(
            errors.one_line(f"craft: drawn after {source.name}, a picture of {source.recipe.program}: {promise}")
        )
    for one in not_honoured:
        errors.say(errors.one_line(f"craft: not honoured: {one}"))


def _own(session: Session, origin: Provenance, given: Given) -> Liked:
    """A picture of craft's, without the pictures that it was made from."""
    spec = origin.spec
    if spec.steps is None:
        raise CraftError("USAGE", "--like: that picture was enlarged, not drawn", "craft upscale FILE enlarges others")
    if not given.has_loras:
        remaking.require_loras(session, origin)
    model = given.model or remaking.find_model(session, origin)
    spec = remaking.with_others(session, origin, replace(spec, model=model))
    lost = [f"{name}: give it by its option" for name in _PICTURES if getattr(spec, name)]
    strength = spec.start.strength if spec.start is not None else None
    return Liked(spec, strength, tuple(lost) if not given.has_start else tuple(lost[1:]))


def _filled(wanted: GenerateRequest, liked: GenerateRequest, *, has_start: bool) -> GenerateRequest:
    """The request with what the other has of that which it leaves out. A size is both of its sides, or follows."""
    usual = GenerateRequest()
    names = {field.name for field in fields(GenerateRequest)} - {*_NOT_OF_LIKE}
    if wanted.width is not None or wanted.height is not None or has_start:
        names -= {"width", "height"}
    if has_start:
        names -= {"hires"}
    own = {name: getattr(liked, name) for name in names if getattr(wanted, name) == getattr(usual, name)}
    return replace(wanted, **own)


def _model(session: Session, told: Named, given: str) -> models_pb2.Model | None:
    """The one that is given, or that is meant; None where it is not here."""
    listed = drawing.insist(session, lambda client: client.list_models())
    if given:
        return next((one for one in listed if given in (one.name, *one.aliases)), None)
    here = [Here(one.name, (), tuple(one.aliases), one.source) for one in listed]
    found = finding.find(told, here)
    if found is None and told.hash:
        return _hashed(session, told.hash)
    return next((one for one in listed if found is not None and one.name == found.name), None)


def _hashed(session: Session, digits: str) -> models_pb2.Model | None:
    """By its weights' hash, which the daemon may have to take first."""
    try:
        return drawing.insist(session, lambda client: client.get_model(digits))
    except CraftError as error:
        if error.reason != "UNKNOWN_MODEL":
            raise
        return None


def _loras(session: Session, told: Sequence[LoraUse]) -> tuple[list[LoraRef], list[LoraUse]]:
    """Those that are here, in their order, and those that are not."""
    if not told:
        return [], []
    listed = drawing.insist(session, lambda client: client.list_loras())
    here = [Here(one.id, (one.sha256, one.ss_hash), (one.name, one.file_name), one.source) for one in listed]
    pairs = [(use, finding.find(use, here)) for use in told]
    found = [LoraRef(one.name, use.weight) for use, one in pairs if one is not None]
    return found, [use for use, one in pairs if one is None]


def _upscalers(session: Session) -> list[str]:
    parts = drawing.insist(session, lambda client: client.list_parts())
    return [part.name for part in parts if part.kind.startswith(UPSCALER)]


def _not_here(name: str, models: Sequence[Named], loras: Sequence[LoraUse]) -> CraftError:
    """All that is missing in one, each with what to do about it."""
    told = [f"the model {finding.told(one)}" for one in models] + [f"the LoRA {finding.told(one)}" for one in loras]
    ways = [f"{shortened(one.name) or 'it'}: {finding.how_to_get(one)}" for one in (*models, *loras)]
    ways += ["-m NAME draws with another model"] if models else []
    ways += ["craft generate --like FILE --lora-missing skip draws without the LoRAs"] if loras else []
    message = f"{name} was drawn with {', '.join(told)}, which {'is' if len(told) == 1 else 'are'} not here"
    return CraftError("UNKNOWN_MODEL" if models else "UNKNOWN_LORA", message, "; ".join(ways))
