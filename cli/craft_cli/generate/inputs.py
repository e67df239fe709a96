"""Pictures that are drawn from: read where an option or a batch line names them, and sent once, before the job."""

from __future__ import annotations

import hashlib
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from craft_protos import files
from craft_protos.frozen import dataclass
from craft_protos.generate import FITS, MOST_MASK_PIXELS, Control, GenerateRequest, Mask, Reference, Start
from craft_protos.reasons import CraftError
from craft_protos.rules import Choice, Range, ruled

from craft_cli import errors
from craft_cli.generate import controls, drawing

if TYPE_CHECKING:
    from craft_protos import inputs_pb2

    from craft_cli.connection.client import Client
    from craft_cli.connection.session import Session
    from craft_cli.render.render import TransferProgress

STDIN = "-"
_MOST_BYTES = 256 << 20  # the daemon has a limit of its own
_CHUNK_BYTES = 1 << 20
_LARGE_BYTES = 4 << 20  # whoever sends less sees no progress
_UNLIKE = 0.02  # of a mask's shape against its picture's, before it is said


@dataclass(frozen=True)
class Wish:
    """What options, or a batch's line, say of pictures; None: nothing.

    `image`, `mask`, each of `refs`: a path, - or a picture's id.
    """

    image: str | None = None
    strength: float | None = ruled(None, Range(0, 1))
    fit: str | None = ruled(None, Choice(FITS))
    mask: str | None = None
    mask_blur: float | None = ruled(None, Range(0, MOST_MASK_PIXELS))
    mask_grow: int | None = ruled(None, Range(-MOST_MASK_PIXELS, MOST_MASK_PIXELS))
    mask_invert: bool | None = None
    mask_padding: int | None = ruled(None, Range(0, MOST_MASK_PIXELS))
    refs: tuple[str, ...] | None = None
    control: tuple[str, ...] | None = None  # as --control has them
    control_model: tuple[str, ...] | None = None
    control_steps: str | None = None

    @property
    def without_start(self) -> Wish:
        return replace(self, image=None, strength=None, fit=None)

    @property
    def without_mask(self) -> Wish:
        return replace(self, mask=None, mask_blur=None, mask_grow=None, mask_invert=None, mask_padding=None)

    @property
    def without_controls(self) -> Wish:
        return replace(self, control=None, control_model=None, control_steps=None)

    @property
    def of_controls(self) -> dict[str, Any]:
        return _said(model=self.control_model, steps=self.control_steps)

    @property
    def of_start(self) -> dict[str, Any]:
        return _said(strength=self.strength, fit=self.fit)

    @property
    def of_mask(self) -> dict[str, Any]:
        return _said(blur=self.mask_blur, grow=self.mask_grow, invert=self.mask_invert, padding=self.mask_padding)


@dataclass(frozen=True)
class Picture:
    """One that was read: what its user calls it, and its bytes."""

    name: str
    data: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


