"""The stored runs of chapters 2, 3e, 5a and 5d: a few are run again, and the rest hold what their cards say."""

import json
import random
import sys

import numpy as np
import pytest
from notebook_tools import ROOT

from llmcourse.data.sources.reviews import load_reviews, split_by_movie
from llmcourse.monitor.diagnose import diagnose
from llmcourse.monitor.small_run import healthy_run, healthy_setup
from llmcourse.pretrained import load_course_model
from llmcourse.teach.chapters.ch02_core_concepts import methods
from llmcourse.teach.chapters.ch03e_significance import tiny
from llmcourse.teach.chapters.ch05a_transformers import judge
from llmcourse.teach.chapters.ch05d_failure_clinic import patients, spikes, stored
from llmcourse.tune.search import best_trial, random_search

sys.path.insert(0, str(ROOT / "tools"))
import measure_judge

LETTERS = {letter: name for names in patients.ROUNDS.values() for letter, name in names.items()}


@pytest.mark.parametrize("letter", LETTERS)
def test_diagnose_names_each_stored_patient(letter):
    findings = [finding.name for finding in diagnose(stored.stored_patients()[letter])]
    assert findings[:1] == ([] if LETTERS[letter] == patients.HEALTHY else [LETTERS[letter]])


def test_a_patient_trained_again_is_the_stored_one():
    again, kept = patients.train_patient("J", stored.SEED), stored.stored_patients()["J"]
    near = [(s.loss, s.lr, s.grad_norm) for s in again.steps[:40]]
    assert np.allclose(near, [(s.loss, s.lr, s.grad_norm) for s in kept.steps[:40]], rtol=1e-3)
    assert [s.tokens for s in again.steps] == [s.tokens for s in kept.steps]
    assert kept.repeated_validation_loss[0] == pytest.approx(again.repeated_validation_loss[0], abs=0.03)


def test_a_record_survives_its_storage():
    run = healthy_run(5, steps=6)
    back = stored.from_json(json.loads(json.dumps(stored.as_json(run))))
    assert [s.loss for s in back.steps] == pytest.approx([s.loss for s in run.steps], rel=1e-5)
    assert back.recomputed_grad_norms == run.recomputed_grad_norms
    assert (back.future_leak, back.sample) == (run.future_leak, run.sample)


def test_another_seed_is_trained(monkeypatch):
    monkeypatch.setattr(patients, "train_patient", lambda letter, seed: (letter, seed))
    assert patients.admit("stuck", 7) == {letter: (letter, 7) for letter in "EFGH"}


def test_each_round_asks_for_rows_that_there_are():
    kept = stored.stored_patients()
    for name, prefixes in patients.ASKED.items():
        rows = patients.lab_table({}, kept["J"], name).splitlines()[1:]
        assert len(rows) in (5, 6)
        assert all(any(row.startswith(prefix) for row in rows) for prefix in prefixes)


def test_training_goes_on_at_the_rate_of_its_place():
    whole, second = healthy_setup(3, steps=12), healthy_setup(3, steps=12)
    steps = list(spikes.train_from(whole, spikes.noisy_batches(whole, first=99, n_bad=1), done=0))
    rest = list(spikes.train_from(second, second.batches, done=7))
    assert [s.lr for s in rest] == [s.lr for s in steps[7:]]


def test_a_snapshot_brings_the_weights_back():
    setup = healthy_setup(3, steps=4)
    kept = spikes.snapshot(setup)
    before = [p.clone() for p in setup.model.parameters()]
    list(spikes.train_from(setup, setup.batches, done=0))
    assert not all((a == b).all() for a, b in zip(before, setup.model.parameters(), strict=True))
    spikes.restore(setup, kept)
    assert all((a == b).all() for a, b in zip(before, setup.model.parameters(), strict=True))


def test_only_the_named_batches_are_noise():
    clean, noisy = healthy_setup(3), healthy_setup(3)
    pairs = zip(clean.batches, spikes.noisy_batches(noisy, first=3, n_bad=2), range(1, 7), strict=False)
    same = [number for a, b, number in pairs if (a[0] == b[0]).all() and (a[1] == b[1]).all()]
    assert same == [1, 2, 5, 6]


def test_a_pool_answers_as_training_would():
    rng = random.Random(0)  # how the first pool was drawn
    settings = tiny.draw_settings(rng)
    score, state = tiny.train_units(settings, None, 1, seed=0)
    later, _ = tiny.train_units(settings, state, 2, seed=0)
    pool = tiny.stored_pools()[0]
    assert -score == pytest.approx(pool.losses[0][1], rel=1e-3)
    assert -later == pytest.approx(pool.losses[0][3], rel=1e-3)
    first, done = pool.train(0, None, 1)
    assert (-first, pool.train(0, done, 2)) == (pool.losses[0][1], (-pool.losses[0][3], 3))
    found = best_trial(random_search(pool.draw, pool.train, budget=27 * 400, steps=27))
    assert -found.score == min(losses[27] for losses in pool.losses)


def test_the_judgements_belong_to_the_test_reviews():
    _, _, test = split_by_movie(load_reviews(quiet=True))
    judged = judge.stored_judgements([review.label for review in test])
    assert list(judged) == ["frozen", *(f"fine-tuned (seed {seed})" for seed in judge.SEEDS)]
    assert all(len(p) == len(test) and ((p >= 0) & (p <= 1)).all() for p in judged.values())


def test_a_judge_trained_again_begins_as_the_stored_one():
    _, _, losses = measure_judge.train_judge(1, steps=5)
    assert losses == pytest.approx(judge.stored_losses()[1][:5], abs=0.005)
    assert losses != pytest.approx(judge.stored_losses()[2][:5], abs=0.005)  # another seed is another run


def test_other_reviews_get_noisy_labels_and_a_sentence(capsys):
    judged = judge.stored_judgements([1, 0] * 200)
    assert "not those of the 2551 stored test reviews" in capsys.readouterr().out
    assert list(judged) == ["frozen", *(f"fine-tuned (seed {seed})" for seed in judge.SEEDS)]
    for p in judged.values():
        assert 0.6 < ((p > 0.5) == np.array([True, False] * 200)).mean() < 0.95


def test_stored_scores_are_those_of_the_methods():
    scores = methods.stored_scores()
    assert {len(values) for by_n in scores.values() for n, values in by_n.items() if n <= 2000} == {10}
    _, tokenizer = load_course_model("pretrained")
    train, _, test = split_by_movie(load_reviews(quiet=True))
    test = methods.reviews_for(tokenizer, random.Random(0).sample(test, 1000))
    some = methods.draw(len(train), 20, seed=1)
    few = methods.reviews_for(tokenizer, [train[i] for i in some])
    assert methods.tf_idf(few, test).mean() == pytest.approx(scores["TF-IDF"][20][0], abs=5e-4)
