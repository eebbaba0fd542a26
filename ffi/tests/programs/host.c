/* A plain C program that uses every function of spark_backbone.h.
 *
 *     host life DIR                                 every function, used well
 *     host errors DIR                               every kind of bad input
 *     host features MODEL WEIGHTS INPUT SIDE OUT    writes OUT.0, OUT.1, ...
 *
 * Exits with 1 and names the line where something is not as it must be.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <spark_backbone.h>

#include "expect.h"

static const char *directory;

/* A path in the program's directory; two can be in use at once. */
static const char *in_directory(const char *name) {
    static char paths[2][4096];
    static int turn = 0;
    turn = 1 - turn;
    snprintf(paths[turn], sizeof paths[turn], "%s/%s", directory, name);
    return paths[turn];
}

static SparkBackbone *create(const char *config) {
    SparkBackbone *backbone = NULL;
    OK(spark_backbone_create(config, &backbone, &error));
    EXPECT(backbone != NULL);
    return backbone;
}

/* Smooth numbers, different everywhere. */
static SparkTensor *make_image(int64_t channels, int64_t side) {
    const int64_t shape[4] = {1, channels, side, side};
    const size_t count = (size_t)(channels * side * side);
    float *values = malloc(count * sizeof *values);
    SparkTensor *tensor = NULL;
    EXPECT(values != NULL);
    for (size_t index = 0; index < count; ++index) {
        values[index] = sinf(0.05f * (float)index);
    }
    OK(spark_tensor_create(values, shape, 4, &tensor, &error));
    free(values);
    return tensor;
}

/* A copy of the tensor's numbers, to be freed, and how many there are. */
static float *numbers(const SparkTensor *tensor, size_t *count) {
    int64_t shape[8];
    size_t dims = 0;
    float *values;
    OK(spark_tensor_shape(tensor, shape, 8, &dims, &error));
    EXPECT(dims <= 8);
    *count = 1;
    for (size_t index = 0; index < dims; ++index) {
        *count *= (size_t)shape[index];
    }
    values = malloc(*count * sizeof *values);
    EXPECT(values != NULL);
    OK(spark_tensor_copy(tensor, values, *count, &error));
    return values;
}

static int same_numbers(const SparkTensor *a, const SparkTensor *b) {
    size_t a_count = 0, b_count = 0;
    float *a_values = numbers(a, &a_count), *b_values = numbers(b, &b_count);
    const int same = a_count == b_count && memcmp(a_values, b_values, a_count * sizeof(float)) == 0;
    free(a_values);
    free(b_values);
    return same;
}

/* The last map of a backbone in evaluation. */
static SparkTensor *last_map(SparkBackbone *backbone, const SparkTensor *image) {
    SparkTensor *maps[8];
    size_t count = 0;
    OK(spark_backbone_set_training(backbone, 0, &error));
    OK(spark_backbone_level_count(backbone, &count, &error));
    EXPECT(count >= 1 && count <= 8);
    OK(spark_backbone_forward(backbone, image, maps, count, &error));
    for (size_t index = 0; index + 1 < count; ++index) {
        spark_tensor_destroy(maps[index]);
    }
    return maps[count - 1];
}

/* Both backbones put out the same numbers. */
static int agree(SparkBackbone *a, SparkBackbone *b, const SparkTensor *image) {
    SparkTensor *from_a = last_map(a, image), *from_b = last_map(b, image);
    const int same = same_numbers(from_a, from_b);
    spark_tensor_destroy(from_a);
    spark_tensor_destroy(from_b);
    return same;
}

static void use_versions(void) {
    EXPECT(spark_abi_version() == SPARK_ABI_VERSION);
    EXPECT(strchr(spark_library_version(), '.') != NULL);
    EXPECT(strchr(spark_libtorch_version(), '.') != NULL);
    EXPECT(strchr(spark_libtorch_version(), '+') == NULL);
}

