// SPDX-License-Identifier: Apache-2.0
/* Any bytes as what host and guest of an init say to each other. What must hold: a request or a setup that is
 * understood is made into the same bytes again, and so is an answer; a host that is told any bytes, in pieces of any
 * size, takes all of them and comes to the same judgement. */
#include "fuzz.h"

#include "base/buffer.h"
#include "vmm/exec.h"

#include <errno.h>
#include <stdio.h>

static void check_request(const uint8_t *body, size_t length)
{
    struct init_request request;
    void *table = NULL;
    int result = init_decode_request(body, length, &request, &table);
    if (result < 0) {
        FUZZ_CHECK((result == -EPROTO || result == -E2BIG) && table == NULL);
        return;
    }
    auto_buffer struct buffer buffer = BUFFER_INIT(INIT_HEADER_BYTES + LIMIT_EXEC_REQUEST_BYTES);
    FUZZ_CHECK(request.args[-1] == request.path && request.args[request.arg_count] == NULL);
    FUZZ_CHECK(request.env[request.env_count] == NULL);
    FUZZ_CHECK(request.path[0] != '\0' || request.wants_config);
    FUZZ_CHECK(request.workdir[0] == '/' || (request.workdir[0] == '\0' && request.wants_config));
    FUZZ_CHECK(init_encode_request(&request, &buffer) == 0);
    FUZZ_CHECK(buffer.length == INIT_HEADER_BYTES + length);
    FUZZ_CHECK(memcmp(buffer.data + INIT_HEADER_BYTES, body, length) == 0);
    free(table);
}

static void check_setup(const uint8_t *body, size_t length)
{
    struct init_setup setup;
    void *table = NULL;
    int result = init_decode_setup(body, length, &setup, &table);
    if (result < 0) {
        FUZZ_CHECK((result == -EPROTO || result == -E2BIG) && table == NULL);
        return;
    }
    auto_buffer struct buffer buffer = BUFFER_INIT(INIT_HEADER_BYTES + LIMIT_SETUP_BYTES);
    FUZZ_CHECK(init_encode_setup(&setup, &buffer) == 0);
    FUZZ_CHECK(buffer.length == INIT_HEADER_BYTES + length);
    FUZZ_CHECK(memcmp(buffer.data + INIT_HEADER_BYTES, body, length) == 0);
    free(table);
}

/* The answer that stands at the begin, if it is one. */
static void check_answer(const uint8_t *data, size_t size)
{
    struct init_header header;
    struct init_answer answer;
    uint8_t again[INIT_MOST_ANSWER_BYTES];
    if (size < INIT_HEADER_BYTES || init_decode_header(data, &header) < 0 ||
        header.body_bytes > size - INIT_HEADER_BYTES ||
        init_decode_answer(&header, data + INIT_HEADER_BYTES, &answer) < 0)
        return;
    size_t length = init_encode_answer(&answer, again);
    FUZZ_CHECK(length == INIT_HEADER_BYTES + header.body_bytes && memcmp(again, data, length) == 0);
}

/* One that names a program, and one that leaves that to the guest. */
static const struct vial_vm_config *make_config(bool from_guest)
{
    static struct vial_vm_config *configs[2];
    struct vial_vm_config **config = &configs[from_guest];
    struct vial_exec_options options = VIAL_EXEC_OPTIONS_INIT;
    struct vial_tmpfs_options tmpfs = VIAL_TMPFS_OPTIONS_INIT;
    options.path = from_guest ? NULL : "program";
    options.from_guest = from_guest;
    tmpfs.guest = "/scratch"; /* something to blame */
    if (*config == NULL)
        FUZZ_CHECK(vial_vm_config_new(config, NULL) == 0 && vial_vm_config_set_exec(*config, &options, NULL) == 0 &&
                   vial_vm_config_add_tmpfs(*config, &tmpfs, NULL) == 0);
    return *config;
}

static struct vial_exit tell_host(const uint8_t *data, size_t size, size_t piece)
{
    struct console_port_options port[EXEC_MOST_PORTS];
    struct exec *exec = NULL;
    struct vial_exit end = VIAL_EXIT_INIT;
    uint8_t heard[64];
    size_t most = 4096; /* more than the request and a goodbye */
    FUZZ_CHECK(exec_new(make_config(size % 2 == 1), true, &exec, NULL) == 0 && exec_ports(exec, port) == 1);
    for (size_t done = 0; done < size; done += piece) {
        size_t part = size - done < piece ? size - done : piece;
        FUZZ_CHECK(port[0].ops->write(exec, data + done, part) == (ssize_t)part);
    }
    for (ssize_t got; (got = port[0].ops->read(exec, heard, sizeof(heard))) > 0; most -= (size_t)got)
        FUZZ_CHECK((size_t)got <= most);
    end.reason = VIAL_EXIT_GUEST_RESET;
    exec_judge(exec, &end);
    exec_free(exec);
    return end;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t body = size < INIT_HEADER_BYTES ? size : INIT_HEADER_BYTES; /* seeds are whole messages */
    check_request(data + body, size - body);
    check_setup(data + body, size - body);
    check_answer(data, size);
    struct vial_exit whole = tell_host(data, size, size + 1), pieces = tell_host(data, size, 1 + size % 7);
    FUZZ_CHECK(whole.reason == VIAL_EXIT_COMPLETED || whole.reason == VIAL_EXIT_FAILED);
    FUZZ_CHECK(whole.reason == pieces.reason && whole.code == pieces.code && whole.code >= 0 && whole.code <= 255);
    FUZZ_CHECK(strcmp(whole.detail, pieces.detail) == 0 && whole.detail[0] != '\0');
    return 0;
}
