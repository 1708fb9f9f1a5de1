"""A real Prometheus of its own, in a folder that goes away with it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import yaml

from inferno_milp.control.config import PrometheusSettings
from inferno_milp.control.prometheus import PrometheusClient, PrometheusError
from inferno_milp.errors import OptionError

SCRAPE_MS = 50
"""Time between scrapes, of the machine's clock: the emulation goes on as soon as what was scraped is held."""
START_S = 30.0


class PrometheusProcess:
    """Prometheus, scraping one address.

    Samples carry the emulation's time, which is behind the machine's; long blocks let it take them all the same.

    Raises
    ------
    OptionError
        If there is no Prometheus on this machine, or it does not start.
    """

    def __init__(self, target: str):
        program = shutil.which("prometheus")
        if program is None:
            raise OptionError("an emulation needs Prometheus: apt-get install prometheus, or put its binary on PATH")
        self._folder = Path(tempfile.mkdtemp(prefix="inferno-milp-prometheus-"))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._client = PrometheusClient(PrometheusSettings(url=self.url))
        job = {
            "job_name": "vllm",
            "scrape_interval": f"{SCRAPE_MS}ms",
            "scrape_timeout": f"{SCRAPE_MS}ms",
            "honor_labels": True,
            "honor_timestamps": True,
            "static_configs": [{"targets": [target]}],
        }
        config = self._folder / "prometheus.yml"
        config.write_text(yaml.safe_dump({"scrape_configs": [job]}), encoding="utf-8")
        self._log = (self._folder / "log").open("wb")
        self._process = subprocess.Popen(
            [
                program,
                f"--config.file={config}",
                f"--storage.tsdb.path={self._folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--storage.tsdb.min-block-duration=60d",
                "--storage.tsdb.max-block-duration=60d",
                "--storage.tsdb.retention.time=90d",
                "--log.level=warn",
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        self._wait()

    def _wait(self) -> None:
        end = time.monotonic() + START_S
        while time.monotonic() < end and self._process.poll() is None:
            try:
                if httpx.get(f"{self.url}/-/ready", timeout=1).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.05)
        log = (self._folder / "log").read_text(encoding="utf-8", errors="replace")[-500:]
        self.close()
        raise OptionError(f"Prometheus does not start: {log}")

    def wait_for(self, gauge: str, at_s: float) -> None:
        """Wait until it holds the scrape of a time, by a gauge whose value is the time, s since 1970.

        Fetched is not held: on a busy machine an answer may come too late for the scrape.

        Raises
        ------
        OptionError
            If it does not within `START_S`.
        """
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            try:
                held = self._client.query(gauge, at_s)
            except PrometheusError:
                held = []
            if held and held[0].value == at_s:
                return
            time.sleep(0.01)
        raise OptionError("Prometheus does not scrape the emulated engines")

    def close(self) -> None:
        """Stop it, and remove its folder."""
        self._client.close()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
