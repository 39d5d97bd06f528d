process EMBED_SHARD {
    tag "${shard.baseName}, ${size}"
    label 'gpu'

    input:
    tuple path(shard), val(size)
    path model, stageAs: 'model/*'
    path model_json
    val device
    val options
    val code

    output:
    path "${shard.baseName}", type: 'dir'

    script:
    """
    embed_shard.py --shard ${shard} --model ${model} --model-json ${model_json} --outdir ${shard.baseName} \\
        --device ${device} --threads ${task.cpus} --attempt ${task.attempt} ${options}
    """

    stub:
    """
    mkdir ${shard.baseName}
    touch ${shard.baseName}/embeddings.parquet
    """
}
