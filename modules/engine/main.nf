// What a container engine says where it starts no task, in words of what to do.
// It includes no other module: parser v2 of Nextflow 25.04 cannot include a module that does in more than one place.

/** The engine's own complaint among the last lines of a task, with what helps; null where it has none. */
def complaint(lines) {
    def said = lines.reverse().find { line -> line ==~ /docker: .+/ }
    if (!said) {
        return null
    }
    def image = lines.collect { line -> line =~ /Unable to find image '(.+)' locally/ }.find { each -> each.find() }?.group(1)
    if (image) {
        return image.contains('/')
            ? "${said}; ${image} is neither here nor to be pulled: check --container_registry, and `docker login`"
            : "no image ${image} on this machine: build both with `make images`, or name the registry that has them in --container_registry"
    }
    if (said.contains('could not select device driver')) {
        return "${said.replaceFirst(/\.$/, '')}: install NVIDIA's Container Toolkit, or compute on the CPU with --gpus 0"
    }
    if (said.contains('permission denied') && said.contains('daemon')) {
        return 'docker: permission denied by its daemon: run as a member of the group docker, or take -profile podman or apptainer'
    }
    return said.contains('Cannot connect to the Docker daemon') ? "${said}; start it, or take another engine or --python_env" : said
}
