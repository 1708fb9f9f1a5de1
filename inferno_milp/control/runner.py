"""The loop as a process: a round every interval and on demand, its last report over HTTP, and an orderly end."""

from __future__ import annotations

import hmac
import json
import logging
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Annotated

import uvicorn
from fastapi import FastAPI, Header, Response

from inferno_milp.control.config import ControlConfig
from inferno_milp.control.controller import Controller
from inferno_milp.control.fleet import ClusterError
from inferno_milp.control.published import Published
from inferno_milp.control.report import Report
from inferno_milp.control.written import write_replicas

logger = logging.getLogger(__name__)

SOON_S = 10.0
"""The next round comes after this, at the latest, where a step waits for devices that are about to be free."""
SETTLE_S = 1.0
"""Changes come in swarms; one round is for all that come within this."""
ROUNDS_MISSED = 3
"""A loop without a round for so many intervals, and the time limits of one, is not alive."""
RENEWED_EVERY = 1 / 4
"""The lease is renewed after this share of its duration."""
JSON = "application/json"


class Runner:
    """Runs rounds, one at a time.

    Parameters
    ----------
    on_report : called after each round.
    """

    def __init__(
        self, controller: Controller, config: ControlConfig, on_report: Callable[[Report], None] | None = None
    ):
        self._controller = controller
        self._config = config
        self._on_report = on_report
        self._lock = threading.Lock()
        self._stopped, self._woken = threading.Event(), threading.Event()
        self._renewals = threading.Thread(target=self._renew, name="lease", daemon=True)
        self.published = Published()
        self.token_file = config.listen.token_file
        self.last: Report | None = None
        self._last_elapsed_s = controller.clock.elapsed_s()

    def run_once(self) -> Report:
        """Do a round; if one is being done, after it."""
        with self._lock:
            report = self._controller.run_round()
            self.published.show(report)
            self._write(report)
            self.last, self._last_elapsed_s = report, self._controller.clock.elapsed_s()
        if self._on_report is not None:
            self._on_report(report)
        return report

    def _write(self, report: Report) -> None:
        """Write the manifests, where that is asked for; a round in which nothing is known leaves them as they are."""
        file = self._config.actuation.manifests
        if self._config.actuation.mode != "manifests" or file is None or report.role != "leader" or not report.servers:
            return
        try:
            write_replicas(Path(file), report)
        except OSError as error:
            logger.warning("manifests: %s", error)

    @property
    def is_alive(self) -> bool:
        """Whether rounds are being done."""
        late = self._controller.clock.elapsed_s() - self._last_elapsed_s
        config = self._config
        longest = config.prometheus.deadline_s + 3 * config.time_limit_s + 60
        return late < ROUNDS_MISSED * config.interval_s + longest

    def run(self) -> None:
        """Do rounds until told to stop; one that fails by a defect is logged, and the next one tries again."""
        self.published.show_deployments(self._controller.decisions.last(leads=False))
        if self._controller.lease is not None:
            self._renewals.start()
        while not self._stopped.is_set():
            wait = self._config.interval_s
            try:
                if self.run_once().is_waiting:
                    wait = min(wait, SOON_S)
            except Exception:
                logger.exception("a round failed")
            if self._woken.wait(wait) and not self._stopped.wait(SETTLE_S):
                self._woken.clear()

    def lead(self) -> None:
        """Renew the lease, or take it if it is free; a copy that begins to lead does a round at once."""
        lease = self._controller.lease
        if lease is None:
            return
        held = lease.is_held
        try:
            lease.renew()
        except ClusterError as error:
            logger.warning("lease: %s", error)
        if lease.is_held and not held:
            self.wake()

    def _renew(self) -> None:
        """Lead between rounds too: a lease is shorter than the time between them."""
        while not self._stopped.wait(self._config.lease.duration_s * RENEWED_EVERY):
            self.lead()

    def wake(self) -> None:
        """Let the next round come soon: what is planned for has changed."""
        self._woken.set()

    def stop(self) -> None:
        """End after the round that is being done, and let another copy take over at once."""
        self._stopped.set()
        self._woken.set()
        if self._renewals.ident is not None:
            self._renewals.join()
        with self._lock:
            if self._controller.lease is not None:
                try:
                    self._controller.lease.give_up()
                except ClusterError as error:
                    logger.warning("lease: %s", error)


def make_app(runner: Runner) -> FastAPI:
    """Make the loop's own small service."""
    app = FastAPI(title="inferno_milp control loop", docs_url=None, redoc_url=None, openapi_url=None)

    def answer(report: Report | None) -> Response:
        if report is None:
            return _message(503, "no round yet")
        return Response(json.dumps(report.to_dict(), allow_nan=False), media_type=JSON)

    @app.post("/invoke")
    def invoke(authorization: Annotated[str, Header()] = "") -> Response:
        refused = _refused(runner.token_file, authorization)
        if refused is not None:
            return refused
        try:
            return answer(runner.run_once())
        except Exception:
            logger.exception("a round failed")
            return _message(500, "the round failed; the log has the reason")

    @app.get("/status")
    def status() -> Response:
        return answer(runner.last)

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(runner.published.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/healthz")
    def healthz() -> Response:
        return Response("ok\n" if runner.is_alive else "no rounds\n", 200 if runner.is_alive else 503)

    @app.get("/readyz")
    def readyz() -> Response:
        return Response("ok\n" if runner.last else "no round yet\n", 200 if runner.last else 503)

    return app


def _refused(token_file: str | None, authorization: str) -> Response | None:
    """Return the answer to a request that may not change anything; None if it may."""
    if token_file is None:
        return _message(403, "rounds are not invoked from outside unless listen.token_file is set")
    try:
        token = Path(token_file).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        return _message(503, f"{token_file}: {getattr(error, 'strerror', error)}")
    scheme, _, given = authorization.partition(" ")
    is_same = hmac.compare_digest(given.strip().encode(), token.encode())
    if token and scheme.casefold() == "bearer" and is_same:
        return None
    response = _message(401, "a bearer token is needed")
    response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _message(status: int, words: str) -> Response:
    return Response(json.dumps({"message": words}), status, media_type=JSON)


def run_loop(runner: Runner, config: ControlConfig) -> None:
    """Run the loop, and its service, until SIGTERM or SIGINT.

    Raises
    ------
    OSError
        If its address cannot be listened on.
    """
    server = uvicorn.Server(
        uvicorn.Config(make_app(runner), host=config.listen.host, port=config.listen.port, log_config=None)
    )
    rounds = threading.Thread(target=runner.run, name="rounds", daemon=True)

    def stop(number: int, frame: FrameType | None) -> None:
        server.should_exit = True

    rounds.start()
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        server.run()
    finally:
        runner.stop()
        rounds.join(config.time_limit_s + config.prometheus.deadline_s)
