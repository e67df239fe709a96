"""What all tests need of the process that runs them, and the folders that most of them work in."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

# Before torch: pixels are compared in fp32, also where the processor would compute in bf16 by itself.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE")

import pytest
from craftd import worker  # noqa: F401 - hides a torchvision that is not for this torch
from hypothesis import HealthCheck, settings

from tests.home import Home, open_homes

# A suite started in the background by a shell ignores SIGINT, and so would every command it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# What is tried is the same each time, and how long that takes on a busy machine says nothing of it.
settings.register_profile("suite", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--storm-seed", default="12", help="the plan of tests/storms, as a failed one printed it")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: half of the time, a test waits for processes that wait."""
    return min((os.cpu_count() or 1) + 1, 4)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that none is left for one process at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failure shows the ends of the logs of the daemons around it."""
    report = yield
    if report.failed:
        report.sections.extend((f"craftd in {home.root}", home.last_words()) for home in open_homes())
    return report


@pytest.fixture
def make_home() -> Iterator[Callable[..., Home]]:
    made: list[Home] = []

    def make(*model: str, **settings: str) -> Home:
        made.append(Home(*model, **settings))
        return made[-1]

    yield make
    for one in made:
        one.remove()


@pytest.fixture
def home(make_home: Callable[..., Home]) -> Home:
    return make_home()
