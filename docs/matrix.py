"""Writes the matrix of docs/models.md from the registry and from the tests that carry its mark.

python -m docs.matrix            those that are there (the suite runs them all)
python -m docs.matrix --run      those that pass, run now
python -m docs.matrix --check    writes nothing; fails where the page says something else
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from pathlib import Path

import pytest
from craftd.architectures.registry import ROWS

from tests.matrix import DOES, FORMS, Cell, cells

_ROOT = Path(__file__).parents[1]
_PAGE = _ROOT / "docs" / "models.md"
_OF_FILES = ("one file", "parts")  # which are told apart by their headers
_BEGIN, _END = "<!-- matrix: python -m docs.matrix -->\n", "<!-- /matrix -->\n"


class Collected:
    """A plugin: the cells of the marked tests, and of those that passed."""

    def __init__(self) -> None:
        self.of_tests: dict[str, list[Cell]] = {}
        self.passed: list[Cell] = []

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        self.of_tests = {item.nodeid: list(cells(item)) for item in items}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self.passed += self.of_tests.get(report.nodeid, [])


def collected(*, runs: bool) -> set[Cell]:
    """Raises RuntimeError where the tests cannot be collected, or one fails."""
    found = Collected()
    options = ["-q", "-m", "covers", *([] if runs else ["--collect-only"])]
    os.chdir(_ROOT)
    if pytest.main([*options, "tests/worker"], plugins=[found]) != pytest.ExitCode.OK:
        raise RuntimeError("the tests that carry the mark were not collected, or failed")
    return set(found.passed if runs else (cell for one in found.of_tests.values() for cell in one))


def render(found: Collection[Cell]) -> str:
    """A row for each architecture that has anything. What the front does not recognise by itself is left out."""
    unknown = {cell.architecture for cell in found} - {row.id for row in ROWS}
    assert not unknown, unknown
    of_files = {row.id for row in ROWS if row.checkpoints}
    known = {cell for cell in found if cell.form not in _OF_FILES or cell.architecture in of_files}
    lines = [f"| Architecture | {' | '.join(FORMS)} |", f"|---|{'---|' * len(FORMS)}"]
    firsts = {row.id: row for row in reversed(ROWS) if row.id}
    for row in (row for row in ROWS if firsts.get(row.id) is row):
        told = [[does for does in DOES if Cell(row.id, form, does) in known] for form in FORMS]
        if any(told):
            lines.append(f"| {row.name} | {' | '.join(', '.join(one) or '-' for one in told)} |")
    return "\n".join(lines) + "\n"


def written(page: str, table: str) -> str:
    before, _, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    assert end, f"{_PAGE} has no place for the matrix"
    return f"{before}{_BEGIN}{table}{_END}{after}"


def main(asked: list[str]) -> int:
    page = _PAGE.read_text(encoding="utf-8")
    new = written(page, render(collected(runs="--run" in asked)))
    if "--check" in asked:
        print("docs/models.md has the matrix of the tests" if new == page else "stale: python -m docs.matrix")
        return int(new != page)
    _PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
