"""README's lines for remote callers, pasted into a shell one after another, with the real model."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.home import Home
from tests.http.again import free_port
from tests.http.shim import tool

_ROOT = Path(__file__).parents[2]


def lines() -> str:
    (section,) = re.findall(
        r"^## For remote callers\n(.*?)^## ", (_ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    return "\n".join(re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_lines_work_as_pasted(make_home: Callable[..., Home]) -> None:
    """But for the port, which somebody else may have here."""
    assert tool("jq") and tool("curl")
    home = make_home("", CRAFT_WORKER_MODULE="craftd.worker", CRAFT_WORKER_THREADS="1")
    port = free_port()
    pasted = lines().replace("restart --http ", f"restart --http=127.0.0.1:{port} ").replace("7811", str(port))
    lora = home.root / "it.safetensors"
    subprocess.run(
        [sys.executable, "-m", "tests.tiny_loras", "daemon/craftd/pocket", str(lora), "kohya"], cwd=_ROOT, check=True
    )
    script = f"craft lora add {lora}\n{pasted}"
    env = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = home.run(["bash", "-euo", "pipefail", "-c", script], env=env, hang_s=1000)
    assert done.returncode == 0, done.stderr
    assert b'"status":"success"' in done.stdout and f'"url":"http://127.0.0.1:{port}/image/'.encode() in done.stdout
    assert sorted(path.name for path in home.work.iterdir()) == ["apple.png", "green.png", "pets.png", "rocket.png"]
    for path in home.work.iterdir():
        with Image.open(path, formats=["PNG"]) as picture:
            picture.load()
            assert picture.size == (256, 256)
