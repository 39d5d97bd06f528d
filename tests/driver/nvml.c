/* An NVIDIA driver as far as NVML tells of one: its version, CUDA's, and one card. Built by tests/driver/driver.py. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { int unused; } card;
static card only;

static int number(const char *name, int fallback) { return getenv(name) ? atoi(getenv(name)) : fallback; }

int nvmlInit_v2(void) { return 0; }
int nvmlInitWithFlags(unsigned flags) { return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return code ? "not supported" : "success"; }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = number("DRIVER_CUDA", 13000); return 0; }
int nvmlSystemGetDriverVersion(char *version, unsigned length) {
    snprintf(version, length, "%s", getenv("DRIVER_VERSION") ? getenv("DRIVER_VERSION") : "580.65.06");
    return 0;
}
int nvmlDeviceGetCount_v2(unsigned *count) { *count = (unsigned)number("DRIVER_GPUS", 1); return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, card **handle) { *handle = &only; return 0; }
int nvmlDeviceGetUUID(card *handle, char *uuid, unsigned length) {
    snprintf(uuid, length, "%s", getenv("DRIVER_UUID") ? getenv("DRIVER_UUID") : "GPU-0");
    return 0;
}
int nvmlDeviceGetName(card *handle, char *name, unsigned length) {
    snprintf(name, length, "%s", getenv("DRIVER_CARD") ? getenv("DRIVER_CARD") : "Stand-in");
    return 0;
}
int nvmlDeviceGetCudaComputeCapability(card *handle, int *major, int *minor) {
    int capability = number("DRIVER_CAPABILITY", 80);
    *major = capability / 10;
    *minor = capability % 10;
    return 0;
}
