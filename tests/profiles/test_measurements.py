"""Readers of benchmark files: every form, and nothing that was damaged gets through in silence."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import benchmark_files as files
import pytest
from benchmark_files import Run
from hypothesis import given, settings
from hypothesis import strategies as st

from inferno_milp.errors import InputError, OptionError
from inferno_milp.profiles.fitting import fit_profile
from inferno_milp.profiles.measurements import Measurement, Reading, read_measurements

RUN = Run()
FORMS: dict[str, tuple[str, Callable[[], str]]] = {
    "guidellm 0.2": ("report.json", lambda: files.guidellm_v1(RUN, replace(RUN, rate_per_s=8.0, requests=480))),
    "guidellm 0.8": ("report.json", lambda: files.guidellm_v2(RUN)),
    "guidellm flat": ("rows.json", lambda: files.guidellm_flat(RUN)),
    "guidellm csv": ("report.csv", lambda: files.guidellm_csv(RUN)),
    "guidellm page": ("report.html", lambda: files.guidellm_page(RUN)),
    "vllm": ("vllm.json", lambda: files.vllm_bench(RUN)),
    "vllm lines": ("vllm.json", lambda: files.vllm_bench(RUN, replace(RUN, rate_per_s=8.0, requests=480), between="")),
    "aiperf json": ("aiperf.json", lambda: files.aiperf_json(RUN)),
    "genai-perf": ("genai.json", lambda: files.genai_perf(RUN)),
    "genai-perf older": ("genai.json", lambda: files.genai_perf(RUN, older=True)),
    "aiperf csv": ("aiperf.csv", lambda: files.aiperf_csv(replace(RUN, clients=5, rate_per_s=5 / 1.08))),
    "inference-perf": ("stage_0.json", lambda: files.inference_perf(RUN)),
    "table": ("table.csv", lambda: files.table(RUN)),
    "aiconfigurator": ("points.csv", lambda: files.aiconfigurator(replace(RUN, clients=16))),
}


def read(folder: Path, name: str, text: str, **options: bool) -> Reading:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return read_measurements([path], **options)


def refused(folder: Path, name: str, text: str) -> str:
    with pytest.raises(InputError) as error:
        read(folder, name, text)
    return str(error.value)


class TestForms:
    @pytest.mark.parametrize("form", FORMS)
    def test_figures(self, form: str, tmp_path: Path) -> None:
        name, make = FORMS[form]
        reading = read(tmp_path, name, make())
        assert not reading.left_out
        found = reading.measurements[0]
        assert found.ttft_ms["mean"] == pytest.approx(90)
        assert found.itl_ms["mean"] == pytest.approx(10)
        assert (found.input_tokens, found.output_tokens) == pytest.approx((400, 100))
        if form in ("aiperf csv", "aiconfigurator"):
            assert (found.sent, found.concurrency) == ("concurrency", 5 if form == "aiperf csv" else 16)
        else:
            assert (found.sent, found.rate_per_s) == ("rate", pytest.approx(5))
            assert found.throughput_per_s == pytest.approx(5)
        if form not in ("aiconfigurator", "inference-perf", "aiperf csv", "table", "guidellm page"):
            assert found.labels["model"] == "vendor/model-8b"

    @pytest.mark.parametrize("form", [form for form in FORMS if form.startswith("guidellm")])
    def test_variability_is_read(self, form: str, tmp_path: Path) -> None:
        name, make = FORMS[form]
        found = read(tmp_path, name, make()).measurements[0]
        assert (found.cv2_input, found.cv2_output) == pytest.approx((0.04, 0.04))
        assert found.ttft_ms["p95"] == pytest.approx(117)

    def test_several_runs(self, tmp_path: Path) -> None:
        second = replace(RUN, rate_per_s=8.0, requests=480)
        for between in ("", "\n", " \n\n"):
            reading = read(tmp_path, "x.json", files.vllm_bench(RUN, second, between=between))
            assert [m.rate_per_s for m in reading.measurements] == [5, 8]
        reading = read(tmp_path, "y.json", f"[{files.vllm_bench(RUN, second, between=',')}]")
        assert len(reading.measurements) == 2

    def test_how_requests_are_sent(self, tmp_path: Path) -> None:
        one = replace(RUN, strategy="synchronous", rate_per_s=1 / 1.08, requests=55)
        poisson = replace(RUN, strategy="poisson")
        four = replace(RUN, strategy="concurrent", clients=4, rate_per_s=4 / 1.08)
        crowd = replace(RUN, strategy="throughput", rate_per_s=50.0, requests=3000)
        found = read(tmp_path, "x.json", files.guidellm_v1(one, poisson, four, crowd)).measurements
        assert [m.sent for m in found] == ["concurrency", "rate", "concurrency", "concurrency"]
        assert [m.concurrency for m in found] == [1, None, 4, pytest.approx(54)]
        assert [m.cv2_arrival for m in found] == [None, 1, None, None]
        assert [m.crowd for m in found] == [False, False, False, True]
        text = files.vllm_bench(replace(RUN, requests=200)).replace('"request_rate": 5.0', '"request_rate": "inf"')
        (all_at_once,) = read(tmp_path, "y.json", text).measurements
        assert (all_at_once.concurrency, all_at_once.crowd) == (200, True)
        bursty = files.vllm_bench(RUN).replace('"burstiness": 1.0', '"burstiness": 0.5')
        assert read(tmp_path, "z.json", bursty).measurements[0].cv2_arrival == 2

    def test_replicas_behind_one_address(self, tmp_path: Path) -> None:
        text = files.vllm_bench(RUN).replace('"gpu_count": "1"', '"gpu_count": "4", "decode_replicas": "4"')
        (found,) = read(tmp_path, "x.json", text).measurements
        assert (found.rate_per_s, found.throughput_per_s) == (1.25, 1.25)
        assert found.labels["devices"] == "1"
        assert "4 replicas" in found.notes[0]

    def test_chunks_are_no_tokens(self, tmp_path: Path) -> None:
        """vLLM counts chunks, inference-perf may count two per token: the time per token is what is wanted."""
        text = files.vllm_bench(RUN).replace('"mean_itl_ms": 10.0', '"mean_itl_ms": 40.0')
        (found,) = read(tmp_path, "x.json", text).measurements
        assert found.itl_ms["mean"] == 10
        assert "chunks" in found.notes[0]
        data = json.loads(files.inference_perf(RUN))
        data["successes"]["latency"]["time_per_output_token"]["mean"] = 0.005
        (found,) = read(tmp_path, "y.json", json.dumps(data)).measurements
        assert found.itl_ms["mean"] == pytest.approx(10)
        assert any("end-to-end" in note for note in found.notes)

    def test_columns_of_one_s_own(self, tmp_path: Path) -> None:
        text = "input_tokens;output_tokens;rate_per_min;mean_ttft_s;tpot_us\n400;100;300;0.09;10000\n"
        (found,) = read(tmp_path, "x.csv", text).measurements
        assert (found.rate_per_s, found.ttft_ms["mean"], found.itl_ms["mean"]) == pytest.approx((5, 90, 10))
        batch = "isl,osl,batch_size,ttft_ms,itl_ms\n400,100,8,90,10\n"
        assert read(tmp_path, "y.csv", batch).measurements[0].sent == "batch"


class TestTwoLimits:
    """A rate and most requests at once: whichever of the two binds sets the load."""

    @pytest.mark.parametrize("form", ["vllm", "aiperf", "guidellm"])
    def test_clients_where_they_bind(self, form: str, tmp_path: Path) -> None:
        run = replace(RUN, rate_per_s=32 / 1.08, requests=3000)

        def make(most: int, rate_per_s: float) -> str:
            if form == "vllm":
                text = files.vllm_bench(replace(run, clients=most))
                return text.replace(f'"request_rate": {run.rate_per_s}', f'"request_rate": {rate_per_s}')
            data = json.loads(files.aiperf_json(run) if form == "aiperf" else files.guidellm_v1(run))
            if form == "aiperf":
                data["input_config"]["phases"][0] |= {"request_rate": rate_per_s, "concurrency": most}
            else:
                data["benchmarks"][0]["args"]["strategy"] |= {"rate": rate_per_s, "max_concurrency": most}
            return json.dumps(data)

        (bound,) = read(tmp_path, "bound.json", make(32, 200.0)).measurements
        assert (bound.sent, bound.concurrency, bound.rate_per_s) == ("concurrency", 32, None)
        assert "that limit set the load" in bound.notes[0]
        (held,) = read(tmp_path, "held.json", make(50, run.rate_per_s)).measurements
        assert (held.sent, held.rate_per_s) == ("rate", pytest.approx(run.rate_per_s))
        assert "some were held back" in held.notes[0]
        (free,) = read(tmp_path, "free.json", make(512, run.rate_per_s)).measurements
        assert (free.sent, free.notes) == ("rate", ())

    def test_one_client_is_the_default(self, tmp_path: Path) -> None:
        data = json.loads(files.aiperf_json(replace(RUN, rate_per_s=1 / 1.08)))
        data["input_config"] = {"endpoint": {"model_names": ["m"]}, "loadgen": {"request_count": 300}}
        (found,) = read(tmp_path, "x.json", json.dumps(data)).measurements
        assert (found.sent, found.concurrency, found.load_text) == ("concurrency", 1, "1 client")
        assert "the tool's default" in found.notes[0]
        del data["input_config"]
        assert "does not say how requests were sent" in refused(tmp_path, "y.json", json.dumps(data))


class TestOfNoUse:
    """Files that are in order and hold nothing for a fit: left out, with the reason, and the others count."""

    def test_ramps(self, tmp_path: Path) -> None:
        ramp = json.loads(files.vllm_bench(RUN))
        ramp |= {"request_rate": "inf", "ramp_up_strategy": "linear", "ramp_up_start_rps": 2, "ramp_up_end_rps": 10}
        (tmp_path / "ramp.json").write_text(json.dumps(ramp))
        (tmp_path / "steady.json").write_text(files.vllm_bench(RUN))
        reading = read_measurements([tmp_path / "ramp.json", tmp_path / "steady.json"])
        assert [Path(m.place).name for m in reading.measurements] == ["steady.json"]
        assert "a ramp (linear) from 2 to 10 requests/s" in str(reading.left_out[0])
        assert "run each rate by itself" in refused(tmp_path, "ramp.json", json.dumps(ramp))

    def test_traces(self, tmp_path: Path) -> None:
        data = json.loads(files.aiperf_json(RUN))
        data["input_config"] = {"input": {"fixed_schedule": True}, "loadgen": {}}
        assert "sent by the times of a trace" in refused(tmp_path, "x.json", json.dumps(data))

    @pytest.mark.parametrize("form", ["inference-perf", "genai-perf"])
    def test_without_streaming(self, form: str, tmp_path: Path) -> None:
        """Throughput and whole requests are read; times of tokens are not there, which the fit says."""
        if form == "genai-perf":
            data = json.loads(files.genai_perf(RUN))
            del data["time_to_first_token"], data["inter_token_latency"]
        else:
            data = json.loads(files.inference_perf(RUN))
            latency = data["successes"]["latency"]
            latency |= dict.fromkeys(("time_to_first_token", "time_per_output_token", "inter_token_latency"))
        (found,) = read(tmp_path, "x.json", json.dumps(data)).measurements
        assert not found.is_streamed
        assert (found.throughput_per_s, found.end_to_end_ms["mean"]) == pytest.approx((5, 1080))
        with pytest.raises(OptionError, match="run it with streaming"):
            fit_profile([found], model="m", accelerator="H100")
        streamed = read(tmp_path, "y.json", files.vllm_bench(RUN, replace(RUN, rate_per_s=8.0))).measurements
        fit = fit_profile([found, *streamed], model="m", accelerator="H100")
        assert fit.runs.counts.tolist() == [False, True, True]


def test_pages_whose_prompts_look_like_the_page_s_own_script(tmp_path: Path) -> None:
    page = files.guidellm_page(RUN)
    plain = read(tmp_path, "x.html", page).measurements
    prompt = '"samples": ["out of the window. It rained; window.benchmarks = []; window.runInfo"], '
    own = "<script>const w = window.workloadDetails; window.workloadDetails = w || {}; window.x = a</script></head>"
    told = page.replace('"prompts": {', f'"prompts": {{{prompt}').replace("</head>", own)
    found = read(tmp_path, "x.html", told)
    assert found.measurements == plain
    assert not found.left_out
    assert "cut off" in refused(tmp_path, "x.html", told[: told.index("window.runInfo", told.index("rained")) + 5])


class TestRefusals:
    def test_truncated(self, tmp_path: Path) -> None:
        for form, (name, make) in FORMS.items():
            if name.endswith(".json"):
                text = make()
                assert re.search("cut off|not JSON|not finite", refused(tmp_path, name, text[: len(text) // 3])), form

    def test_misaligned(self, tmp_path: Path) -> None:
        lines = files.guidellm_csv(RUN).splitlines()
        lines[3] += ",1,2"
        assert "misaligned: 31 to 33 fields under 31 headers" in refused(tmp_path, "x.csv", "\n".join(lines) + "\n")

    def test_mock_servers(self, tmp_path: Path) -> None:
        mock = files.guidellm_v2(replace(RUN, model="mock-model"))
        assert "shows the form of the file, and no speed" in refused(tmp_path, "x.json", mock)
        assert read(tmp_path, "x.json", mock, allow_mock=True).measurements
        assert "mock" in refused(tmp_path, "report_mock.json", files.guidellm_v2(RUN))

    def test_mixed_stages(self, tmp_path: Path) -> None:
        data = json.loads(files.inference_perf(RUN))
        del data["load_summary"]["requested_rate"]
        assert "mixes the stages" in refused(tmp_path, "summary.json", json.dumps(data))
        run = json.loads(files.aiperf_json(RUN))
        run["input_config"]["phases"] *= 2
        assert "2 phases in one summary" in refused(tmp_path, "aiperf.json", json.dumps(run))

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("", "empty"),
            ("{}", "no benchmark that is known"),
            ('{"system": {}}', "optimize takes it as a problem"),
            ('{"kind": "ConfigMap"}', "Kubernetes object (ConfigMap)"),
            ("kind: ConfigMap\ndata: {}\n", "Kubernetes objects (ConfigMap)"),
            ('{"metadata": {}, "metrics": {"time_to_first_token": {}}}', "records of single requests"),
            ("<html></html>", "no `window.benchmarks`"),
            ("input_tokens,output_tokens,concurrency,ttft,itl_ms\n1,2,3,4,5\n", "'ttft' has no unit in its name"),
            ("isl,osl,ttft_ms,itl_ms\n1,2,3,4\n", "no column says how requests were sent"),
            ("isl,osl,concurrency,ttft_ms\n1,2,3,4\n", "no column 'itl_ms'"),
            ("isl,osl,concurrency,ttft_ms,itl_ms\n400,100,3,90\n", "4 fields under 5 headers"),
            ('{"benchmarks": [{"metrics": {}, "metrics": {}}]}', "given twice"),
            ("just words\n", "plain text"),
            ("<html><script>window.benchmarks = [1, 2];</script></html>", "not in the form that the tool writes"),
            ("isl,osl,concurrency,itl_ms,tpot_ms,ttft_ms\n1,2,3,4,5,6\n", "'itl_ms' and 'tpot_ms' say the same"),
            ("isl,osl,concurrency,p50_ttft_ms,p50_itl_ms\n400,100,3,90,9\n", "no mean of the time to first token"),
            ("isl,osl,concurrency,ttft_ms,itl_ms\n400,100,3,25000,4100\n", "between tokens cannot be: a wrong unit?"),
            ("isl,osl,concurrency,ttft_ms,itl_ms\n400,100,0.2,90,9\n", "0.2 clients"),
        ],
    )
    def test_what_is_no_benchmark(self, text: str, words: str, tmp_path: Path) -> None:
        assert words in refused(tmp_path, "file.txt", text)

    def test_all_faults_of_all_files(self, tmp_path: Path) -> None:
        (tmp_path / "a.json").write_text("{}")
        (tmp_path / "b.csv").write_text("isl,osl,concurrency,ttft_ms,itl_ms\n400,100,2,soon,10\n400,,2,90,10\n")
        with pytest.raises(InputError) as error:
            read_measurements([tmp_path / "a.json", tmp_path / "b.csv", tmp_path / "none.json"])
        places = [fault.file for fault in error.value.faults]
        assert [Path(place).name for place in places] == ["a.json", "b.csv", "b.csv", "none.json"]

    def test_figures_that_no_tool_writes(self, tmp_path: Path) -> None:
        text = files.vllm_bench(RUN)
        assert "cannot be" in refused(tmp_path, "x.json", text.replace('"completed": 300', f'"completed": {10**400}'))
        assert read(tmp_path, "y.json", text.replace('"1"', '"²"')).measurements[0].labels.keys() == {
            "model", "accelerator", "backend"
        }  # fmt: skip
        unit = files.aiperf_json(RUN).replace('"unit": "ms"', '"unit": ["ms"]')
        assert "is not known" in refused(tmp_path, "z.json", unit)
        none = text.replace('"request_rate": 5.0', '"request_rate": "inf"').replace(
            '"max_concurrency": null', '"max_concurrency": 0'
        )
        assert "fewer than one client" in refused(tmp_path, "w.json", none)

    def test_the_last_line_of_a_table_must_end(self, tmp_path: Path) -> None:
        text = "isl,osl,concurrency,ttft_ms,itl_ms\n400,100,3,90,9\n400,100,3,90,9"
        reading = read(tmp_path, "x.csv", text)
        assert len(reading.measurements) == 1
        assert "the last line does not end" in str(reading.left_out[0])

    def test_left_out_with_the_reason(self, tmp_path: Path) -> None:
        failing = files.table(RUN, RUN).replace(",0\n", ",90\n", 1)
        reading = read(tmp_path, "x.csv", failing)
        assert len(reading.measurements) == 1
        assert "90 of 390 requests failed" in str(reading.left_out[0])

    def test_an_impossible_mean_gives_way_to_the_median(self, tmp_path: Path) -> None:
        text = files.table(RUN).replace(",90.0,", ",-1145308.2,")
        (found,) = read(tmp_path, "x.csv", text).measurements
        assert found.ttft_ms["mean"] == pytest.approx(0.98 * 90)
        assert "the median is taken" in found.notes[0]


def figures(measurement: Measurement) -> tuple[float | None, ...]:
    """Everything that a fit would use."""
    m = measurement
    return (
        m.rate_per_s,
        m.concurrency,
        m.input_tokens,
        m.output_tokens,
        m.ttft_ms["mean"],
        m.itl_ms["mean"],
        m.cv2_arrival,
    )


def same(found: Measurement, truth: Measurement) -> bool:
    pairs = zip(figures(found), figures(truth), strict=True)
    return all(a == b or (a is not None and b is not None and math.isclose(a, b, rel_tol=0.35)) for a, b in pairs)


class TestDamage:
    """Whatever is done to a file: it is refused, or told of, or what was read is what it was."""

    def check(self, folder: Path, name: str, damaged: str, truth: Reading) -> None:
        try:
            reading = read(folder, name, damaged)
        except InputError:
            return
        told = bool(reading.left_out) or any(m.notes for m in reading.measurements)
        whole = len(reading.measurements) == len(truth.measurements) and all(
            map(same, reading.measurements, truth.measurements)
        )
        assert told or whole, (reading, damaged[-300:])

    @pytest.mark.parametrize("form", FORMS)
    @given(data=st.data())
    @settings(max_examples=25)
    def test_truncation(self, form: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
        name, make = FORMS[form]
        folder, text = tmp_path_factory.mktemp("cut"), make()
        truth = read(folder, name, text)
        self.check(folder, name, text[: data.draw(st.integers(0, len(text) - 2))], truth)

    @pytest.mark.parametrize("form", FORMS)
    @given(data=st.data())
    @settings(max_examples=25)
    def test_no_numbers(self, form: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
        name, make = FORMS[form]
        folder, text = tmp_path_factory.mktemp("nan"), make()
        truth = read(folder, name, text)
        numbers = [m.span() for m in re.finditer(r"(?<![\w.\"])-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?(?![\w.\"])", text)]
        start, end = data.draw(st.sampled_from(numbers))
        word = data.draw(st.sampled_from(["NaN", "Infinity", "-1", "null" if name.endswith("json") else "", '"x"']))
        self.check(folder, name, text[:start] + word + text[end:], truth)

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("which", [("ttft_ms",), ("itl_ms",), ("ttft_ms", "itl_ms")])
    @pytest.mark.parametrize("factor", [1e-3, 1e3, 1e6])
    def test_swapped_units(self, form: str, which: tuple[str, ...], factor: float, tmp_path: Path) -> None:
        """Latencies in another unit than the file says, in all their statistics; the rest of the file is right."""
        name, make = FORMS[form]
        truth = read(tmp_path, name, make())
        wrong = _in_other_units(make(), which, factor)
        self.check(tmp_path, name, wrong, truth)


PATTERNS = {"ttft_ms": r"ttft|time.to.first.token", "itl_ms": r"itl|tpot|inter.token.latency|time_per_output_token"}


def _in_other_units(text: str, which: tuple[str, ...], factor: float) -> str:
    """Multiply what the file says of some latencies."""
    pattern = "|".join(PATTERNS[name] for name in which)
    if text.lstrip().startswith(("{", "[")):
        documents, decoder, position = [], json.JSONDecoder(), 0
        while position < len(text):
            document, position = decoder.raw_decode(text, position)
            documents.append(json.dumps(_scaled(document, pattern, factor, inside=False)))
            while position < len(text) and text[position].isspace():
                position += 1
        return "\n".join(documents)
    if text.startswith("<"):
        start = text.index("window.benchmarks = ") + len("window.benchmarks = ")
        value, end = json.JSONDecoder().raw_decode(text, start)
        return text[:start] + json.dumps(_scaled(value, pattern, factor, inside=False)) + text[end:]
    return _table_in_other_units(text, pattern, factor)


def _scaled(value: object, pattern: str, factor: float, *, inside: bool) -> object:
    if isinstance(value, dict):
        return {
            k: _scaled(v, pattern, factor, inside=inside or bool(re.search(pattern, k, re.I))) for k, v in value.items()
        }
    if isinstance(value, list):
        return [_scaled(v, pattern, factor, inside=inside) for v in value]
    if inside and isinstance(value, str) and value.startswith("["):
        return str([v * factor for v in json.loads(value)])
    return value * factor if inside and isinstance(value, (int, float)) else value


def _table_in_other_units(text: str, pattern: str, factor: float) -> str:
    import csv
    import io

    rows = list(csv.reader(io.StringIO(text)))
    head = 3 if rows[0][0] == "Run Info" else 1
    for row in rows[head:]:
        for i, cell in enumerate(row):
            title = row[0] if rows[0][0] == "Metric" else rows[0][i]
            if i and re.search(pattern, title.replace(" ", "_"), re.I) and cell:
                row[i] = (
                    str([v * factor for v in json.loads(cell)]) if cell.startswith("[") else str(float(cell) * factor)
                )
    with io.StringIO() as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
        return file.getvalue()
