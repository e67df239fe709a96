"""One daemon, one Bot API server and one bot for all tests that do not disturb each other."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.bot.place import Place, running
from tests.bot.telegram import User

_accounts = itertools.count(7_000_001)


@pytest.fixture(scope="session")
def place() -> Iterator[Place]:
    with running() as one:
        one.start()
        yield one


@pytest.fixture
def user(place: Place) -> User:
    """An account that nobody else has."""
    return place.user(next(_accounts))


@pytest.fixture
def member(user: User) -> User:
    user.becomes("member", is_told=False)
    return user


@pytest.fixture
def key(place: Place, member: User) -> str:
    """The member's, from the bot."""
    return place.gives(member.account)
