"""The HTTP face: what it adds to a picture, what refusals cost when the queue is full, and its memory.

    python -m benchmarks.http [--rounds N] [--steps N] [--seconds N] [--rate N] [--threads N]

A real craftd with the built-in model and HTTP. The same picture is asked for over gRPC and over
HTTP, by turns; and once more from a worker that draws in no time, where nothing hides what a face
costs. Then, while a picture is drawn and the queue is full, four keys together send so many
requests a second on ten connections, whether answers come or not. Each answer says how long it took
in the server (Server-Timing); what the client sees has the load of the whole machine in it.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import http.client
import itertools
import json
import math
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import psutil
from craft_cli.connection.client import Client
from craft_protos import keys_pb2
from craft_protos.reasons import CraftError

from benchmarks import daemon, figures
from benchmarks.figures import Figure

QUEUE, OWNERS, CONNECTIONS = 64, 4, 10
MEMORY_MB, GROWTH_MB = 100.0, 3.0
WARM_S = 3.0
_PATH = "/v1/images/generations"
_CONFIG = "[tiers.default]\nrequests_per_minute = 1000000\nimages_in_flight = 1000\nqueue_share = 1.0\n"
_DURATION = re.compile(rb"server-timing: app;dur=([\d.]+)")


class Sides:
    """The same picture over both faces; each round has a seed that was never asked before."""

    def __init__(self, client: Client, url: str, key: str, steps: int) -> None:
        self._client = client
        self._host = urlsplit(url).netloc
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._steps = steps
        self._seed = 0

    def ratio(self) -> float:
        """HTTP's time by gRPC's; whoever is first, by turns."""
        self._seed += 1
        sides = [self._over_http, self._over_grpc]
        order = sides if self._seed % 2 else sides[::-1]
        seconds = {side: self._timed(side) for side in order}
        return seconds[self._over_http] / seconds[self._over_grpc]

    def _timed(self, draw: Callable[[], bytes]) -> float:
        began = time.perf_counter()
        assert draw().startswith(b"\x89PNG")
        return time.perf_counter() - began

    def _over_grpc(self) -> bytes:
        job = daemon.finish(self._client, daemon.request("a red apple", seed=self._seed, steps=self._steps))
        return self._client.get_image(job.images[0].id)[1]

    def _over_http(self) -> bytes:
        body = {"prompt": "a red apple", "seed": self._seed, "num_inference_steps": self._steps}
        with closing(http.client.HTTPConnection(self._host)) as connection:
            connection.request("POST", _PATH, json.dumps(body), self._headers)
            answer = json.loads(connection.getresponse().read())
        return base64.b64decode(answer["data"][0]["b64_json"])


@dataclass
class Flood:
    """Requests that are refused, at a rate; waiting for an answer delays no other connection's."""

    host: str
    port: int
    keys: list[str]
    rate: float
    server_ms: list[float] = field(default_factory=list)
    client_ms: list[float] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)  # by key
    others: Counter[bytes] = field(default_factory=Counter)  # answers that are no refusals

    async def pour(self, seconds: float) -> None:
        began = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as tasks:
            for place in range(CONNECTIONS):
                tasks.create_task(self._connection(place, began, began + seconds))

    async def _connection(self, place: int, began: float, end: float) -> None:
        loop = asyncio.get_running_loop()
        reader, writer = await asyncio.open_connection(self.host, self.port)
        due, number = began + place / self.rate, place
        while due < end:
            await asyncio.sleep(due - loop.time())
            key = self.keys[number % len(self.keys)]
            writer.write(_request(key))
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head)
            assert length is not None
            await reader.readexactly(int(length[1]))
            self._note(key, head, loop.time() - due)
            due, number = due + CONNECTIONS / self.rate, number + 1
        writer.close()

    def _note(self, key: str, head: bytes, seconds: float) -> None:
        found = _DURATION.search(head)
        if not head.startswith(b"HTTP/1.1 429") or found is None:
            self.others[head[:40]] += 1
            return
        self.refused[key] += 1
        self.server_ms.append(float(found[1]))
        self.client_ms.append(seconds * 1000)


