"""The forms of an answer, and what is said to the errors of torch, numpy and Python."""

import contextlib
import decimal
import math
from fractions import Fraction

import numpy as np
import pandas
import pytest
import torch
import torch.nn.functional as F

from llmcourse.teach.errors import ADVICE, explain
from llmcourse.teach.examine import Calls, close, compare, examine
from llmcourse.teach.exercises import NotRight
from llmcourse.teach.forms import by_name, items, number, several, shown, tensor, text, truth

x, leaf, ints = torch.ones(2, 3, 4), torch.ones(3, requires_grad=True), torch.arange(3)


# ---- converters -----------------------------------------------------------------------------


def test_number_accepts_numbers_of_all_libraries():
    for value in (
        2,
        2.0,
        np.int8(2),
        np.float32(2),
        np.array(2),
        np.array([[2]]),
        torch.tensor(2),
        torch.ones(1) * 2,
    ):
        plain = number(value)
        assert plain == 2
        assert type(plain) in (int, float)
    for value in (True, "2", None, [2], 2j, np.ones(3), torch.ones(0), torch.tensor(True), np.str_("2"), abs):
        with pytest.raises(NotRight, match="give a number, not"):
            number(value)
    with pytest.raises(NotRight) as caught:
        number("x" * 10_000)
    assert len(str(caught.value)) < 100


def test_tensor_accepts_arrays_and_nested_lists():
    wanted = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    for value in (
        wanted.double().requires_grad_(),
        wanted.int(),
        wanted.numpy(),
        np.array([[1, 2], [3, 4]]),
        [[1, 2], [3, 4]],
        ((torch.tensor(1), torch.tensor(2)), (3, 4)),
    ):
        converted = tensor(value)
        assert converted.dtype == torch.float32
        assert not converted.requires_grad
        assert torch.equal(converted, wanted)
    with pytest.raises(NotRight, match="return one tensor, not several"):
        tensor([wanted[0], wanted[1]])
    for value in ("text", [[1], [2, 3]], {}, object(), abs):
        with pytest.raises(NotRight, match="return a tensor, not"):
            tensor(value)


def test_number_takes_other_kinds_of_numbers_and_names_what_is_none():
    assert [number(v) for v in (Fraction(1, 4), decimal.Decimal("0.25"), np.float16(0.25))] == [0.25] * 3
    assert number(math.inf, finite=False) == math.inf
    assert number(torch.tensor(0.1).bfloat16()).precision == 2**-7
    for value, said in (
        (math.nan, "nan, not a number"),
        (torch.tensor(-math.inf), "infinite"),
        (10**5000, "more than 300 digits"),
        (torch.ones(3), "not a tensor of the shape (3,)"),
        (torch.ones(2, 3).max(1), "take one of them, .values or .indices"),
        (torch.linalg.eigh(torch.eye(2)), "take one of them, .eigenvalues or .eigenvectors"),
    ):
        with pytest.raises(NotRight) as caught:
            number(value)
        assert said in str(caught.value)


