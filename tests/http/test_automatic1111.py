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
from craft_protos.generate import GenerateRequest, GenerateSpec
from craft_protos.reasons import CraftError
from craftd.http.drawing import Order, wish_of
from craftd.http.forms.automatic1111 import Txt2ImgRequest
from craftd.http.routers.automatic1111 import _draw
from craftd.http.sessions import Session
from craftd.jobs.events import Event, Snapshot
from craftd.jobs.job import Job, JobView
from craftd.keys.caller import LOCAL
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from tests.home import until
from tests.http.shim import LORA, Keys, Shim, told


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
    named = {"karras", "exponential", "polyexponential", "sgm_uniform", "kl_optimal", "align_your_steps", "simple"}
    assert {"automatic", "uniform", "normal", "ddim", "beta", "turbo", *named} == set(api.util_get_scheduler_names())
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


@pytest.mark.parametrize(
    ("sampler", "scheduler", "drawn"),
    [
        ("DPM++ 2M", "Karras", "DPM++ 2M Karras"),
        ("Euler a", "Karras", "Euler a Karras"),
        ("Euler a", "Automatic", "Euler a"),
        ("DPM++ 3M SDE", "exponential", "DPM++ 3M SDE Exponential"),
        ("Heun", "sgm_uniform", "Heun SGM Uniform"),
        ("Euler", "Simple", "Euler Simple"),
        ("DDIM", "normal", "DDIM Normal"),
        ("UniPC", "Beta", "UniPC Beta"),
        ("DPM++ 2M Karras", "Exponential", "DPM++ 2M Karras"),  # the name's own counts, as in AUTOMATIC1111
        ("k_euler_a", "Karras", "Euler a Karras"),
        (None, "Karras", "Euler Karras"),
        ("DPM++ 2S a", "Polyexponential", "DPM++ 2S a Exponential"),
        ("Restart", "align_your_steps", "Restart Align Your Steps"),
        ("DPM adaptive", "Automatic", "DPM adaptive"),
    ],
)
def test_schedulers(shim: Shim, keys: Keys, sampler: str | None, scheduler: str, drawn: str) -> None:
    body = {"prompt": "x", "steps": 2, "sampler_name": sampler, "scheduler": scheduler}
    answer = shim.post("/sdapi/v1/txt2img", keys.user, **body, override_settings={"sd_model_checkpoint": "flat"})
    assert answer.status_code == 200, answer.text
    assert shim.newest().generate.sampler == json.loads(answer.json()["info"])["sampler_name"] == drawn


@pytest.mark.parametrize(
    ("pair", "field", "why"),
    [
        (("DDIM", "Karras"), "scheduler", "DDIM has no Karras schedule"),
        (("Euler", "Linear Quadratic"), "scheduler", "'Linear Quadratic' is not in craft"),
        (("DPM fast", "Karras"), "scheduler", "DPM fast has no Karras schedule"),
        (("seeds_2", "Karras"), "sampler_name", "no sampler is called 'seeds_2'"),
    ],
)
def test_what_is_not_drawn_is_refused_by_name(
    shim: Shim, keys: Keys, pair: tuple[str, str], field: str, why: str
) -> None:
    answer = shim.post("/sdapi/v1/txt2img", keys.user, prompt="x", sampler_name=pair[0], scheduler=pair[1])
    assert told(answer) == (422, "INVALID_FIELD", field) and why in answer.json()["detail"]


EMPTY = (
    *("latent-upscale-modes", "sd-vae", "sd-modules", "hypernetworks", "face-restorers"),
    *("realesrgan-models", "prompt-styles", "script-info", "extensions"),
)


