// Where downloaded models are kept between runs.
include { stop } from '../words/main.nf'

/**
 * Folder of the models, each in one of its name; null where the tasks share no folder, as with a work folder in a bucket.
 * A pod has no home of its user's, but of its volumes the one that its work folder is on.
 */
def modelCache(given, volumes) {
    if (workflow.stubRun) {
        return workflow.workDir.resolve('stub-models')
    }
    if (given == null && workflow.workDir.toUri().scheme != 'file') {
        return null
    }
    def home = volumes?.find { volume -> workflow.workDir.startsWith(volume) } ?: System.getenv('HOME') ?: workflow.launchDir
    return file(given ?: "${home}/.cache/virnucpro/models", glob: false)
}

/** Whether a name has the form of a repository of the Hugging Face hub, ORG/NAME. */
def isRepository(name) {
    return name ==~ '\\w[\\w.-]*/\\w[\\w.-]*' && !(name ==~ '.*\\.(pt|pth|ckpt|bin|safetensors|json)')
}

/** Ends the run where a model that is not here has no name that could be asked for. */
def checkName(p, local) {
    if (!local && p.model.contains('/') && !isRepository(p.model)) {
        stop(66, "--model ${p.model}: no such file or folder; check the path")
    }
    if (p.model_revision && (local || !isRepository(p.model))) {
        stop(2, "--model_revision is ${p.model_revision}, but ${p.model} is no repository ORG/NAME of the hub")
    }
}

/** The folder of a model among those that are kept: an official name is its own, a repository's is as in the hub's cache. */
def hubFolder(name) {
    return isRepository(name) ? "models--${name.replace('/', '--')}".toString() : name
}

/** The folder of a model that is kept already, or null. It appears there whole, so one of its files stands for all. */
def keptModel(folder, p) {
    if (folder == null || !(isRepository(p.model) || p.model ==~ /\w+/)) {
        return null
    }
    def root = folder.resolve(hubFolder(p.model))
    def model = isRepository(p.model) ? snapshot(root, p.model_revision) : root
    return model?.resolve('config.json')?.exists() ? model : null
}

/** The folder of a model that FETCH_MODEL has just filled; a stub leaves no more than the folder of its name. */
def fetchedModel(folder, p) {
    return keptModel(folder, p) ?: folder.resolve(hubFolder(p.model))
}

/** Where a repository's commit is kept: the one that a revision meant when it was fetched. */
def snapshot(root, revision) {
    def reference = root.resolve("refs/${revision ?: 'main'}")
    def commit = revision ==~ '[0-9a-f]{40}' ? revision : reference.exists() ? reference.text.trim() : null
    return commit ? root.resolve("snapshots/${commit}") : null
}

/** Whether FETCH_MODEL can fill it; where not, it hands the model on like any other output. */
def canBeFilled(folder) {
    return folder != null && folder.toUri().scheme == 'file'
}
