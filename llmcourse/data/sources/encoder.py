"""The pretrained encoder that comes with the course's data packages: MiniLM, a small BERT."""

import json
import random

from llmcourse.data.manifest import Files, fetch_folder

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


def stand_in_encoder(d_model: int = 384, n_layers: int = 6, seed: int = 0) -> Files:
    """Return a BERT of the same shape with random weights and a vocabulary of characters."""
    import torch
    from safetensors.torch import save
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*special, *".,;:!?'\"-()", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    ends = ("[SEP]", 3), ("[CLS]", 2)
    tokenizer.post_processor = processors.BertProcessing(*ends)
    config = BertConfig(
        vocab_size=len(pieces), hidden_size=d_model, num_hidden_layers=n_layers, num_attention_heads=12,
        intermediate_size=4 * d_model, architectures=["BertModel"],
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random.Random(seed).getrandbits(32))
        model = BertModel(config)
    names = dict(
        zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True)
    )
    about = {"tokenizer_class": "BertTokenizer", "model_max_length": 512, "do_lower_case": True, **names}
    return {
        "config.json": config.to_json_string(use_diff=False).encode(),
        "model.safetensors": save(
            {k: v.contiguous() for k, v in model.state_dict().items()}, {"format": "pt"}
        ),
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": json.dumps(about).encode(),
        "vocab.txt": "\n".join(pieces).encode(),
    }


def encoder_name(quiet: bool = False) -> str:
    """Return what `from_pretrained` needs to load MiniLM (6 layers, d_model 384): a local folder.

    The name of any encoder of a hub, such as "bert-base-uncased", may stand in its place.
    Source: Wang et al. 2020, arXiv:2002.10957; sentence-transformers/all-MiniLM-L6-v2.
    """
    return str(fetch_folder("minilm", generate=stand_in_encoder, quiet=quiet))
