/*
 * Copyright (c) 2026, hx_infra.llm contributors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * SIMULATOR. An nvidia-smi that asks the simulated libnvidia-ml.so.1 and answers like NVIDIA's
 * program of the 575 driver branch (and what later branches added to the XML): -L, -q -x,
 * --query-gpu, --query-compute-apps, the table.
 */
#define _GNU_SOURCE
#include "sim_nvml.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#define MAX_GPUS 8
#define MAX_FIELDS 256
#define MAX_PROCESSES 256
#define EXIT_USAGE 2
#define EXIT_NOT_FOUND 6

/* ---------------------------------------------------------------- the library */

struct board {
    unsigned index;
    nvmlDevice_t device;
    nvmlReturn_t status; /* of getting the handle */
    char bus_id[32];
};

static void *library;
static struct board boards[MAX_GPUS];
static unsigned board_count;
static unsigned attached;

/* The address of a library function; a missing one behaves like in NVML's own wrappers. */
static nvmlReturn_t missing_function(void)
{
    return NVML_ERROR_FUNCTION_NOT_FOUND;
}

typedef nvmlReturn_t (*any_function)(void);

static any_function function(const char *symbol)
{
    union {
        void *object;
        any_function call;
    } address = {.object = dlsym(library, symbol)};

    return address.object ? address.call : missing_function;
}

#define CALL0(symbol) (((nvmlReturn_t(*)(void))function(symbol))())
#define CALL1(symbol, type, a) (((nvmlReturn_t(*)(type))(void (*)(void))function(symbol))(a))
#define CALL2(symbol, ta, tb, a, b) \
    (((nvmlReturn_t(*)(ta, tb))(void (*)(void))function(symbol))(a, b))
#define CALL3(symbol, ta, tb, tc, a, b, c) \
    (((nvmlReturn_t(*)(ta, tb, tc))(void (*)(void))function(symbol))(a, b, c))
#define CALL4(symbol, ta, tb, tc, td, a, b, c, d) \
    (((nvmlReturn_t(*)(ta, tb, tc, td))(void (*)(void))function(symbol))(a, b, c, d))

static const char *error_text(nvmlReturn_t rc)
{
    typedef const char *(*error_string)(nvmlReturn_t);
    error_string get = (error_string)(void (*)(void))function("nvmlErrorString");

    if (rc == NVML_ERROR_NOT_SUPPORTED || rc == NVML_ERROR_FUNCTION_NOT_FOUND)
        return "N/A";
    return get(rc);
}

static void version_text(char *out, size_t size, const char *symbol)
{
    if (CALL2(symbol, char *, unsigned, out, (unsigned)size))
        snprintf(out, size, "N/A");
}

static unsigned driver_major(void)
{
    char version[80] = "";

    version_text(version, sizeof(version), "nvmlSystemGetDriverVersion");
    return (unsigned)strtoul(version, NULL, 10);
}

static void cuda_version(char *out, size_t size)
{
    int version = 0;

    if (CALL1("nvmlSystemGetCudaDriverVersion_v2", int *, &version))
        snprintf(out, size, "N/A");
    else
        snprintf(out, size, "%d.%d", version / 1000, version % 1000 / 10);
}

/* ---------------------------------------------------------------- fields of a GPU */

enum unit { PLAIN, PERCENT, MEBIBYTES, WATTS, MEGAHERTZ, MICROSECONDS, CELSIUS };

/* As the column titles and the values of the CSV output write them. */
static const char *const UNITS[] = {"", "%", "MiB", "W", "MHz", "us", ""};

struct field {
    const char *name;
    const char *alias;
    enum unit unit;
    nvmlReturn_t (*read)(const struct board *board, char *out, size_t size, int argument);
    int argument;
};

#define READER(name)                                                                            \
    static nvmlReturn_t name(const struct board *board __attribute__((unused)),                 \
                             char *out __attribute__((unused)), size_t size __attribute__((unused)), \
                             int argument __attribute__((unused)))

static nvmlReturn_t read_uint(const struct board *board, const char *symbol, unsigned *value)
{
    return CALL2(symbol, nvmlDevice_t, unsigned *, board->device, value);
}

static nvmlReturn_t print_uint(const struct board *board, const char *symbol, char *out,
                               size_t size)
{
    unsigned value = 0;
    nvmlReturn_t rc = read_uint(board, symbol, &value);

    snprintf(out, size, "%u", value);
    return rc;
}

static nvmlReturn_t print_watts(const struct board *board, const char *symbol, char *out,
                                size_t size)
{
    unsigned milliwatts = 0;
    nvmlReturn_t rc = read_uint(board, symbol, &milliwatts);

    snprintf(out, size, "%u.%02u", milliwatts / 1000, milliwatts % 1000 / 10);
    return rc;
}

static nvmlReturn_t print_enabled(const struct board *board, const char *symbol, char *out,
                                  size_t size)
{
    unsigned value = 0;
    nvmlReturn_t rc = read_uint(board, symbol, &value);

    snprintf(out, size, "%s", value ? "Enabled" : "Disabled");
    return rc;
}

static nvmlReturn_t print_text(const struct board *board, const char *symbol, char *out,
                               size_t size)
{
    return CALL3(symbol, nvmlDevice_t, char *, unsigned, board->device, out, (unsigned)size);
}

static nvmlReturn_t print_constant(char *out, size_t size, const char *text)
{
    snprintf(out, size, "%s", text);
    return NVML_SUCCESS;
}

READER(read_unsupported)
{
    return NVML_ERROR_NOT_SUPPORTED;
}

READER(read_timestamp)
{
    struct timespec ts;
    struct tm tm;
    char date[32];

    clock_gettime(CLOCK_REALTIME, &ts);
    localtime_r(&ts.tv_sec, &tm);
    strftime(date, sizeof(date), "%Y/%m/%d %H:%M:%S", &tm);
    snprintf(out, size, "%s.%03u", date, (unsigned)(ts.tv_nsec / 1000000) % 1000);
    return NVML_SUCCESS;
}

READER(read_driver_version)
{
    return CALL2("nvmlSystemGetDriverVersion", char *, unsigned, out, (unsigned)size);
}

READER(read_count)
{
    snprintf(out, size, "%u", attached);
    return NVML_SUCCESS;
}

READER(read_index)
{
    return print_uint(board, "nvmlDeviceGetIndex", out, size);
}

enum text_argument { NAME, UUID, SERIAL, VBIOS };

READER(read_text)
{
    static const char *const symbols[] = {"nvmlDeviceGetName", "nvmlDeviceGetUUID",
                                          "nvmlDeviceGetSerial", "nvmlDeviceGetVbiosVersion"};
    return print_text(board, symbols[argument], out, size);
}

enum pci_argument { PCI_BUS_ID, PCI_DOMAIN, PCI_BUS, PCI_DEVICE, PCI_DEVICE_ID, PCI_SUBSYSTEM };

READER(read_pci)
{
    nvmlPciInfo_t pci = {0};
    nvmlReturn_t rc =
        CALL2("nvmlDeviceGetPciInfo_v3", nvmlDevice_t, nvmlPciInfo_t *, board->device, &pci);

    switch (argument) {
    case PCI_BUS_ID:
        snprintf(out, size, "%s", pci.bus_id);
        break;
    case PCI_DOMAIN:
        snprintf(out, size, "0x%04X", pci.domain);
        break;
    case PCI_BUS:
        snprintf(out, size, "0x%02X", pci.bus);
        break;
    case PCI_DEVICE:
        snprintf(out, size, "0x%02X", pci.device);
        break;
    case PCI_DEVICE_ID:
        snprintf(out, size, "0x%08X", pci.device_id);
        break;
    default:
        snprintf(out, size, "0x%08X", pci.subsystem_id);
        break;
    }
    return rc;
}

enum uint_argument {
    MINOR, FAN, GEN_CURRENT, GEN_MAX, GEN_GPU_MAX, WIDTH_CURRENT, WIDTH_MAX, REPLAYS
};

READER(read_number)
{
    static const char *const symbols[] = {
        "nvmlDeviceGetMinorNumber",
        "nvmlDeviceGetFanSpeed",
        "nvmlDeviceGetCurrPcieLinkGeneration",
        "nvmlDeviceGetMaxPcieLinkGeneration",
        "nvmlDeviceGetGpuMaxPcieLinkGeneration",
        "nvmlDeviceGetCurrPcieLinkWidth",
        "nvmlDeviceGetMaxPcieLinkWidth",
        "nvmlDeviceGetPcieReplayCounter",
    };
    return print_uint(board, symbols[argument], out, size);
}

enum switch_argument { PERSISTENCE, DISPLAY_MODE, DISPLAY_ACTIVE };

READER(read_switch)
{
    static const char *const symbols[] = {"nvmlDeviceGetPersistenceMode", "nvmlDeviceGetDisplayMode",
                                          "nvmlDeviceGetDisplayActive"};
    return print_enabled(board, symbols[argument], out, size);
}

READER(read_display_attached)
{
    unsigned value = 0;
    nvmlReturn_t rc = read_uint(board, "nvmlDeviceGetDisplayActive", &value);

    snprintf(out, size, "%s", value ? "Yes" : "No");
    return rc;
}

READER(read_constant)
{
    static const char *const constants[] = {"HMM", "Disabled", "4000", "0x3", "0x0", "0"};
    return print_constant(out, size, constants[argument]);
}

READER(read_brand)
{
    unsigned brand = 0;
    nvmlReturn_t rc = read_uint(board, "nvmlDeviceGetBrand", &brand);

    snprintf(out, size, "%s", brand == 5 ? "GeForce" : "NVIDIA");
    return rc;
}

READER(read_architecture)
{
    unsigned value = 0;
    nvmlReturn_t rc = read_uint(board, "nvmlDeviceGetArchitecture", &value);
    static const char *const names[] = {"Turing", "Ampere", "Ada Lovelace", "Hopper", "Blackwell"};

    snprintf(out, size, "%s", value >= 6 && value <= 10 ? names[value - 6] : "Unknown");
    return rc;
}

