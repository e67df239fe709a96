"""What answers are made of besides their texts: where the daemon answers HTTP, how states are called."""

from __future__ import annotations

from datetime import UTC, datetime

from craft_protos import keys_pb2
from craft_protos.settings import Settings

from craftd.bot.daemon import DaemonClient
from craftd.bot.texts import Texts


class Wording:
    def __init__(self, texts: Texts, daemon: DaemonClient, settings: Settings, username: str = "") -> None:
        self.texts = texts
        self._daemon = daemon
        self._settings = settings
        self.username = username

    @property
    def channel(self) -> str:
        """As a reader knows it: a number says nothing."""
        telegram = self._settings.telegram
        return telegram.channel if telegram.channel.startswith("@") else telegram.invite_url or "the channel"

    @property
    def link(self) -> str:
        return f"https://t.me/{self.username}"

    @property
    def invite(self) -> str:
        """Where one joins; "" where that is not known."""
        telegram = self._settings.telegram
        url = telegram.invite_url or (f"https://t.me/{telegram.channel[1:]}" if telegram.channel[:1] == "@" else "")
        return self.texts.line("join_at", url=url) if url else ""

    async def http(self) -> str:
        """Where programs send their requests to; "" where HTTP is off."""
        served = (await self._daemon.status()).http
        return (self._settings.http.public_url or served).rstrip("/") if served else ""

    async def help(self, *, is_admin: bool) -> list[str]:
        http, texts = await self.http(), self.texts
        where = texts.line("help_http", http=http) if http else texts.line("help_nowhere")
        draw = "\n" + texts.line("help_draw") if self._settings.telegram.draw else ""
        shown = texts.messages("help", channel=self.channel, draw=draw, join=self.invite, where=where)
        return shown + (texts.messages("help_admin") if is_admin else [])

    async def key(self, secret: str) -> str:
        """The one message that shows a key."""
        http, model = await self.http(), self._settings.generate.model or "pocket"
        use = "key_use_http" if http else "key_use_cli"
        parts = self.texts.messages("key", key=secret)
        used = self.texts.messages(use, key=secret, http=http, model=model)
        return "\n".join([*parts, *used])

    def state(self, key: keys_pb2.Key) -> str:
        if key.state == keys_pb2.KEY_STATE_BANNED:
            return self.texts.line("state_banned")
        if key.held:
            return self.texts.line("state_held")
        if key.lapsed:
            return self.texts.line("state_lapsed", channel=self.channel)
        return self.texts.line("state_active")


def moment(seconds: float) -> str:
    """Of people's time, in UTC: Telegram does not say where they are."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
