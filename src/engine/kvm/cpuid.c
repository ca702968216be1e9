// SPDX-License-Identifier: Apache-2.0
/* What CPUID tells the guest.
 *
 * KVM says what it can virtualize on this CPU; that is the base, and the guest sees the host's model and instruction
 * sets. On top of it come the things that only the machine knows, one function a leaf: which vCPU this is, how vCPUs
 * form cores and a package, which caches they share, that there is a hypervisor. Taken away is what we do not
 * virtualize for a guest: performance counters, VMX and SVM unless nested virtualization was asked for, and
 * asynchronous page faults, in whose delivery the KVM of Linux 6.1 was once seen stuck, out of any signal's reach.
 *
 * The topology is one package of cores, each with one thread or two. An APIC id is the number of the vCPU; the lowest
 * bit is the thread where there are two. Leaves that count in powers of two round up. (Intel SDM 2A, CPUID; AMD APM 3,
 * appendix E)
 *
 * Invariants: (1) nothing that KVM did not offer is shown, but for the hypervisor bit, the TSC deadline timer where KVM
 * has it, ARAT, and the topology. (2) every vCPU of a machine shows the same but for its APIC id.
 *
 * Trust: the base comes from the host's kernel.
 */
#include "engine/kvm/cpuid.h"

#include "base/alloc.h"

#include <asm/kvm_para.h>
#include <string.h>

struct topology {
    unsigned threads;               /* of a core */
    unsigned thread_bits, all_bits; /* of an APIC id: the thread's, and the package's */
    unsigned vcpus;
};

static unsigned bits_for(unsigned count)
{
    unsigned bits = 0;
    while (1u << bits < count)
        bits++;
    return bits;
}

/* Replaces the bits [low, low + count) of a register. */
static void set_field(uint32_t *word, unsigned low, unsigned count, uint32_t value)
{
    uint32_t mask = (count < 32 ? (1u << count) - 1 : UINT32_MAX) << low;
    *word = (*word & ~mask) | (value << low & mask);
}

static void set_bit(uint32_t *word, unsigned bit, bool is_set)
{
    set_field(word, bit, 1, is_set);
}

static void clear(struct kvm_cpuid_entry2 *entry)
{
    entry->eax = entry->ebx = entry->ecx = entry->edx = 0;
}

/* Leaf 1: features, and the initial APIC id. */
static void adjust_features(struct kvm_cpuid_entry2 *entry, const struct cpuid_options *options,
                            const struct topology *topology, unsigned index)
{
    enum { cache_line_eighths = 8, pdcm = 15, deadline = 24, hypervisor = 31, vmx = 5, threads = 28 };
    set_field(&entry->ebx, 8, 8, cache_line_eighths);
    set_field(&entry->ebx, 16, 8, 1u << topology->all_bits);
    set_field(&entry->ebx, 24, 8, index);
    set_bit(&entry->edx, threads, topology->vcpus > 1);
    set_bit(&entry->ecx, pdcm, false);
    set_bit(&entry->ecx, deadline, options->has_tsc_deadline);
    set_bit(&entry->ecx, hypervisor, true);
    if (!options->nested)
        set_bit(&entry->ecx, vmx, false);
}

/* Leaf 4 (Intel) and 0x8000001d (AMD): each cache, and how many APIC ids share it. */
static void adjust_cache(struct kvm_cpuid_entry2 *entry, const struct topology *topology)
{
    unsigned level = entry->eax >> 5 & 7;
    if ((entry->eax & 0x1f) == 0)
        return; /* no more caches */
    unsigned sharing_bits = level >= 3 ? topology->all_bits : topology->thread_bits;
    set_field(&entry->eax, 14, 12, (1u << sharing_bits) - 1);
    if (entry->function == 4)
        set_field(&entry->eax, 26, 6, (1u << (topology->all_bits - topology->thread_bits)) - 1);
}

/* Leaf 6: the local APIC's timer always runs; no thermal or frequency sensors. */
static void adjust_power(struct kvm_cpuid_entry2 *entry)
{
    enum { always_running_timer = 1 << 2 };
    clear(entry);
    entry->eax = always_running_timer;
}

/* Leaf 0xb: the levels of the topology by shifts of the APIC id. */
static void adjust_levels(struct kvm_cpuid_entry2 *entry, const struct topology *topology, unsigned index)
{
    enum { level_thread = 1, level_core = 2 };
    clear(entry);
    entry->edx = index;
    entry->ecx = entry->index;
    if (entry->index == 0) {
        entry->eax = topology->thread_bits;
        entry->ebx = topology->threads;
        entry->ecx |= level_thread << 8;
    } else if (entry->index == 1) {
        entry->eax = topology->all_bits;
        entry->ebx = topology->vcpus;
        entry->ecx |= level_core << 8;
    }
}

