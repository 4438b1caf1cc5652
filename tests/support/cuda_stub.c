/* CUDA's libraries without a device: memory is the host's, and nothing is computed.

   With them, onnxruntime's CUDA provider builds and runs sessions on any machine. Real are: which nodes it takes, the
   copies it puts in, its options, buffers and their addresses, and when it captures and replays graphs. Not real is
   every number that a kernel would have computed, and how long that takes.

   cuda_stub.py adds a function that returns 0 (success, nothing found) for every other name that the provider needs.
   A call that CUDA does not allow while a graph is captured fails here, too. */

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, CAPTURE_UNSUPPORTED = 900 };
enum { VERSION = 13000, MULTIPROCESSORS = 132, WARP = 32, CAPABILITY = 9 };

/* What the tests look at. */
int stub_launches, stub_captures, stub_replays, stub_refused;

static int capturing;

static int refuse_in_capture(void) {
    if (!capturing) return SUCCESS;
    stub_refused++;
    return CAPTURE_UNSUPPORTED;
}

static int allocate(void **pointer, size_t size) {
    *pointer = calloc(1, size ? size : 1);
    return SUCCESS;
}

static int make_handle(void **handle) { return allocate(handle, 64); }

/* Memory. */

int cudaMalloc(void **pointer, size_t size) { return refuse_in_capture() ? CAPTURE_UNSUPPORTED : allocate(pointer, size); }
int cudaMallocFromPoolAsync(void **pointer, size_t size) { return allocate(pointer, size); }
int cudaMallocHost(void **pointer, size_t size) { return allocate(pointer, size); }
int cudaHostAlloc(void **pointer, size_t size, unsigned flags) { return allocate(pointer, size); }
int cudaFree(void *pointer) { return free(pointer), SUCCESS; }
int cudaFreeAsync(void *pointer, void *stream) { return free(pointer), SUCCESS; }
int cudaFreeHost(void *pointer) { return free(pointer), SUCCESS; }

int cudaMemcpy(void *to, const void *from, size_t size, int kind) {
    return refuse_in_capture() ? CAPTURE_UNSUPPORTED : (memcpy(to, from, size), SUCCESS);
}

/* A graph would copy from, or to, the same address of the host at each replay: cudaMemcpyHostToDevice is 1, and
   cudaMemcpyDeviceToHost is 2. */
int cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, void *stream) {
    if ((kind == 1 || kind == 2) && refuse_in_capture()) return CAPTURE_UNSUPPORTED;
    return memcpy(to, from, size), SUCCESS;
}

int cudaMemset(void *pointer, int value, size_t size) { return memset(pointer, value, size), SUCCESS; }
int cudaMemsetAsync(void *pointer, int value, size_t size, void *stream) { return memset(pointer, value, size), SUCCESS; }

int cudaMemGetInfo(size_t *available, size_t *total) {
    *available = (size_t)8 << 30;
    *total = (size_t)16 << 30;
    return SUCCESS;
}

int cudaPointerGetAttributes(void *attributes, const void *pointer) { return memset(attributes, 0, 32), SUCCESS; }

/* Streams, events, graphs. */

int cudaStreamCreate(void **stream) { return make_handle(stream); }
int cudaStreamCreateWithFlags(void **stream, unsigned flags) { return make_handle(stream); }
int cudaEventCreate(void **event) { return make_handle(event); }
int cudaEventCreateWithFlags(void **event, unsigned flags) { return make_handle(event); }
int cudaStreamSynchronize(void *stream) { return refuse_in_capture(); }
int cudaDeviceSynchronize(void) { return refuse_in_capture(); }

int cudaStreamIsCapturing(void *stream, int *status) { return *status = capturing, SUCCESS; }
int cudaStreamBeginCapture(void *stream, int mode) { return capturing = 1, SUCCESS; }

int cudaStreamEndCapture(void *stream, void **graph) {
    capturing = 0;
    stub_captures++;
    return make_handle(graph);
}

int cudaGraphInstantiate(void **executable, void *graph, unsigned long long flags) { return make_handle(executable); }
int cudaGraphLaunch(void *executable, void *stream) { return stub_replays++, SUCCESS; }

/* Kernels. */

int cudaLaunchKernel(const void *function, ...) { return stub_launches++, SUCCESS; }
int __cudaLaunchKernel(const void *function, ...) { return stub_launches++, SUCCESS; }
void **__cudaRegisterFatBinary(void *code) {
    static void *handle[4];
    return handle;
}

