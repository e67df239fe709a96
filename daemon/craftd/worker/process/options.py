"""How a worker is started: its command line, and the environment it makes for the libraries."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from craft_protos import rungs

# Nothing in a worker may reach the network or run code that came with a model.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "DIFFUSERS_DISABLE_REMOTE_CODE": "1",
    "DIFFUSERS_GGUF_CUDA_KERNELS": "false",  # kernels from the hub
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "PYTORCH_ENABLE_MPS_FALLBACK": "1",
    "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
}

_LEAST_SLOTS = 4  # what one row may need


@dataclass(frozen=True)
class WorkerOptions:
    """One worker's settings."""

    fd: int  # an inherited, connected stream socket
    files: Path  # files/<sha256>
    device: str = "auto"  # auto, cpu, cuda:0, mps
    precision: str = "auto"  # auto, fp32, fp16, bf16
    threads: int = 0  # 0: torch's own choice
    max_rows: int = 32  # images in the batch at once
    offload: str = rungs.AUTO  # auto, or one of its rungs
    sharing: int = 1  # workers on this device; each takes so large a part of its memory
    lora_slots: int = 32  # LoRAs of each rank bucket that a model holds at once


def parse(argv: Sequence[str]) -> WorkerOptions:
    """The options of a command line; exits with 2 on a wrong one."""
    parser = argparse.ArgumentParser(prog="python -m craftd.worker", description="Draws what comes as frames.")
    parser.add_argument("--fd", type=int, required=True, help="an inherited stream socket")
    parser.add_argument("--files", type=Path, required=True, help="the folder of files by sha256")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda:0, mps")
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "fp16", "bf16"])
    parser.add_argument("--threads", type=int, default=0, help="0: torch's own choice")
    parser.add_argument("--max-rows", type=int, default=32, help="images in the batch at once")
    parser.add_argument("--offload", default=rungs.AUTO, choices=[rungs.AUTO, *rungs.RUNGS])
    parser.add_argument("--sharing", type=int, default=1, help="workers on the device, which share its memory")
    parser.add_argument("--lora-slots", type=int, default=32, help="LoRAs of each rank that a model holds at once")
    given = parser.parse_args(argv)
    if min(given.max_rows, given.sharing) < 1 or given.threads < 0 or given.lora_slots < _LEAST_SLOTS:
        parser.error(
            f"--max-rows and --sharing must be 1 or more, --threads 0 or more, --lora-slots {_LEAST_SLOTS} or more"
        )
    return WorkerOptions(**vars(given))
