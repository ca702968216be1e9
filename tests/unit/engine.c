// SPDX-License-Identifier: Apache-2.0
/* Parts of the kvm engine that need no KVM: who answers at an address, and what CPUID says. */
#include "test.h"

#include "engine/kvm/bus.h"
#include "engine/kvm/cpuid.h"

#include <errno.h>

/* ---- the bus ---- */

struct place {
    uint64_t offset;
    uint32_t length, reads, writes;
    uint8_t first;
};

static void read_place(void *user, uint64_t offset, void *bytes, uint32_t length)
{
    struct place *place = user;
    place->offset = offset;
    place->length = length;
    place->reads++;
    memset(bytes, place->first, length);
}

static void write_place(void *user, uint64_t offset, const void *bytes, uint32_t length)
{
    struct place *place = user;
    place->offset = offset;
    place->length = length;
    place->writes++;
    place->first = *(const uint8_t *)bytes;
}

static const struct bus_ops place_ops = {.read = read_place, .write = write_place};
static const struct bus_ops deaf_ops = {NULL, NULL};

TEST(an_access_goes_to_its_range)
{
    struct bus bus = {0};
    struct place places[3] = {{.first = 1}, {.first = 2}, {.first = 3}};
    static const uint64_t begins[] = {0x3000, 0x1000, 0x1100};
    uint32_t value = 0;
    for (size_t i = 0; i < 3; i++)
        CHECK_INT(bus_add(&bus, &(struct bus_range){begins[i], 0x100, &place_ops, &places[i]}), 0);
    bus_read(&bus, 0x10ff, &value, 1);
    CHECK(value == 2 && places[1].offset == 0xff && places[1].length == 1);
    value = 0;
    bus_read(&bus, 0x1100, &value, 2);
    CHECK(value == 0x0303 && places[2].offset == 0 && places[2].length == 2);
    value = 9;
    bus_write(&bus, 0x30ff, &value, 4); /* across the end: the range sees it */
    CHECK(places[0].writes == 1 && places[0].first == 9 && places[0].offset == 0xff);
    CHECK_INT(bus.unknown, 0);
    bus_free(&bus);
}

TEST(nobody_reads_as_ones_and_is_counted)
{
    struct bus bus = {0};
    struct place place = {.first = 1};
    uint64_t value = 0;
    bus_read(&bus, 0, &value, 8);
    CHECK(value == UINT64_MAX);
    CHECK_INT(bus_add(&bus, &(struct bus_range){0x1000, 1, &place_ops, &place}), 0);
    CHECK_INT(bus_add(&bus, &(struct bus_range){UINT64_MAX, 1, &deaf_ops, NULL}), 0);
    static const uint64_t others[] = {0, 0xfff, 0x1001, UINT64_MAX - 1, UINT64_MAX};
    for (size_t i = 0; i < 5; i++) {
        value = 0;
        bus_read(&bus, others[i], &value, 4);
        CHECK(value == UINT32_MAX);
        bus_write(&bus, others[i], &value, 4);
    }
    CHECK_INT(bus.unknown, 11);
    CHECK(place.reads == 0 && place.writes == 0);
    bus_free(&bus);
}

TEST(ranges_do_not_overlap)
{
    struct bus bus = {0};
    CHECK_INT(bus_add(&bus, &(struct bus_range){0x1000, 0x10, &deaf_ops, NULL}), 0);
    static const struct {
        uint64_t begin, size;
        int result;
    } tries[] = {
        {0x1000, 1, -EEXIST}, {0xfff, 2, -EEXIST},
        {0x100f, 1, -EEXIST}, {0, UINT64_MAX, -EEXIST},
        {0x1000, 0, -EINVAL}, {UINT64_MAX, 2, -EINVAL},
        {0xff0, 0x10, 0},     {0x1010, 0x10, 0},
        {0x0, 0xff0, 0},      {0x1020, UINT64_MAX - 0x1020, 0},
        {UINT64_MAX, 1, 0},
    };
    for (size_t i = 0; i < sizeof(tries) / sizeof(tries[0]); i++)
        CHECK_INT(bus_add(&bus, &(struct bus_range){tries[i].begin, tries[i].size, &deaf_ops, NULL}), tries[i].result);
    bus_free(&bus);
}

TEST(a_bus_survives_no_memory)
{
    FOR_EACH_FAULT
    {
        struct bus bus = {0};
        int result = 0;
        for (uint64_t i = 0; i < 20 && result == 0; i++)
            result = bus_add(&bus, &(struct bus_range){i * 16, 16, &deaf_ops, NULL});
        CHECK_INT(result, fault_was_hit() ? -ENOMEM : 0);
        bus_free(&bus);
    }
}

