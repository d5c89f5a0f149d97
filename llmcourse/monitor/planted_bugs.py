"""Bugs planted in the small healthy run, each a function of a few lines that people really write.

A bug changes the parts of a run before it begins: `sick_run(BUGS["label leak"], seed=0)`. Their names
and remedies stand in `llmcourse.monitor.diagnose`.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from llmcourse.attention import MultiHeadAttention, causal_mask
from llmcourse.data.batches import TokenBatches
from llmcourse.monitor.small_run import BATCH, CONTEXT, Setup, characters


def no_causal_mask(setup: Setup) -> None:
    """Every position may look at every other."""
    device = setup.model.token_embedding.weight.device
    may_look = torch.ones(CONTEXT, CONTEXT, dtype=torch.bool, device=device)
    forward = setup.model.forward

    def without_mask(token_ids, mask=None, caches=None):
        T = token_ids.shape[-1]
        return forward(token_ids, may_look[:T, :T])

    setup.model.forward = without_mask


def targets_not_shifted(setup: Setup) -> None:
    """The target of a position is the token that stands there."""
    batches = setup.batches
    setup.batches = ((inputs, inputs) for inputs, _ in batches)
    setup.evaluate = loss_without_shift


def label_leak(setup: Setup) -> None:
    """A feature, meant to hold the previous token, is rolled the wrong way: it holds the next one."""
    embed = setup.model.token_embedding.forward

    def with_neighbour(token_ids):
        x = embed(token_ids)  # (B, T, C)
        neighbour = x.roll(-1, dims=1)
        neighbour[:, -1] = 0
        return x + neighbour

    setup.model.token_embedding.forward = with_neighbour


def learning_rate_too_high(setup: Setup, factor: float = 100) -> None:
    """Someone wrote 0.3 and meant 0.003."""
    for group in setup.optimizer.param_groups:
        group["lr"] *= factor


def learning_rate_too_low(setup: Setup) -> None:
    """Someone wrote 0.00003 and meant 0.003."""
    learning_rate_too_high(setup, factor=1 / 100)


def no_zero_grad(setup: Setup) -> None:
    """Gradients are never set to zero: each step adds to those of all steps before."""
    setup.model.zero_grad = lambda set_to_none=True: None


def underflow(setup: Setup, n_tokens: int = 2_000_000) -> None:
    """Float16 without loss scaling: the mean over a batch of 2 million tokens is below its range.

    The batch is 512 tokens here, so we divide as the large one would, and multiply the gradient
    of each parameter back, as if that many equal micro-batches had been added up.
    """
    factor = n_tokens / (BATCH * CONTEXT)
    forward = setup.model.forward

    def in_half(*inputs, **options):
        with torch.autocast(inputs[0].device.type, torch.float16):
            logits = forward(*inputs, **options)
        if logits.requires_grad:
            logits.register_hook(lambda gradient: gradient / factor)
        return logits

    setup.model.forward = in_half
    for parameter in setup.model.parameters():
        parameter.register_hook(lambda gradient: gradient * factor)


def eval_forgotten(setup: Setup) -> None:
    """`model.eval()` is never called, so dropout stays on in validation."""
    setup.model.eval = lambda: setup.model


class ColumnAttention(MultiHeadAttention):
    """Attention whose softmax runs over the queries, dim=-2, instead of the keys."""

    def forward(self, x, mask=None, is_causal=False, rotary=None, cache=None):
        """Return (B, T, C) from x (B, T, C)."""
        q, k, v = self.split_heads(x, rotary)
        return self.out((column_weights(q, k) @ v).transpose(1, 2).flatten(2))

    def weights(self, x, mask=None, is_causal=False, rotary=None):
        """Return (B, H, T, T), where not each row but each column sums to 1."""
        return column_weights(*self.split_heads(x, rotary)[:2])


def column_weights(q: Tensor, k: Tensor) -> Tensor:
    """Return (B, H, T, T): the softmax over the queries of causal scores."""
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    later = ~causal_mask(q.shape[-2], device=q.device)
    return scores.masked_fill(later, float("-inf")).softmax(dim=-2)


def softmax_over_queries(setup: Setup) -> None:
    """The softmax of the attention runs over the wrong axis."""
    for block in setup.model.blocks:
        block.attention.__class__ = ColumnAttention


def tying_broken(setup: Setup) -> None:
    """The output layer gets a copy of the embedding when the optimizer has been built already."""
    setup.model.unembedding.weight = nn.Parameter(setup.model.token_embedding.weight.detach().clone())


def initialized_too_large(setup: Setup) -> None:
    """The embedding keeps torch's default deviation of 1; it is also the output layer."""
    nn.init.normal_(setup.model.token_embedding.weight)


def decay_on_everything(setup: Setup) -> None:
    """Weight decay 10 instead of 0.1, and on the gains of the norms too."""
    for group in setup.optimizer.param_groups:
        group["weight_decay"] = 10.0


def not_shuffled(setup: Setup) -> None:
    """The speeches lie in the order of their length, and are read in that order."""
    text = characters()
    speeches = sorted(text.decode(setup.train_ids.tolist()).split("\n\n"), key=len)
    needed = setup.steps * BATCH * CONTEXT + 1
    ids = torch.tensor(text.encode("\n\n".join(speeches)[:needed]))
    rows = ids.unfold(0, CONTEXT + 1, CONTEXT)  # each begins with the token at which the last ends
    setup.batches = [(part[:, :-1], part[:, 1:]) for part in rows.split(BATCH)]


def other_alphabet(setup: Setup) -> None:
    """The validation text is encoded with an alphabet made from that text alone."""
    text = characters().decode(setup.validation_ids)
    alphabet = {character: i for i, character in enumerate(sorted(set(text)))}
    setup.validation_ids = torch.tensor([alphabet[character] for character in text])


def too_little_text(setup: Setup) -> None:
    """Trained on 3,000 characters, again and again."""
    setup.batches = TokenBatches(setup.train_ids[:3000], BATCH, CONTEXT, setup.seed)


@torch.no_grad()
def loss_without_shift(model: nn.Module, token_ids: Tensor) -> float:
    """Return what `evaluate_loss` would be if each token were its own target."""
    rows = token_ids[: len(token_ids) // CONTEXT * CONTEXT].view(-1, CONTEXT)
    rows = rows.to(model.token_embedding.weight.device)
    model.eval()
    return nn.functional.cross_entropy(model(rows).flatten(0, 1), rows.flatten()).item()


BUGS: dict[str, Callable[[Setup], None]] = {
    "no causal mask": no_causal_mask,
    "targets not shifted": targets_not_shifted,
    "label leak": label_leak,
    "softmax over the wrong axis": softmax_over_queries,
    "learning rate too low": learning_rate_too_low,
    "float16 underflow": underflow,
    "weight tying broken": tying_broken,
    "weight decay too strong": decay_on_everything,
    "learning rate too high": learning_rate_too_high,
    "gradients not reset": no_zero_grad,
    "initialization too large": initialized_too_large,
    "evaluation mode forgotten": eval_forgotten,
    "data not shuffled": not_shuffled,
    "tokenizer mismatch": other_alphabet,
    "too little text": too_little_text,
}
