"""The JSON that users' programs rely on, built in one place. Fields may join; none changes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from craft_protos import images_pb2, jobs_pb2, keys_pb2, loras_pb2, models_pb2, training_pb2
    from google.protobuf.timestamp_pb2 import Timestamp


def generated(job: jobs_pb2.Job, image: images_pb2.Image, path: str | None) -> dict[str, Any]:
    """`generate --json`: one finished image; `path` is None when its bytes went to stdout."""
    timings = job.timings
    committed = _seconds(image.create_time) - _seconds(job.create_time)
    return {
        "job": job.id,
        "image": image.id,
        "index": image.index,
        "path": path,
        "seed": image.seed,
        "sha256": image.sha256,
        "model": image.model or job.generate.model,
        "loras": [applied_lora(use) for use in image.loras] or [lora_use(use) for use in job.generate.loras],
        "width": image.width,
        "height": image.height,
        "timings": {
            "queued_s": round(timings.queued_s, 6),
            "load_s": round(timings.load_s, 6),
            "denoise_s": round(timings.denoise_s, 6),
            "total_s": round(committed if committed > 0 else timings.total_s, 6),
        },
    }


def state_of(number: jobs_pb2.JobState.ValueType) -> str:
    from craft_protos import jobs_pb2

    return jobs_pb2.JobState.Name(number).removeprefix("JOB_STATE_")


def job(message: jobs_pb2.Job) -> dict[str, Any]:
    """`jobs show --json`."""
    from craft_protos import jobs_pb2

    error = {"reason": message.error.reason, "message": message.error.message, "hint": message.error.hint}
    return {
        "id": message.id,
        "state": state_of(message.state),
        "attempts": message.attempts,
        "images": [
            {"id": image.id, "index": image.index, "seed": image.seed, "sha256": image.sha256}
            for image in message.images
        ],
        "error": error if message.error.reason else None,
        "kind": message.WhichOneof("spec") or "generate",
        "generate": spec(message.generate) if message.HasField("generate") else None,
        "train": train(message.train) if message.HasField("train") else None,
        "lora": message.lora or None,
        "owner": message.owner,
        "position": message.position,
        "why_waiting": message.why_waiting,
        "worker": message.worker,
        "placed": message.placed,
        "priority": "batch" if message.priority == jobs_pb2.PRIORITY_BATCH else "interactive",
        "create_time": moment(message.create_time),
        "start_time": moment(message.start_time),
        "finish_time": moment(message.finish_time),
        "timings": {
            "queued_s": round(message.timings.queued_s, 6),
            "load_s": round(message.timings.load_s, 6),
            "denoise_s": round(message.timings.denoise_s, 6),
            "total_s": round(message.timings.total_s, 6),
        },
    }


def spec(generate: jobs_pb2.GenerateSpec) -> dict[str, Any]:
    """GenerateSpec under its own names."""
    from craft_protos.codec import from_message
    from craft_protos.generate import GenerateSpec, public_json

    return public_json(from_message(GenerateSpec, generate))


def train(one: training_pb2.TrainSpec) -> dict[str, Any]:
    """TrainSpec under its own names."""
    told = {field.name: (getattr(one, field.name), field.is_repeated) for field in one.DESCRIPTOR.fields}
    plain = {name: list(value) if is_list else value for name, (value, is_list) in told.items()}
    return plain | {"resume": one.resume or None}


def train_plan(message: jobs_pb2.JobPlan) -> dict[str, Any]:
    """`lora train --plan --json`."""
    return {
        **train(message.train),
        "model_loaded": message.model_loaded,
        "load_bytes": message.load_bytes,
        "queue_position": message.queue_position,
        "device": message.device or None,
        "need_bytes": message.need_bytes or None,
        "device_bytes": message.device_bytes or None,
        "pace": _pace(message) if message.HasField("pace") else None,
        "lora_bytes": message.lora_bytes or None,
        "notes": list(message.notes),
    }


def training_step(step: training_pb2.TrainingStep) -> dict[str, Any]:
    told: dict[str, Any] = {"step": step.step, "of": step.of, "loss": step.loss, "learning_rate": step.learning_rate}
    return told | ({"validation_loss": step.validation_loss} if step.HasField("validation_loss") else {})


def training_sample(sample: training_pb2.TrainingSample) -> dict[str, Any]:
    return {"step": sample.step, "prompt": sample.prompt, "seed": sample.seed}


def event(one: jobs_pb2.JobEvent) -> dict[str, Any]:
    """{"event": kind, ...}: a line of `jobs watch --json`, and of `lora train --json`."""
    kind = one.WhichOneof("event") or ""
    told: dict[str, Any] = {"event": kind}
    if kind == "snapshot":
        told["job"] = job(one.snapshot)
    elif kind == "finished":
        told["job"] = job(one.finished.job)
    elif kind == "image":
        told["image"] = image(one.image)
    elif kind == "step":
        told |= {"index": one.step.index, "step": one.step.step, "of": one.step.of}
    elif kind == "loading":
        told |= {
            "model": one.loading.model,
            "bytes_done": one.loading.bytes_done,
            "bytes_total": one.loading.bytes_total,
        }
    elif kind == "started":
        told |= {"attempt": one.started.attempt, "device": one.started.device}
    elif kind == "queued":
        told |= {"position": one.queued.position, "why": one.queued.why}
    elif kind == "preparing":
        told |= {"what": one.preparing.what, "done": one.preparing.done, "of": one.preparing.of}
    elif kind == "training":
        told |= training_step(one.training) | {"seconds_left": one.training.seconds_left}
    elif kind == "sample":
        told |= training_sample(one.sample)
    return told


def lora_use(use: jobs_pb2.LoraUse) -> dict[str, Any]:
    """A LoRA of a job."""
    from craft_protos.codec import from_message
    from craft_protos.lora import LoraRef

    details = from_message(LoraRef, use).details
    return {"id": use.lora, "name": use.name, "sha256": use.sha256, "weight": use.weight, **details}


def applied_lora(one: images_pb2.AppliedLora) -> dict[str, Any]:
    """A LoRA of a picture: of its file's `total` tensors `matched` were applied, where that is known."""
    counted = {"matched": one.matched, "total": one.total} if one.total else {}
    return {"id": one.lora, "name": one.name, "sha256": one.sha256, "weight": one.weight, **counted}


