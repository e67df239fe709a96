"""Jobs with a mask: what comes out has the start's size, upright."""

from __future__ import annotations

import pytest

from tests.daemon import sends
from tests.daemon.harness import Daemon
from tests.daemon.test_inputs_jobs import drawn, mask, plain, start


@pytest.mark.parametrize(("padding", "size"), [(None, (48, 64)), (8, (48, 64))])
async def test_with_a_mask_the_picture_keeps_its_size(
    daemon: Daemon, padding: int | None, size: tuple[int, int]
) -> None:
    data, white = plain(orientation=6), plain((255, 255, 255))
    for one in (data, white):
        await sends.put(daemon, one)
    job = await daemon.create(start=start(data), mask=mask(white, **({} if padding is None else {"padding": padding})))
    assert (await drawn(daemon, job)).size == size
    assert (job.generate.start.strength, job.generate.mask.blur) == (1.0, 4.0)


async def test_the_same_picture_may_be_start_and_mask(daemon: Daemon) -> None:
    data = plain()
    await sends.put(daemon, data)
    await drawn(daemon, await daemon.create(start=start(data), mask=mask(data)))
