"""Texts as ids: a vocabulary of the training rows' words, kept as JSON in the plan.

How a text is cut is a row of :data:`TOKENIZERS`. ``words`` are lower-cased runs of letters and
digits, with their apostrophes; punctuation between blanks is one word, so that ``:-)`` and ``!!!``
stay what they are. The other kinds cut words into pieces (``wordpiece``, ``bpe``), or texts into
single characters. Hugging Face's ``tokenizers`` learns the pieces, ``keras_nlp`` cuts by them.
"""

from __future__ import annotations

import functools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.errors import ZooError, unknown

WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]+")
#: Ids of what is no word of the vocabulary: filling beside short texts, and unknown words.
PADDING, UNKNOWN = 0, 1
SPECIAL = ("(padding)", "(unknown)")
VOCABULARY = 10_000
#: A word of a single training row says nothing about others.
MIN_COUNT = 2
#: Texts keep as many tokens as this share of the training rows have, within limits.
SHARE, SHORTEST, LONGEST = 0.97, 4, 512
#: Between the source and the answer of a row that has both.
ANSWER = "\t"

Plan = Mapping[str, Any]


@dataclass(frozen=True)
class Tokenizer:
    """One way to cut texts.

    ``fit(texts, size)`` gives what a plan keeps: ``words``, the texts of the ids (of words those
    after :data:`SPECIAL`), perhaps ``merges``, and where there are such ids ``start``, ``end`` and
    ``mask``. ``cut(plan, texts)`` gives a list of ids for each text.
    ``join(tokens)`` makes a text of tokens again. ``front`` says on which side short texts are
    filled, ``longest`` how many tokens a text may keep unasked. ``vocabulary`` is the default size.
    """

    name: str
    fit: Callable[[Sequence[str], int], dict[str, Any]]
    cut: Callable[[Plan, Sequence[str]], list[Sequence[int]]]
    join: Callable[[Sequence[str]], str]
    vocabulary: int
    longest: int
    front: bool
    source: str


def words(text: str) -> list[str]:
    """The words of a text."""
    return WORD.findall(text.lower())


def fit_vocabulary(texts: Iterable[str], size: int) -> list[str]:
    """At most ``size`` words that occur in several texts, most frequent first, ties by alphabet."""
    counts = Counter(word for text in texts for word in set(words(text)))
    known = [word for word, count in counts.items() if count >= MIN_COUNT]
    return sorted(known, key=lambda word: (-counts[word], word))[:size]


def _fit_words(texts: Sequence[str], size: int) -> dict[str, Any]:
    found = fit_vocabulary(texts, size)
    if not found:
        raise ZooError(
            "The training texts share no word.",
            expected=f"texts in which some words occur in at least {MIN_COUNT} rows",
            received=f"{len(texts):,} texts such as {str(texts[0])[:60]!r}",
            kind="no_inputs",
        )
    return {"words": found}


def _cut_words(plan: Plan, texts: Sequence[str]) -> list[Sequence[int]]:
    number = _numbers(tuple(tokens_of(plan)))
    return [[number.get(word, UNKNOWN) for word in words(text)] or [UNKNOWN] for text in texts]


@functools.lru_cache(4)
def _numbers(tokens: tuple[str, ...]) -> dict[str, int]:
    return {token: k for k, token in enumerate(tokens)}


# Pieces of words ----------------------------------------------------------------------------------

#: BERT's own special tokens, in the order of a fitted vocabulary.
_BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
#: GPT-2 has one special token, which also begins and ends texts; filling gets an id of its own.
_GPT = ("<|pad|>", "<|endoftext|>")


def _learn(kind: str, texts: Sequence[str], trainer: Any, **parts: Any) -> dict[str, Any]:
    """The vocabulary that Hugging Face's ``tokenizers`` learns: its ``model`` as JSON."""
    import tokenizers

    learner = tokenizers.Tokenizer(getattr(tokenizers.models, kind)())
    for name, part in parts.items():
        setattr(learner, name, part)
    learner.train_from_iterator(texts, trainer)
    return json.loads(learner.to_str())["model"]


def _in_order(vocabulary: Mapping[str, int]) -> list[str]:
    return sorted(vocabulary, key=vocabulary.__getitem__)


def _fit_wordpiece(texts: Sequence[str], size: int) -> dict[str, Any]:
    from tokenizers import normalizers, pre_tokenizers, trainers

    trainer = trainers.WordPieceTrainer(
        vocab_size=size, min_frequency=MIN_COUNT, special_tokens=list(_BERT), show_progress=False
    )
    learned = _learn(
        "WordPiece", texts, trainer, normalizer=normalizers.BertNormalizer(lowercase=True, strip_accents=False),
        pre_tokenizer=pre_tokenizers.BertPreTokenizer(),
    )  # fmt: skip
    return bert_plan(_in_order(learned["vocab"]))