READER(read_compute_capability)
{
    unsigned major = 0, minor = 0;
    nvmlReturn_t rc = CALL3("nvmlDeviceGetCudaComputeCapability", nvmlDevice_t, unsigned *,
                            unsigned *, board->device, &major, &minor);

    snprintf(out, size, "%u.%u", major, minor);
    return rc;
}

READER(read_inforom)
{
    nvmlReturn_t rc = CALL1("nvmlDeviceValidateInforom", nvmlDevice_t, board->device);

    if (rc == NVML_ERROR_CORRUPTED_INFOROM)
        return print_constant(out, size, "invalid");
    print_constant(out, size, "valid");
    return rc;
}

static nvmlReturn_t read_field_value(const struct board *board, unsigned id, nvmlFieldValue_t *field)
{
    *field = (nvmlFieldValue_t){.field = id};
    nvmlReturn_t rc = CALL3("nvmlDeviceGetFieldValues", nvmlDevice_t, int, nvmlFieldValue_t *,
                            board->device, 1, field);
    return rc ? rc : field->status;
}

READER(read_recovery_action)
{
    static const char *const actions[] = {"None", "Reset", "Reboot", "Drain P2P", "Drain and Reset",
                                          "IMEX", "Bus Reset", "System Reboot"};
    nvmlFieldValue_t field;
    nvmlReturn_t rc = read_field_value(board, 230, &field);

    snprintf(out, size, "%s", actions[field.value.ui & 7]);
    return rc;
}

READER(read_pstate)
{
    unsigned value = 0;
    nvmlReturn_t rc = read_uint(board, "nvmlDeviceGetPerformanceState", &value);

    snprintf(out, size, "P%u", value);
    return rc;
}

/* argument: -1 all active reasons, -2 the supported ones, else one bit. */
READER(read_reason)
{
    unsigned long long reasons = 0;
    nvmlReturn_t rc = CALL2(argument == -2 ? "nvmlDeviceGetSupportedClocksEventReasons"
                                           : "nvmlDeviceGetCurrentClocksEventReasons",
                            nvmlDevice_t, unsigned long long *, board->device, &reasons);

    if (argument < 0)
        snprintf(out, size, "0x%016llX", reasons);
    else
        snprintf(out, size, "%s",
                 reasons & (unsigned long long)argument ? "Active" : "Not Active");
    return rc;
}

/* argument: a field of NVML that counts nanoseconds. */
READER(read_reason_time)
{
    nvmlFieldValue_t field;
    nvmlReturn_t rc = read_field_value(board, (unsigned)argument, &field);

    snprintf(out, size, "%llu", field.value.ull / 1000);
    return rc;
}

static unsigned long long mebibytes(unsigned long long bytes)
{
    return (bytes + 524288) >> 20;
}

enum memory_argument { TOTAL, RESERVED, USED, FREE, BAR1_TOTAL, BAR1_USED, BAR1_FREE };

READER(read_memory)
{
    nvmlMemory_v2_t memory = {.version = NVML_MEMORY_V2};
    nvmlBAR1Memory_t bar1 = {0};
    nvmlReturn_t rc;

    if (argument >= BAR1_TOTAL) {
        rc = CALL2("nvmlDeviceGetBAR1MemoryInfo", nvmlDevice_t, nvmlBAR1Memory_t *, board->device,
                   &bar1);
    } else {
        rc = CALL2("nvmlDeviceGetMemoryInfo_v2", nvmlDevice_t, nvmlMemory_v2_t *, board->device,
                   &memory);
    }
    const unsigned long long values[] = {memory.total, memory.reserved, memory.used, memory.free,
                                         bar1.total,   bar1.used,       bar1.free};
    snprintf(out, size, "%llu", mebibytes(values[argument]));
    return rc;
}

READER(read_compute_mode)
{
    static const char *const modes[] = {"Default", "Exclusive_Thread", "Prohibited",
                                        "Exclusive_Process"};
    unsigned value = 0;
    nvmlReturn_t rc = read_uint(board, "nvmlDeviceGetComputeMode", &value);

    snprintf(out, size, "%s", modes[value & 3]);
    return rc;
}

READER(read_utilization)
{
    nvmlUtilization_t rates = {0};
    nvmlReturn_t rc = CALL2("nvmlDeviceGetUtilizationRates", nvmlDevice_t, nvmlUtilization_t *,
                            board->device, &rates);

    snprintf(out, size, "%u", argument ? rates.memory : rates.gpu);
    return rc;
}

READER(read_codec)
{
    unsigned value = 0, period = 0;
    nvmlReturn_t rc =
        CALL3(argument ? "nvmlDeviceGetDecoderUtilization" : "nvmlDeviceGetEncoderUtilization",
              nvmlDevice_t, unsigned *, unsigned *, board->device, &value, &period);

    snprintf(out, size, "%u", value);
    return rc;
}

enum mode_argument { ECC_CURRENT, ECC_PENDING, MIG_CURRENT, MIG_PENDING };

READER(read_mode)
{
    unsigned current = 0, pending = 0;
    nvmlReturn_t rc = CALL3(argument < MIG_CURRENT ? "nvmlDeviceGetEccMode" : "nvmlDeviceGetMigMode",
                            nvmlDevice_t, unsigned *, unsigned *, board->device, &current, &pending);
    unsigned value = argument == ECC_CURRENT || argument == MIG_CURRENT ? current : pending;

    snprintf(out, size, "%s", value ? "Enabled" : "Disabled");
    return rc;
}

/* argument: bit 0 uncorrected, bit 1 aggregate, bit 2 only "is there such a counter", value 0. */
READER(read_ecc)
{
    unsigned long long count = 0;
    nvmlReturn_t rc = CALL4("nvmlDeviceGetTotalEccErrors", nvmlDevice_t, unsigned, unsigned,
                            unsigned long long *, board->device, (unsigned)argument & 1,
                            (unsigned)argument >> 1 & 1, &count);

    snprintf(out, size, "%llu", argument & 4 ? 0 : count);
    return rc;
}

READER(read_sram_threshold)
{
    nvmlEccSramErrorStatus_t status = {.version = NVML_ECC_SRAM_ERROR_STATUS_V1};
    nvmlReturn_t rc = CALL2("nvmlDeviceGetSramEccErrorStatus", nvmlDevice_t,
                            nvmlEccSramErrorStatus_t *, board->device, &status);

    print_constant(out, size, status.threshold_exceeded ? "Yes" : "No");
    return rc;
}

READER(read_unrepairable)
{
    nvmlUnrepairableMemory_t status = {.version = NVML_UNREPAIRABLE_MEMORY_V1};
    nvmlReturn_t rc = CALL2("nvmlDeviceGetUnrepairableMemoryFlag_v1", nvmlDevice_t,
                            nvmlUnrepairableMemory_t *, board->device, &status);

    print_constant(out, size, status.flag ? "Yes" : "No");
    return rc;
}

READER(read_remapped)
{
    unsigned values[4] = {0};
    nvmlReturn_t rc =
        ((nvmlReturn_t(*)(nvmlDevice_t, unsigned *, unsigned *, unsigned *, unsigned *))(void (*)(
            void))function("nvmlDeviceGetRemappedRows"))(board->device, &values[0], &values[1],
                                                         &values[2], &values[3]);

    if (argument < 2)
        snprintf(out, size, "%u", values[argument]);
    else
        snprintf(out, size, "%s", values[argument] ? "Yes" : "No");
    return rc;
}

READER(read_retired)
{
    unsigned count = 0;
    nvmlReturn_t rc = CALL4("nvmlDeviceGetRetiredPages", nvmlDevice_t, unsigned, unsigned *, void *,
                            board->device, (unsigned)argument, &count, NULL);

    snprintf(out, size, "%u", count);
    return rc == NVML_ERROR_INSUFFICIENT_SIZE ? NVML_SUCCESS : rc; /* no list was asked for */
}

READER(read_retired_pending)
{
    unsigned value = 0;
    nvmlReturn_t rc = read_uint(board, "nvmlDeviceGetRetiredPagesPendingStatus", &value);

    snprintf(out, size, "%s", value ? "Yes" : "No");
    return rc;
}

READER(read_temperature)
{
    nvmlTemperature_t temperature = {.version = NVML_TEMPERATURE_V1};
    nvmlReturn_t rc = CALL2("nvmlDeviceGetTemperatureV", nvmlDevice_t, nvmlTemperature_t *,
                            board->device, &temperature);

    snprintf(out, size, "%d", temperature.temperature);
    return rc;
}

READER(read_margin)
{
    nvmlMarginTemperature_t margin = {.version = NVML_MARGIN_TEMPERATURE_V1};
    nvmlReturn_t rc = CALL2("nvmlDeviceGetMarginTemperature", nvmlDevice_t,
                            nvmlMarginTemperature_t *, board->device, &margin);

    snprintf(out, size, "%d", margin.margin);
    return rc;
}

READER(read_threshold)
{
    unsigned value = 0;
    nvmlReturn_t rc = CALL3("nvmlDeviceGetTemperatureThreshold", nvmlDevice_t, unsigned, unsigned *,
                            board->device, (unsigned)argument, &value);

    snprintf(out, size, "%u", value);
    return rc;
}

/* argument: a field of NVML that holds degrees. */
READER(read_field_degrees)
{
    nvmlFieldValue_t field;
    nvmlReturn_t rc = read_field_value(board, (unsigned)argument, &field);

    snprintf(out, size, "%d", field.value.si);
    return rc;
}

enum power_argument { DRAW, LIMIT, ENFORCED, DEFAULT };

READER(read_power)
{
    static const char *const symbols[] = {
        "nvmlDeviceGetPowerUsage", "nvmlDeviceGetPowerManagementLimit",
        "nvmlDeviceGetEnforcedPowerLimit", "nvmlDeviceGetPowerManagementDefaultLimit"};
    return print_watts(board, symbols[argument], out, size);
}

