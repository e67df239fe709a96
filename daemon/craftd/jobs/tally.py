"""How many jobs there are of each state, and how many images were ever made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import apsw

from craftd.jobs.job import State

_BY_STATE = "SELECT state, count(*) FROM jobs GROUP BY state"
_LAST_IMAGE = "SELECT seq FROM sqlite_sequence WHERE name = 'images'"


@dataclass(frozen=True)
class Tally:
    jobs: Mapping[State, int]
    images_made: int  # those deleted since counted too


def read(connection: apsw.Connection) -> Tally:
    """As stored."""
    counted = {State(state): int(count) for state, count in connection.execute(_BY_STATE)}
    return Tally({state: counted.get(state, 0) for state in State}, int(connection.execute(_LAST_IMAGE).get or 0))
