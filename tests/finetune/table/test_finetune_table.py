"""From a CSV file to a folder: what comes out, what goes on after a kill, what is refused."""

import csv
import io
import json
import random
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from llmcourse import cli
from llmcourse.data.batches import LabelledBatches
from llmcourse.data.cards import digest_agrees, file_digest, missing_statements, read_card
from llmcourse.data.sources.encoder import stand_in_encoder
from llmcourse.finetune.table import command, folder, train
from llmcourse.finetune.table.command import finetune_table
from llmcourse.finetune.table.encoder import HiddenBatches, RecipeError, UpperLayers
from llmcourse.finetune.table.folder import FolderError, RunFolder
from llmcourse.finetune.table.read import TableError
from llmcourse.finetune.table.report import Report
from llmcourse.finetune.table.train import Recipe, default_epochs, load_encoder, token_rows

RECIPE = Recipe(epochs=2, batch_size=16, lr=2e-3, frozen_layers=1, max_length=24)
WORDS = {"good": ["warm", "fresh", "clever", "moving"], "bad": ["dull", "stale", "clumsy", "noisy"]}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    path = tmp_path_factory.mktemp("encoder")
    for name, content in stand_in_encoder(d_model=24, n_layers=2).items():
        (path / name).write_bytes(content)
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path, rng = tmp_path_factory.mktemp("table") / "films.csv", random.Random(0)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", "film"])
        for i in range(110):
            name = rng.choice(list(WORDS))
            writer.writerow(
                [f"{i} {rng.choice(WORDS[name])} {rng.choice(WORDS[name])}", name, f"film {i % 30}"]
            )
    return path


@pytest.fixture(scope="module")
def finished(table, encoder, tmp_path_factory):
    out, said = tmp_path_factory.mktemp("out") / "judge", []
    report = finetune_table(table, out, group="film", encoder=str(encoder), recipe=RECIPE, say=said.append)
    return out, report, said


def digests(path: Path) -> dict:
    return {file.name: file_digest(file) for file in path.iterdir() if file.name != "run.json"}


def rows_of(path: Path) -> list[dict]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


# ---- what comes out -------------------------------------------------------------------------


def test_a_pipeline_loads_the_folder_and_says_the_names_of_the_labels(finished, table):
    from transformers import pipeline

    out, report, _ = finished
    judge = pipeline("text-classification", str(out), truncation=True, max_length=24)
    rows = rows_of(out / "test.csv")
    lines = table.read_text(encoding="utf-8").splitlines()
    for row in rows[:6]:
        said = judge(lines[int(row["line"]) - 1].split(",")[0])[0]
        assert said["label"] == row["predicted"]
        assert said["score"] == pytest.approx(float(row["probability"]), abs=2e-4)
    assert len(rows) == report.sizes["test"]
    assert np.mean([row["label"] == row["predicted"] for row in rows]) == pytest.approx(report.accuracy)
    assert json.loads((out / "config.json").read_text("utf-8"))["id2label"] == {"0": "bad", "1": "good"}


def test_the_card_lacks_the_licence_alone_until_it_is_filled_in(finished):
    out, report, _ = finished
    text = (out / "README.md").read_text(encoding="utf-8")
    stated = read_card(text)
    assert missing_statements(stated) == ["licence"]
    assert missing_statements(read_card(text.replace("TODO", "CC-BY-4.0"))) == []
    assert digest_agrees(out)
    assert f"{report.accuracy:.3f}" in stated["test accuracy"]
    assert "all rows of a 'film' on one side" in stated["split"]


def test_films_are_on_one_side(finished, table):
    out, _, _ = finished
    films = [row["film"] for row in rows_of(table)]
    tested = {int(row["line"]) - 2 for row in rows_of(out / "test.csv")}
    assert {films[i] for i in tested}.isdisjoint(films[i] for i in range(110) if i not in tested)


