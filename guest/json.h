// SPDX-License-Identifier: Apache-2.0
/* A JSON text as a tree of nodes. */
#ifndef GUEST_JSON_H
#define GUEST_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum json_kind { JSON_KIND_NULL, JSON_KIND_BOOL, JSON_KIND_NUMBER, JSON_KIND_TEXT, JSON_KIND_ARRAY, JSON_KIND_OBJECT };

struct json_node {
    enum json_kind kind;
    uint32_t place; /* where it begins in the text */
    uint32_t next,
        child;        /* its next brother's number, and its first child's; 0: there is none, as the root is neither */
    const char *key;  /* borrowed from the text: its name in an object, else NULL */
    const char *text; /* the same, of a JSON_KIND_TEXT */
};

struct json_tree {
    struct json_node *nodes; /* owned; the first is the root */
    size_t count, capacity;
};

#define JSON_TREE_INIT                                                                                                 \
    {                                                                                                                  \
        NULL, 0, 0                                                                                                     \
    }

/* Reads the text into an empty tree. The text is changed: its strings are what they stand for then, each with a NUL at
 * its end, and nodes point to them. 0, -EBADMSG for what is no JSON, -E2BIG for more than the limits, -ENOMEM; then
 * *ret_place is where it went wrong, and the tree is empty. */
int json_tree_read(struct json_tree *tree, char *text, size_t length, size_t *ret_place);
void json_tree_free(struct json_tree *tree);

/* The node's first child, a node's next brother: NULL where there is none. */
const struct json_node *json_tree_child(const struct json_tree *tree, const struct json_node *node);
const struct json_node *json_tree_next(const struct json_tree *tree, const struct json_node *node);

/* The member of that name, of several the last one; NULL where there is none, or it is null, or the node no object. */
const struct json_node *json_tree_member(const struct json_tree *tree, const struct json_node *node, const char *name);

#endif