/* argument: a field of NVML that holds milliwatts. */
READER(read_field_watts)
{
    nvmlFieldValue_t field;
    nvmlReturn_t rc = read_field_value(board, (unsigned)argument, &field);

    snprintf(out, size, "%u.%02u", field.value.ui / 1000, field.value.ui % 1000 / 10);
    return rc;
}

READER(read_power_constraint)
{
    unsigned least = 0, most = 0;
    nvmlReturn_t rc = CALL3("nvmlDeviceGetPowerManagementLimitConstraints", nvmlDevice_t, unsigned *,
                            unsigned *, board->device, &least, &most);
    unsigned value = argument ? most : least;

    snprintf(out, size, "%u.%02u", value / 1000, value % 1000 / 10);
    return rc;
}

READER(read_power_management)
{
    return print_enabled(board, "nvmlDeviceGetPowerManagementMode", out, size);
}

/* argument: the clock's type; +16 its maximum; +32 the applications clock. */
READER(read_clock)
{
    const char *symbol = argument & 32   ? "nvmlDeviceGetApplicationsClock"
                         : argument & 16 ? "nvmlDeviceGetMaxClockInfo"
                                         : "nvmlDeviceGetClockInfo";
    unsigned value = 0;
    nvmlReturn_t rc = CALL3(symbol, nvmlDevice_t, unsigned, unsigned *, board->device,
                            (unsigned)argument & 15, &value);

    snprintf(out, size, "%u", value);
    return rc;
}

READER(read_throughput)
{
    unsigned value = 0;
    nvmlReturn_t rc = CALL3("nvmlDeviceGetPcieThroughput", nvmlDevice_t, unsigned, unsigned *,
                            board->device, (unsigned)argument, &value);

    snprintf(out, size, "%u", value);
    return rc;
}

/* In the order of --help-query-gpu; names in use before the 535 branch stand in the second column. */
static const struct field FIELDS[] = {
    {"timestamp", NULL, PLAIN, read_timestamp, 0},
    {"driver_version", NULL, PLAIN, read_driver_version, 0},
    {"count", NULL, PLAIN, read_count, 0},
    {"name", "gpu_name", PLAIN, read_text, NAME},
    {"serial", "gpu_serial", PLAIN, read_text, SERIAL},
    {"uuid", "gpu_uuid", PLAIN, read_text, UUID},
    {"pci.bus_id", "gpu_bus_id", PLAIN, read_pci, PCI_BUS_ID},
    {"pci.domain", NULL, PLAIN, read_pci, PCI_DOMAIN},
    {"pci.bus", NULL, PLAIN, read_pci, PCI_BUS},
    {"pci.device", NULL, PLAIN, read_pci, PCI_DEVICE},
    {"pci.baseClass", NULL, PLAIN, read_constant, 3},
    {"pci.subClass", NULL, PLAIN, read_constant, 4},
    {"pci.device_id", NULL, PLAIN, read_pci, PCI_DEVICE_ID},
    {"pci.sub_device_id", NULL, PLAIN, read_pci, PCI_SUBSYSTEM},
    {"pcie.link.gen.current", NULL, PLAIN, read_number, GEN_CURRENT},
    {"pcie.link.gen.gpucurrent", NULL, PLAIN, read_number, GEN_CURRENT},
    {"pcie.link.gen.max", NULL, PLAIN, read_number, GEN_MAX},
    {"pcie.link.gen.gpumax", NULL, PLAIN, read_number, GEN_GPU_MAX},
    {"pcie.link.gen.hostmax", NULL, PLAIN, read_number, GEN_MAX},
    {"pcie.link.width.current", NULL, PLAIN, read_number, WIDTH_CURRENT},
    {"pcie.link.width.max", NULL, PLAIN, read_number, WIDTH_MAX},
    {"index", NULL, PLAIN, read_index, 0},
    {"display_mode", NULL, PLAIN, read_switch, DISPLAY_MODE},
    {"display_attached", NULL, PLAIN, read_display_attached, 0},
    {"display_active", NULL, PLAIN, read_switch, DISPLAY_ACTIVE},
    {"persistence_mode", NULL, PLAIN, read_switch, PERSISTENCE},
    {"addressing_mode", NULL, PLAIN, read_constant, 0},
    {"accounting.mode", NULL, PLAIN, read_constant, 1},
    {"accounting.buffer_size", NULL, PLAIN, read_constant, 2},
    {"driver_model.current", NULL, PLAIN, read_unsupported, 0},
    {"driver_model.pending", NULL, PLAIN, read_unsupported, 0},
    {"vbios_version", NULL, PLAIN, read_text, VBIOS},
    {"inforom.img", "inforom.image", PLAIN, read_unsupported, 0},
    {"inforom.oem", NULL, PLAIN, read_unsupported, 0},
    {"inforom.ecc", NULL, PLAIN, read_unsupported, 0},
    {"inforom.pwr", "inforom.power", PLAIN, read_unsupported, 0},
    {"inforom.checksum_validation", NULL, PLAIN, read_inforom, 0},
    {"gpu_recovery_action", NULL, PLAIN, read_recovery_action, 0},
    {"gom.current", NULL, PLAIN, read_unsupported, 0},
    {"gom.pending", NULL, PLAIN, read_unsupported, 0},
    {"fan.speed", NULL, PERCENT, read_number, FAN},
    {"pstate", NULL, PLAIN, read_pstate, 0},
    {"clocks_event_reasons.supported", "clocks_throttle_reasons.supported", PLAIN, read_reason, -2},
    {"clocks_event_reasons.active", "clocks_throttle_reasons.active", PLAIN, read_reason, -1},
    {"clocks_event_reasons.gpu_idle", "clocks_throttle_reasons.gpu_idle", PLAIN, read_reason,
     NVML_REASON_GPU_IDLE},
    {"clocks_event_reasons.applications_clocks_setting",
     "clocks_throttle_reasons.applications_clocks_setting", PLAIN, read_reason,
     NVML_REASON_APPLICATIONS_CLOCKS},
    {"clocks_event_reasons.sw_power_cap", "clocks_throttle_reasons.sw_power_cap", PLAIN, read_reason,
     NVML_REASON_SW_POWER_CAP},
    {"clocks_event_reasons.hw_slowdown", "clocks_throttle_reasons.hw_slowdown", PLAIN, read_reason,
     NVML_REASON_HW_SLOWDOWN},
    {"clocks_event_reasons.hw_thermal_slowdown", "clocks_throttle_reasons.hw_thermal_slowdown", PLAIN,
     read_reason, NVML_REASON_HW_THERMAL},
    {"clocks_event_reasons.hw_power_brake_slowdown",
     "clocks_throttle_reasons.hw_power_brake_slowdown", PLAIN, read_reason,
     NVML_REASON_HW_POWER_BRAKE},
    {"clocks_event_reasons.sw_thermal_slowdown", "clocks_throttle_reasons.sw_thermal_slowdown", PLAIN,
     read_reason, NVML_REASON_SW_THERMAL},
    {"clocks_event_reasons.sync_boost", "clocks_throttle_reasons.sync_boost", PLAIN, read_reason,
     NVML_REASON_SYNC_BOOST},
    {"clocks_event_reasons_counters.sw_power_cap", NULL, MICROSECONDS, read_reason_time, 74},
    {"clocks_event_reasons_counters.sync_boost", NULL, MICROSECONDS, read_reason_time, 76},
    {"clocks_event_reasons_counters.sw_thermal_slowdown", NULL, MICROSECONDS, read_reason_time, 269},
    {"clocks_event_reasons_counters.hw_thermal_slowdown", NULL, MICROSECONDS, read_reason_time, 270},
    {"clocks_event_reasons_counters.hw_power_brake_slowdown", NULL, MICROSECONDS, read_reason_time,
     271},
    {"memory.total", NULL, MEBIBYTES, read_memory, TOTAL},
    {"memory.reserved", NULL, MEBIBYTES, read_memory, RESERVED},
    {"memory.used", NULL, MEBIBYTES, read_memory, USED},
    {"memory.free", NULL, MEBIBYTES, read_memory, FREE},
    {"compute_mode", NULL, PLAIN, read_compute_mode, 0},
    {"compute_cap", NULL, PLAIN, read_compute_capability, 0},
    {"utilization.gpu", NULL, PERCENT, read_utilization, 0},
    {"utilization.memory", NULL, PERCENT, read_utilization, 1},
    {"utilization.encoder", NULL, PERCENT, read_codec, 0},
    {"utilization.decoder", NULL, PERCENT, read_codec, 1},
    {"utilization.jpeg", NULL, PERCENT, read_constant, 5},
    {"utilization.ofa", NULL, PERCENT, read_constant, 5},
    {"encoder.stats.sessionCount", NULL, PLAIN, read_constant, 5},
    {"encoder.stats.averageFps", NULL, PLAIN, read_constant, 5},
    {"encoder.stats.averageLatency", NULL, PLAIN, read_constant, 5},
    {"ecc.mode.current", NULL, PLAIN, read_mode, ECC_CURRENT},
    {"ecc.mode.pending", NULL, PLAIN, read_mode, ECC_PENDING},
    {"ecc.errors.corrected.volatile.dram", "ecc.errors.corrected.volatile.device_memory", PLAIN,
     read_ecc, 0},
    {"ecc.errors.corrected.volatile.sram", NULL, PLAIN, read_ecc, 4},
    {"ecc.errors.corrected.volatile.total", NULL, PLAIN, read_ecc, 0},
    {"ecc.errors.corrected.aggregate.dram", "ecc.errors.corrected.aggregate.device_memory", PLAIN,
     read_ecc, 2},
    {"ecc.errors.corrected.aggregate.sram", NULL, PLAIN, read_ecc, 6},
    {"ecc.errors.corrected.aggregate.total", NULL, PLAIN, read_ecc, 2},
    {"ecc.errors.uncorrected.volatile.dram", "ecc.errors.uncorrected.volatile.device_memory", PLAIN,
     read_ecc, 1},
    {"ecc.errors.uncorrected.volatile.sram", NULL, PLAIN, read_ecc, 5},
    {"ecc.errors.uncorrected.volatile.total", NULL, PLAIN, read_ecc, 1},
    {"ecc.errors.uncorrected.aggregate.dram", "ecc.errors.uncorrected.aggregate.device_memory", PLAIN,
     read_ecc, 3},
    {"ecc.errors.uncorrected.aggregate.sram", NULL, PLAIN, read_ecc, 7},
    {"ecc.errors.uncorrected.aggregate.total", NULL, PLAIN, read_ecc, 3},
    {"retired_pages.single_bit_ecc.count", "retired_pages.sbe", PLAIN, read_retired, 0},
    {"retired_pages.double_bit.count", "retired_pages.dbe", PLAIN, read_retired, 1},
    {"retired_pages.pending", NULL, PLAIN, read_retired_pending, 0},
    {"remapped_rows.correctable", NULL, PLAIN, read_remapped, 0},
    {"remapped_rows.uncorrectable", NULL, PLAIN, read_remapped, 1},
    {"remapped_rows.pending", NULL, PLAIN, read_remapped, 2},
    {"remapped_rows.failure", NULL, PLAIN, read_remapped, 3},
    {"temperature.gpu", NULL, CELSIUS, read_temperature, 0},
    {"temperature.gpu.tlimit", NULL, CELSIUS, read_margin, 0},
    {"temperature.memory", NULL, CELSIUS, read_field_degrees, 82},
    {"power.management", NULL, PLAIN, read_power_management, 0},
    {"power.draw", NULL, WATTS, read_power, DRAW},
    {"power.draw.average", NULL, WATTS, read_field_watts, 185},
    {"power.draw.instant", NULL, WATTS, read_field_watts, 186},
    {"power.limit", NULL, WATTS, read_power, LIMIT},
    {"enforced.power.limit", NULL, WATTS, read_power, ENFORCED},
    {"power.default_limit", NULL, WATTS, read_power, DEFAULT},
    {"power.min_limit", NULL, WATTS, read_power_constraint, 0},
    {"power.max_limit", NULL, WATTS, read_power_constraint, 1},
    {"clocks.current.graphics", "clocks.gr", MEGAHERTZ, read_clock, NVML_CLOCK_GRAPHICS},
    {"clocks.current.sm", "clocks.sm", MEGAHERTZ, read_clock, NVML_CLOCK_SM},
    {"clocks.current.memory", "clocks.mem", MEGAHERTZ, read_clock, NVML_CLOCK_MEM},
    {"clocks.current.video", "clocks.video", MEGAHERTZ, read_clock, NVML_CLOCK_VIDEO},
    {"clocks.applications.graphics", "clocks.applications.gr", MEGAHERTZ, read_clock, 32},
    {"clocks.applications.memory", "clocks.applications.mem", MEGAHERTZ, read_clock, 34},
    {"clocks.default_applications.graphics", "clocks.default_applications.gr", MEGAHERTZ, read_clock,
     32},
    {"clocks.default_applications.memory", "clocks.default_applications.mem", MEGAHERTZ, read_clock,
     34},
    {"clocks.max.graphics", "clocks.max.gr", MEGAHERTZ, read_clock, 16},
    {"clocks.max.sm", NULL, MEGAHERTZ, read_clock, 17},
    {"clocks.max.memory", "clocks.max.mem", MEGAHERTZ, read_clock, 18},
    {"mig.mode.current", NULL, PLAIN, read_mode, MIG_CURRENT},
    {"mig.mode.pending", NULL, PLAIN, read_mode, MIG_PENDING},
    {0},
};

