/* A stand-in for libcuda.so.1 that notes what is called in the file $CUDA_CALLS; cuInit returns $CUDA_ANSWER. */
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
