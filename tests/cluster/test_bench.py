"""What bench reports: rates, the machine's limits, and how much of them each test reached."""
import csv
import io
import json
import re
import xml.etree.ElementTree as ElementTree

import pytest
from gguf import GGUFReader

from conftest import free_port

QUICK = ("-r", 1)
MODEL = "granite-q4_k_m.gguf"


def rows_of(woolly, *arguments):
    return {row["test"]: row for row in json.loads(woolly.done("bench", *QUICK, *arguments, "--format", "json").out)}


def cost_by_hand(path, n_streams, n_rows, first):
    """(bytes, multiply-adds) of a token of a dense model without windows, from the file's tensors."""
    reader = GGUFReader(path)
    fields = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("tokenizer.")}
    arch = fields["general.architecture"]
    width = fields[f"{arch}.embedding_length"] // fields[f"{arch}.attention.head_count"]
    kv = fields[f"{arch}.block_count"] * fields[f"{arch}.attention.head_count_kv"] * width * 2 * 2
    tensors = {t.name: t for t in reader.tensors}
    head = tensors.get("output.weight", tensors["token_embd.weight"])
    layers = [t for name, t in tensors.items() if name.startswith("blk.")]
    weights = sum(int(t.n_bytes) for t in layers) + int(head.n_bytes) + int(tensors["output_norm.weight"].n_bytes)
    per_row = sum(int(t.n_elements) for t in layers if len(t.shape) > 1)
    return ((weights + n_streams * kv * (first + n_rows)) / (n_streams * n_rows), per_row + int(head.n_elements) / n_rows)


def test_a_tokens_cost_is_what_the_file_says(woolly, own_models):
    path = own_models / MODEL
    rows = rows_of(woolly, "-m", path, "-p", "16,256", "-n", "8,32", "-b", "1,4")
    expected = {"pp16": (1, 16, 0), "pp256": (1, 256, 0), "tg8": (1, 1, 5), "b4tg8": (4, 1, 5), "tg32": (1, 1, 17), "b4tg32": (4, 1, 17)}
    assert list(rows) == list(expected)
    for test, shape in expected.items():
        n_bytes, multiply_adds = cost_by_hand(path, *shape)
        assert rows[test]["roofline"]["bytes_per_token"] == pytest.approx(n_bytes, rel=1e-5), test
        assert rows[test]["roofline"]["multiply_adds_per_token"] == pytest.approx(multiply_adds, rel=1e-5), test


def test_fractions_follow_from_rates_and_limits(woolly, own_models):
    for row in rows_of(woolly, "-m", own_models / MODEL, "-p", 64, "-n", 8, "-b", 2, "--local", 2).values():
        line, rate = row["roofline"], row["tok_s"]
        assert line["threads"] == row["stages"] * row["threads"]
        memory, compute = line["read_bytes_s"] / line["bytes_per_token"], line["multiply_adds_s"] / line["multiply_adds_per_token"]
        assert line["limit_tok_s"] == pytest.approx(min(memory, compute), rel=1e-4)
        assert line["limited_by"] == ("memory" if memory < compute else "multiply-adds")
        assert line["bandwidth_fraction"] == pytest.approx(rate / memory, rel=1e-4)
        assert line["multiply_add_fraction"] == pytest.approx(rate / compute, rel=1e-4)
        assert line["fraction"] == pytest.approx(max(rate / memory, rate / compute), rel=1e-4)
        assert 1e8 < line["read_bytes_s"] < 1e13 and 1e7 < line["multiply_adds_s"] < 1e16
        assert row["tok_s_min"] <= rate <= row["tok_s_max"]


def test_the_limit_is_that_of_the_instructions_in_use(woolly, own_models):
    scalar = rows_of(woolly, "-m", own_models / MODEL, "-p", 8, "-n", 0, "--isa", "scalar")["pp8"]["roofline"]
    best = rows_of(woolly, "-m", own_models / MODEL, "-p", 8, "-n", 0)["pp8"]
    if best["isa"] == "scalar":
        pytest.skip("this machine has no SIMD kernels")
    assert scalar["instruction"] != best["roofline"]["instruction"]
    assert scalar["multiply_adds_s"] * 4 < best["roofline"]["multiply_adds_s"]


