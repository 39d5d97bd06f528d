/** An option once for each value, whatever is in it. */
def quoted(option, values) {
    return values.collect { value -> "--${option}='" + value.replace("'", "'\\''") + "'" }.join(' ')
}

process SPLIT_FASTA {
    tag "${names.size() > 1 ? names.size() + ' files' : new File(names[0]).name}, ${[inputs].flatten().sum { file -> file.size() } as nextflow.util.MemoryUnit}"

    input:
    path inputs, stageAs: 'input*/*'
    val names
    path model_json
    path reuse, stageAs: 'reuse*/*'
    val reuse_names
    val options
    val code

    output:
    path 'shards/*.fasta', optional: true, emit: shards
    path 'manifest.parquet', emit: manifest
    path 'rejected.tsv', emit: rejected
    path 'split_summary.json', emit: summary

    script:
    def reused = [reuse].flatten().collect { directory -> "--reuse ${directory}" }.join(' ')
    """
    split_fasta.py --model-json ${model_json} --outdir . ${options} ${reused} \\
        ${quoted('reuse-name', reuse_names)} ${quoted('name', names)} -- ${inputs}
    """

    stub:
    """
    mkdir shards
    printf '>0\\nMKV\\n' > shards/shard-00000.fasta
    printf '>1\\nMKT\\n' > shards/shard-00001.fasta
    touch manifest.parquet rejected.tsv
    printf '{"records": 2, "embedded": 2, "rejected": 0, "shards": [
        {"file": "shard-00000.fasta", "sequences": 1, "residues": 3},
        {"file": "shard-00001.fasta", "sequences": 1, "residues": 3}]}' > split_summary.json
    """
}
