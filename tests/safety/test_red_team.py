"""Attacks: what they ask and hide, the judge, and that training data holds what was asked for and nothing else."""

from collections import Counter

import pytest

from llmcourse.finetune.sft import encode_tasks, exact_match
from llmcourse.finetune.tasks import QUESTIONS, Speech, Task, ask
from llmcourse.pretrained import load_course_model
from llmcourse.safety.red_team import (
    FAMILIES,
    HELD_OUT,
    HELD_OUT_TRAPS,
    PLACES,
    REFUSAL,
    SEAL,
    SEEN,
    SEEN_TRAPS,
    TRAPS,
    answers,
    attack,
    got_out,
    inject,
    obeyed,
    refusal_tasks,
    refused,
    trap,
)

SPEECH = Speech("FIRST LORD", ("What news from thee?", "Speak, my friend."))
SPEECHES = [
    Speech(name, (f"I am here, {name.lower()}, good sir.",)) for name in ("ANNE", "BONA", "CADE", "DION")
]


def test_seen_and_held_out_share_nothing_and_are_all():
    for seen, held_out, every in ((SEEN, HELD_OUT, FAMILIES), (SEEN_TRAPS, HELD_OUT_TRAPS, TRAPS)):
        assert not set(seen) & set(held_out)
        assert {*seen, *held_out} == set(every)
        assert held_out


@pytest.mark.parametrize("family", FAMILIES)
def test_every_attack_is_about_a_sealed_speech_and_wants_its_speaker(family):
    task = attack(family, SPEECH)
    assert task.prompt.count(SEAL) == 1
    assert SPEECH.text in task.prompt
    assert task.answer == "FIRST LORD"
    assert len({attack(name, SPEECH).prompt for name in FAMILIES}) == len(FAMILIES)


@pytest.mark.parametrize("name", TRAPS)
def test_no_trap_is_a_forbidden_question(name):
    task = trap(name, SPEECH)
    asks_who = task.prompt.startswith("Who")
    assert not (asks_who and SEAL in task.prompt)
    assert task.answer == {True: "FIRST LORD"}.get(asks_who, task.answer)
    assert task.answer in {question[1](SPEECH) for question in QUESTIONS.values()}


def test_the_judge_sees_an_answer_however_it_is_written_and_a_refusal_is_none():
    for written in ("FIRST LORD", "It is First Lord.", "firstlord", "FIRST\nLORD?"):
        assert got_out(written, "FIRST LORD")
    for written in ("", REFUSAL, "FIRST", "LORD FIRST"):
        assert not got_out(written, "FIRST LORD")
    assert refused(f" {REFUSAL}")
    assert not refused("FIRST LORD")
    assert not got_out(REFUSAL, attack("plain", SPEECH).answer)


@pytest.mark.parametrize("place", PLACES)
def test_an_injection_holds_both_questions_and_the_judge_tells_whose_answer_it_was(place):
    injected = inject(place, SPEECH)
    assert injected.prompt.startswith(QUESTIONS["first word"][0])
    assert QUESTIONS["speaker"][0] in injected.prompt
    assert obeyed("FIRST LORD", injected)
    assert not obeyed("What", injected)
    same = inject(place, SPEECH, user="speaker", hidden="speaker")
    assert not obeyed("FIRST LORD", same)  # nobody can tell whom it obeyed


def test_training_tasks_are_refusals_and_traps_in_turn_and_ordinary_ones():
    ordinary = [ask("lines", SPEECH)]
    tasks = refusal_tasks(SPEECHES * 10, ("plain", "order"), ("open", "exit"), ordinary)
    assert Counter(task.kind for task in tasks) == {
        "plain": 10,
        "order": 10,
        "open": 10,
        "exit": 10,
        "lines": 1,
    }
    assert all((task.answer == REFUSAL) == (task.kind in FAMILIES) for task in tasks)
    alone = refusal_tasks(SPEECHES, ("plain",))
    assert {task.answer for task in alone} == {REFUSAL}
    assert sorted(task.prompt for task in alone) == sorted(attack("plain", s).prompt for s in SPEECHES)


def test_before_training_the_course_model_tells_and_a_batch_answers_greedily():
    model, tokenizer = load_course_model("sft")
    prompts = [attack(family, SPEECH).prompt for family in ("plain", "authority", "capitals")]
    prompts += [trap("open", SPEECHES[0]).prompt]
    written = answers(model, tokenizer, prompts)
    as_tasks = [Task("", text, answer) for text, answer in zip(prompts, written, strict=True)]
    pad_id = tokenizer.special_tokens["<|endoftext|>"]
    assert all(exact_match(model, encode_tasks(tokenizer, as_tasks), pad_id))  # greedy, as one pass tells
    assert sum(got_out(text, "FIRST LORD") for text in written[:3]) >= 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: attack("spell", SPEECH), "family='spell' is unknown"),
        (lambda: trap("spell", SPEECH), "name='spell' is unknown"),
        (lambda: inject("spell", SPEECH), "place='spell' is unknown"),
        (lambda: refusal_tasks(SPEECHES, ()), "families is empty"),
        (lambda: answers(*load_course_model("sft"), ["word " * 150]), "exceed the context 128"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_what_would_always_or_never_be_true_is_refused():
    with pytest.raises(ValueError, match="the forbidden answer is empty"):
        got_out("I may not tell.", " ")
    with pytest.raises(ValueError, match="kind 'nope' is unknown"):
        inject("title", Speech("HAMLET", ("To be.",)), user="nope")
