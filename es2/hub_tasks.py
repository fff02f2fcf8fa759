"""Questions of lm-evaluation-harness's tasks, fetched where there is a network, for jobs that have none."""

from typing import Any

from es2.ability import AbilityTask, _load  # the loading of the evaluation itself, so that it finds all it wants


def fetch_task(name: str) -> dict[str, Any]:
    """Fetch a task's questions into the datasets cache; returns {"task", "questions": {member task: number}}.

    Raises UserError if the task does not exist or its questions cannot be had.
    """
    members = _load(AbilityTask(name))["tasks"]
    return {"task": name, "questions": {member: len(task.eval_docs) for member, task in sorted(members.items())}}