def main() -> int:
    asked = _parse()
    settings = {"HTTP_ENABLED": "true", "HTTP_LISTEN": "127.0.0.1:0", "DAEMON_QUEUE_LIMIT": QUEUE}
    threads = {"WORKER_THREADS": asked.threads} if asked.threads else {}
    with daemon.running(_CONFIG, **settings, WORKER_MODULE="craftd.fakeworker") as craftd:
        client = craftd.client()
        key = client.create_key(keys_pb2.CreateKeyRequest(owner="owner")).secret
        bare = _ratios(Sides(client, client.status().http, key, asked.steps), asked.rounds * 4)
        client.close()
    with daemon.running(_CONFIG, **settings, **threads, WORKER_MAX_ROWS=1) as craftd:
        client = craftd.client()
        url = client.status().http
        keys = [client.create_key(keys_pb2.CreateKeyRequest(owner=f"owner{n}")).secret for n in range(OWNERS + 1)]
        ratios = _ratios(Sides(client, url, keys[-1], asked.steps), asked.rounds)
        print("HTTP / gRPC, each round:", *(f"{ratio:.3f}" for ratio in ratios), flush=True)
        found = _refusals(client, url, keys, asked, craftd.pid)
        client.close()
    against = "gRPC: CreateJob, WatchJob, GetImage"
    picture = figures.of_rounds("one picture over HTTP", against, ratios, at_most=1.03)
    alone = figures.of_rounds("the same, drawn in no time (craftd.fakeworker)", against, bare, at_most=1.03)
    return figures.tell([picture, alone, *found])


def _ratios(sides: Sides, rounds: int) -> list[float]:
    for _ in range(2):  # loads, warms up
        sides.ratio()
    return [sides.ratio() for _ in range(rounds)]


def _refusals(client: Client, url: str, keys: list[str], asked: argparse.Namespace, pid: int) -> list[Figure]:
    """With a picture being drawn for the last of the keys and `QUEUE` jobs behind it."""
    at = urlsplit(url)
    assert at.hostname and at.port
    step_s = _step_seconds(client)
    steps = min(1000, math.ceil((asked.seconds + WARM_S) / step_s))
    with ThreadPoolExecutor(1) as pool:
        picture = pool.submit(_draw, at.hostname, at.port, keys[-1], steps)
        while client.status().running == 0:
            continue
        while (status := client.status()).queued < QUEUE or status.running < 2:  # one more than it has rows for
            with suppress(CraftError):  # the queue is full already
                client.create_job(daemon.request("a red apple", steps=1000))  # none makes room meanwhile
        warm = Flood(at.hostname, at.port, keys[:-1], asked.rate)
        asyncio.run(warm.pour(WARM_S))
        before = _mb(pid)
        flood = Flood(at.hostname, at.port, keys[:-1], asked.rate)
        asyncio.run(flood.pour(asked.seconds))
        after = _mb(pid)
        is_drawn = picture.result()
    assert is_drawn and not flood.others, (is_drawn, flood.others)
    served, wanted = len(flood.server_ms), asked.rate * asked.seconds
    print(
        f"{served} of {wanted:.0f} refused in {asked.seconds} s, by key {sorted(flood.refused.values())}; {steps} steps"
    )
    fairness = min(flood.refused.values()) / max(flood.refused.values())
    what = f"refusals at {asked.rate:g} a second, a queue of {QUEUE} full, a picture drawn"
    return [
        _percentile(f"{what}: p99 in the server", flood.server_ms, at_most=50.0),
        _percentile(f"{what}: p99 at the client", flood.client_ms),
        Figure("answers of the key with the fewest", "of the key with the most", fairness, fairness, 1, at_least=0.9),
        Figure("the front's growth meanwhile", "none", after - before, 0, after - before, "MB", at_most=GROWTH_MB),
        Figure("the front's memory with HTTP", "a budget", max(before, after), before, after, "MB", at_most=MEMORY_MB),
    ]


def _draw(host: str, port: int, key: str, steps: int) -> bool:
    """Whether the picture came."""
    connection = http.client.HTTPConnection(host, port)
    body = {"prompt": "a red apple", "num_inference_steps": steps}
    connection.request("POST", _PATH, json.dumps(body), {"X-API-Key": key, "Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status == 200 and "b64_json" in json.loads(answer.read())["data"][0]


def _step_seconds(client: Client) -> float:
    """Of one picture alone."""
    times = []
    job = client.create_job(daemon.request("a red apple", steps=10))
    for event in client.watch_job(job.id):
        if event.WhichOneof("event") == "step":
            times.append(time.perf_counter())
    return statistics.median(after - before for before, after in itertools.pairwise(times))


def _request(key: str) -> bytes:
    body = b'{"prompt":"a red apple"}'
    head = f"POST {_PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Key: {key}\r\nContent-Type: application/json\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body


def _percentile(claim: str, values: list[float], **goal: float) -> Figure:
    """p99, with the spread from the median to the worst."""
    ordered = sorted(values)
    p99 = ordered[math.ceil(len(ordered) * 0.99) - 1]
    return Figure(claim, "a budget", p99, statistics.median(ordered), ordered[-1], "ms", **goal)


def _mb(pid: int) -> float:
    return float(psutil.Process(pid).memory_info().rss) / 2**20


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rate", type=float, default=200)
    parser.add_argument("--threads", type=int, default=0, help="of the worker; 0: torch's own choice")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
