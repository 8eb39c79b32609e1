"""Nine plays of Shakespeare as plain text (Project Gutenberg)."""

from __future__ import annotations

import re

from zoo.data.core import Request, Table
from zoo.data.shipped import read_text
from zoo.spec import DatasetSpec

_TITLE = re.compile(r"^(?=[^\n]+\n\nby William Shakespeare)", re.M)


def plays() -> dict[str, str]:
    """Title -> text of each play. A play begins at a line that "by William Shakespeare" follows;
    blank lines also separate scenes, so they can't tell plays apart."""
    texts = [text for text in _TITLE.split(read_text(SPECS[0])) if text.strip()]
    return {text.split("\n", 1)[0].strip().title(): text for text in texts}


def load(request: Request) -> Table:
    """One row for each play."""
    import numpy as np

    found = plays()
    return Table(
        kind="text",
        x=np.array(list(found.values())),
        y=None,
        sha256=SPECS[0].sha256,
        target="next token",
        task="causal_lm",
        groups={"play": np.array(list(found))},
        license=SPECS[0].license,
        source=SPECS[0].source,
    )


SPECS = [
    DatasetSpec(
        name="shakespeare",
        kind="text",
        task="causal_lm",
        load=load,
        rows=9,
        classes=(),
        groups=("play",),
        features=1,
        license="public domain",
        source="William Shakespeare, nine plays, Project Gutenberg",
        file="shakespeare.txt.gz",
        bytes=487630,
        sha256="cb65954779594a85d6122434107556f3b51c1cccb129eefbf97ba9367c655802",
        description="What comes next in the text? (1.23 MB)",
    )
]
