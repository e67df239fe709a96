"""The page in a real browser: choose, generate, watch, cancel, come back."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import pytest
from craft_protos import jobs_pb2
from playwright.sync_api import Page, Response, expect

from tests.http.browser import LORA, TRIGGER, Studio, chromium, enter, generate, give_lora, natural_size, static_files
from tests.http.shim import serving, tool

SUCCEEDED, CANCELLED = jobs_pb2.JOB_STATE_SUCCEEDED, jobs_pb2.JOB_STATE_CANCELLED
MOST_BYTES = 150_000
LATER = {"viewer.js", "command.js", "admin.js"}  # fetched when they are first needed


@pytest.fixture(scope="module")
def studio() -> Iterator[Studio]:
    with serving(CRAFT_GENERATE_MODEL="pocket") as shim, chromium() as browser:
        give_lora(shim)
        yield Studio(shim, browser, shim.key("ada"))


def _drawn(page: Page, count: int = 1) -> None:
    expect(page.locator("#tiles .tile.drawn img")).to_have_count(count)
    expect(page.get_by_role("button", name="Generate")).to_have_attribute("aria-disabled", "false")


def test_the_first_paint_is_small_and_all_of_it_is_ours(studio: Studio) -> None:
    context = studio.browser.new_context()
    page, answers = context.new_page(), list[Response]()
    page.on("response", lambda one: answers.append(one))  # noqa: PLW0108 - it marks what it calls
    page.goto(studio.shim.url, wait_until="networkidle")
    expect(page.get_by_label("API key")).to_be_focused()
    assert all(one.url.startswith(studio.shim.url + "/") and one.status == 200 for one in answers)
    assert {one.url.rpartition("/")[2] for one in answers} == {
        *("", "bot.json"),
        *(path.name for path in static_files()),
    } - {"index.html", *LATER}
    assert sum(path.stat().st_size for path in static_files()) < MOST_BYTES
    assert sum(len(one.body()) + len(str(one.headers)) for one in answers) < MOST_BYTES
    context.close()


def test_its_files_say_what_may_run_in_it(studio: Studio) -> None:
    answer = studio.shim.call("GET", "/")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self';") and "unsafe" not in policy
    assert "<script>" not in answer.text and "style=" not in answer.text and "onclick" not in answer.text
    again = studio.shim.call("GET", "/", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    for path, kind in (
        ("/page/main.js", "text/javascript"),
        ("/page/style.css", "text/css"),
        ("/page/icon.svg", "image/"),
    ):
        file = studio.shim.call("GET", path)
        assert file.status_code == 200 and file.headers["content-type"].startswith(kind)
        assert file.headers["x-content-type-options"] == "nosniff"
    for missing in ("/page/none.js", "/page/..%2frouter.py", "/page/%2e%2e/router.py", "/page/"):
        assert studio.shim.call("GET", missing).status_code == 404


def test_choose_a_model_and_a_lora_watch_the_steps_and_see_the_picture(studio: Studio) -> None:
    with studio.page() as page:
        model = page.get_by_label("Model", exact=True)
        expect(model).to_have_value("pocket")
        model.select_option("flat")
        expect(page.get_by_text("None fits this model.")).to_be_visible()
        expect(page.get_by_label("Size", exact=True)).to_have_value("64x64")
        model.select_option("pocket")
        page.get_by_label("LoRA to add").select_option(label=LORA)
        page.get_by_role("button", name="Add", exact=True).click()
        weight = page.get_by_role("spinbutton", name=f"Weight of {LORA}, exactly")
        expect(weight).to_be_focused()
        weight.fill("0.45")
        page.get_by_role("button", name=f"Add “{TRIGGER}” to the prompt").click()
        expect(page.get_by_label("Prompt", exact=True)).to_have_value(TRIGGER)
        page.get_by_label("Size", exact=True).select_option(label="Portrait 3:4, 224 × 288")
        page.get_by_label("Sampler").select_option("Euler a")
        page.get_by_label("Negative prompt").fill("grey")
        generate(page, "a [slow] apple", steps="200", guidance_scale="2.5", seed="7")
        expect(page.locator("#doing")).to_have_text(re.compile(r"Step \d+ of 200"))
        share, said = _shown_progress(page)
        assert 0 < share < 1 and said == f"Step {round(share * 200)} of 200"
        assert (page.locator("#tiles img").get_attribute("src") or "").startswith("data:image/jpeg;base64,")
        expect(page.locator("#said")).to_have_text(re.compile("Drawing, (25|50|75) %"))
        with studio.shim.home.hurried():
            _drawn(page)
        expect(page.locator("#said")).to_have_text("The picture is done.")
        assert natural_size(page, "#tiles img") == [224, 288]
        expect(page.locator("#caption")).to_have_text("a [slow] apple")
        expect(page.locator("#facts")).to_contain_text("Seed7")
        expect(page.locator("#thumbs .tile")).to_have_count(1)
        job = studio.newest()
        made = job.generate
        assert (job.state, made.model, made.width, made.height, made.steps) == (SUCCEEDED, "pocket", 224, 288, 200)
        assert (made.guidance_scale, made.seed, made.sampler, made.negative_prompt) == (2.5, 7, "Euler a", "grey")
        assert [(use.name, use.weight) for use in made.loras] == [(LORA, 0.45)]
        page.get_by_role("button", name="Copy the command").click()
        expect(page.locator("#copy")).to_have_text("Copied")
        copied = str(page.evaluate("navigator.clipboard.readText()"))
        assert copied == (
            f"craft generate 'a [slow] apple' -m pocket -l {LORA}:0.45 -W 224 -H 288 -s 200 -g 2.5"
            " --sampler 'Euler a' --seed 7 --negative=grey"
        )
        with page.expect_download() as saved:
            page.get_by_role("link", name="Save picture").click()
        assert saved.value.suggested_filename == "craft-7.png"


def test_several_pictures_each_with_its_own_seed_and_line(studio: Studio) -> None:
    with studio.page() as page:
        generate(page, "a rocket", count="3", seed="100")
        _drawn(page, 3)
        expect(page.locator("#said")).to_have_text("3 pictures are done.")
        for index in (2, 0):
            page.locator("#tiles .tile").nth(index).click()
            expect(page.locator("#facts")).to_contain_text(f"Seed{100 + index}")
            expect(page.locator("#command")).to_contain_text(f"--seed {100 + index}")
        page.get_by_role("button", name="Use again").click()
        expect(page.get_by_label("Seed", exact=True)).to_have_value("100")
        expect(page.get_by_label("Pictures", exact=True)).to_have_value("1")


def test_cancel_ends_it(studio: Studio) -> None:
    with studio.held(), studio.page() as page:
        generate(page, "a [held] cat")
        cancel = page.get_by_role("button", name="Cancel")
        cancel.focus()
        cancel.press("Enter")
        expect(page.get_by_text("watch it appear here")).to_be_visible()
        expect(page.locator("#said")).to_have_text("Cancelled.")
        expect(page.get_by_role("button", name="Generate")).to_be_focused()
        assert studio.newest().state == CANCELLED
        page.reload()
        expect(page.get_by_text("watch it appear here")).to_be_visible()


def test_reload_in_the_middle_and_it_is_still_there(studio: Studio) -> None:
    with studio.page() as page:
        with studio.held():
            generate(page, "a [held] dog", steps="30", seed="5")
            expect(page.get_by_role("progressbar")).to_be_visible()
            page.reload()
            expect(page.get_by_role("progressbar")).to_be_visible()
            expect(page.get_by_label("Prompt", exact=True)).to_have_value("a [held] dog")
            expect(page.get_by_label("Steps", exact=True)).to_have_value("30")
        _drawn(page)
        expect(page.locator("#facts")).to_contain_text("Seed5")
        page.reload()
        _drawn(page)
        expect(page.locator("#facts")).to_contain_text("Seed5")


def test_what_waits_says_for_what(studio: Studio) -> None:
    key = studio.shim.key("crowd")
    with studio.held(), studio.page(is_in=False) as page:
        for count in (32, 8, 1):  # as many as the worker takes, and one more
            assert studio.shim.post("/jobs", key, prompt="a [held] crowd", count=count).status_code == 201
        enter(page, key)
        generate(page, "a [held] bird")
        expect(page.locator("#doing")).to_have_text("Waiting: 1 job ahead")
        expect(page.locator("#said")).to_have_text("Waiting: 1 job ahead")
        job = studio.newest()
        assert job.state == jobs_pb2.JOB_STATE_QUEUED
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator("#said")).to_have_text("Cancelled.")
    assert studio.end(job).state == CANCELLED


def test_a_wrong_key_is_told_and_a_right_one_is_remembered(studio: Studio) -> None:
    with studio.page(is_in=False) as page:
        page.get_by_label("API key").fill("craft_nonsense")
        page.get_by_role("button", name="Continue").click()
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text("no key of craft's")
        expect(alert).to_contain_text("Paste all of the line")
        expect(page.get_by_label("API key")).to_be_focused()
        expect(page.locator("#studio")).to_be_hidden()
        enter(page, studio.key)
        page.reload()
        expect(page.locator("#owner")).to_have_text("ada")
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_label("API key")).to_be_focused()
        page.reload()
        expect(page.get_by_label("API key")).to_have_value("")
        assert page.evaluate("localStorage.length") == 0


def test_a_key_that_is_suspended_meanwhile_ends_the_visit(studio: Studio) -> None:
    key = studio.shim.key("lapsed")
    with studio.page(is_in=False) as page:
        enter(page, key)
        studio.suspend("lapsed")
        generate(page, "a fox")
        expect(page.get_by_role("alert")).to_contain_text("suspended")
        expect(page.locator("#studio")).to_be_hidden()
        assert studio.key not in str(page.evaluate("JSON.stringify(localStorage)"))


def test_errors_name_the_field_and_the_next_step(studio: Studio) -> None:
    with studio.page() as page:
        alert, prompt = page.locator("#wish-error"), page.get_by_label("Prompt", exact=True)
        generate(page, "  ")
        expect(alert).to_contain_text("The prompt is empty.")
        expect(prompt).to_be_focused()
        expect(prompt).to_have_attribute("aria-invalid", "true")
        generate(page, "a hat", seed="twelve")
        expect(alert).to_contain_text("Seed must be a whole number")
        expect(prompt).not_to_have_attribute("aria-invalid", "true")
        expect(page.get_by_label("Seed", exact=True)).to_be_focused()
        page.get_by_label("Size", exact=True).select_option(label="Another…")
        generate(page, "a hat", seed="", width="250")
        expect(alert).to_contain_text("width: must be a multiple of 16 for the model pocket, not 250")
        expect(alert).to_contain_text("take 256x256")
        expect(page.get_by_label("Width", exact=True)).to_be_focused()
        generate(page, "a [fail] hat", width="256")
        expect(alert).to_be_empty()
        expect(page.locator("#stage-error")).to_contain_text("failed on request")
        expect(page.locator("#stage-error")).to_contain_text("leave [fail] out")
        expect(page.get_by_role("button", name="Generate")).to_have_attribute("aria-disabled", "false")


def test_what_users_write_is_never_markup(studio: Studio) -> None:
    hostile = "<img src=x onerror=\"document.title='taken'\"> <script>document.title='taken'</script> {{7*7}} 'x'"
    with studio.page() as page:
        generate(page, hostile)
        _drawn(page)
        expect(page.locator("#caption")).to_have_text(hostile)
        assert page.locator("#stage script, #stage img[src='x'], #gallery img[src='x']").count() == 0
        assert page.title() == "craft"


def test_the_gallery_shows_this_keys_last_pictures_and_no_others(studio: Studio) -> None:
    key = studio.shim.key("painter")
    with studio.page(is_in=False) as page:
        enter(page, key)
        expect(page.get_by_text("None yet.")).to_be_visible()
        for number in range(2):
            generate(page, f"a tree {number}", seed=str(number))
            expect(page.locator("#thumbs .tile")).to_have_count(number + 1)
            _drawn(page)
        page.reload()
        expect(page.locator("#thumbs .tile")).to_have_count(2)
        expect(page.locator("#thumbs img").first).to_be_visible()
        page.get_by_role("button", name="a tree 0, seed 0").click()
        expect(page.locator("#caption")).to_have_text("a tree 0")
        expect(page.locator("#command")).to_contain_text("--seed 0")
        page.get_by_role("button", name="Use again").click()
        expect(page.get_by_label("Prompt", exact=True)).to_have_value("a tree 0")


def test_looking_at_another_picture_does_not_lose_the_job(studio: Studio) -> None:
    with studio.page() as page:
        generate(page, "a chair")
        _drawn(page)
        with studio.held():
            generate(page, "a [held] lamp", seed="77")
            page.locator("#thumbs .tile").first.click()
            expect(page.locator("#result")).to_be_visible()
            expect(page.get_by_role("button", name="Cancel")).to_be_visible()
        expect(page.locator("#facts")).to_contain_text("Seed77")
        _drawn(page)


def test_another_picture_is_not_the_jobs_progress(studio: Studio) -> None:
    """What is told is the job's, whatever is looked at, and it goes on being told."""
    with studio.page() as page:
        generate(page, "a chair")
        _drawn(page)
        generate(page, "a [slow] sofa", steps="1000", count="2")
        doing = page.locator("#doing")
        expect(doing).to_contain_text("Step")
        page.locator("#thumbs .tile").first.click()
        expect(page.locator("#result")).to_be_visible()
        first = _shown_progress(page)
        expect(doing).not_to_have_text(first[1])
        for share, said in (first, _shown_progress(page)):
            step = re.fullmatch(r"Step (\d+) of 1000, 0 of 2 done", said)
            assert 0 < share < 0.5 and step, said
            assert 0 <= int(step[1]) - share * 1000 <= 1, "the second picture's step may come a moment later"
        assert page.title().startswith(("1", "2", "3", "4", "5", "6", "7", "8", "9", "0"))
        page.get_by_role("button", name="Cancel").click()
        expect(page.get_by_role("button", name="Cancel")).to_be_hidden()


