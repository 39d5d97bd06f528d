include { shellWords ; shown } from '../words/main.nf'

process FETCH_MODEL {
    tag "${shown(name)}"
    // A copy of the folder would keep nothing. Its time is part of what -resume compares: a model removed is fetched anew.
    stageInMode 'symlink'

    input:
    val name
    val revision
    val folder
    path(kept, stageAs: 'model_cache')

    output:
    path "${kept ? 'model.json' : folder}"

    script:
    """
    fetch_model.py ${shellWords(["--model=${name}"] + (revision ? ["--model-revision=${revision}"] : []))} --outdir . ${kept ? "--cache ${kept}" : ''}
    """

    stub:
    """
    mkdir -p ${kept ?: '.'}/${shellWords([folder])}
    touch model.json
    """
}
