"""What the documents point at is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8"))
    assert not [one for one in targets if "://" not in one and not (document.parent / one).exists()]


def test_every_bad_input_has_the_tests_that_it_names() -> None:
    text = (ROOT / "docs" / "bad-inputs.md").read_text(encoding="utf-8")
    named, file = [], ""
    for path, test in re.findall(r"`([\w/]*(?:\.py)?)(?:::(\w+))?`", text):
        file = path if path.endswith(".py") else file
        named += [(file, test)] if path or test else []
    assert len(named) > 50
    assert not [(file, test) for file, test in named if not _has(ROOT / "tests" / file, test)]


def _has(file: Path, test: str) -> bool:
    return file.is_file() and (not test or f"def {test}(" in file.read_text(encoding="utf-8"))
