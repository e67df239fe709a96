"""What came of a pull or of a file that was added: a model, a part, or a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from craft_cli import errors
from craft_cli.generate import output
from craft_cli.render import units

if TYPE_CHECKING:
    from craft_protos import models_pb2


def tell(event: models_pb2.ImportModelEvent, asked_name: str, precision: str, *, as_json: bool) -> None:
    """`asked_name`, `precision`: what the user has asked for, "" where nothing."""
    from craft_cli.render import shapes

    if event.HasField("model"):
        if asked_name and asked_name not in (event.model.name, *event.model.aliases):
            here = f"it is here already, as {event.model.name}; another name for it"
            errors.say(errors.one_line(f"craft: {here}: craft models alias {asked_name} {event.model.name}"))
        output.print_json(shapes.model(event.model)) if as_json else output.line(event.model.name)
        used = ", ".join(f"{one.part} as its {one.component}" for one in event.model.parts)
        if used:
            errors.remark(errors.one_line(f"craft: {event.model.name} draws with {used}"))
        return
    if event.HasField("part"):
        output.print_json(shapes.part(event.part)) if as_json else output.line(event.part.name)
        errors.remark(errors.one_line(f"craft: {event.part.name} is {event.part.description}, a part for other models"))
        return
    if event.HasField("plan"):
        _tell_plan(event.plan, precision, as_json=as_json)
        return
    planned = event.progress
    if as_json:
        output.print_json({"plan": planned.doing, "download_bytes": planned.bytes_total})
    else:
        output.line(f"{errors.one_line(planned.doing)}, {units.size(planned.bytes_total)} to download")


def _tell_plan(plan: models_pb2.PullPlan, precision: str, *, as_json: bool) -> None:
    from craft_cli.registering import plans

    if as_json:
        output.print_json(plans.shape(plan))
        return
    output.line(errors.one_line(plans.headline(plan)))
    output.print_table(["", ""], plans.rows(plan, precision))