def test_tensor_takes_what_can_be_read_as_rows_of_numbers():
    wanted = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    for value in (
        np.array([[2, 1], [4, 3]])[:, ::-1],  # negative strides
        np.broadcast_to([[1, 2], [3, 4]], (2, 2)),  # cannot be written
        np.array([[1, 2], [3, 4]], dtype=np.longdouble),
        np.array([[Fraction(1), 2], [3, decimal.Decimal(4)]], dtype=object),
        (range(1, 3), range(3, 5)),
        (row for row in ([1, 2], [3, 4])),
        {"a": [1, 2], "b": [3, 4]}.values(),
        [np.array([1, 2]), np.array([3, 4])],
        wanted.to_sparse(),
        wanted.bfloat16(),
        torch.nn.Parameter(wanted),
    ):
        assert torch.equal(tensor(value), wanted)
    assert tensor([True, False]).tolist() == [1, 0]
    kept = wanted.clone()
    converted = tensor(kept)
    kept.zero_()
    assert torch.equal(converted, wanted)  # a copy: the learner may use the memory again


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (torch.ones(2, 3).max(-1), ".values or .indices"),
        (torch.ones(2, 3).sort(-1)[:], "a pair of values and indices"),
        ([torch.ones(2), torch.ones(2)], "torch.stack or torch.cat"),
        (torch.ones(2) * 1j, "real numbers"),
        (np.ones(2) * 1j, "real numbers"),
        ([1, None], "return a tensor, not [1, None]"),
        (["1", "2"], "return a tensor, not ['1', '2']"),
        ({1, 2}, "a set, which has no order"),
        (np.array([None, "1"], dtype=object), "return a tensor, not an array"),
        (abs, "return a tensor, not a function"),
    ],
)
def test_tensor_says_what_is_none(value, said):
    with pytest.raises(NotRight) as caught:
        tensor(value)
    assert said in str(caught.value)


def test_items_truth_text_and_names():
    for value in (
        (1, 2),
        [1, 2],
        iter([1, 2]),
        {1: 0, 2: 0}.keys(),
        np.array([1, 2]),
        torch.tensor([1, 2]),
        range(1, 3),
    ):
        assert several(number, 2)(value) == [1, 2]
    for value in ("12", {1: 2}, {1, 2}, 3, None, torch.tensor(1), torch.ones(2, 3).max(-1), (1, 2, 3)):
        with pytest.raises(NotRight):
            items(value, 2)
    assert [truth(v) for v in (True, np.False_, np.array([True]), torch.tensor(False))] == [
        True,
        False,
        True,
        False,
    ]
    for value in (1, "True", None, torch.ones(2).bool(), torch.tensor(1), x.max(-1)):
        with pytest.raises(NotRight, match=r"True or False|\.values or"):
            truth(value)
    assert (text("a"), text(np.str_("a")), text(np.array("a"))) == ("a", "a", "a")
    with pytest.raises(NotRight, match="give a word, not 3"):
        text(3, "a word")
    names = ("A", "B")
    for value in ({"a": 1, " B ": 2}, [1, 2], iter([1, 2]), [("A", 1), ["b", 2]], np.array(["1", "2"])):
        assert {key: int(v) for key, v in by_name(value, names, "z").items()} == {"A": 1, "B": 2}
    for value in ("AB", [1], {1, 2}, 3, torch.ones(2)):
        with pytest.raises(NotRight, match="give a dictionary with the letters A, B"):
            by_name(value, names, "z")
    assert shown(lambda: 1) == "a function"
    assert len(shown("x" * 9999)) < 60


def test_a_converter_never_raises_another_error():
    class Strange:
        def __array__(self, *_, **__):
            raise ValueError("no")

        def __repr__(self):
            raise ValueError("no")

    values = [
        Strange(),
        object(),
        {},
        {1},
        "a",
        b"a",
        None,
        ...,
        1j,
        [[1], [1, 2]],
        [[]],
        torch.zeros(0, 2),
        int,
        NotRight,
    ]
    values += [
        np.array(["a"]),
        np.datetime64("2020"),
        x.max(-1),
        [Strange()],
        10**5000,
        (10**5000,),
        itertools_count(),
    ]
    for form in (number, tensor, items, truth, text, lambda v: by_name(v, ("A",), "z")):
        for value in values:
            with contextlib.suppress(NotRight):
                form(value)


def itertools_count():
    n = 0
    while True:  # has no end: only some are taken
        yield n
        n += 1


# ---- comparing ------------------------------------------------------------------------------


def test_close_knows_precision_shape_and_kind():
    right = torch.tensor([0.1, 0.7])
    assert close(tensor(right.bfloat16()), right)
    assert not close(tensor((1.01 * right).bfloat16()), right)
    assert not close(right.bfloat16().float(), right)  # as precise as float32, and wrong in the third digit
    assert not close(right, right[:1])
    assert not close(True, 1)
    assert not close("a", 1)
    assert not close(1.0, None)
    assert close([1, "a", right], [1.0, "a", right + 1e-9])
    assert close(math.inf, math.inf)


