"""No run of tokens twice: against transformers, and in what a model writes."""

import pytest
import torch
from transformers import NoRepeatNGramLogitsProcessor

from llmcourse.decode.beam import beam_search
from llmcourse.decode.repeats import no_repeat
from llmcourse.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from llmcourse.seq2seq import generate_target


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_what_is_forbidden_is_what_transformers_forbids(n):
    generator = torch.Generator().manual_seed(n)
    for length in (1, 2, 4, 30):
        ids = torch.randint(4, (6, length), generator=generator)
        logits = torch.randn(6, 4, generator=generator)
        before = logits.clone()
        theirs = NoRepeatNGramLogitsProcessor(n)(ids, logits.clone())
        assert torch.equal(no_repeat(n)(ids, logits), theirs)
        assert torch.equal(logits, before)


@pytest.mark.parametrize("n", [1, 3])
def test_nothing_that_is_written_repeats(n):
    torch.manual_seed(0)
    model = EncoderDecoder(EncoderDecoderConfig(30, context_length=20, d_model=16, n_heads=2, n_layers=1))
    rows = generate_target(model, [[5, 6], [7]], 20, start_id=0, process=no_repeat(n)).tolist()
    [[best], _] = beam_search(model, [[5, 6], [7]], 20, n_beams=2, start_id=0, process=no_repeat(n))
    for row in (*rows, best.token_ids):
        runs = [tuple(row[i : i + n]) for i in range(len(row) - n + 1)]
        assert len(set(runs)) == len(runs)


def test_no_run_of_no_token():
    with pytest.raises(ValueError, match="n=0 must be a whole number and at least 1"):
        no_repeat(0)