/* ---- CPUID ---- */

struct table {
    union {
        struct kvm_cpuid2 header;
        uint8_t bytes[sizeof(struct kvm_cpuid2) + CPUID_MOST_ENTRIES * sizeof(struct kvm_cpuid_entry2)];
    };
};

static void add_leaf(struct table *table, struct kvm_cpuid_entry2 entry)
{
    table->header.entries[table->header.nent++] = entry;
}

static const struct kvm_cpuid_entry2 *leaf(const struct table *table, uint32_t function, uint32_t index)
{
    static const struct kvm_cpuid_entry2 nothing = {.function = UINT32_MAX};
    for (uint32_t i = 0; i < table->header.nent; i++)
        if (table->header.entries[i].function == function && table->header.entries[i].index == index)
            return &table->header.entries[i];
    return &nothing;
}

static void make_host(struct table *table, bool is_amd)
{
    *table = (struct table){0};
    add_leaf(table, (struct kvm_cpuid_entry2){.function = 0, .eax = 0x1f, .ebx = is_amd ? 0x68747541 : 0x756e6547});
    add_leaf(table, (struct kvm_cpuid_entry2){
                        .function = 1, .ebx = 0xff0000ff, .ecx = UINT32_MAX & ~(1u << 31), .edx = UINT32_MAX});
    add_leaf(table, (struct kvm_cpuid_entry2){.function = 4, .index = 0, .eax = 1 | 1 << 5});
    add_leaf(table, (struct kvm_cpuid_entry2){.function = 4, .index = 1, .eax = 3 | 3 << 5});
    add_leaf(table, (struct kvm_cpuid_entry2){.function = 4, .index = 2, .eax = 0});
    add_leaf(table, (struct kvm_cpuid_entry2){.function = 6, .eax = 0x77, .ecx = 9});
    add_leaf(table, (struct kvm_cpuid_entry2){.function = 7, .ebx = 0x12345678});
    add_leaf(table, (struct kvm_cpuid_entry2){.function = 0xa, .eax = 5, .edx = 5});
    add_leaf(table, (struct kvm_cpuid_entry2){.function = 0xb, .index = 0, .eax = 9});
    add_leaf(table, (struct kvm_cpuid_entry2){.function = 0x1f, .index = 0, .eax = 9, .ebx = 9});
    add_leaf(table, (struct kvm_cpuid_entry2){.function = 0x40000001, .eax = UINT32_MAX});
    add_leaf(table, (struct kvm_cpuid_entry2){.function = 0x80000001, .ecx = UINT32_MAX});
    add_leaf(table, (struct kvm_cpuid_entry2){.function = 0x80000008, .eax = 0x3030, .ecx = 0xff});
    add_leaf(table, (struct kvm_cpuid_entry2){.function = 0x8000000a, .eax = 1, .edx = 1});
    add_leaf(table, (struct kvm_cpuid_entry2){.function = 0x8000001e, .eax = 77, .ebx = 77});
}

TEST(each_vcpu_knows_its_place)
{
    struct table table;
    struct cpuid_options options = {.vcpus = 6, .hyperthreading = true, .has_tsc_deadline = true};
    make_host(&table, false);
    for (unsigned i = 0; i < options.vcpus; i++) {
        cpuid_adjust(&table.header, &options, i);
        CHECK_INT(leaf(&table, 1, 0)->ebx >> 24, i);
        CHECK_INT(leaf(&table, 1, 0)->ebx >> 16 & 0xff, 8); /* six, up to the next power of two */
        CHECK_INT(leaf(&table, 0xb, 0)->edx, i);
        CHECK_INT(leaf(&table, 0xb, 1)->edx, i);
    }
    CHECK((leaf(&table, 1, 0)->edx & 1u << 28) != 0);
    CHECK(leaf(&table, 0xb, 0)->eax == 1 && leaf(&table, 0xb, 0)->ebx == 2 && leaf(&table, 0xb, 0)->ecx == 0x100);
    CHECK(leaf(&table, 0xb, 1)->eax == 3 && leaf(&table, 0xb, 1)->ebx == 6 && leaf(&table, 0xb, 1)->ecx == 0x201);
    CHECK(leaf(&table, 0xb, 2)->ebx == 0 && leaf(&table, 0xb, 2)->ecx == 2);
    /* A first-level cache belongs to the two threads of a core, the last one to all; four cores' worth of ids. */
    CHECK_INT(leaf(&table, 4, 0)->eax >> 14 & 0xfff, 1);
    CHECK_INT(leaf(&table, 4, 1)->eax >> 14 & 0xfff, 7);
    CHECK_INT(leaf(&table, 4, 0)->eax >> 26, 3);
    CHECK_INT(leaf(&table, 4, 2)->eax, 0);
}

