"""The cell for a Marian model of the hub, tried on a small random one in a folder."""

import torch
from transformers import MarianConfig, MarianMTModel

from llmcourse.data.translation_text import train_tokenizer
from llmcourse.teach.chapters.ch06a_translation.hub import marian, marian_or_why_not

TEXTS = ["Open the file", "Close"]


def save(folder):
    tokenizer = train_tokenizer(TEXTS * 3, 300, ["fr"]).to_transformers()
    tokenizer.eos_token, tokenizer.pad_token = "<|end|>", "<|pad|>"
    sizes = dict(d_model=16, encoder_layers=1, decoder_layers=1, max_position_embeddings=256)
    heads = dict(encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32)
    ids = dict(
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
        forced_eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    model = MarianMTModel(MarianConfig(vocab_size=len(tokenizer), **sizes, **heads, **ids)).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer


def test_a_folder_with_a_random_model_writes_what_generate_writes(tmp_path):
    model, tokenizer = save(tmp_path)
    written = marian(tmp_path, TEXTS, num_beams=2)
    for text, mine in zip(TEXTS, written, strict=True):
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        theirs = model.generate(input_ids=ids, num_beams=2, max_new_tokens=128)
        assert mine == tokenizer.decode(theirs[0], skip_special_tokens=True)


def test_offline_it_says_what_it_would_show(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    said = marian_or_why_not("Helsinki-NLP/opus-mt-en-fr", TEXTS)
    assert (
        said
        == "HF_HUB_OFFLINE forbids the network: Helsinki-NLP/opus-mt-en-fr would translate the texts here."
    )


def test_a_name_that_is_nowhere_gives_a_sentence(monkeypatch, tmp_path):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert "could not be loaded" in marian_or_why_not(str(tmp_path / "none"), TEXTS)
