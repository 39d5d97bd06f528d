/** What a function returns is no part of what -resume compares: finished shards are kept whatever the next batches hold. */
def batches() {
    def budget = workflow.session.params.token_budget
    return budget ? "--token-budget=${budget}" : ''
}

process EMBED_SHARD {
    tag "${shard.baseName}, ${size}"
    label 'gpu'

    input:
    tuple path(shard), val(size)
    path(model, stageAs: 'model/*')
    path model_json
    val device
    val options
    val code

    output:
    // Nextflow embeds a finished shard anew where a file that is named here is gone
    path("${shard.baseName}", type: 'dir', emit: folder)
    path "${shard.baseName}/embeddings.parquet"
    path "${shard.baseName}/batches.parquet"
    path "${shard.baseName}/gpu_metrics.parquet"
    path "${shard.baseName}/summary.json"

    script:
    """
    embed_shard.py --shard ${shard} --model ${model} --model-json ${model_json} --outdir ${shard.baseName} \\
        --device ${device} --threads ${task.cpus} --attempt ${task.attempt} ${batches()} ${options}
    """

    stub:
    """
    mkdir ${shard.baseName}
    touch ${shard.baseName}/{embeddings,batches,gpu_metrics}.parquet ${shard.baseName}/summary.json
    """
}