static const struct field *find_field(const char *name)
{
    for (const struct field *field = FIELDS; field->name; field++)
        if (!strcmp(field->name, name) || (field->alias && !strcmp(field->alias, name)))
            return field;
    return NULL;
}

/* ---------------------------------------------------------------- processes */

static nvmlReturn_t read_processes(const struct board *board, nvmlProcessInfo_t *infos,
                                   unsigned *count)
{
    *count = MAX_PROCESSES;
    nvmlReturn_t rc = CALL3("nvmlDeviceGetComputeRunningProcesses_v3", nvmlDevice_t, unsigned *,
                            nvmlProcessInfo_t *, board->device, count, infos);
    if (rc)
        *count = 0;
    return rc;
}

struct process {
    nvmlProcessInfo_t info;
    const char *type;
};

/* All processes of a GPU, those that compute first. */
static nvmlReturn_t read_all_processes(const struct board *board, struct process *out,
                                       unsigned *count)
{
    static nvmlProcessInfo_t infos[MAX_PROCESSES];
    unsigned found;

    nvmlReturn_t rc = read_processes(board, infos, count);
    if (rc)
        return rc;
    for (unsigned i = 0; i < *count; i++)
        out[i] = (struct process){infos[i], "C"};
    found = MAX_PROCESSES;
    rc = CALL3("nvmlDeviceGetGraphicsRunningProcesses_v3", nvmlDevice_t, unsigned *,
               nvmlProcessInfo_t *, board->device, &found, infos);
    for (unsigned i = 0; !rc && i < found; i++) {
        unsigned p = 0;
        while (p < *count && out[p].info.pid != infos[i].pid)
            p++;
        if (p < *count)
            out[p].type = "C+G";
        else if (*count < MAX_PROCESSES)
            out[(*count)++] = (struct process){infos[i], "G"};
    }
    return rc;
}

static void process_name(unsigned pid, char *out, unsigned size)
{
    if (CALL3("nvmlSystemGetProcessName", unsigned, char *, unsigned, pid, out, size))
        snprintf(out, size, "[Not Found]");
}

/* ---------------------------------------------------------------- XML */

static void xml_escape(const char *text)
{
    for (; *text; text++)
        switch (*text) {
        case '&':
            fputs("&amp;", stdout);
            break;
        case '<':
            fputs("&lt;", stdout);
            break;
        case '>':
            fputs("&gt;", stdout);
            break;
        case '"':
            fputs("&quot;", stdout);
            break;
        default:
            if ((unsigned char)*text >= 0x20)
                putchar(*text);
        }
}

static int depth;

static void xml_open(const char *tag)
{
    printf("%*.*s<%s>\n", depth, depth, "\t\t\t\t\t\t\t\t", tag);
    depth++;
}

static void xml_close(const char *tag)
{
    depth--;
    printf("%*.*s</%s>\n", depth, depth, "\t\t\t\t\t\t\t\t", tag);
}

static void xml_text(const char *tag, const char *text)
{
    printf("%*.*s<%s>", depth, depth, "\t\t\t\t\t\t\t\t", tag);
    xml_escape(text);
    printf("</%s>\n", tag);
}

/* A field of the CSV output, with the unit that the XML output gives it. */
static void xml_field_as(const struct board *board, const char *tag, const char *name,
                         const char *unit)
{
    const struct field *field = find_field(name);
    char value[256] = "";
    char text[300];

    nvmlReturn_t rc = field->read(board, value, sizeof(value), field->argument);
    if (rc)
        snprintf(text, sizeof(text), "%s", error_text(rc));
    else
        snprintf(text, sizeof(text), "%s%s", value, unit);
    xml_text(tag, text);
}

static void xml_field(const struct board *board, const char *tag, const char *name)
{
    static const char *const units[] = {"", " %", " MiB", " W", " MHz", " us", " C"};

    xml_field_as(board, tag, name, units[find_field(name)->unit]);
}

/* Opens TAG, writes the tags with one text, closes TAG; the list of tags ends with NULL. */
static void xml_group(const char *tag, const char *text, ...)
{
    va_list tags;

    xml_open(tag);
    va_start(tags, text);
    for (const char *inner; (inner = va_arg(tags, const char *));)
        xml_text(inner, text);
    va_end(tags);
    xml_close(tag);
}

static void xml_reader(const struct board *board, const char *tag, const char *unit, int argument,
                       nvmlReturn_t (*read)(const struct board *, char *, size_t, int))
{
    char value[256] = "";
    char text[300];

    nvmlReturn_t rc = read(board, value, sizeof(value), argument);
    if (rc)
        snprintf(text, sizeof(text), "%s", error_text(rc));
    else
        snprintf(text, sizeof(text), "%s%s", value, unit);
    xml_text(tag, text);
}

static void xml_identity(const struct board *board)
{
    xml_field(board, "product_name", "name");
    xml_reader(board, "product_brand", "", 0, read_brand);
    xml_reader(board, "product_architecture", "", 0, read_architecture);
    xml_field(board, "display_mode", "display_mode");
    xml_field(board, "display_attached", "display_attached");
    xml_field(board, "display_active", "display_active");
    xml_field(board, "persistence_mode", "persistence_mode");
    xml_field(board, "addressing_mode", "addressing_mode");
    xml_open("mig_mode");
    xml_field(board, "current_mig", "mig.mode.current");
    xml_field(board, "pending_mig", "mig.mode.pending");
    xml_close("mig_mode");
    xml_text("mig_devices", "None");
    xml_text("accounting_mode", "Disabled");
    xml_text("accounting_mode_buffer_size", "4000");
    xml_group("driver_model", "N/A", "current_dm", "pending_dm", NULL);
    xml_field(board, "serial", "serial");
    xml_field(board, "uuid", "uuid");
    xml_reader(board, "minor_number", "", MINOR, read_number);
    xml_field(board, "vbios_version", "vbios_version");
    xml_text("multigpu_board", "No");
    xml_text("board_id", "0x100");
    xml_text("board_part_number", "N/A");
    xml_text("gpu_part_number", "N/A");
    xml_text("gpu_fru_part_number", "N/A");
    xml_group("platformInfo", "N/A", "chassis_serial_number", "slot_number", "tray_index", "host_id",
              "peer_type", "module_id", "gpu_fabric_guid", NULL);
    xml_group("inforom_version", "N/A", "img_version", "oem_object", "ecc_object", "pwr_object",
              NULL);
    xml_group("inforom_bbx_flush", "N/A", "latest_timestamp", "latest_duration", NULL);
    xml_group("gpu_operation_mode", "N/A", "current_gom", "pending_gom", NULL);
    xml_text("c2c_mode", "N/A");
    xml_open("gpu_virtualization_mode");
    xml_text("virtualization_mode", "None");
    xml_text("host_vgpu_mode", "N/A");
    xml_text("vgpu_heterogeneous_mode", "N/A");
    xml_close("gpu_virtualization_mode");
    xml_group("gpu_reset_status", "Requested functionality has been deprecated", "reset_required",
              "drain_and_reset_recommended", NULL);
    xml_field(board, "gpu_recovery_action", "gpu_recovery_action");
    xml_field(board, "gsp_firmware_version", "driver_version");
    xml_group("ibmnpu", "N/A", "relaxed_ordering_mode", NULL);
}

