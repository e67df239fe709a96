"""The daemon keeps the bot running, tells how it is, and goes on whatever becomes of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from craft_protos import daemon_pb2
from playwright.sync_api import expect
from prometheus_client.parser import text_string_to_metric_families

from tests.bot.place import Place, running
from tests.bot.telegram import TOKEN, USERNAME, Fault
from tests.home import HANG_S
from tests.http.browser import chromium

RUNNING, TROUBLED, ENDED = daemon_pb2.BOT_STATE_RUNNING, daemon_pb2.BOT_STATE_TROUBLED, daemon_pb2.BOT_STATE_ENDED


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """One for all tests: each leaves the bot running."""
    with running(supervised=True) as one:
        yield one


def _bot(place: Place) -> daemon_pb2.BotStatus:
    return place.shim.status().bot


def _awaits(place: Place, state: daemon_pb2.BotState.ValueType) -> daemon_pb2.BotStatus:
    place.telegram.until(lambda: _bot(place).state == state, daemon_pb2.BotState.Name(state))
    return _bot(place)


def _draws(place: Place, key: str) -> bool:
    body = {"model": "flat", "prompt": "an apple", "image_count": 1, "steps": 1}
    return bool(place.shim.post("/generate", key, **body).status_code == 200)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_runs_without_torch_and_status_metrics_page_and_the_401_say_so(place: Place) -> None:
    bot = _awaits(place, RUNNING)
    assert (bot.username, bot.problem) == (USERNAME, "") and _is_alive(bot.pid)
    if Path(f"/proc/{bot.pid}/maps").exists():
        assert "libtorch" not in Path(f"/proc/{bot.pid}/maps").read_text()
    key, admin = place.gives(1), place.shim.key("root", admin=True)
    place.telegram.until(lambda: _bot(place).updates >= 1, "it counts")
    command = [sys.executable, "-P", "-m", "craft_cli.main", "daemon", "status"]
    shown = subprocess.run(command, env=place.env, capture_output=True, text=True, check=True, timeout=HANG_S).stdout
    assert f"@{USERNAME}: running" in shown
    told = json.loads(subprocess.run([*command, "--json"], env=place.env, capture_output=True, check=True).stdout)
    assert told["bot"]["state"] == "running" and told["bot"]["username"] == USERNAME
    answer = place.shim.call("GET", "/metrics", admin).text
    samples = {
        (one.name, one.labels.get("state", "")): one.value
        for family in text_string_to_metric_families(answer)
        for one in family.samples
    }
    assert samples["craft_bot_state", "running"] == 1 and samples["craft_bot_state", "ended"] == 0
    assert samples["craft_bot_updates_total", ""] >= 1 and samples["craft_bot_restarts_total", ""] == 0
    for path in ("/choices", "/v1/models"):
        refused = place.shim.call("GET", path)
        assert refused.status_code == 401 and f"https://t.me/{USERNAME}" in refused.text
    assert place.shim.call("GET", "/page/bot.json").json() == {"name": USERNAME, "url": f"https://t.me/{USERNAME}"}
    with chromium() as browser:
        page = browser.new_page()
        page.goto(place.shim.url)
        expect(page.get_by_role("link", name=f"@{USERNAME}")).to_have_attribute("href", f"https://t.me/{USERNAME}")
        page.close()
    assert place.works(key) == (200, "")


def test_its_death_is_made_up_for_and_touches_nothing(place: Place) -> None:
    key = place.gives(2)
    first = _awaits(place, RUNNING)
    os.kill(first.pid, signal.SIGKILL)
    assert _draws(place, key)
    assert first.restarts == 0
    place.telegram.until(lambda: _bot(place).restarts == 1 and _bot(place).state == RUNNING, "it runs again")
    assert _bot(place).pid != first.pid and place.works(place.gives(3)) == (200, "")
    assert "signal SIGKILL" in place.shim.home.log


def test_it_ends_with_its_daemon_and_comes_back_with_it(place: Place) -> None:
    key, pid = place.gives(4), _awaits(place, RUNNING).pid
    place.kill_daemon()
    place.telegram.until(lambda: not _is_alive(pid), "the bot ends, too")
    place.user(4).send("/status")
    place.start_daemon()
    place.user(4).hears("is active")
    assert place.works(key) == (200, "")
    pid = _awaits(place, RUNNING).pid
    place.shim.process.send_signal(signal.SIGTERM)
    assert place.shim.process.wait(HANG_S) == 0 and not _is_alive(pid)
    place.start_daemon()
    _awaits(place, RUNNING)


def test_telegrams_outage_is_a_line_in_the_status(place: Place) -> None:
    key = place.gives(5)
    place.telegram.fail_all(Fault(502, body=b"<html>Bad Gateway</html>"))
    bot = _awaits(place, TROUBLED)
    assert "Telegram does not answer" in bot.problem and bot.restarts == 0 and _draws(place, key)
    assert bot.api_errors >= 1
    place.telegram.fail_all(None)
    assert _awaits(place, RUNNING).problem == ""
    assert place.works(place.gives(6)) == (200, "")


def test_lost_rights_are_a_line_in_the_status(place: Place) -> None:
    place.gives(7)
    place.telegram.bot_status = "left"
    place.user(8).ask("/key")
    assert "members are not known" in _awaits(place, TROUBLED).problem
    place.telegram.bot_status = "administrator"
    assert _awaits(place, RUNNING).problem == ""


def test_a_bad_token_touches_nothing_and_is_in_no_log(place: Place) -> None:
    key = place.gives(9)
    place.telegram.token = "another"
    place.telegram.fail_all(Fault(401, "Unauthorized"))
    bot = _awaits(place, ENDED)
    assert "does not take the token" in bot.problem and bot.pid == 0 and _draws(place, key)
    place.telegram.token = TOKEN
    place.telegram.fail_all(None)
    _awaits(place, RUNNING)
    log = place.shim.home.log
    assert "does not take the token" in log and TOKEN not in log and key not in log
    assert TOKEN.partition(":")[2] not in log


def test_it_is_off_unless_asked_for() -> None:
    with running() as place:
        assert not place.shim.status().HasField("bot")
        answer = place.shim.call("GET", "/choices")
        assert answer.status_code == 401 and "t.me" not in answer.text
        assert place.shim.call("GET", "/page/bot.json").json() == {"name": "", "url": ""}


@pytest.mark.parametrize(
    ("setting", "value", "why"),
    [
        ("CRAFT_TELEGRAM_TOKEN_FILE", "/nowhere/token", "cannot be read"),
        ("CRAFT_TELEGRAM_CHANNEL", "", "telegram.channel: is not set"),
        ("CRAFT_TELEGRAM_TEXTS_FILE", "/nowhere/texts", "cannot be read"),
    ],
)
def test_a_wrong_configuration_is_a_line_in_the_status(setting: str, value: str, why: str) -> None:
    with running(supervised=True, **{setting: value}) as place:
        bot = _awaits(place, ENDED)
        assert why in bot.problem and _draws(place, place.shim.key("alice"))
