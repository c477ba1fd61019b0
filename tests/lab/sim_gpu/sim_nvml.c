/*
 * Copyright (c) 2026, hx_infra.llm contributors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * SIMULATOR. A library with the SONAME libnvidia-ml.so.1 that behaves like NVIDIA's for the calls
 * that monitoring programs make, without any GPU: a text profile says which GPUs the machine has
 * and which calls fail, hang or lose a GPU; files written by the simulated engine say which
 * processes hold memory and compute. README.md in this folder documents both formats.
 */
#define _GNU_SOURCE
#include "sim_nvml.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define API __attribute__((visibility("default")))
#define DEFAULT_PROFILE "/etc/sim-gpu/profile.conf"
#define DEFAULT_ACTIVITY_DIR "/dev/shm/sim-gpu"
#define MAX_GPUS 8
#define MAX_RULES 64
#define MAX_PROCESSES 256
#define MIB 1048576ULL
#define BUSY_LINGER 0.5 /* seconds that a GPU still counts as busy after busy_until */
#define FOREVER (-1.0)

/* ---------------------------------------------------------------- state */

enum board { GEFORCE, DATACENTER };

struct rule { /* one error.SYMBOL or delay.SYMBOL line */
    char symbol[80];
    nvmlReturn_t error;
    double delay;
    bool is_delay;
    unsigned after; /* calls that it lets pass first */
    unsigned calls; /* atomics only */
};

struct rules {
    struct rule list[MAX_RULES];
    unsigned count;
};

struct gpu {
    char name[96];
    char uuid[80];
    char serial[30];
    char vbios[32];
    char bus_id[32];
    char lost_counter[256];
    unsigned board, architecture, cc_major, cc_minor, minor;
    unsigned device_id, subsystem_id;
    unsigned memory_total, memory_reserved, memory_used, bar1_total, bar1_used; /* MiB */
    unsigned utilization_idle, utilization_memory_idle, encoder, decoder;      /* percent */
    unsigned temperature_idle, temperature_load;
    unsigned temperature_shutdown, temperature_slowdown, temperature_max, temperature_target;
    unsigned temperature_memory;
    unsigned fan_idle, fan_load;
    unsigned power_idle, power_load, power_limit, power_default, power_min, power_max; /* W */
    unsigned graphics_idle, graphics_load, graphics_max;
    unsigned memory_clock_idle, memory_clock_load, memory_clock_max;
    unsigned video_idle, video_load, video_max;
    unsigned pstate_idle, pstate_load;
    unsigned pcie_gen_idle, pcie_gen_load, pcie_gen_max, pcie_gen_gpu_max;
    unsigned pcie_width, pcie_width_max, pcie_replays;
    unsigned persistence, compute_mode, mig_current, mig_pending, display_active;
    unsigned ecc_current, ecc_pending;
    unsigned ecc_corrected_volatile, ecc_corrected_aggregate;
    unsigned ecc_uncorrected_volatile, ecc_uncorrected_aggregate;
    unsigned remap_correctable, remap_uncorrectable, remap_pending, remap_failure;
    unsigned retired_single, retired_double, retired_pending;
    unsigned unrepairable_memory, sram_threshold, recovery_action, inforom_valid;
    unsigned event_reasons, thermal_slowdown_us, xid, present;
    unsigned long long throttle_power_cap, throttle_power_brake; /* microseconds */
    unsigned long long throttle_hw_thermal, throttle_sw_thermal;
    long lost_after; /* calls that still answer; -1: never lost */
    struct rules rules;
    unsigned index;
};

struct machine {
    char driver_version[80];
    char nvml_version[80];
    char call_log[256];
    unsigned cuda_major, cuda_minor;
    nvmlReturn_t init_error;
    double init_delay;
    struct rules rules;
    struct gpu gpus[MAX_GPUS]; /* as the profile numbers them */
    unsigned declared;
    struct gpu *visible[MAX_GPUS]; /* as NVML numbers them: without those that are not present */
    unsigned count;
};

static struct machine machine;
static pthread_mutex_t init_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned init_count;
static unsigned call_counts[MAX_GPUS]; /* of this process, by the profile's numbers; atomics only */

static const struct {
    nvmlReturn_t code;
    const char *name; /* as profiles write it */
    const char *text; /* as nvmlErrorString says it */
} ERRORS[] = {
    {0, "success", "Success"},
    {1, "uninitialized", "Uninitialized"},
    {2, "invalid_argument", "Invalid Argument"},
    {3, "not_supported", "Not Supported"},
    {4, "no_permission", "Insufficient Permissions"},
    {5, "already_initialized", "Already Initialized"},
    {6, "not_found", "Not Found"},
    {7, "insufficient_size", "Insufficient Size"},
    {8, "insufficient_power", "Insufficient External Power"},
    {9, "driver_not_loaded", "Driver Not Loaded"},
    {10, "timeout", "Timeout"},
    {11, "irq_issue", "Interrupt Request Issue"},
    {12, "library_not_found", "NVML Shared Library Not Found"},
    {13, "function_not_found", "Function Not Found"},
    {14, "corrupted_inforom", "Corrupted infoROM"},
    {15, "gpu_is_lost", "GPU is lost"},
    {16, "reset_required", "GPU requires reset"},
    {17, "operating_system", "The operating system has blocked the request."},
    {18, "lib_rm_version_mismatch", "RM has detected an NVML/RM version mismatch."},
    {19, "in_use", "In use by another client"},
    {20, "memory", "Insufficient Memory"},
    {21, "no_data", "No data"},
    {23, "insufficient_resources", "Insufficient Resources"},
    {24, "freq_not_supported", "Requested frequency is not supported"},
    {25, "argument_version_mismatch", "The version of the argument is not supported"},
    {26, "deprecated", "Requested functionality has been deprecated"},
    {27, "not_ready", "The system is not ready for the request"},
    {28, "gpu_not_found", "No GPUs were found"},
    {29, "invalid_state", "Resource is not in the right state"},
    {999, "unknown", "Unknown Error"},
};

/* Calls that boards of a kind answer with "not supported" unless the profile says otherwise. */
static const char *const GEFORCE_UNSUPPORTED[] = {
    "nvmlDeviceGetApplicationsClock",
    "nvmlDeviceGetEccMode",
    "nvmlDeviceGetMarginTemperature",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetRemappedRows",
    "nvmlDeviceGetRetiredPages",
    "nvmlDeviceGetRetiredPagesPendingStatus",
    "nvmlDeviceGetSerial",
    "nvmlDeviceGetSramEccErrorStatus",
    "nvmlDeviceGetTotalEccErrors",
    "nvmlDeviceGetUnrepairableMemoryFlag_v1",
    NULL,
};
static const char *const DATACENTER_UNSUPPORTED[] = {
    "nvmlDeviceGetFanSpeed",
    "nvmlDeviceGetFanSpeed_v2",
    "nvmlDeviceGetRetiredPages", /* replaced by row remapping since Ampere */
    "nvmlDeviceGetRetiredPagesPendingStatus",
    NULL,
};

/* ---------------------------------------------------------------- profile */

enum kind { TEXT, UINT, WIDE, HEX, SWITCH, VERSION, BOARD, ARCHITECTURE };

struct key {
    const char *name;
    enum kind kind;
    size_t offset;
    size_t size; /* of a text */
    unsigned max;
};

#define GPU_TEXT(name, field) {name, TEXT, offsetof(struct gpu, field), sizeof(((struct gpu *)0)->field), 0}
#define GPU_UINT(name, field, max) {name, UINT, offsetof(struct gpu, field), 0, max}
#define GPU_AS(name, kind, field) {name, kind, offsetof(struct gpu, field), 0, 0}

