"""torchvision is hidden, whether it loads or not, and Spandrel is imported without it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BROKEN = 'raise RuntimeError("operator torchvision::nms does not exist")\n'
WHOLE = "transforms = None\n"


def imported(folder: Path, contents: str, code: str) -> str:
    """What a process prints that finds such a torchvision."""
    (folder / "torchvision.py").write_text(contents, encoding="utf-8")
    path = f"import sys; sys.path.insert(0, {str(folder)!r}); "
    done = subprocess.run([sys.executable, "-c", path + code], capture_output=True, text=True, check=False)
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def test_one_that_does_not_load_hurts_whoever_finds_it(tmp_path: Path) -> None:
    assert "does not exist" in imported(tmp_path, BROKEN, "import torchvision")


def test_whoever_imports_the_worker_finds_none(tmp_path: Path) -> None:
    found = "import craftd.worker; from importlib.util import find_spec; print(find_spec('torchvision'))"
    assert [imported(tmp_path, contents, found) for contents in (BROKEN, WHOLE)] == ["None", "None"]


def test_spandrel_is_imported_with_either_and_leaves_it_hidden(tmp_path: Path) -> None:
    code = (
        "from craftd.worker import torchvision\n"
        "with torchvision.stood_in():\n    import spandrel\n"
        "left = [name for name in sys.modules if name.startswith('torchvision.')]\n"
        "print(len(list(spandrel.MAIN_REGISTRY)) > 30, sys.modules['torchvision'], left)"
    )
    assert [imported(tmp_path, contents, f"exec({code!r})") for contents in (BROKEN, WHOLE)] == ["True None []"] * 2