TEST(one_vcpu_is_alone)
{
    struct table table;
    struct cpuid_options options = {.vcpus = 1};
    make_host(&table, false);
    cpuid_adjust(&table.header, &options, 0);
    CHECK((leaf(&table, 1, 0)->edx & 1u << 28) == 0);
    CHECK_INT(leaf(&table, 1, 0)->ebx >> 16 & 0xff, 1);
    CHECK(leaf(&table, 0xb, 0)->eax == 0 && leaf(&table, 0xb, 0)->ebx == 1);
    CHECK(leaf(&table, 0xb, 1)->eax == 0 && leaf(&table, 0xb, 1)->ebx == 1);
    CHECK_INT(leaf(&table, 4, 1)->eax >> 14 & 0xfff, 0);
}

TEST(what_is_not_virtualized_is_not_shown)
{
    struct table table;
    for (int is_nested = 0; is_nested < 2; is_nested++) {
        struct cpuid_options options = {.vcpus = 2, .nested = is_nested == 1};
        make_host(&table, true);
        cpuid_adjust(&table.header, &options, 0);
        CHECK_INT(leaf(&table, 1, 0)->ecx >> 5 & 1, is_nested);          /* VMX */
        CHECK_INT(leaf(&table, 0x80000001, 0)->ecx >> 2 & 1, is_nested); /* SVM */
        CHECK_INT(leaf(&table, 0x8000000a, 0)->eax, is_nested);
        CHECK((leaf(&table, 1, 0)->ecx & 1u << 31) != 0); /* a hypervisor */
        CHECK((leaf(&table, 1, 0)->ecx & 1u << 24) == 0 &&
              (leaf(&table, 1, 0)->ecx & 1u << 15) == 0); /* no timer, PDCM */
        CHECK(leaf(&table, 0xa, 0)->eax == 0 && leaf(&table, 0xa, 0)->edx == 0);
        CHECK(leaf(&table, 0x1f, 0)->eax == 0 && leaf(&table, 0x1f, 0)->ebx == 0);
        CHECK((leaf(&table, 0x80000001, 0)->ecx & 3u << 23) == 0);
        CHECK(leaf(&table, 6, 0)->eax == 4 && leaf(&table, 6, 0)->ecx == 0);
        CHECK(leaf(&table, 7, 0)->ebx == 0x12345678); /* the rest is the host's */
        CHECK_INT(leaf(&table, 0x40000001, 0)->eax, 0xffffffffu & ~(1u << 4 | 1u << 10 | 1u << 14));
    }
}

TEST(amd_counts_in_its_own_leaves)
{
    struct table table;
    struct cpuid_options options = {.vcpus = 64, .hyperthreading = true};
    make_host(&table, true);
    cpuid_adjust(&table.header, &options, 63);
    CHECK_INT(leaf(&table, 0x80000008, 0)->ecx & 0xff, 63);
    CHECK_INT(leaf(&table, 0x80000008, 0)->ecx >> 12 & 15, 6);
    CHECK_INT(leaf(&table, 0x80000008, 0)->eax, 0x3030);
    CHECK_INT(leaf(&table, 0x8000001e, 0)->eax, 63);
    CHECK_INT(leaf(&table, 0x8000001e, 0)->ebx, 31 | 1 << 8);
    make_host(&table, false);
    cpuid_adjust(&table.header, &options, 63);
    CHECK_INT(leaf(&table, 0x80000008, 0)->ecx, 0xff); /* Intel's is left alone */
}

TEST(adjusting_twice_is_adjusting_once)
{
    struct table once, twice;
    struct cpuid_options options = {.vcpus = 4, .has_tsc_deadline = true};
    make_host(&once, true);
    cpuid_adjust(&once.header, &options, 3);
    make_host(&twice, true);
    cpuid_adjust(&twice.header, &options, 1);
    cpuid_adjust(&twice.header, &options, 3);
    CHECK(once.header.nent == twice.header.nent);
    CHECK(memcmp(&once, &twice, sizeof(once)) == 0);
}

TEST(a_full_table_stays_within_its_bounds)
{
    struct table table;
    struct cpuid_options options = {.vcpus = 2};
    make_host(&table, false);
    while (table.header.nent < CPUID_MOST_ENTRIES)
        add_leaf(&table, (struct kvm_cpuid_entry2){.function = 0x40000000});
    cpuid_adjust(&table.header, &options, 1);
    CHECK_INT(table.header.nent, CPUID_MOST_ENTRIES);
}
