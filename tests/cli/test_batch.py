"""A line in, a JSON line out, in order."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from craft_cli.connection.session import Session
from craft_cli.generate.batching import WINDOW, Batch, Plan
from craft_protos.generate import GenerateRequest
from craft_protos.version import __version__

from tests.cli.fakes import FakeDaemon, serving
from tests.home import CRAFT, Home, until


def test_prompts_and_objects(shared_home: Home) -> None:
    lines = 'a red apple\n\n{"prompt": "a rocket", "seed": 4, "count": 2}\na red apple\n'
    done = shared_home.craft("generate", "--batch", "-", stdin=lines)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["path"].rpartition("-")[0] for answer in answers] == [
        "a-red-apple",
        *["a-rocket"] * 2,
        "a-red-apple",
    ]
    assert [answer["seed"] for answer in answers[1:3]] == [4, 5]
    assert all((shared_home.work / answer["path"]).exists() for answer in answers)


@pytest.mark.parametrize("options", [["--plan"], []])
def test_a_batch_without_lines_is_told(shared_home: Home, options: list[str]) -> None:
    done = shared_home.craft("generate", "--batch", "-", *options, stdin="\n")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "craft: the batch has no lines: nothing to draw\n"


def test_many_lines_stay_in_order_and_share_the_batch(home: Home) -> None:
    (home.work / "lines").write_text("".join(f"picture {n} [held]\n" for n in range(100)))
    home.craft("daemon", "start")
    process = home.start("generate", "--batch", "lines", "-o", "{n:03}.png", "-s", "5")
    until(lambda: sum(home.json("daemon", "status")["queue"].values()) == WINDOW, "all that are made at once are there")
    calls = predict_calls(home)  # a row that is held costs one as well
    home.release()
    out, err = home.finish(process)
    assert process.returncode == 0, err
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["path"] for answer in answers] == [f"{n:03}.png" for n in range(1, 101)]
    assert predict_calls(home) - calls < 250  # one by one it would be 500


def predict_calls(home: Home) -> int:
    (worker,) = home.json("daemon", "status")["workers"]
    return int(worker["predict_calls"])


def test_a_bad_line_costs_only_itself(shared_home: Home) -> None:
    lines = 'good\n{"promt": "x"}\n{"prompt": "x", "steps": 0}\n{"prompt"\nalso good\nx [fail]\n'
    done = shared_home.craft("generate", "--batch", "-", "--json", stdin=lines)
    assert done.returncode == 65
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert ["error" in answer for answer in answers] == [False, True, True, True, False, True]
    assert [answer["line"] for answer in answers if "error" in answer] == [2, 3, 4, 6]
    assert answers[1]["error"]["hint"] == "did you mean 'prompt'?"
    assert list(answers[2]["error"]) == ["reason", "message", "hint"]


def test_what_no_number_can_hold_costs_its_line_alone(shared_home: Home) -> None:
    """Each of these ended the reader's thread, and the command waited for ever."""
    huge = "9" * 400
    bad = [
        f'{{"prompt": "x", "guidance_scale": {huge}}}',
        f'{{"prompt": "x", "seed": {huge}}}',
        f'{{"prompt": "x", "loras": [{{"lora": "it", "weight": {huge}}}]}}',
        '{"prompt": "x", "request_id": "\\ud800"}',
        '{"prompt": "x", "count": 1000000000}',
    ]
    done = shared_home.craft("generate", "--batch", "-", "--json", stdin="\n".join(["first", *bad, "last"]))
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
def test_a_file_that_cannot_be_read_is_no_input(shared_home: Home) -> None:
    done = shared_home.craft("generate", "--batch", "/proc/self/mem")
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
            Batch(session, Plan(GenerateRequest(), "flat", None, False, False, 1, as_json=True)).run(lines())
        session.close()
    assert json.loads(capsys.readouterr().out)["line"] == 1