def test_compare_names_the_slip_or_says_the_rest():
    compare(2.0, 2, {}, "other")
    for value, said in (
        (3, "three"),
        (4, "four or five"),
        (5.0, "four or five"),
        (20000.5, "20,000.5 is not 2"),
    ):
        with pytest.raises(NotRight) as caught:
            compare(value, 2, {"three": 3, "four or five": (4, 5)}, "{value} is not {right}")
        assert str(caught.value) == said


def told(answer, slips=None, **options):
    cases = {
        "first: {value} for {right}": (3.0, 1),
        "second: {value} for {right}": (5.0, 2),
        "third": (7.25, 4),
    }
    with pytest.raises(NotRight) as caught:
        examine(answer, lambda a, b: a / b, cases, slips, **options)
    return str(caught.value)


def test_examine_names_a_slip_only_if_it_explains_all_cases():
    slips = {"the product": lambda a, b: a * b, "upside down": lambda a, b: b / a}
    assert told(lambda a, b: a * b, slips) == "the product"
    assert told(lambda a, b: a * b if b < 4 else a / b, slips) == "second: 10 for 2.5"
    assert told(lambda a, b: b / a if b == 1 else 9.0, slips) == "perhaps upside down"
    assert told(lambda a, b: 2.0, slips).endswith(
        "you return the same for every input; use what the function is given"
    )
    assert (
        told(lambda a, b: round(a / b, 1) if b == 4 else a / b) == "third: that is rounded; return all digits"
    )
    assert told(lambda a, b: -a / b, slips) == "first: -3 for 3: the sign is wrong"
    assert told(lambda a, b: 1.5 * a / b, slips).endswith(
        "yours is 1.5 times what is right, in every example"
    )
    cut = {"first: {value}": (3.0, 1.0), "below 0 it is 0, not {value}": (-3.0, 1.0), "third": (5.0, 2.0)}
    with pytest.raises(NotRight, match=r"^below 0 it is 0, not -3$"):  # not "1 times what is right"
        examine(lambda a, b: a / b, lambda a, b: max(0.0, a / b), cut)
    assert told(lambda a, b: a / b + 1, slips, look=lambda value, a, b: f"seen {value:g}") == "seen 4"


def test_calls_are_seen_under_any_name():
    from torch.nn.functional import softmax as mine

    with Calls() as calls:
        mine(torch.ones(2), dim=0)
    assert len(calls.to(F.softmax)) == 1
    assert calls.to(F.cross_entropy) == []


# ---- errors ---------------------------------------------------------------------------------

