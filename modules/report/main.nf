process REPORT {
    tag "parts: ${[parts].flatten().size()}"

    input:
    path parts, stageAs: 'results/embeddings/*'
    path metrics, stageAs: 'results/metrics/*'
    path manifest, stageAs: 'results/*'
    val code

    output:
    path 'multiqc_report.html'

    script:
    """
    report.py --results results --outdir .
    """

    stub:
    """
    touch multiqc_report.html
    """
}