/* Leaf 0x80000001: AMD's features. */
static void adjust_amd_features(struct kvm_cpuid_entry2 *entry, const struct cpuid_options *options,
                                const struct topology *topology)
{
    enum { legacy_threads = 1, svm = 2, counters_core = 23, counters_nb = 24 };
    set_bit(&entry->ecx, counters_core, false);
    set_bit(&entry->ecx, counters_nb, false);
    set_bit(&entry->ecx, legacy_threads, (entry->ecx & 1u << legacy_threads) != 0 && topology->vcpus > 1);
    if (!options->nested)
        set_bit(&entry->ecx, svm, false);
}

/* Leaf 0x40000001: what KVM offers to guests that know it. */
static void adjust_kvm(struct kvm_cpuid_entry2 *entry)
{
    set_bit(&entry->eax, KVM_FEATURE_ASYNC_PF, false);
    set_bit(&entry->eax, KVM_FEATURE_ASYNC_PF_VMEXIT, false);
    set_bit(&entry->eax, KVM_FEATURE_ASYNC_PF_INT, false);
}

/* Leaf 0x80000008: how many threads the package has, and the bits of their ids (AMD; reserved on Intel). */
static void adjust_amd_count(struct kvm_cpuid_entry2 *entry, const struct topology *topology)
{
    set_field(&entry->ecx, 0, 8, topology->vcpus - 1);
    set_field(&entry->ecx, 12, 4, topology->all_bits);
}

/* Leaf 0x8000001e: this thread, its core, its node. */
static void adjust_amd_ids(struct kvm_cpuid_entry2 *entry, const struct topology *topology, unsigned index)
{
    clear(entry);
    entry->eax = index;
    set_field(&entry->ebx, 0, 8, index >> topology->thread_bits);
    set_field(&entry->ebx, 8, 8, topology->threads - 1);
}

static void adjust(struct kvm_cpuid_entry2 *entry, const struct cpuid_options *options, const struct topology *topology,
                   unsigned index, bool is_amd)
{
    switch (entry->function) {
    case 1:
        adjust_features(entry, options, topology, index);
        break;
    case 4:
    case 0x8000001d:
        adjust_cache(entry, topology);
        break;
    case 6:
        adjust_power(entry);
        break;
    case 0xb:
        adjust_levels(entry, topology, index);
        break;
    case 0xa:        /* performance counters: Intel's, */
    case 0x80000022: /* AMD's; */
    case 0x1f:       /* topologies with dies and clusters, which leaf 0xb and the APIC ids tell better */
    case 0x80000026:
        clear(entry);
        break;
    case KVM_CPUID_FEATURES:
        adjust_kvm(entry);
        break;
    case 0x80000001:
        adjust_amd_features(entry, options, topology);
        break;
    case 0x80000008:
        if (is_amd)
            adjust_amd_count(entry, topology);
        break;
    case 0x8000000a:
        if (!options->nested)
            clear(entry);
        break;
    case 0x8000001e:
        adjust_amd_ids(entry, topology, index);
        break;
    default:
        break;
    }
}

static struct kvm_cpuid_entry2 *find(struct kvm_cpuid2 *cpuid, uint32_t function, uint32_t index)
{
    for (uint32_t i = 0; i < cpuid->nent; i++)
        if (cpuid->entries[i].function == function && cpuid->entries[i].index == index)
            return &cpuid->entries[i];
    return NULL;
}

/* KVM lists as many levels of leaf 0xb as the host has; a guest looks at two and the end. */
static void add_levels(struct kvm_cpuid2 *cpuid)
{
    const struct kvm_cpuid_entry2 *basic = find(cpuid, 0, 0);
    if (basic == NULL || basic->eax < 0xb)
        return;
    for (uint32_t level = 0; level <= 2; level++) {
        if (find(cpuid, 0xb, level) != NULL || cpuid->nent == CPUID_MOST_ENTRIES)
            continue;
        cpuid->entries[cpuid->nent++] = (struct kvm_cpuid_entry2){
            .function = 0xb,
            .index = level,
            .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        };
    }
}

static bool is_vendor_amd(struct kvm_cpuid2 *cpuid)
{
    const struct kvm_cpuid_entry2 *basic = find(cpuid, 0, 0);
    /* "AuthenticAMD" and "HygonGenuine": the first letters, in ebx */
    return basic != NULL && (basic->ebx == 0x68747541 || basic->ebx == 0x6f677948);
}

void cpuid_adjust(struct kvm_cpuid2 *cpuid, const struct cpuid_options *options, unsigned index)
{
    unsigned threads = options->hyperthreading ? 2 : 1;
    struct topology topology = {
        .threads = threads,
        .thread_bits = bits_for(threads),
        .all_bits = bits_for(options->vcpus),
        .vcpus = options->vcpus,
    };
    bool is_amd = is_vendor_amd(cpuid);
    add_levels(cpuid);
    for (uint32_t i = 0; i < cpuid->nent; i++)
        adjust(&cpuid->entries[i], options, &topology, index, is_amd);
}
