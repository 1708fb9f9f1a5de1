"""The service under load: many requests at once, none lost, beside the same work done in one process without it.

`python -m benchmarks.service [--analyses 2000] [--plans 50] [--repeats 3]`. All requests of a kind are sent at once, to
a service on this machine that is started for it. A process of its own asks for /healthz all the while.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import httpx

import inferno_milp as im

ROOT = Path(__file__).parent.parent
INSTANCE = ROOT / "instances" / "limited.yaml"
ENGINE = {
    "alpha_ms": 8.0, "beta_ms": 0.1, "gamma_ms": 10.0, "delta_ms": 0.02, "input_tokens": 512.0, "output_tokens": 128.0,
    "max_batch": 64,
}  # fmt: skip


def start(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start a service; return it and its address."""
    log = folder / "log"
    with log.open("wb") as file:
        command = [sys.executable, "-m", "inferno_milp", "serve", "--host", "127.0.0.1", "--port", "0"]
        service = subprocess.Popen([*command, "--database", f"sqlite:///{folder}/jobs"], cwd=ROOT, stderr=file)
    while service.poll() is None:
        for line in log.read_text(encoding="utf-8").splitlines():
            if '"listening"' in line:
                return service, f"http://{json.loads(line)['addresses'][0]}"
        time.sleep(0.1)
    raise SystemExit(log.read_text(encoding="utf-8"))


async def at_once(url: str, path: str, bodies: list[dict[str, Any]]) -> tuple[float, list[float], Counter[str]]:
    """Send all bodies at once; return the seconds that all took, those of each, and what came back."""
    seconds: list[float] = []
    statuses: Counter[str] = Counter()
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=httpx.Limits(max_connections=None)) as client:

        async def one(body: dict[str, Any]) -> None:
            begun = time.perf_counter()
            try:
                answer = await client.post(path, json=body)
                statuses[str(answer.status_code)] += 1
            except httpx.HTTPError as error:
                statuses[type(error).__name__] += 1
            seconds.append(time.perf_counter() - begun)

        begun = time.perf_counter()
        await asyncio.gather(*map(one, bodies))
        total = time.perf_counter() - begun
    return total, seconds, statuses


def watch(url: str, stopped: Event, worst: Synchronized[float]) -> None:
    """Ask for /healthz ten times a second, and keep the longest that it took, s."""
    with httpx.Client(base_url=url, timeout=600) as client:
        while not stopped.wait(0.1):
            begun = time.perf_counter()
            client.get("/healthz")
            worst.value = max(worst.value, time.perf_counter() - begun)


def measure(url: str, path: str, bodies: list[dict[str, Any]]) -> tuple[float, list[float], Counter[str], float]:
    """As `at_once`, with the slowest health check besides."""
    context = multiprocessing.get_context("spawn")
    stopped, worst = context.Event(), context.Value("d", 0.0)
    watcher = context.Process(target=watch, args=(url, stopped, worst))
    watcher.start()
    time.sleep(1)
    found = asyncio.run(at_once(url, path, bodies))
    stopped.set()
    watcher.join()
    return (*found, worst.value)


def alone(kind: str, count: int) -> float:
    """Seconds for the same work in this process, without a service."""
    begun = time.perf_counter()
    for _ in range(count):
        if kind == "optimize":
            im.optimize(im.read_problem(INSTANCE), time_limit_s=60)
        else:
            from inferno_milp.problem.fields import Targets
            from inferno_milp.studies.one_engine import EngineQuestion, analyze_one

            analyze_one(EngineQuestion(ENGINE, Targets(ttft_ms=1000.0), "continuous-batching")).to_dict()
    return time.perf_counter() - begun


def row(url: str, kind: str, bodies: list[dict[str, Any]], repeats: int) -> str:
    """Measure one kind; return its line of the table."""
    few = max(len(bodies) // 10, 5)
    alone(kind, 1)
    found, told = [], Counter[str]()
    for _ in range(repeats):
        total, seconds, statuses, worst = measure(url, f"/v1/{kind}", bodies)
        cuts = statistics.quantiles(seconds, n=100)
        per_s = len(bodies) / total
        found.append((per_s, cuts[49], cuts[98], worst, per_s / (few / alone(kind, few))))
        told += statuses
    per_s, half, most, worst, ratio = (statistics.median(column) for column in zip(*found, strict=True))
    answers = ", ".join(f"{count} × {status}" for status, count in told.items())
    return f"/v1/{kind:9} {answers:>12} {per_s:7.1f} {half:7.2f} {most:7.2f} {worst:9.3f}  {ratio:.2f} ×"


def main() -> None:
    """Measure both kinds, taking turns with the work alone, and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--analyses", type=int, default=2000)
    parser.add_argument("--plans", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    kinds: dict[str, list[dict[str, Any]]] = {
        "analyze": [{"engine": ENGINE, "targets": {"ttft_ms": 1000}}] * arguments.analyses,
        "optimize": [{"problem": INSTANCE.read_text(encoding="utf-8")}] * arguments.plans,
    }
    with tempfile.TemporaryDirectory() as name:
        service, url = start(Path(name))
        try:
            print(f"{os.cpu_count()} cores; all requests at once, medians of {arguments.repeats} runs")
            print(f"{'path':13} {'answers':>12} {'per s':>7} {'p50 s':>7} {'p99 s':>7} {'health s':>9}  of alone")
            for kind, bodies in kinds.items():
                asyncio.run(at_once(url, f"/v1/{kind}", bodies[:4]))  # workers start with the first
                print(row(url, kind, bodies, arguments.repeats))
        finally:
            service.terminate()
            service.wait(timeout=60)


if __name__ == "__main__":
    main()
