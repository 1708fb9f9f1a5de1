"""What `control` takes, and what it does."""

from __future__ import annotations

import os
import socket
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from inferno_milp.cli.output import STDOUT, check_outputs, missing_extra, tell, write_bytes, write_json, write_text
from inferno_milp.cli.shared_arguments import Subparsers, add_output, add_problem, add_solving, add_volume
from inferno_milp.cli.values import number, positive, whole
from inferno_milp.errors import OptionError
from inferno_milp.problem.spreadsheet import csv_text
from inferno_milp.report.manifests import KINDS

if TYPE_CHECKING:
    from inferno_milp.control.emulation.timeline import Timeline
    from inferno_milp.control.report import Report
    from inferno_milp.problem import Problem

SUBCOMMANDS = ("control", "export")
WHOLE_HOURS, BEGIN_HOUR = 24.0, 8.0
"""A day, and when an emulation begins: in the morning, when the load goes up, and after the burst."""
NEEDED = ("fastapi", "httpx", "kopf", "kubernetes", "prometheus_client", "statsmodels", "tenacity", "uvicorn")


def add_control(subparsers: Subparsers) -> None:
    """Add the subcommand `control`."""
    parser = subparsers.add_parser(
        "control",
        help="the autoscaling loop: Prometheus in, plan, Kubernetes out",
        description="Scale the deployments of a cluster, round after round, by what Prometheus says of them; or try "
        "that on an emulated cluster, over a day of load.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", type=Path, metavar="FILE", help="set-up of the loop: docs/control.md")
    what.add_argument(
        "--emulate", type=Path, metavar="PROBLEM", dest="problem", help="emulate the servers of a problem"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and change nothing")
    parser.add_argument("--once", action="store_true", help="one round, its report on stdout, and no service")
    _add_day(parser)
    add_output(parser)
    parser.set_defaults(run=run_control)


def add_export(subparsers: Subparsers) -> None:
    """Add the subcommand `export`."""
    words = "a plan as Kubernetes manifests: deployments, HPA or KEDA objects; or a problem as custom resources"
    parser = subparsers.add_parser("export", help=words)
    add_problem(parser)
    parser.add_argument("--plan", type=Path, metavar="FILE", help="a plan written by --json (default: plan first)")
    parser.add_argument("--kind", choices=(*KINDS, "resources"), default="deployments", help="default: deployments")
    parser.add_argument("--namespace", metavar="NAME", default="default", help="default: default")
    parser.add_argument("--image", metavar="NAME", default="vllm/vllm-openai:latest", help="of the engines")
    parser.add_argument("--resource", metavar="NAME", default="nvidia.com/gpu", help="that counts devices")
    parser.add_argument(
        "--prometheus-url", metavar="URL", default="http://prometheus.monitoring:9090", help="that KEDA asks"
    )
    parser.add_argument(
        "--force", action="store_true", help="write deployments though profiles are of other engines or weights"
    )
    parser.add_argument("-o", "--output", metavar="FILE", default=STDOUT, help="write to FILE (default: stdout)")
    add_solving(parser)
    add_volume(parser)
    parser.set_defaults(run=run_export, json=None, csv=None)


def run_export(arguments: Namespace) -> int:
    """Write a plan, made now or read from a file, as manifests."""
    from inferno_milp.cli.commands import plan_with, read
    from inferno_milp.report.manifests import export_manifests

    if arguments.kind == "resources":
        return _export_resources(arguments)
    if arguments.plan is None:
        problem, (plan,) = plan_with(arguments, "milp")
    else:
        from inferno_milp.plan.file import read_plan

        problem, plan = read(arguments), read_plan(arguments.plan)
    text = export_manifests(
        problem,
        plan,
        kind=arguments.kind,
        namespace=arguments.namespace,
        image=arguments.image,
        resource=arguments.resource,
        prometheus_url=arguments.prometheus_url,
        force=arguments.force,
    )
    write_text(text, arguments.output)
    return 0 if plan.serves_all else 1


def _need_extra() -> None:
    missing = list(missing_extra("control", *NEEDED))
    if missing:
        raise OptionError("; ".join(missing))


def _export_resources(arguments: Namespace) -> int:
    from inferno_milp.cli.commands import read

    _need_extra()
    if arguments.plan is not None:
        raise OptionError("--plan does not go with --kind resources: these are the problem, not a plan")
    from inferno_milp.control.resources.writing import objects_text

    write_text(objects_text(read(arguments), arguments.namespace), arguments.output)
    return 0


def _add_day(parser: ArgumentParser) -> None:
    day = parser.add_argument_group("the emulated day")
    day.add_argument("--hours", type=positive, metavar="H", default=24.0, help="hours to emulate (default: 24)")
    day.add_argument(
        "--begin", type=number, metavar="H", default=BEGIN_HOUR, help=f"hour of the day (default: {BEGIN_HOUR:g})"
    )
    day.add_argument("--burst", type=positive, metavar="X", default=3.0, help="factor of its burst (default: 3)")
    day.add_argument("--interval", type=positive, metavar="S", default=60.0, help="between rounds (default: 60)")
    day.add_argument("--startup", type=positive, metavar="S", default=120.0, help="of a replica (default: 120)")
    day.add_argument("--seed", type=whole(0, 10**9), metavar="N", default=0, help="of the load (default: 0)")
    day.add_argument("--plot", metavar="FILE", help="draw the day: .svg, .png or .pdf")


def run_control(arguments: Namespace) -> int:
    """Run the loop, or emulate it."""
    _need_extra()
    if arguments.problem is not None:
        return _emulate(arguments)
    if arguments.plot or arguments.csv:
        raise OptionError("--plot and --csv are of an emulated day: they go with --emulate")
    check_outputs(arguments)
    return _control(arguments)


def _control(arguments: Namespace) -> int:
    from inferno_milp.control.api_server import ApiServer
    from inferno_milp.control.clock import SystemClock
    from inferno_milp.control.collector import Collector
    from inferno_milp.control.config import read_control_config
    from inferno_milp.control.controller import Controller
    from inferno_milp.control.kubernetes_cluster import KubernetesCluster
    from inferno_milp.control.lease import Lease
    from inferno_milp.control.problems import FixedProblem, Problems
    from inferno_milp.control.prometheus import PrometheusClient
    from inferno_milp.control.resources.problems import ResourceProblems
    from inferno_milp.control.resources.watch import Watch
    from inferno_milp.control.runner import Runner, run_loop

    config, problem, check = read_control_config(arguments.config)
    if arguments.dry_run:
        config = config.model_copy(update={"actuation": config.actuation.model_copy(update={"mode": "dry-run"})})
    server = ApiServer(config.kubernetes)
    problems: Problems = (
        ResourceProblems(server, config.resources.namespaces, config.capacity.source == "nodes", check)
        if problem is None
        else FixedProblem(problem)
    )
    cluster, clock = KubernetesCluster(config, server), SystemClock()
    acts = config.actuation.mode != "dry-run"
    lease = None
    if config.lease.enabled and acts:
        holder = f"{socket.gethostname()}-{os.getpid()}"
        lease = Lease(cluster, clock, holder, config.lease.duration_s)
        cluster.may_change = lambda: lease.is_held
    source = Collector(PrometheusClient(config.prometheus), config.prometheus)
    controller = Controller(config, problems, cluster, source, clock, lease)
    if arguments.once:
        report = Runner(controller, config).run_once()
        _show_report(arguments, report)
        if lease is not None:
            lease.give_up()
        return 0 if report.plan is not None and report.plan.serves_all and not report.errors else 1
    runner = Runner(controller, config, lambda report: _tell_report(report, quiet=arguments.quiet))
    if problem is not None:
        run_loop(runner, config)
        return 0
    watch = Watch(server.api.configuration, config.resources.namespaces, runner.wake)
    watch.start()
    try:
        run_loop(runner, config)
    finally:
        watch.stop()
    return 0


def _show_report(arguments: Namespace, report: Report) -> None:
    for error in report.errors:
        tell(f"warning: {error}")
    if arguments.json is not None:
        write_json(report.to_dict(), arguments.json)
    if arguments.json != STDOUT and not arguments.quiet:
        from inferno_milp.cli.control_view import print_round

        print_round(report)


def _tell_report(report: Report, *, quiet: bool) -> None:
    if not quiet:
        for step in report.steps:
            tell(f"{step.outcome}: {step.step} {step.reason}".strip())


def _emulate(arguments: Namespace) -> int:
    from inferno_milp.cli.control_view import print_day, watch_day
    from inferno_milp.control.config import ControlConfig
    from inferno_milp.control.emulation.day import Emulation, run_controlled, run_static
    from inferno_milp.control.emulation.load import Day
    from inferno_milp.problem.reading import opened_files, read_problem

    with opened_files() as opened:
        problem = read_problem(arguments.problem)
    check_outputs(arguments, opened)
    day = Day(hours=arguments.hours, whole_hours=WHOLE_HOURS, begin_hour=arguments.begin, burst=arguments.burst)
    emulation = Emulation(problem, day, interval_s=arguments.interval, startup_s=arguments.startup, seed=arguments.seed)
    config = ControlConfig(problem=str(arguments.problem), interval_s=arguments.interval)
    forecast = config.forecast.model_copy(update={"startup_s": arguments.startup})
    config = config.model_copy(update={"forecast": forecast})
    plan = emulation.begin(day.factor(0.0))
    if not plan.serves_all:
        raise OptionError(f"not all servers can be served at the day's start: {', '.join(plan.unserved)}")
    with watch_day(emulation, quiet=arguments.quiet) as on_round:
        emulation.on_round = on_round
        timeline = run_controlled(emulation, config)
    _write_day(arguments, problem, timeline)
    if arguments.json != STDOUT and not arguments.quiet:
        print_day(timeline, run_static(emulation))
    return 0


def _write_day(arguments: Namespace, problem: Problem, timeline: Timeline) -> None:
    if arguments.json is not None:
        write_json(timeline.to_dict(), arguments.json)
    if arguments.csv is not None:
        write_text(csv_text(timeline.to_frame()), arguments.csv)
    if arguments.plot is not None:
        from inferno_milp.report.plots.timeline import draw_days

        picture = draw_days(problem, timeline.to_dict(), Path(arguments.plot).suffix[1:])
        write_bytes(picture, arguments.plot)
