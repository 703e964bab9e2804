import re
from dataclasses import dataclass, replace
from typing import Any

import pytest

from naskd.executors import EXECUTORS
from naskd.executors.local.serial import SerialExecutor
from naskd.knowledge import KNOWLEDGE
from naskd.knowledge.base import KnowledgeLoss
from naskd.networks import BLOCKS, FAMILIES
from naskd.networks.block import Block
from naskd.networks.student import Student
from naskd.schemes import SCHEMES
from naskd.schemes.scheme import Scheme
from naskd.spec.registry import Registry, nearest
from naskd.trials.methods import METHODS


@dataclass(frozen=True)
class Fruit:
    name: str
    paper: str = ""
    implementation: str | type[Any] = "json:dumps"


@pytest.fixture
def fruits() -> Registry[Fruit]:
    registry: Registry[Fruit] = Registry("fruit")
    for name in ("pear", "apple", "quince"):
        registry.register(Fruit(name))
    return registry


def test_cards_are_found_by_name_in_the_order_of_registration(fruits: Registry[Fruit]) -> None:
    assert fruits.names() == ("pear", "apple", "quince")
    assert [card.name for card in fruits] == ["pear", "apple", "quince"]
    assert len(fruits) == 3
    assert "pear" in fruits
    assert "plum" not in fruits
    assert fruits["apple"] == Fruit("apple")


def test_a_name_is_given_once(fruits: Registry[Fruit]) -> None:
    with pytest.raises(ValueError, match="a fruit named 'pear' is already registered; choose another name"):
        fruits.register(Fruit("pear", paper="another"))
    assert fruits["pear"].paper == ""


def test_a_card_has_the_module_that_registered_it(fruits: Registry[Fruit]) -> None:
    assert fruits.origin("pear") == __name__


def test_a_file_that_is_imported_twice_registers_the_same_card_twice(fruits: Registry[Fruit]) -> None:
    fruits.register(Fruit("pear"))
    assert len(fruits) == 3


@pytest.mark.parametrize("ask", [lambda r: r["aple"], lambda r: r.load("aple")], ids=["card", "load"])
def test_an_unknown_name_is_answered_with_the_known_and_the_nearest(ask, fruits: Registry[Fruit]) -> None:
    with pytest.raises(
        ValueError, match=r"unknown fruit 'aple'; known: apple, pear, quince; did you mean 'apple'"
    ):
        ask(fruits)


def test_of_many_names_the_nearest_are_said_and_where_all_are_listed() -> None:
    many: Registry[Fruit] = Registry("kind of fruit", "fruit")
    for name in ("apple", *(f"sort{i}" for i in range(20))):
        many.register(Fruit(name))
    told = (
        "unknown kind of fruit 'aple'; did you mean 'apple'? naskd methods fruit lists all 21; one of your own is "
        "registered by a file that the study names in modules"
    )
    with pytest.raises(ValueError, match=re.escape(told)):
        many["aple"]
    with pytest.raises(
        ValueError, match="unknown kind of fruit 'zzz'; naskd methods fruit lists all 21; one"
    ):
        many["zzz"]


def test_every_word_by_which_names_are_listed_is_one() -> None:
    from naskd.cli.looking import registries

    assert {word: cards.listed for word, cards in registries().items()} == {
        word: word for word in registries()
    }


def test_nothing_near_is_not_guessed() -> None:
    assert nearest("zzz", ["apple"]) == ""
    assert nearest("colour", ["color", "taste"]) == "; did you mean 'color'?"
    assert nearest("colour", ["color", "color"]) == "; did you mean 'color'?", (
        "two kinds have one of this name"
    )


def test_what_a_card_names_is_imported_on_demand_and_a_class_is_taken_as_it_is(
    fruits: Registry[Fruit],
) -> None:
    import json

    assert fruits.load("pear") is json.dumps
    fruits.register(Fruit("kiwi", implementation=Fruit))
    assert fruits.load("kiwi") is Fruit


@pytest.mark.parametrize(
    ("registry", "base"),
    [(BLOCKS, Block), (FAMILIES, Student), (KNOWLEDGE, KnowledgeLoss), (SCHEMES, Scheme), (EXECUTORS, None)],
    ids=lambda value: getattr(value, "what", ""),
)
def test_everything_that_is_shipped_loads(registry, base) -> None:
    assert len(registry)
    for card in registry:
        found = registry.load(card.name)
        assert isinstance(found, type)
        assert base is None or issubclass(found, base)
        assert card.title
        assert registry[card.name] is card
    if registry is EXECUTORS:
        assert registry.load("serial") is SerialExecutor


@pytest.mark.parametrize("registry", METHODS, ids=lambda registry: registry.what)
def test_every_method_names_its_paper(registry) -> None:
    for card in registry:
        assert "arXiv" in card.paper or "20" in card.paper, card.name
        with pytest.raises(ValueError, match="already registered"):
            registry.register(replace(card, title="something else"))
