// SPDX-License-Identifier: Apache-2.0
/* The descriptor of a VMDK disk: a text that says which extents, one behind the other, the disk is made of (VMware,
 * Virtual Disk Format 5.0, "The Descriptor File").
 *
 *     # Disk DescriptorFile
 *     version=1
 *     CID=fffffffe
 *     parentCID=ffffffff                     anything else is a link over another disk, which is not read here
 *     createType="twoGbMaxExtentFlat"
 *     RW 4192256 FLAT "disk-f001.vmdk" 0     access, sectors, kind, file, first sector in it
 *     RW 2097152 SPARSE "disk-s002.vmdk"
 *     RW 2048 ZERO
 *     ddb.geometry.heads = "16"              the disk data base: nothing that a reader needs
 *
 * Invariants: (1) lines and their sum are bounded, and no arithmetic on them wraps. (2) a line that is not understood
 * is an error: a disk with an extent left out would be another disk.
 *
 * Trust: the text is hostile. Names are only copied here; vmdk.c decides what they may lead to.
 */
#include "disk/vmdk.h"

#include "base/alloc.h"
#include "base/error.h"
#include "base/limits.h"
#include "base/text.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

/* A piece of the text. */
struct span {
    const char *text;
    size_t length;
};

struct parser {
    const char *path; /* borrowed, as is err */
    struct span rest; /* of the current line */
    size_t line_number;
    bool has_signature;
    struct vmdk_descriptor *descriptor;
    struct vial_error *err;
};

static int refuse_line(const struct parser *parser, const char *why)
{
    int result = error_set(parser->err, VIAL_ERROR_SYNTAX, VIAL_PHASE_START, "%s, line %zu: %s",
                           error_short(parser->path).text, parser->line_number, why);
    error_remedy(parser->err, "correct the descriptor, or convert the disk again with the program that made it");
    return result;
}

static bool is_blank(char character)
{
    return character == ' ' || character == '\t' || character == '\r';
}

static struct span trim(struct span span)
{
    while (span.length > 0 && is_blank(span.text[0])) {
        span.text++;
        span.length--;
    }
    while (span.length > 0 && is_blank(span.text[span.length - 1]))
        span.length--;
    return span;
}

static bool is_word(struct span span, const char *word)
{
    return span.length == strlen(word) && strncasecmp(span.text, word, span.length) == 0;
}

/* Takes the next word of the line: empty at its end. */
static struct span take_word(struct parser *parser)
{
    parser->rest = trim(parser->rest);
    struct span word = {parser->rest.text, 0};
    while (word.length < parser->rest.length && !is_blank(word.text[word.length]))
        word.length++;
    parser->rest.text += word.length;
    parser->rest.length -= word.length;
    return word;
}

/* ---- extents ---- */

static int take_access(struct parser *parser, enum vmdk_access *ret_access)
{
    static const char *const names[] = {
        [VMDK_READ_WRITE] = "RW", [VMDK_READ_ONLY] = "RDONLY", [VMDK_NO_ACCESS] = "NOACCESS"};
    struct span word = take_word(parser);
    for (size_t i = 0; i < array_length(names); i++)
        if (is_word(word, names[i])) {
            *ret_access = (enum vmdk_access)i;
            return 0;
        }
    return refuse_line(parser, "this is neither an extent, nor key=value, nor a comment");
}

static int take_kind(struct parser *parser, enum vmdk_kind *ret_kind)
{
    static const struct {
        const char *name;
        enum vmdk_kind kind;
    } kinds[] = {{"FLAT", VMDK_FLAT}, {"VMFS", VMDK_FLAT}, {"SPARSE", VMDK_SPARSE}, {"ZERO", VMDK_ZERO}};
    struct span word = take_word(parser);
    for (size_t i = 0; i < array_length(kinds); i++)
        if (is_word(word, kinds[i].name)) {
            *ret_kind = kinds[i].kind;
            return 0;
        }
    return refuse_line(parser, "an extent of a kind other than FLAT, VMFS, SPARSE and ZERO");
}

