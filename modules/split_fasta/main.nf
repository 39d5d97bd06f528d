process SPLIT_FASTA {
    tag "${extent}"

    input:
    path inputs, stageAs: 'input?'
    path inputs_list
    val extent
    path model_json
    path reuse, stageAs: 'reuse?'
    path reuse_list
    val options
    val code

    output:
    path 'shards/*.fasta', optional: true, emit: shards
    path 'manifest.parquet', emit: manifest
    path 'rejected.tsv', emit: rejected
    path 'split_summary.json', emit: summary

    script:
    """
    split_fasta.py --model-json ${model_json} --outdir . --cpus ${task.cpus} ${options} \\
        --inputs-from ${inputs_list} --reuse-from ${reuse_list}
    """

    stub:
    """
    mkdir shards
    printf '>0\\nMKV\\n' > shards/shard-00000.fasta
    printf '>1\\nMKT\\n' > shards/shard-00001.fasta
    touch manifest.parquet rejected.tsv
    printf '{"records": 2, "embedded": 2, "duplicate": 0, "reused": 0, "rejected": 0, "reuse": [], "card": null, "card_teraflops": 100, "shards": [
        {"file": "shard-00000.fasta", "sequences": 1, "residues": 3, "cost": 1},
        {"file": "shard-00001.fasta", "sequences": 1, "residues": 3, "cost": 1}]}' > split_summary.json
    """
}
