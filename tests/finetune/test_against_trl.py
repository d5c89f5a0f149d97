"""Our losses equal those of trl's own trainers, on the same weights and the same ids.

The trainers' `compute_loss` is called as it is. trl pads prompts on the left and answers on the right, our
rows hold prompt and answer without a gap: so the ids are laid out twice, and the values must agree.
"""

import copy
import warnings

import pytest
import torch

from llmcourse.convert import to_transformers
from llmcourse.finetune.log_probs import token_log_probs
from llmcourse.finetune.policy import Rollouts, group_advantages, policy_loss
from llmcourse.finetune.preference import RewardModel, dpo_loss, pairwise_loss, preference_batch
from llmcourse.model import GPT, ModelConfig

PAD, END, V = 0, 1, 11
LETTERS = ["<pad>", "<end>", *"abcdefghi"]
PROMPTS = [[2, 3, 4], [5], [6, 7]]
ANSWERS = [[[8, 9, END], [3, END]], [[2, 2, 2, 4, END], [END]], [[10, END], [7, 6, 5, 4]]]  # the last was cut


@pytest.fixture(scope="module")
def trl():
    with warnings.catch_warnings():  # of the libraries that it imports
        warnings.simplefilter("ignore")
        return pytest.importorskip("trl", minversion="1.16")


@pytest.fixture(scope="module")
def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = Tokenizer(models.WordLevel({name: i for i, name in enumerate(LETTERS)}, unk_token="a"))
    letters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=letters, pad_token="<pad>", eos_token="<end>")


def small(seed):
    torch.manual_seed(seed)
    shape = dict(d_model=16, n_heads=2, n_layers=2, d_ff=32, context_length=16)
    model = GPT(ModelConfig(V, norm="rms", positions="rotary", mlp="swiglu", bias=False, **shape)).eval()
    for p in model.parameters():
        p.data.mul_(3)  # far from even
    return model


def theirs(seed):
    model = to_transformers(small(seed)).eval()
    model.config.pad_token_id, model.config.eos_token_id = PAD, END
    model.warnings_issued = {}
    return model


def settings(tmp_path, **more):
    quiet = dict(report_to=[], disable_tqdm=True, use_cpu=True, bf16=False)  # bf16 is on by default
    return dict(output_dir=str(tmp_path), per_device_train_batch_size=6, **quiet) | more


def data(rows):
    from datasets import Dataset

    return Dataset.from_list(rows)


def agree(total, count, model, loss, trainer):
    """The value, and the gradient of the embedding, which every token of the batch has a part in."""
    assert (total / count).item() == pytest.approx(loss.item(), rel=1e-5, abs=1e-6)
    (total / count).backward()
    loss.backward()
    other = trainer.model.get_input_embeddings().weight.grad
    torch.testing.assert_close(model.token_embedding.weight.grad, other, rtol=1e-4, atol=1e-6)
    assert other.abs().sum() > 0


# ---- GRPO ------------------------------------------------------------------------------------------


