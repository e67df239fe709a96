"""What a LoRA's file says about itself: listed keys, short, as text. Data, never configuration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from craft_protos.reasons import CraftError

from craftd import documents

_LISTED = ("ss_", "modelspec.")
_MOST_KEYS = 64
_LONGEST_KEY, _LONGEST_VALUE = 80, 500  # characters
_LARGEST_BYTES = 16 << 10  # of all together
_TAGS = "ss_tag_frequency"
_LONGEST_TAGS = 4 << 20  # characters
_MOST_TAGS, _LONGEST_TAG = 10, 40
_TRIGGER = "modelspec.trigger_phrase"
_LONGEST_TRIGGER = 200
_NONE = ("", "None", "null")


def listed(metadata: Mapping[str, str]) -> dict[str, str]:
    """The listed keys, within limits; tags become the most frequent ones."""
    kept: dict[str, str] = {}
    size_bytes = 0
    for key in sorted(metadata):
        if not key.startswith(_LISTED) or len(key) > _LONGEST_KEY or not key.isprintable():
            continue
        text = ", ".join(frequent_tags(metadata[key])) if key == _TAGS else plain(metadata[key], _LONGEST_VALUE)
        size_bytes += len(key) + len(text.encode())
        if len(kept) == _MOST_KEYS or size_bytes > _LARGEST_BYTES:
            break
        if text not in _NONE:
            kept[key] = text
    return kept


def trigger(metadata: Mapping[str, str]) -> str:
    """The trigger phrase that the file names, or ""."""
    said = plain(metadata.get(_TRIGGER, ""), _LONGEST_TRIGGER)
    return "" if said in _NONE else said


def frequent_tags(text: str) -> list[str]:
    """The captions' most frequent tags, from kohya's count by folder; [] where it isn't one."""
    if len(text) > _LONGEST_TAGS:
        return []
    try:
        folders = documents.parse(_TAGS, text.encode("utf-8", "replace"))
    except CraftError:
        return []
    counts: Counter[str] = Counter()
    for tags in folders.values():
        for tag, count in tags.items() if isinstance(tags, dict) else ():
            if type(count) is int and 0 < count < 1 << 32:
                counts[tag] += count
    found = [plain(tag, _LONGEST_TAG) for tag, _ in counts.most_common(_MOST_TAGS)]
    return [tag for tag in found if tag]


def plain(text: str, longest: int) -> str:
    """Printable, on one line, at most so long."""
    cut = text[: 4 * longest].encode("utf-8", "replace").decode()
    words = "".join(character if character.isprintable() else " " for character in cut).split()
    joined = " ".join(words)
    return joined if len(joined) <= longest else f"{joined[: longest - 1]}…"
