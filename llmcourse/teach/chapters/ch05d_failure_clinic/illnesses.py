"""The names of the illnesses of chapter 5d: other words for them, and the evidence for and against."""

import difflib
import re

from llmcourse.monitor.planted_bugs import BUGS
from llmcourse.teach.chapters.ch05d_failure_clinic.patients import HEALTHY

_LOW = r"(low|small|tiny|slow|little|divided|/ ?100|1/100|0\.01|0\.00003)"
_HIGH = r"(high|large|big|fast|huge|[x×*] ?100|100|0\.3\b)"
_RATE = r"(learning rate|\blr\b|\bstep( ?size)?s?\b|\brate\b)"
_TARGET = r"(targets?|labels?|answers?|\by)"
_INPUT = r"(inputs?|features?|x\b)"
_SAME = (
    r" ?((=|==|is|are|was|were|equals?)( just| simply| really)?( the)?( same as| equal to| identical to)?|"
    r"identical to|equal to)( the| its| their)? ?"
)
WORDS = {  # the first pattern that is found in an answer names it; the special ones come first
    HEALTHY: r"(?<!un)(?<!not )healthy|nothing( is| was)?( wrong| done| broken| changed| the matter|$)|"
    r"\b(no|without( an?| any)?) (illness|disease|bug|problem|issue|error|fault|defect|mistake|sickness)|"
    r"\bnot (ill|sick|broken)\b|^(it is |it's |all |is )*(ok|okay|fine|none|well|normal|good)$",
    "evaluation mode forgotten": r"eval(uation)? ?mode|\beval\b|\beval\(\)|train(ing)? mode|model\.train|"
    r"(forgot|forgets|never|not|no) .*\bevaluation\b|dropout(?!.*(high|strong|large|much))",
    "gradients not reset": r"zero[ _]?grad|(old|stale|earlier|previous) grad|grad\w*.*(not|never|without|left|accumul|pil|"
    r"add(ed|s)? up|sum)|(not|never|forgot\w*|missing|no) .*(reset|clear|zero|empt).*grad|accumulat",
    "float16 underflow": r"underflow|fp ?16|float ?16|\bhalf( precision| float)|^half$|(loss|gradient) scal|scaler|"
    r"low(er)? precision|16 bit",
    "weight decay too strong": r"decay|regulari[sz]|\bl2\b|\bwd\b",
    "learning rate too low": rf"{_RATE}.*{_LOW}|{_LOW}( an?| of an?)? {_RATE}",
    "learning rate too high": rf"{_RATE}.*{_HIGH}|{_HIGH}( an?| of an?)? {_RATE}",
    "softmax over the wrong axis": r"softmax|\baxis|\bdim|rows?.* sum to|over (the )?(queries|columns)",
    "targets not shifted": r"shift|copies|copying|off by one|identity|own target|autoencod|reconstruct|"
    rf"{_TARGET}{_SAME}{_INPUT}|{_INPUT}{_SAME}{_TARGET}|{_INPUT}.* (as|for)( the)? {_TARGET}|"
    r"(targets? and inputs?|inputs? and (targets?|labels?))( are)?( the)? (same|equal|identical)|x and y are|"
    r"same inputs? and (targets?|labels?)|token (itself|just read)|predicts? (itself|its|the (same|current) token)",
    "label leak": r"leak|\broll|answer|(target|label|next)\w*.* in.* (inputs?|features?|embedding)|"
    r"(sees?|knows?|looks? at|peeks? at|shows?)( only)?( the)? next|next (token|character|letter)|neighbou?r|peek|cheat",
    "no causal mask": r"mask|causal|future|bidirectional|look\w* ahead|later tokens|both (sides|directions)",
    "weight tying broken": r"\bt(ying|ied|ie)\b|unti|sharing|\b(un)?shared\b|frozen|output (layer|matrix)|unembedding|"
    r"embedding.*(not|copy|copied|still|separate)|not in the optimi[sz]er|"
    r"(parameter|layer|matrix|head|output weights)\b.*(never|not|n't).*(mov|updat|train|optimi[sz]|learn)",
    "initialization too large": r"\binit|start(s|ing|ed|ing out)? (weights|values|out|deviation|with|too)|weights.* at the start",
    "data not shuffled": r"shuffl|\bsort|order|sequential|one after (the other|another)|consecutive",
    "tokenizer mismatch": r"tokeni[sz]er|alphabet|vocab|encod|\bids?\b|other letters|character (map|set)|mapping",
    "too little text": r"overfit|memori[sz]|by heart|(little|few|small|less|more|enough|tiny|short|limited).*(text|data|corpus|"
    r"characters|examples)|(text|data|corpus)\w*( set)?( is| was| are)?( too| very)? (short|small|little|scarce|few)|too few|"
    r"again and again|repeat",
}
SIGNS = {  # what would be seen if the guess were right
    HEALTHY: "a healthy run stays in the grey range, and its lab values are close to the healthy column",
    "no causal mask": "without a mask, logits change when tokens two or more places later are changed",
    "targets not shifted": "then the first choice would be the token just read, nearly always",
    "label leak": "a leaked label shows when the NEXT token is changed, and not for later ones",
    "softmax over the wrong axis": "then the rows of attention would not sum to 1",
    "learning rate too low": "then a step would change the weights by a tenth of a percent at most",
    "float16 underflow": "then most of the gradient within the blocks would be exactly zero",
    "weight tying broken": "then one parameter would not have moved at all in the whole run",
    "weight decay too strong": "then the gains of the norms would have fallen far below 1",
    "learning rate too high": "then the matrices would have grown more than ten times as long",
    "gradients not reset": "then the gradient used would be longer than the one computed anew",
    "initialization too large": "then the UNTRAINED loss would be far above ln V = 4.2",
    "evaluation mode forgotten": "then the validation loss, measured again, would not be the same",
    "data not shuffled": "then nearly all rows would begin where the last one ended",
    "tokenizer mismatch": "then validation tokens would cost far more by the frequencies of training",
    "too little text": "then the training loss would be far below the validation loss, with no other cause",
}
AGAINST = {  # illness: {plausible guess: the evidence that speaks against it}
    "softmax over the wrong axis": {
        "no causal mask": "yes, the future is seen; but why? The attention rows do not sum to 1, and a missing mask leaves them at 1",
    },
    "label leak": {
        "no causal mask": "a missing mask shows ALL later tokens; here a change of a token two or more places later does nothing",
    },
    "no causal mask": {
        "label leak": "the answer is in the input, yes; but tokens two or more places later count too: what lets attention see them?",
    },
    "float16 underflow": {
        "learning rate too low": "steps change the weights by percents, as in a healthy run; look at the zeros in the gradient",
    },
    "weight decay too strong": {
        "learning rate too low": "steps are as large as in a healthy run; look at the gains of the norms",
    },
    "weight tying broken": {
        "learning rate too low": "steps are as large as in a healthy run; look at the LEAST moved parameter",
    },
    "learning rate too high": {
        "gradients not reset": "the gradient used is the batch's own, ratio 1.00; look at how the matrices grew",
    },
    "initialization too large": {
        "learning rate too high": "the loss is far too high BEFORE the first step, when no learning rate has acted yet",
    },
    "evaluation mode forgotten": {
        "too little text": "training loss and validation loss are close; measure the validation loss twice",
        HEALTHY: "its curves look healthy, yes; but its validation loss is another one when measured again",
    },
    "tokenizer mismatch": {
        "too little text": "the validation loss is above ln V = 4.2: worse than knowing nothing, which learning by heart does not explain",
    },
    "data not shuffled": {
        "too little text": "the gap looks like it; but see where the rows begin. The training text is special, not short",
    },
}


def recognize(answer: str) -> str | None:
    """Return the illness that a text names, or None; wording is free, and a slip of the pen is forgiven.

    >>> recognize("They forgot zero_grad()"), recognize("lr x 100"), recognize("helthy"), recognize("flu")
    ('gradients not reset', 'learning rate too high', 'healthy', None)
    """
    text = " ".join(str(answer).lower().replace("-", " ").replace("_", " ").split()).strip(" .!?")
    if text in (*BUGS, HEALTHY):
        return text
    found = next((name for name, pattern in WORDS.items() if re.search(pattern, text)), None)
    if found or text.startswith(("un", "not ")):
        return found
    return next(iter(difflib.get_close_matches(text, (*BUGS, HEALTHY), n=1, cutoff=0.8)), None)
