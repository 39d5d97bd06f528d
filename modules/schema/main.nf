// What nextflow_schema.json says of the parameters. Nothing is included here: `nextflow inspect` of 25.04 with parser v2
// refuses a module that includes others and is included by several itself.

/** The groups of parameters by their names. */
def schemaGroups(schema) {
    return new groovy.json.JsonSlurper().parseText(schema.text)['$defs']
}

/** The rules of all parameters by their names. */
def schemaProperties(schema) {
    return schemaGroups(schema).values().collectMany { group -> group.properties.entrySet().toList() }.collectEntries { entry -> [entry.key, entry.value] }
}
