"""What a model was trained to predict: noise, or velocities (Salimans and Ho 2022), which have the same tensors.

The evidence, in this order; the first that says something counts:

1. what the user said (`craft models add --prediction`, `craft models edit --prediction`)
2. marks: a tensor `v_pred`, with `ztsnr` beside it where the noise schedule ends without any signal
3. notes with exactly one of the known values: modelspec.prediction_type, modelspec.predict_key,
   ss_v_parameterization, prediction_type, modelspec.architecture
4. whole words of the file's name: "vpred", "v-pred", "768-v", "eps"
5. what is usual of the architecture
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from craft_protos.reasons import invalid

from craftd.architectures.architecture import FLOW, NOISE, VELOCITY, Architecture
from craftd.architectures.registry import ROWS
from craftd.safetensors import Header

# What a user may say -> (kind, whether the noise schedule ends without any signal); "": as the evidence says.
SAYINGS: dict[str, tuple[str, bool]] = {
    "epsilon": (NOISE, False),
    "v": (VELOCITY, False),
    "v-zero-snr": (VELOCITY, True),
}
AUTO = "auto"


@dataclass(frozen=True)
class Prediction:
    kind: str
    why: str
    has_zero_snr: bool = False


def check(said: str) -> str:
    """ "" for `auto`. Raises INVALID_FIELD."""
    if said in ("", AUTO):
        return ""
    meant = "v" if said == VELOCITY else said  # as `models show` calls it
    if meant not in SAYINGS:
        message = f"must be one of {', '.join((AUTO, *SAYINGS))}, not {said[:32]!r}"
        raise invalid("prediction", message, f"{AUTO} reads it from the file; `craft models show NAME` says what it is")
    return meant


def of_user(said: str) -> Prediction:
    kind, has_zero_snr = SAYINGS[said]
    return Prediction(kind, f"{said} was said (craft models edit --prediction {AUTO}: as its file says)", has_zero_snr)


def of_checkpoint(header: Header, file_name: str, *, said: str, architecture: Architecture) -> Prediction:
    if architecture.predicts == FLOW:
        return Prediction(FLOW, "its architecture")
    if said:
        return of_user(said)
    if "v_pred" in header.shapes:
        has_zero_snr = "ztsnr" in header.shapes
        return Prediction(VELOCITY, f"its mark v_pred{' and ztsnr' if has_zero_snr else ''}", has_zero_snr)
    usual = Prediction(architecture.predicts, f"usual of {architecture.name}: nothing says other")
    return _noted(header.metadata) or _named(file_name) or usual


def of_configuration(scheduler: Mapping[str, Any]) -> Prediction | None:
    """Of a diffusers folder; None where it has no scheduler."""
    kind = str(scheduler.get("_class_name", ""))
    if not kind:
        return None
    why = "scheduler/scheduler_config.json"
    if "FlowMatch" in kind or scheduler.get("use_flow_sigmas") is True:
        return Prediction(FLOW, why)
    return Prediction(
        str(scheduler.get("prediction_type", NOISE))[:32], why, scheduler.get("rescale_betas_zero_snr") is True
    )


def configured(scheduler: Mapping[str, Any], wanted: Prediction) -> dict[str, Any]:
    """The scheduler's configuration with that prediction; equal to what came where it has it."""
    changed = {**scheduler}
    if scheduler.get("prediction_type", NOISE) != wanted.kind:
        changed["prediction_type"] = wanted.kind
    if wanted.has_zero_snr:
        changed |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    elif scheduler.get("rescale_betas_zero_snr"):
        changed["rescale_betas_zero_snr"] = False
    return changed


_VALUES = {
    **dict.fromkeys(("v", "v_prediction", "v-prediction", "v_pred", "v-pred", "vpred", "velocity"), VELOCITY),
    **dict.fromkeys(("epsilon", "eps", "noise"), NOISE),
}
_TRUTHS = {"true": VELOCITY, "1": VELOCITY, "false": NOISE, "0": NOISE}
_NOTES = {
    "modelspec.prediction_type": _VALUES,
    "modelspec.predict_key": _VALUES,
    "ss_v_parameterization": _TRUTHS,
    "prediction_type": _VALUES,
    "modelspec.architecture": {name: kind for row in ROWS for name, kind in row.modelspec_predicts.items()},
}


def _noted(notes: Mapping[str, str]) -> Prediction | None:
    for key, meanings in _NOTES.items():
        kind = meanings.get(notes.get(key, "").strip().lower())
        if kind is not None:
            has_zero_snr = kind == VELOCITY and notes.get("ss_zero_terminal_snr", "").strip().lower() in ("true", "1")
            return Prediction(kind, f"its note {key}: {notes[key].strip()[:60]}", has_zero_snr)
    return None


# Runs of a name's words, in which letters and digits are apart.
_VELOCITY_WORDS = (("vpred",), ("v", "pred"), ("vprediction",), ("v", "prediction"), ("768", "v"))
_NOISE_WORDS = (("eps",), ("epsilon",), ("512",), ("base",), ("turbo",))
_ZERO_SNR_WORDS = (("ztsnr",), ("zsnr",))
_WORD = re.compile(r"[a-z]+|[0-9]+")
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")


def _named(file_name: str) -> Prediction | None:
    stem = file_name.rpartition(".")[0] or file_name
    words, humps = _WORD.findall(stem.lower()), _WORD.findall(_HUMP.sub(" ", stem).lower())
    for run in _VELOCITY_WORDS:
        if _has_run(words, run) or _has_run(humps, run):
            has_zero_snr = any(_has_run(words, other) for other in _ZERO_SNR_WORDS)
            return Prediction(VELOCITY, f"the word {'-'.join(run)} of its file's name", has_zero_snr)
    found = next((run for run in _NOISE_WORDS if _has_run(words, run)), None)
    return Prediction(NOISE, f"the word {found[0]} of its file's name") if found else None


def _has_run(words: list[str], run: tuple[str, ...]) -> bool:
    return any(tuple(words[start : start + len(run)]) == run for start in range(len(words)))