ERRORS = {  # what is said to what a learner may write
    "`.values`": [
        lambda: x - x.max(-1),
        lambda: x.max(dim=-1, keepdim=True) - x,
        lambda: x / x.median(-1),
        lambda: x.min(-1).exp(),
        lambda: torch.exp(x.sort(-1)),
        lambda: x.topk(2) - 1,
        lambda: x.mode(-1) / 2,
        lambda: x.max(-1)[..., None],
    ],
    "several tensors": [lambda: torch.linalg.svd(torch.eye(2)) - 1, lambda: np.linalg.svd(np.eye(2)) - 1],
    "torch says `dim=` and `keepdim=`": [
        lambda: np.max(x, axis=-1, keepdims=True),
        lambda: np.max(x, axis=-1),
        lambda: np.max(x),
        lambda: np.mean(x, axis=-1, keepdims=True),
        lambda: np.std(x, axis=-1),
        lambda: x.softmax(axis=-1, keepdims=True),
    ],
    "name the dimension": [lambda: x.softmax(), lambda: torch.softmax(x)],
    "keepdim=True": [
        lambda: x / x.sum(-1),
        lambda: x.numpy() / x.numpy().sum(-1),
        lambda: torch.cat([torch.ones(2, 2), torch.ones(3, 3)]),
        lambda: torch.stack([torch.ones(1), torch.ones(2)]),
        lambda: x.masked_fill(torch.ones(2, 2).bool(), 0),
    ],
    "last dimension of the left": [
        lambda: torch.ones(2, 3) @ torch.ones(2, 3),
        lambda: np.ones((2, 3)) @ np.ones((2, 3)),
        lambda: x @ x,
        lambda: torch.dot(torch.ones(2), torch.ones(3)),
        lambda: torch.einsum("ij,jk->ik", torch.ones(2, 3), torch.ones(2, 3)),
    ],
    "fewer dimensions than you name": [
        lambda: leaf.sum(1),
        lambda: np.ones(3).sum(axis=1),
        lambda: leaf.softmax(-2),
    ],
    "more indices than dimensions": [
        lambda: leaf[1, 2],
        lambda: np.ones(3)[1, 2],
        lambda: torch.tensor(3)[0],
    ],
    "floats first": [
        lambda: ints.mean(),
        lambda: ints.softmax(-1),
        lambda: ints.std(),
        lambda: ints.norm(),
        lambda: ints.div_(2),
        lambda: ints.masked_fill(ints > 1, -math.inf),
    ],
    "whole numbers: make the index": [
        lambda: leaf[torch.ones(2)],
        lambda: leaf[1.0],
        lambda: leaf.gather(0, torch.ones(2)),
        lambda: F.one_hot(torch.ones(3)),
        lambda: [1, 2][x.max()],
        lambda: np.ones(3)["a"],
    ],
    "different dtypes": [
        lambda: torch.eye(3) @ torch.eye(3).double(),
        lambda: F.linear(torch.eye(2), torch.eye(2).double()),
    ],
    "mask.float()": [lambda: 1 - (x > 0), lambda: ~x, lambda: x.masked_fill(x, 0)],
    "a single truth value": [
        lambda: 1 if x > 0 else 0,
        lambda: max(x, 0),
        lambda: 1 if x.numpy() > 0 else 0,
        lambda: (x > 0) and (x < 1),
    ],
    "x.detach().numpy()": [lambda: leaf.numpy(), lambda: np.exp(leaf)],
    "no bfloat16": [lambda: x.bfloat16().numpy()],
    "take one number": [lambda: float(x), lambda: math.exp(x), lambda: x.item(), lambda: math.exp(x.numpy())],
    "x.clone()": [
        lambda: leaf.add_(1),
        lambda: leaf.__setitem__(0, 1),
        lambda: torch.ones(3, 1).expand(3, 3).add_(1),
    ],
    "something is None": [lambda: print() - 1, lambda: print().sum()],
    "are the brackets missing": [lambda: x.sum - 1, lambda: x.sum[0], lambda: sum / 2],
    "a list or tuple does no arithmetic": [
        lambda: [1, 2] / 2,
        lambda: [1, 2] - [1, 2],
        lambda: [1, 2] * 0.5,
        lambda: [1, 2] + 1,
        lambda: [1, 2].mean(),
        lambda: (1, 2).sum(),
        lambda: [1, 2].shape,
    ],
    "one side is a text": [lambda: "1" - 1, lambda: "1" + 1],
    "places count from 0": [
        lambda: [1][1],
        lambda: (1,)[1],
        lambda: "a"[1],
        lambda: leaf[3],
        lambda: np.ones(3)[3],
    ],
    "ids run from 0": [lambda: F.embedding(torch.tensor([9]), torch.eye(3))],
    "import numpy as np": [lambda: eval("np.ones(3)", {})],
    "import torch.nn.functional as F": [lambda: eval("F.relu", {})],
    "`import math`": [lambda: eval("math.pi", {})],
    "from collections import Counter": [lambda: eval("Counter([1])", {})],
    "is it spelled as where you made it": [lambda: eval("soft_max(3)", {})],
    "before it gets a value": [lambda: exec("def f():\n  if 0: y = 1\n  return y\nf()", {})],
    "calls itself without an end": [lambda: recursive(0)],
    "those of the stub": [lambda: recursive(), lambda: recursive(1, 2), lambda: recursive(dim=1)],
    "a tensor is converted by": [lambda: x.astype(float)],
    "`.clone()`": [lambda: x.copy()],
    "numpy's or a list's": [lambda: x.append(1)],
    "numpy's methods only": [lambda: np.ones(3).exp()],
    "the `math` module": [lambda: math.pi.sqrt()],
    "that is one number": [
        lambda: len(3),
        lambda: math.pi[0],
        lambda: [*math.pi],
        lambda: [*torch.tensor(1)],
    ],
    "brackets behind something": [lambda: x(1), lambda: len("abc")(1), lambda: x.shape()],
    "the number of names on the left": [
        lambda: [a for a, b, c in [(1, 2)]],
        lambda: [a for a, b in [(1, 2, 3)]],
    ],
    "use `.reshape`": [lambda: x.transpose(0, 1).view(-1)],
    "let -1 stand": [lambda: x.view(5, 5), lambda: np.ones(3).reshape(2, 2)],
    "what should come out then": [lambda: 1 / 0, lambda: 1 % 0],
    "above 0, and sqrt": [lambda: math.log(0), lambda: math.sqrt(-1)],
    "subtract the largest": [lambda: math.exp(1000), lambda: 10.0**1000],
    "torch.as_tensor(x)": [lambda: torch.exp(1.0), lambda: torch.log([1.0]), lambda: torch.stack([1.0])],
    "no .detach(), .item()": [lambda: x.sum().backward()],
    "for each forward pass": [lambda: (lambda y: (y.backward(), y.backward()))((leaf * leaf).sum())],
    "starts from one number": [lambda: leaf.exp().backward()],
    "divide with // instead of /": [lambda: range(2.0), lambda: x.view(2, 12 / 2, 2), lambda: x.chunk(2.0)],
    "a Counter give 0": [lambda: {}["a"]],
    "nothing to take from": [lambda: next(iter([])), lambda: max([])],
    "take out the rest": [lambda: int("4 1"), lambda: float("a")],
    "make it a tuple": [lambda: {[1]}, lambda: hash([1])],
    "not installed": [lambda: __import__("a_package_that_is_not_there")],
    "far too large": [lambda: torch.zeros(10**15)],
}


