// The schema is the only list of parameters: names, types, choices and ranges are checked against it.
include { printable ; stop } from '../words/main.nf'
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
    checkWords(workflow.session.binding.getVariable('args'))
    checkOnce(rules)
    given.keySet().each { name ->
        if (!rules.containsKey(name)) {
            stop(2, unknown(name, rules.keySet()))
        }
    }
    def p = rules.collectEntries { name, rule -> [name, given.containsKey(name) ? checkParameter(name, rule, given[name]) : null] }
    checkTogether(p, rules)
    return p
}

/** What parameters say of each other, as the programs do (bin/virnucpro/config.py), which are told after the model is fetched. */
def checkTogether(p, rules) {
    def asked = rules.findAll { name, rule -> p[name] != null && p[name] != rule.default }.keySet()
    def half = p.max_length?.intdiv(2)
    def refused = [
        [!p.id_column != !p.sequence_column, "--id_column and --sequence_column say what a table's columns hold; give both"],
        ['window_overlap' in asked && p.long_sequences != 'window', '--window_overlap says what windows share; give --long_sequences window too'],
        ['window_overlap' in asked && p.window_overlap > half, "--window_overlap is ${p.window_overlap}, but must be at most ${half}, half of --max_length"],
        [asked.any { name -> name in ['chunk', 'genetic_code'] } && p.translate != 'six_frame', '--chunk and --genetic_code are of --translate six_frame; give it too, or leave them out'],
        ['min_contig' in asked && !p.translate, '--min_contig is of --translate genes and six_frame; give one too, or leave it out'],
        [p.translate && p.alphabet == 'protein', '--alphabet protein says that the input is no DNA; leave it or --translate out'],
        [p.device == 'mps' && !(p.precision in ['fp16', 'fp32']), "--precision ${p.precision} is not for Apple's GPU: use fp16 or fp32"],
    ].find { wrong, _message -> wrong }
    if (refused) {
        stop(2, refused[1])
    }
}

/** Ends the run where words are left that no parameter takes: all files but the first, where a shell wrote out a glob. */
def checkWords(words) {
    // What Nextflow makes of -stub.
    def left = words.findAll { word -> word != 'true' }
    if (left) {
        def others = left.size() > 1 ? " and ${left.size() - 1} more" : ''
        stop(2, "words that belong to no parameter: '${printable(left[0])}'${others}; write a glob in quotes, as in --input 'proteins/*.fasta', or commas between files")
    }
}

/** Ends the run where one that takes several is given twice: Nextflow keeps the last alone, which for others is as meant. */
def checkOnce(rules) {
    // Words as Nextflow quotes them there, of which a value may hold an option's name.
    def words = (workflow.commandLine ?: '').findAll(/(?s)(?:\\.|'[^']*'|[^ '\\])+/)
    rules.findAll { _name, rule -> 'array' in rule.type }.each { name, _rule ->
        if (words.count { word -> word ==~ "(?s)'?--${name}(=.*)?" } > 1) {
            stop(2, "--${name} is given more than once, of which Nextflow takes the last alone; give it once, with commas between its values")
        }
    }
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
    if (rule['enum'] && !(text in rule['enum'].collect { each -> each.toString() })) {
        def near = rule.type == 'integer' ? '' : meant(text, rule['enum'], '')
        stop(2, "--${name} is '${text}', but must be one of ${rule['enum'].join(', ')}${near}")
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
    def rows = one.toList().inject([(0..other.size()).toList()]) { above, _letter ->
        above + [other.toList().inject([above.size()]) { row, _other -> row + edits(one, other, above, row) }]
    }
    return rows.last().last()
}

/** The next number in the table of distances between beginnings of the two texts. */
def edits(one, other, above, row) {
    def i = above.size() - 1
    def j = row.size() - 1
    def replaced = above[i][j] + (one[i] == other[j] ? 0 : 1)
    def swapped = i && j && one[i] == other[j - 1] && one[i - 1] == other[j] ? above[i - 1][j - 1] + 1 : replaced
    return [row[j] + 1, above[i][j + 1] + 1, replaced, swapped].min()
}

/** By program what changes with every edit of what it runs, which Nextflow itself does not see; an edit elsewhere changes nothing. */
def codeFingerprints() {
    def bin = file("${projectDir}/bin", glob: false)
    def texts = [:].withDefault { name -> bin.resolve(name).text }
    def needed = neededIn(bin, texts)
    return [:].withDefault { program -> sources(program, needed, [] as Set).sort().collect { name -> "${name}\n${texts[name]}" }.join('\n').md5() }
}

/** By file of the programs' folder those that it needs itself: its package, what it imports, and the data beside it. */
def neededIn(bin, texts) {
    def names = []
    bin.eachFileRecurse(groovy.io.FileType.FILES) { path -> names << bin.relativize(path).toString() }
    def data = names.findAll { name -> name.endsWith('.json') }.groupBy { name -> folderOf(name) }
    def modules = names.findAll { name -> name.endsWith('.py') }.collectEntries { name -> [name - '/__init__.py' - '.py', name] }
    return [:].withDefault { name ->
        def parent = folderOf(name - '/__init__.py')
        name.endsWith('.json') ? [] : data.getOrDefault(folderOf(name), []) + ([parent] + imported(texts[name])).findResults { module -> modules[module] }
    }
}

def folderOf(name) {
    return name.contains('/') ? name.substring(0, name.lastIndexOf('/')) : ''
}

/** What could be a module of the package that a module imports, as a path without its ending. */
def imported(text) {
    def found = text.findAll(/(?m)^ *(?:from|import) (virnucpro[\w.]*)(?: import (\([^)]*\)|[\w, ]+))?/) { _line, module, members ->
        [module] + (members ?: '').tokenize('(), \n').collect { each -> "${module}.${each}" }
    }
    return found.flatten().collect { module -> module.replace('.', '/') }
}

/** Adds to `found` a file and all that it needs, directly or not. */
def sources(name, needed, found) {
    if (found.add(name)) {
        needed[name].each { each -> sources(each, needed, found) }
    }
    return found
}
