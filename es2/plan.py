"""What a dry run of Snakemake plans: jobs by rule, with the time, GPU time, memory and disk that the rules ask for.

    snakemake -n --cores 1 --configfile config/paper.yaml 2>&1 | python -m es2.plan

The dry run is the default profile's: a cluster's adds resources of its own to target rules and to local ones.

These are bounds that a scheduler holds jobs to, not forecasts: most jobs end long before. Torch-free.
"""

import re
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

RULES = Path("workflow", "rules")
COLUMNS = ("jobs", "hours", "GPU hours", "GB memory", "GB disk")


@dataclass(frozen=True)
class Asked:
    """What the jobs of a rule ask for together: their number, minutes, GPU minutes and MB of disk, and the largest MB
    of memory of one job."""

    jobs: int = 0
    minutes: int = 0
    gpu_minutes: int = 0
    memory_mb: int = 0
    disk_mb: int = 0

    def plus(self, job: Mapping[str, int]) -> "Asked":
        """The same with one more job."""
        return Asked(
            self.jobs + 1,
            self.minutes + job.get("runtime", 0),
            self.gpu_minutes + job.get("runtime", 0) * job.get("gpu", 0),
            max(self.memory_mb, job.get("mem_mb", 0)),
            self.disk_mb + job.get("disk_mb", 0),
        )


def read(lines: Iterable[str]) -> dict[str, Asked]:
    """What the jobs of a dry run ask for, by rule; target rules, which ask for nothing, are left out."""
    found: dict[str, Asked] = {}
    name = ""
    for line in lines:
        if begun := re.match(r"(?:local)?rule (\w+):", line):
            name = begun[1]
        elif name and (said := re.match(r"    resources: (.*)", line)):
            job = {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)(?=,|$)", said[1])}
            if "runtime" in job:
                found[name] = found.get(name, Asked()).plus(job)
            name = ""
    return found


def local_rules(folder: Path) -> set[str]:
    """The rules in a folder of .smk files that run where Snakemake runs; a dry run does not tell."""
    texts = [path.read_text(encoding="utf-8") for path in folder.glob("*.smk")]
    blocks = [block for text in texts for block in re.split(r"^rule ", text, flags=re.MULTILINE)[1:]]
    return {block.partition(":")[0] for block in blocks if re.search(r"^    localrule: True$", block, re.MULTILINE)}


def table(rules: Mapping[str, Asked], local: Collection[str]) -> list[str]:
    """Lines of a table: the rules whose jobs are submitted, `local` ones in one row, and the sum of all."""
    rows = {name: asked for name, asked in sorted(rules.items()) if name not in local}
    rows["local rules"] = _together(asked for name, asked in rules.items() if name in local)
    rows["all"] = _together(rules.values())
    width = max(map(len, rows))
    head = "  ".join(f"{column:>10}" for column in COLUMNS)
    lines = [f"{'':{width}}  {head}"]
    for name, asked in rows.items():
        hours, gpu_hours = asked.minutes / 60, asked.gpu_minutes / 60
        values = (asked.jobs, hours, gpu_hours, asked.memory_mb / 1000, asked.disk_mb / 1000)
        lines.append(f"{name:{width}}  " + "  ".join(f"{value:10,.0f}" for value in values))
    return lines


def _together(several: Iterable[Asked]) -> Asked:
    rows = list(several)
    return Asked(
        sum(row.jobs for row in rows),
        sum(row.minutes for row in rows),
        sum(row.gpu_minutes for row in rows),
        max((row.memory_mb for row in rows), default=0),
        sum(row.disk_mb for row in rows),
    )


def main() -> None:
    """Read a dry run from standard input and print its plan; what is no dry run is passed on."""
    said = sys.stdin.read().splitlines()
    rules = read(said)
    if not rules:
        print("\n".join(said[-20:]))
        return
    print("What the rules ask for, all jobs together (memory: the largest job). These are upper bounds, not forecasts.")
    print("\n".join(table(rules, local_rules(RULES))))


if __name__ == "__main__":
    main()
