// SPDX-License-Identifier: Apache-2.0
/* A console whose driver does anything: the input is a list of commands that write rings, buffers and control messages,
 * kick queues, let the host write, close and open, and reset.
 *
 * Four ports: a pipe both ways, /dev/full, functions that take little at a time, and nothing. What must hold: nothing
 * crashes or hangs, no descriptor is left behind, and between stop and start no byte of guest memory changes.
 */
#include "fuzz.h"

#include "device/console/console.h"
#include "virtio/mmio.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { ram_bytes = 1 << 16, ring_bytes = 4096, port_count = 4, queue_count = 2 * port_count + 2, most_commands = 400 };

static struct memory *memory;
static uint8_t *ram;
static int null_fd, full_fd, event_fd, interrupt_fd;

struct machine {
    struct virtio_device *device;
    struct mmio *mmio;
    int in[2], out[2];
    const uint8_t *data;
    size_t left;
};

static uint8_t next_byte(struct machine *machine)
{
    if (machine->left == 0)
        return 0;
    machine->left--;
    return *machine->data++;
}

static ssize_t take_little(void *user, const void *bytes, size_t length)
{
    static unsigned count;
    (void)user;
    FUZZ_CHECK(bytes != NULL && length > 0 && length <= 4096);
    return ++count % 5 == 0 ? -EAGAIN : (ssize_t)(count % 2 == 0 ? length : (length + 1) / 2);
}

static ssize_t give_little(void *user, void *bytes, size_t size)
{
    static unsigned count;
    (void)user;
    FUZZ_CHECK(size > 0 && size <= 4096);
    memset(bytes, 'g', size);
    return ++count % 3 == 0 ? -EAGAIN : (ssize_t)(size + 1) / 2;
}

static int poll_little(void *user)
{
    (void)user;
    return event_fd;
}

static void set_register(struct machine *machine, uint64_t offset, uint32_t value)
{
    mmio_write(machine->mmio, offset, &value, sizeof(value));
}

/* Resets, once the pipe is empty: a full one is waited for. */
static void reset(struct machine *machine)
{
    uint8_t bytes[4096];
    while (read(machine->out[0], bytes, sizeof(bytes)) > 0)
        continue;
    set_register(machine, 0x70, 0);
}

/* The whole ladder with queues where the commands write, or, now and then, elsewhere. */
static void climb(struct machine *machine)
{
    uint8_t how = next_byte(machine);
    reset(machine);
    set_register(machine, 0x70, 3);
    set_register(machine, 0x24, 0);
    set_register(machine, 0x20, (how & 1) != 0 ? 1 : 3 | ((how & 2) != 0 ? 3u << 28 : 0));
    set_register(machine, 0x24, 1);
    set_register(machine, 0x20, 1);
    set_register(machine, 0x70, 11);
    for (unsigned i = 0; i < queue_count; i++) {
        uint32_t ring = (how & 4) != 0 ? (uint32_t)next_byte(machine) << 8 : i * ring_bytes;
        set_register(machine, 0x30, i);
        set_register(machine, 0x38, 64);
        set_register(machine, 0x80, ring);
        set_register(machine, 0x90, ring + 0x800);
        set_register(machine, 0xa0, ring + 0xc00);
        set_register(machine, 0x44, 1);
    }
    set_register(machine, 0x70, 15);
}

static void put_16(uint64_t address, uint16_t value)
{
    memory_write(memory, address, &value, sizeof(value));
}

/* A chain of one descriptor into the next place of a queue's ring. */
static void offer(struct machine *machine)
{
    unsigned queue = next_byte(machine) % queue_count;
    uint64_t ring = (uint64_t)queue * ring_bytes;
    uint16_t index;
    memory_read(memory, ring + 0x802, &index, sizeof(index));
    struct {
        uint64_t address;
        uint32_t length;
        uint16_t flags, next;
    } descriptor = {
        .address = 0xa000 + (uint64_t)next_byte(machine) * 64,
        .length = next_byte(machine),
        .flags = next_byte(machine) & 7,
        .next = next_byte(machine) % 80,
    };
    memory_write(memory, ring + 16 * (uint64_t)(index % 64), &descriptor, sizeof(descriptor));
    put_16(ring + 0x804 + 2 * (uint64_t)(index % 64), index % 64);
    put_16(ring + 0x802, (uint16_t)(index + 1));
    virtio_kick(machine->device, queue);
}

