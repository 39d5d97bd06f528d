// Names of files and folders as users have them: found, refused and listed.
// Only main.nf includes it: Nextflow's first parser compiles what is included anew for each file that does.
include { printable ; stop } from '../words/main.nf'
include { absolute ; literal ; separated } from '../names/main.nf'
include { sheetRows } from '../sample_sheet/main.nf'

/** Files or folders in the order given, globs sorted by name. Given is a list, or names and globs between commas. */
def existingPaths(name, given, options) {
    if (given == null) {
        return []
    }
    encodable(name, given.toString())
    def names = given instanceof List ? given.collect { each -> each.toString() } : separated(given.toString())
    def paths = names.collectMany { each -> found(name, each, options) }
    stageable(name, paths)
    return paths
}

/** The input files, each with its sample: of --input, or of the table with the columns sample and file. */
def inputFiles(input, sheet) {
    if ((input == null) == (sheet == null)) {
        stop(2, input ? '--sample_sheet names the input files; give no --input beside it' : 'no --input; name a protein FASTA file, several separated by commas, or a glob in quotes')
    }
    if (sheet == null) {
        return existingPaths('input', input, [type: 'file']).collect { path -> [path: path, sample: null] }
    }
    def table = existingPaths('sample_sheet', sheet, [type: 'file'])[0]
    def files = sheetRows(table, sheet).collectMany { row -> found('sample_sheet', row.file, [type: 'file']).collect { path -> [path: path, sample: row.sample] } }
    stageable('sample_sheet', files.collect { each -> each.path })
    return files
}

/** The folder of --reference, which says where to look for --neighbours, in a list; [] without one. */
def referenceFolder(given, neighbours) {
    def folders = existingPaths('reference', given, [type: 'dir'])
    if (folders.size() > 1) {
        stop(2, '--reference names several folders; give one')
    }
    if (folders && !neighbours) {
        stop(2, '--reference says where to look for --neighbours; give their number too')
    }
    return folders
}

/** A model that lies here, or null. A file of a Hugging Face folder means its folder: a task elsewhere is given no more than is named. */
def modelFolder(given) {
    encodable('model', given)
    def path = literal(given)
    if (!path) {
        return null
    }
    def weights = ['model.safetensors', 'pytorch_model.bin'].collectMany { name -> [name, "${name}.index.json".toString()] }
    def chosen = weights.find { name -> path.resolveSibling(name).exists() }
    return path.resolveSibling('config.json').exists() && path.name in [chosen, 'config.json'] ? path.parent : path
}

def found(name, each, options) {
    encodable(name, each)
    def exact = literal(each)
    def paths = exact ? [exact] : matching(each.trim(), options).sort { path -> path.toString() }
    def folders = options.type == 'dir'
    if (!paths) {
        stop(66, "--${name} ${printable(each)}: ${folders ? 'no such folder; check the path' : 'no such file; check the path'}")
    }
    if (folders && paths.any { path -> !path.isDirectory() }) {
        stop(66, "--${name} ${each}: a file, not a folder; name folders of results")
    }
    def inside = folders ? paths : paths.collectMany { path -> path.isDirectory() ? filesIn(name, path) : [path] }
    def lost = (inside + (exact ? [] : besides(each, paths))).find { path -> path.scheme == 'file' && java.nio.file.Files.isSymbolicLink(path) && !path.exists() }
    if (lost) {
        stop(66, "--${name} ${printable(lost.toString())}: a link to nothing; remove it, or put back what it links to")
    }
    return inside
}

/** What stands beside the files of a glob and fits its last part too: Nextflow leaves out links to nothing. */
def besides(text, paths) {
    def fits = java.nio.file.FileSystems.default.getPathMatcher("glob:${text.trim().tokenize('/').last()}")
    def folders = paths.findAll { path -> path.scheme == 'file' }.collect { path -> path.parent }.unique()
    return folders.collectMany { folder -> folder.listFiles().toList() }
        .findAll { path -> !path.name.startsWith('.') && fits.matches(path.fileName) }
}

/** The files in a folder by name, but for hidden ones. */
def filesIn(name, folder) {
    def inside = folder.listFiles().toList()
        .findAll { path -> !path.isDirectory() && !path.name.startsWith('.') }
        .sort { path -> path.name }
    if (!inside) {
        stop(66, "--${name} ${printable(folder.toString())}: a folder without files; name files, or a glob in quotes")
    }
    return inside
}

