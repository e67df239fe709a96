"""What all tests need of the process that runs them."""

from __future__ import annotations

import signal

# A suite started in the background by a shell ignores SIGINT, and so would every command it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
