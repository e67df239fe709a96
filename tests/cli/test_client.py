"""What the daemon answers, as the user hears it."""

from __future__ import annotations

import json
import socket

import grpc
import pytest
from craft_cli.client import Client
from craft_protos import config, jobs_pb2
from craft_protos.reasons import REASONS, CraftError
from craft_protos.version import __version__

from tests.cli.fakes import FakeDaemon, serving
from tests.cli.home import Home


@pytest.mark.parametrize("reason", [name for name, entry in REASONS.items() if entry.grpc != "OK"])
def test_every_reason_arrives_with_hint_field_and_delay(home: Home, reason: str) -> None:
    daemon = FakeDaemon(__version__, refusals=[(reason, "what happened")])
    with serving(daemon, home.paths) as address:
        client = Client(address)
        with pytest.raises(CraftError) as caught:
            client.create_job(jobs_pb2.CreateJobRequest())
        client.close()
    error = caught.value
    assert (error.reason, error.message, error.hint) == (reason, "what happened", "the hint")
    assert (error.field, error.retry_after_s) == ("width", 0.2)


def test_a_connection_that_ends_is_no_cancelled_job(home: Home) -> None:
    """grpc's own word for it, when a daemon dies at the wrong moment; only the daemon tells of cancelled jobs."""

    class Dying(FakeDaemon):
        def CreateJob(self, request: jobs_pb2.CreateJobRequest, context: grpc.ServicerContext) -> jobs_pb2.Job:
            if self.requests:
                return super().CreateJob(request, context)
            self.requests.append(request)
            context.abort(grpc.StatusCode.CANCELLED, "Stream removed (Channel closed!)")
            raise AssertionError

    with serving(Dying(__version__), home.paths):
        done = home.craft("generate", "x", "--detach")
    assert (done.returncode, done.stdout, done.stderr) == (0, "j1\n", "")


def test_a_full_queue_is_exit_75(home: Home) -> None:
    daemon = FakeDaemon(__version__, refusals=[("QUEUE_FULL", "the queue is full")])
    with serving(daemon, home.paths):
        done = home.craft("generate", "x", "--detach")
    assert done.returncode == 75
    assert done.stderr == "craft: the queue is full\n  the hint\n"


def test_an_unavailable_daemon_is_asked_again_with_the_same_request(home: Home) -> None:
    daemon = FakeDaemon(__version__, refusals=[("DAEMON_UNREACHABLE", "not now")] * 2)
    with serving(daemon, home.paths):
        assert home.craft("generate", "x", "--detach").stdout == "j1\n"
    assert len(daemon.requests) == 3
    assert len({request.SerializeToString(deterministic=True) for request in daemon.requests}) == 1


def test_interactive_has_a_lease_and_detached_has_none(home: Home) -> None:
    daemon = FakeDaemon(__version__, refusals=[("QUEUE_FULL", "full")])
    with serving(daemon, home.paths):
        home.craft("generate", "x")
        home.craft("generate", "x", "--detach")
    assert [request.lease for request in daemon.requests] == [True, False]
    assert all(request.generate.HasField("seed") for request in daemon.requests)


def test_the_key_goes_as_metadata_from_the_environment(home: Home) -> None:
    daemon = FakeDaemon(__version__)
    with serving(daemon, home.paths) as address:
        home.craft("generate", "x", "--detach", env={"CRAFT_HOST": address, "CRAFT_API_KEY": "sesame"})
    assert daemon.metadata[0]["authorization"] == "Bearer sesame"


def test_an_idle_daemon_of_another_version_is_replaced(home: Home) -> None:
    daemon = FakeDaemon("0.0.1")
    with serving(daemon, home.paths):
        done = home.craft("generate", "x")
        assert done.returncode == 0, done.stderr
        assert daemon.shutdowns == 1
    assert home.json("daemon", "status")["version"] == __version__


def test_a_busy_daemon_of_another_version_is_used(home: Home) -> None:
    daemon = FakeDaemon("0.0.1", busy=True)
    with serving(daemon, home.paths):
        done = home.craft("generate", "x", "--detach")
    assert (done.returncode, done.stdout) == (0, "j1\n")
    assert "0.0.1" in done.stderr and "craft daemon restart" in done.stderr
    assert daemon.shutdowns == 0


def test_a_host_that_nobody_answers_at(home: Home) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        done = home.craft("models", "load", "flat", "--json", env={"CRAFT_HOST": address})
        assert done.returncode == 2  # no --json there
        done = home.craft("daemon", "status", "--json", env={"CRAFT_HOST": address})
    assert done.returncode == 69
    assert address in json.loads(done.stderr)["error"]["message"]


def test_an_unreadable_ca_file_is_named() -> None:
    with pytest.raises(CraftError, match="CRAFT_CA: /nowhere") as caught:
        Client("example.org:443", ca_file="/nowhere")
    assert caught.value.exit_code == 78


def test_where_the_key_may_come_from() -> None:
    found = config.client({"CRAFT_HOST": "h:1", "CRAFT_API_KEY": "k", "CRAFT_CA": "c", "CRAFT_AUTOSTART": "0"})
    assert found == config.Client("h:1", "k", "c", autostart=False)
