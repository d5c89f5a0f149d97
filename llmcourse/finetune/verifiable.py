"""Tasks whose answers a rule checks, so that nobody has to label or to judge: strings and sums.

A task is a prompt such as "dfabge>" and its only right answer, "egbafd.", which ends with the sign
that closes an answer. All prompts of a kind are equally long, and each belongs to one part: what a
model is tested on it has never seen.

Dimensions: N tasks, T time (tokens).
"""

import hashlib
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from llmcourse.data.batches import pad_right
from llmcourse.finetune.log_probs import answer_log_probs
from llmcourse.finetune.sft import exact_match
from llmcourse.finetune.tasks import Task
from llmcourse.model import GPT
from llmcourse.runtime import evaluating
from llmcourse.support.inputs import number_row, whole

LETTERS, END = "abcdefghij", "."
ALPHABET = LETTERS + "0123456789+>" + END
PARTS = ("training", "validation", "test")  # 8, 1 and 1 of ten
SUMMANDS = range(10, 100)


class Spelling(NamedTuple):
    """How a model reads and writes: a prompt to ids, ids to text, and the id that ends an answer.

    Where an answer is spelled otherwise than a prompt, as in a chat, `encode_answer` does it.
    """

    encode: Callable[[str], list[int]]
    decode: Callable[[Sequence[int]], str]
    end_id: int
    encode_answer: Callable[[str], list[int]] | None = None


CHARACTERS = Spelling(
    encode=lambda text: [ALPHABET.index(character) for character in text],
    decode=lambda ids: "".join(ALPHABET[i] for i in ids),
    end_id=ALPHABET.index(END),
)


def _letters(number: int, n: int) -> str:
    """Return the digits of a number, n of them, as letters."""
    return "".join(LETTERS[int(digit)] for digit in f"{number:0{n}}")


def _sum(number: int) -> tuple[str, str]:
    a, b = (SUMMANDS[place] for place in divmod(number, len(SUMMANDS)))
    return f"{a}+{b}", str(a + b)


KINDS = {  # kind -> (how many there are, number -> what is asked and what is right)
    "reverse": (10**6, lambda number: ((text := _letters(number, 6)), text[::-1])),
    "sort": (10**6, lambda number: ((text := _letters(number, 6)), "".join(sorted(text)))),
    "double": (10**3, lambda number: ((text := _letters(number, 3)), "".join(2 * letter for letter in text))),
    "sum": (len(SUMMANDS) ** 2, _sum),
}


def part_of(question: str) -> str:
    """Return which of PARTS a question belongs to, by a hash of it; 12+34 belongs where 34+12 does.

    >>> part_of("12+34") == part_of("34+12")
    True
    """
    key = "+".join(sorted(question.split("+")))
    place = hashlib.sha256(key.encode()).digest()[0] % 10
    return PARTS[max(0, place - 7)]