def plan(message: jobs_pb2.JobPlan, outputs: list[str]) -> dict[str, Any]:
    """`generate --plan --json`."""
    from craft_protos.codec import from_message
    from craft_protos.generate import GenerateSpec, steps_of

    resolved = from_message(GenerateSpec, message.generate)
    return {
        **spec(message.generate),
        **({"steps_done": steps_of(resolved.steps, resolved.start)} if resolved.start else {}),
        "model_loaded": message.model_loaded,
        "load_bytes": message.load_bytes,
        "evicted_models": list(message.evicted_models),
        "queue_position": message.queue_position,
        "device": message.device or None,
        "need_bytes": message.need_bytes or None,
        "device_bytes": message.device_bytes or None,
        "offload": message.offload or None,
        "pace": _pace(message) if message.HasField("pace") else None,
        "loras": [lora_plan(one) for one in message.loras],
        "result_width": message.result_width,
        "result_height": message.result_height,
        "outputs": outputs,
    }


def _pace(message: jobs_pb2.JobPlan) -> dict[str, Any]:
    """Seconds to draw, and before that to load what is not in memory."""
    load_s = 0.0 if message.model_loaded else message.pace.load_s
    return {"draw_s": round(message.pace.draw_s, 3), "load_s": round(load_s, 3), "jobs": message.pace.jobs}


def lora_plan(one: jobs_pb2.LoraPlan) -> dict[str, Any]:
    counted = {"matched": one.matched, "total": one.total} if one.total else {}
    return {**lora_use(one.use), "fits": one.fits, "why_not": one.why_not or None, **counted}