def bert_plan(vocabulary: list[str]) -> dict[str, Any]:
    """What a plan keeps of a WordPiece vocabulary in the order of its ids.

    Raises :class:`ZooError` where filling is not the first token, or a special one is missing.
    """
    if vocabulary[PADDING] != _BERT[0] or not set(_BERT) <= set(vocabulary):
        raise ZooError(
            "This WordPiece vocabulary can't be used.",
            expected=f"[PAD] as the first token, and {', '.join(_BERT[1:])}",
            received=", ".join(vocabulary[:5]),
            kind="bad_vocabulary",
        )
    index = vocabulary.index
    return {
        "words": vocabulary,
        "start": index("[CLS]"),
        "end": index("[SEP]"),
        "mask": index("[MASK]"),
        "special": [index(token) for token in _BERT],
    }


@functools.lru_cache(4)
def _wordpiece(vocabulary: tuple[str, ...], lowercase: bool) -> Any:
    from zoo.backend import keras_nlp

    return keras_nlp.tokenizers.BertTokenizer(list(vocabulary), lowercase=lowercase)


def _cut_wordpiece(plan: Plan, texts: Sequence[str]) -> list[Sequence[int]]:
    cut = _wordpiece(tuple(plan["words"]), plan.get("lowercase", True))
    return [list(ids) for ids in cut(list(texts))]


def _join_wordpiece(tokens: Sequence[str]) -> str:
    from tokenizers import decoders

    return decoders.WordPiece().decode([token for token in tokens if token not in _BERT])


def _fit_bpe(texts: Sequence[str], size: int) -> dict[str, Any]:
    from tokenizers import pre_tokenizers, trainers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=size, min_frequency=MIN_COUNT, special_tokens=list(_GPT),
        initial_alphabet=alphabet, show_progress=False,
    )  # fmt: skip
    learned = _learn(
        "BPE", texts, trainer, pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=False)
    )
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in learned["merges"]]
    return {"words": _in_order(learned["vocab"]), "merges": merges, "start": 1, "end": 1}


@functools.lru_cache(4)
def _bytepair(vocabulary: tuple[str, ...], merges: tuple[str, ...]) -> Any:
    from zoo.backend import keras_nlp

    return keras_nlp.tokenizers.BytePairTokenizer(
        vocabulary=dict(_numbers(vocabulary)), merges=list(merges)
    )


def _cut_bpe(plan: Plan, texts: Sequence[str]) -> list[Sequence[int]]:
    # It makes one token of no text.
    cutter = _bytepair(tuple(plan["words"]), tuple(plan["merges"]))
    return [list(ids) if text else [] for text, ids in zip(texts, cutter(list(texts)), strict=True)]


def _join_bpe(tokens: Sequence[str]) -> str:
    from tokenizers import decoders

    return decoders.ByteLevel().decode([token for token in tokens if token not in _GPT])


_CHARACTERS = ("(padding)", "(unknown)", "(start)", "(end)")


def _fit_characters(texts: Sequence[str], size: int) -> dict[str, Any]:
    counts = Counter(letter for text in texts for letter in text if letter != ANSWER)
    found = sorted(counts, key=lambda letter: (-counts[letter], letter))
    return {"words": [*_CHARACTERS, *found[: size - len(_CHARACTERS)]], "start": 2, "end": 3}


def _cut_characters(plan: Plan, texts: Sequence[str]) -> list[Sequence[int]]:
    number = _numbers(tuple(plan["words"]))
    return [[number.get(letter, UNKNOWN) for letter in text] for text in texts]


def _join_characters(tokens: Sequence[str]) -> str:
    return "".join(token for token in tokens if token not in _CHARACTERS)


TOKENIZERS: dict[str, Tokenizer] = {
    row.name: row
    for row in (
        Tokenizer("words", _fit_words, _cut_words, " ".join, VOCABULARY, 200, True,
                  "words that several texts share"),
        Tokenizer("wordpiece", _fit_wordpiece, _cut_wordpiece, _join_wordpiece, 4096, 256, False,
                  "Schuster & Nakajima, ICASSP 2012; Devlin et al., NAACL 2019"),
        Tokenizer("bpe", _fit_bpe, _cut_bpe, _join_bpe, 1024, 512, False,
                  "Sennrich, Haddow & Birch, ACL 2016; Radford et al. 2019"),
        Tokenizer("characters", _fit_characters, _cut_characters, _join_characters, 256, 512, False,
                  "single characters"),
    )
}  # fmt: skip


def vocabulary_of(plan: Plan) -> dict[str, Any]:
    """The options of :func:`fit` that make another plan with the vocabulary of this one."""
    names = ("words", "merges", "start", "end", "mask", "special", "lowercase")
    return {
        "tokenizer": tokenizer_of(plan).name,
        "known": {name: plan[name] for name in names if name in plan},
    }


