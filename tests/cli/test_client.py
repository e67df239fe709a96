"""What the daemon answers, as the user hears it."""

from __future__ import annotations

import dataclasses
import json
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from craft_cli.connection import versions
from craft_cli.connection.autostart import Found
from craft_cli.connection.client import Client
from craft_cli.connection.session import Session
from craft_cli.generate import delivery, drawing
from craft_cli.generate.output import Target
from craft_protos import config, images_pb2, jobs_pb2
from craft_protos.reasons import REASONS, CraftError
from craft_protos.version import __version__

from tests.cli.fakes import FakeDaemon, refuse, serving
from tests.home import Home


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


def test_a_newer_daemon_is_used_as_it_is(home: Home) -> None:
    """Two crafts of different versions in turn would else replace each other's daemon each time."""
    daemon = FakeDaemon("99.0")
    with serving(daemon, home.paths):
        done = home.craft("generate", "x", "--detach")
    assert (done.returncode, done.stdout) == (0, "j1\n")
    assert "99.0" in done.stderr
    assert daemon.shutdowns == 0


def test_a_version_that_comes_back_is_not_replaced_again(home: Home) -> None:
    """As where a service starts what it was installed with."""
    for shutdowns in (1, 0, 0):
        daemon = FakeDaemon("0.0.1")
        with serving(daemon, home.paths):
            assert home.craft("generate", "x", "--detach").returncode == 0
            assert daemon.shutdowns == shutdowns
        home.end_daemon()


def test_two_versions_in_turn_restart_the_daemon_once(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    old = Found(1, "unix:x", "0.1")
    home.paths.data_dir.mkdir(exist_ok=True)
    renewed = []
    for version, daemon in [("0.2", "0.1"), ("0.1", "0.2"), ("0.2", "0.2.dev1"), ("0.10.0", "0.9"), ("0.2", "0.1")]:
        monkeypatch.setattr(versions, "__version__", version)
        renewed.append(versions.may_renew(home.paths, dataclasses.replace(old, version=daemon)))
    assert renewed == [True, False, False, True, False]


def test_an_old_daemon_that_ends_just_then_is_no_obstacle(home: Home) -> None:
    """As in somebody's restart: it is found, and is gone when it is asked."""

    @dataclass
    class Ending(FakeDaemon):
        def GetStatus(self, request: Any, context: Any) -> Any:
            self.shutdowns += 1
            threading.Thread(target=self.on_shutdown).start()
            refuse(context, "DAEMON_UNREACHABLE", "gone")

    with serving(Ending("0.0.1"), home.paths):
        done = home.craft("generate", "x", "-o", "x.png")
    assert (done.returncode, done.stdout) == (0, "x.png\n"), done.stderr


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


def test_paths_are_printed_in_order_whichever_picture_is_done_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    images = [images_pb2.Image(index=index, id=str(index)) for index in (2, 0, 1)]
    job = jobs_pb2.Job(state=jobs_pb2.JOB_STATE_SUCCEEDED, images=images)
    events = [jobs_pb2.JobEvent(image=image) for image in images]
    events.append(jobs_pb2.JobEvent(finished=jobs_pb2.JobEvent.Finished(job=job)))
    monkeypatch.setattr(drawing, "follow", lambda session, job_id, preview_every: iter(events))
    monkeypatch.setattr(drawing, "fetch", lambda session, image: b"")
    asked, target = jobs_pb2.GenerateSpec(count=3), Target(f"{tmp_path}/{{index}}.png")
    delivery._deliver(Session(), "j", asked, target, delivery.Manner())
    assert capsys.readouterr().out.split() == [f"{tmp_path}/{index}.png" for index in range(3)]
