"""Wildcards through the daemon: each picture's own prompt, a folder that is configured, and what is refused."""

from __future__ import annotations

from pathlib import Path

from craft_protos import images_pb2

from tests.daemon.harness import Daemon, running
from tests.daemon.loras import refused
from tests.home import Home


async def test_each_picture_is_drawn_with_its_own_prompt(home: Home, tmp_path: Path) -> None:
    (tmp_path / "fruit.txt").write_text("fig\npear\nplum\n")
    home.root.joinpath("config.toml").write_text(f'[prompts]\nwildcards = "{tmp_path}"\n')
    async with running(home) as daemon:
        made = await daemon.create("a {red|green|blue} __fruit__", wildcards=True, seed=5, count=4)
        done = await daemon.finish(made.id)
        prompts = [one.prompt for one in made.generate.expanded]
        assert len(set(prompts)) > 1 and not any("{" in one or "__" in one for one in prompts)
        kept = (await daemon.images.ListImages(images_pb2.ListImagesRequest(job_id=done.id))).images
        assert [image.prompt for image in sorted(kept, key=lambda image: image.index)] == prompts
        await _is_refused(daemon)


async def _is_refused(daemon: Daemon) -> None:
    for prompt, said in (
        ("a __nothing__", "no such file"),
        ("a {b", "without its"),
        ("{ |}", "is empty for picture 0"),
    ):
        error = await refused(daemon.create(prompt, wildcards=True, seed=1))
        assert said in (error.details() or "")
    assert not (await daemon.create("a {red|green} __fruit__")).generate.expanded