static void xml_pci(const struct board *board)
{
    nvmlPciInfo_t pci = {0};
    char text[16];

    CALL2("nvmlDeviceGetPciInfo_v3", nvmlDevice_t, nvmlPciInfo_t *, board->device, &pci);
    xml_open("pci");
    snprintf(text, sizeof(text), "%02X", pci.bus);
    xml_text("pci_bus", text);
    snprintf(text, sizeof(text), "%02X", pci.device);
    xml_text("pci_device", text);
    snprintf(text, sizeof(text), "%04X", pci.domain);
    xml_text("pci_domain", text);
    xml_text("pci_base_class", "3");
    xml_text("pci_sub_class", "0");
    snprintf(text, sizeof(text), "%08X", pci.device_id);
    xml_text("pci_device_id", text);
    xml_field(board, "pci_bus_id", "pci.bus_id");
    snprintf(text, sizeof(text), "%08X", pci.subsystem_id);
    xml_text("pci_sub_system_id", text);
    xml_open("pci_gpu_link_info");
    xml_open("pcie_gen");
    xml_field(board, "max_link_gen", "pcie.link.gen.max");
    xml_field(board, "current_link_gen", "pcie.link.gen.current");
    xml_field(board, "device_current_link_gen", "pcie.link.gen.gpucurrent");
    xml_field(board, "max_device_link_gen", "pcie.link.gen.gpumax");
    xml_field(board, "max_host_link_gen", "pcie.link.gen.hostmax");
    xml_close("pcie_gen");
    xml_open("link_widths");
    xml_field_as(board, "max_link_width", "pcie.link.width.max", "x");
    xml_field_as(board, "current_link_width", "pcie.link.width.current", "x");
    xml_close("link_widths");
    xml_close("pci_gpu_link_info");
    xml_group("pci_bridge_chip", "N/A", "bridge_chip_type", "bridge_chip_fw", NULL);
    xml_reader(board, "replay_counter", "", REPLAYS, read_number);
    xml_text("replay_rollover_counter", "0");
    xml_reader(board, "tx_util", " KB/s", 0, read_throughput);
    xml_reader(board, "rx_util", " KB/s", 1, read_throughput);
    xml_text("atomic_caps_outbound", "N/A");
    xml_text("atomic_caps_inbound", "N/A");
    xml_close("pci");
}

static void xml_clock_reasons(const struct board *board)
{
    xml_open("clocks_event_reasons");
    xml_field(board, "clocks_event_reason_gpu_idle", "clocks_event_reasons.gpu_idle");
    xml_field(board, "clocks_event_reason_applications_clocks_setting",
              "clocks_event_reasons.applications_clocks_setting");
    xml_field(board, "clocks_event_reason_sw_power_cap", "clocks_event_reasons.sw_power_cap");
    xml_field(board, "clocks_event_reason_hw_slowdown", "clocks_event_reasons.hw_slowdown");
    xml_field(board, "clocks_event_reason_hw_thermal_slowdown",
              "clocks_event_reasons.hw_thermal_slowdown");
    xml_field(board, "clocks_event_reason_hw_power_brake_slowdown",
              "clocks_event_reasons.hw_power_brake_slowdown");
    xml_field(board, "clocks_event_reason_sync_boost", "clocks_event_reasons.sync_boost");
    xml_field(board, "clocks_event_reason_sw_thermal_slowdown",
              "clocks_event_reasons.sw_thermal_slowdown");
    xml_reader(board, "clocks_event_reason_display_clocks_setting", "", NVML_REASON_DISPLAY_CLOCKS,
               read_reason);
    if (driver_major() >= 615) {
        xml_reader(board, "clocks_event_reason_board_limit", "", NVML_REASON_BOARD_LIMIT,
                   read_reason);
        xml_reader(board, "clocks_event_reason_reliability", "", NVML_REASON_RELIABILITY,
                   read_reason);
    }
    xml_close("clocks_event_reasons");
    xml_open("clocks_event_reasons_counters");
    xml_field(board, "clocks_event_reasons_counters_sw_power_cap",
              "clocks_event_reasons_counters.sw_power_cap");
    xml_field(board, "clocks_event_reasons_counters_sync_boost",
              "clocks_event_reasons_counters.sync_boost");
    xml_field(board, "clocks_event_reasons_counters_sw_therm_slowdown",
              "clocks_event_reasons_counters.sw_thermal_slowdown");
    xml_field(board, "clocks_event_reasons_counters_hw_therm_slowdown",
              "clocks_event_reasons_counters.hw_thermal_slowdown");
    xml_field(board, "clocks_event_reasons_counters_hw_power_brake",
              "clocks_event_reasons_counters.hw_power_brake_slowdown");
    xml_close("clocks_event_reasons_counters");
}

static void xml_memory_and_load(const struct board *board)
{
    xml_open("fb_memory_usage");
    xml_field(board, "total", "memory.total");
    xml_field(board, "reserved", "memory.reserved");
    xml_field(board, "used", "memory.used");
    xml_field(board, "free", "memory.free");
    xml_close("fb_memory_usage");
    xml_open("bar1_memory_usage");
    xml_reader(board, "total", " MiB", BAR1_TOTAL, read_memory);
    xml_reader(board, "used", " MiB", BAR1_USED, read_memory);
    xml_reader(board, "free", " MiB", BAR1_FREE, read_memory);
    xml_close("bar1_memory_usage");
    xml_group("cc_protected_memory_usage", "0 MiB", "total", "used", "free", NULL);
    xml_field(board, "compute_mode", "compute_mode");
    xml_open("utilization");
    xml_field(board, "gpu_util", "utilization.gpu");
    xml_field(board, "memory_util", "utilization.memory");
    xml_field(board, "encoder_util", "utilization.encoder");
    xml_field(board, "decoder_util", "utilization.decoder");
    xml_field(board, "jpeg_util", "utilization.jpeg");
    xml_field(board, "ofa_util", "utilization.ofa");
    xml_close("utilization");
    xml_group("encoder_stats", "0", "session_count", "average_fps", "average_latency", NULL);
    xml_group("fbc_stats", "0", "session_count", "average_fps", "average_latency", NULL);
}

static void xml_ecc_counters(const struct board *board, const char *tag, int aggregate,
                             bool turing)
{
    xml_open(tag);
    xml_reader(board, "sram_correctable", "", 4 | aggregate, read_ecc);
    if (turing) { /* that generation doesn't tell the kinds apart */
        xml_reader(board, "sram_uncorrectable", "", 5 | aggregate, read_ecc);
    } else {
        xml_reader(board, "sram_uncorrectable_parity", "", 5 | aggregate, read_ecc);
        xml_reader(board, "sram_uncorrectable_secded", "", 5 | aggregate, read_ecc);
    }
    xml_reader(board, "dram_correctable", "", aggregate, read_ecc);
    xml_reader(board, "dram_uncorrectable", "", 1 | aggregate, read_ecc);
    if (aggregate && !turing)
        xml_reader(board, "sram_threshold_exceeded", "", 0, read_sram_threshold);
    xml_close(tag);
}

static void xml_retired(const struct board *board, const char *tag, const char *name)
{
    xml_open(tag);
    xml_field(board, "retired_count", name);
    xml_text("retired_pagelist", "N/A");
    xml_close(tag);
}

static void xml_memory_health(const struct board *board)
{
    static const char *const sources[] = {"sram_l2", "sram_sm", "sram_microcontroller", "sram_pcie",
                                          "sram_other"};
    char text[32];

    xml_group("dram_encryption_mode", "N/A", "current_dram_encryption", "pending_dram_encryption",
              NULL);
    xml_open("ecc_mode");
    xml_field(board, "current_ecc", "ecc.mode.current");
    xml_field(board, "pending_ecc", "ecc.mode.pending");
    xml_close("ecc_mode");
    unsigned architecture = 0;
    read_uint(board, "nvmlDeviceGetArchitecture", &architecture);
    bool turing = architecture == NVML_ARCHITECTURE_TURING;
    xml_open("ecc_errors");
    xml_ecc_counters(board, "volatile", 0, turing);
    xml_ecc_counters(board, "aggregate", 2, turing);
    if (!turing) {
        xml_open("aggregate_uncorrectable_sram_sources");
        for (size_t i = 0; i < sizeof(sources) / sizeof(sources[0]); i++)
            xml_reader(board, sources[i], "", 7, read_ecc);
        xml_close("aggregate_uncorrectable_sram_sources");
        xml_text("channel_repair_pending", "No");
        xml_text("tpc_repair_pending", "No");
        if (driver_major() >= 580) /* since a release of that branch */
            xml_reader(board, "unrepairable_memory", "", 0, read_unrepairable);
    }
    xml_close("ecc_errors");
    xml_open("retired_pages");
    xml_retired(board, "multiple_single_bit_retirement", "retired_pages.single_bit_ecc.count");
    xml_retired(board, "double_bit_retirement", "retired_pages.double_bit.count");
    xml_field(board, "pending_blacklist", "retired_pages.pending");
    xml_field(board, "pending_retirement", "retired_pages.pending");
    xml_close("retired_pages");
    nvmlReturn_t rc = read_remapped(board, text, sizeof(text), 0);
    if (rc) {
        xml_text("remapped_rows", error_text(rc));
        return;
    }
    xml_open("remapped_rows");
    xml_field(board, "remapped_row_corr", "remapped_rows.correctable");
    xml_field(board, "remapped_row_unc", "remapped_rows.uncorrectable");
    xml_field(board, "remapped_row_pending", "remapped_rows.pending");
    xml_field(board, "remapped_row_failure", "remapped_rows.failure");
    xml_close("remapped_rows");
}

