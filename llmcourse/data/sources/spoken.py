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
NEW_WORDS = {  # no training of a voice says them, but all their sounds
    "number": ("eleven", "seventy", "sixty", "ninety"),
    "thing": ("kettle", "freezer", "monitor", "scanner"),
    "room": ("attic", "studio", "chapel", "basement"),
    "name": ("robert", "helen", "monica", "edward"),
    "city": ("boston", "dublin", "lisbon", "oslo"),
    "goods": ("melons", "pencils", "carrots", "ribbons"),
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
        found[_fill(rng.choice(SENTENCES), WORDS, rng)] = None
    return list(found)


def phrases_with_new_words(n: int, seed: int = 0) -> list[str]:
    """Return `n` different sentences of the same forms; each has a word of `NEW_WORDS`.

    >>> phrases_with_new_words(1, seed=1)
    ['wait for edward on sunday morning']
    """
    forms = [form for form in SENTENCES if any(f"{{{kind}}}" in form for kind in NEW_WORDS)]
    rng, found = random.Random(seed), {}
    new = {word for words in NEW_WORDS.values() for word in words}
    both = {kind: words + NEW_WORDS.get(kind, ()) for kind, words in WORDS.items()}
    while len(found) < n:
        sentence = _fill(rng.choice(forms), both, rng)
        if new & set(sentence.split()):
            found[sentence] = None
    return list(found)


def _fill(sentence: str, words: dict[str, tuple[str, ...]], rng: random.Random) -> str:
    for kind, choice in words.items():
        while f"{{{kind}}}" in sentence:
            sentence = sentence.replace(f"{{{kind}}}", rng.choice(choice), 1)
    return sentence


def vocabulary() -> list[str]:
    """Return all words that are said, in order.

    >>> len(vocabulary())
    89
    """
    fixed = {word for sentence in SENTENCES for word in sentence.split() if "{" not in word}
    spoken = {word for words in WORDS.values() for phrase in words for word in phrase.split()}
    return sorted(fixed | spoken | set(DIGITS))