def test_what_a_client_asks_first(shim: Shim, keys: Keys, api: webuiapi.WebUIApi) -> None:
    """Empty lists in AUTOMATIC1111's shapes, for what craft has not."""

    def ask(path: str) -> object:
        answer = shim.call("GET", path, keys.user)
        assert answer.status_code == 200, path
        return answer.json()

    assert [ask(f"/sdapi/v1/{name}") for name in EMPTY] == [[]] * len(EMPTY)
    assert ask("/sdapi/v1/embeddings") == {"loaded": {}, "skipped": {}}
    assert (
        ask("/sdapi/v1/scripts") == {"txt2img": ["controlnet"], "img2img": ["controlnet"]}
        and ask("/internal/ping") == {}
    )
    assert ask("/sdapi/v1/cmd-flags") == {"api": True, "listen": "127.0.0.1", "port": 0}
    assert set(ask("/config")) >= {"version", "components", "dependencies"}  # type: ignore[call-overload]
    ram = ask("/sdapi/v1/memory")["ram"]  # type: ignore[index]
    assert 10 << 20 < ram["used"] < ram["total"] and ram["free"] + ram["used"] == ram["total"]
    assert api.get_face_restorers() == api.get_hypernetworks() == api.get_prompt_styles() == []
    assert api.get_scripts() == {"txt2img": ["controlnet"], "img2img": ["controlnet"]}
    for path in ("refresh-vae", "refresh-embeddings"):
        assert shim.call("POST", f"/sdapi/v1/{path}", keys.user).json() == {}


def test_nulls_are_what_was_left_out(shim: Shim, keys: Keys) -> None:
    fields = Txt2ImgRequest.model_fields.keys() - {"prompt", "steps", "token", "override_settings"}
    body = {"prompt": "x", "steps": 2, **dict.fromkeys(fields), "override_settings": {"sd_model_checkpoint": None}}
    answer = shim.post("/sdapi/v1/txt2img", keys.user, **body, whatever=None)
    assert answer.status_code == 200 and len(answer.json()["images"]) == 1, answer.text
    assert "x-craft-warning" not in answer.headers
    assert shim.post("/sdapi/v1/txt2img", keys.user, prompt="x", steps=2, override_settings=None).status_code == 200
    assert told(shim.post("/sdapi/v1/png-info", keys.user, image=None)) == (422, "INVALID_FIELD", "image")


def test_seeds_that_are_made_fit_their_programs(shim: Shim, keys: Keys) -> None:
    """Of 32 bits, each picture's; the same call again, under its key, is the same one."""
    calls = [shim.post("/sdapi/v1/txt2img", keys.user, prompt="x", steps=2, batch_size=3) for _ in range(4)]
    seeds = [json.loads(call.json()["info"])["all_seeds"] for call in calls]
    assert all(0 <= first < 2**32 - 2 and rest == [first + 1, first + 2] for first, *rest in seeds)
    assert len({first for first, *_ in seeds}) == 4
    body, headers = {"prompt": "x", "steps": 2, "seed": -1}, {"Idempotency-Key": "seeds"}
    again = [shim.call("POST", "/sdapi/v1/txt2img", keys.user, json=body, headers=headers) for _ in range(2)]
    assert again[0].status_code == 200 and again[0].json()["images"] == again[1].json()["images"]


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("a [red:blue:0.5] car", ""),
        ("a [car:10] and [dog::3]", ""),
        ("a {red|blue} car, __colour__", "{red|blue}, __colour__"),
        ("a [cow|horse] BREAK <hypernet:x:1>", "<hypernet:x:1>"),
        ("a (red:1.3) [car], a_b__c, and \\[a:b:0.5], {x}", ""),
    ],
)
def test_syntax_that_is_drawn_as_words_is_told(shim: Shim, keys: Keys, prompt: str, words: str) -> None:
    for field in ("prompt", "negative_prompt"):
        body = {"prompt": "x", "steps": 2, field: prompt, "eta": 2}
        answer = shim.post("/sdapi/v1/txt2img", keys.user, **body)
        told_words = f"; drawn as words: {words}" if words else ""
        assert answer.headers["x-craft-warning"] == f"ignored: eta{told_words}"