static void xml_temperature(const struct board *board)
{
    char text[32];
    bool tlimit = !read_margin(board, text, sizeof(text), 0);

    xml_open("temperature");
    xml_field(board, "gpu_temp", "temperature.gpu");
    xml_field(board, "gpu_temp_tlimit", "temperature.gpu.tlimit");
    if (tlimit) {
        xml_reader(board, "gpu_temp_max_tlimit_threshold", " C", 193, read_field_degrees);
        xml_reader(board, "gpu_temp_slow_tlimit_threshold", " C", 194, read_field_degrees);
        xml_reader(board, "gpu_temp_max_gpu_tlimit_threshold", " C", 196, read_field_degrees);
    } else {
        xml_reader(board, "gpu_temp_max_threshold", " C", NVML_TEMPERATURE_THRESHOLD_SHUTDOWN,
                   read_threshold);
        xml_reader(board, "gpu_temp_slow_threshold", " C", NVML_TEMPERATURE_THRESHOLD_SLOWDOWN,
                   read_threshold);
        xml_reader(board, "gpu_temp_max_gpu_threshold", " C", NVML_TEMPERATURE_THRESHOLD_GPU_MAX,
                   read_threshold);
    }
    xml_reader(board, "gpu_target_temperature", " C", NVML_TEMPERATURE_THRESHOLD_ACOUSTIC_CURR,
               read_threshold);
    xml_field(board, "memory_temp", "temperature.memory");
    if (tlimit)
        xml_reader(board, "gpu_temp_max_mem_tlimit_threshold", " C", 195, read_field_degrees);
    else
        xml_reader(board, "gpu_temp_max_mem_threshold", " C", NVML_TEMPERATURE_THRESHOLD_MEM_MAX,
                   read_threshold);
    xml_close("temperature");
    xml_group("supported_gpu_target_temp", "N/A", "gpu_target_temp_min", "gpu_target_temp_max", NULL);
}

static void xml_power(const struct board *board)
{
    xml_open("gpu_power_readings");
    xml_field(board, "power_state", "pstate");
    xml_field(board, "average_power_draw", "power.draw.average");
    xml_field(board, "instant_power_draw", "power.draw.instant");
    if (driver_major() >= 610) { /* what stands behind it is kept for older readers */
        xml_open("gpu_ceiling_power_limit");
        xml_field(board, "current_power_limit", "enforced.power.limit");
        xml_field(board, "requested_power_limit", "power.limit");
        xml_field(board, "default_power_limit", "power.default_limit");
        xml_close("gpu_ceiling_power_limit");
    }
    xml_field(board, "current_power_limit", "enforced.power.limit");
    xml_field(board, "requested_power_limit", "power.limit");
    xml_field(board, "default_power_limit", "power.default_limit");
    xml_field(board, "min_power_limit", "power.min_limit");
    xml_field(board, "max_power_limit", "power.max_limit");
    xml_close("gpu_power_readings");
    xml_group("gpu_memory_power_readings", "N/A", "average_power_draw", "instant_power_draw", NULL);
    xml_open("module_power_readings");
    xml_field(board, "power_state", "pstate");
    static const char *const tags[] = {"average_power_draw",    "instant_power_draw",
                                       "current_power_limit",   "requested_power_limit",
                                       "default_power_limit",   "min_power_limit",
                                       "max_power_limit"};
    for (size_t i = 0; i < sizeof(tags) / sizeof(tags[0]); i++)
        xml_text(tags[i], "N/A");
    xml_close("module_power_readings");
    xml_text("power_smoothing", "N/A");
    xml_group("power_profiles", "N/A", "power_profile_requested_profiles",
              "power_profile_enforced_profiles", NULL);
}

static void xml_clocks(const struct board *board)
{
    xml_open("clocks");
    xml_field(board, "graphics_clock", "clocks.current.graphics");
    xml_field(board, "sm_clock", "clocks.current.sm");
    xml_field(board, "mem_clock", "clocks.current.memory");
    xml_field(board, "video_clock", "clocks.current.video");
    xml_close("clocks");
    xml_open("applications_clocks");
    xml_field(board, "graphics_clock", "clocks.applications.graphics");
    xml_field(board, "mem_clock", "clocks.applications.memory");
    xml_close("applications_clocks");
    xml_open("default_applications_clocks");
    xml_field(board, "graphics_clock", "clocks.default_applications.graphics");
    xml_field(board, "mem_clock", "clocks.default_applications.memory");
    xml_close("default_applications_clocks");
    xml_group("deferred_clocks", "N/A", "mem_clock", NULL);
    xml_open("max_clocks");
    xml_field(board, "graphics_clock", "clocks.max.graphics");
    xml_field(board, "sm_clock", "clocks.max.sm");
    xml_field(board, "mem_clock", "clocks.max.memory");
    xml_reader(board, "video_clock", " MHz", 16 | NVML_CLOCK_VIDEO, read_clock);
    xml_close("max_clocks");
    xml_group("max_customer_boost_clocks", "N/A", "graphics_clock", NULL);
    xml_group("clock_policy", "N/A", "auto_boost", "auto_boost_default", NULL);
    xml_group("voltage", "Requested functionality has been deprecated", "graphics_volt", NULL);
    xml_open("fabric");
    xml_text("state", "N/A");
    xml_text("status", "N/A");
    xml_text("cliqueId", "N/A");
    xml_text("clusterUuid", "N/A");
    xml_group("health", "N/A", "bandwidth", "route_recovery_in_progress", "route_unhealthy",
              "access_timeout_recovery", NULL);
    xml_close("fabric");
    xml_text("supported_clocks", "N/A");
}

static void xml_processes(const struct board *board)
{
    static struct process processes[MAX_PROCESSES];
    char text[300];
    unsigned count;

    nvmlReturn_t rc = read_all_processes(board, processes, &count);
    if (rc) {
        xml_text("processes", error_text(rc));
    } else {
        xml_open("processes");
        for (unsigned i = 0; i < count; i++) {
            xml_open("process_info");
            xml_text("gpu_instance_id", "N/A");
            xml_text("compute_instance_id", "N/A");
            snprintf(text, sizeof(text), "%u", processes[i].info.pid);
            xml_text("pid", text);
            xml_text("type", processes[i].type);
            process_name(processes[i].info.pid, text, sizeof(text));
            xml_text("process_name", text);
            snprintf(text, sizeof(text), "%llu MiB", mebibytes(processes[i].info.used_memory));
            xml_text("used_memory", text);
            xml_close("process_info");
        }
        xml_close("processes");
    }
    xml_open("accounted_processes");
    xml_close("accounted_processes");
    xml_open("capabilities");
    xml_text("egm", "disabled");
    xml_close("capabilities");
}

/* Reports a GPU without a handle; returns the exit status. */
static int unreachable(const struct board *board)
{
    printf("Unable to determine the device handle for GPU%u: %s: %s%s\n", board->index,
           strlen(board->bus_id) > 4 ? board->bus_id + 4 : board->bus_id, error_text(board->status),
           board->status == NVML_ERROR_GPU_IS_LOST ? ".  Reboot the system to recover this GPU" : "");
    return board->status == NVML_ERROR_GPU_IS_LOST ? NVML_ERROR_GPU_IS_LOST : 255;
}

static void local_date(char *out, size_t size)
{
    time_t seconds = time(NULL);
    struct tm tm;

    localtime_r(&seconds, &tm);
    strftime(out, size, "%a %b %e %H:%M:%S %Y", &tm);
}

static int show_xml(void)
{
    char text[96];

    depth = 0;
    printf("<?xml version=\"1.0\" ?>\n"
           "<!DOCTYPE nvidia_smi_log SYSTEM \"nvsmi_device_v12.dtd\">\n");
    xml_open("nvidia_smi_log");
    local_date(text, sizeof(text));
    xml_text("timestamp", text);
    version_text(text, sizeof(text), "nvmlSystemGetDriverVersion");
    xml_text("driver_version", text);
    if (driver_major() >= 610)
        xml_text("kmd_version", text);
    cuda_version(text, sizeof(text));
    xml_text("cuda_version", text);
    if (driver_major() >= 610)
        xml_text("cuda_umd_version", text);
    snprintf(text, sizeof(text), "%u", attached);
    xml_text("attached_gpus", text);
    for (unsigned i = 0; i < board_count; i++) {
        const struct board *board = &boards[i];
        printf("\t<gpu id=\"%s\">\n", board->bus_id);
        depth = 2;
        xml_identity(board);
        xml_pci(board);
        xml_field(board, "fan_speed", "fan.speed");
        xml_field(board, "performance_state", "pstate");
        xml_clock_reasons(board);
        xml_text("sparse_operation_mode", "N/A");
        xml_memory_and_load(board);
        xml_memory_health(board);
        xml_temperature(board);
        xml_power(board);
        xml_clocks(board);
        xml_processes(board);
        depth = 1;
        xml_close("gpu");
        depth = 1;
        putchar('\n');
    }
    xml_close("nvidia_smi_log");
    return 0;
}

/* ---------------------------------------------------------------- CSV */

struct format {
    bool csv;
    bool header;
    bool units;
};

