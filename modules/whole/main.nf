// Whether results are what their tasks made: before they take their places, and as copies.

def isLocal(path) {
    return path.fileSystem == java.nio.file.FileSystems.default
}

/** Names of the files that a list of digests names. */
def listedIn(digests) {
    return digests.readLines().findAll { line -> line ==~ /[0-9a-f]{32} {2}\S+/ }.collect { line -> line.drop(34) }
}

/** Where a file that a task made has its place. */
def placeOf(file) {
    def text = file.toString()
    return (file.name == 'multiqc_report.html' ? "report/${file.name}" : text.substring(text.lastIndexOf('/results/') + '/results/'.size())).toString()
}

/**
 * What is not as its task left it, in words: a file that the list of digests names is not there, or one was changed since.
 * Nextflow takes what an earlier run's task made for whole as long as each file is there that the task declares by its
 * name. One of these goes then, so that -resume makes all anew.
 */
def spoiled(files, tasks) {
    def digests = files['digests.xxh128']
    def name = digests ? listedIn(digests).find { each -> !files.containsKey(each) } : 'digests.xxh128'
    name = name ?: files.find { _name, source -> !source.exists() || (taskOf(source) in tasks && changedSince(source)) }?.key
    if (name) {
        def declared = files[name] && taskOf(files[name]) != taskOf(digests) ? files[name] : digests
        java.nio.file.Files.deleteIfExists(declared ?: files['manifest.parquet'])
    }
    return name ? "${name} was changed or deleted after its task had made it; run again with -resume, which makes it anew" : null
}

/** The folder of the task that made a result. */
def taskOf(file) {
    def text = file.toString()
    return file.name == 'multiqc_report.html' ? file.parent : file.resolveSibling(text.substring(0, text.lastIndexOf('/results/')))
}

/** Whether a file is younger than the end of its task; elsewhere than on a disk nobody can tell. */
def changedSince(file) {
    def ended = taskOf(file).resolve('.exitcode')
    return isLocal(file) && ended.exists() && file.lastModified() > ended.lastModified()
}

def tasksOf(files) {
    return files.values().collect { file -> taskOf(file) }.unique()
}

/** Of the tasks that made the results, those of an earlier run, whose files may be anything by now. */
def earlierTasks(files) {
    def begun = workflow.start.toInstant().toEpochMilli()
    return tasksOf(files).findAll { task -> isLocal(task) && task.resolve('.exitcode').lastModified() < begun }
}

/** The first file that did not arrive as its task made it, by its name, or null; those that did are on the disk. */
def notWhole(files, waiting) {
    return files.find { name, source ->
        def copy = waiting.resolve(name)
        if (!copy.exists() || copy.size() != source.size()) {
            return true
        }
        synced(copy)
        return isLocal(copy) && isLocal(source) && java.nio.file.Files.mismatch(source, copy) >= 0
    }?.key
}

def synced(path) {
    if (isLocal(path)) {
        def channel = java.nio.channels.FileChannel.open(path, java.nio.file.StandardOpenOption.READ)
        channel.force(true)
        channel.close()
    }
}
