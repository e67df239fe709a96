"""What people name from Civitai: understood in every form, and registered with its trigger words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from craft_cli.generate import loras
from craft_cli.registering import civitai, named, pulling
from craft_protos.lora import LoraRef
from craft_protos.reasons import CraftError

from tests.daemon.civitai import FILE, MODEL, VERSION, Civitai, environment, serving
from tests.home import Home
from tests.lora_files import kohya

TOKEN = "c1v1t41-secret"


@pytest.mark.parametrize(
    ("text", "repository", "version"),
    [
        ("https://civitai.com/models/827184", "civitai:827184", ""),
        ("https://civitai.com/models/827184/wai-illustrious-sdxl", "civitai:827184", ""),
        ("https://www.civitai.com/models/827184?modelVersionId=2514310", "civitai:827184", "2514310"),
        ("https://civitai.com/models/827184/x?tab=a&modelVersionId=2514310#top", "civitai:827184", "2514310"),
        ("civitai.com/models/827184", "civitai:827184", ""),
        ("https://civitai.com/api/download/models/2514310", "civitai:", "2514310"),
        ("https://civitai.com/api/download/models/2514310?type=Model&token=secret", "civitai:", "2514310"),
        ("urn:air:sdxl:lora:civitai:827184@2514310", "civitai:827184", "2514310"),
        ("URN:AIR:sdxl:checkpoint:civitai:827184@2514310", "civitai:827184", "2514310"),
        ("air:flux1:lora:civitai:827184@2514310.safetensors", "civitai:827184", "2514310"),
        ("civitai:827184@2514310", "civitai:827184", "2514310"),
        ("civitai:827184", "civitai:827184", ""),
    ],
)
def test_every_form_is_understood(text: str, repository: str, version: str) -> None:
    found = civitai.source(text)
    assert (found.repository, found.revision, found.file) == (repository, version, "")
    assert civitai.is_named(text) and pulling.is_link(text) and named.is_place(text)
    assert loras.parse(text) == LoraRef(text) and loras.parse(f"{text}:0.8") == LoraRef(text, 0.8)


@pytest.mark.parametrize(
    "text",
    [
        "https://civitai.com/user/somebody",
        "https://civitai.com/models/x",
        "https://civitai.com/models/1?modelVersionId=x",
        "https://civitai.com/api/download/models/0",
        "civitai:x@1",
        "civitai:1@",
        "urn:air:sdxl:lora:huggingface:some-org/it",
    ],
)
def test_what_is_nothing_of_it_is_said(text: str) -> None:
    with pytest.raises(CraftError, match="nothing of Civitai's") as caught:
        civitai.source(text)
    assert caught.value.reason == "USAGE" and "civitai:ID@VERSION" in caught.value.hint


def test_an_identifier_that_says_its_kind_is_refused_unasked() -> None:
    model, lora = "urn:air:sdxl:checkpoint:civitai:827184@2514310", "urn:air:sdxl:LORA:civitai:827184@2514310"
    civitai.require_model(model)
    civitai.require_lora(lora)
    for require, text, command in (
        (civitai.require_lora, model, f"craft models pull {model}"),
        (civitai.require_model, lora, f"craft lora add {lora}"),
    ):
        with pytest.raises(CraftError) as caught:
            require(text)
        assert (caught.value.reason, caught.value.hint) == ("USAGE", command)


@pytest.mark.parametrize(
    "text",
    ["some-org/civitai", "https://civitai.com.evil.example/models/1", "https://evil.example/civitai.com/models/1"],
)
def test_others_are_not_taken_for_it(text: str) -> None:
    assert not civitai.is_named(text) and not civitai.is_air(text)


@pytest.mark.parametrize(
    ("asked", "known", "is_it"),
    [
        ("civitai:1@2", "civitai:1@2:it.safetensors", True),
        ("civitai:1@2", "civitai:1@2", True),
        ("civitai:1@*", "civitai:1@2:it.safetensors", True),
        ("civitai:@2", "civitai:1@2:it.safetensors", True),
        ("civitai:1@2", "civitai:1@23:it.safetensors", False),
        ("civitai:1@2", "civitai:11@2:it.safetensors", False),
        ("civitai:@2", "some-org/it@2", False),
    ],
)
def test_what_is_registered_is_known_again(asked: str, known: str, is_it: bool) -> None:
    assert civitai.is_registered(asked, known) == is_it


@pytest.mark.parametrize(
    ("host", "ca_file", "is_sent"),
    [
        ("", "", True),
        ("unix:/run/craft.sock", "", True),
        ("elsewhere:7810", "", True),  # with TLS, always
        ("127.0.0.1:7810", "ca.pem", True),
        ("127.0.0.1:7810", "", False),
    ],
)
def test_the_key_goes_through_the_socket_or_tls(
    host: str, ca_file: str, is_sent: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CIVITAI_TOKEN", TOKEN)
    session: Any = SimpleNamespace(target=SimpleNamespace(host=host, ca_file=ca_file))
    assert pulling.remote("civitai:1@2", session).token == (TOKEN if is_sent else "")
    said = capsys.readouterr().err
    assert ("CIVITAI_TOKEN is not sent" in said) == (not is_sent) and TOKEN not in said


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Civitai]:
    file = kohya(tmp_path_factory.mktemp("civitai") / FILE, metadata={"modelspec.trigger_phrase": "of the file"})
    with serving({FILE: file.read_bytes()}) as one:
        one.token = TOKEN
        yield one


@pytest.fixture(scope="module")
def place(site: Civitai, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    home = Home()
    home.env |= {**environment(site, tmp_path_factory.mktemp("hf")), "CIVITAI_TOKEN": ""}
    yield home
    home.remove()


def test_a_lora_of_its_is_added_with_its_trigger_words(place: Home, site: Civitai) -> None:
    refused = place.craft("lora", "add", f"civitai:{MODEL}@{VERSION}")
    assert refused.returncode == 77 and "CIVITAI_TOKEN" in refused.stderr
    site.hub.asked.clear()
    args = (
        "generate",
        "x",
        "-l",
        f"urn:air:sdxl:lora:civitai:{MODEL}@{VERSION}:0.5",
        "-m",
        "pocket",
        "-y",
        "--seed",
        "1",
    )
    place.craft(*args, "-o", "l.png", env={"CIVITAI_TOKEN": TOKEN})
    assert set(site.tokens()) == {f"Bearer {TOKEN}"}
    (lora,) = place.json("lora", "list")
    assert (lora["name"], lora["trigger"]) == (Path(FILE).stem, "wtrclr style, soft, wet paper")
    for text in (f"https://civitai.com/models/{MODEL}", f"https://civitai.com/api/download/models/{VERSION}"):
        planned = place.craft("generate", "x", "-l", f"{text}:0.5", "-m", "pocket", "--plan", "--json")
        assert lora["id"] in planned.stdout and '"weight": 0.5' in planned.stdout, planned.stderr
    kept = [path for path in place.root.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert kept == []


def test_what_it_lacks_is_said(place: Home) -> None:
    done = place.craft("models", "pull", "civitai:5@6")
    assert done.returncode == 66 and "Civitai has no version 6" in done.stderr
