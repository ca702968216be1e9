// SPDX-License-Identifier: Apache-2.0
/* Which engine a configuration gets, and what that engine refuses: src/vmm/choose.c. Nothing is started. */
#include "test.h"

#include "base/alloc.h"
#include "vmm/vm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct vial_error err;

static struct vial_vm_config *load(const char *json)
{
    struct vial_vm_config *config = NULL;
    if (vial_vm_config_load_text(json, strlen(json), &config, &err) < 0)
        abort();
    return config;
}

static int choose(const char *json, struct vial_engine_info *info)
{
    struct vial_vm_config *config = load(json);
    err = (struct vial_error){0};
    int result = vm_choose_engine(config, info, &err);
    vial_vm_config_free(config);
    return result;
}

TEST(an_engine_that_is_asked_for_is_taken)
{
    struct vial_engine_info info;
    CHECK_INT(choose("{\"machine\": {\"engine\": \"kvm\"}}", &info), 0);
    CHECK_INT(info.engine, VIAL_ENGINE_KVM);
    CHECK_TEXT(info.reason, "it was asked for");
    CHECK_INT(choose("{\"machine\": {\"engine\": \"uml\"}}", &info), 0);
    CHECK_INT(info.engine, VIAL_ENGINE_UML);
}

TEST(auto_takes_one_and_says_why)
{
    struct vial_engine_info info;
    CHECK_INT(choose("{}", &info), 0);
    CHECK(info.engine == VIAL_ENGINE_KVM || info.engine == VIAL_ENGINE_UML);
    CHECK(strlen(info.reason) > strlen("KVM"));
}

TEST(user_mode_linux_refuses_what_it_has_not)
{
    static const struct {
        const char *json, *field, *message;
    } cases[] = {
        {"{\"machine\": {\"engine\": \"uml\", \"hyperthreading\": true, \"vcpus\": 2}}", "machine.hyperthreading",
         "no threads of a core"},
        {"{\"machine\": {\"engine\": \"uml\", \"nested_virtualization\": true}}", "machine.nested_virtualization",
         "no VMX or SVM"},
        {"{\"machine\": {\"engine\": \"uml\", \"acpi\": \"on\"}}", "machine.acpi", "no ACPI"},
        {"{\"machine\": {\"engine\": \"uml\"}, \"kernel\": {\"krunfw\": \"k\"}}", "kernel.krunfw", "libkrunfw"},
        {"{\"machine\": {\"engine\": \"uml\"}, \"kernel\": {\"path\": \"k\", \"format\": \"bzimage\"}}",
         "kernel.format", "no use for a kernel in this format"},
        {"{\"machine\": {\"engine\": \"uml\"}, \"root\": {\"path\": \"r\", \"dax_window_mib\": 2}}",
         "root.dax_window_mib", "no shared memory for DAX"},
        {"{\"machine\": {\"engine\": \"uml\"}, \"fs\": [{\"path\": \"r\"}, {\"path\": \"s\", \"dax_window_mib\": 2}]}",
         "fs", "no shared memory"},
        {"{\"machine\": {\"engine\": \"uml\"}, \"console\": {\"serial\": [{\"output_fd\": 1}]}}", "console.serial",
         "no serial ports"},
    };
    for (size_t i = 0; i < array_length(cases); i++) {
        struct vial_engine_info info;
        CHECK_INT(choose(cases[i].json, &info), -EOPNOTSUPP);
        CHECK_TEXT(err.field, cases[i].field);
        CHECK(strstr(err.message, cases[i].message) != NULL && strstr(err.message, "it was asked for") != NULL);
        CHECK(strstr(err.remedy, "--engine kvm") != NULL);
    }
}

TEST(kvm_has_all_of_that)
{
    struct vial_engine_info info;
    CHECK_INT(choose("{\"machine\": {\"engine\": \"kvm\", \"acpi\": \"on\", \"nested_virtualization\": true},"
                     " \"console\": {\"serial\": [{\"output_fd\": 1}]}}",
                     &info),
              0);
}

TEST(both_engines_have_networks_and_vsock)
{
    static const char *const engines[] = {"kvm", "uml", "auto"};
    for (size_t i = 0; i < array_length(engines); i++) {
        struct vial_engine_info info;
        char json[256];
        snprintf(json, sizeof(json),
                 "{\"machine\": {\"engine\": \"%s\", \"vsock\": true}, \"net\": [{\"kind\": \"passt\"},"
                 " {\"kind\": \"tap\", \"path\": \"t\"}], \"vsock_ports\": [{\"port\": 1, \"path\": \"v\"}]}",
                 engines[i]);
        CHECK_INT(choose(json, &info), 0);
    }
}

TEST(only_kvm_has_tsi)
{
    struct vial_engine_info info;
    CHECK_INT(choose("{\"machine\": {\"engine\": \"kvm\", \"inet_hijack\": true}, \"port_map\": [\"80\"]}", &info), 0);
    CHECK_INT(choose("{\"machine\": {\"engine\": \"uml\", \"inet_hijack\": true}}", &info), -EOPNOTSUPP);
    CHECK_TEXT(err.field, "machine.inet_hijack");
    CHECK(strstr(err.message, "no TSI") != NULL && strstr(err.remedy, "--engine kvm") != NULL);
}

TEST(names)
{
    CHECK_TEXT(vial_engine_name(VIAL_ENGINE_AUTO), "auto");
    CHECK_TEXT(vial_engine_name(VIAL_ENGINE_UML), "uml");
    CHECK_TEXT(vial_engine_name(3), "unknown");
    CHECK_TEXT(vial_engine_name(-1), "unknown");
    CHECK_TEXT(vial_isolation_name(VIAL_ISOLATION_HARDWARE), "hardware");
    CHECK_TEXT(vial_isolation_name(VIAL_ISOLATION_WEAK), "weak");
    CHECK_TEXT(vial_isolation_name(0), "unknown");
}

TEST(a_result_of_another_version_gets_what_fits)
{
    struct vial_engine_info info = VIAL_ENGINE_INFO_INIT;
    struct vial_vm_config *config = load(
        "{\"machine\": {\"engine\": \"kvm\"}, \"kernel\": {\"path\": \"/proc/self/exe\"}}");
    info.size = offsetof(struct vial_engine_info, isolation);
    info.isolation = 77;
    CHECK_INT(vial_vm_config_choose_engine(config, &info, &err), 0);
    CHECK(info.engine == VIAL_ENGINE_KVM && info.isolation == 77);
    info.size = 0;
    CHECK_INT(vial_vm_config_choose_engine(config, &info, &err), -EINVAL);
    info.size = sizeof(info);
    CHECK_INT(vial_vm_config_choose_engine(config, &info, &err), 0);
    CHECK_INT(info.isolation, VIAL_ISOLATION_HARDWARE);
    CHECK_TEXT(info.kernel, "/proc/self/exe");
    vial_vm_config_free(config);
}