class Pictures:
    """Those of one command. `progress`: whether somebody sees it. Threads may send at the same time."""

    def __init__(self, session: Session, *, has_progress: bool = False) -> None:
        self._session = session
        self._has_progress = has_progress
        self._read: dict[str, Picture] = {}  # by sha256
        self._sent: dict[str, inputs_pb2.Input] = {}
        self._locks = defaultdict[str, threading.Lock](threading.Lock)
        self._said: set[str] = set()

    def attach(self, asked: GenerateRequest, wish: Wish) -> GenerateRequest:
        """The request with the pictures that are wished for. Raises USAGE, NO_INPUT, BAD_INPUT and what files raise."""
        start, mask = asked.start, asked.mask
        if wish.image is not None:
            start = Start(self.read(wish.image).sha256)
        if wish.mask is not None:
            mask = Mask(self.read(wish.mask).sha256)
        if start is not None:
            start = replace(start, **wish.of_start)
        if mask is not None:
            mask = replace(mask, **wish.of_mask)
        references = asked.references if wish.refs is None else self._shown(wish.refs)
        shown = asked.controls if wish.control is None else self._controls(wish)
        return replace(asked, start=start, mask=mask, references=references, controls=shown)

    def read(self, name: str) -> Picture:
        """A file, stdin, or a picture that craft has made."""
        picture = Picture("stdin" if name == STDIN else name, self._bytes(name))
        if not picture.data:
            raise CraftError("BAD_INPUT", f"{picture.name} is empty", "give a PNG, JPEG or WebP")
        return self._read.setdefault(picture.sha256, picture)

    def send(self, asked: GenerateRequest) -> None:
        """Those of the request that were read here, each once, and none that the daemon has. Raises BAD_INPUT, ..."""
        start = self._send(asked.start)
        mask = self._send(asked.mask)
        if start is not None and mask is not None:
            self._compare(start, mask)
        shown: tuple[Reference | Control, ...] = (*asked.references, *asked.controls)
        for one in shown:
            self._send(one)

    def is_there(self, sha256: str) -> bool:
        """Whether the daemon has it for this caller."""
        return drawing.insist(self._session, lambda client: client.find_input(sha256)).HasField("input")

    def _shown(self, names: Iterable[str]) -> tuple[Reference, ...]:
        return tuple(Reference(self.read(name).sha256) for name in names)

    def _controls(self, wish: Wish) -> tuple[Control, ...]:
        def read(path: str) -> str:
            return self.read(path).sha256

        return controls.asked(wish.control or (), wish.control_model or (), wish.control_steps, read)

    def _bytes(self, name: str) -> bytes:
        if name != STDIN and not files.is_there(name) and _may_be_id(name):
            return self._fetched(name)
        if name.lower().startswith(("http://", "https://")) and not files.is_there(name):
            raise CraftError(
                "NO_INPUT",
                f"{files.shown(name)} is an address, and craft fetches nothing",
                "save it, and give its path",
            )
        if files.is_folder(name):
            raise CraftError("NO_INPUT", f"{files.shown(name)} is a folder", "name a picture in it")
        try:
            if name == STDIN:
                data = sys.stdin.buffer.read(_MOST_BYTES + 1)
            else:
                with Path(name).open("rb") as file:
                    data = file.read(_MOST_BYTES + 1)
        except (OSError, ValueError) as error:
            why = error if isinstance(error, OSError) else OSError(0, str(error))
            raise files.unreadable(name, why, "give the path of a picture, or the id of one of craft's") from error
        if len(data) > _MOST_BYTES:
            raise CraftError(
                "BAD_INPUT", f"{files.shown(name)} has more than {_MOST_BYTES >> 20} MiB", "make it smaller"
            )
        return data

    def _fetched(self, image_id: str) -> bytes:
        try:
            return drawing.insist(self._session, lambda client: client.get_image(image_id))[1]
        except CraftError as error:
            if error.reason != "UNKNOWN_IMAGE":
                raise
            message = f"there is no file {image_id}, and no picture of craft's with that id"
            raise CraftError("NO_INPUT", message, "see `craft images list`") from error

    def _send(self, one: Start | Mask | Reference | Control | None) -> inputs_pb2.Input | None:
        picture = self._read.get(one.sha256) if one is not None else None
        if picture is None:
            return None
        with self._locks[picture.sha256]:
            if picture.sha256 not in self._sent:
                self._sent[picture.sha256] = self._sent_now(picture)
            return self._sent[picture.sha256]

    def _sent_now(self, picture: Picture) -> inputs_pb2.Input:
        sha256 = picture.sha256
        with self._progress(len(picture.data)) as progress:

            def tell(done: int) -> None:
                if progress is not None:
                    progress.see(f"sending {picture.name}", done, len(picture.data))

            try:
                return drawing.insist(self._session, lambda client: _put(client, sha256, picture.data, tell))
            except CraftError as error:
                if error.reason != "BAD_INPUT":
                    raise
                why = error.message.removeprefix("picture: ")
                raise CraftError("BAD_INPUT", f"{files.shown(picture.name)}: {why}", error.hint) from error

    def _compare(self, start: inputs_pb2.Input, mask: inputs_pb2.Input) -> None:
        """Say once that a mask of another shape than its picture's is stretched."""
        if abs(mask.width * start.height / (mask.height * start.width) - 1) <= _UNLIKE:
            return
        name, sizes = self._read[mask.sha256].name, f"{mask.width}x{mask.height}"
        line = (
            f"craft: {name} is {sizes}, of another shape than the picture's {start.width}x{start.height}: it is scaled"
        )
        if line not in self._said:
            self._said.add(line)
            errors.say(errors.one_line(line))

    def _progress(self, size_bytes: int) -> AbstractContextManager[TransferProgress | None]:
        if size_bytes < _LARGE_BYTES or not self._has_progress:
            return nullcontext()
        from craft_cli.render.render import TransferProgress

        return TransferProgress()


