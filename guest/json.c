// SPDX-License-Identifier: Apache-2.0
/* JSON (RFC 8259), read into a tree of bounded size.
 *
 * The guest's first process is linked against musl alone, for which there is no jansson to be had, the library that the
 * host side uses. Little of JSON is needed here: texts, arrays and objects; numbers are checked and not looked at.
 *
 *     text ──> nodes in the order in which they begin; each knows its first child and its next brother
 *
 * The reader does not call itself: what is open stands on a stack of its own, so depth costs no memory that nobody
 * counts. Strings are replaced in place by what they stand for, which is never longer than how it is written (the
 * shortest escape, \n, is two bytes for one; one by its number is six for at most three).
 *
 * Strings may hold any byte from 0x20 on: paths are not always UTF-8. They may not hold a NUL, which no argument can.
 *
 * Invariants: (1) nothing is read or written outside the text. (2) every node is the child of one that stands before
 * it, so following children and brothers ends. (3) nodes, depth and length are bounded (base/limits.h).
 *
 * Trust: the text is anybody's.
 */
#include "json.h"

#include "base/alloc.h"
#include "base/limits.h"

#include <errno.h>
#include <string.h>

struct reader {
    char *begin, *next, *end;
    struct json_tree *tree;
    struct level {
        uint32_t node, last; /* what is open, and its last child so far, or 0 */
    } open[LIMIT_JSON_DEPTH];
    size_t depth;
};

/* ---- characters ---- */

static void skip_space(struct reader *reader)
{
    while (reader->next < reader->end && memchr(" \t\r\n", *reader->next, 4) != NULL)
        reader->next++;
}

static bool take(struct reader *reader, char character)
{
    bool is_next = reader->next < reader->end && *reader->next == character;
    reader->next += is_next;
    return is_next;
}

static bool take_word(struct reader *reader, const char *word)
{
    size_t length = strlen(word);
    if ((size_t)(reader->end - reader->next) < length || memcmp(reader->next, word, length) != 0)
        return false;
    reader->next += length;
    return true;
}

static size_t take_digits(struct reader *reader)
{
    const char *begin = reader->next;
    while (reader->next < reader->end && *reader->next >= '0' && *reader->next <= '9')
        reader->next++;
    return (size_t)(reader->next - begin);
}

static bool take_number(struct reader *reader)
{
    take(reader, '-');
    if (!take(reader, '0') && take_digits(reader) == 0)
        return false;
    if (take(reader, '.') && take_digits(reader) == 0)
        return false;
    if (!take(reader, 'e') && !take(reader, 'E'))
        return true;
    if (!take(reader, '+'))
        take(reader, '-');
    return take_digits(reader) > 0;
}

/* ---- strings ---- */

/* The four digits behind \u. */
static bool take_unit(struct reader *reader, uint32_t *ret_unit)
{
    static const char digits[] = "0123456789abcdef0123456789ABCDEF";
    *ret_unit = 0;
    for (int i = 0; i < 4; i++) {
        const char *digit = reader->next < reader->end ? memchr(digits, *reader->next, sizeof(digits) - 1) : NULL;
        if (digit == NULL)
            return false;
        *ret_unit = *ret_unit << 4 | ((uint32_t)(digit - digits) & 15);
        reader->next++;
    }
    return true;
}

/* Behind \u: one unit, or the two halves of what has no unit of its own (RFC 8259, 7). */
static bool take_code(struct reader *reader, uint32_t *ret_code)
{
    uint32_t low;
    if (!take_unit(reader, ret_code) || *ret_code == 0 || (*ret_code >= 0xdc00 && *ret_code < 0xe000))
        return false;
    if (*ret_code < 0xd800 || *ret_code >= 0xe000)
        return true;
    if (!take_word(reader, "\\u") || !take_unit(reader, &low) || low < 0xdc00 || low >= 0xe000)
        return false;
    *ret_code = 0x10000 + ((*ret_code - 0xd800) << 10) + (low - 0xdc00);
    return true;
}

/* In UTF-8, at most four bytes. */
static char *write_code(char *to, uint32_t code)
{
    int more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    static const unsigned char first[] = {0, 0xc0, 0xe0, 0xf0};
    *to++ = (char)(first[more] | code >> (6 * more));
    while (more-- > 0)
        *to++ = (char)(0x80 | (code >> (6 * more) & 0x3f));
    return to;
}