static int take_number(struct parser *parser, uint64_t *ret_number)
{
    struct span word = take_word(parser);
    if (text_to_u64(word.text, word.length, INT64_MAX / VMDK_SECTOR_BYTES, ret_number) < 0)
        return refuse_line(parser, "this needs a number of sectors, of less than 8 EiB");
    return 0;
}

static int take_name(struct parser *parser, char **ret_name)
{
    parser->rest = trim(parser->rest);
    struct span rest = parser->rest;
    const char *end = rest.length > 1 && rest.text[0] == '"' ? memchr(rest.text + 1, '"', rest.length - 1) : NULL;
    if (end == NULL || end == rest.text + 1)
        return refuse_line(parser, "this extent needs the name of a file in quotation marks");
    size_t length = (size_t)(end - rest.text) - 1;
    char *name = alloc_zero(length + 1);
    if (name == NULL)
        return error_no_memory(parser->err, VIAL_PHASE_START);
    memcpy(name, rest.text + 1, length);
    parser->rest = (struct span){end + 1, rest.length - length - 2};
    *ret_name = name;
    return 0;
}

static int take_extent(struct parser *parser, struct vmdk_line *line)
{
    int result = take_access(parser, &line->access);
    if (result == 0)
        result = take_number(parser, &line->sectors);
    if (result == 0 && line->sectors == 0)
        result = refuse_line(parser, "an extent of no sectors");
    if (result == 0)
        result = take_kind(parser, &line->kind);
    if (result == 0 && line->kind != VMDK_ZERO)
        result = take_name(parser, &line->name);
    /* What stands behind it (the id of a partition or device) is for the program that wrote it. */
    if (result == 0 && line->kind == VMDK_FLAT && trim(parser->rest).length > 0)
        result = take_number(parser, &line->offset);
    return result;
}

static int add_extent(struct parser *parser)
{
    struct vmdk_descriptor *descriptor = parser->descriptor;
    int result = alloc_grow((void **)&descriptor->lines, descriptor->count, &descriptor->capacity,
                            sizeof(*descriptor->lines), LIMIT_VMDK_EXTENTS);
    if (result == -ENOMEM)
        return error_no_memory(parser->err, VIAL_PHASE_START);
    if (result < 0) {
        error_set(parser->err, VIAL_ERROR_TOO_BIG, VIAL_PHASE_START, "%s has more than %d extents",
                  error_short(parser->path).text, LIMIT_VMDK_EXTENTS);
        error_remedy(parser->err, "convert the disk to one with larger extents");
        return result;
    }
    struct vmdk_line *line = &descriptor->lines[descriptor->count++];
    result = take_extent(parser, line);
    if (result < 0)
        return result;
    if (line->sectors > INT64_MAX / VMDK_SECTOR_BYTES - descriptor->sectors)
        return refuse_line(parser, "with this extent the disk has more than 8 EiB");
    descriptor->sectors += line->sectors;
    return 0;
}

/* ---- keys ---- */

static int set_create_type(struct parser *parser, struct span value)
{
    static const char *const types[] = {"monolithicSparse",     "monolithicFlat",  "twoGbMaxExtentSparse",
                                        "twoGbMaxExtentFlat",   "streamOptimized", "vmfs",
                                        "vmfsEagerZeroedThick", "vmfsThin",        "custom"};
    for (size_t i = 0; i < array_length(types); i++)
        if (is_word(value, types[i])) {
            memcpy(parser->descriptor->create_type, types[i], strlen(types[i]) + 1);
            return 0;
        }
    char type[64];
    text_escape(type, sizeof(type), value.text, value.length, "");
    error_set(parser->err, VIAL_ERROR_UNSUPPORTED, VIAL_PHASE_START, "%s is a VMDK disk of type \"%s\"",
              error_short(parser->path).text, type);
    error_remedy(parser->err, "convert it to a type that is read here (such as monolithicSparse or streamOptimized)");
    return -ENOTSUP;
}

