"""`analyze` for one engine: its figures from a problem, from options, or from both."""

from __future__ import annotations

from argparse import Namespace

from inferno_milp.errors import OptionError
from inferno_milp.problem.fields import Targets
from inferno_milp.problem.reading import read_problem
from inferno_milp.problem.sections import Options
from inferno_milp.studies.one_engine import ENGINE, OPTIONAL, EngineAnalysis, EngineQuestion, analyze_one, engine_of


def analyze_engine(arguments: Namespace) -> EngineAnalysis:
    """Find out which engine is meant, size it and analyse it.

    Raises
    ------
    OptionError
        If figures are missing, or a name is not known.
    """
    names = (*ENGINE, *OPTIONAL)
    engine = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    targets, law = Targets(), Options().law
    if arguments.problem is not None:
        problem = read_problem(arguments.problem)
        if not (arguments.server and arguments.accelerator):
            raise OptionError("with a PROBLEM, --server and --accelerator say which engine is meant")
        engine, targets = engine_of(problem, arguments.server, arguments.accelerator, engine)
        law = problem.options.law
    elif arguments.server or arguments.accelerator:
        raise OptionError("--server and --accelerator name parts of a PROBLEM: give one")
    missing = [f"--{name.replace('_', '-')}" for name in ENGINE if name not in engine]
    if missing:
        raise OptionError(f"missing: {', '.join(missing)} (or give a PROBLEM with --server and --accelerator)")
    targets = targets.model_copy(update=_given_targets(arguments))
    return analyze_one(EngineQuestion(engine, targets, arguments.law or law, arguments.rate_per_s))


def _given_targets(arguments: Namespace) -> dict[str, dict[str, float]]:
    given = {}
    for name in ("ttft_ms", "itl_ms"):
        pairs = getattr(arguments, name)
        if pairs is not None:
            given[name] = dict(pairs)
            if len(given[name]) < len(pairs):
                raise OptionError(f"--{name.replace('_', '-')}: give one target for each statistic")
    return given