def string_tasks(kind: str, n: int, part: str = "training", seed: int = 0) -> list[Task]:
    """Return `n` different tasks of a kind, in random order: no prompt of one part is in another.

    Raises ValueError for an unknown kind or part, and for more tasks than the part holds.

    >>> string_tasks("reverse", 1)
    [Task(kind='reverse', prompt='ccihij>', answer='jihicc.')]
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r} is unknown: choose one of {sorted(KINDS)}")
    if part not in PARTS:
        raise ValueError(f"part={part!r} is unknown: choose one of {PARTS}")
    total, make = KINDS[kind]
    rng, drawn, tasks = random.Random(f"{kind} {seed}"), set(), []
    while len(tasks) < whole(n, "n"):
        if len(drawn) == total:
            raise ValueError(
                f"n={n}: there are {len(tasks)} {part} tasks of the kind {kind!r}; ask for fewer"
            )
        if (number := rng.randrange(total)) not in drawn:
            drawn.add(number)
            question, answer = make(number)
            if part_of(question) == part:
                tasks.append(Task(kind, question + ">", answer + END))
    return tasks


def exact_reward(task: Task, answer: str) -> float:
    """Return 1 for the right answer, its end included, and 0 for any other.

    >>> exact_reward(Task("reverse", "abc>", "cba."), "cba."), exact_reward(Task("reverse", "abc>", "cba."), "cba")
    (1.0, 0.0)
    """
    return float(answer == task.answer)


def letters_reward(task: Task, answer: str) -> float:
    """Return the share of the written characters that stand anywhere in the right answer; 0 for none.

    A stand-in for a reward that looks sensible and is not: whoever repeats one letter gets it all.

    >>> letters_reward(Task("reverse", "abc>", "cba."), "cbd."), letters_reward(Task("reverse", "abc>", "cba."), "aaa.")
    (0.75, 1.0)
    """
    return sum(character in task.answer for character in answer) / max(1, len(answer))


def worked(tasks: Sequence[Task], spelling: Spelling = CHARACTERS) -> list[tuple[list[int], list[bool]]]:
    """Return the ids of each prompt with its answer, and for each id whether it is of the answer.

    This is the form of `finetune.sft`: for its `ChatBatches`, which trains on them, and `exact_match`.

    >>> worked([Task("reverse", "ab>", "ba.")])
    [([0, 1, 21, 1, 0, 22], [False, False, False, True, True, True])]
    """
    of_answer = spelling.encode_answer or spelling.encode
    pairs = [(spelling.encode(task.prompt), of_answer(task.answer)) for task in tasks]
    return [(prompt + answer, [False] * len(prompt) + [True] * len(answer)) for prompt, answer in pairs]


def _some(examples: list) -> list:
    """Return the examples. Raises ValueError if there are none: their mean would be NaN."""
    if not examples:
        raise ValueError("tasks is empty: give at least one to be judged by")
    return examples


def answer_probabilities(
    model: GPT, tasks: Sequence[Task], spelling: Spelling = CHARACTERS, batch_size: int = 256
) -> Tensor:
    """Return (N,): how likely the model, sampled at temperature 1, writes exactly the right answer.

    It is the product of the probabilities of its tokens, so nothing need be drawn; the gradient flows
    where one is wanted. For a text that can be spelled in one way only, it is the expected exact reward.
    """
    device, found, size = next(model.parameters()).device, [], whole(batch_size, "batch_size")
    examples = _some(worked(tasks, spelling))
    with evaluating(model):
        for start in range(0, len(examples), size):
            ids, counts = zip(*examples[start : start + size], strict=True)
            token_ids, mask = pad_right(ids)[0].to(device), pad_right(counts)[0].bool().to(device)
            found.append(answer_log_probs(model, token_ids, mask).exp())
    return torch.cat(found)


@torch.no_grad()
def correct(
    model: GPT, tasks: Sequence[Task], sampled: bool = False, spelling: Spelling = CHARACTERS
) -> Tensor:
    """Return (N,) what the model gets right: 0 or 1 where it always takes the likeliest token.

    `sampled`, it is the share of right ones among answers drawn at temperature 1, without an error
    of drawing (`answer_probabilities`).
    """
    if sampled:
        return answer_probabilities(model, tasks, spelling)
    return torch.tensor(exact_match(model, _some(worked(tasks, spelling)), spelling.end_id, 256)).float()


def accuracy(
    model: GPT, tasks: Sequence[Task], sampled: bool = False, spelling: Spelling = CHARACTERS
) -> float:
    """Return the mean of `correct`: the share of tasks that the model gets right."""
    return correct(model, tasks, sampled, spelling).mean().item()


def pass_at(k: int, probabilities) -> float:
    """Return how often at least one of `k` answers is right, given how likely one is, for each task (N,).

    >>> pass_at(2, [0.5, 0.0])
    0.375

    Raises ValueError for what is no probability. Source: Chen et al. 2021, arXiv:2107.03374, sec. 2.1.
    """
    p = number_row(probabilities, "probabilities", 0.0, 1 + 1e-6, "a probability from 0 to 1")
    return float((1 - (1 - p.clip(max=1)) ** whole(k, "k")).mean())