static bool parse_format(const char *text, struct format *format)
{
    char copy[128];
    char *rest = copy;

    *format = (struct format){.header = true, .units = true};
    if (strlen(text) >= sizeof(copy))
        return false;
    strcpy(copy, text);
    for (char *word; (word = strsep(&rest, ", "));) {
        if (!strcmp(word, "csv"))
            format->csv = true;
        else if (!strcmp(word, "noheader"))
            format->header = false;
        else if (!strcmp(word, "nounits"))
            format->units = false;
        else if (*word)
            return false;
    }
    return format->csv;
}

static void csv_title(const char *name, enum unit unit, bool last, const struct format *format)
{
    fputs(name, stdout);
    if (format->units && *UNITS[unit])
        printf(" [%s]", UNITS[unit]);
    fputs(last ? "\n" : ", ", stdout);
}

static int query_gpu(char *list, const struct format *format)
{
    const struct field *fields[MAX_FIELDS];
    unsigned count = 0;

    for (char *name; (name = strsep(&list, ", "));) {
        if (!*name)
            continue;
        if (count == MAX_FIELDS || !(fields[count] = find_field(name))) {
            printf("Field \"%s\" is not a valid field to query.\n\n", name);
            return EXIT_USAGE;
        }
        count++;
    }
    if (!count)
        return EXIT_USAGE;
    for (unsigned i = 0; format->header && i < count; i++)
        csv_title(fields[i]->name, fields[i]->unit, i + 1 == count, format);
    for (unsigned b = 0; b < board_count; b++) {
        for (unsigned i = 0; i < count; i++) {
            char value[256] = "";
            nvmlReturn_t status =
                fields[i]->read(&boards[b], value, sizeof(value), fields[i]->argument);
            /* Memory temperature is the one field without brackets in the original's output. */
            if (status == NVML_ERROR_NOT_SUPPORTED && !strcmp(fields[i]->name, "temperature.memory"))
                fputs("N/A", stdout);
            else if (status)
                printf("[%s]", error_text(status));
            else if (format->units && *UNITS[fields[i]->unit])
                printf("%s %s", value, UNITS[fields[i]->unit]);
            else
                fputs(value, stdout);
            fputs(i + 1 == count ? "\n" : ", ", stdout);
        }
    }
    return 0;
}

enum app_field { APP_TIMESTAMP, APP_GPU_NAME, APP_BUS_ID, APP_SERIAL, APP_UUID, APP_PID, APP_NAME,
                 APP_MEMORY };

static const struct {
    const char *name;
    const char *alias;
    const char *gpu_field;
} APP_FIELDS[] = {
    {"timestamp", NULL, "timestamp"},
    {"gpu_name", NULL, "name"},
    {"gpu_bus_id", NULL, "pci.bus_id"},
    {"gpu_serial", NULL, "serial"},
    {"gpu_uuid", NULL, "uuid"},
    {"pid", NULL, NULL},
    {"process_name", "name", NULL},
    {"used_gpu_memory", "used_memory", NULL},
};

static int find_app_field(const char *name)
{
    for (int i = 0; i <= APP_MEMORY; i++)
        if (!strcmp(APP_FIELDS[i].name, name) ||
            (APP_FIELDS[i].alias && !strcmp(APP_FIELDS[i].alias, name)))
            return i;
    return -1;
}

static void print_app_field(const struct board *board, const nvmlProcessInfo_t *info, int which,
                            const struct format *format)
{
    char value[300] = "";

    if (APP_FIELDS[which].gpu_field) {
        const struct field *field = find_field(APP_FIELDS[which].gpu_field);
        nvmlReturn_t rc = field->read(board, value, sizeof(value), field->argument);
        printf(rc ? "[%s]" : "%s", rc ? error_text(rc) : value);
    } else if (which == APP_PID) {
        printf("%u", info->pid);
    } else if (which == APP_NAME) {
        process_name(info->pid, value, sizeof(value));
        fputs(value, stdout);
    } else {
        printf("%llu%s", mebibytes(info->used_memory), format->units ? " MiB" : "");
    }
}

static int query_apps(char *list, const struct format *format)
{
    static nvmlProcessInfo_t infos[MAX_PROCESSES];
    int fields[APP_MEMORY + 9];
    unsigned count = 0;

    for (char *name; (name = strsep(&list, ", "));) {
        if (!*name)
            continue;
        if (count > APP_MEMORY + 8 || (fields[count] = find_app_field(name)) < 0) {
            printf("Field \"%s\" is not a valid field to query.\n\n", name);
            return EXIT_USAGE;
        }
        count++;
    }
    if (!count)
        return EXIT_USAGE;
    for (unsigned i = 0; format->header && i < count; i++)
        csv_title(APP_FIELDS[fields[i]].name, fields[i] == APP_MEMORY ? MEBIBYTES : PLAIN,
                  i + 1 == count, format);
    for (unsigned b = 0; b < board_count; b++) {
        unsigned processes = 0;
        read_processes(&boards[b], infos, &processes);
        for (unsigned p = 0; p < processes; p++)
            for (unsigned i = 0; i < count; i++) {
                print_app_field(&boards[b], &infos[p], fields[i], format);
                fputs(i + 1 == count ? "\n" : ", ", stdout);
            }
    }
    return 0;
}

/* ---------------------------------------------------------------- list and table */

static int list_gpus(void)
{
    for (unsigned i = 0; i < board_count; i++) {
        const struct board *board = &boards[i];
        char name[96] = "", uuid[96] = "";

        nvmlReturn_t rc = board->status;
        if (!rc)
            rc = print_text(board, "nvmlDeviceGetName", name, sizeof(name));
        if (!rc)
            rc = print_text(board, "nvmlDeviceGetUUID", uuid, sizeof(uuid));
        if (rc) {
            struct board failed = *board;
            failed.status = rc;
            fflush(stdout);
            return unreachable(&failed);
        }
        printf("GPU %u: %s (UUID: %s)\n", board->index, name, uuid);
    }
    return 0;
}

/* A field for the table: "N/A" where there is none, "ERR!" where the GPU does not answer. */
static const char *cell(const struct board *board, const char *name, const char *unit)
{
    static char pool[16][112];
    static unsigned next;
    const struct field *field = find_field(name);
    char value[96] = "";
    char *out = pool[next++ % 16];

    nvmlReturn_t rc = field->read(board, value, sizeof(value), field->argument);
    if (rc == NVML_ERROR_NOT_SUPPORTED)
        snprintf(out, sizeof(pool[0]), "N/A");
    else if (rc)
        snprintf(out, sizeof(pool[0]), "ERR!");
    else
        snprintf(out, sizeof(pool[0]), "%s%s", value, unit);
    return out;
}

static const char *whole(const char *number) /* "12.34W" without its decimals */
{
    static char pool[2][112];
    static unsigned next;
    char *out = pool[next++ % 2];

    if (!strchr(number, '.'))
        return number;
    snprintf(out, sizeof(pool[0]), "%.0fW", strtod(number, NULL));
    return out;
}

static void table_board(const struct board *board)
{
    char name[96], memory[232], power[232];

    snprintf(name, sizeof(name), "%.90s", cell(board, "name", ""));
    if (strlen(name) > 27)
        strcpy(name + 24, "...");
    const char *persistence = cell(board, "persistence_mode", "");
    const char *display = cell(board, "display_active", "");
    printf("| %3u  %-27s    %-3s |   %16s %3s |%21s |\n", board->index, name,
           !strcmp(persistence, "Enabled") ? "On" : "Off", cell(board, "pci.bus_id", ""),
           !strcmp(display, "Enabled") ? "On" : "Off",
           cell(board, "ecc.errors.uncorrected.volatile.total", ""));
    snprintf(power, sizeof(power), "%s / %5s", whole(cell(board, "power.draw", "W")),
             whole(cell(board, "enforced.power.limit", "W")));
    snprintf(memory, sizeof(memory), "%s / %9s", cell(board, "memory.used", "MiB"),
             cell(board, "memory.total", "MiB"));
    printf("|%4s %5s %5s %23s |%23s |%8s %12s |\n", cell(board, "fan.speed", "%"),
           cell(board, "temperature.gpu", "C"), cell(board, "pstate", ""), power, memory,
           cell(board, "utilization.gpu", "%"), cell(board, "compute_mode", ""));
    printf("|%41s|%24s|%21s |\n", "", "", cell(board, "mig.mode.current", ""));
    printf("+-----------------------------------------+------------------------+"
           "----------------------+\n");
}

static int show_table(void)
{
    static struct process processes[MAX_PROCESSES];
    char driver[80], cuda[16], text[300];
    bool any = false;

    version_text(driver, sizeof(driver), "nvmlSystemGetDriverVersion");
    cuda_version(cuda, sizeof(cuda));
    local_date(text, sizeof(text));
    printf("%s       \n", text);
    printf("+-----------------------------------------------------------------------------------------+\n"
           "| NVIDIA-SMI %-23sDriver Version: %-15sCUDA Version: %-9s|\n"
           "+-----------------------------------------+------------------------+----------------------+\n"
           "| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |\n"
           "| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |\n"
           "|                                         |                        |               MIG M. |\n"
           "|=========================================+========================+======================|\n",
           driver, driver, cuda);
    for (unsigned i = 0; i < board_count; i++)
        table_board(&boards[i]);
    printf("\n"
           "+-----------------------------------------------------------------------------------------+\n"
           "| Processes:                                                                              |\n"
           "|  GPU   GI   CI              PID   Type   Process name                        GPU Memory |\n"
           "|        ID   ID                                                               Usage      |\n"
           "|=========================================================================================|\n");
    for (unsigned i = 0; i < board_count; i++) {
        unsigned count;
        if (read_all_processes(&boards[i], processes, &count))
            continue;
        for (unsigned p = 0; p < count; p++) {
            char memory[32];
            process_name(processes[p].info.pid, text, sizeof(text));
            if (strlen(text) > 37) { /* the end of a path says more than its start */
                memmove(text + 3, text + strlen(text) - 34, 35);
                memcpy(text, "...", 3);
            }
            snprintf(memory, sizeof(memory), "%lluMiB", mebibytes(processes[p].info.used_memory));
            printf("| %4u   N/A  N/A %15u %6s   %-38s%8s |\n", boards[i].index,
                   processes[p].info.pid, processes[p].type, text, memory);
            any = true;
        }
    }
    if (!any)
        printf("|  No running processes found                                                             |\n");
    printf("+-----------------------------------------------------------------------------------------+\n");
    return 0;
}

