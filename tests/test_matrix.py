"""The matrix in docs/models.md is what the tests prove that carry its mark."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.home import HANG_S


def test_the_page_has_the_matrix_of_the_tests() -> None:
    command = [sys.executable, "-m", "docs.matrix", "--check"]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=HANG_S, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
