// SPDX-License-Identifier: Apache-2.0
/* vial doctor: what this host can do, and what would make it do more.
 *
 * The report is made by src/host; this file only shows it, as a table for people or as JSON for programs, whose member
 * names are stable.
 *
 * Trust: texts in the report come from our own formats and the host's kernel.
 */
#include "cli/command.h"

#include "base/clock.h"
#include "base/text.h"
#include "host/doctor.h"

#include <inttypes.h>
#include <string.h>

static json_t *engine_to_json(const struct doctor_report *report, enum host_engine engine)
{
    const char *path = report->kernels[engine].text;
    char kernel[sizeof(struct host_path)];
    text_escape(kernel, sizeof(kernel), path, strlen(path), "");
    return json_pack("{s:s, s:b, s:s, s:o}", "name", host_engine_names[engine], "usable",
                     report->engines[engine].is_usable, "reason", report->engines[engine].reason, "kernel",
                     kernel[0] != '\0' ? json_string(kernel) : json_null());
}

static json_t *amount(uint64_t value)
{
    return value == HOST_UNKNOWN ? json_null() : json_integer((json_int_t)value);
}

static json_t *report_to_json(const struct doctor_report *report)
{
    json_t *checks = json_array(), *engines = json_array();
    for (size_t i = 0; i < CHECK_COUNT; i++) {
        const struct doctor_check *check = &report->checks[i];
        if (check->was_run)
            json_array_append_new(checks, json_pack("{s:s, s:s, s:s, s:s}", "name", doctor_check_names[i], "status",
                                                    doctor_status_names[check->status], "detail", check->detail,
                                                    "remedy", check->remedy));
    }
    for (int engine = 0; engine < HOST_ENGINE_COUNT; engine++)
        json_array_append_new(engines, engine_to_json(report, (enum host_engine)engine));
    const struct kvm_probe *kvm = &report->kvm;
    json_t *ratio = kvm->is_measured ? json_real(kvm_probe_ratio(kvm)) : json_null();
    json_t *engine = report->auto_engine >= 0 ? json_string(host_engine_names[report->auto_engine]) : json_null();
    return json_pack(
        "{s:s, s:{s:s, s:i, s:o, s:o}, s:o, s:{s:s, s:b, s:o, s:I, s:I, s:I, s:i}, s:o, s:o, s:s, s:f}", "version",
        vial_version(), "host", "kernel", report->host_kernel, "cpus", (int)report->capacity.cpus, "memory_mib",
        amount(report->capacity.memory_mib), "available_mib", amount(report->capacity.available_mib), "checks", checks,
        "kvm", "verdict", kvm_verdict_name(kvm->verdict), "usable", kvm->verdict == KVM_NATIVE, "ring0_ratio", ratio,
        "instructions", (json_int_t)kvm->instructions, "guest_ns", (json_int_t)kvm->guest_ns, "host_ns",
        (json_int_t)kvm->host_ns, "max_vcpus", (int)kvm->max_vcpus, "engines", engines, "auto", engine, "auto_reason",
        report->auto_reason, "elapsed_ms", (double)report->elapsed_ns / (double)CLOCK_NS_PER_MS);
}

static void print_check(const struct doctor_check *check, const char *name, const struct palette *colour)
{
    const char *const colours[] = {colour->green, colour->dim, colour->yellow, colour->red};
    printf("  %s%-4s%s  %-16s  %s\n", colours[check->status], doctor_status_names[check->status], colour->off, name,
           check->detail);
    if (check->remedy[0] != '\0')
        printf("        %*s-> %s\n", 16 + 2, "", check->remedy);
}

static void print_report(const struct doctor_report *report)
{
    const struct palette *colour = palette_for(stdout);
    printf("%svial %s%s on Linux %s: %u CPUs", colour->bold, vial_version(), colour->off, report->host_kernel,
           report->capacity.cpus);
    if (report->capacity.memory_mib != HOST_UNKNOWN)
        printf(", %" PRIu64 " MiB", report->capacity.memory_mib);
    printf("\n\n");
    for (size_t i = 0; i < CHECK_COUNT; i++)
        if (report->checks[i].was_run)
            print_check(&report->checks[i], doctor_check_names[i], colour);
    printf("\n%sengines%s\n", colour->bold, colour->off);
    for (size_t i = 0; i < HOST_ENGINE_COUNT; i++) {
        const struct doctor_engine *engine = &report->engines[i];
        printf("  %-4s  %s%-10s%s  %s\n", host_engine_names[i], engine->is_usable ? colour->green : colour->red,
               engine->is_usable ? "usable" : "not usable", colour->off, engine->reason);
    }
    printf("\nauto picks %s%s%s: %s (checked in %.1f ms)\n", colour->bold,
           report->auto_engine >= 0 ? host_engine_names[report->auto_engine] : "none", colour->off, report->auto_reason,
           (double)report->elapsed_ns / (double)CLOCK_NS_PER_MS);
}

static int run_doctor(const struct command *command, int argc, char *argv[])
{
    struct doctor_report report;
    bool is_json = false;
    int operands = command_options(command, NULL, argc, argv, 0, 0, &is_json);
    if (operands < 0)
        return options_status(operands);
    doctor_run("", &report);
    int status = report.auto_engine >= 0 ? EXIT_YES : EXIT_NO;
    if (is_json)
        return print_json(report_to_json(&report), status);
    print_report(&report);
    return finish_output(status);
}

const struct command command_doctor = {
    .name = "doctor",
    .path = "vial doctor",
    .arguments = "[--json]",
    .summary = "Check what this host can run, and say what to do about the rest",
    .about =
        "Tries KVM in a throwaway machine and times ring-0 code in it, looks for the guest kernels, and tries what "
        "confinement needs. Names the engines that can run a guest here and the one that auto would take.",
    .statuses = "0 when at least one engine can run a guest, 1 when none can",
    .run = run_doctor,
};
