"""The socket to the front: frames in on a thread of their own, frames out from any thread."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable

from craft_protos import frames
from craft_protos.codec import from_message
from craft_protos.dispatch import Frame
from craft_protos.worker_pb2 import FromWorker, ToWorker


class Channel:
    """Ends the whole process as soon as the front's end of the socket is gone, whatever else runs."""

    def __init__(self, sock: socket.socket, deliver: Callable[[object], None]) -> None:
        sock.setblocking(True)
        self._sock = sock
        self._deliver = deliver
        self._sending = threading.Lock()
        self._last_words: list[Callable[[], None]] = []

    def start(self) -> None:
        """Begin to listen."""
        threading.Thread(target=self._listen, name="channel", daemon=True).start()

    def at_end(self, action: Callable[[], None]) -> None:
        """Have `action` run just before the process ends."""
        self._last_words.append(action)

    def send(self, frame: FromWorker) -> None:
        """Send one frame; waits while the front does not read."""
        data = frames.encode(frame)
        try:
            with self._sending:
                self._sock.sendall(data)
        except OSError:
            self.end(0)

    def end(self, status: int) -> None:
        """End the process at once."""
        for action in self._last_words:
            action()
        os._exit(status)

    def _listen(self) -> None:
        try:
            while (frame := frames.receive(self._sock, ToWorker)) is not None:
                self._deliver(from_message(Frame, frame).frame)
        finally:
            self.end(0)
