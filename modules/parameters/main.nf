// The schema is the only list of parameters: names, types, choices and ranges are checked against it.

def stop(exitCode, message) {
    nextflow.Nextflow.exit(exitCode as int, "virnucpro-embed: error: ${message}".toString())
}

/** Makes the run end with a task's own exit code, once Nextflow has written its reports; by itself it ends with 1. */
def exitLikeTheTask(exitCode) {
    if (exitCode in 2..255) {
        Runtime.runtime.addShutdownHook(new Thread({ Runtime.runtime.halt(exitCode as int) }))
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
    if (value == null || value.toString().isEmpty()) {
        return null
    }
    def text = value.toString()
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
        stop(2, "--${name} is '${text}', but must be ${rule.description}")
    }
    return rule.type == 'boolean' ? text == 'true' : (rule.type == 'integer' ? text as long : value)
}

def nearest(name, known) {
    return known.closest(name.replace('-', '_').toLowerCase())[0] ?: 'help'
}

/** One name, several (a list, or separated by commas), or globs: the files in the order given, globs sorted by name. */
def existingPaths(name, given, options) {
    if (given == null) {
        return []
    }
    def literal = !(given instanceof List) && file(given, glob: false).exists()
    def names = given instanceof List || literal ? [given].flatten() : given.toString().tokenize(',')
    return names.collectMany { each ->
        def exact = file(each, glob: false)
        def found = exact.exists() ? [exact] : files(options, each).findAll { path -> path.exists() }.sort { path -> path.toString() }
        if (!found) {
            stop(66, "--${name} ${each}: no such file; check the path")
        }
        found.findAll { path -> path.toString() =~ /[$\n]/ }.each { path ->
            stop(66, "--${name} ${path}: Nextflow cannot stage a path with a dollar sign or line break; rename it")
        }
        return found
    }
}

/** A file of a Hugging Face folder means its folder: a task on another machine is given no more than what is named. */
def modelFolder(path) {
    def weights = ['model.safetensors', 'pytorch_model.bin'].collectMany { name -> [name, "${name}.index.json".toString()] }
    def chosen = weights.find { name -> path.resolveSibling(name).exists() }
    return path.resolveSibling('config.json').exists() && path.name in [chosen, 'config.json'] ? path.parent : path
}

/** A folder that the run writes to, made and tried now rather than after hours of work. */
def writableFolder(name, path) {
    def folder = file(path, glob: false)
    def probe = folder.resolve('.virnucpro-writable')
    try {
        folder.mkdirs()
        probe.text = ''
        probe.delete()
    }
    catch (IOException _error) {
        stop(74, "--${name} ${path} cannot be written; check its permissions or name another folder")
    }
    return folder
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
    def bin = file("${projectDir}/bin")
    def sources = files("${projectDir}/bin/**.{py,json}").findAll { path -> !bin.relativize(path).toString().startsWith('.') }
    return sources.sort { path -> path.toString() }.collect { path -> "${bin.relativize(path)}\n${path.text}" }.join('\n').md5()
}