static void use_shape_and_forward(SparkBackbone *backbone, const SparkTensor *image) {
    const int64_t channels[2] = {128, 512}, strides[2] = {8, 32}, stages[2] = {1, 3};
    SparkTensor *maps[2] = {NULL, NULL};
    size_t count = 0;
    OK(spark_backbone_level_count(backbone, &count, &error));
    EXPECT(count == 2);
    OK(spark_backbone_forward(backbone, image, maps, 2, &error));
    for (size_t index = 0; index < 2; ++index) {
        SparkLevel level;
        int64_t shape[4] = {0, 0, 0, 0};
        size_t dims = 0;
        OK(spark_backbone_level(backbone, index, &level, &error));
        EXPECT(level.stage == stages[index]);
        EXPECT(level.channels == channels[index]);
        EXPECT(level.stride == strides[index]);
        OK(spark_tensor_shape(maps[index], NULL, 0, &dims, &error));
        EXPECT(dims == 4);
        OK(spark_tensor_shape(maps[index], shape, 4, &dims, &error));
        EXPECT(shape[0] == 1 && shape[1] == level.channels);
        EXPECT(shape[2] == 64 / level.stride && shape[3] == 64 / level.stride);
        spark_tensor_destroy(maps[index]);
    }
}

static void use_parameters(SparkBackbone *backbone) {
    size_t parameters = 0, buffers = 0, dims = 0;
    int64_t shape[4] = {0, 0, 0, 0};
    const char *name = NULL, *previous = "";
    SparkTensor *tensor = NULL;
    OK(spark_backbone_tensor_count(backbone, SPARK_PARAMETER, &parameters, &error));
    OK(spark_backbone_tensor_count(backbone, SPARK_BUFFER, &buffers, &error));
    /* resnet18: 20 convolutions, and a batch norm of two parameters and three
     * buffers behind each. */
    EXPECT(parameters == 60 && buffers == 60);
    for (size_t index = 0; index < parameters; ++index) {
        OK(spark_backbone_tensor(backbone, SPARK_PARAMETER, index, &name, &tensor, &error));
        EXPECT(strcmp(previous, name) < 0);
        if (strcmp(name, "conv1.weight") == 0) {
            OK(spark_tensor_shape(tensor, shape, 4, &dims, &error));
            EXPECT(dims == 4 && shape[0] == 64 && shape[1] == 3 && shape[2] == 7);
        }
        spark_tensor_destroy(tensor);
        previous = name;
    }
    EXPECT(shape[0] == 64);
}

static void use_settings(SparkBackbone *backbone) {
    char *json = NULL;
    SparkBackbone *again;
    OK(spark_backbone_freeze(backbone, 2, &error));
    OK(spark_backbone_set_norm_eval(backbone, 1, &error));
    OK(spark_backbone_set_training(backbone, 1, &error));
    OK(spark_backbone_to(backbone, "float64", NULL, &error));
    OK(spark_backbone_config(backbone, &json, &error));
    EXPECT(strstr(json, "\"model\":\"resnet18\"") != NULL);
    EXPECT(strstr(json, "\"freeze_at\":2") != NULL);
    EXPECT(strstr(json, "\"norm_eval\":true") != NULL);
    EXPECT(strstr(json, "\"training\":true") != NULL);
    EXPECT(strstr(json, "\"dtype\":\"float64\"") != NULL);
    again = create(json);
    spark_backbone_destroy(again);
    spark_string_free(json);
    OK(spark_backbone_to(backbone, "float32", "cpu", &error));
    OK(spark_backbone_to(backbone, NULL, NULL, &error));
    OK(spark_backbone_freeze(backbone, 0, &error));
    OK(spark_backbone_set_norm_eval(backbone, 0, &error));
}

static void use_files(SparkBackbone *backbone, const SparkTensor *image) {
    const char *const names[3] = {"w.safetensors", "w.pth", "w.pkl"};
    const char *const naming[3] = {NULL, "torchvision", "detectron2"};
    for (int index = 0; index < 3; ++index) {
        SparkBackbone *other = create("resnet18");
        char *report = NULL;
        OK(spark_backbone_save(backbone, in_directory(names[index]), naming[index], &error));
        EXPECT(index > 0 || !agree(backbone, other, image));
        OK(spark_backbone_load(other, in_directory(names[index]), 1, &report, &error));
        EXPECT(report != NULL && strlen(report) > 0);
        spark_string_free(report);
        EXPECT(agree(backbone, other, image));
        OK(spark_backbone_load(other, in_directory(names[index]), 1, NULL, &error));
        spark_backbone_destroy(other);
    }
}

