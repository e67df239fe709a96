"""What a picture was made from, in the one text that AUTOMATIC1111 and its relatives read."""

from __future__ import annotations

import json
from collections.abc import Mapping

from craftd.http.uploads import Notes


def of_notes(notes: Notes) -> str:
    """As it stands in the file, or from craft's own JSON; "" where there is neither."""
    own = notes.texts.get("parameters", "")
    return own or of_provenance(notes.texts.get("craft", "") or notes.comment) or notes.comment


def of_provenance(provenance: str) -> str:
    """ "" where it is none of craft's."""
    try:
        text = _text(json.loads(provenance))
    except (ValueError, RecursionError):  # the file may be anybody's
        return ""
    return text.encode("utf-8", "replace").decode()


def parse(infotext: str) -> dict[str, str]:
    """The last line's numbers by their names."""
    last = infotext.strip().rpartition("\n")[2]
    pairs = (part.partition(": ") for part in last.split(", "))
    return {key.strip(): value.strip() for key, found, value in pairs if found}


def _text(known: object) -> str:
    if not isinstance(known, dict) or "prompt" not in known:
        return ""
    negative = [f"Negative prompt: {known['negative_prompt']}"] if known.get("negative_prompt") else []
    numbers = ", ".join(f"{key}: {value}" for key, value in _numbers(known).items())
    return "\n".join([str(known["prompt"]) + _tags(known), *negative, numbers])


def _numbers(known: Mapping[str, object]) -> dict[str, object]:
    model = known.get("model")
    model = model if isinstance(model, dict) else {}
    return {
        "Steps": known.get("steps"),
        "Sampler": known.get("sampler"),
        "CFG scale": known.get("guidance_scale"),
        "Seed": known.get("seed"),
        "Size": f"{known.get('width')}x{known.get('height')}",
        "Model hash": str(model.get("sha256", ""))[:10],
        "Model": model.get("name"),
    }


def _tags(known: Mapping[str, object]) -> str:
    loras = known.get("loras")
    named = [one for one in loras if isinstance(one, dict)] if isinstance(loras, list) else []
    return "".join(f" <lora:{one.get('name')}:{one.get('weight')}>" for one in named)
