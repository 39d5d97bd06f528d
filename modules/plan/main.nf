// What a run is about to do, in words, how far it is, and at its end what it did.
include { shellWords ; shown ; stop } from '../words/main.nf'

include { readRecord } from '../contracts/main.nf'
include { complaint } from '../engine/main.nf'
include { stepsOf ; taskRows ; traceFile } from '../trace/main.nf'

def plan(p, inputs, precision, model) {
    return """\
        virnucpro-embed ${workflow.manifest.version}
          input   ${inputs.size() > 3 ? counted(inputs.size(), 'file') : inputs.join(', ')}
          model   ${model}
          vectors layers ${p.layers}, ${p.pooling} pooling${p.per_residue ? ', and one per residue' : ''}
          compute ${device(p)}, ${precision}${unused(p)}
          results ${file(p.outdir, glob: false)}
        """.stripIndent()
}

/** 'proteins.fasta, 3.2 MB' or '15,000 files, 1.2 GB'. */
def extent(inputs) {
    def name = inputs.size() > 1 ? counted(inputs.size(), 'file') : shown(inputs[0].name)
    return "${name}, ${inputs.sum { file -> file.size() } as nextflow.util.MemoryUnit}"
}

def device(p) {
    return p.device == 'mps' ? "Apple's GPU" : (p.gpus > 0 ? counted(p.gpus, 'GPU') : 'CPU')
}

/** Why a GPU that is here is not used; empty where one is used or none is here. */
def unused(p) {
    if (p.gpus > 0 || p.device == 'mps') {
        return ''
    }
    def told = System.getProperty('virnucpro.gpus', '').readLines()
    def seen = (told[0] ?: '0') as int
    return seen ? "; not on ${counted(seen, 'GPU')} that ${seen == 1 ? 'is' : 'are'} here, as --gpus is 0" : (told[1] ? "; ${told[1]}" : '')
}

def counted(number, what) {
    return String.format(Locale.ROOT, '%,d %s%s', number as long, what, (number as long) == 1 ? '' : 's')
}

/** What the split found and what is to be computed of it, before the first shard is. */
def workload(split, p) {
    def shards = split.shards
    def others = ['duplicate', 'reused', 'rejected'].findAll { status -> split[status] }
    def found = others.collect { status -> String.format(Locale.ROOT, '%,d %s', split[status] as long, status) }
    found << counted(split.embedded, p.dedup == false ? 'sequence' : 'distinct sequence') + ' to embed'
    def told = "${counted(split.records, 'record')}: ${found.join(', ')}"
    if (shards) {
        told += " in ${counted(shards.size(), 'shard')} on ${device(p)}"
        told += estimate(split, p)
    } else {
        told += '; nothing is computed'
    }
    return ([told] + idle(split, p) + refusals(split)).join('\n')
}

/** The cut of a run that had fewer GPUs, which -resume keeps; a new one has a shard for each. */
def idle(split, p) {
    def shards = split.shards.size()
    def wanted = Math.min(p.gpus as long, split.embedded as long)
    return p.device != 'mps' && shards < wanted ? ["Cut for the fewer GPUs of the run that goes on, so that its finished shards are kept: ${shards} of ${p.gpus} GPUs work; without -resume all do"] : []
}

/** One line for each of --reuse whose vectors could not be taken over. */
def refusals(summary) {
    return summary.reuse.findAll { entry -> !entry.used }.collect { entry -> "Not reused: ${entry.results}: ${entry.reason}" }
}

/** GPU time of the arithmetic alone, of which each shard has its share. A task adds some seconds to start. */
def estimate(split, p) {
    def operations = split.shards.sum { shard -> shard.cost }
    if (p.gpus == 0 || !operations) {
        return ''
    }
    def seconds = operations / (split.card_teraflops * 1e12)
    // Shards are of equal cost, and a GPU takes one at a time.
    def each = seconds / split.shards.size()
    def rounds = Math.ceil(split.shards.size() / (p.gpus as double))
    def together = p.gpus > 1 ? ", ${duration(each * rounds)} with all of them" : ''
    def named = split.card ? split.card.toUpperCase() : 'a card of a fifth of an H100, as the card is not known'
    return "; about ${duration(seconds)} of GPU time on ${named}${together}; ${duration(each)} a shard"
}

/** Tells how far the run is, of each [folder, what the split found] that a finished shard makes. */
def follow(finished_ch) {
    def seen = [:]
    finished_ch.subscribe { _folder, split ->
        def line = progress(seen, split, shardTasks(), System.currentTimeMillis())
        if (line) {
            log.info(line)
        }
    }
}

/** '3 of 16 shards embedded, about 26 minutes left for the others', or null within ten seconds of the line before. */
def progress(seen, split, tasks, now) {
    def shards = split.shards.size()
    seen.done = (seen.done ?: 0) + 1
    if (shards == 1 || (seen.done < shards && now - (seen.told ?: split.since) < 10000)) {
        return null
    }
    seen.told = now
    return "${seen.done} of ${counted(shards, 'shard')} embedded${timeLeft(seen.done, shards, tasks, (now - split.since) / 1000)}"
}

/** Shards are of equal cost and embedded so many at a time: what is left takes as long for each round as those took that are over. */
def timeLeft(done, shards, tasks, seconds) {
    def computed = done - (tasks.cached ?: 0)
    if (!tasks.together || computed < 1 || done == shards) {
        return ''
    }
    def over = Math.ceil(computed / (tasks.together as double))
    def all = Math.ceil((computed + shards - done) / (tasks.together as double))
    return all > over ? ", about ${duration(seconds / over * (all - over))} left for the others" : ', the others under way'
}