static const struct key GPU_KEYS[] = {
    GPU_TEXT("name", name),
    GPU_TEXT("uuid", uuid),
    GPU_TEXT("serial", serial),
    GPU_TEXT("vbios_version", vbios),
    GPU_TEXT("pci_bus_id", bus_id),
    GPU_AS("board", BOARD, board),
    GPU_AS("architecture", ARCHITECTURE, architecture),
    GPU_AS("compute_capability", VERSION, cc_major),
    GPU_AS("pci_device_id", HEX, device_id),
    GPU_AS("pci_subsystem_id", HEX, subsystem_id),
    GPU_AS("present", SWITCH, present),
    GPU_UINT("memory_total_mib", memory_total, 4194304),
    GPU_UINT("memory_reserved_mib", memory_reserved, 4194304),
    GPU_UINT("memory_used_mib", memory_used, 4194304),
    GPU_UINT("bar1_total_mib", bar1_total, 4194304),
    GPU_UINT("bar1_used_mib", bar1_used, 4194304),
    GPU_UINT("utilization_idle_percent", utilization_idle, 100),
    GPU_UINT("utilization_memory_idle_percent", utilization_memory_idle, 100),
    GPU_UINT("encoder_percent", encoder, 100),
    GPU_UINT("decoder_percent", decoder, 100),
    GPU_UINT("temperature_idle_c", temperature_idle, 150),
    GPU_UINT("temperature_load_c", temperature_load, 150),
    GPU_UINT("temperature_shutdown_c", temperature_shutdown, 150),
    GPU_UINT("temperature_slowdown_c", temperature_slowdown, 150),
    GPU_UINT("temperature_gpu_max_c", temperature_max, 150),
    GPU_UINT("temperature_target_c", temperature_target, 150),
    GPU_UINT("temperature_memory_c", temperature_memory, 150),
    GPU_UINT("fan_idle_percent", fan_idle, 100),
    GPU_UINT("fan_load_percent", fan_load, 100),
    GPU_UINT("power_idle_w", power_idle, 4000),
    GPU_UINT("power_load_w", power_load, 4000),
    GPU_UINT("power_limit_w", power_limit, 4000),
    GPU_UINT("power_default_limit_w", power_default, 4000),
    GPU_UINT("power_min_limit_w", power_min, 4000),
    GPU_UINT("power_max_limit_w", power_max, 4000),
    GPU_UINT("clock_graphics_idle_mhz", graphics_idle, 10000),
    GPU_UINT("clock_graphics_load_mhz", graphics_load, 10000),
    GPU_UINT("clock_graphics_max_mhz", graphics_max, 10000),
    GPU_UINT("clock_memory_idle_mhz", memory_clock_idle, 100000),
    GPU_UINT("clock_memory_load_mhz", memory_clock_load, 100000),
    GPU_UINT("clock_memory_max_mhz", memory_clock_max, 100000),
    GPU_UINT("clock_video_idle_mhz", video_idle, 10000),
    GPU_UINT("clock_video_load_mhz", video_load, 10000),
    GPU_UINT("clock_video_max_mhz", video_max, 10000),
    GPU_UINT("pstate_idle", pstate_idle, 15),
    GPU_UINT("pstate_load", pstate_load, 15),
    GPU_UINT("pcie_gen_idle", pcie_gen_idle, 7),
    GPU_UINT("pcie_gen_load", pcie_gen_load, 7),
    GPU_UINT("pcie_gen_max", pcie_gen_max, 7),
    GPU_UINT("pcie_gen_gpu_max", pcie_gen_gpu_max, 7),
    GPU_UINT("pcie_width", pcie_width, 32),
    GPU_UINT("pcie_width_max", pcie_width_max, 32),
    GPU_UINT("pcie_replays", pcie_replays, 1000000000),
    GPU_AS("persistence_mode", SWITCH, persistence),
    GPU_UINT("compute_mode", compute_mode, 3),
    GPU_AS("display_active", SWITCH, display_active),
    GPU_AS("mig_current", SWITCH, mig_current),
    GPU_AS("mig_pending", SWITCH, mig_pending),
    GPU_AS("ecc_current", SWITCH, ecc_current),
    GPU_AS("ecc_pending", SWITCH, ecc_pending),
    GPU_UINT("ecc_corrected_volatile", ecc_corrected_volatile, 4000000000u),
    GPU_UINT("ecc_corrected_aggregate", ecc_corrected_aggregate, 4000000000u),
    GPU_UINT("ecc_uncorrected_volatile", ecc_uncorrected_volatile, 4000000000u),
    GPU_UINT("ecc_uncorrected_aggregate", ecc_uncorrected_aggregate, 4000000000u),
    GPU_UINT("remap_correctable", remap_correctable, 100000),
    GPU_UINT("remap_uncorrectable", remap_uncorrectable, 100000),
    GPU_AS("remap_pending", SWITCH, remap_pending),
    GPU_AS("remap_failure", SWITCH, remap_failure),
    GPU_UINT("retired_single_bit", retired_single, 64),
    GPU_UINT("retired_double_bit", retired_double, 64),
    GPU_AS("retired_pending", SWITCH, retired_pending),
    GPU_AS("unrepairable_memory", SWITCH, unrepairable_memory),
    GPU_AS("sram_threshold_exceeded", SWITCH, sram_threshold),
    GPU_UINT("recovery_action", recovery_action, 7),
    GPU_AS("inforom_valid", SWITCH, inforom_valid),
    GPU_AS("clocks_event_reasons", HEX, event_reasons),
    GPU_UINT("thermal_slowdown_us", thermal_slowdown_us, 4000000000u),
    GPU_AS("throttle_sw_power_cap_us", WIDE, throttle_power_cap),
    GPU_AS("throttle_hw_power_brake_us", WIDE, throttle_power_brake),
    GPU_AS("throttle_hw_thermal_us", WIDE, throttle_hw_thermal),
    GPU_AS("throttle_sw_thermal_us", WIDE, throttle_sw_thermal),
    GPU_UINT("xid", xid, 1000),
    GPU_TEXT("lost_counter_file", lost_counter),
    {0},
};

#define MACHINE_TEXT(name, field) \
    {name, TEXT, offsetof(struct machine, field), sizeof(((struct machine *)0)->field), 0}

static const struct key MACHINE_KEYS[] = {
    MACHINE_TEXT("driver_version", driver_version),
    MACHINE_TEXT("nvml_version", nvml_version),
    MACHINE_TEXT("call_log", call_log),
    {"cuda_version", VERSION, offsetof(struct machine, cuda_major), 0, 0},
    {0},
};

/* A headless GeForce board of the Ada generation; profiles name what differs. */
static const struct gpu DEFAULT_GPU = {
    .name = "NVIDIA GeForce (simulated)",
    .vbios = "95.04.31.00.3B",
    .serial = "1650000000000",
    .board = GEFORCE, .architecture = 8, .cc_major = 8, .cc_minor = 9,
    .device_id = 0x278210DE, .subsystem_id = 0x000010DE,
    .memory_total = 12282, .memory_reserved = 344, .memory_used = 1, .bar1_total = 16384,
    .bar1_used = 1,
    .temperature_idle = 34, .temperature_load = 62, .temperature_shutdown = 101,
    .temperature_slowdown = 96, .temperature_max = 90, .temperature_target = 84,
    .temperature_memory = 38,
    .fan_idle = 0, .fan_load = 45,
    .power_idle = 14, .power_load = 220, .power_limit = 285, .power_default = 285,
    .power_min = 100, .power_max = 285,
    .graphics_idle = 210, .graphics_load = 2610, .graphics_max = 3105,
    .memory_clock_idle = 405, .memory_clock_load = 10251, .memory_clock_max = 10501,
    .video_idle = 1185, .video_load = 2010, .video_max = 2415,
    .pstate_idle = 8, .pstate_load = 2,
    .pcie_gen_idle = 1, .pcie_gen_load = 4, .pcie_gen_max = 4, .pcie_gen_gpu_max = 4,
    .pcie_width = 16, .pcie_width_max = 16,
    .persistence = 1, .ecc_current = 1, .ecc_pending = 1, .inforom_valid = 1, .present = 1,
    .lost_after = -1,
};

static char *trim(char *text)
{
    while (isspace((unsigned char)*text))
        text++;
    char *end = text + strlen(text);
    while (end > text && isspace((unsigned char)end[-1]))
        *--end = '\0';
    return text;
}

static bool parse_uint(const char *text, int base, unsigned max, unsigned *out)
{
    char *end;

    if (!isxdigit((unsigned char)*text))
        return false;
    errno = 0;
    unsigned long value = strtoul(text, &end, base);
    if (errno || *end || value > max)
        return false;
    *out = (unsigned)value;
    return true;
}

static bool parse_wide(const char *text, unsigned long long *out)
{
    char *end;

    if (!isdigit((unsigned char)*text))
        return false;
    errno = 0;
    *out = strtoull(text, &end, 10);
    return !errno && !*end && *out <= 1000000000000000ULL;
}

static bool parse_switch(const char *text, unsigned *out)
{
    if (!strcasecmp(text, "yes") || !strcasecmp(text, "on") || !strcmp(text, "1"))
        *out = 1;
    else if (!strcasecmp(text, "no") || !strcasecmp(text, "off") || !strcmp(text, "0"))
        *out = 0;
    else
        return false;
    return true;
}

static bool parse_error(const char *text, nvmlReturn_t *out)
{
    char *end;
    long number = strtol(text, &end, 10);
    bool numeric = end != text && !*end;

    for (size_t i = 0; i < sizeof(ERRORS) / sizeof(ERRORS[0]); i++)
        if (numeric ? number == ERRORS[i].code : !strcasecmp(text, ERRORS[i].name)) {
            *out = ERRORS[i].code;
            return true;
        }
    return false;
}

static bool parse_delay(const char *text, double *out)
{
    char *end;

    if (!strcasecmp(text, "forever")) {
        *out = FOREVER;
        return true;
    }
    *out = strtod(text, &end);
    return end != text && !*end && *out >= 0 && *out <= 86400;
}

