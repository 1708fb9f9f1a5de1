"""Names of language models: a problem may call a model by any of its names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from inferno_milp.errors import Fault
from inferno_milp.problem.architecture import models_by_word
from inferno_milp.problem.sections import ServiceClass


def resolve_models(merged: dict[str, Any]) -> Iterator[Fault]:
    """Call models, in servers and targets, as their profiles do; `merged` has the sections, and is changed.

    Yields what cannot be: two targets of one model under two names.
    """
    resolve = _resolver(merged)
    merged["servers"] = [s if (name := resolve(s.model)) == s.model else s.called(name) for s in merged["servers"]]
    classes: list[ServiceClass] = merged["service_classes"]
    for i, one in enumerate(classes):
        named: dict[str, str] = {}
        for word in one.targets:
            other = named.setdefault(resolve(word), word)
            if other != word:
                fault = f"{word!r} and {other!r} are one model"
                yield Fault(fault, "keep one of the two", ("service_classes", i, "targets", word))
        targets = {name: one.targets[word] for name, word in named.items()}
        classes[i] = one.model_copy(update={"targets": targets})


def _resolver(merged: dict[str, Any]) -> Callable[[str], str]:
    profiled = {profile.model for profile in merged["profiles"]}
    by_word = models_by_word(merged["language_models"])

    def resolve(word: str) -> str:
        model = by_word.get(word.casefold())
        if word in profiled or model is None:
            return word
        return next((name for name in (model.name, *model.aliases) if name in profiled), word)

    return resolve
