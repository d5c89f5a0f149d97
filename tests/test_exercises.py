"""Every exercise: its register entry, its place in the notebooks, and answers that learners give."""

import ast
import inspect
import json
import math
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from llmcourse.teach.checks import number, tensor, verdict
from llmcourse.teach.exercises import NotRight, all_exercises, get_exercise
from llmcourse.teach.hints import hints_html, solution_source

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
EXERCISES = {exercise.name: exercise for exercise in all_exercises()}
NUMBERS = [name for name, exercise in EXERCISES.items() if type(exercise.solution) in (int, float)]
FUNCTIONS = [name for name, exercise in EXERCISES.items() if callable(exercise.solution)]
TASK = re.compile(r"\*\*Exercise ([\w-]+)\*\* \((\d+) minutes?, difficulty (\d+)\)")


def cells(pattern, kind):
    """The sources of all cells of one kind in the notebooks that match a pattern."""
    for path in sorted(NOTEBOOKS.glob(pattern)):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == kind:
                yield "".join(cell["source"])


def calls(function, source):
    """The exercise names with which a cell calls check or hints."""
    return re.findall(rf"\b{function}\(\s*[\"']([^\"']+)[\"']", source)


# ---- every exercise of every chapter --------------------------------------------------------


@pytest.mark.parametrize("name", EXERCISES)
def test_an_exercise_is_complete(name):
    exercise = EXERCISES[name]
    assert exercise.title.strip()
    assert 1 <= exercise.minutes <= 20
    assert exercise.difficulty in (1, 2, 3)
    assert len(exercise.hints) >= 2
    assert all(hint.strip() for hint in exercise.hints)
    assert hints_html(name).count("<summary>") == len(exercise.hints) + 1


@pytest.mark.parametrize("name", EXERCISES)
def test_the_solution_is_correct_and_the_verdict_says_why(name):
    kind, sentence = verdict(name, EXERCISES[name].solution)
    assert (kind, sentence[-1]) == ("correct", "."), sentence


@pytest.mark.parametrize("name", EXERCISES)
def test_the_hints_do_not_give_the_solution_away(name):
    exercise = EXERCISES[name]
    if callable(exercise.solution):
        _, *body = ast.parse(solution_source(name)).body[0].body  # without the docstring
        statements = [ast.unparse(statement) for statement in body]
        assert not all(any(statement in hint for hint in exercise.hints) for statement in statements)
    else:
        value = re.compile(rf"(?<![\w.]){re.escape(repr(exercise.solution))}(?![\w]|\.\d)")
        assert not any(value.search(hint) for hint in exercise.hints)


@pytest.mark.parametrize("name", EXERCISES)
def test_the_notebook_of_the_chapter_checks_it_and_offers_hints(name):
    code = list(cells(f"{name.split('-')[0]}_*.ipynb", "code"))
    asking = [source for source in code if name in calls("check", source)]
    assert len(asking) == 1, f"cells with check({name!r}, ...): {len(asking)}"
    assert sum(name in calls("hints", source) for source in code) == 1
    solution = EXERCISES[name].solution
    stubs = [node for node in ast.parse(asking[0]).body if isinstance(node, ast.FunctionDef)]
    if callable(solution):
        (stub,) = stubs
        assert stub.name == solution.__name__
        required = [p.name for p in inspect.signature(solution).parameters.values()]
        assert [argument.arg for argument in stub.args.args] == required[: len(stub.args.args)]
    else:
        assert not stubs
        assert re.search(r"^answer = \.\.\.$", asking[0], re.MULTILINE)


@pytest.mark.parametrize("name", EXERCISES)
def test_the_task_text_agrees_with_the_register(name):
    text = "\n".join(cells(f"{name.split('-')[0]}_*.ipynb", "markdown"))
    found = [(minutes, difficulty) for task, minutes, difficulty in TASK.findall(text) if task == name]
    assert found == [(str(EXERCISES[name].minutes), str(EXERCISES[name].difficulty))]


def test_every_name_in_the_notebooks_exists():
    code = list(cells("*.ipynb", "code"))
    names = {name for source in code for function in ("check", "hints") for name in calls(function, source)}
    names |= {name for source in cells("*.ipynb", "markdown") for name, *_ in TASK.findall(source)}
    assert names - set(EXERCISES) == set()


# ---- any exercise: answers that are no answers ----------------------------------------------


def writes_nothing(*arguments): ...


def prints_instead(*arguments):
    print("the answer")


def returns_dots(*arguments):
    return ...


@pytest.mark.parametrize("answer", [None, ...])
@pytest.mark.parametrize("name", EXERCISES)
def test_an_empty_answer_is_not_yet(name, answer):
    kind, sentence = verdict(name, answer)
    assert kind == "not yet"
    assert f"hints({name!r})" in sentence


@pytest.mark.parametrize("answer", [writes_nothing, prints_instead, returns_dots])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_that_returns_nothing_is_not_yet(name, answer):
    kind, sentence = verdict(name, answer)
    assert kind == "not yet"
    assert "end it with `return`" in sentence


def raises_index_error(*arguments):
    raise IndexError("index 4 is out of bounds")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_that_raises_is_told_so(name):
    said = verdict(name, raises_index_error)
    assert said == ("wrong", "your code raised IndexError: index 4 is out of bounds")
    kind, sentence = verdict(name, lambda: 1)
    assert kind == "wrong"
    assert "positional argument" in sentence


@pytest.mark.parametrize("answer", [torch.ones(4), 3.5, "softmax", [1, 2]])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_value_instead_of_a_function_is_told_so(name, answer):
    kind, sentence = verdict(name, answer)
    assert kind == "wrong"
    assert "give the function itself" in sentence


@pytest.mark.parametrize(
    "returned", ["text", {}, [], 3.0, True, (1, 2), torch.zeros(0), np.zeros((1, 1)), object()]
)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_that_returns_something_odd_is_wrong(name, returned):
    kind, sentence = verdict(name, lambda *arguments: returned)
    assert kind == "wrong"
    assert "your code raised" not in sentence  # the code of the learner did not


@pytest.mark.parametrize("name", NUMBERS)
def test_the_right_number_may_have_any_type_of_number(name):
    right = EXERCISES[name].solution
    kinds = [float, np.float64, np.float32, np.array, torch.tensor, lambda x: torch.tensor([x])]
    if isinstance(right, int):
        kinds += [int, np.int64, np.int32]
    for kind in kinds:
        assert verdict(name, kind(right))[0] == "correct", kind


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_just_beside_is_wrong(name):
    right = EXERCISES[name].solution
    step = 1 if isinstance(right, int) else max(0.1, right * 0.005)
    for near in (right + step, right - step, -right, 10 * right, right / 10, 0, 1e9, math.inf, math.nan):
        kind, sentence = verdict(name, near)
        assert kind == "wrong", near
        assert "your code" not in sentence


