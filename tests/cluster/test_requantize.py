"""A smaller copy of a model: `woolly requantize`."""
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf import GGUFReader, GGUFWriter, GGUFValueType, dequantize

# Relative RMS error that rounding normally distributed weights to a type may leave; Q4_K's is about 0.07.
MOST_ERROR = {"Q2_K": 0.28, "Q3_K": 0.16, "Q4_0": 0.09, "Q4_K": 0.08, "Q5_0": 0.045, "Q5_K": 0.04, "Q6_K": 0.02, "Q8_0": 0.006}


def copy(reader, path, arch="llama", tensors=None, **options):
    """A model's metadata and tensors (or others) in a new file, or several."""
    writer = GGUFWriter(path, arch, **options)
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            sub = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub)
    for t in reader.tensors:
        data = tensors.get(t.name, t.data) if tensors else t.data
        writer.add_tensor(t.name, data, raw_dtype=None if data.dtype == np.float32 else t.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def wide(own_models, tmp_path_factory):
    """A model with rows of 256 and 768, in float32, whose matrices are normally distributed but for a row of zeros and one of a single spike."""
    path = tmp_path_factory.mktemp("requantize") / "wide.gguf"
    reader, rng = GGUFReader(own_models / "llama-q4_k.gguf"), np.random.default_rng(5)
    tensors = {t.name: rng.normal(0, 0.05, tuple(reversed(t.shape))).astype(np.float32) for t in reader.tensors if len(t.shape) == 2}
    tensors["blk.0.ffn_up.weight"][0] = 0
    tensors["blk.0.ffn_up.weight"][1] = 0
    tensors["blk.0.ffn_up.weight"][1, 7] = -3
    copy(reader, path, tensors=tensors)
    return path


def matrices(path):
    return {t.name: dequantize(t.data, t.tensor_type) for t in GGUFReader(path).tensors if len(t.shape) == 2}


@pytest.mark.parametrize("kind", MOST_ERROR)
def test_weights_are_as_near_as_the_type_allows(woolly, wide, tmp_path, kind):
    out = tmp_path / "out.gguf"
    result = woolly("requantize", "-m", wide, "--type", kind.lower(), "-o", out)
    assert result.code == 0 and "rounded" in result.err, repr(result)
    before, after = matrices(wide), matrices(out)
    assert {t.tensor_type for t in GGUFReader(out).tensors if len(t.shape) == 2} == {Type[kind]}
    for name, x in before.items():
        error = np.sqrt(((after[name] - x) ** 2).sum() / (x**2).sum())
        assert error < MOST_ERROR[kind], f"{name}: {error}"
    odd = after["blk.0.ffn_up.weight"]
    assert not odd[0].any() and abs(odd[1, 7] + 3) < 0.05 and np.abs(np.delete(odd[1], 7)).max() < 0.01
    assert woolly.json("inspect", "-m", out)["metadata"]["general.architecture"] == "llama"
    assert len(woolly.json("run", "-m", out, "--raw", "-p", "The sheep", "-n", 4, "--ignore-eos", "--temp", 0)["tokens"]) == 4


@pytest.mark.short
def test_everything_but_the_matrices_is_copied_and_the_head_may_have_a_type_of_its_own(woolly, wide, tmp_path):
    out = tmp_path / "out.gguf"
    assert woolly("requantize", "-m", wide, "--type", "Q3_K", "--head", "Q6_K", "-o", out).code == 0
    before, after = GGUFReader(wide), GGUFReader(out)
    assert [t.name for t in before.tensors] == [t.name for t in after.tensors]
    for was, now in zip(before.tensors, after.tensors):
        assert was.shape.tolist() == now.shape.tolist()
        if len(was.shape) == 1:
            assert np.array_equal(was.data, now.data)
        else:
            assert now.tensor_type == (Type.Q6_K if now.name in ("output.weight", "token_embd.weight") else Type.Q3_K)
    kept = {f.name: f.contents() for f in before.fields.values() if not f.name.startswith("GGUF.") and f.name != "general.file_type"}
    assert kept.items() <= {f.name: f.contents() for f in after.fields.values()}.items()
    again = tmp_path / "again.gguf"
    assert woolly("requantize", "-m", out, "--type", "Q4_K", "-o", again).code == 0  # what is smaller already stays
    assert [t.tensor_type for t in GGUFReader(again).tensors if "blk" in t.name] == [t.tensor_type for t in after.tensors if "blk" in t.name]


@pytest.mark.short
def test_a_split_model_becomes_one_file_whatever_the_threads(woolly, wide, tmp_path):
    copy(GGUFReader(wide), tmp_path / "parts.gguf", split_max_tensors=11)
    first = sorted(tmp_path.glob("parts-00001-of-*.gguf"))[0]
    outs = [tmp_path / f"{i}.gguf" for i in range(3)]
    assert woolly("requantize", "-m", wide, "--type", "Q4_K", "-o", outs[0]).code == 0
    assert woolly("requantize", "-m", first, "--type", "Q4_K", "--threads", 1, "-o", outs[1]).code == 0
    assert woolly("requantize", "-m", first, "--type", "Q4_K", "--threads", 3, "-o", outs[2]).code == 0
    assert outs[1].read_bytes() == outs[2].read_bytes()
    whole, joined = ({t.name: t.data.tobytes() for t in GGUFReader(path).tensors} for path in outs[:2])
    assert whole == joined
    assert not [name for name in GGUFReader(outs[1]).fields if name.startswith("split.")]


@pytest.mark.short
def test_what_cannot_be_rounded_or_written_is_said_and_leaves_nothing(woolly, expect_error, wide, own_models, tmp_path):
    out = tmp_path / "out.gguf"
    expect_error(3, "rows of 160 weights, and Q2_K takes them by 256", "requantize", "-m", own_models / "llama-q4_1.gguf", "--type", "Q2_K", "-o", out)
    expect_error(2, "choose one of Q4_0", "requantize", "-m", wide, "--type", "IQ1_S", "-o", out)
    expect_error(2, "--type", "requantize", "-m", wide, "-o", out)
    expect_error(2, "-o OUT", "requantize", "-m", wide, "--type", "Q4_0")
    expect_error(3, "cannot be written", "requantize", "-m", wide, "--type", "Q4_0", "-o", tmp_path / "none" / "out.gguf")
    expect_error(3, "cannot be written", "requantize", "-m", wide, "--type", "Q4_0", "-o", tmp_path, within=5)
    reader = GGUFReader(wide)
    name = "blk.1.ffn_down.weight"
    data = next(t.data for t in reader.tensors if t.name == name).copy()
    data[3, 5] = np.nan
    copy(reader, tmp_path / "nan.gguf", tensors={name: data})
    expect_error(3, "holds what is no number", "requantize", "-m", tmp_path / "nan.gguf", "--type", "Q4_0", "-o", out, within=5)
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != "") == ["nan.gguf"]
