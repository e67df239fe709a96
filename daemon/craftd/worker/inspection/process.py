"""`python -m craftd.worker --inspect [--lora] PATH`: one line of JSON with the verdict, then the end.

`--inspect --pictures [--compared] PATH...`: a line for each picture, as it is decoded; equal ones say so.
`--inspect --mask MEANING PATH`: the picture as a mask of craft's, a PNG, on stdout.
`--inspect --control KIND PATH`: what a control model would be shown of the picture, a PNG, on stdout.
`--inspect --recipe`: a picture comes on stdin; the line has what it says of how it was made, null if nothing.
`--inspect --identify`: paths come on stdin; a line for each with what it is, as it is read.
`--inspect --upscalers`: the same, of files that may be upscalers.
`--inspect --convert PATH`: a pickled file's tensors as a safetensors file; its bytes follow the line.
`--inspect --convert FORM PATH`: the same of a LoRA's tensors, in the names of another form.
`--inspect --layouts`: of models whose configurations come on stdin, a line each with what LoRAs can change in it.
`--inspect --chat`: a chat template and a conversation come on stdin; the line has the text that it makes.
`--inspect --fits [--convert]`: LoRAs' paths and layouts come on stdin; a line for each LoRA with how it fits in each.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from craft_protos.reasons import CraftError

from craftd.worker.inspection import lora
from craftd.worker.inspection.confine import CPU_S, confine

if TYPE_CHECKING:
    from torch import Tensor

    from craftd.worker.lora.spellings import Spellings

_LORA_CPU_S = 120  # every byte is read and hashed: some gigabytes at the most
_PICTURES_CPU_S = 60
_CHAT_CPU_S = 20  # its own limit is less
_LAYOUT_CPU_S = 60  # of each model
_FIT_CPU_S = 20  # of each LoRA
_BUILDING_CPU_S = 10  # of each upscaler
_CONVERT_CPU_S = 300  # some gigabytes
_BUILDING_BYTES = 4 << 30  # for networks without weights, and for what one LoRA's conversion takes
_GOOD = {"reason": "", "message": "", "hint": ""}


def main(asked: Sequence[str]) -> None:
    match asked:
        case ["--pictures", "--compared", *paths]:
            run_pictures(map(Path, paths), are_compared=True)
        case ["--pictures", *paths]:
            run_pictures(map(Path, paths))
        case ["--mask", meaning, path]:
            run_mask(Path(path), meaning)
        case ["--control", kind, path]:
            run_map(Path(path), kind)
        case [("--recipe" | "--identify" | "--upscalers" | "--chat" | "--layouts") as option]:
            _of_stdin()[option]()
        case ["--convert", path]:
            run_convert(Path(path))
        case ["--convert", form, path]:
            run_convert_lora(Path(path), form)
        case ["--fits", *options]:
            run_fits(with_converters="--convert" in options)
        case ["--lora", path]:
            run_lora(Path(path))
        case [path]:
            run(Path(path))


def _of_stdin() -> dict[str, Callable[[], None]]:
    """What is asked about what comes on stdin."""
    return {
        "--recipe": run_recipe,
        "--identify": run_identify,
        "--upscalers": run_upscalers,
        "--chat": run_chat,
        "--layouts": run_layouts,
    }


def run(path: Path) -> None:
    """A model. Whoever started us bounds our time from outside."""
    confine()
    print(json.dumps(_verdict(lambda: _check_model(path))))


def run_lora(path: Path) -> None:
    """A LoRA's file; what it is comes with the verdict."""
    confine(_LORA_CPU_S)
    print(json.dumps(_verdict(lambda: {**_GOOD, "lora": asdict(lora.check(path))})))


def run_pictures(paths: Iterable[Path], *, are_compared: bool = False) -> None:
    """Pictures to train on, which are compared, or to draw from. One that ends us is the first without a line."""
    from craftd.worker.inspection import pictures  # and with it Pillow, for them alone

    confine(_PICTURES_CPU_S)
    for found in pictures.check(paths, are_compared=are_compared):
        print(json.dumps(found), flush=True)


def run_mask(path: Path, meaning: str) -> None:
    """A picture that was found good before. Nothing comes of one that ends us."""
    from craftd.worker.inspection import masks

    confine(_PICTURES_CPU_S)
    sys.stdout.buffer.write(masks.converted(path, meaning))


def run_map(path: Path, kind: str) -> None:
    """As `run_mask`."""
    from craftd.worker.inspection import maps

    confine(_PICTURES_CPU_S)
    sys.stdout.buffer.write(maps.made(path, kind))


def run_recipe() -> None:
    """Its words alone are read: no pixel is decoded."""
    from craft_protos.recipes import reading

    confine()
    recipe = reading.read(sys.stdin.buffer.read())
    print(json.dumps({"recipe": None if recipe is None else asdict(recipe)}))


def run_identify() -> None:
    """{"paths": [path]}. One that ends us is the first without a line."""
    paths = list(map(Path, json.load(sys.stdin)["paths"]))
    confine(CPU_S + len(paths))
    for path in paths:
        print(json.dumps(_verdict(partial(_identity, path))), flush=True)


