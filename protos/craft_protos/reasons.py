"""The one table: reason -> gRPC code, HTTP status, exit code.

    CraftError          every error that a user may see, on either side of the wire
      reason            a stable name from REASONS; programs match on it
      message           one line: the thing and why
      hint              one line: what to do next
      field             the request's field at fault, if one is

docs/reasons.md is generated from this table (`make docs`).
"""

from __future__ import annotations

from craft_protos.frozen import dataclass


@dataclass(frozen=True)
class Reason:
    """How one kind of error looks through each face. `grpc` is a grpc.StatusCode's name."""

    grpc: str
    http: int
    exit: int
    meaning: str


REASONS: dict[str, Reason] = {
    # The request
    "INVALID_FIELD": Reason("INVALID_ARGUMENT", 422, 65, "a field's value is out of range or malformed"),
    "UNDECODABLE": Reason("INVALID_ARGUMENT", 400, 65, "the message could not be decoded"),
    "USAGE": Reason("INVALID_ARGUMENT", 400, 2, "the command was called wrongly"),
    "BAD_DATA": Reason("INVALID_ARGUMENT", 422, 65, "the input is not what it should be"),
    "MESSAGE_TOO_BIG": Reason("RESOURCE_EXHAUSTED", 413, 65, "the message is over the size limit"),
    "REQUEST_ID_CLASH": Reason("ALREADY_EXISTS", 409, 65, "the request id was used for another body"),
    "NO_PROVENANCE": Reason("FAILED_PRECONDITION", 422, 65, "the file carries no craft provenance"),
    # What is not there
    "UNKNOWN_MODEL": Reason("NOT_FOUND", 404, 66, "no model of that name"),
    "UNKNOWN_LORA": Reason("NOT_FOUND", 404, 66, "no LoRA of that id, name or hash"),
    "UNKNOWN_REPOSITORY": Reason("NOT_FOUND", 404, 66, "the model hub has no such repository, revision or file"),
    "UNKNOWN_JOB": Reason("NOT_FOUND", 404, 66, "no job of that id"),
    "UNKNOWN_WORKER": Reason("NOT_FOUND", 404, 66, "no worker of that name"),
    "UNKNOWN_IMAGE": Reason("NOT_FOUND", 404, 66, "no image of that id"),
    "UNKNOWN_INPUT": Reason("NOT_FOUND", 404, 66, "the caller has sent no such picture, or it is kept no longer"),
    "BAD_INPUT": Reason("INVALID_ARGUMENT", 422, 65, "a picture that drawing cannot begin from"),
    "NO_INPUT": Reason("NOT_FOUND", 404, 66, "no such input file"),
    "FILE_FORBIDDEN": Reason("PERMISSION_DENIED", 403, 77, "the system does not let craft read the file"),
    "AMBIGUOUS_ID": Reason("INVALID_ARGUMENT", 422, 65, "more than one thing begins with that id"),
    # Jobs
    "JOB_FINISHED": Reason("FAILED_PRECONDITION", 409, 65, "the job has finished already"),
    "CANCELLED": Reason("CANCELLED", 499, 1, "the job was cancelled"),
    "EXPIRED": Reason("DEADLINE_EXCEEDED", 504, 1, "the job's turn came after its expire_time"),
    "QUEUE_FULL": Reason("RESOURCE_EXHAUSTED", 429, 75, "the queue is full; try later"),
    "WORKER_REFUSED": Reason("PERMISSION_DENIED", 403, 77, "the daemon does not let this worker in"),
    "WORKER_DIED": Reason("INTERNAL", 500, 1, "the job killed its worker three times"),
    "OUT_OF_MEMORY": Reason("RESOURCE_EXHAUSTED", 507, 1, "the device's memory does not suffice"),
    "DISK_FULL": Reason("RESOURCE_EXHAUSTED", 507, 74, "the daemon's disk has no room"),
    "STORAGE_FAILED": Reason("INTERNAL", 500, 74, "a file could not be written in the daemon's folders"),
    "JOB_FAILED": Reason("INTERNAL", 500, 1, "the job failed"),
    "DIFFERENT": Reason("FAILED_PRECONDITION", 409, 1, "the image made again is not the same"),
    "IN_USE": Reason("FAILED_PRECONDITION", 409, 75, "jobs still need it"),
    "NAME_TAKEN": Reason("ALREADY_EXISTS", 409, 65, "the name belongs to something else"),
    # The model hub
    "HUB_GATED": Reason("PERMISSION_DENIED", 403, 77, "the repository's terms must be accepted, or a token is needed"),
    "HUB_UNREACHABLE": Reason("UNAVAILABLE", 503, 69, "the model hub does not answer"),
    "HUB_UNTRUSTED": Reason("FAILED_PRECONDITION", 502, 65, "the model hub answers as no hub should"),
    # Models' and LoRAs' files
    "UNSAFE_FORMAT": Reason("FAILED_PRECONDITION", 422, 65, "a pickle file, which could run code"),
    "UNSAFE_PATH": Reason("INVALID_ARGUMENT", 422, 65, "a file name that leads out of its folder"),
    "UNSAFE_CONFIG": Reason("FAILED_PRECONDITION", 422, 65, "a model's configuration asks for code from elsewhere"),
    "CORRUPT_FILE": Reason("DATA_LOSS", 422, 65, "a file is not what its name and header say"),
    "UNSUPPORTED_MODEL": Reason("FAILED_PRECONDITION", 422, 65, "craft cannot draw with this pipeline"),
    "UNSUPPORTED_LORA": Reason("FAILED_PRECONDITION", 422, 65, "a kind of adapter that craft does not apply"),
    "LORA_MISMATCH": Reason("FAILED_PRECONDITION", 422, 65, "the LoRA does not fit the model in full"),
    "NOT_FINITE": Reason("INVALID_ARGUMENT", 422, 65, "a tensor holds NaN or infinity"),
    # Training
    "UNKNOWN_DATASET": Reason("NOT_FOUND", 404, 66, "no dataset of that id"),
    "BAD_DATASET": Reason("INVALID_ARGUMENT", 422, 65, "pictures or captions that cannot be trained on"),
    "UNTRAINABLE_MODEL": Reason("FAILED_PRECONDITION", 422, 65, "craft cannot train LoRAs for this model"),
    # The daemon
    "DAEMON_UNREACHABLE": Reason("UNAVAILABLE", 503, 69, "no daemon answers"),
    "DAEMON_SILENT": Reason("UNAVAILABLE", 503, 69, "the daemon runs, and does not answer"),
    "DAEMON_MISSING": Reason("UNAVAILABLE", 503, 69, "only craft's client is installed"),
    "EXTRA_MISSING": Reason("FAILED_PRECONDITION", 501, 69, "an optional part of craft is not installed"),
    "TELEGRAM_REFUSED": Reason("PERMISSION_DENIED", 502, 77, "Telegram does not take the bot's token"),
    "DRAINING": Reason("UNAVAILABLE", 503, 75, "the daemon is stopping"),
    "ALREADY_RUNNING": Reason("ALREADY_EXISTS", 409, 75, "another craftd has the data folder"),
    "UNAUTHENTICATED": Reason("UNAUTHENTICATED", 401, 77, "no key, or a wrong one"),
    "NOT_ALLOWED": Reason("PERMISSION_DENIED", 403, 77, "the key does not allow this"),
    "KEY_SUSPENDED": Reason("PERMISSION_DENIED", 403, 77, "the key is suspended; it may be resumed"),
    "KEY_BANNED": Reason("PERMISSION_DENIED", 403, 77, "the key's owner is banned"),
    "UNKNOWN_KEY": Reason("NOT_FOUND", 404, 66, "no key of that id or owner"),
    "KEY_EXISTS": Reason("ALREADY_EXISTS", 409, 65, "the owner has a key already"),
    "RATE_LIMITED": Reason("RESOURCE_EXHAUSTED", 429, 75, "too many requests or images at once for this key"),
    "QUOTA_EXCEEDED": Reason("RESOURCE_EXHAUSTED", 507, 65, "the owner has as much here as the key's tier allows"),
    "FOREIGN_ORIGIN": Reason("PERMISSION_DENIED", 403, 77, "the request was made for another host or by another site"),
    "CONFIG_INVALID": Reason("FAILED_PRECONDITION", 500, 78, "the configuration is wrong"),
    "STORE_CORRUPT": Reason("DATA_LOSS", 500, 78, "the database is damaged"),
    "STORE_NEWER": Reason("FAILED_PRECONDITION", 500, 78, "the database was made by a newer craft"),
    "UNKNOWN_ROUTE": Reason("UNIMPLEMENTED", 404, 65, "HTTP: there is no such route"),
    "WRONG_METHOD": Reason("UNIMPLEMENTED", 405, 65, "HTTP: the route does not take this method"),
    "UNIMPLEMENTED": Reason("UNIMPLEMENTED", 501, 70, "the daemon does not know this method"),
    "INTERNAL": Reason("INTERNAL", 500, 70, "a bug in craft"),
    # The command's own output
    "OUTPUT_EXISTS": Reason("ALREADY_EXISTS", 409, 73, "the output file exists"),
    "OUTPUT_IMPOSSIBLE": Reason("INTERNAL", 500, 73, "no output file of that name can be made"),
    "OUTPUT_FORBIDDEN": Reason("INTERNAL", 500, 77, "the system does not let craft write the output"),
    "OUTPUT_FAILED": Reason("INTERNAL", 500, 74, "the output could not be written"),
}


class CraftError(Exception):
    """An error that a user may see."""

    def __init__(
        self, reason: str, message: str, hint: str = "", *, field: str = "", retry_after_s: float = 0.0
    ) -> None:
        assert reason in REASONS, reason
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.hint = hint
        self.field = field
        self.retry_after_s = retry_after_s

    @property
    def entry(self) -> Reason:
        return REASONS[self.reason]

    @property
    def exit_code(self) -> int:
        return self.entry.exit


def invalid(field: str, message: str, hint: str = "") -> CraftError:
    """INVALID_FIELD naming `field`."""
    return CraftError("INVALID_FIELD", f"{field}: {message}", hint, field=field)
