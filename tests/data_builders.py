"""Builders of data that is legal and nasty: what a stranger's files look like.

Everything is a function of a seed. The outcome depends on ``amount & wild``, ``colour`` and
``city``, so that models have something to learn.
"""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import numpy as np

#: Headers with commas, quotes, blanks, markup, percent signs, slashes and other alphabets.
AMOUNT, COLOUR, SEX, AGE, CITY = (
    " amount, net ",
    'the "colour"',
    "<script>alert(1)</script>",
    "100% age/years",
    "città",
)
#: The same as the loader names them.
NAMES = {"amount": AMOUNT.strip(), "colour": COLOUR, "sex": SEX, "age": AGE, "city": CITY}


def columns(rows: int = 1500, seed: int = 0) -> dict[str, list[str]]:
    """A table as text, header -> cells: the inputs of all the data sets here, without a target."""
    rng = np.random.default_rng(seed)
    amount = rng.lognormal(3, 1, rows)
    age = np.round(rng.normal(40, 12, rows)).clip(18, 90)
    age[rng.random(rows) < 0.4] = 18  # ties: two of the three quartiles coincide
    colour = rng.choice(["red", "green ", " blue", "NA", "none, thanks"], rows)
    sex = rng.choice(["f", "m", ""], rows, p=[0.45, 0.45, 0.1])
    city = rng.choice(["Zürich", "São Paulo", "東京", "O'Fallon", "<b>Rome</b>"], rows)
    gone = rng.random(rows) < 0.07
    day = np.datetime64("2019-01-01") + rng.integers(0, 900, rows)
    found = {
        "": [str(k) for k in range(rows)],  # the index that a data frame leaves in a file
        AMOUNT: ["" if lost else f"{value:.4f}" for value, lost in zip(amount, gone, strict=True)],
        COLOUR: colour.tolist(),
        SEX: sex.tolist(),
        AGE: [f"{value:.1f}" for value in age],  # whole numbers, written as floats
        CITY: city.tolist(),
        "name": [f"Person {k} of {rng.integers(1 << 40)}" for k in range(rows)],
        "id": rng.permutation(10 * rows)[:rows].astype(str).tolist(),
        "seen": day.astype(str).tolist(),
        "member": rng.choice(["TRUE", "FALSE", ""], rows).tolist(),
        "constant": ["x"] * rows,
        "nothing": [""] * rows,
        "stray": [str(k % 97) for k in range(rows)],
        "infinite": [("inf", "-inf", "-0.0", f"{k / 7:.3f}")[min(k % 40, 3)] for k in range(rows)],
        "huge": [f"{x:.3e}" for x in rng.choice([1e300, -1e308, 1e-300, 1.0], rows)],
        "code": [f"{k:03d}" for k in rng.integers(0, 12, rows)],
        "split": rng.choice(["left", "right"], rows).tolist(),
        "rare": ["unseen" if k == rows - 1 else "seen" for k in range(rows)],
    }
    found["stray"][3] = "n. a. (see <b>note</b>)"
    return found


def signal(table: dict[str, list[str]], seed: int = 1) -> np.ndarray:
    """float64 (n,): what the targets are made of."""
    rng = np.random.default_rng(seed)
    amount = np.array([float(cell) if cell else 20.0 for cell in table[AMOUNT]])
    warm = np.isin([cell.strip() for cell in table[COLOUR]], ["red", "none, thanks"])
    young = np.array([float(cell) for cell in table[AGE]]) < 35
    noise = rng.normal(0, 0.4, len(amount))
    return np.log(amount) - 3 + 1.5 * warm - 0.7 * young + noise


def labels(kind: str, table: dict[str, list[str]]) -> list[str]:
    """A target of some kind, made of :func:`signal`."""
    values = signal(table)
    third = np.searchsorted(np.quantile(values, [1 / 3, 2 / 3]), values)
    yes = values > np.median(values)
    return {
        "words": np.where(yes, "will pay", "won't, ever"),
        "booleans": np.where(yes, "True", "False"),
        "zero one": np.where(yes, "1", "0"),
        "one two": np.where(yes, "2.0", "1.0"),
        "three words": np.array(["low <i>", "in between", "NA"])[third],
        "three numbers": np.array(["10", "9", "100"])[third],
        "values": np.array([f"{value * 1000:.3f}" for value in values]),
    }[kind].tolist()


def write_csv(
    path: Path,
    table: dict[str, list[str]],
    *,
    separator: str = ",",
    newline: str = "\n",
    bom: bool = False,
) -> Path:
    """Write a table; a path that ends in .gz is compressed."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=separator, lineterminator=newline)
    writer.writerow(table)
    writer.writerows(zip(*table.values(), strict=True))
    content = buffer.getvalue().encode("utf-8-sig" if bom else "utf-8")
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


def write_pictures(folder: Path, *, each: int = 14, size: int = 12, seed: int = 0) -> Path:
    """Class folders "dark" and "light" of grey PNG files."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    for name, low in (("dark", 0), ("light", 150)):
        (folder / name).mkdir(parents=True)
        for k in range(each):
            pixels = rng.integers(low, low + 100, (size, size), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{k:02d}.png")
    return folder
