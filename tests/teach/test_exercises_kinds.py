"""All exercises at once: forms in which a right answer comes, and variants that are never right.

Each variant is made from the solution by a rule, so that a new exercise meets all of them.
"""

import functools
import inspect
import random
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch

from llmcourse.teach import examine as examine_module
from llmcourse.teach.checks import verdict
from llmcourse.teach.exercises import all_exercises, get_solution

EXERCISES = {exercise.name: exercise for exercise in all_exercises()}
SOLUTIONS = {name: get_solution(name) for name in EXERCISES}
FUNCTIONS = [name for name, exercise in EXERCISES.items() if exercise.wants == "function"]
SLOW = ("03e-bootstrap", "05c-accumulate", "05d-causality")  # some of the variants are enough for these
VALUES = [name for name in EXERCISES if type(SOLUTIONS[name]) in (int, float)]


# ---- the forms of one result ----------------------------------------------------------------


def is_number(x):
    return isinstance(x, int | float) and not isinstance(x, bool)


def plain(x):
    """A result with all numbers of libraries as Python's, tensors left as they are."""
    if isinstance(x, np.generic):
        return x.item()
    if isinstance(x, torch.Tensor):
        return x.item() if x.ndim == 0 else x.float() if x.dtype == torch.bool else x
    return [plain(y) for y in x] if isinstance(x, list | tuple) else x


def every(change):
    """Apply a change to each number and tensor of a result."""

    def changed(x):
        x = plain(x)
        if isinstance(x, list):
            return [changed(y) for y in x]
        return change(x) if is_number(x) or isinstance(x, torch.Tensor) else x

    return changed


def numbers_as(kind):
    return every(lambda x: kind(x) if is_number(x) else x)


def tensors_as(kind):
    return every(lambda x: kind(x) if isinstance(x, torch.Tensor) else x)


def lists_as(kind):
    """A one-dimensional result as another ordered collection; any other stays as it is."""

    def changed(x):
        x = plain(x)
        if isinstance(x, torch.Tensor) and x.ndim == 1:
            return kind(x.tolist())
        return kind(x) if isinstance(x, list) else x

    return changed


def coarse(x):
    """Bfloat16, where it does not lose what the exercise is about: whole numbers stay as they are."""
    whole = x == round(x, 0) if is_number(x) else bool((x.double() == x.double().round()).all())
    return x if whole else torch.as_tensor(x).bfloat16()


def backwards_in_memory(x):
    return np.ascontiguousarray(x.detach().numpy()[..., ::-1])[..., ::-1]


FORMS = {
    "Python numbers and lists": lists_as(list),
    "tuples": lists_as(tuple),
    "an iterator": lists_as(iter),
    "the view of a dictionary": lists_as(lambda x: dict(enumerate(x)).values()),
    "numpy scalars": numbers_as(np.float64),
    "float32 scalars": numbers_as(lambda x: np.float32(x) if abs(x) < 1e6 else x),
    "fractions": numbers_as(lambda x: Fraction(x) if abs(x) < float("inf") else x),
    "arrays without a dimension": numbers_as(np.array),
    "arrays with one entry": numbers_as(lambda x: np.array([[x]])),
    "0-d tensors": numbers_as(lambda x: torch.tensor(x, dtype=torch.float64)),
    "tensors with one entry": numbers_as(lambda x: torch.tensor([x], dtype=torch.float64)),
    "numbers with a graph": numbers_as(
        lambda x: torch.tensor(float(x), dtype=torch.float64, requires_grad=True)
    ),
    "arrays": tensors_as(lambda x: x.detach().numpy()),
    "arrays with negative strides": tensors_as(backwards_in_memory),
    "arrays that cannot be written": tensors_as(lambda x: np.broadcast_to(x.detach().numpy(), x.shape)),
    "nested lists": tensors_as(lambda x: x.tolist()),
    "nested tuples": tensors_as(lambda x: tuple(map(tuple, x.tolist())) if x.ndim == 2 else x.tolist()),
    "float64": tensors_as(lambda x: x.double()),
    "bfloat16": every(coarse),
    "tensors with a graph": tensors_as(lambda x: x.double().requires_grad_()),
    "not contiguous": tensors_as(lambda x: x.repeat_interleave(2, dim=-1)[..., ::2]),
}


def returning(solution, change):
    return lambda *arguments: change(solution(*arguments))


def changing(name, changes, same):
    """Those changes of a result that change anything in what the solution returns to its check."""
    results = []
    verdict(name, returning(SOLUTIONS[name], lambda x: results.append(x) or x))
    return {
        title: change for title, change in changes.items() if not all(same(change(x), x) for x in results)
    }


def alike(a, b):
    """Whether two results are equal and of the same types."""
    if isinstance(a, list | tuple) and type(a) is type(b):
        return len(a) == len(b) and all(map(alike, a, b))
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and equal(a, b) and a.requires_grad == b.requires_grad
    return type(a) is type(b) and not isinstance(a, np.ndarray) and a == b


