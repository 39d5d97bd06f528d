process FETCH_MODEL {
    tag "${name}"
    storeDir "${cache}/${name}"

    input:
    val name
    val cache

    output:
    path 'weights'

    script:
    """
    fetch_model.py --model '${name}' --outdir .
    """

    stub:
    """
    mkdir weights
    touch weights/model.safetensors
    """
}
