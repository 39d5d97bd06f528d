// What Nextflow's trace file tells of a run's tasks, as it writes it for people: '8.5s', '2026-11-25 19:21:52.721'.
// It includes no other module: parser v2 of Nextflow 25.04 cannot include a module that does in more than one place.

/** The trace that Nextflow writes of this run, which -with-trace or a site's own file may put elsewhere; null without one. */
def traceFile() {
    def trace = workflow.session.config.trace
    return trace?.enabled && trace.file ? file(trace.file.toString(), glob: false) : null
}

/** One map a task, by the names in the first line. */
def taskRows(trace) {
    def lines = trace?.exists() ? trace.readLines().collect { line -> line.split('\t', -1).toList() } : []
    return lines.drop(1).collect { cells -> [lines[0], cells].transpose().collectEntries { name, cell -> [name, cell] } }
}

/** 'Of the run's 31 s: DESCRIBE_MODEL 7, …, Nextflow 7.' A moment is that of the process furthest on that is at work. */
def stepsOf(trace, started, completed) {
    def tasks = taskRows(trace).findAll { row -> row.status in ['COMPLETED', 'FAILED'] }.collect { row -> span(row) }.findAll()
    def order = tasks.sort { task -> task.begin }.collect { task -> task.process }.unique()
    def total = java.time.Duration.between(started, completed).toMillis()
    if (!order || total <= 0) {
        return []
    }
    def milliseconds = order.collectEntries { process -> [process, 0] }
    def running = order.collectEntries { process -> [process, 0] }
    def events = tasks.collectMany { task -> [[task.begin, task.process, 1], [task.end, task.process, -1]] }.sort { event -> event[0] }
    events.eachWithIndex { event, index ->
        def last = order.reverse().find { process -> running[process] > 0 }
        if (last) {
            milliseconds[last] += event[0] - events[index - 1][0]
        }
        running[event[1]] += event[2]
    }
    def own = [Nextflow: Math.max(total - milliseconds.values().sum(), 0)]
    def told = (milliseconds + own).collect { name, time -> "${name} ${seconds(time)}" }
    return ["Of the run's ${seconds(total)} s: ${told.join(', ')}."]
}

def seconds(milliseconds) {
    return String.format(Locale.ROOT, milliseconds < 9950 ? '%.1f' : '%,.0f', milliseconds / 1000d)
}

/** Process and milliseconds of a task; null where the site's own settings leave the columns out. */
def span(row) {
    if (!row.name || !(row.submit ==~ /\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+/) || !row.duration) {
        return null
    }
    def begin = java.sql.Timestamp.valueOf(row.submit).time
    return [process: row.name.tokenize(' ')[0], begin: begin, end: begin + nextflow.util.Duration.of(row.duration).toMillis()]
}
