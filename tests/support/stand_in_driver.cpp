// NVIDIA's driver played over host memory, for machines without one: one GPU, the AGX's. Built by stand_in_driver.py,
// which puts the kernels, compiled as C++, before it.
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define API extern "C" int
typedef void (*Launch)(const int*, const int*, void**);
static int capturing, launches, allocated;
static char begun[8];

static void* own(const char* name) {
    Dl_info info;
    dladdr((void*)&own, &info);
    return dlsym(dlopen(info.dli_fname, RTLD_NOW), name);
}
API cuGetProcAddress_v2(const char* name, void** found, int, uint64_t, int* status) {
    *found = own(name);
    if (status) *status = *found ? 0 : 1;
    return 0;
}
API cuGetProcAddress(const char* name, void** found, int, uint64_t) { *found = own(name); return 0; }
API cuInit(unsigned) { return getenv("STAND_IN_CRASHES") ? (abort(), 0) : 0; }
API cuDriverGetVersion(int* version) { *version = 13000; return 0; }
API cuDeviceGetCount(int* count) { *count = getenv("STAND_IN_GPUS") ? atoi(getenv("STAND_IN_GPUS")) : 1; return 0; }
API cuDeviceGet(int* device, int index) { *device = index; return index == 0 ? 0 : 101; }
API cuDeviceGetName(char* name, int size, int) { snprintf(name, size, "Quadro RTX 6000"); return 0; }
API cuDeviceGetAttribute(int* value, int attribute, int) { *value = attribute == 75 ? 7 : 5; return 0; }
API cuDeviceTotalMem_v2(size_t* bytes, int) { *bytes = 24ull << 30; return 0; }
API cuGetErrorString(int status, const char** text) {
    *text = status == 101 ? "invalid device ordinal" : 0;
    return *text ? 0 : 1;
}
API cuDevicePrimaryCtxRetain(void** context, int) { *context = begun; return 0; }
API cuDevicePrimaryCtxRelease(int) { return 0; }
API cuCtxSetCurrent(void* context) { return context != begun; }
API cuGetExportTable(const void** table, const void*) { *table = 0; return 500; }
API cuStreamCreate(void** stream, unsigned flags) { *stream = begun + 1; return flags != 1; }
API cuStreamDestroy(void*) { return 0; }
API cuStreamSynchronize(void* stream) { return stream != begun + 1; }
API cuMemAlloc(uint64_t* address, size_t size) { *address = (uint64_t)malloc(size); allocated++; return 0; }
API cuMemFree(uint64_t address) { free((void*)address); allocated--; return 0; }
API cuMemHostAlloc(void** address, size_t size, unsigned) { *address = malloc(size); allocated++; return 0; }
API cuMemFreeHost(void* address) { free(address); allocated--; return 0; }
API cuMemHostRegister(void*, size_t, unsigned flags) { return flags != 8 || getenv("STAND_IN_REFUSES") ? 801 : 0; }
API cuMemHostUnregister(void*) { return 0; }
API cuMemcpyHtoDAsync(uint64_t to, const void* from, size_t size, void*) { memcpy((void*)to, from, size); return 0; }
API cuMemcpyDtoHAsync(void* to, uint64_t from, size_t size, void*) { memcpy(to, (void*)from, size); return 0; }
API cuModuleLoadData(void** module, const void* image) {
    *module = begun + 2;
    return memcmp(image, "\x7f" "ELF", 4) != 0;
}
API cuModuleUnload(void*) { return 0; }
API cuModuleGetFunction(void** function, void*, const char* name) {
    char symbol[64];
    snprintf(symbol, sizeof symbol, "launch_%s", name);
    *function = own(symbol);
    return *function ? 0 : 500;
}
API cuLaunchKernel(void* kernel, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned,
                   void* stream, void** values, void**) {
    if (gz != 1 || bz != 1 || stream != begun + 1) return 1;
    const int grid[2] = {(int)gx, (int)gy}, block[2] = {(int)bx, (int)by};
    if (!capturing) ((Launch)kernel)(grid, block, values);
    launches++;
    return 0;
}
API cuStreamBeginCapture(void*, int mode) { capturing = 1; return mode != 1; }
API cuStreamEndCapture(void*, void** graph) { capturing = 0; *graph = begun + 3; return 0; }
API cuGraphInstantiateWithFlags(void** launched, void* graph, uint64_t) {
    *launched = begun + 4;
    return graph != begun + 3;
}
API cuGraphDestroy(void*) { return 0; }
API cuGraphExecDestroy(void*) { return 0; }
// counted apart from kernels that are launched one by one
API cuGraphLaunch(void* launched, void*) { launches += 100; return launched != begun + 4; }
API cuEventCreate(void** event, unsigned) { *event = begun + 5; return 0; }
API cuEventDestroy(void*) { return 0; }
API cuEventRecord(void*, void*) { return 0; }
API cuEventElapsedTime(float* ms, void*, void*) { *ms = 2.5f; return 0; }
API stand_in_launches() { return launches; }
API stand_in_allocated() { return allocated; }
