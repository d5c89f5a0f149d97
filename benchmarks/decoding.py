"""One text at a time: the course model against an earlier commit and CTranslate2, and what speculation is worth.

Prompts of 32 tokens from plays that the model has not read, 96 new tokens, one thread, float32. All is
measured in seconds of the processor, so that waiting for a busy machine does not count; a cache that
others have filled still does. CTranslate2 is measured where it is installed.
"""

import importlib.util
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

from benchmarks.against import ROOT, trees
from benchmarks.measure import Measure, Result, alternate
from llmcourse.convert import to_transformers
from llmcourse.data.sources.plays import load_plays, split_by_title
from llmcourse.decode.drafts import Counted, own_text
from llmcourse.decode.speculative import generate_speculative
from llmcourse.generate import generate
from llmcourse.model import GPT
from llmcourse.ngrams import NGramModel
from llmcourse.pretrained import load_course_model

BEFORE = "19f47f0"  # the last commit that chapters 1 to 5 were measured with
PROMPTS, LENGTH, NEW, N_DRAFT = 8, 32, 96, 3
COURSE = """
from pathlib import Path
from llmcourse.generate import generate
from llmcourse.pretrained import load_course_model
model, prompts = load_course_model()[0], torch.load({folder!r} + "/prompts.pt")
write = lambda **options: [generate(model, prompt, 96, **options) for prompt in prompts]
"""
SAVE = 'torch.save(torch.cat(write(temperature=0)), Path({folder!r}, "written-" + Path.cwd().name + ".pt"))'
DRAFT = """
from llmcourse.decode.drafts import Counted, own_text
from llmcourse.decode.speculative import generate_speculative
from llmcourse.ngrams import NGramModel
counted = Counted(NGramModel(torch.load({folder!r} + "/counted.pt"), 2048, 3))
def speculate(**options):
    for prompt in prompts:
        generate_speculative(model, prompt, 96, [own_text, counted], 3, **options)
"""
GPT2 = """
from llmcourse.generate import generate
from llmcourse.model import GPT, ModelConfig
torch.manual_seed(0)
shape = dict(context_length=512, d_model=192, n_heads=6, n_layers=4)
"""
SMALL = GPT2 + "model = GPT(ModelConfig.gpt2(256, context_length=512)).eval()"
LARGER = GPT2 + "model = GPT(ModelConfig.gpt2(2048, **shape)).eval()"
LLAMA = GPT2 + "model = GPT(ModelConfig.llama(2048, **shape)).eval()"
WORK = {  # name: (set-up, one round)
    "plain": (COURSE + SAVE, "write(temperature=0)"),
    "plain at 1": (COURSE, "write(temperature=1.0, seed=0)"),
    "plain at 0.8": (COURSE, "write(temperature=0.8, seed=0)"),
    "drafts": (COURSE + DRAFT, "speculate(temperature=0)"),
    "drafts at 1": (COURSE + DRAFT, "speculate(temperature=1.0, seed=0)"),
    "drafts at 0.8": (COURSE + DRAFT, "speculate(temperature=0.8, seed=0)"),
    "GPT-2 of 0.9 M": (SMALL, "generate(model, torch.arange(8)[None], 256, temperature=0)"),
    "GPT-2 of 2.3 M": (LARGER, "generate(model, torch.arange(8)[None], 256, temperature=0)"),
    "Llama of 2.6 M": (LLAMA, "generate(model, torch.arange(8)[None], 256, temperature=0)"),
    "batch of 8": (COURSE, "generate(model, torch.cat(prompts), 96, temperature=0)"),
}
ROWS = [  # what, ours, theirs at BEFORE
    ("course model, greedy", "plain", "plain"),
    ("course model, greedy, with drafts", "drafts", "plain"),
    ("course model, temperature 1", "plain at 1", "plain at 1"),
    ("course model, temperature 1, with drafts", "drafts at 1", "plain at 1"),
    ("course model, temperature 0.8, with drafts", "drafts at 0.8", "plain at 0.8"),
    ("course model, batch of 8, greedy", "batch of 8", "batch of 8"),
    ("GPT-2 of 0.9 M parameters, greedy", "GPT-2 of 0.9 M", "GPT-2 of 0.9 M"),
    ("GPT-2 of 2.3 M parameters, greedy", "GPT-2 of 2.3 M", "GPT-2 of 2.3 M"),
    ("Llama of 2.6 M parameters, greedy", "Llama of 2.6 M", "Llama of 2.6 M"),
]


def split_tokens(tokenizer) -> tuple[list[Tensor], Tensor]:
    """Return held-out prompts, (1, 32) each, and the tokens of the plays for training, (N,)."""
    train, validation, _ = split_by_title(load_plays(quiet=True))
    held_out = tokenizer.encode(validation[0].text)
    places = range(1000, 1000 + 700 * PROMPTS, 700)
    counted = [token for play in train for token in tokenizer.encode(play.text)]
    return [torch.tensor([held_out[at : at + LENGTH]]) for at in places], torch.tensor(counted)


def processor_time(function: Callable[[], object]) -> Measure:
    """Return a function that calls `function` and returns the seconds that the processor worked."""

    def measure() -> float:
        began = time.process_time()
        function()
        return time.process_time() - began

    return measure


