"""Name what is wrong with a training run, from its record alone, and quote the evidence.

The rules stand in the order in which an expert would check: data, untrained model, attention,
gradients, updates, validation, curves. A fault further up explains what is seen further down.
Thresholds were set on seeds 0-9 of `monitor.small_run` with the bugs of `monitor.planted_bugs`, each
with its reason beside it, and then measured on other seeds: data/diagnose/README.md.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from llmcourse.monitor.run_record import Run, record_run

__all__ = ["Finding", "Run", "diagnose", "record_run"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: its `name`, the `evidence` from this run, and what to do."""

    name: str
    evidence: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.name}: {self.evidence}. {self.remedy}"


def diagnose(run: Run) -> list[Finding]:
    """Return what is wrong with `run`, the most telling finding first; empty if nothing is found.

    General alarms, such as "does not learn", are raised only if no rule above found a cause.
    """
    findings = []
    for name, test, remedy in (*RULES, *ALARMS):
        if (name, test, remedy) in ALARMS and findings:
            break
        if evidence := test(run):
            findings.append(Finding(name, evidence, remedy))
    return findings


def _final(run: Run) -> float:
    """The last validation loss, or that of the untrained model."""
    return (run.validation()[1] or [run.untrained_loss])[-1]


# ---- data -----------------------------------------------------------------------------------


def tokenizer_mismatch(run: Run) -> str | None:
    """Other parts of one text differ by a few hundredths of a nat; sorted ones by a tenth."""
    if run.cross_entropy > run.entropy + 0.5:
        return (
            f"by the token frequencies of the training text, validation tokens cost {run.cross_entropy:.2f} "
            f"nats, training tokens {run.entropy:.2f}: the same ids do not mean the same tokens"
        )


def data_not_shuffled(run: Run) -> str | None:
    """Shuffled rows continue each other by chance only, a few percent of the time."""
    if run.follow_on > 0.5:
        return (
            f"{run.follow_on:.0%} of the rows begin where the row before ended, by chance it would be "
            f"{run.shuffled_share:.0%}: the text is read in its order"
        )


# ---- the model ------------------------------------------------------------------------------


def initialization_too_large(run: Run) -> str | None:
    """A uniform guess costs ln V. One nat more is confidence without knowledge."""
    if run.untrained_loss > math.log(run.vocab_size) + 1:
        return (
            f"untrained, the loss is {run.untrained_loss:.2f}, and ln V is {math.log(run.vocab_size):.2f}: "
            "the model is sure of things that it cannot know"
        )


def softmax_over_wrong_axis(run: Run) -> str | None:
    """Rows of attention sum to 1 up to rounding, about 1e-6."""
    if run.row_sums > 0.01:
        return f"rows of attention weights should sum to 1, and are up to {run.row_sums:.1f} away from it"


def no_causal_mask(run: Run) -> str | None:
    """A causal model gives the same bits; 0.001 leaves room for kernels that round otherwise."""
    near, far = run.future_leak
    if far > 1e-3:
        return (
            f"a logit changes by {far:.2g} when a token two or more places later is changed, by {near:.2g} "
            "for the next token: positions see the whole future"
        )


def label_leak(run: Run) -> str | None:
    """The next token is seen and those behind it are not: a leak beside the attention."""
    near, far = run.future_leak
    if near > 1e-3 >= far:
        return (
            f"a logit changes by {near:.2g} when the next token is changed, by {far:.2g} for later ones: "
            "the answer, and only the answer, is in the input"
        )


def targets_not_shifted(run: Run) -> str | None:
    """Text repeats a token a few percent of the time. An untrained model with tied ends copies too."""
    if run.copied > 0.8 and run.last_losses() < run.entropy / 2:
        return (
            f"in {run.copied:.0%} of the positions the model's first choice is the token just read, and a "
            f"training loss of {run.last_losses():.2f} rewards it"
        )


# ---- gradients and updates ------------------------------------------------------------------


def gradients_not_reset(run: Run) -> str | None:
    """The same batch, weights and dropout give the same norm, so the ratio is 1."""
    logged = {step.step: step.grad_norm for step in run.steps}
    ratios = [logged[s] / norm for s, norm in run.recomputed_grad_norms.items() if s in logged and norm > 0]
    if ratios and median(ratios) > 1.2:
        return (
            f"the norm of the gradient in use is {median(ratios):.1f} times that of the batch's own, computed "
            "anew: something is left over from earlier steps"
        )


def float16_underflow(run: Run) -> str | None:
    """In float32 hardly any entry is exactly zero, with GELU and with ReLU."""
    if run.zeros > 0.01:
        return f"{run.zeros:.0%} of the gradient within the blocks is exactly zero"


def frozen(run: Run) -> list[str]:
    """Return the parameters that did not move by a millionth of their length in the whole run."""
    return [name for name, moved in run.parameter_movement.items() if moved < 1e-6] if run.steps else []


def weight_tying_broken(run: Run) -> str | None:
    """The two ends of a tied model are one tensor; if one stands still, they are not."""
    ends = [name for name in frozen(run) if "embedding" in name]
    if ends:
        return f"{ends[0]} did not move in {len(run.steps)} steps, and the rest did"


