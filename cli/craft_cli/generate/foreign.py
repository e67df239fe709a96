"""Options by the names that other programs give them (AUTOMATIC1111, diffusers, mflux, stable-diffusion.cpp)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from craft_protos.reasons import CraftError

from craft_cli import errors
from craft_cli.generate import drawing

_NAMES = {
    "--cfg": "--guidance",
    "--cfg-scale": "--guidance",
    "--guidance-scale": "--guidance",
    "--negative-prompt": "--negative",
    "--num-images": "--count",
    "--num-images-per-prompt": "--count",
    "--batch-count": "--count",
    "--num-inference-steps": "--steps",
    "--sampling-steps": "--steps",
    "--scheduler": "--sampler",
    "--sampling-method": "--sampler",
    "--out": "--output",
    "--lora-path": "--lora",
    "--init-image": "--image",
    "--init-img": "--image",
    "--image-path": "--image",
    "--input-image": "--image",
    "--denoising-strength": "--strength",
    "--mask-image": "--mask",
    "--mask-path": "--mask",
    "--masked-image-path": "--mask",
    "--ref-image": "--ref",
    "--reference-image": "--ref",
}
_PROMPT = ("-p", "--prompt")
_VERBOSE = ("-v", "--verbose")
_QUANTIZED = "to keep weights in 8 bits: craft models edit NAME --precision int8"
_RANDOM_SEED = "-1"
_SEED = "a seed is --seed N"
_NEGATIVE = "what is not to be drawn is --negative TEXT"
_ASKS = "craft run MODEL asks for prompts by itself: leave it out"
_MOST_STEPS = 1000


def translated(args: Sequence[str]) -> list[str]:
    """The words of a command line with every foreign option as craft's own. Raises USAGE."""
    return _Translation(list(args)).whole()


class _Translation:
    """One command line on its way. `prompts` come last, behind `--`, for they may begin with a dash."""

    def __init__(self, words: list[str]) -> None:
        self._words = words
        self._own: list[str] = []
        self._prompts: list[str] = []
        self._has_like = any(word.partition("=")[0] == "--like" for word in words)

    def whole(self) -> list[str]:
        while self._words and self._words[0] != "--":
            self._take(self._words.pop(0))
        rest = [*self._prompts, *self._words[1:]]
        return [*self._own, "--", *rest] if rest else self._own

    def _take(self, word: str) -> None:
        name, has_value, value = word.partition("=")
        if name in _NAMES:
            self._own.append(_NAMES[name] + has_value + value)
        elif name in _PROMPT:
            self._prompts.append(value if has_value else self._value(name))
        elif name == "--size":
            self._own += _sides(value if has_value else self._value(name))
        elif name == "--seed":
            self._own += _seed(value if has_value else self._value(name), is_said=self._has_like)
        elif name == "--image-strength":
            self._own += _strength(value if has_value else self._value(name))
        elif name == "--lora-paths":
            self._own += self._loras(value)
        elif word in _VERBOSE:
            errors.say(f"craft: {word} does nothing here: progress is shown anyway, and the rest is in `craft logs`")
        else:
            if word == "-s" and self._words and _is_seed(self._words[0]):
                raise CraftError("USAGE", f"-s is --steps, and {self._words[0][:20]} is no number of steps", _SEED)
            if word == "-n" and self._words and not re.fullmatch(r"[+-]?\d+", self._words[0]):
                raise CraftError("USAGE", f"-n is --count, and {self._words[0][:20]!r} is no number", _NEGATIVE)
            if word == "-it":
                raise CraftError("USAGE", "-it is no option: -i is --image", _ASKS)
            if word == "-q" and self._words and self._words[0].isdigit():
                errors.say(f"craft: -q is --quiet, so {self._words[0][:20]} is a word of the prompt; {_QUANTIZED}")
            self._own.append(word)

    def _value(self, name: str) -> str:
        if not self._words:
            raise CraftError("USAGE", f"{name} requires an argument", "see `craft generate --help`")
        return self._words.pop(0)

    def _loras(self, first: str) -> list[str]:
        """Takes the words up to the next option: each is a LoRA, as mflux takes several at once."""
        files = [first] if first else []
        while self._words and not self._words[0].startswith("-"):
            files.append(self._words.pop(0))
        return [word for file in files for word in ("--lora", file)]


def _is_seed(text: str) -> bool:
    """Says whether the text is a seed, as stable-diffusion.cpp's -s takes it: no number of steps is so large."""
    return text == _RANDOM_SEED or (text.isdecimal() and (len(text) > len(str(_MOST_STEPS)) or int(text) > _MOST_STEPS))


def _sides(text: str) -> list[str]:
    sides = re.fullmatch(r"(\d+)\s*[x×X*,]\s*(\d+)", text.strip())
    if sides is None:
        raise CraftError("USAGE", f"--size {text}: no size", "write it as --size 768x512, or -W 768 -H 512")
    return ["--width", sides[1], "--height", sides[2]]


def _strength(text: str) -> list[str]:
    """mflux counts how much is kept."""
    try:
        kept = float(text)
    except ValueError:
        raise CraftError("USAGE", f"--image-strength: {text!r} is not a number", "see --strength") from None
    drawn = f"{1 - kept:g}"
    errors.say(f"craft: --image-strength {text} keeps that much of the picture, as mflux has it: --strength {drawn}")
    return [f"--strength={drawn}"]


def _seed(text: str, *, is_said: bool) -> list[str]:
    """-1 is any seed, as it is without one; `is_said`: without one another picture's would count."""
    if text != _RANDOM_SEED:
        return [f"--seed={text}"]
    return [f"--seed={drawing.new_seed()}"] if is_said else []
