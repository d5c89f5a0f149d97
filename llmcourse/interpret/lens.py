"""What a layer would say: the residual stream read by the unembedding, before the last layer.

Dimensions: B batch, T time, C width (d_model), V vocabulary, L layers, H heads, D head width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmcourse.generate import prompt_batch
from llmcourse.interpret.hooks import one_id_a_row, plain_layer, record
from llmcourse.model import GPT


def layer_names(model: GPT) -> list[str]:
    """Return the sites that the lens reads, L + 1: the embedding, and the residual stream after each block.

    >>> from llmcourse.config import ModelConfig
    >>> layer_names(GPT(ModelConfig(vocab_size=10, d_model=16, n_layers=1)))
    ['embedding', 'blocks.0.residual']
    """
    return ["embedding", *(f"blocks.{layer}.residual" for layer in range(len(model.blocks)))]


@torch.no_grad()
def logit_lens(model: GPT, token_ids) -> Tensor:
    """Return logits (L + 1, B, T, V): those that the model would give if it ended after each layer.

    The stream passes the final norm and the unembedding. The last of them are the model's own, to the last bit.
    Raises ValueError as `record` does.

    >>> from llmcourse.config import ModelConfig
    >>> model, ids = GPT(ModelConfig(vocab_size=10, d_model=16, n_layers=2)).eval(), torch.tensor([[1, 2, 3]])
    >>> lens = logit_lens(model, ids)
    >>> lens.shape, torch.equal(lens[-1], model(ids))
    (torch.Size([3, 1, 3, 10]), True)

    Source: nostalgebraist 2020, "interpreting GPT: the logit lens"; its biases and a remedy that is trained,
    the tuned lens, in Belrose et al. 2023, arXiv:2303.08112.
    """
    streams = record(model, token_ids, layer_names(model)).values()
    return torch.stack([model.unembedding(model.final_norm(stream)) for stream in streams])


@torch.no_grad()
def lens_scores(model: GPT, token_ids, batch_size: int = 32) -> dict[str, list[float]]:
    """Return, for each of the L + 1 layers, how good the next-token predictions of the lens are on rows (B, T).

    "loss" is the cross-entropy in nats per token; "agreement" the share of positions at which the likeliest
    token is that of the whole model; "divergence" KL(model ‖ lens) in nats, 0 at the end. Raises
    ValueError for rows of one token.
    """
    rows = prompt_batch(token_ids, model.config.vocab_size)
    if rows.shape[1] < 2:
        raise ValueError("rows of one token hold nothing to predict: give at least 2 in a row")
    rows = rows.to(model.token_embedding.weight.device)
    sums: dict[str, Tensor] = dict.fromkeys(("loss", "agreement", "divergence"), 0.0)
    for some in rows.split(batch_size):
        logits = logit_lens(model, some)[:, :, :-1].double().flatten(1, 2)  # (L + 1, N, V)
        log_p, targets = logits.log_softmax(dim=-1), some[:, 1:].flatten()
        losses = [F.nll_loss(layer, targets, reduction="sum") for layer in log_p]
        sums["loss"] = sums["loss"] + torch.stack(losses)
        same = logits.argmax(dim=-1) == logits[-1].argmax(dim=-1)
        sums["agreement"] = sums["agreement"] + same.sum(dim=1)
        sums["divergence"] = sums["divergence"] + (log_p[-1].exp() * (log_p[-1] - log_p)).sum(dim=(1, 2))
    n_targets = rows[:, 1:].numel()
    return {name: (total / n_targets).tolist() for name, total in sums.items()}


@torch.no_grad()
def logit_contributions(model: GPT, token_ids, right, wrong) -> dict[str, Tensor]:
    """Return what each part adds to logit(right) - logit(wrong) after the last token of each row, (B,) each.

    In a model with its norms in front, the stream is a sum: embedding, then of each layer its heads, its MLP and
    its biases. With the scale of the final norm taken as it is in this run, the sum of all
    contributions is the difference itself. Parts that act through later ones are not counted for that. `right`
    and `wrong` are token ids (B,), or one for all rows. Raises ValueError for a model with its norms
    behind the sums, for ids that it does not have, and as `record`.

    >>> from llmcourse.config import ModelConfig
    >>> model = GPT(ModelConfig(vocab_size=10, d_model=16, n_heads=2, n_layers=1)).eval()
    >>> parts = logit_contributions(model, [1, 2, 3], right=4, wrong=5)
    >>> list(parts)
    ['embedding', 'head 0.0', 'head 0.1', 'mlp 0']
    >>> logits = model(torch.tensor([[1, 2, 3]]))[0, -1]
    >>> torch.allclose(sum(parts.values()), logits[4] - logits[5], atol=1e-6)
    True

    Source: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits (direct logit attribution).
    """
    if model.config.norm_position != "pre":
        raise ValueError("norm_position='post': each norm rescales the stream, so it is no sum of parts")
    parts = _parts_of_stream(model, token_ids)
    stream = sum(parts.values())  # (B, C)
    sides = (("right", right), ("wrong", wrong))
    ids = [
        one_id_a_row(some, name, len(stream), model.config.vocab_size).to(stream.device)
        for name, some in sides
    ]
    weight = plain_layer(model.unembedding, stream)[0]  # (V, C)
    direction = weight[ids[0]] - weight[ids[1]]  # (B, C)
    norm, epsilon = model.final_norm, model.final_norm.eps
    if isinstance(norm, nn.LayerNorm):
        scale = (stream.var(dim=-1, correction=0, keepdim=True) + epsilon).rsqrt()
        parts = {name: part - part.mean(dim=-1, keepdim=True) for name, part in parts.items()}
    else:
        epsilon = torch.finfo(stream.dtype).eps if epsilon is None else epsilon
        scale = (stream.square().mean(dim=-1, keepdim=True) + epsilon).rsqrt()
    found = {name: (part * scale * norm.weight * direction).sum(dim=-1) for name, part in parts.items()}
    if getattr(norm, "bias", None) is not None:
        found["final norm's bias"] = (norm.bias * direction).sum(dim=-1)
    return found


def _parts_of_stream(model: GPT, token_ids) -> dict[str, Tensor]:
    """Return what each part has added to the stream at the last position, (B, C) each."""
    layers = range(len(model.blocks))
    wanted = [
        f"blocks.{i}.{part}" for i in layers for part in ("attention.heads", "attention.out", "mlp.out")
    ]
    at = {site: x[:, -1] for site, x in record(model, token_ids, ["embedding", *wanted]).items()}
    parts = {"embedding": at["embedding"]}
    for i, block in enumerate(model.blocks):
        heads = at[f"blocks.{i}.attention.heads"]  # (B, H, D)
        weight, bias = plain_layer(block.attention.out, heads)
        written = torch.einsum("bhd,chd->hbc", heads, weight.unflatten(-1, heads.shape[1:]))  # (C, H, D)
        parts |= {f"head {i}.{h}": part for h, part in enumerate(written)}
        if bias is not None:
            parts[f"attention bias {i}"] = bias.expand_as(at["embedding"])
        parts[f"mlp {i}"] = at[f"blocks.{i}.mlp.out"]
    return parts
