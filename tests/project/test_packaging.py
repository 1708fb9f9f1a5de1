"""What is shipped: the container's file and the cluster's manifests are valid, and say what the service does."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from small_problems import ROOT

from inferno_milp import __version__
from inferno_milp.cli.arguments import make_parser

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
MANIFESTS = list(yaml.safe_load_all((ROOT / "manifests" / "service.yaml").read_text(encoding="utf-8")))


def of_kind(kind: str) -> dict[str, Any]:
    (found,) = [manifest for manifest in MANIFESTS if manifest["kind"] == kind]
    return dict(found)


def test_the_dockerfile() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "USER 10001" in DOCKERFILE
    assert "HEALTHCHECK" in DOCKERFILE


def test_a_wheel_of_what_the_container_copies(tmp_path: Path) -> None:
    """The files that the Dockerfile copies, and .dockerignore lets in, make a whole package."""
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [
        name for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.M) for name in line.split()[:-1]
    ]  # fmt: skip
    assert set(copied) == allowed
    for name in copied:
        source = ROOT / name
        target = tmp_path / "source" / name
        target.parent.mkdir(exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(tmp_path)]
    subprocess.run([*command, str(tmp_path / "source")], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    for needed in (
        "report/html/report.html", "instances/limited.yaml", "models/sample.yaml", "service/static/page.js",
        "service/static/page.css", "service/templates/page.html", "service/templates/plan.html",
    ):  # fmt: skip
        assert f"inferno_milp/{needed}" in inside


@pytest.mark.parametrize("version", ["1.30", kubernetes_validate.latest_version()])
def test_the_manifests_against_kubernetes_own_schemas(version: str) -> None:
    for manifest in MANIFESTS:
        kubernetes_validate.validate(manifest, version, strict=True)
    broken = of_kind("Service")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**broken, "spec": {**broken["spec"], "port": 1}}, version, strict=True)


def test_the_manifests_fit_together_and_the_service() -> None:
    pod = of_kind("Deployment")["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert pod["metadata"]["labels"].items() >= of_kind("Service")["spec"]["selector"].items()
    assert container["image"].endswith(f":{__version__}")
    arguments = make_parser().parse_args(container["args"])
    assert pod["spec"]["terminationGracePeriodSeconds"] > 2 * arguments.grace
    assert {probe: container[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")} == {
        "livenessProbe": "/healthz",
        "readinessProbe": "/readyz",
    }
    assert pod["spec"]["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert not pod["spec"]["enableServiceLinks"]
    claims = [
        volume["persistentVolumeClaim"]["claimName"] for volume in pod["spec"]["volumes"] if "emptyDir" not in volume
    ]
    assert claims == [of_kind("PersistentVolumeClaim")["metadata"]["name"]]
