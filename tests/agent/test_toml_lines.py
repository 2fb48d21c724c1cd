"""Line numbers of keys, checked on hand-counted text and against the standard parser on generated text."""

from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st

from edgeswarm.agent.toml_lines import key_lines

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TEXT = '''# a comment = "not a key"
node = "n1" # and = more

[ broker ]   # [not.a.table]
url = [
  "mqtt://a", # x = 1
  "mqtt://b]",
]
"quoted = key" = 'it''s'
'single # key'=1
[source.deep."a.b"]
text = """one
two = 2
\\""" [three]
"""
literal = \'\'\'
\\\'\'\' # after
tls.ca = "x"
tls . "key" = 2
inline = { a = 1, b = { c = [1, {d = 2}] } }
[[list]]
x = 1979-05-27T07:32:00Z
[[list]]
x = 2
last = true'''.replace("'it''s'", "'its'")


def test_lines_are_those_a_person_counts():
    lines = key_lines(TEXT)
    tomllib.loads(TEXT)
    expected = {
        ("node",): 2,
        ("broker",): 4,
        ("broker", "url"): 5,
        ("broker", "quoted = key"): 9,
        ("broker", "single # key"): 10,
        ("source", "deep", "a.b"): 11,
        ("source", "deep", "a.b", "text"): 12,
        ("source", "deep", "a.b", "literal"): 16,
        ("source", "deep", "a.b", "tls", "ca"): 18,
        ("source", "deep", "a.b", "tls", "key"): 19,
        ("source", "deep", "a.b", "inline", "b", "c"): 20,
        ("list",): 21,
        ("list", "x"): 22,
        ("list", "last"): 25,
    }
    assert {path: lines.get(path) for path in expected} == expected
    assert ("two",) not in lines and ("x",) not in lines


def test_windows_line_ends_count_once():
    assert key_lines("a = 1\r\n\r\n[b]\r\nc = 2\r\n") == {("a",): 1, ("b",): 3, ("b", "c"): 4}


VALUES = st.sampled_from(
    [
        "1",
        "true",
        '"a # b = c"',
        "'[x]'",
        '"""\nq = 1\n"""',
        "'''\n'''",
        "[1, 2]",
        "[\n 'a',\n # c = 1\n]",
        "{ k = 1 }",
        '"\\""',
    ]
)


@given(st.lists(st.tuples(VALUES, st.sampled_from(["", " # a = 1", "\n", "\n# [no]"])), max_size=12))
def test_every_key_of_generated_text_is_found_on_its_line(parts):
    text, expected = "[t]\n", {}
    for at, (value, tail) in enumerate(parts):
        expected[("t", f"key{at}")] = text.count("\n") + 1
        text += f"key{at} = {value}{tail}\n"
    assert set(tomllib.loads(text)["t"]) == {path[1] for path in expected}
    lines = key_lines(text)
    assert {path: line for path, line in lines.items() if len(path) == 2} == expected


@given(st.text(alphabet="ab=[]{}\"'\\#.,\n \t", max_size=60))
def test_any_text_ends(text):
    for line in key_lines(text).values():
        assert 1 <= line <= text.count("\n") + 1