/** Files of a glob. Folders that exist as they are written are no part of the pattern, whatever their names. */
def matching(text, options) {
    if (text.contains('://')) {
        return files(options, text).findAll { each -> each.exists() }
    }
    def path = absolute(text)
    def base = (path.nameCount - 1..0)
        .collect { count -> count > 0 ? path.root.resolve(path.subpath(0, count)) : path.root }
        .find { folder -> folder.exists() }
    def escaped = nextflow.file.FilePatternSplitter.glob().escape(base.toString())
    return files(options, "${escaped == '/' ? '' : escaped}/${base.relativize(path)}").findAll { each -> each.exists() }
}

/** In the locale POSIX, of cron and bare containers, Java reads letters other than ASCII's as U+FFFD and can write none. */
def encodable(name, text) {
    def encoding = System.getProperty('sun.jnu.encoding')
    if (text.contains('\uFFFD') || !java.nio.charset.Charset.forName(encoding).newEncoder().canEncode(text)) {
        def shown = text.replace('\uFFFD', '?')
        stop(66, "--${name} ${printable(shown)}: letters in it that the locale's encoding, ${encoding}, has not; export LC_ALL=C.UTF-8, or rename it")
    }
}

/** Nextflow leaves some characters unquoted where it links files into a task's folder: they end the run here. */
def stageable(name, paths) {
    def unfit = [
        'a line break, tab or other control character': '\\p{Cntrl}',
        'a dollar sign': '\\$',
        'braces that a shell expands': '\\{.*(,|\\.\\.).*\\}',
    ]
    paths.each { path ->
        encodable(name, path.toString())
        def what = unfit.find { _what, pattern -> path.toString() =~ pattern }?.key
        if (what) {
            stop(66, "--${name} ${printable(path.toString())}: Nextflow cannot stage a path with ${what}; rename it")
        }
    }
    def local = paths.findAll { path -> path instanceof java.nio.file.Path && path.fileSystem == java.nio.file.FileSystems.default }
    local.findAll { path -> path.exists() && !path.isDirectory() && !java.nio.file.Files.isRegularFile(path) }.each { path ->
        stop(66, "--${name} ${path}: a pipe or device, which a task that is tried again cannot read twice; write it into a file")
    }
    taken(local).each { path, other ->
        stop(66, "--${name} ${path}: the shell that links it would take ${other} for it as well; rename one of them")
    }
    seenByPods("--${name} ", local)
}

/** Where pods mount volumes that this machine has too, by Nextflow's configuration; null where tasks are no pods, or see all. */
def podVolumes() {
    def config = workflow.session.config
    if (config.process?.executor != 'k8s' || config.k8s?.autoMountHostPaths || config.fusion?.enabled) {
        return null
    }
    def selected = config.process.values().findAll { each -> each instanceof Map }.collect { each -> each.pod }
    def options = [config.k8s?.pod, config.process.pod, selected].flatten()
    def claimed = options.findAll { each -> each instanceof Map && each.mountPath && (each.volumeClaim || each.hostPath || each.csi) }
    def shared = config.k8s?.storageClaimName ? [config.k8s.storageMountPath ?: '/workspace'] : []
    return shared + claimed.collect { each -> each.mountPath }
}

/** Whether all pods would be refused: by profile k8s they run as who starts Nextflow, and must not be root's. */
def podsOfRoot() {
    def k8s = workflow.session.config.k8s
    def contexts = [k8s?.pod].flatten().findAll { each -> each instanceof Map && each.securityContext }.collect { each -> each.securityContext }
    def context = k8s?.runAsUser != null ? [runAsUser: k8s.runAsUser] : k8s?.securityContext ?: (contexts ? contexts.last() : [:])
    return podVolumes() != null && context.runAsNonRoot && context.runAsUser == 0
}

/** A pod has nothing of this machine but what its volumes hold: what lies elsewhere ends the run here. */
def seenByPods(name, paths) {
    def volumes = podVolumes()
    def unseen = volumes == null ? null : paths.find { path -> !volumes.any { volume -> path.startsWith(volume.toString()) } }
    if (unseen) {
        def advice = volumes ? "pods see ${volumes.join(', ')} and nothing else of this machine; put it there" : 'pods mount no volume; name a claim in k8s.storageClaimName'
        stop(66, "${name}${unseen}: ${advice}")
    }
}

/** The folders that Nextflow itself names in each task's wrapper, one between quotes in which a shell still expands. */
def stageableFolders() {
    stageable('work-dir', [workflow.workDir])
    if (projectDir.toString() =~ '["$`]|\\p{Cntrl}') {
        stop(66, "${printable(projectDir.toString())}: Nextflow cannot run a pipeline from a folder with this name; rename it")
    }
    seenByPods('', [file("${projectDir}", glob: false)])
    if (podsOfRoot()) {
        stop(2, 'Nextflow was started by root, and pods run as who starts it, but never as root; start it as another user')
    }
}

