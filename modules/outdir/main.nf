// Whose an output folder is, and how results come into it: whole, and what says so last.
include { stop } from '../words/main.nf'
include { earlierTasks ; isLocal ; listedIn ; notWhole ; placeOf ; spoiled ; synced ; tasksOf } from '../whole/main.nf'

/** All that results consist of, in the order in which they take their places: what claims that they are whole is last. */
def placeNames() {
    return ['embeddings', 'residues', 'neighbours.parquet', 'report', 'manifest.parquet', 'rejected.tsv', 'ro-crate-metadata.json', 'metrics', 'digests.xxh128']
}

/** The files that claim success. */
def claimNames() {
    return ['metrics/run_summary.json', 'digests.xxh128']
}

/** What runs keep for themselves: who holds the folder, whose the results are, and those that are not whole yet. */
def ownFolder(outdir) {
    return outdir.resolve('.virnucpro')
}

/**
 * Takes the folder for this run until its results are published or it ends, or ends it at once where the folder cannot be
 * had. On one machine a lock of the system tells, which ends with its process; between machines a file that only one can
 * make, as not every shared file system hands locks on; in a bucket a file that two can make in the same second.
 */
def claimed(outdir, overwrite) {
    def held = [outdir: outdir, note: ownFolder(outdir).resolve('holder.json')]
    def refused = null
    try {
        ownFolder(outdir).mkdirs()
        held.guard = isLocal(outdir) ? guardOf(ownFolder(outdir)) : null
        refused = heldNow(held) ?: heldBefore(held) ?: unfit(outdir, overwrite) ?: taken(held)
    }
    catch (IOException error) {
        stop(74, "--outdir ${outdir}: cannot be taken for this run (${error}); check its permissions and free space")
    }
    if (refused) {
        stop(2, "--outdir ${outdir}: ${refused}")
    }
    return held
}

/** Makes the folder this run's; or who was faster, in words. */
def taken(held) {
    java.nio.file.Files.deleteIfExists(held.note)
    if (!made(held.note)) {
        return "held by another run, ${told(noted(held.note))}; wait for its end, or name another --outdir"
    }
    Runtime.runtime.addShutdownHook(new Thread({ -> held.publishing ?: released(held) }))
    cleared(held.outdir)
    return null
}

/** The lock of the system; locked is null where the file system has none. Closing any channel on this file ends it. */
def guardOf(own) {
    def write = java.nio.file.StandardOpenOption.WRITE
    def channel = java.nio.channels.FileChannel.open(own.resolve('lock'), java.nio.file.StandardOpenOption.CREATE, write)
    try {
        return [channel: channel, locked: channel.tryLock() != null]
    }
    catch (IOException _error) {
        return [channel: channel, locked: null]
    }
}

def heldNow(held) {
    return held.guard?.locked == false ? "held by another run, ${told(noted(held.note))}; wait for its end, or name another --outdir" : null
}

/** A holder that left its file: gone, if it was here and the lock is free; elsewhere nobody can tell from here. */
def heldBefore(held) {
    def holder = noted(held.note)
    def here = holder && held.guard && holder.host == hostName()
    def alive = here && held.guard.locked == null && ProcessHandle.of(holder.process as long).isPresent()
    if (!holder || (here && !alive)) {
        return null
    }
    return "held by another run, ${told(holder)}; wait for its end, or if it is gone remove ${held.note}"
}

/** Results of another run, and files of no run where results are to stand: neither is replaced unasked. */
def unfit(outdir, overwrite) {
    def ours = listedFiles(outdir)
    def foreign = foreignFile(outdir, ours)
    if (foreign) {
        return "${foreign} is of no run that is known here, and stands where results come; move it, or name another --outdir"
    }
    def another = noted(ownFolder(outdir).resolve('published.json')).session != workflow.sessionId.toString()
    def older = another && !overwrite ? ours.find { name -> outdir.resolve(name).exists() } : null
    return older ? "holds results of another run (${older}); name another --outdir, or replace them with --overwrite" : null
}

