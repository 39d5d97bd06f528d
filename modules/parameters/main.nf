// The schema is the only list of parameters: names, types, choices and ranges are checked against it.
include { stop } from '../words/main.nf'
include { schemaProperties } from '../schema/main.nf'

/**
 * The run's last lines, and the exit code of the task that failed; by itself Nextflow ends with 1. On a terminal Nextflow
 * has more to say after onComplete, the account of an error once more or a summary: both wait until it is done.
 */
def lastWord(text, fault) {
    def exitCode = fault ? 74 : (workflow.success ? 0 : workflow.exitStatus)
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

/** Parameters with their schema's types: the command line passes strings, and `--strict false` must not be true. */
def checkParameters(given, schema) {
    def rules = schemaProperties(schema)
    given.keySet().each { name ->
        if (!rules.containsKey(name)) {
            stop(2, unknown(name, rules.keySet()))
        }
    }
    return rules.collectEntries { name, rule -> [name, given.containsKey(name) ? checkParameter(name, rule, given[name]) : null] }
}

def checkParameter(name, rule, value) {
    def text = value == null ? '' : value.toString()
    if (text.isEmpty()) {
        if (rule.default == null && name != 'gpus') {
            return null
        }
        stop(2, "--${name} is empty; leave it out for ${rule.default == null ? 'those present' : rule.default}")
    }
    // A file of parameters can hold them.
    if (value instanceof Map || (value instanceof List && !('array' in rule.type))) {
        stop(2, "--${name} is '${text}', but must be one value")
    }
    // What Nextflow makes of a parameter that nothing follows, or an empty text.
    if (rule.type != 'boolean' && text == 'true') {
        stop(2, "--${name} has no value; give one${rule.type == 'integer' ? '' : ', or ./true for what bears that name'}")
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
        stop(2, "--${name} is '${text}', but must be one of ${rule['enum'].join(', ')}${meant(text, rule['enum'], '')}")
    }
    if (rule.pattern && !(text ==~ rule.pattern)) {
        stop(2, "--${name} is '${text}', but must be ${rule.errorMessage ?: rule.description}")
    }
    return rule.type == 'boolean' ? text == 'true' : (rule.type == 'integer' ? text as long : (value instanceof List ? value : text))
}

/** The options of a program: the parameters that the schema passes on to it, whole, so that a change of any reruns it. */
def optionsOf(program, p, schema) {
    def passed = schemaProperties(schema).findAll { name, rule -> rule.tools?.contains(program) && p[name] != null && p[name] != false }
    return passed.keySet().collect { name -> "--${name.replace('_', '-')}${p[name] == true ? '' : '=' + p[name]}" }
}

def unknown(name, known) {
    def own = ['ansi-log', 'bg', 'config', 'latest', 'params-file', 'preview', 'profile', 'queue-size', 'resume', 'revision', 'stub', 'stub-run', 'work-dir']
    // Of --work-dir Nextflow makes workDir.
    def option = name.replaceAll('([a-z])([A-Z])', '$1-$2').toLowerCase()
    def remedy = option in own || option ==~ 'with(out)?-.+' ? "; that option is Nextflow's own and has one dash: -${option}" : meant(name, known, '--')
    return "unknown parameter --${name}${remedy ?: '; --help lists those that there are'}"
}

/** '; did you mean --outdir?' where one of the known texts is near: begins with what was written, or differs in few letters. */
def meant(written, known, dashes) {
    def plain = written.toString().replace('-', '_').toLowerCase()
    def begun = known.findAll { each -> each.startsWith(plain) }
    def edits = known.collectEntries { each -> [each, distance(plain, each.toLowerCase())] }
    def least = edits.values().min()
    def near = begun ?: (least <= Math.min(3, (plain.size() + 1).intdiv(2)) ? known.findAll { each -> edits[each] == least } : [])
    return near ? "; did you mean ${near.take(3).collect { each -> "${dashes}${each}" }.join(' or ')}?" : ''
}

/** Edits that make one text of the other: a letter put in, taken out or replaced, or two neighbours swapped. */
def distance(one, other) {
    def rows = one.toList().indices.inject([(0..other.size()).toList()]) { above, i ->
        above + [other.toList().indices.inject([i + 1]) { row, j ->
            def swapped = i && j && one[i] == other[j - 1] && one[i - 1] == other[j] ? [above[i - 1][j - 1] + 1] : []
            row + [([row[j] + 1, above[i][j + 1] + 1, above[i][j] + (one[i] == other[j] ? 0 : 1)] + swapped).min()]
        }]
    }
    return rows.last().last()
}

/** Changes with every edit of what a program runs, which Nextflow itself does not see; an edit elsewhere changes nothing. */
def codeFingerprint(program) {
    def bin = file("${projectDir}/bin", glob: false)
    return sources(bin, [:], bin.resolve(program)).sort().collect { name, text -> "${name}\n${text}" }.join('\n').md5()
}

/** Adds to `found` a file of the package, and all files that it imports, directly or not, with what lies beside them. */
def sources(bin, found, path) {
    def name = bin.relativize(path).toString()
    if (found.containsKey(name)) {
        return found
    }
    found[name] = path.text
    path.parent.listFiles().findAll { each -> each.name.endsWith('.json') }.each { data -> found[bin.relativize(data).toString()] = data.text }
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
