"""The plays: complete, free of markup, split by title; GPT-2's table; the stand-in."""

import itertools
import re
from collections import Counter

import pytest
import torch
import torch.nn.functional as F

from llmcourse.data import manifest
from llmcourse.data.batches import TokenBatches, pack
from llmcourse.data.manifest import from_package, load_manifest
from llmcourse.data.sources.gpt2_merges import load_gpt2_ranks
from llmcourse.data.sources.plays import Play, load_plays, plain_text, split_by_title, stand_in_plays
from llmcourse.model import GPT, ModelConfig
from llmcourse.tokenizer import END_OF_TEXT, BPETokenizer


@pytest.fixture(autouse=True)
def no_network_and_an_empty_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("LLMCOURSE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def plays() -> list[Play]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("LLMCOURSE_CACHE", "/nonexistent")
        return load_plays(quiet=True)


def made_up(titles) -> list[Play]:
    return [Play(title, "tragedies", f"{title}\n") for title in titles]


# ---- the plays ------------------------------------------------------------------------------


def test_there_are_38_different_plays_sorted_by_title(plays):
    titles = [play.title for play in plays]
    assert len(set(titles)) == 38
    assert titles == sorted(titles)
    assert {"Hamlet", "Macbeth", "The Tempest"} <= set(titles)
    assert {"comedies", "histories", "tragedies"} <= {play.genre for play in plays}
    assert {play.title for play in plays if not play.text.startswith(play.title + "\n")} == {
        "Measure for Measure"  # the one file without a title: its name stands in
    }


def test_no_markdown_is_left_over(plays):
    for play in plays:
        left = re.findall(r"[*_\\]|^#|[ \t]$|\n\n\n|\r|<[a-z/]|&[a-z]+;", play.text, re.MULTILINE)
        assert left == [], play.title
        assert play.text.endswith("\n")
        assert not play.text.endswith("\n\n")


def test_only_markup_is_lost(plays):
    files = from_package(load_manifest()["shakespeare"]["package"])
    texts = [content.decode("utf-8").replace("&amp;", "&") for content in files.values()]
    before = Counter(re.sub(r"[\W_]+", "", text) for text in texts)
    assert Counter(re.sub(r"[\W_]+", "", play.text) for play in plays) == before


def test_speakers_and_stage_directions_keep_their_marks(plays):
    for play in plays:
        assert len(re.findall(r"^[A-Z][^\n]*:$", play.text, re.MULTILINE)) > 200, play.title
        marks = re.findall(r"[\[\]]", play.text)
        assert marks == ["[", "]"] * (len(marks) // 2), play.title
        directions = re.findall(r"\[([^\]]*)\]", play.text)
        assert len(directions) > 20, play.title
        assert not any("\n\n" in direction for direction in directions), play.title
        assert sum(map(len, directions)) < 0.1 * len(play.text), play.title


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ("# Title\n\n## ACT I\n", "Title\n\nACT I\n"),
        ("**FIRST LORD**  \nWho's _there_?\n", "FIRST LORD:\nWho's [there]?\n"),
        ("_Enter\nHAMLET_\n", "[Enter\nHAMLET]\n"),
        ("*Exit.* *Sound a horn.*\n", "[Exit.] [Sound a horn.]\n"),
        ("_\\[Aside]_  \nA little more\n", "[Aside]\nA little more\n"),
        ("[Within]_  \nWho's there?\n\n_Exit_\n", "[Within]\nWho's there?\n\n[Exit]\n"),
        ("__\\[Awaking]_  \nI go.\n\n_Exit_\n", "[Awaking]\nI go.\n\n[Exit]\n"),
        ("an_open mark\n\nI speak.\n\n_Exit_\n", "an_open mark\n\nI speak.\n\n[Exit]\n"),
        ("'friend,'\\--\n1\\. Trumpets, &amp;c.\n", "'friend,'--\n1. Trumpets, &c.\n"),
        ("a  \n\n\n\n\nb\n\n\n", "a\n\nb\n"),
        ("No # mark, 2 * 3\n", "No # mark, 2 * 3\n"),
    ],
)
def test_plain_text(markdown, expected):
    assert plain_text(markdown) == expected


# ---- the split ------------------------------------------------------------------------------


