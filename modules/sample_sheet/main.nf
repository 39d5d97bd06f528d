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
    def cells = cellsOf(lines)
    def columns = cells.take(1).flatten()
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

/** The rows of a table that are not blank, its header among them, by the rules of sheet_rows in bin/virnucpro/path_lists.py. */
def cellsOf(lines) {
    def rows = lines.findAll { line -> line.trim() }
    def between = ['\t', ',', ';'].find { each -> rows.take(1).any { line -> line.contains(each) } } ?: ','
    // What follows a closing quote belongs to its cell.
    def cell = " *\"((?:[^\"]++|\"\")*+)\"([^${between}]*)${between}|([^${between}]*)${between}"
    return rows.collect { line ->
        "${line}${between}".findAll(cell) { _all, quoted, rest, plain -> (quoted == null ? plain : quoted.replace('""', '"') + rest).trim() }
    }
}

/** A file's text without the byte order mark that Excel writes, or null where it is none in UTF-8. */
def utf8(file) {
    try {
        return java.nio.charset.StandardCharsets.UTF_8.newDecoder().decode(java.nio.ByteBuffer.wrap(file.bytes)).toString().replaceFirst('^\uFEFF', '')
    }
    catch (java.nio.charset.CharacterCodingException _error) {
        return null
    }
}
