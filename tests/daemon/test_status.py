"""An error arrives whatever is in it: it travels as metadata, which has a limit."""

from __future__ import annotations

from urllib.parse import quote

import grpc.aio
import pytest
from craft_protos.jobs_pb2 import ListJobsRequest
from craft_protos.models_pb2 import GetModelRequest
from craft_protos.reasons import CraftError
from craftd.rpc import status
from hypothesis import given
from hypothesis import strategies as st

from tests.daemon.harness import Daemon, details, field, reason

SOFT_LIMIT_BYTES = 8 << 10  # beyond it gRPC may refuse, beyond twice as much it does
PLAIN = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
TEXTS = st.one_of(
    st.text(st.characters(codec=None), max_size=50),  # lone surrogates too: a file's name may have them
    st.builds(str.__mul__, st.sampled_from(["x", "%", "ä", "見", "😀", "\n", "\udcff", "ab ä"]), st.integers(0, 5000)),
)


@given(TEXTS, TEXTS, TEXTS)
def test_every_error_fits(message: str, hint: str, name: str) -> None:
    error = CraftError("INVALID_FIELD", message, hint, field=name.encode("utf-8", "replace").decode(), retry_after_s=1)
    ((_, trailer),) = status.trailers_of(error)
    as_sent = quote(status.message_of(error), safe=PLAIN)
    assert len(as_sent) + len(trailer) * 4 / 3 < SOFT_LIMIT_BYTES


def test_what_fits_is_whole_and_what_does_not_shows_its_beginning() -> None:
    fits = "x" * 1000 + "ä" * 30
    assert status.message_of(CraftError("INVALID_FIELD", fits)) == fits
    cut = status.message_of(CraftError("INVALID_FIELD", "見" * 1000))
    assert cut.endswith("…") and 100 < len(cut) < 200 and set(cut[:-1]) == {"見"}


@pytest.mark.parametrize("name", ["😀" * 1000, "x" * 1_000_000])
async def test_long_names_are_refused_by_field_and_not_echoed_in_full(daemon: Daemon, name: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await daemon.create(sampler=name)
    assert (reason(refused.value), field(refused.value)) == ("INVALID_FIELD", "sampler")
    assert len(refused.value.details() or "") < 120
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await daemon.models.GetModel(GetModelRequest(name=name))
    assert reason(refused.value) == "UNKNOWN_MODEL" and "ErrorInfo" in details(refused.value)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await daemon.jobs.ListJobs(ListJobsRequest(page_token=name))
    assert field(refused.value) == "page_token"
