"""The page's strip: several jobs at once, each with its preview and an end of its own; what the key may still do."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from craft_protos import jobs_pb2
from craft_protos.generate import GenerateSpec
from craftd.jobs.job import Job, JobView, State
from craftd.jobs.outlook import prospects
from craftd.jobs.pace import Pace
from playwright.sync_api import expect

from tests.http.browser import Studio, chromium, enter, generate, violations
from tests.http.shim import serving


@pytest.fixture(scope="module")
def studio() -> Iterator[Studio]:
    with serving(CRAFT_GENERATE_MODEL="pocket") as shim, chromium() as browser:
        yield Studio(shim, browser, shim.key("ada"))


def test_what_is_asked_for_meanwhile_waits_is_seen_and_is_stopped(studio: Studio) -> None:
    with studio.page() as page:
        jobs = page.locator("#strip-list li")
        with studio.held():
            generate(page, "a [held] first")
            expect(jobs).to_have_count(1)
            for number, prompt in enumerate(("a [slow] second", "a [held] third"), 2):
                generate(page, prompt, steps="900")
                expect(jobs).to_have_count(number)
            slow = jobs.filter(has_text="second")
            expect(slow).to_contain_text(re.compile(r"Step \d+ of 900, about \d+ (s|min) left"))
            expect(slow.locator("img")).to_have_attribute("src", re.compile("^data:image/jpeg"))
            expect(page.locator("#allowance")).to_have_text(re.compile(r"may ask for \d+ more pictures"))
            assert violations(page) == []
            page.get_by_role("button", name="Show: a [slow] second").click()
            expect(page.locator("#doing")).to_contain_text("of 900")
            expect(page.locator("#left")).to_contain_text("left")
            page.get_by_role("button", name="Stop: a [slow] second").click()
            expect(jobs).to_have_count(2)
            assert jobs_pb2.JOB_STATE_CANCELLED in {studio.shim.jobs.GetJob(one).state for one in _ids(studio)}
            page.reload()
            expect(jobs).to_have_count(2)
            page.get_by_role("button", name="Show: a [held] first").press("Enter")
        expect(page.locator("#caption")).to_have_text(re.compile("first|third"))
        expect(jobs.filter(has_text="Done")).to_have_count(2)
        page.get_by_role("button", name="Show: a [held] third").click()
        expect(page.locator("#caption")).to_have_text("a [held] third")
        page.get_by_role("button", name="Tidy up").click()
        expect(page.locator("#strip")).to_be_hidden()


def _ids(studio: Studio) -> list[jobs_pb2.GetJobRequest]:
    listed = studio.shim.jobs.ListJobs(jobs_pb2.ListJobsRequest(page_size=10)).jobs
    return [jobs_pb2.GetJobRequest(id=one.id) for one in listed]


def test_the_stage_goes_on_with_what_is_drawn_next(studio: Studio) -> None:
    key = studio.shim.key("impatient")
    with studio.page(is_in=False) as page:
        enter(page, key)
        generate(page, "a [slow] cup", steps="900")
        expect(page.locator("#doing")).to_contain_text("of 900")
        generate(page, "a [slow] jug", steps="800")
        expect(page.locator("#strip-list li")).to_have_count(2)
        expect(page.locator("#doing")).to_contain_text("of 900")
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator("#doing")).to_contain_text("of 800")
        with studio.shim.home.hurried():
            expect(page.locator("#caption")).to_have_text("a [slow] jug")


def test_each_key_sees_its_own_queue_and_an_admin_all(studio: Studio) -> None:
    shim = studio.shim
    one, other, admin = shim.key("one"), shim.key("other"), shim.key("boss", admin=True)
    with studio.held():
        job = shim.post("/jobs", one, prompt="a [held] hen", count=3).json()["id"]

        def seen(key: str, path: str = "/queue") -> list[tuple[str, str]]:
            return [(found["owner"], found["job"]["id"]) for found in shim.call("GET", path, key).json()["jobs"]]

        assert seen(one) == seen(one, "/queue?everyone=true") == seen(admin, "/queue?everyone=true") == [("one", job)]
        assert seen(other, "/queue?everyone=true") == seen(admin) == []
        assert shim.call("GET", "/queue", one).json()["allowance"]["images_in_flight"] == 3
        stream = shim.call("GET", f"/events?job={job}", other, stream=True)
        assert '"reason": "UNKNOWN_JOB"' in stream.text and f'"job": "{job}"' in stream.text
    shim.finish(job)


def test_when_a_turn_comes_follows_from_those_before_it() -> None:
    """Half of what runs, all of what waits before it; nothing where one of them is not known."""

    def view(name: str, state: State, position: int = 0) -> JobView:
        spec = GenerateSpec("x", "", "pocket", 64, 64, 4, 1.0, 1, 1, "Euler")
        return JobView(Job(name, "ada", name, "", spec, 0.0, state=state, start_time=1.0), position=position)

    views = [view("last", State.QUEUED, 1), view("runs", State.RUNNING), view("next", State.QUEUED)]
    paces = [Pace(7, 0, 1), Pace(10, 0, 1), Pace(20, 0, 1)]
    found = prospects(views, paces, workers=1)
    assert [(one.view.job.id, one.wait_s) for one in found] == [("runs", None), ("next", 5.0), ("last", 25.0)]
    assert [one.wait_s for one in prospects(views, [paces[0], None, paces[2]], 2)] == [None, None, None]