def image(message: images_pb2.Image) -> dict[str, Any]:
    """`images show --json`."""
    return {
        "id": message.id,
        "job": message.job_id,
        "index": message.index,
        "seed": message.seed,
        "sha256": message.sha256,
        "media_type": message.media_type,
        "width": message.width,
        "height": message.height,
        "size_bytes": message.size_bytes,
        "create_time": moment(message.create_time),
        "model": message.model,
        "prompt": message.prompt,
        "provenance": _parsed(message.provenance),
    }


def model(message: models_pb2.Model) -> dict[str, Any]:
    """`models show --json`."""
    defaults = message.defaults
    return {
        "name": message.name,
        "family": message.family,
        "pipeline": message.pipeline,
        "size_bytes": message.size_bytes,
        "sha256": message.sha256,
        "precision": message.precision,
        "memory_precision": message.memory_precision or None,
        "built_in": message.built_in,
        "loaded_on": list(message.loaded_on),
        "defaults": {
            "width": defaults.width,
            "height": defaults.height,
            "steps": defaults.steps,
            "guidance_scale": defaults.guidance_scale,
            "sampler": defaults.sampler,
        },
        "refused": message.refused or None,
        "aliases": list(message.aliases),
        "source": message.source,
        "loras": list(message.loras),
        "architecture": message.architecture,
        "prediction": message.prediction or None,
        "prediction_evidence": message.prediction_evidence or None,
        "granularity": message.granularity,
        "largest_side": message.largest_side or None,
        "parts": {used.component: used.part for used in message.parts},
    }


def part(message: models_pb2.Part) -> dict[str, Any]:
    """`models list --parts --json`, one of them."""
    return {
        "name": message.name,
        "kind": message.kind,
        "description": message.description,
        "size_bytes": message.size_bytes,
        "sha256": message.sha256,
        "source": message.source,
        "used_by": list(message.used_by),
    }


def lora(message: loras_pb2.Lora) -> dict[str, Any]:
    """`lora list --json`, one of them."""
    return {
        "id": message.id,
        "name": message.name,
        "base": message.base,
        "rank": message.rank,
        "weight": message.weight,
        "trigger": message.trigger,
        "sha256": message.sha256,
        "owner": message.owner or None,
        "shared": message.shared,
        **({"fits": [lora_fit(one) for one in message.fits]} if message.fits else {}),
    }


def lora_fit(one: loras_pb2.LoraFit) -> dict[str, Any]:
    """How a LoRA fits a model; `matched` and `total` are null where only the architectures could be compared."""
    known = one.total > 0
    return {
        "model": one.model,
        "fits": one.fits,
        "matched": one.matched if known else None,
        "total": one.total if known else None,
        "layers": dict(one.layers),
        "why_not": one.why_not or None,
    }


def whole_lora(message: loras_pb2.Lora) -> dict[str, Any]:
    """`lora show --json`."""
    return {
        **lora(message),
        "format": message.format,
        "layers": message.layers,
        "adapts_text_encoder": message.adapts_text_encoder,
        "has_conv": message.has_conv,
        "is_dora": message.is_dora,
        "autov2": message.autov2,
        "ss_hash": message.ss_hash,
        "file_name": message.file_name,
        "size_bytes": message.size_bytes,
        "source": message.source,
        "create_time": moment(message.create_time),
        "metadata": dict(message.metadata),
        "fits": [lora_fit(one) for one in message.fits],
        "notes": list(message.notes),
    }


def key(message: keys_pb2.Key) -> dict[str, Any]:
    """`keys list --json`, one of them."""
    from craft_protos import keys_pb2

    return {
        "id": message.id,
        "owner": message.owner,
        "role": keys_pb2.KeyRole.Name(message.role).removeprefix("KEY_ROLE_").lower(),
        "state": keys_pb2.KeyState.Name(message.state).removeprefix("KEY_STATE_").lower(),
        "tier": message.tier,
        "create_time": moment(message.create_time),
        "last_used_time": moment(message.last_used_time),
        "lapsed": message.lapsed,
    }


def moment(time: Timestamp) -> str | None:
    """RFC 3339 in UTC, or None where it has not been."""
    return time.ToJsonString() if time.seconds else None


def _seconds(time: Timestamp) -> float:
    return time.seconds + time.nanos / 1e9


def _parsed(text: str) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError:
        return None
