"""`generate --batch`: a line in, a JSON line out, in order, many jobs under way at once.

Each line is a job of its own, created and watched by a thread of its own, at most
WINDOW at a time, so that the daemon can batch them. Only the main thread prints.
"""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TextIO

from craft_protos import files, texts
from craft_protos.generate import GenerateRequest
from craft_protos.reasons import CraftError, invalid

from craft_cli import errors, interrupts
from craft_cli.generate import drawing, output, planning, tables
from craft_cli.generate.delivery import Delivery
from craft_cli.generate.inputs import Pictures, Wish
from craft_cli.generate.spec import from_line, request, require_at_most, with_default_model, with_sides
from craft_cli.generate.sweeping import Combination
from craft_cli.generate.tally import Tally
from craft_cli.render import shapes

if TYPE_CHECKING:
    from craft_protos import jobs_pb2

    from craft_cli.connection.session import Session

WINDOW = 64
_BAD_LINE = (2, 65, 66)
_DEFAULT_RETRY_S = 1.0
_LEAVE_S = 2.0  # for the lines' threads, of which one may be about to write a file
_BUSY = ("QUEUE_FULL", "RATE_LIMITED")


@dataclass(frozen=True)
class Plan:
    """What is the same for every line."""

    defaults: GenerateRequest
    default_model: str  # of lines that name neither one nor a LoRA
    out: str | None
    force: bool
    detach: bool
    max_count: int  # pictures of one line
    progress: TextIO | None = None  # a terminal
    wish: Wish = field(default_factory=Wish)
    sides: tuple[int, int] = (0, 0)  # as they are configured
    sweep: Sequence[Combination] = (Combination(),)  # of which each line is drawn with all
    is_one: bool = False  # line, that of a command without --batch
    only_plan: bool = False
    as_json: bool = False  # asked for: then errors stand on stdout, too

    def target(self, spec: GenerateRequest) -> output.Target:
        self._require_format(spec)
        return output.target(
            self.out,
            many=not self.is_one or spec.count > 1,
            file_format=spec.format or "png",
            force=self.force,
            swept=self.sweep[0].names,
        )

    @property
    def prints_paths(self) -> bool:
        """Says whether stdout carries paths, as without a batch, rather than JSON."""
        return self.is_one and not self.as_json and not self.detach and not self.only_plan

    @property
    def shows_table(self) -> bool:
        """Says whether plans are read by somebody at a terminal."""
        return self.only_plan and not self.as_json and output.is_at_terminal()

    def _require_format(self, spec: GenerateRequest) -> None:
        """Raises INVALID_FIELD for a line whose file would not be what -o calls it."""
        try:
            output.require_format(self.out, spec.format or "png")
        except CraftError as error:
            raise invalid("format", error.message, error.hint) from error


@dataclass
class _Line:
    """One line on its way."""

    number: int
    combination: Combination
    request: jobs_pb2.CreateJobRequest | None = None
    job_id: str = ""
    answer: Future[list[dict[str, Any]]] = field(default_factory=Future)


