"""One run's answers to one bundle of attack x benchmark cells, on one loaded model."""

from es2.attacks.base import Source
from es2.embeddings import load_embeddings
from es2.evaluation import evaluate_bundle
from es2.files import write_csv, write_jsonl
from es2.models import load_run
from es2.probes import ProbeSet
from es2.progress import progress
from es2.prompts.tables import read_prompt_tables
from es2.reference import compliant_answers
from es2.scripting import job
from es2.vllm_answers import vllm_writer, wanted


def source(files: list[str]) -> Source:
    """A model that the attack is fitted on, from its embeddings and its adapter."""
    embeddings, *adapter = files
    return Source(load_embeddings(embeddings), lambda: load_run(snakemake.input.model, adapter, cfg["model"]))


with job(snakemake):
    cfg, files = snakemake.params.cfg, (snakemake.input.model, snakemake.input.adapter)
    by_vllm = wanted(cfg)
    lm = load_run(*files, cfg["model"], device="cpu" if by_vllm else None)
    write = vllm_writer(lm, *files, cfg, int(snakemake.params.row["seed"])) if by_vllm else None
    prompts = read_prompt_tables(snakemake.input.prompts)
    probes = {
        name: ProbeSet.load(path) for name, path in zip(snakemake.params.fitted_on, snakemake.input.probes, strict=True)
    }
    embeddings = load_embeddings(snakemake.input.embeddings) if snakemake.input.embeddings else None
    fitted = {"base": snakemake.input.base, "parent": snakemake.input.parent}
    sources = {name: source(files) for name, files in fitted.items() if files}
    targets = {key: tokens for path in snakemake.input.targets for key, tokens in compliant_answers(path).items()}
    given = (sources, targets, snakemake.input.files, write)
    with progress("answers") as advance:
        rows, search = evaluate_bundle(lm, cfg, snakemake.params.row, prompts, probes, embeddings, advance, *given)
    write_csv(search, snakemake.output.search)
    write_jsonl(snakemake.output.answers, rows, private=True)
