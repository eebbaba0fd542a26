/* A plugin that breaks the interface in the way that a macro chooses. */
#include <stdlib.h>
#include <string.h>

#include "spark_backbone.h"

#ifndef ABI
#define ABI SPARK_ABI_VERSION
#endif
#ifndef LIBTORCH
#define LIBTORCH "2.13.0"
#endif
#ifndef STRIDE
#define STRIDE 4
#endif
#ifndef CONFIG
#define CONFIG "{}"
#endif

static int backbone;

static char *copied(const char *text) {
    char *copy = malloc(strlen(text) + 1);
    return copy == NULL ? NULL : strcpy(copy, text);
}

uint32_t spark_abi_version(void) { return ABI; }
const char *spark_libtorch_version(void) { return LIBTORCH; }

SparkStatus spark_backbone_create(const char *config, SparkBackbone **out, char **error) {
    if (strcmp(config, "silent") == 0) {
        return SPARK_INTERNAL;
    }
    if (strcmp(config, "loud") == 0) {
        *error = copied("no, says the plugin");
        return SPARK_INVALID;
    }
    *out = (SparkBackbone *)&backbone;
    return SPARK_OK;
}

void spark_backbone_destroy(SparkBackbone *gone) { (void)gone; }

SparkStatus spark_backbone_config(const SparkBackbone *b, char **json, char **error) {
    (void)b, (void)error;
    *json = copied(CONFIG);
    return SPARK_OK;
}

SparkStatus spark_backbone_level_count(const SparkBackbone *b, size_t *count, char **error) {
    (void)b, (void)error;
    *count = 1;
    return SPARK_OK;
}

SparkStatus spark_backbone_level(const SparkBackbone *b, size_t index, SparkLevel *level,
                                 char **error) {
    (void)b, (void)error;
    level->stage = (int64_t)index;
    level->channels = 8;
    level->stride = STRIDE;
    return SPARK_OK;
}

/* Says that all went well, and hands out nothing. */
SparkStatus spark_backbone_forward(const SparkBackbone *b, const SparkTensor *input,
                                   SparkTensor **outputs, size_t count, char **error) {
    (void)b, (void)input, (void)outputs, (void)count, (void)error;
    return SPARK_OK;
}

#ifndef WITHOUT_TRAINING
SparkStatus spark_backbone_set_training(SparkBackbone *b, int32_t on, char **error) {
    (void)b, (void)on, (void)error;
    return SPARK_OK;
}
#endif

SparkStatus spark_backbone_freeze(SparkBackbone *b, int32_t parts, char **error) {
    (void)b, (void)parts, (void)error;
    return SPARK_OK;
}

SparkStatus spark_backbone_set_norm_eval(SparkBackbone *b, int32_t on, char **error) {
    (void)b, (void)on, (void)error;
    return SPARK_OK;
}

SparkStatus spark_backbone_tensor_count(const SparkBackbone *b, int32_t kind, size_t *count,
                                        char **error) {
    (void)b, (void)kind, (void)error;
    *count = 0;
    return SPARK_OK;
}

SparkStatus spark_backbone_tensor(const SparkBackbone *b, int32_t kind, size_t index,
                                  const char **name, SparkTensor **tensor, char **error) {
    (void)b, (void)kind, (void)index, (void)name, (void)tensor, (void)error;
    return SPARK_OK;
}

SparkStatus spark_backbone_load(SparkBackbone *b, const char *path, int32_t strict, char **report,
                                char **error) {
    (void)b, (void)path, (void)strict, (void)report, (void)error;
    return SPARK_OK;
}

void spark_string_free(char *string) { free(string); }
