"""A line in, a JSON line out, in order."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from craft_cli.batching import Batch, Plan
from craft_cli.session import Session
from craft_cli.spec import Spec
from craft_protos.version import __version__

from tests.cli.fakes import FakeDaemon, serving
from tests.cli.home import Home


def test_prompts_and_objects(home: Home) -> None:
    lines = 'a red apple\n\n{"prompt": "a rocket", "seed": 4, "count": 2}\na red apple\n'
    done = home.craft("generate", "--batch", "-", stdin=lines)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["path"].rpartition("-")[0] for answer in answers] == [
        "a-red-apple",
        *["a-rocket"] * 2,
        "a-red-apple",
    ]
    assert [answer["seed"] for answer in answers[1:3]] == [4, 5]
    assert all((home.work / answer["path"]).exists() for answer in answers)


def test_many_lines_stay_in_order_and_share_the_batch(home: Home) -> None:
    lines = "".join(f"picture {n}{' [slow]' if n % 7 == 0 else ''}\n" for n in range(100))
    done = home.craft("generate", "--batch", "-", "-o", "{n:03}.png", "-s", "5", stdin=lines)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["path"] for answer in answers] == [f"{n:03}.png" for n in range(1, 101)]
    (worker,) = home.json("daemon", "status")["workers"]
    assert worker["predict_calls"] < 250  # one by one it would be 500


def test_a_bad_line_costs_only_itself(home: Home) -> None:
    lines = 'good\n{"promt": "x"}\n{"prompt": "x", "steps": 0}\n{"prompt"\nalso good\nx [fail]\n'
    done = home.craft("generate", "--batch", "-", "--json", stdin=lines)
    assert done.returncode == 65
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert ["error" in answer for answer in answers] == [False, True, True, True, False, True]
    assert [answer["line"] for answer in answers if "error" in answer] == [2, 3, 4, 6]
    assert answers[1]["error"]["hint"] == "did you mean 'prompt'?"
    assert list(answers[2]["error"]) == ["reason", "message", "hint"]


def test_what_no_number_can_hold_costs_its_line_alone(home: Home) -> None:
    """Each of these ended the reader's thread, and the command waited for ever."""
    huge = "9" * 400
    bad = [
        f'{{"prompt": "x", "guidance_scale": {huge}}}',
        f'{{"prompt": "x", "seed": {huge}}}',
        f'{{"prompt": "x", "loras": [{{"lora": "it", "weight": {huge}}}]}}',
        '{"prompt": "x", "request_id": "\\ud800"}',
        '{"prompt": "x", "count": 1000000000}',
    ]
    done = home.craft("generate", "--batch", "-", stdin="\n".join(["first", *bad, "last"]))
    assert done.returncode == 65
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert ["error" in answer for answer in answers] == [False, *[True] * 5, False]
    assert [answer["error"]["message"].split(":")[0] for answer in answers[1:6]] == [
        "guidance_scale",
        "seed",
        "loras",
        "request_id",
        "count",
    ]
    assert max(len(answer["error"]["message"]) for answer in answers[1:6]) < 100


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_file_that_cannot_be_read_is_no_input(home: Home) -> None:
    done = home.craft("generate", "--batch", "/proc/self/mem")
    assert (done.returncode, done.stdout) == (66, "")
    assert "the batch cannot be read on: Input/output error" in done.stderr


def test_a_reader_that_fails_ends_the_batch(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever it fails with: what was begun is answered first."""

    def lines() -> Iterator[bytes]:
        yield b"{"
        raise ZeroDivisionError

    for name, value in home.env.items():
        monkeypatch.setenv(name, value)
    with serving(FakeDaemon(__version__), home.paths):
        session = Session()
        with pytest.raises(ZeroDivisionError):
            Batch(session, Plan(Spec(), "flat", None, False, False, 1)).run(lines())
        session.close()
    assert json.loads(capsys.readouterr().out)["line"] == 1


def test_only_failed_jobs_give_the_jobs_exit_code(home: Home) -> None:
    assert home.craft("generate", "--batch", "-", stdin="x\ny [fail]\n").returncode == 1


def test_a_plain_name_is_numbered_over_the_batch(home: Home) -> None:
    (home.work / "prompts.txt").write_text("one\ntwo\n")
    done = home.craft("generate", "--batch", "prompts.txt", "-o", "out.webp")
    assert [json.loads(line)["path"] for line in done.stdout.splitlines()] == ["out-1.webp", "out-2.webp"]


def test_the_same_request_id_is_the_same_job(home: Home) -> None:
    line = '{"prompt": "x", "seed": 1, "request_id": "mine"}\n'
    first, second = (
        json.loads(home.craft("generate", "--batch", "-", "--force", stdin=line).stdout)["job"] for _ in range(2)
    )
    assert first == second


def test_a_line_says_when_its_too_late_and_which_of_its_pictures(home: Home) -> None:
    lines = (
        '{"prompt": "x", "expire_time": "2001-01-01T00:00:00Z"}\n'
        '{"prompt": "x", "seed": 5, "count": 4, "indices": [1, 3], "priority": "interactive"}\n'
    )
    done = home.craft("generate", "--batch", "-", "-o", "{n}.png", stdin=lines)
    assert done.returncode == 1
    late, *made = [json.loads(line) for line in done.stdout.splitlines()]
    assert late["error"]["reason"] == "EXPIRED"
    assert [(one["index"], one["seed"], one["path"]) for one in made] == [(1, 6, "3.png"), (3, 8, "5.png")]
    assert home.json("jobs", "show", made[0]["job"])["priority"] == "interactive"


def test_lines_are_answered_as_they_come(home: Home) -> None:
    """A program may write one line, read its answer, and write the next."""
    process = home.start("generate", "--batch", "-", stdin=subprocess.PIPE)
    assert process.stdin and process.stdout
    for prompt in ("one", "two"):
        process.stdin.write(f"{prompt}\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["path"].startswith(prompt)
    process.stdin.close()
    assert process.wait(30) == 0
    process.stdout.close()
    assert process.stderr
    process.stderr.close()


def test_detached(home: Home) -> None:
    done = home.craft("generate", "--batch", "-", "--detach", stdin="x\ny\n")
    jobs = [json.loads(line) for line in done.stdout.splitlines()]
    assert [list(job) for job in jobs] == [["job"], ["job"]]
    assert home.craft("jobs", "wait", *(job["job"] for job in jobs)).returncode == 0


def test_what_does_not_go_with_a_batch(home: Home) -> None:
    for args in (["x", "--batch", "-"], ["--batch", "-", "-o", "-"], ["--batch", "-", "--plan"]):
        assert home.craft("generate", *args, stdin="x\n").returncode == 2
    assert home.craft("generate", "--batch", "nowhere.txt").returncode == 66


def test_a_full_queue_is_waited_for(home: Home) -> None:
    home.env["CRAFT_DAEMON_QUEUE_LIMIT"] = "2"
    done = home.craft("generate", "--batch", "-", stdin="x\n" * 12)
    assert done.returncode == 0, done.stdout
    assert len(done.stdout.splitlines()) == 12