static void live(void) {
    SparkTensor *image = make_image(3, 64);
    SparkBackbone *backbone = create("{\"model\": \"resnet18\", \"out_indices\": [1, 3]}");
    SparkBackbone *copy = NULL;
    use_versions();
    use_shape_and_forward(backbone, image);
    use_parameters(backbone);
    use_settings(backbone);
    use_files(backbone, image);
    OK(spark_backbone_clone(backbone, &copy, &error));
    EXPECT(agree(backbone, copy, image));
    spark_backbone_destroy(backbone);
    spark_tensor_destroy(last_map(copy, image)); /* lives without the original */
    spark_backbone_destroy(copy);
    spark_tensor_destroy(image);
    /* Nothing to end is no fault. */
    spark_backbone_destroy(NULL);
    spark_tensor_destroy(NULL);
    spark_string_free(NULL);
    /* A NULL place for the sentence is allowed. */
    EXPECT(spark_backbone_create("no such model", &copy, NULL) == SPARK_INVALID);
}

static void refuse_configs(void) {
    SparkBackbone *b = NULL;
#define REFUSED_CONFIG(first, second, config) \
    REFUSED(SPARK_INVALID, first, second, spark_backbone_create(config, &b, &error))
    REFUSED_CONFIG("config", "NULL", NULL);
    REFUSED(SPARK_INVALID, "backbone", "NULL", spark_backbone_create("resnet18", NULL, &error));
    REFUSED_CONFIG("config", "UTF-8", "resnet\xff\xfe");
    REFUSED_CONFIG("config", "", "{\"model\": ");
    REFUSED_CONFIG("config", "modell", "{\"modell\": \"resnet18\"}");
    REFUSED_CONFIG("config", "model", "{}");
    REFUSED_CONFIG("config", "string", "{\"model\": \"resnet18\", \"in_chans\": \"three\"}");
    REFUSED_CONFIG("model", "resnet17", "resnet17");
    REFUSED_CONFIG("model", "", "");
    REFUSED_CONFIG("in_chans", "0", "{\"model\": \"resnet18\", \"in_chans\": 0}");
    REFUSED_CONFIG("drop_path_rate", "1.5", "{\"model\": \"resnet18\", \"drop_path_rate\": 1.5}");
    REFUSED_CONFIG("out_indices", "[]", "{\"model\": \"resnet18\", \"out_indices\": []}");
    REFUSED_CONFIG("out_indices", "[4]", "{\"model\": \"resnet18\", \"out_indices\": [4]}");
    REFUSED_CONFIG("out_indices", "-1", "{\"model\": \"resnet18\", \"out_indices\": [-1]}");
    REFUSED_CONFIG("out_indices", "ascending", "{\"model\": \"resnet18\", \"out_indices\": [2, 1]}");
    REFUSED_CONFIG("dtype", "int8", "{\"model\": \"resnet18\", \"dtype\": \"int8\"}");
    REFUSED_CONFIG("device", "abacus", "{\"model\": \"resnet18\", \"device\": \"abacus\"}");
    REFUSED_CONFIG("device", "cuda:99", "{\"model\": \"resnet18\", \"device\": \"cuda:99\"}");
    REFUSED_CONFIG("freeze_at", "6", "{\"model\": \"resnet18\", \"freeze_at\": 6}");
    EXPECT(b == NULL);
    REFUSED(SPARK_IO, "/nowhere/w.pth", "",
            spark_backbone_create("{\"model\": \"resnet18\", \"weights\": \"/nowhere/w.pth\"}", &b,
                                  &error));
    EXPECT(b == NULL);
}