/** How many shards were kept, and how many were embedded at once. Empty for a Nextflow that keeps count elsewhere. */
def shardTasks() {
    try {
        def record = workflow.session.statsObserver.stats.processes.find { each -> each.name == 'EMBED_SHARD' }
        return [cached: record.cached, together: record.peakRunning]
    }
    catch (Exception error) {
        log.debug("No count of tasks: ${error}")
        return [:]
    }
}

def duration(seconds) {
    if (seconds < 1) {
        return '1 second'
    }
    def unit = seconds < 120 ? ['second', 1] : (seconds < 7200 ? ['minute', 60] : ['hour', 3600])
    return counted(Math.round((seconds as double) / unit[1]), unit[0])
}

/** What a split found. One of an earlier run may have lost shards since, which Nextflow does not see: it is not kept then. */
def splitIn(summary) {
    def split = readRecord(summary)
    def gone = split.shards.find { shard -> !summary.resolveSibling("shards/${shard.file}").exists() }
    if (gone) {
        java.nio.file.Files.deleteIfExists(summary)
        stop(66, "${summary.parent}/shards/${gone.file} was deleted after its task had made it; run again with -resume, which splits anew")
    }
    return split
}

/** [shard-00000.fasta, '12 sequences, 3,456 residues'] of each shard. */
def shardSizes(split) {
    return split.shards.collect { shard ->
        [shard.file, "${counted(shard.sequences, 'sequence')}, ${counted(shard.residues, 'residue')}"]
    }
}

def closing(p, outdir, fault) {
    def summary = outdir.resolve('metrics/run_summary.json')
    if (fault) {
        return "\nNo results: ${fault}"
    }
    if (workflow.preview) {
        return '\nA preview: the parameters hold, and no task was started'
    }
    if (!workflow.success || !summary.exists()) {
        def lines = (workflow.errorMessage ?: cause(workflow.errorReport) ?: 'the run did not finish').readLines()
        return "\nNo results: ${lines.reverse().find { line -> line.contains('.py: error: ') } ?: complaint(lines) ?: lines.last()}"
    }
    def run = readRecord(summary)
    def rejected = run.rejected ? "${run.rejected} rejected (reasons in ${outdir}/rejected.tsv)" : 'none rejected'
    def steps = stepsOf(traceFile(), workflow.start, workflow.complete)
    def lines = ["\n${run.records} records, ${rejected}"] + changes(run) + refusals(run) + steps + run.verdict + ["Results are in ${outdir}/embeddings"]
    return (lines + (p.report ? [page(outdir)] : [])).join('\n')
}

/** What Nextflow says of a failure of which no task does. An API server's answer is JSON, of which one line is its message. */
def cause(report) {
    def refused = report =~ '(?s)"message": "((?:[^"\\\\]|\\\\.)*)".*"code": (\\d+)'
    if (refused) {
        def message = new groovy.json.JsonSlurper().parseText("[\"${refused[0][1]}\"]")[0]
        return "${message}; ${refused[0][2] == '403' ? 'docs/clouds.md lists the rights of a run' : 'run again with -resume'}"
    }
    return report?.readLines()?.dropWhile { line -> !line.startsWith('Caused by:') }?.drop(1)?.find { line -> line.trim() }?.trim()
}

/** What was not read as it stands in the input, or is longer than it should be; the ledger tells of which records. */
def changes(run) {
    def read = [
        [run.truncated, 'record', 'cut to the residues that --max_length allows'],
        [run.beyond_trained_length, 'record', 'beyond the length that models are trained on'],
        [run.unknown_residues, 'residue', 'without a token read as X'],
        [run.gaps_removed, 'gap character', 'removed'],
        [run.comment_lines, 'comment line', 'skipped'],
        [run.stopped_frames, 'frame', 'with a stop left out'],
    ]
    return read.findAll { number, _what, _fate -> number }.collect { number, what, fate -> "${counted(number, what)} ${fate}" }
}

def page(outdir) {
    def file = outdir.resolve('report/multiqc_report.html')
    def trace = traceFile()
    // A page of an earlier run does not count. Failures of COMPILE_KERNELS are ignored, too.
    if (file.exists() && (workflow.stats.ignoredCount == 0 || !failed(trace, 'REPORT'))) {
        return "Report: ${file}"
    }
    return "No report: ${failure(trace, 'REPORT')}. The results are whole; to draw it: " +
        shellWords(["${projectDir}/bin/report.py", '--results', outdir, '--outdir', "${outdir}/report"])
}

/** The last line that the failed task of a process wrote. Nextflow prints none of a task whose failure is ignored. */
def failure(trace, process) {
    def (first, rest) = failed(trace, process)?.hash?.tokenize('/') ?: ['', '']
    // No glob: the work folder's own name may have wildcards.
    def folder = rest ? workflow.workDir.resolve(first).listFiles().find { each -> each.name.startsWith(rest) } : null
    def log = folder?.resolve('.command.err')
    def said = log?.exists() ? log.readLines() : []
    return said ? said.last() : "${process} failed"
}

/** The trace's row of a process's first task that failed, if any did. */
def failed(trace, process) {
    return taskRows(trace).find { each -> each.status == 'FAILED' && each.name?.tokenize(' ')?.first() == process }
}
