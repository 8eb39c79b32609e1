"""Magnitude pruning of Keras 3 models with TF-MOT's own engine.

TF-MOT wraps Keras 2 layers, but its engine (``pruning_impl.Pruning``) works on plain variables. Each
kernel gets a mask as a Keras constraint, which the optimizer applies inside the compiled step; a
callback lets the engine renew the masks as the schedule grows. Zhu & Gupta, "To prune, or not to
prune", 2017 (the polynomial schedule); Han et al., NeurIPS 2015 (magnitude).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from zoo.variants import kernels


@dataclass
class Pruned:
    """One kernel under pruning: the Keras variable, and the engine's mask and threshold."""

    name: str
    kernel: Any
    mask: Any
    threshold: Any


class Pruner:
    """Prunes chosen kernels of a Keras 3 model to a final sparsity while it trains.

    Args:
        model: a built Keras model; its kernels get constraints, so compile it afterwards.
        sparsity: final share of zeros in each kernel, between 0 and 1.
        begin, end: steps between which the sparsity grows from ``initial`` to ``sparsity``.
        every: the masks are renewed each so many steps.
        layers: names of the layers to prune; all Dense, EinsumDense and Conv layers by default.
    """

    def __init__(
        self,
        model: Any,
        sparsity: float,
        *,
        begin: int,
        end: int,
        every: int,
        initial: float = 0.0,
        layers: Sequence[str] | None = None,
    ) -> None:
        from zoo.backend import tf
        from zoo.quiet import quiet

        with quiet():  # it warns of its own use of distutils
            from tensorflow_model_optimization.python.core.sparsity.keras import (
                pruning_impl,
                pruning_schedule,
            )

        chosen = [
            (layer, kernel)
            for layer, kernel in kernels(model)
            if layers is None or layer.name in layers
        ]
        if not chosen:
            raise ValueError("the model has no kernel that can be pruned")
        if not 0 <= sparsity < 1:
            raise ValueError(f"expected a sparsity of at least 0 and below 1, received {sparsity}")
        self.kernels = []
        for layer, kernel in chosen:
            mask = tf.Variable(tf.ones(kernel.shape), trainable=False, name=f"{layer.name}_mask")
            threshold = tf.Variable(0.0, trainable=False, name=f"{layer.name}_threshold")
            kernel.constraint = _constraint(mask)
            self.kernels.append(Pruned(layer.name, kernel, mask, threshold))
        self.every, self.begin, self.end = every, begin, end
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False)
        polynomial = pruning_schedule.PolynomialDecay(
            initial_sparsity=initial,
            final_sparsity=sparsity,
            begin_step=begin,
            end_step=max(end, begin + 1),
            frequency=1,
        )
        # The engine asks its schedule whether this very step renews the masks; a step inside a
        # multi-step call is never asked. We decide when it is time and always answer yes.
        self._engine = pruning_impl.Pruning(
            training_step_fn=lambda: self._step,
            pruning_vars=[(p.kernel.value, p.mask, p.threshold) for p in self.kernels],
            pruning_schedule=lambda step: (tf.constant(True), polynomial(step)[1]),
            block_size=(1, 1),
            block_pooling_type="AVG",
        )

        @tf.function
        def renew() -> None:  # the engine's own operations, masks first
            self._engine.conditional_mask_update()
            self._engine.weight_mask_op()

        self._renew = renew
        self._turn = -1

    def renew(self, step: int) -> None:
        """Renew the masks when ``every`` steps have passed since the last time, and apply them."""
        turn = step // self.every
        if turn > self._turn and step >= self.begin:
            self._turn = turn
            self._set(step)

    def finish(self) -> None:
        """Bring every kernel to the final sparsity, whatever step the training ended at."""
        self._set(max(self.end, self.begin + 1))

    def _set(self, step: int) -> None:
        self._step.assign(step)
        self._renew()

    def release(self) -> None:
        """Take the constraints off again; the zeros stay."""
        for pruned in self.kernels:
            pruned.kernel.constraint = None

    def callback(self) -> Any:
        """A Keras callback that renews the masks after batches and finishes at the end.

        It counts steps by the optimizer, so it works with any ``steps_per_execution``.
        """
        from zoo.backend import keras

        pruner = self

        class Renew(keras.callbacks.Callback):
            def on_train_begin(self, logs: Any = None) -> None:
                pruner.renew(int(self.model.optimizer.iterations))

            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                pruner.renew(int(self.model.optimizer.iterations))

            def on_train_end(self, logs: Any = None) -> None:
                pruner.finish()

        return Renew()


def _constraint(mask: Any) -> Any:
    from zoo.backend import keras, tf

    class Mask(keras.constraints.Constraint):
        def __call__(self, weight: Any) -> Any:
            return tf.multiply(weight, tf.cast(mask, weight.dtype))

    return Mask()
