"""Magnitude pruning of Keras 3 models with TF-MOT's own engine.

TF-MOT wraps Keras 2 layers, but its engine (``pruning_impl.Pruning``) works on plain tensors. Each
kernel gets a mask as a Keras constraint, which the optimizer applies inside the compiled step; a
callback lets the engine renew the masks as the schedule grows. Zhu & Gupta, "To prune, or not to
prune", 2017 (the polynomial schedule); Han et al., NeurIPS 2015 (magnitude); Mishra et al.,
"Accelerating Sparse Deep Neural Networks", 2021 (2 by 4).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from zoo.compress.mot import mot
from zoo.kernels import Kernel, kernels
from zoo.overrides import Attached

SCHEDULES = ("polynomial", "constant")


@dataclass
class Masked:
    """One kernel under a mask (1 keeps a weight, 0 holds it at zero)."""

    of: Kernel
    mask: Any
    before: Any  # the constraint it had

    @property
    def name(self) -> str:
        """The kernel's name."""
        return self.of.name

    @property
    def kernel(self) -> Any:
        """The Keras variable."""
        return self.of.variable


class Masks(Attached):
    """Masks on kernels, applied by the optimizer inside the compiled step."""

    def __init__(self, model: Any, chosen: Sequence[Kernel]) -> None:
        from zoo.backend import tf

        super().__init__(model)
        self.kernels: list[Masked] = []
        self.trained = False  # whether a step of a training has asked for the masks
        for kernel in chosen:
            mask = tf.Variable(
                tf.ones(kernel.variable.shape),
                trainable=False,
                name="mask",
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )
            self.kernels.append(Masked(kernel, mask, kernel.variable.constraint))
            kernel.variable.constraint = _constraint(self, mask, kernel.variable.constraint)

    @property
    def variables(self) -> list[Any]:  # type: ignore[override]
        """The masks."""
        return [masked.mask for masked in self.kernels]

    def apply(self, masks: Sequence[Any]) -> None:
        """Set the masks and the weights they hold at zero."""
        from zoo.backend import tf

        for masked, values in zip(self.kernels, masks, strict=True):
            masked.mask.assign(tf.cast(values, tf.float32))
            masked.kernel.assign(kept(masked.kernel.value, values))

    def _release(self) -> None:
        """Take the constraints off again; the zeros stay.

        An optimizer's moving average of the weights (``use_ema``) knows no constraint: what it wrote
        into the model at the end is masked once more.
        """
        self.apply([masked.mask for masked in self.kernels])
        for masked in self.kernels:
            masked.kernel.constraint = masked.before


def _constraint(masks: Any, mask: Any, before: Any) -> Any:
    from zoo.backend import keras

    class Mask(keras.constraints.Constraint):
        def __call__(self, weight: Any) -> Any:
            masks.trained = True
            if before is not None:
                weight = before(weight)
            return kept(weight, mask)

    return Mask()


def kept(weights: Any, mask: Any) -> Any:
    """Weights where the mask is 1, and 0 where it is 0.

    A product would leave a negative weight as -0.0, whose bytes are not all zero: at 80 % zeros the
    zipped weights would be a seventh larger.
    """
    from zoo.backend import tf

    weights = tf.convert_to_tensor(weights)
    return tf.where(tf.cast(mask, tf.bool), weights, tf.zeros_like(weights))