static const char *parse_value(const struct key *key, char *base, const char *text)
{
    static const char *const architectures[] = {"turing", "ampere", "ada", "hopper", "blackwell"};
    char *target = base + key->offset;
    unsigned *number = (unsigned *)(void *)target;
    char tail;

    switch (key->kind) {
    case TEXT:
        if (strlen(text) >= key->size)
            return "value is too long";
        strcpy(target, text);
        return NULL;
    case UINT:
        return parse_uint(text, 10, key->max, number) ? NULL : "not a whole number in its range";
    case WIDE:
        return parse_wide(text, (unsigned long long *)(void *)target)
                   ? NULL
                   : "not a whole number in its range";
    case HEX:
        return parse_uint(text, 16, 0xFFFFFFFFu, number) ? NULL : "not a hexadecimal number";
    case SWITCH:
        return parse_switch(text, number) ? NULL : "not yes or no";
    case VERSION:
        return sscanf(text, "%u.%u%c", &number[0], &number[1], &tail) == 2 ? NULL
                                                                          : "not MAJOR.MINOR";
    case BOARD:
        if (strcasecmp(text, "geforce") && strcasecmp(text, "datacenter"))
            return "board is geforce or datacenter";
        *number = strcasecmp(text, "geforce") ? DATACENTER : GEFORCE;
        return NULL;
    case ARCHITECTURE:
        for (unsigned i = 0; i < 5; i++)
            if (!strcasecmp(text, architectures[i])) {
                *number = 6 + i;
                return NULL;
            }
        return "architecture is turing, ampere, ada, hopper or blackwell";
    }
    return "unknown kind of key";
}

/* "VALUE" or "VALUE after N". */
static const char *parse_rule(struct rules *rules, const char *symbol, const char *text, bool delay)
{
    char value[64];

    if (rules->count == MAX_RULES)
        return "too many error and delay lines";
    struct rule *rule = &rules->list[rules->count];
    *rule = (struct rule){.is_delay = delay};
    if (strncmp(symbol, "nvml", 4) || strlen(symbol) >= sizeof(rule->symbol))
        return "not the name of an NVML function";
    if (strlen(text) >= sizeof(value))
        return "value is too long";
    strcpy(value, text);
    char *after = strstr(value, " after ");
    if (after) {
        *after = '\0';
        if (!parse_uint(trim(after + 7), 10, 1000000000, &rule->after))
            return "not a number of calls";
    }
    const char *wanted = trim(value);
    if (delay ? !parse_delay(wanted, &rule->delay) : !parse_error(wanted, &rule->error))
        return delay ? "not a number of seconds or forever" : "not an NVML error name or number";
    strcpy(rule->symbol, symbol);
    rules->count++;
    return NULL;
}

/* One "key = value" line; gpu is NULL outside the GPU sections. Returns what is wrong, or NULL. */
static const char *parse_setting(struct machine *m, struct gpu *gpu, const char *key,
                                 const char *value)
{
    struct rules *rules = gpu ? &gpu->rules : &m->rules;

    if (!strncmp(key, "error.", 6))
        return parse_rule(rules, key + 6, value, false);
    if (!strncmp(key, "delay.", 6))
        return parse_rule(rules, key + 6, value, true);
    if (gpu && !strcmp(key, "lost_after")) {
        unsigned calls;
        if (!parse_uint(value, 10, 1000000000, &calls))
            return "not a number of calls";
        gpu->lost_after = (long)calls;
        return NULL;
    }
    if (!gpu && !strcmp(key, "init_error"))
        return parse_error(value, &m->init_error) ? NULL : "not an NVML error name or number";
    if (!gpu && !strcmp(key, "init_delay"))
        return parse_delay(value, &m->init_delay) ? NULL : "not a number of seconds or forever";
    for (const struct key *known = gpu ? GPU_KEYS : MACHINE_KEYS; known->name; known++)
        if (!strcmp(known->name, key))
            return parse_value(known, gpu ? (char *)gpu : (char *)m, value);
    return gpu ? "unknown key of a GPU" : "unknown key (outside a [gpu] section)";
}

/* "[gpu]" or "[gpu N]". Returns what is wrong, or NULL. */
static const char *parse_section(struct machine *m, struct gpu *common, const char *line,
                                 struct gpu **gpu)
{
    unsigned number;
    char tail;

    if (!strcmp(line, "[gpu]")) {
        if (m->declared)
            return "[gpu] has to come before [gpu 0]";
        *gpu = common;
        return NULL;
    }
    if (sscanf(line, "[gpu %u%c", &number, &tail) != 2 || tail != ']')
        return "unknown section, [gpu] and [gpu N] exist";
    if (number != m->declared || number >= MAX_GPUS)
        return "GPUs are numbered 0, 1, 2 ... in this order, 8 at most";
    *gpu = &m->gpus[number];
    **gpu = *common;
    snprintf((*gpu)->uuid, sizeof((*gpu)->uuid), "GPU-51300000-0000-4000-8000-%012x", number);
    snprintf((*gpu)->bus_id, sizeof((*gpu)->bus_id), "00000000:%02X:00.0", number + 1);
    m->declared++;
    return NULL;
}

static const char *check_machine(const struct machine *m)
{
    unsigned domain, bus, device, function;
    char tail;

    if (!m->declared && m->init_error == NVML_SUCCESS)
        return "no [gpu 0] section";
    for (unsigned i = 0; i < m->declared; i++) {
        const struct gpu *gpu = &m->gpus[i];
        if (sscanf(gpu->bus_id, "%8x:%2x:%2x.%1x%c", &domain, &bus, &device, &function, &tail) != 4)
            return "a pci_bus_id is not like 00000000:01:00.0";
        if (strncmp(gpu->uuid, "GPU-", 4))
            return "a uuid does not start with GPU-";
        if ((unsigned long)gpu->memory_reserved + gpu->memory_used > gpu->memory_total)
            return "a GPU's reserved and used memory exceed its total";
    }
    return NULL;
}

static nvmlReturn_t load_profile(struct machine *m)
{
    const char *path = getenv("SIM_NVML_PROFILE");
    struct gpu common = DEFAULT_GPU;
    struct gpu *gpu = NULL;
    char buffer[1024];
    unsigned line_number = 0;
    const char *problem = NULL;

    if (!path || !*path)
        path = DEFAULT_PROFILE;
    memset(m, 0, sizeof(*m));
    strcpy(m->driver_version, "575.64.03");
    m->cuda_major = 12;
    m->cuda_minor = 9;

    FILE *file = fopen(path, "re");
    if (!file) {
        fprintf(stderr, "simulated NVML: cannot read the profile %s: %s\n", path, strerror(errno));
        return NVML_ERROR_DRIVER_NOT_LOADED;
    }
    while (!problem && fgets(buffer, sizeof(buffer), file)) {
        line_number++;
        if (!strchr(buffer, '\n') && !feof(file)) {
            problem = "line is too long";
            break;
        }
        buffer[strcspn(buffer, "#")] = '\0';
        char *line = trim(buffer);
        if (!*line)
            continue;
        if (*line == '[') {
            problem = parse_section(m, &common, line, &gpu);
            continue;
        }
        char *equals = strchr(line, '=');
        if (!equals) {
            problem = "not \"key = value\"";
            continue;
        }
        *equals = '\0';
        problem = parse_setting(m, gpu, trim(line), trim(equals + 1));
    }
    fclose(file);
    if (problem)
        fprintf(stderr, "simulated NVML: %s, line %u: %s\n", path, line_number, problem);
    else if ((problem = check_machine(m)))
        fprintf(stderr, "simulated NVML: %s: %s\n", path, problem);
    if (problem)
        return NVML_ERROR_UNKNOWN;

    if (!*m->nvml_version)
        snprintf(m->nvml_version, sizeof(m->nvml_version), "%u.%.70s", m->cuda_major,
                 m->driver_version);
    for (unsigned i = 0; i < m->declared; i++) {
        if (!m->gpus[i].present)
            continue;
        m->gpus[i].index = m->gpus[i].minor = m->count;
        m->visible[m->count++] = &m->gpus[i];
    }
    return NVML_SUCCESS;
}

/* ---------------------------------------------------------------- activity of the engine */

struct activity {
    unsigned pid;
    char name[256];
    char type[8]; /* C, G or C+G */
    double busy_until;
    unsigned long long memory[MAX_GPUS];
    unsigned util[MAX_GPUS];
};

