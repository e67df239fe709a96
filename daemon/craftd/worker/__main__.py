"""`python -m craftd.worker --fd N --files DIR ...`: one worker, until its socket ends.

`python -m craftd.worker --inspect ...`: strangers' files are checked, and nothing else (inspection/process.py).
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys

_log = logging.getLogger("craftd.worker")


def main() -> None:
    match sys.argv[1:]:
        case ["--inspect", *asked]:
            from craftd.worker.inspection import process

            process.main(asked)
        case _:
            _work()


def _work() -> None:
    """Listen first, then import torch: a front that dies meanwhile ends this process too."""
    from craftd.worker.process.channel import Channel
    from craftd.worker.process.inbox import Inbox
    from craftd.worker.process.options import ENVIRONMENT, parse

    options = parse(sys.argv[1:])
    os.environ.update(ENVIRONMENT)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at a terminal is the front's business
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    inbox = Inbox()
    channel = Channel(socket.socket(fileno=options.fd), inbox.post)
    channel.start()
    try:
        from craftd.worker.process.loop import run

        run(options, channel, inbox)
    except BaseException:
        _log.exception("the worker ends")
        channel.end(1)


if __name__ == "__main__":
    main()
