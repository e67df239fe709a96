"""AUTOMATIC1111's contract, through a client of it from the package index (webuiapi)."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import AsyncGenerator, Iterator
from urllib.parse import urlsplit

import pytest
import webuiapi
from craft_protos import jobs_pb2
from craft_protos.reasons import CraftError
from craftd.http.drawing import Order, wish_of
from craftd.http.routers.automatic1111 import _draw
from craftd.http.sessions import Session
from craftd.jobs.events import Event, Snapshot
from craftd.jobs.job import GenerateRequest, GenerateSpec, Job, JobView
from craftd.keys.caller import LOCAL
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.http.shim import LORA, Keys, Shim


@pytest.fixture
def api(shim: Shim, keys: Keys) -> Iterator[webuiapi.WebUIApi]:
    """With the key as Basic's password, as the server's own option has it."""
    at = urlsplit(shim.url)
    made = webuiapi.WebUIApi(host=at.hostname, port=at.port, steps=2, username="craft", password=keys.user)
    with made.session:
        yield made
    shim.post("/sdapi/v1/options", keys.user, sd_model_checkpoint="flat")


def test_pictures(shim: Shim, api: webuiapi.WebUIApi) -> None:
    """With all the fields that the client sends by itself."""
    made = api.txt2img(
        prompt=f"a red apple <lora:{LORA}:0.8>",
        negative_prompt="blurry",
        seed=7,
        cfg_scale=4,
        width=64,
        height=128,
        batch_size=2,
        n_iter=2,
        override_settings={"sd_model_checkpoint": "pocket", "CLIP_stop_at_last_layers": 1},
    )
    assert [picture.size for picture in made.images] == [(64, 128)] * 4
    assert made.info["all_seeds"] == [7, 8, 9, 10] and made.info["prompt"] == "a red apple"
    assert len(made.info["infotexts"]) == 4 and "Seed: 7" in made.info["infotexts"][0]
    spec = shim.newest().generate
    assert (spec.model, spec.sampler, spec.steps, spec.guidance_scale) == ("pocket", "Euler a", 2, 4)
    assert [(use.name, use.weight) for use in spec.loras] == [(LORA, 0.8)]


def test_lists(api: webuiapi.WebUIApi) -> None:
    assert "DPM++ 2M Karras" in api.util_get_sampler_names()
    assert api.util_get_scheduler_names() == ["automatic", "karras"]
    assert [one["model_name"] for one in api.get_sd_models()] == ["pocket", "flat"]
    (lora,) = api.get_loras()
    assert (lora["name"], lora["path"]) == (LORA, "hero.safetensors")
    api.refresh_checkpoints()


def test_models_are_chosen_by_title(shim: Shim, api: webuiapi.WebUIApi, capsys: pytest.CaptureFixture[str]) -> None:
    api.util_set_model("flat")
    assert api.util_get_current_model().startswith("flat")
    assert api.txt2img(prompt="x", width=64, height=64).info["sd_model_name"] == "flat"
    title = next(one["title"] for one in api.get_sd_models() if one["model_name"] == "flat")
    api.set_options({"sd_model_checkpoint": title})
    assert api.get_options()["sd_model_checkpoint"] == title
    other = shim.key("dora")
    assert not shim.call("GET", "/sdapi/v1/options", other).json()["sd_model_checkpoint"].startswith("pocket")
    assert shim.post("/sdapi/v1/options", other, sd_model_checkpoint="nothing").status_code == 404


def test_schedulers(shim: Shim, api: webuiapi.WebUIApi) -> None:
    api.txt2img(prompt="x", width=64, height=64, sampler_name="DPM++ 2M", scheduler="Karras")
    assert shim.newest().generate.sampler == "DPM++ 2M Karras"


def test_progress_and_interrupt(shim: Shim, keys: Keys, api: webuiapi.WebUIApi) -> None:
    idle = api.get_progress()
    assert (idle["progress"], idle["state"]["job_count"]) == (0, 0)
    answers: list[dict[str, object]] = []
    body = {"prompt": "[slow] x", "steps": 1000, "override_settings": {"sd_model_checkpoint": "flat"}}
    waiting = threading.Thread(target=lambda: answers.append(shim.post("/sdapi/v1/txt2img", keys.user, **body).json()))
    waiting.start()
    while not ((now := api.get_progress())["progress"] and now["current_image"]):
        continue
    assert 0 < now["progress"] < 1 and now["eta_relative"] > 0
    assert (now["state"]["job_count"], now["state"]["sampling_steps"]) == (1, 1000)
    assert Image.open(io.BytesIO(base64.b64decode(now["current_image"]))).format == "JPEG"
    assert shim.call("GET", "/sdapi/v1/progress", keys.other).json()["state"]["job_count"] == 0
    shim.call("POST", "/sdapi/v1/interrupt", keys.other)
    assert api.get_progress()["state"]["job_count"] == 1  # another's is not touched
    api.interrupt()
    waiting.join()
    assert [answer["images"] for answer in answers] == [[]] and api.get_progress()["state"]["job_count"] == 0
    assert shim.newest().state == jobs_pb2.JOB_STATE_CANCELLED


def test_an_interrupt_leaves_what_is_done(shim: Shim, keys: Keys, api: webuiapi.WebUIApi) -> None:
    answers: list[dict[str, object]] = []
    body = {"prompt": "[slow] x", "steps": 10, "batch_size": 50, "override_settings": {"sd_model_checkpoint": "flat"}}
    waiting = threading.Thread(target=lambda: answers.append(shim.post("/sdapi/v1/txt2img", keys.user, **body).json()))
    waiting.start()
    while not (job_id := api.get_progress()["state"]["job"]):
        continue
    for event in shim.jobs.WatchJob(jobs_pb2.WatchJobRequest(id=job_id)):
        if event.WhichOneof("event") == "image":
            break
    api.interrupt()
    waiting.join()
    (answer,) = answers
    job = shim.finish(job_id)
    assert job.state == jobs_pb2.JOB_STATE_CANCELLED
    assert len(answer["images"]) == len(job.images) >= 1  # type: ignore[arg-type]
    assert len(json.loads(str(answer["info"]))["all_seeds"]) == len(job.images)


class _Interrupted:
    """Stands for the services, where an interrupt comes before the job has an id."""

    def __init__(self, session: Session) -> None:
        spec = GenerateSpec("x", "", "flat", 64, 64, 2, 1.0, 1, 1, "Euler", "png", deterministic=False, indices=())
        self.view = JobView(Job("job", "alice", "request", "", spec, 0.0))
        self.session = session
        self.cancelled: list[str] = []
        self.jobs = self.drawing = self

    async def follow(self, _: object) -> AsyncGenerator[Event, None]:
        self.session.running[0].was_interrupted = True
        yield Snapshot(self.view)
        assert self.cancelled == ["job"]
        raise CraftError("CANCELLED", "the job was cancelled")

    async def cancel(self, _: object, job_id: str) -> None:
        self.cancelled.append(job_id)

    async def get(self, _: object, job_id: str) -> JobView:
        assert job_id == "job"
        return self.view


async def test_an_interrupt_that_comes_early_counts() -> None:
    session = Session()
    services = _Interrupted(session)
    order = Order(None, LOCAL, wish_of(None, None), GenerateRequest("x"))  # type: ignore[arg-type]
    assert await _draw(services, order, session) is services.view  # type: ignore[arg-type]
    assert services.cancelled == ["job"] and not session.running


def test_png_info(api: webuiapi.WebUIApi) -> None:
    """Of a picture of ours, of theirs, and of one without."""
    made = api.txt2img(prompt="a red apple", negative_prompt="blurry", seed=3, width=64, height=64)
    info = api.png_info(made.image).info
    assert info.startswith("a red apple\nNegative prompt: blurry\nSteps: 2, Sampler: Euler a") and "Seed: 3" in info
    notes = PngInfo()
    notes.add_text("parameters", "theirs\nSteps: 5, Seed: 1")
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "PNG", pnginfo=notes)
    answer = api.session.post(
        f"{api.baseurl}/png-info",
        json={"image": f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"},
    ).json()
    assert (answer["info"], answer["parameters"]) == ("theirs\nSteps: 5, Seed: 1", {"Steps": "5", "Seed": "1"})
    assert api.png_info(Image.new("RGB", (8, 8))).info == ""


def test_what_is_not_there(api: webuiapi.WebUIApi) -> None:
    with pytest.raises(RuntimeError) as caught:
        api.img2img(images=[Image.new("RGB", (8, 8))], prompt="x")
    assert caught.value.args[0] == 501 and "UNIMPLEMENTED" in caught.value.args[1]
    with pytest.raises(RuntimeError, match="enable_hr"):
        api.txt2img(prompt="x", enable_hr=True)


def test_ignored_fields_are_told(shim: Shim, keys: Keys) -> None:
    body = {"prompt": "x", "steps": 2, "hr_scale": 2, "s_noise": 1, "weird\nname": 1}
    answer = shim.post("/sdapi/v1/txt2img", keys.user, **body)
    assert answer.headers["x-craft-warning"] == "ignored: hr_scale, s_noise, weird?name"