def recursive(n):
    return recursive(n + 1)


@pytest.mark.parametrize("advice", ERRORS)
def test_an_error_says_what_to_do_and_what_was_said(advice):
    for code in ERRORS[advice]:
        with pytest.raises(Exception) as caught:  # noqa: PT011
            code()
        sentence = explain(caught.value)
        assert advice.lower() in sentence.lower(), f"{caught.value!r}: {sentence}"
        assert sentence.startswith(f"your code raised {type(caught.value).__name__}")
        assert "\n" not in sentence
        assert len(sentence) < 480


def test_an_error_that_is_not_known_is_told_as_it_is():
    assert explain(ValueError("bad x")) == "your code raised ValueError: bad x"
    assert explain(ValueError()) == "your code raised ValueError"
    assert (
        explain(IndexError("index 4 is out of bounds"))
        == "your code raised IndexError: index 4 is out of bounds"
    )
    assert len(explain(ValueError("x " * 5000))) < 250
    assert len({pattern for pattern, _ in ADVICE}) == len(ADVICE)


def test_a_column_of_a_table_is_a_list():
    """A Series of pandas: what a learner who knows tables returns for one value a row."""
    assert several(truth)(pandas.Series([True, False], index=[3, 1])) == [True, False]
    assert items(pandas.Series(["a", "b"])) == ["a", "b"]
