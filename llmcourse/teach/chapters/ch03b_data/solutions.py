"""Solutions of `03b_data`: a right answer to each exercise."""


def padding_waste(lengths, context_length):
    """Share of positions that hold padding when each document gets a row of its own."""
    used = sum(min(length, context_length) for length in lengths)
    return 1 - used / (len(lengths) * context_length)


def text_similarity(a, b, n):
    """Jaccard similarity of the sets of runs of `n` words."""
    sets = []
    for words in (a.split(), b.split()):
        sets.append({tuple(words[i : i + n]) for i in range(max(1, len(words) - n + 1))})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def card_number_is_valid(number):
    """The check sum of ISO/IEC 7812: double every second digit from the right."""
    digits = [int(character) for character in number if character.isdigit()][::-1]
    for place in range(1, len(digits), 2):
        doubled = 2 * digits[place]
        digits[place] = doubled - 9 if doubled > 9 else doubled
    return sum(digits) % 10 == 0


SOLUTIONS = {
    "03b-waste": padding_waste,
    "03b-jaccard": text_similarity,
    "03b-bands": round(1 - (1 - 0.7**8) ** 16, 4),
    "03b-luhn": card_number_is_valid,
}
