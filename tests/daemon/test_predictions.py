"""What a checkpoint predicts: evidence in its order, said to the user, and what the user says over it."""

from __future__ import annotations

import json
from pathlib import Path

import grpc
import pytest
from craft_protos import models_pb2 as pb
from craft_protos.reasons import CraftError
from craftd.architectures.architecture import FLOW, NOISE, VELOCITY
from craftd.models import checkpoint, folder, prediction, schedulers
from craftd.models.prediction import Prediction

from tests import tiny_models
from tests.daemon.harness import Daemon, field, reason
from tests.daemon.safetensors import KINDS, write_checkpoint

_ZERO_SNR = {**KINDS["sdxl-vpred"], "ztsnr": (0,)}


def _told(tmp_path: Path, kind: str, name: str, notes: dict[str, str] | None = None, said: str = "") -> Prediction:
    path = write_checkpoint(tmp_path / f"{name}.safetensors", kind, metadata=notes or {})
    found = checkpoint.read(path, name="it", said=said).prediction
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("kind", "name", "kind_told", "why"),
    [
        ("sd2", "robot-12000steps", VELOCITY, "usual of Stable Diffusion 2"),
        ("sd2", "sd21-database-style", VELOCITY, "usual of Stable Diffusion 2"),
        ("sd2", "turbocharged", VELOCITY, "usual of Stable Diffusion 2"),
        ("sd2", "deepsea", VELOCITY, "usual of Stable Diffusion 2"),
        ("sd2", "model5120", VELOCITY, "usual of Stable Diffusion 2"),
        ("sd2", "v2-1_512-ema-pruned", NOISE, "the word 512"),
        ("sd2", "512-base-ema", NOISE, "the word 512"),
        ("sd2", "sd_turbo", NOISE, "the word turbo"),
        ("sd2", "v2-1_768-v-ema-pruned", VELOCITY, "the word 768-v"),
        ("sd2", "768v-base", VELOCITY, "the word 768-v"),
        ("sdxl", "NoobAI-XL-Vpred-v1.0", VELOCITY, "the word vpred"),
        ("sdxl", "noobaiXLNAIXL_vPred10Version", VELOCITY, "the word vpred"),
        ("sdxl", "aModel_superV_pred", VELOCITY, "the word v-pred"),
        ("sdxl", "merge_v_prediction", VELOCITY, "the word v-prediction"),
        ("sdxl", "marvpredator", NOISE, "usual of Stable Diffusion XL"),
        ("sdxl", "styleV_predator", NOISE, "usual of Stable Diffusion XL"),
        ("sd1", "easyfluff-vpred", VELOCITY, "the word vpred"),
        ("sd1", "dream", NOISE, "usual of Stable Diffusion 1"),
    ],
)
def test_whole_words_of_names(tmp_path: Path, kind: str, name: str, kind_told: str, why: str) -> None:
    told = _told(tmp_path, kind, name)
    assert told.kind == kind_told and why in told.why


@pytest.mark.parametrize(
    ("notes", "kind"),
    [
        ({"modelspec.prediction_type": "v"}, VELOCITY),
        ({"modelspec.prediction_type": "V "}, VELOCITY),
        ({"modelspec.predict_key": "v"}, VELOCITY),
        ({"modelspec.predict_key": "epsilon"}, NOISE),
        ({"ss_v_parameterization": "True"}, VELOCITY),
        ({"modelspec.prediction_type": "epsilon", "modelspec.predict_key": "v"}, NOISE),
        ({"modelspec.prediction_type": "very", "modelspec.predict_key": "v"}, VELOCITY),
        ({"modelspec.architecture": "stable-diffusion-v2-768-v"}, VELOCITY),
        ({"modelspec.architecture": "stable-diffusion-xl-v1-base"}, NOISE),
    ],
)
def test_notes_count_with_exactly_their_values(tmp_path: Path, notes: dict[str, str], kind: str) -> None:
    told = _told(tmp_path, "sdxl", "xl", notes)
    assert told.kind == kind
    if "usual" not in told.why:
        assert "its note" in told.why


def test_a_note_neither_hides_a_name_nor_yields_to_it(tmp_path: Path) -> None:
    assert _told(tmp_path, "sdxl", "xl-vpred", {"modelspec.resolution": "1024x1024"}).kind == VELOCITY
    assert _told(tmp_path, "sdxl", "xl-vpred", {"modelspec.prediction_type": "epsilon"}).kind == NOISE


def test_marks_go_before_notes_and_the_user_before_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "sdxl-ztsnr", _ZERO_SNR)
    notes = {"modelspec.prediction_type": "epsilon"}
    told = _told(tmp_path, "sdxl-vpred", "xl", notes)
    assert (told.kind, told.has_zero_snr, told.why) == (VELOCITY, False, "its mark v_pred")
    told = _told(tmp_path, "sdxl-ztsnr", "xl2", notes)
    assert (told.kind, told.has_zero_snr, told.why) == (VELOCITY, True, "its mark v_pred and ztsnr")
    told = _told(tmp_path, "sdxl-ztsnr", "xl3", notes, said="epsilon")
    assert (told.kind, told.has_zero_snr) == (NOISE, False) and "epsilon was said" in told.why
    assert _told(tmp_path, "sd2", "x", said="epsilon").kind == NOISE


