"""The gRPC server: on the local socket, and on a TCP port for callers with keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from craft_protos import daemon_pb2, images_pb2, jobs_pb2, keys_pb2, loras_pb2, models_pb2, training_pb2
from grpc_health.v1 import health_pb2

from craftd.control import Control
from craftd.datasets.service import DatasetService
from craftd.images.service import ImageService
from craftd.jobs.service import JobService
from craftd.jobs.training.service import TrainingService
from craftd.keys.service import KeyService
from craftd.logs import Log
from craftd.loras.service import LoraService
from craftd.models.service import ModelService
from craftd.rpc.auth import Gate
from craftd.rpc.daemon import Daemon
from craftd.rpc.guard import handlers_of
from craftd.rpc.health import Health
from craftd.rpc.images import Images
from craftd.rpc.jobs import Jobs
from craftd.rpc.keys import Keys
from craftd.rpc.loras import Loras
from craftd.rpc.models import Models
from craftd.rpc.reflection import LazyReflection
from craftd.rpc.tcp import Tcp
from craftd.rpc.training import Training

_LARGEST_MESSAGE_BYTES = 4 << 20
_OPTIONS = [("grpc.max_receive_message_length", _LARGEST_MESSAGE_BYTES), ("grpc.so_reuseport", 0)]


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


class RpcServer:
    """Health says SERVING from `start` to `stop`."""

    def __init__(self, services: Services) -> None:
        self._health, gate = Health(), Gate(services.keys)
        implementations: list[tuple[Any, object]] = [
            (jobs_pb2.DESCRIPTOR, Jobs(services.jobs)),
            (images_pb2.DESCRIPTOR, Images(services.images)),
            (models_pb2.DESCRIPTOR, Models(services.models, services.loras)),
            (loras_pb2.DESCRIPTOR, Loras(services.loras, services.models)),
            (training_pb2.DESCRIPTOR, Training(services.datasets, services.trainings, services.jobs)),
            (keys_pb2.DESCRIPTOR, Keys(services.keys)),
            (daemon_pb2.DESCRIPTOR, Daemon(services.control, services.log)),
            (health_pb2.DESCRIPTOR, self._health),
        ]
        served = [
            (service, implementation)
            for file, implementation in implementations
            for service in file.services_by_name.values()
        ]
        handlers = [handlers_of(*one, gate, takes_context=one[1] is self._health) for one in served]
        reflection = LazyReflection([service.full_name for service, _ in served], gate)
        self._server = grpc.aio.server(handlers=[*handlers, reflection], options=_OPTIONS)

    def bind(self, address: str) -> None:
        self._server.add_insecure_port(address)

    def listen(self, tcp: Tcp) -> str:
        """Beside the socket; the address. Raises CONFIG_INVALID."""
        return tcp.bind(self._server)

    async def start(self) -> None:
        await self._server.start()
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)

    async def say_not_serving(self) -> None:
        """Draining: what was begun goes on."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace_s: float) -> None:
        await self._server.stop(grace_s)
