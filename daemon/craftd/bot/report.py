"""How the bot does, for whoever runs it: counted here, and written to stdout for the daemon."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict, dataclass

_EVERY_S = 1.0


@dataclass
class Report:
    username: str = ""
    is_polling: bool = False
    problems: dict[str, str] | None = None  # by what is at fault
    updates: int = 0
    api_errors: int = 0
    waiting: int = 0

    @property
    def problem(self) -> str:
        return "; ".join((self.problems or {}).values())

    def trouble(self, where: str, why: str) -> bool:
        """Whether that is new."""
        known, self.problems = self.problems or {}, {**(self.problems or {}), where: why}
        return where not in known

    def recover(self, where: str) -> bool:
        """Whether there was trouble."""
        known = self.problems or {}
        self.problems = {name: why for name, why in known.items() if name != where}
        return where in known

    def line(self) -> str:
        shown = {name: value for name, value in asdict(self).items() if name != "problems"}
        return json.dumps({**shown, "problem": self.problem})


async def tell(report: Report) -> None:
    """Write the report whenever it has changed, for ever."""
    last = ""
    while True:
        line = report.line()
        if line != last:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
            last = line
        await asyncio.sleep(_EVERY_S)
