"""What exactly a plan's status claims, in words: what was proven, over which plans, and on what profiles."""

from __future__ import annotations

from collections.abc import Iterable

from inferno_milp.plan import Plan, ProfileUse, UsedProfile

STATUS = {
    "optimal": "optimal",
    "feasible": "feasible, not proven optimal",
    "partial": "partial: not everybody is served in full",
    "infeasible": "infeasible: proven that nobody can be served",
    "no_solution": "no solution: the time ran out before a plan was found",
}
TINY_GAP = 1e-9
"""A smaller gap is rounding."""
SINGLE, ESTIMATED = "one accelerator per server", "by estimated profiles"


def status_words(plan: Plan) -> str:
    """Return a plan's status, with what limits the proof: the plans considered, and profiles that were estimated."""
    words = [STATUS[plan.status]]
    if plan.status == "optimal" and plan.assignment == "single":
        words.append(SINGLE)
    if plan.rests_on_estimates and plan.status in ("optimal", "infeasible"):
        words.append(ESTIMATED)
    return ", ".join(words)


def proof_sentence(plan: Plan) -> str:
    """Return what is proven of a plan, as a sentence; of one that is proven within a gap, no more than that."""
    hold = ", if the estimated profiles hold" if plan.rests_on_estimates else ""
    if plan.status != "optimal":
        return {
            "feasible": "Everybody is served; it is not proven that no plan costs less.",
            "partial": "Not everybody can be served in full.",
            "infeasible": f"Proven: nobody can be served{hold}.",
            "no_solution": "The time ran out before a plan was found.",
        }[plan.status]
    considered = "with one accelerator per server " if plan.assignment == "single" else ""
    words = f"Proven: no plan {considered}{'costs less' if plan.is_cost_the_objective else 'has a lower objective'}"
    if plan.gap is not None and plan.gap > TINY_GAP:
        words += f" by more than {100 * plan.gap:.2g} %"
    return f"{words}{hold}."


def _profile_words(use: ProfileUse) -> tuple[str, str, str, str, str]:
    """Return precision, engine, origin, and errors of the mean TTFT and ITL of a profile, in words."""
    errors = ("–" if error is None else f"±{error:.0%}" for error in (use.ttft_error, use.itl_error))
    engine = " ".join(word for word in (use.engine, use.engine_version) if word)
    ttft_error, itl_error = errors
    return use.precision or "–", engine or "–", use.kind or "–", ttft_error, itl_error


def profile_rows(used: Iterable[UsedProfile]) -> list[tuple[str, ...]]:
    """Return a row for each profile whose origin is known."""
    return [(one.model, one.accelerator, *_profile_words(one.profile)) for one in used if one.profile.is_known]


def bound_words(plan: Plan) -> str:
    """Return the bound and the gap; where the objective is not the cost, what it is as well. Empty without a bound."""
    if plan.bound is None or plan.gap is None or plan.objective is None:
        return ""
    of = "" if plan.is_cost_the_objective else f"objective {plan.objective:.10g}, "
    return f" ({of}bound {plan.bound:.10g}, gap {plan.gap:.2%})"
