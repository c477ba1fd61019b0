/*
 * Copyright (c) 2026, hx_infra.llm contributors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * SIMULATOR. Types and numbers of the NVML interface, as far as the simulated GPU speaks it.
 * Shared by the simulated library (sim_nvml.c) and the simulated nvidia-smi (sim_nvidia_smi.c).
 */
#ifndef SIM_NVML_H
#define SIM_NVML_H

#include <stdint.h>

typedef int nvmlReturn_t;
typedef void *nvmlDevice_t;
typedef void *nvmlEventSet_t;

enum {
    NVML_SUCCESS = 0,
    NVML_ERROR_UNINITIALIZED = 1,
    NVML_ERROR_INVALID_ARGUMENT = 2,
    NVML_ERROR_NOT_SUPPORTED = 3,
    NVML_ERROR_NO_PERMISSION = 4,
    NVML_ERROR_NOT_FOUND = 6,
    NVML_ERROR_INSUFFICIENT_SIZE = 7,
    NVML_ERROR_DRIVER_NOT_LOADED = 9,
    NVML_ERROR_TIMEOUT = 10,
    NVML_ERROR_LIBRARY_NOT_FOUND = 12,
    NVML_ERROR_FUNCTION_NOT_FOUND = 13,
    NVML_ERROR_CORRUPTED_INFOROM = 14,
    NVML_ERROR_GPU_IS_LOST = 15,
    NVML_ERROR_LIB_RM_VERSION_MISMATCH = 18,
    NVML_ERROR_MEMORY = 20,
    NVML_ERROR_ARGUMENT_VERSION_MISMATCH = 25,
    NVML_ERROR_DEPRECATED = 26,
    NVML_ERROR_UNKNOWN = 999
};

enum { NVML_CLOCK_GRAPHICS = 0, NVML_CLOCK_SM = 1, NVML_CLOCK_MEM = 2, NVML_CLOCK_VIDEO = 3 };

enum {
    NVML_TEMPERATURE_THRESHOLD_SHUTDOWN = 0,
    NVML_TEMPERATURE_THRESHOLD_SLOWDOWN = 1,
    NVML_TEMPERATURE_THRESHOLD_MEM_MAX = 2,
    NVML_TEMPERATURE_THRESHOLD_GPU_MAX = 3,
    NVML_TEMPERATURE_THRESHOLD_ACOUSTIC_CURR = 5
};

#define NVML_REASON_GPU_IDLE 0x001ULL
#define NVML_REASON_APPLICATIONS_CLOCKS 0x002ULL
#define NVML_REASON_SW_POWER_CAP 0x004ULL
#define NVML_REASON_HW_SLOWDOWN 0x008ULL
#define NVML_REASON_SYNC_BOOST 0x010ULL
#define NVML_REASON_SW_THERMAL 0x020ULL
#define NVML_REASON_HW_THERMAL 0x040ULL
#define NVML_REASON_HW_POWER_BRAKE 0x080ULL
#define NVML_REASON_DISPLAY_CLOCKS 0x100ULL
#define NVML_REASONS_SUPPORTED 0x1FFULL
#define NVML_REASON_BOARD_LIMIT 0x200ULL /* the last two since the 615 branch */
#define NVML_REASON_RELIABILITY 0x400ULL

#define NVML_VALUE_NOT_AVAILABLE 0xFFFFFFFFu
#define NVML_MEMORY_V2 0x02000028u
#define NVML_TEMPERATURE_V1 0x0100000Cu
#define NVML_MARGIN_TEMPERATURE_V1 0x01000008u
#define NVML_UNREPAIRABLE_MEMORY_V1 0x01000008u
#define NVML_ECC_SRAM_ERROR_STATUS_V1 0x01000068u

enum { NVML_ARCHITECTURE_TURING = 6 };

typedef struct {
    char bus_id_legacy[16];
    unsigned int domain;
    unsigned int bus;
    unsigned int device;
    unsigned int device_id;
    unsigned int subsystem_id;
    char bus_id[32];
} nvmlPciInfo_t;

