/* Reads and writes Protobuf messages, as far as a driver needs it.

   A message is a sequence of fields, each with a number and a value: an integer (also for booleans and enums), or bytes (also
   for text and nested messages). A reader returns one field after the other; a writer appends fields. */
#ifndef PROTOBUF_H
#define PROTOBUF_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* ---- reading */

typedef struct {
  const uint8_t *at, *end;
  /* Whether the bytes are not a valid message. */
  bool is_broken;
} pb_reader;

typedef struct {
  uint32_t number;
  /* The value of an integer field. */
  uint64_t value;
  /* The value of a bytes field; points into the message. */
  const uint8_t *ptr;
  size_t len;
} pb_field;

static inline pb_reader pb_read(const uint8_t *ptr, size_t len) {
  return (pb_reader){.at = ptr, .end = len ? ptr + len : ptr, .is_broken = false};
}

static inline uint64_t pb_read_varint(pb_reader *reader) {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    if (reader->at == reader->end) break;
    uint8_t byte = *reader->at++;
    value |= (uint64_t)(byte & 0x7f) << shift;
    if (!(byte & 0x80)) return value;
  }
  reader->is_broken = true;
  return 0;
}

/* Skips `len` bytes and returns where they begin. */
static inline const uint8_t *pb_skip(pb_reader *reader, uint64_t len) {
  const uint8_t *start = reader->at;
  if (len > (uint64_t)(reader->end - reader->at)) {
    reader->is_broken = true;
    return start;
  }
  reader->at += len;
  return start;
}

/* Reads the next field; false at the end, or if the message is invalid. To skip a field, read the next one. */
static inline bool pb_next(pb_reader *reader, pb_field *field) {
  if (reader->is_broken || reader->at == reader->end) return false;
  *field = (pb_field){0};
  uint64_t key = pb_read_varint(reader);
  field->number = (uint32_t)(key >> 3);
  switch (key & 7) {
    case 0:
      field->value = pb_read_varint(reader);
      break;
    case 1:
      pb_skip(reader, 8);
      break;
    case 2: {
      uint64_t len = pb_read_varint(reader);
      field->ptr = pb_skip(reader, len);
      field->len = reader->is_broken ? 0 : (size_t)len;
      break;
    }
    case 5:
      pb_skip(reader, 4);
      break;
    default:
      reader->is_broken = true;
  }
  return !reader->is_broken;
}

/* ---- writing */

typedef struct {
  uint8_t *ptr;
  size_t len, capacity;
  /* Whether memory ran out, so that the message is incomplete. */
  bool is_broken;
} pb_writer;

static inline void pb_append(pb_writer *writer, const void *ptr, size_t len) {
  if (writer->is_broken || len == 0) return;
  if (writer->capacity - writer->len < len) {
    size_t capacity = (writer->len + len) * 2;
    uint8_t *larger = capacity > len ? realloc(writer->ptr, capacity) : NULL;
    if (!larger) {
      writer->is_broken = true;
      return;
    }
    writer->ptr = larger;
    writer->capacity = capacity;
  }
  memcpy(writer->ptr + writer->len, ptr, len);
  writer->len += len;
}

static inline void pb_append_varint(pb_writer *writer, uint64_t value) {
  uint8_t bytes[10];
  size_t len = 0;
  do {
    bytes[len++] = (uint8_t)(value & 0x7f) | (value > 0x7f ? 0x80 : 0);
    value >>= 7;
  } while (value);
  pb_append(writer, bytes, len);
}

static inline void pb_write_integer(pb_writer *writer, uint32_t number, uint64_t value) {
  pb_append_varint(writer, (uint64_t)number << 3);
  pb_append_varint(writer, value);
}

static inline void pb_write_bytes(pb_writer *writer, uint32_t number, const void *ptr, size_t len) {
  pb_append_varint(writer, (uint64_t)number << 3 | 2);
  pb_append_varint(writer, len);
  pb_append(writer, ptr, len);
}

static inline void pb_write_text(pb_writer *writer, uint32_t number, const char *text) {
  pb_write_bytes(writer, number, text, strlen(text));
}

/* Writes a message as a field of another one, and frees it. */
static inline void pb_write_message(pb_writer *writer, uint32_t number, pb_writer *inner) {
  pb_write_bytes(writer, number, inner->ptr, inner->len);
  writer->is_broken |= inner->is_broken;
  free(inner->ptr);
  *inner = (pb_writer){0};
}

#endif
