"""What `--plan` says: how a request would be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from craft_protos import rungs
from craft_protos.generate import GenerateRequest

from craft_cli.generate import controls, loras, output
from craft_cli.render import shapes, units

if TYPE_CHECKING:
    from craft_protos import jobs_pb2


def show(message: jobs_pb2.JobPlan, wanted: GenerateRequest, target: output.Target, as_json: bool) -> None:
    """On stdout, as a table or as JSON."""
    names = [output.STDOUT] if target.is_stdout else [target.pattern]
    if target.is_knowable and not target.is_stdout:
        names = [str(target.path(picture)) for picture in output.pictures(wanted)]
    known = shapes.plan(message, names)
    if wanted.seed is not None:
        known["seed"] = wanted.seed
    if as_json:
        output.print_json(known)
        return
    loading = "in memory" if not known["load_bytes"] else f"{known['load_bytes'] / 1e6:.0f} MB to load"
    output.print_table(
        ["plan", ""],
        [
            ["model", f"{known['model']} ({loading})"],
            *[["LoRA", _fitness(use)] for use in known["loras"]],
            ["unloaded first", ", ".join(known["evicted_models"]) or "none"],
            ["device", known["device"] or "not known yet"],
            ["memory", _memory(known)],
            *_time_rows(known),
            ["size", f"{known['width']}x{known['height']}{_around(known['mask'])}"],
            *_enlarged_rows(known),
            *_refiner_rows(known["refiner"]),
            *_start_rows(known),
            *_mask_rows(known["mask"]),
            *_shown_rows(known["references"]),
            *[["control", line] for line in controls.shown(known["controls"])],
            ["pictures", str(known["count"])],
            *_drawn_rows(known),
            ["jobs ahead", str(known["queue_position"])],
            ["files", ", ".join(names)],
        ],
    )


def show_each(plans: Sequence[dict[str, Any]]) -> None:
    """Several lines' plans, or those of a sweep, as a table at a terminal: a row each."""
    headers = ["line", "sweep", "model", "size", "steps", "guidance", "seed", "time", "files"]
    rows = [_row(one) for one in plans]
    used = [place for place in range(len(headers)) if any(row[place] for row in rows)]
    output.print_table([headers[place] for place in used], [[row[place] for place in used] for row in rows])


def _row(known: dict[str, Any]) -> list[str]:
    pace = known["pace"]
    return [
        str(known.get("line", "")),
        " ".join(f"{name} {value}" for name, value in known.get("sweep", {}).items()),
        known["model"],
        f"{known['result_width']}x{known['result_height']}",
        str(known["steps"]),
        f"{known['guidance_scale']:g}",
        str(known["seed"]),
        f"about {units.duration(pace['draw_s'])}" if pace else "",
        ", ".join(known["outputs"]),
    ]


def _drawn_rows(known: dict[str, Any]) -> list[list[str]]:
    """Nothing, where a picture is only enlarged."""
    if not known["steps"]:
        return []
    return [
        ["steps", f"{known['steps']} of {known['sampler']}"],
        ["guidance", f"{known['guidance_scale']:g}"],
        ["seed", str(known["seed"])],
    ]


def _refiner_rows(refiner: dict[str, Any] | None) -> list[list[str]]:
    return [["refiner", f"{refiner['model']}, after {refiner['switch']:g} of the steps"]] if refiner else []


def _enlarged_rows(known: dict[str, Any]) -> list[list[str]]:
    """Says how a picture is enlarged, before it is drawn again and at the end, and its size then."""
    hires, upscale, rows = known["hires"], known["upscale"], list[list[str]]()
    if hires is not None:
        how = f"by {hires['upscaler']}, and drawn again: {hires['steps']} steps at strength {hires['strength']:g}"
        rows.append(["hires", f"{hires['width']}x{hires['height']} {how}"])
    if upscale is not None:
        size = f"{known['result_width']}x{known['result_height']}"
        rows.append(["enlarged", f"{size}: {upscale['scale']:g} times, by {upscale['model']}"])
    return rows


def _time_rows(known: dict[str, Any]) -> list[list[str]]:
    """Nothing, where a picture is only enlarged."""
    return time_rows(known["pace"], "picture of this model") if known["steps"] else []


def time_rows(pace: dict[str, Any] | None, first: str) -> list[list[str]]:
    """Says how long a job takes, once its turn has come, by what others took; `first`: none did yet."""
    if pace is None:
        return [["time", f"not known before the first {first}"]]
    load = f" after {units.duration(pace['load_s'])} to load" if pace["load_s"] else ""
    return [["time", f"about {units.duration(pace['draw_s'])}{load}, by {units.counted(pace['jobs'], 'jobs')} here"]]


def _start_rows(known: dict[str, Any]) -> list[list[str]]:
    """Says how much of the start picture is drawn anew, and in how many steps."""
    start = known["start"]
    if start is None or not known["steps"]:
        return []
    return [["strength", f"{start['strength']:g}: {known['steps_done']} of {known['steps']} steps are done"]]


def _mask_rows(mask: dict[str, Any] | None) -> list[list[str]]:
    """Says what of the start picture is drawn anew."""
    if mask is None:
        return []
    grow, padding = mask["grow"], mask["padding"]
    how = [f"what is {'black' if mask['invert'] else 'white'} is drawn anew"]
    if grow:
        how.append(f"{'grown' if grow > 0 else 'shrunk'} by {abs(grow)} pixels")
    how.append(f"blurred over {mask['blur']:g} pixels" if mask["blur"] else "not blurred")
    how.append("in the whole picture" if padding is None else f"in the part around it and {padding} pixels more")
    return [["mask", ", ".join(how)]]


def _shown_rows(references: list[dict[str, Any]]) -> list[list[str]]:
    """Says how many pictures the model is shown."""
    count = len(references)
    return [["shown", f"{count} pictures, in their order" if count > 1 else "a picture"]] if count else []


def _around(mask: dict[str, Any] | None) -> str:
    """Says where a mask's padding has only a part drawn, and the picture keep its size."""
    return " of the part around the mask" if mask and mask["padding"] is not None else ""


def _memory(known: dict[str, Any]) -> str:
    """Says how many bytes of the device's memory the model's weights will hold, and on which rung of offload."""
    if known["need_bytes"] is None:
        return "not known yet"
    told = f"{units.size(known['need_bytes'])} of {units.size(known['device_bytes'])}"
    return told if known["offload"] == rungs.NONE else f"{told}: {rungs.MEANINGS[known['offload']]}"


def _fitness(use: dict[str, Any]) -> str:
    how = f"does not fit: {use['why_not']}"
    if use["fits"]:
        how = loras.fitness(use) if "total" in use else "fits, as far as is known before it is drawn"
    return f"{use['name']}:{use['weight']:g} ({how})"
