"""Classification: features equal those of one text at a time; the probe is scikit-learn's."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from llmcourse import runtime
from llmcourse.data.batches import batches_by_length, pad_right
from llmcourse.data.sources.encoder import stand_in_encoder
from llmcourse.finetune import classify
from llmcourse.model import GPT, ModelConfig
from llmcourse.optim import parameter_groups
from llmcourse.schedules import warmup_cosine
from llmcourse.tune.techniques import make_config, make_model

ROWS = [[3, 4, 5, 6], [7], [8, 9, 1], [2, 2, 2, 2, 2], [1, 5]]


def small_gpt(seed=0):
    torch.manual_seed(seed)
    return GPT(ModelConfig(vocab_size=12, context_length=8, d_model=16, n_heads=2, n_layers=2)).eval()


def test_batches_hold_every_row_once_and_waste_little():
    lengths = [5, 90, 6, 88, 5, 91, 7, 40]
    for seed in (None, 0, 1):
        batches = classify.batches_by_length(lengths, 3, seed)
        assert sorted(i for batch in batches for i in batch) == list(range(8))
        assert max(map(len, batches)) == 3
        assert sum(len(b) * max(lengths[i] for i in b) for b in batches) == 3 * 91 + 3 * 40 + 2 * 5
    assert classify.batches_by_length(lengths, 3)[0] == [5, 1, 3]
    many = [1] * 50
    assert classify.batches_by_length(many, 4, 0) == classify.batches_by_length(many, 4, 0)
    assert classify.batches_by_length(many, 4, 0) != classify.batches_by_length(many, 4, 1)


def test_batches_refuse_what_cannot_be_batched():
    with pytest.raises(ValueError, match="nothing to put into batches"):
        classify.batches_by_length([], 4)
    with pytest.raises(ValueError, match="batch_size=0"):
        classify.batches_by_length([1], 0)


def test_mean_pool_is_the_mean_of_the_real_tokens():
    hidden = torch.randn(2, 4, 3)
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    pooled = classify.mean_pool(hidden, mask)
    assert torch.allclose(pooled[0], hidden[0, :2].mean(0), atol=1e-6)
    assert torch.allclose(pooled[1], hidden[1].mean(0), atol=1e-6)
    assert torch.equal(classify.mean_pool(hidden, mask * 0), torch.zeros(2, 3))


def test_the_last_hidden_state_gives_the_models_logits():
    model, ids = small_gpt(), torch.tensor([ROWS[0]])
    states = classify.hidden_states(model, ids)
    assert len(states) == 3
    assert torch.allclose(model.unembedding(states[-1]), model(ids), atol=1e-6)


@pytest.mark.parametrize(
    "part", [dict(value_embeddings=True), dict(embedding_shift=2), dict(token_shift=True), dict(qk_norm=True)]
)
def test_the_last_hidden_state_gives_the_logits_with_every_part_that_a_reader_can_switch_on(part):
    model = make_model(make_config(vocab_size=30, context_length=12, d_model=16, n_layers=2, **part)).eval()
    for parameter in model.parameters():  # zeros would hide what is forgotten
        torch.nn.init.normal_(parameter, std=0.3)
    ids = torch.tensor([ROWS[0]])
    logits = model.unembedding(classify.hidden_states(model, ids)[-1])
    assert torch.allclose(logits, model(ids), atol=1e-6)
    assert classify.GPTClassifier(model)(*classify.pad_right(ROWS)).shape == (len(ROWS), 2)


def test_features_of_our_gpt_do_not_depend_on_the_batch():
    model = small_gpt()
    together = classify.gpt_features(model, ROWS, batch_size=3)
    assert together.shape == (5, 3, 16)
    for row, features in zip(ROWS, together, strict=True):
        with torch.no_grad():
            alone = [state.mean(dim=(0, 1)) for state in classify.hidden_states(model, torch.tensor([row]))]
        assert torch.allclose(features, torch.stack(alone), atol=1e-5)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    from transformers import AutoModel, AutoTokenizer

    folder = tmp_path_factory.mktemp("encoder")
    for name, content in stand_in_encoder(d_model=24, n_layers=2).items():
        (folder / name).write_bytes(content)
    return AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def test_features_of_an_encoder_do_not_depend_on_the_batch(encoder):
    model, tokenizer = encoder
    texts = ["a fine film", "no", "the dullest hour of the year, and then another hour"]
    together = classify.encoder_features(model, tokenizer, texts, max_length=16, batch_size=2)
    assert together.shape == (3, 3, 24)
    for text, features in zip(texts, together, strict=True):
        inputs = tokenizer(text, truncation=True, max_length=16, return_tensors="pt")
        with torch.no_grad():
            states = model(**inputs, output_hidden_states=True).hidden_states
        assert torch.allclose(features, torch.stack([s[0].mean(0) for s in states]), atol=1e-5)
    rough = classify.encoder_features(model, tokenizer, texts, max_length=16, dtype=torch.bfloat16)
    assert rough.dtype == torch.float32
    assert (rough - together).abs().max() < 0.1


def test_bfloat16_only_where_the_processor_has_it(monkeypatch):
    cases = [
        ({"amx_bf16": True}, torch.bfloat16),
        ({"amx_bf16": False, "avx512_bf16": True}, torch.bfloat16),
        ({"avx512_f": True, "amx_bf16": False, "avx512_bf16": False}, torch.float32),
        ({"avx2": True}, torch.float32),
    ]
    for capabilities, dtype in cases:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda c=capabilities: c, raising=False)
        assert runtime.fast_dtype() == dtype
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert runtime.fast_dtype() == torch.float32


def test_the_probe_is_logistic_regression_on_standardized_features():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 4)) * [1, 10, 0.1, 3] + 5
    y = (x[:, 0] + x[:, 1] / 10 + rng.normal(size=60) > 6).astype(int)
    z = (x - x.mean(0)) / x.std(0)
    expected = LogisticRegression(C=0.5, max_iter=500).fit(z, y).predict_proba(z)
    probe = classify.linear_probe(x, y, strength=0.5)
    assert np.allclose(probe.predict_proba(x), expected, atol=1e-5)


def test_the_probe_refuses_missing_labels_and_a_single_class():
    with pytest.raises(ValueError, match="3 texts but 2 labels"):
        classify.linear_probe(np.ones((3, 2)), [0, 1])
    with pytest.raises(ValueError, match="examples of two classes"):
        classify.linear_probe(np.ones((3, 2)), [1, 1, 1])


def test_a_new_head_guesses_evenly_and_leaves_the_given_model_alone():
    gpt = small_gpt()
    before = {name: value.clone() for name, value in gpt.state_dict().items()}
    model = classify.GPTClassifier(gpt, n_classes=3)
    logits = model(*classify.pad_right(ROWS))
    assert torch.equal(logits, torch.zeros(5, 3))
    classify.fit_classifier(model, ROWS, [0, 1, 2, 0, 1], steps=3)
    assert all(torch.equal(before[name], value) for name, value in gpt.state_dict().items())
    assert not torch.equal(model.body.blocks[0].attention.qkv.weight, before["blocks.0.attention.qkv.weight"])


def test_fitting_learns_what_can_be_learned_and_repeats_exactly():
    generator = torch.Generator().manual_seed(0)
    rows = [[*torch.randint(2, 12, (5,), generator=generator).tolist(), i % 2] for i in range(40)]
    labels = [row[-1] for row in rows]
    runs = []
    for _ in range(2):
        model = classify.GPTClassifier(small_gpt())
        runs.append(classify.fit_classifier(model, rows, labels, steps=100, lr=2e-2, batch_size=8, seed=3))
    assert runs[0] == runs[1]
    assert len(runs[0]) == 100
    assert abs(runs[0][0] - np.log(2)) < 1e-6
    assert classify.accuracy(model, rows, labels, batch_size=7) == 1.0
    assert classify.accuracy(model, rows, [1 - label for label in labels]) == 0.0


def test_fitting_takes_the_steps_of_a_loop_written_out_with_torchs_adamw():
    rows = [[i % 12] * (1 + i % 7) for i in range(30)]
    labels, steps = torch.tensor([row[0] % 2 for row in rows]), 11
    mine, theirs = (classify.GPTClassifier(small_gpt()).double() for _ in range(2))
    losses = classify.fit_classifier(mine, rows, labels, steps, lr=5e-3, batch_size=8, seed=2)
    groups = parameter_groups(theirs.train(), 0.1)
    optimizer, expected = torch.optim.AdamW(groups, lr=5e-3), []
    schedule = warmup_cosine(steps, 1)
    epochs = [batches_by_length([len(row) for row in rows], 8, seed=2 * 1009 + epoch) for epoch in range(3)]
    for batch in [batch for epoch in epochs for batch in epoch][:steps]:
        for group in optimizer.param_groups:
            group["lr"] = 5e-3 * schedule(len(expected))
        loss = F.cross_entropy(theirs(*pad_right([rows[i] for i in batch])), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        optimizer.step()
        expected.append(loss.item())
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
    for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("n", "batch_size"), [(1, 64), (2, 1), (3, 2), (65, 64)])
def test_an_empty_text_has_features_of_0_however_the_rows_are_divided(n, batch_size):
    """allenai/allennlp#837: with 64 rows and an empty one, the last batch holds the empty one alone."""
    rows = [[], *([[1, 2]] * (n - 1))]
    features = classify.gpt_features(small_gpt(), rows, batch_size)
    assert features.shape == (n, 3, 16)
    assert torch.equal(features[0], torch.zeros(3, 16))
    assert torch.isfinite(features).all()
    if n > 1:
        alone = classify.gpt_features(small_gpt(), [[1, 2]])
        assert torch.allclose(features[1:], alone.expand(n - 1, -1, -1), atol=1e-6)


