// Where downloaded models are kept between runs.
include { podVolumes ; stageable ; writableFolder } from '../paths/main.nf'

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

/** The folder of a model that is kept already, or null. It appears there whole, so one of its files stands for all. */
def keptModel(folder, name) {
    def model = name ==~ /\w+/ ? folder?.resolve(name) : null
    return model?.resolve('config.json')?.exists() ? model : null
}

/** What FETCH_MODEL is to fill: [] where it can fill none, and hands the model on like any other output. */
def cacheToFill(folder) {
    if (folder == null || folder.toUri().scheme != 'file') {
        return []
    }
    return writableFolder('model_cache', folder)
}