def equal(a, b):
    """Whether two results have the same values."""
    a, b = plain(a), plain(b)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.shape == b.shape and torch.equal(a.to(torch.complex128), b.to(torch.complex128))
    return is_number(a) == is_number(b) and type(a) is not dict and a == b


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_right_result_is_right_in_every_form(name):
    for form, change in changing(name, FORMS, alike).items():
        kind, sentence = verdict(name, returning(SOLUTIONS[name], change))
        assert kind == "correct", f"{form}: {sentence}"


@pytest.mark.parametrize("name", VALUES)
def test_a_right_value_is_right_in_every_form(name):
    for form, change in FORMS.items():
        kind, sentence = verdict(name, change(SOLUTIONS[name]))
        assert kind == "correct", f"{form}: {sentence}"


# ---- the forms of one function --------------------------------------------------------------


class Callable:
    __slots__ = ("function",)  # not even a __dict__

    def __init__(self, function):
        self.function = function

    def __call__(self, *arguments):
        return self.function(*arguments)

    def method(self, *arguments):
        return self.function(*arguments)


def decorated(function):
    @functools.wraps(function)
    def wrapper(*arguments, **options):
        return function(*arguments, **options)

    return wrapper


def rewritten(head):
    """A change that gives a function another list of parameters, with the names and defaults of the stub."""

    def change(function):
        parameters = inspect.signature(function).parameters
        bare = [p.replace(annotation=inspect.Parameter.empty) for p in parameters.values()]
        scope = {"function": function}
        listed = head.format(", ".join(map(str, bare)))
        exec(f"def answer({listed}): return function({', '.join(parameters)})", scope)
        return scope["answer"]

    return change


def spoiling(function):
    """A function that overwrites what it was given, after it has computed its result."""

    def spoil(x):
        if isinstance(x, torch.Tensor):
            x.zero_()
        elif isinstance(x, np.ndarray):
            x.fill(0)
        elif isinstance(x, list):
            [spoil(y) for y in x]
            x.clear()

    def answer(*arguments):
        result = function(*arguments)
        result = result.clone() if isinstance(result, torch.Tensor) else result
        result = (
            [x.clone() if isinstance(x, torch.Tensor) else x for x in result]
            if isinstance(result, list | tuple)
            else result
        )
        spoil(list(arguments))
        return result

    return answer


def into_a_buffer(function):
    """A function that returns the same object each time, with new content."""
    buffers = {}

    def answer(*arguments):
        result = function(*arguments)
        if not isinstance(result, torch.Tensor):
            return result
        return buffers.setdefault(result.shape, torch.empty_like(result)).copy_(result)

    return answer


SHAPES = {
    "a partial": functools.partial,
    "an object that can be called": Callable,
    "a method": lambda f: Callable(f).method,
    "a decorated function": decorated,
    "by keyword only": rewritten("*, {}"),
    "by place only": rewritten("{}, /"),
    "without gradients": lambda f: torch.no_grad()(f),
}


@pytest.mark.parametrize("name", ["00-mean", "03a-rmsnorm", "03b-luhn", "04b-cache", "05c-clip"])
def test_a_right_function_is_right_in_every_shape(name):
    for shape, change in SHAPES.items():
        kind, sentence = verdict(name, change(SOLUTIONS[name]))
        assert kind == "correct", f"{shape}: {sentence}"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_may_have_options_and_reuse_memory(name):
    solution = SOLUTIONS[name]
    answers = [into_a_buffer(rewritten("{}, verbose=False, *, dim=-1")(solution)), spoiling(solution)]
    for answer in answers[: 1 if EXERCISES[name].keeps else 2]:
        kind, sentence = verdict(name, answer)
        assert kind == "correct", sentence


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if EXERCISES[name].keeps])
def test_what_must_stay_as_it_is_is_watched(name):
    kind, sentence = verdict(name, spoiling(SOLUTIONS[name]))
    assert (kind, "work on a clone" in sentence) == ("wrong", True), sentence


# ---- what a check leaves behind -------------------------------------------------------------


def state():
    legacy = np.random.get_state()  # noqa: NPY002 - what a learner's cells use
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), legacy[1].tobytes(), legacy[2]


@pytest.mark.parametrize("name", EXERCISES)
def test_a_check_leaves_generators_and_settings_as_they_were(name):
    solution = SOLUTIONS[name]

    def meddles(*arguments):
        result = solution(*arguments)
        torch.manual_seed(1), np.random.seed(1), random.seed(1)  # noqa: NPY002
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float16)
        return result

    before = state()
    verdict(name, meddles if callable(solution) else solution)
    assert state() == before
    assert torch.is_grad_enabled()
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize(
    "name", ["03a-rmsnorm", "03c-loss", "03e-bootstrap", "05c-accumulate", "05d-causality"]
)
def test_a_check_does_not_depend_on_the_settings_of_the_notebook(name):
    solution = SOLUTIONS[name]
    with torch.no_grad(), torch.device("meta"):
        torch.set_default_dtype(torch.float64)
        try:
            assert verdict(name, solution)[0] == "correct"
        finally:
            torch.set_default_dtype(torch.float32)


