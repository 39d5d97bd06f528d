/** As a function, which -resume does not compare: another Nextflow draws no page anew. */
def engineVersion() {
    return workflow.nextflow.version.toString()
}

process REPORT {
    tag "parts: ${[parts].flatten().size()}"

    input:
    path(parts, stageAs: 'results/embeddings/*')
    path(metrics, stageAs: 'results/metrics/*')
    path(manifest, stageAs: 'results/*')
    path(neighbours, stageAs: 'results/*')
    path(reference, stageAs: 'reference')
    val code

    output:
    path 'multiqc_report.html'

    script:
    """
    report.py --results results --outdir . --nextflow-version ${engineVersion()} ${reference ? '--reference reference' : ''}
    """

    stub:
    """
    touch multiqc_report.html
    """
}
