"""Files are written whole or not at all."""

import pandas as pd
import pytest

from es2.files import atomic_write, read_json, read_jsonl, sha256_file, write_csv, write_json, write_jsonl


def fail(path):
    path.write_text("half")
    raise RuntimeError


def test_atomic_write_leaves_nothing_after_an_exception(tmp_path):
    with pytest.raises(RuntimeError), atomic_write(tmp_path / "sub" / "a.txt") as temporary:
        fail(temporary)
    assert list((tmp_path / "sub").iterdir()) == []


def test_atomic_write_keeps_the_old_file_after_an_exception(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(RuntimeError), atomic_write(tmp_path / "a.txt") as temporary:
        fail(temporary)
    assert (tmp_path / "a.txt").read_text() == "old"
    with atomic_write(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
        assert (tmp_path / "a.txt").read_text() == "old"
    assert (tmp_path / "a.txt").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_private_files_are_their_owners_alone(tmp_path):
    rows = [{"answer": "ä", "n": 1}, {"answer": "", "n": None}]
    write_jsonl(tmp_path / "private.jsonl", rows, private=True)
    write_jsonl(tmp_path / "open.jsonl", rows)
    assert (tmp_path / "private.jsonl").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "open.jsonl").stat().st_mode & 0o777 != 0o600
    assert read_jsonl(tmp_path / "private.jsonl") == read_jsonl(tmp_path / "open.jsonl") == rows
    with atomic_write(tmp_path / "private.jsonl", private=True) as temporary:
        assert temporary.stat().st_mode & 0o777 == 0o600
        temporary.write_text("")


def test_a_row_that_cannot_be_written_leaves_no_file(tmp_path):
    with pytest.raises(TypeError):
        write_jsonl(tmp_path / "rows.jsonl", [{"a": 1}, {"a": object()}])
    assert list(tmp_path.iterdir()) == []


def test_json_csv_and_hash(tmp_path):
    write_json(tmp_path / "a.json", {"b": [1, 2.5], "a": None})
    assert read_json(tmp_path / "a.json") == {"a": None, "b": [1, 2.5]}
    write_csv(pd.DataFrame({"x": [1 / 3], "n": [2]}), tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == "x,n\n0.333333,2\n"
    (tmp_path / "empty").touch()
    assert sha256_file(tmp_path / "empty").startswith("e3b0c44298fc1c149afbf4c8996fb924")
