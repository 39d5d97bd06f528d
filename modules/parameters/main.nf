// The schema is the only list of parameters: names, types, choices and ranges are checked against it.
include { stop } from '../paths/main.nf'

/**
 * The run's last lines, and the exit code of the task that failed; by itself Nextflow ends with 1. On a terminal Nextflow
 * has more to say after onComplete, the account of an error once more or a summary: both wait until it is done.
 */
def lastWord(text) {
    def exitCode = workflow.success ? 0 : workflow.exitStatus
    log.debug(text)
    def last = {
        System.out.println(text)
        System.out.flush()
        if (exitCode in 2..255) {
            Runtime.runtime.halt(exitCode as int)
        }
    }
    try {
        Runtime.runtime.addShutdownHook(new Thread(last))
    }
    catch (IllegalStateException _error) {
        // The run was told to stop, and is about to.
        log.info(text)
    }
}

def schemaProperties(schema) {
    def groups = new groovy.json.JsonSlurper().parseText(schema.text)['$defs'].values()
    return groups.collectMany { group -> group.properties.entrySet().toList() }.collectEntries { entry -> [entry.key, entry.value] }
}

/** Parameters with their schema's types: the command line passes strings, and `--strict false` must not be true. */
def checkParameters(given, schema) {
    def rules = schemaProperties(schema)
    given.keySet().each { name ->
        if (!rules.containsKey(name)) {
            stop(2, "unknown parameter --${name}; did you mean --${nearest(name, rules.keySet())}?")
        }
    }
    return rules.collectEntries { name, rule -> [name, checkParameter(name, rule, given[name])] }
}

def checkParameter(name, rule, value) {
    if (value == null || (value.toString().isEmpty() && rule.default == null)) {
        return null
    }
    def text = value.toString()
    if (text.isEmpty()) {
        stop(2, "--${name} is empty; leave it out for ${rule.default}")
    }
    if (rule.type == 'string' && text =~ '\\p{Cntrl}') {
        stop(rule.format ? 66 : 2, "--${name} holds a line break, tab or other control character; write it without")
    }
    if (rule.type == 'boolean' && !(text in ['true', 'false'])) {
        stop(2, "--${name} is '${text}', but must be true or false")
    }
    if (rule.type == 'integer' && !(text ==~ /-?\d{1,18}/ && (text as long) >= (rule.minimum ?: 0))) {
        stop(2, "--${name} is '${text}', but must be a whole number of at least ${rule.minimum ?: 0}")
    }
    if (rule['enum'] && !(text in rule['enum'])) {
        stop(2, "--${name} is '${text}', but must be one of ${rule['enum'].join(', ')}")
    }
    if (rule.pattern && !(text ==~ rule.pattern)) {
        stop(2, "--${name} is '${text}', but must be ${rule.errorMessage ?: rule.description}")
    }
    return rule.type == 'boolean' ? text == 'true' : (rule.type == 'integer' ? text as long : value)
}

def nearest(name, known) {
    return known.closest(name.replace('-', '_').toLowerCase())[0] ?: 'help'
}

def help(schema) {
    def lines = schemaProperties(schema).collect { name, rule ->
        def standard = rule.default == null ? '' : " [${rule.default}]"
        return "  --${name.padRight(20)}${rule.description}${standard}"
    }
    return (['nextflow run virnucpro-embed --input proteins.fasta --outdir results', ''] + lines).join('\n')
}

/** Changes with every edit of the package, which Nextflow itself does not see; what tools leave beside it is no edit. */
def codeFingerprint() {
    def bin = file("${projectDir}/bin", glob: false)
    def here = nextflow.file.FilePatternSplitter.glob().escape(bin.toString())
    def sources = files("${here}/**.{py,json}").findAll { path -> !bin.relativize(path).toString().startsWith('.') }
    return sources.sort { path -> path.toString() }.collect { path -> "${bin.relativize(path)}\n${path.text}" }.join('\n').md5()
}
