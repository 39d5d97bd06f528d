#!/usr/bin/env nextflow
include { COMPILE_KERNELS ; toCompile } from './modules/compile_kernels/main.nf'
include { DESCRIBE_MODEL } from './modules/describe_model/main.nf'
include { EMBED_SHARD } from './modules/embed_shard/main.nf'
include { FETCH_MODEL } from './modules/fetch_model/main.nf'
include { MERGE_EMBEDDINGS } from './modules/merge_embeddings/main.nf'
include { canBeFilled ; checkName ; fetchedModel ; hubFolder ; keptModel ; modelCache } from './modules/model_cache/main.nf'
include { help } from './modules/help/main.nf'
include { checkParameters ; codeFingerprints ; lastWord ; optionsOf } from './modules/parameters/main.nf'
include { beginTasks ; checkEnvironment ; existingPaths ; inputFiles ; listed ; modelFolder ; podVolumes ; referenceFolder ; stageable ; stageableFolders ; writableFolder } from './modules/paths/main.nf'
include { closing ; extent ; follow ; plan ; shardSizes ; splitIn ; workload } from './modules/plan/main.nf'
include { NEIGHBOURS } from './modules/neighbours/main.nf'
include { claimed ; published } from './modules/outdir/main.nf'
include { REPORT } from './modules/report/main.nf'
include { SPLIT_FASTA } from './modules/split_fasta/main.nf'
include { shellWords } from './modules/words/main.nf'

workflow {
    def schema = file("${projectDir}/nextflow_schema.json", glob: false)
    if (params.help.toString() == 'true') {
        log.info(help(schema))
        return
    }
    def p = checkParameters(params, schema)
    def given = inputFiles(p.input, p.sample_sheet)
    def inputs = given.collect { each -> each.path }
    def reuse = existingPaths('reuse', p.reuse, [type: 'dir'])
    def reference = referenceFolder(p.reference, p.neighbours)
    checkEnvironment(p.python_env)
    beginTasks()
    def outdir = writableFolder('outdir', p.outdir)
    stageableFolders()
    def local = modelFolder(p.model)
    stageable('model', local ? [local] : [])
    checkName(p, local)
    def models = modelCache(p.model_cache, podVolumes())
    stageable('model_cache', models ? [models] : [])
    def model = local ?: keptModel(models, p)
    def device = p.device == 'mps' ? 'mps' : (p.gpus > 0 ? 'cuda' : 'cpu')
    def precision = device == 'cpu' ? 'fp32' : p.precision
    def chosen = p + [precision: precision]
    def splitOptions = optionsOf('split_fasta.py', chosen, schema) + (p.dedup ? [] : ['--no-dedup'])
    def code = codeFingerprints()
    def embedOptions = optionsOf('embed_shard.py', chosen, schema) + (p.self_check ? [] : ['--no-self-check'])

    log.info(plan(p, inputs, precision, model ?: "${p.model}, to be fetched${models ? " into ${models}" : ''}"))
    def held = workflow.preview ? null : claimed(outdir, p.overwrite)
    def results = new java.util.concurrent.ConcurrentLinkedQueue()
    workflow.onComplete = {
        def fault = published(held, results)
        lastWord(closing(p, outdir, fault), fault)
    }

    // /models/esm2.pt or the folder of a downloaded model: one value, shared by every task
    def filled = !model && canBeFilled(models) ? writableFolder('model_cache', models) : []
    model_ch = model
        ? channel.value(model)
        : FETCH_MODEL(p.model, p.model_revision ?: '', hubFolder(p.model), filled).map { made -> filled ? fetchedModel(models, p) : made }
    DESCRIBE_MODEL(model_ch, code['fetch_model.py'])
    def kernels = device == 'cuda' ? [model ?: p.model, shellWords(optionsOf('compile_kernels.py', chosen, schema)), code['compile_kernels.py']] : []
    if (kernels && toCompile(kernels)) { COMPILE_KERNELS(kernels) }
    // Lists of paths go through files: a command line holds some thousand of them
    input_list = channel.of(listed('input', inputs, given.collect { each -> each.sample })).collectFile(name: 'input_list.json')
    reuse_list = channel.of(listed('reuse', reuse)).collectFile(name: 'reuse_list.json')
    SPLIT_FASTA(
        inputs,
        input_list,
        extent(inputs),
        DESCRIBE_MODEL.out,
        reuse,
        reuse_list,
        device,
        shellWords(splitOptions),
        code['split_fasta.py'],
    )

    // What the split found, as a map; printed before any shard is embedded
    split_ch = SPLIT_FASTA.out.summary.map { summary ->
        def split = splitIn(summary)
        log.info(workload(split, p))
        return split + [since: System.currentTimeMillis()]
    }
    // [shard-00000.fasta, '12 sequences, 3,456 residues']
    shard_ch = SPLIT_FASTA.out.shards.flatten().map { shard -> [shard.name, shard] }
        .join(split_ch.flatMap { split -> shardSizes(split) }, failOnMismatch: true)
        .map { _name, shard, size -> [shard, size] }
    EMBED_SHARD(shard_ch, model_ch, DESCRIBE_MODEL.out, device, shellWords(embedOptions), code['embed_shard.py'])
    follow(EMBED_SHARD.out.folder.combine(split_ch))

    // [shard-00000, shard-00001, ...], or [] where nothing is left to embed
    MERGE_EMBEDDINGS(
        EMBED_SHARD.out.folder.collect().ifEmpty([]),
        SPLIT_FASTA.out.manifest,
        SPLIT_FASTA.out.rejected,
        SPLIT_FASTA.out.summary,
        DESCRIBE_MODEL.out,
        reuse,
        reuse_list,
        shellWords(optionsOf('merge_embeddings.py', chosen, schema)),
        code['merge_embeddings.py'],
    )
    nearest_ch = channel.value([])
    if (p.neighbours) {
        NEIGHBOURS(MERGE_EMBEDDINGS.out.parts, reference, p.neighbours, shellWords(reference.collect { folder -> "--reference-name=${folder}" }), device, code['neighbours.py'])
        nearest_ch = NEIGHBOURS.out.ifEmpty([])
    }
    results_ch = MERGE_EMBEDDINGS.out.files.mix(nearest_ch)
    if (p.report) {
        REPORT(
            MERGE_EMBEDDINGS.out.parts.ifEmpty([]),
            MERGE_EMBEDDINGS.out.metrics,
            MERGE_EMBEDDINGS.out.manifest,
            nearest_ch,
            reference,
            code['report.py'],
        )
        results_ch = results_ch.mix(REPORT.out)
    }
    results_ch.subscribe { made -> results.addAll([made].flatten()) }
}
