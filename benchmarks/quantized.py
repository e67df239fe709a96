"""Packed weights are measured: bytes held in memory, seconds of a step, and how far its output is from fp32's.

    python -m benchmarks.quantized [--threads N] [--rounds N]

A transformer in FLUX.1's own width with one double and two single blocks (0.7 billion weights), random: its file in
bf16, loaded as craft loads a transformer's file, in each precision that a model can be kept in, and from GGUF files.
It computes in bf16, at 256 by 256 pixels. The peak signal-to-noise ratio is that of the transformer's output.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from craftd.worker.lora.layer import held_bytes
from craftd.worker.models.component_file import load_component

from benchmarks import figures
from benchmarks.figures import Figure

_CONFIG = Path(__file__).parent.parent / "daemon/craftd/architectures/flux-dev/transformer/config.json"
_SIDE = 16  # of the latents, packed two by two: 256 pixels
_WORDS = 64  # tokens
_WHERE = ("diffusers", "FluxTransformer2DModel")


@dataclass(frozen=True)
class Measured:
    """One form of the same weights."""

    name: str
    resident_bytes: int
    seconds: list[float]  # a step, each
    output: torch.Tensor

    @property
    def step_s(self) -> float:
        return min(self.seconds)


def main() -> int:
    asked = _parse()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole, blocks = _write(Path(place))
        exact = _measure("fp32", whole, 1, dtype=torch.float32)
        bf16 = _measure("bf16", whole, asked.rounds)
        others = [_measure(one, whole, asked.rounds, precision=one) for one in ("fp8", "int8")]
        others += [_measure(path.stem, path, asked.rounds) for path in blocks]
    for one in (bf16, *others):
        print(f"{one.name}: {one.resident_bytes / 1e6:.0f} MB, {one.step_s:.3f} s a step, {_psnr(one, exact):.1f} dB")
    return figures.tell([figure for one in others for figure in _figures(one, bf16, exact)])


def _figures(one: Measured, bf16: Measured, exact: Measured) -> list[Figure]:
    goal: dict[str, Any] = {"fp8": {"at_most": 0.55}, "Q4_0": {"at_most": 0.35}}.get(one.name, {})
    ratio, psnr = one.resident_bytes / bf16.resident_bytes, _psnr(one, exact)
    steps = [seconds / bf16.step_s for seconds in one.seconds]
    return [
        figures.of_rounds(f"resident bytes of {one.name} weights", "bf16", [ratio], **goal),
        figures.of_rounds(f"seconds a step with {one.name} weights", "bf16", steps),
        figures.of_rounds(f"output with {one.name} weights", "fp32", [psnr], unit="dB"),
    ]


def _measure(
    name: str, path: Path, rounds: int, *, precision: str = "", dtype: torch.dtype = torch.bfloat16
) -> Measured:
    gc.collect()
    network = load_component(path, path.parent, _WHERE, dtype, precision)
    call = _call(dtype)
    seconds = []
    with torch.inference_mode():
        output = network(**call).sample.float()
        for _ in range(rounds):
            began = time.perf_counter()
            network(**call)
            seconds.append(time.perf_counter() - began)
    return Measured(name, held_bytes([network]), seconds, output)


def _call(dtype: torch.dtype) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(2)
    tokens = _SIDE * _SIDE

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(dtype)

    return {
        "hidden_states": random(1, tokens, 64),
        "encoder_hidden_states": random(1, _WORDS, 4096),
        "pooled_projections": random(1, 768),
        "timestep": torch.tensor([0.5], dtype=dtype),
        "guidance": torch.tensor([3.5]),
        "img_ids": torch.zeros(tokens, 3, dtype=dtype),
        "txt_ids": torch.zeros(_WORDS, 3, dtype=dtype),
    }


def _psnr(one: Measured, exact: Measured) -> float:
    """In decibels, by the range of the exact output."""
    error = float((one.output - exact.output).square().mean())
    peak = float(exact.output.max() - exact.output.min())
    return 10 * math.log10(peak**2 / error)


def _write(folder: Path) -> tuple[Path, list[Path]]:
    """The transformer's configuration and file, and its GGUF files."""
    from diffusers import FluxTransformer2DModel
    from safetensors.torch import save_file

    config = json.loads(_CONFIG.read_text()) | {"num_layers": 1, "num_single_layers": 2}
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(1)
    kind: Any = FluxTransformer2DModel
    tensors = {name: one.bfloat16() for name, one in kind.from_config(config).state_dict().items()}
    save_file(tensors, folder / "it.safetensors")
    return folder / "it.safetensors", [_write_gguf(tensors, folder / f"{name}.gguf") for name in ("Q8_0", "Q4_0")]


def _write_gguf(tensors: dict[str, torch.Tensor], path: Path) -> Path:
    import gguf
    from gguf.quants import quantize

    writer: Any = gguf.GGUFWriter(path, "flux")
    for name, one in tensors.items():
        kind = gguf.GGMLQuantizationType[path.stem if one.ndim > 1 else "F32"]
        writer.add_tensor(name, quantize(one.float().numpy(), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=0, help="0: torch's own choice")
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
