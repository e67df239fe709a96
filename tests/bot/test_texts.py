"""The answers: from one file that can be replaced; values never become markup; long ones are split."""

from __future__ import annotations

from pathlib import Path

import pytest
from craft_protos.reasons import CraftError
from craftd.bot import texts
from craftd.bot.logs import Lines, redacted
from hypothesis import given
from hypothesis import strategies as st

from tests.bot.markdown import plain
from tests.bot.place import PLENTY, running
from tests.bot.telegram import TOKEN

_TELEGRAMS_LIMIT = 4096


def _file(folder: Path, text: str) -> str:
    path = folder / "answers.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_every_text_is_markdown_that_telegram_takes() -> None:
    own = texts.load()
    for name in own.templates:
        values = dict.fromkeys(texts._names(own.templates[name], "", name), "a_value.*[with](marks)~`>#+-=|{}!\\")
        assert "".join(map(plain, own.messages(name, **values)))


@given(value=st.text(max_size=200), name=st.sampled_from(["failed", "have_key", "draw_failed"]))
def test_no_value_becomes_markup(value: str, name: str) -> None:
    own = texts.load()
    values = dict.fromkeys(texts._names(own.templates[name], "", name), value)
    said = "".join(map(plain, own.messages(name, **values)))
    assert said == own.line(name, **values)


@given(
    piece=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=400),
    length=st.integers(5000, 12_000),
)
def test_long_answers_are_split_and_nothing_is_lost(piece: str, length: int) -> None:
    value = (piece * length)[:length]  # hypothesis makes no long texts itself, and says so now and then
    said = [plain(part) for part in texts.Texts({"x": "{value}"}).messages("x", value=value)]
    assert all(0 < len(part.encode("utf-16-le")) // 2 <= _TELEGRAMS_LIMIT for part in said)
    assert "".join(said).strip() == texts.Texts({"x": "{value}"}).line("x", value=value).strip()


def test_they_are_split_between_lines_and_code_stays_code() -> None:
    lines = "\n".join(f"line {number} of many" for number in range(600))
    parts = texts.Texts({"x": "Before: `{value}` after."}).messages("x", value=lines)
    assert len(parts) > 2 and all(part.count("`") == 2 for part in parts)
    assert all(plain(part).splitlines()[-1].endswith(("many", "after.")) for part in parts)


def test_another_file_says_it_in_other_words(tmp_path: Path) -> None:
    path = _file(
        tmp_path, 'unknown = "Das kenne ich nicht."\nplaceholder = "Gleich."\nkey = "Dein Schlüssel: `{key}`"\n'
    )
    own = texts.load(path)
    assert own.line("unknown") == "Das kenne ich nicht." and own.line("no") == "No"
    with running(PLENTY, CRAFT_TELEGRAM_TEXTS_FILE=path) as place:
        bot = place.start()
        user = place.user(1)
        user.becomes("member", is_told=False)
        assert user.ask("/what").text == "Das kenne ich nicht."
        user.send("/key")
        user.hears("Dein Schlüssel: craft_")
        assert "texts are missing: said in English" in bot.output


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('nonsense = "x"', "there is no text 'nonsense'"),
        ('unknown = "{name}"', "there is no value {name}"),
        ('unknown = "{"', "unknown: "),
        ('failed = "{why!r}"', "a value is written"),
        ('failed = "{why:>10}"', "a value is written"),
        ('failed = "{why.x}"', "there is no value"),
        ('failed = "{}"', "there is no value"),
        ('unknown = "a ` b"', "a backtick has no other"),
        ('unknown = ""', "unknown is no text"),
        ("unknown = 5", "unknown is no text"),
        ("unknown", "cannot be read"),
        (f'key = "{"x" * 2000}"', "longer than"),
    ],
)
def test_a_file_that_will_not_do_is_named_with_the_text_at_fault(tmp_path: Path, text: str, why: str) -> None:
    path = _file(tmp_path, text)
    with pytest.raises(CraftError) as caught:
        texts.load(path)
    assert caught.value.reason == "CONFIG_INVALID" and why in caught.value.message and path in caught.value.message


def test_what_is_secret_is_struck_out_of_logs() -> None:
    import logging

    from craft_protos import api_key

    key = api_key.new()
    record = logging.LogRecord("x", 40, "f", 1, "sent %s", (key.text,), None)
    record.url = f"https://api.telegram.org/bot{TOKEN}/getMe"
    try:
        raise ValueError(f"The token `{TOKEN}` was rejected; {key!r}")
    except ValueError as exc:
        record.exc_info = (type(exc), exc, exc.__traceback__)
    line = Lines().format(record)
    assert key.secret not in line and TOKEN not in line and TOKEN.partition(":")[2] not in line
    assert f"craft_{key.id}_<secret>" in line and "Traceback" in line and redacted(TOKEN) == "<token>"
