"""What models take: names that every file format knows, and samples brought into their structure."""

from __future__ import annotations

import numpy as np
import pytest


def model_of(*names, width=3, length=()):
    from zoo.backend import keras

    tensors = [keras.Input((*length, width), name=name) for name in names]
    return keras.Model(
        tensors, keras.layers.Dense(1)(keras.layers.concatenate(tensors)), name="net"
    )


def test_names_are_plain_and_each_stands_once():
    from zoo.signature import names_of, taken_inputs

    graph = taken_inputs(model_of("user.id", "user_id", "größe", "_x"))
    assert names_of(graph, "input") == ["user_id", "user_id_1", "gr__e", "input__x"]
    nested = {"a": {"b": 0, "c": 0}, "a_b": 0}
    assert names_of(nested, "output") == ["a_b", "a_c", "a_b_1"]
    assert names_of([0, 0], "output") == ["output_0", "output_1"]
    assert names_of(0, "output") == ["output"]


def test_files_of_such_names_can_be_run():
    from ai_edge_litert.interpreter import Interpreter

    from zoo.export import to_litert

    model, rng = model_of("user.id", "user_id", "_x"), np.random.default_rng(0)
    x = [rng.normal(size=(32, 3)).astype("float32") for _ in range(3)]
    meant = model.predict(x, verbose=0)
    for format, share in (("float32", 1e-5), ("int8", 0.03)):
        run = Interpreter(model_content=to_litert(model, format, x)).get_signature_runner()
        named = dict(zip(("user_id", "user_id_1", "input__x"), x, strict=True))
        said = [run(**{n: v[k : k + 1] for n, v in named.items()})["output"] for k in range(32)]
        assert np.abs(np.concatenate(said) - meant).max() < share * np.ptp(meant)


def test_samples_come_in_any_structure_and_in_the_models_dtypes():
    from zoo.signature import arranged

    model = model_of("b", "a")
    b, a = np.zeros((4, 3)), np.ones((4, 3))
    for given in ([b, a], (b, a), {"a": a, "b": b}):
        found = arranged(model, given)
        assert [one.dtype for one in found] == ["float32", "float32"]
        assert np.array_equal(found, [b, a])


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        ([np.zeros((4, 3))], "net takes 2 inputs, received samples of 1"),
        (
            [np.zeros((4, 3)), np.zeros((2, 3))],
            r"as many samples of every input, received \[4, 2\]",
        ),
        ([np.zeros((4, 3)), np.zeros((4, 5))], r"shape \('n', 3\), received \(4, 5\)"),
        ([np.zeros((4, 3)), np.zeros(4)], r"shape \('n', 3\), received \(4,\)"),
        ({"b": np.zeros((4, 3)), "c": np.zeros((4, 3))}, "samples of b, a, received b, c"),
    ],
)
def test_samples_that_do_not_fit_are_refused(samples, said):
    from zoo.export import to_litert

    with pytest.raises(ValueError, match=said):
        to_litert(model_of("b", "a"), "int8", samples)


def test_samples_of_a_length_that_the_model_leaves_open():
    from ai_edge_litert.interpreter import Interpreter

    from zoo.backend import keras
    from zoo.export import to_litert

    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, 3), name="steps")
    x = keras.layers.GlobalAveragePooling1D()(keras.layers.Conv1D(8, 3, padding="same")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    rows = np.random.default_rng(0).normal(size=(32, 6, 3)).astype("float32")
    interpreter = Interpreter(model_content=to_litert(model, "int8", rows))
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], (1, 6, 3))
    run = interpreter.get_signature_runner()
    said = np.concatenate([run(steps=rows[k : k + 1])["output"] for k in range(32)])
    meant = model.predict(rows, verbose=0)
    assert np.abs(said - meant).max() < 0.05 * np.ptp(meant)