def test_a_model_with_a_head_reads_empty_texts_too():
    model = classify.GPTClassifier(small_gpt())
    losses = classify.fit_classifier(model, [[1, 2], [], [3]], [0, 1, 0], steps=6, batch_size=1)
    assert np.isfinite(losses).all()
    assert classify.accuracy(model, [[]], [1], batch_size=1) == classify.accuracy(model, [[], []], [1, 1])
    assert model(*classify.pad_right([[]])).shape == (1, 2)
    assert torch.equal(model(*classify.pad_right([[]])), model.head(torch.zeros(1, 16)))


def test_a_text_without_tokens_has_encoder_features_of_0(encoder):
    model, tokenizer = encoder
    bare = lambda texts, **options: tokenizer(texts, add_special_tokens=False, **options)  # noqa: E731
    bare.pad_token_id = tokenizer.pad_token_id
    for texts in ([""], ["", ""], ["no", "", "a fine film"]):
        features = classify.encoder_features(model, bare, texts, batch_size=1)
        assert torch.equal(features[0 if texts[0] == "" else 1], torch.zeros(3, 24))
        assert torch.isfinite(features).all()
    for texts, message in (
        ([], "at least one text"),
        ("no", "give a row"),
        (["no", None], r"texts\[1\] is None"),
    ):
        with pytest.raises(ValueError, match=message):
            classify.encoder_features(model, tokenizer, texts)