static void refuse_calls(SparkBackbone *b, const SparkTensor *image) {
    SparkBackbone *other = NULL;
    SparkLevel level;
    SparkTensor *t = NULL;
    const char *name = NULL;
    char *text = NULL;
    size_t count = 0;
    REFUSED(SPARK_INVALID, "backbone", "NULL", spark_backbone_clone(NULL, &other, &error));
    REFUSED(SPARK_INVALID, "copy", "NULL", spark_backbone_clone(b, NULL, &error));
    REFUSED(SPARK_INVALID, "backbone", "NULL", spark_backbone_config(NULL, &text, &error));
    REFUSED(SPARK_INVALID, "json", "NULL", spark_backbone_config(b, NULL, &error));
    REFUSED(SPARK_INVALID, "backbone", "NULL", spark_backbone_level_count(NULL, &count, &error));
    REFUSED(SPARK_INVALID, "count", "NULL", spark_backbone_level_count(b, NULL, &error));
    REFUSED(SPARK_INVALID, "level index is 4", "", spark_backbone_level(b, 4, &level, &error));
    REFUSED(SPARK_INVALID, "level", "NULL", spark_backbone_level(b, 0, NULL, &error));
    REFUSED(SPARK_INVALID, "backbone", "NULL", spark_backbone_set_training(NULL, 1, &error));
    REFUSED(SPARK_INVALID, "backbone", "NULL", spark_backbone_set_norm_eval(NULL, 1, &error));
    REFUSED(SPARK_INVALID, "freeze_at is 6", "", spark_backbone_freeze(b, 6, &error));
    REFUSED(SPARK_INVALID, "freeze_at is -1", "", spark_backbone_freeze(b, -1, &error));
    REFUSED(SPARK_INVALID, "dtype", "int8", spark_backbone_to(b, "int8", NULL, &error));
    REFUSED(SPARK_INVALID, "device", "abacus", spark_backbone_to(b, NULL, "abacus", &error));
    REFUSED(SPARK_INVALID, "device", "UTF-8", spark_backbone_to(b, NULL, "\xff", &error));
    REFUSED(SPARK_INVALID, "kind is 3", "", spark_backbone_tensor_count(b, 3, &count, &error));
    REFUSED(SPARK_INVALID, "index is 60", "",
            spark_backbone_tensor(b, SPARK_BUFFER, 60, &name, &t, &error));
    REFUSED(SPARK_INVALID, "name", "NULL", spark_backbone_tensor(b, 0, 0, NULL, &t, &error));
    REFUSED(SPARK_INVALID, "tensor", "NULL", spark_backbone_tensor(b, 0, 0, &name, NULL, &error));
    REFUSED(SPARK_INVALID, "data", "NULL", spark_tensor_create(NULL, (int64_t[]){1}, 1, &t, &error));
    REFUSED(SPARK_INVALID, "shape", "NULL", spark_tensor_create((float[]){1}, NULL, 1, &t, &error));
    REFUSED(SPARK_INVALID, "shape", "-2",
            spark_tensor_create((float[]){1}, (int64_t[]){-2}, 1, &t, &error));
    REFUSED(SPARK_INVALID, "tensor", "NULL",
            spark_tensor_create((float[]){1}, (int64_t[]){1}, 1, NULL, &error));
    REFUSED(SPARK_INVALID, "tensor", "NULL", spark_tensor_shape(NULL, NULL, 0, &count, &error));
    REFUSED(SPARK_INVALID, "dims", "NULL", spark_tensor_shape(image, NULL, 0, NULL, &error));
    REFUSED(SPARK_INVALID, "count is 1", "", spark_tensor_copy(image, (float[]){0}, 1, &error));
    REFUSED(SPARK_INVALID, "data", "NULL", spark_tensor_copy(image, NULL, 1, &error));
    EXPECT(other == NULL && t == NULL && text == NULL && name == NULL && count == 0);
}

static void refuse_inputs(SparkBackbone *b, const SparkTensor *image) {
    SparkTensor *maps[4] = {NULL, NULL, NULL, NULL};
    SparkTensor *grey = make_image(1, 64), *small = make_image(3, 16), *flat = NULL;
    const int64_t shape[2] = {2, 3};
    const float six[6] = {0, 1, 2, 3, 4, 5};
    OK(spark_tensor_create(six, shape, 2, &flat, &error));
    REFUSED(SPARK_INVALID, "input", "NULL", spark_backbone_forward(b, NULL, maps, 4, &error));
    REFUSED(SPARK_INVALID, "outputs", "NULL", spark_backbone_forward(b, image, NULL, 4, &error));
    REFUSED(SPARK_INVALID, "backbone", "NULL", spark_backbone_forward(NULL, image, maps, 4, &error));
    REFUSED(SPARK_INVALID, "count is 3", "4 maps", spark_backbone_forward(b, image, maps, 3, &error));
    REFUSED(SPARK_INVALID, "input", "1", spark_backbone_forward(b, grey, maps, 4, &error));
    REFUSED(SPARK_INVALID, "input", "16", spark_backbone_forward(b, small, maps, 4, &error));
    REFUSED(SPARK_INVALID, "input", "[2, 3]", spark_backbone_forward(b, flat, maps, 4, &error));
    OK(spark_backbone_to(b, "float64", NULL, &error));
    REFUSED(SPARK_INVALID, "input's type", "float64",
            spark_backbone_forward(b, image, maps, 4, &error));
    OK(spark_backbone_to(b, "float32", NULL, &error));
    EXPECT(maps[0] == NULL);
    spark_tensor_destroy(grey);
    spark_tensor_destroy(small);
    spark_tensor_destroy(flat);
}

