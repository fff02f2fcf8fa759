# As many small jobs as `--config jobs=` says, each of which only writes a file.
rule all:
    input:
        expand("done/{number}.txt", number=range(int(config["jobs"]))),


rule write:
    output:
        "done/{number}.txt",
    log:
        "logs/{number}.log",
    threads: 1
    resources:
        mem_mb=200,
        runtime=5,
    shell:
        "echo {wildcards.number} > {output} 2> {log}"