def test_the_report_compares_with_two_baselines(finished):
    out, report, _ = finished
    assert Report.load(out / "report.json") == report
    assert [rival.name.split()[0] for rival in report.rivals] == ["always", "TF-IDF"]
    for rival in report.rivals:
        assert rival.difference == pytest.approx(report.accuracy - rival.accuracy)
        assert rival.low <= rival.difference <= rival.high
    assert report.rivals[1].accuracy == 1.0, "counted words tell these classes apart"
    assert len(report.validation_losses) == 2
    assert len(report.lines()) == 3


def test_nothing_else_is_left_in_the_folder(finished):
    names = {file.name for file in finished[0].iterdir()}
    assert names == {
        "README.md", "config.json", "model.safetensors", "report.json", "run.json", "test.csv",
        "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip


def test_a_finished_run_is_not_run_again_and_an_edited_card_stays(finished, table, encoder):
    out, report, _ = finished
    card = out / "README.md"
    before = card.read_text(encoding="utf-8")
    card.write_text(before.replace("TODO", "CC0-1.0"), encoding="utf-8")
    said = []
    again = finetune_table(table, out, group="film", encoder=str(encoder), recipe=RECIPE, say=said.append)
    assert again == report
    assert "is finished" in said[-1]
    assert "CC0-1.0" in card.read_text(encoding="utf-8")
    card.write_text(before, encoding="utf-8")


def test_random_numbers_and_threads_of_the_caller_stay(table, encoder, tmp_path):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    finetune_table(
        table, tmp_path / "o", encoder=str(encoder), recipe=Recipe(epochs=1, frozen_layers=2), say=list
    )
    assert torch.equal(torch.rand(3), expected)


# ---- stopped, and gone on with --------------------------------------------------------------


class Killed(BaseException):
    """Stands for a power cut: nobody catches it."""


def interrupted(monkeypatch, place: int, what: str):
    """Make call number `place` of something raise, once: a step of the run, or the writing of a file."""
    owner, name = {
        "batch": (HiddenBatches, "__next__"),
        "checkpoint": (train, "record_loss"),
        "export": (command, "write_card"),
        "move": (Path, "replace"),
        "predict": (command, "predict"),
    }[what]
    real, calls = getattr(owner, name), iter(range(10**6))

    def maybe(*args, **options):
        if next(calls) == place:
            raise Killed
        return real(*args, **options)

    monkeypatch.setattr(owner, name, maybe)


STOPS = [("batch", 3), ("checkpoint", 0), ("predict", 0), ("export", 0), ("move", 9)]


@pytest.mark.parametrize(("what", "place"), STOPS)
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(
    what, place, finished, table, encoder, tmp_path, monkeypatch
):
    out, how = tmp_path / "judge", dict(group="film", encoder=str(encoder), recipe=RECIPE, say=list)
    with monkeypatch.context() as patched:
        interrupted(patched, place, what)
        with pytest.raises(Killed):
            finetune_table(table, out, **how)
    assert not (out / "README.md").exists(), "a folder with a card is a finished one"
    report = finetune_table(table, out, **how)
    assert report == finished[1]
    assert digests(out) == digests(finished[0])


def test_a_checkpoint_is_gone_on_with_and_not_begun_again(table, encoder, tmp_path, monkeypatch):
    out, how = tmp_path / "judge", dict(group="film", encoder=str(encoder), recipe=RECIPE)
    with monkeypatch.context() as patched:
        interrupted(patched, 9, "batch")
        with pytest.raises(Killed):
            finetune_table(table, out, say=list, **how)
    (out / "work" / ".0123.part.pt").write_bytes(b"what a killed process was writing")
    said = []
    finetune_table(table, out, say=said.append, **how)
    assert "training goes on where it stopped" in said
    assert not any(line.startswith("step 5:") for line in said), "the first epoch is not trained again"


# ---- refused --------------------------------------------------------------------------------


def test_a_folder_of_another_run_is_refused(finished, table, encoder, tmp_path):
    out, _, _ = finished
    other = tmp_path / "other.csv"
    other.write_text(table.read_text(encoding="utf-8").replace("film 1\n", "film 2\n"), encoding="utf-8")
    with pytest.raises(FolderError, match=r"another run: data is .* there and .* here"):
        finetune_table(other, out, group="film", encoder=str(encoder), recipe=RECIPE, say=list)
    with pytest.raises(FolderError, match=r"another run: columns is .*; recipe is"):
        finetune_table(table, out, encoder=str(encoder), recipe=Recipe(), say=list)


def test_folders_that_cannot_be_used(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(FolderError, match="is a file: give a folder"):
        RunFolder(tmp_path / "file").begin({})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(FolderError, match=r"holds other things \(thesis.tex\): give a new"):
        RunFolder(tmp_path / "full").begin({})
    (tmp_path / "full" / "run.json").write_text("not JSON", encoding="utf-8")
    with pytest.raises(FolderError, match="no record of a run"):
        RunFolder(tmp_path / "full").begin({})
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(folder.shutil, "disk_usage", lambda path: usage(10, 10, 5_000_000))
    with pytest.raises(FolderError, match="5 MB are free there and 300 MB are needed"):
        RunFolder(tmp_path / "new").begin({}, megabytes=300)
    assert not (tmp_path / "new").exists()


def test_a_folder_that_was_just_being_claimed_is_claimed_again(tmp_path, monkeypatch):
    place = RunFolder(tmp_path / "out")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", lambda *names: (_ for _ in ()).throw(Killed))
        patched.setattr(Path, "unlink", lambda *names, **options: None)  # nobody cleans up after a kill
        with pytest.raises(Killed):
            place.begin({"data": "x"})
    assert [file.name.endswith(".part.json") for file in place.path.iterdir()] == [True]
    assert place.begin({"data": "x"}) == "new"
    assert sorted(file.name for file in place.path.iterdir()) == ["run.json", "work"]
    assert place.begin({"data": "x"}) == "resumed"


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    def refuse(path, *args, **options):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(OSError, match="Permission denied"):
        RunFolder(tmp_path / "new").begin({})


def test_encoders_that_cannot_be_used(table, encoder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(TableError, match=r"cannot be loaded .* leave the option out"):
        finetune_table(table, tmp_path / "o", encoder=str(tmp_path / "empty"), say=list)
    with pytest.raises(TableError, match="reads at most 512 tokens"):
        finetune_table(table, tmp_path / "o", encoder=str(encoder), recipe=Recipe(max_length=600), say=list)
    with pytest.raises(RecipeError, match="frozen_layers=3, but the encoder has 2 layers"):
        finetune_table(table, tmp_path / "p", encoder=str(encoder), recipe=Recipe(frozen_layers=3), say=list)
    for bad in (dict(lr=0.0), dict(epochs=0), dict(batch_size=1.5), dict(seed=-1), dict(seed=2**62),
                dict(max_length=2), dict(lr=float("nan"))):  # fmt: skip
        with pytest.raises(RecipeError, match=next(iter(bad))):
            Recipe(**bad)


def folder_of(tokenizer_from: Path, model, path: Path) -> str:
    """Save `model` with the tokenizer of another folder."""
    shutil.copytree(tokenizer_from, path)
    (path / "model.safetensors").unlink()
    with train.quiet():
        model.save_pretrained(path)
    return str(path)


def test_roberta_reads_two_tokens_less_than_its_table_of_positions(encoder, tmp_path):
    sizes = dict(
        vocab_size=96, hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24
    )
    config = transformers.RobertaConfig(**sizes, max_position_embeddings=40, pad_token_id=1)
    name = folder_of(encoder, transformers.RobertaModel(config), tmp_path / "r")
    with pytest.raises(TableError, match="--max-length 39: this encoder reads at most 38 tokens"):
        load_encoder(name, ["a", "b"], Recipe(max_length=39))
    model, _ = load_encoder(name, ["a", "b"], Recipe(max_length=38))
    assert model(torch.full((1, 38), 5), attention_mask=torch.ones(1, 38)).logits.shape == (1, 2)


def test_an_encoder_that_cannot_be_taken_apart_is_refused(encoder, tmp_path):
    sizes = dict(
        vocab_size=96, hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24
    )
    electra = transformers.ElectraModel(transformers.ElectraConfig(**sizes, embedding_size=8))
    model, _ = load_encoder(folder_of(encoder, electra, tmp_path / "e"), ["a", "b"], RECIPE)
    with pytest.raises(RecipeError, match="'electra', is another one when it is taken apart"):
        UpperLayers(model, 1)


def test_weights_and_tokenizers_of_another_encoder_are_refused(encoder, table, tmp_path):
    config = transformers.BertConfig.from_pretrained(encoder, vocab_size=20)
    name = folder_of(encoder, transformers.BertModel(config), tmp_path / "small")
    with pytest.raises(TableError, match="and the encoder has 20: they do not belong together"):
        finetune_table(table, tmp_path / "o", encoder=name, recipe=RECIPE, say=list)
    shutil.copy(encoder / "config.json", Path(name) / "config.json")
    with pytest.raises(TableError, match=r"its weights do not fit its config.json, such as bert\.embeddings"):
        load_encoder(name, ["a", "b"], RECIPE)


@pytest.mark.parametrize("classes", [["bad", "good"], ["x", "y", "z"]])
def test_a_fine_tuned_classifier_can_be_the_encoder_and_gets_a_new_head(finished, classes):
    model, _ = load_encoder(str(finished[0]), classes, RECIPE)
    again, _ = load_encoder(str(finished[0]), classes, RECIPE)
    trained = transformers.AutoModelForSequenceClassification.from_pretrained(finished[0])
    assert torch.equal(model.classifier.weight, again.classifier.weight)
    assert model.classifier.weight.shape == (len(classes), 24)
    assert not torch.equal(model.classifier.weight[:2], trained.classifier.weight)
    assert torch.equal(model.bert.pooler.dense.weight, trained.bert.pooler.dense.weight)


# ---- the parts ------------------------------------------------------------------------------


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_an_encoder_in_two_parts_gives_the_logits_of_the_whole(encoder, frozen):
    model, tokenizer = load_encoder(str(encoder), ["a", "b", "c"], RECIPE)
    model.eval()
    rows = token_rows(tokenizer, ["a warm film", "dull", "so and so on"], 24)
    labels = torch.tensor([0, 1, 2])
    token_ids, mask, _ = next(LabelledBatches(rows, labels, 3))
    with torch.no_grad():
        whole = model(token_ids, attention_mask=mask).logits
        upper = UpperLayers(model, frozen).eval()
        batches = HiddenBatches(upper, rows, labels, 3)
        hidden, given, _ = next(batches)
        T = mask.shape[1]
        assert torch.equal(given[:, :T], mask)
        assert hidden.shape[:2] == given.shape == (3, T + -T % 8)
        assert not given[:, T:].any()
        assert torch.allclose(upper(hidden, given), whole, atol=2e-3)  # the cache is float16
        batches.cache = None
        hidden, *_ = next(batches)
        assert torch.allclose(upper(hidden, given), whole, atol=1e-6)
        assert torch.equal(upper.reassemble()(token_ids, attention_mask=mask).logits, whole)


def test_a_large_table_is_computed_batch_by_batch(encoder, monkeypatch):
    monkeypatch.setattr("llmcourse.finetune.table.encoder.MAX_CACHED_BYTES", 100)
    model, tokenizer = load_encoder(str(encoder), ["a", "b"], RECIPE)
    rows = token_rows(tokenizer, ["a warm film", "dull"], 24)
    batches = HiddenBatches(UpperLayers(model, 1), rows, torch.tensor([0, 1]), 2)
    assert batches.cache is None
    assert next(batches)[0].shape == (2, 16, 24)


def test_lower_layers_stay_as_they_were(finished, encoder):
    from safetensors.torch import load_file

    before, after = load_file(encoder / "model.safetensors"), load_file(finished[0] / "model.safetensors")
    changed = {name for name, value in before.items() if not torch.equal(value, after[f"bert.{name}"])}
    assert changed
    assert not any(name.startswith(("embeddings.", "encoder.layer.0.")) for name in changed)


def test_few_rows_are_read_more_often():
    assert [default_epochs(n) for n in (40, 1000, 10**6)] == sorted(
        (default_epochs(n) for n in (40, 1000, 10**6)), reverse=True
    )


def test_chinese_is_counted_in_characters_and_unknown_tokens_are_said(encoder, tmp_path):
    path = tmp_path / "zh.csv"
    rows = [
        f"这部电影{'好看' if i % 2 else '难看'}第{'一二三四五六七八九十'[i % 10]}{'甲乙丙丁戊己庚辛'[i // 10]}次,{'好' if i % 2 else '坏'}"
        for i in range(80)
    ]
    path.write_text("\n".join(["文本,标签", *rows]), encoding="utf-8")
    said = []
    report = finetune_table(
        path, tmp_path / "o", encoder=str(encoder), recipe=Recipe(epochs=1, frozen_layers=1), say=said.append
    )
    assert report.rivals[1].name.startswith("TF-IDF of characters")
    assert report.rivals[1].accuracy == 1.0
    assert any("unknown to the encoder" in note for note in report.notes)


# ---- the command ----------------------------------------------------------------------------


def test_the_command_does_the_same(finished, table, encoder, tmp_path, capsys):
    options = ["--group", "film", "--encoder", str(encoder), "--epochs", "2", "--batch-size", "16", "--lr", "2e-3",
               "--frozen-layers", "1", "--max-length", "24"]  # fmt: skip
    shutil.copytree(finished[0], tmp_path / "judge")
    assert cli.main(["finetune", str(table), "--out", str(tmp_path / "judge"), *options]) == 0
    out = capsys.readouterr().out
    assert "is finished" in out
    assert finished[1].lines()[0] in out
    assert "licence" in out


def test_the_command_says_a_fault_in_one_line(tmp_path, capsys, monkeypatch):
    (tmp_path / "t.csv").write_text("text,label\n", encoding="utf-8")
    assert cli.main(["finetune", str(tmp_path / "t.csv"), "--out", str(tmp_path / "o")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("llmcourse finetune: t.csv has one line only")
    assert error.count("\n") == 1
    assert cli.main(["finetune", str(tmp_path / "t.csv"), "--out", "o", "--lr", "-1"]) == 2
    assert "lr is -1.0" in capsys.readouterr().err
    assert cli.main(["finetune", str(tmp_path / "t.csv"), "--out", "o", "--delimiter", "tab"]) == 2
    assert "one line only" in capsys.readouterr().err

    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "finetune_table", stop)
    assert cli.main(["finetune", "t.csv", "--out", "o"]) == 130
    assert "the same command again goes on" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["finetune", "t.csv"])
    assert "--out" in capsys.readouterr().err


class Said:
    """Stands for a report with a Chinese label in it."""

    def lines(self):
        return ["好"]


def test_a_terminal_without_the_signs_of_a_label_does_not_end_a_run(tmp_path, monkeypatch):
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", narrow)
    monkeypatch.setattr(command, "finetune_table", lambda *_, **__: Said())
    assert cli.main(["finetune", "t.csv", "--out", str(tmp_path)]) == 0
    narrow.flush()
    assert narrow.buffer.getvalue().startswith(b"\\u597d\n")
