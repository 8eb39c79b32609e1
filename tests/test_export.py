"""Exports: every format, every variant that can, read back by its own runtime."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest

HAS_ONNX = all(importlib.util.find_spec(name) for name in ("tf2onnx", "onnxruntime"))


def one(outcome):
    code, _, error, document = outcome
    assert code == 0, error
    (row,) = document["results"]
    assert row["error"] is None
    assert row["parity"]["n"] > 0
    return row


def test_saved_model_answers_as_the_run_does(zoo, run_mlp):
    from zoo.backend import tf
    from zoo.predict import compiled
    from zoo.run import Run, sha256_file
    from zoo.train.running import reopen

    row = one(zoo("export", run_mlp, "--format", "saved_model", "--json"))
    assert row["batch"] is None
    assert row["parity"]["max_abs"] < 1e-5
    session = reopen(Run(run_mlp))
    x = session.encoded(session.data.parts["test"])
    expected = compiled(session.load(run_mlp / "base" / "model.weights.h5"))(x)
    said = tf.saved_model.load(row["path"]).signatures["serving_default"](features=tf.constant(x))
    assert np.allclose(said["output"].numpy(), expected, atol=1e-5)
    one(zoo("export", run_mlp, "--format", "saved_model", "--json"))  # again: it is replaced
    (stored,) = json.loads((run_mlp / "base" / "export.json").read_text())["results"]
    assert stored["path"] == "base/model.saved_model"
    assert stored["sha256"] == sha256_file(run_mlp / stored["path"])
    assert stored["inputs"][0]["path"] == "base/model.tflite"


@pytest.mark.parametrize(("batch", "name"), [("any", "model-any"), ("16", "model-16")])
def test_litert_of_other_batches(zoo, run_cnn, batch, name):
    from zoo.predict import Artifact

    row = one(zoo("export", run_cnn, "--batch", batch, "--json"))
    assert row["path"] == str(run_cnn / "base" / f"{name}.tflite")
    assert row["parity"]["max_abs"] < 1e-4
    artifact = Artifact(run_cnn / "base" / f"{name}.tflite")
    assert artifact._input["shape_signature"][0] == (-1 if batch == "any" else 16)
    x = np.random.default_rng(0).random((37, 12, 12, 1)).astype("float32")
    base = Artifact(run_cnn / "base" / "model.tflite")
    assert np.allclose(artifact(x), base(x), atol=1e-5)


def test_a_converted_variant_goes_to_litert_alone(zoo, run_mlp, tmp_path):
    zoo("compress", run_mlp, "int8")
    target = tmp_path / "shipped.tflite"
    row = one(zoo("export", run_mlp, "--variant", "int8", "--output", target, "--json"))
    assert target.read_bytes() == (run_mlp / "int8" / "model.tflite").read_bytes()
    assert row["path"] == str(target)
    row = one(zoo("export", run_mlp, "--variant", "int8", "--batch", "4", "--json"))
    assert row["parity"]["agreement"] > 0.9
    code, _, error, _ = zoo("export", run_mlp, "--variant", "int8", "--format", "saved_model")
    assert code == 2
    assert "for good" in error
    code, _, _, document = zoo(
        "export", run_mlp, "--variant", "all", "--format", "saved_model", "--json"
    )
    assert code == 1
    assert [row["error"] is None for row in document["results"]] == [True, False]


def test_the_artefact_itself_is_left_alone(zoo, run_mlp):
    path = run_mlp / "base" / "model.tflite"
    before = path.stat().st_mtime_ns
    row = one(zoo("export", run_mlp, "--json"))
    assert row["path"] == str(path)
    assert path.stat().st_mtime_ns == before


def test_wrong_usage(zoo, run_mlp, tmp_path):
    code, _, error, _ = zoo("export", run_mlp, "--batch", "0")
    assert code == 2
    assert "or any" in error
    code, _, error, _ = zoo("export", run_mlp, "--format", "tflite")
    assert code == 2
    (tmp_path / "mine").mkdir()
    code, _, error, _ = zoo(
        "export", run_mlp, "--format", "saved_model", "--output", tmp_path / "mine"
    )
    assert code == 2
    assert (tmp_path / "mine").is_dir()
    zoo("compress", run_mlp, "dynamic")
    code, _, error, _ = zoo("export", run_mlp, "--variant", "all", "--output", tmp_path / "x")
    assert code == 2
    assert "--output" in error


@pytest.mark.skipif(HAS_ONNX, reason="the extra onnx is installed")
def test_onnx_without_its_extra_says_what_to_install(zoo, run_mlp):
    code, _, error, _ = zoo("export", run_mlp, "--format", "onnx")
    assert code == 2
    assert "pip install 'glasszoo[onnx]'" in error


@pytest.mark.skipif(not HAS_ONNX, reason="needs the extra onnx")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("batch", ["any", "1"])
def test_onnx_is_exact(zoo, run_mlp, batch):
    row = one(zoo("export", run_mlp, "--format", "onnx", "--batch", batch, "--json"))
    assert row["parity"]["max_abs"] < 1e-5


@pytest.mark.parametrize("batch", [1, None])
@pytest.mark.parametrize("name", ["lstm", "gpt_tiny", "cnn"])
def test_one_file_answers_as_keras_does(name, batch, tmp_path):
    """Recurrent ones too, with any number of rows a call, and without Flex operations."""
    from zoo.export import to_litert
    from zoo.predict import Artifact, compiled
    from zoo.registry import models
    from zoo.testing import inputs_for, tiny

    spec = models().get(name)
    model = tiny(spec)
    x = inputs_for(spec, model, 5)
    content = to_litert(model, batch=batch)
    assert b"Flex" not in content
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    meant = compiled(model)(x)
    assert np.abs(Artifact(path)(x) - meant).max() < 1e-5 * np.abs(meant).max()


def test_a_conversion_that_fails_says_so(monkeypatch):
    """Loops over batches of any size need operations that LiteRT lacks."""
    from zoo import quantizable
    from zoo.backend import keras
    from zoo.errors import ZooError
    from zoo.export import to_litert

    inputs = keras.Input((6, 3))
    model = keras.Model(inputs, keras.layers.LSTM(4)(inputs), name="recurrent")
    assert len(to_litert(model)) > 1000
    monkeypatch.setattr(quantizable, "LONGEST_UNROLLED", 0)
    with pytest.raises(ZooError, match="recurrent could not be converted"):
        to_litert(model, batch=None)


def test_operations_that_litert_lacks_are_named():
    from zoo.backend import keras
    from zoo.errors import ZooError
    from zoo.export import to_litert

    inputs = keras.Input((4, 4, 4, 2))
    model = keras.Model(inputs, keras.layers.MaxPooling3D()(inputs), name="scan")
    with pytest.raises(ZooError) as error:
        to_litert(model)
    assert error.value.received == "operations that LiteRT has no kernels for: MaxPool3D"


def test_a_file_names_its_inputs_outputs_and_layers_alone():
    from ai_edge_litert.interpreter import Interpreter

    from zoo.export import to_litert
    from zoo.registry import models

    spec = models().get("cnn")
    model = spec.build(**{**spec.config, **spec.tiny})
    interpreter = Interpreter(model_content=to_litert(model))
    signature = interpreter.get_signature_runner("serving_default")
    assert list(signature.get_input_details()) == ["image"]
    names = {detail["name"] for detail in interpreter.get_tensor_details()}
    assert "logits_1/MatMul" in names  # the layer, without what it was fused with
    assert not [name for name in names if ";" in name]
    assert not [d for d in interpreter.get_input_details() if not d["name"]]


def answers(content: bytes, x: np.ndarray) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(model_content=content).get_signature_runner("serving_default")
    (name,) = run.get_input_details()
    return np.concatenate([next(iter(run(**{name: row[None]}).values())) for row in x])


@pytest.mark.parametrize("format", ["int8", "dynamic"])
def test_a_tied_embedding_is_stored_once_and_loses_nothing(monkeypatch, format):
    from zoo import export, slim
    from zoo.backend import seed_everything
    from zoo.registry import models

    spec = models().get("gpt_tiny")
    seed_everything(0)
    model = spec.build(**{**spec.config, **spec.tiny, "vocabulary": 500})
    rng = np.random.default_rng(0)
    table = model.get_layer("backbone").token_embedding.embeddings
    table.assign(0.05 * rng.standard_t(4, size=table.shape))  # rows of many sizes
    x = rng.integers(1, 400, (16, *model.input_shape[1:])).astype(np.int32)  # of the table a part
    truth = np.asarray(model(x))
    once = export.to_litert(model, format, x)
    with monkeypatch.context() as patch:
        patch.setattr(slim, "_share_tables", lambda *parts: None)
        twice = export.to_litert(model, format, x)
    rows, columns = table.shape
    assert len(twice) - len(once) > 0.9 * rows * columns
    off = [np.sqrt(np.mean((answers(made, x) - truth) ** 2)) for made in (once, twice)]
    assert off[0] < 1.1 * off[1]
    assert off[0] < 0.2 * truth.std()


def scaled_concatenation(layers, x):
    """A grey picture in three channels, times 255: MUL works in place, over what was put together."""
    return layers.Rescaling(255.0, -127.0)(layers.Concatenate()([x, x, x]))


def pooled_concatenation(layers, x):
    """Means of what mostly cancels out, beside others: all of them have one scale."""
    y = layers.Conv2D(1, 1, kernel_initializer="ones", use_bias=False)(x)
    z = layers.Conv2D(1, 1, kernel_initializer="ones", use_bias=False)(
        layers.MaxPooling2D(4)(0.3 * x)
    )
    return layers.Concatenate()([layers.AveragePooling2D(4)(y), z])


@pytest.mark.parametrize("body", [scaled_concatenation, pooled_concatenation])
def test_int8_has_ranges_that_fit(body):
    from zoo.backend import keras
    from zoo.export import to_litert

    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 8, 8, 1)).astype(np.float32)
    inputs = keras.Input((8, 8, 1))
    model = keras.Model(inputs, body(keras.layers, inputs))
    truth = np.asarray(model(x))
    off = answers(to_litert(model, "int8", x), x) - truth
    assert np.sqrt(np.mean(off**2)) < 0.04 * truth.std()


def test_a_small_branch_beside_a_large_residual_has_small_steps():
    from ai_edge_litert.interpreter import Interpreter

    from zoo.backend import keras
    from zoo.export import to_litert

    x = np.random.default_rng(0).uniform(-1, 1, size=(64, 4, 4, 1)).astype(np.float32)
    layers, inputs = keras.layers, keras.Input((4, 4, 1))
    kernel = keras.initializers.Constant(0.001)
    branch = layers.Conv2D(1, 1, kernel_initializer=kernel, use_bias=False)(inputs)
    whole = layers.Add()([branch, layers.MaxPooling2D(1)(inputs)])
    model = keras.Model(inputs, layers.Conv2D(1, 2, kernel_initializer="ones")(whole))
    details = Interpreter(model_content=to_litert(model, "int8", x)).get_tensor_details()
    steps = [d["quantization"][0] for d in details if tuple(d["shape"]) == (1, 4, 4, 1)]
    assert min(s for s in steps if s) == pytest.approx(0.001 * np.ptp(x) / 255, rel=0.01)


def test_numbers_that_are_not_finite_have_no_range():
    from zoo.backend import keras
    from zoo.export import to_litert

    x = np.random.default_rng(0).normal(size=(32, 4, 4, 1)).astype(np.float32)
    layers, inputs = keras.layers, keras.Input((4, 4, 1))
    branch = layers.Conv2D(1, 1)(keras.ops.log(layers.Conv2D(1, 1, use_bias=False)(inputs)))
    whole = layers.Add()([layers.Conv2D(1, 1)(branch), inputs])
    model = keras.Model(inputs, layers.Conv2D(1, 2)(whole))
    assert np.isnan(model(x)).any()
    assert answers(to_litert(model, "int8", x), x).shape == (32, 3, 3, 1)


def of_two(inputs, outputs):
    """A model that does different things to two inputs of one shape, the first of them called ``b``."""
    from zoo.backend import keras

    keras.utils.set_random_seed(0)
    tensors = [keras.Input((6,), name=name) for name in "ba"]
    x = keras.layers.concatenate([keras.layers.Dense(8)(tensor) for tensor in tensors])
    made = [keras.layers.Dense(4)(x), keras.layers.Dense(2)(x)]
    taken = {tensor.name: tensor for tensor in tensors} if inputs is dict else tensors
    given = {list: made, dict: {"wide": made[0], "narrow": made[1]}, None: made[0]}[outputs]
    return keras.Model(taken, given)


@pytest.mark.parametrize("format", ["float32", "int8"])
@pytest.mark.parametrize(
    ("inputs", "samples", "outputs", "said"),
    [
        (list, list, None, ["output"]),
        (dict, dict, list, ["output_0", "output_1"]),
        (list, dict, dict, ["wide", "narrow"]),
    ],
)
def test_models_of_several_inputs_and_outputs(format, inputs, samples, outputs, said):
    from ai_edge_litert.interpreter import Interpreter

    from zoo.backend import keras
    from zoo.export import to_litert

    model, rng = of_two(inputs, outputs), np.random.default_rng(0)
    x = {"a": rng.normal(size=(64, 6)), "b": rng.normal(size=(64, 6), scale=9)}  # float64
    given = x if samples is dict else [x["b"], x["a"]]
    run = Interpreter(model_content=to_litert(model, format, given)).get_signature_runner()
    rows = {name: values.astype("float32") for name, values in x.items()}
    answers = [run(**{name: values[k : k + 1] for name, values in rows.items()}) for k in range(64)]
    assert sorted(answers[0]) == sorted(said)
    found = model.predict(rows if inputs is dict else [rows["b"], rows["a"]], verbose=0)
    if not isinstance(found, dict):
        found = dict(zip(said, keras.tree.flatten(found), strict=True))
    for name, meant in found.items():
        off = np.concatenate([answer[name] for answer in answers]) - meant
        assert np.abs(off).max() < (1e-5 if format == "float32" else 0.02) * np.ptp(meant), name


def test_a_conversion_apart_is_the_same_with_several_inputs(tmp_path):
    from zoo import export

    model, rng = of_two(list, None), np.random.default_rng(0)
    names, loops = export.to_saved_model(model, tmp_path, 1)
    assert (names, loops) == (["b", "a"], False)
    samples = [rng.normal(size=(16, 6), scale=scale).astype("float32") for scale in (9, 1)]
    job = export.Job("int8", tuple(names), 1)
    assert export._convert_apart(tmp_path, job, samples) == export.convert(tmp_path, job, samples)


def test_each_recurrent_layer_is_written_out_by_its_own_length():
    from ai_edge_litert.interpreter import Interpreter

    from zoo.backend import keras
    from zoo.export import to_litert

    keras.utils.set_random_seed(0)
    steps, wide = keras.Input((5, 4), name="steps"), keras.Input((300,), name="wide")
    x = keras.layers.concatenate([keras.layers.GRU(6)(steps), keras.layers.Dense(3)(wide)])
    model, rng = keras.Model([steps, wide], keras.layers.Dense(2)(x)), np.random.default_rng(0)
    x = [rng.normal(size=(16, *shape)).astype("float32") for shape in ((5, 4), (300,))]
    run = Interpreter(model_content=to_litert(model, "int8", x)).get_signature_runner()
    answers = [run(steps=x[0][k : k + 1], wide=x[1][k : k + 1])["output"] for k in range(16)]
    meant = model.predict(x, verbose=0)
    assert np.abs(np.concatenate(answers) - meant).max() < 0.05 * np.ptp(meant)


def test_a_subclass_shows_what_it_takes_by_samples():
    from ai_edge_litert.interpreter import Interpreter

    from zoo.backend import keras
    from zoo.export import to_litert

    class Net(keras.Model):
        def __init__(self):
            super().__init__(name="net")
            self.read, self.say = keras.layers.GRU(6), keras.layers.Dense(3)

        def call(self, x):
            return self.say(self.read(x["steps"]) + x["more"])

    keras.utils.set_random_seed(0)
    model, rng = Net(), np.random.default_rng(0)
    x = {"steps": rng.normal(size=(64, 5, 4)).astype("float32"),
         "more": rng.normal(size=(64, 6)).astype("float32")}  # fmt: skip
    meant = np.asarray(model(x))
    for format, share in (("float32", 1e-5), ("int8", 0.05)):
        run = Interpreter(model_content=to_litert(model, format, x)).get_signature_runner()
        answers = [run(**{name: rows[k : k + 1] for name, rows in x.items()}) for k in range(64)]
        off = np.concatenate([answer["output"] for answer in answers]) - meant
        assert np.abs(off).max() < share * np.ptp(meant)
    to_litert(model, "float32", x, batch=None)
    with pytest.raises(ValueError, match=r"net has no graph .*, or give samples"):
        to_litert(model)


def test_a_file_holds_equal_lists_once_and_constants_where_the_schema_wants_them():
    """The zero points of an int8 layer are all 0, 8 bytes each."""
    import numpy as np
    from tensorflow.lite.python import schema_py_generated as schema

    from zoo.backend import keras
    from zoo.compress import to_litert

    layers = [keras.layers.Dense(256) for _ in range(4)]
    model = keras.Sequential([keras.Input((8,)), *layers])
    x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
    content = to_litert(model, "int8", x)
    kernels = sum(layer.kernel.shape[0] * 256 for layer in layers)
    scales, zeros = 4 * 4 * 256, 8 * 256  # of each layer, and once; the biases are 0 and left out
    assert len(content) < kernels + scales + zeros + 4000
    file = schema.Model.GetRootAs(content, 0)
    buffers = [file.Buffers(k) for k in range(file.BuffersLength())]
    starts = [one._tab.Vector(one._tab.Offset(4)) for one in buffers if one.DataLength()]
    assert len(starts) >= 4
    assert all(start % 16 == 0 for start in starts)
