"""A model, two defences, an attack and published prompts of one's own, end to end, beside the finished smoke study.

    python -m tests.own

The study of tests/own.yaml takes the smoke study's model from its folder, and its ES2 as a defence that others trained:
once as an adapter, once as the merged model. Both must answer as the smoke study's ES2 does, under the direct request
and under the attack file's push alike; the published prompts are asked of both.
"""

import subprocess
import sys
from pathlib import Path

from es2.files import read_jsonl, write_json

CONFIGS = ("config/smoke.yaml", "tests/own.yaml")
HERS, MINE = Path("results/smoke/models/tiny"), Path("results/own/models/mine")


def answers(folder: Path, bundle: str) -> dict[tuple[str, str], str]:
    """{(benchmark, prompt): answer} of a run of seed 0; at least one."""
    rows = read_jsonl(folder / "s0/answers" / f"{bundle}.jsonl")
    found = {(row["benchmark"], row["prompt_id"]): row["answer"] for row in rows}
    assert found
    return found


def publish(path: str) -> None:
    """Write the stand-ins for harmful prompts, reworded, as JailbreakBench's artefacts are written."""
    goals = [row["prompt"] for row in read_jsonl("es2/prompts/bundled/look_dangerous.jsonl")]
    rows = [
        {"index": place, "goal": goal, "prompt": f"Please: {goal}.", "jailbroken": True}
        for place, goal in enumerate(goals)
    ]
    write_json(path, {"parameters": {"model": "any"}, "jailbreaks": rows})


def main() -> int:
    """0 if the study runs, and each defence is what it was."""
    publish("results/own_artefact.json")
    subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "all", "--configfile", *CONFIGS, "--", "tables"], check=True
    )
    pairs = {
        "the adapter answers as the run it was taken from": (MINE / "theirs", HERS / "es2", "direct"),
        "the whole model answers as the run it was merged from": (MINE / "whole", HERS / "es2", "direct"),
        "the attack file acts alike on both": (MINE / "theirs", MINE / "whole", "push"),
        "the published prompts are answered alike by both": (MINE / "theirs", MINE / "whole", "replay"),
    }
    equal = {said: answers(one, bundle) == answers(other, bundle) for said, (one, other, bundle) in pairs.items()}
    moved = answers(MINE / "whole", "push") != {
        key: answer for key, answer in answers(MINE / "whole", "direct").items() if key[0] == "stand_in"
    }
    equal["the attack file moves answers"] = moved
    for said, true in equal.items():
        print(f"{said}: {'yes' if true else 'NO'}")
    return 0 if all(equal.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
