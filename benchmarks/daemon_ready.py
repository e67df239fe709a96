"""How long from `craftd`'s start until health says SERVING; and what it holds in memory then.

python -m benchmarks.daemon_ready
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import grpc
from craft_protos import daemon_pb2, daemon_pb2_grpc
from craft_protos.config import find_paths
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks import daemon, figures

STARTS = 15
LIMIT_S = 0.5


def measure(env: dict[str, str]) -> tuple[float, int]:
    """(seconds to SERVING, resident bytes) of one start, its end included in neither."""
    socket = find_paths(env).socket
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "craftd"], env=env)
    try:
        while not socket.exists():
            time.sleep(0.001)
        with grpc.insecure_channel(f"unix:{socket}") as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), wait_for_ready=True)
            seconds = time.perf_counter() - began
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            status = daemon_pb2_grpc.DaemonStub(channel).GetStatus(daemon_pb2.GetStatusRequest())
            return seconds, status.rss_bytes
    finally:
        process.terminate()
        process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description="From craftd's start to SERVING.")
    parser.add_argument("--starts", type=int, default=STARTS)
    starts = parser.parse_args().starts
    with tempfile.TemporaryDirectory(prefix="craft-b-") as folder:
        env = daemon.environment(Path(folder), {})
        Path(folder, "data").mkdir()
        found = [measure(env) for _ in range(starts)]
    seconds = [one for one, _ in found]
    print(f"the front's memory then: {max(rss for _, rss in found) / 2**20:.0f} MB; slowest start {max(seconds):.3f} s")
    claim = figures.of_rounds("craftd, start to health SERVING", "a budget", seconds, unit="s", at_most=LIMIT_S)
    return figures.tell([claim])


if __name__ == "__main__":
    sys.exit(main())
