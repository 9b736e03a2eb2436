"""From an instruction to the ids of OpenVLA's prompt, by the tokeniser that stands in the checkpoint's folder."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import sentencepiece
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from rehearsal.errors import RehearsalError
from training.policies.openvla.config import EMPTY_ID, PAD_ID

TOKENIZER = "tokenizer.json"
TOKENIZERS = (TOKENIZER, "tokenizer.model")
"""Files that a checkpoint may bring; the first one that is there is read: Hugging Face's, or sentencepiece's own."""
BOS_ID = 1

Tokenise = Callable[[str], list[int]]


def prompt(instruction: str) -> str:
    return f"In: What action should the robot take to {instruction.lower()}?\nOut:"


@functools.lru_cache(maxsize=8)
def read_tokenizer(folder: Path) -> Tokenise:
    """Reads a checkpoint's tokeniser, from text to ids; raises RehearsalError when it is not there, or damaged."""
    path = next((folder / name for name in TOKENIZERS if (folder / name).is_file()), None)
    if path is None:
        raise RehearsalError(
            f"{folder} has no {TOKENIZER}: copy it from the checkpoint it is of, or its {TOKENIZERS[1]}"
        )
    try:
        if path.name == TOKENIZER:
            tokenizer = Tokenizer.from_file(str(path))
            return lambda text: tokenizer.encode(text).ids
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
        return lambda text: pieces.encode(text)
    except Exception as error:  # noqa: BLE001  (tokenizers raises no narrower kind)
        raise RehearsalError(f"{path} is no tokeniser: {error}; copy it again") from None


def prompt_ids(tokenise: Tokenise, instructions: list[str], length: int) -> np.ndarray:
    """Returns int64 (N, length): BOS, the prompt, the empty token; padded on the right.

    Raises RehearsalError for a prompt that is longer.
    """
    rows = np.full((len(instructions), length), PAD_ID, dtype=np.int64)
    for row, instruction in zip(rows, instructions, strict=True):
        ids = tokenise(prompt(instruction))
        ids = ids if ids[:1] == [BOS_ID] else [BOS_ID, *ids]
        ids = ids if ids[-1] == EMPTY_ID else [*ids, EMPTY_ID]
        if len(ids) > length:
            raise RehearsalError(
                f"the prompt of {instruction!r} has {len(ids)} tokens, prompt_length is {length}: raise prompt_length"
            )
        row[: len(ids)] = ids
    return rows


def make_tokenizer(folder: Path, text: list[str]) -> Path:
    """Writes a small tokeniser for tests and tiny models: one id for each word of `text`, from 3 on.

    It stands where Llama's would, with the same special ids; words that it does not know share one id.
    """
    split = pre_tokenizers.BertPreTokenizer()
    words = sorted({word for line in text for word, _ in split.pre_tokenize_str(prompt(line))})
    vocabulary = {"<unk>": 0, "<s>": BOS_ID, "</s>": 2} | {word: 3 + i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = split
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS_ID)])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / TOKENIZER))
    return folder / TOKENIZER
