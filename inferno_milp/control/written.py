"""Replicas as manifests: a file for whoever applies it, a pipeline or a person."""

from __future__ import annotations

from pathlib import Path

import yaml

from inferno_milp.control.api_server import FIELD_MANAGER
from inferno_milp.control.report import Report

COMMAND = f"kubectl apply --server-side --force-conflicts --field-manager {FIELD_MANAGER} -f"
"""What applies the file: whoever made a deployment owns its replicas, until another manager takes them over."""


def replicas_text(report: Report, name: str) -> str:
    """Return the replicas that deployments are to have, one YAML document each, for server-side apply.

    Parameters
    ----------
    name : of the file, for the command that applies it.
    """
    documents = [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": d.name, "namespace": d.namespace},
            "spec": {"replicas": d.desired},
        }
        for d in report.deployments
    ]
    return f"# {COMMAND} {name}\n" + yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True)


def write_replicas(path: Path, report: Report) -> None:
    """Write them, at once or not at all, if they are others than those that the file has.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    text = replicas_text(report, path.name)
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    new = path.with_name(f".{path.name}.new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)
