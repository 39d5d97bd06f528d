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

/** The options of a program: the parameters that the schema passes on to it, whole, so that a change of any reruns it. */
def optionsOf(program, p, schema) {
    def passed = schemaProperties(schema).findAll { name, rule -> rule.tools?.contains(program) && p[name] != null && p[name] != false }
    return passed.keySet().collect { name ->
        "--${name.replace('_', '-')}${p[name] == true ? '' : '=' + p[name]}"
    }.join(' ')
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

/** The folder for the results, made and tried now rather than after hours of work. */
def writableFolder(path) {
    def folder = file(path, glob: false)
    def probe = folder.resolve('.virnucpro-writable')
    try {
        folder.mkdirs()
        probe.text = ''
        probe.delete()
    }
    catch (IOException _error) {
        stop(74, "--outdir ${path} cannot be written; check its permissions or name another folder")
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

/** Changes with every edit of what a program runs, which Nextflow itself does not see; an edit elsewhere changes nothing. */
def codeFingerprint(program) {
    def bin = file("${projectDir}/bin")
    return sources(bin, [:], bin.resolve(program)).sort().collect { name, text -> "${name}\n${text}" }.join('\n').md5()
}

/** Adds to `found` a file of the package, and all files that it imports, directly or not, with what lies beside them. */
def sources(bin, found, path) {
    def name = bin.relativize(path).toString()
    if (found.containsKey(name)) {
        return found
    }
    found[name] = path.text
    files("${path.parent}/*.json").each { data -> found[bin.relativize(data).toString()] = data.text }
    def imports = path.text.findAll(/(?m)^ *(?:from|import) (virnucpro[\w.]*)(?: import (\([^)]*\)|[\w, ]+))?/) { _line, module, names ->
        [module] + (names ?: '').tokenize('(), \n').collect { each -> "${module}.${each}" }
    }
    imports.flatten().each { module ->
        def parts = module.tokenize('.')
        def packages = (1..parts.size()).collect { count -> "${parts.take(count).join('/')}/__init__.py" }
        def candidates = (packages + "${parts.join('/')}.py").collect { each -> bin.resolve(each) }
        candidates.findAll { each -> each.exists() }.each { each -> sources(bin, found, each) }
    }
    return found
}