# ---- variants that are never right ----------------------------------------------------------


def over_tensors(change):
    return every(lambda x: change(x) if isinstance(x, torch.Tensor) else x)


def rolled(step, dim):
    return over_tensors(lambda x: x.roll(step, dim) if x.ndim > dim else x)


VARIANTS = {
    "1 % too large": every(lambda x: 1.01 * x),
    "rounded to 2 digits": every(lambda x: round(x, 2) if is_number(x) else x.float().round(decimals=2)),
    "the other sign": every(lambda x: -x),
    "one too large": every(lambda x: x + 1),
    "shifted along dimension 0": rolled(1, 0),
    "shifted back along dimension 0": rolled(-1, 0),
    "shifted along dimension 1": rolled(1, 1),
    "shifted along the last dimension": over_tensors(lambda x: x.roll(1, -1)),
    "transposed": over_tensors(lambda x: x.mT if x.ndim > 1 else x.flip(0)),
    "the first two dimensions exchanged": over_tensors(
        lambda x: x.transpose(0, 1) if x.ndim > 1 else x.flip(0)
    ),
    "one dimension more": over_tensors(lambda x: x[None]),
    "the last row missing": over_tensors(lambda x: x[:-1]),
    "the other way round": lists_as(lambda x: x[::-1]),
    "inside out": lambda x: (not x) if isinstance(x, bool) else every(lambda y: 1 - y)(x),
    "nan": every(lambda x: x * float("nan")),
    "zero": every(lambda x: 0 * x),
    "complex": every(lambda x: x + 0j),
    "as a text": lambda x: str(x),
    "in a dictionary": lambda x: {"answer": x},
    "with one more": lambda x: (x, 0),
}
RIGHT_ALL_THE_SAME = {  # (exercise, variant): why
    ("04a-query", "1 % too large"): "any long vector in the direction of the key will do",
    ("04a-query", "rounded to 2 digits"): "any vector near the direction of the key will do",
    ("04a-query", "one too large"): "any vector that is long in the direction of the key will do",
    ("03e-bootstrap", "1 % too large"): "chance alone moves the ends by more",
    ("03d-mask", "one dimension more"): "a row of one chat, or the chat alone",
    ("05a-worst", "one dimension more"): "a row of places, or the places alone",
    ("03e-bootstrap", "one dimension more"): "a row of two numbers, or the two alone",
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_variant_of_the_solution_is_not_right(name):
    for variant, change in changing(name, VARIANTS, equal).items():
        if (name, variant) not in RIGHT_ALL_THE_SAME:
            kind, sentence = verdict(name, returning(SOLUTIONS[name], change))
            assert kind == "wrong", f"{variant}: accepted"
            assert "check cannot read" not in sentence, f"{variant}: {sentence}"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_answer_for_the_first_example_alone_is_not_right(name):
    """What the check tries first could be read off its sentences, and written down."""
    first = []

    def answer(*arguments):
        first.append(SOLUTIONS[name](*arguments))
        return first[0]

    assert verdict(name, answer)[0] == "wrong"


# ---- each slip that a check knows has a sentence of its own ---------------------------------


@functools.cache
def known_slips(name):
    """(sentence, function or value) of each slip in the check of an exercise, by running it on the solution."""
    found = []

    def record(slips):
        for sentence, wrong in (slips or {}).items():
            for one in wrong if isinstance(wrong, tuple) else (wrong,):
                found.append((sentence, one))

    def examine(answer, right, cases, slips=None, *arguments, **options):
        record(slips)
        return examine_module.examine(answer, right, cases, slips, *arguments, **options)

    def compare(value, right, slips, *arguments, **options):
        record(slips)
        return examine_module.compare(value, right, slips, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        module = sys.modules[EXERCISES[name].check.__module__]
        for function in (examine, compare):
            if hasattr(module, function.__name__):
                patch.setattr(module, function.__name__, function)
        verdict(name, SOLUTIONS[name])
    return found


@pytest.mark.parametrize("name", EXERCISES)
def test_each_slip_that_a_check_knows_gets_its_own_sentence(name):
    """So no sentence claims a cause that another slip has too, as far as the check's examples show."""
    for sentence, wrong in known_slips(name):
        if name == "02-points":
            continue  # its slips are for one of the two numbers: see test_ch02_core_concepts.py
        if callable(wrong) or name in VALUES:
            kind, said = verdict(name, wrong)
            assert kind == "wrong", sentence
            assert said.startswith(sentence), f"meant: {sentence}\nsaid: {said}"