def _scheduler(model_path: Path, tmp_path: Path, said: str = "") -> dict[str, object]:
    model = schedulers.configured(checkpoint.read(model_path, name="it", said=said), said, tmp_path / "made")
    (file,) = (file for file in model.files if file.path == "scheduler/scheduler_config.json")
    config: dict[str, object] = json.loads(file.source.read_text())
    return config


def test_the_scheduler_is_of_what_it_predicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "sdxl-ztsnr", _ZERO_SNR)
    noise = _scheduler(write_checkpoint(tmp_path / "a.safetensors", "sdxl"), tmp_path)
    assert not (tmp_path / "made").exists()  # its own
    velocity = _scheduler(write_checkpoint(tmp_path / "b.safetensors", "sdxl-vpred"), tmp_path)
    zero = _scheduler(write_checkpoint(tmp_path / "c.safetensors", "sdxl-ztsnr"), tmp_path)
    assert noise["prediction_type"] == "epsilon"
    assert velocity == noise | {"prediction_type": "v_prediction"}
    assert zero == velocity | {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    assert _scheduler(tmp_path / "a.safetensors", tmp_path, said="v-zero-snr") == zero
    model = schedulers.configured(
        checkpoint.read(write_checkpoint(tmp_path / "d-vpred-ztsnr.safetensors", "sd1"), name="it"),
        "",
        tmp_path / "made",
    )
    assert model.defaults.sampler == "Euler"  # PNDM knows nothing of it


def test_a_diffusers_folder_says_it_in_its_scheduler() -> None:
    assert folder.read(tiny_models.cached("sd"), name="sd").prediction == Prediction(
        NOISE, "scheduler/scheduler_config.json"
    )
    told = folder.read(tiny_models.cached("flux"), name="flux").prediction
    assert told is not None and told.kind == FLOW


async def _add(daemon: Daemon, path: Path, **wish: str) -> pb.Model:
    request = pb.ImportModelRequest(path=str(path), **wish)  # type: ignore[arg-type]
    async for event in daemon.models.ImportModel(request):
        if event.HasField("model"):
            return event.model
    raise AssertionError("no model came")


async def test_what_the_user_says_is_kept_shown_and_taken_back(daemon: Daemon, tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "dream.safetensors", "sdxl")
    added = await _add(daemon, path, prediction="v")
    assert (added.prediction, added.granularity, added.largest_side) == (VELOCITY, 8, 0)
    assert "v was said" in added.prediction_evidence
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await _add(daemon, path, prediction="epsilon")
    assert field(refusal.value) == "prediction"
    edited = await daemon.models.UpdateModel(pb.UpdateModelRequest(name="dream", prediction="auto"))
    assert (edited.prediction, edited.prediction_evidence) == (
        NOISE,
        "usual of Stable Diffusion XL: nothing says other",
    )
    edited = await daemon.models.UpdateModel(pb.UpdateModelRequest(name="dream", prediction="v-zero-snr"))
    assert edited.prediction == VELOCITY
    shown = await daemon.models.GetModel(pb.GetModelRequest(name="dream"))
    assert shown.prediction == VELOCITY and shown.sha256 != added.sha256  # another scheduler is another model


@pytest.mark.parametrize("said", ["velocity", "V", " "])
async def test_what_is_no_prediction_is_refused(idle_daemon: Daemon, tmp_path: Path, said: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await _add(idle_daemon, write_checkpoint(tmp_path / "dream.safetensors", "sdxl"), prediction=said)
    assert (reason(refusal.value), field(refusal.value)) == ("INVALID_FIELD", "prediction")


async def test_of_a_model_that_matches_flows_nothing_can_be_said(daemon: Daemon, tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "flux.safetensors", "flux-dev")
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await _add(daemon, path, prediction="v")
    assert reason(refusal.value) == "INVALID_FIELD"
    added = await _add(daemon, path)
    assert added.prediction == "flow"
    for name in (added.name, "pocket"):
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await daemon.models.UpdateModel(pb.UpdateModelRequest(name=name, prediction="v"))
        assert reason(refusal.value) == "INVALID_FIELD"


@pytest.mark.parametrize("said", ["v_prediction", "epsilon", "v", "v-zero-snr", "auto", ""])
def test_what_show_and_files_call_it_may_be_said(said: str) -> None:
    meant = prediction.check(said)
    assert meant == "" if said in ("auto", "") else meant in prediction.SAYINGS


def test_a_word_that_is_none_says_what_to_do() -> None:
    with pytest.raises(CraftError, match="must be one of auto, epsilon, v, v-zero-snr") as refused:
        prediction.check("foo")
    assert "models show" in refused.value.hint
