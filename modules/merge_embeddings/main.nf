include { ofRun } from '../provenance/main.nf'

process MERGE_EMBEDDINGS {
    tag "shards: ${[shards].flatten().size()}"

    input:
    path shards
    path manifest
    path rejected
    path summary
    path model_json
    path(reuse, stageAs: 'reuse?')
    path reuse_list
    val options
    val code

    output:
    path('results/**', emit: files)
    path('results/embeddings/part-*.parquet', optional: true, emit: parts)
    path('results/metrics/*', emit: metrics)
    path('results/manifest.parquet', emit: manifest)
    path('results/digests.xxh128', emit: digests)

    script:
    """
    merge_embeddings.py --manifest ${manifest} --rejected ${rejected} --split-summary ${summary} \\
        --model-json ${model_json} --outdir results ${options} ${ofRun()} \\
        --shards-in . --reuse-from ${reuse_list}
    """

    stub:
    """
    mkdir -p results/embeddings results/metrics
    touch results/embeddings/part-00000.parquet results/manifest.parquet results/rejected.tsv results/digests.xxh128
    printf '{"records": 2, "rejected": 0, "truncated": 0, "beyond_trained_length": 0, "unknown_residues": 0, "gaps_removed": 0,
        "comment_lines": 0, "stopped_frames": 0, "reuse": [], "verdict": []}' > results/metrics/run_summary.json
    """
}
