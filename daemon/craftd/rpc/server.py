"""The gRPC server: on the local socket, and on a TCP port for callers with keys."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from craft_protos import daemon_pb2, images_pb2, inputs_pb2, jobs_pb2, keys_pb2, loras_pb2, models_pb2, training_pb2
from grpc_health.v1 import health_pb2

from craftd.control import Control
from craftd.datasets.service import DatasetService
from craftd.descriptors import most_connections
from craftd.images.service import ImageService
from craftd.inputs.service import InputService
from craftd.jobs.service import JobService
from craftd.keys.service import KeyService
from craftd.logs import Log
from craftd.loras.service import LoraService
from craftd.models.service import ModelService
from craftd.rpc.auth import Gate
from craftd.rpc.daemon import Daemon
from craftd.rpc.guard import handlers_of
from craftd.rpc.health import Health
from craftd.rpc.images import Images
from craftd.rpc.inputs import Inputs
from craftd.rpc.jobs import Jobs
from craftd.rpc.keys import Keys
from craftd.rpc.loras import Loras
from craftd.rpc.models import Models
from craftd.rpc.reflection import LazyReflection
from craftd.rpc.tcp import Tcp
from craftd.rpc.training import Training
from craftd.training.service import TrainingService
from craftd.upkeep.service import Upkeep

_LARGEST_MESSAGE_BYTES = 2 << 20  # uploads come in chunks of one
_SILENCE_MS = 10_000  # that a connection may keep before it says HTTP/2
_MOST_CALLS = 1024  # at once through one connection
_PING_EVERY_MS = 60_000  # a peer that has vanished without a word is noticed


@dataclass(frozen=True)
class Services:
    jobs: JobService
    images: ImageService
    models: ModelService
    loras: LoraService
    datasets: DatasetService
    trainings: TrainingService
    keys: KeyService
    control: Control
    log: Log
    upkeep: Upkeep
    inputs: InputService


class RpcServer:
    """Health says SERVING from `start` to `stop`."""

    def __init__(self, services: Services) -> None:
        self._health, gate = Health(), Gate(services.keys)
        implementations: list[tuple[Any, object]] = [
            (jobs_pb2.DESCRIPTOR, Jobs(services.jobs)),
            (images_pb2.DESCRIPTOR, Images(services.images)),
            (inputs_pb2.DESCRIPTOR, Inputs(services.inputs)),
            (models_pb2.DESCRIPTOR, Models(services.models, services.loras, services.jobs.fits)),
            (loras_pb2.DESCRIPTOR, Loras(services.loras, services.models, services.jobs.fits)),
            (training_pb2.DESCRIPTOR, Training(services.datasets, services.trainings, services.jobs)),
            (keys_pb2.DESCRIPTOR, Keys(services.keys, services.jobs)),
            (daemon_pb2.DESCRIPTOR, Daemon(services.control, services.log, services.upkeep)),
            (health_pb2.DESCRIPTOR, self._health),
        ]
        served = [
            (service, implementation)
            for file, implementation in implementations
            for service in file.services_by_name.values()
        ]
        handlers = [handlers_of(*one, gate, takes_context=one[1] is self._health) for one in served]
        reflection = LazyReflection([service.full_name for service, _ in served], gate)
        self._handlers = [*handlers, reflection]
        self._server = grpc.aio.server(handlers=self._handlers, options=_options())
        self._distant: grpc.aio.Server | None = None

    def bind(self, address: str) -> None:
        self._server.add_insecure_port(address)

    def listen(self, tcp: Tcp) -> str:
        """Beside the socket, with connections of its own: a flood there shuts nobody out here.

        The address. Raises CONFIG_INVALID.
        """
        self._distant = grpc.aio.server(handlers=self._handlers, options=_options())
        return tcp.bind(self._distant)

    async def start(self) -> None:
        for server in self._servers:
            await server.start()
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)

    async def say_not_serving(self) -> None:
        """Draining: what was begun goes on."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace_s: float) -> None:
        await asyncio.gather(*(server.stop(grace_s) for server in self._servers))

    @property
    def _servers(self) -> list[grpc.aio.Server]:
        return [self._server] if self._distant is None else [self._server, self._distant]


def _options() -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", _LARGEST_MESSAGE_BYTES),
        ("grpc.so_reuseport", 0),
        ("grpc.max_allowed_incoming_connections", most_connections()),
        ("grpc.server_handshake_timeout_ms", _SILENCE_MS),
        ("grpc.max_concurrent_streams", _MOST_CALLS),
        ("grpc.keepalive_time_ms", _PING_EVERY_MS),
    ]
