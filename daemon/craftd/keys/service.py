"""Keys: made, checked, suspended, banned.

All keys are in memory, so that a request costs no query; the store is written first, and
what it holds then is what memory holds.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
import time
import unicodedata
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import apsw
from craft_protos.api_key import Presented, new, parse
from craft_protos.reasons import CraftError, invalid
from craft_protos.settings import DEFAULT_TIER, Settings

from craftd.keys import adminfile, table
from craftd.keys.caller import LOCAL, Caller, Role
from craftd.keys.failures import Failures
from craftd.keys.key import Key, State, folded, sha256_of
from craftd.keys.rates import Rate, Rates
from craftd.store.database import Database, Work

_log = logging.getLogger("craft.keys")
_WRITE_USE_EVERY_S = 60.0
_LONGEST_OWNER = 100
_FILE_OWNER = "admin"


class KeyService:
    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._keys: tuple[Key, ...] = ()
        self._by_id: dict[str, Key] = {}
        self._used: dict[str, float] = {}  # not written yet
        self._failures = Failures(settings.keys.failures_per_minute)
        self.bot = ""  # the Telegram bot that gives keys, while it runs; its name without the @

    async def open(self) -> None:
        """Before anyone calls. Raises CONFIG_INVALID."""
        await self._change(lambda _: None)
        if path := self._settings.keys.admin_key_file:
            await self._register(await asyncio.to_thread(adminfile.load, Path(path)))

    async def run(self) -> None:
        """Write now and then when keys were last used."""
        while True:
            await asyncio.sleep(_WRITE_USE_EVERY_S)
            await self.flush()

    async def flush(self) -> None:
        """What could not be written (a full disk) is written the next time."""
        used, self._used = self._used, {}
        try:
            if used:
                await self._change(lambda connection: table.note_used(connection, used))
        except CraftError as exc:
            self._used = used | self._used
            _log.error("the keys' last use was not written", extra={"why": exc.message})

    # Who calls

    def authenticate(self, presented: str, peer: str) -> Caller:
        """`peer`: the address it comes from. Raises UNAUTHENTICATED, RATE_LIMITED, KEY_SUSPENDED, KEY_BANNED."""
        found = parse(presented)
        key = self._by_id.get(found.id) if found is not None else None
        if found is None or key is None or not key.fits(found.secret):
            raise self._refusal(presented, found, peer)
        _require_live(key)
        self._used[key.id] = time.time()
        return key.caller

    def caller_for(self, owner: str) -> Caller:
        """The caller that the owner would be with their key. Raises UNKNOWN_KEY, KEY_SUSPENDED, KEY_BANNED."""
        key = self.get(owner)
        _require_live(key)
        return key.caller

    def caller_of(self, name: str) -> Caller:
        """Whoever has that name, as the caller that they would be, whatever becomes of their key."""
        key = next((key for key in self._keys if key.id and folded(key.owner) == folded(name)), None)
        return LOCAL if name == LOCAL.owner else Caller(name, Role.USER if key is None else key.role)

    def check(self, caller: Caller) -> None:
        """Whether the key is still what it was, in a call that lasts. Raises as `authenticate`."""
        if not caller.key_id:
            return
        key = self._by_id.get(caller.key_id)
        if key is None:
            raise self._unauthenticated("the key was deleted")
        _require_live(key)

    def expect_callers(self) -> None:
        """From afar. Loads what counting their requests takes: the first would hold the loop for that."""
        _ = self._rates

    def note_bot(self, username: str) -> None:
        """The Telegram bot that gives keys now; "" where none runs."""
        self.bot = username

    async def count(self, caller: Caller) -> Rate:
        """Count a request, also one that is too many."""
        if not caller.key_id:
            return Rate()
        return await self._rates.hit(caller.key_id, self._settings.tier(caller.tier).requests_per_minute)

    async def rate_of(self, key: Key) -> Rate:
        """How a key stands, without a request being counted."""
        return await self._rates.look(key.id, self._settings.tier(key.tier).requests_per_minute)

    @property
    def has_some(self) -> bool:
        """Whether anyone could call from afar."""
        return any(key.state is State.ACTIVE for key in self._keys)

    # For admins

    async def create(
        self, owner: str, role: Role, tier: str = "", *, secret: str = "", replaces: str = ""
    ) -> tuple[Key, str]:
        """(what is known of the new key, the key itself). Raises INVALID_FIELD, KEY_EXISTS, KEY_BANNED, KEY_SUSPENDED.

        With a `secret` of the caller's the same call again is answered as the first was.
        """
        owner = _checked_owner(owner)
        presented, tier = _checked_secret(secret) if secret else new(), tier or DEFAULT_TIER
        known = sorted({DEFAULT_TIER, *self._settings.tiers})
        if tier not in known:
            raise invalid("tier", f"there is no tier {tier[:64]!r}", f"known: {', '.join(known)}; see docs/keys.md")
        key = Key(presented.id, owner, role, tier, sha256_of(presented.secret), time.time())
        await self._change(lambda connection: table.insert_once(connection, key, replaces))
        _log.info("key created", extra={"key": key.id, "owner": owner, "replaces": replaces})
        return self.get(presented.id), presented.text

    def get(self, name: str) -> Key:
        """By the key's id or its owner. Raises UNKNOWN_KEY."""
        return self._find(name)

    def list(self) -> list[Key]:
        """By owner."""
        return [self._current(key) for key in self._keys]

    async def suspend(self, name: str, *, lapsed: bool = False) -> Key:
        """By the key's id or its owner. What runs goes on. `lapsed`: with the subscription. Raises UNKNOWN_KEY."""
        key = self._find(name)
        await self._change(lambda connection: table.suspend(connection, key.id, lapsed=lapsed))
        _log.info("key suspended", extra={"key": key.id, "owner": key.owner, "lapsed": lapsed})
        return self._find(key.owner)

    async def resume(self, name: str, *, lapsed: bool = False) -> Key:
        """The same key works again; `lapsed`: unless an admin suspended it. Raises UNKNOWN_KEY, KEY_BANNED."""
        if (key := self._find(name)).is_banned:
            raise _banned(key)
        await self._change(lambda connection: table.resume(connection, key.id, lapsed=lapsed))
        _log.info("key resumed", extra={"key": key.id, "owner": key.owner, "lapsed": lapsed})
        return self._find(key.owner)

    async def ban(self, name: str, *, without_key: bool = False) -> Key:
        """The owner, for good; `without_key`: by name, whether they have a key or not. Raises UNKNOWN_KEY."""
        owner = _checked_owner(name) if without_key else self._find(name).owner
        await self._change(lambda connection: table.ban(connection, owner))
        key = self._find(owner)
        _log.info("owner banned", extra={"key": key.id, "owner": owner})
        return key

    async def forget(self, owner: str) -> bool:
        """Delete the owner's key, if there is one. False: an admin suspended it, and so it stays."""
        for key in self._keys:
            if key.id and folded(key.owner) == folded(owner):
                if key.is_suspended:
                    return False
                await self.delete(key.id)
        return True

    async def delete(self, name: str) -> None:
        """Its owner's jobs and images stay, and so does a ban. Raises UNKNOWN_KEY."""
        key = self._find(name)
        if not key.id:
            raise CraftError("UNKNOWN_KEY", f"{key.owner} is banned and has no key any more", "a ban is for good")
        await self._change(lambda connection: table.delete(connection, key.id))
        _log.info("key deleted", extra={"key": key.id, "owner": key.owner})

    async def _register(self, presented: Presented) -> None:
        """Unless it is an admin's already; another key that the file's owner had goes."""
        known = self._by_id.get(presented.id)
        if known is not None and known.fits(presented.secret) and known.role is Role.ADMIN:
            return
        key = Key(presented.id, _FILE_OWNER, Role.ADMIN, DEFAULT_TIER, sha256_of(presented.secret), time.time())
        await self._change(lambda connection: table.replace(connection, key))
        _log.info("key of the file registered", extra={"key": key.id, "owner": key.owner})

    @cached_property
    def _rates(self) -> Rates:
        return Rates()

    def _find(self, name: str) -> Key:
        if found := self._by_id.get(name):
            return self._current(found)
        owner = folded(name)
        for key in self._keys:
            if folded(key.owner) == owner:
                return self._current(key)
        raise self._unknown(name)

    def _unknown(self, name: str) -> CraftError:
        if parse(name) is not None:
            return CraftError(
                "UNKNOWN_KEY", "that is a key itself", "give its id or its owner, and keep it to yourself"
            )
        near = difflib.get_close_matches(name, [key.owner for key in self._keys], n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "see `craft keys list`"
        return CraftError("UNKNOWN_KEY", f"no key has the id or the owner {name[:_LONGEST_OWNER]!r}", hint)

    def _current(self, key: Key) -> Key:
        return replace(key, last_used_time=self._used.get(key.id, key.last_used_time))

    def _refusal(self, presented: str, found: Presented | None, peer: str) -> CraftError:
        """Who shows no key guesses none: programs ask so first, and send theirs when they hear that one is needed."""
        if not presented:
            return self._unauthenticated("a key is needed")
        wait_s = self._failures.note(peer)
        if wait_s:
            return CraftError("RATE_LIMITED", "too many wrong keys from here", "wait", retry_after_s=wait_s)
        _log.warning("wrong key", extra={"peer": peer, "key": found.id if found else "malformed"})
        if found is None:
            return self._unauthenticated("that is no key of craft's, or not all of it")
        return self._unauthenticated("no such key")

    def _unauthenticated(self, why: str) -> CraftError:
        where = f"{_WHERE}; the Telegram bot @{self.bot} gives keys: https://t.me/{self.bot}" if self.bot else _WHERE
        return CraftError("UNAUTHENTICATED", why, where)

    async def _change(self, work: Work[None]) -> None:
        """Done, in the store and in memory, even when the caller goes away meanwhile."""

        def change(connection: apsw.Connection) -> tuple[Key, ...]:
            work(connection)
            return table.load(connection)

        changed = self._database.submit(change)
        changed.add_done_callback(self._on_changed)
        await asyncio.shield(changed)

    def _on_changed(self, changed: asyncio.Future[tuple[Key, ...]]) -> None:
        if not changed.cancelled() and changed.exception() is None:
            self._keys = changed.result()
            self._by_id = {key.id: key for key in self._keys if key.id}


def _require_live(key: Key) -> None:
    if key.is_banned:
        raise _banned(key)
    if key.is_suspended:
        raise CraftError("KEY_SUSPENDED", "this key is suspended", "it works again once it is resumed")
    if key.is_lapsed:
        message = "this key is suspended: its owner's subscription to the channel has lapsed"
        raise CraftError("KEY_SUSPENDED", message, "subscribe again, and it works again by itself")


def _banned(key: Key) -> CraftError:
    return CraftError("KEY_BANNED", f"the key's owner ({key.owner}) is banned", "a ban is for good")


_WHERE = "send the key that `craft keys create` printed, in CRAFT_API_KEY"


def _checked_secret(text: str) -> Presented:
    presented = parse(text)
    if presented is None:
        raise invalid("secret", "is no whole key", "craft_<id>_<secret><crc>, or leave it to the daemon")
    return presented


def _checked_owner(owner: str) -> str:
    owner = unicodedata.normalize("NFC", owner)
    if not 0 < len(owner) <= _LONGEST_OWNER or not owner.isprintable() or owner != owner.strip():
        raise invalid("owner", f"must be 1 to {_LONGEST_OWNER} printable characters", "a name, or an address")
    if folded(owner) == LOCAL.owner:
        raise invalid("owner", f"{owner!r} is who calls through the local socket", "take another name")
    if parse(owner) is not None:
        raise invalid("owner", "is a key itself", "keep it to yourself, and take a name")
    return owner
