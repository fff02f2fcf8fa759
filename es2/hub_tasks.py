"""Questions of lm-evaluation-harness's tasks, fetched where there is a network, for jobs that have none."""

from typing import Any

from es2.ability import AbilityTask, load_tasks


def fetch_task(name: str) -> dict[str, Any]:
    """Fetch a task's questions into the datasets cache; returns {"task", "questions": {member task: number}}.

    The loading is the evaluation's own, so that it finds all it wants later.
    Raises UserError if the task does not exist or its questions cannot be had.
    """
    members = load_tasks(AbilityTask(name))["tasks"]
    return {"task": name, "questions": {member: len(task.eval_docs) for member, task in sorted(members.items())}}
