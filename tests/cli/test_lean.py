"""What a short command imports and does not use is not loaded, and is there for whoever asks."""

from __future__ import annotations

import subprocess
import sys

import pytest
from craft_cli import lean

LOADED = "import sys; print(sorted(name for name in {names!r} if type(sys.modules.get(name)).__name__ == 'module'))"


def run(code: str) -> str:
    begun = f"from craft_cli import lean; lean.begin()\n{code}"
    return subprocess.run([sys.executable, "-c", begun], capture_output=True, text=True, check=True).stdout.strip()


def test_what_generate_imports_leaves_them_alone() -> None:
    code = (
        "from craft_cli import app, errors\nfrom craft_cli.commands import generate\nimport craft_cli.connection.client"
    )
    assert run(f"{code}\n{LOADED.format(names=lean.UNUSED)}") == "[]"


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import asyncio, asyncio\nprint(asyncio.run(asyncio.sleep(0, 'slept')))", "slept"),
        ("import subprocess\nprint(subprocess.check_output(['echo', 'said']))", r"b'said\n'"),
        ("import ipaddress, ipaddress\nprint(ipaddress.ip_address('::1').is_loopback)", "True"),
        ("import grpc\nimport grpc.aio\nprint(grpc.aio.insecure_channel.__name__)", "insecure_channel"),
        ("import inspect\nprint(inspect.getsource(inspect.getsource).split('(')[0])", "def getsource"),
    ],
)
def test_they_are_there_when_they_are_used(code: str, told: str) -> None:
    assert run(code) == told
