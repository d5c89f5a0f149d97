"""Random regular expressions, and texts out of an automaton."""

import random

import numpy as np

CHARACTERS = ["a", "b", "z", "0", "9", "_", " ", '"', "-", "\n", "é", "ß", "€", "\u2028", "😀", "\ufffd"]
ATOMS = [r"\d", r"\w", r"\s", r"\D", r"\W", r"\S", ".", r"\n", r"\"", r"\x41", r"\u00e9", r"\."]
CLASSES = ["[ab]", "[a-z]", "[^a]", '[^\\n"]', "[é-€]", "[^é-😀]", "[-a]", "[\\d_]", "[^\\w\\s]", "[\\-\\]]"]
QUANTIFIERS = ["*", "+", "?", "{2}", "{1,}", "{0,2}", "{1,3}"]


def random_pattern(rng: random.Random, depth: int = 3, endless: bool = True, atoms=None) -> str:
    """Return an expression that `re` and the course read alike; without endless ones, of bounded length."""
    kind = rng.choice("abcdssqqgo" if depth else "abc")
    if kind in "abcd" and atoms:
        return rng.choice(atoms)
    if kind in "ab":
        return rng.choice([c for c in CHARACTERS if c != "-"])
    if kind == "c":
        return rng.choice(ATOMS)
    if kind == "d":
        return rng.choice(CLASSES)
    inner = [random_pattern(rng, depth - 1, endless, atoms) for _ in range(rng.randint(1, 3))]
    if kind == "s":
        return "".join(inner)
    if kind == "q":
        choices = QUANTIFIERS if endless else ["?", "{2}", "{0,2}"]
        return f"(?:{''.join(inner)}){rng.choice(choices)}"
    if kind == "g":
        return f"({'|'.join(inner)})"
    return f"(?:{'|'.join(inner)}|)"


def steps_to_end(automaton) -> np.ndarray:
    """Return how many bytes at least end a text, for each state."""
    sources: list[list[int]] = [[] for _ in range(len(automaton))]
    for state in range(len(automaton)):
        for _, _, target in automaton.edges(state):
            sources[target].append(state)
    far = np.full(len(automaton), -1)
    level = np.flatnonzero(automaton.accepting).tolist()
    far[level] = steps = 0
    while level:
        steps += 1
        level = list({source for target in level for source in sources[target] if far[source] < 0})
        far[level] = steps
    return far


def sample(automaton, rng: random.Random, long: int = 40) -> bytes:
    """Return a text of the automaton; after `long` bytes, it ends as soon as it can."""
    data, state, far = bytearray(), 0, None
    while not automaton.accepting[state] or (rng.random() < 0.7 and len(data) < long):
        edges = automaton.edges(state)
        if not edges:
            break
        if len(data) >= long:
            far = steps_to_end(automaton) if far is None else far
            edges = [edge for edge in edges if far[edge[2]] < far[state]]
        low, high, state = rng.choice(edges)
        data.append(rng.randint(low, high))
    return bytes(data)


def spoiled(text: str, rng: random.Random) -> str:
    """Return the text with one character left out, put in, or exchanged."""
    i = rng.randrange(len(text) + 1)
    return text[:i] + rng.choice(["", *CHARACTERS]) + text[i + rng.randint(0, 1) :]
