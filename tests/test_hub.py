"""What is fetched from the hub beforehand, for jobs without a network: models, and questions of the harness."""

import subprocess
import sys

import datasets
import httpx2
import pytest
from huggingface_hub import errors

from es2 import convert
from es2.errors import UserError
from es2.hub_models import fetch_model
from es2.hub_tasks import fetch_task

ROW = {"format": "hub", "repo": "owner/chat", "revision": "a" * 40}


def test_the_note_says_what_came(monkeypatch, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(convert, "snapshot_download", lambda **asked: str(tmp_path))
    assert fetch_model("mine", ROW) == {"repo": "owner/chat", "revision": "a" * 40, "bytes": {"config.json": 2}}


def test_a_gated_model_is_one_sentence(monkeypatch):
    def refused(**asked):
        raise errors.GatedRepoError("no", response=httpx2.Response(403, request=httpx2.Request("GET", "http://hub")))

    monkeypatch.setattr(convert, "snapshot_download", refused)
    with pytest.raises(
        UserError, match=r"models\.mine\.repo: owner/chat is gated: accept its terms on the hub and set"
    ):
        fetch_model("mine", ROW)


def test_the_questions_of_a_task_are_counted():
    assert fetch_task("mmlu_worked") == {"task": "mmlu_worked", "questions": {"mmlu_worked": 282}}
    with pytest.raises(UserError, match=r"ability\.tasks\.mmlu_werked"):
        fetch_task("mmlu_werked")


def test_a_data_set_that_was_fetched_is_found_without_a_network(tmp_path):
    """What fetch_task relies on: the datasets cache is enough, at another time and for another process."""
    rows, cache = tmp_path / "rows.jsonl", tmp_path / "cache"
    rows.write_text('{"question": "Why?"}\n')
    builder = datasets.load_dataset_builder("json", "default", data_files=str(rows), cache_dir=str(tmp_path / "other"))
    builder.dataset_name = "name"
    builder.download_and_prepare(
        str(cache / "owner___name" / "default" / "0.0.0" / "commit")
    )  # as owner/name would lie
    code = "import datasets; print(datasets.load_dataset('owner/name', 'default')['train'][0]['question'])"
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={"HF_DATASETS_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout.splitlines()[-1:] == ["Why?"], found.stderr
