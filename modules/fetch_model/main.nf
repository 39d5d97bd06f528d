process FETCH_MODEL {
    tag "${name}"
    label 'download'
    // It runs where the model is not kept yet: what an earlier run did says nothing of that. A copy of the folder keeps nothing.
    cache false
    stageInMode 'symlink'

    input:
    val name
    path kept, stageAs: 'model_cache'

    output:
    path "${kept ? 'model.json' : name}"

    script:
    """
    fetch_model.py --model='${name.replace("'", "'\\''")}' --outdir . ${kept ? "--cache ${kept}" : ''}
    """

    stub:
    """
    mkdir -p ${kept ?: '.'}/'${name}'
    touch model.json
    """
}
