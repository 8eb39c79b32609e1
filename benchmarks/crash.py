"""Does a training survive? Kills, damaged checkpoints, a full disk, against the real command.

    python benchmarks/crash.py [--kills 20] [--out benchmarks/results/crash.json]

1. Chains of ``kill -9``: a training with dropout and shuffling, under ``--deterministic``, is
   killed, resumed, killed again, and at last left to finish. Every second kill comes while a
   checkpoint is being written (its temporary folder is there); what remained of it afterwards tells
   whether it did. The final state, every variable of it, must be that of an uninterrupted training
   bit for bit.
2. The newest checkpoint is cut at 50 places and changed in one byte at 50 places, each file of it
   in proportion: the one before must be taken, and said.
3. A training on a disk (tmpfs) with too little room: a failure with exit code 1, and the checkpoints
   before it whole.

Takes about five minutes on two cores, most of it importing TensorFlow.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from zoo.environment import measured
from zoo.run import write_atomic
from zoo.train import checkpoint

OUT = Path(__file__).parent / "results" / "crash.json"
#: Kills of one chain, before it may finish.
CHAIN = 5
ZOO = [sys.executable, "-m", "zoo.cli"]
#: About 1.6 million parameters, so that writing a checkpoint takes a while.
MODEL = ["--epochs", "8", "--batch-size", "64", "--set", "hidden=1024,1024", "--set", "bins=8",
         "--checkpoint-every", "4", "--deterministic"]  # fmt: skip


def table(path: Path, rows: int = 2000) -> Path:
    """A CSV with four columns and an answer that depends on them."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 4)).round(3)
    y = np.where(x[:, 0] + x[:, 1] * x[:, 2] + rng.normal(0, 0.5, rows) > 0, "yes", "no")
    lines = ["a,b,c,d,answer", *(",".join([*map(str, r), a]) for r, a in zip(x, y, strict=True))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def start(folder: Path, name: str) -> subprocess.Popen[str]:
    """``zoo train`` of a new run, or ``--resume`` of the one there is."""
    if (folder / "runs" / name).exists():
        words = ["train", "--resume", name]
    else:
        words = ["train", "mlp", "--data", str(folder / "data.csv"), "--target", "answer",
                 "--name", name, *MODEL]  # fmt: skip
    return subprocess.Popen(
        [*ZOO, *words, "--runs", str(folder / "runs")], stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip


def names(folder: Path, pattern: str) -> set[str]:
    """Names of what is there now."""
    return {path.name for path in folder.glob(pattern)}


def kill(process: subprocess.Popen[str], checkpoints: Path, draw: random.Random, saving: bool
         ) -> dict[str, Any] | None:  # fmt: skip
    """Kill after a few more checkpoints, while one is written or at any time; None if it ended."""
    seen, wanted = names(checkpoints, "step-*"), draw.randint(1, 4)
    new: set[str] = set()
    while len(new) < wanted:
        if process.poll() is not None:
            return None
        new |= names(checkpoints, "step-*") - seen
        time.sleep(0.001)
    if saving:
        while not names(checkpoints, ".tmp-step-*"):
            if process.poll() is not None:
                return None
        time.sleep(draw.uniform(0, 0.01))
    else:
        time.sleep(draw.uniform(0, 0.3))
    process.kill()
    process.wait()
    rest = bool(names(checkpoints, ".tmp-*"))
    return {"aimed_at_saving": saving, "while_saving": rest, "after": max(new)}


def final_state(run: Path) -> dict[str, np.ndarray]:
    """Every variable at the end of a training, and the weights that it shipped."""
    import h5py

    found = checkpoint.newest(run / "checkpoints")
    assert not found.passed, found.passed
    state = {name: a for name, a in found.arrays.items() if not name.startswith("callback/")}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            state[f"shipped/{name}"] = np.asarray(item)

    with h5py.File(run / "base" / "model.weights.h5") as file:
        file.visititems(visit)
    return state


def kills(folder: Path, number: int, draw: random.Random) -> dict[str, Any]:
    """Part 1."""
    process = start(folder, "whole")
    process.communicate()
    assert process.returncode == 0
    whole = final_state(folder / "runs" / "whole")
    rows: list[dict[str, Any]] = []
    chains = []
    while len(rows) < number:
        name, done = f"chain-{len(chains)}", 0
        while True:
            process = start(folder, name)
            row = None
            if done < CHAIN and len(rows) < number:
                row = kill(process, folder / "runs" / name / "checkpoints", draw, done % 2 == 0)
            if row is None:
                break
            done += 1
            rows.append({**row, "chain": name})
            click.echo(f"{len(rows)}: {row}")
        _, said = process.communicate()
        state = final_state(folder / "runs" / name)
        equal = process.returncode == 0 and state.keys() == whole.keys() and all(
            np.array_equal(state[key], whole[key]) for key in whole
        )  # fmt: skip
        chains.append({"chain": name, "kills": done, "exit_code": process.returncode,
                       "bit_identical": equal})  # fmt: skip
        click.echo(chains[-1])
        if done == 0:
            raise SystemExit(f"the training ended before it could be killed:\n{said}")
    return {
        "kills": len(rows),
        "while_saving": sum(row["while_saving"] for row in rows),
        "resumed": sum(c["kills"] for c in chains if c["exit_code"] == 0),
        "bit_identical": all(chain["bit_identical"] for chain in chains),
        "variables_compared": len(whole),
        "chains": chains,
        "rows": rows,
    }


def damage(folder: Path, draw: random.Random, times: int = 50) -> dict[str, Any]:
    """Part 2, on the checkpoints of the uninterrupted training."""
    source = folder / "runs" / "whole" / "checkpoints"
    newest, before = sorted(names(source, "step-*"), reverse=True)[:2]
    result: dict[str, Any] = {}
    for kind in ("cut", "flipped"):
        good = 0
        for turn in range(times):
            with tempfile.TemporaryDirectory(dir=folder) as place:
                copy = Path(shutil.copytree(source, Path(place) / "c", copy_function=os.link))
                file = copy / newest / ("manifest.json" if turn % 5 == 0 else "state.npz")
                content = bytearray(file.read_bytes())
                at = draw.randrange(len(content))
                if kind == "cut":
                    content = content[:at]
                else:
                    content[at] ^= 1 << draw.randrange(8)
                file.unlink()  # a hard link: the original stays as it is
                file.write_bytes(content)
                found = checkpoint.newest(copy)
                said = len(found.passed) == 1 and newest in found.passed[0]
                good += said and found.meta["step"] == int(before[5:])
        result[kind] = {"times": times, "previous_taken_and_said": good}
        click.echo(f"{kind}: {result[kind]}")
    return result


FULL = """
mount -t tmpfs -o size={size} tmpfs {disk} && cd {disk} || exit 99
{zoo} > /dev/null 2> {disk}.stderr
echo $? > {disk}.code
{python} -c 'import sys; from pathlib import Path; from zoo.train import checkpoint
found = checkpoint.newest(Path(sys.argv[1]))
print(found.meta.get("step"), len(found.passed))' {disk}/runs/full/checkpoints > {disk}.found
"""


def full_disk(folder: Path) -> dict[str, Any]:
    """Part 3; needs Linux with user namespaces, in which a tmpfs may be mounted."""
    disk = folder / "disk"
    disk.mkdir()
    words = [*ZOO, "train", "mlp", "--data", str(folder / "data.csv"), "--target", "answer",
             "--name", "full", "--runs", f"{disk}/runs", *MODEL]  # fmt: skip
    size = sum(
        item.stat().st_size for item in (folder / "runs/whole/checkpoints").glob("step-*/*")
    ) // checkpoint.KEEP  # fmt: skip
    script = FULL.format(
        size=int(size * 2.5), disk=disk, zoo=" ".join(words), python=sys.executable
    )
    try:
        done = subprocess.run(
            ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
            capture_output=True, text=True,
        )  # fmt: skip
    except OSError as error:
        return {"error": f"not measured: {error}"}
    if done.returncode == 99 or not Path(f"{disk}.found").exists():
        return {"error": f"not measured: {done.stderr.strip()[-200:]}"}
    step, passed = Path(f"{disk}.found").read_text().split()
    said = Path(f"{disk}.stderr").read_text()
    return {
        "room_for_checkpoints": 2.5,
        "exit_code": int(Path(f"{disk}.code").read_text()),
        "said_no_space": "No space left" in said,
        "newest_whole_step": None if step == "None" else int(step),
        "damaged": int(passed),
    }


@click.command()
@click.option("--kills", "number", default=20, show_default=True, type=click.IntRange(1))
@click.option("--seed", default=0, show_default=True)
@click.option("--out", default=OUT, type=click.Path(path_type=Path))
def main(number: int, seed: int, out: Path) -> None:
    """Kill, damage and fill up; write what became of it. Exit 1 when anything was lost."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        table(folder / "data.csv")
        began = time.perf_counter()
        document = {
            "kill": kills(folder, number, draw),
            "damage": damage(folder, draw),
            "full_disk": full_disk(folder),
            "seed": seed,
            "seconds": round(time.perf_counter() - began),
            **measured(),
        }
    write_atomic(out, json.dumps(document, indent=1) + "\n")
    click.echo(json.dumps({k: v for k, v in document["kill"].items() if k != "rows"}))
    click.echo(document["full_disk"])
    killed, full = document["kill"], document["full_disk"]
    held = (
        killed["bit_identical"]
        and killed["resumed"] == killed["kills"]
        and all(row["previous_taken_and_said"] == row["times"] for row in document["damage"].values())
        and ("error" in full or (full["exit_code"] == 1 and full["damaged"] == 0
                                 and full["newest_whole_step"] is not None))
    )  # fmt: skip
    raise SystemExit(0 if held else 1)


if __name__ == "__main__":
    main()
