"""What comes with the program: accelerators, language models and profiles, found by name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from inferno_milp.errors import OptionError
from inferno_milp.problem.architecture import LanguageModel, models_by_word
from inferno_milp.problem.reading import read_sections
from inferno_milp.problem.sections import Profile, Sections
from inferno_milp.problem.shipped import catalogue_files
from inferno_milp.problem.spelling import nearest
from inferno_milp.problem.supply import Accelerator


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Accelerators, language models and profiles.

    Attributes
    ----------
    accelerators, language_models : by name; models also by their aliases.
    profiles : measured ones first.
    """

    accelerators: dict[str, Accelerator]
    language_models: dict[str, LanguageModel]
    profiles: tuple[Profile, ...]

    def accelerator(self, name: str, devices: int | None = None) -> Accelerator:
        """Find an arrangement by its name, or a device and how many of it; the case of letters does not matter.

        Raises
        ------
        OptionError
            If there is none, naming the nearest.
        """
        known = {key.casefold(): value for key, value in self.accelerators.items()}
        word = _plain(name)
        found = known.get(word) or known.get(re.sub(r"[-_ ]?sxm[0-9]?$", "", word))
        if found is None:
            raise OptionError(f"unknown accelerator {name!r}; {nearest(name, self.accelerators)}")
        if devices is None or devices == found.devices:
            return found
        arranged = [a for a in self.accelerators.values() if a.type == found.type and a.devices == devices]
        return arranged[0] if arranged else arrangement(found, devices)

    def language_model(self, name: str) -> LanguageModel:
        """Find a model by its name, an alias, or the last part of either; OptionError if there is none."""
        by_word = models_by_word(self.language_models.values())
        found = by_word.get(name.casefold())
        if found is None:
            raise OptionError(f"unknown model {name!r}; {nearest(name, by_word)}")
        return found


def _plain(name: str) -> str:
    return name.casefold().removeprefix("nvidia-").removeprefix("nvidia ")


def arrangement(one: Accelerator, devices: int) -> Accelerator:
    """Return an arrangement of several devices like those of a given one."""
    share = devices / one.devices
    power = one.power and one.power.model_copy(
        update={name: getattr(one.power, name) * share for name in ("idle_w", "mid_w", "full_w")}
    )
    return one.model_copy(
        update={
            "name": one.type if devices == 1 else f"{devices}x{one.type}",
            "devices": devices,
            "cost_per_hour": one.cost_per_hour * share,
            "memory_gb": one.memory_gb and one.memory_gb * share,
            "memory_bandwidth_gb_per_s": one.memory_bandwidth_gb_per_s and one.memory_bandwidth_gb_per_s * share,
            "network_gb_per_s": one.network_gb_per_s and one.network_gb_per_s * share,
            "peak_tflops": one.peak_tflops and {key: value * share for key, value in one.peak_tflops.items()},
            "power": power,
            "price_source": None,
        }
    )


def make_catalogue(sections: Iterable[Sections]) -> Catalogue:
    """Put the sections of several files together; of those of the same name, or pair, the first one counts."""
    accelerators: dict[str, Accelerator] = {}
    models: dict[str, LanguageModel] = {}
    profiles: dict[tuple[str, str], Profile] = {}
    for part in sections:
        accelerators = {**{a.name: a for a in part.accelerators}, **accelerators}
        models = {**{m.name: m for m in part.language_models}, **models}
        for profile in part.profiles:
            profiles.setdefault((profile.model, profile.accelerator), profile)
    return Catalogue(accelerators, models, tuple(profiles.values()))


@cache
def _shipped_sections() -> tuple[Sections, ...]:
    return tuple(read_sections(path) for path in catalogue_files())


@cache
def shipped_catalogue() -> Catalogue:
    """Read the catalogue that comes with the program."""
    return make_catalogue(_shipped_sections())


def read_catalogue(paths: Iterable[Path]) -> Catalogue:
    """Read the catalogue with files of one's own before it; InputError with all their faults."""
    return make_catalogue([*(read_sections(path) for path in paths), *_shipped_sections()])
