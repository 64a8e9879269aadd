"""`woolly trace`: the picture of a --trace file, and what is no such file."""
import json
import xml.etree.ElementTree as ET

import pytest

SVG = "{http://www.w3.org/2000/svg}"
KINDS = ("prompt", "decode", "stale", "other")


def draw(woolly, path):
    """The drawing's root, and where it lies."""
    out = path.with_suffix(".svg")
    result = woolly.done("trace", path, "--svg", out)
    assert result.out == b""
    return ET.fromstring(out.read_text()), out


def bars(root, kind=None):
    return [rect for rect in root.iter(f"{SVG}rect") if rect.get("class") in ((kind,) if kind else KINDS) and rect.find(f"{SVG}title") is not None]


def texts(root):
    return [text.text for text in root.iter(f"{SVG}text")]


def bar(row, at, took, name="prompt 64"):
    return {"ph": "X", "name": name, "pid": 1, "tid": row, "ts": at, "dur": took, "args": {}}


def hop(number, from_row, at, to_row, to):
    return [{"ph": "s", "name": "hop", "id": str(number), "pid": 1, "tid": from_row, "ts": at},
            {"ph": "f", "bp": "e", "name": "hop", "id": str(number), "pid": 1, "tid": to_row, "ts": to}]


def test_a_real_trace_becomes_a_row_a_stage_and_a_bar_a_step(woolly, own_models, tmp_path):
    path = tmp_path / "trace.json"
    woolly.done("run", "-m", own_models / "llama-q4_1.gguf", "--raw", "-p", "Three sheep walk over a hill " * 20, "-n", 2, "--temp", 0, "--ignore-eos", "--local", 3,
                "--threads", 1, "--chunk", 32, "--spec", "off", "--trace", path)
    root, _ = draw(woolly, path)
    found = texts(root)
    assert found[0] == "trace.json" and found[1].startswith("3 stages, ")
    assert all(found.count(f"stage {i}") == 2 for i in range(3)), "beside the row, and in the table"
    assert any("since the first step" in text for text in found)
    events = [event for event in json.loads(path.read_text()) if event["ph"] == "X"]
    assert f"{len(events) // 3} steps" in found[1]
    assert {event["name"].split()[0] for event in events} == {"prompt", "decode"}
    assert {rect.get("class") for rect in root.iter(f"{SVG}rect")} >= {"lane", "prompt", "decode"}


def test_bars_lie_where_their_times_are(woolly, tmp_path):
    path = tmp_path / "t.json"
    path.write_text(json.dumps([bar(1, 1000, 500), bar(2, 1600, 400, "decode 1"), bar(1, 1500, 500, "stale 1"), *hop(1, 1, 1500, 2, 1600)]))
    root, _ = draw(woolly, path)
    lane = next(rect for rect in root.iter(f"{SVG}rect") if rect.get("class") == "lane")
    left, width = float(lane.get("x")), float(lane.get("width"))
    place = {kind: [(float(rect.get("x")) - left) / width for rect in bars(root, kind)] for kind in KINDS}
    assert place["prompt"] == [0] and abs(place["stale"][0] - 0.5) < 1e-3 and abs(place["decode"][0] - 0.6) < 1e-3
    lines = [line for line in root.iter(f"{SVG}line") if line.get("class") == "hop" and float(line.get("y1")) > 100]
    assert len(lines) == 1 and float(lines[0].get("x1")) < float(lines[0].get("x2")) and float(lines[0].get("y1")) < float(lines[0].get("y2"))


def test_any_length_of_trace_makes_a_small_picture_that_keeps_its_sums(woolly, tmp_path):
    """A row that is busy half of the time is drawn half as high."""
    path = tmp_path / "long.json"
    path.write_text(json.dumps([bar(1, 100 * i, 50, "decode 1") for i in range(60000)]))
    root, out = draw(woolly, path)
    assert not bars(root) and out.stat().st_size < 100_000
    outline = next(path.get("d") for path in root.iter(f"{SVG}path") if path.get("class") == "decode")
    lane = next(rect for rect in root.iter(f"{SVG}rect") if rect.get("class") == "lane")
    heights = [abs(float(column.split("v")[1].split("h")[0])) / float(lane.get("height")) for column in outline.split("M")[1:]]
    assert len(heights) > 300 and all(abs(height - 0.5) < 0.04 for height in heights)
    assert "60000" in texts(root) and "50%" in texts(root)


def test_names_are_only_ever_text(woolly, tmp_path):
    path = tmp_path / "<b> & \".json"
    path.write_text(json.dumps({"traceEvents": [bar(7, 0, 10, "<script>alert('x')</script>"), {"ph": "M", "name": "thread_name", "pid": 1, "tid": 7, "args": {"name": "</svg>"}}]}))
    root, _ = draw(woolly, path)
    assert texts(root)[0] == path.name and "</svg>" in texts(root)
    assert not list(root.iter(f"{SVG}script")) and len(bars(root, "other")) == 1


@pytest.mark.short
@pytest.mark.parametrize("text, needle", [
    ("", "no json"), ("[", "is the trace complete"), ("[{\"ph\": \"X\"", "is the trace complete"), ("7", "no json"), ("{}", "no array of events"),
    ("[]", "without a step"), ("[1]", "event 0"), ("[{\"ph\": 5}]", "event 0"), ("[{\"ph\": \"X\", \"ts\": -1, \"dur\": 5}]", "ts and dur"),
    ("[{\"ph\": \"X\", \"ts\": 1e300, \"dur\": 5}]", "ts and dur"), ("[{\"ph\": \"X\", \"ts\": 1}]", "ts and dur"), ("[{\"ph\": \"s\", \"ts\": 1}]", "id and ts"),
    ("[" * 100000, "no json"), (json.dumps([bar(row, 0, 1) for row in range(2000)]), "one row too many")])
def test_what_is_no_trace_is_refused_in_one_line(tmp_path, expect_error, text, needle):
    path = tmp_path / "t.json"
    path.write_text(text)
    expect_error(3, needle, "trace", path, "--svg", tmp_path / "t.svg")
    assert not (tmp_path / "t.svg").exists()


def test_strange_but_sound_traces_are_drawn(woolly, tmp_path):
    """No time at all, bars over one another, ends without starts, numbers for ids, other events."""
    path = tmp_path / "t.json"
    for events in ([bar(1, 5, 0)], [bar(1, 0, 10), bar(1, 0, 10), bar(1, 5, 1e9)], [bar(1, 0, 5), *hop(1, 1, 9, 2, 3)[1:], {"ph": "C", "name": "x"}],
                   [bar(1, 0, 5), bar(2, 0, 5), {"ph": "s", "id": 3, "tid": 1, "pid": 1, "ts": 4}, {"ph": "f", "id": 3, "tid": 2, "pid": 1, "ts": 4}],
                   [bar(1, 1e15, 1e15)], [{"ph": "X", "ts": 0, "dur": 1, "name": None}]):
        path.write_text(json.dumps(events))
        draw(woolly, path)


def test_wrong_use_is_refused(tmp_path, expect_error):
    path = tmp_path / "t.json"
    path.write_text(json.dumps([bar(1, 0, 1)]))
    expect_error(2, "--svg", "trace", path)
    expect_error(2, "which trace", "trace", "--svg", tmp_path / "t.svg")
    expect_error(2, "cannot be written", "trace", path, "--svg", tmp_path / "no" / "t.svg")
    expect_error(3, "cannot be opened", "trace", tmp_path / "none.json", "--svg", tmp_path / "t.svg")
