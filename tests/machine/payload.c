// SPDX-License-Identifier: Apache-2.0
/* What runs on the bare machine: small tests of what the VMM emulates, chosen by the command line.
 *
 *     … payload=NAME …   runs that test; it reports on the first serial port, then ends the machine in its own way
 *
 * Compiled freestanding and entered in long mode by start.S, with all of the first 4 GiB mapped to themselves. The KVM
 * that it runs on may execute ring-0 code one emulated instruction at a time: tests take thousands of instructions, not
 * millions.
 */
#include <stddef.h>
#include <stdint.h>

void payload_main(const uint8_t *start_info);
void go_real(void);
void handle_interrupt(void);
extern const uint8_t interrupt_entry[];

static const char *command_line;
static volatile unsigned interrupts;

/* ---- ports and memory ---- */

static uint8_t in_8(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("in %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static uint16_t in_16(uint16_t port)
{
    uint16_t value;
    __asm__ volatile("in %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static uint32_t in_32(uint16_t port)
{
    uint32_t value;
    __asm__ volatile("in %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static void out_8(uint16_t port, uint8_t value)
{
    __asm__ volatile("out %0, %1" : : "a"(value), "Nd"(port));
}

static void out_16(uint16_t port, uint16_t value)
{
    __asm__ volatile("out %0, %1" : : "a"(value), "Nd"(port));
}

static uint32_t load(uint64_t address)
{
    return *(volatile uint32_t *)address;
}

static void store(uint64_t address, uint32_t value)
{
    *(volatile uint32_t *)address = value;
}

static void write_msr(uint32_t index, uint64_t value)
{
    __asm__ volatile("wrmsr" : : "c"(index), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)));
}

static uint64_t read_msr(uint32_t index)
{
    uint32_t low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(index));
    return (uint64_t)high << 32 | low;
}

/* ---- reporting ---- */

static void print(const char *text)
{
    for (; *text != '\0'; text++) {
        while ((in_8(0x3fd) & 0x20) == 0)
            ;
        out_8(0x3f8, (uint8_t)*text);
    }
}

static void print_number(const char *name, uint64_t number)
{
    char text[20];
    size_t at = sizeof(text);
    text[--at] = '\0';
    do {
        text[--at] = "0123456789abcdef"[number & 15];
        number >>= 4;
    } while (number != 0);
    print(name);
    print("=");
    print(text + at);
    print("\n");
}

static void power_off(void)
{
    out_16(0x604, 0x2000);
    for (;;)
        __asm__ volatile("hlt");
}

/* ---- the tests ---- */

static void test_ports(void)
{
    print_number("in8", in_8(0x1234));
    print_number("in16", in_16(0x1234));
    print_number("in32", in_32(0x1234));
    out_8(0x1234, 1);
    print_number("gap", in_8(0x61)); /* between two ports of the keyboard controller */
    uint8_t string[4] = {0};
    uint8_t *at = string;
    uint64_t count = sizeof(string);
    __asm__ volatile("rep insb" : "+D"(at), "+c"(count) : "d"((uint16_t)0x4321) : "memory");
    print_number("string", (uint64_t)string[0] + string[3]);
    power_off();
}

static void test_memory(void)
{
    print_number("mmio", load(0xe0000000));
    print_number("mmio8", *(volatile uint8_t *)0xe0000001);
    print_number("mmio64", *(volatile uint64_t *)0xe0000008);
    store(0xe0000000, 5);
    power_off();
}

static void test_cpu(void)
{
    uint32_t eax = 1, ebx = 0, ecx = 0, edx = 0;
    __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    print_number("hypervisor", ecx >> 31);
    print_number("vmx", ecx >> 5 & 1);
    print_number("deadline", ecx >> 24 & 1);
    print_number("apic", ebx >> 24);
    print_number("threads", ebx >> 16 & 0xff);
    eax = 0x40000000;
    ecx = 0;
    __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    print_number("kvm", ebx == 0x4b4d564b);
    print_number("mtrr", read_msr(0x2ff));
    out_8(0x70, 0x0d);
    print_number("clock", in_8(0x71));
    power_off();
}

enum {
    device = 0xd0000000u,
    queue_address = 0x200000,
    available_address = 0x201000,
    used_address = 0x202000,
    buffer_address = 0x203000,
};

static void set_queue(uint64_t base, unsigned entries)
{
    store(base + 0x38, entries);
    store(base + 0x80, queue_address);
    store(base + 0x84, 0);
    store(base + 0x90, available_address);
    store(base + 0x94, 0);
    store(base + 0xa0, used_address);
    store(base + 0xa4, 0);
    store(base + 0x44, 1);
}

/* The ladder, each step read back; then what must not work. */
static void test_ladder(void)
{
    print_number("magic", load(device));
    print_number("version", load(device + 4));
    print_number("id", load(device + 8));
    print_number("vendor", load(device + 0xc));
    store(device + 0x70, 4); /* DRIVER_OK before anything else */
    print_number("early", load(device + 0x70));
    store(device + 0x70, 1);
    store(device + 0x70, 3);
    print_number("driver", load(device + 0x70));
    store(device + 0x70, 11); /* without VERSION_1 */
    print_number("refused", load(device + 0x70));
    store(device + 0x24, 1);
    store(device + 0x20, 1);
    store(device + 0x70, 11);
    print_number("features", load(device + 0x70));
    store(device + 0x30, 0);
    print_number("max", load(device + 0x34));
    set_queue(device, 3); /* no power of two */
    store(device + 0x70, 15);
    print_number("needs", load(device + 0x70));
    store(device + 0x70, 0);
    print_number("reset", load(device + 0x70));
    store(device + 0x30, 99);
    print_number("none", load(device + 0x34));
    print_number("config", load(device + 0x100));
    power_off();
}

struct gate {
    uint16_t offset_low, selector, flags, offset_middle;
    uint32_t offset_high, reserved;
} __attribute__((packed));

static void set_up_interrupts(unsigned vector, unsigned pin)
{
    static struct gate gates[64];
    uint64_t entry = (uint64_t)interrupt_entry;
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) pointer = {sizeof(gates) - 1, (uint64_t)gates};
    gates[vector] = (struct gate){(uint16_t)entry, 8, 0x8e00, (uint16_t)(entry >> 16), (uint32_t)(entry >> 32), 0};
    __asm__ volatile("lidt %0" : : "m"(pointer));
    out_8(0x21, 0xff); /* the 8259s, where there are any, keep quiet */
    out_8(0xa1, 0xff);
    write_msr(0x1b, read_msr(0x1b) | 0x800); /* the local APIC on */
    store(0xfee000f0, 0x100 | 0x3f);         /* spurious vector 63, software enable */
    store(0xfec00000, 0x10 + 2 * pin + 1);
    store(0xfec00010, 0); /* to APIC id 0 */
    store(0xfec00000, 0x10 + 2 * pin);
    store(0xfec00010, vector); /* fixed, edge, unmasked */
}

void handle_interrupt(void)
{
    interrupts = interrupts + 1;
    store(0xfee000b0, 0); /* end of interrupt */
}

/* Random bytes from the first device, told by its interrupt. */
static void test_interrupt(void)
{
    set_up_interrupts(40, 5);
    store(device + 0x70, 1);
    store(device + 0x70, 3);
    store(device + 0x24, 1);
    store(device + 0x20, 1);
    store(device + 0x70, 11);
    store(device + 0x30, 0);
    set_queue(device, 4);
    store(device + 0x70, 15);
    print_number("status", load(device + 0x70));
    store(queue_address, buffer_address);
    store(queue_address + 8, 16);
    store(queue_address + 12, 2); /* for the device to write */
    *(volatile uint16_t *)(available_address + 4) = 0;
    __asm__ volatile("" ::: "memory");
    *(volatile uint16_t *)(available_address + 2) = 1;
    store(device + 0x50, 0);
    /* sti takes effect after the next instruction: nothing is missed between the look and the hlt */
    while (interrupts == 0)
        __asm__ volatile("sti; hlt; cli" ::: "memory");
    print_number("interrupts", interrupts);
    print_number("why", load(device + 0x60));
    store(device + 0x64, 1);
    print_number("acknowledged", load(device + 0x60));
    print_number("used", *(volatile uint16_t *)(used_address + 2));
    print_number("length", load(used_address + 8));
    uint64_t bits = *(volatile uint64_t *)buffer_address | *(volatile uint64_t *)(buffer_address + 8);
    print_number("random", bits != 0);
    power_off();
}

static void test_window(void)
{
    store(device + 0xac, 0);
    uint64_t base = load(device + 0xb8) | (uint64_t)load(device + 0xbc) << 32;
    print_number("length", load(device + 0xb0) | (uint64_t)load(device + 0xb4) << 32);
    store(device + 0xac, 1);
    print_number("none", load(device + 0xb0));
    print_number("base", base);
    power_off();
}

static void test_triple_fault(void)
{
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) nothing = {0, 0};
    __asm__ volatile("lidt %0; ud2" : : "m"(nothing));
}

static void test_reset(void)
{
    out_8(0x64, 0xfe);
}

static void test_panic(void)
{
    *(volatile uint16_t *)0x472 = 0x1234;
    out_8(0x64, 0xfe);
}

static void test_halt(void)
{
    print("halted\n");
    for (;;)
        __asm__ volatile("cli; hlt");
}

static void test_spin(void)
{
    print("spinning\n");
    for (;;)
        __asm__ volatile("pause");
}

/* One character a turn, for as long as it is let. */
static void test_talk(void)
{
    for (;;)
        print(".");
}

static void test_off(void)
{
    power_off();
}

static void test_end(void)
{
    print("up\n");
    power_off();
}

/* The shortest life that can be seen on any VMM. */
static void test_hello(void)
{
    print("up\n");
    test_triple_fault();
}

static const struct {
    const char *name;
    void (*run)(void);
} tests[] = {
    {"ports", test_ports},   {"memory", test_memory},
    {"cpu", test_cpu},       {"ladder", test_ladder},
    {"window", test_window}, {"interrupt", test_interrupt},
    {"real", go_real},       {"triple", test_triple_fault},
    {"reset", test_reset},   {"panic", test_panic},
    {"halt", test_halt},     {"spin", test_spin},
    {"talk", test_talk},     {"end", test_end},
    {"off", test_off},       {"hello", test_hello},
};

/* What stands behind the word in the command line, or NULL. */
static const char *find_word(const char *line, const char *word)
{
    for (; *line != '\0'; line++) {
        const char *a = line, *b = word;
        while (*b != '\0' && *a == *b) {
            a++;
            b++;
        }
        if (*b == '\0')
            return a;
    }
    return NULL;
}

static int is_word(const char *text, const char *word)
{
    for (; *word != '\0'; text++, word++)
        if (*text != *word)
            return 0;
    return *text == ' ' || *text == '\0';
}

void payload_main(const uint8_t *start_info)
{
    command_line = (const char *)*(const uint64_t *)(const void *)(start_info + 24); /* cmdline_paddr */
    const char *name = find_word(command_line, "payload=");
    for (size_t i = 0; name != NULL && i < sizeof(tests) / sizeof(tests[0]); i++)
        if (is_word(name, tests[i].name))
            tests[i].run();
    print("no such payload\n");
    power_off();
}