def test_progress_and_interrupt(shim: Shim, keys: Keys, api: webuiapi.WebUIApi) -> None:
    idle = api.get_progress()
    assert (idle["progress"], idle["state"]["job_count"]) == (0, 0)
    answers: list[dict[str, object]] = []
    body = {"prompt": "[slow] x", "steps": 1000, "override_settings": {"sd_model_checkpoint": "flat"}}
    waiting = threading.Thread(target=lambda: answers.append(shim.post("/sdapi/v1/txt2img", keys.user, **body).json()))
    waiting.start()
    now = until(lambda: (now := api.get_progress())["progress"] and now["current_image"] and now, "a picture is shown")
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
    body = {"prompt": "[slow] x", "steps": 60, "batch_size": 50, "override_settings": {"sd_model_checkpoint": "flat"}}
    waiting = threading.Thread(target=lambda: answers.append(shim.post("/sdapi/v1/txt2img", keys.user, **body).json()))
    waiting.start()
    job_id = until(lambda: api.get_progress()["state"]["job"], "the job is told")
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


def test_base64_as_it_is_written(shim: Shim, keys: Keys) -> None:
    """In lines of 76, unpadded, with a data URL's head."""
    stream = io.BytesIO()
    Image.new("RGB", (9, 7)).save(stream, "PNG")
    data = stream.getvalue()
    data += b"\0" * (1 - len(data) % 3)  # so that there is padding
    whole, in_lines = base64.b64encode(data).decode(), base64.encodebytes(data).decode()
    assert whole.endswith("=") and "\n" in in_lines.strip()
    for image in (
        whole,
        in_lines,
        in_lines.replace("\n", "\r\n"),
        whole.rstrip("="),
        f"data:image/png;base64,{in_lines}",
    ):
        assert shim.post("/sdapi/v1/png-info", keys.user, image=image).status_code == 200


@pytest.mark.parametrize("encoding", ["utf-16-be", "utf-16-le", "utf-16"])
@pytest.mark.parametrize("prompt", ["a red apple", "красное яблоко", "赤い林檎"])
def test_comments_in_either_order(shim: Shim, keys: Keys, encoding: str, prompt: str) -> None:
    """As piexif writes them, and as others do."""
    text = f"{prompt}\nSteps: 5, Sampler: Euler, Seed: 1"
    exif, stream = Image.Exif(), io.BytesIO()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"UNICODE\0" + text.encode(encoding)
    Image.new("RGB", (8, 8)).save(stream, "JPEG", exif=exif)
    image = base64.b64encode(stream.getvalue()).decode()
    answer = shim.post("/sdapi/v1/png-info", keys.user, image=image).json()
    assert answer["info"] == text and answer["parameters"]["Seed"] == "1"


def test_null_is_how_clients_leave_a_field_out(shim: Shim, keys: Keys) -> None:
    fields = {name: None for name in Txt2ImgRequest.model_fields if name not in ("prompt", "token")}
    body = fields | {"prompt": "x", "steps": 2, "width": 64, "height": 64, "nobody_knows": None}
    answer = shim.post("/sdapi/v1/txt2img", keys.user, **body)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["images"]) == 1


@pytest.mark.parametrize("encoding", ["utf-16-be", "utf-16-le", "utf-16"])
def test_png_info_of_a_comment_in_either_byte_order(shim: Shim, keys: Keys, encoding: str) -> None:
    text = 'a café\nSteps: 5, Lora hashes: "a: 12, b: 34", Seed: 1'
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + text.encode(encoding)
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "JPEG", exif=exif)
    answer = shim.post("/sdapi/v1/png-info", keys.user, image=base64.b64encode(stream.getvalue()).decode()).json()
    assert answer["info"] == text
    assert answer["parameters"] == {"Steps": "5", "Lora hashes": "a: 12, b: 34", "Seed": "1"}


def test_what_is_not_there(api: webuiapi.WebUIApi) -> None:
    with pytest.raises(RuntimeError, match="tiling"):
        api.txt2img(prompt="x", tiling=True)


def test_ignored_fields_are_told(shim: Shim, keys: Keys) -> None:
    body = {"prompt": "x", "steps": 2, "eta": 2, "s_noise": 1, "weird\nname": 1}
    answer = shim.post("/sdapi/v1/txt2img", keys.user, **body)
    assert answer.headers["x-craft-warning"] == "ignored: eta, s_noise, weird?name"
