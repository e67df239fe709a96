"""`-m ORG/NAME`, `-m FOLDER`, `-l ./it.safetensors:0.8`, `-l LINK`: what lies there is registered on the way.

Somebody agrees to it first: at a terminal by an answer, in a script by `--yes`. What is registered already is used.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from craft_protos.frozen import dataclass
from craft_protos.lora import LoraRef
from craft_protos.reasons import CraftError

from craft_cli import errors
from craft_cli.confirming import confirm
from craft_cli.generate import loras
from craft_cli.registering import civitai
from craft_cli.render import units

if TYPE_CHECKING:
    from craft_protos import models_pb2

    from craft_cli.connection.session import Session

_NOT_DRAWN = "nothing was registered, nothing drawn"


def is_place(text: str) -> bool:
    """Whether a model's or a LoRA's name says where it lies: names that are registered have no slash, and no colon."""
    return "/" in text or civitai.is_named(text)


@dataclass(frozen=True)
class Registrar:
    """Registers what a command names. `only_plan`: nothing may be registered, only said."""

    session: Session
    is_agreed: bool
    only_plan: bool
    quiet: bool

    def model(self, text: str) -> str:
        """The name of the model that lies there. Raises USAGE, NO_INPUT and what registering raises."""
        if not is_place(text):
            return text
        from craft_protos import models_pb2

        from craft_cli.registering import pulling

        if _is_local(text):
            request = models_pb2.ImportModelRequest(path=pulling.local(text, self.session))
            source, shown = request.path, f"craft models add {text}"
        else:
            civitai.require_model(text)
            request = models_pb2.ImportModelRequest(hub=pulling.remote(text, self.session))
            source, shown = _hub_source(request.hub), f"craft models pull {text}"
        known = ((one.name, one.source) for one in self.session.client.list_models())
        if name := next((name for name, other in known if _is_same(source, other)), ""):
            return name
        self._agree(f"{text} is no registered model{self._cost(request)}: register it and draw with it?", shown)
        return self._registered(text, pulling.run(self.session, request, quiet=self.quiet))

    def lora(self, text: str) -> LoraRef:
        """The LoRA, registered, with its weight. Raises USAGE, NO_INPUT and what registering raises."""
        from craft_cli.registering import importing

        used = loras.parse(text)
        if not is_place(used.lora):
            return used
        header = importing.header(used.lora, self.session, name="", weight=None, trigger="")
        source = header.path or (_hub_source(header.hub) if header.HasField("hub") else "")
        known = ((one.id, one.source) for one in self.session.client.list_loras(""))
        if found := next((name for name, other in known if source and _is_same(source, other)), ""):
            return replace(used, lora=found)
        self._agree(f"{used.lora} is no registered LoRA: register it and draw with it?", f"craft lora add {used.lora}")
        added = importing.add(self.session, used.lora, header, quiet=self.quiet)
        self._say(used.lora, added.name)
        return replace(used, lora=added.id)

    def _cost(self, request: models_pb2.ImportModelRequest) -> str:
        """Says what a pull downloads; "" for what is on this disk, and where nobody is asked."""
        from craft_protos import models_pb2

        from craft_cli.registering import pulling

        if self.is_agreed or self.only_plan or not request.HasField("hub"):
            return ""
        asked = models_pb2.ImportModelRequest()
        asked.CopyFrom(request)
        asked.plan_only = True
        plan = pulling.run(self.session, asked, quiet=True).plan
        return f", {units.size(plan.download_bytes)} to download"

    def _agree(self, question: str, command: str) -> None:
        if self.only_plan:
            would = ", and would be registered as --yes says" if self.is_agreed else ""
            raise CraftError("USAGE", question.partition(": ")[0] + would, f"--plan registers nothing: {command} does")
        if not self.is_agreed:
            confirm(question, _NOT_DRAWN, f"--yes, or register it: {command}")

    def _registered(self, text: str, event: models_pb2.ImportModelEvent) -> str:
        if event.HasField("part"):
            message = f"{text} is {event.part.description}: a part of models, registered as {event.part.name}"
            raise CraftError("USAGE", message, "name a model with -m")
        self._say(text, event.model.name)
        return event.model.name

    def _say(self, text: str, name: str) -> None:
        if not self.quiet:
            errors.say(errors.one_line(f"craft: {text} is registered as {name}"))


def _is_local(text: str) -> bool:
    """A path rather than ORG/NAME: what is there, or is written as one."""
    return os.path.lexists(text) or text.startswith(("/", "./", "../", "~"))


def _hub_source(hub: models_pb2.HubSource) -> str:
    """As a registered one's source tells it, with "*" for the newest revision."""
    revision = "*" if hub.revision in ("", "main") else hub.revision
    return f"{hub.repository}@{revision}{f':{hub.file}' if hub.file else ''}"


def _is_same(asked: str, source: str) -> bool:
    """Whether something was registered from what is asked for now."""
    if asked.startswith("civitai:"):
        return civitai.is_registered(asked, source)
    repository, is_any, file = asked.partition("@*")
    if is_any:
        return source.startswith(f"{repository}@") and (not file or source.endswith(file))
    return asked == source or (asked.startswith("/") and Path(asked).resolve() == Path(source).resolve())
