"""Words of other tools for the keys, subcommands and options of this one, by what they mean.

A word is looked up here before its spelling is compared with anything: `prompt_tokens` is spelled like `output_tokens`
and means `input_tokens`. Words are those of OpenAI's API, vLLM, guidellm, genai-perf, llm-d, llm-inferno, Kubernetes
and solvers.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator
from functools import cache

from inferno_milp.problem.spelling import did_you_mean, folded, known_names, nearest_name, unit_of

LISTED = 40
"""Keys of a section that are listed where none is like an unknown one."""

CLOSE = 0.8
"""How alike a word must be to one of another tool's to be taken for a slip of the pen."""

_INPUT = """
    isl prompt_tokens prompt_len prompt_length prompt_size prompts_tokens prompt prompt_token_count input_len
    input_length input in_tokens input_size input_sequence_length input_token_count random_input_len num_prompt_tokens
    n_prompt_tokens prefill_tokens mean_input_tokens avg_input_tokens avg_in_tokens avgintokens context_len
    synthetic_input_tokens_mean request_tokens
"""
_OUTPUT = """
    osl completion_tokens completion_len completion_length completions_tokens completion output_len output_length output
    out_tokens output_size output_sequence_length output_token_count random_output_len generated_tokens
    generation_tokens generation_len gen_len gen_tokens decode_tokens new_tokens max_new_tokens max_tokens
    num_output_tokens response_tokens mean_output_tokens avg_output_tokens avg_out_tokens avgouttokens
    synthetic_output_tokens_mean
"""
_RATE = "rate request_rate arrival_rate load_rate traffic throughput arrivals requests"
_PER_S = "rps qps req_per_s req_s requests_per_s requests_per_second requests_per_sec request_throughput rate_per_sec"
_PER_MIN = "rpm qpm req_per_min requests_per_min requests_per_minute arrivalrate rate_per_minute"
_EITHER_RATE = f"{_RATE} rate_per_hour requests_per_hour requests_per_day"
_TTFT = """
    ttft time_to_first_token slo_ttft ttft_slo ttft_s ttft_seconds ttft_target first_token first_token_ms
    time_to_first_token_ms first_token_latency mean_ttft_ms ttft_mean_ms prefill_latency prompt_latency
"""
_ITL = """
    itl tpot tpot_ms tbt tbt_ms slo_itl slo_tpot tpot_slo itl_slo itl_s tpot_s inter_token_latency
    inter_token_latency_ms time_per_output_token time_per_output_token_ms time_between_tokens token_latency
    mean_itl_ms mean_tpot_ms
    output_token_latency decode_latency
"""
_TPS = "slo_tps tokens_per_second tokens_per_s token_throughput output_token_throughput output_tps tok_s toks_per_s"
_PRICE = """
    cost price hourly_cost cost_per_h price_per_hour price_hour usd_per_hour dollars_per_hour unit_cost hourly_price
    cents_per_hour cost_hour
"""
_DEVICES = "gpus gpu num_gpus gpu_count ngpus n_gpus tp tensor_parallel_size tensor_parallel tp_size multiplicity cards"
_BATCH = """
    max_batch max_num_seqs max_seqs maxbatch max_concurrency max_num_sequences max_bs batch_size batch bs max_batchsize
    maxbatchsize concurrency
"""
_REPLICAS = "instances pods num_replicas numreplicas replica_count count"

