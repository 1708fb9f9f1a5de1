"""Every path of the OpenAPI document, under whatever schemathesis thinks of: no failure, and nothing undocumented."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from running_service import RunningService

from inferno_milp.errors import InputError
from inferno_milp.planning.optimize import optimize
from inferno_milp.problem.reading import read_problem_text
from inferno_milp.service.bodies import EXAMPLE

CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance", "missing_required_header", "unsupported_method", "use_after_free",
    "ensure_resource_availability",
)  # fmt: skip


MORE = ("periods", "scenarios", "route", "share", "disaggregate")


def test_schemathesis(tmp_path: Path) -> None:
    with RunningService(tmp_path, "--stateful", "--grace", "1") as running:
        command = [
            str(Path(sys.executable).parent / "schemathesis"), "run", f"{running.url}/openapi.json",
            "--checks", ",".join(CHECKS), "--max-examples", "15", "--generation-deterministic",
            "--phases", "examples,coverage,fuzzing", "--request-timeout", "60",
            "--exclude-path-regex", "/events$",  # which lasts as long as its job: tests/service/test_v1.py
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=500)
        assert done.returncode == 0, done.stdout
        tested = re.search(r"Tested: (\d+)", done.stdout)
        assert tested
        paths = running.client.get("/openapi.json").json()["paths"]
        assert int(tested[1]) == sum(len(path) for path in paths.values()) - 1
        answered = {(line["path"], line["status"]) for line in running.lines() if line.get("event") == "request"}
        for path in (
            "optimize",
            "analyze",
            "explain",
            "whatif",
            "simulate",
            "prices",
            "validate",
            "analyze/plot",
            *MORE,
        ):
            assert (f"/v1/{path}", 200) in answered, path  # the documents of answers are checked too
        assert ("/v1/jobs", 202) in answered
        assert not [line for line in running.lines() if line.get("level") in ("error", "critical")]


def test_its_example_is_a_problem() -> None:
    try:
        assert optimize(read_problem_text(EXAMPLE)).status == "optimal"
    except InputError as error:
        raise AssertionError(str(error)) from None
