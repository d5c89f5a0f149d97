"""Models whose mechanism is known because it was put there: circuits of heads, built into the weights of a GPT.

A few heads solve the task. The others are busy too: they attend, they write, and what they write changes
logits; but not the difference between two answers. Where the heads stand, and the basis of the residual
stream and of each head, are drawn by the seed: nothing can be read off the weights.

Dimensions: C width, H heads, D head width, V vocabulary, T time.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from llmcourse.config import ModelConfig
from llmcourse.interpret.planted_tasks import TASKS, Head, Stream
from llmcourse.interpret.planted_texts import LENGTH, VOCABULARY, Pairs
from llmcourse.model import GPT
from llmcourse.support.inputs import whole

N_LAYERS, N_HEADS, D_MODEL, D_HEAD, D_FF = 3, 6, 128, 40, 16
COMMON = 6.0  # length of a vector that all tokens share, until one head of layer 0 takes it away
JUNK = 16  # directions into which heads write that are in no circuit


@dataclass(frozen=True)
class Planted:
    """A task, a model that solves it, and `roles`: what each head (layer, head) of the circuit does.

    `others` says the same of the heads that are in no circuit.
    """

    task: str
    model: GPT
    roles: dict[tuple[int, int], str]
    others: dict[tuple[int, int], str]

    @property
    def heads(self) -> set[tuple[int, int]]:
        """The circuit: the pairs (layer, head) that a method should name."""
        return set(self.roles)

    def texts(self, n: int = 100, seed: int = 0) -> Pairs:
        """Return `n` clean texts and their corrupted twins, with the answers."""
        return TASKS[self.task].texts(whole(n, "n"), torch.Generator().manual_seed(seed))


def plant(task: str, seed: int = 0, copies: int = 1) -> Planted:
    """Return a model in whose weights the circuit of `task` is built, at places that `seed` draws.

    With `copies` above 1 the last head of the circuit stands in its layer so many times, and writes so
    much that one of them is enough: the final norm takes away what the others add. Raises ValueError for
    an unknown task, and for more heads than a layer has.

    >>> planted = plant("induction", seed=1)
    >>> sorted(planted.roles.values()), planted.model.config.n_layers
    (['induction', 'previous token'], 3)
    """
    if task not in TASKS:
        raise ValueError(f"task={task!r} is unknown: choose one of {sorted(TASKS)}")
    copies = whole(copies, "copies")
    number = list(TASKS).index(task) + len(TASKS) * whole(seed, "seed", least=0)
    generator = torch.Generator().manual_seed(number)
    x = Stream(D_MODEL, generator)
    wired = TASKS[task].wire(x)
    if copies > 1:
        wired = _copied(wired, copies)
    places = _places(wired, TASKS[task].layers, generator)
    builder = Builder(x, generator)
    builder.build_ends(TASKS[task].answers)
    for place, head in places.items():
        builder.build_head(*place, head)
    others = builder.build_others(places)
    return Planted(task, builder.model, {place: head.role for place, head in places.items()}, others)


def _copied(wired: list[Head], copies: int) -> list[Head]:
    """Return the heads with the last one `copies` times, each writing eight times as much."""
    last = wired[-1]
    moves = [(read, write, 8 * strength) for read, write, strength in last.moves]
    return [*wired[:-1], *[Head(last.role, last.depth, moves, last.matches)] * copies]


def _places(wired: list[Head], n_layers: int, generator: torch.Generator) -> dict[tuple[int, int], Head]:
    """Return a place (layer, head) for each head, those of a larger depth in a later layer."""
    depths = sorted({head.depth for head in wired})
    layers = torch.randperm(n_layers, generator=generator)[: len(depths)].sort().values.tolist()
    places = {}
    for depth, layer in zip(depths, layers, strict=True):
        here = [head for head in wired if head.depth == depth]
        free = N_HEADS - (layer == 0)  # one head of layer 0 takes the common vector away
        if len(here) > free:
            raise ValueError(
                f"{len(here)} heads do not fit into a layer, where {free} are free: plant fewer copies"
            )
        columns = torch.randperm(N_HEADS, generator=generator)[: len(here)].tolist()
        places |= {(layer, column): head for column, head in zip(columns, here, strict=True)}
    return places


class Builder:
    """Writes the parts of a planted model into the weights of a GPT, one by one."""

    def __init__(self, stream: Stream, generator: torch.Generator):
        self.x, self.generator = stream, generator
        shape = dict(d_model=D_MODEL, n_layers=N_LAYERS, n_heads=N_HEADS, d_head=D_HEAD, d_ff=D_FF)
        parts = dict(positions="learned", mlp="relu", tied_embeddings=False)
        self.model = GPT(ModelConfig(VOCABULARY, LENGTH, **shape, **parts)).requires_grad_(False).eval()
        for module in self.model.modules():  # what GPT drew was not drawn by the seed
            if isinstance(module, torch.nn.Linear | torch.nn.Embedding):
                module.weight.zero_()

    def normal(self, *shape: int) -> Tensor:
        """Return numbers from N(0, 1)."""
        return torch.randn(*shape, generator=self.generator)

    def turn(self) -> Tensor:
        """Return a random rotation (D, D): a head's own basis."""
        return torch.linalg.qr(self.normal(D_HEAD, D_HEAD))[0]

    def scale(self, layer: int) -> float:
        """Return about what a direction of length 1 measures behind the norm of `layer`."""
        length = math.sqrt(3 + COMMON**2) if layer == 0 else math.sqrt(3 + 4 * layer)
        return math.sqrt(D_MODEL) / length

    def build_ends(self, answers: tuple[int, ...]) -> None:
        """Give each token and position its direction, and read answers from "output"; others read junk."""
        model, x = self.model, self.x
        shared = x("one") + COMMON * x("common")
        model.token_embedding.weight += x("token", VOCABULARY) + shared
        model.position_embedding.weight += x("position", LENGTH)
        junk = x("junk", JUNK)
        model.unembedding.weight += 0.3 * self.normal(VOCABULARY, JUNK) @ junk
        model.unembedding.weight[:] -= 15 * x("one")  # what can be no answer is unlikely
        rows = list(answers)
        model.unembedding.weight[rows] = 3 * x("output", VOCABULARY)[rows] + 0.3 * self.normal(1, JUNK) @ junk
        for block in model.blocks:
            block.mlp.up.weight += self.normal(D_FF, D_MODEL) / math.sqrt(D_MODEL)
            block.mlp.down.weight += junk.T @ self.normal(JUNK, D_FF) / math.sqrt(D_FF * JUNK)

    def write(self, layer: int, head: int, q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> None:
        """Put a head's q, k, v (each (D, C)) and out (C, D) where they belong, in bases of its own."""
        attention, at = self.model.blocks[layer].attention, slice(head * D_HEAD, (head + 1) * D_HEAD)
        look, carry = self.turn(), self.turn()
        parts = attention.qkv.weight.view(3, N_HEADS * D_HEAD, D_MODEL)
        parts[0, at], parts[1, at], parts[2, at] = look @ q, look @ k, carry @ v
        attention.out.weight[:, at] = out @ carry.T

    def build_head(self, layer: int, head: int, wired: Head) -> None:
        """Build a head that does what `wired` says."""
        v, out = self.carrying(layer, wired.moves)
        self.write(layer, head, *self.looking(layer, wired.matches), v, out)

    def looking(self, layer: int, matches: list) -> tuple[Tensor, Tensor]:
        """Return (q, k), each (D, C): each pair of directions takes a row."""
        q, k, row = torch.zeros(D_HEAD, D_MODEL), torch.zeros(D_HEAD, D_MODEL), 0
        for queries, keys, strength in matches:
            size = math.sqrt(abs(strength) * math.sqrt(D_HEAD)) / self.scale(layer)
            q[row : row + len(queries)] = size * math.copysign(1, strength) * queries
            k[row : row + len(keys)] = size * keys
            row += len(queries)
        return q, k

    def carrying(self, layer: int, moves: list) -> tuple[Tensor, Tensor]:
        """Return v (D, C) and out (C, D): what is read at each pair is written at its other end."""
        v, out, row = torch.zeros(D_HEAD, D_MODEL), torch.zeros(D_MODEL, D_HEAD), 0
        for read, write, strength in moves:
            v[row : row + len(read)] = read / self.scale(layer)
            out[:, row : row + len(read)] = strength * write.T
            row += len(read)
        return v, out

    def build_others(self, places: dict[tuple[int, int], Head]) -> dict[tuple[int, int], str]:
        """Fill all other places; return what stands there.

        One head of layer 0 takes the common vector away, the same at each position. One for each head of
        the circuit looks where that one looks, and carries junk. The rest look and carry at random.
        """
        layers = torch.arange(N_LAYERS).repeat_interleave(N_HEADS)
        free = [
            (layer, i % N_HEADS)
            for i, layer in enumerate(layers.tolist())
            if (layer, i % N_HEADS) not in places
        ]
        order = torch.randperm(len(free), generator=self.generator).tolist()
        free = sorted((free[i] for i in order), key=lambda place: place[0] > 0)  # layer 0 first
        constant, *free = free
        common = self.x("common")
        self.write(*constant, *self.looking(0, []), *self.carrying(0, [(common, -common, 1.0)]))
        others = {constant: "constant"}
        for place, head in places.items():
            same = [other for other in free if other[0] == place[0]]
            if same:
                self.write(*same[0], *self.looking(place[0], head.matches), *self.junk(place[0]))
                others[same[0]] = f"looks like {head.role}"
                free.remove(same[0])
        for place in free:
            self.write(*place, *self.at_random(place[0]), *self.junk(place[0]))
            others[place] = "random"
        return others

    def at_random(self, layer: int) -> tuple[Tensor, Tensor]:
        """Return random (q, k), each (D, C), that give scores with a deviation of about 2."""
        size = math.sqrt(2.0) * self.scale(layer) ** -1
        return tuple(size * self.without_common(self.normal(D_HEAD, D_MODEL)) for _ in "qk")

    def junk(self, layer: int) -> tuple[Tensor, Tensor]:
        """Return a random v (D, C), and an out (C, D) that writes a vector of length about 1 into the junk."""
        v = self.without_common(self.normal(D_HEAD, D_MODEL)) / self.scale(layer) / math.sqrt(3)
        return v, self.x("junk", JUNK).T @ self.normal(JUNK, D_HEAD) / math.sqrt(JUNK * D_HEAD)

    def without_common(self, rows: Tensor) -> Tensor:
        """Return the rows (D, C) without what they would read of the common vector."""
        common = self.x("common")[0]
        return rows - (rows @ common)[:, None] * common
