"""Comments of a study file stay with their keys when it is written anew."""

import tomllib

from naskd.spec.toml import read_toml, write_toml
from naskd.spec.toml_comments import Comment, read_comments
from naskd.spec.validation import Problem

TEXT = """\
# Of the whole,
# in two lines.

# Of the name.
name = "a # b"  # said behind
"quo.ted".deep = '#'   # of a dotted key

# Of a table.
[data]  # behind its head
kind = "digits"
stages = [  # lost
    {block = "x#"},  # lost
]  # of the list
# Of the first.
[[teachers]]
name = "one"  # the first's
[[teachers]]
name = "two"  # the second's
[teachers.training]
epochs = 3  # the second's, too
# At the end, of nothing.
"""


def test_each_is_at_its_key_and_comes_back_there() -> None:
    found = read_comments(TEXT)
    assert found.head == ("# Of the whole,", "# in two lines.")
    assert found.at[("name",)] == Comment(("# Of the name.",), "# said behind")
    assert found.at[("quo.ted", "deep")].behind == "# of a dotted key"
    assert found.at[("data", "stages")].behind == "# of the list"
    assert found.at[("data",)] == Comment(("# Of a table.",), "# behind its head")
    assert found.at[("data", "kind")] == Comment()
    assert found.at[("teachers", "0")] == Comment(("# Of the first.",), "")
    data = tomllib.loads(TEXT)
    again = write_toml(data, found)
    assert tomllib.loads(again) == data
    for line in (
        '# Of the name.\nname = "a # b"  # said behind\n',
        'stages = [{block = "x#"}]  # of the list\n',
        "\n# Of a table.\n[data]  # behind its head\n",
        '# Of the first.\n[[teachers]]\nname = "one"  # the first\'s\n',
        'name = "two"  # the second\'s\n',
        "epochs = 3  # the second's, too\n",
    ):
        assert line in again
    assert read_comments("") == read_comments("# alone")


def test_lines_end_where_toml_ends_them() -> None:
    r"""Also with the ends of Windows; U+2028 and U+0085 end lines for Python, and may stand in texts and comments."""
    text = '# a\u2028b\nname = "c\u0085d"  # said\u2028\n[data]\nkind = "digits"\n'
    for given in (text, text.replace("\n", "\r\n"), text.removesuffix("\n")):
        found = read_comments(given)
        assert found.at[("name",)] == Comment(("# a\u2028b",), "# said")
        assert ("data", "kind") in found.at


def test_the_line_of_a_mistake_is_that_of_toml() -> None:
    for text in ('name = "a\u2028b"\nwrong', 'name = "a\u2028b"\nwrong\n', 'name = "a\u2028b"\r\nwrong\r\n'):
        problem = read_toml(text)
        assert isinstance(problem, Problem)
        assert (problem.key, problem.got) == ("line 2", "'wrong'")
