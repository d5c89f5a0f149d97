"""Supervised fine-tuning: the chat format, a loss on answers only, and exact match.

Dimensions: B batch, T time, V vocabulary, C width.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from llmcourse.data.batches import IGNORE
from llmcourse.generate import generate
from llmcourse.model import GPT
from llmcourse.runtime import evaluating
from llmcourse.support.inputs import whole
from llmcourse.support.outputs import no_nan
from llmcourse.tokenizer import BPETokenizer
from llmcourse.weights import config_and_state, unwrap

USER, ASSISTANT, END = "<|user|>", "<|assistant|>", "<|end|>"
ROLES = {"user": USER, "assistant": ASSISTANT}
CHAT_TEMPLATE = (  # the same format for transformers' apply_chat_template
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def add_special_tokens(
    model: GPT, tokenizer: BPETokenizer, names: Sequence[str] = (USER, ASSISTANT, END), seed: int = 0
) -> tuple[GPT, BPETokenizer]:
    """Return copies of model and tokenizer whose vocabulary has the `names` at its end.

    Every table that has a place for each token grows: embeddings, those of earlier tokens and of
    values, the bigram table (both ways), the output. Logits of the old tokens stay as they were. A
    new row is the mean of the old rows plus noise of their spread: as long as the others, so that
    frozen it can still be told from them; new logits of the bigram table are the mean alone.
    Raises ValueError when the two do not belong together (one has more tokens), a name exists
    already or stands twice, or the model holds adapters or weights of four bits.
    """
    config, state = config_and_state(model)
    old = tokenizer.vocab_size
    if old != config.vocab_size:
        raise ValueError(
            f"the tokenizer has {old} tokens and the model {config.vocab_size}: "
            "they do not belong together, take both from one run"
        )
    if known := [name for name in names if name in tokenizer.special_tokens]:
        raise ValueError(f"{known} are special tokens already: leave them out")
    if len(set(names)) < len(names):
        raise ValueError(f"names={list(names)}: each name once")
    larger = tokenizer.with_special_tokens(names)
    grown = type(unwrap(model))(replace(config, vocab_size=larger.vocab_size))
    generator = torch.Generator().manual_seed(seed)
    for name, wanted in grown.state_dict().items():
        table, n = state[name].cpu(), len(names)
        if wanted.shape[-1] != table.shape[-1]:  # (V, V)
            state[name] = with_new_rows(with_new_rows(table, n).T, n).T
        elif wanted.shape != table.shape:  # (V, C)
            state[name] = with_new_rows(table, n, generator)
    if config.tied_embeddings:
        state["unembedding.weight"] = state["token_embedding.weight"]
    grown.load_state_dict(state)
    weight = unwrap(model).token_embedding.weight
    return grown.to(weight.device, weight.dtype).train(model.training), larger


def with_new_rows(table: Tensor, n: int, generator: torch.Generator | None = None) -> Tensor:
    """Return `table` (V, C) with n rows more: their mean, plus noise of their spread if there is a `generator`.

    >>> with_new_rows(torch.tensor([[1.0], [3.0]]), n=2).flatten().tolist()
    [1.0, 3.0, 2.0, 2.0]
    """
    new = table.mean(0).expand(n, -1)
    if generator is not None:
        new = new + table.std(0) * torch.randn(n, table.shape[1], generator=generator)
    return torch.cat([table, new.to(table.dtype)])


def encode_chat(
    tokenizer: BPETokenizer, messages: Sequence[dict], reply: bool = False
) -> tuple[list[int], list[bool]]:
    """Return the ids of a chat, and for each id whether the loss counts it as a target.

    `messages` are {"role": "user" | "assistant", "content": text}. Each becomes the token of its
    role, the text, and <|end|>. Only what the assistant has to write counts: its text and its
    <|end|>. With `reply`, an opening <|assistant|> follows, for the model to go on from.
    Text cannot speak in another role: names of special tokens in it are ordinary characters.
    Raises ValueError for an unknown role or a tokenizer without the chat's tokens.
    """
    special = tokenizer.special_tokens
    if missing := [name for name in (*ROLES.values(), END) if name not in special]:
        raise ValueError(f"the tokenizer has no {missing}: make one with add_special_tokens")
    ids, counts = [], []
    for message in messages:
        if message["role"] not in ROLES:
            raise ValueError(f"role={message['role']!r} is unknown: choose one of {sorted(ROLES)}")
        content = [*tokenizer.encode(message["content"]), special[END]]
        ids += [special[ROLES[message["role"]]], *content]
        counts += [False] + [message["role"] == "assistant"] * len(content)
    if reply:
        ids, counts = [*ids, special[ASSISTANT]], [*counts, False]
    return ids, counts


def encode_tasks(tokenizer: BPETokenizer, tasks: Iterable) -> list[tuple[list[int], list[bool]]]:
    """Return `encode_chat` of each task's prompt and answer."""
    return [encode_chat(tokenizer, messages(task.prompt, task.answer)) for task in tasks]


