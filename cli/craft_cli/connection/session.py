"""How a command gets its client: at first use, and again when the daemon died meanwhile."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from craft_protos import config
from craft_protos.reasons import CraftError
from craft_protos.version import __version__

from craft_cli import errors
from craft_cli.connection import autostart, versions
from craft_cli.connection.autostart import Found

if TYPE_CHECKING:
    from craft_cli.connection.client import Client

START_COMMAND = "craft daemon start"
_AWAIT_S = 30.0  # for a daemon that somebody else must bring back
_AWAIT_RESTART_S = 10.0  # for one that was told to stop, by `craft daemon restart` perhaps
_STOP_MARGIN_S = 30.0  # from the end of the running jobs, or of their grace, to the daemon's own
_LOOK_EVERY_S = 0.1
_CONNECT_S = 10.0
_ENDED = ("DAEMON_UNREACHABLE", "DRAINING")


class Session:
    """One command's way to the daemon. Safe to use from several threads."""

    def __init__(self, *, autostart: bool = True) -> None:
        self.paths = config.find_paths()
        self.target = config.client()
        self._may_start = autostart and self.target.autostart and not self.target.host
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._found: Found | None = None  # what the client is connected to, on this machine

    @property
    def client(self) -> Client:
        """Connected. Raises DAEMON_UNREACHABLE, or why the daemon could not start."""
        with self._lock:
            if self._client is None:
                self._client = self._connect()
            return self._client

    @property
    def present(self) -> Client:
        """The one in use, if one is: nothing is awaited for it. Raises DAEMON_UNREACHABLE."""
        client = self._client
        if client is None:
            raise self._unreachable()
        return client

    def abandon(self) -> None:
        """End whatever waits for the daemon, in whichever thread."""
        client = self._client
        if client is not None:
            client.close()

    def reconnect(self, broken: Client, *, was_stopped: bool = False) -> Client:
        """A client to the daemon that runs now, after `broken` lost its own.

        One that somebody told to stop is awaited, for it may come back, but not started.
        """
        with self._lock:
            if self._client is broken:
                broken.close()
                self._client = None
                self._client = self._await_restart() if was_stopped else self._connect_again()
            if self._client is None:
                self._client = self._connect()
            return self._client

    def outlast(self, stopping: Client) -> Client:
        """A client to the daemon that comes after `stopping`, whose jobs may end first. Raises DRAINING."""
        with self._lock:
            if self._client is stopping:
                self._await_end()
                stopping.close()
                self._client = None
            if self._client is None:
                self._client = self._connect() if self._may_start else self._await_answer(_AWAIT_RESTART_S)
            return self._client

    def close(self) -> None:
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def _connect(self) -> Client:
        if self.target.host:
            return self._reach(self.target.host)
        found = autostart.find(self.paths)
        if found is None:
            found = self._start()
        elif found.version != __version__:
            found = self._renew(found) or self._start()
        self._found = found
        return self._open(found.address)

    def _connect_again(self) -> Client:
        """As _connect, but a daemon that must not be started here gets time to come back."""
        if self._may_start:
            autostart.await_end_or_answer(self.paths, _AWAIT_S)
            return self._connect()
        return self._await_answer(_AWAIT_S)

    def _await_end(self) -> None:
        grace_s = config.load(self.paths.config_file).daemon.grace_s
        errors.remark("craft: the daemon is stopping; waiting for the jobs that it still runs")
        if self._found is not None and not autostart.await_end(self.paths, grace_s + _STOP_MARGIN_S, self._found):
            raise CraftError("DRAINING", "the daemon is stopping, and does not end", "craft daemon stop --now")

    def _await_restart(self) -> Client:
        if not self.target.host:
            autostart.await_end(self.paths, _AWAIT_S)
        return self._await_answer(_AWAIT_RESTART_S)

    def _await_answer(self, timeout_s: float) -> Client:
        deadline = time.monotonic() + timeout_s
        while True:
            client = self._open(self.target.host) if self.target.host else self._find()
            if client is not None and client.is_serving(timeout_s=2.0):
                return client
            if time.monotonic() > deadline:
                raise self._unreachable()
            time.sleep(_LOOK_EVERY_S)

    def _find(self) -> Client | None:
        found = autostart.find(self.paths)
        return self._open(found.address) if found else None

    def _start(self) -> autostart.Found:
        if not self._may_start:
            raise self._unreachable()
        return autostart.start(self.paths)

    def _renew(self, old: Found) -> Found | None:
        """An older daemon is replaced when it has nothing to do, once; None where it has ended meanwhile."""
        client = self._open(old.address)
        try:
            status = client.status()
            if self._may_start and not status.queued and not status.running and versions.may_renew(self.paths, old):
                return autostart.replace(self.paths, old, lambda: _ask_to_stop(client))
        except CraftError as error:
            if error.reason not in _ENDED:
                raise
            autostart.await_end(self.paths, _AWAIT_S, old)
            return autostart.find(self.paths)
        finally:
            client.close()
        errors.say(f"craft: the daemon is craft {old.version}, this is {__version__}; craft daemon restart")
        return old

    def _unreachable(self) -> CraftError:
        if not self.target.host and autostart.is_held(self.paths):
            return autostart.silent(self.paths)
        if not self.target.host:
            return CraftError("DAEMON_UNREACHABLE", "no daemon runs", f"start it: {START_COMMAND}")
        from craft_cli.connection import diagnosis

        return diagnosis.unreachable(self.target.host, self.target.ca_file)

    def _reach(self, address: str) -> Client:
        """From afar, and for the first time: one that is not there now is not awaited."""
        client = self._open(address)
        if client.connects(_CONNECT_S):
            return client
        client.close()
        raise self._unreachable()

    def _open(self, address: str) -> Client:
        from craft_cli.connection.client import Client

        return Client(address, api_key=self.target.api_key, ca_file=self.target.ca_file)


def _ask_to_stop(client: Client) -> None:
    """Its end may come before its answer."""
    try:
        client.shutdown(now=False)
    except CraftError as error:
        if error.reason not in autostart.ENDING:
            raise
