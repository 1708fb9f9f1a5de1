"""llm-inferno's system data as models: the seed's words, units and defaults, nothing converted yet."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from inferno_milp.problem.fields import LARGEST_BATCH, BatchSize, Count, Flag, Name, NonNegative, PositiveCount

Whole = Annotated[int, Field(strict=True, ge=-(10**9), le=10**9)]
Text = Annotated[str, Field(max_length=200)]
Tokens = Annotated[float, Field(strict=True, ge=0, le=1e9, allow_inf_nan=False)]


_KEYS = """
system acceleratorData modelData serviceClassData serverData optimizerData capacityData
accelerators name type multiplicity memSize memBW power idle full midPower midUtil cost
models acc accCount maxBatchSize atTokens decodeParms prefillParms perfParms alpha beta gamma delta
serviceClasses priority modelTargets model slo-itl slo-ttft slo-tps
servers class keepAccelerator minNumReplicas maxQueueSize currentAlloc desiredAlloc
accelerator numReplicas maxBatch itlAverage ttftAverage load arrivalRate throughput avgInTokens avgOutTokens
optimizer unlimited heterogeneous milpSolver useCplex delayedBestEffort saturationPolicy count
"""
SPELLING = {name.casefold(): name for name in _KEYS.split()}
"""How each key is spelled in llm-inferno, by its folded form."""


class SystemModel(BaseModel):
    """Fields are named as keys folded to lower case; their aliases are the keys as they are spelled."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=lambda name: SPELLING[name.replace("_", "-")],
        validate_by_name=True,
        validate_by_alias=True,
    )


class SystemPower(SystemModel):
    """Power draw of an accelerator, W."""

    idle: NonNegative = 0.0
    full: NonNegative = 0.0
    midpower: NonNegative = 0.0
    midutil: Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)] = 0.0


class SystemAccelerator(SystemModel):
    """One of `accelerators`; costs are cents per hour."""

    name: Name
    type: Name
    multiplicity: PositiveCount = 1
    memsize: NonNegative = 0.0
    membw: NonNegative = 0.0
    power: SystemPower | None = None
    cost: NonNegative


class SystemDecode(SystemModel):
    """`decodeParms`, ms."""

    alpha: NonNegative
    beta: NonNegative


class SystemPrefill(SystemModel):
    """`prefillParms`, ms."""

    gamma: NonNegative
    delta: NonNegative


class SystemPerf(SystemModel):
    """`perfParms` of the newer form, ms."""

    alpha: NonNegative
    beta: NonNegative
    gamma: NonNegative = 0.0


class SystemProfile(SystemModel):
    """One of `models`: a model on an accelerator."""

    name: Name
    acc: Name
    acccount: Whole = 1
    maxbatchsize: BatchSize
    attokens: Tokens = 0.0
    decodeparms: SystemDecode | None = None
    prefillparms: SystemPrefill | None = None
    perfparms: SystemPerf | None = None

    @model_validator(mode="after")
    def _one_form(self) -> SystemProfile:
        older = (self.decodeparms, self.prefillparms)
        if (self.perfparms and any(older)) or any(older) != all(older):
            raise ValueError("give either perfParms, or both decodeParms and prefillParms")
        return self

    @property
    def is_measured(self) -> bool:
        """Whether there are speeds at all: llm-inferno's control loop may still have to find them."""
        return bool(self.perfparms or self.decodeparms)


class SystemModelTarget(SystemModel):
    """One of `modelTargets`; 0 is no target."""

    model: Name
    slo_itl: NonNegative = 0.0
    slo_ttft: NonNegative = 0.0
    slo_tps: NonNegative = 0.0


class SystemServiceClass(SystemModel):
    """One of `serviceClasses`."""

    name: Name
    priority: Whole = 100
    modeltargets: tuple[SystemModelTarget, ...] = ()

    @model_validator(mode="after")
    def _one_target_per_model(self) -> SystemServiceClass:
        twice = [name for name, count in Counter(t.model for t in self.modeltargets).items() if count > 1]
        if twice:
            raise ValueError(f"models with two targets: {', '.join(twice)}")
        return self


class SystemLoad(SystemModel):
    """`load`: requests per minute, tokens per request."""

    arrivalrate: NonNegative = 0.0
    throughput: float = 0.0
    avgintokens: Tokens = 0.0
    avgouttokens: Tokens = 0.0


class SystemAllocation(SystemModel):
    """`currentAlloc` or `desiredAlloc`."""

    accelerator: Text = ""
    numreplicas: Count = 0
    maxbatch: Annotated[int, Field(strict=True, ge=0)] = 0
    cost: float = 0.0
    itlaverage: float = 0.0
    ttftaverage: float = 0.0
    load: SystemLoad = SystemLoad()


class SystemServer(SystemModel):
    """One of `servers`; 0 and the empty text are not given."""

    name: Name
    service_class: Text = Field("", alias="class")
    model: Name
    keepaccelerator: Flag = False
    minnumreplicas: Count = 0
    maxbatchsize: Annotated[int, Field(strict=True, ge=0, le=LARGEST_BATCH)] = 0
    maxqueuesize: Annotated[int, Field(strict=True, ge=0, le=10**9)] = 0
    currentalloc: SystemAllocation = SystemAllocation()
    desiredalloc: SystemAllocation | None = None


class SystemOptimizer(SystemModel):
    """`optimizer`: flags."""

    unlimited: Flag = False
    heterogeneous: Flag = False
    milpsolver: Flag = False
    usecplex: Flag = False
    delayedbesteffort: Flag = False
    saturationpolicy: Text = ""


class SystemTypeCount(SystemModel):
    """One of `count`: devices of a type."""

    type: Name
    count: Count


class SystemAcceleratorData(SystemModel):
    """`acceleratorData`."""

    accelerators: tuple[SystemAccelerator, ...] = ()


class SystemModelData(SystemModel):
    """`modelData`."""

    models: tuple[SystemProfile, ...] = ()


class SystemServiceClassData(SystemModel):
    """`serviceClassData`."""

    serviceclasses: tuple[SystemServiceClass, ...] = ()


class SystemServerData(SystemModel):
    """`serverData`."""

    servers: tuple[SystemServer, ...] = ()


class SystemOptimizerData(SystemModel):
    """`optimizerData`."""

    optimizer: SystemOptimizer = SystemOptimizer()


class SystemCapacityData(SystemModel):
    """`capacityData`."""

    count: tuple[SystemTypeCount, ...] = ()
