// What processes say to each other in JSON, with the fields of bin/virnucpro/output/contracts.py.
// It includes nothing: parser v2 of Nextflow 25.04 loads what two files include twice, with its own includes.

/** The content of a file. Asked for a field that is not there it ends the run, where a map would say null. */
def readRecord(path) {
    return checkedWhenAsked(new groovy.json.JsonSlurper().parseText(path.text), path.name)
}

def checkedWhenAsked(value, name) {
    if (value instanceof List) {
        return value.collect { each -> checkedWhenAsked(each, name) }
    }
    if (!(value instanceof Map)) {
        return value
    }
    def fields = value.collectEntries { field, each -> [field, checkedWhenAsked(each, name)] }
    return fields.withDefault { field -> missing(name, field) }
}

def missing(name, field) {
    nextflow.Nextflow.exit(65, "virnucpro-embed: error: ${name}: ${field} is missing; run again without -resume".toString())
}