class Pruner(Masks):
    """Prunes chosen kernels of a Keras 3 model to a final sparsity while it trains.

    Args:
        model: a built Keras model; its kernels get constraints, so compile it afterwards.
        sparsity: final share of zeros in each kernel, between 0 and 1. Unused with ``by``.
        begin, end: steps between which the sparsity grows from ``initial`` to ``sparsity``.
        every: the masks are renewed each so many steps.
        layers: which kernels, as :func:`zoo.compress.kernels` takes them.
        schedule: ``polynomial`` growth, or ``constant`` from ``begin`` on.
        across: one threshold for all kernels together, so that each gets the sparsity that its
            magnitudes call for; ``sparsity`` then holds for their sum.
        by: (m, n): m zeros in each n weights that are consecutive along the inputs.
        block: (rows, columns) of the matrix (inputs, outputs) that are zeroed together.
    """

    def __init__(
        self,
        model: Any,
        sparsity: float | None,
        *,
        begin: int,
        end: int,
        every: int,
        initial: float = 0.0,
        layers: Sequence[str] | str | None = None,
        schedule: str = "polynomial",
        across: bool = False,
        by: tuple[int, int] | None = None,
        block: tuple[int, int] = (1, 1),
    ) -> None:
        from zoo.backend import tf

        schedules = mot("sparsity.keras.pruning_schedule")
        if schedule not in SCHEDULES:
            raise ValueError(f"expected one of {', '.join(SCHEDULES)}, received {schedule!r}")
        if by is not None:
            if not 0 < by[0] < by[1]:
                raise ValueError(f"expected m by n with 0 < m < n, received {by}")
            sparsity = by[0] / by[1]
        if sparsity is None or isinstance(sparsity, str) or not 0 <= sparsity < 1:
            raise ValueError(
                f"expected a sparsity of at least 0 and below 1, or by=(m, n), received {sparsity!r}"
            )
        if every < 1:
            raise ValueError(
                f"expected masks to be renewed every 1 or more steps, received {every}"
            )
        if sum((by is not None, across, tuple(block) != (1, 1))) > 1:
            raise ValueError("expected one of: by, block, across")
        chosen = kernels(model, layers)
        if tuple(block) != (1, 1):
            chosen = _larger_than(block, chosen)
        step = self._step = tf.Variable(0, dtype=tf.int64, trainable=False)
        if schedule == "polynomial":
            growth = schedules.PolynomialDecay(
                initial_sparsity=initial,
                final_sparsity=sparsity,
                begin_step=begin,
                end_step=max(end, begin + 1),
                frequency=1,
            )
        else:
            growth = schedules.ConstantSparsity(sparsity, begin_step=begin, frequency=1)
        # The engine asks its schedule whether this very step renews the masks; a step inside a
        # multi-step call is never asked. We decide when it is time, and ask the engine for masks.
        self._engine = mot("sparsity.keras.pruning_impl").Pruning(
            training_step_fn=lambda: step,
            pruning_vars=[],
            pruning_schedule=growth,
            block_size=block,
            block_pooling_type="AVG",
            sparsity_m_by_n=by,
        )
        super().__init__(model, chosen)  # once nothing can be refused any more
        self.every, self.begin, self.end = every, begin, end
        self._across, self._by, self._block = across, by, tuple(block)
        self._turn = tf.Variable(-1, dtype=tf.int64, trainable=False)
        self._first = tf.Variable(-1, dtype=tf.int64, trainable=False)
        self._early: list[tuple[Any, Any]] | None = None

    @property
    def variables(self) -> list[Any]:  # type: ignore[override]
        """The masks, the turn they were renewed at, and the optimizer's count at the start."""
        return [*super().variables, self._turn, self._first]

    def renew(self, step: int) -> None:
        """Renew the masks when ``every`` steps have passed since the last time, and apply them."""
        turn = step // self.every
        if turn > int(self._turn.numpy()) and step >= self.begin:
            self._turn.assign(turn)
            self._set(step)

    def finish(self, step: int | None = None) -> None:
        """Bring every kernel to the final sparsity, whatever step the training ended at.

        Where that is before the schedule's end, :meth:`go_on` can take it back.
        """
        if step is not None and step < self.end:
            self._early = [(_copy(m.mask), _copy(m.kernel.value)) for m in self.kernels]
        self._set(max(self.end, self.begin + 1))

    def go_on(self) -> None:
        """Take back what a finish before the schedule's end set to zero: the training goes on."""
        from zoo.backend import tf

        early, self._early = self._early, None
        for masked, (mask, weights) in zip(self.kernels, early or [], strict=False):
            back = tf.logical_and(tf.equal(masked.mask, 0), tf.equal(mask, 1))
            masked.mask.assign(mask)
            masked.kernel.assign(tf.where(back, weights, masked.kernel.value))

    def _release(self) -> None:
        super()._release()
        if self.trained and int(self._first.numpy()) < 0 and int(self._turn.numpy()) < 0:
            warnings.warn(
                "the model was trained without the pruning's callback, so that nothing was pruned: "
                "fit(..., callbacks=[handle.callback()])",
                stacklevel=4,
            )

    def _set(self, step: int) -> None:
        self._step.assign(step)
        self.apply(self._global() if self._across else [self._mask(m.of) for m in self.kernels])

    def _mask(self, kernel: Kernel) -> Any:
        values = kernel.variable.value
        # The engine knows blocks for matrices, and m by n for matrices and 2-D convolutions, whose
        # outputs it takes to be the last axis.
        rank = len(values.shape)
        known = rank in (2, 4) and kernel.outputs in ((rank - 1,), ())
        if self._block == (1, 1) and (self._by is None or known):
            return self._engine._maybe_update_block_mask(values)[1]
        return kernel.unmatrix(self._engine._maybe_update_block_mask(kernel.matrix(values))[1])

    def _global(self) -> list[Any]:
        from zoo.backend import tf

        flat = [tf.reshape(masked.kernel.value, [-1]) for masked in self.kernels]
        mask = self._engine._maybe_update_block_mask(tf.concat(flat, 0))[1]
        parts = tf.split(mask, [masked.of.size for masked in self.kernels])
        return [
            tf.reshape(part, masked.kernel.shape)
            for part, masked in zip(parts, self.kernels, strict=True)
        ]

    def callback(self) -> Any:
        """A Keras callback that renews the masks after batches and finishes at the end.

        It counts the optimizer's updates since the first training began, so it works with any
        ``steps_per_execution`` and over several calls of ``fit``.
        """
        from zoo.backend import keras

        pruner = self

        class Renew(keras.callbacks.Callback):
            held = pruner.variables

            def on_train_begin(self, logs: Any = None) -> None:
                if int(pruner._first.numpy()) < 0:  # a training that is taken up brings its masks
                    pruner._first.assign(self.updates)
                    pruner.renew(0)
                pruner.go_on()

            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                pruner.renew(self.steps)

            def on_train_end(self, logs: Any = None) -> None:
                pruner.finish(self.steps)

            @property
            def updates(self) -> int:
                return int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))

            @property
            def steps(self) -> int:
                return self.updates - int(pruner._first.numpy())

        return Renew()


