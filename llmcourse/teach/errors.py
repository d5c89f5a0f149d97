"""Turn an error of torch, numpy or Python into a sentence that says what to do next."""

import re
import textwrap

_PAIR = (
    "with a dimension, torch's max, min, median, sort, topk and mode return a pair: take its `.values` "
    "(the entries) or its `.indices` (their places)"
)
_NUMPY = (
    "that is numpy's way of writing: torch says `dim=` and `keepdim=`, and max with a dimension returns a "
    "pair, `x.max(dim=-1, keepdim=True).values`. Or turn the tensor into an array first, `x.numpy()`"
)
_LIST = "a list or tuple does no arithmetic: go through it in a loop, or make it a tensor first, `torch.tensor(x)`"
_BRACKETS = "that is a function itself: are the brackets missing, such as in `x.sum()`?"
_MATRIX = (
    "for a matrix product the last dimension of the left must equal the last but one of the right: print both "
    "`.shape`. `.transpose(-2, -1)` swaps the last two"
)
_BROADCAST = (
    "two shapes do not fit: print both `.shape`. `keepdim=True` (numpy: keepdims) keeps a reduced dimension as "
    "1, and `x[:, None]` adds one. Is a size taken from the right dimension?"
)
_DIMENSION = (
    "it has fewer dimensions than you name: print its `.shape`. dim=-1 is always the last, counted from 0"
)
_FLOAT = "whole numbers have no mean, softmax or logarithm here: make them floats first, `x.float()`"
_DTYPE = "two tensors have different dtypes: convert one, such as `a.float()` or `a.to(b.dtype)`"
_INDEX = "places must be whole numbers: make the index integers with `.long()`, or a mask with `.bool()`"
_BOOL = (
    "for True and False use `.bool()` and `~mask`; for arithmetic make the mask numbers first, `mask.float()`"
)
_TRUTH = (
    "`if`, `and`, `or`, `min(...)` and `max(...)` want a single truth value: use torch.where or a mask, & and |, "
    "torch.maximum, or .any() / .all()"
)
_SCALAR = (
    "float(), .item() and the functions of `math` take one number: for a whole tensor use torch's, such as "
    "`x.exp()` for `math.exp(x)`, or go through the entries in a loop"
)
_PLACES = "places count from 0, so the last is the length minus 1: look at where the loop or the slice ends"
_ARGUMENTS = "look at the arguments: the check calls your function with those of the stub, in their order"
_UNPACK = (
    "the number of names on the left is not the number of values: for a shape, print it, or use `x.shape[-1]`"
)
_RESHAPE = (
    "the new sizes must multiply to the number of entries: print `x.shape`, and let -1 stand for one of them"
)
_LOGARITHM = "log takes a number above 0, and sqrt one of at least 0: look at the number that goes in"
_OVERFLOW = (
    "a number grows beyond what a float holds: subtract the largest before exp, or work with logarithms"
)
_NOT_A_TENSOR = "torch's functions take tensors: use `math` for one number, or `torch.as_tensor(x)` first"
_GRAPH = "backward() needs a loss that was computed from the parameters: no .detach(), .item() or no_grad() before it"
_ONE = "that is one number: it has no length, no places, and no loop goes through it"

