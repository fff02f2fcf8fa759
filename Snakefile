# The ES2 study as a graph over files: prompts -> models -> separability -> training -> evaluation -> tables -> report.
#
# Paths (study = `name` of the config; an untrained run exists at seed 0 only):
#   resources/sources/{file}                        a fetched file, and {file}.json: where it came from, its SHA-256
#   resources/models/{model}/manifest.json          the model's files beside it, with their SHA-256
#   resources/hub/{model}.json  resources/tasks/{task}.json   notes of what the hub's client fetched to its caches
#   results/{study}/prompts/{set}.parquet           prompts with splits; checks.csv, splits.csv
#   R = results/{study}/models/{model}/{run}/s{seed}
#   R/adapter/{adapter_config.json,adapter_model.safetensors}  R/training.csv
#   R/embeddings.safetensors  R/probes.safetensors  R/layers.json  R/separability.csv
#   R/reference/{answers.jsonl,states.safetensors}  base and parents only
#   R/answers/{bundle}.jsonl  R/answers/{bundle}.search.csv  R/verdicts/{bundle}.{judge}.csv
#   R/drift.csv  R/turning/{bundle}.csv  R/lm_eval.json  R/merged/    merged: released runs only
#   results/{study}/tables/{table}.csv              and tables/{sweep}/ for a sweep
#   results/{study}/figures/{figure}.{model}.svg    and figures/{sweep}/; a .png twin beside each
#   results/{study}/findings.rst  results/{study}/timings/{rule}/  logs/{study}/{rule}/
import os

from snakemake.utils import min_version, validate

from es2 import registry
from es2.config import (
    as_written,
    check_files,
    check_keys,
    method_module,
    own_file,
    own_model_files,
    read_study,
    source_file,
)
from es2.errors import UserError
from es2.fingerprint import fingerprint
from es2.names import SELF
from es2.settings.data import model_sources

min_version("9.27")


configfile: "config/config.yaml"


# The software of every rule is that of requirements.lock; a container is a choice of the user's (--sdm apptainer), who
# names an image that holds this software (docs/cluster.md).
container: os.environ.get("ES2_CONTAINER", "docker://python:3.11")


try:
    check_keys(workflow.configfiles)
    study = read_study(config)
    check_files(study)
except UserError as error:
    raise WorkflowError(str(error)) from None
validate(as_written(config), "workflow/schemas/config.schema.yaml", set_default=False)


pathvars:
    results=f"results/{study.config.name}",
    logs=f"logs/{study.config.name}",
    timings="<results>/timings",
    job="{model}/{run}/s{seed}",
    run="<results>/models/<job>",


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/resources.smk"
include: "workflow/rules/scopes.smk"


wildcard_constraints:
    file=one_of(SOURCES.values()),
    model=one_of(study.config.models),
    run=one_of(study.config.runs),
    seed=r"\d+",
    bundle=one_of(study.config.bundles),
    judge=one_of(study.config.judges),
    sweep=one_of(SWEEPS),


include: "workflow/rules/data.smk"
include: "workflow/rules/models.smk"
include: "workflow/rules/separability.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/judging.smk"
include: "workflow/rules/ability.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/contest.smk"
include: "workflow/rules/ablation.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/takeaway.smk"
include: "workflow/rules/milestones.smk"


rule all:
    default_target: True
    input:
        rules.training.input,
        rules.tables.input,
        rules.figures.input,
        rules.takeaway.input,