KEYS: dict[str, dict[str, str]] = {
    "Document": {
        "accelerators": "gpus gpu gpu_types hardware acceleratordata instance_types flavors machines devices",
        "profiles": "perf performance perf_data modeldata perfparms benchmarks measurements models model_profiles",
        "language_models": "models llms llm architectures model",
        "service_classes": "slos slo sla slas classes serviceclasses serviceclassdata targets priorities tenants tiers",
        "servers": "workloads deployments services serverdata variants model_servers workload traffic",
        "capacity": "inventory quota quotas limits capacitydata gpu_count available stock cluster",
        "nodes": "node_pools hosts machines nodegroups",
        "periods": "hours schedule day timeslots time_slices",
        "include": "includes import imports extends files",
        "options": "settings config optimizer optimizerdata parameters params",
    },
    "Accelerator": {
        "cost_per_hour": _PRICE,
        "devices": _DEVICES,
        "type": "gpu_type gpu_model device device_type kind product",
        "memory_gb": "memory mem vram vram_gb memsize gpu_memory hbm hbm_gb memory_gib",
        "memory_bandwidth_gb_per_s": "bandwidth membw mem_bw memory_bandwidth bw hbm_bandwidth",
        "network_gb_per_s": "network network_bandwidth nic",
        "reserved_cost_per_hour": "committed_cost committed_cost_per_hour reservation_price reserved_price",
        "peak_tflops": "tflops flops peak_flops compute",
    },
    "Power": {
        "idle_w": "idle idle_power",
        "full_w": "full max tdp tdp_w full_power max_w max_power",
        "mid_w": "midpower mid mid_power",
        "mid_utilization": "midutil mid_util",
    },
    "NodeGroup": {"devices": f"{_DEVICES} devices_per_node gpus_per_node", "count": "nodes number replicas quantity"},
    "Pool": {"count": "devices quantity gpus", "cost_factor": "discount price_factor"},
    "Profile": {
        "accelerator": "acc gpu gpu_type hardware accelerator_name",
        "model": "llm model_name model_id modelname",
        "accelerators_per_replica": "acccount acc_count",
        "max_batch_size": _BATCH,
        "alpha_ms": "alpha decode_base",
        "beta_ms": "beta decode_slope",
        "gamma_ms": "gamma prefill_base",
        "delta_ms": "delta prefill_slope",
        "kappa_ms": "kappa",
        "at_output_tokens": "attokens at_tokens",
        "token_budget": "max_num_batched_tokens chunk_size chunked_prefill_size max_batched_tokens",
        "kv_tokens": "kv_cache_size kv_cache_tokens kv_capacity gpu_kv_cache_size num_gpu_blocks",
        "max_adapters": "max_loras max_lora",
    },
    "ServiceClass": {
        "targets": "slo slos sla modeltargets model_targets objectives",
        "priority": "prio rank importance level",
    },
    "Targets": {"ttft_ms": _TTFT, "itl_ms": _ITL, "tps": _TPS},
    "Server": {
        "model": "llm model_name model_id modelname",
        "service_class": "class slo_class priority_class serviceclass sla tier",
        "load": "traffic workload currentload demand",
        "min_replicas": "minnumreplicas min_num_replicas minreplicas min_instances min_pods replicas_min",
        "max_replicas": "maxnumreplicas max_num_replicas maxreplicas max_instances max_pods replicas_max",
        "max_batch_size": _BATCH,
        "max_queue_size": "maxqueuesize max_queue queue_size queue max_waiting",
        "keep_accelerator": "keepaccelerator pin_accelerator keep pinned",
        "current": "currentalloc current_allocation now running status",
        "reserve": "headroom slack margin buffer spare",
        "survive": "failures_tolerated tolerate n_minus redundancy",
        "adapters": "loras lora lora_adapters",
    },
    "Load": {
        "rate_per_s": f"{_PER_S} {_EITHER_RATE}",
        "rate_per_min": f"{_PER_MIN} {_EITHER_RATE}",
        "input_tokens": _INPUT,
        "output_tokens": _OUTPUT,
        "cv2_arrival": "burstiness ca2 scv_arrival cv_arrival",
        "cv2_input": "scv_input cv_input",
        "cv2_output": "scv_output cv_output",
        "mix": "buckets distribution histogram",
    },
    "Bucket": {"input_tokens": _INPUT, "output_tokens": _OUTPUT, "share": "fraction weight probability"},
    "CurrentAllocation": {
        "accelerator": "acc gpu gpu_type",
        "replicas": _REPLICAS,
        "batch_size": f"{_BATCH} max_batch_size",
    },
    "Period": {
        "hours": "duration length duration_hours",
        "rates_per_s": f"rates {_PER_S} {_PER_MIN} {_EITHER_RATE}",
        "factor": "scale multiplier load_factor",
    },
    "Scenario": {"probability": "p prob weight likelihood", "factor": "scale multiplier load_factor",
                 "rates_per_s": f"rates {_PER_S} {_PER_MIN} {_EITHER_RATE}"},
    "Options": {
        "law": "queueing_model model queue_model",
        "max_cost_per_hour": "budget max_cost cost_limit budget_per_hour",
        "saturation_policy": "saturationpolicy policy",
        "max_power_w": "power_limit power_cap max_power",
        "energy_price_per_kwh": "energy_price electricity_price energy_cost",
        "change_penalty": "penalty switching_cost migration_penalty",
        "assignment": "heterogeneous mode",
    },
    "SystemModelTarget": {"slo-itl": _ITL, "slo-ttft": f"{_TTFT} ttft_ms", "slo-tps": f"{_TPS} tps"},
    "SystemLoad": {
        "arrivalRate": f"rate request_rate {_PER_MIN} {_PER_S} rate_per_min rate_per_s",
        "avgInTokens": f"{_INPUT} input_tokens",
        "avgOutTokens": f"{_OUTPUT} output_tokens",
    },
    "SystemServer": {
        "class": "service_class serviceclass",
        "minNumReplicas": "min_replicas minreplicas",
        "maxBatchSize": "max_batch_size max_batch max_num_seqs",
    },
}  # fmt: skip
"""For each part of a document, by the name of its model: its keys, and other words for them. A word under two keys of
one part is ambiguous: both are named."""

