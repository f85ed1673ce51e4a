"""A byte-level BPE tokenizer trained offline on a dataset's own texts.

Every UTF-8 string round-trips (the alphabet is all 256 bytes). It is saved and loaded in the transformers layout, with the
family's special tokens and chat template, so nothing later tells it from a released one.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import AddedToken, AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from pipeline.backbones._transformers.chat import PAD, TURN_END, ChatFormat
from pipeline.backbones.base import COORD_TOKEN, GROUND_TOKEN
from pipeline.core.errors import CheckpointError
from pipeline.core.hf_folder import check_small_files
from pipeline.core.runtime import out_of_memory

_MEND = "put the checkpoint's tokenizer.json and tokenizer_config.json beside its weights"


def train_tokenizer(texts: Iterable[str], chat: ChatFormat, *, vocabulary: int) -> PreTrainedTokenizerFast:
    """Train byte-level BPE of at most ``vocabulary`` tokens, special tokens first. Deterministic in the order of ``texts``."""
    model = Tokenizer(BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    special = chat.special_tokens()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    model.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=model,
        eos_token=TURN_END,
        pad_token=PAD,
        additional_special_tokens=special,
        chat_template=chat.template(),
        clean_up_tokenization_spaces=False,
    )


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a saved or released folder. Raise CheckpointError when it is missing or malformed."""
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the Rust library behind it raises bare exceptions for damaged files
        if out_of_memory(error):
            raise
        check_small_files(folder, _MEND)
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise CheckpointError(f"no usable tokenizer ({first})", where=str(folder), fix=_MEND) from None


def add_alignment_tokens(tokenizer: PreTrainedTokenizerBase) -> int:
    """Add ``<ground>`` and ``<coord>`` where a released tokenizer lacks them; the number of tokens added."""
    wanted = [AddedToken(t, special=True, normalized=False) for t in (GROUND_TOKEN, COORD_TOKEN)]
    return tokenizer.add_tokens(wanted, special_tokens=True)


def token_id(tokenizer: PreTrainedTokenizerBase, token: str, where: str = "tokenizer") -> int:
    """Return the id of a special token that must be one token. Raise CheckpointError otherwise."""
    found = tokenizer.convert_tokens_to_ids(token)
    if not isinstance(found, int) or found == tokenizer.unk_token_id:
        raise CheckpointError(f"the tokenizer has no token {token!r}", where=where, fix="use the family's own tokenizer files")
    return found
