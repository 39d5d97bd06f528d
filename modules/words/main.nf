// Words that others read: the one that ends a run, a shell's, and names that a log or Nextflow shows.
// Short, as it is compiled anew for each file that includes it; and including nothing, as parser v2 of Nextflow 25.04
// cannot include a module that does in more than one place.

/** Ends the run. By itself Nextflow has one more line to say after the message, which is to be the last. */
def stop(exitCode, message) {
    def text = "virnucpro-embed: error: ${message}".toString()
    log.debug(text)
    def last = {
        System.out.println(text)
        System.out.flush()
    }
    Runtime.runtime.addShutdownHook(new Thread(last))
    nextflow.Nextflow.exit(exitCode as int)
}

/** Words of a command for bash, whatever they hold. Every value of a user that a script block uses comes through here. */
def shellWords(words) {
    return words.collect { word -> word.toString() }
        .collect { word -> word ==~ '[\\w@%+=:,./-]+' ? word : "'${word.replace("'", "'\\''")}'" }
        .join(' ')
}

/** A name as Nextflow may show it: it also names the job, in a line that sbatch reads as a shell would. */
def shown(name) {
    return name.replaceAll('[^\\p{L}\\p{N} ._+-]', '_')
}

def printable(text) {
    return text.replaceAll('\\p{Cntrl}') { control -> String.format('\\x%02x', (control as char) as int) }
}
