"""What jobs are done with."""

from __future__ import annotations

from dataclasses import dataclass

from craft_protos.config import DaemonSettings

from craftd.images.service import ImageService
from craftd.jobs.events import Hub
from craftd.jobs.training.desk import Desk
from craftd.loras.service import LoraService
from craftd.models.service import ModelService
from craftd.store.database import Database
from craftd.supervisor.supervisor import Supervisor


@dataclass(frozen=True)
class Parts:
    """What the dispatcher works with."""

    database: Database
    images: ImageService
    models: ModelService
    loras: LoraService
    supervisor: Supervisor
    hub: Hub
    desk: Desk
    settings: DaemonSettings
