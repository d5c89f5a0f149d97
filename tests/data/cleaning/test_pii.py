"""Personal data next to every script is found whole, what only looks alike is kept, and time is linear.

Values come from faker and the standard library's `ipaddress`, dates from `datetime`.
"""

import datetime
import ipaddress
import random
from itertools import pairwise

import pytest

from llmcourse.data.cleaning import pii
from llmcourse.data.cleaning.pii import find_pii, luhn_valid, mask_pii

# Letters of scripts written with and without spaces, and marks of several, as on langchain#40002
NEIGHBOURS = [
    *("", "谢谢", "срочно", "अभी", "ที่", "안녕", "مرحبا", "שלום", "ώρα", "😀", "\u200b", "\u200f"),
    *("。", "，", "：", "（", "）", "「", "…", "—", "«", "»", " ", "\n", "\t", "\xa0"),
    *"()[]<>{}.,;:!?\"'`=/|*_&#",
]


def make_ip(rng: random.Random) -> str:
    """An address of either version, of any block, in one of its spellings (RFC 4291, section 2.2)."""
    prefix, bits = rng.choice([(0x20010DB8 << 96, 96), (0xFE80 << 112, 64), (0xFD << 120, 120), (0, 128)])
    address = ipaddress.IPv6Address(
        prefix | rng.getrandbits(rng.choice([bits // 4, bits // 2, bits])) | 1 << 127
    )
    if prefix:
        address = ipaddress.IPv6Address(prefix | int(address) & (1 << bits) - 1)
    v4 = ipaddress.IPv4Address(rng.getrandbits(32))
    return str(
        rng.choice([v4, f"::ffff:{v4}", address.compressed, address.exploded, address.compressed.upper()])
    )


def values(n: int):
    from faker import Faker

    rng, fake = random.Random(0), Faker(["en_US", "en_GB", "de_DE"])
    fake.seed_instance(0)
    makers = {"EMAIL": fake.email, "PHONE": fake.phone_number, "CARD": fake.credit_card_number}
    for _ in range(n):
        yield from ((kind, make()) for kind, make in makers.items())
        yield "IP", make_ip(rng)


def test_personal_data_is_found_whole_beside_every_script():
    rng = random.Random(1)
    for kind, value in values(60):
        for left in NEIGHBOURS:
            right = rng.choice(NEIGHBOURS)
            assert mask_pii(left + value + right) == f"{left}[{kind}]{right}", left + value + right


def test_several_finds_side_by_side_are_each_found_once():
    found = list(values(50))
    for rows in zip(*[iter(found)] * 4, strict=True):
        text = "和".join(value for _, value in rows)
        assert mask_pii(text) == "和".join(f"[{kind}]" for kind, _ in rows)
        assert all(a.end <= b.start for a, b in pairwise(find_pii(text)))


def test_dates_in_every_usual_form_are_no_telephones():
    """google/libphonenumber#708: the forms of `strftime`, alone, in brackets and as ranges."""
    rng = random.Random(0)
    forms = [
        "%d.%m.%Y",
        "%-d.%-m.%Y",
        "%d. %m. %Y",
        "%d/%m/%Y",
        "%m/%d/%Y",
        "%d-%m-%Y",
        "%Y-%m-%d",
        "%Y/%m/%d",
    ]
    forms += [
        "%Y.%m.%d",
        "%Y. %m. %d.",
        "%d %m %Y",
        "%Y-%m-%dT%H:%M:%S",
        "%d.%m.%Y %H:%M",
        "%d.%m.%y",
        "%m.%Y",
        "%Y%m%d%H%M%S",
        "%Y%m%d%H%M",
    ]
    frames = [
        "{}",
        "({})",
        "born {}, died {}",
        "{}-{}",
        "({}–{})",
        "{} – {}",
        "生于{}。",
        "с {} по {}",
        "[{}]",
    ]
    for _ in range(100):
        one, two = (datetime.datetime(rng.randint(1000, 2099), *days(rng), rng.randint(0, 23)) for _ in "ab")
        for form in forms:
            for frame in frames:
                text = frame.format(one.strftime(form), two.strftime(form))
                assert mask_pii(text) == text


def test_amounts_in_groups_of_three_are_no_telephones():
    rng = random.Random(0)
    for _ in range(300):
        amount = f"{rng.randrange(10**9, 10 ** rng.randint(10, 18)):,}".replace(
            ",", rng.choice(" \u202f\xa0")
        )
        for text in (
            amount,
            f"({amount} km)",
            f"€{amount}.",
            f"von {amount},50 auf {amount}",
            f"总共{amount}人",
        ):
            assert mask_pii(text) == text


def days(rng: random.Random) -> tuple[int, int]:
    return rng.randint(1, 12), rng.randint(1, 28)


@pytest.mark.parametrize(
    "text",
    [
        *("std::vector<int> a::b(ab::cd), ::add, ::before, Face::Dead", "x[::2], x[1::2], x[::-1], x[::1]"),
        *("at 12:34:56, 12:34:56.789 and 1:02", "a:b::c:d and 2:4::3:6", "score 1:2:3:4:5:6:7:8"),
        *("MAC 00:1A:2B:3C:4D:5E", "EUI-64 00:1A:2B:FF:FE:3C:4D:5E", "a:b:c", "::", "2001:db8::1::2"),
        *("12345::1", "1:2:3:4:5:6:7:8:9", "version 1.2.3.4", "v1.2.3.4", "Version: 1.2.3.4", "§ 1.2.3.4"),
        *("软件版本1.2.3.4已发布", "版本号：1.2.3.4", "见第1.2.3.4节"),
        *("libfoo.so.1.2.3.4", "1.2.3.4.5", "256.1.1.1", "#00112233", "#a1b2c3", "pi is 3.14159265358979"),
        *(
            "(1914-1918)",
            "(1775–1783)",
            "1914/1918",
            "in 04.-07.07.1776",
            "04.07.-05.07.1776",
            "07.1776–02.1803",
        ),
        *("ISSN 0028-0836", "ISBN-13: 978-0-253-28029-9", "978-0-253-28029-9", "0-8021-4132-3", "0.12345678"),
        *("01234567-89ab-cdef-0123-456789abcdef", "(40.712800, -74.006000)", "2003-02-01T04:05:06.123456Z"),
        *("lodash@4.17.21", "user@1.2", "0 1 0 1 1 0 1 0", "+0.12345678", "EUR 1 234 567 890,00"),
        *("a@b", "@name", "a@.com", "谢谢@小明", "git@github", "x = a @ b.T", "12@3.4"),
    ],
)
def test_what_only_looks_alike_is_kept(text):
    assert mask_pii(text) == text


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("[2001:db8::1]:443", "[[IP]]:443"),
        ("http://[::1]:80/", "http://[[IP]]:80/"),
        ("via fe80::1%eth0.", "via [IP]."),
        ("64:ff9b::192.0.2.33", "[IP]"),
        ("src:2001:db8::1 dst:fe80::a", "src:[IP] dst:[IP]"),
        ("2001:db8::1: up, 2001:db8::/32", "[IP]: up, [IP]/32"),
        ("10.0.0.0/8", "[IP]/8"),
        ("müller@bücher.example, почта@пример.рф", "[EMAIL], [EMAIL]"),  # RFC 6530
        ("Пишитеann@example.org.Срочно", "Пишите[EMAIL].Срочно"),
        ("_ann@example.org_", "_[EMAIL]_"),
        ("ann＠example.com", "[EMAIL]"),
        ("（０３０）１２３４５６７８", "[PHONE]"),
        ("+٩٦٦ ٥٠ ١٢٣ ٤٥٦٧", "[PHONE]"),
        ("电话13800138000谢谢", "电话[PHONE]谢谢"),
        ("1. 555-867-5309", "1. [PHONE]"),
        ("on 04.07.2003 0171 1234567", "on 04.07.2003 [PHONE]"),
        ("(030 1234567)", "([PHONE])"),
        ("0171/1234567, 030 / 12 34 56 78", "[PHONE], [PHONE]"),  # German
        ("1-800-555-0199, 1 800 555 0199", "[PHONE], [PHONE]"),  # with the prefix of North America
        ("+34 612 345 678, (030) 123 456 789", "[PHONE], [PHONE]"),
        ("root@192.0.2.7", "root@[IP]"),
        ("ann@mail.例え.jp, ann@пример.com", "[EMAIL], [EMAIL]"),  # each label has its own script (RFC 5890)
        ("01.02.03.04.05", "[PHONE]"),  # French
        ("1 4111 1111 1111 1111", "1 [CARD]"),
        (
            "+43 227953304135, +44191 496 0592",
            "[PHONE], [PHONE]",
        ),  # Austrian and British, with valid check sums
        ("4111111111111111@192.0.2.7.example.com", "[EMAIL]"),
    ],
)
def test_forms_and_their_limits(text, masked):
    assert mask_pii(text) == masked
    assert mask_pii(masked) == masked


def test_the_check_sum_is_that_of_the_definition():
    rng = random.Random(0)
    for _ in range(200):
        digits = [rng.randrange(10) for _ in range(rng.randint(2, 19))]
        doubled = [sum(divmod(d * (1 + i % 2), 10)) for i, d in enumerate(reversed(digits))]
        assert luhn_valid("-".join(map(str, digits))) == (sum(doubled) % 10 == 0)


UNITS = [
    "A1b2-_C3",
    "a",
    "1",
    "a.",
    "1.",
    "@",
    "a@",
    "a@a.",
    "+49 ",
    "1-",
    "::",
    "1:",
    "a:",
    "::1 ",
    "(1",
    "(1)",
]
UNITS += [
    "http://",
    "1 ",
    "0 ",
    "a@b.co ",
    "192.0.2.7 ",
    "01.02.2003-",
    "4111 ",
    "ISBN ",
    "é",
    "ы@",
    "请@请.",
    "1٣",
]


@pytest.mark.parametrize("unit", UNITS)
def test_work_grows_with_the_length_and_not_with_its_square(unit, monkeypatch):
    """Counted, not timed: searches, and characters that `regex` may pass at each place (fhightower/ioc-finder#389)."""
    counted = []

    class Counting:
        def __init__(self, pattern):
            self.pattern, self.groupindex = pattern, pattern.groupindex

        def search(self, text, start):
            counted[-1] += 1
            return self.pattern.search(text, start)

    monkeypatch.setattr(
        pii, "FORMS", [(kind, Counting(pattern), check) for kind, pattern, check in pii.FORMS]
    )
    for n in (500, 1000):
        counted.append(0)
        find_pii((unit * n)[:n])
    assert counted[1] <= 2 * counted[0] + len(pii.FORMS)