@pytest.mark.parametrize("name", NUMBERS)
def test_what_is_no_number_is_told_so(name):
    right = EXERCISES[name].solution
    for answer in (
        str(right),
        "",
        True,
        np.True_,
        [right],
        (right, right),
        {},
        1j,
        np.ones(2),
        torch.ones(2),
        lambda: right,
    ):
        kind, sentence = verdict(name, answer)
        assert kind == "wrong"
        assert "give a number, not" in sentence


# ---- the two converters ---------------------------------------------------------------------


def test_number_accepts_numbers_of_all_libraries():
    for value in (
        2,
        2.0,
        np.int8(2),
        np.float32(2),
        np.array(2),
        np.array([[2]]),
        torch.tensor(2),
        torch.ones(1) * 2,
    ):
        plain = number(value)
        assert plain == 2
        assert type(plain) in (int, float)
    for value in (True, "2", None, [2], 2j, np.ones(3), torch.ones(0), torch.tensor(True), np.str_("2"), abs):
        with pytest.raises(NotRight, match="give a number, not"):
            number(value)
    with pytest.raises(NotRight) as caught:
        number("x" * 10_000)
    assert len(str(caught.value)) < 100


def test_tensor_accepts_arrays_and_nested_lists():
    wanted = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    for value in (
        wanted.double().requires_grad_(),
        wanted.int(),
        wanted.numpy(),
        np.array([[1, 2], [3, 4]]),
        [[1, 2], [3, 4]],
        ((torch.tensor(1), torch.tensor(2)), (3, 4)),
    ):
        converted = tensor(value)
        assert converted.dtype == torch.float32
        assert not converted.requires_grad
        assert torch.equal(converted, wanted)
    with pytest.raises(NotRight, match="return one tensor, not several"):
        tensor([wanted[0], wanted[1]])
    for value in ("text", [[1], [2, 3]], {}, object(), abs):
        with pytest.raises(NotRight, match="return a tensor, not"):
            tensor(value)


# ---- answers that learners give: RIGHT by exercise, WRONG with a fragment of what is said ---

RIGHT, WRONG = {}, {}


# 00-tokens, 00-mean