def run_upscalers() -> None:
    """{"paths": [path]}. One that ends us is the first without a line."""
    from craftd.worker.inspection import upscalers  # and with it Spandrel

    upscalers.prepare()
    paths = list(map(Path, json.load(sys.stdin)["paths"]))
    confine(CPU_S + _BUILDING_CPU_S * len(paths), _BUILDING_BYTES)
    for path in paths:
        print(json.dumps(_verdict(partial(_upscaler, path))), flush=True)


def run_convert(path: Path) -> None:
    """The line says how many bytes follow it."""
    from craftd.worker.inspection import converting  # and with it torch

    confine(_CONVERT_CPU_S, _BUILDING_BYTES + 3 * path.stat().st_size)
    _answer_with_file(lambda: (converting.read(path), {}))


def run_convert_lora(path: Path, form: str) -> None:
    """As `run_convert`."""
    from craftd.worker.inspection import layouts, lora_converting

    layouts.prepare()
    confine(_CONVERT_CPU_S, _BUILDING_BYTES + 6 * path.stat().st_size)

    def made() -> tuple[Mapping[str, Tensor], Mapping[str, str]]:
        found = lora_converting.converted(path, form)
        return found.tensors, found.metadata

    _answer_with_file(made)


def _answer_with_file(make: Callable[[], tuple[Mapping[str, Tensor], Mapping[str, str]]]) -> None:
    from craftd.worker.inspection import converting

    found: list[tuple[bytes, Mapping[str, Tensor]]] = []

    def read() -> dict[str, object]:
        tensors, metadata = make()
        found.append((converting.header(tensors, metadata), tensors))
        size = len(found[0][0]) + converting.size_bytes(tensors)
        return {**_GOOD, "tensors": len(tensors), "size_bytes": size}

    out = sys.stdout.buffer
    out.write(json.dumps(_verdict(read)).encode() + b"\n")
    for beginning, tensors in found:
        out.write(beginning)
        out.writelines(converting.pieces(tensors))
    out.flush()


def run_chat() -> None:
    """{"name": text, "template": text, "given": {"messages": [...], ...}}"""
    from craftd.worker.inspection import chat

    asked = json.load(sys.stdin)
    confine(_CHAT_CPU_S)
    print(json.dumps(_verdict(lambda: {**_GOOD, "text": chat.render(**asked)})))


def run_layouts() -> None:
    """Of models that have been checked: {"models": [{"model_index.json": text, "unet/config.json": text, ...}]}."""
    from craftd.worker.inspection import layouts

    layouts.prepare()
    models = json.load(sys.stdin)["models"]
    confine(_LAYOUT_CPU_S * len(models), _BUILDING_BYTES)
    for parts in models:
        print(json.dumps(_verdict(partial(_layout, parts))), flush=True)


def run_fits(*, with_converters: bool) -> None:
    """{"loras": [path], "layouts": [layout]}; a line says "convert" where diffusers would have to be asked."""
    from craftd.worker.inspection import fits
    from craftd.worker.lora.layout import Layout
    from craftd.worker.lora.spellings import Spellings

    if with_converters:
        fits.prepare()
    asked = json.load(sys.stdin)
    confine(_FIT_CPU_S * (1 + len(asked["loras"])), _BUILDING_BYTES)
    models = [Spellings(Layout.from_json(text)) for text in asked["layouts"]]
    for path in map(Path, asked["loras"]):
        print(json.dumps(_verdict(partial(_fits, path, models, with_converters))), flush=True)


def _identity(path: Path) -> dict[str, object]:
    from craftd.worker.inspection import identify

    return {**_GOOD, "identity": identify.of(path)}


def _upscaler(path: Path) -> dict[str, object]:
    from craftd.worker.inspection import upscalers

    return {**_GOOD, "identity": upscalers.of(path)}


def _layout(parts: Mapping[str, str]) -> dict[str, object]:
    from craftd.worker.inspection import layouts

    return {**_GOOD, "layout": layouts.of(parts)}


def _fits(path: Path, models: Sequence[Spellings], with_converters: bool) -> dict[str, object]:
    from craftd.worker.inspection import fits

    try:
        return {**_GOOD, "fits": list(fits.of(path, models, with_converters=with_converters))}
    except fits.NeedsConverter:
        return {**_GOOD, "convert": True}


def _check_model(path: Path) -> dict[str, object]:
    from craftd.worker.inspection import model  # and with it what chat templates are rendered by

    model.check(path)
    return {**_GOOD}


def _verdict(check: Callable[[], dict[str, object]]) -> dict[str, object]:
    try:
        return check()
    except CraftError as exc:
        return {"reason": exc.reason, "message": exc.message, "hint": exc.hint}
    except MemoryError:
        return {"reason": "CORRUPT_FILE", "message": "checking it takes too much memory", "hint": "use another one"}
    except OSError as exc:
        message = f"{exc.filename!r} cannot be read: {exc.strerror}"
        return {"reason": "CORRUPT_FILE", "message": message, "hint": "see that craftd may read it"}