def tokenizer_of(plan: Plan) -> Tokenizer:
    """The row of a plan's tokenizer; plans from before there was a choice are of words."""
    return TOKENIZERS[plan.get("tokenizer", "words")]


def tokens_of(plan: Plan) -> list[str]:
    """The text of each id, as it stands in the vocabulary."""
    return [*(SPECIAL if tokenizer_of(plan).name == "words" else ()), *plan["words"]]


def encode(plan: Plan, texts: Iterable[str], length: int) -> np.ndarray:
    """Ids, int32 (n, length): the first tokens of each text, :data:`PADDING` beside short ones.

    Words are filled in front, so that a recurrent net ends at the last word. WordPieces stand
    between ``[CLS]`` and ``[SEP]``, as BERT reads them.
    """
    row, texts = tokenizer_of(plan), [str(text) for text in texts]
    wrapped = "mask" in plan
    out = np.full((len(texts), length), PADDING, dtype=np.int32)
    for into, found in zip(out, row.cut(plan, texts) if texts else (), strict=True):
        ids = list(found[: length - 2 * wrapped])
        if wrapped:
            ids = [plan["start"], *ids, plan["end"]]
        into[slice(length - len(ids), None) if row.front else slice(len(ids))] = ids
    return out


def decode(plan: Plan, ids: np.ndarray) -> np.ndarray:
    """What the tokens of ids (...,) are for a reader: strings of the same shape."""
    return np.array(readable(plan))[ids]


def readable(plan: Plan) -> list[str]:
    """The text of each id for a reader: bytes as the characters they are, where they are some."""
    row, found = tokenizer_of(plan), tokens_of(plan)
    if row.name != "bpe":
        return found
    return [token if token in _GPT else row.join([token]) for token in found]


def join(plan: Plan, ids: Iterable[int]) -> str:
    """Ids as one text, without filling and other special tokens."""
    found = tokens_of(plan)
    return tokenizer_of(plan).join([found[int(k)] for k in ids])


def characters(plan: Plan) -> list[int]:
    """How many characters of text each id stands for; 0 for special ones."""
    row, found = tokenizer_of(plan), tokens_of(plan)
    special = {*_BERT, *_GPT, *_CHARACTERS}
    if row.name == "bpe":  # bytes that go on with a character count for nothing
        from tokenizers import pre_tokenizers

        shown = sorted(pre_tokenizers.ByteLevel.alphabet(), key=_byte_of)
        later = set(shown[0x80:0xC0])
        return [0 if t in special else sum(c not in later for c in t) for t in found]
    return [0 if t in special else len(t.removeprefix("##")) for t in found]


def _byte_of(letter: str) -> int:
    """The byte that a letter of the byte-level alphabet stands for (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    if ord(letter) < 256:
        return ord(letter)
    return [byte for byte in range(256) if byte not in printable][ord(letter) - 256]


def fit(data: Any, options: dict[str, Any], rows: np.ndarray) -> dict[str, Any]:
    """The plan of texts: vocabulary and length, from some training rows alone."""
    texts = [str(text) for text in data.take(rows)]
    name = str(options.get("tokenizer", "words"))
    if name not in TOKENIZERS:
        raise unknown("tokenizer", name, TOKENIZERS)
    row = TOKENIZERS[name]
    pairs = any(ANSWER in text for text in texts[:100]) and bool(options.get("pairs"))
    known = options.get("known")
    if known is None and "wordpieces" in options:
        known = bert_plan(list(options["wordpieces"]))
        known["lowercase"] = bool(options.get("lowercase", True))
    if known is None:
        known = row.fit(texts, int(options.get("vocabulary", row.vocabulary)))
    plan = {
        "kind": "text",
        "column": data.columns[0]["name"] if data.columns else "text",
        "tokenizer": name,
        **known,
    }
    plan["vocabulary"] = len(tokens_of(plan))
    if name != "words":
        plan["characters"] = characters(plan)
    sides = [part for text in texts for part in text.split(ANSWER)] if pairs else texts
    lengths = [len(ids) + 2 * ("mask" in plan) for ids in row.cut(plan, sides)]
    usual = int(np.clip(np.quantile(lengths, SHARE), SHORTEST, row.longest))
    length = int(options.get("length", usual))
    if pairs:
        plan["sides"] = length = length + 1  # an answer ends
        length *= 2
    return {**plan, "shape": [length]}


def apply(plan: Plan, texts: Iterable[str]) -> np.ndarray:
    """Texts -> ids, int32 (n, length); rows with an answer: the source's ids, then the answer's."""
    if "sides" not in plan:
        return encode(plan, texts, plan["shape"][0])
    parts = [str(text).partition(ANSWER) for text in texts]
    sides = [encode(plan, [part[k] for part in parts], plan["sides"]) for k in (0, 2)]
    for ids in sides[1]:  # each answer ends, if there is room
        ids[min(int((ids != PADDING).sum()), len(ids) - 1)] = plan["end"]
    return np.concatenate(sides, axis=1)