static double now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* A process that ended but was not yet waited for holds no GPU memory any more. */
static bool process_alive(unsigned pid)
{
    char path[64], buffer[512];

    if (!pid || (kill((pid_t)pid, 0) && errno == ESRCH))
        return false;
    snprintf(path, sizeof(path), "/proc/%u/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno != ENOENT;
    ssize_t length = read(fd, buffer, sizeof(buffer) - 1);
    close(fd);
    if (length <= 0)
        return false;
    buffer[length] = '\0';
    const char *state = strrchr(buffer, ')');
    return !(state && (state[2] == 'Z' || state[2] == 'X'));
}

static bool read_activity(int dir, const char *file_name, struct activity *out)
{
    char buffer[4096];
    int fd = openat(dir, file_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

    if (fd < 0)
        return false;
    ssize_t length = read(fd, buffer, sizeof(buffer) - 1);
    close(fd);
    if (length <= 0)
        return false;
    buffer[length] = '\0';
    memset(out, 0, sizeof(*out));
    strcpy(out->type, "C");
    out->pid = (unsigned)strtoul(file_name, NULL, 10);
    char *rest = buffer;
    for (char *line; (line = strsep(&rest, "\n"));) {
        char *equals = strchr(line, '=');
        unsigned gpu;
        char what[16];
        if (!equals)
            continue;
        *equals = '\0';
        const char *key = trim(line);
        const char *value = trim(equals + 1);
        if (!strcmp(key, "pid"))
            out->pid = (unsigned)strtoul(value, NULL, 10);
        else if (!strcmp(key, "name"))
            snprintf(out->name, sizeof(out->name), "%s", value);
        else if (!strcmp(key, "type"))
            snprintf(out->type, sizeof(out->type), "%s", value);
        else if (!strcmp(key, "busy_until"))
            out->busy_until = strtod(value, NULL);
        else if (sscanf(key, "gpu.%u.%15s", &gpu, what) == 2 && gpu < MAX_GPUS) {
            if (!strcmp(what, "memory"))
                out->memory[gpu] = strtoull(value, NULL, 10);
            else if (!strcmp(what, "util"))
                out->util[gpu] = (unsigned)strtoul(value, NULL, 10);
        }
    }
    return process_alive(out->pid);
}

/* Calls use(activity, context) for every living process that announces itself. */
static void for_each_activity(void (*use)(const struct activity *, void *), void *context)
{
    const char *path = getenv("SIM_GPU_ACTIVITY_DIR");
    struct activity activity;

    DIR *dir = opendir(path && *path ? path : DEFAULT_ACTIVITY_DIR);
    if (!dir)
        return;
    for (struct dirent *entry; (entry = readdir(dir));)
        if (entry->d_name[0] != '.' && read_activity(dirfd(dir), entry->d_name, &activity))
            use(&activity, context);
    closedir(dir);
}

struct load {
    const struct gpu *gpu;
    unsigned long long memory; /* bytes held by processes */
    unsigned util;             /* percent now */
};

static void add_load(const struct activity *activity, void *context)
{
    struct load *load = context;
    unsigned index = load->gpu->index;

    load->memory += activity->memory[index];
    if (now() < activity->busy_until + BUSY_LINGER)
        load->util += activity->util[index];
    if (load->util > 100)
        load->util = 100;
}

static struct load load_of(const struct gpu *gpu)
{
    struct load load = {.gpu = gpu};

    for_each_activity(add_load, &load);
    if (load.util < gpu->utilization_idle)
        load.util = gpu->utilization_idle;
    return load;
}

static unsigned between(unsigned idle, unsigned busy, unsigned util)
{
    return (unsigned)((long)idle + ((long)busy - (long)idle) * (long)util / 100);
}

static unsigned temperature_of(const struct gpu *gpu)
{
    return between(gpu->temperature_idle, gpu->temperature_load, load_of(gpu).util);
}

static unsigned power_of(const struct gpu *gpu) /* mW */
{
    unsigned power = between(gpu->power_idle * 1000, gpu->power_load * 1000, load_of(gpu).util);
    return power < gpu->power_limit * 1000 ? power : gpu->power_limit * 1000;
}

static unsigned long long reasons_of(const struct gpu *gpu)
{
    unsigned temperature = temperature_of(gpu);
    unsigned long long reasons = gpu->event_reasons;

    if (!load_of(gpu).util)
        reasons |= NVML_REASON_GPU_IDLE;
    else if (power_of(gpu) >= gpu->power_limit * 1000)
        reasons |= NVML_REASON_SW_POWER_CAP;
    if (temperature > gpu->temperature_max)
        reasons |= NVML_REASON_SW_THERMAL;
    if (temperature >= gpu->temperature_slowdown)
        reasons |= NVML_REASON_HW_SLOWDOWN | NVML_REASON_HW_THERMAL;
    return reasons;
}

static void memory_of(const struct gpu *gpu, unsigned long long *reserved, unsigned long long *used,
                      unsigned long long *available)
{
    unsigned long long total = gpu->memory_total * MIB;

    *reserved = gpu->memory_reserved * MIB;
    *used = gpu->memory_used * MIB + load_of(gpu).memory;
    if (*used > total - *reserved)
        *used = total - *reserved;
    *available = total - *reserved - *used;
}

/* ---------------------------------------------------------------- entering a call */

static void wait_for(double seconds)
{
    struct timespec ts = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};

    if (seconds == FOREVER)
        for (;;)
            pause();
    while (nanosleep(&ts, &ts) && errno == EINTR)
        ;
}

static bool matches(const char *pattern, const char *symbol)
{
    size_t length = strlen(pattern);

    if (length && pattern[length - 1] == '*')
        return !strncmp(pattern, symbol, length - 1);
    return !strcmp(pattern, symbol);
}

/* Waits as the rules say; true when an error line names the symbol. The last matching line wins. */
static bool apply_rules(struct rules *rules, const char *symbol, nvmlReturn_t *error)
{
    bool found = false;

    for (unsigned i = 0; i < rules->count; i++) {
        struct rule *rule = &rules->list[i];
        if (!matches(rule->symbol, symbol))
            continue;
        if (rule->after && __atomic_add_fetch(&rule->calls, 1, __ATOMIC_RELAXED) <= rule->after)
            continue;
        if (rule->is_delay) {
            wait_for(rule->delay);
        } else {
            *error = rule->error;
            found = true;
        }
    }
    return found;
}

/* Counts a call to a GPU, in this process or in the file that the profile names. */
static long count_call(struct gpu *gpu)
{
    unsigned *count = &call_counts[gpu - machine.gpus];
    long calls = (long)__atomic_add_fetch(count, 1, __ATOMIC_RELAXED);
    char buffer[32];

    if (!*gpu->lost_counter)
        return calls;
    int fd = open(gpu->lost_counter, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (fd < 0)
        return calls;
    if (!flock(fd, LOCK_EX)) {
        ssize_t length = pread(fd, buffer, sizeof(buffer) - 1, 0);
        buffer[length > 0 ? length : 0] = '\0';
        calls = strtol(buffer, NULL, 10) + 1;
        int written = snprintf(buffer, sizeof(buffer), "%ld\n", calls);
        if (pwrite(fd, buffer, (size_t)written, 0) == written && ftruncate(fd, written))
            calls = 0; /* cannot happen on a local file system; the counter then starts again */
    }
    close(fd);
    return calls;
}

/* Appends the call to the file that the profile names, a GPU's with its number. */
static void log_call(const char *symbol, const struct gpu *gpu)
{
    char line[128];

    if (!*machine.call_log)
        return;
    int fd = open(machine.call_log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (fd < 0)
        return;
    int length = gpu ? snprintf(line, sizeof(line), "%s %u\n", symbol, gpu->index)
                     : snprintf(line, sizeof(line), "%s\n", symbol);
    if (write(fd, line, (size_t)length) != length)
        fprintf(stderr, "simulated NVML: %s: %s\n", machine.call_log, strerror(errno));
    close(fd);
}

static nvmlReturn_t enter(const char *symbol)
{
    nvmlReturn_t error = NVML_SUCCESS;

    if (!__atomic_load_n(&init_count, __ATOMIC_ACQUIRE))
        return NVML_ERROR_UNINITIALIZED;
    log_call(symbol, NULL);
    apply_rules(&machine.rules, symbol, &error);
    return error;
}

static nvmlReturn_t enter_gpu(const char *symbol, struct gpu *gpu)
{
    nvmlReturn_t error = NVML_SUCCESS;
    const char *const *unsupported =
        gpu->board == GEFORCE ? GEFORCE_UNSUPPORTED : DATACENTER_UNSUPPORTED;

    log_call(symbol, gpu);
    if (gpu->lost_after >= 0 && count_call(gpu) > gpu->lost_after)
        return NVML_ERROR_GPU_IS_LOST;
    bool scripted = apply_rules(&machine.rules, symbol, &error);
    scripted = apply_rules(&gpu->rules, symbol, &error) || scripted;
    if (scripted)
        return error;
    for (; *unsupported; unsupported++)
        if (!strcmp(*unsupported, symbol))
            return NVML_ERROR_NOT_SUPPORTED;
    return NVML_SUCCESS;
}

/*
 * Looks for lines that script one of the values that a call gives, such as a numbered field:
 * "nvmlDeviceGetFieldValues/82". True when there is one.
 */
static bool scripted_value(struct gpu *gpu, const char *symbol, unsigned number,
                           nvmlReturn_t *error)
{
    char name[96];

    snprintf(name, sizeof(name), "%s/%u", symbol, number);
    bool found = apply_rules(&machine.rules, name, error);
    return apply_rules(&gpu->rules, name, error) || found;
}

static nvmlReturn_t enter_device(const char *symbol, nvmlDevice_t device, struct gpu **gpu)
{
    if (!__atomic_load_n(&init_count, __ATOMIC_ACQUIRE))
        return NVML_ERROR_UNINITIALIZED;
    for (unsigned i = 0; i < machine.count; i++)
        if (machine.visible[i] == device) {
            *gpu = machine.visible[i];
            return enter_gpu(symbol, *gpu);
        }
    return NVML_ERROR_INVALID_ARGUMENT;
}

/* First line of every call: look at the scripted faults, and at the pointers to write to. */
#define ENTER(pointer)                          \
    do {                                        \
        nvmlReturn_t rc_ = enter(__func__);     \
        if (rc_ != NVML_SUCCESS)                \
            return rc_;                         \
        if (!(pointer))                         \
            return NVML_ERROR_INVALID_ARGUMENT; \
    } while (0)

#define ENTER_DEVICE(pointer)                                     \
    struct gpu *gpu = NULL;                                       \
    do {                                                          \
        nvmlReturn_t rc_ = enter_device(__func__, device, &gpu);  \
        if (rc_ != NVML_SUCCESS)                                  \
            return rc_;                                           \
        if (!(pointer))                                           \
            return NVML_ERROR_INVALID_ARGUMENT;                   \
    } while (0)

static nvmlReturn_t put_text(char *target, unsigned size, const char *text)
{
    if (strlen(text) >= size)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    strcpy(target, text);
    return NVML_SUCCESS;
}

static unsigned driver_major(void)
{
    return (unsigned)strtoul(machine.driver_version, NULL, 10);
}

/* ---------------------------------------------------------------- library and system */

API nvmlReturn_t nvmlInitWithFlags(unsigned flags);
API nvmlReturn_t nvmlInitWithFlags(unsigned flags)
{
    (void)flags;
    pthread_mutex_lock(&init_lock);
    nvmlReturn_t rc = NVML_SUCCESS;
    if (!init_count)
        rc = load_profile(&machine);
    if (rc == NVML_SUCCESS) {
        wait_for(machine.init_delay);
        rc = machine.init_error;
    }
    if (rc == NVML_SUCCESS) {
        log_call(__func__, NULL);
        apply_rules(&machine.rules, __func__, &rc);
    }
    if (rc == NVML_SUCCESS)
        __atomic_add_fetch(&init_count, 1, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&init_lock);
    return rc;
}

API nvmlReturn_t nvmlInit_v2(void);
API nvmlReturn_t nvmlInit_v2(void)
{
    return nvmlInitWithFlags(0);
}

API nvmlReturn_t nvmlInit(void);
API nvmlReturn_t nvmlInit(void)
{
    return nvmlInitWithFlags(0);
}

API nvmlReturn_t nvmlShutdown(void);
API nvmlReturn_t nvmlShutdown(void)
{
    nvmlReturn_t rc = NVML_ERROR_UNINITIALIZED;

    pthread_mutex_lock(&init_lock);
    if (init_count) {
        __atomic_sub_fetch(&init_count, 1, __ATOMIC_RELEASE);
        rc = NVML_SUCCESS;
    }
    pthread_mutex_unlock(&init_lock);
    return rc;
}

API const char *nvmlErrorString(nvmlReturn_t code);
API const char *nvmlErrorString(nvmlReturn_t code)
{
    for (size_t i = 0; i < sizeof(ERRORS) / sizeof(ERRORS[0]); i++)
        if (ERRORS[i].code == code)
            return ERRORS[i].text;
    return "Unknown Error";
}

API nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned size);
API nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned size)
{
    ENTER(version);
    return put_text(version, size, machine.driver_version);
}

API nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned size);
API nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned size)
{
    ENTER(version);
    return put_text(version, size, machine.nvml_version);
}

API nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version);
API nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version)
{
    ENTER(version);
    *version = (int)(machine.cuda_major * 1000 + machine.cuda_minor * 10);
    return NVML_SUCCESS;
}

API nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version);
API nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version)
{
    ENTER(version);
    *version = (int)(machine.cuda_major * 1000 + machine.cuda_minor * 10);
    return NVML_SUCCESS;
}

struct name_search {
    unsigned pid;
    char name[256];
};

static void find_name(const struct activity *activity, void *context)
{
    struct name_search *search = context;

    if (activity->pid == search->pid)
        snprintf(search->name, sizeof(search->name), "%s", activity->name);
}

API nvmlReturn_t nvmlSystemGetProcessName(unsigned pid, char *name, unsigned length);
API nvmlReturn_t nvmlSystemGetProcessName(unsigned pid, char *name, unsigned length)
{
    struct name_search search = {.pid = pid};
    char path[64];

    ENTER(name && length);
    for_each_activity(find_name, &search);
    if (!*search.name) {
        snprintf(path, sizeof(path), "/proc/%u/exe", pid);
        ssize_t size = readlink(path, search.name, sizeof(search.name) - 1);
        if (size <= 0)
            return kill((pid_t)pid, 0) && errno == ESRCH ? NVML_ERROR_NOT_FOUND
                                                         : NVML_ERROR_NO_PERMISSION;
        search.name[size] = '\0';
    }
    snprintf(name, length, "%s", search.name);
    return NVML_SUCCESS;
}

/* ---------------------------------------------------------------- finding a GPU */

API nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count);
API nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count)
{
    ENTER(count);
    *count = machine.count;
    return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetCount(unsigned *count);
API nvmlReturn_t nvmlDeviceGetCount(unsigned *count)
{
    return nvmlDeviceGetCount_v2(count);
}

static nvmlReturn_t give_handle(const char *symbol, struct gpu *gpu, nvmlDevice_t *device)
{
    nvmlReturn_t rc = enter_gpu(symbol, gpu);

    if (rc == NVML_SUCCESS)
        *device = gpu;
    return rc;
}

API nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *device);
API nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *device)
{
    if (!__atomic_load_n(&init_count, __ATOMIC_ACQUIRE))
        return NVML_ERROR_UNINITIALIZED;
    if (!device || index >= machine.count)
        return NVML_ERROR_INVALID_ARGUMENT;
    return give_handle(__func__, machine.visible[index], device);
}

API nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned index, nvmlDevice_t *device);
API nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned index, nvmlDevice_t *device)
{
    return nvmlDeviceGetHandleByIndex_v2(index, device);
}

API nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device);
API nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device)
{
    if (!__atomic_load_n(&init_count, __ATOMIC_ACQUIRE))
        return NVML_ERROR_UNINITIALIZED;
    if (!uuid || !device)
        return NVML_ERROR_INVALID_ARGUMENT;
    for (unsigned i = 0; i < machine.count; i++)
        if (!strcasecmp(machine.visible[i]->uuid, uuid))
            return give_handle(__func__, machine.visible[i], device);
    return NVML_ERROR_NOT_FOUND;
}

static bool parse_bus_id(const char *text, unsigned parts[3])
{
    unsigned function;
    char tail;

    if (sscanf(text, "%8x:%2x:%2x.%1x%c", &parts[0], &parts[1], &parts[2], &function, &tail) == 4)
        return true;
    parts[0] = 0; /* lspci's short form, without the domain */
    return sscanf(text, "%2x:%2x.%1x%c", &parts[1], &parts[2], &function, &tail) == 3;
}

API nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvmlDevice_t *device);
API nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvmlDevice_t *device)
{
    unsigned wanted[3], found[3];

    if (!__atomic_load_n(&init_count, __ATOMIC_ACQUIRE))
        return NVML_ERROR_UNINITIALIZED;
    if (!bus_id || !device || !parse_bus_id(bus_id, wanted))
        return NVML_ERROR_INVALID_ARGUMENT;
    for (unsigned i = 0; i < machine.count; i++)
        if (parse_bus_id(machine.visible[i]->bus_id, found) &&
            !memcmp(wanted, found, sizeof(wanted)))
            return give_handle(__func__, machine.visible[i], device);
    return NVML_ERROR_NOT_FOUND;
}

API nvmlReturn_t nvmlDeviceGetHandleByPciBusId(const char *bus_id, nvmlDevice_t *device);
API nvmlReturn_t nvmlDeviceGetHandleByPciBusId(const char *bus_id, nvmlDevice_t *device)
{
    return nvmlDeviceGetHandleByPciBusId_v2(bus_id, device);
}

/*
 * Not part of NVML: the bus address of a GPU whatever state it is in. The real nvidia-smi learns it
 * from the kernel when it reports a GPU that is lost.
 */
API nvmlReturn_t simNvmlBusId(unsigned index, char *bus_id, unsigned size);
API nvmlReturn_t simNvmlBusId(unsigned index, char *bus_id, unsigned size)
{
    if (index >= machine.count)
        return NVML_ERROR_INVALID_ARGUMENT;
    return put_text(bus_id, size, machine.visible[index]->bus_id);
}

/*
 * Not part of NVML: the version of this library, which the real nvidia-smi knows without
 * initialising it when library and driver differ.
 */
API nvmlReturn_t simNvmlLibraryVersion(char *version, unsigned size);
API nvmlReturn_t simNvmlLibraryVersion(char *version, unsigned size)
{
    const char *last_dot = strrchr(machine.driver_version, '.');
    int length = (int)(last_dot ? last_dot - machine.driver_version : 0);

    snprintf(version, size, "%.*s", length, machine.driver_version);
    return NVML_SUCCESS;
}

/* ---------------------------------------------------------------- identity */

#define TEXT_CALL(symbol, field)                                          \
    API nvmlReturn_t symbol(nvmlDevice_t device, char *text, unsigned size); \
    API nvmlReturn_t symbol(nvmlDevice_t device, char *text, unsigned size)  \
    {                                                                     \
        ENTER_DEVICE(text);                                               \
        return put_text(text, size, gpu->field);                          \
    }

#define UINT_CALL(symbol, expression)                                     \
    API nvmlReturn_t symbol(nvmlDevice_t device, unsigned *value);        \
    API nvmlReturn_t symbol(nvmlDevice_t device, unsigned *value)         \
    {                                                                     \
        ENTER_DEVICE(value);                                              \
        *value = (expression);                                            \
        return NVML_SUCCESS;                                              \
    }

