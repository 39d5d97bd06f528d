"""docs/parity.md from the result files of bench_parity.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.pages.long_sections import self_check_costs
from benchmarks.pages.result_tables import (
    ABSENT,
    Goal,
    Row,
    conditions_line,
    constant,
    cut,
    data_line,
    distinct,
    files,
    number,
    percent,
    read_rows,
    show,
    table,
)

from virnucpro.model.registry import MODELS
from virnucpro.parity_bounds import PARITY_BOUNDS, ROUNDING_BOUNDS

#: Precision -> least pooled cosine, and greatest relative L2 of a residue's states.
BOUNDS: dict[str, tuple[Goal, Goal | None]] = {
    name: (
        Goal("cosine", bound.pooled_cosine, f".{len(str(bound.pooled_cosine)) - 2}f"),
        None if bound.residue_l2 is None else Goal("relative L2", bound.residue_l2, ".0e", most=True),
    )
    for name, bound in PARITY_BOUNDS.items()
}


def bounded(goal: Goal | None, value: float | None, shown: str) -> str:
    """A figure with its bound and whether it keeps it."""
    if goal is None or value is None:
        return shown
    _, bound, figure, verdict = goal.row(value, shown)
    return f"{figure} ({bound}: {verdict})"


def parity_line(row: Row) -> list[str]:
    cosine, worst = number(row, "pooled_cosine_min"), number(row, "residue_relative_l2_max")
    cosine_goal, worst_goal = BOUNDS.get(row["precision"].split()[0], (None, None))
    return [
        row["precision"],
        bounded(cosine_goal, cosine, cut(cosine)),
        bounded(worst_goal, worst, show(worst, ".1e")),
        show(number(row, "residue_relative_l2_median"), ".1e"),
        cut(number(row, "alone_cosine_min")),
        show(number(row, "alone_relative_l2_max"), ".1e"),
    ]


def tables(results: Path) -> Iterator[str]:
    paths = files(results, "parity-*.csv")
    if not paths:
        yield "Not measured."
    for path in paths:
        rows = read_rows(path)
        spread = " and ".join(f"{float(value):.2f}" for value in distinct(rows, "logit_deviation"))
        yield f"## {rows[0]['model']}, {rows[0]['weights']} weights"
        heads = ["precision", "least pooled cosine", "greatest residue L2", "median", "alone: cosine", "alone: L2"]
        yield table(heads, [parity_line(row) for row in rows])
        missing = [precision for precision in BOUNDS if precision not in distinct(rows, "precision")]
        yield (
            f"Standard deviation of the first layer's attention logits: {spread}; "
            f"{' and '.join(distinct(rows, 'sequences'))} proteins. "
            + conditions_line(rows, path)
            + (f" Not measured: {', '.join(missing)}." if missing else "")
        )


def named(row: Row) -> str:
    """The projections that were rounded, as the page calls them."""
    return row["products"].replace("_proj", "").replace(" ", ", ")


def eight_bits(results: Path) -> Iterator[str]:
    """What rounding operands to 8 bits does in fp32, by format and by the products that it is done to."""
    yield "## What 8 bits cost"
    yield (
        "`benchmarks/measurements/bench_eight_bits.py` takes fair-esm in fp32 and rounds the operands of chosen "
        "products to 8 bits, "
        "row by row, each scaled by its greatest magnitude; nothing else is changed, so that no kernel has a part in "
        "these figures. e4m3 has three bits behind the leading one; int8 has 255 even steps, finer where the numbers "
        "of a row are alike and coarser where few channels are far larger than the rest; *rotated*, inputs and weights "
        "are first turned by an orthogonal matrix, which leaves no such channel. *Share* is that of the layer's linear "
        "operations."
    )
    paths = files(results, "eight-bits-*.csv")
    if not paths:
        yield "Not measured."
    bound = BOUNDS["fp8"][0].bound
    for path in paths:
        rows = read_rows(path)
        yield f"### {rows[0]['model']}, {rows[0]['weights']} weights"
        formats = distinct(rows, "format")
        by_choice: dict[str, dict[str, Row]] = {}
        for row in rows:
            by_choice.setdefault(row["products"], {})[row["format"]] = row
        lines = []
        for measured in by_choice.values():
            share = number(next(iter(measured.values())), "share_of_products")
            cosines = [number(measured[name], "pooled_cosine_min") if name in measured else None for name in formats]
            lines.append([named(next(iter(measured.values()))), percent(share), *map(cut, cosines)])
        yield table(["products in 8 bits", "share", *(f"{name}: least pooled cosine" for name in formats)], lines)
        reaching = [row for row in rows if (number(row, "pooled_cosine_min") or 0) >= bound]
        yield (
            (
                f"At {bound} or more: " + "; ".join(f"{row['format']} in {named(row)}" for row in reaching) + ". "
                if reaching
                else f"None reaches {bound}. "
            )
            + f"{' and '.join(distinct(rows, 'sequences'))} proteins. "
            + conditions_line(rows, path)
        )


def weights_text(results: Path) -> str:
    """What trained and random weights can and cannot show, and which official ones were measured."""
    rows = [row for path in files(results, "parity-*.csv") for row in read_rows(path)]
    trained = distinct([row for row in rows if row["weights"] == "trained"], "model")
    official = [name for name in trained if Path(name).stem in MODELS]
    return (
        "Trained weights "
        + (f"(here {', '.join(trained)}) " if trained else "(none measured here) ")
        + "have what training makes: attention that is sharp in some heads and flat in others, and channels far larger "
        "than the rest. The small encoder of the demo is an 8M model that others "
        "fine-tuned for their own task: it shows this for its few layers and its head dimension, and not how errors "
        "add up over the layers of a large model, nor the figures of the official weights. Random weights show the "
        "large models' depth, widths and kernels. As they come, their attention is nearly uniform, and a wrong rotary "
        "angle or a wrong mask would hardly show; so queries and keys are scaled until the first layer's logits have "
        f"a standard deviation of {constant('benchmarks/inputs.py', 'SHARP_LOGITS'):g}, where a fault is seen and the "
        "network is not yet chaotic. They have no outlying channels, so their figures tell that the computation is "
        "right; they do not foretell the error with the official weights. "
        + (
            f"Official weights measured: {', '.join(official)}."
            if official
            else "No official weights were at hand for the figures above; `--checkpoint` measures them."
        )
    )


def keeps_low_parts(head_dim: int, limit: int) -> bool:
    """As ParameterBuilder decides, which needs torch to ask."""
    return head_dim <= limit and head_dim.bit_count() == 1


def low_parts_text() -> str:
    """Which models keep low parts, from the code that decides it."""
    limit = constant("bin/virnucpro/model/parameters.py", "LOW_QUERIES_HEAD_DIM")
    stream = constant("bin/virnucpro/model/parameters.py", "LOW_STREAM_HEAD_DIM")
    assert isinstance(limit, int)
    kept = {name: config for name, config in MODELS.items() if keeps_low_parts(config.head_dim, limit)}
    names: Sequence[str] = [f"`{name}` ({config.head_dim})" for name, config in kept.items()]
    return (
        f"Models whose head dimension is a power of two up to {limit} keep, in the fused form of their layers in fp16 "
        "and bf16 (docs/performance.md; *unfused* above is the other form, which has none), what rounding took from "
        f"queries and keys and add it to the logits: {', '.join(names)}. Rounding the two is the largest error of a "
        "small model: a logit is a sum over few dimensions, and an error in it moves the whole row of the softmax. "
        "Over so few dimensions the matrix units are idle in attention, so that the two further products cost little "
        "(`LOW_QUERIES_HEAD_DIM` in `bin/virnucpro/model/parameters.py`). "
        f"Up to a head dimension of {stream} the residual stream keeps its low part too, which the products after it "
        "count, and in bf16 the weights keep theirs (`LOW_STREAM_HEAD_DIM`): what is then left is the rounding of "
        "values, softmax weights and activations."
    )


def self_check_text(results: Path) -> list[str]:
    """What the figures of a run mean, with the limits that the code holds them to."""
    source = "bin/virnucpro/pipeline/self_check.py"
    most, batch = constant(source, "MOST_TOKENS"), constant(source, "MOST_BATCH_TOKENS")
    rounding = ", ".join(
        f"{name}: {bound.pooled_cosine} and {bound.residue_l2:g}" for name, bound in ROUNDING_BOUNDS.items()
    )
    return [
        "Most cards could never be tried here, so each task measures on its own device what the tables above hold: "
        "`greatest_residue_l2` and `least_pooled_cosine`, by the same measures, of the last layer's states and their "
        "means, whatever layers and poolings are kept. Before anything is written, the longest, the middle and the "
        "shortest sequence of the shard go through the model packed, in batches whose longest sequence is each of "
        "them, and on a GPU once as a batch of many copies. Each also goes alone, in fp32, through a twin of the same "
        "weights that has nothing else in common with the model: PyTorch's own operations, one layer on the device at "
        "a time, so that a model of any size finds room beside itself. Pooling of all layers kept is compared with "
        "PyTorch's of the same states. Which sequences are taken is told by the shard alone. Long ones are cut to "
        "what the twin computes in about a second on two cores with 8M: "
        f"{most:,} tokens together at most, and {batch:,} with the copies. `python -m "
        "benchmarks.measurements.bench_self_check FASTA CHECKPOINT` measures what that costs a task, and its time "
        "from its start to its first finished batch beside that of a process that starts PyTorch and has one tensor on "
        "the device:",
        *self_check_costs(results),
        "`self_check` says what came of it. `met`: the bounds above are kept. `plain`: they were not, the task said so "
        "in a line and went on by PyTorch's operations alone, measured anew and then within them. `missed`: PyTorch's "
        "operations in this precision are beyond the bounds as well, by no more than rounding explains "
        f"({rounding}), which the task says in a line; it goes on with its kernels where these are no more than half "
        "as far again from fp32, else without. fp8 misses its bound with every model, and is held to the latter. "
        "`unmeasured`: every vector of the sample overflows in 16 bits; such sequences are computed again in fp32, "
        "without kernels of ours. `off`: `--self_check false`. Where PyTorch's operations are farther off than "
        "rounding explains, the task writes nothing, ends with 75 and is tried again. Of several shards the worst "
        "figure counts; in the metadata of files it is null where a part was not checked.",
        "The check sees wrong kernels, a wrong compiler and a faulty device. It does not see what goes wrong in "
        "larger batches or longer sequences only, a device that fails later, or inner layers by themselves.",
    ]


def parity_page(results: Path) -> str:
    """The whole page."""
    rows = [row for path in files(results, "parity-*.csv") for row in read_rows(path)]
    data = data_line(rows)
    blocks = [
        "# Parity",
        "Written by `make docs` from the files in `benchmarks/results/`; do not edit. To measure anew:",
        "    python -m benchmarks.peers.bench_parity FASTA --size 650M              # random weights of that size\n"
        "    python -m benchmarks.peers.bench_parity FASTA --checkpoint CHECKPOINT  # fair-esm's .pt or a Hugging "
        "Face folder",
        "The reference is fair-esm in fp32, TF32 off, on the same GPU, each protein alone. Ours runs the same proteins "
        "packed, in shuffled order, among them fragments of a few residues. *Least pooled cosine* is the worst "
        "protein's, between mean-pooled vectors; digits are cut off, not rounded. *Greatest residue L2* is the worst "
        "residue's |ours - reference| / |reference| in the last layer's states. *Alone* compares ours with ours: "
        "some of the proteins in batches of their own against the same ones among others, that is, how far a vector "
        "depends on its batch. *Plain* after a precision is PyTorch's own operations in it, with no kernel of "
        "ours: what they are off by is the precision's rounding. *Unfused* is the form of the layers that cards other "
        "than Hopper run, and Hopper where it is the faster one (docs/performance.md)."
        + (f" Data: {data}." if data else ""),
        table(
            ["precision", "least pooled cosine", "greatest residue L2"],
            [
                [
                    name,
                    f"≥ {show(cosine.bound, cosine.pattern)}",
                    f"≤ {show(worst.bound, worst.pattern)}" if worst else ABSENT,
                ]
                for name, (cosine, worst) in BOUNDS.items()
            ],
        ),
        *tables(results),
        *eight_bits(results),
        "## Every run checks itself",
        *self_check_text(results),
        "## What the figures can and cannot show",
        weights_text(results),
        "## Why small models keep low parts",
        low_parts_text(),
    ]
    return "\n\n".join(blocks) + "\n"