def _copy(values: Any) -> Any:
    """A tensor with what a variable holds now."""
    from zoo.backend import tf

    return tf.identity(tf.convert_to_tensor(values))


def _larger_than(block: tuple[int, int], chosen: Sequence[Kernel]) -> list[Kernel]:
    """Those of more than one block along both axes of their matrix: others have none to choose from."""
    found = [
        kernel
        for kernel in chosen
        if all(
            size > own
            for size, own in zip(kernel.matrix(kernel.variable.value).shape, block, strict=True)
        )
    ]
    if not found:
        raise ValueError(
            f"no kernel is larger than a block of {block[0]} inputs by {block[1]} outputs"
        )
    return found


def prune(
    model: Any,
    sparsity: float | None = None,
    *,
    steps: int,
    growth: float = 0.6,
    begin: int = 0,
    every: int | None = None,
    initial: float = 0.0,
    layers: Sequence[str] | str | None = None,
    schedule: str = "polynomial",
    across: bool = False,
    by: tuple[int, int] | None = None,
    block: tuple[int, int] = (1, 1),
) -> Pruner:
    """Prune a Keras 3 model while it trains for ``steps`` steps.

    Steps are updates of the weights, of which a step that accumulates gradients makes none. Sparsity
    grows during the share ``growth`` of the steps, the rest recovers accuracy; the masks are
    renewed every ``steps // 100`` steps unless ``every`` says otherwise. The other arguments are those
    of :class:`Pruner`. Compile after this call, fit with ``callbacks=[handle.callback()]``, then leave
    the ``with`` block or call ``release()``::

        >>> import numpy as np, keras
        >>> from zoo.compress import prune
        >>> x = np.random.default_rng(0).normal(size=(256, 40)).astype("float32")
        >>> model = keras.Sequential([keras.Input((40,)), keras.layers.Dense(64), keras.layers.Dense(1)])
        >>> with prune(model, 0.75, steps=16) as pruning:
        ...     model.compile("adam", "mse")
        ...     _ = model.fit(x, x[:, 0], batch_size=16, verbose=0, callbacks=[pruning.callback()])
        >>> float((model.layers[0].get_weights()[0] == 0).mean())
        0.75

    Returns the handle. Raises ``ValueError`` for a wrong argument or a model without kernels.
    """
    if steps <= begin:
        raise ValueError(f"expected more steps than begin, {begin}, received {steps}")
    return Pruner(
        model,
        sparsity,
        begin=begin,
        end=begin + int((steps - begin) * growth),
        every=max(1, steps // 100) if every is None else every,
        initial=initial,
        layers=layers,
        schedule=schedule,
        across=across,
        by=by,
        block=block,
    )


def keep_zeros(model: Any) -> Masks:
    """Hold at zero what is exactly zero in any kernel of a model, while it trains on.

    For a pruned model under :func:`~zoo.compress.quantize_aware` or
    :func:`~zoo.compress.cluster`. Returns the handle, a context manager.
    """
    from zoo.backend import tf
    from zoo.kernels import all_kernels

    masks = Masks(model, all_kernels(model))
    masks.apply([tf.not_equal(m.kernel.value, 0) for m in masks.kernels])
    return masks
