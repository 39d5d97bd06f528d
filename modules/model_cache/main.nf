// Where downloaded models are kept between runs.
include { podVolumes ; stageable ; stop ; writableFolder } from '../paths/main.nf'

/** Folder of the models, each in one of its name; null where the tasks share no folder, as with a work folder in a bucket. */
def modelCache(given) {
    if (workflow.stubRun) {
        return workflow.workDir.resolve('stub-models')
    }
    if (given == null && workflow.workDir.toUri().scheme != 'file') {
        return null
    }
    // A pod has no home of its user's, but the volume that its work folder is on.
    def home = podVolumes()?.find { volume -> workflow.workDir.startsWith(volume) } ?: System.getenv('HOME') ?: workflow.launchDir
    def folder = file(given ?: "${home}/.cache/virnucpro/models", glob: false)
    stageable('model_cache', [folder])
    return folder
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

/** What FETCH_MODEL is to fill: [] where it can fill none, and hands the model on like any other output. */
def cacheToFill(folder) {
    if (folder == null || folder.toUri().scheme != 'file') {
        return []
    }
    return writableFolder('model_cache', folder)
}