/* What stands behind a backslash. NULL where that is nothing known. */
static char *take_escape(struct reader *reader, char *to)
{
    static const char written[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    uint32_t code;
    if (take(reader, 'u'))
        return take_code(reader, &code) ? write_code(to, code) : NULL;
    const char *found = reader->next < reader->end ? memchr(written, *reader->next, sizeof(written) - 1) : NULL;
    if (found == NULL)
        return NULL;
    reader->next++;
    *to++ = meant[found - written];
    return to;
}

/* NULL where none stands here that is whole. */
static const char *take_text(struct reader *reader)
{
    if (!take(reader, '"'))
        return NULL;
    char *begin = reader->next, *to = begin;
    for (;;) {
        if (reader->next == reader->end || (unsigned char)*reader->next < ' ')
            return NULL;
        if (take(reader, '"'))
            break;
        bool is_escape = take(reader, '\\');
        if (!is_escape)
            *to++ = *reader->next++;
        else if ((to = take_escape(reader, to)) == NULL)
            return NULL;
    }
    *to = '\0'; /* at the place of the mark that ends it, or before */
    return begin;
}

/* ---- nodes ---- */

/* A new last child of what is open. */
static int add_node(struct reader *reader, const char *key, enum json_kind kind, size_t place)
{
    struct json_tree *tree = reader->tree;
    int result = alloc_grow((void **)&tree->nodes, tree->count, &tree->capacity, sizeof(tree->nodes[0]),
                            LIMIT_JSON_NODES);
    if (result < 0)
        return result;
    uint32_t number = (uint32_t)tree->count++;
    tree->nodes[number] = (struct json_node){.kind = kind, .place = (uint32_t)place, .key = key};
    if (reader->depth == 0)
        return 0;
    struct level *level = &reader->open[reader->depth - 1];
    uint32_t *link = level->last != 0 ? &tree->nodes[level->last].next : &tree->nodes[level->node].child;
    *link = level->last = number;
    return 0;
}

static int open_level(struct reader *reader)
{
    if (reader->depth == LIMIT_JSON_DEPTH)
        return -E2BIG;
    reader->open[reader->depth++] = (struct level){.node = (uint32_t)reader->tree->count - 1};
    return 0;
}

/* The value that stands here; of an array or an object only its begin. */
static int take_value(struct reader *reader, const char *key)
{
    size_t place = (size_t)(reader->next - reader->begin);
    bool is_object = take(reader, '{');
    if (is_object || take(reader, '[')) {
        int result = add_node(reader, key, is_object ? JSON_KIND_OBJECT : JSON_KIND_ARRAY, place);
        return result < 0 ? result : open_level(reader);
    }
    if (reader->next < reader->end && *reader->next == '"') {
        const char *text = take_text(reader);
        int result = text == NULL ? -EBADMSG : add_node(reader, key, JSON_KIND_TEXT, place);
        if (result == 0)
            reader->tree->nodes[reader->tree->count - 1].text = text;
        return result;
    }
    if (take_word(reader, "null"))
        return add_node(reader, key, JSON_KIND_NULL, place);
    if (take_word(reader, "true") || take_word(reader, "false"))
        return add_node(reader, key, JSON_KIND_BOOL, place);
    return take_number(reader) ? add_node(reader, key, JSON_KIND_NUMBER, place) : -EBADMSG;
}

/* What follows in the innermost array or object: its end, or the next value. */
static int take_next(struct reader *reader)
{
    const struct level *level = &reader->open[reader->depth - 1];
    bool is_object = reader->tree->nodes[level->node].kind == JSON_KIND_OBJECT;
    const char *key = NULL;
    skip_space(reader);
    if (take(reader, is_object ? '}' : ']')) {
        reader->depth--;
        return 0;
    }
    if (level->last != 0 && !take(reader, ','))
        return -EBADMSG;
    skip_space(reader);
    if (is_object) {
        key = take_text(reader);
        skip_space(reader);
        if (key == NULL || !take(reader, ':'))
            return -EBADMSG;
        skip_space(reader);
    }
    return take_value(reader, key);
}

/* ---- trees ---- */

int json_tree_read(struct json_tree *tree, char *text, size_t length, size_t *ret_place)
{
    struct reader reader = {.begin = text, .next = text, .end = text + length, .tree = tree};
    int result = length > UINT32_MAX ? -E2BIG : 0;
    if (result == 0) {
        skip_space(&reader);
        result = take_value(&reader, NULL);
    }
    while (result == 0 && reader.depth > 0)
        result = take_next(&reader);
    if (result == 0) {
        skip_space(&reader);
        result = reader.next < reader.end ? -EBADMSG : 0;
    }
    if (result < 0) {
        *ret_place = (size_t)(reader.next - text);
        json_tree_free(tree);
    }
    return result;
}

void json_tree_free(struct json_tree *tree)
{
    free(tree->nodes);
    *tree = (struct json_tree)JSON_TREE_INIT;
}

static const struct json_node *node_of(const struct json_tree *tree, uint32_t number)
{
    return number != 0 ? &tree->nodes[number] : NULL;
}

const struct json_node *json_tree_child(const struct json_tree *tree, const struct json_node *node)
{
    return node_of(tree, node->child);
}

const struct json_node *json_tree_next(const struct json_tree *tree, const struct json_node *node)
{
    return node_of(tree, node->next);
}

const struct json_node *json_tree_member(const struct json_tree *tree, const struct json_node *node, const char *name)
{
    const struct json_node *found = NULL;
    if (node->kind != JSON_KIND_OBJECT)
        return NULL;
    for (const struct json_node *each = json_tree_child(tree, node); each != NULL; each = json_tree_next(tree, each))
        if (strcmp(each->key, name) == 0)
            found = each;
    return found != NULL && found->kind != JSON_KIND_NULL ? found : NULL;
}
