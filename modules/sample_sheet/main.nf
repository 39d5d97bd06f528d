// The table of --sample_sheet, read before any task is: it names the files that are to be staged.
include { stop } from '../words/main.nf'

/** Its rows, each a map of sample and file, which are not empty; `given` is what the user calls the table. */
def sheetRows(table, given) {
    def remedy = 'give a table with the columns sample and file, commas, semicolons or tabs between its cells'
    def lines = utf8(table)?.readLines()
    if (lines == null) {
        stop(65, "--sample_sheet ${given}: not a sample sheet in UTF-8; ${remedy}, saved as plain text in UTF-8")
    }
    if (lines.any { line -> line.count('"') % 2 }) {
        stop(65, "--sample_sheet ${given}: a line that ends within quotes; ${remedy}")
    }
    def cells = cellsOf(table, lines)
    // Excel writes a byte order mark before the first name.
    def columns = cells.take(1).flatten().collect { name -> "${name ?: ''}".replace('\uFEFF', '').toString() }
    def missing = ['sample', 'file'].findAll { name -> cells && !(name in columns) }
    if (missing) {
        stop(65, "--sample_sheet ${given}: no column ${missing.join(' and no column ')} in its first line; ${remedy}")
    }
    if (cells.any { row -> row.drop(columns.size()).any() }) {
        stop(65, "--sample_sheet ${given}: a row with more cells than the header; put quotes around a name with commas in it")
    }
    def rows = cells.drop(1).collect { row -> ['sample', 'file'].collectEntries { name -> [name, row[columns.indexOf(name)]] } }
    if (!rows || rows.any { row -> !row.sample || !row.file }) {
        stop(65, "--sample_sheet ${given}: a row without sample or file, or no row; ${remedy}")
    }
    return rows
}

/**
 * The rows of a table that are not blank, its header among them; none of one that Nextflow cannot read. Not by
 * Nextflow's own headers, which may neither be empty nor occur twice.
 */
def cellsOf(table, lines) {
    def first = lines.find { line -> line.trim() } ?: ''
    def between = ['\t', ',', ';'].find { each -> first.contains(each) } ?: ','
    try {
        return first ? table.splitCsv(strip: true, quote: '"', sep: between).collect { row -> row.toList() } : []
    }
    catch (IllegalStateException _error) {
        return []
    }
}

/** A file's text, or null where it is none in UTF-8. */
def utf8(file) {
    try {
        return java.nio.charset.StandardCharsets.UTF_8.newDecoder().decode(java.nio.ByteBuffer.wrap(file.bytes)).toString()
    }
    catch (java.nio.charset.CharacterCodingException _error) {
        return null
    }
}
