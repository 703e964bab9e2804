"""What others wrote does nothing to a terminal, and can be printed in any encoding."""

import pytest

from naskd.spec.visible import PLAIN_ERRORS, encodable, visible, visible_line


@pytest.mark.parametrize(
    "odd",
    [
        "\x1b[31m",
        "\x1b]0;title\x07",
        "\x9b2J",
        "\r",
        "\x00",
        "\x08",
        "\x7f",
        "\u202e",
        "\u2066",
        "\u2028",
        "\udcff",
    ],
)
def test_characters_that_act_are_written_out(odd: str) -> None:
    shown = visible(f"a{odd}b")
    assert shown.isprintable()
    assert shown.encode() == shown.encode("ascii")
    assert "\\" in shown


def test_words_of_any_language_tabs_and_lines_stay() -> None:
    assert visible("déjà 数 – ← ×\t\n") == "déjà 数 – ← ×\t\n"
    assert visible_line("a\nb") == "a\\nb"
    assert encodable("a\udcffb\x1b") == "a\\xffb\x1b"


def test_what_an_encoding_lacks_is_written_plainly() -> None:
    assert "1×2 ← 3 · 4 – 5 ± 6 数 \udcff".encode("ascii", PLAIN_ERRORS) == b"1x2 <- 3 | 4 - 5 +- 6 ? \\xff"
    assert "1×2 \udcff".encode("utf-8", PLAIN_ERRORS) == "1×2 \\xff".encode()