def _put(client: Client, sha256: str, data: bytes, tell: Callable[[int], None]) -> inputs_pb2.Input:
    """What the daemon does not have of it goes there."""
    found = client.find_input(sha256)
    if found.HasField("input"):
        return found.input
    offset = min(found.received_bytes, len(data))
    try:
        return client.put_input(_parts(sha256, data, offset, tell))
    except CraftError as error:
        if error.reason != "CORRUPT_FILE" or not offset:
            raise
    return client.put_input(_parts(sha256, data, 0, tell))  # what was there is damaged


def _parts(sha256: str, data: bytes, offset: int, tell: Callable[[int], None]) -> Iterator[inputs_pb2.PutInputRequest]:
    """What is sent of a picture of which so many bytes are there."""
    from craft_protos import inputs_pb2

    kinds = inputs_pb2.PutInputRequest
    yield kinds(header=kinds.Header(sha256=sha256, size_bytes=len(data), offset=offset))
    for at in range(offset, len(data), _CHUNK_BYTES):
        yield kinds(chunk=data[at : at + _CHUNK_BYTES])
        tell(min(at + _CHUNK_BYTES, len(data)))


def refuse_clashes(wish: Wish, *, reads_stdin: bool, is_batch: bool, is_hires: bool) -> None:
    """What cannot be done together, or would do nothing. Raises USAGE."""
    for option, picture in (("--image", wish.image), ("--mask", wish.mask), ("--ref", wish.refs)):
        if is_hires and picture:
            hint = "leave one of them out; a start picture is drawn larger by -W and -H"
            raise CraftError("USAGE", f"--hires does not go with {option}: it draws from words", hint)
    references = (("--ref", name) for name in wish.refs or ())
    shown = (("--control", path) for path in controls.paths(wish.control or ()))
    named = (("--image", wish.image), ("--mask", wish.mask), *references, *shown)
    users = [option for option, name in named if name == STDIN]
    if len(users) > 1:
        message = f"{users[0]} - does not go with {users[1]} -"
        raise CraftError("USAGE", message, "stdin is read once: give one of them a file")
    if users and reads_stdin:
        hint = "the lines come from stdin: give it a file" if is_batch else "give the prompt as an argument"
        raise CraftError(
            "USAGE", f"{users[0]} - takes stdin, and so would {'--batch -' if is_batch else 'the prompt'}", hint
        )
    if is_batch:
        return
    if wish.image is None and (wish.of_start or wish.mask is not None):
        option = "--mask" if wish.mask is not None else f"--{next(iter(wish.of_start))}"
        raise CraftError("USAGE", f"{option} does nothing without --image", "-i PATH gives the picture to begin from")
    if not wish.control and wish.of_controls:
        option = f"--control-{next(iter(wish.of_controls))}"
        raise CraftError(
            "USAGE", f"{option} does nothing without --control", "--control KIND=PATH shows where things are"
        )
    if wish.mask is None and wish.of_mask:
        option = f"--mask-{next(iter(wish.of_mask))}"
        raise CraftError(
            "USAGE", f"{option} does nothing without --mask", "--mask PATH shows in white what is drawn anew"
        )


def _said(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _may_be_id(name: str) -> bool:
    from craft_protos import api_key

    return bool(name) and all(character in api_key.ALPHABET for character in name)
