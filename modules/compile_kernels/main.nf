// Kernels compiled while the model is described and the input split, for the first run of a model on this machine.
include { shellWords ; shown } from '../words/main.nf'

/**
 * Whether to compile `kernels`, [model, options, code], apart: where the GPUs are this machine's and tasks keep what they
 * compile, the cores suffice for one task more than those of the shards, and no earlier run has done it.
 */
def toCompile(kernels) {
    def given = workflow.session.config.process ?: [:]
    def selected = given.findAll { name, value -> name.startsWith('with') && value instanceof Map }.values()
    def here = ([given] + selected).every { each -> each.executor in [null, 'local'] }
    def cores = Runtime.runtime.availableProcessors() > 4 * (workflow.session.params.gpus as int)
    return here && cores && !workflow.containerEngine && !workflow.stubRun && !mark(kernels).exists()
}

/** The file that COMPILE_KERNELS leaves beside the kernels. The machine's cards are in its name, where the system tells them. */
def mark(kernels) {
    // As tasks are told it; of the variables of a shell it may hold HOME.
    def folder = "${workflow.session.config.env?.TRITON_CACHE_DIR ?: '$HOME/.triton/cache'}".replace('$HOME', System.getenv('HOME') ?: '')
    def cards = files('/proc/driver/nvidia/gpus/*/information').collectMany { card -> card.readLines().findAll { line -> line.startsWith('Model:') } }
    return file(folder, glob: false).resolve("virnucpro-${(kernels + [workflow.session.params.python_env] + cards.unique().sort()).join('\n').md5()}.compiled")
}

process COMPILE_KERNELS {
    tag "${shown(model.toString().tokenize('/').last())}"
    // Without it EMBED_SHARD compiles what it needs.
    errorStrategy 'ignore'
    time '10 min'

    input:
    tuple val(model), val(options), val(code)

    script:
    """
    compile_kernels.py ${shellWords(["--model=${model}"])} --mark ${mark([model, options, code]).name} ${options}
    """

    stub:
    'true'
}
