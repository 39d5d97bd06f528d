include { shellWords ; shown } from '../paths/main.nf'

process FETCH_MODEL {
    tag "${shown(name)}"
    // A copy of the folder would keep nothing. Its time is part of what -resume compares: a model removed is fetched anew.
    stageInMode 'symlink'

    input:
    val name
    path kept, stageAs: 'model_cache'

    output:
    path "${kept ? 'model.json' : name}"

    script:
    """
    fetch_model.py ${shellWords(["--model=${name}"])} --outdir . ${kept ? "--cache ${kept}" : ''}
    """

    stub:
    """
    mkdir -p ${kept ?: '.'}/${shellWords([name])}
    touch model.json
    """
}
