"""What pictures' files say in the forms of other programs: EXIF's UserComment, and AUTOMATIC1111's infotext."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from craft_protos import lora_strength

_HEAD_BYTES = 8  # of a UserComment: the name of its encoding
_UNICODE = b"UNICODE"
_PAIR = re.compile(r'(\w[\w \-/]{0,100}): *("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')  # bounded, for texts are anybody's
_STEPS = "Steps:"
_JSON_PAIR = re.compile(r"(?:^|, )(\w[\w \-/]{0,100}): (?=[\[{])")  # not quoted, as Civitai's resources
_MOST_JSON_PAIRS = 16


def comment(raw: bytes) -> str:
    """A UserComment's text. Its UTF-16 is of either byte order, which few programs mark."""
    head, body = raw[:_HEAD_BYTES], raw[_HEAD_BYTES:]
    if not head.startswith(_UNICODE):
        return body.decode("utf-8", "replace").rstrip("\0")
    if body.startswith((b"\xff\xfe", b"\xfe\xff")):
        return body.decode("utf-16", "replace").rstrip("\0")
    return body.decode(_order(body), "replace").rstrip("\0")


def _order(body: bytes) -> str:
    """The one in which fewer characters are outlandish: an infotext has mostly Latin ones, whose high bytes are 0."""
    pairs = len(body) // 2
    high_first, low_first = body[0 : 2 * pairs : 2].count(0), body[1 : 2 * pairs : 2].count(0)
    return "utf-16-le" if low_first > high_first else "utf-16-be"


def parse(infotext: str) -> dict[str, str]:
    """The numbers by their names; what was quoted, for it holds commas, without its quotes. No prompts."""
    rest, whole = _without_json(_numbers(infotext))
    return {name: _unquoted(value.strip()) for name, value in _PAIR.findall(rest)} | whole


def before_numbers(infotext: str) -> str:
    """The prompts, as they stand before the line of numbers."""
    text = infotext.strip()
    return text[: len(text) - len(_numbers(text))].strip()


def written(record: Mapping[str, Any]) -> str:
    """A picture's provenance as an infotext. Raises KeyError, TypeError and the like where it is none of craft's."""
    loras = record.get("loras") or []
    tags = "".join(f" <lora:{_plain(one['name'])}:{lora_strength.written(one)}>" for one in loras)
    negative = [f"Negative prompt: {record['negative_prompt']}"] if record.get("negative_prompt") else []
    numbers = ", ".join(f"{name}: {value}" for name, value in _told(record, loras).items())
    return "\n".join([f"{record['prompt']}{tags}", *negative, numbers])


def _told(record: Mapping[str, Any], loras: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    model, hashes = record["model"], ", ".join(f"{_plain(one['name'])}: {one['sha256'][:10]}" for one in loras)
    return {
        "Steps": record["steps"],
        "Sampler": record["sampler"] or record["scheduler"].removesuffix("Scheduler"),
        "CFG scale": f"{record['guidance_scale']:g}",
        "Seed": record["seed"],
        "Size": f"{record['width']}x{record['height']}",
        **({"Denoising strength": f"{record['start']['strength']:g}"} if record.get("start") else {}),
        **(_of_mask(record["mask"]) if record.get("mask") else {}),
        "Model hash": model["sha256"][:10],
        "Model": quoted(model["name"]),
        **({"Clip skip": record["clip_skip"]} if record.get("clip_skip", 1) != 1 else {}),
        **(_of_refiner(record["refiner"]) if record.get("refiner") else {}),
        "Version": f"craft {record['versions']['craft']}",
        **({"Lora hashes": f'"{hashes}"'} if loras else {}),
    }


def _of_refiner(refiner: Mapping[str, Any]) -> dict[str, object]:
    """By AUTOMATIC1111's names."""
    return {"Refiner": quoted(f"{refiner['model']} [{refiner['sha256'][:10]}]"), "Refiner switch at": refiner["switch"]}


def _of_mask(mask: Mapping[str, Any]) -> dict[str, object]:
    """By AUTOMATIC1111's names."""
    inverted = {"Mask mode": "Inpaint not masked"} if mask["invert"] else {}
    area = {} if mask["padding"] is None else {"Inpaint area": "Only masked", "Masked area padding": mask["padding"]}
    return {"Mask blur": f"{mask['blur']:g}", **inverted, **area}


def _plain(name: str) -> str:
    """A LoRA's name without what has a meaning in an infotext."""
    return "".join("_" if character in ',:<>"' else character for character in name)


def quoted(value: object) -> str:
    """As one of the numbers: in quotes, where it holds what would end it."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if set(text) & set(',:"\n') else text


def _numbers(infotext: str) -> str:
    """The part after the prompts: from the last line on that begins with the steps, for quoted values may hold line
    ends; where none does, the end of the last line, from its steps on.
    """
    lines = infotext.strip().split("\n")
    begins = [number for number, line in enumerate(lines) if line.startswith(_STEPS)]
    return "\n".join(lines[begins[-1] :]) if begins else lines[-1][max(0, lines[-1].rfind(f" {_STEPS}")) :].lstrip()


def _without_json(numbers: str) -> tuple[str, dict[str, str]]:
    """The numbers without those that are JSON, whose commas separate nothing, and these by their names."""
    found: dict[str, str] = {}
    for _ in range(_MOST_JSON_PAIRS):
        pair = _JSON_PAIR.search(numbers)
        if pair is None:
            break
        try:
            _, end = json.JSONDecoder().raw_decode(numbers, pair.end())
        except (ValueError, RecursionError):
            break
        found.setdefault(pair[1], numbers[pair.end() : end])
        numbers = numbers[: pair.start()] + numbers[end:]
    return numbers, found


def _unquoted(value: str) -> str:
    if not (value.startswith('"') and value.endswith('"')):
        return value
    try:
        text = json.loads(value)
    except ValueError:
        return value
    return text if isinstance(text, str) else value
