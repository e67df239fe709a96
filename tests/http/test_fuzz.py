"""The whole schema, fuzzed: no 500, no undocumented status, type or shape, nothing leaked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.home import HANG_S
from tests.http.shim import LORA, Shim, check_says_nothing, give_lora, serving

pytestmark = pytest.mark.slow

_CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def small() -> Iterator[Shim]:
    """Draws little, so that what is accepted is drawn soon."""
    limits = {"SIDE": "128", "PIXELS": "16384", "STEPS": "20", "COUNT": "4"}
    with serving(**{f"CRAFT_LIMITS_MAX_{name}": most for name, most in limits.items()}) as one:
        give_lora(one)
        yield one


def names_there(shim: Shim, key: str) -> dict[str, str]:
    """Of a model, a LoRA, a job that has ended and its picture, by the fields that take them."""
    made = shim.post("/generate", key, model="flat", prompt="x", steps=2)
    assert made.status_code == 200
    job = shim.newest()
    return {"model": "flat", "lora_id": LORA, "job_id": job.id, "image_id": job.images[0].id}


def operations(url: str) -> list[schemathesis.APIOperation]:  # type: ignore[type-arg]
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    return [found.ok() for found in schema.get_all_operations()]


def cases(operation: schemathesis.APIOperation) -> st.SearchStrategy[Case]:  # type: ignore[type-arg]
    modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    return st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in modes))


def test_every_operation(small: Shim) -> None:
    key = small.key("fuzz", admin=True)
    with requests.Session() as session:
        fuzzer = Fuzzer(small.url, session, key, names_there(small, key))
        for operation in operations(small.url):
            fuzzer.fuzz(operation)
    assert fuzzer.answers[200] > 50 and fuzzer.answers[422] > 20 and fuzzer.answers[404] > 20
    assert "unexpected error" not in small.home.log
    assert small.call("GET", "/healthz").status_code == 200


@dataclass
class Fuzzer:
    """`names`: what is there; names that are guessed are almost never."""

    url: str
    session: requests.Session
    key: str
    names: Mapping[str, str]
    examples: int = 8  # for each operation
    answers: Counter[int] = field(default_factory=Counter)

    def fuzz(self, operation: schemathesis.APIOperation) -> None:  # type: ignore[type-arg]
        @seed(1)
        @settings(
            max_examples=self.examples,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=cases(operation), is_known=st.booleans())
        def call(case: Case, is_known: bool) -> None:
            if is_known:
                self.put_names_into(case)
            self.call(case)

        call()

    def put_names_into(self, case: Case) -> None:
        for fields in (case.path_parameters, case.body):
            if isinstance(fields, dict):
                fields |= {name: known for name, known in self.names.items() if name in fields}
                fields.pop("loras", None)
                fields.pop("sampler", None)

    def call(self, case: Case) -> None:
        answer = case.call(base_url=self.url, session=self.session, headers={"X-API-Key": self.key}, timeout=HANG_S)
        assert answer.status_code != 500, answer.text
        case.validate_response(answer, checks=_CHECKS)
        self.answers[answer.status_code] += 1
        if answer.status_code >= 400:
            check_says_nothing(answer.text)
