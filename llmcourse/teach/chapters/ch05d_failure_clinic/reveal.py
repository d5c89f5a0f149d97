"""After the guessing: what was done to a patient, and the rule that it teaches."""

import html
import inspect

from llmcourse.monitor.diagnose import RULES
from llmcourse.monitor.planted_bugs import BUGS
from llmcourse.teach.chapters.ch05d_failure_clinic.illnesses import recognize
from llmcourse.teach.chapters.ch05d_failure_clinic.patients import HEALTHY, ROUNDS
from llmcourse.teach.exercises import NotRight
from llmcourse.teach.forms import by_name

NOTES = {  # what else the record of a patient shows, for the reveal
    "A": "Before training the loss is below ln V: with tied ends an untrained model prefers the tokens in "
    "its input, and here the answer is among them.",
    "C": "Before training the loss is below ln V: with tied ends an untrained model prefers the token just "
    "read, and here that is the target. Pairs find its own text cheap because it repeats one character.",
    "G": "It still copies the token just read in most places, as an untrained model with tied ends does. "
    "With targets not shifted that would be rewarded, and the loss would be low.",
    "N": "Every curve looks healthy, and only the second measurement differs.",
    "O": "Its text begins otherwise: these are the same eight characters, encoded with the one alphabet and "
    "decoded with the other.",
}


def reveal(round_name: str, answer=None):
    """Show, folded, what was done to the patients of a round that `answer` names right; without it, to all.

    So no patient is given away to somebody who is still guessing, nor in an output that was stored.
    """
    from IPython.display import HTML

    truth = ROUNDS[round_name]
    named = truth if answer is None else _named_right(truth, answer)
    folds = [_fold(letter, name) for letter, name in truth.items() if letter in named]
    if missing := [letter for letter in truth if letter not in named]:
        all_of_them = html.escape(f'reveal("{round_name}")', quote=False)
        folds.append(
            f"<p>{', '.join(missing)}: not named yet. A patient opens here when you name it right; "
            f"<code>{all_of_them}</code> shows all.</p>"
        )
    return HTML("".join(folds))


def _named_right(truth: dict[str, str], answer) -> list[str]:
    try:
        given = by_name(answer, tuple(truth), HEALTHY)
    except NotRight:
        return []
    said = {letter: guess for letter, guess in given.items() if guess not in (None, ...)}
    return [letter for letter, name in truth.items() if letter in said and recognize(said[letter]) == name]


def _fold(letter: str, name: str) -> str:
    remedies = {rule_name: remedy for rule_name, _, remedy in RULES}
    source = inspect.getsource(BUGS[name]) if name in BUGS else "# nothing was done\n"
    rule = remedies.get(name, "One run is one draw: compare with several healthy ones before you worry.")
    note = f" <b>Seen in {letter}:</b> {html.escape(NOTES[letter])}" if letter in NOTES else ""
    return (
        f"<details><summary>Patient {letter}</summary><b>{name}</b>"
        f"<pre>{html.escape(source)}</pre><b>Rule:</b> {html.escape(rule)}{note}</details>"
    )