#define PAIR_CALL(symbol, first_value, second_value)                                       \
    API nvmlReturn_t symbol(nvmlDevice_t device, unsigned *first, unsigned *second);       \
    API nvmlReturn_t symbol(nvmlDevice_t device, unsigned *first, unsigned *second)        \
    {                                                                                      \
        ENTER_DEVICE(first && second);                                                     \
        *first = (first_value);                                                            \
        *second = (second_value);                                                          \
        return NVML_SUCCESS;                                                               \
    }

TEXT_CALL(nvmlDeviceGetName, name)
TEXT_CALL(nvmlDeviceGetUUID, uuid)
TEXT_CALL(nvmlDeviceGetSerial, serial)
TEXT_CALL(nvmlDeviceGetVbiosVersion, vbios)
UINT_CALL(nvmlDeviceGetIndex, gpu->index)
UINT_CALL(nvmlDeviceGetMinorNumber, gpu->minor)
UINT_CALL(nvmlDeviceGetBrand, gpu->board == GEFORCE ? 5 : 14)
UINT_CALL(nvmlDeviceGetArchitecture, gpu->architecture)
PAIR_CALL(nvmlDeviceGetCudaComputeCapability, gpu->cc_major, gpu->cc_minor)

API nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *pci);
API nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *pci)
{
    unsigned parts[3];

    ENTER_DEVICE(pci);
    memset(pci, 0, sizeof(*pci));
    if (!parse_bus_id(gpu->bus_id, parts))
        return NVML_ERROR_UNKNOWN;
    pci->domain = parts[0];
    pci->bus = parts[1];
    pci->device = parts[2];
    pci->device_id = gpu->device_id;
    pci->subsystem_id = gpu->subsystem_id;
    snprintf(pci->bus_id, sizeof(pci->bus_id), "%08X:%02X:%02X.0", parts[0], parts[1] & 0xFF,
             parts[2] & 0xFF);
    snprintf(pci->bus_id_legacy, sizeof(pci->bus_id_legacy), "%04X:%02X:%02X.0", parts[0] & 0xFFFF,
             parts[1] & 0xFF, parts[2] & 0xFF);
    return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetPciInfo(nvmlDevice_t device, nvmlPciInfo_t *pci);
API nvmlReturn_t nvmlDeviceGetPciInfo(nvmlDevice_t device, nvmlPciInfo_t *pci)
{
    return nvmlDeviceGetPciInfo_v3(device, pci);
}

/* ---------------------------------------------------------------- memory and utilisation */

API nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory);
API nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    unsigned long long reserved;

    ENTER_DEVICE(memory);
    memory_of(gpu, &reserved, &memory->used, &memory->free);
    memory->total = gpu->memory_total * MIB;
    memory->used += reserved; /* the first version counts the driver's share as used */
    return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory);
API nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory)
{
    ENTER_DEVICE(memory);
    if (memory->version != NVML_MEMORY_V2)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    memory_of(gpu, &memory->reserved, &memory->used, &memory->free);
    memory->total = gpu->memory_total * MIB;
    return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetBAR1MemoryInfo(nvmlDevice_t device, nvmlBAR1Memory_t *memory);
API nvmlReturn_t nvmlDeviceGetBAR1MemoryInfo(nvmlDevice_t device, nvmlBAR1Memory_t *memory)
{
    ENTER_DEVICE(memory);
    memory->total = gpu->bar1_total * MIB;
    memory->used = (gpu->bar1_used < gpu->bar1_total ? gpu->bar1_used : gpu->bar1_total) * MIB;
    memory->free = memory->total - memory->used;
    return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *rates);
API nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *rates)
{
    ENTER_DEVICE(rates);
    rates->gpu = load_of(gpu).util;
    rates->memory = rates->gpu > gpu->utilization_idle ? rates->gpu * 7 / 10
                                                       : gpu->utilization_memory_idle;
    return NVML_SUCCESS;
}

/* The sampling period is NVML's usual 167 ms. */
PAIR_CALL(nvmlDeviceGetEncoderUtilization, gpu->encoder, 167000)
PAIR_CALL(nvmlDeviceGetDecoderUtilization, gpu->decoder, 167000)

struct process_list {
    const struct gpu *gpu;
    char kind; /* C computes, G draws */
    nvmlProcessInfo_t list[MAX_PROCESSES];
    unsigned count;
};

static void add_process(const struct activity *activity, void *context)
{
    struct process_list *processes = context;
    unsigned index = processes->gpu->index;

    if (!activity->memory[index] || processes->count == MAX_PROCESSES ||
        !strchr(activity->type, processes->kind))
        return;
    processes->list[processes->count++] = (nvmlProcessInfo_t){
        .pid = activity->pid,
        .used_memory = activity->memory[index],
        .gpu_instance = NVML_VALUE_NOT_AVAILABLE,
        .compute_instance = NVML_VALUE_NOT_AVAILABLE,
    };
}

static nvmlReturn_t running_processes(const struct gpu *gpu, char kind, unsigned *count,
                                      nvmlProcessInfo_t *infos, nvmlProcessInfo_v1_t *infos_v1)
{
    struct process_list processes = {.gpu = gpu, .kind = kind};

    for_each_activity(add_process, &processes);
    unsigned room = infos || infos_v1 ? *count : 0;
    *count = processes.count;
    if (processes.count > room)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < processes.count; i++) {
        if (infos)
            infos[i] = processes.list[i];
        if (infos_v1)
            infos_v1[i] = (nvmlProcessInfo_v1_t){.pid = processes.list[i].pid,
                                                 .used_memory = processes.list[i].used_memory};
    }
    return NVML_SUCCESS;
}

#define PROCESS_CALL(symbol, kind)                                                             \
    API nvmlReturn_t symbol(nvmlDevice_t device, unsigned *count, nvmlProcessInfo_t *infos);   \
    API nvmlReturn_t symbol(nvmlDevice_t device, unsigned *count, nvmlProcessInfo_t *infos)    \
    {                                                                                          \
        ENTER_DEVICE(count);                                                                   \
        return running_processes(gpu, kind, count, infos, NULL);                               \
    }

#define PROCESS_CALL_V1(symbol, kind)                                                          \
    API nvmlReturn_t symbol(nvmlDevice_t device, unsigned *count, nvmlProcessInfo_v1_t *infos); \
    API nvmlReturn_t symbol(nvmlDevice_t device, unsigned *count, nvmlProcessInfo_v1_t *infos)  \
    {                                                                                          \
        ENTER_DEVICE(count);                                                                   \
        return running_processes(gpu, kind, count, NULL, infos);                               \
    }

PROCESS_CALL(nvmlDeviceGetComputeRunningProcesses_v3, 'C')
PROCESS_CALL(nvmlDeviceGetComputeRunningProcesses_v2, 'C')
PROCESS_CALL_V1(nvmlDeviceGetComputeRunningProcesses, 'C')
PROCESS_CALL(nvmlDeviceGetGraphicsRunningProcesses_v3, 'G')
PROCESS_CALL(nvmlDeviceGetGraphicsRunningProcesses_v2, 'G')
PROCESS_CALL_V1(nvmlDeviceGetGraphicsRunningProcesses, 'G')

/* ---------------------------------------------------------------- temperature, fan, power */

API nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, unsigned sensor, unsigned *value);
API nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, unsigned sensor, unsigned *value)
{
    ENTER_DEVICE(value && sensor == 0);
    *value = temperature_of(gpu);
    return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_t *temperature);
API nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_t *temperature)
{
    ENTER_DEVICE(temperature);
    if (temperature->version != NVML_TEMPERATURE_V1)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    if (temperature->sensor)
        return NVML_ERROR_INVALID_ARGUMENT;
    temperature->temperature = (int)temperature_of(gpu);
    return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetTemperatureThreshold(nvmlDevice_t device, unsigned threshold,
                                                   unsigned *value);
API nvmlReturn_t nvmlDeviceGetTemperatureThreshold(nvmlDevice_t device, unsigned threshold,
                                                   unsigned *value)
{
    ENTER_DEVICE(value);
    nvmlReturn_t rc = NVML_SUCCESS;
    bool scripted = scripted_value(gpu, __func__, threshold, &rc);
    switch (threshold) {
    case NVML_TEMPERATURE_THRESHOLD_SHUTDOWN:
        *value = gpu->temperature_shutdown;
        break;
    case NVML_TEMPERATURE_THRESHOLD_SLOWDOWN:
        *value = gpu->temperature_slowdown;
        break;
    case NVML_TEMPERATURE_THRESHOLD_GPU_MAX:
        *value = gpu->temperature_max;
        break;
    case NVML_TEMPERATURE_THRESHOLD_ACOUSTIC_CURR:
        *value = gpu->temperature_target;
        rc = scripted || gpu->board == GEFORCE ? rc : NVML_ERROR_NOT_SUPPORTED;
        break;
    case NVML_TEMPERATURE_THRESHOLD_MEM_MAX:
        *value = gpu->temperature_slowdown;
        rc = scripted || gpu->board == DATACENTER ? rc : NVML_ERROR_NOT_SUPPORTED;
        break;
    default:
        return threshold > 7 ? NVML_ERROR_INVALID_ARGUMENT : NVML_ERROR_NOT_SUPPORTED;
    }
    return rc;
}

API nvmlReturn_t nvmlDeviceGetMarginTemperature(nvmlDevice_t device, nvmlMarginTemperature_t *info);
API nvmlReturn_t nvmlDeviceGetMarginTemperature(nvmlDevice_t device, nvmlMarginTemperature_t *info)
{
    ENTER_DEVICE(info);
    if (info->version != NVML_MARGIN_TEMPERATURE_V1)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    info->margin = (int)gpu->temperature_max - (int)temperature_of(gpu);
    return NVML_SUCCESS;
}

UINT_CALL(nvmlDeviceGetFanSpeed, between(gpu->fan_idle, gpu->fan_load, load_of(gpu).util))
UINT_CALL(nvmlDeviceGetNumFans, gpu->board == GEFORCE ? 2 : 0)

API nvmlReturn_t nvmlDeviceGetFanSpeed_v2(nvmlDevice_t device, unsigned fan, unsigned *value);
API nvmlReturn_t nvmlDeviceGetFanSpeed_v2(nvmlDevice_t device, unsigned fan, unsigned *value)
{
    ENTER_DEVICE(value && fan < 2);
    *value = between(gpu->fan_idle, gpu->fan_load, load_of(gpu).util);
    return NVML_SUCCESS;
}

UINT_CALL(nvmlDeviceGetPowerUsage, power_of(gpu))
UINT_CALL(nvmlDeviceGetEnforcedPowerLimit, gpu->power_limit * 1000)
UINT_CALL(nvmlDeviceGetPowerManagementLimit, gpu->power_limit * 1000)
UINT_CALL(nvmlDeviceGetPowerManagementDefaultLimit, gpu->power_default * 1000)
PAIR_CALL(nvmlDeviceGetPowerManagementLimitConstraints, gpu->power_min * 1000,
          gpu->power_max * 1000)

API nvmlReturn_t nvmlDeviceGetPowerManagementMode(nvmlDevice_t device, unsigned *mode);
API nvmlReturn_t nvmlDeviceGetPowerManagementMode(nvmlDevice_t device, unsigned *mode)
{
    ENTER_DEVICE(mode);
    *mode = 1;
    return driver_major() >= 590 ? NVML_ERROR_DEPRECATED : NVML_SUCCESS;
}

/* The energy of an idle board since boot: it grows, which is all that readers rely on. */
static unsigned long long energy_of(const struct gpu *gpu)
{
    struct timespec ts;

    clock_gettime(CLOCK_BOOTTIME, &ts);
    return ((unsigned long long)ts.tv_sec * 1000 + (unsigned long long)ts.tv_nsec / 1000000) *
           gpu->power_idle;
}

API nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device, unsigned long long *mj);
API nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device, unsigned long long *mj)
{
    ENTER_DEVICE(mj);
    *mj = energy_of(gpu);
    return NVML_SUCCESS;
}

/* ---------------------------------------------------------------- clocks */

static bool clock_of(const struct gpu *gpu, unsigned type, bool max, unsigned *mhz)
{
    bool busy = load_of(gpu).util > 0;
    bool slowed = temperature_of(gpu) >= gpu->temperature_slowdown;

    switch (type) {
    case NVML_CLOCK_GRAPHICS:
    case NVML_CLOCK_SM:
        *mhz = max              ? gpu->graphics_max
               : busy && slowed ? gpu->graphics_load / 2
               : busy           ? gpu->graphics_load
                                : gpu->graphics_idle;
        return true;
    case NVML_CLOCK_MEM:
        *mhz = max    ? gpu->memory_clock_max
               : busy ? gpu->memory_clock_load
                      : gpu->memory_clock_idle;
        return true;
    case NVML_CLOCK_VIDEO:
        *mhz = max ? gpu->video_max : busy ? gpu->video_load : gpu->video_idle;
        return true;
    default:
        return false;
    }
}

API nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, unsigned type, unsigned *mhz);
API nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, unsigned type, unsigned *mhz)
{
    ENTER_DEVICE(mhz);
    return clock_of(gpu, type, false, mhz) ? NVML_SUCCESS : NVML_ERROR_INVALID_ARGUMENT;
}

API nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, unsigned type, unsigned *mhz);
API nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, unsigned type, unsigned *mhz)
{
    ENTER_DEVICE(mhz);
    return clock_of(gpu, type, true, mhz) ? NVML_SUCCESS : NVML_ERROR_INVALID_ARGUMENT;
}

API nvmlReturn_t nvmlDeviceGetApplicationsClock(nvmlDevice_t device, unsigned type, unsigned *mhz);
API nvmlReturn_t nvmlDeviceGetApplicationsClock(nvmlDevice_t device, unsigned type, unsigned *mhz)
{
    ENTER_DEVICE(mhz);
    if (driver_major() >= 590)
        return NVML_ERROR_DEPRECATED;
    return clock_of(gpu, type, true, mhz) ? NVML_SUCCESS : NVML_ERROR_INVALID_ARGUMENT;
}

UINT_CALL(nvmlDeviceGetPerformanceState, load_of(gpu).util ? gpu->pstate_load : gpu->pstate_idle)
UINT_CALL(nvmlDeviceGetPowerState, load_of(gpu).util ? gpu->pstate_load : gpu->pstate_idle)

#define REASONS_CALL(symbol, expression)                                      \
    API nvmlReturn_t symbol(nvmlDevice_t device, unsigned long long *reasons); \
    API nvmlReturn_t symbol(nvmlDevice_t device, unsigned long long *reasons)  \
    {                                                                         \
        ENTER_DEVICE(reasons);                                                \
        *reasons = (expression);                                              \
        return NVML_SUCCESS;                                                  \
    }

REASONS_CALL(nvmlDeviceGetCurrentClocksEventReasons, reasons_of(gpu))
REASONS_CALL(nvmlDeviceGetCurrentClocksThrottleReasons, reasons_of(gpu))
REASONS_CALL(nvmlDeviceGetSupportedClocksEventReasons, NVML_REASONS_SUPPORTED)
REASONS_CALL(nvmlDeviceGetSupportedClocksThrottleReasons, NVML_REASONS_SUPPORTED)

API nvmlReturn_t nvmlDeviceGetViolationStatus(nvmlDevice_t device, unsigned policy,
                                              nvmlViolationTime_t *status);
API nvmlReturn_t nvmlDeviceGetViolationStatus(nvmlDevice_t device, unsigned policy,
                                              nvmlViolationTime_t *status)
{
    ENTER_DEVICE(status && policy < 12);
    if (policy == 1) /* thermal: "not supported at this time", says NVIDIA's header */
        return NVML_ERROR_NOT_SUPPORTED;
    status->reference_time = (unsigned long long)(now() * 1e6);
    status->violation_time = policy == 0 ? gpu->throttle_power_cap * 1000 : 0;
    return NVML_SUCCESS;
}

/* ---------------------------------------------------------------- PCI Express */

static unsigned pcie_gen_of(const struct gpu *gpu)
{
    return load_of(gpu).util ? gpu->pcie_gen_load : gpu->pcie_gen_idle;
}

UINT_CALL(nvmlDeviceGetCurrPcieLinkGeneration, pcie_gen_of(gpu))
UINT_CALL(nvmlDeviceGetCurrPcieLinkWidth, gpu->pcie_width)
UINT_CALL(nvmlDeviceGetMaxPcieLinkGeneration, gpu->pcie_gen_max)
UINT_CALL(nvmlDeviceGetMaxPcieLinkWidth, gpu->pcie_width_max)
UINT_CALL(nvmlDeviceGetGpuMaxPcieLinkGeneration, gpu->pcie_gen_gpu_max)
UINT_CALL(nvmlDeviceGetPcieReplayCounter, gpu->pcie_replays)

API nvmlReturn_t nvmlDeviceGetPcieThroughput(nvmlDevice_t device, unsigned counter, unsigned *kbps);
API nvmlReturn_t nvmlDeviceGetPcieThroughput(nvmlDevice_t device, unsigned counter, unsigned *kbps)
{
    ENTER_DEVICE(kbps && counter < 2);
    wait_for(0.02); /* the driver measures over 20 ms, and the caller waits */
    *kbps = between(500, 120000, load_of(gpu).util);
    return NVML_SUCCESS;
}

/* ---------------------------------------------------------------- health and modes */

PAIR_CALL(nvmlDeviceGetEccMode, gpu->ecc_current, gpu->ecc_pending)
PAIR_CALL(nvmlDeviceGetMigMode, gpu->mig_current, gpu->mig_pending)
UINT_CALL(nvmlDeviceGetPersistenceMode, gpu->persistence)
UINT_CALL(nvmlDeviceGetComputeMode, gpu->compute_mode)
UINT_CALL(nvmlDeviceGetDisplayActive, gpu->display_active)
UINT_CALL(nvmlDeviceGetRetiredPagesPendingStatus, gpu->retired_pending)

API nvmlReturn_t nvmlDeviceGetDisplayMode(nvmlDevice_t device, unsigned *mode);
API nvmlReturn_t nvmlDeviceGetDisplayMode(nvmlDevice_t device, unsigned *mode)
{
    ENTER_DEVICE(mode);
    *mode = gpu->display_active;
    return driver_major() >= 575 ? NVML_ERROR_DEPRECATED : NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, unsigned error, unsigned counter,
                                             unsigned long long *count);
API nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, unsigned error, unsigned counter,
                                             unsigned long long *count)
{
    ENTER_DEVICE(count && error < 2 && counter < 2);
    if (error == 0)
        *count = counter == 0 ? gpu->ecc_corrected_volatile : gpu->ecc_corrected_aggregate;
    else
        *count = counter == 0 ? gpu->ecc_uncorrected_volatile : gpu->ecc_uncorrected_aggregate;
    return gpu->ecc_current ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
}

API nvmlReturn_t nvmlDeviceGetRetiredPages(nvmlDevice_t device, unsigned cause, unsigned *count,
                                           unsigned long long *addresses);
API nvmlReturn_t nvmlDeviceGetRetiredPages(nvmlDevice_t device, unsigned cause, unsigned *count,
                                           unsigned long long *addresses)
{
    ENTER_DEVICE(count && cause < 2);
    unsigned pages = cause ? gpu->retired_double : gpu->retired_single;
    unsigned room = addresses ? *count : 0;
    *count = pages;
    if (pages > room)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < pages; i++)
        addresses[i] = 0x100000ULL * (cause + 1) + 0x1000ULL * i;
    return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetSramEccErrorStatus(nvmlDevice_t device,
                                                 nvmlEccSramErrorStatus_t *status);
API nvmlReturn_t nvmlDeviceGetSramEccErrorStatus(nvmlDevice_t device,
                                                 nvmlEccSramErrorStatus_t *status)
{
    ENTER_DEVICE(status);
    if (status->version != NVML_ECC_SRAM_ERROR_STATUS_V1)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    *status = (nvmlEccSramErrorStatus_t){.version = NVML_ECC_SRAM_ERROR_STATUS_V1,
                                         .threshold_exceeded = gpu->sram_threshold};
    return gpu->ecc_current ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
}

API nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t device, unsigned *correctable,
                                           unsigned *uncorrectable, unsigned *pending,
                                           unsigned *failure);
API nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t device, unsigned *correctable,
                                           unsigned *uncorrectable, unsigned *pending,
                                           unsigned *failure)
{
    ENTER_DEVICE(correctable && uncorrectable && pending && failure);
    *correctable = gpu->remap_correctable;
    *uncorrectable = gpu->remap_uncorrectable;
    *pending = gpu->remap_pending;
    *failure = gpu->remap_failure;
    return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetUnrepairableMemoryFlag_v1(nvmlDevice_t device,
                                                        nvmlUnrepairableMemory_t *status);
API nvmlReturn_t nvmlDeviceGetUnrepairableMemoryFlag_v1(nvmlDevice_t device,
                                                        nvmlUnrepairableMemory_t *status)
{
    ENTER_DEVICE(status);
    if (status->version != NVML_UNREPAIRABLE_MEMORY_V1)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    status->flag = gpu->unrepairable_memory;
    return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceValidateInforom(nvmlDevice_t device);
API nvmlReturn_t nvmlDeviceValidateInforom(nvmlDevice_t device)
{
    ENTER_DEVICE(true);
    return gpu->inforom_valid ? NVML_SUCCESS : NVML_ERROR_CORRUPTED_INFOROM;
}

static void put_field(nvmlFieldValue_t *field, unsigned type, unsigned long long value)
{
    field->type = type;
    field->status = NVML_SUCCESS;
    if (type == NVML_TYPE_ULL)
        field->value.ull = value;
    else
        field->value.ui = (unsigned)value; /* the same bits hold an int */
}

/* Fills in the value of a field; false when the library doesn't know the field at all. */
static bool field_value(const struct gpu *gpu, nvmlFieldValue_t *field)
{
    int max = (int)gpu->temperature_max;

    switch (field->field) {
    case 29: /* pages retired */
        put_field(field, NVML_TYPE_UINT, gpu->retired_single);
        return true;
    case 30:
        put_field(field, NVML_TYPE_UINT, gpu->retired_double);
        return true;
    case 31:
        put_field(field, NVML_TYPE_UINT, gpu->retired_pending);
        return true;
    case 74: /* time limited by the power cap, ns */
        put_field(field, NVML_TYPE_ULL, gpu->throttle_power_cap * 1000);
        return true;
    case 76: /* ... by sync boost */
        put_field(field, NVML_TYPE_ULL, 0);
        return true;
    case 269: /* ... by temperature, as the driver and as the hardware decided */
        put_field(field, NVML_TYPE_ULL,
                  (gpu->thermal_slowdown_us + gpu->throttle_sw_thermal) * 1000);
        return true;
    case 270:
        put_field(field, NVML_TYPE_ULL,
                  (gpu->thermal_slowdown_us + gpu->throttle_hw_thermal) * 1000);
        return true;
    case 271: /* ... by the power brake */
        put_field(field, NVML_TYPE_ULL, gpu->throttle_power_brake * 1000);
        return true;
    case 82: /* memory temperature */
        put_field(field, NVML_TYPE_UINT, gpu->temperature_memory);
        return true;
    case 83: /* energy, mJ */
        put_field(field, NVML_TYPE_ULL, energy_of(gpu));
        return true;
    case 142:
        put_field(field, NVML_TYPE_UINT, gpu->remap_correctable);
        return true;
    case 143:
        put_field(field, NVML_TYPE_UINT, gpu->remap_uncorrectable);
        return true;
    case 144:
        put_field(field, NVML_TYPE_UINT, gpu->remap_pending);
        return true;
    case 145:
        put_field(field, NVML_TYPE_UINT, gpu->remap_failure);
        return true;
    case 185: /* average power, mW */
    case 186: /* power at this instant, mW */
        put_field(field, NVML_TYPE_UINT, power_of(gpu));
        return true;
    case 193: /* distance of the thresholds from the highest operating temperature */
        put_field(field, NVML_TYPE_INT, (unsigned)(max - (int)gpu->temperature_shutdown));
        return true;
    case 194:
        put_field(field, NVML_TYPE_INT, (unsigned)(max - (int)gpu->temperature_slowdown));
        return true;
    case 195:
    case 196:
        put_field(field, NVML_TYPE_INT, 0);
        return true;
    case 230: /* recovery action */
        put_field(field, NVML_TYPE_UINT, gpu->recovery_action);
        return true;
    default:
        return false;
    }
}

/* Tells whether boards of this kind have the field, where the profile doesn't script it. */
static bool has_field(const struct gpu *gpu, unsigned number)
{
    switch (number) {
    case 29:
    case 30:
    case 31:
        return false; /* replaced by row remapping since Ampere */
    case 185:
        return gpu->architecture > NVML_ARCHITECTURE_TURING;
    case 82:
    case 142:
    case 143:
    case 144:
    case 145:
    case 193:
    case 194:
    case 195:
    case 196:
        return gpu->board == DATACENTER;
    default:
        return true;
    }
}

static void read_field(struct gpu *gpu, nvmlFieldValue_t *field)
{
    nvmlReturn_t rc = NVML_SUCCESS;
    bool scripted = scripted_value(gpu, "nvmlDeviceGetFieldValues", field->field, &rc);

    field->timestamp = (int64_t)(now() * 1e6);
    field->latency = 0;
    field->value.ull = 0;
    if (!scripted && !has_field(gpu, field->field))
        rc = NVML_ERROR_NOT_SUPPORTED;
    if (!rc && !field_value(gpu, field))
        rc = NVML_ERROR_NOT_SUPPORTED;
    field->status = rc;
}

API nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t *values);
API nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t *values)
{
    ENTER_DEVICE(values && count > 0);
    for (int i = 0; i < count; i++)
        read_field(gpu, &values[i]);
    return NVML_SUCCESS;
}

/* ---------------------------------------------------------------- events */

struct event_set {
    struct gpu *pending[MAX_GPUS]; /* GPUs whose profile announces an Xid, not yet delivered */
    unsigned count;
};

API nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set);
API nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set)
{
    ENTER(set);
    *set = calloc(1, sizeof(struct event_set));
    return *set ? NVML_SUCCESS : NVML_ERROR_MEMORY;
}

API nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types,
                                          nvmlEventSet_t set);
API nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types,
                                          nvmlEventSet_t set)
{
    struct event_set *events = set;

    ENTER_DEVICE(set);
    if ((types & 0x8) && gpu->xid && events->count < MAX_GPUS)
        events->pending[events->count++] = gpu;
    return NVML_SUCCESS;
}

API nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data, unsigned timeout);
API nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data, unsigned timeout)
{
    struct event_set *events = set;

    ENTER(set && data);
    if (!events->count) {
        wait_for((double)timeout / 1000);
        return NVML_ERROR_TIMEOUT;
    }
    struct gpu *gpu = events->pending[--events->count];
    *data = (nvmlEventData_t){
        .device = gpu,
        .type = 0x8,
        .data = gpu->xid,
        .gpu_instance = NVML_VALUE_NOT_AVAILABLE,
        .compute_instance = NVML_VALUE_NOT_AVAILABLE,
    };
    return NVML_SUCCESS;
}

API nvmlReturn_t nvmlEventSetWait(nvmlEventSet_t set, nvmlEventData_t *data, unsigned timeout);
API nvmlReturn_t nvmlEventSetWait(nvmlEventSet_t set, nvmlEventData_t *data, unsigned timeout)
{
    return nvmlEventSetWait_v2(set, data, timeout);
}

API nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set);
API nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set)
{
    ENTER(set);
    free(set);
    return NVML_SUCCESS;
}
