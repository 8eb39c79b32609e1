"""A subset of MNIST: 500 pictures of each handwritten digit (LeCun, Cortes & Burges)."""

from __future__ import annotations

from zoo.data.shipped import read_bytes
from zoo.data.table import Request, Table
from zoo.spec import DatasetSpec


def load(request: Request) -> Table:
    """5,000 grey pictures of 28 x 28 pixels, 4,000 of them for training."""
    import io

    import numpy as np

    with np.load(io.BytesIO(read_bytes(SPECS[0])), allow_pickle=False) as stored:
        images, labels, split = stored["images"], stored["labels"], stored["split"]
    return Table(
        kind="image",
        x=images[..., None],
        y=labels,
        sha256=SPECS[0].sha256,
        target="digit",
        task="multiclass",
        groups={"class": labels.astype(str)},
        label_groups=("class",),
        split=split,
        license=SPECS[0].license,
        source=SPECS[0].source,
    )


SPECS = [
    DatasetSpec(
        name="mnist_5k",
        kind="image",
        task="multiclass",
        load=load,
        rows=5000,
        classes=tuple("0123456789"),
        groups=("class",),
        features=784,
        license="CC BY-SA 3.0",
        source="LeCun, Cortes & Burges, the MNIST database of handwritten digits (subset)",
        file="mnist_5k.npz",
        bytes=833761,
        sha256="d4603db2537a2848b7e947ff83ce565f2e6af4d30ad64377f84be3b6dcb9036b",
        description="Which digit is it?",
    )
]