def frozen_parameters(run: Run) -> str | None:
    """Any other parameter that stands still."""
    others = [name for name in frozen(run) if "embedding" not in name]
    if others:
        return f"{len(others)} parameters did not move in {len(run.steps)} steps, {others[0]} among them"


def weight_decay_too_strong(run: Run) -> str | None:
    """Gains begin at 1 and end at 0.85 or above, with AdamW and SGD: lower, something pulls them down."""
    if run.norm_gain < 0.65 and run.steps:
        return f"the gains of the norms fell from 1 to {run.norm_gain:.2f}, on average: decay is stronger than the loss"


def learning_rate_too_high(run: Run) -> str | None:
    """Weights begin small, and a good run makes them 2 to 4 times as long, a bold one 9 times."""
    if run.stopped:
        return f"the run stopped: {run.stopped.split('. ')[0]}"
    if run.growth > 12 and _final(run) > run.entropy - 0.5:
        return (
            f"the matrices grew {run.growth:.0f} times as long, and the validation loss of {_final(run):.2f} "
            f"is hardly below {run.entropy:.2f}, which the token frequencies alone reach"
        )


def learning_rate_too_low(run: Run) -> str | None:
    """From a small start the first steps change the weights by percents; a tenth of it is a crawl."""
    if run.updates and max(run.updates.values()) < 0.004 and _final(run) > run.entropy:
        return (
            f"a step changes the weights by {max(run.updates.values()):.2%} at most, and the validation loss "
            f"of {_final(run):.2f} is not yet at the {run.entropy:.2f} of the token frequencies"
        )


# ---- validation and curves ------------------------------------------------------------------


def evaluation_mode_forgotten(run: Run) -> str | None:
    """Without dropout the same text gives the same loss to the last bit."""
    first, second = run.repeated_validation_loss
    if abs(first - second) > 1e-6:
        return (
            f"the same model has a validation loss of {first:.4f} and, measured again, {second:.4f}: "
            "dropout is still on"
        )


def too_little_text(run: Run) -> str | None:
    """New text of the same kind costs little more than text seen once: 0.05 here, not 0.2."""
    gap = _final(run) - run.last_losses()
    if gap > 0.2:
        return (
            f"the validation loss is {_final(run):.2f} and the training loss {run.last_losses():.2f}: "
            f"{gap:.2f} of what was learned holds for the training text only"
        )


def too_good(run: Run) -> str | None:
    """Who predicts text far better than pairs of tokens do should write no worse than they do."""
    if _final(run) < run.text_bigram_loss - 0.5 and run.sample_bigram_loss > run.text_bigram_loss + 1:
        return (
            f"a validation loss of {_final(run):.2f}, but its own text costs {run.sample_bigram_loss:.2f} nats by a "
            f"bigram model, and real text {run.text_bigram_loss:.2f}: it is told the answers"
        )


def does_not_learn(run: Run) -> str | None:
    """Frequencies are the first thing that any model learns, within a few dozen steps."""
    if len(run.steps) >= 50 and _final(run) > run.entropy - 0.02:
        return (
            f"after {len(run.steps)} steps the validation loss is {_final(run):.2f}; the token frequencies "
            f"alone reach {run.entropy:.2f}"
        )


Rule = tuple[str, Callable[[Run], str | None], str]
RULES: tuple[Rule, ...] = (
    (
        "tokenizer mismatch",
        tokenizer_mismatch,
        "Encode both with one stored tokenizer, and decode a row of each.",
    ),
    ("data not shuffled", data_not_shuffled, "Shuffle the rows anew in each epoch, with a stored seed."),
    ("initialization too large", initialization_too_large, "Start with small output weights, std 0.02."),
    ("softmax over the wrong axis", softmax_over_wrong_axis, "Normalize over the keys: softmax(dim=-1)."),
    (
        "no causal mask",
        no_causal_mask,
        "Mask every key behind the query, and test it by changing a later token.",
    ),
    (
        "label leak",
        label_leak,
        "Follow the answer's way into the input: rolls, shifts, features of whole rows.",
    ),
    ("targets not shifted", targets_not_shifted, "targets[t] must be inputs[t + 1]: print one row of both."),
    ("gradients not reset", gradients_not_reset, "Call zero_grad once after each optimizer step."),
    ("float16 underflow", float16_underflow, "Scale the loss (torch.amp.GradScaler), or use bfloat16."),
    ("weight tying broken", weight_tying_broken, "Tie first, then build the optimizer; test `a is b`."),
    ("frozen parameters", frozen_parameters, "Give them to the optimizer, and see that they get a gradient."),
    ("weight decay too strong", weight_decay_too_strong, "About 0.1, on matrices only, never on gains."),
    ("learning rate too high", learning_rate_too_high, "Divide it by 10, and warm up."),
    ("learning rate too low", learning_rate_too_low, "Multiply it by 10 until it is too high, then go back."),
    ("evaluation mode forgotten", evaluation_mode_forgotten, "model.eval() before, model.train() after."),
    (
        "too little text",
        too_little_text,
        "More text, fewer epochs, or more dropout; stop at the lowest validation.",
    ),
)
ALARMS: tuple[Rule, ...] = (
    ("too good to be true", too_good, "Search for a way from the targets to the inputs."),
    (
        "does not learn",
        does_not_learn,
        "Let it learn one batch by heart first; then look at data and updates.",
    ),
)