def _shown_progress(page: Page) -> tuple[float, str]:
    """(the meter's share, what is said of it), of one moment."""
    share, said = page.evaluate(
        "() => [document.querySelector('#meter').value, document.querySelector('#doing').textContent]"
    )
    return float(share), str(said)


def test_what_the_daemon_refuses_has_the_forms_words(studio: Studio) -> None:
    with studio.page() as page:
        generate(page, "x", guidance_scale="1001")
        expect(page.locator("#wish-error")).to_contain_text("guidance: input should be")
        assert "guidance_scale" not in page.locator("#wish-error").inner_text()


def test_by_keyboard_alone(studio: Studio) -> None:
    with studio.page(is_in=False) as page:
        keyboard = page.keyboard
        keyboard.type(studio.key)
        keyboard.press("Enter")
        expect(page.get_by_label("Prompt", exact=True)).to_be_focused()
        keyboard.type("a [slow] boat")
        _tab_to(page, "#lora-add")
        keyboard.press("Enter")
        keyboard.type("0.5")
        _tab_to(page, "#steps")
        keyboard.type("900")
        _tab_to(page, "#generate")
        keyboard.press("Space")
        expect(page.get_by_role("progressbar")).to_be_visible()
        _tab_to(page, "#cancel")
        keyboard.press("Enter")
        expect(page.locator("#said")).to_have_text("Cancelled.")
        expect(page.locator("#generate")).to_be_focused()
        _tab_to(page, "#prompt", "Shift+Tab")
        keyboard.press("Control+a")
        keyboard.type("a ship")
        keyboard.press("Control+Enter")
        _drawn(page)
        _tab_to(page, "#copy")
        keyboard.press("Enter")
        expect(page.locator("#copy")).to_have_text("Copied")
        _tab_to(page, "#thumbs .tile")
        keyboard.press("Enter")
        expect(page.locator("#caption")).to_have_text("a ship")