# (what the error says, what to do): the first pattern that is found counts.
ADVICE = (
    (r"return_types\.linalg|Result' ", "that call returns several tensors: take one of them, by name or by [0]"),
    (r"return_types\.(aminmax)", "aminmax returns a pair: take its `.min` or its `.max`"),
    (r"return_types\.|tuple indices must be integers or slices, not (tuple|Tensor|NoneType)", _PAIR),
    (r"out=NoneType|argument 'dim' must be int, not NoneType|keyword argument '(axis|keepdims)'", _NUMPY),
    (r"invalid combination of arguments - got \(.*(axis|keepdims)=", _NUMPY),
    (r"missing 1 required positional arguments?: \"?'?dim", "name the dimension, such as dim=-1 for the last"),
    (r"mat1 and mat2|size mismatch, got|batch2 tensor|matmul: Input|inconsistent tensor size|einsum\(\)", _MATRIX),
    (r"The size of tensor a|could not be broadcast|Sizes of tensors must match", _BROADCAST),
    (r"each tensor to be equal size|shape of the mask|expected sequence of length", _BROADCAST),
    (r"Dimension out of range|AxisError", _DIMENSION),
    (r"too many indices|invalid index of a 0-dim", "there are more indices than dimensions: print its `.shape`"),
    (r"could not infer output dtype|not implemented for '(Long|Int|Bool)'|[Oo]nly support.* floating", _FLOAT),
    (r"Expected a floating point or complex", _FLOAT),
    (r"can't be cast|Cannot cast ufunc|cannot be converted to type int64", "this tensor holds whole numbers, and the "
     "result does not: make it floats first, `x.float()`"),
    (r"used as indices|valid indices \(got|valid indices$|Expected dtype int|LongTensor|'indices' to have", _INDEX),
    (r"target dtype to be|indices must be integers|converted to an index|not implemented for 'Float'", _INDEX),
    (r"same dtype|scalar type|same scalar", _DTYPE),
    (r"with a bool tensor|on a bool tensor|operator\.invert|boolean mask", _BOOL),
    (r"truth value of an array|Boolean value of Tensor", _TRUTH),
    (r"requires grad. Use tensor.detach", "a tensor with a gradient is cut off from it first: `x.detach().numpy()`"),
    (r"ScalarType BFloat16", "numpy has no bfloat16: convert first, `x.float().numpy()`"),
    (r"can't convert .* device type tensor", "numpy works on the CPU: `x.cpu().numpy()`"),
    (r"only one element tensors|cannot be converted to Scalar|only (length-1|0-dim|size-1)", _SCALAR),
    (r"leaf Variable|single memory location", "do not change it in place: work on a copy, `x.clone()`"),
    (r"'NoneType'", "something is None there: does a function of yours end without `return`?"),
    (r"'(\w*function\w*|\w*method\w*)'", _BRACKETS),
    (r"operand.*'(list|tuple)'|concatenate list|multiply sequence|'(list|tuple)' object has no", _LIST),
    (r"operand.*'str'|concatenate str", "one side is a text: use the numbers themselves, or convert with float(...)"),
    (r"index out of range in self", "an index is as large as the table or larger: ids run from 0 to the number of rows "
     "minus 1"),
    (r"index out of range|out of bounds for (dim|axis)", _PLACES),
    (r"Error: name '(torch|math|re|random|itertools|collections)'", "import it in this cell: `import {0}`"),
    (r"name 'np'", "import it in this cell: `import numpy as np`"),
    (r"name 'F'", "import it in this cell: `import torch.nn.functional as F`"),
    (r"name 'nn'", "import it in this cell: `from torch import nn`"),
    (r"name '(Counter|defaultdict)'", "import it in this cell: `from collections import {0}`"),
    (r"name '(pairwise|accumulate)'", "import it in this cell: `from itertools import {0}`"),
    (r"NameError", "is it spelled as where you made it, or imported, and has that cell run?"),
    (r"UnboundLocalError", "it is used before it gets a value: give it one before the loop or the `if`"),
    (r"RecursionError", "the function calls itself without an end: which case returns without a further call?"),
    (r"positional argument|unexpected keyword argument|multiple values for", _ARGUMENTS),
    (r"'Tensor' object has no attribute 'astype'", "a tensor is converted by `.float()`, `.long()` or `.to(dtype)`"),
    (r"'Tensor' object has no attribute 'copy'", "a tensor is copied by `.clone()`"),
    (r"'Tensor' object has no attribute", "that is not the name of a tensor's method: is it numpy's or a list's?"),
    (r"'numpy.ndarray' object has no attribute", "an array has numpy's methods only: `np.exp(x)`, or a tensor first, "
     "`torch.as_tensor(x)`"),
    (r"'(float|int)' object has no attribute", "a Python number has no such method: use the `math` module, or make it "
     "a tensor first, `torch.tensor(x)`"),
    (r"'(float|int)' object is not (iter|subs)|of type '(int|float)' has no len|0-d tensor|an iterable, not", _ONE),
    (r"object is not callable", "there are brackets behind something that is no function: is a name used twice, or "
     "is a `*` missing?"),
    (r"values to unpack", _UNPACK),
    (r"not compatible with input tensor's size", "the numbers lie in another order in memory: use `.reshape` for view"),
    (r"is invalid for input of size|cannot reshape", _RESHAPE),
    (r"ZeroDivision", "something that you divide by can be 0: which, and what should come out then?"),
    (r"math domain error|expected a (positive|nonnegative) input", _LOGARITHM),
    (r"math range error|too large to convert|out of range'\)", _OVERFLOW),
    (r"must be Tensor, not|expected Tensor as element|expected np.ndarray", _NOT_A_TENSOR),
    (r"does not require grad", _GRAPH),
    (r"backward through the graph a second", "call backward() once for each forward pass: run the model again first"),
    (r"only for scalar outputs", "backward() starts from one number: sum or average the losses first"),
    (r"interpreted as an integer|must be tuple of ints|must be int, not float", "a size or a count must be a whole "
     "number: divide with // instead of /"),
    (r"KeyError", "that key is not in the dictionary: `.get(key, 0)` or a Counter give 0 for it"),
    (r"StopIteration|empty sequence", "there is nothing to take from: give a value for that case, `default=...`"),
    (r"invalid literal for|could not convert string", "this text holds more than a number: take out the rest first"),
    (r"unhashable", "a list cannot stand in a set or be a key: make it a tuple"),
    (r"No module named", "this package is not installed here: use those of the course"),
    (r"alloc|MemoryError", "the result would be far too large: print the shapes that are multiplied"),
    (r"SystemExit", "do not call exit() in a function: return the result"),
)  # fmt: skip


def explain(error: BaseException) -> str:
    """Return a sentence on an error that a learner's code raised: what was said, and what to do next.

    >>> explain(RuntimeError("The size of tensor a (4) must match the size of tensor b (3)"))[:60]
    'your code raised RuntimeError: The size of tensor a (4) must'
    """
    kind = type(error).__name__
    message = str(error).strip().split("\n")[0].split(", but expected one of")[0].rstrip(" .:")
    said = f"{kind}: {textwrap.shorten(message, 160, placeholder=' ...')}" if message else kind
    for pattern, advice in ADVICE:
        if found := re.search(pattern, f"{kind}: {error}"):
            advice = advice.format(*found.groups())
            return f"your code raised {said}. {advice[0].upper()}{advice[1:]}"
    return f"your code raised {said}"