def grpo(trl, tokenizer, tmp_path, model, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        args = trl.GRPOConfig(**settings(tmp_path, num_generations=2, max_completion_length=8, **options))
        nothing = lambda completions, **_: [0.0] * len(completions)  # noqa: E731
        trainer = trl.GRPOTrainer(
            model, nothing, args=args, train_dataset=data([{"prompt": "a"}] * 6), processing_class=tokenizer
        )
    trainer.current_gradient_accumulation_steps = 1  # what `train` sets
    trainer.model.eval()  # no dropout here anyway; and trl then divides by nothing of a run
    return trainer


def as_trl(advantages, old=None, reference=None):
    """The batch as GRPOTrainer holds it: (B, P) prompts padded on the left, (B, A) answers on the right."""
    prompts = [prompt for prompt, answers in zip(PROMPTS, ANSWERS, strict=True) for _ in answers]
    answers = [answer for group in ANSWERS for answer in group]
    P, A = max(map(len, prompts)), max(map(len, answers))
    left = torch.tensor([[PAD] * (P - len(row)) + row for row in prompts])
    right = torch.tensor([row + [PAD] * (A - len(row)) for row in answers])
    lengths = torch.tensor([len(row) for row in answers])[:, None]
    begins = torch.tensor([P - len(row) for row in prompts])[:, None]
    batch = dict(
        prompt_ids=left,
        prompt_mask=(torch.arange(P) >= begins).long(),
        completion_ids=right,
        completion_mask=(torch.arange(A) < lengths).long(),
        advantages=advantages,
        num_items_in_batch=lengths.sum(),
    )
    for name, values in (("old_per_token_logps", old), ("ref_per_token_logps", reference)):
        if values is not None:
            moved = [row[row != 0] for row in values]
            batch[name] = torch.stack([torch.nn.functional.pad(row, (0, A - len(row))) for row in moved])
    return batch


def as_ours(advantages, old=None):
    rows = [prompt + answer for prompt, group in zip(PROMPTS, ANSWERS, strict=True) for answer in group]
    starts = torch.tensor([len(prompt) for prompt in PROMPTS for _ in range(2)])[:, None]
    T = max(map(len, rows))
    places, ends = torch.arange(T), torch.tensor([len(row) for row in rows])[:, None]
    token_ids = torch.tensor([row + [PAD] * (T - len(row)) for row in rows])
    return Rollouts(token_ids, (places >= starts) & (places < ends), advantages, old)


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize(
    ("loss_type", "options"),
    [
        ("grpo", dict(normalization="sequence")),
        ("bnpo", dict(normalization="token")),
        ("dapo", dict(normalization="token")),
        ("dr_grpo", dict(normalization="constant", max_tokens=8)),
    ],
)
def test_the_losses_of_grpo(trl, tokenizer, tmp_path, loss_type, options, moved):
    """Clipped at 0.2, with 0.3 times the divergence; `moved`: another model wrote the answers."""
    model, reference = small(0), small(1)
    advantages = group_advantages(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.0]]), scale=True).flatten()
    with torch.no_grad():
        plain = as_ours(advantages)
        old = token_log_probs(small(2), plain.token_ids, plain.mask) if moved else None
        kept = token_log_probs(reference, plain.token_ids, plain.mask)
    trainer = grpo(trl, tokenizer, tmp_path, theirs(0), loss_type=loss_type)
    trainer.beta = 0.3  # as an argument it would load the reference from the folder of the model
    loss = trainer.compute_loss(trainer.model, as_trl(advantages, old, kept))
    total, count = policy_loss(0.2, 0.3, reference, **options)(model, as_ours(advantages, old))
    agree(total, count, model, loss, trainer)


def test_the_defaults_of_trl_are_dapo_without_a_divergence_and_with_the_scale(trl, tokenizer, tmp_path):
    trainer = grpo(trl, tokenizer, tmp_path, theirs(0))
    args = trainer.args
    assert (args.loss_type, args.beta, args.epsilon, args.scale_rewards) == ("dapo", 0.0, 0.2, "group")
    assert (args.num_iterations, args.temperature) == (1, 1.0)


# ---- pairs -------------------------------------------------------------------------------------------


def letters(ids):
    """The text of ids, without its end, which trl adds."""
    assert ids[-1] == END
    return "".join(LETTERS[i] for i in ids[:-1])


PAIRS = [
    ([2, 3, 4], [8, 9, END], [3, END]),
    ([5], [2, 2, 2, 4, END], [10, END]),
    ([6, 7], [3, END], [7, 6, END]),
]


def as_texts():
    return [
        {
            "prompt": "".join(LETTERS[i] for i in prompt),
            "chosen": letters(chosen),
            "rejected": letters(rejected),
        }
        for prompt, chosen, rejected in PAIRS
    ]


@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_the_loss_of_dpo(trl, tokenizer, tmp_path, beta):
    model, reference = small(0), small(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = trl.DPOTrainer(
            theirs(0), theirs(1), trl.DPOConfig(**settings(tmp_path, beta=beta)),
            train_dataset=data(as_texts()), processing_class=tokenizer,
        )  # fmt: skip
        batch = next(iter(trainer.get_train_dataloader()))
        trainer.model.eval()
        loss = trainer.compute_loss(trainer.model, batch)
    total, count = dpo_loss(reference, beta)(model, preference_batch(PAIRS))
    assert abs(loss.item() - 0.6931) > 1e-3
    agree(total, count, model, loss, trainer)


def test_the_loss_of_a_reward_model(trl, tokenizer, tmp_path):
    from transformers import LlamaForSequenceClassification

    model = RewardModel(small(0))
    torch.nn.init.normal_(model.head.weight)
    config = copy.deepcopy(theirs(0).config)
    config.num_labels = 1
    other = LlamaForSequenceClassification(config).eval()
    other.model.load_state_dict(theirs(0).model.state_dict())
    other.score.weight.data = model.head.weight.data.clone()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = trl.RewardTrainer(
            other,
            trl.RewardConfig(**settings(tmp_path)),
            train_dataset=data(as_texts()),
            processing_class=tokenizer,
        )
        loss = trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader())))
    total, count = pairwise_loss(model, preference_batch(PAIRS))
    agree(total, count, model.body, loss, trainer)