@pytest.mark.parametrize(
    ("rows", "labels", "message"),
    [
        ([], [], "at least one text"),
        ([[1], [1] * 9], [0, 1], r"rows\[1\] has 9 tokens and the model's context 8"),
        ([[1], [12]], [0, 1], r"rows\[1\]\[0\] is 12: give ids from 0 to 11"),
        ([[1], [2]], [0, 2], r"labels\[1\] is 2: give classes from 0 to 1"),
        ([[1], [2]], [0, -100], r"labels\[1\] is -100"),
        ([[1], [2]], [0], "2 texts but 1 labels"),
        ([[1]], [0, 1], "1 texts but 2 labels"),
        (["no"], [0], "give a row"),
    ],
)
def test_rows_that_cannot_be_read_are_named_before_the_first_step(rows, labels, message):
    model = classify.GPTClassifier(small_gpt())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for call in (lambda: classify.fit_classifier(model, rows, labels, steps=99, batch_size=1),
                 lambda: classify.accuracy(model, rows, labels)):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            call()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_probe_takes_tensors_of_any_precision_and_names_of_classes():
    x, names = torch.randn(20, 3), ["rotten", "fresh"] * 10
    probe = classify.linear_probe(x.bfloat16().requires_grad_(), names)
    assert set(probe.predict(x.numpy())) <= {"rotten", "fresh"}
    assert (
        probe.predict(x.numpy()) == classify.linear_probe(x.bfloat16().float(), names).predict(x.numpy())
    ).all()
    with pytest.raises(ValueError, match=r"labels\[1\] is 0.5"):
        classify.linear_probe(x[:2], [0, 0.5])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_body_of_another_precision_gets_a_head_that_can_read_it(dtype):
    """As peft keeps adapters in float32 on a base in half precision (huggingface/peft#1515)."""
    model, token_ids = classify.GPTClassifier(small_gpt().to(dtype)), classify.pad_right(ROWS)
    torch.nn.init.normal_(model.head.weight)
    expected = copy.deepcopy(model).double()(*token_ids).float()
    torch.testing.assert_close(model(*token_ids), expected, rtol=0.05, atol=0.1)
    classify.fit_classifier(model, ROWS, [0, 1, 0, 1, 0], steps=1)


@pytest.mark.parametrize(("name", "value"), [("steps", 1.5), ("steps", math.nan), ("lr", math.nan)])
def test_fitting_refuses_numbers_with_which_nothing_is_learned(name, value):
    model = classify.GPTClassifier(small_gpt())
    with pytest.raises(ValueError, match=f"{name}={value}"):
        classify.fit_classifier(model, [[1], [2]], [0, 1], **{"steps": 2, name: value})


def test_fitting_refuses_missing_labels():
    with pytest.raises(ValueError, match="5 texts but 4 labels"):
        classify.fit_classifier(classify.GPTClassifier(small_gpt()), ROWS, [0, 1, 0, 1], steps=1)
