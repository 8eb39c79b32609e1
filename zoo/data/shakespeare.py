"""Nine plays of Shakespeare as plain text (Project Gutenberg)."""

from __future__ import annotations

import re
import string

from zoo.data.passages import cut
from zoo.data.shipped import read_text
from zoo.data.table import Request, Table
from zoo.spec import DatasetSpec
from zoo.tasks import get_task

_TITLE = re.compile(r"^(?=[^\n]+\n\nby William Shakespeare)", re.M)


def plays() -> dict[str, str]:
    """Title -> text of each play. A play begins at a line that "by William Shakespeare" follows;
    blank lines also separate scenes, so they can't tell plays apart."""
    texts = [text for text in _TITLE.split(read_text(SPECS[0])) if text.strip()]
    return {string.capwords(text.split("\n", 1)[0]): text for text in texts}


def load(request: Request) -> Table:
    """Rows of the unit that the task asks for: passages, or lines."""
    task = request.task or SPECS[0].task
    sha256 = SPECS[0].sha256
    found = cut(
        plays(),
        get_task(task).unit or "passage",
        [request.split_seed, int(sha256[:15], 16)],
    )
    return Table(
        kind="text",
        x=found.texts,
        y=None,
        sha256=sha256,
        target="next token",
        task=task,
        groups={"play": found.names},
        split=found.split,
        license=SPECS[0].license,
        source=SPECS[0].source,
    )


SPECS = [
    DatasetSpec(
        name="shakespeare",
        kind="text",
        task="causal_lm",
        load=load,
        rows=4816,
        classes=(),
        groups=("play",),
        features=1,
        license="public domain",
        source="William Shakespeare, nine plays, Project Gutenberg",
        file="shakespeare.txt.gz",
        bytes=487630,
        sha256="cb65954779594a85d6122434107556f3b51c1cccb129eefbf97ba9367c655802",
        description="What comes next in the text? (1.23 MB, in passages of 256 characters)",
    )
]
