"""What the bot logs: lines on stderr, without its token and without keys, whoever logs them."""

from __future__ import annotations

import logging
import re
import sys

_KEY = re.compile(r"craft_([0-9a-z]{10})_[0-9a-z]{8,}", re.IGNORECASE)  # the library capitalizes what Telegram says
_TOKEN = re.compile(r"\d{3,20}:[A-Za-z0-9_-]{20,}")
_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
# They log whole requests: addresses that hold the token, messages that hold keys. What fails is logged here.
_TALKATIVE = ("telegram", "httpx", "httpcore", "grpc")


class Lines(logging.Formatter):
    """`level event name=value ...`, then the traceback; secrets are struck out of all of it."""

    def format(self, record: logging.LogRecord) -> str:
        extra = [f"{name}={value}" for name, value in vars(record).items() if name not in _STANDARD]
        lines = [" ".join([record.levelname.lower(), record.getMessage(), *extra])]
        if record.exc_info:
            lines.append(self.formatException(record.exc_info))
        return redacted("\n".join(lines))


def redacted(text: str) -> str:
    """Without tokens and the secret part of keys."""
    return _TOKEN.sub("<token>", _KEY.sub(r"craft_\1_<secret>", text))


def open_log(level: str) -> None:
    """Have everything that is logged written to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines())
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
