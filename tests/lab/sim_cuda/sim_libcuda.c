/*
 * Copyright (c) 2026, hx_infra.llm contributors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * SIMULATOR. A library with the SONAME libcuda.so.1 that answers the few calls of CUDA's driver API
 * with which a program proves that a GPU works. There is no GPU: its memory is the process's own.
 * The environment says which calls fail, hang or corrupt data; README.md in this folder documents
 * it.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define API __attribute__((visibility("default")))
#define CONFIG "/etc/sim-gpu/cuda.conf"
#define MAX_GPUS 8
#define NONE (-1)

enum {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
};

static const struct {
    int code;
    const char *name;
    const char *text; /* as cuGetErrorString says it */
} ERRORS[] = {
    {0, "CUDA_SUCCESS", "no error"},
    {1, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {2, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {3, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {46, "CUDA_ERROR_DEVICE_UNAVAILABLE", "CUDA-capable device(s) is/are busy or unavailable"},
    {100, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {101, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {201, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {214, "CUDA_ERROR_ECC_UNCORRECTABLE", "uncorrectable ECC error encountered"},
    {719, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
     "system has unsupported display driver / cuda driver combination"},
    {999, "CUDA_ERROR_UNKNOWN", "unknown error"},
};

struct context {
    int device;
    int references;
};

static bool initialized;
static struct context contexts[MAX_GPUS];
static struct context *current;

/* ---------------------------------------------------------------- settings */

/* A setting from the environment, or from the file; the result stays valid until the next call. */
static const char *setting(const char *name, const char *otherwise)
{
    static char line[1024];
    const char *value = getenv(name);
    if (value)
        return value;
    FILE *file = fopen(CONFIG, "r");
    if (!file)
        return otherwise;
    size_t length = strlen(name);
    const char *found = otherwise;
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        if (strncmp(line, name, length) == 0 && line[length] == '=') {
            found = line + length + 1;
            break;
        }
    }
    fclose(file);
    return found;
}

static int gpu_count(void)
{
    int count = atoi(setting("SIM_CUDA_GPUS", "1"));
    return count < 0 ? 0 : count > MAX_GPUS ? MAX_GPUS : count;
}

/*
 * The number behind "call=" or "call@device=" in a list such as "cuInit=100,cuMemAlloc_v2@1=2";
 * otherwise what is given. An entry without a number, as in SIM_CUDA_HANG, counts as 1.
 */
static int listed(const char *list_name, const char *call, int device, int otherwise)
{
    char list[1024], name[128];
    snprintf(list, sizeof list, "%s", setting(list_name, ""));
    for (char *entry = strtok(list, ","); entry; entry = strtok(NULL, ",")) {
        char *value = strchr(entry, '=');
        if (value)
            *value++ = 0;
        snprintf(name, sizeof name, "%s@%d", call, device);
        if (strcmp(entry, call) == 0 || (device != NONE && strcmp(entry, name) == 0))
            return value ? atoi(value) : 1;
    }
    return otherwise;
}

/* What every call does first: hang or crash when it is told to; return the error to answer with. */
static int enter(const char *call, int device)
{
    if (listed("SIM_CUDA_HANG", call, device, 0))
        for (;;)
            pause();
    if (listed("SIM_CUDA_CRASH", call, device, 0))
        abort();
    int code = listed("SIM_CUDA_FAIL", call, device, SUCCESS);
    if (code)
        return code;
    return initialized || strcmp(call, "cuInit") == 0 ? SUCCESS : NOT_INITIALIZED;
}

/* The same for calls that work in the current context. */
static int enter_context(const char *call)
{
    int code = enter(call, current ? current->device : NONE);
    if (code)
        return code;
    return current && current->references > 0 ? SUCCESS : INVALID_CONTEXT;
}

/* ---------------------------------------------------------------- API */

API int cuGetErrorName(int code, const char **text)
{
    for (size_t at = 0; at < sizeof ERRORS / sizeof *ERRORS; at++)
        if (ERRORS[at].code == code)
            return *text = ERRORS[at].name, SUCCESS;
    return *text = NULL, INVALID_VALUE;
}

API int cuGetErrorString(int code, const char **text)
{
    for (size_t at = 0; at < sizeof ERRORS / sizeof *ERRORS; at++)
        if (ERRORS[at].code == code)
            return *text = ERRORS[at].text, SUCCESS;
    return *text = NULL, INVALID_VALUE;
}

API int cuInit(unsigned flags)
{
    int code = enter("cuInit", NONE);
    if (code)
        return code;
    if (flags)
        return INVALID_VALUE;
    const char *users = setting("SIM_CUDA_UID", "");
    if (*users && (uid_t)atoi(users) != getuid()) /* nodes that only one user may open */
        return NO_DEVICE;
    if (gpu_count() == 0)
        return NO_DEVICE;
    initialized = true;
    return SUCCESS;
}

API int cuDeviceGetCount(int *count)
{
    int code = enter("cuDeviceGetCount", NONE);
    if (!code)
        *count = gpu_count();
    return code;
}

API int cuDeviceGet(int *device, int ordinal)
{
    int code = enter("cuDeviceGet", ordinal);
    if (code)
        return code;
    if (ordinal < 0 || ordinal >= gpu_count())
        return INVALID_DEVICE;
    *device = ordinal;
    return SUCCESS;
}

/* GPU-4070a0a0-51a0-4000-8000-00000000000N, as in the profiles of the simulated NVML. */
API int cuDeviceGetUuid(unsigned char *uuid, int device)
{
    static const unsigned char BASE[16] = {0x40, 0x70, 0xa0, 0xa0, 0x51, 0xa0, 0x40, 0x00, 0x80};
    int code = enter("cuDeviceGetUuid", device);
    if (code)
        return code;
    memcpy(uuid, BASE, sizeof BASE);
    uuid[15] = (unsigned char)device;
    return SUCCESS;
}

API int cuDevicePrimaryCtxRetain(struct context **context, int device)
{
    int code = enter("cuDevicePrimaryCtxRetain", device);
    if (code)
        return code;
    contexts[device].device = device;
    contexts[device].references++;
    *context = &contexts[device];
    return SUCCESS;
}

API int cuDevicePrimaryCtxRelease_v2(int device)
{
    int code = enter("cuDevicePrimaryCtxRelease_v2", device);
    if (code)
        return code;
    if (contexts[device].references == 0)
        return INVALID_CONTEXT;
    contexts[device].references--;
    return SUCCESS;
}

API int cuCtxSetCurrent(struct context *context)
{
    int code = enter("cuCtxSetCurrent", context ? context->device : NONE);
    if (!code)
        current = context;
    return code;
}

API int cuMemAlloc_v2(unsigned long long *address, size_t size)
{
    int code = enter_context("cuMemAlloc_v2");
    if (code)
        return code;
    void *memory = malloc(size);
    if (!memory)
        return OUT_OF_MEMORY;
    *address = (unsigned long long)(size_t)memory;
    return SUCCESS;
}

API int cuMemFree_v2(unsigned long long address)
{
    int code = enter_context("cuMemFree_v2");
    if (!code)
        free((void *)(size_t)address);
    return code;
}

API int cuMemcpyHtoD_v2(unsigned long long address, const void *source, size_t size)
{
    int code = enter_context("cuMemcpyHtoD_v2");
    if (!code)
        memcpy((void *)(size_t)address, source, size);
    return code;
}

API int cuMemcpyDtoH_v2(void *target, unsigned long long address, size_t size)
{
    int code = enter_context("cuMemcpyDtoH_v2");
    if (code)
        return code;
    memcpy(target, (void *)(size_t)address, size);
    const char *stuck = setting("SIM_CUDA_STUCK_BIT", "");
    unsigned device, offset, bit;
    if (sscanf(stuck, "%u:%u:%u", &device, &offset, &bit) == 3 && (int)device == current->device
        && offset < size && bit < 8)
        ((unsigned char *)target)[offset] |= (unsigned char)(1U << bit);
    return SUCCESS;
}
