"""The checkpoint that was trained on rewards: its card is true, and its tool does what the card says."""

import hashlib
import re
import sys
from collections import Counter
from dataclasses import replace

import pytest
import torch
from notebook_tools import ROOT

from llmcourse.data.manifest import course_data
from llmcourse.data.sources.plays import load_plays, split_by_title
from llmcourse.finetune.rollouts import RolloutBatches
from llmcourse.finetune.sft import END, encode_tasks, respond
from llmcourse.finetune.tasks import make_tasks
from llmcourse.finetune.verifiable import worked
from llmcourse.pretrained import load_course_model

sys.path.insert(0, str(ROOT / "tools"))
import build_aligned as tool

FOLDER = course_data() / "checkpoints" / "aligned"
CARD = (FOLDER / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def shipped():
    return load_course_model("aligned")


@pytest.fixture(scope="module")
def parts():
    return split_by_title(load_plays(quiet=True))


def test_the_card_is_of_this_file(shipped):
    weights, base = (
        (folder / "model.safetensors").read_bytes() for folder in (FOLDER, FOLDER.parent / "sft")
    )
    assert f"{len(weights)} bytes, float16, sha256 {hashlib.sha256(weights).hexdigest()}" in CARD
    assert f"(sha256 {hashlib.sha256(base).hexdigest()})" in CARD
    assert len(weights) < 10e6
    tokenizers = [(folder / "tokenizer.json").read_bytes() for folder in (FOLDER, FOLDER.parent / "sft")]
    assert tokenizers[0] == tokenizers[1]


def test_the_share_of_the_card_is_measured_again(shipped, parts):
    """Of the kind that was trained most often, on the validation plays; a task is answered as it is told."""
    model, tokenizer = shipped
    tasks = [task for task in make_tasks(parts[1], 1200, tool.SEED) if task.kind == tool.OFTEN]
    right = tool.share_right(model, tokenizer, tasks)["all"]
    stated = re.search(rf"Validation, exact match \|.*? {tool.OFTEN} (\d+\.\d)%", CARD)[1]
    assert 100 * sum(right) / len(right) == pytest.approx(float(stated), abs=0.06)
    for task, good in zip(tasks[:5], right, strict=False):
        assert (respond(model, tokenizer, task.prompt) == task.answer) == good


def test_the_card_says_what_its_table_holds():
    """What is said of the table is computed from it; today, being told the right answers did more, sooner."""
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in CARD.splitlines()]
    rows = {cells[0]: cells for cells in table if len(cells) == 12}
    kinds = rows[""][1:8]
    test = {n: dict(zip(kinds, map(float, rows[n][1:8]), strict=True)) for n in ("sft", "GRPO", "more SFT")}
    base = (FOLDER.parent / "sft" / "README.md").read_text(encoding="utf-8")
    validation = {name: stated_shares(text) for name, text in (("sft", base), ("GRPO", CARD))}
    seconds = {name: float(rows[name][-1]) for name in ("GRPO", "more SFT")}
    assert tool.remarks(test, validation, seconds) in CARD
    assert tool.fallen(test["sft"], test["GRPO"]) in CARD
    last = [test[name][tool.OFTEN] for name in ("sft", "GRPO", "more SFT")]
    assert last == sorted(last)
    assert float(re.search(r"\((.\d+\.\d) to", rows["GRPO"][8])[1]) > 0


def stated_shares(card: str) -> dict[str, float]:
    (row,) = re.findall(r"Validation, exact match \| (.*?) \|", card)
    return {kind.strip(): float(share) for kind, share in re.findall(r"([a-z ]+?) (\d+\.\d)%", row)}


def test_remarks_follow_the_numbers_where_another_build_ends_otherwise():
    sft, better = {"a": 50.0, tool.OFTEN: 50.0, "all": 50.0}, {"a": 49.0, tool.OFTEN: 60.0, "all": 54.5}
    said = tool.remarks(
        {"sft": sft, "GRPO": better, "more SFT": sft},
        {"sft": sft, "GRPO": better},
        {"GRPO": 100.0, "more SFT": 50.0},
    )
    assert f"{tool.OFTEN} 50.0 to 60.0 %" in said
    assert "a 50.0" not in said
    assert "better way" not in said
    assert "in 0.50 of its time" in said
    assert tool.fallen(sft, better).endswith("no kind")


def test_half_of_the_tasks_are_of_one_kind(parts):
    kinds = Counter(task.kind for task in tool.mixed_tasks(parts[0], 300, 0))
    assert kinds[tool.OFTEN] == 150
    assert set(kinds.values()) == {30, 150}


def test_a_prompt_is_that_of_a_chat_and_a_right_answer_ends(shipped, parts):
    model, tokenizer = shipped
    (task,) = make_tasks(parts[1], 1, kinds=("speaker",))
    spelling = tool.spelling_of(tokenizer)
    assert spelling.decode(spelling.encode(task.prompt)) == f"<|user|>{task.prompt}<|end|><|assistant|>"
    source = RolloutBatches(
        model, [task], lambda task, answer: float(answer == task.answer + END), 1, 8, 12, spelling=spelling
    )
    next(source)
    assert source.rewards.mean() > 0.5
    assert spelling.decode([spelling.end_id]) == END
    ended = replace(task, answer=task.answer + END)
    assert worked([ended], spelling) == encode_tasks(tokenizer, [task])


def test_a_task_is_undecided_where_the_right_answer_is_neither_sure_nor_impossible(shipped, parts):
    model, tokenizer = shipped
    tasks = make_tasks(parts[1], 12, 1)
    kept = {task.prompt for task in tool.undecided(model, tokenizer, tasks)}
    for task in tasks:
        ids, counts = encode_tasks(tokenizer, [task])[0]
        logs = model(torch.tensor([ids[:-1]]))[0].log_softmax(-1)
        p = sum(logs[t - 1, ids[t]] for t in range(1, len(ids)) if counts[t]).exp().item()
        assert (task.prompt in kept) == (0.05 < p < 0.95)


def test_coins_are_the_same_each_time(shipped, parts):
    model, tokenizer = shipped
    tasks = make_tasks(parts[1], 4, kinds=("lines",))
    rewards = []
    for _ in range(2):
        source = tool.RandomRewards(
            model, tasks, n_tasks=4, group=8, max_new_tokens=3, spelling=tool.spelling_of(tokenizer)
        )
        next(source)
        rewards.append(source.rewards.tolist())
    assert rewards[0] == rewards[1]
    assert 0 < source.rewards.mean() < 1