/** Names of the files of the run whose results are here, by its own lists. */
def listedFiles(outdir) {
    def noted = noted(ownFolder(outdir).resolve('published.json')).files ?: []
    def digests = outdir.resolve('digests.xxh128')
    def listed = digests.exists() ? listedIn(digests) : []
    // The digests say that the folder is a run's: then its page and neighbours are, which they do not list.
    def beside = listed ? ['digests.xxh128', 'report/multiqc_report.html', 'neighbours.parquet'] : []
    return (noted + listed + beside).findAll { name -> name.tokenize('/')[0] in placeNames() && !('..' in name.tokenize('/')) } as LinkedHashSet
}

/** A file where results come that no list names; null where there is none. */
def foreignFile(outdir, ours) {
    return placeNames().collectMany { place -> filesUnder(outdir, place) }.find { name -> !(name in ours) }
}

/** Names of the files of a place, as seen from `folder`; a link is a file. */
def filesUnder(folder, place) {
    def path = folder.resolve(place)
    if (!path.exists() && !java.nio.file.Files.isSymbolicLink(path)) {
        return []
    }
    if (java.nio.file.Files.isSymbolicLink(path) || !path.isDirectory()) {
        return [place]
    }
    return path.listFiles().collectMany { each -> filesUnder(folder, "${place}/${each.name}".toString()) }.sort()
}

def noted(path) {
    try {
        def found = path.exists() ? new groovy.json.JsonSlurper().parseText(path.text) : [:]
        return found instanceof Map ? found : [:]
    }
    catch (IOException | groovy.json.JsonException | IllegalArgumentException _error) {
        return [unreadable: true]
    }
}

def told(holder) {
    return holder.host ? "${holder.run} of ${holder.user} on ${holder.host} (process ${holder.process}, since ${holder.since})" : 'which has not said its name'
}

/** Whether the file that names the holder is made by this run; another may have made it since. */
def made(note) {
    def holder = [
        run: workflow.runName,
        session: workflow.sessionId.toString(),
        user: System.getProperty('user.name'),
        host: hostName(),
        process: ProcessHandle.current().pid(),
        since: workflow.start.toString().replaceAll('\\.\\d+', ''),
    ]
    try {
        java.nio.file.Files.write(note, groovy.json.JsonOutput.toJson(holder).bytes, java.nio.file.StandardOpenOption.CREATE_NEW)
        return true
    }
    catch (java.nio.file.FileAlreadyExistsException _error) {
        return false
    }
    catch (IOException error) {
        java.nio.file.Files.deleteIfExists(note)
        throw error
    }
}

def hostName() {
    try {
        return InetAddress.localHost.hostName
    }
    catch (UnknownHostException _error) {
        return 'an unknown host'
    }
}

/** What a run that was killed left of its publishing. */
def cleared(outdir) {
    ownFolder(outdir).resolve('unfinished').deleteDir()
    removeListed(ownFolder(outdir).resolve('replaced'), listedFiles(outdir))
}

def released(held) {
    try {
        if (!held.over) {
            held.over = true
            java.nio.file.Files.deleteIfExists(held.note)
            held.guard?.channel?.close()
        }
    }
    catch (IOException _error) {
        // The next run finds the lock free, and says of a file that it cannot judge how to be rid of it.
        held.guard?.channel?.close()
    }
}

/**
 * Ends the claim, and gives the results of a run that succeeded their places; returns what kept it from that, or null.
 * Until all of them are seen whole, what stood there before stays as it is.
 */
def published(held, results) {
    held?.publishing = true
    def fault = held ? (workflow.success ? placed(held.outdir, results) : notPublished(held.outdir)) : null
    if (held) {
        ownFolder(held.outdir).resolve('unfinished').deleteDir()
        released(held)
    }
    return fault
}

