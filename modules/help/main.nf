// What --help prints, in lines of at most 80 characters: the schema's groups of parameters, and whole commands.
include { schemaGroups } from '../schema/main.nf'

def help(schema) {
    def listed = schemaGroups(schema).values().collectMany { group -> ['', group.title] + group.properties.collectMany { name, rule -> entry(name, rule) } }
    def head = ['Protein FASTA in, ESM-2 embeddings out.', "The pipeline's parameters have two dashes, Nextflow's own options one."]
    return (head + listed + [examples()]).join('\n')
}

/** A parameter's lines: its name, and beside it the description, what it may be and what it is unless given. */
def entry(name, rule) {
    def may = rule['enum'] ? [rule['enum'].join(', ')] : (rule.minimum != null ? ["from ${rule.minimum}"] : [])
    def facts = may + (rule.default == null ? [] : ["default ${rule.default}"])
    def told = folded(rule.description, 56)
    def bounds = facts ? "[${facts.join('; ')}]" : ''
    def together = "${told.last()} ${bounds}".trim()
    def lines = together.size() > 56 ? told + folded(bounds, 56) : told.dropRight(1) + [together]
    return lines.withIndex().collect { line, number -> "${(number ? '' : "  --${name}").padRight(24)}${line}".toString() }
}

def folded(text, width) {
    return text.toString().tokenize(' ').inject([]) { lines, word ->
        def longer = lines ? "${lines.last()} ${word}" : word
        longer.size() > width && lines ? lines + [word] : lines.dropRight(1) + [longer]
    }
}

def examples() {
    return '''
Examples
  On the GPUs of this machine, or else its CPU; again with -resume, the run
  goes on where it was:
    nextflow run . --input proteins.fasta --python_env .venv
  On two of its GPUs, with a larger model, its last layer and the 30th:
    nextflow run . --input proteins.fasta --python_env .venv --gpus 2 \\
        --model esm2_t36_3B_UR50D --layers=-1,30 --outdir results-3B
  On a cluster with Slurm, in containers of Apptainer:
    nextflow run . -profile slurm,apptainer --input 'proteins/*.fasta.gz' \\
        --queue cpu --gpu_queue gpu --outdir results-slurm

docs/usage.md says more of each.'''
}
