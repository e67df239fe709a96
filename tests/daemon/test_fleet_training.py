"""A training on another machine: its pictures and its checkpoint go there, checkpoints and the LoRA come back."""

from __future__ import annotations

from collections.abc import Callable

from craft_protos import daemon_pb2, jobs_pb2, loras_pb2

from tests.daemon import trains
from tests.daemon.harness import running
from tests.home import Home


async def test_it_is_the_same_there_and_goes_on_after_its_process_was_killed(make_home: Callable[..., Home]) -> None:
    there = make_home("")
    async with running(make_home(CRAFT_WORKER_DEVICE="cpu", CRAFT_WORKER_LISTEN="127.0.0.1:0")) as daemon:
        here = await daemon.finish((await trains.train(daemon, name="here", trigger="sks")).id)
        told = await daemon.daemon.InviteWorker(daemon_pb2.InviteWorkerRequest(name="box-2"))
        command = ["worker", "join", told.address, "--ca", told.fingerprint]
        there.start(*command, env=there.env | {"CRAFT_JOIN_TOKEN": told.token})
        await daemon.logged("worker connected")
        await daemon.daemon.DrainWorker(daemon_pb2.DrainWorkerRequest(name="cpu"))
        away = await daemon.finish((await trains.train(daemon, name="away", trigger="sks [crash once]")).id)
        assert away.state == here.state == jobs_pb2.JOB_STATE_SUCCEEDED, away.error
        lora = await daemon.loras.GetLora(loras_pb2.GetLoraRequest(lora="away"))
        assert lora.id == away.lora and lora.preview.startswith(b"\x89PNG")
        first, second = await trains.log(daemon, here.id), await trains.log(daemon, away.id)
        assert [(s.step, s.loss) for s in first.steps] == [(s.step, s.loss) for s in second.steps]
        (remote,) = [one for one in (await daemon.status()).workers if one.name == "box-2"]
        assert remote.restarts == 1 and remote.remote and remote.address == "127.0.0.1"
