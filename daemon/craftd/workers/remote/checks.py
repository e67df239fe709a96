"""What a worker on another machine may say: about the jobs that it was given, in their formats, and no more than fits.

It is trusted with the pictures of these jobs, and with nothing else: it cannot name a file, make a message of another
type of what is shown in browsers, or fill the front's memory.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable

from craft_protos.formats import FORMATS
from craft_protos.frames import BadFrame
from craft_protos.worker_pb2 import FromWorker, ToWorker

from craftd.workers.remote.line import required_sha256

_MOST_STRANGE, _STRANGE_S = 256, 60.0
_LONGEST = 4000  # characters of a text
_LONGEST_PROVENANCE = 4 << 20
_LARGEST_PREVIEW = 16 << 20
_LARGEST_NUMBER = 1 << 50
_MOST_WARNINGS = 32
_STARTS = {"image/png": (b"\x89PNG\r\n\x1a\n",), "image/jpeg": (b"\xff\xd8\xff",), "image/webp": (b"RIFF",)}
_OF_JOBS = {"started", "step", "image", "done", "failed", "preparing", "training", "sample", "checkpoint", "lora"}
_TEXTS = {"loaded": "notice", "started": "notice", "stats": "doing", "preparing": "what", "unloaded": "why"}
_OF_MODELS = {"loading", "loaded", "unloaded", "load_failed"}


class Strange:
    """Counts what is ignored: some of it comes late after a line broke, and much of it is no accident."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = clock()
        self._count = 0

    def note(self) -> None:
        """Raises BadFrame when it becomes too much."""
        now = self._clock()
        if now - self._since > _STRANGE_S:
            self._since, self._count = now, 0
        self._count += 1
        if self._count > _MOST_STRANGE:
            raise BadFrame(f"more than {_MOST_STRANGE} frames a minute about what it was not given")


class Given:
    """What one life of a worker's process was given, and so may speak of."""

    def __init__(self) -> None:
        self._jobs: set[tuple[str, int]] = set()
        self._models: set[str] = set()

    def note(self, frame: ToWorker) -> None:
        match frame.WhichOneof("frame"):
            case "dispatch":
                dispatch = frame.dispatch
                self._jobs.add((dispatch.job_id, dispatch.epoch))
                self._models.update(one.name for one in (dispatch.model, *dispatch.controls, *dispatch.later_models))
            case "load":
                self._models.add(frame.load.model.name)

    def allows(self, frame: FromWorker) -> bool:
        """False for a frame about what it was not given. Raises BadFrame for one that cannot be right."""
        kind = frame.WhichOneof("frame")
        if kind in _OF_JOBS:
            told = getattr(frame, kind)
            if (told.job_id, told.epoch) not in self._jobs:
                return False
            if kind in ("done", "failed"):
                self._jobs.discard((told.job_id, told.epoch))
        elif kind in _OF_MODELS and getattr(frame, kind).model not in self._models:
            return False
        check(frame)
        return True


def check(frame: FromWorker) -> None:
    """Raises BadFrame."""
    match frame.WhichOneof("frame"):
        case "hello":
            _check_hello(frame.hello)
        case "image":
            _check_image(frame.image)
        case "step":
            _require(len(frame.step.preview) <= _LARGEST_PREVIEW, "a preview of so many bytes")
        case "sample":
            _require(_is_picture(frame.sample.sample.data, frame.sample.sample.media_type), "a sample that is none")
        case "checkpoint":
            required_sha256(frame.checkpoint.sha256)
            _check_numbers(frame.checkpoint.size_bytes)
        case "lora":
            required_sha256(frame.lora.sha256)
            _check_numbers(frame.lora.size_bytes)
            preview = frame.lora.preview
            _require(not preview or _is_picture(preview, "image/png"), "a preview that is none")
        case "loaded":
            _check_numbers(frame.loaded.resident_bytes)
        case "stats":
            _check_numbers(frame.stats.rss_bytes, frame.stats.device_bytes, frame.stats.predict_calls)
    _check_texts(_texts_of(frame))


def _texts_of(frame: FromWorker) -> Iterable[str]:
    """What of it users may be shown."""
    kind = frame.WhichOneof("frame") or ""
    if kind in ("failed", "load_failed"):
        error = getattr(frame, kind).error
        return error.message, error.hint
    return (getattr(getattr(frame, kind), _TEXTS[kind]),) if kind in _TEXTS else ()


def _check_hello(hello: FromWorker.Hello) -> None:
    texts = [hello.device, hello.device_name, hello.torch_version, hello.precision, hello.version]
    _check_texts([*texts, *hello.warnings])
    _require(len(hello.warnings) <= _MOST_WARNINGS, "so many warnings")
    _require(all(text.isprintable() for text in texts), "a name that cannot be printed")
    _check_numbers(hello.device_bytes)
    _require(hello.capacity_rows <= 1024, "so large a capacity")


def _check_image(image: FromWorker.ImageDone) -> None:
    known = {one.media_type for one in FORMATS.values()}
    is_right = image.media_type in known and _is_picture(image.data, image.media_type)
    _require(is_right, "a picture in no format of craft's")
    _require(0 < image.width <= 1 << 20 and 0 < image.height <= 1 << 20, "a picture of that size")
    _require(len(image.provenance) <= _LONGEST_PROVENANCE, "so long a provenance")
    times = (image.load_s, image.denoise_s)
    _require(all(math.isfinite(one) and 0 <= one < 1e9 for one in times), "times that cannot be")


def _is_picture(data: bytes, media_type: str) -> bool:
    return data.startswith(_STARTS.get(media_type, ()))


def _check_texts(texts: Iterable[str]) -> None:
    _require(all(len(text) <= _LONGEST for text in texts), "so long a text")


def _check_numbers(*numbers: int) -> None:
    _require(all(number <= _LARGEST_NUMBER for number in numbers), "so large a number")


def _require(is_right: bool, what: str) -> None:
    if not is_right:
        raise BadFrame(what)
