"""`generate --batch`: a line in, a JSON line out, in order, many jobs under way at once.

Each line is a job of its own, created and watched by a thread of its own, at most
WINDOW at a time, so that the daemon can batch them. Only the main thread prints.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from craft_protos.reasons import CraftError

from craft_cli import drawing, errors, interrupts, output
from craft_cli.delivery import Delivery
from craft_cli.spec import Spec, from_line, request
from craft_cli.tally import Tally

if TYPE_CHECKING:
    from craft_protos import jobs_pb2

    from craft_cli.session import Session

WINDOW = 64
_BAD_LINE = (2, 65, 66)
_HOPELESS = ("DAEMON_UNREACHABLE", "DAEMON_MISSING", "UNAUTHENTICATED", "NOT_ALLOWED", "CONFIG_INVALID")
_DEFAULT_RETRY_S = 1.0
_BUSY = ("QUEUE_FULL", "RATE_LIMITED")


@dataclass(frozen=True)
class Plan:
    """What is the same for every line."""

    defaults: Spec
    default_model: str  # of lines that name neither one nor a LoRA
    out: str | None
    force: bool
    detach: bool
    max_count: int  # pictures of one line
    progress: TextIO | None = None  # a terminal

    def target(self, spec: Spec) -> output.Target:
        return output.target(self.out, many=True, file_format=spec.format or "png", force=self.force)


@dataclass
class _Line:
    """One line on its way."""

    number: int
    request: jobs_pb2.CreateJobRequest | None = None
    job_id: str = ""
    answer: Future[list[dict[str, Any]]] = field(default_factory=Future)


class Batch:
    """A running batch."""

    def __init__(self, session: Session, plan: Plan) -> None:
        self._session = session
        self._plan = plan
        self._lines: queue.Queue[_Line | Exception | None] = queue.Queue()  # None: the end; an error: no more come
        self._room = threading.Semaphore(WINDOW)
        self._stop = threading.Event()
        self._under_way: dict[int, _Line] = {}
        self._errors: list[CraftError] = []
        self._tally = Tally(plan.progress)
        self._next_n = 1
        self._has_jobs = False  # at a daemon; whoever stops that one wants it to stay so

    def run(self, source: Iterable[bytes]) -> int:
        """The exit code: 0, 65 if a line was bad, else that of the first job that failed."""
        _ = self._session.client
        with interrupts.raising():
            try:
                self._run(source)
            except interrupts.Interrupted as stop:
                self._withdraw(quiet=stop.is_closed_pipe)
                raise
            except Exception:  # whatever it is, nobody will take the rest
                self._withdraw(quiet=True)
                raise
        return self._exit_code()

    def _run(self, source: Iterable[bytes]) -> None:
        threading.Thread(target=self._read, args=(source,), daemon=True).start()
        try:
            self._print_all()
        finally:
            self._tally.close()

    def _print_all(self) -> None:
        while (line := self._lines.get()) is not None:
            if isinstance(line, Exception):
                raise line
            try:
                answers = line.answer.result()
            except CraftError as error:
                if error.reason in _HOPELESS:
                    raise
                self._errors.append(error)
                answers = [{"error": errors.as_dict(error), "line": line.number}]
            with self._tally.hidden():
                for answer in answers:
                    output.print_json(answer)
            del self._under_way[line.number]
            self._room.release()

    def _exit_code(self) -> int:
        if not self._errors:
            return 0
        errors.say(f"craft: {len(self._errors)} of the lines failed")
        codes = [error.exit_code for error in self._errors]
        return 65 if set(codes) & set(_BAD_LINE) else codes[0]

    def _read(self, source: Iterable[bytes]) -> None:
        """The reader's thread. However it ends, the main thread is told."""
        try:
            self._begin_all(source)
        except Exception as error:  # the thread's outermost frame: the main thread raises it again
            self._lines.put(error)
        else:
            self._tally.complete()
            self._lines.put(None)

    def _begin_all(self, source: Iterable[bytes]) -> None:
        """A line is begun when there is room for it."""
        for number, text in _lines_of(source):
            self._room.acquire()
            if self._stop.is_set():
                return
            line = _Line(number)
            line.answer.add_done_callback(lambda _: self._tally.finish())
            self._tally.begin()
            self._under_way[number] = line
            self._lines.put(line)
            self._begin(line, text)

    def _begin(self, line: _Line, text: bytes) -> None:
        """The line's job in a thread of its own; what goes wrong is the line's answer."""
        try:
            spec, first_n = self._prepare(line, text)
            threading.Thread(target=self._run_line, args=(line, spec, first_n), daemon=True).start()
        except Exception as error:  # the line's outermost frame here: the main thread raises it again
            line.answer.set_exception(error)

    def _prepare(self, line: _Line, text: bytes) -> tuple[Spec, int]:
        """What the line asks for, and its first {n}. Raises what is wrong with it."""
        spec, terms = from_line(_decoded(text), self._plan.defaults)
        spec.require_at_most(self._plan.max_count)
        spec = spec.with_default_model(self._plan.default_model).with_seed()
        line.request = request(spec, lease=not self._plan.detach, batch=True, terms=terms)
        first_n, self._next_n = self._next_n, self._next_n + spec.count
        return spec, first_n

    def _run_line(self, line: _Line, spec: Spec, first_n: int) -> None:
        """A line's thread."""
        try:
            line.answer.set_result(self._make(line, spec, first_n))
        except Exception as error:  # the thread's outermost frame: the main thread raises it again
            line.answer.set_exception(error)

    def _make(self, line: _Line, spec: Spec, first_n: int) -> list[dict[str, Any]]:
        target = self._plan.target(spec)
        if not self._plan.detach:
            target.check(output.pictures(spec, first_n))
        line.job_id = self._submit(line).id
        self._has_jobs = True
        if self._plan.detach:
            return [{"job": line.job_id}]
        delivery = Delivery(self._session, target, first_n)
        for event in drawing.follow(self._session, line.job_id):
            for _ in delivery.take(event, spec.prompt):
                pass
            if event.HasField("finished"):
                drawing.require_success(event.finished.job)
                return list(delivery.lines(event.finished.job))
        raise AssertionError("unreachable")

    def _submit(self, line: _Line) -> jobs_pb2.Job:
        """A full queue is no error here, nor a key's limit: the next place is ours."""
        assert line.request is not None
        while True:
            try:
                return drawing.submit(self._session, line.request, may_revive=not self._has_jobs)
            except CraftError as error:
                if error.reason not in _BUSY or self._stop.wait(error.retry_after_s or _DEFAULT_RETRY_S):
                    raise

    def _withdraw(self, *, quiet: bool) -> None:
        """Cancel what is under way."""
        self._stop.set()
        for line in [line for line in list(self._under_way.values()) if not line.answer.done()]:
            said = drawing.withdraw(self._session, line.request, line.job_id)
            if not quiet:
                errors.say(f"craft: line {line.number}: {said}")


def _lines_of(source: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Numbered from 1; blank ones are passed over. Raises NO_INPUT."""
    try:
        for number, line in enumerate(source, 1):
            if line.strip():
                yield number, line.rstrip(b"\r\n")
    except OSError as error:
        message = f"the batch cannot be read on: {error.strerror or error}"
        raise CraftError("NO_INPUT", message, "give --batch a file of lines, or -") from error


def _decoded(text: bytes) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CraftError(
            "BAD_DATA", f"not UTF-8: {error.reason} at byte {error.start}", "convert it with iconv"
        ) from error