def decoding(rounds: int) -> Iterator[Result]:
    """Each way to write against the same work at BEFORE, and greedy text against CTranslate2."""
    model, tokenizer = load_course_model()
    prompts, counted = split_tokens(tokenizer)
    draft, n_tokens = [own_text, Counted(NGramModel(counted, 2048, 3))], PROMPTS * NEW
    texts = torch.cat([generate(model, prompt, NEW, temperature=0) for prompt in prompts])
    options = dict(draft=draft, n_draft=N_DRAFT)
    written = {
        temperature: [
            generate_speculative(model, prompt, NEW, **options, temperature=temperature, seed=0)
            for prompt in prompts
        ]
        for temperature in (0, 0.8, 1.0)
    }
    assert torch.equal(torch.cat([each.token_ids for each in written[0]]), texts), "a draft changed the text"
    a_pass = {t: sum(w.written for w in each) / sum(w.passes for w in each) for t, each in written.items()}
    with tempfile.TemporaryDirectory() as folder:
        torch.save(prompts, Path(folder, "prompts.pt")), torch.save(counted, Path(folder, "counted.pt"))
        work = {name: (start.format(folder=folder), code) for name, (start, code) in WORK.items()}
        with trees(BEFORE, work=work, clock="process_time") as (here, there):
            for what, ours, theirs in ROWS:
                pairs = alternate(
                    lambda ours=ours: here.seconds(ours), lambda theirs=theirs: there.seconds(theirs), rounds
                )
                note = f"theirs is commit {BEFORE}, the same prompts"
                if "drafts" in what:
                    at = 0 if "greedy" in what else float(what.split()[3].strip(","))
                    note += f"; {a_pass[at]:.2f} tokens a pass, drafts of {N_DRAFT} (own text, else order 3)"
                amount = n_tokens if "course" in what else 256
                yield Result("decoding", what, *pairs, note, amount, "tokens")
            for path in Path(folder).glob("written-*.pt"):
                assert torch.equal(torch.load(path), texts), "the commits differ"
            if importlib.util.find_spec("ctranslate2") is None:
                print("decoding, CTranslate2: not measured, it is not installed (pip install ctranslate2)")
                return
            write = ctranslate2_writer(model, folder)
            same = sum(text[LENGTH:].tolist() == write(text[:LENGTH]) for text in texts)
            theirs = processor_time(lambda: [write(prompt[0]) for prompt in prompts])
            for what, ours in (("greedy", "plain"), ("greedy, with drafts", "drafts")):
                pairs = alternate(lambda ours=ours: here.seconds(ours), theirs, rounds)
                note = f"theirs is CTranslate2, float32, one thread, the same weights; {same} of {PROMPTS} texts equal"
                yield Result(
                    "decoding", f"course model, {what}, against CTranslate2", *pairs, note, n_tokens, "tokens"
                )


def ctranslate2_writer(
    model: GPT, folder: str, compute_type: str = "float32", new: int = NEW
) -> Callable[[Tensor], list[int]]:
    """Convert `model` for CTranslate2 and return a function from a prompt (T,) to `new` greedy ids."""
    import ctranslate2
    from ctranslate2.converters import TransformersConverter

    class Converter(TransformersConverter):
        def load_tokenizer(self, *arguments, **options):  # ids stand for themselves
            names = {str(i): i for i in range(model.config.vocab_size)}
            return SimpleNamespace(get_vocab=lambda: names, bos_token="0", eos_token="0", unk_token="0")

    to_transformers(model).save_pretrained(Path(folder, "transformers"))
    Converter(str(Path(folder, "transformers"))).convert(str(Path(folder, "ctranslate2")), force=True)
    threads = dict(inter_threads=1, intra_threads=1)
    generator = ctranslate2.Generator(str(Path(folder, "ctranslate2")), compute_type=compute_type, **threads)
    options = dict(
        max_length=new, min_length=new, sampling_topk=1, include_prompt_in_result=False, end_token=[]
    )

    def write(prompt: Tensor) -> list[int]:
        result = generator.generate_batch([[str(i) for i in prompt.tolist()]], **options)
        return [int(name) for name in result[0].sequences[0]]

    return write


def speculation(rounds: int) -> Iterator[Result]:
    """What drafts are worth by their length, on a text of another kind, and for a model that knows nothing."""
    model, tokenizer = load_course_model()
    prompts, counted = split_tokens(tokenizer)
    trigrams = Counted(NGramModel(counted, 2048, 3))
    other = tokenizer.encode((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    others = [torch.tensor([other[at : at + LENGTH]]) for at in range(500, 500 + 300 * PROMPTS, 300)]
    torch.manual_seed(0)
    untrained = GPT(model.config).eval()
    cases = [(f"drafts of {n}", model, prompts, [own_text, trigrams], n) for n in (1, 2, 3, 4, 8)]
    cases += [(f"own text alone, {n}", model, prompts, own_text, n) for n in (3, 8)]
    cases += [(f"counts alone, {n}", model, prompts, trigrams, n) for n in (3, 8)]
    cases += [
        ("after a prompt about programs", model, others, [own_text, trigrams], 3),
        ("untrained model, own text and counts", untrained, prompts, [own_text, trigrams], 3),
        ("untrained model, counts alone", untrained, prompts, trigrams, 3),
    ]
    for what, writer, begin, draft, n in cases:
        for temperature in (0, 1.0):

            def ours(writer=writer, begin=begin, draft=draft, n=n, t=temperature):
                return [generate_speculative(writer, p, NEW, draft, n, temperature=t, seed=0) for p in begin]

            def theirs(writer=writer, begin=begin, t=temperature):
                return [generate(writer, p, NEW, temperature=t, seed=0) for p in begin]

            written = ours()
            passes, proposed = sum(w.passes for w in written), max(1, sum(w.proposed for w in written))
            note = f"theirs has no draft; {sum(w.written for w in written) / passes:.2f} tokens a pass, "
            note += f"{sum(w.accepted for w in written) / proposed:.0%} of the guesses kept"
            pairs = alternate(processor_time(ours), processor_time(theirs), rounds)
            name = f"{what}, temperature {temperature:g}"
            yield Result("speculation", name, *pairs, note, PROMPTS * NEW, "tokens")
