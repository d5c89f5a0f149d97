"""The reviews: labels, copies, splits by film; and the encoder that reads them."""

import bz2

import pytest

from llmcourse.data import manifest
from llmcourse.data.sources import reviews
from llmcourse.data.sources.reviews import Review, load_chinese_reviews, load_reviews, split_by_movie


def hide_packages(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("LLMCOURSE_CACHE", str(tmp_path))
    monkeypatch.setattr(manifest, "from_package", lambda spec: None)


@pytest.mark.parametrize("load", [load_reviews, load_chinese_reviews])
@pytest.mark.parametrize("stand_in", [False, True])
def test_every_text_stands_once_with_a_label(load, stand_in, monkeypatch, tmp_path):
    if stand_in:
        hide_packages(monkeypatch, tmp_path)
    found = load(quiet=True)
    assert len({review.text for review in found}) == len(found) > 1000
    assert {review.label for review in found} == {0, 1}
    assert all(review.text == review.text.strip() != "" for review in found)


def test_the_real_sets_have_the_published_sizes():
    english, chinese = load_reviews(quiet=True), load_chinese_reviews(quiet=True)
    assert (len(english), len({review.movie for review in english})) == (12_752, 507)
    assert len(chinese) == 17_363


def test_a_label_that_is_neither_is_refused_with_its_row(monkeypatch):
    table = b"category,text,movie_name,has_plot_and_reviews\nfresh,Good.,a,False\nripe,Odd.,a,False\n"
    monkeypatch.setattr(
        reviews, "fetch", lambda *a, **k: manifest.DataSet("x", "cache", "", {"a": bz2.compress(table)})
    )
    with pytest.raises(ValueError, match=r"row 3 has the label 'ripe': it must be fresh or rotten"):
        load_reviews()


def test_a_film_stands_on_one_side_and_order_does_not_matter():
    parts = split_by_movie(load_reviews(quiet=True))
    films = [{review.movie for review in part} for part in parts]
    assert not films[0] & films[1] and not films[1] & films[2] and not films[0] & films[2]  # noqa: PT018
    assert sum(map(len, parts)) == 12_752
    turned = split_by_movie(load_reviews(quiet=True)[::-1])
    assert [set(part) for part in parts] == [set(part) for part in turned]


def test_shares_are_about_those_asked_for():
    many = [Review(f"{i} \ud83d", 1) for i in range(20_000)]  # half of a pair, which JSON allows
    sizes = [len(part) / len(many) for part in split_by_movie(many, validation=0.25, test=0.5)]
    assert sizes == pytest.approx([0.25, 0.25, 0.5], abs=0.015)


@pytest.mark.parametrize(("validation", "test"), [(0, 0.2), (0.5, 0.5), (0.1, -1)])
def test_impossible_shares_are_refused(validation, test):
    with pytest.raises(ValueError, match=f"shares {validation} and {test} must be positive"):
        split_by_movie([Review("a", 1)], validation, test)


def test_too_few_reviews_are_refused():
    with pytest.raises(ValueError, match="0 reviews are too few"):
        split_by_movie([])


def test_the_stand_in_encoder_loads_like_the_real_one(monkeypatch, tmp_path):
    from transformers import AutoModel, AutoTokenizer

    from llmcourse.data.sources.encoder import encoder_name

    real = AutoModel.from_pretrained(encoder_name(quiet=True))
    hide_packages(monkeypatch, tmp_path)
    name = encoder_name(quiet=True)
    stand_in, tokenizer = AutoModel.from_pretrained(name), AutoTokenizer.from_pretrained(name)
    assert stand_in.config.hidden_size == real.config.hidden_size == 384
    batch = tokenizer(["A warm film.", "Dull."], padding=True, return_tensors="pt")
    assert stand_in(**batch).last_hidden_state.shape == (2, batch["input_ids"].shape[1], 384)
    assert tokenizer.decode(batch["input_ids"][0], skip_special_tokens=True) == "a warm film."
