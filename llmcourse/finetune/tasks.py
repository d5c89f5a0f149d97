"""Instruction tasks made from the plays, whose answers a rule can verify.

A task is a question about a short speech: who speaks, the last word, the number of lines, and so
on. The answer follows from the text, so nobody has to label anything, and a right answer for an
unseen play shows that the question was understood and not that the play was remembered.
"""

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from llmcourse.data.sources.plays import Play

SPEECH = re.compile(r"^([A-Z][A-Z' .-]*[A-Z]):\n((?:[^\n]+\n)+)", re.MULTILINE)
STAGE_DIRECTION = re.compile(r"\[[^\]\n]*\]")
WORD = re.compile(r"[A-Za-z]+(?:['-][A-Za-z]+)*")
THOU = {"thou", "thee", "thy", "thine", "thyself"}
YOU = {"you", "your", "yours", "yourself", "ye"}


@dataclass(frozen=True)
class Speech:
    """One speech: who speaks, and the lines without stage directions."""

    speaker: str
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """The speech as the plays print it."""
        return f"{self.speaker}:\n" + "\n".join(self.lines)


@dataclass(frozen=True)
class Task:
    """One question with its only right answer; `kind` is a key of QUESTIONS."""

    kind: str
    prompt: str
    answer: str


def _words(speech: Speech) -> list[str]:
    return WORD.findall(" ".join(speech.lines))


def _manner(speech: Speech) -> str:
    """Return how the speaker addresses the other: the intimate thou, or the polite you."""
    words = {word.lower() for word in _words(speech)}
    thou, you = bool(words & THOU), bool(words & YOU)
    return {(True, False): "thou", (False, True): "you", (True, True): "both"}.get((thou, you), "neither")


QUESTIONS = {  # kind -> (what the user asks, the rule that answers it)
    "question": ("Is it a question?", lambda speech: "Yes" if speech.lines[-1].endswith("?") else "No"),
    "lines": ("How many lines?", lambda speech: str(len(speech.lines))),
    "manner": ("Thou or you?", _manner),
    "speaker": ("Who speaks?", lambda speech: speech.speaker),
    "first word": ("What is the first word?", lambda speech: _words(speech)[0]),
    "last word": ("What is the last word?", lambda speech: _words(speech)[-1]),
}
CHOOSE = ("question", "lines", "manner")  # the answer is one of two or four
COPY = ("speaker", "first word", "last word")  # the answer stands in the text


def find_speeches(play: Play, max_lines: int = 4, max_characters: int = 120) -> list[Speech]:
    """Return the short speeches of a play that hold at least two words, in their order.

    >>> find_speeches(Play("t", "g", "HAMLET:" + chr(10) + "To be, or not" + chr(10)))[0].speaker
    'HAMLET'
    """
    speeches = []
    for speaker, body in SPEECH.findall(play.text):
        lines = tuple(line for raw in body.splitlines() if (line := STAGE_DIRECTION.sub("", raw).strip()))
        speech = Speech(speaker, lines)
        fits = 1 <= len(lines) <= max_lines and len(" ".join(lines)) <= max_characters
        if fits and len(_words(speech)) >= 2:
            speeches.append(speech)
    return speeches


def ask(kind: str, speech: Speech) -> Task:
    """Return the task `kind` about a speech. Raises ValueError for an unknown kind."""
    if kind not in QUESTIONS:
        raise ValueError(f"kind={kind!r} is unknown: choose one of {sorted(QUESTIONS)}")
    question, answer = QUESTIONS[kind]
    return Task(kind, f"{question}\n{speech.text}", answer(speech))


def make_tasks(
    plays: Sequence[Play],
    n_tasks: int,
    seed: int = 0,
    kinds: Sequence[str] = tuple(QUESTIONS),
    max_characters: int = 120,
    invented_names: float = 0.0,
) -> list[Task]:
    """Return `n_tasks` tasks about speeches of `plays`: all kinds equally often, in random order.

    No speech is used twice for one kind. Where the answer is one of a few, each is drawn equally
    often as far as the plays allow, so that guessing does not pay. In the share `invented_names`
    of the tasks "speaker", words of the plays take the place of the name: whoever learns the names
    by heart learns nothing, whoever copies does.
    Raises ValueError when the plays hold too few speeches.
    """
    rng = random.Random(seed)
    speeches = [s for play in plays for s in find_speeches(play, max_characters=max_characters)]
    words = sorted({word.upper() for speech in speeches for word in _words(speech) if len(word) > 2})
    tasks = []
    for number, kind in enumerate(kinds):
        wanted = n_tasks // len(kinds) + (number < n_tasks % len(kinds))
        candidates = [ask(kind, speech) for speech in speeches]
        rng.shuffle(candidates)
        if kind in CHOOSE:
            candidates = _balanced(candidates)
        if wanted > len(candidates):
            raise ValueError(
                f"{len(candidates)} short speeches in {len(plays)} plays cannot make {wanted} tasks of the "
                f"kind {kind!r}: ask for fewer tasks, or give more plays"
            )
        candidates = candidates[:wanted]
        if kind == "speaker":
            candidates = [_rename(t, words, rng) if rng.random() < invented_names else t for t in candidates]
        tasks += candidates
    rng.shuffle(tasks)
    return tasks


def _rename(task: Task, words: list[str], rng: random.Random) -> Task:
    name = " ".join(rng.sample(words, min(len(words), rng.choice([1, 1, 2, 2, 3]))))
    return Task(task.kind, task.prompt.replace(f"{task.answer}:\n", f"{name}:\n", 1), name)


def _balanced(tasks: list[Task]) -> list[Task]:
    """Order tasks so that every prefix holds each answer about equally often."""
    turn: Counter[str] = Counter()
    keyed = []
    for place, task in enumerate(tasks):
        keyed.append((turn[task.answer], place, task))
        turn[task.answer] += 1
    return [task for *_, task in sorted(keyed, key=lambda item: item[:2])]