def test_split_is_disjoint_and_covers_all(plays):
    parts = split_by_title(plays, n_validation=3, n_test=4)
    titles = [[play.title for play in part] for part in parts]
    assert [len(part) for part in titles] == [31, 3, 4]
    assert sorted(itertools.chain(*titles)) == [play.title for play in plays]


def test_split_does_not_depend_on_the_order_of_its_input(plays):
    expected = split_by_title(plays)
    order = torch.randperm(38, generator=torch.Generator().manual_seed(0))
    assert split_by_title([plays[i] for i in order]) == expected
    assert split_by_title(plays[::-1]) == expected


def test_adding_a_play_moves_at_most_two_others(plays):
    def places(some):
        return {play.title: i for i, part in enumerate(split_by_title(some)) for play in part}

    before, moved = places(plays), []
    for number in range(200):
        after = places([*plays, *made_up([f"Lost play {number}"])])
        moved.append(sum(after[title] != before[title] for title in before))
    assert max(moved) <= 2
    assert Counter(moved)[0] > 100  # most go to training and move nothing


@pytest.mark.parametrize("n_plays", [0, 1, 4])
def test_too_few_plays_are_refused(n_plays):
    with pytest.raises(ValueError, match=f"{n_plays} plays cannot give 2 for validation and 2 for test"):
        split_by_title(made_up("ABCD"[:n_plays]))
    assert [len(part) for part in split_by_title(made_up("ABCDE"))] == [1, 2, 2]


# ---- without the package --------------------------------------------------------------------


def test_the_stand_in_can_be_split_tokenized_batched_and_learnt_from(monkeypatch, capsys):
    monkeypatch.setattr(manifest, "from_package", lambda spec: None)
    plays = load_plays()
    assert "STAND-IN" in capsys.readouterr().out
    assert len({play.title for play in plays}) == 38
    assert not re.search(r"\*|_|^#", plays[0].text, re.MULTILINE)
    train, validation, test = split_by_title(plays)
    assert [len(part) for part in (train, validation, test)] == [34, 2, 2]
    tokenizer = BPETokenizer.train((play.text for play in train), 400)
    end = tokenizer.special_tokens[END_OF_TEXT]
    row = pack([tokenizer.encode(play.text) for play in train[:4]], end)
    inputs, targets = next(TokenBatches(row, batch_size=4, context_length=32))
    torch.manual_seed(0)
    model = GPT(ModelConfig(tokenizer.vocab_size, context_length=32, d_model=16, n_layers=1))
    F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()).backward()
    assert model.token_embedding.weight.grad.abs().sum() > 0


def test_the_stand_in_is_the_same_each_time_and_its_plays_differ():
    files = stand_in_plays(n_plays=3, n_speeches=20)
    assert files == stand_in_plays(n_plays=3, n_speeches=20)
    assert files != stand_in_plays(n_plays=3, n_speeches=20, seed=1)
    bodies = [content.split(b"\n", 1)[1] for content in files.values()]
    assert len(set(bodies)) == 3


# ---- GPT-2's table --------------------------------------------------------------------------


def test_gpt2_table_is_complete():
    ranks = load_gpt2_ranks(quiet=True)
    assert sorted(ranks.values()) == list(range(50256))
    assert {bytes([i]) for i in range(256)} <= ranks.keys()
    assert ranks[b"Hello"] == 15496  # known from GPT-2's release


def test_without_the_package_gpt2s_table_is_the_bytes(monkeypatch, capsys):
    monkeypatch.setattr(manifest, "from_package", lambda spec: None)
    ranks = load_gpt2_ranks()
    assert "STAND-IN" in capsys.readouterr().out
    tokenizer = BPETokenizer.from_ranks(ranks, {"<|endoftext|>": 256})
    text = "To be, 你好"
    assert tokenizer.encode(text) == list(text.encode())
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_play_with_the_lines_of_windows_is_the_same_play():
    markdown = "# T\n\n## ACT I\n\n**HAMLET**  \nTo be _[Aside]_ or   \n\n\n\nnot \\[x\\]\n"
    expected = plain_text(markdown)
    assert "HAMLET:\nTo be [Aside] or\n" in expected
    assert plain_text(markdown.replace("\n", "\r\n")) == expected