RIGHT["00-tokens"] = [" be", "be"]
WRONG["00-tokens"] = {
    "not text": ("in quotation marks", 0.9),
    "another token": ("is not the likeliest", " the"),
    "empty": ("is not the likeliest", ""),
    "two tokens": ("is not the likeliest", "to be"),
}
RIGHT["00-mean"] = [np.mean, lambda losses: sum(x / len(losses) for x in losses)]
WRONG["00-mean"] = {
    "sum": ("that is the sum", sum),
    "median": ("that is the median", lambda losses: sorted(losses)[len(losses) // 2]),
    "integer division": ("divide with /, not //", lambda losses: sum(losses) // len(losses)),
    "one too few": ("you return 4.5", lambda losses: sum(losses) / (len(losses) - 1)),
    "list divided": ("your code raised TypeError", lambda losses: losses / len(losses)),
}


# 03a-rmsnorm


def rms(x):
    return x.pow(2).mean(-1, keepdim=True)


def rms_by_rows(x, gain, eps=1e-5):
    result = torch.empty_like(x)
    for place in np.ndindex(*x.shape[:-1]):
        mean = sum(v * v for v in x[place].tolist()) / x.shape[-1]
        result[place] = gain * x[place] / math.sqrt(mean + eps)
    return result


RIGHT["03a-rmsnorm"] = [
    rms_by_rows,
    lambda x, gain: x * (rms(x) + 1e-6).rsqrt() * gain,
    lambda x, gain: x.div_((x.norm(dim=-1, keepdim=True) / x.shape[-1] ** 0.5) + 1e-5) * gain,
]
WRONG["03a-rmsnorm"] = {
    "mean subtracted": ("LayerNorm", lambda x, gain: F.layer_norm(x, x.shape[-1:], gain)),
    "no gain": ("gain is missing", lambda x, gain: x / (rms(x) + 1e-5).sqrt()),
    "sum": ("root of the SUM", lambda x, gain: x / (x.norm(dim=-1, keepdim=True) + 1e-5) * gain),
    "no root": ("the root is missing", lambda x, gain: x / (rms(x) + 1e-5) * gain),
    "no eps": ("add eps under the root", lambda x, gain: x / rms(x).sqrt() * gain),
    "first dimension": (
        "values differ",
        lambda x, gain: x / (x.pow(2).mean(0, keepdim=True) + 1e-5).sqrt() * gain,
    ),
    "over everything": ("values differ", lambda x, gain: x / (x.pow(2).mean() + 1e-5).sqrt() * gain),
    "without keepdim": ("your code raised RuntimeError", lambda x, gain: x / x.pow(2).mean(-1).sqrt() * gain),
    "rows in a list": ("return a tensor", lambda x, gain: list(rms_by_rows(x, gain))),
    "the root only": ("return a tensor of the shape", lambda x, gain: rms(x).sqrt()),
}

# 03a-swiglu

RIGHT["03a-swiglu"] = [2 * 3072 // 3, 2048.0]
WRONG["03a-swiglu"] = {
    "as before": ("half as many parameters again", 3072),
    "half": ("three matrices instead of two", 1536),
    "one third": ("is not 2 x 768 x 3072", 1024),
    "3/2": ("is not 2 x 768 x 3072", 4608),
}

# 03a-parameters


def gpt2_parameters(V, T, C, layers, biases=1, norms=1, last_norm=1, tied=1, positions=1):
    """The number of parameters, with each part open to a slip."""
    block = 12 * C * C + biases * 9 * C + norms * 4 * C
    return V * C * (2 - tied) + positions * T * C + layers * block + last_norm * 2 * C


def without(**parts):
    return lambda V, T, C, layers: gpt2_parameters(V, T, C, layers, **parts)


RIGHT["03a-parameters"] = [gpt2_parameters, lambda *sizes: np.int64(gpt2_parameters(*sizes))]
WRONG["03a-parameters"] = {
    "untied": ("count it once", without(tied=0)),
    "no positions": ("learned positions are missing", without(positions=0)),
    "no last norm": ("last norm", without(last_norm=0)),
    "no norms in blocks": ("two norms in each block", without(norms=0)),
    "no biases": ("biases of the linear layers", without(biases=0)),
    "matrices only": ("biases and norms are missing", without(biases=0, norms=0, last_norm=0)),
    "one layer": ("difference -", lambda V, T, C, layers: gpt2_parameters(V, T, C, 1)),
    "fixed": ("not for other sizes", lambda *sizes: 124_439_808),
    "text": ("return a number", lambda *sizes: "124M"),
}

# 03a-first-loss

RIGHT["03a-first-loss"] = [10.82, 10.8, np.log(50257), torch.tensor(50257.0).log()]
WRONG["03a-first-loss"] = {
    "bits": ("in bits", math.log2(50257)),
    "base 10": ("base 10", math.log10(50257)),
    "sign": ("MINUS", -math.log(50257)),
    "probability": ("is not ln 50257", 1 / 50257),
    "perplexity": ("is not ln 50257", 50257),
}

# 03b-pair


def counts_of(words, weight=True, positions=True):
    counts = Counter()
    for symbols, count in words.items():
        pairs = list(pairwise(symbols))
        for pair in pairs if positions else set(pairs):
            counts[pair] += count if weight else 1
    return counts


def pair_by_index(words):
    counts = {}
    for word in words:
        for i in range(len(word) - 1):
            counts.setdefault((word[i], word[i + 1]), []).append(words[word])
    return sorted((-sum(times), pair) for pair, times in counts.items())[0][1]


def smaller_of_ties(counts):
    return min(counts, key=lambda pair: (-counts[pair], pair))


def pair_runs_over_the_end(words):
    counts = Counter()
    for word, count in words.items():
        for i in range(len(word)):
            counts[word[i], word[i + 1]] += count
    return smaller_of_ties(counts)


def pair_by_text(words):
    counts = Counter()
    for word, count in words.items():
        for a, b in pairwise("".join(word)):
            counts[a, b] += count
    return smaller_of_ties(counts)


def pair_without_overlap(words):
    counts = Counter()
    for word, count in words.items():
        for pair in set(pairwise(word)):
            counts[pair] += "".join(word).count("".join(pair)) * count
    return smaller_of_ties(counts)


RIGHT["03b-pair"] = [
    pair_by_index,
    lambda words: list(smaller_of_ties(counts_of(words))),
    lambda words: sorted(sorted(counts_of(words).items()), key=lambda item: item[1], reverse=True)[0][0],
]
WRONG["03b-pair"] = {
    "does not weight": ("multiply by how often", lambda w: smaller_of_ties(counts_of(w, weight=False))),
    "counts a pair once per word": (
        "count every position",
        lambda w: smaller_of_ties(counts_of(w, positions=False)),
    ),
    "counts without overlap": ("count every position", pair_without_overlap),
    "larger pair on a tie": (
        "alphabetically smaller",
        lambda w: max((n, p) for p, n in counts_of(w).items())[1],
    ),
    "first pair on a tie": ("alphabetically smaller", lambda w: counts_of(w).most_common(1)[0][0]),
    "first symbol only on a tie": (
        "alphabetically smaller",
        lambda w: min(counts_of(w).items(), key=lambda item: (-item[1], item[0][0]))[0],
    ),
    "rarest": ("x-y is frequent", lambda w: min((n, p) for p, n in counts_of(w).items())[1]),
    "pair with its count": ("and only that", lambda w: counts_of(w).most_common(1)[0]),
    "all pairs": ("and only that", counts_of),
    "joined": ("a pair of symbols such as", lambda w: "".join(smaller_of_ties(counts_of(w)))),
    "letters instead of symbols": ("may be several letters", pair_by_text),
    "index too far": ("IndexError: tuple index out of range", pair_runs_over_the_end),
}

# 03b-bytes

RIGHT["03b-bytes"] = [len("你好".encode()), 6.0]
WRONG["03b-bytes"] = {
    "characters": ("number of characters", 2),
    "one character": ("one of the two", 3),
    "UTF-16": ("UTF-16", len("你好".encode("utf-16-le"))),
    "with the mark of UTF-16": ("is not the length of", 8),
    "the bytes": ("give a number, not", "你好".encode()),
}

# 03b-targets

RIGHT["03b-targets"] = [
    lambda ids, n: ([ids[i] for i in range(n)], [ids[i + 1] for i in range(n)]),
    lambda ids, n: [ids[:n].numpy(), ids[1:][:n].numpy()],
    lambda ids, n: (ids[: n + 1][:-1].float(), ids[: n + 1][1:].tolist()),
]
WRONG["03b-targets"] = {
    "not shifted": ("could copy its input", lambda ids, n: (ids[:n], ids[:n])),
    "one target too few": ("4 inputs and 3 targets", lambda ids, n: (ids[:n], ids[1:n])),
    "both too short": ("3 inputs and 3 targets", lambda ids, n: (ids[: n - 1], ids[1:n])),
    "all the rest": ("4 inputs and 7 targets", lambda ids, n: (ids[:n], ids[1:])),
    "backwards": ("the first 4 ids", lambda ids, n: (ids[1 : n + 1], ids[:n])),
    "shifted by two": ("right after each input", lambda ids, n: (ids[:n], ids[2 : n + 2])),
    "next block": ("right after each input", lambda ids, n: (ids[:n], ids[n : 2 * n])),
    "rolled": ("the first token again", lambda ids, n: (ids[:n], ids[:n].roll(-1))),
    "the last ones": ("the first 4 ids", lambda ids, n: (ids[-n - 1 : -1], ids[-n:])),
    "targets only": ("rows, as (inputs", lambda ids, n: ids[1 : n + 1]),
    "one target": ("two rows: all inputs", lambda ids, n: (ids[:n], ids[n])),
    "list of pairs": ("rows, as (inputs", lambda ids, n: list(pairwise(ids[: n + 1]))),
    "in a dictionary": ("rows, as (inputs", lambda ids, n: {"inputs": ids[:n], "targets": ids[1 : n + 1]}),
}

# 03b-waste


def waste_by_loop(lengths, context_length):
    wasted = 0
    for length in lengths:
        if length < context_length:
            wasted += context_length - length
    return wasted / context_length / len(lengths)


RIGHT["03b-waste"] = [
    waste_by_loop,
    lambda lengths, n: 1 - np.minimum(lengths, n).mean() / n,
    lambda lengths, n: np.float32(waste_by_loop(lengths, n)),
    lambda lengths, n: (n - torch.tensor(lengths).clamp(max=n)).float().mean() / n,
]
WRONG["03b-waste"] = {
    "used": ("the waste is the rest", lambda lengths, n: 1 - waste_by_loop(lengths, n)),
    "number": ("number of wasted positions", lambda lengths, n: waste_by_loop(lengths, n) * n * len(lengths)),
    "percent": ("share between 0 and 1", lambda lengths, n: 100 * waste_by_loop(lengths, n)),
    "sum of shares": ("waste 50 of 200", lambda lengths, n: len(lengths) * waste_by_loop(lengths, n)),
    "integer division": ("waste 50 of 200", lambda lengths, n: 1 - sum(lengths) // (n * len(lengths))),
    "not cut": ("in one row", lambda lengths, n: 1 - sum(lengths) / (n * len(lengths))),
    "several rows": (
        "in one row",
        lambda lengths, n: 1 - sum(lengths) / n / sum(math.ceil(x / n) for x in lengths),
    ),
    "padded to the longest": (
        "every row has 100 positions",
        lambda lengths, n: waste_by_loop(lengths, min(n, max(lengths))),
    ),
    "for each document": ("give a number, not [", lambda lengths, n: [1 - x / n for x in lengths]),
    "lists divided": ("your code raised TypeError", lambda lengths, n: lengths / n),
    "text": (
        "give a number, not '25 %'",
        lambda lengths, n: f"{waste_by_loop(lengths, n):.0%}".replace("%", " %"),
    ),
}

# 03c-loss


def loss_by_loops(logits, targets):
    total = 0.0
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        largest = max(row)
        total += largest + math.log(sum(math.exp(x - largest) for x in row)) - row[target]
    return total / len(targets)


def picked(table, targets):
    return table[torch.arange(len(targets)), targets]


def loss_in_place(logits, targets):
    logits -= logits.logsumexp(-1, keepdim=True)
    return -picked(logits, targets).mean()


RIGHT["03c-loss"] = [
    loss_by_loops,
    loss_in_place,
    lambda x, y: np.float64(loss_by_loops(x, y)),
    lambda x, y: (x.double().logsumexp(1) - x.double().gather(1, y[:, None])[:, 0]).mean(),
    lambda x, y: -(F.one_hot(y, x.shape[1]) * x.log_softmax(-1)).sum(-1).mean(0, keepdim=True),
]
WRONG["03c-loss"] = {
    "sign": ("NEGATIVE", lambda x, y: picked(x.log_softmax(-1), y).mean()),
    "sum": ("take the mean", lambda x, y: -picked(x.log_softmax(-1), y).sum()),
    "sum and sign": ("the sign is wrong, and", lambda x, y: picked(x.log_softmax(-1), y).sum()),
    "not reduced": ("the shape (6,)", lambda x, y: -picked(x.log_softmax(-1), y)),
    "bits": ("natural logarithm", lambda x, y: -picked(x.softmax(-1), y).log2().mean()),
    "wrong axis": ("each ROW", lambda x, y: -picked(x.log_softmax(0), y).mean()),
    "every target in every row": ("row i needs targets[i]", lambda x, y: -x.log_softmax(-1)[:, y].mean()),
    "mean over all": ("over the T positions", lambda x, y: -(F.one_hot(y, 9) * x.log_softmax(-1)).mean()),
    "no targets": ("pick the target's entry", lambda x, y: -x.log_softmax(-1).mean()),
    "no logarithm": ("logarithm is missing", lambda x, y: -picked(x.softmax(-1), y).mean()),
    "no softmax": ("normalize each row", lambda x, y: -picked(x, y).mean()),
    "overflow": ("not finite", lambda x, y: (x.exp().sum(-1).log() - picked(x, y)).mean()),
    "underflow": ("not finite", lambda x, y: -picked(x.softmax(-1), y).log().mean()),
    "small constant": ("finite but wrong", lambda x, y: -(picked(x.softmax(-1), y) + 1e-9).log().mean()),
    "clamped": ("finite but wrong", lambda x, y: loss_in_place(x.clamp(-50, 50), y)),
    "swapped": ("your code raised", lambda x, y: F.cross_entropy(y, x)),
    "without keepdim": ("your code raised RuntimeError", lambda x, y: -picked(x - x.logsumexp(-1), y).mean()),
    "perplexity": ("for a random example you return", lambda x, y: F.cross_entropy(x, y).exp()),
}

# 03c-bits

RIGHT["03c-bits"] = [2.31, 4 * math.log2(math.e) / 2.5, np.float32(2.3083), 4 / np.log(2) / 2.5]
WRONG["03c-bits"] = {
    "nats per byte": ("nats per byte", 4 / 2.5),
    "bits per token": ("per TOKEN", 4 / math.log(2)),
    "times ln 2": ("MORE than a bit", 4 * math.log(2) / 2.5),
    "times 2.5": ("LESS than a token", 4 / math.log(2) * 2.5),
    "log10": ("is not 4 nats", 4 / math.log(10) / 2.5),
    "times and times": ("is not 4 nats", 10.0),
}

# 03c-schedule


def rate(step, total, warmup, max_lr, *, first=1, until=0, share=None, curve=None):
    """The right schedule, with each part open to a slip."""
    if step < warmup + until:
        return max_lr * (step + first) / warmup
    progress = share(step, total, warmup) if share else (step - warmup) / (total - warmup)
    return max_lr * (curve(progress) if curve else 0.5 * (1 + math.cos(math.pi * progress)))


def rate_by_tensors(step, total_steps, warmup_steps, max_lr):
    rise = (step + 1) / warmup_steps
    fall = torch.cos(torch.tensor((step - warmup_steps) / (total_steps - warmup_steps)) * math.pi / 2) ** 2
    return max_lr * (rise if step < warmup_steps else fall)


def slipped(**slip):
    return lambda step, total, warmup, max_lr: rate(step, total, warmup, max_lr, **slip)


def rate_returns_in_warmup_only(step, total_steps, warmup_steps, max_lr):
    if step < warmup_steps:
        return max_lr * (step + 1) / warmup_steps


RIGHT["03c-schedule"] = [
    slipped(),
    slipped(first=1, curve=lambda p: np.float32(0.5 + 0.5 * np.cos(np.pi * p))),
    rate_by_tensors,
]
WRONG["03c-schedule"] = {
    "starts at 0": ("Use (step + 1)", slipped(first=0)),
    "no max_lr": ("should be max_lr, 2.0; yours is 1.000", lambda s, t, w, m: rate(s, t, w, 1.0)),
    "warmup one step longer": ("The warmup is over", slipped(until=1)),
    "progress from step 0": ("Subtract warmup_steps", slipped(share=lambda s, t, w: s / t)),
    "progress not subtracted": ("Subtract warmup_steps", slipped(share=lambda s, t, w: s / (t - w))),
    "progress over all": ("at step 30 you give", slipped(share=lambda s, t, w: (s - w) / t)),
    "one step too early": ("at step 30 you give", slipped(share=lambda s, t, w: (s - w) / (t - w - 1))),
    "not halved": ("halve it", slipped(curve=lambda p: 1 + math.cos(math.pi * p))),
    "rises": ("not 1 - cos", slipped(curve=lambda p: 0.5 * (1 - math.cos(math.pi * p)))),
    "no pi": ("cos(pi * progress)", slipped(curve=lambda p: 0.5 * (1 + math.cos(p)))),
    "whole cosine": ("cos(pi * progress)", slipped(curve=lambda p: 0.5 * (1 + math.cos(2 * math.pi * p)))),
    "stays": ("near 0; yours is 2.000", slipped(curve=lambda p: 1)),
    "straight line": ("straight line", slipped(curve=lambda p: 1 - p)),
    "quarter of a cosine": ("at step 30 you give", slipped(curve=lambda p: math.cos(math.pi / 2 * p))),
    "fixed numbers": ("but not for 200", lambda s, t, w, m: rate(s, 100, 10, m)),
    "a list": ("give a number, not [", lambda s, t, w, m: [rate(step, t, w, m) for step in range(t)]),
    "swapped": ("your code raised ZeroDivisionError", lambda s, t, w, m: rate(s, w, w, m)),
}

# 03c-temperature


def temperature_by_loop(logits, temperature):
    exponentials = [math.exp(x / temperature) for x in logits]
    return [e / sum(exponentials) for e in exponentials]


RIGHT["03c-temperature"] = [
    temperature_by_loop,
    lambda x, t: np.array(temperature_by_loop(x, t)),
    lambda x, t: x.softmax(0) ** (1 / t) / (x.softmax(0) ** (1 / t)).sum(),
    lambda x, t: x.div_(t).double().softmax(0),
]
WRONG["03c-temperature"] = {
    "divides probabilities": ("Divide the LOGITS", lambda x, t: x.softmax(-1) / t),
    "multiplies": ("must sharpen", lambda x, t: (x * t).softmax(-1)),
    "ignores it": ("no effect", lambda x, t: x.softmax(-1)),
    "no softmax": ("softmax is missing", lambda x, t: x / t),
    "log_softmax": ("LOG-probabilities", lambda x, t: (x / t).log_softmax(-1)),
    "no sum": ("must sum to 1", lambda x, t: (x / t).exp()),
    "softmax twice": ("softmax twice", lambda x, t: (x.softmax(-1) / t).softmax(-1)),
    "square": ("that is not softmax(logits / temperature)", lambda x, t: (x / t**2).softmax(-1)),
    "fixed": ("but not at 3", lambda x, t: (x / 0.5).softmax(-1)),
    "token": ("not the shape ()", lambda x, t: (x / t).argmax()),
    "largest": ("not the shape ()", lambda x, t: (x / t).softmax(-1).max()),
    "sampled": ("not the shape (1,)", lambda x, t: (x / t).softmax(-1).multinomial(1)),
    "swapped": ("your code raised", lambda x, t: (t / x).softmax(x)),
    "extra dimension": ("not the shape (1, 4)", lambda x, t: (x[None] / t).softmax(-1)),
    "no dimension named": ("your code raised TypeError", lambda x, t: (x / t).softmax()),
}

# 04a-softmax


def softmax_by_numpy(scores):
    scores = scores.numpy().astype(np.float64)
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def softmax_by_rows(scores):
    result = torch.empty_like(scores)
    for row, place in zip(scores.view(-1, scores.shape[-1]), result.view(-1, scores.shape[-1]), strict=True):
        place[:] = (row - row.max()).exp()
        place /= place.sum()
    return result


def softmax_in_place(scores):
    scores -= scores.amax(-1, keepdim=True)
    scores.exp_()
    scores /= scores.sum(-1, keepdim=True)
    return scores


def normalized(powers, dim=-1):
    return powers / powers.sum(dim, keepdim=True)


RIGHT["04a-softmax"] = [
    softmax_by_numpy,
    softmax_by_rows,
    softmax_in_place,
    lambda x: (x - x.logsumexp(-1, keepdim=True)).exp().tolist(),
]
WRONG["04a-softmax"] = {
    "first dimension": ("LAST dimension", lambda x: x.softmax(0)),
    "middle dimension": ("LAST dimension", lambda x: x.softmax(1)),
    "all entries": ("ALL entries", lambda x: x.exp() / x.exp().sum()),
    "no division": ("each row must sum to 1", lambda x: x.exp()),
    "log_softmax": ("each row must sum to 1", lambda x: x.log_softmax(-1)),
    "no exponential": ("rows sum to 1 but differ", normalized),
    "powers of 2": ("rows sum to 1 but differ", lambda x: normalized(2**x)),
    "overflows": ("nan: subtract the row's maximum", lambda x: normalized(x.exp())),
    "maximum of all": ("EACH row", lambda x: normalized((x - x.max()).exp())),
    "maximum of a column": ("ONE number", lambda x: normalized((x - x.amax(0, keepdim=True)).exp())),
    "minimum": ("the row's MAXIMUM", lambda x: normalized((x - x.amin(-1, keepdim=True)).exp())),
    "mean": ("the row's MAXIMUM", lambda x: normalized((x - x.mean(-1, keepdim=True)).exp())),
    "largest size": ("the row's MAXIMUM", lambda x: normalized((x - x.abs().amax(-1, keepdim=True)).exp())),
    "clamped": ("the row's MAXIMUM", lambda x: normalized(x.clamp(-80, 80).exp())),
    "without keepdim": ("your code raised RuntimeError", lambda x: x.exp() / x.exp().sum(-1)),
    "without values": ("your code raised TypeError", lambda x: x - x.max(dim=-1, keepdim=True)),
    "rows in a list": ("torch.stack or torch.cat", lambda x: [row.softmax(-1) for row in x]),
    "flattened": ("yours is (24,)", lambda x: x.softmax(-1).flatten()),
    "the largest weight": ("yours is (2, 3)", lambda x: x.softmax(-1).amax(-1)),
}

# 04a-scale

RIGHT["04a-scale"] = [16.0, 256**0.5, np.sqrt(256), torch.tensor(256.0).sqrt()]
WRONG["04a-scale"] = {
    "variance": ("the variance", 256),
    "factor": ("multiplies by", 1 / 16),
    "one entry": ("sum of 256 products", 1.0),
    "near": ("16.1 is not the root", 16.1),
    "twice": ("is not the root", math.sqrt(512)),
    "text": ("not '16'", "16"),
}

# 04a-causal


def forbidden(x, diagonal=1):
    return torch.ones(x.shape[-2:], dtype=torch.bool).triu(diagonal)


def causal_by_loops(scores):
    weights = torch.zeros_like(scores)
    for i in range(scores.shape[-1]):
        weights[..., i, : i + 1] = scores[..., i, : i + 1].softmax(-1)
    return weights


def causal_in_place(scores):
    scores[..., forbidden(scores)] = float("-inf")
    return scores.softmax(-1)


def mask_for(x, T):
    return torch.full((T, T), float("-inf")).triu(1)


RIGHT["04a-causal"] = [
    causal_by_loops,
    causal_in_place,
    lambda x: (x + mask_for(x, x.shape[-1])).double().softmax(-1).numpy(),
    lambda x: x.masked_fill(forbidden(x), -1e9).softmax(-1),
    lambda x: normalized(x.softmax(-1).tril()),
]
WRONG["04a-causal"] = {
    "no mask": ("still looks ahead", lambda x: x.softmax(-1)),
    "after the softmax": ("masked AFTER the softmax", lambda x: x.softmax(-1).tril()),
    "wrong way round": (
        "the wrong way round",
        lambda x: x.masked_fill(~forbidden(x, 0), -math.inf).softmax(-1),
    ),
    "wrong way round, without itself": (
        "must see itself",
        lambda x: x.masked_fill(~forbidden(x), -math.inf).softmax(-1),
    ),
    "hides itself": ("must see itself", lambda x: x.masked_fill(forbidden(x, 0), -math.inf).softmax(-1)),
    "hides itself with -1e9": ("look", lambda x: x.masked_fill(forbidden(x, 0), -1e9).softmax(-1)),
    "one step ahead": ("still looks ahead", lambda x: x.masked_fill(forbidden(x, 2), -math.inf).softmax(-1)),
    "zeros instead of -inf": ("must be -inf, not 0", lambda x: x.tril().softmax(-1)),
    "not low enough": ("must be -inf", lambda x: x.masked_fill(forbidden(x), -10).softmax(-1)),
    "plus infinity": ("nan", lambda x: x.masked_fill(forbidden(x), math.inf).softmax(-1)),
    "0 * inf": ("0 * inf is nan", lambda x: (x + forbidden(x) * -math.inf).softmax(-1)),
    "softmax over queries": ("dim=-1", lambda x: x.masked_fill(forbidden(x), -math.inf).softmax(-2)),
    "no softmax": ("the softmax is missing", lambda x: x.masked_fill(forbidden(x), -math.inf)),
    "the mask": ("not 1", lambda x: (~forbidden(x)).expand(x.shape)),
    "only two dimensions": ("the shape should stay", lambda x: causal_by_loops(x[0])),
    "three dimensions only": ("your code raised", lambda x: (x + mask_for(x, x.shape[1])).softmax(-1)),
    "batch taken for time": ("your code raised", lambda x: (x + mask_for(x, len(x))).softmax(-1)),
    "scaled": ("the other weights are not", lambda x: causal_by_loops(x / 2)),
    "fixed size": ("your code raised", lambda x: (x + mask_for(x, 4)).softmax(-1)),
    "rows in a list": ("torch.stack or torch.cat", lambda x: list(causal_by_loops(x))),
}

# 04a-query

RIGHT["04a-query"] = [
    lambda keys, i: keys[i] * 10,
    lambda keys, i: 1000 * (keys[i] - keys.mean(0)),
    lambda keys, i: (torch.linalg.pinv(keys.double())[:, i] * 80).requires_grad_(),
    lambda keys, i: np.linalg.lstsq(keys.numpy(), 100 * np.eye(5)[i], rcond=None)[0],
    lambda keys, i: [5 * x for x in keys[i].tolist()],
    lambda keys, i: keys[i].mul_(4),
]
WRONG["04a-query"] = {
    "the key as it is": ("length of q", lambda keys, i: keys[i]),
    "a short key": ("length of q", lambda keys, i: keys[i] / keys[i].norm()),
    "all keys": ("finds key", lambda keys, i: 20 * keys.sum(0)),
    "another key": ("finds key 3 instead of key 2", lambda keys, i: 20 * keys[(i + 1) % 5]),
    "always key 2": ("instead of key 0", lambda keys, i: 20 * keys[2]),
    "the opposite": ("finds key", lambda keys, i: -20 * keys[i]),
    "one-hot": ("finds key", lambda keys, i: 20 * torch.eye(64)[i + 1]),
    "weights": ("yours has (5,)", lambda keys, i: torch.eye(5)[i]),
    "a row": ("yours has (1, 64)", lambda keys, i: 20 * keys[i : i + 1]),
    "a column": ("yours has (5,)", lambda keys, i: 20 * keys[:, i]),
    "too long": ("overflow", lambda keys, i: keys[i] * 1e38),
    "swapped": ("your code raised", lambda keys, i: i[keys]),
    "all five": ("yours has (5, 64)", lambda keys, i: keys),
}

# 04b-split

RIGHT["04b-split"] = [
    lambda x, H: torch.stack(x.chunk(H, dim=-1), dim=1),
    lambda x, H: x.reshape(*x.shape[:2], H, -1).permute(0, 2, 1, 3),
    lambda x, H: np.stack(np.split(x.numpy().astype(np.float64), H, axis=-1), axis=1),
    lambda x, H: x.unflatten(-1, (H, -1)).transpose(1, 2).contiguous().long(),
]
WRONG["04b-split"] = {
    "plain view": ("mixes numbers of different tokens", lambda x, H: x.view(x.shape[0], H, x.shape[1], -1)),
    "not transposed": ("swap T and H", lambda x, H: x.view(*x.shape[:2], H, -1)),
    "every 4th column": ("every 4th column", lambda x, H: x.view(*x.shape[:2], -1, H).permute(0, 3, 1, 2)),
    "number for width": ("yours is (2, 5, 3, 4)", lambda x, H: x.view(*x.shape[:2], -1, H).transpose(1, 2)),
    "transposed too far": (
        "yours is (2, 4, 5, 3)",
        lambda x, H: x.view(*x.shape[:2], H, -1).permute(0, 2, 3, 1),
    ),
    "heads in a list": ("torch.stack", lambda x, H: list(x.chunk(H, dim=-1))),
    "stacked in front": ("yours is (4, 2, 3, 5)", lambda x, H: torch.stack(x.chunk(H, dim=-1))),
    "stacked wide": ("your code raised", lambda x, H: torch.stack(x.split(3, dim=-1), dim=1)),
    "heads in reverse": ("head 0 is not", lambda x, H: torch.stack(x.chunk(H, dim=-1)[::-1], dim=1)),
    "the whole width": ("yours is (2, 4, 3, 20)", lambda x, H: x[:, None].expand(-1, H, -1, -1)),
    "time cut": ("your code raised", lambda x, H: x.view(2, H, x.shape[1] // H, -1)),
    "unchanged": ("yours is (2, 3, 20)", lambda x, H: x),
}

# 04b-parameters

RIGHT["04b-parameters"] = [2**20, 1_048_576.0, np.int64(4) * 512 * 512, 4 * 512**2]
WRONG["04b-parameters"] = {
    "no output": ("output projection is missing", 3 * 512**2),
    "full width for each head": ("SHARE the width", 8 * 4 * 512**2),
    "full width, no output": ("SHARE the width", 8 * 3 * 512**2),
    "one head": ("8 of them", 4 * 512 * 64),
    "one matrix": ("one matrix", 512**2),
    "biases": ("biases", 4 * 512**2 + 4 * 512),
    "off by one": ("is not the number of entries", 2**20 + 1),
    "text": ("give a number", "1,048,576"),
    "tuple": ("give a number", (1, 48, 576)),
}

# 04b-share


def share_by_loop(keys, group):
    result = []
    for head in range(keys.shape[1]):
        result.extend([keys[:, head]] * group)
    return torch.stack(result, dim=1)


RIGHT["04b-share"] = [
    share_by_loop,
    lambda keys, g: keys[:, :, None].expand(-1, -1, g, -1, -1).flatten(1, 2),
    lambda keys, g: keys.view(2, 2, 1, 4, 5).repeat(1, 1, g, 1, 1).view(2, -1, 4, 5),
    lambda keys, g: np.repeat(keys.numpy(), g, axis=1).astype(np.float64),
    lambda keys, g: keys[:, torch.arange(keys.shape[1] * g) // g],
]
WRONG["04b-share"] = {
    "repeat": ("0 1 0 1", lambda keys, g: keys.repeat(1, g, 1, 1)),
    "cat": ("0 1 0 1", lambda keys, g: torch.cat([keys] * g, dim=1)),
    "no dimension": ("yours is (240,)", lambda keys, g: keys.repeat_interleave(g)),
    "batch": ("yours is (6, 2, 4, 5)", lambda keys, g: keys.repeat_interleave(g, dim=0)),
    "time": ("yours is (2, 2, 12, 5)", lambda keys, g: keys.repeat_interleave(g, dim=2)),
    "five dimensions": ("yours is (2, 2, 3, 4, 5)", lambda keys, g: torch.stack([keys] * g, dim=2)),
    "unchanged": ("yours is (2, 2, 4, 5)", lambda keys, g: keys),
    "heads in a list": ("torch.stack", lambda keys, g: [keys[:, h // g] for h in range(2 * g)]),
    "mixed positions": (
        "not the key heads 0 0 0 1 1 1",
        lambda keys, g: keys.repeat_interleave(g, dim=2).reshape(2, -1, 4, 5).flip(1),
    ),
    "first head only": ("not the key heads", lambda keys, g: keys[:, :1].expand(-1, 2 * g, -1, -1)),
    "swapped": ("your code raised", lambda keys, g: g.repeat_interleave(keys, dim=1)),
}

# 04b-cache

RIGHT["04b-cache"] = [
    lambda layers, heads, d, T, B, size: sum(2 * heads * d * T * B * size for _ in range(layers)),
    lambda *parts: np.prod(parts) * 2,
    lambda *parts: 2.0 * math.prod(parts),
    lambda *parts: torch.tensor(parts).prod() * 2,
]
WRONG["04b-cache"] = {
    "keys only": ("keys OR the values", lambda *parts: math.prod(parts)),
    "bits": ("in bits", lambda *parts: 16 * math.prod(parts)),
    "four": ("twice too much", lambda *parts: 4 * math.prod(parts)),
    "no batch": ("twice the batch_size", lambda n, h, d, T, B, size: 2 * n * h * d * T * size),
    "no layers": ("twice the n_layers", lambda n, h, d, T, B, size: 2 * h * d * T * B * size),
    "fixed 2 bytes": ("twice the bytes_per_number", lambda n, h, d, T, B, size: 4 * n * h * d * T * B),
    "square of the length": ("grows 4 times", lambda n, h, d, T, B, size: 2 * n * h * d * T * T * B * size),
    "sum": ("twice the n_layers", lambda *parts: 2 * sum(parts)),
    "GiB": ("1,073,741,824 bytes", lambda *parts: 2 * math.prod(parts) / 2**30),
    "zero": ("you get 0", lambda *parts: math.prod(parts) // 2**40),
    "text": ("give a number, not '1 GiB'", lambda *parts: "1 GiB"),
}

# 04c-table


def table_from(n, d, exponent=lambda column: column // 2 * 2, pos=0, functions=(math.sin, math.cos)):
    """The table entry by entry, with each part open to a slip."""
    return [
        [functions[column % 2]((row + pos) / 10000 ** (exponent(column) / d)) for column in range(d)]
        for row in range(n)
    ]


def table_by_tensors(n, d):
    table = torch.empty(n, d, dtype=torch.float64)
    angles = torch.outer(torch.arange(n), torch.exp(-math.log(10000) * torch.arange(0, d, 2) / d))
    table[:, 0::2], table[:, 1::2] = angles.sin(), angles.cos()
    return table


def table_without_brackets(n, d):
    i = torch.arange(d // 2)
    angles = torch.arange(n)[:, None] / (10000**2 * i / d)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def table_of_halves(n, d):
    table = table_by_tensors(n, d)
    return torch.cat([table[:, 0::2], table[:, 1::2]], dim=1)


def table_of_integers(n, d):
    return torch.tensor(table_from(n, d)).int()


def sines_forgotten(n, d):
    table = table_by_tensors(n, d)
    table[:, 1::2] = 0
    return table


RIGHT["04c-table"] = [table_from, table_by_tensors, lambda n, d: np.array(table_from(n, d))]
WRONG["04c-table"] = {
    "halves": ("alternates", table_of_halves),
    "swapped functions": ("swapped", lambda n, d: table_from(n, d, functions=(math.cos, math.sin))),
    "from position 1": ("positions count from 0", lambda n, d: table_from(n, d, pos=1)),
    "doubled": ("so it is column / d", lambda n, d: table_from(n, d, lambda column: column // 2 * 4)),
    "i / d": ("should be 2i / d_model", lambda n, d: table_from(n, d, lambda column: column // 2)),
    "exponent by column": ("SAME angle", lambda n, d: table_from(n, d, lambda column: column)),
    "multiplied": ("divide", lambda n, d: table_from(n, d, lambda column: -(column // 2 * 2))),
    "cosines forgotten": ("SAME angle", sines_forgotten),
    "no brackets": ("brackets", table_without_brackets),
    "no brackets, loops": (
        "your code raised ZeroDivisionError",
        lambda n, d: [[1 / (10000**2 * i / d) for i in range(d)]],
    ),
    "swapped arguments": ("yours is (8, 10)", lambda n, d: table_from(d, n)),
    "transposed": ("yours is (8, 10)", lambda n, d: table_by_tensors(n, d).T),
    "one row": ("yours is (8,)", lambda n, d: table_from(n, d)[3]),
    "angles only": ("some entries differ", lambda n, d: table_from(n, d, functions=(float, float))),
    "integers": ("some entries differ", table_of_integers),
    "rows in a list": ("torch.stack", lambda n, d: list(table_by_tensors(n, d))),
    "half as wide": ("yours is (10, 4)", lambda n, d: table_by_tensors(n, d)[:, ::2]),
}

# 04c-wavelength

RIGHT["04c-wavelength"] = [628, 628.32, 2 * np.pi * 100, torch.tensor(200 * math.pi)]
WRONG["04c-wavelength"] = {
    "divisor": ("a full wave is 2π", 100),
    "half a wave": ("half a wave", 100 * math.pi),
    "exponent 1/4": ("2i / d_model", 20 * math.pi),
    "longest": ("longest wave", 62832),
    "shortest": ("shortest wave", 6.28),
    "frequency": ("is not 2π times", 0.01),
    "near": ("is not 2π times", 626),
    "text": ("give a number", "200π"),
}

# 04c-shift


def blocks(k, d, block, frequency=lambda i, d: 10000 ** (-2 * i / d)):
    """A block-diagonal matrix, from c and s of each pair."""
    angles = [k * frequency(i, d) for i in range(d // 2)]
    return torch.block_diag(
        *[torch.tensor(block(math.cos(a), math.sin(a)), dtype=torch.float64) for a in angles]
    )


def turn(c, s):
    return [[c, s], [-s, c]]


def shift_by_numpy(k, d):
    angles = k / 10000 ** (np.arange(0, d, 2) / d)
    matrix = np.diag(np.repeat(np.cos(angles), 2))
    even = np.arange(0, d, 2)
    matrix[even, even + 1] = np.sin(angles)
    matrix[even + 1, even] = -np.sin(angles)
    return matrix


def shift_of_halves(k, d):
    order = [*range(0, d, 2), *range(1, d, 2)]
    return blocks(k, d, turn)[order][:, order]


RIGHT["04c-shift"] = [
    shift_by_numpy,
    lambda k, d: blocks(k, d, turn),
    lambda k, d: blocks(k, d, turn).tolist(),
    lambda k, d: torch.matrix_exp(
        torch.log(torch.tensor(1.0))
        + k * blocks(1, d, lambda c, s: [[0, math.atan2(s, c)], [-math.atan2(s, c), 0]])
    ),
]
WRONG["04c-shift"] = {
    "back": ("swap the signs", lambda k, d: blocks(k, d, lambda c, s: [[c, -s], [s, c]])),
    "transposed": ("swap the signs", lambda k, d: blocks(k, d, turn).T),
    "minus k": ("BACK", lambda k, d: blocks(-k, d, turn)),
    "halves": ("alternates", shift_of_halves),
    "one frequency": ("own frequency", lambda k, d: blocks(k, d, turn, lambda i, d: 1)),
    "doubled exponent": (
        "own frequency",
        lambda k, d: blocks(k, d, turn, lambda i, d: 10000 ** (-4 * i / d)),
    ),
    "no minus": ("M PE(pos) is not PE(pos + k)", lambda k, d: blocks(k, d, lambda c, s: [[c, s], [s, c]])),
    "reflection": ("must be the identity", lambda k, d: blocks(k, d, lambda c, s: [[s, c], [c, -s]])),
    "zeros": ("must be the identity", lambda k, d: torch.zeros(d, d)),
    "identity": ("for k = 1", lambda k, d: torch.eye(d)),
    "rows moved": ("for k = 1", lambda k, d: torch.eye(d).roll(k, 0)),
    "always one step": ("must be the identity", lambda k, d: blocks(1, d, turn)),
    "one pair": ("yours is (2, 2)", lambda k, d: turn(math.cos(k), math.sin(k))),
    "a vector": ("yours is (16,)", lambda k, d: table_from(k + 1, d)[k]),
    "swapped": ("your code raised", lambda k, d: blocks(d, k, turn) @ torch.ones(d, d)),
    "blocks in a list": ("torch.stack", lambda k, d: [torch.eye(2) for _ in range(d // 2)]),
}

# 04c-rotate


def rotate_by_loop(x, angles):
    rows = []
    for (a, b), angle in zip(x.tolist(), angles.tolist(), strict=True):
        rows.append([a * math.cos(angle) - b * math.sin(angle), b * math.cos(angle) + a * math.sin(angle)])
    return rows


def rotate_in_place_wrong(x, angles):
    c, s = angles.cos(), angles.sin()
    x[:, 0] = x[:, 0] * c - x[:, 1] * s
    x[:, 1] = x[:, 1] * c + x[:, 0] * s
    return x


def rotate_in_place_right(x, angles):
    c, s, old = angles.cos(), angles.sin(), x[:, 0].clone()
    x[:, 0] = old * c - x[:, 1] * s
    x[:, 1] = x[:, 1] * c + old * s
    return x


def turned(x, c, s, sign=1, dim=-1):
    return torch.stack([x[:, 0] * c - sign * x[:, 1] * s, x[:, 1] * c + sign * x[:, 0] * s], dim=dim)


RIGHT["04c-rotate"] = [
    rotate_by_loop,
    rotate_in_place_right,
    lambda x, angles: np.array(rotate_by_loop(x, angles)),
    lambda x, angles: torch.view_as_real(
        torch.view_as_complex(x) * torch.polar(torch.ones_like(angles), angles)
    ),
    lambda x, angles: turned(x.double(), angles.double().cos(), angles.double().sin()),
]
WRONG["04c-rotate"] = {
    "clockwise": ("clockwise", lambda x, a: turned(x, a.cos(), a.sin(), sign=-1)),
    "already changed entry": ("old first entry", rotate_in_place_wrong),
    "no minus": (
        "keep the length",
        lambda x, a: torch.stack(
            [x[:, 0] * a.cos() + x[:, 1] * a.sin(), x[:, 1] * a.cos() + x[:, 0] * a.sin()], -1
        ),
    ),
    "sine and cosine swapped": ("sine and cosine in place", lambda x, a: turned(x, a.sin(), a.cos())),
    "degrees": ("in radians", lambda x, a: turned(x, a.deg2rad().cos(), a.deg2rad().sin())),
    "one angle for all": (
        "the angles are not",
        lambda x, a: turned(x, a[0].cos(), a[0].sin()) if len(a) > 1 else turned(x, a.cos(), a.sin()),
    ),
    "unchanged": ("the angles are not", lambda x, a: x),
    "transposed": ("here (1, 2); yours is (2, 1)", lambda x, a: turned(x, a.cos(), a.sin(), dim=0)),
    "joined": ("yours is (2,)", lambda x, a: turned(x, a.cos(), a.sin()).flatten()),
    "two columns": ("torch.stack", lambda x, a: tuple(turned(x, a.cos(), a.sin(), dim=0).expand(2, 5))),
    "first row only": ("here (6, 2); yours is (1, 2)", lambda x, a: turned(x, a.cos(), a.sin())[:1]),
    "columns mixed with angles": ("your code raised RuntimeError", lambda x, a: x * a.cos()),
    "swapped": ("your code raised", lambda x, a: turned(a, x.cos(), x.sin())),
}


def listed(answers):
    return [
        pytest.param(name, answer, id=f"{name}: {i}")
        for name in answers
        for i, answer in enumerate(answers[name])
    ]


@pytest.mark.parametrize(("name", "answer"), listed(RIGHT))
def test_another_right_answer_is_correct(name, answer):
    kind, sentence = verdict(name, answer)
    assert kind == "correct", sentence


@pytest.mark.parametrize(
    ("name", "fragment", "answer"),
    [
        pytest.param(name, *answer, id=f"{name}: {slip}")
        for name, slips in WRONG.items()
        for slip, answer in slips.items()
    ],
)
def test_a_usual_mistake_is_named(name, fragment, answer):
    kind, sentence = verdict(name, answer)
    assert kind == "wrong", sentence
    assert fragment in sentence


def test_a_branch_without_return_is_not_yet():
    assert verdict("03c-schedule", rate_returns_in_warmup_only)[0] == "not yet"


def test_every_exercise_of_these_chapters_has_its_answers():
    chapters = ("00", "03a", "03b", "03c", "04a", "04b", "04c")
    elsewhere = {"03b-jaccard", "03b-bands", "03b-luhn"}  # tests/test_exercises_03b.py
    here = {name for name in EXERCISES if name.split("-")[0] in chapters} - elsewhere
    assert here == set(RIGHT) & here == set(WRONG) & here
    assert all(len(RIGHT[name]) >= 2 and len(WRONG[name]) >= 3 for name in here)
    assert {get_exercise(name).name for name in RIGHT} == set(RIGHT)