/* The device: a Hopper. Offsets are those of cudaDeviceProp in CUDA 13. */

int cudaGetDeviceCount(int *count) { return *count = 1, SUCCESS; }
int cudaGetDevice(int *device) { return *device = 0, SUCCESS; }
int cudaDriverGetVersion(int *version) { return *version = VERSION, SUCCESS; }
int cudaRuntimeGetVersion(int *version) { return *version = VERSION, SUCCESS; }
const char *cudaGetErrorString(int error) { return error == CAPTURE_UNSUPPORTED ? "not permitted in a capture" : "stub"; }
const char *cudaGetErrorName(int error) { return error == CAPTURE_UNSUPPORTED ? "cudaErrorStreamCaptureUnsupported" : "stub"; }

int cudaDeviceGetAttribute(int *value, int attribute, int device) {
    switch (attribute) {
        case 10: return *value = WARP, SUCCESS;
        case 16: return *value = MULTIPROCESSORS, SUCCESS;
        case 75: return *value = CAPABILITY, SUCCESS;
        case 76: return *value = 0, SUCCESS;
        default: return *value = 1024, SUCCESS;
    }
}

int cudaGetDeviceProperties(char *properties, int device) {
    memset(properties, 0, 624);
    strcpy(properties, "stub");
    *(size_t *)(properties + 288) = (size_t)16 << 30; /* memory */
    *(size_t *)(properties + 296) = 49152;            /* shared memory of a block */
    *(int *)(properties + 304) = 65536;               /* registers of a block */
    *(int *)(properties + 308) = WARP;
    *(size_t *)(properties + 312) = 1 << 30;          /* memory pitch */
    *(int *)(properties + 320) = 1024;                /* threads of a block */
    for (int axis = 0; axis < 3; axis++) {
        ((int *)(properties + 324))[axis] = 1024;  /* of a block */
        ((int *)(properties + 336))[axis] = 65535; /* of a grid */
    }
    *(size_t *)(properties + 352) = 65536; /* constant memory */
    *(int *)(properties + 360) = CAPABILITY;
    *(int *)(properties + 384) = MULTIPROCESSORS;
    return SUCCESS;
}

/* The driver. */

int cuInit(unsigned flags) { return SUCCESS; }
int cuDeviceGetCount(int *count) { return *count = 1, SUCCESS; }
int cuDriverGetVersion(int *version) { return *version = VERSION, SUCCESS; }

/* cuBLAS. */

int cublasCreate_v2(void **handle) { return make_handle(handle); }
int cublasLtCreate(void **handle) { return make_handle(handle); }

/* cuDNN: it finds one engine for every convolution, without choices, notes or workspace. */

enum {
    HEURISTIC_RESULTS = 202,
    CONFIGURATION_KNOBS = 302,
    CONFIGURATION_WORKSPACE = 303,
    CONFIGURATION_SHARED_MEMORY = 304,
    PLAN_WORKSPACE = 402,
    ENGINE_INDEX = 1301,
    ENGINE_NUMERICAL_NOTE = 1303,
    ENGINE_BEHAVIOR_NOTE = 1305,
};

int cudnnCreate(void **handle) { return make_handle(handle); }
size_t cudnnGetVersion(void) { return 91000; }
size_t cudnnGetCudartVersion(void) { return VERSION; }
const char *cudnnGetErrorString(int error) { return "stub"; }
int cudnnBackendCreateDescriptor(int type, void **descriptor) { return make_handle(descriptor); }
int cudnnBackendExecute(void *handle, void *plan, void *pack) { return stub_launches++, SUCCESS; }

int cudnnBackendGetAttribute(void *descriptor, int attribute, int type, int64_t asked, int64_t *count, void *values) {
    int64_t found = 1;
    switch (attribute) {
        case CONFIGURATION_KNOBS:
        case ENGINE_NUMERICAL_NOTE:
        case ENGINE_BEHAVIOR_NOTE: found = 0; break;
        case CONFIGURATION_WORKSPACE:
        case PLAN_WORKSPACE:
        case ENGINE_INDEX: *(int64_t *)values = 0; break;
        case CONFIGURATION_SHARED_MEMORY: *(int32_t *)values = 0; break;
        default: break; /* HEURISTIC_RESULTS and the like: descriptors that the caller has made */
    }
    if (count) *count = found;
    return SUCCESS;
}