SUBCOMMANDS: dict[str, str] = {
    "optimize": "plan solve run allocate minimize minimise optimise size schedule place cost recommend",
    "explain": "why reason reasons justify",
    "validate": "check lint verify test schema parse",
    "serve": "server service web ui http api start rest dashboard gui",
    "control": "autoscale autoscaler controller loop operator reconcile scale-live watch daemon",
    "generate": "init new create example random sample template scaffold make",
    "whatif": "what-if what_if change changes set",
    "sweep": "sensitivity grid scan vary",
    "frontier": "pareto tradeoff trade-off curve",
    "prices": "duals shadow-prices marginal worth value price",
    "candidates": "options configurations configs feasible list-candidates",
    "analyze": "analyse queueing latency engine model-engine capacity throughput",
    "compare": "versus vs greedy baseline",
    "diff": "delta difference differences",
    "simulate": "sim simulation replay benchmark",
    "fit": "calibrate profile train learn regress measure",
    "models": "catalog catalogue profiles accelerators gpus llms model",
    "export": "manifests manifest deploy kubernetes k8s kubectl apply helm",
    "periods": "hours day hourly timeline horizon",
    "scenarios": "stochastic robust uncertainty",
    "disaggregate": "pd prefill-decode prefill decode split disagg disaggregation disaggregated",
    "share": "sharing multiplex pool",
    "route": "routing router",
    "mix": "histogram buckets sizes",
    "plot": "chart graph figure figures draw",
    "report": "html page summary",
    "transition": "migrate rollout",
    "scale": "perturb load-change",
    "clusters": "many multi-cluster multicluster federation",
}
"""Subcommands, and other words for them."""

