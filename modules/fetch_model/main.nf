include { shellWords ; shown } from '../paths/main.nf'

process FETCH_MODEL {
    tag "${shown(name)}"
    label 'download'
    storeDir "${cache}/${name}"

    input:
    val name
    val cache

    output:
    path 'weights'

    script:
    """
    fetch_model.py ${shellWords(["--model=${name}"])} --outdir .
    """

    stub:
    """
    mkdir weights
    touch weights/model.safetensors
    """
}
