"""Whole pictures and large messages pass through the front: their memory is to be given back, not kept."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import sys
from collections.abc import Callable

_M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
_LARGE_BYTES = 256 << 10
_LOOK_EVERY_S = 2.0
_LONGEST_WAIT_S = 60.0
_GROWTH_BYTES = 16 << 20


def give_large_blocks_back() -> None:
    """By default glibc learns to keep blocks of megabytes, in each thread's arena; told so, it does not learn.

    Measured: 98 MB after twenty thumbnails of megapixels, 83 MB so.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


async def give_growth_back(rss_bytes: Callable[[], int]) -> None:
    """For ever: where this process has grown, what is free in malloc's heap goes back to the system.

    gRPC takes a large message apart into blocks too small for the threshold above. Measured: 64 messages
    of 2 MB at once left 180 MB behind.
    """
    least, wait_s = rss_bytes(), _LOOK_EVERY_S
    while True:
        await asyncio.sleep(wait_s)
        now = rss_bytes()
        if now > least + _GROWTH_BYTES:
            gc.collect()
            _trim()
            is_of_use = rss_bytes() < now - _GROWTH_BYTES // 4
            wait_s = _LOOK_EVERY_S if is_of_use else min(_LONGEST_WAIT_S, 2 * wait_s)  # it is in use, perhaps
        else:
            wait_s = _LOOK_EVERY_S
        least = min(least, rss_bytes())


def _trim() -> None:
    if sys.platform.startswith("linux"):
        malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if malloc_trim is not None:
            malloc_trim(0)
