"""Tables of answers that learners give, tried on the checks: right ones, and wrong ones with a word of what is said."""

from llmcourse.teach.checks import verdict


def assert_right(name, answers):
    """Each answer in a list is correct."""
    said = [(i, *verdict(name, answer)) for i, answer in enumerate(answers)]
    assert not [line for line in said if line[1] != "correct"]


def assert_wrong(name, slips):
    """Each answer in {slip: (fragment, answer)} is wrong, and what is said to it holds the fragment."""
    failed = []
    for slip, (fragment, answer) in slips.items():
        kind, sentence = verdict(name, answer)
        if kind != "wrong" or fragment not in sentence or "\n" in sentence or len(sentence) > 700:
            failed.append(f"{slip}: {kind}, wanted {fragment!r} in {sentence!r}")
    assert not failed, "\n".join(failed)


def numbered(pairs):
    """A table of (answer, fragment) pairs whose fragment says what the slip is."""
    return {f"{i}: {fragment}": (fragment, answer) for i, (answer, fragment) in enumerate(pairs)}