static int refuse_parent(const struct parser *parser)
{
    error_set(parser->err, VIAL_ERROR_UNSUPPORTED, VIAL_PHASE_START,
              "%s is a link over another disk, which holds the rest of it", error_short(parser->path).text);
    error_remedy(parser->err, "join the two first (vmware-vdiskmanager -r, or qemu-img convert)");
    return -ENOTSUP;
}

static int take_key(struct parser *parser, struct span key, struct span value)
{
    if (value.length >= 2 && value.text[0] == '"' && value.text[value.length - 1] == '"')
        value = (struct span){value.text + 1, value.length - 2};
    if (is_word(key, "createType"))
        return set_create_type(parser, value);
    if ((is_word(key, "parentCID") && !is_word(value, "ffffffff")) || is_word(key, "parentFileNameHint"))
        return refuse_parent(parser);
    if (is_word(key, "version") && !is_word(value, "1") && !is_word(value, "2") && !is_word(value, "3"))
        return refuse_line(parser, "this version is not 1, 2 or 3");
    return 0; /* encoding, CID, ddb.*, …: nothing that a reader needs */
}

/* ---- the text ---- */

static int take_line(struct parser *parser, struct span line)
{
    static const char signature[] = "# Disk DescriptorFile";
    line = trim(line);
    parser->line_number++;
    parser->rest = line;
    if (!parser->has_signature && line.length > 0) {
        parser->has_signature = is_word(line, signature);
        return parser->has_signature ? 0 : refuse_line(parser, "this does not begin as a VMDK descriptor does");
    }
    if (line.length == 0 || line.text[0] == '#')
        return 0;
    /* An extent's name may hold an '=', a key no blank. */
    const char *equals = memchr(line.text, '=', line.length);
    size_t key_length = equals != NULL ? (size_t)(equals - line.text) : 0;
    struct span key = trim((struct span){line.text, key_length});
    if (equals == NULL || memchr(key.text, ' ', key.length) != NULL)
        return add_extent(parser);
    return take_key(parser, key, trim((struct span){equals + 1, line.length - key_length - 1}));
}

static int check_whole(const struct parser *parser)
{
    const struct vmdk_descriptor *descriptor = parser->descriptor;
    const char *lack = !parser->has_signature        ? "this is no VMDK descriptor"
                       : descriptor->count == 0      ? "there is no extent up to here"
                       : !descriptor->create_type[0] ? "there is no createType up to here"
                                                     : NULL;
    return lack != NULL ? refuse_line(parser, lack) : 0;
}

int vmdk_descriptor_parse(const char *path, const char *text, size_t length, struct vmdk_descriptor *ret_descriptor,
                          struct vial_error *err)
{
    struct vmdk_descriptor descriptor = {.lines = NULL};
    struct parser parser = {.path = path, .descriptor = &descriptor, .err = err};
    struct span rest = {text, length > 0 ? strnlen(text, length) : 0};
    int result = 0;
    while (rest.length > 0 && result == 0) {
        const char *end = memchr(rest.text, '\n', rest.length);
        size_t line_length = end != NULL ? (size_t)(end - rest.text) : rest.length;
        size_t step = line_length + (end != NULL);
        result = take_line(&parser, (struct span){rest.text, line_length});
        rest = (struct span){rest.text + step, rest.length - step};
    }
    if (result == 0)
        result = check_whole(&parser);
    if (result < 0) {
        vmdk_descriptor_free(&descriptor);
        return result;
    }
    *ret_descriptor = descriptor;
    return 0;
}

void vmdk_descriptor_free(struct vmdk_descriptor *descriptor)
{
    for (size_t i = 0; i < descriptor->count; i++)
        free(descriptor->lines[i].name);
    free(descriptor->lines);
    *descriptor = (struct vmdk_descriptor){.lines = NULL};
}