class Batch:
    """A running batch."""

    def __init__(self, session: Session, plan: Plan) -> None:
        self._session = session
        self._plan = plan
        self._pictures = Pictures(session)
        self._lines: queue.Queue[_Line | Exception | None] = queue.Queue()  # None: the end; an error: no more come
        self._room = threading.Semaphore(WINDOW)
        self._stop = threading.Event()
        self._under_way: dict[int, _Line] = {}
        self._errors: list[CraftError] = []
        self._tally = Tally(plan.progress)
        self._plans: list[dict[str, Any]] = []  # for a table
        self._next_n = 1
        self._has_lines = False
        self._has_jobs = False  # at a daemon; whoever stops that one wants it to stay so

    def run(self, source: Iterable[bytes]) -> int:
        """The exit code: 0, 65 if a line was bad, else that of the first job that failed."""
        _ = self._session.client
        said: list[str] = []
        try:
            interrupts.run(lambda: self._run(source), on_stop=lambda: said.extend(self._withdraw()))
        except interrupts.Interrupted as stop:
            for line in [] if stop.is_closed_pipe else said:
                errors.say(line)
            raise
        except Exception:  # whatever it is, nobody will take the rest
            self._withdraw()
            raise
        if not self._has_lines:
            errors.say("craft: the batch has no lines: nothing to draw")
        return self._exit_code()

    def _run(self, source: Iterable[bytes]) -> None:
        threading.Thread(target=self._read, args=(source,), daemon=True).start()
        try:
            self._print_all()
        finally:
            self._tally.close()
        if self._plans:
            planning.show_each(self._plans)

    def _print_all(self) -> None:
        while (line := self._lines.get()) is not None:
            if isinstance(line, Exception):
                raise line
            self._has_lines = True
            try:
                answers = line.answer.result()
            except CraftError as error:
                if error.reason in errors.HOPELESS:
                    raise
                self._errors.append(error)
                answers = [self._with_line(line, {"error": errors.as_dict(error)})] if self._plan.as_json else []
            interrupts.check()
            self._tally.hide()
            self._say(line, answers)
            self._tally.show()
            del self._under_way[id(line)]
            self._room.release()

    def _say(self, line: _Line, answers: list[dict[str, Any]]) -> None:
        """The line's answers on stdout, and its error on stderr."""
        if error := line.answer.exception():
            errors.say(self._told(line, error))
        if self._plan.shows_table:
            self._plans += answers
            return
        for answer in answers:
            if self._plan.prints_paths:
                output.line(answer["path"])
            else:
                output.print_json(answer)

    def _with_line(self, line: _Line, answer: dict[str, Any]) -> dict[str, Any]:
        """The answer, and which line it is of; of a sweep also what was swept over."""
        swept = {"sweep": dict(line.combination.names)} if line.combination.names else {}
        return {**({} if self._plan.is_one else {"line": line.number}), **swept, **answer}

    def _planned(self, line: _Line, target: output.Target, spec: GenerateRequest, first_n: int) -> dict[str, Any]:
        asked = line.request
        assert asked is not None
        plan = drawing.insist(self._session, lambda client: client.plan_job(asked))
        names = [] if not target.is_knowable else output.pictures(spec, first_n, line.combination.names)
        return self._with_line(line, shapes.plan(plan, [str(target.path(one)) for one in names]))

    def _told(self, line: _Line, error: BaseException) -> str:
        where = " ".join(f"{name} {value}" for name, value in line.combination.names.items())
        if not self._plan.is_one:
            where = f"line {line.number}{f' with {where}' if where else ''}"
        hint = f" ({error.hint})" if isinstance(error, CraftError) and error.hint else ""
        return errors.one_line(f"craft: {where}: {error}{hint}")

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
            seed = drawing.new_seed()  # the same for all that the line is swept over
            for combination in self._plan.sweep:
                self._room.acquire()
                if self._stop.is_set():
                    return
                self._take(_Line(number, combination), text, seed)

    def _take(self, line: _Line, text: bytes | CraftError, seed: int) -> None:
        line.answer.add_done_callback(lambda _: self._tally.finish())
        self._tally.begin()
        self._under_way[id(line)] = line
        self._lines.put(line)
        self._begin(line, text, seed)

    def _begin(self, line: _Line, text: bytes | CraftError, seed: int) -> None:
        """The line's job in a thread of its own; what goes wrong is the line's answer."""
        try:
            spec, first_n = self._prepare(line, text, seed)
            threading.Thread(target=self._run_line, args=(line, spec, first_n), daemon=True).start()
        except Exception as error:  # the line's outermost frame here: the main thread raises it again
            line.answer.set_exception(error)

    def _prepare(self, line: _Line, text: bytes | CraftError, seed: int) -> tuple[GenerateRequest, int]:
        """What the line asks for, and its first {n}. Raises what is wrong with it."""
        if isinstance(text, CraftError):
            raise text
        spec, terms, wish = from_line(_decoded(text), self._plan.defaults, self._plan.wish)
        spec, wish = line.combination.spec(spec), line.combination.wish(wish)
        require_at_most(spec, self._plan.max_count)
        spec = with_sides(self._pictures.attach(spec, wish), self._plan.sides)
        spec = with_default_model(spec, self._plan.default_model)
        spec = spec if spec.seed is not None else replace(spec, seed=seed)
        line.request = request(spec, lease=not self._plan.detach, batch=True, terms=terms)
        first_n, self._next_n = self._next_n, self._next_n + spec.count
        return spec, first_n

    def _run_line(self, line: _Line, spec: GenerateRequest, first_n: int) -> None:
        """A line's thread."""
        try:
            line.answer.set_result(self._make(line, spec, first_n))
        except BaseException as error:  # the thread's outermost frame: the main thread raises it again
            line.answer.set_exception(error)

    def _make(self, line: _Line, spec: GenerateRequest, first_n: int) -> list[dict[str, Any]]:
        target = self._plan.target(spec)
        if not self._plan.detach:
            target.check(output.pictures(spec, first_n, line.combination.names))
        self._pictures.send(spec)
        if self._plan.only_plan:
            return [self._planned(line, target, spec, first_n)]
        line.job_id = self._submit(line).id
        self._has_jobs = True
        if self._plan.detach:
            return [self._with_line(line, {"job": line.job_id, "prompt": spec.prompt})]
        delivery = Delivery(self._session, target, first_n, line.combination.names)
        for event in drawing.follow(self._session, line.job_id):
            for image, _ in delivery.take(event, spec.prompt):
                delivery.warn(image, f"line {line.number}: ")
            if event.HasField("finished"):
                drawing.require_success(event.finished.job)
                settings = shapes.spec(event.finished.job.generate)
                return [self._with_line(line, {**settings, **one}) for one in delivery.lines(event.finished.job)]
        raise AssertionError("unreachable")

    def _submit(self, line: _Line) -> jobs_pb2.Job:
        """A full queue is no error here, nor a key's limit: the next place is ours."""
        assert line.request is not None
        while True:
            if self._stop.is_set():  # set before what is under way is withdrawn, of which this line is one
                raise interrupts.Stopped
            try:
                return drawing.submit(self._session, line.request, may_revive=not self._has_jobs)
            except CraftError as error:
                if error.reason not in _BUSY or self._stop.wait(error.retry_after_s or _DEFAULT_RETRY_S):
                    raise

    def _withdraw(self) -> list[str]:
        """Cancel what is under way; a line about each."""
        self._stop.set()
        lines = [line for line in list(self._under_way.values()) if not line.answer.done()]
        farewell = drawing.Farewell(self._session)
        said = [f"craft: line {line.number}: {farewell.to(line.request, line.job_id)}" for line in lines]
        farewell.close()
        wait([line.answer for line in lines], _LEAVE_S)
        return said


