#!/usr/bin/env nextflow
include { DESCRIBE_MODEL } from './modules/describe_model/main.nf'
include { EMBED_SHARD } from './modules/embed_shard/main.nf'
include { FETCH_MODEL } from './modules/fetch_model/main.nf'
include { MERGE_EMBEDDINGS } from './modules/merge_embeddings/main.nf'
include { REPORT } from './modules/report/main.nf'
include { SPLIT_FASTA } from './modules/split_fasta/main.nf'
include { checkParameters ; codeFingerprint ; existingPaths ; help ; stop ; writableFolder } from './modules/parameters/main.nf'

def modelCache(given) {
    if (workflow.stubRun) {
        return "${workflow.workDir}/stub-models"
    }
    return given ?: "${System.getenv('HOME') ?: workflow.launchDir}/.cache/virnucpro/models"
}

/** Options of the tools that decide what a vector is; whole strings, so that a change of any reruns the task. */
def outputOptions(p, precision) {
    def options = "--max-length ${p.max_length} --long-sequences ${p.long_sequences} --precision ${precision}"
    options += " --layers=${p.layers} --pooling ${p.pooling} --embedding-dtype ${p.embedding_dtype}"
    return p.per_residue ? "${options} --per-residue" : options
}

def splitOptions(p) {
    def options = "--shard-residues ${p.shard_residues} --shards-at-least ${Math.max(p.gpus, 1)}"
    return options + (p.dedup ? '' : ' --no-dedup') + (p.strict ? ' --strict' : '')
}

def plan(p, inputs, precision, model) {
    def device = p.gpus > 0 ? "${p.gpus} GPU${p.gpus > 1 ? 's' : ''}" : 'CPU'
    return """\
        virnucpro-embed ${workflow.manifest.version}
          input   ${inputs.size() > 3 ? "${inputs.size()} files" : inputs.join(', ')}
          model   ${model}
          vectors layers ${p.layers}, ${p.pooling} pooling${p.per_residue ? ', and one per residue' : ''}
          compute ${device}, ${precision}
          results ${p.outdir}
        """.stripIndent()
}

def closing(outdir) {
    def summary = outdir.resolve('metrics/run_summary.json')
    if (!workflow.success || !summary.exists()) {
        return "\nNo results: ${(workflow.errorMessage ?: 'the run did not finish').readLines().last()}"
    }
    def run = new groovy.json.JsonSlurper().parseText(summary.text)
    def rejected = run.rejected ? "${run.rejected} rejected (reasons in ${outdir}/rejected.tsv)" : 'none rejected'
    def page = outdir.resolve('report/multiqc_report.html')
    def lines = ["\n${run.records} records, ${rejected}"] + (run.verdict ?: []) + ["Results are in ${outdir}/embeddings"]
    return (lines + (page.exists() ? ["Report: ${page}"] : [])).join('\n')
}

workflow {
    def schema = file("${projectDir}/nextflow_schema.json")
    if (params.help) {
        log.info(help(schema))
        return
    }
    def p = checkParameters(params, schema)
    if (p.input == null) {
        stop(2, 'no --input; name a protein FASTA file, several separated by commas, or a glob in quotes')
    }
    def inputs = existingPaths('input', p.input, [type: 'file'])
    def reuse = existingPaths('reuse', p.reuse, [type: 'dir'])
    def outdir = writableFolder(p.outdir)
    def local = file(p.model, glob: false)
    def device = p.gpus > 0 ? 'cuda' : 'cpu'
    def precision = p.gpus > 0 ? p.precision : 'fp32'
    def options = outputOptions(p, precision)
    def budget = p.token_budget ? " --token-budget ${p.token_budget}" : ''
    def code = codeFingerprint()

    log.info(plan(p, inputs, precision, local.exists() ? local : "${p.model}, kept in ${modelCache(p.model_cache)}"))
    workflow.onComplete = {
        log.info(closing(outdir))
    }

    // /models/esm2.pt or the folder of a downloaded model: one value, shared by every task
    model_ch = local.exists() ? channel.value(local) : FETCH_MODEL(p.model, modelCache(p.model_cache))
    DESCRIBE_MODEL(model_ch, code)
    SPLIT_FASTA(inputs, inputs.collect { path -> path.toString() }, DESCRIBE_MODEL.out, reuse, "${splitOptions(p)} ${options}", code)

    // [shard-00000.fasta, '1.2 MB']
    shard_ch = SPLIT_FASTA.out.shards.flatten().map { shard -> [shard, (shard.size() as nextflow.util.MemoryUnit).toString()] }
    EMBED_SHARD(shard_ch, model_ch, DESCRIBE_MODEL.out, device, "${options}${budget}", code)

    // [shard-00000, shard-00001, ...], or [] where nothing is left to embed
    MERGE_EMBEDDINGS(
        EMBED_SHARD.out.collect().ifEmpty([]),
        SPLIT_FASTA.out.manifest,
        SPLIT_FASTA.out.rejected,
        SPLIT_FASTA.out.summary,
        DESCRIBE_MODEL.out,
        reuse,
        "--embedding-dtype ${p.embedding_dtype}",
        code,
    )
    if (p.report) {
        REPORT(MERGE_EMBEDDINGS.out.parts.ifEmpty([]), MERGE_EMBEDDINGS.out.metrics, MERGE_EMBEDDINGS.out.manifest, code)
    }
}
