"""What the course's speakers say: strings of digits, and short sentences about a house, its people and its trains."""

import random

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WORDS = {
    "number": (
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "twenty",
        "thirty",
    ),
    "unit": ("minutes", "hours", "days"),
    "switch": ("turn on", "turn off", "find", "repair"),
    "thing": ("lamp", "radio", "heater", "window", "camera", "printer"),
    "room": ("kitchen", "garden", "bedroom", "office", "cellar"),
    "name": ("anna", "peter", "maria", "david", "susan", "martin"),
    "city": ("london", "paris", "berlin", "rome", "madrid", "vienna"),
    "vehicle": ("train", "bus", "plane", "ship"),
    "day": ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"),
    "part": ("morning", "evening", "afternoon"),
    "colour": ("red", "green", "yellow", "brown"),
    "goods": ("apples", "lemons", "flowers", "bottles", "candles"),
    "say": ("call", "write to", "wait for", "visit"),
}
SENTENCES = (
    "{switch} the {thing} in the {room}",
    "set a timer for {number} {unit}",
    "{say} {name} on {day} {part}",
    "the {vehicle} to {city} leaves at {number} {number}",
    "what is the weather in {city} on {day}",
    "{name} wants {number} {colour} {goods}",
    "please bring {number} {goods} to the {room}",
    "{name} and {name} take the {vehicle} from {city}",
)


def digit_strings(n: int, seed: int = 0, most: int = 7) -> list[str]:
    """Return `n` strings of 1 to `most` digits as words; each length is equally frequent.

    >>> digit_strings(2, seed=1)
    ['nine one', 'one seven seven']
    """
    rng = random.Random(seed)
    return [" ".join(rng.choice(DIGITS) for _ in range(rng.randint(1, most))) for _ in range(n)]


def phrases(n: int, seed: int = 0) -> list[str]:
    """Return `n` different sentences, drawn from the 6,762 that there are.

    >>> phrases(1, seed=4)
    ['the ship to vienna leaves at five two']
    """
    if not 0 <= n <= 6762:
        raise ValueError(f"n={n}: there are 6762 sentences")
    rng, found = random.Random(seed), {}
    while len(found) < n:
        sentence = rng.choice(SENTENCES)
        for kind, words in WORDS.items():
            while f"{{{kind}}}" in sentence:
                sentence = sentence.replace(f"{{{kind}}}", rng.choice(words), 1)
        found[sentence] = None
    return list(found)


def vocabulary() -> list[str]:
    """Return all words that are said, in order.

    >>> len(vocabulary())
    89
    """
    fixed = {word for sentence in SENTENCES for word in sentence.split() if "{" not in word}
    spoken = {word for words in WORDS.values() for phrase in words for word in phrase.split()}
    return sorted(fixed | spoken | set(DIGITS))