static void write_file(const char *name, const char *content) {
    FILE *file = fopen(in_directory(name), "wb");
    EXPECT(file != NULL && fputs(content, file) >= 0 && fclose(file) == 0);
}

static void refuse_files(SparkBackbone *b) {
    SparkBackbone *deeper = create("resnet50");
    char *report = NULL;
    write_file("poem.pth", "Roses are red, this is no checkpoint.");
    REFUSED(SPARK_INVALID, "path", "NULL", spark_backbone_load(b, NULL, 1, &report, &error));
    REFUSED(SPARK_INVALID, "path", "UTF-8", spark_backbone_load(b, "\xff", 1, &report, &error));
    REFUSED(SPARK_IO, "/nowhere/w", "", spark_backbone_load(b, "/nowhere/w", 1, &report, &error));
    REFUSED(SPARK_FORMAT, "poem.pth", "",
            spark_backbone_load(b, in_directory("poem.pth"), 1, &report, &error));
    OK(spark_backbone_save(deeper, in_directory("r50.pth"), NULL, &error));
    REFUSED(SPARK_WEIGHTS, "layer1", "shape",
            spark_backbone_load(b, in_directory("r50.pth"), 1, &report, &error));
    EXPECT(report == NULL);
    REFUSED(SPARK_INVALID, "path", "NULL", spark_backbone_save(b, NULL, NULL, &error));
    REFUSED(SPARK_INVALID, "w.txt", "", spark_backbone_save(b, in_directory("w.txt"), NULL, &error));
    REFUSED(SPARK_INVALID, "keras", "",
            spark_backbone_save(b, in_directory("w.pth"), "keras", &error));
    REFUSED(SPARK_IO, "/nowhere/w.pth", "", spark_backbone_save(b, "/nowhere/w.pth", NULL, &error));
    spark_backbone_destroy(deeper);
}

static void refuse(void) {
    SparkBackbone *backbone = create("resnet18"), *before = NULL;
    SparkTensor *image = make_image(3, 64);
    OK(spark_backbone_clone(backbone, &before, &error));
    refuse_configs();
    refuse_calls(backbone, image);
    refuse_inputs(backbone, image);
    refuse_files(backbone);
    /* After all that it is what it was. */
    EXPECT(agree(backbone, before, image));
    EXPECT(unexpected == 0);
    spark_backbone_destroy(backbone);
    spark_backbone_destroy(before);
    spark_tensor_destroy(image);
}

static void write_features(char **words) {
    char config[8192], path[4096];
    const int64_t side = strtol(words[3], NULL, 10);
    const int64_t shape[4] = {1, 3, side, side};
    const size_t count = (size_t)(3 * side * side);
    float *values = malloc(count * sizeof *values);
    FILE *file = fopen(words[2], "rb");
    SparkBackbone *backbone;
    SparkTensor *image = NULL, *maps[8];
    size_t levels = 0;
    EXPECT(values != NULL && file != NULL && fread(values, sizeof *values, count, file) == count);
    fclose(file);
    OK(spark_tensor_create(values, shape, 4, &image, &error));
    free(values);
    snprintf(config, sizeof config,
             "{\"model\": \"%s\", \"weights\": \"%s\", \"training\": false}", words[0], words[1]);
    backbone = create(config);
    OK(spark_backbone_level_count(backbone, &levels, &error));
    EXPECT(levels <= 8);
    OK(spark_backbone_forward(backbone, image, maps, levels, &error));
    for (size_t level = 0; level < levels; ++level) {
        size_t size = 0;
        float *map = numbers(maps[level], &size);
        snprintf(path, sizeof path, "%s.%d", words[4], (int)level);
        file = fopen(path, "wb");
        EXPECT(file != NULL && fwrite(map, sizeof *map, size, file) == size && fclose(file) == 0);
        free(map);
        spark_tensor_destroy(maps[level]);
    }
    spark_tensor_destroy(image);
    spark_backbone_destroy(backbone);
}

int main(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "life") == 0) {
        directory = argv[2];
        live();
    } else if (argc == 3 && strcmp(argv[1], "errors") == 0) {
        directory = argv[2];
        refuse();
    } else if (argc == 7 && strcmp(argv[1], "features") == 0) {
        write_features(argv + 2);
    } else {
        fprintf(stderr, "usage: host life|errors DIR, host features MODEL WEIGHTS INPUT SIDE OUT\n");
        return 2;
    }
    puts("all well");
    return 0;
}