@pytest.mark.short
def test_csv_and_markdown_have_the_same_columns(woolly, own_models):
    arguments = ("bench", *QUICK, "-m", own_models / MODEL, "-p", 8, "-n", 4, "-b", "1,2")
    table = list(csv.DictReader(io.StringIO(woolly.done(*arguments, "--format", "csv").out.decode())))
    assert [row["test"] for row in table] == ["pp8", "tg4", "b2tg4"]
    assert all(float(row[key]) > 0 for row in table for key in ("tok_s", "predicted_tok_s", "limit_tok_s", "bandwidth_fraction"))
    lines = [line for line in woolly.done(*arguments).out.decode().splitlines() if line.startswith("|")]
    assert len(lines) == 5 and {line.count("|") for line in lines} == {len(table[0]) + 1}


@pytest.mark.short
def test_other_machines_have_no_roofline(woolly, own_models):
    port = free_port()
    woolly.worker(port, "w0")
    (row,) = rows_of(woolly, "-m", own_models / MODEL, "-p", 8, "-n", 0, "--listen", f"127.0.0.1:{port}").values()
    assert row["tok_s"] > 0 and row["roofline"] is None


@pytest.mark.short
def test_the_plot_stands_by_itself_and_shows_every_test(woolly, own_models, tmp_path):
    """Also when the model's name is written for it."""
    name = b"test granite-q4_k_m"
    evil = b'<script>&"\'</tx>\xff\x01'.ljust(len(name), b"]")
    model, plot = tmp_path / "model.gguf", tmp_path / "plot.svg"
    model.write_bytes((own_models / MODEL).read_bytes().replace(name, evil))
    woolly.done("bench", *QUICK, "-m", model, "-p", "8,16,17", "-n", 4, "-b", "1,2,3", "--plot", plot)
    text = plot.read_text()
    root = ElementTree.fromstring(text)
    shown = ["".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")]
    for test in ("pp8", "pp16", "pp17", "tg4", "b2tg4", "b3tg4"):
        assert shown.count(test) == 2, test
    assert any("<script>&" in line for line in shown), "the name is not shown"
    assert len(list(root.iter("{http://www.w3.org/2000/svg}circle"))) == 6
    assert {element.tag.split("}")[1] for element in root.iter()} <= {"svg", "title", "style", "rect", "text", "line", "polyline", "circle"}
    assert not re.search(r"href|url\(|@import|script>", text.replace("xmlns=", "").replace("script&gt;", ""))
    assert re.findall(r"https?:[^\"]*", text) == ["http://www.w3.org/2000/svg"]
    width, height = float(root.get("width")), float(root.get("height"))
    for element in root.iter("{http://www.w3.org/2000/svg}text"):
        assert 0 <= float(element.get("x", 0)) <= width and 0 <= float(element.get("y", 0)) <= height
    assert [path.name for path in tmp_path.glob("plot*")] == ["plot.svg"]


@pytest.mark.short
@pytest.mark.parametrize("arguments, needle", [
    (("-p", "1,,2"), "-p"), (("-p", "64,x"), "-p"), (("-n", "-1"), "-n"), (("-b", "0"), "-b"), (("-b", "1,2,"), "-b"), (("-n", ""), "-n"),
    (("-p", "0", "-n", "0"), "nothing to measure"), (("-p", "99999999999999999999"), "-p"), (("-p", "1000000"), "context"),
    (("-n", ",".join(map(str, range(1, 20))), "-b", "1,2,3,4"), "more than 64 tests"),
    (("--plot", "a.svg", "--listen", "127.0.0.1:1"), "--plot"),
])
def test_lists_that_make_no_sense_are_refused(expect_error, own_models, arguments, needle):
    expect_error(2, needle, "bench", "-m", own_models / MODEL, *arguments)


def test_a_plot_that_cannot_be_written_is_an_error(woolly, own_models, tmp_path):
    result = woolly("bench", *QUICK, "-m", own_models / MODEL, "-p", 8, "-n", 0, "--plot", tmp_path / "nowhere" / "plot.svg")
    assert result.code == 2 and "plot.svg: cannot be written" in result.err and result.err.count("\n") == 1, repr(result)
    assert "pp8" in result.out.decode(), "the figures are lost"
    assert not (tmp_path / "nowhere").exists()
