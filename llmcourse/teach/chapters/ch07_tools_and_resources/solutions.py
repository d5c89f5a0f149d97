"""Solutions of `07_tools_and_resources`: a right answer to each exercise."""


def is_older(installed, needed):
    """Compare number by number, after the shorter version was filled up with zeros."""
    parts = [[int(part) for part in v.split("+")[0].split(".")] for v in (installed, needed)]
    longest = max(map(len, parts))
    first, second = (numbers + [0] * (longest - len(numbers)) for numbers in parts)
    return first < second


def missing(card, needed):
    """Collect the rows that say something, then look each needed name up."""
    said = set()
    for line in card.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) >= 4 and cells[2]:
            said.add(cells[1].lower())
    return [name for name in needed if name.lower() not in said]


SOLUTIONS = {
    "07-older": is_older,
    "07-card": missing,
    "07-licence": {
        "A": "permissive",
        "B": "copyleft",
        "C": "rules of use",
        "D": "none",
        "E": "threshold",
        "F": "copyleft",
    },
}