static void show_version(void)
{
    char driver[80], cuda[16];

    version_text(driver, sizeof(driver), "nvmlSystemGetDriverVersion");
    cuda_version(cuda, sizeof(cuda));
    printf("NVIDIA-SMI version  : %s\nNVML version        : %.*s\nDRIVER version      : %s\n"
           "CUDA Version        : %s\n",
           driver, (int)(strrchr(driver, '.') ? strrchr(driver, '.') - driver : 0), driver, driver,
           cuda);
}

/* ---------------------------------------------------------------- starting */

static int load_library(void)
{
    library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_GLOBAL);
    if (library)
        return 0;
    printf("NVIDIA-SMI couldn't find libnvidia-ml.so library in your system. Please make sure that "
           "the NVIDIA Display Driver is properly installed and present in your system.\n"
           "Please also try adding directory that contains libnvidia-ml.so to your system PATH.\n");
    return NVML_ERROR_LIBRARY_NOT_FOUND;
}

static int start(void)
{
    char version[80] = "";
    nvmlReturn_t rc = CALL1("nvmlInitWithFlags", unsigned, 0);

    if (rc == NVML_SUCCESS)
        return 0;
    if (rc == NVML_ERROR_DRIVER_NOT_LOADED) {
        printf("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make "
               "sure that the latest NVIDIA driver is installed and running.\n\n");
    } else if (rc == NVML_ERROR_LIB_RM_VERSION_MISMATCH) {
        printf("Failed to initialize NVML: Driver/library version mismatch\n");
        if (!CALL2("simNvmlLibraryVersion", char *, unsigned, version, sizeof(version)))
            printf("NVML library version: %s\n", version);
    } else {
        printf("Failed to initialize NVML: %s\n", error_text(rc));
    }
    return rc < 255 ? rc : 255;
}

static bool selected(const struct board *board, const char *selection)
{
    char copy[512], uuid[96] = "";
    char *rest = copy;

    if (!selection)
        return true;
    snprintf(copy, sizeof(copy), "%s", selection);
    if (!board->status)
        print_text(board, "nvmlDeviceGetUUID", uuid, sizeof(uuid));
    for (char *word; (word = strsep(&rest, ","));) {
        char *end;
        unsigned long index = strtoul(word, &end, 10);
        if ((*word && !*end && index == board->index) || (*uuid && !strcasecmp(word, uuid)))
            return true;
        size_t length = strlen(word); /* a bus address, with a long, short or no domain */
        size_t full = strlen(board->bus_id);
        if (strchr(word, '.') && length <= full &&
            !strcasecmp(word, board->bus_id + full - length))
            return true;
    }
    return false;
}

static int find_boards(const char *selection)
{
    nvmlReturn_t rc = CALL1("nvmlDeviceGetCount_v2", unsigned *, &attached);

    board_count = 0;
    if (rc) {
        printf("Unable to determine the number of GPUs: %s\n", error_text(rc));
        return rc < 255 ? rc : 255;
    }
    for (unsigned i = 0; i < attached && i < MAX_GPUS; i++) {
        struct board board = {.index = i};
        board.status = CALL2("nvmlDeviceGetHandleByIndex_v2", unsigned, nvmlDevice_t *, i,
                             &board.device);
        if (CALL3("simNvmlBusId", unsigned, char *, unsigned, i, board.bus_id,
                  sizeof(board.bus_id)))
            snprintf(board.bus_id, sizeof(board.bus_id), "unknown");
        if (selected(&board, selection))
            boards[board_count++] = board;
    }
    if (board_count)
        return 0;
    printf("No devices were found\n");
    return EXIT_NOT_FOUND;
}

static int usage(void)
{
    printf("Invalid combination of input arguments. Please run 'nvidia-smi -h' for help.\n\n");
    return EXIT_USAGE;
}

static void help(void)
{
    printf("Simulated NVIDIA System Management Interface: a test double, not NVIDIA's program.\n\n"
           "nvidia-smi                                   summary of the GPUs\n"
           "nvidia-smi -L | --list-gpus                  one line per GPU\n"
           "nvidia-smi -q -x                             everything, as XML\n"
           "nvidia-smi --query-gpu=FIELD[,FIELD...] --format=csv[,noheader][,nounits]\n"
           "nvidia-smi --query-compute-apps=FIELD[,FIELD...] --format=csv[,noheader][,nounits]\n"
           "nvidia-smi --help-query-gpu | --version | -h\n\n"
           "    -i, --id=ID[,ID...]      only these GPUs: index, UUID or bus address\n"
           "    -l, --loop=SECONDS       repeat until interrupted; -lms, --loop-ms= milliseconds\n");
}

struct options {
    bool list, query, xml, version;
    char *query_gpu, *query_apps;
    const char *format, *selection;
    long loop_ms;
};

/* The value of "--name=value", "-s value" or "--name value"; NULL when this is another option. */
static char *value_of(char **argv, int *i, const char *short_name, const char *long_name)
{
    size_t length = strlen(long_name);

    if (!strncmp(argv[*i], long_name, length) && argv[*i][length] == '=')
        return argv[*i] + length + 1;
    if (((short_name && !strcmp(argv[*i], short_name)) || !strcmp(argv[*i], long_name)) &&
        argv[*i + 1])
        return argv[++*i];
    if (short_name && !strncmp(argv[*i], short_name, strlen(short_name)) &&
        argv[*i][strlen(short_name)] == '=')
        return argv[*i] + strlen(short_name) + 1;
    return NULL;
}

static bool parse_options(char **argv, struct options *options)
{
    for (int i = 1; argv[i]; i++) {
        char *value;
        if (!strcmp(argv[i], "-L") || !strcmp(argv[i], "--list-gpus"))
            options->list = true;
        else if (!strcmp(argv[i], "-q") || !strcmp(argv[i], "--query"))
            options->query = true;
        else if (!strcmp(argv[i], "-x") || !strcmp(argv[i], "--xml-format"))
            options->xml = true;
        else if (!strcmp(argv[i], "-qx") || !strcmp(argv[i], "-xq"))
            options->query = options->xml = true;
        else if (!strcmp(argv[i], "--version"))
            options->version = true;
        else if ((value = value_of(argv, &i, NULL, "--query-gpu")))
            options->query_gpu = value;
        else if ((value = value_of(argv, &i, NULL, "--query-compute-apps")))
            options->query_apps = value;
        else if ((value = value_of(argv, &i, NULL, "--format")))
            options->format = value;
        else if ((value = value_of(argv, &i, "-i", "--id")))
            options->selection = value;
        else if ((value = value_of(argv, &i, "-lms", "--loop-ms")))
            options->loop_ms = strtol(value, NULL, 10);
        else if ((value = value_of(argv, &i, "-l", "--loop")))
            options->loop_ms = strtol(value, NULL, 10) * 1000;
        else
            return false;
    }
    return !(options->query && !options->xml) && !(options->xml && !options->query) &&
           !(options->query_gpu && options->query_apps);
}

/* Says which GPUs have a corrupted infoROM; returns the exit status. */
static int warn_of_inforom(void)
{
    int rc = 0;

    for (unsigned i = 0; i < board_count; i++) {
        if (CALL1("nvmlDeviceValidateInforom", nvmlDevice_t, boards[i].device) !=
            NVML_ERROR_CORRUPTED_INFOROM)
            continue;
        printf("WARNING: infoROM is corrupted at gpu %s\n",
               strlen(boards[i].bus_id) > 4 ? boards[i].bus_id + 4 : boards[i].bus_id);
        rc = NVML_ERROR_CORRUPTED_INFOROM;
    }
    return rc;
}

static int show(const struct options *options, struct format format)
{
    char *list = options->query_gpu ? options->query_gpu : options->query_apps;
    int rc;

    if (options->list)
        return list_gpus();
    for (unsigned i = 0; i < board_count; i++)
        if (boards[i].status)
            return unreachable(&boards[i]);
    if (list) {
        char *copy = strdup(list);
        if (!copy)
            return 255;
        rc = options->query_gpu ? query_gpu(copy, &format) : query_apps(copy, &format);
        free(copy);
    } else {
        rc = options->query ? show_xml() : show_table();
    }
    return rc ? rc : warn_of_inforom();
}

int main(int argc, char **argv)
{
    struct options options = {0};
    struct format format = {0};
    int rc;

    if (argc == 2 && (!strcmp(argv[1], "-h") || !strcmp(argv[1], "--help"))) {
        help();
        return 0;
    }
    if (argc == 2 && !strcmp(argv[1], "--help-query-gpu")) {
        for (const struct field *field = FIELDS; field->name; field++)
            printf(field->alias ? "\"%s\" or \"%s\"\n" : "\"%s\"\n", field->name, field->alias);
        return 0;
    }
    if (!parse_options(argv, &options))
        return usage();
    if (options.query_gpu || options.query_apps) {
        if (!options.format) {
            printf("\"--format=\" switch is missing. Please run 'nvidia-smi -h' for help.\n\n");
            return EXIT_USAGE;
        }
        if (!parse_format(options.format, &format))
            return usage();
    }
    if ((rc = load_library()) || (rc = start()))
        return rc;
    if (options.version) {
        show_version();
    } else {
        for (;;) {
            if (!(rc = find_boards(options.selection)))
                rc = show(&options, format);
            fflush(stdout);
            if (rc || options.loop_ms <= 0)
                break;
            usleep((useconds_t)options.loop_ms * 1000);
            format.header = false;
        }
    }
    CALL0("nvmlShutdown");
    return rc;
}
