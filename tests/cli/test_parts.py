"""craft models: parts, another program's folder, short names, and plans to decide by."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from craft_cli.registering import plans, pulling
from craft_protos import models_pb2 as pb
from craft_protos.reasons import CraftError
from craftd.architectures.registry import ROWS
from craftd.hub.repository import Address
from craftd.models import catalogue

from tests.daemon import hub as hubs
from tests.daemon.hub import COMMIT, Hub, Repository
from tests.daemon.safetensors import write_checkpoint
from tests.home import Home, write_model

NO_SESSION: Any = None  # which nothing but a key of Civitai's needs
TURBO = "Tongyi-MAI/Z-Image-Turbo"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    comfy = tmp_path / "comfy"
    for place, kind in (
        ("text_encoders/clip_l", "clip-l"),
        ("text_encoders/t5xxl_fp16", "t5-xxl"),
        ("vae/ae", "vae-16"),
    ):
        write_checkpoint(comfy / f"{place}.safetensors", kind)
    write_checkpoint(comfy / "diffusion_models" / "flux.safetensors", "flux-dev-bare")
    with hubs.serving(
        Repository(TURBO, hubs.folder(write_model(tmp_path / "remote"))),
        Repository("some-org/parts", hubs.folder(comfy)),
    ) as one:
        yield one


@pytest.fixture
def with_hub(home: Home, hub: Hub, tmp_path: Path) -> Home:
    home.env |= hubs.environment(hub, tmp_path / "hf")
    return home


@pytest.mark.parametrize(
    ("written", "repository", "revision", "file"),
    [
        ("z-image-turbo", "z-image-turbo", "", ""),
        ("ORG/NAME@v1:a/b.safetensors", "ORG/NAME", "v1", "a/b.safetensors"),
        ("https://huggingface.co/ORG/NAME", "ORG/NAME", "", ""),
        ("https://huggingface.co/ORG/NAME/", "ORG/NAME", "", ""),
        ("hf.co/ORG/NAME", "ORG/NAME", "", ""),
        ("https://huggingface.co/ORG/NAME/tree/main", "ORG/NAME", "main", ""),
        ("https://huggingface.co/ORG/NAME/tree/main/vae", "ORG/NAME", "main", ""),
        ("https://huggingface.co/ORG/NAME/blob/main/x.safetensors", "ORG/NAME", "main", "x.safetensors"),
        (
            "https://huggingface.co/ORG/NAME/resolve/main/a/x.safetensors?download=true",
            "ORG/NAME",
            "main",
            "a/x.safetensors",
        ),
        (
            "https://huggingface.co/ORG/NAME/resolve/refs%2Fpr%2F3/x.safetensors",
            "ORG/NAME",
            "refs/pr/3",
            "x.safetensors",
        ),
    ],
)
def test_links_of_the_hubs_pages(written: str, repository: str, revision: str, file: str) -> None:
    found = pulling.remote(written, NO_SESSION)
    assert (found.repository, found.revision, found.file) == (repository, revision, file)
    if "/" in repository:
        Address(found.repository, found.revision or "main").check()


@pytest.mark.parametrize(
    "written",
    [
        "https://huggingface.co/datasets/ORG/NAME",
        "https://huggingface.co/spaces/ORG/NAME",
        "https://hf.co/a/b/c/d",
        "https://elsewhere.example/ORG/NAME",
    ],
)
def test_pages_that_are_no_models(written: str) -> None:
    with pytest.raises(CraftError) as caught:
        pulling.remote(written, NO_SESSION)
    assert caught.value.reason == "USAGE"


def test_every_short_name_is_a_model_that_craft_draws_with() -> None:
    ids = {row.id for row in ROWS}
    for entry in catalogue.entries():
        Address(entry.repository).check()
        assert entry.architecture in ids, entry.name
        assert entry.gated in ("yes", "no", ""), entry.name
        assert entry.license and entry.network_billions > 0, entry.name
    assert catalogue.find("Z-Image-Turbo") is not None
    assert [entry.name for entry in catalogue.search("z-image turbo")] == ["z-image-turbo"]


def test_a_short_name_is_planned_and_pulled(with_hub: Home) -> None:
    listed = {entry["name"]: entry for entry in with_hub.json("models", "search", "turbo")}
    assert listed["z-image-turbo"]["repository"] == TURBO
    planned = with_hub.craft("models", "pull", "z-image-turbo", "--plan").stdout
    assert planned.startswith(f"{TURBO}@{COMMIT}: 6 files, ")
    for words in ("left afterwards", "Apache-2.0", "8 steps", "memory in bf16", "without its text encoders"):
        assert words in planned
    assert with_hub.json("models", "pull", "z-image-turbo", "--plan")["model"]["gated"] is False
    assert with_hub.craft("models", "pull", "z-image-turbo").stdout == "z-image-turbo\n"
    assert with_hub.json("models", "show", "z-image-turbo")["source"] == f"{TURBO}@{COMMIT}"
    wrong = with_hub.craft("models", "pull", "z-imge-turbo")
    assert (wrong.returncode, "z-image-turbo" in wrong.stderr) == (66, True)


def test_a_plan_without_a_network_tells_what_craft_knows_and_that_nobody_was_asked(home: Home, tmp_path: Path) -> None:
    home.env |= {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hf")}
    planned = home.craft("models", "pull", "z-image-turbo", "--plan")
    assert planned.returncode == 0
    for words in ("about 20.5 GB to download", "not asked there", "cannot be reached", "memory in fp8", "Apache-2.0"):
        assert words in planned.stdout
    assert "cannot be reached" in home.json("models", "pull", "z-image-turbo", "--plan")["unasked"]
    wrong = home.craft("models", "pull", "z-imge-turbo", "--plan")
    assert (
        wrong.returncode != 0 and "cannot be reached" in wrong.stderr and "did you mean z-image-turbo" in wrong.stderr
    )
    assert home.craft("models", "pull", "z-image-turbo").returncode != 0


def test_a_short_name_that_is_not_here_yet_says_how_to_get_it(home: Home) -> None:
    refused = home.craft("generate", "x", "-m", "z-image-turbo", "--plan")
    assert refused.returncode == 66 and "craft models pull z-image-turbo --plan" in refused.stderr


def test_what_somebody_with_12_gb_reads() -> None:
    entry = catalogue.find("z-image-turbo")
    assert entry is not None
    from craftd.rpc import mapping

    plan = pb.PullPlan(
        source="x", files=1, download_bytes=20 << 30, free_bytes=10 << 30, device_bytes=12 << 30, precision="bf16"
    )
    plan.entry.CopyFrom(mapping.catalogue_entry(entry))
    rows = dict(plans.rows(plan))
    assert "too little" in rows["disk"]
    assert rows["memory in bf16"].endswith("block by block, which is slow")
    assert "text encoders wait" in rows["memory in fp8"]
    assert rows["gated"] == "no"
    plan.entry.gated = "yes"
    assert f"https://huggingface.co/{TURBO}" in dict(plans.rows(plan))["gated"]


def test_parts_are_pulled_one_by_one(with_hub: Home) -> None:
    """What lacks a part is kept until that has come, and need not come again."""
    lacking = with_hub.craft("models", "pull", "some-org/parts:diffusion_models/flux.safetensors")
    assert (lacking.returncode, "clip_l.safetensors" in lacking.stderr) == (65, True)
    for name in ("clip_l", "t5xxl_fp16"):
        assert (
            with_hub.craft("models", "pull", f"some-org/parts:text_encoders/{name}.safetensors").stdout == f"{name}\n"
        )
    assert with_hub.craft("models", "pull", "some-org/parts:vae/ae.safetensors").stdout == "ae\n"
    assert with_hub.craft("models", "pull", "some-org/parts:diffusion_models/flux.safetensors").stdout == "flux\n"
    assert with_hub.json("models", "show", "flux")["parts"] == {
        "text_encoder": "clip_l",
        "text_encoder_2": "t5xxl_fp16",
        "vae": "ae",
    }
    assert with_hub.json("models", "show", "ae")["used_by"] == ["flux"]
    refused = with_hub.craft("models", "rm", "ae")
    assert (refused.returncode, "flux uses it" in refused.stderr) == (75, True)
    removed = with_hub.craft("models", "rm", "flux", "ae")
    assert (removed.stdout, removed.stderr.count("deleted")) == ("flux\nae\n", 2)
    listed = [line.split("\t") for line in with_hub.craft("models", "list", "--parts").stdout.splitlines()]
    rows = [columns[:2] for columns in listed if columns[-1] != "built in"]
    assert rows == [["clip_l", "clip-l"], ["t5xxl_fp16", "t5-xxl"]]


def test_a_text_encoder_is_pulled_with_its_tokenizer(home: Home, tmp_path: Path) -> None:
    """From the repository that has one; both go again with it, and the model of parts draws."""
    split, words = (
        tmp_path / "split_files",
        {"tokenizer/tokenizer.json": b"{}", "tokenizer/tokenizer_config.json": b"{}"},
    )
    for place, kind in (("text_encoders/qwen_3_4b", "qwen3-4b"), ("vae/ae", "vae-16"), ("x/z_image_turbo", "z-image")):
        write_checkpoint(split / f"{place}.safetensors", kind)
    comfy = {f"split_files/{name}": content for name, content in hubs.folder(split).items()}
    with hubs.serving(Repository("Comfy-Org/z_image_turbo", comfy), Repository(TURBO, words)) as hub:
        home.env |= hubs.environment(hub, tmp_path / "hf")
        source = "https://huggingface.co/Comfy-Org/z_image_turbo/resolve/main/split_files"
        for name in ("text_encoders/qwen_3_4b", "vae/ae", "x/z_image_turbo"):
            assert home.craft("models", "pull", f"{source}/{name}.safetensors").returncode == 0
    model = home.json("models", "show", "z_image_turbo")
    assert model["parts"] == {"text_encoder": "qwen_3_4b", "vae": "ae"}
    assert home.craft("generate", "a red apple", "-m", "z_image_turbo", "-o", "a.png").returncode == 0
    assert home.craft("models", "rm", "z_image_turbo", "qwen_3_4b", "ae").returncode == 0
    assert not [path for path in (tmp_path / "hf").rglob("*.json") if "blobs" in str(path.resolve())]


def test_a_folder_is_shown_agreed_to_and_taken_in(home: Home) -> None:
    root = home.work / "models"
    write_checkpoint(root / "Stable-diffusion" / "dream.safetensors", "sd1")
    write_checkpoint(root / "VAE" / "vae-ft-mse-840000-ema-pruned.safetensors", "vae-4")
    planned = home.craft("models", "import-folder", "models", "--plan")
    assert [line.split("\t")[1] for line in planned.stdout.splitlines()] == ["checkpoint", "part"]
    alone = home.craft("models", "import-folder", "models")
    assert (alone.returncode, "--yes" in alone.stderr) == (2, True)
    done = home.json("models", "import-folder", "models", "--yes")
    assert [(entry["name"], entry["state"]) for entry in done] == [
        ("dream", "added"),
        ("vae-ft-mse-840000-ema-pruned", "added"),
    ]
    assert home.craft("models", "edit", "dream", "--vae", "vae-ft-mse-840000-ema-pruned").returncode == 0
    parts = [one for one in home.json("models", "list", "--parts") if one["source"] != "built in"]
    assert parts[0]["used_by"] == ["dream"]
    assert home.craft("models", "import-folder", "models", "--yes").stderr.endswith("nothing new in it\n")
