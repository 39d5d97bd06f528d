// What a run's record tells of it that its tasks do not know (bin/virnucpro/merge/provenance.py).
include { shellWords } from '../words/main.nf'
include { separated } from '../names/main.nf'
include { schemaGroups } from '../schema/main.nf'

/**
 * Options of merge_embeddings.py. What a function returns is no part of what -resume compares: results that are kept keep
 * the record of the run that made them.
 */
def ofRun() {
    def p = workflow.session.params
    def full = p.provenance == 'full'
    def told = [
        started: workflow.start.toInstant().truncatedTo(java.time.temporal.ChronoUnit.SECONDS),
        'nextflow-version': workflow.nextflow.version,
        commit: workflow.commitId,
        command: full ? workflow.commandLine : shellWords(plainCommand(p)),
        launched: full ? "${workflow.userName}@${launchHost()}:${workflow.launchDir}" : null,
    ]
    return shellWords(told.findAll { _name, value -> value }.collect { name, value -> "--${name}=${value}" })
}

/** A command of the same results: the parameters that were given but for those of machine and site, files by their names. */
def plainCommand(p) {
    def groups = schemaGroups(file("${projectDir}/nextflow_schema.json", glob: false))
    def rules = groups.findAll { name, _group -> name != 'cluster' }.values().collectMany { group -> group.properties.entrySet().toList() }
    def given = rules.findAll { each ->
        (each.value.format != 'directory-path' || each.key == 'reference') && p[each.key] != null && p[each.key].toString() != each.value.default?.toString()
    }
    def profile = workflow.profile == 'standard' ? [] : ['-profile', workflow.profile]
    return ['nextflow', 'run', workflow.manifest.name] + profile + given.collect { each -> "--${each.key}=${isOfHub(each.key, p) ? p.model : plain(p[each.key], each.value)}" }
}

/** Whether a parameter is the model, and that a repository ORG/NAME of the hub: no run has a path where nothing is. */
def isOfHub(name, p) {
    return name == 'model' && p.model.toString() ==~ '[^/\\s]+/[^/\\s]+' && !file(p.model, glob: false).exists()
}

/** A value without the folders that lead to what it names, where by its rule it names files; a comma in a name separates nothing. */
def plain(value, rule) {
    if (!rule.format && !('array' in rule.type)) {
        return value.toString()
    }
    def text = value.toString()
    // No store elsewhere is asked once more what it has.
    def named = value instanceof List ? value : text.contains('://') ? text.tokenize(',') : separated(text)
    return named.collect { each -> each.toString().replaceFirst('/+$', '').replaceFirst('.*/', '') }.join(',')
}

def launchHost() {
    try {
        return InetAddress.localHost.hostName
    }
    catch (UnknownHostException _error) {
        return 'an unknown host'
    }
}