def messages(prompt: str, answer: str | None = None) -> list[dict]:
    """Return the messages of one question, and its answer if there is one."""
    messages = [{"role": "user", "content": prompt}]
    return messages if answer is None else [*messages, {"role": "assistant", "content": answer}]


def pad_chats(examples: Sequence[tuple[list[int], list[bool]]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Return (inputs, targets), each (B, T): targets that do not count are IGNORE.

    Position t predicts id t + 1, so the mask moves one place to the left with the targets.

    >>> pad_chats([([5, 6, 7], [False, False, True]), ([8, 9], [False, True])], pad_id=0)[1].tolist()
    [[-100, 7], [9, -100]]
    """
    T = max(len(ids) for ids, _ in examples) - 1
    inputs = torch.full((len(examples), T), pad_id)
    targets = torch.full((len(examples), T), IGNORE)
    for row, (ids, counts) in enumerate(examples):
        ids, counts = torch.tensor(ids), torch.tensor(counts)
        inputs[row, : len(ids) - 1] = ids[:-1]
        targets[row, : len(ids) - 1] = ids[1:].masked_fill(~counts[1:], IGNORE)
    return inputs, targets


class ChatBatches:
    """Endless batches (inputs, targets) of chats, shuffled anew each epoch, for `training.train`.

    With `text`, an endless source of pretraining batches, every `text_every`-th batch comes from it:
    the model rehearses what it must not forget. Raises ValueError when a chat exceeds the context.
    """

    def __init__(self, examples, batch_size, context_length, pad_id, seed=0, text=None, text_every=4):
        longest = max((len(ids) for ids, _ in examples), default=0)
        if not whole(batch_size, "batch_size") <= len(examples):
            raise ValueError(f"{len(examples)} chats are too few for one batch of {batch_size}")
        if longest > context_length + 1:
            raise ValueError(
                f"a chat has {longest} tokens and the context {context_length}: drop or cut long chats"
            )
        self.examples, self.batch_size, self.pad_id = examples, batch_size, pad_id
        self.text, self.text_every, self.count = text, text_every, 0
        self.order, self.rng = [], random.Random(seed)

    def __iter__(self):
        return self

    def __next__(self) -> tuple[Tensor, Tensor]:
        self.count += 1
        if self.text is not None and self.count % self.text_every == 0:
            return next(self.text)
        if len(self.order) < self.batch_size:
            self.order = list(range(len(self.examples)))
            self.rng.shuffle(self.order)
        chosen, self.order = self.order[: self.batch_size], self.order[self.batch_size :]
        return pad_chats([self.examples[i] for i in chosen], self.pad_id)


@torch.no_grad()
def exact_match(model: GPT, examples: Iterable, pad_id: int, batch_size: int = 64) -> list[bool]:
    """Return for each example whether greedy decoding writes exactly its counted tokens.

    One pass does it: greedy decoding writes the answer if and only if, after each correct
    beginning of it, the largest logit is that of its next token, the end token included.
    """
    device = next(model.parameters()).device
    examples = list(examples)
    order = sorted(range(len(examples)), key=lambda i: len(examples[i][0]))  # little padding
    right = [False] * len(examples)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        inputs, targets = (part.to(device) for part in pad_chats([examples[i] for i in rows], pad_id))
        with evaluating(model):
            agrees = (no_nan(model(inputs)).argmax(-1) == targets) | (targets == IGNORE)  # (B, T)
        for i, good in zip(rows, agrees.all(-1).tolist(), strict=True):
            right[i] = good
    return right


def respond(model: GPT, tokenizer: BPETokenizer, prompt: str, max_new_tokens: int = 24, **options) -> str:
    """Return what the model answers to `prompt`: greedy, until <|end|>; `options` as in `generate_tokens`."""
    ids, _ = encode_chat(tokenizer, messages(prompt), reply=True)
    end_id = tokenizer.special_tokens[END]
    written = generate(model, ids, max_new_tokens, stop_id=end_id, **{"temperature": 0, **options})[0]
    new = written[len(ids) :].tolist()
    return tokenizer.decode(new[: new.index(end_id)] if end_id in new else new)