/* A control message, right in its form at least. */
static void say(struct machine *machine)
{
    uint64_t ring = 3 * ring_bytes;
    uint16_t index;
    uint16_t words[4] = {next_byte(machine), 0, next_byte(machine), next_byte(machine)};
    memory_read(memory, ring + 0x802, &index, sizeof(index));
    uint64_t buffer = 0xe000 + 8 * (uint64_t)(index % 64);
    struct {
        uint64_t address;
        uint32_t length;
        uint16_t flags, next;
    } descriptor = {.address = buffer, .length = 8};
    memory_write(memory, buffer, words, sizeof(words));
    memory_write(memory, ring + 16 * (uint64_t)(index % 64), &descriptor, sizeof(descriptor));
    put_16(ring + 0x804 + 2 * (uint64_t)(index % 64), index % 64);
    put_16(ring + 0x802, (uint16_t)(index + 1));
    virtio_kick(machine->device, 3);
}

static void touch_host(struct machine *machine)
{
    uint8_t bytes[512];
    size_t length = next_byte(machine);
    memset(bytes, 'h', sizeof(bytes));
    ssize_t done = read(machine->out[0], bytes, sizeof(bytes));
    if (length == 255 && machine->in[1] >= 0) { /* the end of input */
        close(machine->in[1]);
        machine->in[1] = -1;
    } else if (machine->in[1] >= 0) {
        done = write(machine->in[1], bytes, length);
    }
    (void)done;
}

static void do_command(struct machine *machine)
{
    uint8_t raw[2];
    switch (next_byte(machine) % 8) {
    case 0:
        climb(machine);
        break;
    case 1:
        offer(machine);
        break;
    case 2:
        say(machine);
        break;
    case 3: /* any word of memory */
        raw[0] = next_byte(machine);
        raw[1] = next_byte(machine);
        put_16((uint64_t)raw[0] << 8 | raw[1], next_byte(machine));
        break;
    case 4:
        virtio_kick(machine->device, next_byte(machine) % queue_count);
        break;
    case 5:
        touch_host(machine);
        break;
    case 6:
        console_window_changed(machine->device);
        break;
    default:
        virtio_device_turn(machine->device);
        break;
    }
}

static void set_up(void)
{
    signal(SIGPIPE, SIG_IGN);
    null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    full_fd = open("/dev/full", O_RDWR | O_CLOEXEC);
    event_fd = eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC);
    interrupt_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    FUZZ_CHECK(memory_new(ram_bytes, false, &memory) == 0 && null_fd >= 0 && full_fd >= 0 && event_fd >= 0);
    ram = memory_span(memory, 0, ram_bytes);
}

static void check_silence(struct machine *machine)
{
    static uint8_t before[ram_bytes];
    reset(machine);
    memcpy(before, ram, ram_bytes);
    FUZZ_CHECK(machine->in[1] < 0 || write(machine->in[1], "late", 4) != 0);
    for (unsigned i = 0; i < queue_count; i++)
        virtio_kick(machine->device, i);
    for (int i = 0; i < 4; i++)
        virtio_device_turn(machine->device);
    FUZZ_CHECK(memcmp(before, ram, ram_bytes) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct vial_console_ops ops = {
        .size = sizeof(ops), .read = give_little, .write = take_little, .poll_fd = poll_little};
    struct machine machine = {.data = data, .left = size};
    if (memory == NULL)
        set_up();
    memset(ram, 0, ram_bytes);
    FUZZ_CHECK(pipe2(machine.in, O_NONBLOCK | O_CLOEXEC) == 0 && pipe2(machine.out, O_NONBLOCK | O_CLOEXEC) == 0);
    int first_free = dup(null_fd);
    close(first_free);
    struct console_port_options ports[port_count] = {
        {.is_console = true, .input_fd = machine.in[0], .output_fd = machine.out[1], .tty_fd = -1},
        {.name = "full", .input_fd = null_fd, .output_fd = full_fd, .tty_fd = -1},
        {.name = "functions", .kind = CONSOLE_PORT_CUSTOM, .ops = &ops, .tty_fd = -1},
        {.name = "nothing", .input_fd = -1, .output_fd = -1, .tty_fd = -1},
    };
    struct console_options options = {.ports = ports, .port_count = port_count};
    FUZZ_CHECK(console_new(&options, &machine.device) == 0);
    FUZZ_CHECK(mmio_new(machine.device, memory, interrupt_fd, &machine.mmio) == 0);
    climb(&machine);
    for (int i = 0; i < most_commands && machine.left > 0; i++)
        do_command(&machine);
    check_silence(&machine);
    mmio_free(machine.mmio);
    virtio_device_free(machine.device);
    int still_free = dup(null_fd);
    FUZZ_CHECK(still_free == first_free || machine.in[1] < 0);
    close(still_free);
    for (int i = 0; i < 2; i++) {
        close(machine.out[i]);
        if (machine.in[i] >= 0)
            close(machine.in[i]);
    }
    return 0;
}
