"""Tasks against their rules written anew, probabilities against all answers there are, parts that do not meet."""

from itertools import product

import pytest
import torch

from llmcourse.finetune.rollouts import sample_answers
from llmcourse.finetune.tasks import Task
from llmcourse.finetune.verifiable import (
    ALPHABET,
    CHARACTERS,
    END,
    KINDS,
    PARTS,
    Spelling,
    accuracy,
    answer_probabilities,
    correct,
    exact_reward,
    letters_reward,
    part_of,
    pass_at,
    string_tasks,
    worked,
)
from llmcourse.generate import generate
from llmcourse.model import GPT, ModelConfig

DIGITS = Spelling(lambda text: [int(c) for c in text], lambda ids: "".join(map(str, ids)), end_id=0)


def tiny(vocab_size=4, context_length=8, seed=0):
    torch.manual_seed(seed)
    shape = dict(d_model=8, n_heads=2, n_layers=1, d_ff=16)
    model = GPT(ModelConfig(vocab_size, context_length=context_length, **shape)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


RULES = {
    "reverse": lambda text: "".join(text[i] for i in range(len(text) - 1, -1, -1)),
    "sort": lambda text: "".join(letter * text.count(letter) for letter in "abcdefghij"),
    "double": lambda text: "".join(letter + letter for letter in text),
    "sum": lambda text: str(eval(text)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_answers_follow_the_rule_and_prompts_are_equally_long_and_different(kind):
    tasks = string_tasks(kind, 100, seed=3)
    assert len({task.prompt for task in tasks}) == 100
    assert {len(task.prompt) for task in tasks} == {len(tasks[0].prompt)}
    for task in tasks:
        assert task == Task(kind, task.prompt, RULES[kind](task.prompt[:-1]) + END)
        assert CHARACTERS.decode(CHARACTERS.encode(task.prompt + task.answer)) == task.prompt + task.answer
    assert string_tasks(kind, 100, seed=3) == tasks != string_tasks(kind, 100, seed=4)
    assert string_tasks(kind, 50, seed=3) == tasks[:50]


def test_no_prompt_is_in_two_parts_whatever_the_seeds():
    for kind, n in (("double", 60), ("sum", 500), ("reverse", 300)):
        prompts = [
            {task.prompt for seed in range(3) for task in string_tasks(kind, n, p, seed)} for p in PARTS
        ]
        assert sum(map(len, prompts)) == len(set.union(*prompts))


def test_a_sum_is_not_tested_with_its_summands_in_the_other_order():
    unseen = string_tasks("sum", 600, "test")
    turned = {"+".join(task.prompt[:-1].split("+")[::-1]) for task in unseen}
    assert {part_of(question) for question in turned} == {"test"}


def test_parts_have_their_shares_and_end():
    shares = [sum(part_of(f"{i:06}") == part for i in range(3000)) / 3000 for part in PARTS]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.02)
    n_sums = {part: sum(part_of(KINDS["sum"][1](i)[0]) == part for i in range(8100)) for part in PARTS}
    assert sum(n_sums.values()) == 8100
    assert len(string_tasks("sum", n_sums["test"], "test")) == n_sums["test"]
    with pytest.raises(ValueError, match=f"there are {n_sums['test']} test tasks of the kind 'sum'"):
        string_tasks("sum", n_sums["test"] + 1, "test")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("spell", 3), "kind='spell' is unknown: choose one of"),
        (("sum", 3, "train"), "part='train' is unknown"),
        (("sum", 0), "n=0 must be a whole number"),
    ],
)
def test_what_is_no_task_is_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        string_tasks(*arguments)


@pytest.mark.parametrize(
    ("answer", "exact", "letters"),
    [
        ("cba.", 1, 1),
        ("cba", 0, 1),
        ("cba..", 0, 1),
        ("", 0, 0),
        ("aaaa", 0, 1),
        ("abc.", 0, 1),
        ("xcba", 0, 0.75),
    ],
)
def test_rewards(answer, exact, letters):
    task = Task("reverse", "abc>", "cba.")
    assert (exact_reward(task, answer), letters_reward(task, answer)) == (exact, letters)


# ---- how often a model is right ----------------------------------------------------------------------


def all_answers(length):
    """Every answer of at most `length` tokens of DIGITS with four tokens, the end included; then those cut."""
    middle = ["".join(map(str, p)) for n in range(length) for p in product((1, 2, 3), repeat=n)]
    return [text + "0" for text in middle], ["".join(map(str, p)) for p in product((1, 2, 3), repeat=length)]


def test_the_probabilities_of_all_answers_add_up_to_one():
    ended, cut = all_answers(3)
    tasks = [Task("any", "12", answer) for answer in ended + cut]
    probabilities = answer_probabilities(tiny(), tasks, DIGITS, batch_size=7)
    assert probabilities.shape == (len(tasks),)
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-5)
    assert probabilities.requires_grad


def test_sampled_accuracy_is_what_sampling_gives():
    model, task, n = tiny(), Task("any", "12", "30"), 8000
    written = sample_answers(model, [[1, 2]], n, 2, 0, generator=torch.Generator().manual_seed(0))
    share = (written == torch.tensor([3, 0])).all(1).double().mean().item()
    wanted = accuracy(model, [task], sampled=True, spelling=DIGITS)
    assert 0.01 < wanted < 0.99
    assert share == pytest.approx(wanted, abs=4 * (wanted * (1 - wanted) / n) ** 0.5)


def test_greedy_accuracy_is_that_of_generate():
    model = tiny(len(ALPHABET), 16, seed=1)
    tasks = string_tasks("double", 40)
    written = [
        CHARACTERS.decode(generate(model, ids, 7, stop_id=CHARACTERS.end_id, temperature=0)[0, len(ids) :])
        for ids in (CHARACTERS.encode(task.prompt) for task in tasks)
    ]
    told = [
        Task("double", t.prompt, w[:7]) for t, w in zip(tasks[:20], written, strict=False)
    ]  # half are right
    right = correct(model, told + tasks[20:])
    assert right.tolist() == [
        float(w.startswith(t.answer)) for w, t in zip(written, told + tasks[20:], strict=True)
    ]
    assert accuracy(model, told + tasks[20:]) == pytest.approx(right.mean().item())
    assert right[:20].all()


def test_examples_fit_the_losses_of_chats():
    ids, counts = worked([Task("reverse", "ab>", "ba.")])[0]
    assert CHARACTERS.decode(ids) == "ab>ba."
    assert [c for c, counted in zip(ids, counts, strict=True) if counted] == CHARACTERS.encode("ba.")


@pytest.mark.parametrize("k", [1, 3])
def test_pass_at_k_is_the_chance_over_all_outcomes(k):
    p = [0.0, 0.2, 0.9, 1.0]
    chances = [
        sum(
            torch.tensor([q if hit else 1 - q for hit in hits]).prod().item()
            for hits in product((0, 1), repeat=k)
            if any(hits)
        )
        for q in p
    ]
    assert pass_at(k, p) == pytest.approx(sum(chances) / 4)
    with pytest.raises(ValueError, match=r"probabilities\[1\] is 1.5"):
        pass_at(k, [0.5, 1.5])


@pytest.mark.parametrize("sampled", [False, True])
def test_no_task_is_no_measurement(sampled):
    with pytest.raises(ValueError, match="tasks is empty"):
        accuracy(GPT(ModelConfig(23, d_model=8, n_heads=2, n_layers=1)), [], sampled)
