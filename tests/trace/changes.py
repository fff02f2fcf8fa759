"""Which jobs have other params than those they ran with: a line of config files and targets in, a line of jobs out.

A dry run does not look at the params of a job that runs again because of another; this asks Snakemake, with what it
decides by, for every job. It runs in the folder of a study, as one process for many edits.
"""

import json
import sys
from pathlib import Path

from snakemake.api import SnakemakeApi
from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, Quietness, ResourceSettings


def changed(configs: list[str], targets: list[str]) -> list[str]:
    """First outputs of the jobs whose params have changed."""
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        workflow = api.workflow(
            resource_settings=ResourceSettings(cores=1),
            config_settings=ConfigSettings(configfiles=[Path(config) for config in configs]),
            snakefile=Path("Snakefile"),
        )
        inner = workflow.dag(DAGSettings(targets=targets)).workflow_api._workflow
        inner._prepare_dag(forceall=False, ignore_incomplete=True, lock_warn_only=True)
        inner._build_dag()
        return [str(job.output[0]) for job in inner.dag.jobs if job.output and inner.persistence.params_changed(job)]


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(changed(**json.loads(line))), flush=True)
