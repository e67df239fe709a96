"""Every gRPC method by everybody who may try it, over TCP and through the socket.

Made from the services' descriptors: a new method is tried too, and one without an entry
in the policy, or whose resource nobody has named here, fails.
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import craft_protos
import grpc
import pytest
from craft_protos import api_key as keys
from craft_protos import (
    daemon_pb2,
    images_pb2,
    jobs_pb2,
    keys_pb2,
    keys_pb2_grpc,
    loras_pb2,
    loras_pb2_grpc,
    training_pb2,
)
from craftd.rpc.auth import POLICY, Access
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from tests.daemon.harness import details, reason, request, spawn_and_wait
from tests.daemon.loras import upload_parts, use
from tests.home import HANG_S, Home
from tests.lora_files import kohya
from tests.pictures import pictures

UNLIMITED = "[tiers.default]\nrequests_per_minute = 1000000\nqueue_share = 1.0\n"

_MODULES = [
    importlib.import_module(f"craft_protos.{module.name}")
    for module in pkgutil.iter_modules(craft_protos.__path__)
    if module.name.endswith("_pb2")
]
METHODS: dict[str, MethodDescriptor] = {
    f"{service.full_name}/{method.name}": method
    for file in [*_MODULES, health_pb2, reflection_pb2]
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
# Where an empty request would do harm, one that is refused for its contents.
REQUESTS: dict[str, Message] = {"craft.v1.Daemon/Shutdown": daemon_pb2.ShutdownRequest(grace_s=float("nan"))}
# What is somebody's: which of user's things a field of a request names.
RESOURCES = {
    ("craft.v1.Jobs", "id"): "job",
    ("craft.v1.Images", "id"): "image",
    ("craft.v1.Images", "job_id"): "job",
    ("craft.v1.Training", "id"): "dataset",
    ("craft.v1.Training", "job_id"): "job",
}
# How each method that may name a LoRA does so.
NAMING: dict[str, Callable[[str], Message]] = {
    "craft.v1.Jobs/CreateJob": lambda lora: request(loras=[use(lora)]),
    "craft.v1.Jobs/PlanJob": lambda lora: request(loras=[use(lora)]),
    "craft.v1.Loras/GetLora": lambda lora: loras_pb2.GetLoraRequest(lora=lora),
    "craft.v1.Loras/UpdateLora": lambda lora: loras_pb2.UpdateLoraRequest(lora=lora, weight=0.5),
    "craft.v1.Loras/DeleteLora": lambda lora: loras_pb2.DeleteLoraRequest(lora=lora),
}


@dataclass
class Answer:
    """What came of a call: OK or the error's reason, and the first message."""

    reason: str
    text: str = ""
    message: Any = None
    hint: str = ""


@dataclass
class Place:
    """A daemon with keys of every kind; who is called user has a job, its image, a dataset and a LoRA."""

    socket: str
    tcp: str
    keys: dict[str, str]
    job: str = ""
    image: str = ""
    dataset: str = ""
    lora: loras_pb2.Lora = field(default_factory=loras_pb2.Lora)
    root: str = ""  # the folder of all its files
    _channels: dict[str, grpc.Channel] = field(default_factory=dict)

    def call(self, name: str, message: Message, who: str) -> Answer:
        channel = self._channel(self.socket if who == "socket" else self.tcp)
        return _call(channel, name, message, self.keys.get(who, ""))

    def close(self) -> None:
        for channel in self._channels.values():
            channel.close()

    def _channel(self, address: str) -> grpc.Channel:
        if address not in self._channels:
            self._channels[address] = grpc.insecure_channel(address)
        return self._channels[address]


