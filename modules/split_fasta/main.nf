include { shellWords } from '../words/main.nf'

/**
 * What the shards are cut for: the number of GPUs, and the card in the words of whoever names it, a cloud's type, Slurm's
 * request, this machine's driver. What a function returns is no part of what -resume compares: a run that goes on with
 * other GPUs keeps its shards.
 */
def cutFor(device) {
    if (device != 'cuda') {
        return "--card=${device == 'mps' ? 'apple' : 'cpu'}"
    }
    def p = workflow.session.params
    def asked = "${p.gpu_type ?: ''} ${p.gpu_request == 'gres=gpu:1' ? '' : p.gpu_request}".trim()
    def card = asked ?: (System.getProperty('virnucpro.gpus', '').readLines()[1] ?: '')
    return shellWords(["--shards-at-least=${p.gpus}", "--card=${card}"])
}

process SPLIT_FASTA {
    tag "${extent}"

    input:
    path(inputs, stageAs: 'input?')
    path inputs_list
    val extent
    path model_json
    path(reuse, stageAs: 'reuse?')
    path reuse_list
    val device
    val options
    val code

    output:
    path('shards/*.fasta', optional: true, emit: shards)
    path('manifest.parquet', emit: manifest)
    path('rejected.tsv', emit: rejected)
    path('split_summary.json', emit: summary)

    script:
    """
    split_fasta.py --model-json ${model_json} --outdir . --cpus ${task.cpus} ${cutFor(device)} ${options} \\
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