def _lines_of(source: Iterable[bytes]) -> Iterator[tables.Row]:
    """Numbered from 1; blank ones are passed over. Of a table, its rows as objects. Raises NO_INPUT, BAD_DATA."""
    try:
        numbered = enumerate(texts.lines_of(source), 1)
        for number, line in numbered:
            if not line.strip():
                continue
            first = line.decode("utf-8", "replace").strip()
            if mark := tables.separator(first):
                yield from tables.rows(first, mark, numbered)
                return
            _refuse_array(first)
            yield number, line
            break
        yield from ((number, line) for number, line in numbered if line.strip())
    except OSError as error:
        why = files.unreadable("the batch", error)
        message = f"the batch cannot be read on: {error.strerror or error}"  # what came before is drawn
        raise CraftError(why.reason, message, "give --batch a file of lines, or -") from error


def _refuse_array(first: str) -> None:
    """Raises BAD_DATA for a whole JSON array."""
    if re.match(r"\[\s*(\{|$)", first):
        raise CraftError(
            "BAD_DATA", "the batch is a JSON array", "a line is an object: jq -c '.[]' FILE makes such lines"
        )


def _decoded(text: bytes) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CraftError(
            "BAD_DATA", f"not UTF-8: {error.reason} at byte {error.start}", "convert it with iconv"
        ) from error