def _tab_to(page: Page, selector: str, key: str = "Tab") -> None:
    """Every stop on the way can be seen to have the focus."""
    for _ in range(60):
        page.keyboard.press(key)
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", page.evaluate("document.activeElement.outerHTML")
        if page.evaluate("document.activeElement.matches(" + repr(selector) + ")"):
            return
    raise AssertionError(f"{selector} cannot be reached by {key}")


PROMPTS = [
    "plain",
    "two words",
    'it\'s "quoted"',
    "$(touch taken) `touch taken` ${HOME} !! \\n \\",
    "line\nbreak\ttab",
    "-x --seed 5",
    "--",
    "-",
    "' ; rm -rf / #",
    "emoji 🍎 and 漢字",
    "%s %d *?[a] ~ & | < >",
]


def test_the_line_means_the_same_picture_to_a_shell(studio: Studio) -> None:
    spec = {
        **{"model": "m o", "width": 64, "height": 32, "steps": 3, "guidance_scale": 1.5, "sampler": "Euler a"},
        **{"seed": 2**53 - 1, "negative_prompt": "-n'o", "lora_missing": "skip"},
        "loras": [{"name": "a b's", "weight": -0.5}],
    }
    with studio.page() as page:
        lines = page.evaluate(
            "async specs => { const { commandOf } = await import('/page/command.js'); return specs.map(commandOf); }",
            [{**spec, "prompt": prompt} for prompt in PROMPTS],
        )
    options = ["-m", "m o", "-l", "a b's:-0.5", "-W", "64", "-H", "32", "-s", "3", "-g", "1.5", "--sampler", "Euler a"]
    options += ["--seed", str(2**53 - 1), "--negative=-n'o", "--lora-missing", "skip"]
    for prompt, line in zip(PROMPTS, lines, strict=True):
        words, piped = _read_by_bash(str(line))
        assert words[0] == "generate"
        if prompt == "-":
            assert (words[1:], piped) == (options, "-")
        elif prompt.startswith("-"):
            assert (words[1:], piped) == ([*options, "--", prompt], "")
        else:
            assert (words[1:], piped) == ([prompt, *options], "")


def _read_by_bash(line: str) -> tuple[list[str], str]:
    """(craft's arguments, what is piped into it)."""
    stand_in = "craft() { printf '%s\\0' \"$@\"; printf '\\1'; [ -t 0 ] || cat; }\n"
    done = subprocess.run([tool("bash"), "-c", stand_in + line], input="", capture_output=True, text=True, check=True)
    arguments, _, piped = done.stdout.partition("\1")
    return arguments.removesuffix("\0").split("\0"), piped