OPTIONS: dict[str, str] = {
    "--time-limit": "--timeout --max-time --time --seconds --limit --timelimit",
    "--gap": "--mip-gap --mipgap --tolerance --rel-gap --optimality-gap --tol",
    "--json": "--output --out --output-file --format --write --save",
    "--csv": "--output --out --output-file --format --write --save --table",
    "--quiet": "--silent -q --no-output",
    "--verbose": "--debug -v --log-level --trace-errors",
    "--jobs": "--workers --processes --threads --parallel -j --cores",
    "--workers": "--jobs --processes --threads --parallel -j --cores",
    "--unlimited": "--no-limits --infinite --no-capacity",
    "--assignment": "--heterogeneous --mode --mixed --single",
    "--law": "--queueing-model --model-type",
    "--solver": "--method --algorithm --engine --milp --greedy",
    "--max-cost-per-hour": "--budget --max-cost",
    "--current": "--from --now --previous",
    "--plot": "--figure --chart --graph --picture",
    "--html": "--output --out --page -o",
    "--set": "--override --change --with --param",
    "--input-tokens": _INPUT,
    "--output-tokens": _OUTPUT,
    "--rate-per-s": f"{_RATE} {_PER_S} {_PER_MIN} rate_per_min",
    "--ttft-ms": _TTFT,
    "--itl-ms": _ITL,
    "--accelerator": "--gpu --acc --gpu-type --hardware",
    "--model": "--llm --model-name",
    "--max-batch": _BATCH,
    "--token-budget": "--max-num-batched-tokens",
    "--seed": "--random-seed --random-state",
    "--requests": "--num-requests --n-requests --num-prompts",
    "--config": "--config-file -c -f --file",
    "--token-file": "--token --auth --api-key --bearer",
    "--database": "--db --store --database-url --sqlite",
    "--host": "--bind --address --listen",
    "--port": "-p --listen-port",
    "--catalogue": "--catalog --profiles",
    "--kind": "--type --object",
    "--verify": "--simulate --check",
}
"""Options of the command line, and other words for them; those of documents' keys are among them."""


def nearest_key(word: str, known: Collection[str], section: str = "") -> str:
    """Return a remedy for an unknown key: what it means in this section, else the known key that is spelled like it.

    Parameters
    ----------
    known : keys of the section.
    section : name of the model that has these keys.
    """
    return _remedy(word, known, KEYS.get(section, {}))


def meant_by(word: str, section: str) -> list[str]:
    """Return the keys of a section that a word means, whether or not it is spelled like them; none if it is no word."""
    return list(_meant(word, KEYS.get(section, {})))


def nearest_subcommand(word: str, known: Collection[str]) -> str:
    """Return a remedy for an unknown subcommand."""
    return _remedy(word, known, SUBCOMMANDS)


def nearest_option(word: str, known: Collection[str]) -> str:
    """Return a remedy for an unknown option: empty if there is none like it."""
    remedy = _remedy(word, known, OPTIONS)
    return remedy if remedy.startswith("did you mean") else ""


def _remedy(word: str, known: Collection[str], table: dict[str, str]) -> str:
    names = sorted(known)
    same = [name for name in names if folded(word) == folded(name)]
    table = {key: words for key, words in table.items() if key in known}
    # A word that means something is not compared by its letters: it may be spelled like its own opposite.
    meant = same or list(_meant(word, table)) or ([] if _is_a_word(word) else _spelled(word, names, table))
    if not meant:
        return known_names(names, LISTED)
    given, right = unit_of(word), {unit_of(key) for key in meant} - {None}
    convert = given is not None and right and given not in right
    return did_you_mean(meant) + (f" Convert from {given} to {' or '.join(sorted(map(str, right)))}" if convert else "")


def _spelled(word: str, names: list[str], table: dict[str, str]) -> list[str]:
    """Return what is spelled most like a word: a known name, or the keys that another word means."""
    spelled = nearest_name(word, names)
    words = {other for listed in table.values() for other in _folded_words(listed)}
    close = difflib.get_close_matches(folded(word), words, n=1, cutoff=CLOSE)
    if close and (spelled is None or _likeness(word, close[0]) > _likeness(word, spelled)):
        return list(_meant(close[0], table))
    return [] if spelled is None else [spelled]


def _likeness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, folded(one), folded(other)).ratio()


def _is_a_word(word: str) -> bool:
    return any(True for part in (*KEYS.values(), SUBCOMMANDS, OPTIONS) for _ in _meant(word, part))


def _meant(word: str, table: dict[str, str]) -> Iterator[str]:
    yield from (key for key, words in table.items() if folded(word) in _folded_words(words))


@cache
def _folded_words(words: str) -> frozenset[str]:
    return frozenset(map(folded, words.split()))
