process NEIGHBOURS {
    tag "${count} of each"
    label 'gpu'

    input:
    path(parts, stageAs: 'results/embeddings/*')
    path(reference, stageAs: 'reference')
    val count
    val options
    val device
    val code

    output:
    path 'results/neighbours.parquet'

    script:
    """
    neighbours.py --results results --neighbours ${count} --outdir results --device ${device} \\
        ${reference ? '--reference reference' : ''} ${options}
    """

    stub:
    """
    mkdir -p results
    touch results/neighbours.parquet
    """
}
