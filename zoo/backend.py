"""The only module that chooses Keras, devices, strategy, precision and seeds.

Import Keras and TensorFlow from here: ``from zoo.backend import keras, tf``. TensorFlow comes first,
since TF-MOT imported before it would turn ``tf.keras`` into tf_keras for the whole process.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import platform
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from zoo.environment import cpu_model
from zoo.errors import ZooError
from zoo.quiet import quiet

if os.environ.setdefault("KERAS_BACKEND", "tensorflow") != "tensorflow":
    raise ZooError(
        "Glasszoo needs the TensorFlow backend of Keras: TF-MOT and LiteRT build on it.",
        expected="KERAS_BACKEND=tensorflow, or none",
        received=f"KERAS_BACKEND={os.environ['KERAS_BACKEND']}",
        hint="unset KERAS_BACKEND",
        kind="wrong_environment",
    )
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")


with quiet():  # TensorFlow's C++ speaks before its logging is set up, and of every absent GPU
    import tensorflow as tf

    tf.config.list_physical_devices()
    import keras
tf.get_logger().setLevel("ERROR")
# ``tf.keras`` is decided at its first use, and TF-MOT, once imported, would make that tf_keras. SHAP
# looks at it, so it is decided here.
if tf.keras.Model is not keras.Model:
    raise ZooError(
        "Glasszoo needs tf.keras to be Keras 3.",
        expected="no TF_USE_LEGACY_KERAS",
        received=f"TF_USE_LEGACY_KERAS={os.environ.get('TF_USE_LEGACY_KERAS')}",
        hint="unset TF_USE_LEGACY_KERAS",
        kind="wrong_environment",
    )


def __getattr__(name: str) -> Any:
    """``keras_nlp`` (keras-hub), loaded when it is asked for: it takes seconds."""
    if name == "keras_nlp":
        import keras_nlp

        return keras_nlp
    raise AttributeError(name)


def set_threads(cpus: int | None) -> None:
    """Use at most ``cpus`` CPU cores, 0 or None for all; must come before any computation."""
    if cpus:
        tf.config.threading.set_intra_op_parallelism_threads(cpus)
        tf.config.threading.set_inter_op_parallelism_threads(cpus)


def gpus() -> list[Any]:
    """The GPUs that TensorFlow sees."""
    return tf.config.list_physical_devices("GPU")


def best_precision(tpu: bool = False) -> str:
    """The dtype policy that the devices gain by; the slowest of several GPUs decides.

    TPUs multiply in bfloat16, GPUs from compute capability 8 (Ampere) on in bfloat16 and from 7
    (Volta) on in float16, each at a multiple of their float32 speed. CPUs are left at float32.
    """
    if tpu:
        return "mixed_bfloat16"
    found = [tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))
             for gpu in gpus()]  # fmt: skip
    generation = min((major for major, _ in found), default=0)
    return {7: "mixed_float16"}.get(generation, "mixed_bfloat16" if generation > 7 else "float32")


@contextlib.contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """While it is open, layers are made with this dtype policy of Keras."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@functools.cache
def mirrored(count: int) -> Any:
    """A ``MirroredStrategy`` over so many GPUs, or over the CPU divided into as many parts.

    One a process. Dividing the CPU must come before any computation (``RuntimeError`` otherwise).
    """
    if gpus():
        return tf.distribute.MirroredStrategy([f"GPU:{k}" for k in range(count)])
    (cpu,) = tf.config.list_physical_devices("CPU")
    parts = [tf.config.LogicalDeviceConfiguration()] * count
    tf.config.set_logical_device_configuration(cpu, parts)
    return tf.distribute.MirroredStrategy([f"CPU:{k}" for k in range(count)])


@functools.cache
def multiworker() -> Any:
    """A ``MultiWorkerMirroredStrategy`` over the cluster of ``TF_CONFIG``; before any computation."""
    return tf.distribute.MultiWorkerMirroredStrategy()


@functools.cache
def tpu(name: str) -> Any:
    """A ``TPUStrategy`` over a TPU by name, ``local`` for this machine's; before any computation.

    Raises ``tf.errors.OpError`` or ``ValueError`` where there is none.
    """
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
    tf.config.experimental_connect_to_cluster(resolver)
    tf.tpu.experimental.initialize_tpu_system(resolver)
    return tf.distribute.TPUStrategy(resolver)


def outline(build: Callable[[], Any]) -> int:
    """How many numbers a model's variables hold, from building it without them.

    In a thread of its own: Keras keeps the variables that wait for values, and the numbers in layers'
    names, by thread, and they go with it.
    """

    def count() -> int:
        with keras.StatelessScope(initialize_variables=False):
            return sum(math.prod(variable.shape) for variable in build().variables)

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(count).result()


def valueless() -> bool:
    """Whether what is built now has variables without values, as in :func:`outline`."""
    from keras.src.backend.common.stateless_scope import get_stateless_scope

    scope = get_stateless_scope()
    return scope is not None and not scope.initialize_variables


def seed_everything(seed: int, deterministic: bool = False) -> None:
    """Seed Python, NumPy and Keras; with ``deterministic`` also forbid nondeterministic kernels."""
    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()


def device() -> dict[str, Any]:
    """What the work runs on: processor, cores, accelerators."""
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "gpus": [gpu.name for gpu in tf.config.list_physical_devices("GPU")],
        "platform": f"{platform.system()} {platform.machine()}",
    }