def test_only_failed_jobs_give_the_jobs_exit_code(shared_home: Home) -> None:
    assert shared_home.craft("generate", "--batch", "-", stdin="x\ny [fail]\n").returncode == 1


def test_a_plain_name_is_numbered_over_the_batch(shared_home: Home) -> None:
    (shared_home.work / "prompts.txt").write_text("one\ntwo\n")
    done = shared_home.craft("generate", "--batch", "prompts.txt", "-o", "out.webp")
    assert [json.loads(line)["path"] for line in done.stdout.splitlines()] == ["out-1.webp", "out-2.webp"]


def test_the_same_request_id_is_the_same_job(shared_home: Home) -> None:
    line = '{"prompt": "x", "seed": 1, "request_id": "mine"}\n'
    first, second = (
        json.loads(shared_home.craft("generate", "--batch", "-", "--force", stdin=line).stdout)["job"] for _ in range(2)
    )
    assert first == second


def test_a_line_says_when_its_too_late_and_which_of_its_pictures(shared_home: Home) -> None:
    lines = (
        '{"prompt": "x", "expire_time": "2001-01-01T00:00:00Z"}\n'
        '{"prompt": "x", "seed": 5, "count": 4, "indices": [1, 3], "priority": "interactive"}\n'
    )
    done = shared_home.craft("generate", "--batch", "-", "--json", "-o", "{n}.png", stdin=lines)
    assert done.returncode == 1
    late, *made = [json.loads(line) for line in done.stdout.splitlines()]
    assert late["error"]["reason"] == "EXPIRED"
    assert [(one["index"], one["seed"], one["path"]) for one in made] == [(1, 6, "3.png"), (3, 8, "5.png")]
    assert shared_home.json("jobs", "show", made[0]["job"])["priority"] == "interactive"


def test_lines_are_answered_as_they_come(shared_home: Home) -> None:
    """A program may write one line, read its answer, and write the next."""
    process = shared_home.start("generate", "--batch", "-", stdin=subprocess.PIPE)
    assert process.stdin and process.stdout
    for prompt in ("one", "two"):
        process.stdin.write(f"{prompt}\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["path"].startswith(prompt)
    shared_home.finish(process)
    assert process.returncode == 0


def test_detached(shared_home: Home) -> None:
    done = shared_home.craft("generate", "--batch", "-", "--detach", stdin="x\ny\n")
    jobs = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(job["line"], job["prompt"]) for job in jobs] == [(1, "x"), (2, "y")]
    assert shared_home.craft("jobs", "wait", *(job["job"] for job in jobs)).returncode == 0


def test_what_does_not_go_with_a_batch(shared_home: Home) -> None:
    for args in (["x", "--batch", "-"], ["--batch", "-", "-o", "-"]):
        assert shared_home.craft("generate", *args, stdin="x\n").returncode == 2
    assert shared_home.craft("generate", "--batch", "nowhere.txt").returncode == 66


def test_a_full_queue_is_waited_for(home: Home) -> None:
    home.env["CRAFT_DAEMON_QUEUE_LIMIT"] = "2"
    done = home.craft("generate", "--batch", "-", stdin="x\n" * 12)
    assert done.returncode == 0, done.stdout
    assert len(done.stdout.splitlines()) == 12


def pipeline(home: Home, times: int) -> list[tuple[int, bytes, bytes]]:
    """What each run of the pipeline ends with."""
    script = f"yes 'a red apple' | head -50 | {' '.join(CRAFT)} generate --batch - -s 1 -o {{id}}.png | head -1"
    runs = (home.run(["bash", "-c", script]) for _ in range(times))
    return [(done.returncode, done.stdout, done.stderr) for done in runs]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_reader_that_takes_one_line_hangs_nobody(home: Home) -> None:
    """It did in 4 of 22 runs: a signal's handler raised between taking a lock and entering its `with`."""
    for code, out, err in pipeline(home, 40):
        assert (code, err) == (0, b"")
        assert json.loads(out)["image"]
    assert not list(home.work.glob(".craft-*"))  # nor is anything left half written
