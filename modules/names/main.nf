// Names of files and folders between commas, each of which may have commas itself. Nothing is included here: see schema.

/** Names between commas. A comma inside a name that exists, or inside the braces of a glob, separates nothing. */
def separated(text) {
    def pieces = text.split(',', -1).toList()
    def names = []
    def next = 0
    if (literal(text)) {
        return [text]
    }
    pieces.indices.each { first ->
        if (first >= next) {
            names << nameAt(pieces, first)
            next = first + names.last().count(',') + 1
        }
    }
    return names.findAll { each -> each.trim() } ?: [text]
}

/** The name that begins with this piece: the shortest that exists, or with every brace closed, or the piece alone. */
def nameAt(pieces, first) {
    def exists = shortest(pieces, first) { name -> literal(name) }
    return exists ?: shortest(pieces, first) { name -> name.count('{') == name.count('}') } ?: pieces[first]
}

/** The shortest name from this piece on of which that holds, if it is no longer than a path may be; null without one. */
def shortest(pieces, first, holds) {
    def last = (first..<pieces.size()).find { end -> holds.call(joined(pieces, first, end)) || joined(pieces, first, end + 1).size() > 4096 }
    def name = last == null ? null : joined(pieces, first, last)
    return name != null && holds.call(name) ? name : null
}

def joined(pieces, first, last) {
    return pieces.subList(first, Math.min(last + 1, pieces.size())).join(',')
}

/** What a name means as it stands, blanks around it included if need be; null where nothing is there. */
def literal(text) {
    return [text, text.trim()].findAll { each -> each }
        .collect { each -> absolute(each) }
        .find { path -> path.exists() }
}

def absolute(text) {
    // file() refuses the blanks at a name's ends that java.nio takes.
    return text.contains('://') ? file(text, glob: false) : java.nio.file.Path.of(text).toAbsolutePath().normalize()
}
