"""The script for a GPU runs where there is none, and names what it leaves out."""

from __future__ import annotations

import subprocess
from pathlib import Path

from benchmarks import gpu

SCRIPT = Path(gpu.__file__).with_suffix(".sh")


def test_a_tiny_model_is_drawn_as_diffusers_draws_it(monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("sys.argv", ["gpu", "--part", "sd15", "--tiny", "--device", "cpu"])
    gpu.main()
    lines = capsys.readouterr().out.splitlines()
    (truth,) = [one for one in gpu.figures.read("\n".join(lines)) or [] if one.unit == "dB"]
    assert truth.value > 45  # within 1/255
    assert len(lines) == 6


def test_parts_without_time_are_named() -> None:
    import sys

    command = ["sh", str(SCRIPT), "--tiny", "--device", "cpu", "--seconds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PYTHON": sys.executable})
    assert done.returncode == 1
    assert [line.split(":")[1].strip() for line in done.stdout.splitlines() if "NOT MEASURED" in line] == [*gpu.PARTS]