/** Paths with a wildcard in their names that stands for a neighbour too, and that neighbour. */
def taken(paths) {
    def wild = paths.findAll { path -> path.toString() =~ '[*?\\[]' }
        .collectMany { path -> (1..path.nameCount).collect { count -> path.root.resolve(path.subpath(0, count)) } }
        .findAll { path -> path.name =~ '[*?\\[]' }
    return wild.toSet().groupBy { path -> path.parent }.collectMany { folder, those ->
        def names = folder.toFile().list().toList().sort()
        def reversed = names.collect { name -> name.reverse() }.sort()
        those.collect { path -> [path, neighbour(path.name, names, reversed)] }
            .findAll { _path, other -> other }
            .collect { path, other -> [path, folder.resolve(other)] }
    }
}

/** Another of the sorted names that a name with wildcards could stand for; `reversed` are the names from their ends. */
def neighbour(name, names, reversed) {
    def pattern = java.util.regex.Pattern.compile(wildcards(name))
    // Of thousands of names few share the letters before the first wildcard, or those behind the last.
    def alike = [beginningWith(names, name.split('[*?\\[]', 2)[0]), beginningWith(reversed, name.reverse().split('[\\]*?]', 2)[0])]
    def candidates = alike[0].size() <= alike[1].size() ? alike[0] : alike[1].collect { each -> each.reverse() }
    return candidates.find { String each -> each != name && pattern.matcher(each).matches() }
}

def beginningWith(sorted, start) {
    def ends = [start, "${start}\uffff".toString()].collect { each -> Collections.binarySearch(sorted, each) }
        .collect { place -> place < 0 ? -place - 1 : place }
    return sorted.subList(ends[0], ends[1])
}

/** A regular expression of all that a name could stand for in a shell, and perhaps more. */
def wildcards(name) {
    def bracketed = name.replaceAll('\\[[!^]?\\]?(\\[:\\w+:\\]|[^\\]\\[])*\\]', '?')
    def simple = bracketed =~ '\\[.*\\]' ? '*' : bracketed
    return simple.replaceAll('[^*?]+') { text -> java.util.regex.Pattern.quote(text) }.replace('?', '.').replace('*', '.*')
}

/** A list for a file: paths by the names under which they are staged, prefix1, prefix2 and so on, by their own, and their samples. */
def listed(prefix, paths, samples = []) {
    def entries = paths.withIndex(1).collect { path, number ->
        def entry = [path: "${prefix}${number}".toString(), name: path.toUriString()]
        samples[number - 1] ? entry + [sample: samples[number - 1]] : entry
    }
    return groovy.json.JsonOutput.toJson(entries)
}

/** What tasks activate is looked for where they run on this machine; a scheduler's nodes may have it at their own. */
def checkEnvironment(folder) {
    def local = (workflow.session.config.process.executor ?: 'local') == 'local'
    if (!folder || !local) {
        return
    }
    def programs = absolute(folder).resolve('bin')
    if (!programs.resolve('activate').exists()) {
        stop(66, "--python_env ${printable(folder)}: no bin/activate in it; name a virtual environment")
    }
    // One without a Python of its own, that loads a site's modules for instance, is what it is.
    if (!java.nio.file.Files.exists(programs.resolve('python3'), java.nio.file.LinkOption.NOFOLLOW_LINKS)) {
        return
    }
    def activated = ['bash', '-c', 'source "$0" >/dev/null 2>&1; command -v python3', programs.resolve('activate').toString()].execute().text.trim()
    def parent = activated ? file(activated, glob: false).parent : null
    if (!parent || parent.toRealPath() != programs.toRealPath()) {
        stop(66, "--python_env ${printable(folder)}: its bin/activate leads to ${activated ?: 'no python3'}, not to one in it; make it anew, as after a move or where its Python is gone")
    }
}

/**
 * Has each task begin with what ext.before of the configuration says; where a site has a beforeScript of its own, for all
 * processes or for some, as ext.site_before it becomes a part of that.
 */
def beginTasks() {
    def settings = workflow.session.config.process
    if (settings.ext.before) {
        ([settings] + settings.values().findAll { each -> each instanceof Map && each.beforeScript }).each { scope ->
            def theirs = scope.remove('beforeScript')
            if (theirs) {
                scope.ext = (scope.ext ?: [:]) + [site_before: theirs]
            }
        }
        settings.beforeScript = settings.ext.before
    }
}

/** A folder that the run writes to, made and tried now rather than after hours of work. */
def writableFolder(name, path) {
    try {
        def folder = file(path, glob: false)
        def probe = folder.resolve('.virnucpro-writable')
        folder.mkdirs()
        probe.text = ''
        probe.delete()
        return folder
    }
    catch (IOException | IllegalArgumentException _error) {
        stop(74, "--${name} ${path} cannot be written; check its permissions or name another folder")
    }
}
