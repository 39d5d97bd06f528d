/* A stand-in for libcuda.so.1 that notes what is called in the file $CUDA_CALLS; cuInit returns $CUDA_ANSWER. Each of its
 * three devices has the compute capability $DRIVER_CAPABILITY, as in 90. */
#include <stdio.h>
#include <stdlib.h>

static void note(const char *name, int argument) {
    FILE *file = fopen(getenv("CUDA_CALLS"), "a");
    fprintf(file, "%s %d\n", name, argument);
    fclose(file);
}

int cuInit(unsigned int flags) {
    note("cuInit", (int)flags);
    return atoi(getenv("CUDA_ANSWER"));
}

int cuDevicePrimaryCtxRetain(void **context, int device) {
    *context = NULL;
    note("cuDevicePrimaryCtxRetain", device);
    return 0;
}

int cuDeviceGetCount(int *count) {
    *count = 3;
    return 0;
}

int cuDeviceGet(int *device, int index) {
    *device = index;
    return 0;
}

int cuDeviceGetAttribute(int *value, int attribute, int device) {
    const char *capability = getenv("DRIVER_CAPABILITY");
    int both = capability ? atoi(capability) : 0;
    *value = attribute == 75 ? both / 10 : attribute == 76 ? both % 10 : 0;
    return device < 0;
}

/* What Triton's launchers are linked to; nothing calls it where there is no GPU. */
#define UNCALLED(name) int name(void) { return 999; }
UNCALLED(cuCtxGetCurrent)
UNCALLED(cuCtxGetLimit)
UNCALLED(cuCtxSetCurrent)
UNCALLED(cuCtxSetLimit)
UNCALLED(cuFuncGetAttribute)
UNCALLED(cuFuncSetAttribute)
UNCALLED(cuFuncSetCacheConfig)
UNCALLED(cuGetErrorString)
UNCALLED(cuModuleGetFunction)
UNCALLED(cuModuleLoadData)
UNCALLED(cuPointerGetAttribute)
