"""Models of the hub, brought into the Hugging Face cache where there is a network, for jobs that have none."""

from collections.abc import Mapping
from typing import Any

from es2.convert import local_folder


def fetch_model(model: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Fetch a config row of `models` with format hub; returns {"repo", "revision", "bytes": {file: size}}.

    The download is the conversion's own, so that it finds every file it wants. HF_TOKEN is read by the hub's client
    alone. Raises UserError naming the config key.
    """
    folder = local_folder(model, row)
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}
    return {"repo": row["repo"], "revision": row["revision"], "bytes": sizes}
