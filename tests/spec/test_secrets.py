"""Passwords are neither shown nor kept, in whatever form a URL holds them."""

import pytest

from naskd.spec.errors import InputError, RunError, one_line
from naskd.spec.secrets import STORAGE_PASSWORD, kept, redacted, storage_with_password, without_passwords
from naskd.spec.validation import Problem, format_value

SECRET = "s3kr1t"

URLS = {
    f"postgresql://naskd:{SECRET}@host/db": "postgresql://naskd@host/db",
    f"mysql://u:a/{SECRET}@h/db": "mysql://u@h/db",
    f"mysql+pymysql://u:%40{SECRET}@h:3306/db?charset=utf8": "mysql+pymysql://u@h:3306/db?charset=utf8",
    f"postgresql://u:p@{SECRET}@h/db": "postgresql://u@h/db",
    f"postgresql://u:my {SECRET} 'pass\"@h/db": "postgresql://u@h/db",
    f"redis://:{SECRET}@h:1/0": "redis://@h:1/0",
    f"s3://AKIA:{SECRET}/b+c=@bucket/prefix?region=x": "s3://AKIA@bucket/prefix?region=x",
    f"postgresql://h/db?user=u&password={SECRET}&sslmode=require": "postgresql://h/db?user=u&sslmode=require",
    f"postgresql://h/db?password={SECRET}": "postgresql://h/db",
    f"https://{SECRET}@mlflow/x": "https://mlflow/x",
}


@pytest.mark.parametrize("url", URLS)
def test_a_url_is_kept_without_its_password(url: str) -> None:
    assert without_passwords(url) == URLS[url]
    assert kept({"a": [url, 3, None]}) == {"a": [URLS[url], 3, None]}


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize(
    "text", ["{}", "storage {!r} cannot be opened: x", 'got "{}"; allowed: y', "a {} b\nc {}\n"]
)
def test_no_message_shows_a_password(url: str, text: str) -> None:
    said = text.replace("{}", url).replace("{!r}", repr(url))
    assert SECRET not in redacted(said)
    assert SECRET not in str(InputError(said))
    assert SECRET not in str(RunError(said))
    assert SECRET not in one_line(OSError(said))
    assert SECRET not in str(Problem("storage", said, "x"))
    assert SECRET not in format_value({"storage": url})


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://naskd@host/db", "sqlite:////tmp/study.db", "sqlite:///c:/x@y.db", "http://127.0.0.1:6379/a",
        "connect to ray://10.0.0.1:10001 as a@b", "set RAY_AUTH_MODE=token, with the token in ~/.ray/auth_token",
    ],
)  # fmt: skip
def test_what_holds_no_password_stays(text: str) -> None:
    assert redacted(text) == text
    assert without_passwords(text) == text


def test_named_values_and_other_forms_of_a_known_password_are_hidden() -> None:
    assert redacted("PGPASSWORD=abc WANDB_API_KEY='d e' AWS_SECRET_ACCESS_KEY=f") == (
        "PGPASSWORD=*** WANDB_API_KEY=*** AWS_SECRET_ACCESS_KEY=***"
    )
    assert "a@b" not in redacted("no user with a@b", "postgresql://u:a%40b@h/db")


def test_the_environment_gives_a_storage_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STORAGE_PASSWORD, "p@:/w")
    assert storage_with_password("postgresql://naskd@h/db") == "postgresql://naskd:p%40%3A%2Fw@h/db"
    for url in ("postgresql://naskd:own@h/db", "postgresql://h/db", "sqlite:///x.db"):
        assert storage_with_password(url) == url
