// What a task's program is told, and what code it runs.
include { schemaProperties } from '../parameters/main.nf'
include { shellWords } from '../paths/main.nf'

/** The options of a program: the parameters that the schema passes on to it, whole, so that a change of any reruns it. */
def optionsOf(program, p, schema) {
    def passed = schemaProperties(schema).findAll { name, rule -> rule.tools?.contains(program) && p[name] != null && p[name] != false }
    return shellWords(passed.keySet().collect { name -> "--${name.replace('_', '-')}${p[name] == true ? '' : '=' + p[name]}" })
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