typedef struct {
    unsigned long long total;
    unsigned long long free;
    unsigned long long used;
} nvmlMemory_t;

typedef struct {
    unsigned int version;
    unsigned long long total;
    unsigned long long reserved;
    unsigned long long free;
    unsigned long long used;
} nvmlMemory_v2_t;

typedef struct {
    unsigned long long total;
    unsigned long long free;
    unsigned long long used;
} nvmlBAR1Memory_t;

typedef struct {
    unsigned int gpu;
    unsigned int memory;
} nvmlUtilization_t;

typedef struct {
    unsigned int version;
    unsigned int sensor;
    int temperature;
} nvmlTemperature_t;

typedef struct {
    unsigned int version;
    int margin;
} nvmlMarginTemperature_t;

typedef struct {
    unsigned int version;
    unsigned int flag;
} nvmlUnrepairableMemory_t;

typedef struct {
    unsigned int version;
    unsigned long long aggregate_unc_parity;
    unsigned long long aggregate_unc_secded;
    unsigned long long aggregate_cor;
    unsigned long long volatile_unc_parity;
    unsigned long long volatile_unc_secded;
    unsigned long long volatile_cor;
    unsigned long long aggregate_unc_l2;
    unsigned long long aggregate_unc_sm;
    unsigned long long aggregate_unc_pcie;
    unsigned long long aggregate_unc_mcu;
    unsigned long long aggregate_unc_other;
    unsigned int threshold_exceeded;
} nvmlEccSramErrorStatus_t;

typedef struct {
    unsigned int pid;
    unsigned long long used_memory;
    unsigned int gpu_instance;
    unsigned int compute_instance;
} nvmlProcessInfo_t;

/* The first layout of the process list, from before MIG existed. */
typedef struct {
    unsigned int pid;
    unsigned long long used_memory;
} nvmlProcessInfo_v1_t;

typedef struct {
    unsigned long long reference_time;
    unsigned long long violation_time;
} nvmlViolationTime_t;

typedef union {
    double d;
    unsigned int ui;
    unsigned long ul;
    unsigned long long ull;
    long long sll;
    int si;
    unsigned short us;
} nvmlValue_t;

enum { NVML_TYPE_UINT = 1, NVML_TYPE_ULL = 3, NVML_TYPE_INT = 5 };

typedef struct {
    uint32_t field;
    uint32_t scope;
    int64_t timestamp;
    int64_t latency;
    unsigned int type;
    nvmlReturn_t status;
    nvmlValue_t value;
} nvmlFieldValue_t;

typedef struct {
    nvmlDevice_t device;
    unsigned long long type;
    unsigned long long data;
    unsigned int gpu_instance;
    unsigned int compute_instance;
} nvmlEventData_t;

_Static_assert(sizeof(nvmlPciInfo_t) == 68, "nvmlPciInfo_t");
_Static_assert(sizeof(nvmlMemory_t) == 24, "nvmlMemory_t");
_Static_assert(sizeof(nvmlMemory_v2_t) == 40, "nvmlMemory_v2_t");
_Static_assert(sizeof(nvmlProcessInfo_t) == 24, "nvmlProcessInfo_t");
_Static_assert(sizeof(nvmlFieldValue_t) == 40, "nvmlFieldValue_t");
_Static_assert(sizeof(nvmlEventData_t) == 32, "nvmlEventData_t");
_Static_assert(sizeof(nvmlTemperature_t) == 12, "nvmlTemperature_t");
_Static_assert(sizeof(nvmlMarginTemperature_t) == 8, "nvmlMarginTemperature_t");
_Static_assert(sizeof(nvmlUnrepairableMemory_t) == 8, "nvmlUnrepairableMemory_t");
_Static_assert(sizeof(nvmlEccSramErrorStatus_t) == 104, "nvmlEccSramErrorStatus_t");
_Static_assert(sizeof(nvmlBAR1Memory_t) == 24, "nvmlBAR1Memory_t");
_Static_assert(sizeof(nvmlViolationTime_t) == 16, "nvmlViolationTime_t");

#endif