def placed(outdir, results) {
    def waiting = ownFolder(outdir).resolve('unfinished')
    try {
        def files = results.collectEntries { file -> [placeOf(file), file] }
        def before = listedFiles(outdir)
        def foreign = foreignFile(outdir, before)
        def site = ofSite(files, waiting)
        if (site || foreign) {
            return site ?: unpublished(outdir, "${foreign} is of no run")
        }
        def spoiledBefore = spoiled(files, earlierTasks(files))
        def partial = spoiledBefore ? null : notWhole(files, waiting)
        if (spoiledBefore || partial) {
            return spoiledBefore ?: spoiled(files, tasksOf(files)) ?: unpublished(outdir, "${partial} was not published whole")
        }
        def note = [session: workflow.sessionId.toString(), run: workflow.runName]
        def published = ownFolder(outdir).resolve('published.json')
        published.text = groovy.json.JsonOutput.toJson(note + [files: before + files.keySet()])
        isLocal(outdir) ? foldersTakePlace(outdir, waiting, before) : filesTakePlace(outdir, waiting, before, files.keySet())
        published.text = groovy.json.JsonOutput.toJson(note + [files: files.keySet().sort()])
        return null
    }
    catch (IOException error) {
        return unpublished(outdir, error.toString())
    }
}

/** What a site's own settings kept from being made or published, of which Nextflow itself says nothing; or null. */
def ofSite(files, waiting) {
    def unmade = !files.containsKey('manifest.parquet')
    def kept = unmade || !files.keySet().any { name -> waiting.resolve(name).exists() }
    def what = unmade ? 'a failed task was passed over, as errorStrategy' : 'no file was published, as publishDir'
    return kept ? "${what} of a configuration of yours has it; take that out, and run again with -resume" : null
}

def unpublished(outdir, why) {
    return "${why}, in ${outdir}; check its free space and permissions, and run again with -resume"
}

/** What kept Nextflow from publishing a file, where that ended the run. */
def notPublished(outdir) {
    def waiting = "${ownFolder(outdir).resolve('unfinished')}/"
    def said = (workflow.errorMessage ?: workflow.errorReport ?: '').readLines().find { line -> line.contains(waiting) }
    return said ? unpublished(outdir, said.substring(said.lastIndexOf(waiting) + waiting.size())) : null
}

/** One rename a folder; what stood there is out of the way before, and gone after. */
def foldersTakePlace(outdir, waiting, before) {
    def replaced = ownFolder(outdir).resolve('replaced')
    replaced.mkdirs()
    placeNames().reverse().findAll { name -> outdir.resolve(name).exists() }.each { name ->
        java.nio.file.Files.move(outdir.resolve(name), replaced.resolve(name))
    }
    placeNames().findAll { name -> waiting.resolve(name).exists() }.each { name ->
        java.nio.file.Files.move(waiting.resolve(name), outdir.resolve(name))
    }
    synced(outdir)
    removeListed(replaced, before)
}

/** A bucket has no folders to rename: file by file, after the claims of what is replaced are gone and before the new ones. */
def filesTakePlace(outdir, waiting, before, names) {
    claimNames().each { name -> java.nio.file.Files.deleteIfExists(outdir.resolve(name)) }
    before.findAll { name -> !(name in names) }.each { name -> java.nio.file.Files.deleteIfExists(outdir.resolve(name)) }
    (names.findAll { name -> !(name in claimNames()) } + claimNames()).findAll { name -> waiting.resolve(name).exists() }.each { name ->
        java.nio.file.Files.move(waiting.resolve(name), outdir.resolve(name), java.nio.file.StandardCopyOption.REPLACE_EXISTING)
    }
}

/** Removes the files that are named, and the folders that are empty then; all else stays. */
def removeListed(folder, names) {
    names.each { name -> java.nio.file.Files.deleteIfExists(folder.resolve(name)) }
    removeEmpty(folder)
}

def removeEmpty(folder) {
    if (folder.isDirectory()) {
        folder.listFiles().each { each -> removeEmpty(each) }
        if (!folder.listFiles()) {
            java.nio.file.Files.delete(folder)
        }
    }
}
