"""What an inspecting process may use: set by itself, before it opens anything."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys

_MEMORY_BYTES = 1 << 30
CPU_S = 20
_OPEN_FILES = 64
_LARGE = {"torch", "scipy"}  # libraries that map much
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000


def confine(cpu_s: int = CPU_S, memory_bytes: int = _MEMORY_BYTES) -> None:
    """Limits of memory, time and files; no file may be written, no process started, no network seen.

    `memory_bytes` beyond what libraries hold that are imported already; theirs is address space, hardly memory.
    """
    _leave_network()
    _limit(resource.RLIMIT_AS, memory_bytes + (_address_space_bytes() if _LARGE & sys.modules.keys() else 0))
    _limit(resource.RLIMIT_CPU, cpu_s)
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NPROC, 0)


def _address_space_bytes() -> int:
    """What this process has mapped, where the system tells."""
    try:
        with open("/proc/self/statm", encoding="ascii") as stream:  # noqa: PTH123 - nothing else is imported for it
            return int(stream.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 1 << 40


def _limit(kind: int, most: int) -> None:
    _, ceiling = resource.getrlimit(kind)
    most = most if ceiling == resource.RLIM_INFINITY else min(most, ceiling)
    with contextlib.suppress(OSError, ValueError):  # not every system knows every limit
        resource.setrlimit(kind, (most, most))


def _leave_network() -> None:
    """Where the system lets us; nothing here opens a socket anyway."""
    if sys.platform != "linux":
        return
    unshare = ctypes.CDLL(None, use_errno=True).unshare
    if unshare(_CLONE_NEWNET) != 0 and os.geteuid() != 0:  # root would lose its right to read others' files
        unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
