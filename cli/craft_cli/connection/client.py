"""The channel to a daemon: small typed methods, and foreign errors turned into ours.

The only module of the command that imports grpc.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # the library's own log lines are not for users

import grpc
from craft_protos import (
    channels,
    daemon_pb2,
    daemon_pb2_grpc,
    images_pb2,
    images_pb2_grpc,
    inputs_pb2,
    inputs_pb2_grpc,
    jobs_pb2,
    jobs_pb2_grpc,
    keys_pb2,
    keys_pb2_grpc,
    loras_pb2,
    loras_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    training_pb2,
    training_pb2_grpc,
)
from craft_protos.reasons import CraftError

from craft_cli.connection.pulse import Pulse

Q = TypeVar("Q")
A = TypeVar("A")

CALL_TIMEOUT_S = 20.0
_SHUTDOWN_TIMEOUT_S = 3.0  # it only begins to stop
_PAGE = 200


class Client:
    """One connection. `address` is unix:PATH or HOST:PORT."""

    def __init__(self, address: str, *, api_key: str = "", ca_file: str = "") -> None:
        self.address = address
        self._metadata = [("authorization", f"Bearer {api_key}")] if api_key else []
        self._channel = _open(address, ca_file)
        self._pulse = Pulse(self.answers)
        self._jobs = jobs_pb2_grpc.JobsStub(self._channel)
        self._images = images_pb2_grpc.ImagesStub(self._channel)
        self._inputs = inputs_pb2_grpc.InputsStub(self._channel)
        self._keys = keys_pb2_grpc.KeysStub(self._channel)
        self._loras = loras_pb2_grpc.LorasStub(self._channel)
        self._models = models_pb2_grpc.ModelsStub(self._channel)
        self._training = training_pb2_grpc.TrainingStub(self._channel)
        self._daemon = daemon_pb2_grpc.DaemonStub(self._channel)

    def close(self) -> None:
        self._pulse.stop()
        self._channel.close()

    # Jobs

    def create_job(self, request: jobs_pb2.CreateJobRequest, timeout_s: float | None = None) -> jobs_pb2.Job:
        return self._call(self._jobs.CreateJob, request, timeout_s)

    def plan_job(self, request: jobs_pb2.CreateJobRequest) -> jobs_pb2.JobPlan:
        return self._long_call(self._jobs.PlanJob, request)  # of a new model, the layers are found out first

    def get_job(self, job_id: str) -> jobs_pb2.Job:
        return self._call(self._jobs.GetJob, jobs_pb2.GetJobRequest(id=job_id))

    def list_jobs(
        self, states: list[jobs_pb2.JobState.ValueType], limit: int, timeout_s: float | None = None
    ) -> Iterator[jobs_pb2.Job]:
        """Newest first, at most `limit` (0: all)."""

        def page(token: str, size: int) -> tuple[list[jobs_pb2.Job], str]:
            request = jobs_pb2.ListJobsRequest(page_size=size, page_token=token, states=states)
            answer = self._call(self._jobs.ListJobs, request, timeout_s)
            return list(answer.jobs), answer.next_page_token

        return _pages(page, limit)

    def cancel_job(self, job_id: str, timeout_s: float | None = None) -> jobs_pb2.Job:
        return self._call(self._jobs.CancelJob, jobs_pb2.CancelJobRequest(id=job_id), timeout_s)

    def watch_job(self, job_id: str, preview_every: int = 0) -> Iterator[jobs_pb2.JobEvent]:
        """The job's events; ends with the job or raises when the connection does. `preview_every`: so many steps."""
        return self._stream(self._jobs.WatchJob, jobs_pb2.WatchJobRequest(id=job_id, preview_every=preview_every))

    # Images

    def get_image(self, image_id: str) -> tuple[images_pb2.Image, bytes]:
        """What is known of an image, and its file."""
        image = images_pb2.Image()
        parts: list[bytes] = []
        for answer in self._stream(self._images.GetImage, images_pb2.GetImageRequest(id=image_id)):
            if answer.HasField("image"):
                image = answer.image
            else:
                parts.append(answer.chunk)
        return image, b"".join(parts)

    def describe_image(self, image_id: str) -> images_pb2.Image:
        request = images_pb2.GetImageRequest(id=image_id, metadata_only=True)
        for answer in self._stream(self._images.GetImage, request):
            if answer.HasField("image"):
                return answer.image
        raise CraftError("UNKNOWN_IMAGE", f"no image has the id {image_id}", "see `craft images list`")

    def list_images(self, job_id: str, limit: int, timeout_s: float | None = None) -> Iterator[images_pb2.Image]:
        """Newest first, at most `limit` (0: all)."""

        def page(token: str, size: int) -> tuple[list[images_pb2.Image], str]:
            request = images_pb2.ListImagesRequest(page_size=size, page_token=token, job_id=job_id)
            answer = self._call(self._images.ListImages, request, timeout_s)
            return list(answer.images), answer.next_page_token

        return _pages(page, limit)

    def delete_image(self, image_id: str) -> None:
        self._call(self._images.DeleteImage, images_pb2.DeleteImageRequest(id=image_id))

    # Inputs

    def find_input(self, sha256: str) -> inputs_pb2.FindInputResponse:
        return self._call(self._inputs.FindInput, inputs_pb2.FindInputRequest(sha256=sha256))

    def put_input(self, parts: Iterator[inputs_pb2.PutInputRequest]) -> inputs_pb2.Input:
        """`parts`: a header, then the picture's bytes."""
        return self._long_call(self._inputs.PutInput, parts)

    # Models

    def list_models(self, timeout_s: float | None = None) -> list[models_pb2.Model]:
        return list(self._call(self._models.ListModels, models_pb2.ListModelsRequest(), timeout_s).models)

    def get_model(self, name: str) -> models_pb2.Model:
        return self._long_call(self._models.GetModel, models_pb2.GetModelRequest(name=name))  # it may hash its files

    def load_model(self, name: str, keep_alive_s: float | None) -> models_pb2.Model:
        """`keep_alive_s`: None as configured, 0 not at all, negative for ever."""
        request = models_pb2.LoadModelRequest(name=name, keep_alive_s=keep_alive_s)
        return self._long_call(self._models.LoadModel, request)

    def unload_model(self, name: str) -> models_pb2.Model:
        return self._long_call(self._models.UnloadModel, models_pb2.UnloadModelRequest(name=name))

    def import_model(self, request: models_pb2.ImportModelRequest) -> Iterator[models_pb2.ImportModelEvent]:
        """Progress, then the model, unless it was only planned."""
        return self._stream(self._models.ImportModel, request)

    def delete_model(self, name: str) -> int:
        """Bytes that were deleted."""
        return self._long_call(self._models.DeleteModel, models_pb2.DeleteModelRequest(name=name)).freed_bytes

    def list_parts(self, timeout_s: float | None = None) -> list[models_pb2.Part]:
        return list(self._call(self._models.ListParts, models_pb2.ListPartsRequest(), timeout_s).parts)

    def search_catalogue(self, words: str) -> list[models_pb2.CatalogueEntry]:
        request = models_pb2.SearchCatalogueRequest(words=words)
        return list(self._call(self._models.SearchCatalogue, request).entries)

    def import_folder(self, request: models_pb2.ImportFolderRequest) -> Iterator[models_pb2.ImportFolderEvent]:
        """Until everything in it was looked at."""
        return self._stream(self._models.ImportFolder, request)

    def update_model(self, request: models_pb2.UpdateModelRequest) -> models_pb2.Model:
        return self._long_call(self._models.UpdateModel, request)  # it may hash a part

    def set_alias(self, alias: str, model: str) -> models_pb2.Model:
        return self._call(self._models.SetAlias, models_pb2.SetAliasRequest(alias=alias, model=model))

    def delete_alias(self, alias: str) -> None:
        self._call(self._models.DeleteAlias, models_pb2.DeleteAliasRequest(alias=alias))

    # LoRAs

    def list_loras(self, model: str = "", timeout_s: float | None = None) -> list[loras_pb2.Lora]:
        request = loras_pb2.ListLorasRequest(model=model)
        if model:  # its layers may have to be found out first
            return list(self._long_call(self._loras.ListLoras, request).loras)
        return list(self._call(self._loras.ListLoras, request, timeout_s).loras)

    def get_lora(self, name: str) -> loras_pb2.Lora:
        return self._long_call(self._loras.GetLora, loras_pb2.GetLoraRequest(lora=name))  # as above

    def import_lora(self, parts: Iterator[loras_pb2.ImportLoraRequest]) -> Iterator[loras_pb2.ImportLoraEvent]:
        """Progress, then the LoRA. `parts`: a header, then an upload's chunks."""
        return self._stream(self._loras.ImportLora, parts)

    def update_lora(self, request: loras_pb2.UpdateLoraRequest) -> loras_pb2.Lora:
        return self._call(self._loras.UpdateLora, request)

    def delete_lora(self, name: str) -> None:
        self._call(self._loras.DeleteLora, loras_pb2.DeleteLoraRequest(lora=name))

    # Keys

    def create_key(self, request: keys_pb2.CreateKeyRequest) -> keys_pb2.CreateKeyResponse:
        return self._call(self._keys.CreateKey, request)

    def list_keys(self, timeout_s: float | None = None) -> list[keys_pb2.Key]:
        return list(self._call(self._keys.ListKeys, keys_pb2.ListKeysRequest(), timeout_s).keys)

    def suspend_key(self, name: str) -> keys_pb2.Key:
        return self._call(self._keys.SuspendKey, keys_pb2.SuspendKeyRequest(key=name))

    def resume_key(self, name: str) -> keys_pb2.Key:
        return self._call(self._keys.ResumeKey, keys_pb2.ResumeKeyRequest(key=name))

    def ban_owner(self, name: str) -> keys_pb2.Key:
        return self._call(self._keys.BanOwner, keys_pb2.BanOwnerRequest(key=name))

    def delete_key(self, name: str) -> None:
        self._call(self._keys.DeleteKey, keys_pb2.DeleteKeyRequest(key=name))

    # Training

    def upload_dataset(
        self, parts: Iterator[training_pb2.UploadDatasetRequest]
    ) -> Iterator[training_pb2.UploadDatasetEvent]:
        """Progress, then the dataset. `parts`: a header, then each picture's header and chunks."""
        return self._stream(self._training.UploadDataset, parts)

    def get_training_log(self, job_id: str) -> training_pb2.TrainingLog:
        return self._call(self._training.GetTrainingLog, training_pb2.GetTrainingLogRequest(job_id=job_id))

    def get_training_samples(self, job_id: str, first: int) -> training_pb2.TrainingLog:
        """The samples from that one on, counted from 0, as many as fit into a message."""
        request = training_pb2.GetTrainingLogRequest(job_id=job_id, with_samples=True, first_sample=first)
        return self._call(self._training.GetTrainingLog, request)

    # Daemon

    def status(self, timeout_s: float | None = None) -> daemon_pb2.DaemonStatus:
        return self._call(self._daemon.GetStatus, daemon_pb2.GetStatusRequest(), timeout_s)

    def shutdown(self, *, now: bool, grace_s: float = 0.0) -> None:
        self._call(self._daemon.Shutdown, daemon_pb2.ShutdownRequest(now=now, grace_s=grace_s), _SHUTDOWN_TIMEOUT_S)

    def drain_worker(self, name: str, *, resume: bool) -> daemon_pb2.WorkerStatus:
        return self._call(self._daemon.DrainWorker, daemon_pb2.DrainWorkerRequest(name=name, resume=resume))

    def invite_worker(self, name: str) -> daemon_pb2.Invitation:
        return self._call(self._daemon.InviteWorker, daemon_pb2.InviteWorkerRequest(name=name))

    def remove_worker(self, name: str) -> None:
        self._call(self._daemon.RemoveWorker, daemon_pb2.RemoveWorkerRequest(name=name))

    def disk_usage(self) -> daemon_pb2.DiskUsage:
        return self._call(self._daemon.GetDiskUsage, daemon_pb2.GetDiskUsageRequest())

    def prune(self, what: Sequence[str], older_than_s: float, *, dry_run: bool) -> list[daemon_pb2.Pruned]:
        request = daemon_pb2.PruneRequest(what=what, older_than_s=older_than_s, dry_run=dry_run)
        return list(self._long_call(self._daemon.Prune, request).pruned)

    def watch_logs(self, tail: int, follow: bool) -> Iterator[str]:
        request = daemon_pb2.WatchLogsRequest(tail=tail, follow=follow)
        for line in self._stream(self._daemon.WatchLogs, request):
            yield line.json

    def connects(self, timeout_s: float) -> bool:
        """Whether a connection comes about; told as soon as it does or does not."""
        settled: SimpleQueue[bool] = SimpleQueue()

        def note(state: grpc.ChannelConnectivity) -> None:
            if state in (grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE):
                settled.put(state is grpc.ChannelConnectivity.READY)

        self._channel.subscribe(note, try_to_connect=True)
        try:
            return settled.get(timeout=timeout_s)
        except Empty:
            return False
        finally:
            self._channel.unsubscribe(note)

    def is_serving(self, timeout_s: float) -> bool:
        """Whether the health service says SERVING."""
        from grpc_health.v1 import health_pb2

        try:
            return bool(self._check_health(timeout_s).status == health_pb2.HealthCheckResponse.SERVING)
        except grpc.RpcError:
            return False

    def answers(self, timeout_s: float) -> bool:
        """Asks whether a daemon answers there; a refusal counts as an answer."""
        try:
            self._check_health(timeout_s)
        except grpc.RpcError as error:
            assert isinstance(error, grpc.Call)
            return error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED
        return True

    def _check_health(self, timeout_s: float) -> Any:
        from grpc_health.v1 import health_pb2

        check: Any = self._channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        return check(health_pb2.HealthCheckRequest(), timeout=timeout_s, metadata=self._metadata)

    def _call(self, method: Callable[..., A], request: object, timeout_s: float | None = None) -> A:
        try:
            return method(request, timeout=timeout_s or CALL_TIMEOUT_S, metadata=self._metadata)
        except grpc.RpcError as error:
            raise channels.ours(error, self.address) from error

    def _long_call(self, method: Callable[..., A], request: object) -> A:
        """For what takes as long as it takes: it ends when the daemon does, or answers nothing any more."""
        call: Any = method.future(request, metadata=self._metadata)  # type: ignore[attr-defined]
        self._pulse.watch(call)
        try:
            answer: A = call.result()
            return answer
        except (grpc.RpcError, grpc.FutureCancelledError) as error:
            raise self._failure(call) from error
        finally:
            self._pulse.forget(call)

    def _failure(self, error: Any) -> CraftError:
        """Of a call that lasts: the daemon may have fallen silent meanwhile."""
        return channels.silent(self.address) if self._pulse.is_silent else channels.ours(error, self.address)

    def _stream(self, method: Callable[..., Iterable[A]], request: object) -> Iterator[A]:
        call: Any = method(request, metadata=self._metadata)
        self._pulse.watch(call)
        try:
            for answer in call:
                self._pulse.note()
                yield answer
        except grpc.RpcError as error:
            raise self._failure(error) from error
        finally:
            self._pulse.forget(call)
            call.cancel()


def _pages(page: Callable[[str, int], tuple[list[A], str]], limit: int) -> Iterator[A]:
    token, left = "", limit or None
    while True:
        items, token = page(token, _PAGE if left is None else min(left, _PAGE))
        yield from items
        left = None if left is None else left - len(items)
        if not token or left == 0:
            return


def _open(address: str, ca_file: str) -> grpc.Channel:
    credentials, options = channels.credentials(address, ca_file), channels.options(address)
    if credentials is None:
        return grpc.insecure_channel(address, options=options)
    return grpc.secure_channel(address, credentials, options=options)