def _call(channel: grpc.Channel, name: str, message: Message, key: str) -> Answer:
    method = METHODS[name]
    make: Callable[..., Any] = getattr(channel, _kind(method))
    ask = make(
        f"/{name}",
        request_serializer=lambda one: one.SerializeToString(),
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    metadata = [("authorization", f"Bearer {key}")] if key else []
    given = iter([message]) if method.client_streaming else message
    try:
        answered = ask(given, metadata=metadata, timeout=HANG_S)
        if not method.server_streaming:
            return Answer("OK", message=answered)
        with contextlib.closing(_Cancelled(answered)) as stream:
            return Answer("OK", message=stream.first())
    except grpc.RpcError as error:
        return _failure(cast(Any, error))


@dataclass
class _Cancelled:
    """A stream that is left after its first message."""

    call: Any

    def first(self) -> Message | None:
        return next(iter(self.call), None)

    def close(self) -> None:
        self.call.cancel()


def _failure(error: Any) -> Answer:
    try:
        return Answer(reason(error), error.details(), hint=cast(Any, details(error)["ErrorInfo"]).metadata["hint"])
    except KeyError:  # not one of ours
        return Answer(error.code().name, error.details())


def _kind(method: MethodDescriptor) -> str:
    return "_".join(
        "stream" if is_stream else "unary" for is_stream in (method.client_streaming, method.server_streaming)
    )


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    home = Home(CRAFT_DAEMON_LISTEN="127.0.0.1:0", CRAFT_KEYS_FAILURES_PER_MINUTE="1000000")
    home.paths.config_file.write_text(UNLIMITED)
    try:
        with _running(home) as address, contextlib.closing(_furnished(address)) as made:
            made.lora = _sent(
                made, kohya(home.root / "secret.safetensors", metadata={"modelspec.trigger_phrase": "psst"})
            )
            _link(made, kohya(home.root / "xyzzy.safetensors", seed=2))
            made.root = str(home.root)
            yield made
    finally:
        home.remove()


@contextlib.contextmanager
def _running(home: Home) -> Iterator[str]:
    process, said = spawn_and_wait(home)
    try:
        assert said.get("ready"), said
        yield str(said["address"])
    finally:
        process.kill()
        process.communicate()


def _furnished(address: str) -> Place:
    with grpc.insecure_channel(address) as channel:
        stub = keys_pb2_grpc.KeysStub(channel)

        def make(owner: str, role: keys_pb2.KeyRole.ValueType = keys_pb2.KEY_ROLE_USER) -> str:
            return stub.CreateKey(keys_pb2.CreateKeyRequest(owner=owner, role=role)).secret

        made = {name: make(name) for name in ("user", "other", "suspended", "banned")}
        made |= {"admin": make("ops", keys_pb2.KEY_ROLE_ADMIN), "bad": keys.new().text}
        stub.SuspendKey(keys_pb2.SuspendKeyRequest(key="suspended"))
        stub.BanOwner(keys_pb2.BanOwnerRequest(key="banned"))
        status = _call(channel, "craft.v1.Daemon/GetStatus", daemon_pb2.GetStatusRequest(), "").message
    place = Place(address, status.listen, made)
    place.job = place.call("craft.v1.Jobs/CreateJob", request(steps=1), "user").message.id
    place.image = _image_of(place)
    place.dataset = _uploaded(place)
    return place


def _image_of(place: Place) -> str:
    """Once the job is done."""
    with grpc.insecure_channel(place.socket) as channel:
        watch = channel.unary_stream(
            "/craft.v1.Jobs/WatchJob",
            request_serializer=jobs_pb2.WatchJobRequest.SerializeToString,
            response_deserializer=jobs_pb2.JobEvent.FromString,
        )
        events = list(watch(jobs_pb2.WatchJobRequest(id=place.job), timeout=HANG_S))
    return events[-1].finished.job.images[0].id


def _uploaded(place: Place) -> str:
    """The dataset's id."""
    kinds, files = training_pb2.UploadDatasetRequest, pictures()
    parts = [kinds(header=kinds.Header(pictures=len(files)))]
    for name, data in files.items():
        parts += [kinds(picture=kinds.PictureHeader(file_name=name, size_bytes=len(data))), kinds(chunk=data)]
    with grpc.insecure_channel(place.tcp) as channel:
        upload = channel.stream_stream(
            "/craft.v1.Training/UploadDataset",
            request_serializer=kinds.SerializeToString,
            response_deserializer=training_pb2.UploadDatasetEvent.FromString,
        )
        events = list(upload(iter(parts), metadata=[("x-api-key", place.keys["user"])], timeout=HANG_S))
    return events[-1].dataset.id


def _sent(place: Place, path: Path) -> loras_pb2.Lora:
    """The LoRA that it becomes, of who is called user."""
    with grpc.insecure_channel(place.tcp) as channel:
        ask = loras_pb2_grpc.LorasStub(channel).ImportLora
        *_, last = ask(iter(upload_parts(path)), metadata=[("x-api-key", place.keys["user"])], timeout=HANG_S)
    return last.lora


def _link(place: Place, path: Path) -> None:
    """As an admin does, for everybody."""
    header = loras_pb2.ImportLoraRequest.Header(path=str(path))
    with grpc.insecure_channel(place.socket) as channel:
        for _ in loras_pb2_grpc.LorasStub(channel).ImportLora(iter([loras_pb2.ImportLoraRequest(header=header)])):
            continue


def _sample(name: str) -> Message:
    return REQUESTS.get(name) or GetMessageClass(METHODS[name].input_type)()


def _is_through(answer: Answer) -> bool:
    """The method itself has answered, if only to say what is wrong with an empty request."""
    shut = ("UNAUTHENTICATED", "NOT_ALLOWED", "KEY_SUSPENDED", "KEY_BANNED", "RATE_LIMITED")
    broken = ("UNIMPLEMENTED", "INTERNAL", "UNKNOWN", "UNAVAILABLE", "DEADLINE_EXCEEDED")
    return answer.reason not in (*shut, *broken)


def _expected(access: Access, who: str) -> str:
    """The reason, "" for whoever is let in."""
    if who == "socket" or access is Access.PUBLIC:
        return ""
    if who in ("nobody", "bad"):
        return "UNAUTHENTICATED"
    if who in ("suspended", "banned"):
        return f"KEY_{who.upper()}"
    allowed = {Access.USER: ("user", "other", "admin"), Access.ADMIN: ("admin",), Access.LOCAL: ()}[access]
    return "" if who in allowed else "NOT_ALLOWED"


def test_every_method_has_its_entry() -> None:
    assert set(POLICY) == set(METHODS)


@pytest.mark.parametrize("who", ["nobody", "bad", "user", "suspended", "banned", "admin", "socket"])
@pytest.mark.parametrize("name", METHODS)
def test_who_may_call_what(place: Place, name: str, who: str) -> None:
    answer, expected = place.call(name, _sample(name), who), _expected(POLICY[name], who)
    assert _is_through(answer) if not expected else answer.reason == expected, answer
    assert place.keys["user"] not in answer.text


def _of_others() -> list[tuple[str, str]]:
    """(method, field) of every request by which a user names a thing that may be another's."""
    named = []
    for name, method in METHODS.items():
        if POLICY.get(name) is not Access.USER or not name.startswith("craft.v1."):
            continue
        fields = [one.name for one in method.input_type.fields if one.name == "id" or one.name.endswith("_id")]
        named += [(name, one) for one in fields if one != "request_id"]
    return named


@pytest.mark.parametrize(("name", "field_name"), _of_others())
def test_what_is_anothers_is_not_there(place: Place, name: str, field_name: str) -> None:
    service = name.partition("/")[0]
    kind = RESOURCES[service, field_name]  # a new field must be named there
    real, made_up = getattr(place, kind), "0" * len(getattr(place, kind))

    def ask(resource: str, who: str) -> Answer:
        return place.call(name, GetMessageClass(METHODS[name].input_type)(**{field_name: resource}), who)

    if "List" in name:
        assert [len(ask(real, who).message.images) for who in ("other", "user")] == [0, 1]
        return
    for part in (real, real[:6], real[:1]):
        answer, unknown = ask(part, "other"), ask(made_up, "other")
        assert answer.reason == unknown.reason == f"UNKNOWN_{kind.upper()}"
        assert _without_id(answer.text) == _without_id(unknown.text)


def _names_loras(kind: Descriptor, seen: tuple[str, ...] = ()) -> bool:
    """Whether a message, or one within it, names a LoRA."""
    within = [one.message_type for one in kind.fields if one.message_type and one.message_type.full_name not in seen]
    return "lora" in kind.fields_by_name or any(_names_loras(one, (*seen, kind.full_name)) for one in within)


def test_every_method_that_names_a_lora_is_known() -> None:
    assert {name for name, method in METHODS.items() if _names_loras(method.input_type)} == set(NAMING)


@pytest.mark.parametrize("name", [*NAMING])
def test_anothers_lora_is_not_there(place: Place, name: str) -> None:
    lora = place.lora
    for text in (lora.id, lora.name, lora.sha256, lora.sha256[:10], lora.file_name, lora.name + "s"):
        answer, unknown = (place.call(name, NAMING[name](one), "other") for one in (text, "0" * len(text)))
        assert answer.reason == unknown.reason == "UNKNOWN_LORA" and answer.hint == unknown.hint
        assert _without_id(answer.text) == _without_id(unknown.text)
    for who in ("user", "admin", "socket"):
        if "DeleteLora" not in name:
            assert place.call(name, NAMING[name](lora.name), who).reason == "OK"


@pytest.mark.parametrize("name", [name for name, access in POLICY.items() if access is Access.USER])
def test_nothing_tells_of_anothers_lora(place: Place, name: str) -> None:
    """Whatever is listed, shown or refused."""
    for sample in (_sample(name), *_shown(place, name)):
        answer, lora = place.call(name, sample, "other"), place.lora
        for secret in (lora.id, lora.name, lora.sha256, lora.trigger, lora.file_name, place.root):
            assert secret not in f"{answer}"


def _shown(place: Place, name: str) -> list[Message]:
    """What shows models, beside the empty request."""
    fields = METHODS[name].input_type.fields_by_name
    given = [(one, value) for one in ("model", "name") for value in ("pocket", "flat") if one in fields]
    return [GetMessageClass(METHODS[name].input_type)(**{one: value}) for one, value in given]


def test_who_is_told_whose_lora_it_is(place: Place) -> None:
    def listed(who: str) -> list[tuple[str, str, bool]]:
        message = place.call("craft.v1.Loras/ListLoras", loras_pb2.ListLorasRequest(), who).message
        return [(lora.name, lora.owner, lora.shared) for lora in message.loras]

    own, shared = ("secret", "user", False), ("xyzzy", "", True)
    assert (listed("user"), listed("other")) == ([own, shared], [shared])
    assert listed("admin") == listed("socket") == [own, ("xyzzy", "local", True)]


def test_paths_of_what_is_linked_are_for_admins(place: Place) -> None:
    asked = loras_pb2.GetLoraRequest(lora="xyzzy")
    sources = [place.call("craft.v1.Loras/GetLora", asked, who).message.source for who in ("user", "admin", "socket")]
    assert sources[0] == "" and sources[1] == sources[2] == f"{place.root}/xyzzy.safetensors"


@pytest.mark.parametrize("source", [{"path": "/etc/passwd"}, {"hub": {"repository": "some-org/it"}}])
def test_the_servers_files_and_the_hub_are_for_admins(place: Place, source: dict[str, Any]) -> None:
    asked = loras_pb2.ImportLoraRequest(header=source)  # type: ignore[arg-type]
    assert place.call("craft.v1.Loras/ImportLora", asked, "user").reason == "NOT_ALLOWED"
    shared = loras_pb2.UpdateLoraRequest(lora=place.lora.id, shared=True)
    assert place.call("craft.v1.Loras/UpdateLora", shared, "user").reason == "NOT_ALLOWED"


def _without_id(text: str) -> str:
    return re.sub(r"'[^']*'", "", text)


def test_nobody_has_touched_what_is_anothers(place: Place) -> None:
    job = place.call("craft.v1.Jobs/GetJob", jobs_pb2.GetJobRequest(id=place.job), "user").message
    assert job.state == jobs_pb2.JOB_STATE_SUCCEEDED and [image.id for image in job.images] == [place.image]
    seen = place.call("craft.v1.Jobs/GetJob", jobs_pb2.GetJobRequest(id=place.job), "admin").message
    assert seen.owner == "user"  # an admin is told whose it is
    assert place.call("craft.v1.Images/GetImage", images_pb2.GetImageRequest(id=place.image), "user").reason == "OK"


def test_lists_hold_what_is_ones_own(place: Place) -> None:
    """Admins are shown everybody's, and whose each is."""

    def listed(who: str) -> tuple[set[str], set[str]]:
        images = place.call("craft.v1.Images/ListImages", images_pb2.ListImagesRequest(), who).message.images
        return {job.id for job in jobs(who)}, {image.id for image in images}

    def jobs(who: str) -> Sequence[jobs_pb2.Job]:
        return place.call("craft.v1.Jobs/ListJobs", jobs_pb2.ListJobsRequest(), who).message.jobs  # type: ignore[no-any-return]

    assert listed("user")[0] == {job.id for job in jobs("admin") if job.owner == "user"}
    assert place.job in listed("user")[0] and place.image in listed("user")[1]
    assert listed("other") == (set(), set())
    assert listed("admin") == listed("socket")
    assert all(own <= every for own, every in zip(listed("user"), listed("admin"), strict=True))


def test_the_same_request_id_of_another_is_another_job(place: Place) -> None:
    asked = request("twice", request_id="mine", steps=1)
    ids = [place.call("craft.v1.Jobs/CreateJob", asked, who).message.id for who in ("other", "admin", "other")]
    assert ids[0] == ids[2] != ids[1]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([("authorization", "Bearer {}")], "OK"),
        ([("authorization", "bearer  {} ")], "OK"),
        ([("x-api-key", "{}")], "OK"),
        ([("authorization", "Basic {}"), ("x-api-key", "{}")], "OK"),
        ([("authorization", "{}")], "UNAUTHENTICATED"),
        ([("authorization", "Bearer")], "UNAUTHENTICATED"),
        ([("x-api-key", "Bearer {}")], "UNAUTHENTICATED"),
        ([("authorization", "Bearer {}x")], "UNAUTHENTICATED"),
        ([("authorization", "Bearer " + "x" * 4000)], "UNAUTHENTICATED"),
    ],
)
def test_where_a_key_is_looked_for(place: Place, given: list[tuple[str, str]], expected: str) -> None:
    metadata = [(name, value.replace("{}", place.keys["user"])) for name, value in given]
    with grpc.insecure_channel(place.tcp) as channel:
        ask = channel.unary_unary(
            "/craft.v1.Daemon/GetStatus",
            request_serializer=daemon_pb2.GetStatusRequest.SerializeToString,
            response_deserializer=daemon_pb2.DaemonStatus.FromString,
        )
        try:
            ask(daemon_pb2.GetStatusRequest(), metadata=metadata, timeout=HANG_S)
            found = "OK"
        except grpc.RpcError as error:
            found = _failure(error).reason
    assert found == expected


def test_users_hear_no_paths(place: Place) -> None:
    def status(who: str) -> daemon_pb2.DaemonStatus:
        message = place.call("craft.v1.Daemon/GetStatus", daemon_pb2.GetStatusRequest(), who).message
        assert isinstance(message, daemon_pb2.DaemonStatus)
        return message

    assert not status("user").address and status("user").listen == place.tcp
    assert status("admin").address == place.socket == status("socket").address


def test_what_the_policy_must_say() -> None:
    by_access = {access: [name for name, one in POLICY.items() if one is access] for access in Access}
    assert by_access[Access.LOCAL] == ["grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"]
    assert all(name.startswith("grpc.health.") for name in by_access[Access.PUBLIC])
    must = ("Daemon/Shutdown", "Daemon/WatchLogs", "Models/ImportModel", "Models/DeleteModel", "Models/ImportFolder")
    admin = {name.removeprefix("craft.v1.") for name in by_access[Access.ADMIN]}
    assert admin >= {*must, *(name.removeprefix("craft.v1.") for name in METHODS if ".Keys/" in name)}
