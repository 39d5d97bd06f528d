include { shown } from '../words/main.nf'

process DESCRIBE_MODEL {
    tag "${shown(model.name.tokenize('/').last())}"

    input:
    path(model, stageAs: 'model/*')
    val code

    output:
    path 'model.json'

    script:
    """
    fetch_model.py --model ${model} --outdir .
    """

    stub:
    """
    printf '{"name": "stub", "layers": 1, "embed_dim": 2, "heads": 1}' > model.json
    """
}
