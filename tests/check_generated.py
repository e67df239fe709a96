"""Fails when generated files differ from what their sources make: run by `make check`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROTOS = ROOT / "protos"


def main() -> int:
    stale = [*_stale_protos(), *_stale_docs()]
    for path in stale:
        print(f"{path} is not what its source makes: run `make protos docs man`", file=sys.stderr)
    return 1 if stale else 0


def _stale_protos() -> list[Path]:
    with tempfile.TemporaryDirectory() as folder:
        scripts = Path(sys.executable).parent
        outputs = [f"--{kind}_out={folder}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
        plugins = [f"--plugin=protoc-gen-{kind}={scripts / f'protoc-gen-{kind}'}" for kind in ("mypy", "mypy_grpc")]
        sources = sorted(str(path) for path in (PROTOS / "craft_protos").glob("*.proto"))
        command = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(PROTOS), *outputs, *plugins, *sources]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        made = [path for path in Path(folder).rglob("*_pb2*") if path.is_file()]
        assert made, "protoc made nothing"
        return [
            kept
            for path in made
            if not (kept := PROTOS / path.relative_to(folder)).exists() or kept.read_bytes() != path.read_bytes()
        ]


def _stale_docs() -> list[Path]:
    from docs import manual
    from docs.reasons import render

    page = ROOT / "docs" / "reasons.md"
    is_right = page.exists() and page.read_text(encoding="utf-8") == render()
    return [*([] if is_right else [page]), *manual.stale()]


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
