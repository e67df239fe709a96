"""The daemon itself as `--json` has it: its status, workers, bot and disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from craft_cli.render.shapes import moment

if TYPE_CHECKING:
    from craft_protos import daemon_pb2


def status(message: daemon_pb2.DaemonStatus) -> dict[str, Any]:
    """`daemon status --json`."""
    return {
        "pid": message.pid,
        "version": message.version,
        "address": message.address,
        "http": message.http or None,
        "workers": [worker(one) for one in message.workers],
        "queue": {"queued": message.queued, "running": message.running},
        "listen": message.listen or None,
        "worker_listen": message.worker_listen or None,
        "draining": message.draining,
        "start_time": moment(message.start_time),
        "rss_bytes": message.rss_bytes,
        "warnings": list(message.warnings),
        "bot": bot(message.bot) if message.HasField("bot") else None,
    }


def bot(message: daemon_pb2.BotStatus) -> dict[str, Any]:
    from craft_protos import daemon_pb2

    return {
        "state": daemon_pb2.BotState.Name(message.state).removeprefix("BOT_STATE_").lower(),
        "pid": message.pid or None,
        "username": message.username or None,
        "restarts": message.restarts,
        "problem": message.problem,
        "updates": message.updates,
        "api_errors": message.api_errors,
        "waiting": message.waiting,
    }


def worker(message: daemon_pb2.WorkerStatus) -> dict[str, Any]:
    from craft_protos import daemon_pb2

    return {
        "pid": message.pid,
        "device": message.device,
        "state": daemon_pb2.WorkerState.Name(message.state).removeprefix("WORKER_STATE_").lower(),
        "models": list(message.models),
        "rss_bytes": message.rss_bytes,
        "device_bytes": message.device_bytes,
        "restarts": message.restarts,
        "predict_calls": message.predict_calls,
        "name": message.name,
        "rows": message.rows,
        "capacity_rows": message.capacity_rows,
        "drained": message.drained,
        "remote": message.remote,
        "address": message.address,
    }


def disk_usage(message: daemon_pb2.DiskUsage) -> dict[str, Any]:
    """`craft df --json`."""
    held = [
        {"what": one.what, "count": one.count, "bytes": one.bytes, "rule": one.rule, "place": one.place}
        for one in message.held
    ]
    return {"held": held, "free_bytes": message.free_bytes, "total_bytes": message.total_bytes}
