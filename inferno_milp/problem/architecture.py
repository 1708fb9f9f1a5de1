"""Language models by their architecture: what an estimate of their speed, and of their memory, is made from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from inferno_milp.problem.fields import Model, Name, Positive, PositiveCount

Precision = Literal["fp32", "bf16", "fp16", "fp8", "int8", "fp4", "int4"]
BYTES: dict[str, float] = {
    "fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0, "fp4": 0.5625, "int4": 0.5625
}  # fmt: skip
"""Bytes of a weight, the scales of small blocks included."""
KV_BYTES = 2.0
"""Bytes of a value in the KV cache, by default 16 bit."""

Words = Annotated[str, Field(min_length=1, max_length=1000)]


class LanguageModel(Model):
    """A language model, by the figures of its configuration."""

    name: Name
    """Name of its weights: `meta-llama/Llama-3.1-8B-Instruct`."""
    aliases: tuple[Name, ...] = ()
    """Other names, as benchmarks call it."""
    parameters_b: Positive
    """Parameters, 10⁹."""
    active_parameters_b: Positive
    """Parameters that a token passes through, 10⁹; fewer than all for a mixture of experts."""
    layers: PositiveCount
    """Layers."""
    kv_layers: PositiveCount
    """Layers that keep a KV cache of the whole context."""
    kv_values_per_layer: PositiveCount
    """Values in the KV cache per token and layer: 2 · KV heads · head dimension, or the latent ones."""
    experts: PositiveCount | None = None
    """Routed experts of a layer; None for dense models."""
    experts_per_token: PositiveCount | None = None
    """Routed experts that a token passes through."""
    precision: Precision = "bf16"
    """Of the weights as published."""
    context_tokens: PositiveCount | None = None
    """Longest context."""
    source: Words | None = None
    """Where the figures are from."""

    @model_validator(mode="before")
    @classmethod
    def _dense(cls, data: Any) -> Any:
        if isinstance(data, dict):
            data = {"active_parameters_b": data.get("parameters_b"), "kv_layers": data.get("layers"), **data}
        return data

    @model_validator(mode="after")
    def _experts_go_together(self) -> LanguageModel:
        if (self.experts is None) != (self.experts_per_token is None):
            raise ValueError("give experts and experts_per_token, or neither")
        if self.active_parameters_b > self.parameters_b:
            raise ValueError("active_parameters_b is more than parameters_b")
        return self

    def kv_bytes_per_token(self, bytes_per_value: float = KV_BYTES) -> float:
        """Bytes that a token takes in the KV cache."""
        return self.kv_layers * self.kv_values_per_layer * bytes_per_value

    def weight_bytes(self, precision: str) -> float:
        """Bytes of all weights."""
        return self.parameters_b * 1e9 * BYTES[precision]

    def active_bytes(self, precision: str) -> float:
        """Bytes of the weights that one token passes through."""
        return self.active_parameters_b * 1e9 * BYTES[precision]


def models_by_word(models: Iterable[LanguageModel]) -> dict[str, LanguageModel]:
    """Return models by all that they may be called, in lower case: name, aliases, and the last part of each."""
    by_word: dict[str, LanguageModel] = {}
    for model in models:
        for word in (model.name, *model.aliases):
            by_word.setdefault(word.casefold(), model)
            by_word.setdefault(word.rpartition("/")[2].casefold(), model)
    return by_word
