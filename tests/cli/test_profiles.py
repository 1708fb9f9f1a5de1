"""`fit` and `models` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_problems import DATA

from inferno_milp.cli import main
from inferno_milp.problem.reading import read_sections

POINTS = DATA / "aiconfigurator_points.csv"
MODEL = "openai/gpt-oss-120b"
CHOSEN = ["--where", f"model={MODEL}", "--where", "devices=8"]
FIT = ["fit", str(POINTS), *CHOSEN, "--model", MODEL, "--accelerator", "8xH100"]


class TestFit:
    def test_to_files(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        target, data, rows, picture = (str(tmp_path / n) for n in ("mine.yaml", "fit.json", "runs.csv", "fit.svg"))
        assert main([*FIT, "-o", target, "--json", data, "--csv", rows, "--plot", picture, "--source", "a test"]) == 0
        out = capsys.readouterr().out
        assert "alpha_ms" in out
        assert "errors on shapes left out" in out
        (profile,) = read_sections(target).profiles
        assert (profile.model, profile.accelerator) == ("openai/gpt-oss-120b", "8xH100")
        assert profile.origin is not None
        assert profile.origin.source == "a test"
        assert profile.kv_tokens  # by the memory's size
        document = json.loads(Path(data).read_text())
        assert len(document["runs"]) == 8
        assert Path(rows).read_text().count("\n") == 9
        assert Path(picture).read_text().startswith("<?xml")

    def test_update(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        target = tmp_path / "mine.yaml"
        target.write_text(
            "profiles:\n  - {model: m, accelerator: H100, alpha_ms: 6.8, beta_ms: 0.0235, gamma_ms: 6.8, "
            "delta_ms: 0.0184, "
            "kappa_ms: 4.2e-5, overhead_ms: 6.2, kv_tokens: 418000}\n"
        )
        command = ["fit", str(DATA / "observed.csv"), "--update", str(target), "--model", "m", "--accelerator", "H100"]
        assert main([*command, "-o", str(target)]) == 0
        assert "60 of 60 observations were used" in capsys.readouterr().out
        (profile,) = read_sections(target).profiles
        assert 7.2 < profile.alpha_ms < 8.4
        assert profile.kv_tokens == 418000
        assert main([*command, "--kv-tokens", "9"]) == 2
        assert "--kv-tokens: the profile that is refined has that already" in capsys.readouterr().err
        assert main([*command[:-1], "A100"]) == 2
        assert "has no profile of m on A100; did you mean 'm on H100'" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--where", "backend"], "--where takes LABEL=VALUE"),
            (["--where", "colour=red"], "no run has a label 'colour'"),
            (["--where", "model=gpt"], "no run has model 'gpt'"),
            ([], "the runs are of different engines: 3 values of model"),
            (["--forgetting", "0.9"], "--forgetting goes with --update"),
            (["-o", str(POINTS)], "is read, and would be written over"),
        ],
    )
    def test_wrong_usage(self, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["fit", str(POINTS), "--model", "m", "--accelerator", "H100", *arguments]) == 2
        assert words in capsys.readouterr().err

    def test_runs_of_another_pair_are_warned_of(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "runs.csv"
        rows = "".join(f"vendor/other-3b,A100,400,100,{c},{60 + c},{8 + c / 9}\n" for c in (1, 4, 4, 16))
        path.write_text(f"model,gpu,isl,osl,concurrency,ttft_ms,itl_ms\n{rows}")
        assert main(["fit", str(path), "--model", "vendor/model-8b", "--accelerator", "H100"]) == 0
        told = capsys.readouterr().err
        assert "the runs say model 'vendor/other-3b', the profile is for 'vendor/model-8b'" in told
        assert "the runs say accelerator 'A100'" in told
        assert "1 runs are given twice" in told
        assert main(["fit", str(path), "--model", "Other-3B", "--accelerator", "NVIDIA-A100"]) == 0
        assert "the runs say" not in capsys.readouterr().err

    def test_what_is_left_out_is_told(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "runs.csv"
        path.write_text(
            "isl,osl,concurrency,ttft_ms,itl_ms\n400,100,1,60,8\n400,100,8,80,9\n400,100,16,soon,10\n400,100,,80,9\n"
        )
        assert main(["fit", str(path), "--model", "m", "--accelerator", "X"]) == 0
        told = capsys.readouterr()
        assert told.err.count("warning: ") == 2
        assert "two runs that would tell" in told.out


class TestModels:
    def test_list(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["models", "list", "--kind", "measured", "--accelerator", "H100", "--json", "-"]) == 0
        profiles = json.loads(capsys.readouterr().out)["profiles"]
        assert profiles
        assert all("H100" in p["accelerator"] and p["origin"]["kind"] == "measured" for p in profiles)
        assert main(["models", "list", "--model", "nothing"]) == 2

    def test_show(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["models", "show", "Qwen3-32B"]) == 0
        assert "parameters_b: 32.76" in capsys.readouterr().out
        assert main(["models", "show", "H100"]) == 0
        out = capsys.readouterr().out
        assert "price_source: AWS" in out
        assert "meta-llama/Llama-3.1-8B-Instruct" in out
        assert main(["models", "show", "H101"]) == 2
        assert "is no accelerator and no model; did you mean 'H100'" in capsys.readouterr().err

    def test_compare(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["models", "compare", "Llama-3.1-8B-Instruct", "--itl-ms", "30", "--csv", "-"]) == 0
        assert "L40S" in capsys.readouterr().out

    def test_compare_where_nothing_keeps_the_promise(self, capsys: pytest.CaptureFixture[str]) -> None:
        """No rate, so no cost per token either: null in JSON, which knows no infinity."""
        assert main(["models", "compare", "Llama-3.1-8B-Instruct", "--itl-ms", "1e-9", "--json", "-"]) == 0
        rows = json.loads(capsys.readouterr().out)
        assert {(row["max_rate_per_s"], row["cost_per_million_output_tokens"]) for row in rows} == {(0.0, None)}

    def test_compare_needs_whole_requests(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            main(["models", "compare", "Llama-3.1-8B-Instruct", "--output-tokens", "0.5"])
        assert caught.value.code == 2
        assert "--output-tokens: must be at least 1, not 0.5" in capsys.readouterr().err

    def test_estimate_of_more_memory_than_is_of_use(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A profile's numbers have bounds, and a thousand devices hold more."""
        asked = ["models", "estimate", "meta-llama/Llama-3.2-1B-Instruct", "H200", "--devices", "1024", "--json", "-"]
        assert main(asked) == 0
        assert json.loads(capsys.readouterr().out)["kv_tokens"] == 10**9

    def test_estimate(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        mine = tmp_path / "mine.yaml"
        mine.write_text(
            "language_models:\n  - {name: tiny, parameters_b: 1, layers: 10, kv_values_per_layer: 512}\n"
            "accelerators:\n  - {name: X, cost_per_hour: 1, memory_gb: 16, memory_bandwidth_gb_per_s: 500, "
            "peak_tflops: {bf16: 50}}\n"
        )
        target = tmp_path / "out.yaml"
        assert main(["models", "estimate", "tiny", "X", "--catalogue", str(mine), "-o", str(target)]) == 0
        assert "the KV cache holds" in capsys.readouterr().out
        assert read_sections(target).profiles[0].origin.kind == "estimated"  # type: ignore[union-attr]
        measured = target.read_text().replace("kind: estimated", "kind: measured")
        target.write_text(measured)
        assert main(["models", "estimate", "tiny", "X", "--catalogue", str(mine), "-o", str(target)]) == 2
        assert "was not estimated: it is kept" in capsys.readouterr().err
        assert target.read_text() == measured
